"""The end of the log in memory, and cursors that follow the log: from memory while they keep up, from its files when they do not.

`engine.commit` calls `Tail.append` for each frame that has become durable, in order, at most a few thousand times a second. Senders of
replication and watchers each hold a `LogCursor`. All cursors share the frames and their unpacked records, so a thousand readers at the
end of the log cost one copy of it, and the node does not know how many there are: a slow one holds nothing back, it only finds one day
that its place has left the memory, and reads the files, at its own expense, until it has caught up. When the files do not reach back
either (`wal.reader`), the answer is CursorLost, and its owner gets the rows another way.
"""

from bisect import bisect_right
from typing import Final

from edgekv.limits import TAIL_BYTES, TAIL_FRAME_BYTES
from edgekv.wal.reader import LogReader
from edgekv.wal.record import Record, unpack_records


class TailFrame:
    """A durable frame. Its records are unpacked when somebody first asks for them, and belong to all who do: never changed."""

    __slots__ = ("_payload", "_records", "bytes", "first_lsn")

    def __init__(self, first_lsn: int, payload: bytes) -> None:
        self.first_lsn: Final = first_lsn
        self.bytes: Final = len(payload) + TAIL_FRAME_BYTES
        self._payload = payload
        self._records: list[Record] | None = None

    @property
    def records(self) -> list[Record]:
        """The record with LSN ``first_lsn + i`` is the i-th. FormatUnknown: see `unpack_records`."""
        if self._records is None:
            self._records = unpack_records(self._payload)
            self._payload = b""  # the records hold the same bytes
        return self._records


class Tail:
    """The newest durable frames, of at most ``bytes_max`` bytes together, what they cost besides their payloads included."""

    def __init__(self, bytes_max: int = TAIL_BYTES) -> None:
        self.bytes_max = bytes_max
        self._frames: list[TailFrame] = []
        self._first = 0
        """Frames before this index were dropped; they leave the list when they are its half, so that appending stays O(1)."""
        self.bytes = 0

    def append(self, first_lsn: int, payload: bytes) -> None:
        """The next frame of the log is durable; the oldest ones go when there are too many bytes."""
        frame = TailFrame(first_lsn, payload)
        self._frames.append(frame)
        self.bytes += frame.bytes
        while self.bytes > self.bytes_max:
            self.bytes -= self._frames[self._first].bytes
            self._first += 1
        if self._first * 2 > len(self._frames):
            del self._frames[: self._first]
            self._first = 0

    def read(self, from_lsn: int, bytes_max: int | None = None) -> list[TailFrame] | None:
        """The frames from the one that holds ``from_lsn`` on; None: memory does not reach back to it.

        With ``bytes_max`` only the first of them, up to and including the one with which they have so many bytes. The first frame may
        begin below ``from_lsn``, and may end below it when nothing has followed yet.
        """
        at = bisect_right(self._frames, from_lsn, lo=self._first, key=_first_lsn) - 1
        if at < self._first:
            return None
        if bytes_max is None:
            return self._frames[at:]
        end, size = at, 0
        while end < len(self._frames) and (end == at or size < bytes_max):
            size += self._frames[end].bytes
            end += 1
        return self._frames[at:end]


class LogCursor:
    """A place in the log that moves forward with `read`. ``reader`` is its own; close the cursor to close that."""

    def __init__(self, tail: Tail, reader: LogReader, lsn: int) -> None:
        self._tail: Final = tail
        self._reader: Final = reader
        self.lsn = lsn
        """Of the next record that `read` returns."""

    def read(self, durable_lsn: int, bytes_max: int) -> list[tuple[int, Record]]:
        """(LSN, record) of what follows below ``durable_lsn`` (see `Commit.durable_lsn`), and go on behind it; nothing at its end.

        Whole frames, up to and including the one with which they have ``bytes_max`` bytes. From the files it blocks for
        as long as their disk takes. CursorLost: the log no longer reaches back to ``lsn``. Corruption, FormatUnknown: as the log's
        reader. The cursor has not moved then.
        """
        if self.lsn >= durable_lsn:
            return []
        frames = self._tail.read(self.lsn, bytes_max)
        if frames is None:
            return self.read_files(durable_lsn, bytes_max)
        self._reader.close()  # its place would fall behind and be recycled, while the log has ours
        return self._taken(frames, durable_lsn)

    def lags(self, durable_lsn: int) -> bool:
        """Whether the next `read` has to read files."""
        return self.lsn < durable_lsn and self._tail.read(self.lsn, 1) is None

    def read_files(self, durable_lsn: int, bytes_max: int) -> list[tuple[int, Record]]:
        """As `read`, never from memory: it touches nothing that is shared, so a thread may do it while the log goes on."""
        frames: list[TailFrame] = []
        size = 0
        for first_lsn, _, payload in self._reader.read(self.lsn, durable_lsn):
            frames.append(TailFrame(first_lsn, payload))
            size += frames[-1].bytes
            if size >= bytes_max:
                break
        return self._taken(frames, durable_lsn)

    def _taken(self, frames: list[TailFrame], durable_lsn: int) -> list[tuple[int, Record]]:
        found = [
            (lsn, record)
            for frame in frames
            for lsn, record in enumerate(frame.records, frame.first_lsn)
            if self.lsn <= lsn < durable_lsn
        ]
        if found:
            self.lsn = found[-1][0] + 1
        return found

    def close(self) -> None:
        """Close what the reader has open. The cursor stays usable."""
        self._reader.close()


def _first_lsn(frame: TailFrame) -> int:
    return frame.first_lsn
