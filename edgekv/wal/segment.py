"""One segment file: its name, how it becomes visible (rule L1), and a walk over its frames.

`wal.log` publishes segments and appends to the newest one; `wal.recovery`, `wal.reader` and `wal.salvage` walk them.
"""

import re
from typing import Final, NamedTuple

from edgekv.checksum import crc32c
from edgekv.limits import LOG_READ_BYTES, SEGMENT_HEADER_BYTES
from edgekv.wal.disk import Disk, File
from edgekv.wal.frame import (
    FRAME_HEADER_BYTES,
    FrameHeader,
    SegmentHeader,
    find_promise,
    pack_segment_header,
    unpack_frame_header,
    unpack_segment_header,
)

SPARE_PREFIX: Final = "spare-"
_NAME: Final = re.compile(r"seg-([0-9a-f]{8,})\.wal")


def segment_name(number: int) -> str:
    """By number, because a base LSN can occur twice: an empty segment, or one that holds only promises, has its successor's."""
    return f"seg-{number:08x}.wal"


def segment_number(name: str) -> int | None:
    """The inverse of `segment_name`, None for the name of anything else."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) if match else None


class SegmentInfo(NamedTuple):
    """A segment of the log, as its header has it."""

    number: int
    base_lsn: int
    name: str
    salt: int
    file_bytes: int


class Segment:
    """An open segment file and its header."""

    def __init__(self, file: File, header: SegmentHeader) -> None:
        self.file = file
        self.header = header
        self.file_bytes = file.size()
        self.info = SegmentInfo(
            header.number, header.base_lsn, segment_name(header.number), header.salt, self.file_bytes
        )

    @classmethod
    def publish(cls, disk: Disk, spare: str, header: SegmentHeader) -> "Segment":
        """Rule L1: the segment is complete and durable under the spare's name before it gets its own."""
        file = disk.open(spare)
        file.pwrite(0, pack_segment_header(header))
        file.fdatasync()
        disk.rename(spare, segment_name(header.number))
        disk.sync_directory()
        return cls(file, header)

    @classmethod
    def open(cls, disk: Disk, name: str) -> "Segment | None":
        """The segment of that name; None when its header is damaged or cannot be read. Whether the number fits is for the caller."""
        file = disk.open(name)
        try:
            header = unpack_segment_header(file.pread(0, SEGMENT_HEADER_BYTES))
        except OSError:  # a bad sector: the caller decides whether anything depends on it
            header = None
        except BaseException:
            file.close()
            raise
        if header is None:
            file.close()
            return None
        return cls(file, header)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class SegmentWalk:
    """The frames of one segment in order, read in windows of ``window_bytes``.

    ``offset``, ``lsn`` and ``chain`` are where and what the next frame has to be. ``synced`` is the promise of the last frame passed:
    what lies between it and ``offset`` was not known to be durable when it was written.
    """

    def __init__(self, segment: Segment, window_bytes: int = LOG_READ_BYTES) -> None:
        self.segment = segment
        self._window_bytes = window_bytes
        self.offset = SEGMENT_HEADER_BYTES
        self.lsn = segment.header.base_lsn
        self.chain = segment.header.chain
        self.synced = SEGMENT_HEADER_BYTES
        self._salt = segment.header.salt
        self._window = b""
        self._window_start = 0

    def step(self) -> tuple[FrameHeader, bytes] | None:
        """The next frame and its payload, or None and no movement when there is no good frame at ``offset``."""
        header = self._header(FRAME_HEADER_BYTES)
        if header is not None and header.end > self._window_start + len(self._window):
            header = self._header(
                header.end - header.offset
            )  # all of it in one read: the header that counts is the one beside it
        if header is None or header.chain != self.chain or header.first_lsn != self.lsn:
            return None
        at = header.offset - self._window_start + FRAME_HEADER_BYTES
        payload = self._window[at : at + header.payload_bytes]
        if crc32c(payload) != header.payload_crc:
            return None
        self.offset = header.end
        self.lsn += header.records
        self.chain = header.crc
        self.synced = header.synced
        return header, payload

    def frame(self, header: FrameHeader) -> bytes:
        """All bytes of the frame that `step` has just returned, as they were checked."""
        return self._window[header.offset - self._window_start : header.end - self._window_start]

    def refresh(self) -> None:
        """Forget what was read ahead: the file may have grown or been replaced since."""
        self._window = b""

    def sealed_by(self, successor: SegmentHeader) -> bool:
        """Rule L2: whether `successor` says that this segment ends here."""
        return successor.base_lsn == self.lsn and successor.chain == self.chain

    def later_promise(self) -> FrameHeader | None:
        """Rule L3: a later frame whose header says that the bad frame at ``offset`` was durable."""
        info = self.segment.info
        return find_promise(self._tail(), offset=self.offset, salt=info.salt, file_bytes=info.file_bytes)

    def salt_follows(self) -> bool:
        """Whether a frame of this use of the file may have been begun at or after ``offset``."""
        return self.segment.info.salt.to_bytes(4, "little") in self._tail()

    def _tail(self) -> bytes:
        return self.segment.file.pread(self.offset, self.segment.file_bytes - self.offset)

    def _header(self, length: int) -> FrameHeader | None:
        """The good header at ``offset``, read into the window together with what follows it, `length` bytes at least."""
        offset = self.offset
        at = offset - self._window_start
        if at < 0 or at + length > len(self._window):
            self._window = b""  # before the next one is read, so that two never exist
            self._window = self.segment.file.pread(offset, max(length, self._window_bytes))
            self._window_start, at = offset, 0
        return unpack_frame_header(self._window, at, offset=offset, salt=self._salt, file_bytes=self.segment.file_bytes)
