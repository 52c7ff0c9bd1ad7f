"""The rows of one key's set and map through every layer and LMDB, and how a delta merges into them.

Whoever takes a change in uses this: the commit pipeline and replay, whose newest layer is a frame or a generation, and the applier,
which has only one above LMDB. So all of them count in the same way, and what they count is what a reader is shown (the key's expiry
apart, which hides everything at its time).

Counting: a delta tells what it changes by its own row, the clears in the header and, for a field, that field's other rows. A clear
that has seen everything which was applied before it leaves no element; a map clear above every stamp leaves the fields that are
counters. Such are all clears of this node's own clients: a set of a million goes at once. Another's clear may have seen less; then
what it leaves is counted, row by row.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Final, NamedTuple, Protocol

from edgekv.crdt import elements, register
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Clear, Edit, Element, Removal
from edgekv.crdt.maps import hidden
from edgekv.crdt.operation import (
    CLEAR_MAP,
    CLEAR_SET,
    SUFFIX_MAP_CLEAR,
    SUFFIX_SET_CLEAR,
    TAG_ELEMENT,
    TAG_FIELD,
    TAG_FIELD_PART,
    TAG_MAP_CLEAR,
    TAG_SET_CLEAR,
    Operation,
    Row,
    RowDelta,
    actor_of_suffix,
    element_suffix,
    field_of_suffix,
    field_part_suffix,
    field_parts_prefix,
    field_suffix,
    merge_row,
)
from edgekv.crdt.register import RANK_CLIENT, Cell
from edgekv.errors import Corruption
from edgekv.ids import ACTOR_BYTES, Actor, KeyspaceId
from edgekv.store import layout
from edgekv.store.collection import Collection, live_parts, shows
from edgekv.store.long_keys import LongKeys

WALK_ROWS: Final = 1_000
FEW_ACTORS: Final = 8
"""As many point reads cost what a range read does."""
ELEMENTS_END: Final = bytes([TAG_FIELD])
FIELDS_END: Final = bytes([TAG_FIELD_PART])
FIELD_PARTS_END: Final = bytes([TAG_SET_CLEAR])
_CLEARS: Final = CLEAR_SET, CLEAR_MAP
_NONE: Final = layout.Count(0, 0)


class Source(Protocol):
    """A transaction of LMDB: the node's reader or the applier's writer."""

    def get(self, lmdb_key: bytes, /) -> bytes | None: ...

    def range(self, low: bytes, high: bytes | None, /) -> Iterator[tuple[bytes, bytes]]: ...

    def actor_of(self, number: int, /) -> Actor: ...


class StoredRows:
    """LMDB's rows, decoded. ``checked``: their CRCs are compared, by whoever writes rows that it has read.

    ``long_keys`` has the order of the rows of long keys; a transaction that writes has none, as what it shows changes under it.
    """

    def __init__(self, source: Source, *, checked: bool, long_keys: LongKeys | None = None) -> None:
        self._source: Final = source
        self._checked: Final = checked
        self._long_keys: Final = long_keys

    def get(self, lmdb_key: bytes) -> Row | None:
        """The row under an LMDB key; Corruption when it is damaged."""
        data = self._source.get(lmdb_key)
        return None if data is None else self._decode(lmdb_key, data)

    def row(self, keyspace: KeyspaceId, key: bytes, suffix: bytes) -> Row | None:
        """One row."""
        return self.get(layout.lmdb_key(keyspace, key, suffix))

    def header(self, keyspace: KeyspaceId, key: bytes) -> Collection:
        """What LMDB has of a key's set and map as a whole, without rows."""
        header = Collection()
        header.elements, header.fields = self.counts(keyspace, key)
        clear, map_clear = self.row(keyspace, key, SUFFIX_SET_CLEAR), self.row(keyspace, key, SUFFIX_MAP_CLEAR)
        header.clear = clear if isinstance(clear, Clear) else None
        header.map_clear = map_clear if isinstance(map_clear, Cell) else None
        return header

    def counts(self, keyspace: KeyspaceId, key: bytes) -> layout.Count:
        """How many elements and fields are visible."""
        count = self._source.get(layout.lmdb_key(keyspace, key, layout.SUFFIX_COUNT))
        return _NONE if count is None else layout.decode_count(count)

    def lowest(self, keyspace: KeyspaceId, key: bytes, low: bytes, high: bytes, wanted: int) -> list[tuple[bytes, Row]]:
        """The rows of a key with the ``wanted`` lowest suffixes in [low, high), in order. No count may be among them."""
        skipped = len(layout.row_key(keyspace, key, b""))
        return [
            (row_key[skipped:], self._decode(lmdb_key, data))
            for row_key, lmdb_key, data in self._lowest(keyspace, key, low, high, wanted)
        ]

    def suffixes(self, keyspace: KeyspaceId, key: bytes, low: bytes, high: bytes, wanted: int) -> list[bytes]:
        """The same, suffixes only, those of counts as well."""
        skipped = len(layout.row_key(keyspace, key, b""))
        return [row_key[skipped:] for row_key, _, _ in self._lowest(keyspace, key, low, high, wanted)]

    def _lowest(
        self, keyspace: KeyspaceId, key: bytes, low: bytes, high: bytes, wanted: int
    ) -> list[tuple[bytes, bytes, bytes]]:
        """(row key, LMDB key, row).

        Rows whose row keys have their first 479 bytes in common lie in the order of their hashes: such a group is read whole, or its
        order is known (long_keys.py).
        """
        start, end = layout.row_key(keyspace, key, low), layout.row_key(keyspace, key, high)
        if start >= end:
            return []
        if self._long_keys is not None and self._long_keys.has(keyspace, key):
            suffixes = self._long_keys.lowest(keyspace, key, low, high, wanted)
            return list(self._found([layout.row_key(keyspace, key, suffix) for suffix in suffixes]))
        from_key, to_key = layout.order_prefix(start), layout.order_prefix(end)
        found: list[tuple[bytes, bytes, bytes]] = []
        group = b""
        for lmdb_key, data in self._source.range(from_key, end if len(end) <= layout.ORDER_BYTES else None):
            prefix = layout.order_prefix(lmdb_key)
            if prefix > to_key:
                break
            if prefix != group:
                if len(found) >= wanted:
                    break
                group = prefix
            row_key = layout.row_key_of(lmdb_key, data)
            if start <= row_key < end:
                found.append((row_key, lmdb_key, data))
                if len(found) > 2 * wanted:
                    found = nsmallest(wanted, found)
        return nsmallest(wanted, found)

    def _found(self, row_keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
        for row_key in row_keys:
            lmdb_key = layout.lmdb_key_of(row_key)
            data = self._source.get(lmdb_key)
            assert data is not None, "a row that was read a moment ago in the same transaction"
            yield row_key, lmdb_key, data

    def _decode(self, lmdb_key: bytes, data: bytes) -> Row:
        if self._checked and not layout.check_row(
            lmdb_key, data
        ):  # Merged, it would get a new CRC and look sound for ever.
            raise Corruption(f"the row {lmdb_key!r} is damaged. Restore a backup of the directory.", path="data.mdb")
        return layout.decode_row(data, self._source.actor_of)


class Before(NamedTuple):
    """What of a keyspace was applied before a change: its actor up to ``seq``, the others up to ``heads``, stamps up to ``hlc``."""

    heads: Mapping[Actor, tuple[int, int]]
    actor: Actor
    seq: int
    hlc: int

    def is_covered_by(self, clear: Clear) -> bool:
        """Whether the clear has seen all of it."""
        seen = dict(clear.vector)
        if self.seq > seen.get(self.actor, 0):
            return False
        return all(head[0] <= seen.get(actor, 0) for actor, head in self.heads.items() if actor != self.actor)


class Field(NamedTuple):
    """What there is at a field: the cell that no clear hides, perhaps a tombstone, and the parts."""

    cell: Cell | None
    parts: dict[Actor, Part]

    @property
    def visible(self) -> bool:
        """Whether a reader is shown the field."""
        return (self.cell is not None and self.cell.value is not None) or bool(live_parts(self.parts))


class CollectionRows:
    """The rows of one key, ``layers`` newest first. With a ``target``, which is the newest of them, deltas can be merged."""

    __slots__ = ("_actors", "_header", "_keyspace", "_layers", "_stored", "key")

    def __init__(
        self,
        stored: StoredRows,
        keyspace: KeyspaceId,
        key: bytes,
        layers: Sequence[Collection],
        actors: Mapping[Actor, object],
    ) -> None:
        """``actors``: at least those of whom LMDB may have rows in this keyspace."""
        self.key: Final = key
        self._stored: Final = stored
        self._keyspace: Final = keyspace
        self._layers: Final = layers
        self._actors: Final = actors
        self._header: Collection | None = layers[0] if layers else None

    # -- reading

    @property
    def header(self) -> Collection:
        """The counts and clears of the key as a whole. What else is in there is not for the reader."""
        if self._header is None:
            self._header = self._stored.header(self._keyspace, self.key)
        return self._header

    def row(self, suffix: bytes) -> Row | None:
        """One element, cell or part, complete."""
        for layer in self._layers:
            row = layer.row_of(suffix)
            if row is not None:
                return row
        return self._stored.row(self._keyspace, self.key, suffix)

    def element(self, element: bytes) -> Element | None:
        """The dots by which an element is in the set; None when it is not."""
        row = self.row(element_suffix(element))
        return None if not isinstance(row, Element) else self.visible(row)

    def visible(self, row: Element) -> Element | None:
        """What the clear leaves of an element's row."""
        dots = elements.visible(row, self.header.clear)
        return Element(dots) if dots else None

    def cell(self, field: bytes) -> Cell | None:
        """The cell of a field that no clear hides."""
        row = self.row(field_suffix(field))
        return row if isinstance(row, Cell) and not hidden(row, self.header.map_clear) else None

    def parts(self, field: bytes) -> dict[Actor, Part]:
        """The counter parts of a field, live or not."""
        found = self._stored_parts(field)
        for layer in reversed(self._layers):
            found.update(layer.parts.get(field, {}))
        return found

    def field(self, field: bytes) -> Field:
        """Everything at a field."""
        return Field(self.cell(field), self.parts(field))

    def lowest(self, low: bytes, high: bytes, wanted: int) -> list[tuple[bytes, Row]]:
        """The ``wanted`` lowest suffixes of elements or cells in [low, high), in order, with their rows, visible or not."""
        stored = dict(self._stored.lowest(self._keyspace, self.key, low, high, wanted))
        suffixes = set(stored)
        for layer in self._layers:
            suffixes.update(layer.between(low, high, wanted))
        found: list[tuple[bytes, Row]] = []
        for suffix in nsmallest(wanted, suffixes):
            above = (layer.rows[suffix] for layer in self._layers if suffix in layer.rows)
            row = next(above, None) or stored[suffix]
            found.append((suffix, row))
        return found

    def lowest_fields(self, low: bytes, wanted: int) -> list[tuple[bytes, Field]]:
        """Up to ``wanted`` fields from ``low`` on, in order, visible or not; at least one when there is any."""
        cells = {field_of_suffix(suffix): row for suffix, row in self.lowest(field_suffix(low), FIELDS_END, wanted)}
        stored = self._stored.lowest(self._keyspace, self.key, field_parts_prefix(low), FIELD_PARTS_END, wanted)
        counters = {field_of_suffix(suffix) for suffix, _ in stored}
        horizon = (
            max(counters) if len(stored) == wanted else None
        )  # a field of many actors: there may be more right behind it
        for layer in self._layers:
            counters.update(layer.fields_with_parts(low, wanted))
        found: list[tuple[bytes, Field]] = []
        for field in nsmallest(wanted, cells.keys() | counters):
            if horizon is not None and field > horizon:
                break
            cell = cells.get(field)
            shown = cell if isinstance(cell, Cell) and not hidden(cell, self.header.map_clear) else None
            found.append((field, Field(shown, self.parts(field) if field in counters else {})))
        return found

    def counter_fields(self) -> dict[bytes, dict[Actor, Part]]:
        """Every field with live parts, and those parts: what a clear of the map must reset."""
        fields: set[bytes] = set()
        for layer in self._layers:
            fields.update(layer.parts)
        low = FIELDS_END
        while stored := self._stored.lowest(self._keyspace, self.key, low, FIELD_PARTS_END, WALK_ROWS):
            fields.update(field_of_suffix(suffix) for suffix, _ in stored)
            low = stored[-1][0] + b"\x00"
        found = ((field, live_parts(self.parts(field))) for field in sorted(fields))
        return {field: parts for field, parts in found if parts}

    def count_elements(self) -> int:
        """The visible elements, counted one by one."""
        count, low = 0, bytes([TAG_ELEMENT])
        while rows := self.lowest(low, ELEMENTS_END, WALK_ROWS):
            count += sum(isinstance(row, Element) and self.visible(row) is not None for _, row in rows)
            low = rows[-1][0] + b"\x00"
        return count

    def count_fields(self) -> int:
        """The visible fields, counted one by one."""
        count, low = 0, b""
        while fields := self.lowest_fields(low, WALK_ROWS):
            count += sum(field.visible for _, field in fields)
            low = fields[-1][0] + b"\x00"
        return count

    # -- merging

    def merge(self, suffix: bytes, delta: RowDelta, before: Before) -> Row | None:
        """Merge a delta of a change. The header follows; the row is the caller's to put into the newest layer; None: nothing to put.

        A clear is in the header already, and returned for what it weighs.
        """
        tag = suffix[0]
        if tag == TAG_ELEMENT:
            return self._merge_element(suffix, delta)
        if tag == TAG_SET_CLEAR:
            assert isinstance(delta, Clear)
            return self._merge_clear(delta, before)
        if tag == TAG_FIELD_PART:
            assert isinstance(delta, Part)
            return self._merge_part(suffix, delta)
        assert isinstance(delta, Cell)
        if tag == TAG_FIELD:
            return self._merge_cell(suffix, delta)
        assert tag == TAG_MAP_CLEAR
        return self._merge_map_clear(delta, before)

    def _merge_element(self, suffix: bytes, delta: RowDelta) -> Row | None:
        assert isinstance(delta, (Element, Removal, Edit))
        header, old = self.header, self.row(suffix)
        assert old is None or isinstance(old, Element)
        shown = None if old is None else self.visible(old)
        # Without what the clear covers, which the applier may have swept from LMDB, clear and all, when this row is read.
        new = Element(elements.visible(elements.apply(old, delta), header.clear))
        if new == old or (old is None and not new.dots):
            return None
        header.elements += bool(new.dots) - (shown is not None)
        return new

    def _merge_cell(self, suffix: bytes, delta: Cell) -> Row | None:
        header, old = self.header, self.row(suffix)
        assert old is None or isinstance(old, Cell)
        new = register.merge(old, delta)
        if new is old or hidden(new, header.map_clear):
            return None
        change = (new.value is not None) - shows(old, header.map_clear)
        if change and not live_parts(self.parts(field_of_suffix(suffix))):
            header.fields += change
        return new

    def _merge_part(self, suffix: bytes, delta: Part) -> Row | None:
        field, actor = field_of_suffix(suffix), actor_of_suffix(suffix)
        parts = self.parts(field)
        old = parts.pop(actor, None)
        new = merge_row(old, delta)
        if new is None or new == old:
            return None
        assert isinstance(new, Part)
        change = (not is_inert(new)) - (old is not None and not is_inert(old))
        if change and not live_parts(parts) and not shows(self.cell(field), None):
            self.header.fields += change
        return new

    def _merge_clear(self, delta: Clear, before: Before) -> Row | None:
        header = self.header
        clear = delta if header.clear is None else elements.join_clears(header.clear, delta)
        if clear == header.clear:
            return None
        header.clear, header.set_cleared = clear, True
        header.elements = 0 if before.is_covered_by(clear) else self.count_elements()
        return clear

    def _merge_map_clear(self, delta: Cell, before: Before) -> Row | None:
        header = self.header
        if header.map_clear is not None and register.merge(header.map_clear, delta) is header.map_clear:
            return None
        header.map_clear, header.map_cleared = delta, True
        above_all = delta.rank == RANK_CLIENT and delta.hlc > before.hlc
        header.fields = len(self.counter_fields()) if above_all else self.count_fields()
        return delta

    def _stored_parts(self, field: bytes) -> dict[Actor, Part]:
        prefix = field_parts_prefix(field)
        found: dict[Actor, Part] = {}
        ordered = len(layout.row_key(self._keyspace, self.key, prefix)) + ACTOR_BYTES <= layout.ORDER_BYTES
        if ordered and len(self._actors) > FEW_ACTORS:
            rows = self._stored.lowest(
                self._keyspace, self.key, prefix, prefix + b"\xff" * ACTOR_BYTES, len(self._actors)
            )
            return {actor_of_suffix(suffix): row for suffix, row in rows if isinstance(row, Part)}
        for actor in self._actors:
            row = self._stored.row(self._keyspace, self.key, field_part_suffix(field, actor))
            if isinstance(row, Part):
                found[actor] = row
        return found


def clears_first(operations: Sequence[Operation]) -> Sequence[Operation]:
    """A change's operations in the order in which they are merged: its clears have not seen what it puts itself."""
    if len(operations) < 2:
        return operations
    return sorted(operations, key=lambda operation: operation[0] not in _CLEARS)
