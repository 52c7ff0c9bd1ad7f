"""Reads: a key's rows through every layer, newest first, and the barrier that an undurable one raises.

The order is: frames that are not in the memtable yet (filling, closed, in flight, written but unsynced), the active generation, the
frozen ones, the cache of the last applied one, LMDB. The first hit above LMDB is complete except for LMDB's own version, because
engine/commit.py joins what it overlays with the newest row above LMDB; and a register's newest version dominates LMDB's.

Expired rows are hidden by TTL time, which is the larger of this node's wall clock and what the log has learned; they are removed only
by the applier.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from edgekv.crdt.counter import Part
from edgekv.crdt.operation import SUFFIX_EXPIRY, SUFFIX_REGISTER, SUFFIX_SIBLINGS, TAG_COUNTER, TAG_ELEMENT, Row
from edgekv.crdt.register import Cell, Register, as_cell, visible
from edgekv.crdt.siblings import NO_SIBLINGS, Siblings
from edgekv.crdt.strings import StringState
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.keyspaces import Keyspace, Keyspaces
from edgekv.ids import Actor
from edgekv.limits import READ_RUN_BYTES_MAX, SCAN_EXAMINED_KEYS_MAX
from edgekv.store import snapshot
from edgekv.store.layout import PLAIN_VALUE_OFFSET, SHORT_ROW_KEY_BYTES_MAX, decode_row, lmdb_key
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Layer, Memtable

_REGISTER_END: Final = b"\x00" + SUFFIX_REGISTER
_SHORT: Final = SHORT_ROW_KEY_BYTES_MAX - 4 - len(_REGISTER_END)


class Found(NamedTuple):
    """A key that a range shows, and what it holds: a string, how many elements, how many fields. Of those at least one is there.

    An expiry that has passed hides the counts too: they are 0 then.
    """

    key: bytes
    keyspace: Keyspace
    state: StringState
    elements: int
    fields: int


class Range(NamedTuple):
    """A page of a range; ``next_key`` is where the next one starts, None at the end."""

    found: list[Found]
    next_key: bytes | None


class Reads:
    """The read side of one node."""

    def __init__(
        self,
        *,
        actor: Actor,
        commit: Commit,
        memtable: Memtable,
        store: LmdbStore,
        keyspaces: Keyspaces,
        collections: Collections,
        ttl_now_ms: Callable[[], int],
    ) -> None:
        self._actor: Final = actor
        self._commit: Final = commit
        self._memtable: Final = memtable
        self._store: Final = store
        self._keyspaces: Final = keyspaces
        self._collections: Final = collections
        self.ttl_now_ms: Final = ttl_now_ms

    # -- the hot path

    def values(self, keyspace: Keyspace, keys: Sequence[bytes]) -> list[bytes | None]:
        """The register values of keys of one keyspace that holds nothing but registers.

        Those of the first keys only, at least one, when together they have more than READ_RUN_BYTES_MAX.
        """
        rows = self._layered(keys)
        if None in rows:
            self._fill_stored(rows, keyspace, keys)
            keys = keys[: len(rows)]
        for frame in reversed(self._commit.overlays):
            registers = frame.layer.registers
            if registers:
                for i, key in enumerate(keys):
                    row = registers.get(key)
                    if row is not None:
                        rows[i] = row
                        if not frame.shown:
                            self._commit.looked(frame)
        values: list[bytes | None] = []
        add = values.append
        for found in rows:
            if found is None:
                add(None)
            elif type(found) is bytes:
                add(found[PLAIN_VALUE_OFFSET:] if found[0] == 0 else self._visible_value(found))
            else:
                add(found[0] if len(found) == 2 else self._visible_value(found))  # type: ignore[arg-type] # not bytes
        return values if sum(map(len, filter(None, values))) <= READ_RUN_BYTES_MAX else first_values(values)

    def _fill_stored(self, rows: list[Register | bytes | None], keyspace: Keyspace, keys: Sequence[bytes]) -> None:
        """Look up in LMDB what is not in the memtable; each value is a copy, hence the bound."""
        size = 0
        for i, row in enumerate(rows):
            if row is None:
                stored = self._stored_register(keyspace, keys[i])
                if stored is not None:
                    rows[i] = stored
                    size += len(stored)
                    if size > READ_RUN_BYTES_MAX:
                        del rows[i + 1 :]
                        return

    def _layered(self, keys: Sequence[bytes]) -> list[Register | bytes | None]:
        """The registers of keys in the memtable; bytes are LMDB's form and come later."""
        layers = self._memtable.layers
        rows: list[Register | bytes | None] = list(map(layers[0].registers.get, keys))
        for layer in layers[1:]:
            if None not in rows:
                break
            if layer.registers:
                get = layer.registers.get
                rows = [get(key) if row is None else row for row, key in zip(rows, keys, strict=True)]
        return rows

    def value(self, keyspace: Keyspace, key: bytes) -> bytes | None:
        """One register value, as `values`."""
        for frame in self._commit.overlays:
            row = frame.layer.registers.get(key)
            if row is not None:
                if not frame.shown:
                    self._commit.looked(frame)
                break
        else:
            for layer in self._memtable.layers:
                row = layer.registers.get(key)
                if row is not None:
                    break
            else:
                stored = self._stored_register(keyspace, key)
                if stored is None:
                    return None
                return stored[PLAIN_VALUE_OFFSET:] if stored[0] == 0 else self._visible_value(stored)
        return row[0] if len(row) == 2 else self._visible_value(row)

    def _stored_register(self, keyspace: Keyspace, key: bytes) -> bytes | None:
        if len(key) <= _SHORT and b"\x00" not in key:
            return self._store.get(keyspace.row_prefix + key + _REGISTER_END)
        return self._store.get(lmdb_key(keyspace.id, key, SUFFIX_REGISTER))

    def _visible_value(self, row: Register | bytes) -> bytes | None:
        cell = self._cell(row)
        return cell.value if visible(cell, self.ttl_now_ms()) else None

    def _cell(self, row: Register | bytes) -> Cell:
        """A register row of any form as a Cell."""
        if isinstance(row, tuple):
            return as_cell(row, self._actor)
        decoded = decode_row(row, self._store.actor_of)
        assert isinstance(decoded, Cell)
        return decoded

    # -- whole keys

    def state(self, keyspace: Keyspace, key: bytes) -> StringState:
        """Everything that a string verb has to know of a key: register or siblings, key expiry, counter parts."""
        if keyspace.siblings:
            return _siblings_state(self._composites(keyspace, key))
        register = self._register_cell(keyspace, key)
        if not keyspace.mixed:
            return StringState(register, None, {})
        return _string_state(register, self._composites(keyspace, key))

    def types(self, keyspace: Keyspace, key: bytes, now: int) -> tuple[str, ...]:
        """What lives at the key, of "string", "set", "hash" in this order; nothing when there is no such key."""
        state = self.state(keyspace, key)
        found = ["string"] if state.live(now) else []
        if keyspace.mixed and not state.gone(now):
            found += ["set"] if self._collections.set_count(keyspace, key) else []
            found += ["hash"] if self._collections.map_count(keyspace, key) else []
        return tuple(found)

    def recount(self, keyspace: Keyspace, key: bytes) -> tuple[int, int]:
        """The elements and fields of a key counted one by one, whatever its expiry: a check of the counts that are kept."""
        return self._collections.recount(keyspace, key)

    def row(self, keyspace: Keyspace, key: bytes, suffix: bytes) -> Row | None:
        """The newest version of one row other than a register, LMDB's included."""
        if suffix[0] >= TAG_ELEMENT and suffix != SUFFIX_SIBLINGS:
            return self._collections.row(keyspace, key, suffix)
        found = self._overlaid(key, suffix)
        if found is not None:
            return found
        stored = self._store.get(lmdb_key(keyspace.id, key, suffix))
        return None if stored is None else decode_row(stored, self._store.actor_of)

    def _overlaid(self, key: bytes, suffix: bytes) -> Row | None:
        for layer in self._layers():
            rows = layer.composites.get(key)
            if rows is not None and suffix in rows:
                return rows[suffix]
        return None

    def _layers(self) -> list[Layer]:
        return [*(frame.layer for frame in self._commit.overlays), *self._memtable.layers]

    def register(self, keyspace: Keyspace, key: bytes) -> Register | None:
        """The newest version of a key's register, LMDB's included, no frame marked: for a change, which is compared with it."""
        for layer in self._layers():
            row = layer.registers.get(key)
            if row is not None:
                return row
        stored = self._stored_register(keyspace, key)
        return None if stored is None else self._cell(stored)

    def _register_cell(self, keyspace: Keyspace, key: bytes) -> Cell | None:
        for frame in self._commit.overlays:
            row = frame.layer.registers.get(key)
            if row is not None:
                if not frame.shown:
                    self._commit.looked(frame)
                return self._cell(row)
        for layer in self._memtable.layers:
            row = layer.registers.get(key)
            if row is not None:
                return self._cell(row)
        stored = self._stored_register(keyspace, key)
        return None if stored is None else self._cell(stored)

    def _composites(self, keyspace: Keyspace, key: bytes) -> dict[bytes, Row]:
        """A key's expiry, counter parts and siblings, by suffix."""
        rows: dict[bytes, Row] = {}
        for suffix, stored in self._store.string_rows(keyspace.id, key, keyspace.vector):
            if suffix != SUFFIX_REGISTER:
                rows[suffix] = decode_row(stored, self._store.actor_of)
        if keyspace.siblings:
            siblings = self._store.get(lmdb_key(keyspace.id, key, SUFFIX_SIBLINGS))
            if siblings is not None:
                rows[SUFFIX_SIBLINGS] = decode_row(siblings, self._store.actor_of)
        for layer in reversed(self._memtable.layers):
            rows.update(layer.composites.get(key, {}))
        for frame in reversed(self._commit.overlays):
            found = frame.layer.composites.get(key)
            if found:
                rows.update(found)
                if not frame.shown:
                    self._commit.looked(frame)
        return rows

    # -- ranges

    def range(self, low: bytes, high: bytes | None, limit: int, *, ttl_ms: int | None = None) -> Range:
        """Up to ``limit`` keys with low <= key < high at which something is visible, in key order, consistent among themselves.

        There may be fewer, even none, and a ``next_key``: deleted and expired keys are passed by, but no more than
        SCAN_EXAMINED_KEYS_MAX at a time, so that a desert of them does not hold the event loop.
        The reply waits for every frame that is not durable and holds rows: a scan looks at them all. ``ttl_ms``: by which expiries are
        judged; None: now.
        """
        for frame in self._commit.overlays:
            if not frame.shown and not frame.layer.empty:
                self._commit.looked(frame)
        found: list[Found] = []
        examined = 0
        now = self.ttl_now_ms() if ttl_ms is None else ttl_ms
        layers = self._layers()
        for interval in self._keyspaces.intervals(low, high):
            start: bytes | None = interval.low
            while start is not None:
                wanted = limit - len(found)
                if wanted <= 0 or examined > limit + SCAN_EXAMINED_KEYS_MAX:
                    return Range(found, start)
                page = snapshot.page(layers, self._store, interval.keyspace.id, start, interval.high, wanted)
                found += [
                    item for item in (self._found(interval.keyspace, i, now) for i in page.items) if item is not None
                ]
                start = page.next_key
                # A page that is not full and not the last one gave up among deleted keys.
                gave_up = start is not None and len(page.items) < wanted
                examined += SCAN_EXAMINED_KEYS_MAX + limit if gave_up else len(page.items)
        return Range(found, None)

    def _found(self, keyspace: Keyspace, item: snapshot.Item, now: int) -> Found | None:
        register = None if item.register is None else self._cell(item.register)
        rows = item.composites
        state = _siblings_state(rows) if keyspace.siblings else _string_state(register, rows)
        elements, fields = (0, 0) if state.gone(now) else (item.elements, item.fields)
        return Found(item.key, keyspace, state, elements, fields) if elements or fields or state.live(now) else None


def first_values(values: Iterable[bytes | None]) -> list[bytes | None]:
    """As many values as READ_RUN_BYTES_MAX has room for, at least one."""
    first: list[bytes | None] = []
    size = 0
    for value in values:
        size += len(value or b"")
        if first and size > READ_RUN_BYTES_MAX:
            break
        first.append(value)
    return first


def _string_state(register: Cell | None, composites: dict[bytes, Row]) -> StringState:
    expiry = composites.get(SUFFIX_EXPIRY)
    parts = {
        Actor(suffix[1:]): row
        for suffix, row in composites.items()
        if suffix[0] == TAG_COUNTER and isinstance(row, Part)
    }
    return StringState(register, expiry if isinstance(expiry, Cell) else None, parts)


def _siblings_state(composites: dict[bytes, Row]) -> StringState:
    """The same where a keyspace keeps concurrent values."""
    row = composites.get(SUFFIX_SIBLINGS)
    return _string_state(None, composites)._replace(siblings=row if isinstance(row, Siblings) else NO_SIBLINGS)
