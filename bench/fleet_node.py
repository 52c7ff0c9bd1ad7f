"""A production node without its shell, driven step by step: what bench.fleet runs hundreds of."""

from collections import deque
from pathlib import Path
from random import Random
from typing import Final, Protocol

from edgekv.config import Config, LimitsConfig, WalConfig
from edgekv.engine.frame import Frame
from edgekv.ids import ID_BYTES, Lsn
from edgekv.limits import SPARE_SEGMENTS
from edgekv.node import identity, keyspace_file
from edgekv.node.node import Node
from edgekv.replication.log_source import LogSource
from edgekv.replication.messages import Applicant
from edgekv.replication.replication import Replication
from edgekv.store.applied import Stable, sync_path
from edgekv.store.applier import Applier
from edgekv.store.applier_process import InlineApplier
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool_transfer import SpoolFolder
from edgekv.wal.disk import RealDisk
from edgekv.wal.group_commit import FrameJob, Job, RecycleJob, SyncJob, Written, execute
from edgekv.wal.segment import SPARE_PREFIX

START_MS: Final = 1_700_000_000_000
VALUE_BYTES_MAX: Final = 64 << 10
SEGMENT_BYTES: Final = 256 << 10
MEMORY_BYTES: Final = 8 << 20
RETAIN_BYTES: Final = 64 << 20
MAP_BYTES: Final = 1 << 30
"""Address space: 200 of the default would be more than a process has."""
CLUSTER: Final = b"f" * ID_BYTES

_SYNC: Final = object()


class Wires(Protocol):
    """Who carries messages to other nodes."""

    def carry(self, sender: "FleetNode", wire: int, message: bytes) -> None: ...

    def closed(self, sender: "FleetNode", wire: int, reason: str) -> None: ...


class _Effects:
    """What the engine asks for: flushes are queued, the rest is done by the next step."""

    def __init__(self, jobs: deque[Job], applier: InlineApplier) -> None:
        self._jobs: Final = jobs
        self._applier: Final = applier

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        self._jobs.append(FrameJob(payload, records, sync, roll, frame))

    def apply(self, lsn: Lsn, stable: Stable | None) -> None:
        self._applier.request(lsn, stable)

    def recycle(self, below_lsn: Lsn) -> None:
        self._jobs.append(RecycleJob(below_lsn, RETAIN_BYTES))


class FleetNode:
    """A hub that founds the cluster, or an edge."""

    def __init__(self, directory: Path, name: str, wires: Wires, *, dice: Random, is_edge: bool = False) -> None:
        self.name: Final = name
        self.now_ms = START_MS
        self._wires: Final = wires
        self._dice: Final = dice
        self._jobs: Final[deque[Job]] = deque()
        site = name if is_edge else "cloud"
        config = Config(
            data_dir=directory,
            site=site,
            role="edge" if is_edge else "hub",
            small_memory=True,
            memory_bytes=MEMORY_BYTES,
            wal=WalConfig(segment_bytes=SEGMENT_BYTES),
            limits=LimitsConfig(value_bytes_max=VALUE_BYTES_MAX),
        )
        for folder in (directory, sync_path(directory)):
            folder.mkdir(exist_ok=True)
        who = identity.load_or_create(directory, name=name, site=site, entropy=dice.randbytes, now_ms=0)
        policies = keyspace_file.load_or_seed(directory, config.all_keyspaces())
        self._disk: Final = RealDisk(directory / "wal")
        self._store: Final = LmdbStore.open(directory / "store", readonly=False, map_bytes=MAP_BYTES)
        self._applier: Final = InlineApplier(Applier(self._store, self._disk, sync_path(directory)))
        self.node: Final = Node.recover(
            config,
            identity=who,
            policies=policies,
            disk=self._disk,
            store=self._store,
            effects=_Effects(self._jobs, self._applier),
            apply_now=self._apply_now,
            now_ms=lambda: self.now_ms,
            entropy=dice.randbytes,
        )
        assert self.node.log is not None
        self._log: Final = self.node.log
        self._make_spares()
        self.replication: Final = Replication(
            engine=self.node.engine,
            source=LogSource(self.node.engine.tail, self._disk),
            cluster=CLUSTER,
            myself=Applicant(who.node, who.actor, name, site, config.role),
            founder=not is_edge,
            remember=lambda entries: None,  # they do not change here
            transport=self,
            now_ms=lambda: self.now_ms,
            monotonic_ms=lambda: self.now_ms,
            kick=lambda: None,
            rolled_back=lambda: False,
            acks=self.node.acks,
            store=self._store,
            folder=SpoolFolder(sync_path(directory)),
            entropy=dice.randbytes,
            max_offline_ms=0,
        )

    # -- for replication (its Transport)

    def send(self, link: int, message: bytes) -> None:
        self._wires.carry(self, link, message)

    def close(self, link: int, reason: str, *, instead: int = 0) -> None:  # noqa: ARG002 - its dialer is not here
        self._wires.closed(self, link, reason)

    # -- for clients

    def put(self, key: bytes, value: bytes) -> None:
        self.node.operations.set(key, value)

    def get(self, key: bytes) -> bytes | None:
        return self.node.operations.get(key)

    def vectors(self) -> dict[int, dict[bytes, int]]:
        """By keyspace what is durable here."""
        keyspaces = self.node.engine.keyspaces.all
        return {k.id: {bytes(actor): head.seq for actor, head in k.vector.items()} for k in keyspaces}

    # -- the shell's work

    def tick(self, ms: int) -> None:
        """So much time passes."""
        self.now_ms += ms
        self._store.renew()
        self.node.engine.tick()
        self.node.tick(self.now_ms)
        if self.node.engine.commit.needs_sync:
            self._jobs.append(SyncJob(_SYNC))
        progress = self._applier.step()
        if progress is not None:
            self.node.engine.applied(progress)
        self.replication.tick()

    def flush(self) -> bool:
        """Write and sync what there is, and tell of it; whether there was anything."""
        self.node.engine.kick()
        moved = False
        while self._jobs:
            moved = True
            job = self._jobs.popleft()
            outcome = execute(self._log, job)
            assert isinstance(outcome, Written), outcome
            if isinstance(job.token, Frame):
                self.node.engine.written(job.token)
            elif job.token is _SYNC:
                self.node.engine.synced()
            self.node.durable()
            self._make_spares()
        if moved:
            self.replication.durable()
        return moved

    def end(self) -> None:
        """Give everything back."""
        self._log.close()
        self._store.close()
        self._disk.close()

    def _apply_now(self, lsn: int) -> None:
        self._applier.request(lsn, None)
        while self._applier.step() is not None:
            pass

    def _make_spares(self) -> None:
        while self._log.spares < SPARE_SEGMENTS:
            name = SPARE_PREFIX + self._dice.randbytes(8).hex()
            self._disk.create(name, SEGMENT_BYTES).close()
            self._log.add_spare(name)
