"""The shell around a node: one event loop that feeds it events and carries out its effects.

Everything that waits lives here: the flusher's completions, the applier's pipe, timers, signals, and the listeners of api/. The node
itself (node/, engine/) is synchronous. Start-up order: directory lock, identity, applier (it opens LMDB first), recovery, listeners,
`ready`. Shutdown is the reverse: no more requests, the last frame, the CLEAN mark, the applier.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import edgekv
from edgekv.api.http.server import HttpServer
from edgekv.api.resp.server import RespServer
from edgekv.config import Config
from edgekv.engine.engine import Engine
from edgekv.engine.frame import Frame
from edgekv.errors import EdgeKVError, LogFailed, Unavailable
from edgekv.ids import Lsn
from edgekv.limits import (
    BUFFERED_SYNC_INTERVAL_MS,
    CONNECTIONS_MAX,
    DESCRIPTORS_OWN,
    MIB,
    READER_AGE_MS,
    SLICE_MS,
    SPARE_SEGMENTS,
)
from edgekv.metrics import Metrics
from edgekv.node import identity, keyspace_file
from edgekv.node.directory import DataDirectory
from edgekv.node.node import Node
from edgekv.node.operations import Operations
from edgekv.store.applied import Ended, Failed, Opened, Progress, Stable
from edgekv.store.applier import Applier
from edgekv.store.applier_process import ApplierProcess, InlineApplier
from edgekv.store.lmdb_store import LmdbStore, StoreError, disk_is_full
from edgekv.wal.disk import RealDisk
from edgekv.wal.group_commit import CloseJob, Flusher, FrameJob, Outcome, PromiseJob, RecycleJob, SyncJob, Written
from edgekv.wal.group_commit import Failed as FlushFailed
from edgekv.wal.record import CLEAN_RECORD
from edgekv.wal.spares import SpareMaker

_log: Final = logging.getLogger("edgekv.server")

TICK_S: Final = min(READER_AGE_MS, BUFFERED_SYNC_INTERVAL_MS) / 1000
DISK_CHECK_TICKS: Final = 10
DISK_CHECK_BYTES: Final = MIB
"""Of changes between two looks at the disk: in a second a fast writer fills what LMDB needs for what is acknowledged."""
PROBE_S: Final = 0.02
APPLIER_OPEN_S: Final = 30.0
APPLIER_RESTART_S: Final = (0.1, 0.5, 2.0, 5.0)
STOP_S: Final = 30.0
FEW_CONNECTIONS: Final = 1_000
"""A limit of open files that leaves fewer per listener is worth a warning."""
IDLE_COLLECT_S: Final = 60.0
IDLE_COLLECT_ROWS_MAX: Final = 50_000
"""A full garbage collection walks the memtable, 120 to 300 ms for a large one: only when idle and small."""


class _Sync:
    """Token of a SyncJob."""


class _Housekeeping:
    """Token of jobs whose outcome changes nothing in the engine."""


SYNC: Final = _Sync()
HOUSEKEEPING: Final = _Housekeeping()


class Listener(Protocol):
    """A front end."""

    async def listen(self, address: str, port: int) -> tuple[str, int]: ...

    async def close(self) -> None: ...


def now_ms() -> int:
    """Wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


class Flush:
    """The engine's effects on the flusher and the applier, before and after both exist."""

    def __init__(self) -> None:
        self.flusher: Flusher | None = None
        self.applier: ApplierProcess | InlineApplier | None = None

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        """Hand a frame to the flusher."""
        assert self.flusher is not None
        self.flusher.submit(FrameJob(payload, records, sync, roll, frame))

    def apply(self, lsn: Lsn, stable: Stable | None) -> None:
        """Ask the applier; while it is being restarted the request waits in `Checkpoints.requests`."""
        if self.applier is not None:
            self.applier.request(lsn, stable)

    def recycle(self, below_lsn: Lsn) -> None:
        """Give the log below back. Nothing is retained for readers that lag: before replication there are none."""
        if self.flusher is not None:
            self.flusher.submit(RecycleJob(below_lsn, 0, HOUSEKEEPING))


class Server:
    """One running node: the `Host` of the front ends."""

    def __init__(self, config: Config) -> None:
        self.config: Final = config
        self.metrics: Final = Metrics()
        self.node_name: Final = config.node
        self.site_name: Final = config.site
        self.version: Final = edgekv.__version__
        self.started_ms: Final = now_ms()
        self._failure: EdgeKVError | None = None
        self._effects: Final = Flush()
        self._stopping: Final = asyncio.Event()
        self._stopped_flushing: Final = asyncio.Event()
        self._listeners: Final[list[Listener]] = []
        self._kick_due = False
        self._closing = False
        self._applier_restarts = 0
        self._inline_resting = False
        """The inline applier has more to do, and will."""
        self._ticks = 0
        self._unchecked_bytes = 0
        self._last_frame_s = 0.0
        self._promised = True
        self._collected_s = time.monotonic()
        self._loop_delay_s_max = 0.0

    # -- what front ends use (their Host)

    @property
    def operations(self) -> Operations:
        """The verbs."""
        return self.node.operations

    def kick_soon(self) -> None:
        """Flush at the end of this turn of the loop, so that everything read in it shares a frame."""
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        self.engine.kick()

    def ready(self) -> bool:
        """Whether the node takes reads and writes."""
        return not self._closing and self.engine.admission.read_only is None

    async def run_slices(self, step: Callable[[], bool]) -> None:
        """Call ``step`` until it returns False, giving the loop back after each 5 ms."""
        while True:
            until = time.perf_counter() + SLICE_MS / 1000
            while time.perf_counter() < until:
                if not step():
                    return
            await asyncio.sleep(0)

    # -- life

    async def run(self, announce: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT. ``announce`` gets a line per listener, then ``ready``. Raises LogFailed when it failed."""
        self._loop = asyncio.get_running_loop()
        directory = DataDirectory.acquire(Path(self.config.data_dir), time.sleep)
        try:
            self._start_node(directory)
            try:
                await self._serve(announce)
            finally:
                await self._stop_node()
        finally:
            directory.release()
        if self._failure is not None:
            raise self._failure

    def _start_node(self, directory: DataDirectory) -> None:
        config = self.config
        self._directory = directory
        who = identity.load_or_create(directory.path, name=config.node, site=config.site, entropy=os.urandom)
        policies = keyspace_file.load_or_seed(directory.path, config.all_keyspaces())
        self._disk = RealDisk(directory.wal)
        self._effects.applier = applier = self._open_applier()
        self.node = Node.recover(
            config,
            identity=who,
            policies=policies,
            disk=self._disk,
            store=self._store,
            effects=self._effects,
            now_ms=now_ms,
            entropy=os.urandom,
        )
        self.engine: Engine = self.node.engine
        if self.node.log is not None:
            self._effects.flusher = Flusher(self.node.log, self._deliver)
            self._spares = SpareMaker(
                self._disk, self.node.log, segment_bytes=config.wal.segment_bytes, entropy=os.urandom
            )
            self._effects.flusher.start()
            self._spares.start()
        self._watch_applier(applier)
        self._register_gauges()
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 50, 1 << 30)

    async def _serve(self, announce: Callable[[str], None]) -> None:
        connections_max = allowed_connections()
        for name, listener, address in (
            ("http", HttpServer(self, connections_max=connections_max), self.config.http),
            ("resp", RespServer(self, connections_max=connections_max), self.config.resp),
        ):
            try:
                host, port = await listener.listen(address.host, address.port)
            except OSError as error:
                # uvloop's own text repeats the address; a name that cannot be resolved has a negative number and a good text.
                number = error.errno or 0
                reason = os.strerror(number) if number > 0 else error.strerror
                raise Unavailable(
                    f"cannot listen on {address} for {name}: {reason}. Stop what uses it, or choose another with --{name}."
                ) from error
            self._listeners.append(listener)
            announce(f"{name} {host}:{port}")
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        refused = self.engine.admission.read_only
        if refused is not None:
            announce(f"read-only: {refused}")
        announce("ready")
        self._tick()
        self._probe(time.perf_counter())
        await self._stopping.wait()

    async def _stop_node(self) -> None:
        self._closing = True
        for listener in reversed(self._listeners):
            await listener.close()
        flusher = self._effects.flusher
        if flusher is not None:
            if self.engine.commit.error is None:
                await self._flush_all()
            self._spares.close()
            await asyncio.to_thread(
                flusher.close
            )  # its last outcome, perhaps a failure, is heard before the process ends
        if isinstance(self._effects.applier, ApplierProcess):
            self._loop.remove_reader(self._effects.applier.fileno())
            self._effects.applier.close()
            await asyncio.to_thread(self._effects.applier.wait, STOP_S)
        self._store.close()
        self._disk.close()

    async def _flush_all(self) -> None:
        """Write what is left, then the CLEAN mark."""
        commit, flusher, log = self.engine.commit, self._effects.flusher, self.node.log
        assert flusher is not None and log is not None
        with suppress(EdgeKVError):
            commit.kick()
            while commit.error is None and (commit.inflight is not None or not commit.filling.empty):
                await asyncio.sleep(0.001)
                commit.kick()
            roll = not log.at_segment_start and not log.room(len(CLEAN_RECORD))
            first = self.engine.checkpoints.record() if roll or log.at_segment_start else b""
            flusher.submit(CloseJob(first + CLEAN_RECORD, 1 + bool(first), roll, HOUSEKEEPING))

    # -- the flusher's outcomes

    def _deliver(self, outcome: Outcome) -> None:
        """On the flusher's thread."""
        with suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(self._outcome, outcome)

    def _outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, FlushFailed):
            self._fail(outcome.error)
            return
        token = outcome.token
        if isinstance(token, Frame):
            self._frame_written(token, outcome)
        elif token is SYNC:
            self.engine.synced()
        if outcome.spares < SPARE_SEGMENTS:
            self._spares.wake()

    def _frame_written(self, frame: Frame, outcome: Written) -> None:
        self._last_frame_s, self._promised = self._loop.time(), False
        self.metrics.wal_frame(frame.changes, frame.bytes, int(outcome.sync_s * 1e9) if frame.sync else None)
        self.engine.written(frame)
        self._unchecked_bytes += frame.bytes
        if self._unchecked_bytes >= DISK_CHECK_BYTES:
            self._check_disk()

    def _fail(self, error: LogFailed) -> None:
        """Rule L8: nothing is acknowledged any more; say so, and end."""
        self._failure = error
        self.engine.failed(error)
        self._stopping.set()

    # -- the applier

    def _open_applier(self) -> ApplierProcess | InlineApplier:
        if self.config.applier == "inline":
            # LMDB allows one environment per process and directory: reads and the applier share it.
            self._store = LmdbStore.open(self._directory.store, readonly=False)
            return InlineApplier(Applier(self._store, self._disk))
        applier = ApplierProcess.spawn(self._directory.path, self._directory.lock_descriptor)
        self._await_opened(applier)
        self._store = LmdbStore.open(self._directory.store, readonly=True)
        return applier

    def _await_opened(self, applier: ApplierProcess) -> None:
        """The applier creates the environment, so it opens it first."""
        deadline = time.monotonic() + APPLIER_OPEN_S
        while time.monotonic() < deadline:
            for message in applier.receive():
                if isinstance(message, Opened):
                    return
                if isinstance(message, Failed):
                    raise Unavailable(
                        f"the store cannot be opened: {message.text}. See applier.log in {self._directory.path}."
                    )
                if isinstance(message, Ended):
                    raise Unavailable(f"the applier ended at its start. See applier.log in {self._directory.path}.")
            time.sleep(0.002)
        raise Unavailable(f"the applier did not open the store within {APPLIER_OPEN_S:.0f} s. See applier.log.")

    def _watch_applier(self, applier: ApplierProcess | InlineApplier) -> None:
        if isinstance(applier, ApplierProcess):
            self._loop.add_reader(applier.fileno(), self._applier_messages)

    def _applier_messages(self) -> None:
        applier = self._effects.applier
        assert isinstance(applier, ApplierProcess)
        for message in applier.receive():
            match message:
                case Progress():
                    self._applier_restarts = 0
                    self.engine.applied(message)
                case Failed(text, disk_full):
                    _log.warning("the applier failed and will be restarted: %s", text)
                    if disk_full:
                        self._check_disk(lacking=True)
                case Ended():
                    self._restart_applier(applier)

    def _restart_applier(self, ended: ApplierProcess) -> None:
        self._loop.remove_reader(ended.fileno())
        ended.close()
        self._effects.applier = None
        if not self._closing:
            self._loop.call_later(self._back_off_s(), self._respawn_applier, ended)

    def _back_off_s(self) -> float:
        """How long to wait before the next applier."""
        wait_s = APPLIER_RESTART_S[min(self._applier_restarts, len(APPLIER_RESTART_S) - 1)]
        self._applier_restarts += 1
        return wait_s

    def _respawn_applier(self, ended: ApplierProcess) -> None:
        ended.poll()  # reap it
        if self._closing:
            return
        try:
            applier = ApplierProcess.spawn(self._directory.path, self._directory.lock_descriptor)
        except OSError as error:
            _log.warning("the applier cannot be started: %s; it is tried again", error.strerror)
            self._loop.call_later(APPLIER_RESTART_S[-1], self._respawn_applier, ended)
            return
        self._effects.applier = applier
        self._watch_applier(applier)
        self.engine.checkpoints.repeat_requests()

    def _step_inline_applier(self, applier: InlineApplier) -> None:
        """One transaction, and the next after a pause as long as this one took: half of the time is for clients."""
        started_s = self._loop.time()
        self._inline_resting = False
        if self._closing or self._effects.applier is not applier:
            return
        try:
            progress = applier.step()
        except (StoreError, EdgeKVError, OSError) as error:
            _log.warning("the applier failed and will be restarted: %s", error)
            self._effects.applier = None
            self._check_disk(lacking=disk_is_full(self._directory.store))
            self._loop.call_later(self._back_off_s(), self._renew_inline_applier)
            return
        if progress is not None:
            self._applier_restarts = 0
            self.engine.applied(progress)
            self._inline_resting = True
            self._loop.call_later(self._loop.time() - started_s, self._step_inline_applier, applier)

    def _renew_inline_applier(self) -> None:
        """What a new process is to the other kind of applier: LMDB does not go on with an environment that has failed."""
        if self._closing:
            return
        try:
            self._store.reopen()
        except Unavailable as error:
            self._failure = error  # there is nothing to read from
            self._stopping.set()
            return
        self._effects.applier = InlineApplier(Applier(self._store, self._disk))
        self.engine.checkpoints.repeat_requests()

    # -- timers

    def _tick(self) -> None:
        if self._closing:
            return
        self._loop.call_later(TICK_S, self._tick)
        self._ticks += 1
        self._store.renew()
        flusher = self._effects.flusher
        if flusher is not None and self.engine.commit.error is None:
            self.engine.tick()
            if self.engine.commit.needs_sync:
                flusher.submit(SyncJob(SYNC))
            elif not self._promised and self._loop.time() - self._last_frame_s > TICK_S:
                self._promised = True
                flusher.submit(PromiseJob(HOUSEKEEPING))
        if isinstance(self._effects.applier, InlineApplier) and not self._inline_resting:
            self._step_inline_applier(self._effects.applier)
        if self._ticks % DISK_CHECK_TICKS == 0:
            self._check_disk()
            self._collect_when_idle()

    def _check_disk(self, *, lacking: bool = False) -> None:
        self._unchecked_bytes = 0
        if self.node.log is not None:
            free = 0 if lacking else self._disk.free_bytes()
            full = self._spares.full and self.node.log.spares <= 2
            self.engine.disk(free_bytes=free, spares_failed=full)

    def _collect_when_idle(self) -> None:
        now = self._loop.time()
        idle = now - self._last_frame_s > 1 and self.engine.memtable.rows < IDLE_COLLECT_ROWS_MAX
        if idle and time.monotonic() - self._collected_s > IDLE_COLLECT_S:
            gc.collect()
            self._collected_s = time.monotonic()

    def _probe(self, due: float) -> None:
        """How late a timer comes is how long the callback before it took: the worst one is a metric."""
        now = time.perf_counter()  # the loop's own time is cached, in whole milliseconds
        self._loop_delay_s_max = max(self._loop_delay_s_max, now - due)
        if not self._closing:
            self._loop.call_later(PROBE_S, self._probe, now + PROBE_S)

    def _register_gauges(self) -> None:
        engine, gauge = self.engine, self.metrics.gauge
        gauge("edgekv_unapplied_bytes", "Rows in the log and not yet in LMDB.", lambda: engine.unapplied_bytes)
        gauge("edgekv_memtable_rows", "Rows in memtable generations.", lambda: engine.memtable.rows)
        gauge("edgekv_applied_lsn", "Log position that LMDB holds.", lambda: engine.checkpoints.applied_lsn)
        gauge("edgekv_durable_lsn", "Log position that is durable.", lambda: engine.commit.durable_lsn)
        gauge("edgekv_write_blocked", "1 while writers wait for room.", lambda: int(engine.admission.blocked))
        self.metrics.counter(
            "edgekv_write_blocks_total", "How often writers had to wait.", lambda: engine.admission.blocks_total
        )
        gauge(
            "edgekv_operation_sessions",
            "Sessions of operation ids that are remembered.",
            lambda: len(engine.commit.operation_ids),
        )
        self.metrics.counter(
            "edgekv_operations_repeated_total",
            "Operations that came again and were answered, not done, again.",
            lambda: engine.repeated_total,
        )
        gauge(
            "edgekv_disk_full",
            "1 while client writes are refused for lack of disk.",
            lambda: int(engine.admission.disk_full),
        )
        gauge(
            "edgekv_loop_callback_seconds_max",
            "Longest callback of the event loop since the last scrape.",
            self._take_loop_delay,
        )

    def _take_loop_delay(self) -> float:
        worst, self._loop_delay_s_max = self._loop_delay_s_max, 0.0
        return worst


def allowed_connections() -> int:
    """How many connections each of the two listeners may have: CONNECTIONS_MAX, if the process may open so many files.

    The soft limit is raised as far as the hard one lets it.
    """
    wanted = 2 * CONNECTIONS_MAX + DESCRIPTORS_OWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    allowed = max((soft - DESCRIPTORS_OWN) // 2, 1)
    if allowed < FEW_CONNECTIONS:
        _log.warning(
            "the limit of open files, %d, leaves %d connections per listener: raise it (ulimit -n)", soft, allowed
        )
    return allowed


def run(config: Config, announce: Callable[[str], None]) -> None:
    """Serve one node, on the event loop policy that is installed, until it is stopped. Raises what kept it from serving."""
    asyncio.run(Server(config).run(announce))
