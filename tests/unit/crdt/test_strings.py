"""String verbs: one node is Redis, two nodes always show some serial order, and what expired together goes together."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.decimals import Number
from edgekv.crdt.operation import SUFFIX_EXPIRY
from edgekv.crdt.strings import (
    StringState,
    add_operations,
    delete_operations,
    expire_operations,
    parse_integer,
    put_operations,
)
from tests.unit.crdt.calls import text
from tests.unit.crdt.histories import KEY, Replica, World


def put(world: World, replica: Replica, value: bytes, expiry_ms: int = 0, hlc_step: int = 1) -> None:
    world.make(replica, put_operations(replica.state(), KEY, value, expiry_ms), hlc_step=hlc_step)


def add(world: World, replica: Replica, delta: Number = 1, now: int = 0, hlc_step: int = 1) -> None:
    state = replica.state()
    world.make(replica, add_operations(state, KEY, delta, replica.actor, replica.next_seq, now), hlc_step=hlc_step)


def delete(world: World, replica: Replica, now: int = 0, hlc_step: int = 1) -> None:
    world.make(replica, delete_operations(replica.state(), KEY, now), hlc_step=hlc_step)


def expire(world: World, replica: Replica, expiry_ms: int, now: int = 0, hlc_step: int = 1) -> None:
    world.make(replica, expire_operations(replica.state(), KEY, expiry_ms, now), hlc_step=hlc_step)


# One node.


class Redis:
    """What the verbs mean, as Redis' manual says it, for one key."""

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.expiry_ms = 0

    def forget_expired(self, now: int) -> None:
        if self.expiry_ms and self.expiry_ms <= now:
            self.value, self.expiry_ms = None, 0

    def set(self, value: bytes, expiry_ms: int) -> None:
        self.value, self.expiry_ms = value, expiry_ms

    def delete(self) -> None:
        self.value, self.expiry_ms = None, 0

    def increment(self, delta: int) -> None:
        self.value = b"%d" % (int(self.value or b"0") + delta)

    def expire(self, expiry_ms: int) -> None:
        if self.value is not None:
            self.expiry_ms = expiry_ms


calls = st.lists(
    st.tuples(
        st.sampled_from(["set", "set ex", "del", "incr", "incr", "expire", "persist", "wait"]), st.integers(1, 9)
    ),
    max_size=25,
)


@settings(max_examples=500, deadline=None)
@given(calls)
def test_one_node_is_redis(history: list[tuple[str, int]]) -> None:
    world, redis, now = World(1), Redis(), 100
    (node,) = world.replicas
    for verb, number in history:
        redis.forget_expired(now)
        match verb:
            case "set":
                put(world, node, b"%d" % number)
                redis.set(b"%d" % number, 0)
            case "set ex":
                put(world, node, b"%d" % number, now + number)
                redis.set(b"%d" % number, now + number)
            case "del":
                delete(world, node, now)
                redis.delete()
            case "incr":
                add(world, node, number, now)
                redis.increment(number)
            case "expire":
                expire(world, node, now + number, now)
                redis.expire(now + number)
            case "persist":
                expire(world, node, 0, now)
                redis.expire(0)
            case _:
                now += number
                redis.forget_expired(now)
        state = node.state()
        assert text(state.value(now)) == redis.value
        assert state.live(now) == (redis.value is not None)
        if state.live(now):
            assert state.expiry_ms() == redis.expiry_ms


def check_versions(seen: dict[object, object], state: StringState, now: int) -> None:
    if state.live(now):
        assert seen.setdefault(state.version(now), text(state.value(now))) == text(state.value(now))


@settings(max_examples=200, deadline=None)
@given(calls)
def test_a_version_is_another_one_whenever_the_value_is(history: list[tuple[str, int]]) -> None:
    """HLCs in steps of 1, as in a busy keyspace: whatever is added to one must not arrive at the next."""
    world, now = World(1), 0
    (node,) = world.replicas
    seen: dict[object, object] = {}
    for verb, number in history:
        match verb:
            case "incr":
                add(world, node, number, now)
            case "del":
                delete(world, node, now)
            case "expire":
                expire(world, node, now + number, now)
            case "wait":
                now += number
            case _:
                put(world, node, b"%d" % number)
        check_versions(seen, node.state(), now)


def test_a_version_does_not_come_again_with_the_hlc_of_a_later_write() -> None:
    world = World(1)
    (node,) = world.replicas
    seen: dict[object, object] = {}
    put(world, node, b"0")
    for _ in range(5):
        add(world, node)
        check_versions(seen, node.state(), 0)
    for number in range(9):
        put(world, node, b"%d0" % number)
        check_versions(seen, node.state(), 0)


def test_a_version_does_not_come_again_when_parts_that_were_reset_are_counted_anew() -> None:
    """b counts to its seq 2 and a to its 3; after the reset a counts at its seq 5: the sum of both, and a had the highest before."""
    world = World(2)
    a, b = world.replicas
    seen: dict[object, object] = {}
    for replica in (b, b, a, a, a):
        add(world, replica)
    world.deliver_all()
    check_versions(seen, a.state(), 0)
    delete(world, a)
    add(world, a)
    check_versions(seen, a.state(), 0)


def test_a_version_is_another_one_when_time_hides_the_parts() -> None:
    world, a, b = two_with(b"10")
    add(world, a, 1)
    expire(world, a, 1000)
    put(world, b, b"50", hlc_step=100)
    add(world, b, 7)
    world.deliver_all()
    seen: dict[object, object] = {}
    for now in (999, 1000):
        assert a.state().live(now)
        check_versions(seen, a.state(), now)
    assert len(seen) == 2


# Several nodes.


def merges(a: tuple[str, ...], b: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not a or not b:
        yield a + b
        return
    for rest in merges(a[1:], b):
        yield a[:1] + rest
    for rest in merges(a, b[1:]):
        yield b[:1] + rest


def serial(order: tuple[str, ...]) -> int | None:
    value: int | None = 7
    for verb in order:
        value = (value or 0) + 1 if verb == "incr" else None if verb == "del" else int(verb)
    return value


def play_two(a: tuple[str, ...], b: tuple[str, ...], lead: int) -> int | None:
    """The merged value after both replicas start at 7 (a register and a part) and then act without hearing of each other."""
    world = World(2)
    put(world, world.replicas[0], b"5")
    add(world, world.replicas[0], 2)
    world.deliver_all()
    world.replicas[lead % 2].hlc += 10 * (lead > 0)
    for replica, verbs in zip(world.replicas, (a, b), strict=True):
        for verb in verbs:
            if verb == "incr":
                add(world, replica)
            elif verb == "del":
                delete(world, replica)
            else:
                put(world, replica, verb.encode())
    world.deliver_all()
    values = {text(replica.state().value(0)) for replica in world.replicas}
    assert len(values) == 1
    (value,) = values
    return None if value is None else int(value)


def test_the_merged_value_of_two_replicas_is_that_of_some_serial_order() -> None:
    """Exhaustively: every history of up to three calls at each side, whichever clock is ahead."""
    verbs = ("10", "20", "incr", "del")
    sequences = [s for length in range(4) for s in product(verbs, repeat=length)]
    tried = 0
    for a, b in product(sequences, repeat=2):
        possible = {serial(order) for order in merges(a, b)}
        for lead in (0, 1, 2):
            assert play_two(a, b, lead) in possible, (a, b, lead)
            tried += 1
    assert tried == 21_675


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["set", "set ex", "del", "incr", "incr", "expire", "persist", "wait", "deliver", "deliver"]
            ),
            st.integers(0, 2),
            st.integers(1, 9),
        ),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_replicas_that_have_seen_the_same_changes_hold_the_same_rows(
    history: list[tuple[str, int, int]], dice: Random
) -> None:
    """And on the way a version names one value, whichever replica shows it."""
    world, now = World(3), 100
    seen: dict[object, object] = {}
    for verb, number, amount in history:
        replica = world.replicas[number]
        match verb:
            case "set":
                put(world, replica, b"%d" % amount)
            case "set ex":
                put(world, replica, b"%d" % amount, now + amount)
            case "del":
                delete(world, replica, now)
            case "incr":
                add(world, replica, amount, now)
            case "expire":
                expire(world, replica, now + amount, now)
            case "persist":
                expire(world, replica, 0, now)
            case "wait":
                now += amount
            case _:
                if ready := world.deliverable(replica):
                    world.deliver(replica, dice.choice(ready))
        for shown in world.replicas:
            check_versions(seen, shown.state(), now)
    world.deliver_all(dice.randrange)
    first, *others = world.replicas
    assert all(replica.rows == first.rows for replica in others)


def two_with(value: bytes, expiry_ms: int = 0) -> tuple[World, Replica, Replica]:
    world = World(2)
    a, b = world.replicas
    put(world, a, value, expiry_ms)
    world.deliver_all()
    return world, a, b


def test_concurrent_increments_all_count() -> None:
    world, a, b = two_with(b"10")
    add(world, a, 2)
    add(world, b, 3)
    world.deliver_all()
    assert a.state().value(0) == b.state().value(0) == 15


def test_an_increment_that_a_delete_did_not_see_survives_it() -> None:
    world, a, b = two_with(b"10")
    add(world, a, 2)
    delete(world, b)
    world.deliver_all()
    assert a.state().value(0) == b.state().value(0) == 2


def test_text_set_while_another_node_counts_is_shown_as_text() -> None:
    world, a, b = two_with(b"10")
    add(world, a, 2)
    put(world, b, b"text")
    world.deliver_all()
    assert a.state().value(0) == b.state().value(0) == b"text"


def test_an_increment_hands_the_registers_expiry_to_the_key() -> None:
    world, a, _ = two_with(b"10", expiry_ms=1000)
    add(world, a, 1, now=500)
    assert a.state().value(999) == 11
    assert not a.state().live(1000)
    assert a.state().expiry_ms() == 1000


def test_the_first_increment_after_the_expiry_starts_at_zero_and_has_none() -> None:
    world, a, b = two_with(b"10", expiry_ms=1000)
    add(world, a, 1, now=500)
    add(world, a, 4, now=1500)
    world.deliver_all()
    for replica in (a, b):
        assert replica.state().value(1500) == 4
        assert replica.state().expiry_ms() == 0


def expired_above_a_register() -> tuple[World, Replica, Replica]:
    """A register without an expiry of its own, hidden from 1000 on by x alone: x came with an EXPIRE that did not see it."""
    world = World(2)
    a, b = world.replicas
    put(world, b, b"50", hlc_step=5)
    add(world, a)
    expire(world, a, 1000, hlc_step=10)
    world.deliver_all()
    assert a.state().value(999) == 51
    assert not a.state().live(1000)
    return world, a, b


def test_what_expired_does_not_come_back_when_the_expiry_is_removed() -> None:
    world, a, b = expired_above_a_register()
    add(world, a, 3, now=1000)
    world.deliver_all()
    assert a.state().value(1000) == b.state().value(1000) == 3


def test_an_expiry_set_again_holds_for_increments_that_it_did_not_see() -> None:
    """x is left over from an EXPIRE that lost to a SET; it would end the other node's increment early."""
    world, a, b = two_with(b"10")
    add(world, a)
    world.deliver_all()
    expire(world, a, 1000)
    put(world, b, b"50", hlc_step=10)
    world.deliver_all()
    expire(world, a, 5000)
    add(world, b)
    world.deliver_all()
    assert a.state().value(4999) == b.state().value(4999) == 51
    assert not a.state().live(5000)


def test_a_register_newer_than_the_passed_expiry_is_counted_on() -> None:
    """SET elsewhere, concurrent with EXPIRE and stamped above it, survives the expiry; INCR then adds to it."""
    world, a, b = two_with(b"10")
    add(world, a, 1)
    expire(world, a, 1000)
    put(world, b, b"50", hlc_step=100)
    world.deliver_all()
    assert a.state().value(1000) == b"50"
    add(world, a, 1, now=1000)
    world.deliver_all()
    assert a.state().value(1000) == b.state().value(1000) == 51


def test_concurrent_fractions_add_up_exactly_to_a_register_of_any_form() -> None:
    for register, total in ((b"1e1", b"10.3"), (b"-.3", b"0"), (b"0.7", b"1"), (b"+2.50", b"2.8")):
        world, a, b = two_with(register)
        add(world, a, Fraction(1, 10))
        add(world, b, Fraction(2, 10))
        world.deliver_all()
        assert text(a.state().value(0)) == text(b.state().value(0)) == total
        assert isinstance(a.state().value(0), int) == (b"." not in total), "an integer has one form"


def test_a_fraction_that_a_delete_did_not_see_survives_it() -> None:
    world, a, b = two_with(b"10")
    add(world, a, Fraction(1, 2))
    world.deliver_all()
    add(world, a, Fraction(1, 4))
    delete(world, b)
    world.deliver_all()
    assert text(a.state().value(0)) == text(b.state().value(0)) == b"0.25"


def test_a_delete_of_nothing_and_an_expiry_of_nothing_make_no_change() -> None:
    nothing = StringState(None, None, {})
    assert delete_operations(nothing, KEY, 0) == []
    assert expire_operations(nothing, KEY, 5, 0) == []


def test_a_set_of_an_unknown_key_is_one_operation() -> None:
    assert len(put_operations(StringState(None, None, {}), KEY, b"v", 0)) == 1


def test_a_set_leaves_no_expiry_behind() -> None:
    world, a, _ = two_with(b"10", expiry_ms=1000)
    add(world, a, 1, now=500)
    put(world, a, b"v")
    assert a.state().value(5000) == b"v"
    assert a.rows[SUFFIX_EXPIRY].value is None  # type: ignore[union-attr]


def test_integers_are_read_as_redis_reads_them() -> None:
    for number in (b"0", b"7", b"-7", b"9223372036854775807", b"-9223372036854775808"):
        assert parse_integer(number) == int(number)
    for other in (b"", b"-", b"-0", b"00", b"01", b"+1", b" 1", b"1 ", b"1.0", b"x", b"9223372036854775808"):
        assert parse_integer(other) is None
    assert parse_integer("٣".encode()) is None
    assert parse_integer(b"1" * 5000) is None
