"""System clears: keys whose expiry has passed, with all that it hides, are removed by a change that the leading hub makes.

A key's expiry cell x hides its elements, fields, parts and an older register. It cannot simply go, that would show them again, and no
node may remove them by its own clock, another may be ahead of it. So when every member has seen x and what it hides, and its time has
passed for all of them, the leader clears what it observes, as a client's DEL would, with one difference: the clear's stamp is just
above what it removes (rank 1), and not now. Whatever a member has written since it saw x is above that, whoever wrote it. What a
member has not seen it may still bring back: its first write to a key that is gone for it removes what it has seen, and x.

A lone node needs none of this: its applier removes such keys itself (store/purge.py).
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

from edgekv.crdt.company import Company, clear_set_operations, observed_parts, reset_fields_operations
from edgekv.crdt.elements import Dot, Element
from edgekv.crdt.operation import (
    CLEAR_MAP,
    DELETE,
    DELETE_SIBLINGS,
    EXPIRE,
    RESET,
    SUFFIX_EXPIRY,
    Operation,
    element_suffix,
    field_suffix,
)
from edgekv.crdt.register import Cell, stamp
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.keyspaces import Keyspace, Keyspaces
from edgekv.engine.reads import Reads
from edgekv.ids import Actor, KeyspaceId
from edgekv.store import layout
from edgekv.store.collection_rows import ELEMENTS_END, FIELDS_END
from edgekv.store.lmdb_store import LmdbStore

FIELDS_MAX: Final = 10_000
"""Of one key. A larger map stays, hidden, until somebody writes to it."""
_ELEMENTS_MAX: Final = 10_000
"""Of one key, that are asked for one by one; a larger set goes when all have seen all of its keyspace."""

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
        counters = self._collections.counter_fields(keyspace, key) if fields else {}
        register, parts = state.register, observed_parts(state.parts)
        hidden = register is not None and register.value is not None and stamp(register) < stamp(expiry)
        siblings = () if state.siblings is None else state.siblings.values
        dots = [sibling.dot for sibling in siblings if stamp(sibling.cell) < stamp(expiry)]
        company = [expiry, *cells, *([register] if hidden and register is not None else [])]
        must_be_seen = [*((cell.actor, cell.seq) for cell in company), *dots]
        must_be_seen += [(a, seq) for of in (parts, *map(observed_parts, counters.values())) for a, seq, _ in of]
        if elements:
            must_be_seen += self._element_dots(keyspace, key)
        if len(cells) >= FIELDS_MAX or not all(covers(keyspace.id, actor, seq) for actor, seq in must_be_seen):
            return []
        hlc = max(cell.hlc for cell in company)
        operations: list[Operation] = [(EXPIRE, key, 0, hlc)]
        operations += [(DELETE, key, hlc)] if hidden else []
        operations += [(DELETE_SIBLINGS, key, dots)] if dots else []
        operations += [(RESET, key, parts)] if parts else []
        vector = dict(self._collections.observed(keyspace))
        operations += clear_set_operations(Company(elements, 0, {}, vector), key)
        if fields:
            operations += [(CLEAR_MAP, key, hlc), *reset_fields_operations(counters, key)]
        return operations

    def _element_dots(self, keyspace: Keyspace, key: bytes) -> list[Dot]:
        """Of the elements that the clear removes; of more than one has the time for, of all that there is."""
        rows = self._collections.rows(keyspace, key)
        stretch = rows.lowest(element_suffix(b""), ELEMENTS_END, _ELEMENTS_MAX)
        if len(stretch) == _ELEMENTS_MAX:
            return list(self._collections.observed(keyspace))
        visible = [rows.visible(row) for _, row in stretch if isinstance(row, Element)]
        return [dot for element in visible if element is not None for dot in element.dots]

    def _cells(self, keyspace: Keyspace, key: bytes) -> list[Cell]:
        rows = self._collections.rows(keyspace, key).lowest(field_suffix(b""), FIELDS_END, FIELDS_MAX)
        return [row for _, row in rows if isinstance(row, Cell)]
