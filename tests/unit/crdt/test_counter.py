"""The laws of the counter part, and the counter against its specification over random histories of several replicas."""

from fractions import Fraction
from itertools import permutations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt import counter
from edgekv.crdt.counter import Part, increment, is_inert, merge, reset, reset_delta
from edgekv.crdt.decimals import Number, whole
from edgekv.crdt.operation import ADD, RESET, Row, RowDelta, encode_number, join, merge_row, rows_of
from tests.unit.crdt.histories import KEY, Replica, World, actor


@st.composite
def versions(draw: st.DrawFn) -> Part:
    """Versions and deltas of one actor's part: totals follow from the sequence numbers, as with one writer."""
    seq, base_seq = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    fresh = draw(st.booleans())
    dot = None if fresh else draw(st.none() | st.tuples(st.sampled_from([actor(1), actor(2)]), st.integers(1, 3)))
    return Part(seq * 10, seq, 0 if fresh else base_seq * 10, base_seq, dot, fresh)


@given(versions(), versions(), versions())
def test_merge_is_associative_commutative_and_idempotent(a: Part, b: Part, c: Part) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, b) == merge(b, a)
    assert merge(a, a) == a


def test_a_reset_takes_what_it_observed_and_leaves_what_came_meanwhile() -> None:
    observed = increment(increment(None, 5, 1), 2, 4)
    concurrent = increment(observed, 3, 6)
    after = reset(concurrent, observed.seq, observed.total, (actor(2), 9))
    assert counter.value([after]) == 3
    assert not is_inert(after)
    assert is_inert(reset(concurrent, concurrent.seq, concurrent.total, (actor(2), 9)))


def test_a_part_made_anew_is_above_every_reset_of_its_past() -> None:
    past = reset(increment(None, 5, 1), 1, 5, (actor(2), 1))
    anew = increment(past, 7, 2)
    assert anew == increment(None, 7, 2), "whether the inert part is still there decides nothing"
    late = merge(anew, reset_delta(1, 5, (actor(9), 99)))
    assert counter.value([late]) == 7


def test_the_part_made_anew_wins_a_tie_with_the_reset_it_follows() -> None:
    anew = increment(None, 7, 2)
    stale = Part(5, 1, 5, 1, (actor(9), 99), fresh=False)
    assert merge(stale, anew) == merge(anew, stale) == anew


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "deliver", "deliver", "reset", "purge"]),
        st.integers(0, 2),
        st.integers(-3, 1 << 65) | st.integers(-30, 30).map(lambda tenths: whole(Fraction(tenths, 10))),
        st.integers(0, 1 << 16),
    ),
    max_size=40,
)


def add(world: World, replica: Replica, delta: Number) -> None:
    before = replica.parts().get(replica.actor)
    part = increment(before, delta, replica.next_seq)
    anew = before is None or is_inert(before)
    total, base_total = encode_number(part.total), encode_number(part.base_total)
    world.make(replica, [(ADD, KEY, total, part.base_seq, base_total, int(anew))], delta=delta)


def reset_all(world: World, replica: Replica) -> None:
    observed = [[a, p.seq, encode_number(p.total)] for a, p in replica.parts().items() if not is_inert(p)]
    world.make(replica, [(RESET, KEY, observed)] if observed else [], resets=True)


def play(world: World, history: list[tuple[str, int, Number, int]], *, purges: bool = True) -> None:
    for verb, number, delta, dice in history:
        replica = world.replicas[number]
        if verb == "add":
            add(world, replica, delta)
        elif verb == "reset":
            reset_all(world, replica)
        elif verb == "purge" and purges:
            world.purge(replica)
        elif ready := world.deliverable(replica):
            world.deliver(replica, ready[dice % len(ready)])


@settings(max_examples=300, deadline=None)
@given(steps)
def test_every_replica_shows_each_increment_once_unless_a_reset_had_seen_it(
    history: list[tuple[str, int, Number, int]],
) -> None:
    world = World(3)
    for end in range(len(history)):
        play(world, history[end : end + 1])
        for replica in world.replicas:
            assert counter.value(replica.parts().values()) == world.counted(replica.vector)


@settings(max_examples=100, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_replicas_that_have_seen_the_same_changes_show_the_same_value(
    history: list[tuple[str, int, Number, int]], dice: Random
) -> None:
    world = World(3)
    play(world, history)
    world.deliver_all(dice.randrange)
    for replica in world.replicas:
        world.purge(replica)
    assert len({counter.value(replica.parts().values()) for replica in world.replicas}) == 1
    assert not any(is_inert(part) for replica in world.replicas for part in replica.parts().values()), "garbage is left"


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(1, 5), st.data())
def test_deltas_grouped_repeated_and_reordered_make_the_same_rows(
    history: list[tuple[str, int, Number, int]], group: int, data: st.DataObject
) -> None:
    world = World(3)
    play(world, history, purges=False)
    world.deliver_all(lambda count: data.draw(st.integers(0, count - 1)))
    rows: dict[bytes, Row] = {}
    for start in range(0, len(world.changes), group):
        repeated = world.changes[max(0, start - 2) : start + group]
        joined: dict[bytes, RowDelta] = {}
        for change in repeated:
            for op in change.operations:
                for _, suffix, delta in rows_of(op, change.actor, change.seq, change.hlc):
                    joined[suffix] = join(joined.get(suffix), delta)
        for suffix, delta in joined.items():
            row = merge_row(rows.get(suffix), delta)
            if row is not None:
                rows[suffix] = row
    assert all(replica.rows == rows for replica in world.replicas)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_joining_whole_rows_equals_delivering_the_changes(history: list[tuple[str, int, Number, int]]) -> None:
    world = World(3)
    play(world, history, purges=False)
    whole: dict[bytes, Row] = {}
    for replica in world.replicas:
        for suffix, row in replica.rows.items():
            whole[suffix] = join(whole.get(suffix), row)
    world.deliver_all()
    assert world.replicas[0].rows == whole


def test_a_sum_does_not_depend_on_the_order_of_its_parts_and_an_integer_has_one_form() -> None:
    """0.1 + 0.2 - 0.3 is 0, where binary fractions leave a rest, and a little beside very much is not lost."""
    amounts: list[Number] = [
        Fraction(1, 10),
        Fraction(2, 10),
        -Fraction(3, 10),
        10**300,
        Fraction(1, 10**17),
        -(10**300),
    ]
    parts = [increment(None, amount, 1) for amount in amounts]
    for order in permutations(parts, 4):
        assert counter.value(order) == counter.value(reversed(order))
    assert counter.value(parts) == Fraction(1, 10**17)
    assert type(counter.value(parts[:3])) is int
    halves = increment(increment(None, Fraction(1, 2), 1), Fraction(1, 2), 2)
    assert type(halves.total) is int and halves.total == 1


def test_a_reset_of_a_part_that_is_not_there_changes_nothing() -> None:
    assert merge_row(None, reset_delta(3, 30, (actor(1), 1))) is None
