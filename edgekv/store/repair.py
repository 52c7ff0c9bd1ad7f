"""The repair of rows that differ although both sides have the same changes: damage of a disk, or a fault of EdgeKV.

An operator asks for it (``edgekv cluster repair``); a BARRIER in the log says so, with a spool of the node whose rows are to be taken.
It is carried out as a fold is (store/fold.py), but at *equal vectors*, where the dot rule has nothing to say:

replace   the spool's rows of the named keys take the place of this store's, which is what the operator says is damaged
union     both sides' rows stay (crdt/unions.py)

Keys are named by what they begin with. A row of this store with a wrong CRC is not read: the spool's version takes its place, and
where there is none it goes. Tombstones, clears of maps and spent parts of counters are rows like others here, which either side may
have purged. What was done is stored with the last of it, so it is told whatever happens next (`Repaired`).
"""

from functools import partial
from typing import Any, Final, NamedTuple

from edgekv.codec import pack, unpack
from edgekv.crdt.unions import unite
from edgekv.errors import Corruption
from edgekv.ids import KeyspaceId
from edgekv.limits import LMDB_KEY_BYTES_MAX
from edgekv.store import layout
from edgekv.store.applied import ChainedVector
from edgekv.store.fold import Begin, Fold, Window
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.lmdb_transactions import WriteTransaction
from edgekv.store.spool import SpoolReader
from edgekv.wal.record import Barrier, Repair

KEPT_MAX: Final = 64
"""Of repairs that are remembered."""
_NAME: Final = b"repair/"
_NAME_END: Final = b"repair0"


class Repaired(NamedTuple):
    """What one repair did; ``damaged``: rows with a wrong CRC, which are among the replaced and the dropped ones.

    After a crash in the middle it began anew: what had been done before is as it should be then, and not counted.
    """

    spool_id: bytes
    keyspace: int
    union: bool
    prefixes: list[bytes]
    source: str
    wall_ms: int
    replaced: int
    added: int
    dropped: int
    damaged: int


def fold_of(barrier: Barrier) -> Begin:
    """How the rows of a BARRIER's spool are joined: by the dot rule, or as its repair says."""
    if barrier.repair is None:
        return partial(Fold, unseen=dict(barrier.unseen), dropped=barrier.dropped)
    return partial(_Repair, barrier, barrier.repair)


def repairs(store: LmdbStore) -> list[Repaired]:
    """The last ones, as the held read transaction shows them, the newest last."""
    return [_unpacked(value) for _, value in store.index_range(layout.DB_META, _NAME, _NAME_END)]


def in_order(keyspace: KeyspaceId, prefix: bytes) -> bytes | None:
    """What the LMDB keys of the keys with this beginning begin with; None: it is too long for LMDB's order."""
    start = layout.key_start(keyspace, prefix)
    return start if len(start) <= layout.ORDER_BYTES else None


class _Repair(Fold):
    """One under way."""

    def __init__(
        self,
        barrier: Barrier,
        asked: Repair,
        transaction: WriteTransaction,
        keyspace: KeyspaceId,
        spool: SpoolReader,
        my_vector: ChainedVector,
        joined: ChainedVector,
    ) -> None:
        if my_vector != spool.head.vector:
            raise Corruption(
                "the log repairs rows by those of another moment. Restore a backup of the directory.", path=spool.name
            )
        super().__init__(transaction, keyspace, spool, my_vector, joined)
        self._asked: Final = asked
        self._spool_id: Final = barrier.spool_id
        self._beginnings: Final = tuple(layout.key_start(keyspace, prefix) for prefix in asked.prefixes)
        self._replaced = self._added = self._dropped = self._damaged = 0

    def end(self, transaction: WriteTransaction, lsn: int) -> None:
        asked = self._asked
        counts = self._replaced, self._added, self._dropped, self._damaged
        done = Repaired(
            *(self._spool_id, self._keyspace, asked.union, list(asked.prefixes), asked.source, asked.wall_ms), *counts
        )
        transaction.index_put(layout.DB_META, [(_NAME + lsn.to_bytes(8, "big"), pack(list(done)))])
        kept = transaction.index_range(layout.DB_META, _NAME, _NAME_END, KEPT_MAX + 1)
        for name, _ in kept[:-KEPT_MAX]:
            transaction.index_delete(layout.DB_META, name)

    def _join_mine(self, lmdb_key: bytes, row: bytes, other: bytes | None) -> None:
        if not lmdb_key.startswith(self._beginnings):
            return
        sound = layout.check_row(lmdb_key, row)
        if sound and (layout.is_clear_or_count(row) or (other is not None and self._is_equal(row, other))):
            return
        self._damaged += not sound
        if other is not None:
            theirs = layout.decode_row(other, self._their_actor)
            mine = layout.decode_row(row, self._transaction.actor_of) if sound else None
            wanted = unite(mine, theirs) if mine is not None and self._asked.union else theirs
            if wanted != mine:
                self._replaced += 1
                self._put(lmdb_key, layout.row_key_of(lmdb_key, other), wanted)
        elif not sound or not self._asked.union:
            self._dropped += 1
            if sound or len(lmdb_key) < LMDB_KEY_BYTES_MAX:
                self._delete(lmdb_key, row)
            else:  # which key it was a row of cannot be read any more
                self._transaction.delete(lmdb_key)

    def _add(self, theirs: Window) -> None:
        for lmdb_key, row in theirs.items():
            if lmdb_key.startswith(self._beginnings):
                self._added += 1
                self._put(lmdb_key, layout.row_key_of(lmdb_key, row), layout.decode_row(row, self._their_actor))

    def _changed(self, row_key: bytes) -> None:
        """A damaged count is made anew like that of a key whose rows changed."""
        _, key, suffix = layout.split(row_key)
        if suffix == layout.SUFFIX_COUNT:
            self._uncounted[key] = None
        else:
            super()._changed(row_key)


def _unpacked(value: bytes) -> Repaired:
    fields: list[Any] = unpack(value)
    return Repaired(*fields)
