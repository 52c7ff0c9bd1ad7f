"""One node of a simulated cluster: the production node on a simulated disk, with a real LMDB, driven a step at a time.

The log lies on a `SimDisk`, so a power cut takes what was not synced, sector by sector, and a process can die within a flush.
LMDB is the real one, on tmpfs when there is one; a power cut may take its last commit back (its meta page is not synced), for
which the file as it was before that commit is kept. What a shell does is a method here, as in tests/unit/node/inline_node.py.
"""

import json
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from edgekv.config import Config, KeyspaceConfig, LimitsConfig, WalConfig
from edgekv.config.settings import Role
from edgekv.engine.engine import Engine
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Keyspace, KeyspacePolicy
from edgekv.errors import EdgeKVError
from edgekv.ids import Actor, KeyspaceId, Lsn
from edgekv.limits import SPARE_SEGMENTS
from edgekv.node import identity, keyspace_file
from edgekv.node.node import Node
from edgekv.node.operations import Operations
from edgekv.store.applied import Stable, sync_path
from edgekv.store.applier import Applier
from edgekv.store.applier_process import InlineApplier
from edgekv.store.lmdb_store import LmdbStore
from edgekv.wal.group_commit import FrameJob, Job, RecycleJob, SyncJob, Written, execute
from edgekv.wal.log import Log
from edgekv.wal.segment import SPARE_PREFIX, segment_name
from tests.sim.disk import Crash, SimDisk

START_MS: Final = 1_700_000_000_000
"""The first moment of a simulation."""

SEGMENT_BYTES: Final = 32 << 10
VALUE_BYTES_MAX: Final = 4 << 10
MEMORY_BYTES: Final = 4 << 20
_SYNC: Final = object()


def fast_directory(prefix: str) -> Path:
    """A new directory in memory where the machine has one: LMDB's fdatasync costs nothing there."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=shm if shm.is_dir() else None))


class Reply:
    """What one call of a client waits for: the changes that it made are acknowledged with it."""

    def __init__(self, acknowledged: Callable[["Reply"], None]) -> None:
        self._acknowledged: Final = acknowledged

    def release(self, payload: object) -> None:
        """The engine's word that the reply may leave."""
        self._acknowledged(self)

    def fail(self, error: EdgeKVError) -> None:
        """Whether it happened is unknown."""


class _Effects:
    def __init__(self, node: "SimNode") -> None:
        self._node: Final = node

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        self._node.jobs.append(FrameJob(payload, records, sync, roll, frame))

    def apply(self, lsn: Lsn, stable: Stable | None) -> None:
        self._node.request(lsn, stable)

    def recycle(self, below_lsn: Lsn) -> None:
        self._node.jobs.append(RecycleJob(below_lsn, self._node.retain_bytes))


class Image(NamedTuple):
    """A copy of a directory."""

    log: dict[str, bytes]
    store: bytes
    files: dict[str, bytes]
    """The identity and the keyspaces."""
    spools: dict[str, bytes]
    """A BARRIER of the log may wait for one."""


class SimNode:
    """One data directory and, while it is up, the node on it."""

    def __init__(
        self,
        path: Path,
        rng: Random,
        now_ms: Callable[[], int],
        *,
        name: str = "node-1",
        site: str = "site-1",
        role: Role = "hub",
        keyspaces: tuple[KeyspaceConfig, ...] = (),
        segment_bytes: int = SEGMENT_BYTES,
        retain_bytes: int = 0,
        called: str = "",
        disk: SimDisk | None = None,
        image: Image | None = None,
        unnoticed: bool = False,
    ) -> None:
        """``called``: what it is started as, if not by its ``name`` here. ``disk``: that holds its log. ``image``: what it begins
        with; ``unnoticed``: as a machine's copy, with the inodes that it had.
        """
        self.name: Final = name
        self.called = called or name
        self.config: Final = Config(
            data_dir=path,
            node=name,
            site=site,
            role=role,
            small_memory=True,
            memory_bytes=MEMORY_BYTES,
            wal=WalConfig(segment_bytes=segment_bytes),
            limits=LimitsConfig(value_bytes_max=VALUE_BYTES_MAX),
            keyspaces=keyspaces,
        )
        self.retain_bytes: Final = retain_bytes
        self.rng: Final = rng
        self.now_ms: Final = now_ms
        self.disk: Final = disk or SimDisk(rng, evicting=False)
        self.up = False
        self.jobs: deque[Job] = deque()
        self._backup: Image | None = None
        self._before_commit: bytes | None = None
        """LMDB's file as it was before its last commit, which a power cut may take back."""
        self.commits = 0
        self._opened = 0
        """Of LMDB, in all lives."""
        self.aside: tuple[Path, SimDisk] | None = None
        """What the last start set aside: the folder, and the log that belongs there."""
        if image is not None:
            self._put(image, unnoticed=unnoticed)
        self.open()

    # -- what others look at

    engine: Engine
    operations: Operations
    actor: Actor

    def keyspace(self, keyspace_id: int = 0) -> Keyspace:
        """One that the node has not heard of is empty."""
        number = KeyspaceId(keyspace_id)
        known = self.engine.keyspaces.by_id.get(number)
        return Keyspace(KeyspacePolicy(id=number, name="?", prefix=b"?")) if known is None else known

    def durable(self, keyspace_id: int = 0) -> dict[Actor, int]:
        """The vector that the node calls durable."""
        return {actor: head.seq for actor, head in self.keyspace(keyspace_id).vector.items()}

    def first_lsn(self) -> int:
        """Where the log begins."""
        return self._log.segments[0].base_lsn

    # -- life

    def open(self) -> None:
        """Start on what the directory holds."""
        directory = self.config.data_dir
        for folder in (directory, sync_path(directory)):
            folder.mkdir(exist_ok=True)
        aside = identity.read(directory).aside if (directory / identity.FILE).exists() else None
        self._opened += 1
        who = identity.load_or_create(
            directory, name=self.called, site=self.config.site, entropy=self.rng.randbytes, now_ms=self.start_ms
        )
        self.aside = None if aside is None else self._move_log(directory / identity.ASIDE / aside.hex())
        policies = keyspace_file.load_or_seed(directory, self.config.all_keyspaces())
        self.jobs = deque()
        self.store = LmdbStore.open(directory / "store", readonly=False)
        self._before_commit = None
        sync_path(directory).mkdir(exist_ok=True)
        self._applier = InlineApplier(Applier(self.store, self.disk, sync_path(directory)))
        self.node = Node.recover(
            self.config,
            identity=who,
            policies=policies,
            disk=self.disk,
            store=self.store,
            effects=_Effects(self),
            apply_now=self._apply_now,
            now_ms=self.now_ms,
            entropy=self.rng.randbytes,
        )
        self.engine, self.operations, self.actor = self.node.engine, self.node.operations, self.node.identity.actor
        assert self.node.log is not None, self.engine.admission.read_only
        self.engine.checkpoints.lone = False
        (directory / "wal").mkdir(exist_ok=True)
        (
            directory / "wal" / segment_name(1)
        ).touch()  # identity.py asks whether there is a log; it lies on the simulated disk
        self._make_spares()
        self.up = True

    @property
    def start_ms(self) -> int:
        """By a clock that goes on whenever the node starts: a leader's is taken to be right when a backup is restored to it."""
        return START_MS + 1_000 * self._opened

    def _move_log(self, folder: Path) -> tuple[Path, SimDisk]:
        """The log goes where its directory went."""
        kept = SimDisk(self.rng, evicting=False)
        kept.replace({name: bytes(inode.cache) for name, inode in self.disk.entries.items()})
        self.disk.replace({})
        self._before_commit = None
        return folder, kept

    def _apply_now(self, lsn: int) -> None:
        self._applier.request(lsn, None)
        while self._applier.step() is not None:
            pass

    def crash(self, *, power: bool) -> None:
        """kill -9, or the whole machine without power, at any moment: also within the flush that is under way, or after it."""
        assert self.up
        self.up = False
        if self.jobs and self.rng.random() < 0.7:
            if self.rng.random() < 0.7:
                self.disk.crash_at = self.disk.operations + self.rng.randint(1, 3)
            with suppress(Crash):
                execute(self._log, self.jobs[0])
        self.disk.crash_at = None
        self.store.close()
        if power:
            self.disk.power()
            if self._before_commit is not None and self.rng.random() < 0.5:
                self._data.write_bytes(self._before_commit)

    def back_up(self) -> None:
        """Copy the directory as it is at this moment, unless it holds what a power cut may take: those dots are issued again then.

        (A copy that has them and is started later is another history of one actor, a fork, which is refused and not mended.)
        """
        if self.jobs or self.engine.commit.needs_sync:
            return
        self._backup = self.image()

    def image(self) -> Image:
        """The directory as it is at this moment."""
        return Image(
            {name: bytes(inode.cache) for name, inode in self.disk.entries.items()},
            self._data.read_bytes(),
            {name: (self.config.data_dir / name).read_bytes() for name in (identity.FILE, keyspace_file.FILE)},
            {file.name: file.read_bytes() for file in sync_path(self.config.data_dir).iterdir()},
        )

    @property
    def has_backup(self) -> bool:
        return self._backup is not None

    def restore(self) -> None:
        """The process dies, and the directory is that of the backup, as another copy of it: `open` takes a new incarnation."""
        assert self.up and self._backup is not None
        self.up = False
        self.store.close()
        self._put(self._backup)
        if self.rng.random() < 0.5:
            self._backup = None  # else it may be restored again

    def set_back(self, image: Image) -> None:
        """The machine dies, and its disk is as it was: `open` goes on as the incarnation of that time."""
        assert self.up
        self.up = False
        self.store.close()
        self._put(image, unnoticed=True)

    def _put(self, image: Image, *, unnoticed: bool = False) -> None:
        directory = self.config.data_dir
        for folder in (directory, directory / "store", directory / "wal", sync_path(directory)):
            folder.mkdir(exist_ok=True)
        (directory / "wal" / segment_name(1)).touch()
        self.disk.replace(image.log)
        self._data.write_bytes(image.store)
        for file in sync_path(directory).iterdir():
            file.unlink()
        for name, content in image.spools.items():
            (sync_path(directory) / name).write_bytes(content)
        self._before_commit = None
        for name, content in image.files.items():
            file = directory / name
            copy = file.with_suffix(".copy")
            copy.write_bytes(content)
            copy.replace(file)
        if unnoticed:
            _claim(directory / identity.FILE)

    def stop(self) -> None:
        """The end of the simulation for this node."""
        if self.up:
            self.up = False
            self.store.close()

    # -- the shell's work, a step at a time

    def request(self, lsn: Lsn, stable: Stable | None) -> None:
        """What the engine asks of the applier."""
        self._applier.request(lsn, stable)

    def flush(self) -> bool:
        """Carry out the oldest job of the flusher; False when there is none."""
        if not self.jobs:
            return False
        job = self.jobs.popleft()
        outcome = execute(self._log, job)
        assert isinstance(outcome, Written), outcome
        if isinstance(job.token, Frame):
            self.engine.written(job.token)
        elif job.token is _SYNC:
            self.engine.synced()
        self._make_spares()
        return True

    def settle(self) -> None:
        """Write and sync everything."""
        self.engine.kick()
        while self.flush():
            self.engine.kick()
        if self.engine.commit.needs_sync:
            self.jobs.append(SyncJob(_SYNC))
            self.flush()

    def apply(self) -> bool:
        """One transaction of the applier; False when it has nothing to do."""
        before = self._data.read_bytes() if self._data.exists() else b""
        progress = self._applier.step()
        if progress is None:
            return False
        self._before_commit = before
        self.commits += 1
        self.engine.applied(progress)
        return True

    @property
    def wants_apply(self) -> bool:
        return bool(self.engine.checkpoints.requests)

    def tick(self) -> None:
        """The timer: freezes, flushes, and the sync of what is buffered."""
        self.store.renew()
        self.engine.tick()
        if self.engine.commit.needs_sync:
            self.jobs.append(SyncJob(_SYNC))

    @property
    def _log(self) -> Log:
        assert self.node.log is not None
        return self.node.log

    @property
    def _data(self) -> Path:
        return self.config.data_dir / "store" / "data.mdb"

    def _make_spares(self) -> None:
        while self._log.spares < SPARE_SEGMENTS:
            name = SPARE_PREFIX + self.rng.randbytes(8).hex()
            self.disk.create(name, self.config.wal.segment_bytes).close()
            self._log.add_spare(name)


def _claim(path: Path) -> None:
    """Have an identity say that it was born as the file that it is in."""
    with path.open("r+b") as file:
        inode, birth_ns = identity._birth(file.fileno())
        record = {**json.loads(file.read()), "inode": inode, "birth_ns": birth_ns}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(record).encode())
