"""A key of any type: one node is Redis, and what the first and the last row of a key do to the rest of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt import maps, sets, strings
from edgekv.crdt.company import Company
from edgekv.crdt.operation import (
    CLEAR_MAP,
    CLEAR_SET,
    DELETE,
    EXPIRE,
    PUT,
    PUT_FIELDS,
    RESET,
    RESET_FIELDS,
    SUFFIX_EXPIRY,
    Operation,
)
from tests.unit.crdt.calls import shown
from tests.unit.crdt.histories import KEY, Replica, World
from tests.unit.crdt.specification import Shown

Value = bytes | set[bytes] | dict[bytes, bytes]


class Redis:
    """What the verbs mean, as Redis' manual says it, for one key. A verb of another type is refused."""

    def __init__(self) -> None:
        self.value: Value | None = None
        self.expiry_ms = 0

    def forget_expired(self, now: int) -> None:
        if not self.value or 0 < self.expiry_ms <= now:
            self.value, self.expiry_ms = None, 0

    def call(self, verb: str, member: bytes, number: int, now: int) -> bool:
        """Whether the type was right."""
        value = self.value
        match verb, value:
            case "set" | "set ex", _:
                self.value, self.expiry_ms = b"%d" % number, now + number if verb == "set ex" else 0
            case "del", _:
                self.value = None
            case "expire" | "persist", _:
                self.expiry_ms = now + number if verb == "expire" else 0
            case "incr", None | bytes():
                self.value = b"%d" % (int(value or b"0") + number)
            case "sadd", None | set():
                self.value = {*(value or ()), member}
            case "srem", set():
                value.discard(member)
            case "store", _:
                self.value, self.expiry_ms = {member}, 0
            case "hset", None | dict():
                self.value = {**(value or {}), member: b"%d" % number}
            case "hdel", dict():
                value.pop(member, None)
            case "hincrby", None | dict():
                value = value or {}
                self.value = {**value, member: b"%d" % (int(value.get(member, b"0")) + number)}
            case _:
                return False
        self.forget_expired(now)
        return True

    def shown(self) -> Shown:
        value = self.value
        return Shown(
            value if isinstance(value, bytes) else None,
            frozenset(value) if isinstance(value, set) else frozenset(),
            tuple(sorted(value.items())) if isinstance(value, dict) else (),
            -1 if value is None else self.expiry_ms,
        )


def operations_of(node: Replica, verb: str, member: bytes, number: int, now: int) -> list[Operation]:
    state, company, fields = node.state(), node.company(), node.fields()
    match verb:
        case "set" | "set ex":
            return strings.put_operations(state, KEY, b"%d" % number, now + number if verb == "set ex" else 0, company)
        case "del":
            return strings.delete_operations(state, KEY, now, company)
        case "expire" | "persist":
            return strings.expire_operations(state, KEY, now + number if verb == "expire" else 0, now, company)
        case "incr":
            return strings.add_operations(state, KEY, number, node.actor, node.next_seq, now, company)
        case "sadd":
            return sets.add_operations(state, company, KEY, [member], now)
        case "srem":
            observed = {element: dots for element, dots in node.elements().items() if element == member}
            return sets.remove_operations(state, company, KEY, observed, now)
        case "store":
            return sets.store_operations(state, company, KEY, [member])
        case "hset":
            return maps.put_operations(state, company, KEY, {member: b"%d" % number}, fields, now)
        case "hdel":
            before = {field: found for field, found in fields.items() if field == member}
            return maps.delete_operations(state, company, KEY, before, now)
    found = fields.get(member, maps.NO_FIELD)
    return maps.increment_operations(state, company, KEY, member, found, number, node.actor, node.next_seq, now)


VERBS = [
    "set",
    "set ex",
    "del",
    "expire",
    "persist",
    "incr",
    "sadd",
    "srem",
    "store",
    "hset",
    "hdel",
    "hincrby",
    "wait",
]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(VERBS), st.sampled_from([b"", b"a", b"\x00"]), st.integers(1, 9)),
        min_size=15,
        max_size=40,
    )
)
def test_one_node_is_redis(history: list[tuple[str, bytes, int]]) -> None:
    world, redis, now = World(1), Redis(), 100
    (node,) = world.replicas
    for verb, member, number in history:
        if verb == "nothing":
            continue
        if verb == "wait":
            now += number
            redis.forget_expired(now)
        elif redis.call(verb, member, number, now):
            world.make(node, operations_of(node, verb, member, number, now))
        assert shown(node, now) == redis.shown()


def run(node: Replica, world: World, verb: str, member: bytes = b"a", number: int = 1, now: int = 0) -> None:
    world.make(node, operations_of(node, verb, member, number, now))


def full_key() -> tuple[World, Replica, Replica]:
    """Strings, set and map at one key: each made by a replica that had not heard of the others."""
    world = World(4)
    a, b, c, d = world.replicas
    run(a, world, "set", number=7)
    run(b, world, "incr", number=3)
    run(c, world, "sadd")
    run(d, world, "hset")
    run(d, world, "hincrby", b"n", 5)
    world.deliver_all()
    assert shown(a, 0) == Shown(b"10", frozenset({b"a"}), ((b"a", b"1"), (b"n", b"5")), 0)
    return world, a, b


def test_a_delete_clears_every_type_that_it_sees() -> None:
    world, a, b = full_key()
    run(a, world, "expire", number=1000)
    run(a, world, "del")
    codes = [operation[0] for operation in world.changes[-1].operations]
    assert codes == [DELETE, RESET, CLEAR_SET, CLEAR_MAP, RESET_FIELDS, EXPIRE]
    world.deliver_all()
    assert shown(b, 0) == Shown(None, frozenset(), (), -1)


def test_a_set_leaves_its_own_value_only() -> None:
    world, a, b = full_key()
    run(a, world, "set", number=8)
    world.deliver_all()
    assert shown(b, 0) == Shown(b"8", frozenset(), (), 0)


def test_what_a_delete_has_not_seen_survives_it_in_every_type() -> None:
    world, a, b = full_key()
    run(a, world, "del")
    run(b, world, "incr", number=4)
    run(b, world, "sadd", b"z")
    run(b, world, "hincrby", b"n", 2)
    world.deliver_all()
    assert shown(a, 0) == shown(b, 0) == Shown(b"4", frozenset({b"z"}), ((b"n", b"2"),), 0)


def test_the_first_write_after_the_expiry_clears_every_type() -> None:
    for verb in ("incr", "sadd", "hset", "hincrby"):
        world, a, b = full_key()
        run(a, world, "expire", number=1000)
        run(a, world, verb, b"new", 6, now=1000)
        world.deliver_all()
        expected = {
            "incr": Shown(b"6", frozenset(), (), 0),
            "sadd": Shown(None, frozenset({b"new"}), (), 0),
            "hset": Shown(None, frozenset(), ((b"new", b"6"),), 0),
            "hincrby": Shown(None, frozenset(), ((b"new", b"6"),), 0),
        }[verb]
        for replica in (a, b):
            assert shown(replica, 0) == shown(replica, 5000) == expected, verb


def test_the_last_row_takes_the_expiry_with_it() -> None:
    for add, remove in (("sadd", "srem"), ("hset", "hdel"), ("hincrby", "hdel")):
        world = World(1)
        (node,) = world.replicas
        run(node, world, add, b"a")
        run(node, world, add, b"b")
        run(node, world, "expire", number=1000)
        run(node, world, remove, b"a")
        assert shown(node, 0).expiry_ms == 1000
        run(node, world, remove, b"b")
        assert node.rows[SUFFIX_EXPIRY].value is None  # type: ignore[union-attr]
        run(node, world, add, b"c")
        assert shown(node, 5000).expiry_ms == 0


def test_a_clear_of_the_only_collection_takes_the_expiry_with_it() -> None:
    for add, clear in (("sadd", sets.clear_operations), ("hincrby", maps.clear_operations)):
        world = World(1)
        (node,) = world.replicas
        run(node, world, add)
        run(node, world, "expire", number=1000)
        world.make(node, clear(node.state(), node.company(), KEY, 0))
        assert node.rows[SUFFIX_EXPIRY].value is None  # type: ignore[union-attr]


def test_a_row_of_another_type_keeps_the_expiry() -> None:
    for remove in ("srem", "clear set"):
        world, a, _ = full_key()
        run(a, world, "expire", number=1000)
        if remove == "srem":
            run(a, world, "srem")
        else:
            world.make(a, sets.clear_operations(a.state(), a.company(), KEY, 0))
        assert not a.elements()
        assert a.state().key_end == 1000


def test_an_expiry_left_over_at_an_empty_key_does_not_end_what_is_written_next() -> None:
    """One replica removes the last row and x while another, which has not heard of it, moves x."""
    for verb in ("incr", "sadd", "hset", "hincrby"):
        world = World(2)
        a, b = world.replicas
        run(a, world, "sadd")
        run(a, world, "expire", number=1000)
        world.deliver_all()
        run(a, world, "srem")
        world.make(b, operations_of(b, "expire", b"", 2000, 0), hlc_step=10)
        world.deliver_all()
        assert shown(a, 0).expiry_ms == -1 and a.state().key_end == 2000
        run(a, world, verb, b"new")
        assert shown(a, 0).expiry_ms == 0, verb


def test_a_new_key_gets_the_expiry_of_its_keyspace_and_one_that_is_there_keeps_its_own() -> None:
    world = World(1)
    (node,) = world.replicas
    world.make(node, sets.add_operations(node.state(), node.company(), KEY, [b"a"], 0, 500))
    world.make(node, sets.add_operations(node.state(), node.company(), KEY, [b"b"], 100, 600))
    assert shown(node, 100).expiry_ms == 500
    world.make(node, sets.add_operations(node.state(), node.company(), KEY, [b"c"], 500, 1000))
    assert shown(node, 500) == Shown(None, frozenset({b"c"}), (), 1000)
    world.make(node, sets.store_operations(node.state(), node.company(), KEY, [b"d"], 2000))
    assert shown(node, 1000) == Shown(None, frozenset({b"d"}), (), 2000)


def test_a_register_above_the_passed_expiry_is_spared_by_the_first_write() -> None:
    """SET elsewhere, concurrent with EXPIRE and stamped above it."""
    world = World(2)
    a, b = world.replicas
    run(a, world, "sadd")
    world.deliver_all()
    run(a, world, "expire", number=1000)
    world.make(b, operations_of(b, "set", b"", 7, 0), hlc_step=100)
    run(a, world, "sadd", b"unseen")
    world.deliver_all()
    assert shown(a, 1000) == Shown(b"7", frozenset(), (), 0)
    world.make(a, sets.add_operations(a.state(), a.company(), KEY, [b"new"], 1000, 2000))  # not a new key: no expiry
    world.deliver_all()
    for replica in (a, b):
        assert shown(replica, 0) == shown(replica, 5000) == Shown(b"7", frozenset({b"new"}), (), 0)


def test_what_is_not_there_is_not_cleared() -> None:
    nothing, alone = Replica(World(1).replicas[0].actor).state(), Company()
    assert strings.clear_key_operations(nothing, KEY, alone) == []
    assert strings.delete_operations(nothing, KEY, 0, alone) == []
    assert sets.clear_operations(nothing, alone, KEY, 0) == []
    assert sets.remove_operations(nothing, alone, KEY, {}, 0) == []
    assert sets.add_operations(nothing, alone, KEY, [], 0) == []
    assert maps.clear_operations(nothing, alone, KEY, 0) == []
    assert maps.delete_operations(nothing, alone, KEY, {}, 0) == []
    assert maps.put_operations(nothing, alone, KEY, {}, {}, 0) == []


def test_what_was_cleared_is_not_cleared_again() -> None:
    world, a, _ = full_key()
    run(a, world, "del")
    assert strings.clear_key_operations(a.state(), KEY, a.company()) == []
    assert [operation[0] for operation in operations_of(a, "set", b"", 1, 0)] == [PUT]
    assert [operation[0] for operation in operations_of(a, "hset", b"n", 1, 0)] == [PUT_FIELDS]


def test_an_expiry_hides_a_removal_too() -> None:
    world, a, _ = full_key()
    run(a, world, "expire", number=1000)
    assert operations_of(a, "srem", b"a", 1, 1000) == []
    assert operations_of(a, "hdel", b"a", 1, 1000) == []
    assert sets.clear_operations(a.state(), a.company(), KEY, 1000) == []
    assert maps.clear_operations(a.state(), a.company(), KEY, 1000) == []


def test_persist_keeps_a_set_and_a_map() -> None:
    world, a, b = full_key()
    run(a, world, "expire", number=1000)
    run(a, world, "persist")
    world.deliver_all()
    assert shown(b, 5000) == Shown(b"10", frozenset({b"a"}), ((b"a", b"1"), (b"n", b"5")), 0)
