"""Admission and back-pressure: who may make a change now.

Three classes, decided before a sequence number is taken. *Client* changes are refused first: the disk is full, the node is read-only.
*Relief* changes (deletes, expiry) free space and go on into the reserve, up to the last segment in it: that one a restart needs, and a
frame for which there is none would end the process. *Internal* records (marks) go last of all.

Two bounds make a client's write wait rather than fail: the bytes not yet in LMDB (``memory_bytes``) and the zeroed log segments in
stock. `blocked` says so; the connection that sent the write holds it and stops reading, everybody else goes on. Whoever waits
leaves a callback in `on_room`, called once when there is room again.
"""

from collections.abc import Callable
from typing import Final

from edgekv.errors import DiskFull, EdgeKVError, ReadOnly
from edgekv.limits import LMDB_RESERVE_BYTES

_RESUME: Final = 0.9
"""Room is announced below this part of the cap: a gap, so that a crowd is not woken for every freed row."""


class Admission:
    """The bounds of one node, and whether they are met. `update` is its one mutator for `blocked`."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes: Final = memory_bytes
        self.blocked = False
        """A bound is met: a client's write has to wait."""
        self.on_room: list[Callable[[], None]] = []
        self.read_only: EdgeKVError | None = None
        """Why the node takes no writes at all; None: it does."""
        self.outsider: EdgeKVError | None = None
        """Why clients may not write although the node can: it is no member of its cluster yet; None: they may."""
        self.disk_full = False
        self.reserve_has_room: Callable[[], bool] = lambda: True
        """Set once by the engine: whether the log can take one more change, and all that waits for it, without another file."""
        self.blocks_total = 0

    def check_client(self) -> None:
        """Raise what refuses a client's change now. Called before anything is stamped."""
        self.check_relief()
        if self.disk_full:
            raise DiskFull(
                "the disk is full: client writes are refused, reads and deletes go on. "
                "Free space or delete keys; writes resume by themselves."
            )

    def check_relief(self) -> None:
        """Raise what refuses even a delete: a read-only node, or a full disk whose reserve in the log is used up."""
        if self.read_only is not None:
            raise ReadOnly(f"this node is read-only: {self.read_only}")
        if self.outsider is not None:
            raise type(self.outsider)(str(self.outsider))
        if self.disk_full and not self.reserve_has_room():
            raise DiskFull(
                "the disk is full and so is the log's reserve: all writes are refused, reads go on. "
                "Free space on the disk; writes resume by themselves."
            )

    def update(self, *, unapplied_bytes: int, log_has_room: bool) -> None:
        """Judge the bounds; call the callbacks when room is back. On a full disk, or of a read-only node, nobody waits: room may never
        come.
        """
        cap = self._memory_bytes
        refused = self.disk_full or self.read_only is not None
        if self.blocked:
            if refused or (unapplied_bytes < cap * _RESUME and log_has_room):
                self._open()
        elif not refused and (unapplied_bytes >= cap or not log_has_room):
            self.blocked = True
            self.blocks_total += 1

    def refuse(self, error: EdgeKVError) -> None:
        """The node takes no writes any more before it is started again; who waits for room is told so."""
        self.read_only = error
        if self.blocked:
            self._open()

    def _open(self) -> None:
        self.blocked = False
        callbacks, self.on_room = self.on_room, []
        for callback in callbacks:
            callback()

    def disk(self, *, free_bytes: int, reusable_bytes: int, unapplied_bytes: int, spares_failed: bool) -> None:
        """Judge the disk: what is acknowledged must find room in LMDB, copies of the pages it touches included.

        ``spares_failed``: the log could not zero another segment.
        """
        need = 2 * unapplied_bytes + LMDB_RESERVE_BYTES
        self.disk_full = spares_failed or free_bytes + reusable_bytes < need
        if self.disk_full and self.blocked:
            self._open()  # whoever waits for room is told "disk full" instead of waiting for ever
