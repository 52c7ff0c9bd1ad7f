"""Durable rows that LMDB may not have yet, as generations of Python dicts.

Frames' overlays are layers too. The engine fills a frame's overlay, merges it into ``Memtable.active`` when the frame is durable,
freezes the active layer for the applier, and drops a frozen layer when LMDB shows its rows. Reads go through the layers from the
newest to the oldest, then to LMDB.

Invariants
- A row in a layer is complete except for LMDB's own version: whoever puts it there has joined it with the newest version in all
  layers below. So ``merge_from`` replaces rows, and the first hit of a read decides, up to LMDB. A plain row dominates everything
  before it by its stamp and decides alone; so does a tombstone, which is a Cell and therefore a hit.
- ``composites`` are the few rows of a key that string verbs read whole: its expiry, counter parts and siblings (these complete with
  LMDB's version). Elements and fields, of which there may be a million, are in ``collections`` (store.collection); those rows have
  LMDB's version in them as well.
- Rows that are not durable are never in the memtable, and nothing is removed from a layer but, in the cache, elements
  without dots, of which LMDB has no row: expiry hides, purging is LMDB's. And all rows of the keys that a keyspace takes over from
  the default one when it is created (``forget``).
- Only the active layer grows. A frozen layer leaves the read path only when its commit was reported AND a reader transaction that
  began after that commit is in use; otherwise its rows would be nowhere for a moment.
- Layers that left stay *cached* below the frozen ones and above LMDB, in the memory that generations do not need. The oldest goes
  first: one that stayed without those after it would hide newer rows. They are not merged: half a million rows take 0.2 s and more.
- A layer given up is swept a few rows at a time: freeing half a million rows at once would stop the event loop for 50 ms and more.

Layers speak of user keys without their keyspace: each key lies in exactly one. Pure; single-threaded.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.operation import SUFFIX_REGISTER, SUFFIX_SIBLINGS, TAG_ELEMENT, TAG_SET_CLEAR, Row
from edgekv.crdt.register import Cell, Register
from edgekv.crdt.siblings import Siblings
from edgekv.ids import Lsn
from edgekv.limits import CACHED_GENERATIONS_MAX, FROZEN_GENERATIONS_MAX, ROW_OVERHEAD_BYTES
from edgekv.store.collection import Collection
from edgekv.store.sorted_keys import SortedKeys

PART_PAYLOAD_BYTES: Final = 32
_WIDE: Final = 1 << 63
DOT_PAYLOAD_BYTES: Final = 36
COLLECTION_OVERHEAD_BYTES: Final = 400  # of a Collection and its dicts, besides its rows


class Layer:
    """The rows of one frame or generation."""

    __slots__ = (
        "_collection_keys",
        "_composite_keys",
        "_register_keys",
        "collection_rows",
        "collections",
        "composite_rows",
        "composites",
        "registers",
        "size_bytes",
    )

    def __init__(self) -> None:
        self.registers: dict[bytes, Register] = {}
        self.composites: dict[bytes, dict[bytes, Row]] = {}
        self.composite_rows = 0
        self.collections: dict[bytes, Collection] = {}
        self.collection_rows = 0
        # What counts against ``memory_bytes``: ROW_OVERHEAD_BYTES for each row, and the payload of every row that was written here,
        # also of those that a later one replaced (the log holds them until the layer is applied).
        self.size_bytes = 0
        self._register_keys = SortedKeys(self.registers)
        self._composite_keys = SortedKeys(self.composites)
        self._collection_keys = SortedKeys(self.collections)

    @property
    def rows(self) -> int:
        """Rows that the layer holds."""
        return len(self.registers) + self.composite_rows + self.collection_rows

    @property
    def empty(self) -> bool:
        """Whether nothing was written here; a clear alone is something."""
        return not (self.registers or self.composites or self.collections)

    @property
    def payload_bytes(self) -> int:
        """Keys and values of every row that was written here."""
        return self.size_bytes - self._overhead_bytes

    @property
    def _overhead_bytes(self) -> int:
        return self.rows * ROW_OVERHEAD_BYTES + len(self.collections) * COLLECTION_OVERHEAD_BYTES

    def put_plain_run(self, keys: Sequence[bytes], values: Sequence[bytes], first_hlc: int, payload_bytes: int) -> None:
        """Plain local SETs, one change each, with consecutive HLCs; ``payload_bytes`` is the length of all keys and values."""
        registers = self.registers
        before = len(registers)
        registers.update(zip(keys, zip(values, range(first_hlc, first_hlc + len(keys)), strict=True), strict=True))
        self.size_bytes += payload_bytes + (len(registers) - before) * ROW_OVERHEAD_BYTES

    def put_cells(self, keys: Sequence[bytes], cells: Iterable[Cell], payload_bytes: int) -> None:
        """Registers of another actor's run that dominate all that is here, in the order of their stamps."""
        registers = self.registers
        before = len(registers)
        registers.update(zip(keys, cells, strict=True))
        self.size_bytes += payload_bytes + (len(registers) - before) * ROW_OVERHEAD_BYTES

    def put_row(self, key: bytes, suffix: bytes, row: Row) -> None:
        """One row, already joined with the newest version in this layer and those below."""
        if suffix == SUFFIX_REGISTER:
            assert isinstance(row, Cell)
            self.put_register(key, row)
            return
        assert suffix[0] < TAG_ELEMENT or suffix == SUFFIX_SIBLINGS
        rows = self.composites.setdefault(key, {})
        added = suffix not in rows
        rows[suffix] = row
        self.composite_rows += added
        self.size_bytes += len(key) + len(suffix) + _content_bytes(row) + added * ROW_OVERHEAD_BYTES

    def open_collection(self, key: bytes, below: Collection) -> Collection:
        """This layer's part of a key's set and map, begun with the header of the newest one below when it has none."""
        found = self.collections.get(key)
        if found is None:
            found = self.collections[key] = Collection(below)
            self.size_bytes += len(key) + COLLECTION_OVERHEAD_BYTES
        return found

    def put_collection_row(self, collection: Collection, suffix: bytes, row: Row) -> None:
        """One row of a collection of this layer, complete with LMDB's version. A clear is in the header, and costs what it costs."""
        added = suffix[0] < TAG_SET_CLEAR and collection.put(suffix, row)
        self.collection_rows += added
        self.size_bytes += len(suffix) + _content_bytes(row) + added * ROW_OVERHEAD_BYTES

    def put_register(self, key: bytes, row: Register) -> None:
        """A register, plain or whole."""
        added = key not in self.registers
        self.registers[key] = row
        self.size_bytes += len(key) + len(row[0] or b"") + added * ROW_OVERHEAD_BYTES

    def merge_from(self, newer: "Layer") -> None:
        """Put all rows of ``newer``, which has joined them with the rows here, above the rows here. ``newer`` stays as it is."""
        before = self._overhead_bytes
        self.registers.update(newer.registers)
        if newer.composites:
            self._merge_composites(newer.composites)
        if newer.collections:
            self._merge_collections(newer.collections)
        self.size_bytes += newer.payload_bytes + self._overhead_bytes - before

    def _merge_composites(self, newer: dict[bytes, dict[bytes, Row]]) -> None:
        composites = self.composites
        for key, rows in newer.items():
            mine = composites.setdefault(key, {})
            before = len(mine)
            mine.update(rows)
            self.composite_rows += len(mine) - before

    def _merge_collections(self, newer: dict[bytes, Collection]) -> None:
        for key, collection in newer.items():
            mine = self.collections.setdefault(key, Collection())
            before = mine.row_count
            mine.merge_from(collection)
            self.collection_rows += mine.row_count - before

    def replace(self, keys: Iterable[bytes], newer: "Layer") -> None:
        """Of these keys, have what ``newer`` has, registers apart: whatever else is here of them goes."""
        before = self._overhead_bytes
        gone = False
        for key in keys:
            rows, mine = newer.composites.get(key), self.composites.get(key)
            self.composite_rows += len(rows or ()) - len(mine or ())
            if rows is not None:
                self.composites[key] = rows
            elif mine is not None:
                del self.composites[key]
                gone = True
            collection, own = newer.collections.get(key), self.collections.get(key)
            self.collection_rows += _row_count(collection) - _row_count(own)
            if collection is not None:
                self.collections[key] = collection
            elif own is not None:
                del self.collections[key]
                gone = True
        if gone:
            self._composite_keys.shrunk()
            self._collection_keys.shrunk()
        self.size_bytes += self._overhead_bytes - before

    def forget(self, low: bytes, high: bytes | None) -> None:
        """Leave out every row of the keys in [low, high): they belong to another keyspace from now on."""
        before, size_bytes = self._overhead_bytes, self.size_bytes
        for rows, order in (
            (self.registers, self._register_keys),
            (self.composites, self._composite_keys),
            (self.collections, self._collection_keys),
        ):
            keys = order.between(low, high, len(rows))
            for key in keys:
                del rows[key]
            if keys:
                order.shrunk()
        self.composite_rows = sum(map(len, self.composites.values()))
        self.collection_rows = sum(collection.row_count for collection in self.collections.values())
        self.size_bytes = size_bytes - (before - self._overhead_bytes)

    def drop_dead(self) -> None:
        """In the cache, which says nothing else than LMDB does: leave out elements that are not there."""
        for collection in self.collections.values():
            dropped = collection.drop_dead()
            self.collection_rows -= dropped
            self.size_bytes -= dropped * ROW_OVERHEAD_BYTES

    def sorted_keys(self, low: bytes, high: bytes | None, limit: int) -> list[bytes]:
        """The first ``limit`` keys in [low, high) in order; ``high`` None: no bound. Tombstoned and expired keys included."""
        registers = self._register_keys.between(low, high, limit)
        composites = self._composite_keys.between(low, high, limit)
        collections = self._collection_keys.between(low, high, limit)
        return sorted({*registers, *composites, *collections})[:limit] if composites or collections else registers

    def sweep(self, rows: int) -> int:
        """Free up to ``rows`` rows of a layer that was given up; how many it were."""
        count = min(rows, len(self.registers))
        for _ in range(count):
            self.registers.popitem()
        while count < rows and self.collections:
            key, collection = self.collections.popitem()
            count += 1 + collection.sweep(rows - count)
            if collection.row_count:
                self.collections[key] = collection
        while count < rows and self.composites:
            count += len(self.composites.popitem()[1])
        return count


class Frozen:
    """A layer that the applier carries into LMDB, up to and including the record ``lsn``."""

    __slots__ = ("applied", "layer", "lsn")

    def __init__(self, layer: Layer, lsn: Lsn) -> None:
        self.layer = layer
        self.lsn = lsn
        self.applied = False  # its commit was reported; readers that began earlier do not see it


class Memtable:
    """The generations, and the order in which reads look at them.

    A layer's way: active --freeze--> frozen --applied--> frozen, applied --renewed--> cache, or garbage --sweep--> gone.
    """

    __slots__ = ("_garbage", "active", "cached", "frozen", "layers", "memory_bytes")

    def __init__(self, memory_bytes: int = 0) -> None:
        self.memory_bytes = memory_bytes
        """What generations and cache may take together before the cache goes."""
        self._garbage: list[Layer] = []
        self.active = Layer()
        self.frozen: list[Frozen] = []  # oldest first
        self.cached: list[Layer] = []  # newest first
        self.layers: tuple[Layer, ...] = (self.active,)
        """Newest first; a scan that keeps this tuple keeps its view."""

    @property
    def can_freeze(self) -> bool:
        """Whether ``freeze`` may be called: there is something to freeze and room for it."""
        return len(self.frozen) < FROZEN_GENERATIONS_MAX and not self.active.empty

    @property
    def empty(self) -> bool:
        """Whether LMDB shows everything that was put here."""
        return self.active.empty and not self.frozen

    @property
    def rows(self) -> int:
        """Rows that LMDB may not have yet."""
        return self.active.rows + sum(frozen.layer.rows for frozen in self.frozen)

    @property
    def size_bytes(self) -> int:
        """Bytes that LMDB may not have yet: what counts against ``memory_bytes``."""
        return self.active.size_bytes + sum(frozen.layer.size_bytes for frozen in self.frozen)

    def freeze(self, lsn: Lsn) -> Frozen:
        """End the active layer at the durable record ``lsn`` (the last one in it) and begin another."""
        assert self.can_freeze
        assert not self.frozen or self.frozen[-1].lsn < lsn
        frozen = Frozen(self.active, lsn)
        self.frozen.append(frozen)
        self.active = Layer()
        self._order()
        return frozen

    def applied(self, lsn: Lsn) -> None:
        """A commit that contains everything up to ``lsn`` was reported. The layers stay in the read path."""
        for frozen in self.frozen:
            frozen.applied |= frozen.lsn <= lsn

    def renewed(self, lsn: Lsn) -> int:
        """The reader transaction in use was renewed and shows ``lsn`` as applied; the number of layers that left."""
        leaving = 0
        while leaving < len(self.frozen) and self.frozen[leaving].applied and self.frozen[leaving].lsn <= lsn:
            leaving += 1
        if leaving:
            left = [frozen.layer for frozen in self.frozen[:leaving]]
            del self.frozen[:leaving]
            for layer in left:
                self._to_cache(layer)
            self._order()
        return leaving

    def _to_cache(self, layer: Layer) -> None:
        """Put a layer above the cached ones. Older ones go to make room; all of them if there is none: they would hide its rows."""
        self.cached.insert(0, layer)
        self._shrink_cache(self.memory_bytes - self.size_bytes)

    def _shrink_cache(self, room: int) -> None:
        cached = self.cached
        size = sum(layer.size_bytes for layer in cached)
        while cached and (size > room or len(cached) > CACHED_GENERATIONS_MAX):
            size -= cached[-1].size_bytes
            self._garbage.append(cached.pop())
        if cached:
            cached[-1].drop_dead()  # below the oldest there is only LMDB

    def trim(self, unapplied_bytes: int) -> None:
        """Give cached layers up, oldest first, when rows that must be kept need their memory."""
        if sum(layer.size_bytes for layer in self.cached) + unapplied_bytes > self.memory_bytes:
            self._shrink_cache(self.memory_bytes - unapplied_bytes)
            self._order()

    def forget(self, low: bytes, high: bytes | None) -> None:
        """Leave out every row of the keys in [low, high); the log has them, and the applier takes what it stores from there."""
        for layer in self.layers:
            layer.forget(low, high)

    def drop_cache(self) -> None:
        """Take all cached layers out of the read path."""
        if self.cached:
            self._garbage += self.cached
            self.cached.clear()
            self._order()

    def sweep(self, rows: int) -> None:
        """Free up to ``rows`` rows of layers that were given up."""
        while self._garbage and rows > 0:
            rows -= self._garbage[-1].sweep(rows)
            if self._garbage[-1].empty:
                self._garbage.pop()

    def _order(self) -> None:
        self.layers = (self.active, *(frozen.layer for frozen in reversed(self.frozen)), *self.cached)


def rows_in_layers(layers: Iterable[Layer], key: bytes) -> tuple[Register | None, dict[bytes, Row]]:
    """The key's register, and its other rows by suffix, as the layers (newest first) have them: complete except for LMDB's."""
    register: Register | None = None
    composites: dict[bytes, Row] = {}
    for layer in layers:
        if register is None:
            register = layer.registers.get(key)
        rows = layer.composites.get(key)
        if rows:
            composites = {**rows, **composites}
    return register, composites


def _row_count(collection: Collection | None) -> int:
    return 0 if collection is None else collection.row_count


def _content_bytes(row: Row) -> int:
    if isinstance(row, Part):  # first: runs of increments ask this of every row
        total = row.total
        return PART_PAYLOAD_BYTES if type(total) is int and -_WIDE <= total < _WIDE else _wide_bytes(row)
    match row:
        case Cell(value):
            return len(value or b"")
        case Element(dots) | Clear(dots):
            return DOT_PAYLOAD_BYTES * len(dots)
        case Siblings(values):
            return sum(DOT_PAYLOAD_BYTES + len(sibling.value) for sibling in values)


def _wide_bytes(part: Part) -> int:
    """Of a part with numbers that may have thousands of digits."""
    numbers = (part.total, part.base_total)
    return (
        PART_PAYLOAD_BYTES + sum(each.numerator.bit_length() + each.denominator.bit_length() for each in numbers) // 8
    )
