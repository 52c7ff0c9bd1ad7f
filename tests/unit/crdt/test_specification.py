"""The rows of keys of every type against the specification, over random histories of two to four replicas."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.operation import Row, RowDelta, join, merge_row
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Siblings
from edgekv.crdt.strings import NEVER
from tests.unit.crdt import specification
from tests.unit.crdt.calls import VERBS, call, shown
from tests.unit.crdt.histories import Change, Replica, World

steps = st.lists(
    st.tuples(
        st.sampled_from(["nothing", *VERBS, *["deliver"] * 12, "wait", "wait", "sweep", "purge"]),
        st.integers(0, 3),
        st.integers(0, (1 << 32) - 1),
    ),
    min_size=25,  # Hypothesis draws about twice the minimum; a failing history shrinks to steps that do nothing
    max_size=60,
)
History = list[tuple[str, int, int]]


class Run:
    """A world with clocks that differ."""

    def __init__(self, replicas: int, *, tidy: bool = True) -> None:
        self.world = World(replicas)
        self.now = 100
        self.tidy = tidy

    def now_of(self, replica: Replica) -> int:
        return self.now + 3 * self.world.replicas.index(replica)

    def step(self, verb: str, number: int, seed: int) -> Replica:
        replica, dice = self.world.replicas[number % len(self.world.replicas)], Random(seed)
        if verb == "deliver":
            if ready := self.world.deliverable(replica):
                self.world.deliver(replica, dice.choice(ready))
        elif verb == "nothing":
            pass
        elif verb == "wait":
            self.now += dice.randint(1, 6)
        elif verb in {"sweep", "purge"}:
            if self.tidy:
                replica.sweep() if verb == "sweep" else self.world.purge(replica)
        else:
            call(self.world, replica, verb, dice, self.now_of(replica))
        return replica

    def check(self, replica: Replica) -> None:
        now, key = self.now_of(replica), specification.key_at(self.world, replica.vector)
        assert shown(replica, now) == key.shown(now)
        assert replica.state().key_end == (key.expiry.expiry_ms or NEVER), "x, also where it hides nothing yet"


@settings(max_examples=400, deadline=None)
@given(steps, st.integers(2, 4))
def test_every_replica_shows_at_every_step_what_the_specification_says_of_its_changes(
    history: History, replicas: int
) -> None:
    run = Run(replicas)
    for step in history:
        run.check(run.step(*step))


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(2, 4), st.randoms(use_true_random=False))
def test_replicas_that_have_seen_the_same_changes_show_the_same_and_keep_no_garbage(
    history: History, replicas: int, dice: Random
) -> None:
    run = Run(replicas)
    for step in history:
        run.step(*step)
    run.world.deliver_all(dice.randrange)
    first, *others = run.world.replicas
    for now in (0, run.now, run.now + 100):
        assert all(shown(replica, now) == shown(first, now) for replica in others)
        assert shown(first, now) == specification.key_at(run.world, first.vector).shown(now)
    for replica in run.world.replicas:
        run.world.purge(replica)
    assert all(replica.rows == first.rows for replica in others)
    assert not any(map(is_garbage, first.rows.values()))


def is_garbage(row: Row) -> bool:
    match row:
        case Cell():
            return row.value is None
        case Part():
            return is_inert(row)
        case Element():
            return not row.dots
        case Clear():
            return True
        case Siblings():
            return not row.values


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(2, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_deltas_grouped_repeated_and_reordered_make_the_same_rows(
    history: History, replicas: int, group: int, dice: Random
) -> None:
    run = Run(replicas, tidy=False)
    for step in history:
        run.step(*step)
    run.world.deliver_all(dice.randrange)
    order = causal_order(run.world, dice)
    rows: dict[bytes, Row] = {}
    for start in range(0, len(order), group):
        joined: dict[bytes, RowDelta] = {}
        for change in order[max(0, start - 3) : start + group]:  # the end of the last group arrives again
            for _, suffix, delta in change.deltas():
                joined[suffix] = join(joined.get(suffix), delta)
        for suffix, delta in joined.items():
            row = merge_row(rows.get(suffix), delta)
            if row is not None:
                rows[suffix] = row
    assert all(replica.rows == rows for replica in run.world.replicas)


def causal_order(world: World, dice: Random) -> list[Change]:
    """All changes in some order in which nothing precedes what it had seen."""
    reader = Replica(world.replicas[0].actor)
    order: list[Change] = []
    while ready := world.deliverable(reader):
        order.append(dice.choice(ready))
        world.deliver(reader, order[-1])
    return order
