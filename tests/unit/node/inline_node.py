"""A whole node in this process, driven by hand: real files and LMDB, but no thread, no clock and no event loop.

What a shell would do is a method here: ``flush`` carries out the oldest job of the flusher (`wal.group_commit.execute`), ``apply`` one
transaction of the applier, ``tick`` the engine's timer, ``now_ms`` is whatever the test says. Between the two a test sees every state
that a running node passes through, and ``kill`` is what kill -9 leaves: written frames are in the files, queued ones are nowhere.
"""

import shutil
from collections import deque
from pathlib import Path
from random import Random
from typing import Final

from edgekv.config import Config, KeyspaceConfig, LimitsConfig, WalConfig
from edgekv.config.settings import Role
from edgekv.crdt.operation import Row
from edgekv.engine.engine import Engine
from edgekv.engine.frame import Frame
from edgekv.ids import KeyspaceId, Lsn
from edgekv.limits import SPARE_SEGMENTS
from edgekv.node import clock_restart, identity, keyspace_file
from edgekv.node.node import Node
from edgekv.node.operations import Operations
from edgekv.store import layout
from edgekv.store.applied import Applied, Stable, sync_path
from edgekv.store.applier import Applier
from edgekv.store.applier_process import InlineApplier
from edgekv.store.layout import decode_row, lmdb_key
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool import SpoolSummary, SpoolWriter
from edgekv.wal.disk import RealDisk
from edgekv.wal.group_commit import CloseJob, FrameJob, Job, RecycleJob, SyncJob, Written, execute
from edgekv.wal.log import Log
from edgekv.wal.reader import LogReader
from edgekv.wal.record import CLEAN_RECORD, Barrier, Changes, Record, unpack_records
from edgekv.wal.segment import SPARE_PREFIX

START_MS: Final = 1_700_000_000_000
VALUE_BYTES_MAX: Final = 64 << 10
SEGMENT_BYTES: Final = 256 << 10
SYNC: Final = object()


class _Effects:
    """What the engine asks for, queued until the test lets it happen."""

    def __init__(self, jobs: deque[Job], applier: InlineApplier, retain_bytes: int) -> None:
        self._jobs: Final = jobs
        self._retain_bytes: Final = retain_bytes
        self._applier: Final = applier

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        self._jobs.append(FrameJob(payload, records, sync, roll, frame))

    def apply(self, lsn: Lsn, stable: Stable | None) -> None:
        self._applier.request(lsn, stable)

    def recycle(self, below_lsn: Lsn) -> None:
        self._jobs.append(RecycleJob(below_lsn, self._retain_bytes))


class InlineNode:
    """One data directory, and the node on it. Opened at construction; `kill` or `stop`, then `open` again."""

    def __init__(
        self,
        path: Path,
        *,
        keyspaces: tuple[KeyspaceConfig, ...] = (),
        memory_bytes: int = 1 << 20,
        value_bytes_max: int = VALUE_BYTES_MAX,
        segment_bytes: int = SEGMENT_BYTES,
        spares: int = SPARE_SEGMENTS,
        seed: int = 0,
        retain_bytes: int = 0,
        lone: bool = True,
        site: str = "site-1",
        role: Role = "hub",
    ) -> None:
        """``seed``: of its ids, so that two nodes of one test are two. ``retain_bytes``: of its log, for those who pull it.
        ``lone``: False: others have its data too, and it purges by what it is told only.
        """
        self.config: Final = Config(
            data_dir=path,
            site=site,
            role=role,
            small_memory=True,
            memory_bytes=memory_bytes,
            wal=WalConfig(segment_bytes=segment_bytes),
            limits=LimitsConfig(value_bytes_max=value_bytes_max),
            keyspaces=keyspaces,
        )
        self.now_ms = START_MS
        self._spares: Final = spares
        self._retain_bytes: Final = retain_bytes
        self._lone: Final = lone
        self._dice: Final = Random(seed)
        self.open()

    # -- what a test looks at

    @property
    def engine(self) -> Engine:
        return self.node.engine

    @property
    def operations(self) -> Operations:
        return self.node.operations

    def stored_row(self, key: bytes, suffix: bytes) -> Row | None:
        """One row as LMDB has it."""
        self._store.renew()
        data = self._store.get(lmdb_key(self.engine.keyspaces.of(key).id, key, suffix))
        return None if data is None else decode_row(data, self._store.actor_of)

    # -- life

    def open(self) -> None:
        """Start on what the directory holds."""
        directory = self.config.data_dir
        for folder in (directory, sync_path(directory)):
            folder.mkdir(exist_ok=True)
        chance, now_ms = self._dice.randbytes, self.now_ms
        who = identity.load_or_create(directory, name="node-1", site=self.config.site, entropy=chance, now_ms=now_ms)
        who = clock_restart.finish(
            directory, who, segment_bytes=self.config.wal.segment_bytes, entropy=chance, now_ms=now_ms
        )
        policies = keyspace_file.load_or_seed(directory, self.config.all_keyspaces())
        self._jobs: deque[Job] = deque()
        self.frames_written = 0
        """The number of the last frame that is in the files, in this life."""
        self._disk = RealDisk(directory / "wal")
        self._store = LmdbStore.open(directory / "store", readonly=False)
        self._applier = InlineApplier(Applier(self._store, self._disk, sync_path(directory)))
        self.node = Node.recover(
            self.config,
            identity=who,
            policies=policies,
            disk=self._disk,
            store=self._store,
            effects=_Effects(self._jobs, self._applier, self._retain_bytes),
            apply_now=self._apply_now,
            now_ms=lambda: self.now_ms,
            entropy=self._dice.randbytes,
        )
        self.engine.checkpoints.lone = self._lone
        if self.node.log is not None:
            self._make_spares()

    def kill(self) -> None:
        """kill -9: what was not written is gone, what was written is in the files."""
        if self.node.log is not None:
            self.node.log.close()
        self._give_back()

    def stop(self) -> None:
        """SIGTERM: everything is written, then the CLEAN mark."""
        self.settle()
        log = self._log
        roll = not log.at_segment_start and not log.room(len(CLEAN_RECORD))
        first = self.engine.checkpoints.record() if roll or log.at_segment_start else b""
        assert isinstance(execute(log, CloseJob(first + CLEAN_RECORD, 1 + bool(first), roll)), Written)
        self._give_back()

    def look_restored(self) -> None:
        """Stopped: the identity file becomes a copy of itself, as in a directory that comes from a backup."""
        file = self.config.data_dir / identity.FILE
        copy = file.with_suffix(".copy")
        shutil.copy(file, copy)
        copy.replace(file)

    def _give_back(self) -> None:
        self._store.close()
        self._disk.close()

    # -- the shell's work, a step at a time

    def flush(self) -> bool:
        """Carry out the oldest job of the flusher; False when there is none."""
        if not self._jobs:
            return False
        job = self._jobs.popleft()
        outcome = execute(self._log, job)
        assert isinstance(outcome, Written), outcome
        if isinstance(job.token, Frame):
            self.frames_written = job.token.number
            self.engine.written(job.token)
            self.node.durable()
        elif job.token is SYNC:
            self.engine.synced()
            self.node.durable()
        self._make_spares()
        return True

    def pull(self, source: "InlineNode", limit: int = 1 << 30) -> int:
        """Take in up to ``limit`` runs that the durable log of ``source`` has and this node has not; how many it were."""
        taken = 0
        for record in source.log_records():
            if taken < limit and isinstance(record, Changes) and record.actor != self.engine.actor:
                taken += self.engine.receive(record)
        return taken

    def log_records(self) -> list[Record]:
        """What the durable log holds."""
        reader = LogReader(self._disk)
        frames = reader.read(self._log.segments[0].base_lsn, self.engine.commit.durable_lsn)
        records = [record for _, _, payload in frames for record in unpack_records(payload)]
        reader.close()
        return records

    def spool(self, keyspace: KeyspaceId, file: Path) -> SpoolSummary:
        """All rows of a keyspace, as LMDB has them, in a file."""
        writer = SpoolWriter(self._store, keyspace, file)
        try:
            while writer.step(3):
                pass
        finally:
            writer.close()
        return writer.summary

    def contents(self) -> dict[tuple[int, bytes, bytes], Row]:
        """All rows that LMDB has, counts apart, by keyspace, key and suffix."""
        found = ((layout.row_key_of(*item), item[1]) for item in self._store.range(b"", None))
        return {
            layout.split(row_key): decode_row(data, self._store.actor_of)
            for row_key, data in found
            if not layout.is_count(data)
        }

    @property
    def applied(self) -> Applied:
        """What LMDB has beside the rows."""
        self._store.renew()
        return self._store.applied()

    def logged_barrier(self) -> bool:
        """Whether the durable log holds a BARRIER."""
        return any(isinstance(record, Barrier) for record in self.log_records())

    def settle(self) -> None:
        """Write and sync everything."""
        self.engine.kick()
        while self.flush():
            pass
        if self.engine.commit.needs_sync:
            self._jobs.append(SyncJob(SYNC))
            self.flush()

    def apply(self) -> bool:
        """One transaction of the applier; False when it has nothing to do."""
        progress = self._applier.step()
        if progress is not None:
            self.engine.applied(progress)
        return progress is not None

    def _apply_now(self, lsn: int) -> None:
        self._applier.request(lsn, None)
        while self._applier.step() is not None:
            pass

    def apply_unheard(self) -> None:
        """One transaction of the applier, whose report is still on its way; readers are renewed."""
        self._applier.step()
        self._store.renew()

    def tick(self) -> None:
        """The timer: freezes, flushes, and the sync of what is buffered."""
        self._store.renew()
        self.engine.tick()
        self.node.tick(self.now_ms)
        if self.engine.commit.needs_sync:
            self._jobs.append(SyncJob(SYNC))

    def checkpoint(self) -> None:
        """Everything is durable, frozen and in LMDB; two minutes pass."""
        for _ in range(2):  # the second freeze uses the TTL time that the first one logged
            self.checkpoint_at(self.now_ms + 60_000)

    def checkpoint_at(self, now_ms: int) -> None:
        """One freeze at this time, applied."""
        self.settle()
        self.now_ms = now_ms
        self.tick()
        self.settle()
        while self.apply():
            self.settle()

    @property
    def _log(self) -> Log:
        assert self.node.log is not None
        return self.node.log

    def _make_spares(self) -> None:
        while self._log.spares < self._spares:
            name = SPARE_PREFIX + self._dice.randbytes(8).hex()
            self._disk.create(name, self.config.wal.segment_bytes).close()
            self._log.add_spare(name)
