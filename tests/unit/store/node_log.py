"""A real log in a directory, written change by change as a node would, and the applier that reads it."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from edgekv.checksum import chain_next
from edgekv.crdt.operation import Row
from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.store import layout
from edgekv.store.applied import store_path, sync_path, wal_path
from edgekv.store.applier import Applier
from edgekv.store.lmdb_store import LmdbStore
from edgekv.wal.disk import RealDisk
from edgekv.wal.record import Checkpoint, pack_changes, pack_checkpoint, pack_columns, pack_operations, pack_ttl
from edgekv.wal.recovery import recover

OWN = node_actor(b"n" * 16, b"1" * 8)
OTHER = node_actor(b"o" * 16, b"1" * 8)
FIRST_HLC = 1000 << 16
TINY_DISK_BYTES = 24 << 20
SALTS = itertools.count(1)


class NodeLog:
    """Changes get dense dots and rising HLCs, unless told otherwise."""

    def __init__(self, data_dir: Path, *, segment_bytes: int = 1 << 20) -> None:
        self.disk = RealDisk(wal_path(data_dir))
        self.log = recover(
            self.disk,
            node_id=b"n" * 16,
            incarnation=b"1" * 8,
            applied_lsn=0,
            segment_bytes=segment_bytes,
            entropy=lambda size: next(SALTS).to_bytes(size, "little"),
        )
        self.heads: dict[tuple[int, Actor], tuple[int, int]] = {}
        self.hlc = FIRST_HLC

    @property
    def lsn(self) -> int:
        return self.log.durable_lsn

    def put(self, keys: Sequence[bytes], values: Sequence[bytes], *, keyspace: int = 0) -> int:
        """A run of plain SETs by the own actor; the durable LSN after it."""
        return self.run(pack_columns(keys, values), len(keys), keyspace=keyspace)

    def change(
        self, *operations: Sequence[object], keyspace: int = 0, actor: Actor = OWN, base_hlc: int | None = None
    ) -> int:
        """One change; the durable LSN after it."""
        return self.run(pack_operations([operations]), 1, keyspace=keyspace, actor=actor, base_hlc=base_hlc)

    def run(
        self, body: bytes, changes: int, *, keyspace: int = 0, actor: Actor = OWN, base_hlc: int | None = None
    ) -> int:
        return self.frame([self._pack(body, changes, keyspace, actor, base_hlc)])

    def record(self, *operations: Sequence[object]) -> bytes:
        """One own change as a record, to be written with ``frame``."""
        return self._pack(pack_operations([operations]), 1, 0, OWN, None)

    def ttl(self, ttl_ms: int) -> int:
        return self.frame([pack_ttl(ttl_ms)])

    def seq(self, keyspace: int = 0, actor: Actor = OWN) -> int:
        return self.heads.get((keyspace, actor), (0, 0))[0]

    def frame(self, records: list[bytes]) -> int:
        """Write and sync one frame; the durable LSN after it."""
        if not self.log.room(sum(map(len, records))) and not self.log.at_segment_start:
            self.log.roll()
        if self.log.at_segment_start:
            records = [pack_checkpoint(Checkpoint([], 0)), *records]
        self.log.write(b"".join(records), len(records))
        self.log.sync()
        return self.lsn

    def _pack(self, body: bytes, changes: int, keyspace: int, actor: Actor, base_hlc: int | None) -> bytes:
        seq, chain = self.heads.get((keyspace, actor), (0, 0))
        if base_hlc is None:
            base_hlc = self.hlc + 1
        self.hlc = max(self.hlc, base_hlc + changes - 1)
        self.heads[keyspace, actor] = seq + changes, chain_next(chain, base_hlc, body)
        return pack_changes(keyspace, actor, seq + 1, base_hlc, chain, changes, body)


def open_store(data_dir: Path, *, map_bytes: int = 1 << 30) -> LmdbStore:
    return LmdbStore.open(store_path(data_dir), readonly=False, map_bytes=map_bytes)


def applier_of(store: LmdbStore, data_dir: Path) -> Applier:
    return Applier(store, RealDisk(wal_path(data_dir), read_only=True), sync_path(data_dir))


def contents(store: LmdbStore) -> dict[tuple[int, bytes, bytes], Row]:
    """Everything stored but counts, by keyspace, key and suffix; every row's CRC is checked."""
    store.renew()
    found: dict[tuple[int, bytes, bytes], Row] = {}
    for lmdb_key, data in store.range(b"", None):
        assert layout.check_row(lmdb_key, data)
        if layout.is_count(data):
            continue
        keyspace, key, suffix = layout.split(layout.row_key_of(lmdb_key, data))
        found[keyspace, key, suffix] = layout.decode_row(data, store.actor_of)
    return found


def register_row(store: LmdbStore, key: bytes, keyspace: int = 0) -> Row | None:
    data = store.get(layout.lmdb_key(KeyspaceId(keyspace), key, b"\x01"))
    return None if data is None else layout.decode_row(data, store.actor_of)


def fill_disk(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1 << 16)):
            pass
