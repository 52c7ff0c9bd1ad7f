"""Runs of small writes of one kind, as pipelines send them: INCR, SADD of one element, HSET of one field.

Each is a change of its own. What costs is all around it: reading a key in general, operations to deltas, deltas to rows. Here a run of
one key's elements or fields reads the key once, and every row goes straight into the frame. The rows are those that `Commit.overlay`
would make of the same operations. What is not so plain ends a run early, and its verb makes it.
"""

from collections.abc import Sequence
from itertools import count, repeat
from typing import Final, cast

from edgekv.crdt import counter, elements
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Element
from edgekv.crdt.operation import (
    ADD,
    ADD_ELEMENTS,
    PUT_FIELDS,
    SUFFIX_EXPIRY,
    SUFFIX_REGISTER,
    TAG_COUNTER,
    Operation,
    Row,
    counter_suffix,
    element_suffix,
    encode_number,
    field_suffix,
)
from edgekv.crdt.register import RANK_CLIENT, Cell
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.keyspaces import Keyspace
from edgekv.ids import Actor
from edgekv.limits import ROW_OVERHEAD_BYTES
from edgekv.store import layout
from edgekv.store.collection import Collection, shows
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import DOT_PAYLOAD_BYTES, Layer, Memtable
from edgekv.store.walk import Walk

RUN_BYTES_MAX: Final = 64 << 10
"""Of keys and values: what a frame that is almost full can take. Larger runs are made one by one."""
RUN_CHANGES_MAX: Final = 256
_FRAMING_BYTES: Final = 24
_INTEGER_MIN: Final = -(1 << 63)
_INTEGER_MAX: Final = (1 << 63) - 1
_ELEMENT: Final = element_suffix(b"")
_FIELD: Final = field_suffix(b"")
_NO_ROWS: Final[dict[bytes, Row]] = {}
_CELL_TAIL: Final = repeat(0), repeat(RANK_CLIENT), repeat(None)
"""No expiry, the rank of clients, no other dot."""
_make: Final = tuple.__new__
"""``map(_make, repeat(Cell), zip(...))`` makes rows without a step of the interpreter for each; so does the rest of a run."""


class Runs:
    """Of one node."""

    def __init__(
        self, *, actor: Actor, commit: Commit, memtable: Memtable, store: LmdbStore, collections: Collections
    ) -> None:
        self._actor: Final = actor
        self._own: Final = counter_suffix(actor)
        self._commit: Final = commit
        self._memtable: Final = memtable
        self._store: Final = store
        self._collections: Final = collections

    def is_new(self, keyspace: Keyspace, key: bytes) -> bool:
        """Whether there is nothing at a key, in any layer or in LMDB: then nothing else needs to be asked of it."""
        for layer in (*(frame.layer for frame in self._commit.overlays), *self._memtable.layers):
            if key in layer.registers or key in layer.composites or key in layer.collections:
                return False
        start = layout.row_key(keyspace.id, key, b"")
        walk = self._store.walk()
        return len(start) <= layout.ORDER_BYTES and not (walk.seek(start) and walk.key.startswith(start))

    def add_elements(self, keyspace: Keyspace, key: bytes, members: Sequence[bytes], *, new: bool) -> list[int]:
        """Add each to a set that can be seen, or to a ``new`` key; 1 where it is new, else 0."""
        layer, suffixes = self._commit.filling.layer, list(map(_ELEMENT.__add__, members))
        collection, old = self._opened(layer, keyspace, key, set(suffixes), new=new)
        changes = self._commit.begin(keyspace)  # no read comes any more that could raise
        dots = zip(zip(repeat(self._actor), count(keyspace.seq + 1)))
        made: dict[bytes, Row] = dict(zip(suffixes, map(_make, repeat(Element), zip(dots)), strict=False))
        clear, visible = collection.clear, set[bytes]()
        size = sum(map(len, members)) + DOT_PAYLOAD_BYTES * len(members)
        for suffix, row in old.items():
            assert isinstance(row, Element)
            if elements.visible(row, clear):
                visible.add(suffix)
            if len(row.dots) > 1 or (row.dots and row.dots[0][0] != self._actor):
                element = elements.apply(row, cast("Element", made[suffix]))
                made[suffix] = element = Element(elements.visible(element, clear))
                size += DOT_PAYLOAD_BYTES * (len(element.dots) - 1)
        added = _added(suffixes, visible)
        changes.extend(zip(zip(repeat(ADD_ELEMENTS), repeat(key), zip(members))))
        collection.elements += sum(added)
        self._done(keyspace, layer, collection, key, made, size, len(members))
        return added

    def put_fields(
        self, keyspace: Keyspace, key: bytes, fields: Sequence[bytes], values: Sequence[bytes], *, new: bool
    ) -> list[int] | None:
        """Put each into a map that can be seen, or at a ``new`` key; 1 where it is new, else 0.

        None, and nothing happened, when any field counts.
        """
        if not new and self._counts(keyspace, key):
            return None
        layer, suffixes = self._commit.filling.layer, list(map(_FIELD.__add__, fields))
        collection, old = self._opened(layer, keyspace, key, set(suffixes), new=new)
        changes = self._commit.begin(keyspace)
        cells = zip(values, count(keyspace.hlc + 1), repeat(self._actor), count(keyspace.seq + 1), *_CELL_TAIL)
        made: dict[bytes, Row] = dict(zip(suffixes, map(_make, repeat(Cell), cells), strict=True))
        clear = collection.map_clear
        added = _added(suffixes, {suffix for suffix, row in old.items() if shows(cast("Cell", row), clear)})
        changes.extend(zip(zip(repeat(PUT_FIELDS), repeat(key), zip(zip(fields, values, strict=True)))))
        collection.fields += sum(added)
        size = sum(map(len, fields)) + sum(map(len, values))
        self._done(keyspace, layer, collection, key, made, size, len(fields))
        return added

    def _done(
        self,
        keyspace: Keyspace,
        layer: Layer,
        collection: Collection,
        key: bytes,
        made: dict[bytes, Row],
        size: int,
        changes: int,
    ) -> None:
        """Put the rows of so many changes of one key's elements or fields, with so many bytes, into the layer."""
        keyspace.mixed = True
        rows = collection.rows
        before = len(rows)
        rows.update(made)
        fresh = len(rows) - before
        keyspace.seq += changes
        keyspace.hlc += changes
        size += changes  # the tags
        layer.collection_rows += fresh
        layer.size_bytes += size + fresh * ROW_OVERHEAD_BYTES
        self._commit.grew(changes, size + changes * (_FRAMING_BYTES + len(key)))

    def _opened(
        self, layer: Layer, keyspace: Keyspace, key: bytes, missing: set[bytes], *, new: bool
    ) -> tuple[Collection, dict[bytes, Row]]:
        """The layer's part of a set or map, and the newest version of each of these rows, from wherever it is."""
        if new:
            return layer.open_collection(key, Collection()), {}
        collection = self._commit.open_collection(layer, keyspace, key)
        old: dict[bytes, Row] = {}
        for found in self._collections.layers(key):
            hits = missing & found.rows.keys()
            if hits:
                rows = found.rows
                old.update({suffix: rows[suffix] for suffix in hits})
                missing -= hits
        start, get, actor_of = layout.row_key(keyspace.id, key, b""), self._store.get, self._store.actor_of
        for suffix in missing:
            stored = get(layout.lmdb_key_of(start + suffix))
            if stored is not None:
                old[suffix] = layout.decode_row(stored, actor_of)
        return collection, old

    def _counts(self, keyspace: Keyspace, key: bytes) -> bool:
        return any(layer.parts for layer in self._collections.layers(key)) or self._collections.stores_counters(
            keyspace, key
        )

    # -- numbers

    def increment(self, keyspace: Keyspace, keys: Sequence[bytes], deltas: Sequence[int]) -> list[int]:
        """The sums of the first keys: up to one that is more than a number without an expiry, or whose sum is none."""
        layer, changes = self._commit.filling.layer, list[Sequence[Operation]]()
        layers = [*(frame.layer for frame in self._commit.overlays), *self._memtable.layers]
        layers = [other for other in layers if not other.empty or other is layer]
        alone = not keyspace.observed and not keyspace.vector.keys() - {self._actor}
        walk, own_actor, sums = self._store.walk(), self._actor, list[int]()
        for key, delta in zip(keys, deltas, strict=True):
            try:
                parts = self._parts(keyspace, key, layers, walk, alone=alone)
            except Exception:
                if not sums:
                    raise
                break  # those before it are made; the verb of this one will say what is wrong
            if parts is None:
                break
            before = counter.value(parts.values()) if parts else 0
            if type(before) is not int:
                break
            total = before + delta
            if not _INTEGER_MIN <= before <= _INTEGER_MAX or not _INTEGER_MIN <= total <= _INTEGER_MAX:
                break
            if not sums:
                changes, keyspace.mixed = self._commit.begin(keyspace), True
            keyspace.hlc += 1
            keyspace.seq = seq = keyspace.seq + 1
            own = parts.get(own_actor)
            part = counter.increment(own, delta, seq)
            made_anew = 1 if own is None or is_inert(own) else 0
            number = encode_number(part.total), part.base_seq, encode_number(part.base_total)
            changes.append([(ADD, key, *number, made_anew)])
            layer.put_row(key, self._own, part)
            sums.append(total)
        if sums:
            done = len(sums)
            self._commit.grew(done, sum(map(len, keys[:done])) + _FRAMING_BYTES * done)
        return sums

    def _parts(
        self, keyspace: Keyspace, key: bytes, layers: list[Layer], walk: Walk, *, alone: bool
    ) -> dict[Actor, Part] | None:
        """The parts of a key that holds nothing else, or nothing at all; else None. ``alone``: nobody else has parts here."""
        rows = _NO_ROWS
        for layer in layers:
            if key in layer.registers or key in layer.collections:
                return None
            found = layer.composites.get(key)
            if found and (self._own not in rows or not alone):  # else nothing below tells more
                rows = {**found, **rows} if rows else found
        if alone and self._own in rows:
            if self._store.get(layout.lmdb_key(keyspace.id, key, SUFFIX_REGISTER)) is not None:
                return None
        else:
            start = layout.row_key(keyspace.id, key, b"")
            ordered = len(start) + len(self._own) <= layout.ORDER_BYTES
            if not ordered or (walk.seek(start) and walk.key.startswith(start)):
                stored = dict(self._store.string_rows(keyspace.id, key, keyspace.vector))
                if SUFFIX_REGISTER in stored or not (stored or rows):
                    return None  # or a set, a map, or what is left of them
                rows = {
                    **{suffix: layout.decode_row(row, self._store.actor_of) for suffix, row in stored.items()},
                    **rows,
                }
        return _counter_parts(rows) if rows else {}


def _added(suffixes: list[bytes], visible: set[bytes]) -> list[int]:
    """1 for each that is not there yet, nor named before."""
    if not visible and len(set(suffixes)) == len(suffixes):
        return [1] * len(suffixes)
    added = []
    for suffix in suffixes:
        added.append(0 if suffix in visible else 1)
        visible.add(suffix)
    return added


def _counter_parts(rows: dict[bytes, Row]) -> dict[Actor, Part] | None:
    """The parts, when something is left of them and nothing ends them; without that there may be a set or map instead."""
    expiry = rows.get(SUFFIX_EXPIRY)
    if isinstance(expiry, Cell) and expiry.value is not None:
        return None
    parts = {
        Actor(suffix[1:]): row for suffix, row in rows.items() if suffix[0] == TAG_COUNTER and isinstance(row, Part)
    }
    return None if all(map(is_inert, parts.values())) else parts
