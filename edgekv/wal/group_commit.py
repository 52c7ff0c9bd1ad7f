"""The flusher: the one thread that writes the log, and the jobs it is given (L8, L9: docs/ARCHITECTURE.md).

The engine fills a frame while the one before it is being written; when that is durable it submits the next as one `FrameJob`: one
join, one CRC, one write, one fdatasync for everything that arrived in the meantime. There is no timer and no batching delay here.

`execute` is the whole of the work and knows nothing of threads: `Flusher` calls it from its thread, the simulator calls it inline, and
both get the same outcomes. What an outcome says about durability is the only source of acknowledgements (L9): `Written.durable_lsn` is
read after the fdatasync returned.

After the first failure nothing is executed any more (L8): one `Failed` is delivered, the thread ends, `submit` raises LogFailed. Jobs
queued behind it get no outcome of their own: the one `Failed` says that all that is waited for is unknown.
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple, assert_never

from edgekv.errors import LogFailed
from edgekv.wal.log import Log


class FrameJob(NamedTuple):
    """One frame. `roll` opens a new segment first: the payload then begins with a CHECKPOINT mark."""

    payload: bytes
    records: int
    sync: bool
    roll: bool
    token: object


class SyncJob(NamedTuple):
    """Make everything written durable: the tick of `buffered` keyspaces."""

    token: object = None


class PromiseJob(NamedTuple):
    """The log is idle: sync what is not, and promise it."""

    token: object = None


class RecycleJob(NamedTuple):
    """LMDB's last commit but one has applied everything below `below_lsn`."""

    below_lsn: int
    retain_bytes: int
    token: object = None


class CloseJob(NamedTuple):
    """The last job: a payload that ends with the CLEAN mark. `roll` as in FrameJob."""

    payload: bytes
    records: int
    roll: bool
    token: object = None


Job = FrameJob | SyncJob | PromiseJob | RecycleJob | CloseJob


class Written(NamedTuple):
    """A job is done, and how the log stands after it."""

    token: object
    first_lsn: int
    """LSN of the job's first record; for a job without records that of the next."""
    next_lsn: int
    durable_lsn: int
    """Records below it are durable and may be acknowledged, shipped, applied and shown."""
    room_bytes: int
    """The largest payload that goes into the active segment."""
    at_segment_start: bool
    """The next payload must begin with a CHECKPOINT mark."""
    spares: int
    sync_s: float = 0.0
    """How long the write and fdatasync took."""


class Failed(NamedTuple):
    """The log is latched. The outcome of everything not yet reported durable is unknown."""

    token: object
    error: LogFailed


Outcome = Written | Failed


def execute(log: Log, job: Job) -> Outcome:
    """Do one job. Blocks for as long as the disk takes; never raises LogFailed."""
    first_lsn = log.next_lsn
    try:
        match job:
            case FrameJob():
                if job.roll:
                    log.roll()
                log.write(job.payload, job.records)
                if job.sync:
                    log.sync()
            case SyncJob():
                log.sync()
            case PromiseJob():
                log.sync()
                log.write_promise()
            case RecycleJob():
                log.recycle(job.below_lsn, job.retain_bytes)
            case CloseJob():
                if job.roll:
                    log.roll()
                log.close_clean(job.payload, job.records)
            case _:
                assert_never(job)
    except LogFailed as error:
        return Failed(job.token, error)
    return Written(
        token=job.token,
        first_lsn=first_lsn,
        next_lsn=log.next_lsn,
        durable_lsn=log.durable_lsn,
        room_bytes=log.room_bytes,
        at_segment_start=log.at_segment_start,
        spares=log.spares,
    )


class Flusher:
    """The thread that owns a `Log` from `start` to the outcome of a CloseJob or the first Failed.

    `deliver` is called on this thread, once per job in order; it hands the outcome to the event loop.
    """

    def __init__(
        self, log: Log, deliver: Callable[[Outcome], None], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._log = log
        self._deliver = deliver
        self._clock = clock
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._failure: LogFailed | None = None
        self._thread = threading.Thread(target=self._run, name="edgekv-flusher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Never blocks; LogFailed when the log is latched. The engine keeps at most one frame queued or being written."""
        if self._failure is not None:
            raise self._failure
        self._jobs.put(job)

    def close(self) -> None:
        """Finish what is queued and end the thread. Blocks. The log is left as it is: without a CloseJob the next start recovers."""
        self._jobs.put(None)
        self._thread.join()

    def _execute(self, job: Job) -> Outcome:
        try:
            return execute(self._log, job)
        except Exception as error:  # noqa: BLE001 - a bug here must end the process, not leave all waiters waiting for ever
            failure = LogFailed(
                f"the flusher fell over at a {type(job).__name__}: {error!r}. This is a bug; the node stops."
            )
            failure.__cause__ = error
            return Failed(job.token, failure)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            started = self._clock()
            outcome = self._execute(job)
            if isinstance(outcome, Failed):
                self._failure = outcome.error
                self._deliver(outcome)
                return
            self._deliver(outcome._replace(sync_s=self._clock() - started))
            if isinstance(job, CloseJob):
                return
