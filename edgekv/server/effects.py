"""What the engine asks for, carried out: frames to the flusher, rows to the applier, the log below given back."""

from collections.abc import Callable
from typing import Final

from edgekv.engine.frame import Frame
from edgekv.ids import Lsn
from edgekv.store.applied import Stable
from edgekv.store.applier_process import ApplierProcess, InlineApplier
from edgekv.wal.group_commit import Flusher, FrameJob, RecycleJob


class _Sync:
    """Token of a SyncJob."""


class _Housekeeping:
    """Token of jobs whose outcome changes nothing in the engine."""


SYNC: Final = _Sync()
HOUSEKEEPING: Final = _Housekeeping()


class Effects:
    """The engine's effects on the flusher and the applier, before and after both exist."""

    def __init__(self) -> None:
        self.flusher: Flusher | None = None
        self.applier: ApplierProcess | InlineApplier | None = None
        self.retain_bytes: Callable[[], int] = lambda: 0
        """Set once there is a node: how much of the log stays for other nodes that lag."""

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        """Hand a frame to the flusher."""
        assert self.flusher is not None
        self.flusher.submit(FrameJob(payload, records, sync, roll, frame))

    def apply(self, lsn: Lsn, stable: Stable | None) -> None:
        """Ask the applier; while it is being restarted the request waits in `Checkpoints.requests`."""
        if self.applier is not None:
            self.applier.request(lsn, stable)

    def recycle(self, below_lsn: Lsn) -> None:
        """Give the log below back, but for what stays for others."""
        if self.flusher is not None:
            self.flusher.submit(RecycleJob(below_lsn, self.retain_bytes(), HOUSEKEEPING))
