"""The dot rule: two copies of a key's rows, each with its vector, become those of a replica that applied the changes of both.

Copies are taken of the replicas of random histories at any time, so some are far behind, as a backup is: what they still show may
have been deleted and its tombstone purged elsewhere. Each planted mistake must break a law or an example.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt import counter, joins, register, siblings
from edgekv.crdt.counter import Part, increment
from edgekv.crdt.elements import Clear, Dot, Element
from edgekv.crdt.joins import Rows, Vector, join_rows, join_vectors, surviving, swept
from edgekv.crdt.operation import (
    SUFFIX_EXPIRY,
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SET_CLEAR,
    SUFFIX_SIBLINGS,
    Row,
    counter_suffix,
    element_suffix,
    field_part_suffix,
    field_suffix,
)
from edgekv.crdt.register import RANK_SYSTEM, Cell
from edgekv.crdt.siblings import NO_SIBLINGS, Sibling, Siblings, SiblingsEdit
from edgekv.ids import Actor, KeyspaceId
from edgekv.store import layout
from tests.unit.crdt import specification
from tests.unit.crdt.calls import VERBS, shown
from tests.unit.crdt.histories import KEY, Replica, World, actor
from tests.unit.crdt.test_specification import History, Run, steps

A, B, C = actor(1), actor(2), actor(3)
REPLICAS: Final = 3
SEEDS: Final = 400  # of random histories, until one catches a planted mistake; most take a few


class Copy(NamedTuple):
    """The rows of a key and the vector that they stand at."""

    rows: Rows
    vector: Vector

    def join(self, other: "Copy") -> "Copy":
        return Copy(join_rows(*self, *other), join_vectors(self.vector, other.vector))

    def stored(self) -> dict[bytes, bytes]:
        """As LMDB would hold it."""
        return {suffix: _stored(suffix, row) for suffix, row in swept(self.rows).items()}

    def replica(self) -> Replica:
        return Replica(A, dict(self.rows), dict(self.vector))


def _stored(suffix: bytes, row: Row) -> bytes:
    return layout.encode_row(layout.row_key(KeyspaceId(1), KEY, suffix), row, lambda owner: owner[1])


def copies_of(history: History, *, purges: bool) -> tuple[Run, list[Copy]]:
    """What a history leaves: a copy of the replica of every fifth step, and those of the end.

    A purge needs that everybody has seen everything: with ``purges`` that is brought about first, half of the times.
    """
    run = Run(REPLICAS)
    copies = []
    for number, (verb, index, seed) in enumerate(history):
        if verb == "purge" and purges and seed % 2:
            run.world.deliver_all()
            for replica in run.world.replicas:
                run.world.purge(replica)
        replica = run.step(verb if purges or verb != "purge" else "sweep", index, seed)
        if number % 5 == 0:
            copies.append(copy_of(replica))
    return run, copies[-6:] + [copy_of(replica) for replica in run.world.replicas]


def copy_of(replica: Replica) -> Copy:
    return Copy(dict(replica.rows), dict(replica.vector))


def applied(world: World, vector: Vector) -> Copy:
    """A replica that applied the changes below a vector, one by one."""
    reader = Replica(A)
    while ready := [change for change in world.deliverable(reader) if change.covered_by(dict(vector))]:
        world.deliver(reader, ready[0])
    assert reader.vector == {owner: seq for owner, seq in vector.items() if seq}
    return copy_of(reader)


def shows_what_the_changes_say(run: Run, copy: Copy) -> bool:
    key, replica = specification.key_at(run.world, dict(copy.vector)), copy.replica()
    return all(shown(replica, now) == key.shown(now) for now in (0, run.now, run.now + 100))


# -- laws


@settings(max_examples=200, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_a_join_is_byte_for_byte_the_rows_of_a_replica_that_applied_the_changes_of_both(
    history: History, dice: Random
) -> None:
    run, copies = copies_of(history, purges=False)
    a, b = dice.choices(copies, k=2)
    joined = a.join(b)
    assert joined.stored() == applied(run.world, joined.vector).stored()
    assert joined.rows == swept(joined.rows), "and it is swept"


@settings(max_examples=300, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_a_join_shows_what_the_changes_of_both_say_whatever_was_purged_on_either_side(
    history: History, dice: Random
) -> None:
    run, copies = copies_of(history, purges=True)
    a, b = dice.choices(copies, k=2)
    assert shows_what_the_changes_say(run, a.join(b))


@settings(max_examples=200, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_joins_are_associative_commutative_and_idempotent(history: History, dice: Random) -> None:
    _, copies = copies_of(history, purges=True)
    a, b, c = dice.choices(copies, k=3)
    assert a.join(b).stored() == b.join(a).stored()
    assert a.join(b).join(c).stored() == a.join(b.join(c)).stored()
    assert a.join(a).stored() == a.stored()
    assert a.join(b).join(b).stored() == a.join(b).stored()


@settings(max_examples=100, deadline=None)
@given(steps, st.sampled_from([SUFFIX_EXPIRY, element_suffix(b"a"), field_suffix(b"a"), field_part_suffix(b"a", B)]))
def test_a_key_is_joined_in_ranges_of_its_rows_as_a_whole(history: History, middle: bytes) -> None:
    """Each range is read together with the clears."""
    _, copies = copies_of(history, purges=True)
    a, b = copies[0], copies[-1]
    clears = {SUFFIX_SET_CLEAR, SUFFIX_MAP_CLEAR}
    joined: dict[bytes, Row] = {}
    for is_low in (True, False):
        ranges = [
            Copy({s: row for s, row in copy.rows.items() if s in clears or (s < middle) == is_low}, copy.vector)
            for copy in (a, b)
        ]
        joined.update(ranges[0].join(ranges[1]).rows)
    assert joined == a.join(b).rows


# -- examples: what one side shows, each with its vector, and what becomes of it

OLD, NEW = Cell(b"old", 5, A, 1), Cell(b"new", 3, B, 1)
PART = increment(None, 5, 1)
RESET = counter.reset(PART, 1, 5, (B, 1))

EXAMPLES: Final[dict[str, tuple[Copy, Copy, dict[bytes, Row]]]] = {
    "a cell that was deleted and purged there": (
        Copy({SUFFIX_REGISTER: OLD, field_suffix(b"f"): OLD, SUFFIX_EXPIRY: OLD, SUFFIX_MAP_CLEAR: OLD}, {A: 1}),
        Copy({}, {A: 1, B: 1}),
        {},
    ),
    "a cell that was not seen there": (
        Copy({SUFFIX_REGISTER: OLD._replace(seq=2)}, {A: 2}),
        Copy({}, {A: 1, B: 1}),
        {SUFFIX_REGISTER: OLD._replace(seq=2)},
    ),
    "a cell superseded there by one with a lower stamp: a late write that its maker made again": (
        Copy({SUFFIX_REGISTER: OLD}, {A: 1}),
        Copy({SUFFIX_REGISTER: NEW}, {A: 1, B: 1}),
        {SUFFIX_REGISTER: NEW},
    ),
    "concurrent cells": (
        Copy({SUFFIX_REGISTER: OLD}, {A: 1}),
        Copy({SUFFIX_REGISTER: NEW}, {B: 1}),
        {SUFFIX_REGISTER: OLD},
    ),
    "different cells that each side covers": (
        Copy({SUFFIX_REGISTER: OLD}, {A: 1, B: 1}),
        Copy({SUFFIX_REGISTER: NEW}, {A: 1, B: 1}),
        {SUFFIX_REGISTER: OLD},
    ),
    "an element that was removed there, and one that was added again": (
        Copy({element_suffix(b"e"): Element(((A, 1),)), element_suffix(b"f"): Element(((A, 1),))}, {A: 1}),
        Copy({element_suffix(b"f"): Element(((B, 1),))}, {A: 1, B: 1}),
        {element_suffix(b"f"): Element(((B, 1),))},
    ),
    "an element that a clear removed there, not yet swept, and was added elsewhere": (
        Copy({element_suffix(b"e"): Element(((A, 1), (C, 1)))}, {A: 1, C: 1}),
        Copy({element_suffix(b"e"): Element(((A, 1),)), SUFFIX_SET_CLEAR: Clear(((A, 1),))}, {A: 1, B: 1}),
        {element_suffix(b"e"): Element(((C, 1),))},
    ),
    "a part that was reset there and purged": (
        Copy({counter_suffix(A): PART, field_part_suffix(b"f", A): PART}, {A: 1}),
        Copy({}, {A: 1, B: 1}),
        {},
    ),
    "a part that was reset there": (
        Copy({counter_suffix(A): PART}, {A: 1}),
        Copy({counter_suffix(A): RESET}, {A: 1, B: 1}),
        {counter_suffix(A): RESET},
    ),
    "a part made anew meanwhile": (
        Copy({counter_suffix(A): RESET}, {A: 1, B: 1}),
        Copy({counter_suffix(A): increment(RESET, 2, 2)}, {A: 2, B: 1}),
        {counter_suffix(A): increment(RESET, 2, 2)},
    ),
    "fields that the other side's clear hides, but for one in the clear's own change": (
        Copy({field_suffix(b"f"): Cell(b"v", 5, A, 1), SUFFIX_MAP_CLEAR: Cell(None, 1, A, 1)}, {A: 1}),
        Copy({field_suffix(b"g"): Cell(b"v", 6, B, 1), SUFFIX_MAP_CLEAR: Cell(None, 6, B, 1)}, {B: 1}),
        {field_suffix(b"g"): Cell(b"v", 6, B, 1), SUFFIX_MAP_CLEAR: Cell(None, 6, B, 1)},
    ),
    "a field above a system clear of the same time": (
        Copy({field_suffix(b"f"): Cell(b"v", 5, A, 1), field_suffix(b"g"): Cell(b"v", 6, A, 2)}, {A: 2}),
        Copy({SUFFIX_MAP_CLEAR: Cell(None, 5, B, 1, rank=RANK_SYSTEM)}, {B: 1}),
        {field_suffix(b"g"): Cell(b"v", 6, A, 2), SUFFIX_MAP_CLEAR: Cell(None, 5, B, 1, rank=RANK_SYSTEM)},
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_each_side_drops_what_the_other_covers_and_does_not_show(
    example: tuple[Copy, Copy, dict[bytes, Row]],
) -> None:
    a, b, expected = example
    assert a.join(b).rows == b.join(a).rows == expected


def test_a_late_write_made_again_stays_where_its_first_version_still_is() -> None:
    """Equal but for the dot and ``of``: two cells, not one."""
    first, again = Cell(b"v", 5, A, 1), Cell(b"v", 3, B, 1, of=(A, 1))
    a, b = Copy({SUFFIX_REGISTER: first}, {A: 1}), Copy({SUFFIX_REGISTER: again}, {A: 1, B: 1})
    assert a.join(b).rows == b.join(a).rows == {SUFFIX_REGISTER: again}


def test_values_under_dots_survive_unless_the_other_side_has_seen_them() -> None:
    mine, theirs = {(A, 1): "both", (A, 2): "mine", (B, 1): "gone"}, {(C, 4): "theirs", (A, 1): "both"}
    kept = surviving(mine, {A: 2, B: 1, C: 3}, theirs, {A: 1, B: 1, C: 4})
    assert list(kept.items()) == [((A, 1), "both"), ((A, 2), "mine"), ((C, 4), "theirs")]


# -- planted mistakes


def _keeps_cells(mine: Cell | None, _mv: Vector, theirs: Cell | None, _tv: Vector) -> Cell | None:
    return theirs if mine is None else mine if theirs is None else register.merge(mine, theirs)


def _compares_stamps_only(mine: Cell | None, my: Vector, theirs: Cell | None, their: Vector) -> Cell | None:
    if mine is not None and theirs is not None:
        return register.merge(mine, theirs)
    return _JOIN_CELLS(mine, my, theirs, their)


def _keeps_dots(mine: dict[Dot, Any], _mv: Vector, theirs: dict[Dot, Any], _tv: Vector) -> dict[Dot, Any]:
    return dict(sorted({**mine, **theirs}.items()))


def _keeps_parts(_owner: Actor, mine: Part | None, _mv: Vector, theirs: Part | None, _tv: Vector) -> Part | None:
    return theirs if mine is None else mine if theirs is None else counter.merge(mine, theirs)


def _takes_the_higher_total(a: Part | None, b: Part) -> Part:
    assert a is not None
    return max(a, b, key=lambda part: part.total)


def _forgets_the_baseline(a: Part | None, b: Part) -> Part:
    assert a is not None
    return max(a, b, key=lambda part: part.seq)


def _covers_all_below(vector: Vector, owner: Actor, seq: int) -> bool:
    return vector.get(owner, 0) > seq


def _covers_nothing(_vector: Vector, _owner: Actor, _seq: int) -> bool:
    return False


def _covers_every_actor_it_knows(vector: Vector, owner: Actor, _seq: int) -> bool:
    return owner in vector


def _leaves_hidden_fields(rows: Rows) -> Iterator[tuple[bytes, Row]]:
    return iter(rows.items())


def _sends_unswept(rows: Rows) -> dict[bytes, Row]:
    return {suffix: row for suffix, row in rows.items() if suffix != SUFFIX_SET_CLEAR and row != Element(())}


def _omits_map_clears(rows: Rows) -> dict[bytes, Row]:
    return {suffix: row for suffix, row in _SWEPT(rows).items() if suffix != SUFFIX_MAP_CLEAR}


def _confuses_the_vectors(mine: Rows, my_vector: Vector, theirs: Rows, their_vector: Vector) -> dict[bytes, Row]:
    return _JOIN_ROWS(mine, their_vector, theirs, my_vector)


_JOIN_CELLS, _JOIN_ROWS, _SWEPT = joins._join_cells, joins.join_rows, joins.swept
MISTAKES: Final[list[tuple[str, Callable[..., object]]]] = [
    ("_join_cells", _keeps_cells),
    ("_join_cells", _compares_stamps_only),
    ("surviving", _keeps_dots),
    ("_join_parts", _keeps_parts),
    ("counter.merge", _takes_the_higher_total),
    ("counter.merge", _forgets_the_baseline),
    ("_covers", _covers_all_below),
    ("_covers", _covers_nothing),
    ("_covers", _covers_every_actor_it_knows),
    ("_without_hidden_fields", _leaves_hidden_fields),
    ("swept", _sends_unswept),
    ("swept", _omits_map_clears),
    ("join_rows", _confuses_the_vectors),
]
BY_EXAMPLE_ONLY: Final = {_compares_stamps_only}
"""No history without a late write tells it: whoever has seen a cell writes above its stamp."""


@pytest.mark.parametrize(("name", "mistake"), MISTAKES, ids=[mistake.__name__ for _, mistake in MISTAKES])
def test_a_planted_mistake_breaks_a_law(
    monkeypatch: pytest.MonkeyPatch, name: str, mistake: Callable[..., object]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"edgekv.crdt.joins.{name}", mistake)
        if name != "counter.merge":
            assert any(joins.join_rows(*a, *b) != expected for a, b, expected in EXAMPLES.values())
    if mistake not in BY_EXAMPLE_ONLY:
        assert any(_breaks(Random(seed), name, mistake, monkeypatch) for seed in range(SEEDS))


@pytest.mark.parametrize("seed", range(20))
def test_without_a_mistake_the_same_histories_break_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _breaks(Random(seed), "join_rows", joins.join_rows, monkeypatch)


def random_history(dice: Random) -> History:
    verbs = ["nothing", *VERBS, *["deliver"] * 16, "wait", *["sweep", "purge"] * 3]
    return [(dice.choice(verbs), dice.randrange(REPLICAS), dice.randrange(1 << 32)) for _ in range(60)]


def _breaks(dice: Random, name: str, mistake: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> bool:
    purges = dice.random() < 0.5
    run, copies = copies_of(random_history(dice), purges=purges)
    for _ in range(4):
        a, b = dice.choices(copies, k=2)
        with monkeypatch.context() as patch:
            patch.setattr(f"edgekv.crdt.joins.{name}", mistake)
            joined = Copy(joins.join_rows(*a, *b), join_vectors(a.vector, b.vector))
        if not shows_what_the_changes_say(run, joined):
            return True
        if not purges and (
            joined.rows != swept(joined.rows) or joined != swept_copy(applied(run.world, joined.vector))
        ):
            return True
    return False


def swept_copy(copy: Copy) -> Copy:
    return Copy(swept(copy.rows), copy.vector)


def test_what_is_sent_has_no_set_clear_and_nothing_that_the_clears_cover() -> None:
    rows: dict[bytes, Row] = {
        element_suffix(b"e"): Element(((A, 1), (B, 1))),
        element_suffix(b"f"): Element(((A, 1),)),
        SUFFIX_SET_CLEAR: Clear(((A, 1),)),
        field_suffix(b"f"): Cell(b"v", 5, A, 1),
        SUFFIX_MAP_CLEAR: Cell(None, 6, A, 2),
    }
    assert swept(rows) == {
        element_suffix(b"e"): Element(((B, 1),)),
        SUFFIX_MAP_CLEAR: Cell(None, 6, A, 2),
    }


# -- siblings, whose histories are their own: no other verb touches the row


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["put", "stale", "delete", "pull"]), st.randoms()),
        max_size=25,
    ),
    st.randoms(use_true_random=False),
)
def test_siblings_that_meet_as_wholes_are_those_of_a_replica_that_applied_the_changes_of_both(
    history: list[tuple[Actor, str, Random]], dice: Random
) -> None:
    log: list[tuple[Dot, SiblingsEdit]] = []
    held = {owner: (NO_SIBLINGS, dict[Actor, int]()) for owner in (A, B, C)}
    copies = [held[A]]

    def applied_to(row: Siblings, vector: dict[Actor, int], upto: Vector) -> tuple[Siblings, dict[Actor, int]]:
        for (owner, seq), edit in log:
            if vector.get(owner, 0) < seq <= upto.get(owner, 0):
                row, vector = siblings.apply(row, edit), {**vector, owner: seq}
        return row, vector

    for owner, step, chance in history:
        row, vector = held[owner]
        if step == "pull":
            held[owner] = applied_to(row, vector, chance.choice(list(held.values()))[1])
        else:
            dot = owner, vector.get(owner, 0) + 1
            seen = [each for each in row.dots if step != "stale" or chance.random() < 0.5]
            value = () if step == "delete" else (Sibling(*dot, len(log), b"%d" % len(log)),)
            log.append((dot, SiblingsEdit(value, tuple(seen))))
            held[owner] = applied_to(row, vector, {**vector, owner: dot[1]})
        copies.append(held[owner])
    (row, vector), (other, seen_there) = dice.choices(copies, k=2)
    joined = join_rows(rows_with(row), vector, rows_with(other), seen_there)
    union, _ = applied_to(NO_SIBLINGS, {}, join_vectors(vector, seen_there))
    assert joined == rows_with(union) == join_rows(rows_with(other), seen_there, rows_with(row), vector)


def rows_with(row: Siblings) -> dict[bytes, Row]:
    return {SUFFIX_SIBLINGS: row} if row.values else {}
