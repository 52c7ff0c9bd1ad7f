"""Reading the log behind its writer, from any process: the applier now, senders and watchers later.

A `LogReader` is a cursor. It reads only what the writer has called durable, so every frame it asks for is there and good, and anything
else is an answer: `CursorLost` when the segment was recycled (it carries another salt now) and the reader has to get the rows another
way, `Corruption` when a durable frame is damaged. It writes nothing and takes no lock.
"""

from collections.abc import Iterator

from edgekv.errors import Corruption, CursorLost
from edgekv.limits import LOG_READ_BYTES, SEGMENT_HEADER_BYTES
from edgekv.wal.disk import Disk
from edgekv.wal.frame import unpack_segment_header
from edgekv.wal.record import CHECKPOINT, Checkpoint, Mark, unpack_records
from edgekv.wal.segment import Segment, SegmentWalk, segment_name, segment_number


class LogReader:
    """A cursor over the frames of a log. Keeps its place between calls of `read`; one thread at a time."""

    def __init__(self, disk: Disk, window_bytes: int = LOG_READ_BYTES) -> None:
        """``window_bytes``: how much of a file it keeps in memory."""
        self._disk = disk
        self._window_bytes = window_bytes
        self._walk: SegmentWalk | None = None

    def read(self, from_lsn: int, durable_lsn: int) -> Iterator[tuple[int, int, bytes]]:
        """(first LSN, records, payload) of the frames with records in [from_lsn, durable_lsn), in order.

        The first frame may begin below `from_lsn`. `durable_lsn` is one that the writer has reported. To go on, ask from the end of
        the last frame taken: that costs no search. Raises CursorLost, Corruption.
        """
        walk = self._seek(from_lsn)
        walk.refresh()
        while walk.lsn < durable_lsn:
            frame = walk.step()
            if frame is None:
                walk = self._next_segment(walk)
                continue
            header, payload = frame
            if header.records and walk.lsn > from_lsn:
                yield header.first_lsn, header.records, payload

    def close(self) -> None:
        """Close the file. The next `read` searches its place again."""
        if self._walk is not None:
            self._walk.segment.close()
            self._walk = None

    def _seek(self, from_lsn: int) -> SegmentWalk:
        """The present walk if it has not passed `from_lsn`, else one from the start of the segment that holds it."""
        if self._walk is not None and self._walk.lsn <= from_lsn:
            return self._walk
        self.close()
        for number in _numbers(self._disk):
            segment = _open(self._disk, number)
            if segment is None:
                continue
            if segment.header.base_lsn <= from_lsn:
                self._walk = SegmentWalk(segment, self._window_bytes)
                return self._walk
            segment.close()
        raise CursorLost(f"the log no longer holds LSN {from_lsn}. Synchronise the rows instead.")

    def _next_segment(self, walk: SegmentWalk) -> SegmentWalk:
        """There is no frame where one must be: it is in the next segment, or this one was recycled, or it is damaged."""
        info = walk.segment.info
        successor = _open(self._disk, info.number + 1)
        if successor is not None and walk.sealed_by(successor.header):
            self.close()
            self._walk = SegmentWalk(successor, self._window_bytes)
            return self._walk
        if successor is not None:
            successor.close()
        recycled = unpack_segment_header(walk.segment.file.pread(0, SEGMENT_HEADER_BYTES)) != walk.segment.header
        self.close()
        if recycled:
            raise CursorLost(
                f"{info.name} was recycled under a reader at LSN {walk.lsn}. Synchronise the rows instead."
            )
        raise Corruption(
            f"{info.name} at offset {walk.offset}, LSN {walk.lsn}: a durable frame is damaged.",
            path=info.name,
            first_lsn=walk.lsn,
        )


def checkpoints(disk: Disk) -> Iterator[tuple[int, Checkpoint]]:
    """(base LSN, what the log before it amounts to) of each segment, the newest first. One that is being recycled is left out.

    Where somebody who holds a vector may begin to read: at the newest one whose vectors it covers.
    """
    for number in _numbers(disk):
        segment = _open(disk, number)
        if segment is None:
            continue
        try:
            frame = SegmentWalk(segment, SEGMENT_HEADER_BYTES).step()
        finally:
            segment.close()
        first = None if frame is None else next(iter(unpack_records(frame[1])), None)
        if isinstance(first, Mark) and first.kind == CHECKPOINT:
            yield segment.header.base_lsn, first.value


def _numbers(disk: Disk) -> list[int]:
    """Of the segments, the newest first."""
    return sorted((number for name in disk.names() if (number := segment_number(name)) is not None), reverse=True)


def _open(disk: Disk, number: int) -> Segment | None:
    """The segment, None when it is recycled: then or just now there is no such name, or another segment's header under it."""
    try:
        segment = Segment.open(disk, segment_name(number))
    except FileNotFoundError:
        return None
    if segment is not None and segment.header.number != number:
        segment.close()
        return None
    return segment
