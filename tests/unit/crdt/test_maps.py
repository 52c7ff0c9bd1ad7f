"""Maps on several nodes: fields are registers and counters, and a clear hides what is below its stamp."""

from edgekv.codec import pack
from edgekv.crdt import maps
from edgekv.crdt.operation import CLEAR_MAP, RESET_FIELDS, field_part_suffix
from edgekv.crdt.register import RANK_SYSTEM, Cell
from tests.unit.crdt.calls import text
from tests.unit.crdt.histories import KEY, Replica, World, actor


def put(world: World, replica: Replica, **pairs: bytes) -> None:
    put_ahead(world, replica, 1, **pairs)


def put_ahead(world: World, replica: Replica, hlc_step: int, /, **pairs: bytes) -> None:
    """By a clock that is ahead."""
    named = {name.encode(): value for name, value in pairs.items()}
    operations = maps.put_operations(replica.state(), replica.company(), KEY, named, replica.fields(), 0)
    world.make(replica, operations, hlc_step=hlc_step)


def delete(world: World, replica: Replica, *fields: bytes, hlc_step: int = 1) -> None:
    before = {field: found for field, found in replica.fields().items() if field in fields}
    operations = maps.delete_operations(replica.state(), replica.company(), KEY, before, 0)
    world.make(replica, operations, hlc_step=hlc_step)


def count(world: World, replica: Replica, field: bytes, delta: int) -> None:
    found = replica.fields().get(field, maps.NO_FIELD)
    operations = maps.increment_operations(
        replica.state(), replica.company(), KEY, field, found, delta, replica.actor, replica.next_seq, 0
    )
    world.make(replica, operations)


def clear(world: World, replica: Replica, hlc_step: int = 1) -> None:
    world.make(replica, maps.clear_operations(replica.state(), replica.company(), KEY, 0), hlc_step=hlc_step)


def two_with(**pairs: bytes) -> tuple[World, Replica, Replica]:
    world = World(2)
    a, b = world.replicas
    put(world, a, **pairs)
    world.deliver_all()
    return world, a, b


def assert_all_hold(world: World, **pairs: bytes) -> None:
    world.deliver_all()
    for replica in world.replicas:
        assert {field.decode(): text(found.value(0)) for field, found in replica.fields().items()} == pairs


def test_the_higher_stamp_wins_field_by_field() -> None:
    world, a, b = two_with(x=b"1", y=b"1")
    put(world, a, x=b"a")
    put_ahead(world, b, 10, x=b"b")
    put(world, b, y=b"b")
    assert_all_hold(world, x=b"b", y=b"b")


def test_a_clear_and_a_put_that_has_not_seen_it_leave_the_put_and_what_it_added() -> None:
    """Riak's map reset: A clears {X} and puts Z, B puts Y."""
    world, a, b = two_with(x=b"1")
    clear(world, a)
    put(world, a, z=b"a")
    put_ahead(world, b, 10, y=b"b")
    assert_all_hold(world, y=b"b", z=b"a")


def test_a_clear_hides_a_concurrent_put_with_a_lower_stamp() -> None:
    world, a, b = two_with(x=b"1")
    clear(world, a, hlc_step=10)
    put(world, b, y=b"b")
    assert_all_hold(world)


def test_a_put_in_the_change_of_the_clear_stays() -> None:
    world, a, _ = two_with(x=b"1")
    clearing = maps.clear_operations(a.state(), a.company(), KEY, 0)
    putting = maps.put_operations(a.state(), a.company(), KEY, {b"x": b"2"}, {}, 0)
    world.make(a, [*clearing, *putting])
    assert_all_hold(world, x=b"2")


def test_a_losing_put_that_travels_on_stays_hidden_below_a_clear() -> None:
    """A vector would not cover the version that lost at the clearing node and is still on its way to another."""
    world = World(3)
    a, b, c = world.replicas
    put(world, b, x=b"old")
    put_ahead(world, a, 10, x=b"new")
    world.deliver(c, world.changes[1])
    clear(world, c)
    world.deliver(a, world.changes[2])
    world.deliver(a, world.changes[0])
    assert_all_hold(world)


def test_concurrent_increments_of_a_field_all_count() -> None:
    world, a, b = two_with(n=b"10")
    count(world, a, b"n", 2)
    count(world, b, b"n", 3)
    assert_all_hold(world, n=b"15")


def test_an_increment_concurrent_with_the_removal_of_its_field_is_what_is_left() -> None:
    """A counter in a map: the field is removed while another node adds 1: 1, not the old value and 1."""
    for take in (lambda world, a: delete(world, a, b"n"), clear):
        world, a, b = two_with(n=b"10")
        count(world, a, b"n", 5)
        world.deliver_all()
        take(world, a)
        count(world, b, b"n", 1)
        assert_all_hold(world, n=b"1")


def test_a_put_replaces_the_increments_that_it_has_seen() -> None:
    world, a, b = two_with(n=b"10")
    count(world, a, b"n", 5)
    world.deliver_all()
    put(world, a, n=b"100")
    count(world, b, b"n", 1)
    assert_all_hold(world, n=b"101")


def test_a_field_counted_deleted_and_counted_again_starts_at_zero() -> None:
    world = World(2)
    a, b = world.replicas
    count(world, a, b"n", 6)
    world.deliver_all()
    delete(world, b, b"n")
    world.deliver_all()
    count(world, a, b"n", 6)
    assert_all_hold(world, n=b"6")


def test_a_clear_is_one_operation_and_a_reset_for_each_counter() -> None:
    world = World(1)
    (a,) = world.replicas
    for number in range(50):
        put(world, a, **{f"f{number}": b"v"})
    count(world, a, b"n", 1)
    count(world, a, b"m\x00", 1)
    clear(world, a)
    clearing, resetting = world.changes[-1].operations
    assert clearing == (CLEAR_MAP, KEY)
    assert resetting == (RESET_FIELDS, KEY, [(b"m\x00", [(a.actor, 52, 1)]), (b"n", [(a.actor, 51, 1)])])
    assert len(pack([clearing, resetting])) < 100
    assert_all_hold(world)


def test_the_change_that_clears_does_not_reset_the_part_that_it_makes_anew() -> None:
    world, a, b = two_with(n=b"10")
    count(world, a, b"n", 5)
    count(world, a, b"m", 5)
    world.deliver_all()
    expired = a.state()._replace(expiry=Cell(b"", a.hlc, a.actor, 1, 1000))
    operations = maps.increment_operations(
        expired, a.company(), KEY, b"n", a.fields()[b"n"], 7, a.actor, a.next_seq, 1000
    )
    world.make(a, operations)
    world.deliver_all()
    assert [text(found.value(0)) for found in b.fields().values()] == [b"7"]
    assert a.rows[field_part_suffix(b"n", a.actor)] == b.rows[field_part_suffix(b"n", a.actor)]


def test_a_delete_leaves_no_tombstone_where_there_was_a_counter_alone() -> None:
    world = World(1)
    (a,) = world.replicas
    count(world, a, b"n", 1)
    delete(world, a, b"n")
    assert [operation[0] for operation in world.changes[-1].operations] == [RESET_FIELDS]
    assert not a.fields()


def test_a_system_clear_hides_what_it_was_made_for_and_nothing_later() -> None:
    clear_cell = Cell(None, 10, actor(1), 5, rank=RANK_SYSTEM)
    assert maps.hidden(Cell(b"v", 10, actor(3), 1), clear_cell)
    assert not maps.hidden(Cell(b"v", 11, actor(0), 1), clear_cell)
    assert not maps.hidden(Cell(b"v", 10, actor(3), 1), None)
