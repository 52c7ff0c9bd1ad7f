"""Small logs on a simulated disk that keeps everything, for the tests of edgekv.wal."""

from collections.abc import Callable
from random import Random

from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal.log import Log
from edgekv.wal.record import Checkpoint, pack_checkpoint, pack_ttl
from edgekv.wal.recovery import recover
from tests.sim.disk import SimDisk

NODE_ID = b"node-id-16-bytes"
INCARNATION = b"incarn-1"
SEGMENT_BYTES = SEGMENT_HEADER_BYTES + 1024
CHECKPOINT = pack_checkpoint(Checkpoint([], 0))

Frames = list[tuple[int, int, bytes]]


def entropy(seed: int = 0) -> Callable[[int], bytes]:
    return Random(seed).randbytes


def new_disk(seed: int = 0) -> SimDisk:
    return SimDisk(Random(seed), evicting=False)


def open_log(disk: SimDisk, *, applied_lsn: int = 0, seed: int = 1, incarnation: bytes = INCARNATION) -> Log:
    return reopen(disk, applied_lsn=applied_lsn, seed=seed, incarnation=incarnation)[0]


def reopen(
    disk: SimDisk,
    *,
    applied_lsn: int = 0,
    seed: int = 2,
    incarnation: bytes = INCARNATION,
    segment_bytes: int = SEGMENT_BYTES,
) -> tuple[Log, Frames]:
    """Recover as a new process would; the log and the frames it was given."""
    frames: Frames = []
    log = recover(
        disk,
        node_id=NODE_ID,
        incarnation=incarnation,
        applied_lsn=applied_lsn,
        segment_bytes=segment_bytes,
        entropy=entropy(seed),
        on_frame=lambda *frame: frames.append(frame),
    )
    return log, frames


def fill(log: Log, frames: int, *, sync: bool = True, start: int = 0) -> Frames:
    """Write frames of one TTL record each, rolling as needed; what was written, checkpoints included."""
    written: Frames = []
    for i in range(start, start + frames):
        payload, records = pack_ttl(i), 1
        if not log.room(len(CHECKPOINT) + len(payload)):
            log.roll()
        if log.at_segment_start:
            payload, records = CHECKPOINT + payload, 2
        written.append((log.write(payload, records), records, payload))
        if sync:
            log.sync()
    return written


def images(disk: SimDisk) -> dict[str, bytes]:
    return {name: bytes(inode.cache) for name, inode in disk.entries.items()}


def clone(disk: SimDisk) -> SimDisk:
    """The same files on a disk of their own."""
    copy = new_disk()
    for name, data in images(disk).items():
        put(copy, name, data)
    copy.sync_directory()
    return copy


def put(disk: SimDisk, name: str, data: bytes) -> None:
    """A file with these bytes, durable."""
    file = disk.create(name, len(data))
    file.pwrite(0, data)
    file.fdatasync()
