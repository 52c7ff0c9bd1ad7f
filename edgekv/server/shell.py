"""The shell around a node: one event loop that feeds it events and carries out its effects.

Everything that waits lives here: the flusher's completions, timers, signals, the listeners of api/, the links to other nodes
(peers.py), and the applier (supervisor.py). The node itself (node/, engine/, replication/) is synchronous. Start-up order: directory
lock, the cluster if it has to be joined first, identity, applier (it opens LMDB first), recovery, listeners, `ready`. Shutdown is the
reverse: no more requests, the last frame, the CLEAN mark, the applier.
"""

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import edgekv
from edgekv.api.http.server import HttpServer
from edgekv.api.resp.server import RespServer
from edgekv.config import Address, Config
from edgekv.engine.engine import Engine
from edgekv.engine.frame import Frame
from edgekv.errors import EdgeKVError, LogFailed, Unavailable
from edgekv.garbage import Garbage
from edgekv.ids import actor_text
from edgekv.limits import (
    BUFFERED_SYNC_INTERVAL_MS,
    MIB,
    READER_AGE_MS,
    REINCARNATION_PAUSE_MS,
    SLICE_MS,
    SPARE_SEGMENTS,
)
from edgekv.metrics import Metrics
from edgekv.net.join import join
from edgekv.node import clock_restart, identity, keyspace_file
from edgekv.node.directory import DataDirectory
from edgekv.node.node import Node
from edgekv.node.operations import Operations
from edgekv.node.session import Sessions
from edgekv.node.watch import Watches
from edgekv.replication.acks import Acks
from edgekv.replication.messages import Join
from edgekv.replication.replication import Replication
from edgekv.server.descriptors import allowed_connections
from edgekv.server.effects import HOUSEKEEPING, SYNC, Effects
from edgekv.server.gauges import LoopProbe, register_gauges, register_replication
from edgekv.server.peers import Peers
from edgekv.server.supervisor import ApplierSupervisor
from edgekv.wal.disk import RealDisk
from edgekv.wal.group_commit import CloseJob, Flusher, Outcome, PromiseJob, SyncJob, Written
from edgekv.wal.group_commit import Failed as FlushFailed
from edgekv.wal.record import CLEAN_RECORD
from edgekv.wal.spares import SpareMaker

_log: Final = logging.getLogger("edgekv.server")

TICK_S: Final = min(READER_AGE_MS, BUFFERED_SYNC_INTERVAL_MS) / 1000
WORK_PAUSE_S: Final = 0.003
DISK_CHECK_TICKS: Final = 10
DISK_CHECK_BYTES: Final = MIB
"""Of changes between two looks at the disk: in a second a fast writer fills what LMDB needs for what is acknowledged."""
IDLE_COLLECT_S: Final = 60.0
IDLE_COLLECT_ROWS_MAX: Final = 50_000
"""A full garbage collection walks the memtable, 120 to 300 ms for a large one: only when idle and small."""


class Listener(Protocol):
    """A front end."""

    async def listen(self, address: str, port: int) -> tuple[str, int]: ...

    async def close(self) -> None: ...


def now_ms() -> int:
    """Wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


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
        self._effects: Final = Effects()
        self._probe: Final = LoopProbe()
        self._stopping: Final = asyncio.Event()
        self._listeners: Final[list[Listener]] = []
        self._kick_due = False
        self._closing = False
        self._ticks = 0
        self._unchecked_bytes = 0
        self._last_frame_s = 0.0
        self._promised = True
        self._working = False
        self._garbage: Garbage | None = None
        self._collected_s = time.monotonic()

    # -- what front ends use (their Host)

    @property
    def operations(self) -> Operations:
        """The verbs."""
        return self.node.operations

    @property
    def watches(self) -> Watches:
        """Who follows what is written."""
        return self.node.watches

    @property
    def acks(self) -> Acks:
        """What other nodes have."""
        return self.node.acks

    @property
    def sessions(self) -> Sessions:
        """What clients have seen."""
        return self.node.sessions

    @property
    def replication(self) -> Replication:
        """Links and members."""
        return self._peers.replication

    def monotonic_ms(self) -> int:
        """The clock of deadlines, ms."""
        return time.monotonic_ns() // 1_000_000

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
        admission = self.engine.admission
        return not self._closing and admission.read_only is None and admission.outsider is None

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
            cluster: bytes | None = None
            if self.config.upstreams and identity.is_new(directory.path):
                cluster = await self._join(directory, announce)
                if cluster is None:
                    return
            self._start_node(directory, cluster)
            try:
                await self._serve(announce)
            finally:
                await self._stop_node()
        finally:
            directory.release()
        if self._failure is not None:
            raise self._failure

    async def _join(self, directory: DataDirectory, announce: Callable[[str], None]) -> bytes | None:
        """The cluster of the upstreams, whose keyspaces are written down; None: it was stopped while it waited for them.

        A crash before there is an identity leaves a directory that joins again.
        """
        config = self.config
        self._heed_signals()
        welcome = await join(
            [upstream.address for upstream in config.upstreams],
            Join(config.node, config.site, config.role),
            stopping=self._stopping,
            say=announce,
            chance=random.random,
        )
        if welcome is None:
            return None
        keyspace_file.take_over(directory.path, welcome.keyspaces)
        return welcome.cluster

    def _start_node(self, directory: DataDirectory, cluster: bytes | None) -> None:
        config = self.config
        who = identity.load_or_create(
            directory.path, name=config.node, site=config.site, entropy=os.urandom, now_ms=now_ms(), cluster=cluster
        )
        who = clock_restart.finish(
            directory.path, who, segment_bytes=config.wal.segment_bytes, entropy=os.urandom, now_ms=now_ms()
        )
        if config.upstreams:
            policies = keyspace_file.load(directory.path, config.keyspaces)
        else:
            policies = keyspace_file.load_or_seed(directory.path, config.all_keyspaces())
        self._disk = RealDisk(directory.wal)
        self._supervisor = ApplierSupervisor(
            config, directory, self._disk, self._effects, check_disk=self._check_disk, failed=self._end
        )
        self._store = self._supervisor.store
        self.node = Node.recover(
            config,
            identity=who,
            policies=policies,
            disk=self._disk,
            store=self._store,
            effects=self._effects,
            apply_now=self._supervisor.apply_now,
            now_ms=now_ms,
            entropy=os.urandom,
        )
        self.engine: Engine = self.node.engine
        self._directory = directory
        self._allowed = allowed_connections()
        self._peers = Peers(
            config,
            self.node,
            self._disk,
            self._store,
            now_ms=now_ms,
            monotonic_ms=self.monotonic_ms,
            kick=self.kick_soon,
            rolled_back=self._rolled_back,
            connections_max=self._allowed.peers,
        )
        copies = self._peers.replication.copies
        copies.copied, copies.aside = self._copied, identity.aside(directory.path)
        self._peers.replication.wrong_clock.was_wrong = self._clock_was_wrong
        if self.node.log is not None:
            self._effects.flusher = Flusher(self.node.log, self._deliver)
            self._spares = SpareMaker(
                self._disk, self.node.log, segment_bytes=config.wal.segment_bytes, entropy=os.urandom
            )
            self._effects.flusher.start()
            self._spares.start()
        self._effects.retain_bytes = self._retain_bytes
        self._supervisor.watch(self.engine)
        register_gauges(self.metrics, self.engine, self.node.watches, self._probe)
        register_replication(self.metrics, self._peers.replication.figures, now_ms)
        self._garbage = self._take_collector()

    def _retain_bytes(self) -> int:
        """Of the log, for other nodes; a lone node has none, and on a full disk they have to get rows instead."""
        engine = self.engine
        return 0 if engine.checkpoints.lone or engine.admission.disk_full else self.config.wal.retain_bytes

    def _take_collector(self) -> Garbage | None:
        """Python's garbage collector, if the process is the node's own."""
        return Garbage()

    async def _serve(self, announce: Callable[[str], None]) -> None:
        clients_max = self._allowed.clients
        listeners: list[tuple[str, Listener, Address]] = [
            ("http", HttpServer(self, connections_max=clients_max), self.config.http),
            ("resp", RespServer(self, connections_max=clients_max), self.config.resp),
            ("peer", self._peers, self.config.peer),
        ]
        for name, listener, address in listeners:
            try:
                host, port = await listener.listen(address.host, address.port)
            except OSError as error:
                # uvloop's own text repeats the address; a name that cannot be resolved has a negative number and a good text.
                number = error.errno or 0
                reason = os.strerror(number) if number > 0 else error.strerror
                raise Unavailable(
                    f"cannot listen on {address} for {name}: {reason}. Stop what uses it, or choose another with --{name}."
                ) from error
            if listener is not self._peers:
                self._listeners.append(listener)
            announce(f"{name} {host}:{port}")
        self._heed_signals()
        refused = self.engine.admission.read_only
        if refused is not None:
            announce(f"read-only: {refused}")
        announce("ready")
        self._tick()
        self._peers.dial()
        self._probe.start(self._loop)
        await self._stopping.wait()

    def _heed_signals(self) -> None:
        """SIGTERM and SIGINT end it from now on. Before, they end the process as they do any other."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)

    async def _stop_node(self) -> None:
        self._closing = True
        self.node.expire_all()
        self._probe.stop()
        self._supervisor.stop()
        for listener in reversed(self._listeners):
            await listener.close()
        await self._peers.close()
        flusher = self._effects.flusher
        if flusher is not None:
            if self.engine.commit.error is None:
                await self._flush_all()
            self._spares.close()
            await asyncio.to_thread(
                flusher.close
            )  # its last outcome, perhaps a failure, is heard before the process ends
        await self._supervisor.close()
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
            self._durable()
        if outcome.spares < SPARE_SEGMENTS:
            self._spares.wake()

    def _frame_written(self, frame: Frame, outcome: Written) -> None:
        self._last_frame_s, self._promised = self._loop.time(), False
        self.metrics.wal_frame(frame.changes, frame.bytes, int(outcome.sync_s * 1e9) if frame.sync else None)
        self.engine.written(frame)
        self._durable()
        self._unchecked_bytes += frame.bytes
        if self._unchecked_bytes >= DISK_CHECK_BYTES:
            self._check_disk()

    def _durable(self) -> None:
        self.node.durable()
        self._peers.replication.durable()

    def _rolled_back(self) -> bool:
        """The directory was set back: what this incarnation writes from now on others have as something else. Whether it goes on.

        What it has made may be such already, and numbers do not tell: the log of who could say so may begin later. A peer's word is
        all there is, so a lie must not make a node start again and again.
        """
        if self._failure is not None:
            return True
        if self.config.upstreams and any(keyspace.seq for keyspace in self.engine.keyspaces.all):
            return self._begin_anew(False)
        if identity.renewed_ms(self._directory.path, self.node.identity, now_ms()) < REINCARNATION_PAUSE_MS:
            _log.warning(
                "another node says again that this one was set back: it took a new incarnation a moment ago, and keeps it"
            )
            return False
        renewed = identity.reincarnate(self._directory.path, self.node.identity, os.urandom, now_ms())
        error = Unavailable(
            "another node has changes of this one that this one does not know: its directory was set back to an older state. "
            f"Start it again: it goes on as {actor_text(renewed.actor)}, and gets the changes back."
        )
        _log.warning("%s", error)
        self.engine.admission.read_only = error
        self._end(error)
        return True

    def _copied(self, runs_elsewhere: bool) -> None:
        """The cluster has another history of this node: what this directory holds must not go on as that."""
        if self._failure is None and self.config.upstreams:
            self._begin_anew(runs_elsewhere)

    def _begin_anew(self, runs_elsewhere: bool) -> bool:
        """At the next start, with what there is set aside; False: it did so a moment ago, and goes on.

        Two hubs that have different histories of it would both say so, in turn: each time it sets aside all that it got.
        """
        if identity.begun_anew_ms(self._directory.path, self.node.identity, now_ms()) < REINCARNATION_PAUSE_MS:
            _log.warning(
                "a hub says again that the cluster has another history of this node, which began anew a moment ago, and goes on. "
                "If this repeats, its upstreams have different histories of it: let one of them begin anew, or give it one only"
            )
            return False
        identity.set_aside(self._directory.path, self.node.identity, os.urandom, now_ms(), as_another=runs_elsewhere)
        other = " as another node, for which it needs another --node name," if runs_elsewhere else ""
        error = Unavailable(
            "the cluster has another history of this node: its directory was copied and both copies ran, or it was set back. "
            f"Start it again: it begins anew{other} and what it had is set aside in {self._directory.path / identity.ASIDE}. "
            "`edgekv cluster unite` brings back what the cluster lacks of it."
        )
        self.engine.admission.read_only = error
        self._end(error)
        return True

    def _clock_was_wrong(self, stamps_max: dict[int, int]) -> None:
        """Hubs take no more of this node's changes, and its clock is right again: what it has stamped is to be put right."""
        if self._failure is not None or not self.config.upstreams:
            return
        if self.node.identity.clock is not None:
            self._peers.replication.trouble(clock_restart.NOT_DONE)
            return
        if identity.renewed_ms(self._directory.path, self.node.identity, now_ms()) < REINCARNATION_PAUSE_MS:
            return
        identity.clock_was_wrong(self._directory.path, self.node.identity, identity.WrongClock(stamps_max=stamps_max))
        error = Unavailable(clock_restart.ASKED)
        self.engine.admission.read_only = error
        self._end(error)

    def _fail(self, error: LogFailed) -> None:
        """Rule L8: nothing is acknowledged any more; say so, and end."""
        self._end(error)
        self.engine.failed(error)

    def _end(self, error: EdgeKVError) -> None:
        """Stop, and let `run` raise it."""
        self._failure = error
        self._stopping.set()

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
            self.node.tick(self.monotonic_ms())
            if self.engine.commit.needs_sync:
                flusher.submit(SyncJob(SYNC))
            elif not self._promised and self._loop.time() - self._last_frame_s > TICK_S:
                self._promised = True
                flusher.submit(PromiseJob(HOUSEKEEPING))
        if self.engine.commit.error is None:
            self._peers.replication.tick()
            if self._peers.replication.busy and not self._working:
                self._working = True
                self._loop.call_later(WORK_PAUSE_S, self._work)
        self._supervisor.tick()
        if self._ticks % DISK_CHECK_TICKS == 0:
            self._check_disk()
        self._collect_garbage()

    def _work(self) -> None:
        """A little of a row sync, as long as there is more: clients have their turn in between."""
        if self._closing or self.engine.commit.error is not None or not self._peers.replication.work():
            self._working = False
            return
        self._loop.call_later(WORK_PAUSE_S, self._work)

    def _check_disk(self, lacking: bool = False) -> None:
        self._unchecked_bytes = 0
        if self.node.log is not None:
            free = 0 if lacking else self._disk.free_bytes()
            full = self._spares.full and self.node.log.spares <= 2
            self.engine.disk(free_bytes=free, spares_failed=full)

    def _collect_garbage(self) -> None:
        if self._garbage is None:
            return
        self._garbage.tick()
        now = self._loop.time()
        idle = now - self._last_frame_s > 1 and self.engine.memtable.rows < IDLE_COLLECT_ROWS_MAX
        if idle and time.monotonic() - self._collected_s > IDLE_COLLECT_S:
            self._garbage.sweep()
            self._collected_s = time.monotonic()


def run(config: Config, announce: Callable[[str], None]) -> None:
    """Serve one node, on the event loop policy that is installed, until it is stopped. Raises what kept it from serving."""
    asyncio.run(Server(config).run(announce))
