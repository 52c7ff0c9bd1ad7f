"""Sets on several nodes: adding wins, a remove takes what it has seen."""

from collections.abc import Iterable

from edgekv.codec import pack
from edgekv.crdt import sets
from edgekv.crdt.operation import CLEAR_SET, SUFFIX_SET_CLEAR, Operation, element_suffix
from tests.unit.crdt.histories import KEY, Replica, World


def add(world: World, replica: Replica, *members: bytes) -> None:
    world.make(replica, sets.add_operations(replica.state(), replica.company(), KEY, members, 0))


def removal(replica: Replica, *members: bytes) -> list[Operation]:
    observed = {member: dots for member, dots in replica.elements().items() if member in members}
    return sets.remove_operations(replica.state(), replica.company(), KEY, observed, 0)


def remove(world: World, replica: Replica, *members: bytes) -> None:
    world.make(replica, removal(replica, *members))


def clear(world: World, replica: Replica) -> None:
    world.make(replica, sets.clear_operations(replica.state(), replica.company(), KEY, 0))


def two_with(*members: bytes) -> tuple[World, Replica, Replica]:
    world = World(2)
    a, b = world.replicas
    add(world, a, *members)
    world.deliver_all()
    return world, a, b


def assert_all_hold(world: World, members: Iterable[bytes]) -> None:
    world.deliver_all()
    for replica in world.replicas:
        assert set(replica.elements()) == set(members)


def test_an_add_wins_over_a_concurrent_remove_and_over_a_concurrent_clear() -> None:
    for take in (lambda world, a: remove(world, a, b"x"), clear):
        world, a, b = two_with(b"x", b"y")
        take(world, a)
        add(world, b, b"x")
        assert_all_hold(world, {b"x", b"y"} if take is not clear else {b"x"})


def test_a_remove_takes_what_all_actors_added() -> None:
    world, a, b = two_with(b"x")
    add(world, b, b"x")
    assert_all_hold(world, {b"x"})
    remove(world, a, b"x")
    assert_all_hold(world, ())


def test_a_remove_leaves_the_add_that_it_had_not_seen() -> None:
    world, a, b = two_with(b"x")
    add(world, b, b"x")
    remove(world, a, b"x")  # has seen its own add only
    assert_all_hold(world, {b"x"})


def test_concurrent_removes_of_one_element_agree() -> None:
    world, a, b = two_with(b"x", b"y")
    remove(world, a, b"x")
    remove(world, b, b"x")
    assert_all_hold(world, {b"y"})


def test_an_element_removed_and_added_again_is_there() -> None:
    world, a, b = two_with(b"x")
    remove(world, b, b"x")
    world.deliver_all()
    add(world, a, b"x")
    assert_all_hold(world, {b"x"})


def test_a_clear_is_one_small_operation_whatever_the_size() -> None:
    world = World(2)
    a, _ = world.replicas
    for number in range(200):
        add(world, a, b"%d" % number)
    clear(world, a)
    (operation,) = world.changes[-1].operations
    assert operation == (CLEAR_SET, KEY, ((a.actor, 200),))
    assert len(pack(operation)) < 50
    assert_all_hold(world, ())


def test_members_stored_in_the_change_that_clears_stay() -> None:
    world, a, b = two_with(b"x", b"y")
    world.make(a, sets.store_operations(a.state(), a.company(), KEY, [b"y", b"z"]))
    assert_all_hold(world, {b"y", b"z"})
    remove(world, b, b"y")
    assert_all_hold(world, {b"z"})


def test_clears_of_several_nodes_cover_what_each_has_seen() -> None:
    world, a, b = two_with(b"x")
    add(world, a, b"a")
    add(world, b, b"b")
    clear(world, a)
    clear(world, b)
    add(world, b, b"later")
    assert_all_hold(world, {b"later"})


def test_a_swept_clear_leaves_the_elements_that_it_does_not_cover() -> None:
    world, a, b = two_with(b"x", b"y")
    clear(world, a)
    add(world, b, b"y")
    world.deliver_all()
    a.sweep()
    assert SUFFIX_SET_CLEAR not in a.rows and element_suffix(b"x") not in a.rows
    assert_all_hold(world, {b"y"})


def test_a_remove_after_a_clear_names_the_dots_above_it_only() -> None:
    world, a, b = two_with(b"x")
    clear(world, a)
    add(world, b, b"x")
    world.deliver_all()
    ((_, _, removed),) = removal(a, b"x")
    assert removed == [(b"x", ((b.actor, 1),))]
