"""Start-up of the log: find its end, or find out that it is damaged (rules L1 to L7 of docs/ARCHITECTURE.md).

`engine.recovery` calls `recover` before anything is served. The frames stream through `on_frame`, so memory is bounded by a window of
a segment and the frames since the last promise, whatever the length of the log.

The order, and why a crash at any point of it is harmless:

1. fsync of the directory: the entries that a killed process left may be in the cache only.
2. The newest run of consecutive segments with good headers is the log. What lies before a hole was applied to LMDB, or it is
   corruption (L6). It stays until LMDB's last commit but one has passed the hole (L7): a power cut may take the last one back.
   Reading starts at the segment that holds LMDB's applied LSN: damage in older ones costs their readers only.
3. In a segment with a successor all frames up to the one its successor names must be good (L2). In the last one the log ends at the
   first bad frame, unless a later header promises more (L3). Nothing on disk was changed so far, and nothing is when this fails.
4. What was read from the last promise to the end is written again in place and fdatasynced (L4). The bytes are those that were
   checked: pages that an earlier fdatasync failed to write are clean, may be evicted at any moment, and then read differently.
5. Without a clean mark a new segment is opened, an empty last segment going back to the spares first (L5). A crash between the two
   leaves a log that ends in its predecessor, which is where it ended before. Without a predecessor it stays, and has a successor with
   the same base LSN: it alone says that the log begins there.

Damage raises Corruption with the LSNs that are gone and leaves the files as they are.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgekv.errors import Corruption, LogFailed
from edgekv.limits import SEGMENT_HEADER_BYTES, SPARE_SEGMENTS_MAX, TORN_TAIL_COPIES, TORN_TAIL_KEEP_BYTES
from edgekv.wal.disk import UNFINISHED_SUFFIX, Disk
from edgekv.wal.log import SEGMENTS_MIN, Log
from edgekv.wal.record import ends_clean
from edgekv.wal.segment import SPARE_PREFIX, Segment, SegmentWalk, segment_name, segment_number

OnFrame = Callable[[int, int, bytes], None]
"""(first LSN, records, payload), payload and records as they were given to `Log.write`."""

TORN_PREFIX: Final = "torn-"


class _Damage(Corruption):
    """Corruption that a salvage makes an end of; on its way to `recover`, which adds how."""


def recover(
    disk: Disk,
    *,
    node_id: bytes,
    incarnation: bytes,
    applied_lsn: int,
    segment_bytes: int,
    entropy: Callable[[int], bytes],
    on_frame: OnFrame | None = None,
    data_dir: str = "DIR",
) -> Log:
    """Recover the log and open it for appending.

    `on_frame` gets every frame that holds a record at or above `applied_lsn`, which is what LMDB lacks; all of it is durable on
    return, not before. Raises Corruption when something below a promise is damaged or cannot be read, with what to do about it at
    `data_dir`; LogFailed when the disk fails under a repair.
    """
    try:
        disk.sync_directory()
        run, stale = _newest_run(disk, node_id, applied_lsn)
        end = _read(disk, run, applied_lsn, on_frame) if run else None
        if end and end.walk.lsn < applied_lsn:
            raise _corruption(
                end.walk, f"the log ends at LSN {end.walk.lsn}, the store has applied {applied_lsn}", applied_lsn - 1
            )
        spares = _sweep(disk, segment_bytes)
        log = Log(
            disk,
            node_id=node_id,
            incarnation=incarnation,
            segment_bytes=segment_bytes,
            entropy=entropy,
            segments=[segment.info for segment in run],
            spares=spares,
            stale=stale,
        )
        _open(disk, log, end, incarnation)
        return log
    except _Damage as damage:
        message = (
            f"{damage} Restore a backup of the directory, or stop the node and give up what is lost: "
            f"`edgekv wal salvage --data-dir {data_dir} --accept-data-loss`."
        )
        raise Corruption(
            message, path=damage.path, first_lsn=damage.first_lsn, last_lsn=damage.last_lsn
        ) from damage.__cause__
    except OSError as error:
        raise LogFailed(f"the log could not be recovered: {error}. Look after the disk, then start again.") from error


def _newest_run(disk: Disk, node_id: bytes, applied_lsn: int) -> tuple[list[Segment], list[str]]:
    """The newest segments with consecutive numbers and good headers, closed again, and the names of what lies before a gap in them."""
    numbers = sorted(number for name in disk.names() if (number := segment_number(name)) is not None)
    run: list[Segment] = []
    damaged = ""
    while numbers and (not run or numbers[-1] == run[0].header.number - 1):
        name = segment_name(numbers[-1])
        segment = Segment.open(disk, name)
        if segment is None:
            damaged = name
            break
        segment.close()
        _check_identity(segment, name, node_id)
        run.insert(0, segment)
        numbers.pop()
    start_lsn = run[0].header.base_lsn if run else None
    if damaged and start_lsn is None:
        raise _Damage(f"the header of {damaged}, the newest segment, is damaged.", path=damaged, first_lsn=applied_lsn)
    if (start_lsn or 0) > applied_lsn or (start_lsn is None and applied_lsn):
        begin = "the log is gone" if start_lsn is None else f"the log begins at LSN {start_lsn}"
        raise _Damage(
            f"{begin}, the store has applied {applied_lsn}: segments are missing or damaged.",
            path=damaged or (run[0].info.name if run else ""),
            first_lsn=applied_lsn,
            last_lsn=start_lsn and start_lsn - 1,
        )
    return run, [segment_name(number) for number in numbers]


def _check_identity(segment: Segment, name: str, node_id: bytes) -> None:
    """A good header in the wrong place is no bad sector: nothing in such a directory can be trusted, applied or not."""
    if segment.header.node_id != node_id:
        raise Corruption(f"{name} is of another node. Point data_dir at this node's own directory.", path=name)
    if segment.info.name != name:
        raise _Damage(
            f"{name} holds the header of {segment.info.name}: it was renamed by hand, or the file system lost the fsync of a "
            "directory.",
            path=name,
        )


class _End:
    """Where the log ends, and what was read there."""

    def __init__(self, walk: SegmentWalk) -> None:
        self.walk = walk
        self.last_payload = b""
        self.unpromised: deque[tuple[int, bytes]] = deque()
        """(end, the whole frame) of the frames after the last promise."""

    @property
    def clean(self) -> bool:
        """The last frame is a clean mark, and no process that went on after it began to write another."""
        return ends_clean(self.last_payload) and not self.walk.salt_follows()


def _read(disk: Disk, run: list[Segment], from_lsn: int, on_frame: OnFrame | None) -> _End:
    """Walk and judge the segments from the one that holds `from_lsn`; deliver the frames; return the end, its file open."""
    first = max((i for i, segment in enumerate(run) if segment.header.base_lsn <= from_lsn), default=0)
    end = None
    for index in range(first, len(run)):
        segment = Segment.open(disk, run[index].info.name)
        if segment is None:
            raise _Damage(f"the header of {run[index].info.name} cannot be read.", path=run[index].info.name)
        successor = run[index + 1] if index + 1 < len(run) else None
        end = _End(SegmentWalk(segment))
        try:
            _read_segment(end, successor, from_lsn, on_frame)
        except OSError as error:
            segment.close()
            raise _corruption(end.walk, f"cannot be read: {error}", None) from error
        except BaseException:
            segment.close()
            raise
        if successor:
            segment.close()
    assert end is not None
    return end


def _read_segment(end: _End, successor: Segment | None, from_lsn: int, on_frame: OnFrame | None) -> None:
    walk = end.walk
    while not (successor and walk.sealed_by(successor.header)):
        frame = walk.step()
        if frame is None:
            _judge(walk, successor)
            return
        header, payload = frame
        if on_frame and header.records and walk.lsn > from_lsn:
            on_frame(header.first_lsn, header.records, payload)
        if not successor:
            end.last_payload = payload
            end.unpromised.append((header.end, walk.frame(header)))
            while end.unpromised and end.unpromised[0][0] <= walk.synced:
                end.unpromised.popleft()


def _judge(walk: SegmentWalk, successor: Segment | None) -> None:
    """There is no good frame at the end of the walk: raise if there was a durable one."""
    if successor:
        last_lsn = successor.header.base_lsn - 1
        raise _corruption(walk, "a frame before the end that the next segment names is damaged", last_lsn)
    promise = walk.later_promise()
    if promise:
        message = f"the frame there is damaged, but one at {promise.offset} says it was durable"
        raise _corruption(walk, message, promise.first_lsn - 1)


def _corruption(walk: SegmentWalk, what: str, last_lsn: int | None) -> _Damage:
    name = walk.segment.info.name
    message = f"{name} at offset {walk.offset}, LSN {walk.lsn}: {what}."
    return _Damage(message, path=name, first_lsn=walk.lsn, last_lsn=last_lsn)


def _sweep(disk: Disk, segment_bytes: int) -> list[str]:
    """Unlink what no process will use: half-made files and spares of another size. Return the spares."""
    spares: list[str] = []
    for name in sorted(disk.names()):
        if name.endswith(UNFINISHED_SUFFIX):
            disk.unlink(name)
        elif name.startswith(SPARE_PREFIX):
            file = disk.open(name)
            usable = file.size() == segment_bytes and len(spares) < SPARE_SEGMENTS_MAX
            file.close()
            if usable:
                spares.append(name)
            else:
                disk.unlink(name)
    return spares


def _open(disk: Disk, log: Log, end: _End | None, incarnation: bytes) -> None:
    """Make what was read durable and open the log behind it."""
    if end is None:
        log.open_segment(1, 0, 0)
        return
    walk = end.walk
    segment = walk.segment
    clean = end.clean and segment.header.incarnation == incarnation
    segment.file.pwrite(walk.synced, b"".join(frame for _, frame in end.unpromised))
    segment.file.fdatasync()
    if clean:
        log.resume(walk)
        return
    _keep_torn_tail(disk, walk)
    segment.close()
    number = segment.header.number
    if walk.offset == SEGMENT_HEADER_BYTES and len(log.segments) >= SEGMENTS_MIN:
        log.retire_empty()
        number -= 1
    log.open_segment(number + 1, walk.lsn, walk.chain)


def _keep_torn_tail(disk: Disk, walk: SegmentWalk) -> None:
    """Copy what follows the end, for people to look at. Best effort: a disk that is full or failing must not keep the node down."""
    with suppress(OSError):
        tail = walk.segment.file.pread(walk.offset, TORN_TAIL_KEEP_BYTES).rstrip(b"\0")
        if not tail:
            return
        kept = sorted(name for name in disk.names() if name.startswith(TORN_PREFIX))
        for name in kept[: len(kept) - TORN_TAIL_COPIES + 1]:
            disk.unlink(name)
        name = f"{TORN_PREFIX}{walk.segment.info.number:08x}-{walk.offset:08x}"
        file = disk.create(name, len(tail))
        file.pwrite(0, tail)
        file.close()
