"""Replay: the records of the log that LMDB has not applied become the first generation of the memtable.

`wal.recovery.recover` streams the frames here in LSN order. LMDB gives the state at its applied LSN (vectors with chain values, HLCs,
which keyspaces are mixed); records from there on move it. A run must continue its actor's chain and sequence, else two histories
of one actor have met in this log, and that is corruption, never a thing to skip.
"""

from typing import Final

from edgekv.checksum import chain_next
from edgekv.crdt.operation import SUFFIX_REGISTER, Row
from edgekv.crdt.register import Cell, Register
from edgekv.engine.keyspaces import Head, Keyspace, Keyspaces
from edgekv.engine.merging import RunMerger
from edgekv.engine.misplaced import placed
from edgekv.engine.operation_ids import OperationIds
from edgekv.errors import Corruption
from edgekv.ids import Actor, KeyspaceId
from edgekv.store.applied import Applied
from edgekv.store.collection_rows import CollectionRows, StoredRows
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Layer
from edgekv.store.operation_rows import load
from edgekv.wal.record import HLCS, TTL, Barrier, Changes, Columns, unpack_body, unpack_records


class Replay:
    """The memtable and the keyspaces' state, as the log is read. Feed `frame`, then call `finish`."""

    def __init__(
        self,
        *,
        actor: Actor,
        keyspaces: Keyspaces,
        layer: Layer,
        applied: Applied,
        store: LmdbStore,
    ) -> None:
        """``store`` shows ``applied``, and is not renewed until ``finish``."""
        self._actor: Final = actor
        self._keyspaces: Final = keyspaces
        self._layer: Final = layer
        self.applied_lsn: Final = applied.lsn
        self._stored: Final = StoredRows(store, checked=False)
        self._merger: Final = RunMerger(layer, actor, self._read_register, self._read_row, self._read_collection)
        self.ttl_ms = applied.ttl_ms
        self.barrier_lsn: int | None = None
        """Of a BARRIER that LMDB has not applied. What follows it is not replayed: LMDB has to have it first."""
        self.changes = 0
        self.operation_ids: Final = _stored_ids(store)
        for keyspace in keyspaces.all:
            keyspace.vector = {a: Head(seq, chain) for a, (seq, chain) in applied.vectors.get(keyspace.id, {}).items()}
            keyspace.hlc = applied.hlcs.get(keyspace.id, 0)
            keyspace.mixed = keyspace.siblings or keyspace.id in applied.mixed

    def frame(self, first_lsn: int, _records: int, payload: bytes) -> None:
        """One frame of the log; records below the applied LSN are LMDB's already."""
        for lsn, record in enumerate(unpack_records(payload), first_lsn):
            if lsn < self.applied_lsn or self.barrier_lsn is not None:
                continue
            if isinstance(record, Barrier):
                self.barrier_lsn = lsn
            elif isinstance(record, Changes):
                self._run(lsn, record)
            elif record.kind == TTL:
                self.ttl_ms = max(self.ttl_ms, record.value)
            elif record.kind == HLCS:
                for number, hlc in record.value:
                    keyspace = self._keyspaces.by_id[KeyspaceId(number)]
                    keyspace.hlc = max(keyspace.hlc, hlc)

    def finish(self) -> None:
        """All frames were fed: the own actor goes on where its history ends."""
        for keyspace in self._keyspaces.all:
            keyspace.seq, keyspace.chain = keyspace.vector.get(self._actor, Head(0, 0))
            keyspace.hlc_logged = keyspace.hlc

    def _run(self, lsn: int, run: Changes) -> None:
        keyspace = self._keyspaces.by_id.get(KeyspaceId(run.keyspace))
        if keyspace is None:
            raise Corruption(
                f"the log names keyspace {run.keyspace}, which keyspaces.json does not have. Restore that file.",
                path="keyspaces.json",
                first_lsn=lsn,
            )
        head = keyspace.vector.get(run.actor, Head(0, 0))
        if (run.first_seq, run.chain) != (head.seq + 1, head.chain):
            raise Corruption(
                f"the run at LSN {lsn} does not continue its actor's history in keyspace {keyspace.name!r}: "
                f"seq {run.first_seq} after {head.seq}. Run `edgekv wal inspect`, and restore a backup of the directory.",
                path="wal",
                first_lsn=lsn,
            )
        body = unpack_body(run.body)
        count = len(body.keys) if isinstance(body, Columns) else len(body.changes)
        self._merger.merge(keyspace, run, placed(self._keyspaces, keyspace, body), keyspace.vector)
        keyspace.vector[run.actor] = Head(run.first_seq + count - 1, chain_next(run.chain, run.base_hlc, run.body))
        keyspace.hlc = max(keyspace.hlc, run.base_hlc + count - 1)
        for _, session, number, reply in run.operation_ids or ():
            self.operation_ids.add(session, number, reply)
        self.changes += count

    def _read_register(self, keyspace: Keyspace, key: bytes) -> Register | None:
        row = self._layer.registers.get(key)
        if row is not None:
            return row
        stored = self._stored.row(keyspace.id, key, SUFFIX_REGISTER)
        assert stored is None or isinstance(stored, Cell)
        return stored

    def _read_row(self, keyspace: Keyspace, key: bytes, suffix: bytes) -> Row | None:
        """The newest version of a row while the log is replayed: the generation being built, then LMDB."""
        rows = self._layer.composites.get(key)
        if rows is not None and suffix in rows:
            return rows[suffix]
        return self._stored.row(keyspace.id, key, suffix)

    def _read_collection(self, keyspace: Keyspace, key: bytes) -> CollectionRows:
        collection = self._layer.collections.get(key)
        layers = [] if collection is None else [collection]
        return CollectionRows(self._stored, keyspace.id, key, layers, keyspace.vector)


def _stored_ids(store: LmdbStore) -> OperationIds:
    """What LMDB remembers. Sessions below its oldest stamp are there too: those that went on while younger ones were forgotten."""
    ids, kept = OperationIds(), load(store)
    for session, replies in kept.sessions:
        for number, reply in replies:
            ids.add(session, number, reply)
    ids.oldest_stamp = max(ids.oldest_stamp, kept.oldest_stamp)
    return ids
