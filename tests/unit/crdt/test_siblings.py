"""Siblings: the laws of their deltas, and their values against a specification over random histories of several replicas."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.company import Company
from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Dot
from edgekv.crdt.operation import (
    CLEAR_SET,
    DELETE_SIBLINGS,
    EXPIRE,
    RESET,
    SUFFIX_SIBLINGS,
    Operation,
    Row,
    join,
    merge_row,
)
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import NO_SIBLINGS, Sibling, Siblings, SiblingsEdit, apply
from edgekv.crdt.strings import (
    StringState,
    delete_after,
    delete_operations,
    expire_operations,
    put_after,
    put_operations,
)
from edgekv.ids import Actor
from tests.unit.crdt.histories import KEY, Change, Replica, World, actor

A, B, C = actor(1), actor(2), actor(3)

dots = st.tuples(st.sampled_from([A, B, C]), st.integers(1, 4))
some_dots = st.sets(dots, max_size=6)


def sibling(dot: Dot) -> Sibling:
    """A dot is issued for one content."""
    owner, seq = dot
    return Sibling(owner, seq, 10 * seq, b"%b %d" % (owner[:1], seq), seq % 2)


def edit(added: set[Dot], removed: set[Dot]) -> SiblingsEdit:
    return SiblingsEdit(tuple(map(sibling, sorted(added - removed))), tuple(sorted(removed)))


edits = st.builds(edit, some_dots, some_dots)


@given(edits, edits, edits)
def test_joining_deltas_is_associative_commutative_and_idempotent(
    a: SiblingsEdit, b: SiblingsEdit, c: SiblingsEdit
) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, b) == join(b, a)
    assert join(a, a) == a


@given(edits, edits)
def test_values_are_ascending_by_dot_each_once_and_none_is_removed_by_its_own_delta(
    a: SiblingsEdit, b: SiblingsEdit
) -> None:
    joined = join(a, b)
    assert isinstance(joined, SiblingsEdit)
    assert not {value.dot for value in joined.added} & set(joined.removed)
    assert list(joined.removed) == sorted(set(joined.removed))
    for values in (joined.added, apply(apply(None, a), b).values):
        assert [value.dot for value in values] == sorted({value.dot for value in values})


def test_a_removal_takes_the_dots_that_it_names_and_no_lower_ones_of_the_same_actor() -> None:
    row = Siblings(tuple(map(sibling, [(A, 1), (A, 3), (B, 2)])))
    assert apply(row, SiblingsEdit((), ((A, 3),))).dots == ((A, 1), (B, 2))
    assert apply(row, SiblingsEdit((sibling((A, 4)),), ((A, 1),))).dots == ((A, 3), (A, 4), (B, 2))


# The specification: a value is there while no put or delete that had read it has come.


VERBS = ("set", "set ex", "del", "put", "put", "put", "put ex", "delete", "expire")
steps = st.lists(
    st.tuples(
        st.sampled_from(["nothing", *VERBS, *["read"] * 3, *["deliver"] * 6, "wait"]),
        st.integers(0, 3),
        st.integers(0, (1 << 32) - 1),
    ),
    min_size=25,
    max_size=60,
)
History = list[tuple[str, int, int]]


class Clients:
    """Replicas with the clients of each, who keep what they have read and write by it, however old it is."""

    def __init__(self, replicas: int) -> None:
        self.world = World(replicas)
        self.now = 100
        self.reads: dict[Actor, list[frozenset[Dot]]] = {r.actor: [frozenset()] for r in self.world.replicas}

    def state(self, replica: Replica) -> StringState:
        row = replica.rows.get(SUFFIX_SIBLINGS, NO_SIBLINGS)
        assert isinstance(row, Siblings)
        return replica.state()._replace(siblings=row)

    def step(self, verb: str, number: int, seed: int) -> Replica:
        replica, dice = self.world.replicas[number % len(self.world.replicas)], Random(seed)
        if verb == "deliver":
            if ready := self.world.deliverable(replica):
                self.world.deliver(replica, dice.choice(ready))
        elif verb == "wait":
            self.now += dice.randint(1, 4)
        elif verb == "read":
            shown = self.state(replica).visible_siblings(self.now)
            self.reads[replica.actor].append(frozenset(value.dot for value in shown))
        elif verb != "nothing":
            operations, events = self.call(replica, verb, dice)
            self.world.make(replica, operations, events=events, hlc_step=dice.choice([1, 1, 3]))
        return replica

    def call(self, replica: Replica, verb: str, dice: Random) -> tuple[list[Operation], list[tuple[object, ...]]]:
        """The operations of a call, and what it means: ("put", value, expiry) and ("removed", the values it removes)."""
        state, value = self.state(replica), b"%d" % dice.randint(0, 99)
        known = specified(self.world, replica.vector)
        expiry_ms = self.now + dice.randint(1, 6) if verb.endswith((" ex", "expire")) else 0
        read = dice.choice(self.reads[replica.actor])
        hidden = {dot for dot, (_, _, end) in known.items() if 0 < end <= self.now}
        if verb in {"set", "set ex"}:
            operations = put_operations(state, KEY, value, expiry_ms)
            return operations, [("put", value, expiry_ms), ("removed", frozenset(known))]
        if verb in {"put", "put ex"}:
            operations = put_after(state, KEY, value, expiry_ms, read, self.now)
            return operations, [("put", value, expiry_ms), ("removed", read | hidden)]
        if verb == "delete":
            return delete_after(state, KEY, read, self.now), [("removed", read | hidden)]
        shown = [known[dot] for dot in known.keys() - hidden]
        if verb == "del":
            return delete_operations(state, KEY, self.now), [("removed", frozenset(known))] if shown else []
        if len(shown) != 1:
            return [], []
        return (
            expire_operations(state, KEY, expiry_ms, self.now),
            [("put", shown[0][1], expiry_ms), ("removed", frozenset(known))],
        )


def specified(world: World, vector: dict[Actor, int]) -> dict[Dot, tuple[int, bytes, int]]:
    """The values by all changes that the vector covers: dot -> HLC, value, expiry."""
    known = [change for change in world.changes if change.covered_by(vector)]
    removed = {dot for change in known for event in change.events if event[0] == "removed" for dot in _dots(event[1])}
    return {dot: found for change in known for dot, found in _put_by(change) if dot not in removed}


def _dots(seen: object) -> frozenset[Dot]:
    assert isinstance(seen, frozenset)
    return seen


def _put_by(change: Change) -> list[tuple[Dot, tuple[int, bytes, int]]]:
    found: list[tuple[Dot, tuple[int, bytes, int]]] = []
    for event in change.events:
        match event:
            case ("put", bytes(value), int(expiry_ms)):
                found.append(((change.actor, change.seq), (change.hlc, value, expiry_ms)))
    return found


def values_of(row: Row | None) -> dict[Dot, tuple[int, bytes, int]]:
    assert row is None or isinstance(row, Siblings)
    return {} if row is None else {value.dot: (value.hlc, value.value, value.expiry_ms) for value in row.values}


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(2, 4))
def test_every_replica_holds_at_every_step_what_the_specification_says_of_its_changes(
    history: History, replicas: int
) -> None:
    clients = Clients(replicas)
    for step in history:
        replica = clients.step(*step)
        held = specified(clients.world, replica.vector)
        assert values_of(replica.rows.get(SUFFIX_SIBLINGS)) == held
        shown = {dot: found for dot, found in held.items() if not 0 < found[2] <= clients.now}
        by_stamp = sorted(((hlc, dot[0], value) for dot, (hlc, value, _) in shown.items()), reverse=True)
        state = clients.state(replica)
        assert state.values(clients.now) == [value for _, _, value in by_stamp]
        assert state.value(clients.now) == (by_stamp[0][2] if by_stamp else None)


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(2, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_deltas_grouped_repeated_and_reordered_make_the_same_row(
    history: History, replicas: int, group: int, dice: Random
) -> None:
    clients = Clients(replicas)
    for step in history:
        clients.step(*step)
    clients.world.deliver_all(dice.randrange)
    order = causal_order(clients.world, dice)
    row: Row | None = None
    for start in range(0, len(order), group):
        delta: SiblingsEdit | None = None
        for change in order[max(0, start - 3) : start + group]:  # the end of the last group arrives again
            for _, suffix, found in change.deltas():
                assert suffix == SUFFIX_SIBLINGS and isinstance(found, SiblingsEdit)
                joined = join(delta, found)
                assert isinstance(joined, SiblingsEdit)
                delta = joined
        row = row if delta is None else merge_row(row, delta)
    assert all(replica.rows.get(SUFFIX_SIBLINGS) == row for replica in clients.world.replicas)


def causal_order(world: World, dice: Random) -> list[Change]:
    reader = Replica(world.replicas[0].actor)
    order: list[Change] = []
    while ready := world.deliverable(reader):
        order.append(dice.choice(ready))
        world.deliver(reader, order[-1])
    return order


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(2, 4))
def test_one_writer_who_has_read_everything_leaves_one_value(history: History, replicas: int) -> None:
    clients = Clients(replicas)
    for step in history:
        clients.step(*step)
    clients.world.deliver_all()
    first = clients.world.replicas[0]
    read = frozenset(value.dot for value in clients.state(first).visible_siblings(clients.now))
    clients.world.make(first, put_after(clients.state(first), KEY, b"all", 0, read, clients.now))
    clients.world.deliver_all()
    for replica in clients.world.replicas:
        assert clients.state(replica).values(clients.now) == [b"all"]


def test_a_delete_by_context_after_the_end_of_the_key_shows_nothing_again_that_had_ended_with_it() -> None:
    """A value that was put elsewhere, after the expiry of the key, beside a set and a number that this expiry hides."""
    value, part = Sibling(A, 1, 10, b"v"), Part(5, 1, 0, 0, None, True)
    state = StringState(None, Cell(b"", 5, B, 3, 100), {B: part}, Siblings((value,)))
    company = Company(elements=1, vector={A: 1, B: 3})
    made = delete_after(state, KEY, {value.dot}, 200, company)
    assert made == [
        (DELETE_SIBLINGS, KEY, [value.dot]),
        (RESET, KEY, [(B, 1, 5)]),
        (CLEAR_SET, KEY, ((A, 1), (B, 3))),
        (EXPIRE, KEY, 0),
    ]
    assert delete_after(state, KEY, {value.dot}, 50, company) == [(DELETE_SIBLINGS, KEY, [value.dot])]
