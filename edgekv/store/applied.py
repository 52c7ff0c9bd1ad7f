"""What a store holds, what it may purge, and what its applier says: values that cross between the node and the applier.

Every LSN here is an exclusive end: ``lsn`` is that of the first record which is not applied.
"""

from pathlib import Path
from typing import Final, NamedTuple

from edgekv.ids import Actor, Vector
from edgekv.store.lost_values import Lost

ChainedVector = dict[Actor, tuple[int, int]]
"""Per actor its highest seq, and the chain value after it."""


class Applied(NamedTuple):
    """What one LMDB transaction stores beside the rows; always of one moment of the log."""

    lsn: int
    vectors: dict[int, ChainedVector]  # by keyspace
    hlcs: dict[int, int]  # by keyspace; nothing stored has a higher one
    mixed: frozenset[int]  # keyspaces that ever held anything but registers
    ttl_ms: int


NOTHING_APPLIED: Final = Applied(0, {}, {}, frozenset(), 0)


class Cut(NamedTuple):
    """One keyspace of a STABLE, what may be forgotten (docs/ARCHITECTURE.md).

    ``cut`` is covered by every member; a store may purge by it when the vector it stores covers ``need``; counter parts of
    ``parked`` actors stay.
    """

    cut: Vector
    need: Vector
    parked: frozenset[Actor]


class Stable(NamedTuple):
    """What may be purged: the newest STABLE, or, with ``cuts`` None, a one-node cluster's announcement to itself.

    ``wall_ms`` must not exceed the TTL time at which the first record at or after the requested LSN is made: take both in one
    tick. Else an increment made just before a key expired could be applied after the key was purged, and revive it.
    """

    wall_ms: int
    cuts: dict[int, Cut] | None  # by keyspace
    dropped: frozenset[int] = frozenset()
    """Keyspaces that are not held here any more: all that LMDB has of them goes. Their runs are all below the requested LSN."""


class Opened(NamedTuple):
    """LMDB exists and can be opened by readers."""


class Progress(NamedTuple):
    """A commit. One request may be answered by several; it is done when ``lsn`` reaches the requested one.

    The log may be recycled below ``previous_lsn`` only: a power cut may take the last commit back (rule L7).
    """

    lsn: int
    previous_lsn: int
    reusable_bytes: int  # free inside data.mdb
    reserved: bool  # False: the disk has no room for the pages that a delete on a full disk needs
    cleared: (
        bool  # keys were removed with their expiry cell: a row cache above LMDB must be dropped, it may lack that cell
    )
    lost: Lost | None = None
    """Rows joined, and values were lost by that."""


class Failed(NamedTuple):
    """The applier is about to end. ``disk_full`` tells whether room on the disk is what it lacked."""

    text: str
    disk_full: bool


class Ended(NamedTuple):
    """The child closed its pipe; ``status`` None: it has not been reaped yet, ``poll`` tells later."""

    status: int | None


Message = Opened | Progress | Failed | Ended


def store_path(data_dir: Path) -> Path:
    """Where a node's LMDB environment lies."""
    return data_dir / "store"


def wal_path(data_dir: Path) -> Path:
    """Where a node's log lies."""
    return data_dir / "wal"


def sync_path(data_dir: Path) -> Path:
    """Where the spools of row syncs lie."""
    return data_dir / "sync"
