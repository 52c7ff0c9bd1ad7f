"""Keeps an applier running on a node's directory: opens it, hears what it has written, and starts another when it has ended.

One that fails at the rows of a row sync FOLD_TRIES_MAX times is not started again: the node goes read-only. Other failures may pass
(a full disk, a process that was killed), and are tried for as long as it takes.

Decision 0002 says why the applier is a process of its own. The inline one has the same life: what a new process is to the other, a
new environment of LMDB is to it.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Final

from edgekv.config import Config
from edgekv.engine.engine import Engine
from edgekv.errors import DiskFull, EdgeKVError, Unavailable
from edgekv.limits import FOLD_TRIES_MAX
from edgekv.node.directory import DataDirectory
from edgekv.server.effects import Effects
from edgekv.store.applied import Ended, Failed, Opened, Progress
from edgekv.store.applier import Applier
from edgekv.store.applier_process import ApplierProcess, InlineApplier
from edgekv.store.lmdb_store import LmdbStore, StoreError, disk_is_full
from edgekv.wal.disk import RealDisk

_log: Final = logging.getLogger("edgekv.server")

APPLIER_OPEN_S: Final = 30.0
APPLIER_RESTART_S: Final = (0.1, 0.5, 2.0, 5.0)
STOP_S: Final = 30.0


class ApplierSupervisor:
    """Of one node: made before recovery, which needs the ``store``. Nobody else sets ``effects.applier``."""

    def __init__(
        self,
        config: Config,
        directory: DataDirectory,
        disk: RealDisk,
        effects: Effects,
        *,
        check_disk: Callable[[bool], None],
        failed: Callable[[EdgeKVError], None],
    ) -> None:
        """``check_disk`` is called when an applier failed, True: for want of disk; ``failed`` when the store is lost."""
        self._config: Final = config
        self._directory: Final = directory
        self._disk: Final = disk
        self._effects: Final = effects
        self._check_disk: Final = check_disk
        self._failed: Final = failed
        self._loop: Final = asyncio.get_running_loop()
        self._restarts = 0
        self._fold_failures = 0
        """At the rows that `Flips.joining` speaks of."""
        self._reason = ""
        """Of the failure under way, as the applier said it; none yet, or it was killed."""
        self._lacked_disk = False
        """It was for want of disk."""
        self._resting = False
        """The inline applier has more to do, and will."""
        self._closing = False
        self._effects.applier = self._opened()

    def _opened(self) -> ApplierProcess | InlineApplier:
        if self._config.applier == "inline":
            # LMDB allows one environment per process and directory: reads and the applier share it.
            self.store = LmdbStore.open(self._directory.store, readonly=False)
            return InlineApplier(Applier(self.store, self._disk, self._directory.sync))
        applier = ApplierProcess.spawn(self._directory.path, self._directory.lock_descriptor)
        self._await_opened(applier)
        self.store = LmdbStore.open(self._directory.store, readonly=True)
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

    def apply_now(self, lsn: int) -> None:
        """Before there is an engine: have the durable log below ``lsn`` carried into the store, and block until it is."""
        applier = self._effects.applier
        assert applier is not None
        applier.request(lsn, None)
        if isinstance(applier, InlineApplier):
            try:
                while applier.step() is not None:
                    pass
            except Exception as error:
                # Nothing is asked of it any more: the node goes on read-only, and shows nothing that was joined in part.
                self._effects.applier = InlineApplier(Applier(self.store, self._disk, self._directory.sync))
                if isinstance(error, EdgeKVError):
                    raise
                raise Unavailable(
                    f"{type(error).__name__}: {error}. Look after the disk, then start the node again."
                ) from error
            return
        while True:
            for message in applier.receive():
                match message:
                    case Progress() if message.lsn >= lsn:
                        return
                    case Failed(text, True):
                        raise DiskFull(f"{text}. Free space, then start the node again.")
                    case Failed(text):
                        raise Unavailable(f"{text} See applier.log in {self._directory.path}.")
                    case Ended():
                        raise Unavailable(f"the applier ended. See applier.log in {self._directory.path}.")
            time.sleep(0.002)

    def watch(self, engine: Engine) -> None:
        """Hear the applier from now on, and tell the engine."""
        self._engine = engine
        if isinstance(self._effects.applier, ApplierProcess):
            self._loop.add_reader(self._effects.applier.fileno(), self._hear)

    def tick(self) -> None:
        """Let the inline applier work, unless it does."""
        if isinstance(self._effects.applier, InlineApplier) and not self._resting:
            self._step_inline(self._effects.applier)

    def stop(self) -> None:
        """Start no other from now on. What the one that runs is asked for it still does."""
        self._closing = True

    async def close(self) -> None:
        """End the applier, and wait for that; nothing reads the store any more."""
        if isinstance(self._effects.applier, ApplierProcess):
            self._loop.remove_reader(self._effects.applier.fileno())
            self._effects.applier.close()
            await asyncio.to_thread(self._effects.applier.wait, STOP_S)
        self.store.close()

    # -- as a process

    def _hear(self) -> None:
        applier = self._effects.applier
        assert isinstance(applier, ApplierProcess)
        for message in applier.receive():
            match message:
                case Progress():
                    self._came(message)
                case Failed(text, disk_full):
                    _log.warning("the applier failed: %s", text)
                    self._reason, self._lacked_disk = text, disk_full
                    if disk_full:
                        self._check_disk(True)
                case Ended(status):
                    self._ended(applier, status)

    def _ended(self, ended: ApplierProcess, status: int | None) -> None:
        self._loop.remove_reader(ended.fileno())
        ended.close()
        self._effects.applier = None
        if not self._closing:
            self._loop.call_later(self._back_off_s(), self._restart, ended, status)

    def _restart(self, ended: ApplierProcess, status: int | None) -> None:
        """After a pause: only by then the status of a process that said nothing is sure to be known."""
        if self._closing:
            ended.poll()  # reap it
            return
        status = ended.poll() if status is None else status
        reason, lacked_disk = self._reason, self._lacked_disk
        self._reason, self._lacked_disk = "", False
        if not reason:
            reason = _reason_of(status)
            _log.warning(
                "the applier said nothing and ended: %s",
                reason or ("it was killed" if status else "it is not known why"),
            )
        if self._may_try_again(reason, lacked_disk=lacked_disk):
            self._respawn(ended)

    def _may_try_again(self, reason: str, *, lacked_disk: bool) -> bool:
        """Whether another applier is to be started after one has failed; the node is read-only else. No ``reason``: it was killed."""
        if self._engine.flips.joining is None or lacked_disk or not reason:
            return True
        self._fold_failures += 1
        if self._fold_failures < FOLD_TRIES_MAX:
            return True
        _log.error("this node is read-only from now on: %s", self._engine.cannot_join(self._fold_failures, reason))
        return False

    def _came(self, progress: Progress) -> None:
        """A commit. One that moves nothing may be a part of a fold, which fails at the same row each time."""
        if progress.lsn > self._engine.checkpoints.applied_lsn:
            self._restarts = self._fold_failures = 0
        self._engine.applied(progress)

    def _back_off_s(self) -> float:
        """How long to wait before the next applier."""
        wait_s = APPLIER_RESTART_S[min(self._restarts, len(APPLIER_RESTART_S) - 1)]
        self._restarts += 1
        return wait_s

    def _respawn(self, ended: ApplierProcess) -> None:
        ended.poll()  # reap it
        if self._closing:
            return
        try:
            applier = ApplierProcess.spawn(self._directory.path, self._directory.lock_descriptor)
        except OSError as error:
            _log.warning("the applier cannot be started: %s; it is tried again", error.strerror)
            self._loop.call_later(APPLIER_RESTART_S[-1], self._respawn, ended)
            return
        self._effects.applier = applier
        self.watch(self._engine)
        self._engine.checkpoints.repeat_requests()

    # -- inline

    def _step_inline(self, applier: InlineApplier) -> None:
        """One transaction, and the next after a pause as long as this one took: half of the time is for clients."""
        started_s = self._loop.time()
        self._resting = False
        if self._closing or self._effects.applier is not applier:
            return
        try:
            progress = applier.step()
        except Exception as error:  # noqa: BLE001 - whatever it is would have ended a process, and been heard of
            self._fail_inline(error)
            return
        if progress is not None:
            self._came(progress)
            self._resting = True
            self._loop.call_later(self._loop.time() - started_s, self._step_inline, applier)

    def _fail_inline(self, error: Exception) -> None:
        is_store = isinstance(error, StoreError | OSError)
        _log.warning("the applier failed: %s", error, exc_info=not is_store and not isinstance(error, EdgeKVError))
        self._effects.applier = None
        lacked_disk = disk_is_full(self._directory.store)
        self._check_disk(lacked_disk)
        if self._may_try_again(f"{type(error).__name__}: {error}", lacked_disk=lacked_disk):
            self._loop.call_later(self._back_off_s(), self._renew_inline, is_store)

    def _renew_inline(self, reopen: bool) -> None:
        """What a new process is to the other kind of applier. LMDB does not go on with an environment that has failed; opened again,
        it does not show any more what was pinned while rows are joined (engine/flip.py), but what has come of that so far.
        """
        if self._closing:
            return
        if reopen and self._engine.checkpoints.hidden and disk_is_full(self._directory.store):
            # What is pinned is shown until there is room.
            self._loop.call_later(self._back_off_s(), self._renew_inline, reopen)
            return
        try:
            if reopen:
                self.store.reopen()
        except Unavailable as error:
            self._failed(error)  # there is nothing to read from
            return
        self._effects.applier = InlineApplier(Applier(self.store, self._disk, self._directory.sync))
        self._engine.checkpoints.repeat_requests()
        self._join_unpinned(self._effects.applier)

    def _join_unpinned(self, applier: InlineApplier) -> None:
        """Rows are joined in part, and nothing hides that: nobody reads before all are, as at a start."""
        try:
            while (
                self._engine.checkpoints.hidden and not self.store.pinned and (progress := applier.step()) is not None
            ):
                self._came(progress)
            self._engine.flips.advance()  # LMDB may have failed behind them: what is joined is shown as a whole from now on
        except Exception as error:  # noqa: BLE001 - as in `_step_inline`
            failure = Unavailable(
                f"LMDB failed while the rows of another node were joined, and they cannot be joined now ({type(error).__name__}: "
                f"{error}). Look after the disk, then start the node again: it joins them before it serves."
            )
            self._effects.applier = None
            self._engine.admission.refuse(failure)
            self._failed(failure)


def _reason_of(status: int | None) -> str:
    """Why a process ended that said nothing, by its exit status; empty: somebody killed it, or nobody knows."""
    if status is None or -status in (signal.SIGKILL, signal.SIGTERM):
        return ""
    names = {each.value: each.name for each in signal.Signals}
    return f"its process ended {f'by {names.get(-status, -status)}' if status < 0 else f'with status {status}'}"
