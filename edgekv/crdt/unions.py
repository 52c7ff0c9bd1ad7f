"""The union of two copies' rows: nothing that either shows is dropped. Used by repairs only (store/repair.py).

Copies that have the same changes and show different things cannot be told apart by the dot rule (joins.py): what one lacks it lost, or
the other kept by mistake. The union keeps both: of two cells the higher stamp stays, of an element and of siblings all dots, of two
parts the later one (``counter.merge``). So something deleted may come back. Two versions with one stamp, dot or number are those of a
fork or damaged: the one that sorts higher stays, at whichever side this is computed.

Laws (tests/unit/crdt/test_unions.py): commutative, associative, idempotent, and never less than either side.
"""

from edgekv.crdt import register
from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Dot, Element
from edgekv.crdt.register import Cell
from edgekv.crdt.rows import Row
from edgekv.crdt.siblings import Sibling, Siblings


def unite(mine: Row, theirs: Row) -> Row:
    """The union of two versions of one row; both sides are swept, so that there is no clear of a set among them."""
    if isinstance(mine, Cell):
        assert isinstance(theirs, Cell)
        return register.merge(*sorted((mine, theirs), key=_content, reverse=True))
    if isinstance(mine, Part):
        assert isinstance(theirs, Part)
        return _unite_parts(mine, theirs)
    if isinstance(mine, Siblings):
        assert isinstance(theirs, Siblings)
        values: dict[Dot, Sibling] = {sibling.dot: sibling for sibling in sorted((*theirs.values, *mine.values))}
        return Siblings(tuple(values[dot] for dot in sorted(values)))
    assert isinstance(mine, Element) and isinstance(theirs, Element)
    latest = dict(sorted((*mine.dots, *theirs.dots)))  # of each actor the highest comes last
    return Element(tuple(sorted(latest.items())))


def _unite_parts(mine: Part, theirs: Part) -> Part:
    """``counter.merge``, and of two totals at one number the larger."""
    upper = max(mine, theirs, key=lambda part: (part.seq, part.total))
    lower = max(mine, theirs, key=lambda part: (part.base_seq, part.fresh, part.base_dot or (b"", 0), part.base_total))
    return Part(upper.total, upper.seq, lower.base_total, lower.base_seq, lower.base_dot, lower.fresh)


def _content(cell: Cell) -> tuple[bool, bytes, int, int]:
    return cell.value is not None, cell.value or b"", cell.expiry_ms, cell.seq
