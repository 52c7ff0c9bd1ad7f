"""The laws of the register cell."""

from hypothesis import given
from hypothesis import strategies as st

from edgekv.crdt.register import RANK_SYSTEM, Cell, as_cell, merge, newest, stamp, visible
from edgekv.ids import Actor

ACTORS = [Actor(bytes([n]) * 25) for n in range(3)]


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    """Few stamps, so that they meet; what a cell holds follows from its stamp, since one change writes a row once."""
    hlc, rank, number = draw(st.integers(1, 4)), draw(st.integers(0, 1)), draw(st.integers(0, 2))
    dice = hlc * 7 + rank * 3 + number
    return Cell(None if dice % 3 == 0 else b"%d" % dice, hlc, ACTORS[number], dice, dice % 4 * 100, rank)


@given(cells(), cells(), cells())
def test_merge_is_associative_commutative_and_idempotent(a: Cell, b: Cell, c: Cell) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, b) == merge(b, a)
    assert merge(a, a) == a


@given(st.lists(cells(), min_size=1))
def test_the_highest_stamp_wins_in_any_order(versions: list[Cell]) -> None:
    merged: Cell | None = None
    for version in versions:
        merged = merge(merged, version)
    assert merged is not None
    assert stamp(merged) == max(map(stamp, versions))


def test_a_system_clear_is_above_what_it_removes_and_below_every_later_write() -> None:
    removed = Cell(b"v", 10, ACTORS[2], 1)
    clear = Cell(None, 10, ACTORS[0], 5, rank=RANK_SYSTEM)
    later = Cell(b"w", 11, ACTORS[0], 6)
    assert merge(removed, clear) is clear
    assert merge(clear, later) is later


@given(st.tuples(st.binary(max_size=2), st.integers(1, 4)), cells())
def test_a_plain_row_joins_as_the_cell_that_it_stands_for(plain: tuple[bytes, int], new: Cell) -> None:
    own = ACTORS[1]
    if (new.hlc, new.rank, new.actor) == (plain[1], 0, own):
        return  # one change writes a row once
    joined = newest(plain, new, own)
    assert as_cell(joined, own) == merge(as_cell(plain, own), new)
    assert joined is plain or joined is new


def test_a_cell_is_hidden_from_its_expiry_on_and_a_tombstone_always() -> None:
    cell = Cell(b"v", 1, ACTORS[0], 1, expiry_ms=1000)
    assert visible(cell, 999)
    assert not visible(cell, 1000)
    assert visible(cell._replace(expiry_ms=0), 1 << 60)
    assert not visible(Cell(None, 1, ACTORS[0], 1), 0)
