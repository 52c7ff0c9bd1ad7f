"""The union of two copies' rows: whatever the order, and never less than either side."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Element
from edgekv.crdt.operation import Row
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.crdt.unions import unite
from tests.unit.crdt.histories import actor

_SEQS: Final = st.integers(1, 3)
_ACTORS: Final = st.sampled_from([actor(1), actor(2)])
_CELLS: Final = st.builds(
    Cell, st.none() | st.binary(max_size=1), _SEQS, _ACTORS, _SEQS, st.integers(0, 1), st.integers(0, 1), st.none()
)
_DOTS: Final = st.dictionaries(_ACTORS, _SEQS, min_size=1).map(lambda dots: tuple(sorted(dots.items())))
_SIBLING_LISTS: Final = st.lists(st.builds(Sibling, _ACTORS, _SEQS, _SEQS, st.binary(max_size=1)), min_size=1)
_ROWS: Final = (
    _CELLS,
    st.builds(Part, _SEQS, _SEQS, _SEQS, _SEQS, st.none(), st.booleans()),
    st.builds(Element, _DOTS),
    _SIBLING_LISTS.map(lambda found: Siblings(tuple(sorted({each.dot: each for each in found}.values())))),
)
_TRIPLES: Final = st.one_of([st.tuples(rows, rows, rows) for rows in _ROWS])


@given(_TRIPLES)
def test_a_union_is_commutative_associative_and_idempotent(rows: tuple[Row, Row, Row]) -> None:
    a, b, c = rows
    assert unite(a, b) == unite(b, a)
    assert unite(unite(a, b), c) == unite(a, unite(b, c))
    assert unite(a, a) == a


@given(st.tuples(st.builds(Element, _DOTS), st.builds(Element, _DOTS)))
def test_a_union_shows_the_dots_of_both_sides(rows: tuple[Element, Element]) -> None:
    mine, theirs = rows
    shown = unite(mine, theirs)
    assert isinstance(shown, Element)
    assert {owner for owner, _ in shown.dots} == {owner for owner, _ in (*mine.dots, *theirs.dots)}
