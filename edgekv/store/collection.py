"""What one layer holds of one key's set and map. Pure.

A layer has a ``Collection`` for each key whose elements or fields a change in it touched. Two kinds of things are in there:

- the *rows* that were touched, each complete, LMDB's version included (whoever wrote it here has read that one first): the first
  layer that has a row decides. An element without dots is such a row; it says that the element is not there.
- the *header*, which speaks of the whole key as it was after the newest change in this layer: how many elements and fields are
  visible, and the clears that were not swept yet. So the newest layer that knows the key answers for all of it, and nothing has to
  be summed up over layers of which the applier may have applied a part.

A row may be covered by a clear only when that clear is in the header of the same layer or a newer one: rows that are written later
leave the covered dots out. Layers leave the read path oldest first, so the applier may sweep LMDB and drop the clear there while
layers still hold such rows.
"""

from collections.abc import Iterable
from typing import Final

from edgekv.crdt import elements
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.maps import hidden
from edgekv.crdt.operation import (
    SUFFIX_MAP_CLEAR,
    SUFFIX_SET_CLEAR,
    TAG_FIELD_PART,
    Row,
    actor_of_suffix,
    field_of_suffix,
    field_part_suffix,
)
from edgekv.crdt.register import Cell
from edgekv.ids import Actor
from edgekv.store.sorted_keys import SortedKeys

_DEAD_SHARE: Final = 4
"""Elements without dots are dropped when they are more than this part of the rows, so each is looked at a few times."""


class Collection:
    """One key's elements, fields and field parts in one layer, and its header."""

    __slots__ = (
        "_dead",
        "_part_order",
        "_row_order",
        "clear",
        "elements",
        "fields",
        "map_clear",
        "map_cleared",
        "part_rows",
        "parts",
        "rows",
        "set_cleared",
    )

    def __init__(self, below: "Collection | None" = None) -> None:
        """An empty one with the header of the newest one below."""
        self.rows: dict[bytes, Row] = {}
        """Elements and cells of fields, by suffix."""
        self.parts: dict[bytes, dict[Actor, Part]] = {}
        """Counter parts, by field."""
        self.part_rows = 0
        self.elements: int = 0 if below is None else below.elements
        self.fields: int = 0 if below is None else below.fields
        self.clear: Clear | None = None if below is None else below.clear
        self.map_clear: Cell | None = None if below is None else below.map_clear
        self.set_cleared = False
        """The set was cleared in this layer."""
        self.map_cleared = False
        self._dead: list[bytes] = []
        """Suffixes of elements that were put without dots, some of which may have come back."""
        self._row_order: SortedKeys | None = None
        self._part_order: SortedKeys | None = None

    @property
    def row_count(self) -> int:
        """Rows that it holds, the header apart. No ``len``: a collection that is nothing but its header must not be false."""
        return len(self.rows) + self.part_rows

    def row_of(self, suffix: bytes) -> Row | None:
        """This layer's version of one row."""
        if suffix[0] == TAG_FIELD_PART:
            return self.parts.get(field_of_suffix(suffix), {}).get(actor_of_suffix(suffix))
        if suffix == SUFFIX_SET_CLEAR:
            return self.clear
        return self.map_clear if suffix == SUFFIX_MAP_CLEAR else self.rows.get(suffix)

    def put(self, suffix: bytes, row: Row) -> bool:
        """One row; whether there was none of it in this layer. Clears are not put, they are part of the header."""
        if isinstance(row, Part):
            parts = self.parts.setdefault(field_of_suffix(suffix), {})
            actor = actor_of_suffix(suffix)
            added = actor not in parts
            parts[actor] = row
            self.part_rows += added
            return added
        added = suffix not in self.rows
        self.rows[suffix] = row
        if isinstance(row, Element) and not row.dots:
            self._dead.append(suffix)
        return added

    def merge_from(self, newer: "Collection") -> None:
        """Put the rows of ``newer`` above the rows here. ``newer`` stays as it is."""
        self.rows.update(newer.rows)
        self._dead += newer._dead
        for field, parts in newer.parts.items():
            mine = self.parts.setdefault(field, {})
            before = len(mine)
            mine.update(parts)
            self.part_rows += len(mine) - before
        self.elements, self.fields = newer.elements, newer.fields
        self.clear, self.map_clear = newer.clear, newer.map_clear
        self.set_cleared |= newer.set_cleared
        self.map_cleared |= newer.map_cleared

    def drop_dead(self) -> int:
        """Drop elements without dots, of which LMDB has no row either, when they are many; how many it were."""
        if _DEAD_SHARE * len(self._dead) <= len(self.rows):
            return 0
        before = len(self.rows)
        for suffix in self._dead:
            row = self.rows.get(suffix)
            if isinstance(row, Element) and not row.dots:
                del self.rows[suffix]
        self._dead = []
        if self._row_order is not None:
            self._row_order.shrunk()
        return before - len(self.rows)

    def between(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """The first ``limit`` suffixes of elements and cells in [low, high)."""
        return self._rows_in_order().between(low, high, limit)

    def last(self, low: bytes, high: bytes) -> bytes | None:
        """The last suffix of an element or cell in [low, high)."""
        return self._rows_in_order().last(low, high)

    def fields_with_parts(self, low: bytes, limit: int) -> list[bytes]:
        """The first ``limit`` fields from ``low`` on that have parts here, live or not."""
        return self._parts_in_order().between(low, None, limit) if self.parts else []

    def last_with_parts(self, low: bytes, high: bytes | None) -> bytes | None:
        """The last field in [low, high) that has parts here, live or not."""
        return self._parts_in_order().last(low, high) if self.parts else None

    def stored_rows(self) -> Iterable[tuple[bytes, Row | None]]:
        """What LMDB has to store for each row, None for nothing: what the clears leave of it, and the clears of this layer."""
        for suffix in sorted(self.rows):
            yield suffix, self._left(self.rows[suffix])
        for suffix, part in sorted(
            (field_part_suffix(field, actor), part)
            for field, found in self.parts.items()
            for actor, part in found.items()
        ):
            yield suffix, part
        if self.set_cleared and self.clear is not None:
            yield SUFFIX_SET_CLEAR, self.clear
        if self.map_cleared and self.map_clear is not None:
            yield SUFFIX_MAP_CLEAR, self.map_clear

    def sweep(self, rows: int) -> int:
        """Free up to ``rows`` rows of a layer that was given up; how many it were."""
        count = min(rows, len(self.rows))
        for _ in range(count):
            self.rows.popitem()
        del self._dead[-rows:]
        if self._row_order is not None:
            self._row_order.forget(count)
        while count < rows and self.parts:
            _, parts = self.parts.popitem()
            count += len(parts)
            self.part_rows -= len(parts)
        return count

    def _left(self, row: Row) -> Row | None:
        if isinstance(row, Element):
            dots = elements.visible(row, self.clear)
            return Element(dots) if dots else None
        assert isinstance(row, Cell)
        return None if hidden(row, self.map_clear) else row

    def _rows_in_order(self) -> SortedKeys:
        if self._row_order is None:
            self._row_order = SortedKeys(self.rows)
        return self._row_order

    def _parts_in_order(self) -> SortedKeys:
        if self._part_order is None:
            self._part_order = SortedKeys(self.parts)
        return self._part_order


def shows(cell: Cell | None, map_clear: Cell | None) -> bool:
    """Whether a field is there by its cell."""
    return cell is not None and cell.value is not None and not hidden(cell, map_clear)


def live_parts(parts: dict[Actor, Part]) -> dict[Actor, Part]:
    """The parts that are not reset to nothing: by any of them a field is there."""
    return {actor: part for actor, part in parts.items() if not is_inert(part)}
