"""The dot rule: how two copies of a key's rows are joined, each complete and with the vector that it stands at.

Deltas are merged by ``crdt.rows``. Where whole rows meet instead, a row that one side lacks may be one that it never saw or one that
was superseded or deleted there, and no tombstone needs to say which: the vector does. So

    dot       of an element or a sibling, that one side shows and the other does not: kept unless the other side's vector covers it
    cell      that only one side has: the same. Of two different ones of a name, the one whose other side covers it and shows something
              else was superseded there, whatever the stamps say; where that is true of neither or of both, the higher stamp stays
    part      that only one side has: kept unless the other side covers its last increment (it was purged there as inert, and one made
              anew has a later one). Two of one actor merge as versions of it (``counter.merge``)
    map clear that only one side has: as a cell; of two the higher stamp. It hides fields of both sides with a lower one
    set clear is carried out on each side before the join and does not travel: its vector is part of its side's own

Cells are the same when all of them is, so a late write that was made again (its ``of`` names the first dot) is another one.

The vector of what comes out is the join of both (``join_vectors``). Both vectors are read at one revision of the membership: an actor
that either leaves out because it is settled stands at its settled head in both.

A lost row reads as a deleted one here: this rule joins what is whole, and repairs nothing.

Laws (tests/unit/crdt/test_joins.py): the rows are, byte for byte, those of a replica that applied the changes of both sides; so the
join is commutative, associative and idempotent, and nothing that was deleted comes back. Sources: Almeida, Shoker, Baquero, "Delta
state replicated data types" (2018), causal CRDTs; Bieniusa et al., "An optimized conflict-free replicated set" (2012).
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from edgekv.crdt import counter, elements, maps, register
from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Dot, Element
from edgekv.crdt.register import Cell
from edgekv.crdt.rows import SUFFIX_MAP_CLEAR, SUFFIX_SET_CLEAR, TAG_FIELD, Row, actor_of_suffix
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.ids import Actor

Rows = Mapping[bytes, Row]
"""All rows of one key by suffix, complete as LMDB holds them."""
Vector = Mapping[Actor, int]
_Value = TypeVar("_Value")
_Kind = TypeVar("_Kind", bound=Row)


def join_rows(mine: Rows, my_vector: Vector, theirs: Rows, their_vector: Vector) -> dict[bytes, Row]:
    """The rows of one key from two copies, in the order of their suffixes; what the clears cover is swept.

    A large key may be joined in ranges of suffixes, if each side's two clears are given with each.
    """
    mine, theirs = swept(mine), swept(theirs)
    joined: dict[bytes, Row] = {}
    for suffix in sorted(mine.keys() | theirs.keys()):
        row = join_row(suffix, mine.get(suffix), my_vector, theirs.get(suffix), their_vector)
        if row is not None:
            joined[suffix] = row
    return dict(_without_hidden_fields(joined))  # one side's clear may hide a field of the other


def join_vectors(a: Vector, b: Vector) -> dict[Actor, int]:
    """What either side has seen."""
    return {actor: max(a.get(actor, 0), b.get(actor, 0)) for actor in a.keys() | b.keys()}


def swept(rows: Rows) -> dict[bytes, Row]:
    """The rows without what their clears cover and without the set's clear, as they are sent: the map's clear travels."""
    clear = rows.get(SUFFIX_SET_CLEAR)
    assert clear is None or isinstance(clear, Clear)
    found: dict[bytes, Row] = {}
    for suffix, row in _without_hidden_fields(rows):
        if isinstance(row, Element):
            dots = elements.visible(row, clear)
            if dots:
                found[suffix] = Element(dots)
        elif suffix != SUFFIX_SET_CLEAR:
            found[suffix] = row
    return found


def surviving(
    mine: Mapping[Dot, _Value], my_vector: Vector, theirs: Mapping[Dot, _Value], their_vector: Vector
) -> dict[Dot, _Value]:
    """Values under dots, in the order of the dots: those of both sides, and those that the other side has not seen.

    Siblings are such values; an element is, of which only the dots matter.
    """
    kept = {dot: value for dot, value in mine.items() if dot in theirs or not _covers(their_vector, *dot)}
    kept.update((dot, value) for dot, value in theirs.items() if dot in mine or not _covers(my_vector, *dot))
    return dict(sorted(kept.items()))


def join_row(
    suffix: bytes, mine: Row | None, my_vector: Vector, theirs: Row | None, their_vector: Vector
) -> Row | None:
    """What becomes of one row, of which at least one side has a version. None: it is gone.

    Both sides are swept, and the clear of a map that comes out may yet hide fields that do.
    """
    kind = type(theirs if mine is None else mine)
    if kind is Cell:
        cells = _version(Cell, mine), _version(Cell, theirs)
        if suffix == SUFFIX_MAP_CLEAR and cells[0] is not None and cells[1] is not None:
            return register.merge(cells[0], cells[1])
        return _join_cells(cells[0], my_vector, cells[1], their_vector)
    if kind is Part:
        owner = actor_of_suffix(suffix)
        return _join_parts(owner, _version(Part, mine), my_vector, _version(Part, theirs), their_vector)
    if kind is Siblings:
        my_values, their_values = (
            _siblings_by_dot(_version(Siblings, mine)),
            _siblings_by_dot(_version(Siblings, theirs)),
        )
        values = surviving(my_values, my_vector, their_values, their_vector)
        return Siblings(tuple(values.values())) if values else None
    my_dots, their_dots = _by_dot(_version(Element, mine)), _by_dot(_version(Element, theirs))
    kept = surviving(my_dots, my_vector, their_dots, their_vector)
    return Element(tuple(kept)) if kept else None


def _version(kind: type[_Kind], row: Row | None) -> _Kind | None:
    """A suffix says what its row is: both sides have the same there."""
    assert row is None or isinstance(row, kind)
    return row


def _join_cells(mine: Cell | None, my_vector: Vector, theirs: Cell | None, their_vector: Vector) -> Cell | None:
    mine_is_superseded = mine is not None and mine != theirs and _covers(their_vector, mine.actor, mine.seq)
    theirs_is_superseded = theirs is not None and theirs != mine and _covers(my_vector, theirs.actor, theirs.seq)
    if mine is None:
        return None if theirs_is_superseded else theirs
    if theirs is None:
        return None if mine_is_superseded else mine
    if mine_is_superseded == theirs_is_superseded:
        return register.merge(mine, theirs)
    return theirs if mine_is_superseded else mine


def _join_parts(
    owner: Actor, mine: Part | None, my_vector: Vector, theirs: Part | None, their_vector: Vector
) -> Part | None:
    if mine is not None and theirs is not None:
        return counter.merge(mine, theirs)
    if mine is None:
        return None if theirs is None or _covers(my_vector, owner, theirs.seq) else theirs
    return None if _covers(their_vector, owner, mine.seq) else mine


def _without_hidden_fields(rows: Rows) -> Iterator[tuple[bytes, Row]]:
    clear = rows.get(SUFFIX_MAP_CLEAR)
    assert clear is None or isinstance(clear, Cell)
    for suffix, row in rows.items():
        if suffix[0] != TAG_FIELD or not isinstance(row, Cell) or not maps.hidden(row, clear):
            yield suffix, row


def _by_dot(element: Element | None) -> dict[Dot, None]:
    return {} if element is None else dict.fromkeys(element.dots)


def _siblings_by_dot(row: Siblings | None) -> dict[Dot, Sibling]:
    return {} if row is None else {sibling.dot: sibling for sibling in row.values}


def _covers(vector: Vector, actor: Actor, seq: int) -> bool:
    return vector.get(actor, 0) >= seq
