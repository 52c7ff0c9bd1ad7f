"""The write side of the log: frames into the active segment, fdatasync, roll, recycle.

The rules L1 to L9 are those of docs/ARCHITECTURE.md; here L1 L2 L4 L5 L7 L8 L9 are kept.

`wal.recovery` makes a `Log`; from then on one thread, the flusher of `wal.group_commit`, calls it (the simulator calls the same code
inline). It reads no clock, starts no thread and rolls no die: entropy is injected. `add_spare`, `spares` and the LSNs may be used from
other threads.

The position in the log is (segment, offset, next LSN, chain). What is below `_synced` in the active segment and below `durable_lsn` is
known to be durable; nothing else may be acknowledged, shipped, applied or named (L9).

After any OSError the log is latched (L8): every later call raises LogFailed. Which bytes reached the disk is then unknown until a
recovery has written them again, so there is no way back for this process.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from edgekv.errors import LogFailed
from edgekv.ids import Lsn
from edgekv.limits import PROMISE_ROOM_BYTES, SEGMENT_HEADER_BYTES, SPARE_SEGMENTS_MAX
from edgekv.wal.disk import Disk
from edgekv.wal.frame import FRAME_HEADER_BYTES, PADDING, SegmentHeader, frame_bytes, pack_frame_header
from edgekv.wal.record import CLEAN_RECORD
from edgekv.wal.segment import SPARE_PREFIX, Segment, SegmentInfo, SegmentWalk

SEGMENTS_MIN: Final = 2
"""Never recycled, whatever was applied: the active segment and the one before it."""


class Log:
    """The log of one node, open for appending. `resume` or `open_segment` comes first; `wal.recovery` decides which."""

    next_lsn: Lsn
    """LSN of the next record."""
    durable_lsn: Lsn
    """Records below it are durable."""

    # The position in the active segment. _promised <= _synced <= _offset, all of them frame boundaries.
    _active: Segment
    _offset: int  # of the next frame
    _synced: int  # everything below is durable
    _promised: int  # what the last frame says about _synced
    _records_end: int  # end of the last frame that holds records
    _chain: int  # header CRC of the last frame

    def __init__(
        self,
        disk: Disk,
        *,
        node_id: bytes,
        incarnation: bytes,
        segment_bytes: int,
        entropy: Callable[[int], bytes],
        segments: Sequence[SegmentInfo],
        spares: Sequence[str],
        stale: Sequence[str] = (),
    ) -> None:
        self._disk = disk
        self._node_id = node_id
        self._incarnation = incarnation
        self._segment_bytes = segment_bytes
        self._entropy = entropy
        self._segments = list(segments)
        self._spares = list(spares)
        self._stale = list(stale)
        self._failure = ""

    # Where the log is.

    @property
    def segments(self) -> list[SegmentInfo]:
        """Oldest first; the last one is active."""
        return list(self._segments)

    @property
    def stale(self) -> list[str]:
        """Segment files before a damaged header or a missing segment. Nobody reads them; `recycle` removes them."""
        return list(self._stale)

    @property
    def spares(self) -> int:
        """Zeroed or recycled files that are ready to become segments. From any thread."""
        return len(self._spares)

    @property
    def failed(self) -> bool:
        """Whether the log is latched."""
        return bool(self._failure)

    @property
    def at_segment_start(self) -> bool:
        """No record is in the active segment yet: the next payload must begin with a CHECKPOINT mark."""
        return self.next_lsn == self._active.header.base_lsn

    @property
    def room_bytes(self) -> int:
        """The largest payload that the active segment takes, the room for an idle promise left aside. May be negative."""
        return self._active.file_bytes - self._offset - FRAME_HEADER_BYTES - PROMISE_ROOM_BYTES

    def room(self, payload_bytes: int) -> bool:
        """Whether a payload fits into the active segment; `roll` when it does not."""
        return payload_bytes <= self.room_bytes

    def bytes_from(self, lsn: int) -> int:
        """Of the segments that hold records from an LSN on. From any thread."""
        segments = list(self._segments)
        bases = [segment.base_lsn for segment in segments[1:]]
        return sum(segment.file_bytes for segment in segments[bisect_right(bases, lsn) :])

    # Writing.

    def write(self, payload: bytes, records: int) -> Lsn:
        """Append one frame and return its first LSN. Not durable before `sync`. The payload fits: see `room`."""
        self._check()
        offset, size = self._offset, frame_bytes(len(payload))
        assert offset + size <= self._active.file_bytes, "the caller asks room() first"
        salt = self._active.header.salt
        header, crc = pack_frame_header(payload, records, self.next_lsn, offset, self._synced, salt, self._chain)
        try:
            self._active.file.pwrite(offset, header, payload, PADDING[len(payload) % len(PADDING)])
        except OSError as error:
            raise self._latch("a write to the log", error) from error
        first_lsn = self.next_lsn
        self._promised, self._chain = self._synced, crc
        self._offset = offset + size
        if records:
            self._records_end = self._offset
        self.next_lsn = Lsn(first_lsn + records)
        return first_lsn

    def sync(self) -> None:
        """Everything written is durable on return."""
        self._check()
        if self._synced < self._offset:
            try:
                self._active.file.fdatasync()
            except OSError as error:
                raise self._latch("fdatasync of the log", error) from error
        self._synced, self.durable_lsn = self._offset, self.next_lsn

    def write_promise(self) -> bool:
        """When the log goes idle: a frame without records that promises all before it, so damage there is not taken for a torn tail.

        False, and nothing is written, when the last records have their promise already or are not durable yet. Needs no sync.
        """
        self._check()
        if not self._promised < self._records_end <= self._synced:
            return False
        if self._offset + FRAME_HEADER_BYTES > self._active.file_bytes:
            return False
        self.write(b"", 0)
        return True

    def roll(self) -> None:
        """Seal the active segment and open the next; `at_segment_start` is then true.

        The successor's header is the seal, so what it seals must be durable before it exists (L2).
        """
        self._check()
        self.sync()
        sealed = self._active
        self.open_segment(sealed.header.number + 1, self.next_lsn, self._chain)
        sealed.close()

    def close_clean(self, payload: bytes = CLEAN_RECORD, records: int = 1) -> None:
        """Stop with everything durable: the payload, which fits, ends with the CLEAN mark, and its frame promises all before it.

        A start after it goes on in the same segment.
        """
        self.sync()
        self.write(payload, records)
        self.sync()
        self._active.close()

    def close(self) -> None:
        """Give the file back without a clean mark; the next start recovers."""
        self._active.close()

    # Segments and spares.

    def add_spare(self, name: str) -> None:
        """Take a zeroed file into use. From any thread."""
        self._spares.append(name)

    def recycle(self, below_lsn: int, retain_bytes: int = 0) -> int:
        """Give segments that hold only records below `below_lsn` back to the spares, oldest first; the number given back (L7).

        `below_lsn` is the applied LSN of LMDB's last commit BUT ONE (with metasync=False a power cut may take the last one), or less
        when somebody still reads below it. The newest `retain_bytes` of the log stay for those who may come later.

        What lies before a hole goes as soon as all of the hole is below `below_lsn`. Not earlier: when a power cut takes LMDB back
        into the hole, those files are what a salvage, or a second try to read the damaged header, works with.
        """
        self._check()
        if self._stale and self._segments[0].base_lsn <= below_lsn:
            self._remove_stale()
        recycled = 0
        retained = sum(segment.file_bytes for segment in self._segments)
        while len(self._segments) > SEGMENTS_MIN and self._segments[1].base_lsn <= below_lsn:
            retained -= self._segments[0].file_bytes
            if retained < retain_bytes:
                break
            self._retire(self._segments.pop(0))
            recycled += 1
        return recycled

    def retire_empty(self) -> None:
        """The last segment holds no frame and goes back to the spares; the next one gets its number and another salt (L5).

        Never the only one: what it says about where the log begins would be gone until the next one is opened, and after a crash in
        between for ever.
        """
        self._check()
        assert len(self._segments) >= SEGMENTS_MIN, "a log without its only segment does not say where it begins"
        self._retire(self._segments.pop())

    def open_segment(self, number: int, base_lsn: int, chain: int) -> None:
        """Open a segment and make it the active one. All that it seals is durable. The state changes last."""
        self._check()
        header = SegmentHeader(self._node_id, self._incarnation, number, base_lsn, self._new_salt(), chain)
        try:
            segment = Segment.publish(self._disk, self._take_spare(), header)
        except OSError as error:
            raise self._latch("opening a log segment", error) from error
        self._segments.append(segment.info)
        self._become(segment, SEGMENT_HEADER_BYTES, Lsn(base_lsn), chain)

    def resume(self, walk: SegmentWalk) -> None:
        """Go on where a clean stop left the log: `walk` is at the end of the last segment, and all before it is durable."""
        self._become(walk.segment, walk.offset, Lsn(walk.lsn), walk.chain)

    def _become(self, segment: Segment, offset: int, lsn: Lsn, chain: int) -> None:
        self._active = segment
        self._offset = self._synced = self._promised = self._records_end = offset
        self._chain = chain
        self.next_lsn = self.durable_lsn = lsn

    def _retire(self, segment: SegmentInfo) -> None:
        surplus = len(self._spares) >= SPARE_SEGMENTS_MAX or segment.file_bytes != self._segment_bytes
        spare = self._spare_name()
        try:
            if surplus:
                self._disk.unlink(segment.name)
            else:
                self._disk.rename(segment.name, spare)
            self._disk.sync_directory()  # before the file is used again: see L7
        except OSError as error:
            raise self._latch("recycling a log segment", error) from error
        if not surplus:
            self._spares.append(spare)

    def _remove_stale(self) -> None:
        """Unlinked, never used again: a file whose header could not be read may lie on a bad sector."""
        try:
            for name in self._stale:
                self._disk.unlink(name)
            self._disk.sync_directory()
        except OSError as error:
            raise self._latch("removing old log segments", error) from error
        self._stale.clear()

    def _take_spare(self) -> str:
        if self._spares:
            return self._spares.pop(0)
        name = self._spare_name()
        self._disk.create(name, self._segment_bytes).close()
        return name

    def _spare_name(self) -> str:
        return SPARE_PREFIX + self._entropy(8).hex()

    def _new_salt(self) -> int:
        while not (salt := int.from_bytes(self._entropy(4), "little")):
            pass
        return salt

    # The latch.

    def _check(self) -> None:
        if self._failure:
            raise LogFailed(self._failure)

    def _latch(self, what: str, error: OSError) -> LogFailed:
        self._failure = (
            f"{what} failed: {error.strerror or error}. Writes that were under way may or may not be stored; "
            "the node stops. Look after the disk, then start it again."
        )
        return LogFailed(self._failure)
