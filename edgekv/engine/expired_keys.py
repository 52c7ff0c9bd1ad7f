"""System clears: keys whose expiry has passed, with all that it hides, are removed by a change that the leading hub makes.

A key's expiry cell x hides its elements, fields, parts and an older register. It cannot simply go, that would show them again, and no
node may remove them by its own clock, another may be ahead of it. So when every member has seen x and what it hides, and its time has
passed for all of them, the leader clears what it observes, as a client's DEL would, with one difference: the clear's stamp is just
above what it removes (rank 1), and not now. Whatever a member has written since it saw x is above that, whoever wrote it.

A lone node needs none of this: its applier removes such keys itself (store/purge.py).
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

from edgekv.crdt.company import Company, clear_set_operations, observed_parts, reset_fields_operations
from edgekv.crdt.operation import (
    CLEAR_MAP,
    DELETE,
    DELETE_SIBLINGS,
    EXPIRE,
    RESET,
    SUFFIX_EXPIRY,
    Operation,
    field_suffix,
)
from edgekv.crdt.register import Cell, stamp
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.keyspaces import Keyspace, Keyspaces
from edgekv.engine.reads import Reads
from edgekv.ids import Actor, KeyspaceId
from edgekv.store import layout
from edgekv.store.collection_rows import FIELDS_END
from edgekv.store.lmdb_store import LmdbStore

FIELDS_MAX: Final = 10_000
"""Of one key. A larger map stays, hidden, until somebody writes to it."""

Covers = Callable[[int, Actor, int], bool]
"""Whether the stable cut of a keyspace covers a dot."""


class ExpiredKeys:
    """The walk over the expiry index of LMDB, some entries at a time."""

    def __init__(
        self, *, commit: Commit, reads: Reads, collections: Collections, keyspaces: Keyspaces, store: LmdbStore
    ) -> None:
        self._commit: Final = commit
        self._reads: Final = reads
        self._collections: Final = collections
        self._keyspaces: Final = keyspaces
        self._store: Final = store
        self._from = b""

    def clear(self, covers: Covers, wall_ms: int, limit: int) -> int:
        """Look at up to ``limit`` entries and clear the keys that may go; how many it were. Begins anew when it was through."""
        end = (wall_ms + 1).to_bytes(8, "big")
        entries = list(islice(self._store.index_range(layout.DB_EXPIRY, self._from, end), limit))
        self._from = entries[-1][0] + b"\x00" if len(entries) == limit else b""
        barrier, cleared = self._commit.barrier, 0
        for _, lmdb_key in entries:
            found = self._key_of(lmdb_key)
            operations = [] if found is None else self._operations(*found, covers, wall_ms)
            if found is not None and operations and not found[0].held:
                self._commit.change(found[0], operations)
                cleared += 1
        self._commit.barrier = barrier
        return cleared

    def _key_of(self, lmdb_key: bytes) -> tuple[Keyspace, bytes] | None:
        """The key of an entry that speaks of a key's expiry."""
        data = self._store.get(lmdb_key)
        if data is None:
            return None
        number, key, suffix = layout.split(layout.row_key_of(lmdb_key, data))
        keyspace = self._keyspaces.by_id.get(KeyspaceId(number))
        if keyspace is None or suffix != SUFFIX_EXPIRY or self._keyspaces.owner(key) is not keyspace:
            return None
        return keyspace, key

    def _operations(self, keyspace: Keyspace, key: bytes, covers: Covers, wall_ms: int) -> list[Operation]:
        """The clear of a key, if the time of its x has passed for all and the cut covers x and what it hides; else nothing."""
        state = self._reads.state(keyspace, key)
        expiry = state.expiry
        if expiry is None or expiry.value is None or expiry.expiry_ms > wall_ms:
            return []
        elements, fields = self._collections.counts(keyspace, key)
        cells = self._cells(keyspace, key) if fields else []
        register = state.register
        hidden = register is not None and register.value is not None and stamp(register) < stamp(expiry)
        company = [expiry, *cells, *([register] if hidden and register is not None else [])]
        if len(cells) >= FIELDS_MAX or not all(covers(keyspace.id, cell.actor, cell.seq) for cell in company):
            return []
        hlc = max(cell.hlc for cell in company)
        operations: list[Operation] = [(EXPIRE, key, 0, hlc)]
        if hidden:
            operations.append((DELETE, key, hlc))
        if state.siblings is not None:
            dots = [s.dot for s in state.siblings.values if stamp(s.cell) < stamp(expiry)]
            operations += [(DELETE_SIBLINGS, key, dots)] if dots else []
        parts = observed_parts(state.parts)
        operations += [(RESET, key, parts)] if parts else []
        vector = dict(self._collections.observed(keyspace))
        operations += clear_set_operations(Company(elements, 0, {}, vector), key)
        if fields:
            counters = self._collections.counter_fields(keyspace, key)
            operations += [(CLEAR_MAP, key, hlc), *reset_fields_operations(counters, key)]
        return operations

    def _cells(self, keyspace: Keyspace, key: bytes) -> list[Cell]:
        rows = self._collections.rows(keyspace, key).lowest(field_suffix(b""), FIELDS_END, FIELDS_MAX)
        return [row for _, row in rows if isinstance(row, Cell)]
