"""System clears: keys whose expiry has passed, with all that it hides, are removed by a change that the leading hub makes.

A key's expiry cell x hides its elements, fields, parts and an older register. It cannot simply go, that would show them again, and no
node may remove them by its own clock, another may be ahead of it. So when every member has seen x and what it hides, and its time has
passed for all of them, the leader clears what it observes, as a client's DEL would, with one difference: the clear's stamp is just
above what it removes (rank 1), and not now. Whatever a member has written since it saw x is above that, whoever wrote it. What a
member has not seen it may still bring back: its first write to a key that is gone for it removes what it has seen, and x.

Of a set that is too large to look at, the leader remembers what it had seen when it came upon it. Nothing that x hides is made later:
who has said that x has passed for it removes x with its first write. So when the cut covers that, it covers the set; unless rows have
been joined meanwhile, which may bring what somebody wrote who was away.

A lone node needs none of this: its applier removes such keys itself (store/purge.py).
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from edgekv.crdt.company import Company, clear_set_operations, observed_parts, reset_fields_operations
from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Dot, Dots, Element
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
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.store import layout
from edgekv.store.collection_rows import ELEMENTS_END, FIELDS_END
from edgekv.store.lmdb_store import LmdbStore

FIELDS_MAX: Final = 10_000
"""Of one key. A larger map stays, hidden, until somebody writes to it."""
_ELEMENTS_MAX: Final = 2_000
"""Of one key, whose dots are looked at."""
_LARGE_MAX: Final = 1_000
"""Sets that wait, as they are larger."""
_LARGE_HEADS_MAX: Final = 100_000
"""Entries of the vectors that are kept for them: 10 MB."""
_ROWS_AT_ONCE: Final = 2_000
"""Looked at in one call, and those of one key more: 20 ms."""


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
        self._rows = 0
        """Looked at in this call."""
        self._large: Final[dict[tuple[KeyspaceId, bytes], tuple[Dot, int, Dots]]] = {}
        """By key the dot of its x, how often rows had been joined, and the vector when it was met."""
        self._met: Final[set[tuple[KeyspaceId, bytes]]] = set()
        """Of those, the ones that this walk has come upon. The others were written to, or are gone, and take no place any more."""

    def clear(self, cuts: Mapping[int, Vector], wall_ms: int, limit: int) -> int:
        """Look at up to ``limit`` entries and clear the keys that may go; how many it were. Begins anew when it was through.

        ``cuts``: by keyspace the stable cut.
        """
        end = (wall_ms + 1).to_bytes(8, "big")
        entries = list(islice(self._store.index_range(layout.DB_EXPIRY, self._from, end), limit))
        self._from = entries[-1][0] + b"\x00" if len(entries) == limit else b""
        barrier, cleared, self._rows = self._commit.barrier, 0, 0
        for at, lmdb_key in entries:
            if self._rows >= _ROWS_AT_ONCE:
                self._from = at
                break
            found = self._key_of(lmdb_key)
            operations = [] if found is None else self._operations(*found, cuts.get(found[0].id, {}), wall_ms)
            if found is not None and operations and not found[0].held:
                self._commit.change(found[0], operations)
                cleared += 1
        self._commit.barrier = barrier
        if not self._from:
            for key in self._large.keys() - self._met:
                del self._large[key]
            self._met.clear()
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

    def _operations(self, keyspace: Keyspace, key: bytes, cut: Vector, wall_ms: int) -> list[Operation]:
        """The clear of a key, if the time of its x has passed for all and the cut covers x and what it hides; else nothing."""
        state = self._reads.state(keyspace, key)
        expiry, register = state.expiry, state.register
        if expiry is None or expiry.value is None or expiry.expiry_ms > wall_ms:
            return []
        hidden = register is not None and register.value is not None and stamp(register) < stamp(expiry)
        company = [expiry, *([register] if register is not None and hidden else [])]
        siblings = () if state.siblings is None else state.siblings.values
        dots = [sibling.dot for sibling in siblings if stamp(sibling.cell) < stamp(expiry)]
        parts = observed_parts(state.parts)
        elements, fields = self._collections.counts(keyspace, key)
        if fields >= FIELDS_MAX or not _covered(cut, [*map(_dot, company), *dots, *_dots_of(parts)]):
            return []
        if elements and not self._covers_elements(cut, keyspace, key, elements, _dot(expiry)):
            return []
        counters = self._fields(keyspace, key, cut, company) if fields else {}
        if counters is None:
            return []
        hlc = max(cell.hlc for cell in company)
        operations: list[Operation] = [(EXPIRE, key, 0, hlc)]
        operations += [(DELETE, key, hlc)] if hidden else []
        operations += [(DELETE_SIBLINGS, key, dots)] if dots else []
        operations += [(RESET, key, parts)] if parts else []
        operations += clear_set_operations(Company(elements, 0, {}, cut), key)
        operations += [(CLEAR_MAP, key, hlc), *reset_fields_operations(counters, key)] if fields else []
        return operations

    def _covers_elements(self, cut: Vector, keyspace: Keyspace, key: bytes, elements: int, x: Dot) -> bool:
        rows = self._collections.rows(keyspace, key)
        stretch = rows.lowest(element_suffix(b""), ELEMENTS_END, _ELEMENTS_MAX)
        self._rows += len(stretch)
        visible = [rows.visible(row) for _, row in stretch if isinstance(row, Element)]
        found = [element.dots for element in visible if element is not None]
        if len(found) == elements:
            return all(_covered(cut, dots) for dots in found)
        self._met.add((keyspace.id, key))
        now = x, keyspace.flips
        known = self._large.get((keyspace.id, key))
        if known is not None and known[:2] == now:
            if _covered(cut, known[2]):
                del self._large[keyspace.id, key]
                return True
            return False
        observed = self._collections.observed(keyspace)
        if known is not None or self._has_place(len(observed)):
            self._large[keyspace.id, key] = *now, observed
        return False

    def _has_place(self, heads: int) -> bool:
        kept = sum(len(observed) for _, _, observed in self._large.values())
        return len(self._large) < _LARGE_MAX and kept + heads <= _LARGE_HEADS_MAX

    def _fields(
        self, keyspace: Keyspace, key: bytes, cut: Vector, company: list[Cell]
    ) -> dict[bytes, dict[Actor, Part]] | None:
        """The fields that are counters, if the cut covers all fields; their cells join the company."""
        cells = self._cells(keyspace, key)
        self._rows += len(cells)
        if len(cells) >= FIELDS_MAX or not _covered(cut, map(_dot, cells)):
            return None
        counters = self._collections.counter_fields(keyspace, key)
        self._rows += len(counters)
        company += cells
        dots = [dot for parts in counters.values() for dot in _dots_of(observed_parts(parts))]
        return counters if _covered(cut, dots) else None

    def _cells(self, keyspace: Keyspace, key: bytes) -> list[Cell]:
        rows = self._collections.rows(keyspace, key).lowest(field_suffix(b""), FIELDS_END, FIELDS_MAX)
        return [row for _, row in rows if isinstance(row, Cell)]


def _covered(cut: Vector, dots: Iterable[Dot]) -> bool:
    return all(seq <= cut.get(actor, 0) for actor, seq in dots)


def _dot(cell: Cell) -> Dot:
    return cell.actor, cell.seq


def _dots_of(parts: Iterable[tuple[Actor, int, object]]) -> list[Dot]:
    return [(actor, seq) for actor, seq, _ in parts]
