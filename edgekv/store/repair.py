"""The repair of rows that differ although both sides have the same changes: damage of a disk, or a fault of EdgeKV.

An operator asks for it (``edgekv cluster repair``); a BARRIER in the log says so, with a spool of the node whose rows are to be taken.
It is carried out as a fold is (store/fold.py), in one LMDB transaction, but at *equal vectors*, where the dot rule has nothing to say:

replace   the spool's rows of the named keys take the place of this store's, which is what the operator says is damaged
union     both sides' rows stay (crdt/unions.py)

Keys are named by what they begin with. A row of this store with a wrong CRC is not read: the spool's version takes its place, and
where there is none it goes. Tombstones, clears of maps and spent parts of counters are rows like others here, which either side may
have purged. What was done is stored in the same transaction, so it is told whatever happens next (`Repaired`).
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from edgekv.codec import pack, unpack
from edgekv.crdt.unions import unite
from edgekv.errors import Corruption
from edgekv.ids import KeyspaceId
from edgekv.limits import LMDB_KEY_BYTES_MAX
from edgekv.store import layout
from edgekv.store.applied import Applied, ChainedVector
from edgekv.store.fold import Fold, Window, spool_of
from edgekv.store.lmdb_store import LmdbStore, WriteTransaction
from edgekv.store.spool import SpoolReader
from edgekv.store.sweep import sweep_keyspace
from edgekv.wal.record import Barrier, Repair

KEPT_MAX: Final = 64
"""Of repairs that are remembered."""
_NAME: Final = b"repair/"
_NAME_END: Final = b"repair0"


class Repaired(NamedTuple):
    """What one repair did; ``damaged``: rows with a wrong CRC, which are among the replaced and the dropped ones."""

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


def repair(
    transaction: WriteTransaction, before: Applied, barrier: Barrier, spool: SpoolReader, poll: Callable[[], None]
) -> Applied:
    """Carry out a BARRIER with a repair, which is the record at ``before.lsn``: what has to be stored beside the rows.

    ``poll`` is called every few thousand rows and may raise. Raises Corruption: the spool is not the one that was logged, is damaged,
    or stands at another vector than this store.
    """
    asked = barrier.repair
    assert asked is not None
    keyspace = KeyspaceId(barrier.keyspace)
    vector = spool_of(barrier, spool)
    if vector != before.vectors.get(keyspace, {}):
        raise Corruption(
            "the log repairs rows by those of another moment. Restore a backup of the directory.", path=spool.name
        )
    sweep_keyspace(transaction, keyspace, poll)
    work = _Repair(transaction, keyspace, spool, vector, asked)
    work.run(poll)
    _remember(transaction, before.lsn, work.done(barrier.spool_id))
    mixed = before.mixed | {keyspace} if spool.head.mixed else before.mixed
    return before._replace(lsn=before.lsn + 1, mixed=mixed)


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
        transaction: WriteTransaction,
        keyspace: KeyspaceId,
        spool: SpoolReader,
        vector: ChainedVector,
        asked: Repair,
    ) -> None:
        super().__init__(transaction, keyspace, spool, vector, vector)
        self._asked: Final = asked
        self._beginnings: Final = tuple(layout.key_start(keyspace, prefix) for prefix in asked.prefixes)
        self._replaced = self._added = self._dropped = self._damaged = 0

    def done(self, spool_id: bytes) -> Repaired:
        """What it came to."""
        asked = self._asked
        counts = self._replaced, self._added, self._dropped, self._damaged
        return Repaired(
            spool_id, self._keyspace, asked.union, list(asked.prefixes), asked.source, asked.wall_ms, *counts
        )

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


def _remember(transaction: WriteTransaction, lsn: int, done: Repaired) -> None:
    transaction.index_put(layout.DB_META, [(_NAME + lsn.to_bytes(8, "big"), pack(list(done)))])
    kept = transaction.index_range(layout.DB_META, _NAME, _NAME_END, KEPT_MAX + 1)
    for name, _ in kept[:-KEPT_MAX]:
        transaction.index_delete(layout.DB_META, name)


def _unpacked(value: bytes) -> Repaired:
    fields: list[Any] = unpack(value)
    return Repaired(*fields)
