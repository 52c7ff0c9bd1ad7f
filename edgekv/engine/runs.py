"""Runs of small writes of one kind, as pipelines send them: INCR, SADD of one element, HSET of one field.

Each is a change of its own. What costs is all around it: reading a key in general, operations to deltas, deltas to rows. Here a run of
one key's elements or fields reads the key once, and every row goes straight into the frame. The rows are those that `Commit.overlay`
would make of the same operations. What is not so plain ends a run early, and its verb makes it.
"""

from collections.abc import Sequence
from typing import Final

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
from edgekv.crdt.register import Cell
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.keyspaces import Keyspace
from edgekv.ids import Actor
from edgekv.limits import ROW_OVERHEAD_BYTES
from edgekv.store import layout
from edgekv.store.collection import Collection, shows
from edgekv.store.lmdb_store import LmdbStore, Walk
from edgekv.store.memtable import DOT_PAYLOAD_BYTES, Layer, Memtable

RUN_BYTES_MAX: Final = 64 << 10
"""Of keys and values: what a frame that is almost full can take. Larger runs are made one by one."""
RUN_CHANGES_MAX: Final = 256
_FRAMING_BYTES: Final = 24
_INTEGER_MIN: Final = -(1 << 63)
_INTEGER_MAX: Final = (1 << 63) - 1
_ELEMENT: Final = element_suffix(b"")
_FIELD: Final = field_suffix(b"")
_NO_ROWS: Final[dict[bytes, Row]] = {}


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

    def add_elements(self, keyspace: Keyspace, key: bytes, members: Sequence[bytes]) -> list[int]:
        """Add each to a set that can be seen; 1 where it is new, else 0."""
        changes, layer = self._commit.begin(keyspace), self._commit.filling.layer
        collection, below = self._opened(layer, keyspace, key)
        actor, clear, rows = self._actor, collection.clear, collection.rows
        start, seq = layout.row_key(keyspace.id, key, b""), keyspace.seq
        added: list[int] = []
        made: dict[bytes, Row] = {}
        size = fresh = 0
        for member in members:
            seq += 1
            suffix = _ELEMENT + member
            old = made.get(suffix) or rows.get(suffix)
            if old is None:
                fresh += 1
                old = self._below(start, suffix, below)
            new = Element(((actor, seq),))
            if old is None:
                added.append(1)
            else:
                assert isinstance(old, Element)
                added.append(0 if elements.visible(old, clear) else 1)
                if len(old.dots) > 1 or (old.dots and old.dots[0][0] != actor):
                    new = Element(elements.visible(elements.apply(old, new), clear))
            made[suffix] = new
            size += len(member) + DOT_PAYLOAD_BYTES * len(new.dots)
        rows.update(made)  # no read comes any more that could raise
        changes.extend([(ADD_ELEMENTS, key, (member,))] for member in members)
        collection.elements += sum(added)
        self._done(keyspace, layer, len(members), fresh, size, len(key))
        return added

    def put_fields(
        self, keyspace: Keyspace, key: bytes, fields: Sequence[bytes], values: Sequence[bytes]
    ) -> list[int] | None:
        """Put each into a map that can be seen; 1 where it is new, else 0. None, and nothing happened, when any field counts."""
        layers = self._collections.layers(key)
        if any(layer.parts for layer in layers) or self._collections.stores_counters(keyspace, key):
            return None
        changes, layer = self._commit.begin(keyspace), self._commit.filling.layer
        collection, below = self._opened(layer, keyspace, key)
        actor, clear, rows = self._actor, collection.map_clear, collection.rows
        start, seq, hlc = layout.row_key(keyspace.id, key, b""), keyspace.seq, keyspace.hlc
        added: list[int] = []
        made: dict[bytes, Row] = {}
        size = fresh = 0
        for field, value in zip(fields, values, strict=True):
            seq += 1
            hlc += 1
            suffix = _FIELD + field
            old = made.get(suffix) or rows.get(suffix)
            if old is None:
                fresh += 1
                old = self._below(start, suffix, below)
            assert old is None or isinstance(old, Cell)
            added.append(0 if shows(old, clear) else 1)
            made[suffix] = Cell(value, hlc, actor, seq)
            size += len(field) + len(value)
        rows.update(made)
        changes.extend([(PUT_FIELDS, key, ((field, value),))] for field, value in zip(fields, values, strict=True))
        collection.fields += sum(added)
        self._done(keyspace, layer, len(fields), fresh, size, len(key))
        return added

    def _done(self, keyspace: Keyspace, layer: Layer, changes: int, fresh: int, size: int, key_bytes: int) -> None:
        """So many changes of one key's elements or fields, of which some have rows that were not in the layer."""
        keyspace.seq += changes
        keyspace.hlc += changes
        size += changes  # the tags
        layer.collection_rows += fresh
        layer.size_bytes += size + fresh * ROW_OVERHEAD_BYTES
        self._commit.grew(changes, size + changes * (_FRAMING_BYTES + key_bytes))

    def _opened(self, layer: Layer, keyspace: Keyspace, key: bytes) -> tuple[Collection, list[dict[bytes, Row]]]:
        """The layer's part of a set or map, and the rows in those below, newest first."""
        collection = self._commit.open_collection(layer, keyspace, key)
        return collection, [found.rows for found in self._collections.layers(key) if found is not collection]

    def _below(self, start: bytes, suffix: bytes, below: list[dict[bytes, Row]]) -> Row | None:
        for rows in below:
            row = rows.get(suffix)
            if row is not None:
                return row
        stored = self._store.get(layout.lmdb_key_of(start + suffix))
        return None if stored is None else layout.decode_row(stored, self._store.actor_of)

    # -- numbers

    def increment(self, keyspace: Keyspace, keys: Sequence[bytes], deltas: Sequence[int]) -> list[int]:
        """The sums of the first keys: up to one that is more than a number without an expiry, or whose sum is none."""
        layer, changes = self._commit.filling.layer, list[list[Operation]]()
        layers = [*(frame.layer for frame in self._commit.overlays), *self._memtable.layers]
        layers = [other for other in layers if not other.empty or other is layer]
        alone = not keyspace.vector.keys() - {self._actor}
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


def _counter_parts(rows: dict[bytes, Row]) -> dict[Actor, Part] | None:
    """The parts, when something is left of them and nothing ends them; without that there may be a set or map instead."""
    expiry = rows.get(SUFFIX_EXPIRY)
    if isinstance(expiry, Cell) and expiry.value is not None:
        return None
    parts = {
        Actor(suffix[1:]): row for suffix, row in rows.items() if suffix[0] == TAG_COUNTER and isinstance(row, Part)
    }
    return None if all(map(is_inert, parts.values())) else parts
