"""The end of the log in memory, and cursors over it and over the files: whatever the path, every record once and in order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.engine.tail import LogCursor, Tail
from edgekv.errors import CursorLost
from edgekv.limits import TAIL_FRAME_BYTES
from edgekv.wal.log import Log
from edgekv.wal.reader import LogReader
from edgekv.wal.record import TTL, Mark, Record, pack_ttl, unpack_records
from tests.unit.engine.test_commit import Bench
from tests.unit.wal.logs import Frames, fill, new_disk, open_log

PAYLOAD = pack_ttl(1)
ROOM = len(PAYLOAD) + TAIL_FRAME_BYTES


def records_of(frames: Frames) -> list[tuple[int, Record]]:
    return [(lsn, record) for first, _, payload in frames for lsn, record in enumerate(unpack_records(payload), first)]


def feed(tail: Tail, frames: Frames) -> None:
    for first_lsn, _, payload in frames:
        tail.append(first_lsn, payload)


class Followed:
    """A log on a simulated disk whose tail has room for a few frames."""

    def __init__(self, frames_in_memory: int) -> None:
        self.disk = new_disk()
        self.log: Log = open_log(self.disk)
        self.tail = Tail(frames_in_memory * ROOM)
        self.written: Frames = []

    def write(self, count: int) -> None:
        frames = fill(self.log, count, start=len(self.written))
        feed(self.tail, frames)
        self.written += frames

    def cursor(self, lsn: int = 0) -> LogCursor:
        return LogCursor(self.tail, LogReader(self.disk), lsn)


def test_only_the_newest_frames_that_have_room_are_kept() -> None:
    tail = Tail(3 * ROOM)
    for lsn in range(100):
        tail.append(lsn, PAYLOAD)
        assert tail.bytes <= 3 * ROOM
    assert tail.read(96) is None
    assert [frame.first_lsn for frame in tail.read(97) or []] == [97, 98, 99]


def test_a_frame_larger_than_all_the_room_is_not_kept_and_those_after_it_are() -> None:
    tail = Tail(3 * ROOM)
    tail.append(0, PAYLOAD)
    tail.append(1, bytes(4 * ROOM))
    assert tail.read(0) is None and tail.read(1) is None and tail.bytes == 0
    tail.append(2, PAYLOAD)
    assert [frame.first_lsn for frame in tail.read(2) or []] == [2]


def test_a_place_inside_a_frame_gets_the_whole_frame() -> None:
    tail = Tail()
    tail.append(5, PAYLOAD * 3)
    tail.append(8, PAYLOAD)
    assert [frame.first_lsn for frame in tail.read(7) or []] == [5, 8]
    assert [frame.first_lsn for frame in tail.read(7, 1) or []] == [5]


def test_records_are_unpacked_once_and_shared_by_all_who_follow() -> None:
    followed = Followed(10)
    followed.write(2)
    one, other = followed.cursor(0), followed.cursor(0)
    pairs = zip(one.read(followed.log.durable_lsn, 1 << 20), other.read(followed.log.durable_lsn, 1 << 20), strict=True)
    assert all(a is b for (_, a), (_, b) in pairs)


def test_a_cursor_at_the_end_reads_memory_only() -> None:
    followed = Followed(10)
    followed.write(1)
    cursor = followed.cursor(followed.log.durable_lsn)
    followed.disk.entries.clear()
    followed.tail.append(followed.log.durable_lsn, pack_ttl(7))
    assert cursor.read(followed.log.durable_lsn + 1, 1 << 20) == [(followed.log.durable_lsn, Mark(TTL, 7))]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(1, 4 * ROOM)), max_size=12),
    frames_in_memory=st.integers(0, 6),
)
def test_every_record_is_read_once_and_in_order_whether_from_memory_or_from_the_files(
    steps: list[tuple[int, int, int]], frames_in_memory: int
) -> None:
    """A writer and a reader at changing speeds: the reader falls out of memory and comes back, across segments."""
    followed = Followed(frames_in_memory)
    cursor = followed.cursor()
    seen: list[tuple[int, Record]] = []
    for writes, reads, bytes_max in steps:
        followed.write(writes)
        for _ in range(reads):
            seen += cursor.read(followed.log.durable_lsn, bytes_max)
    while more := cursor.read(followed.log.durable_lsn, 1):
        seen += more
    assert seen == records_of(followed.written)


def test_a_read_ends_with_the_frame_that_has_the_bytes_asked_for() -> None:
    for frames_in_memory in (0, 100):
        followed = Followed(frames_in_memory)
        followed.write(6)
        cursor = followed.cursor(2)
        assert [lsn for lsn, _ in cursor.read(followed.log.durable_lsn, 2 * ROOM)] == [2, 3]
        assert cursor.lsn == 4


def test_what_is_not_durable_is_not_read() -> None:
    followed = Followed(10)
    followed.write(3)
    assert [lsn for lsn, _ in followed.cursor().read(2, 1 << 20)] == [0, 1]


def test_a_cursor_that_the_log_no_longer_reaches_is_lost_and_stays_where_it_was() -> None:
    followed = Followed(1)
    followed.write(60)
    followed.log.recycle(followed.log.durable_lsn)
    cursor = followed.cursor(5)
    for _ in range(2):
        with pytest.raises(CursorLost):
            cursor.read(followed.log.durable_lsn, 1 << 20)
    assert cursor.lsn == 5


def test_a_cursor_that_read_files_then_memory_is_not_lost_when_the_files_of_its_old_place_are_recycled() -> None:
    """Its reader stood in a segment that has other content now; where the cursor stands, the log is complete."""
    followed = Followed(8)
    followed.write(12)
    cursor = followed.cursor()
    seen = cursor.read(followed.log.durable_lsn, 1)  # from the files
    while more := cursor.read(followed.log.durable_lsn, 1 << 20):  # the last of it from memory
        seen += more
    for _ in range(10):
        followed.write(4)
        seen += cursor.read(followed.log.durable_lsn, 1 << 20)
    followed.log.recycle(cursor.lsn)
    followed.write(30)
    while more := cursor.read(followed.log.durable_lsn, 1 << 20):
        seen += more
    assert seen == records_of(followed.written)


def test_the_tail_gets_each_frame_when_it_is_durable_and_not_when_it_is_only_written() -> None:
    bench = Bench()
    tail = Tail()
    bench.commit.on_durable = tail.append
    bench.put(bench.buffered, (b"fast/k", b"v"))
    bench.commit.kick()
    bench.finish()
    assert tail.bytes == 0
    bench.put(bench.fsync, (b"k", b"v"))
    bench.commit.kick()
    bench.finish()
    frames = tail.read(0)
    assert frames is not None
    assert [frame.first_lsn for frame in frames] == [0, 2]  # the first has the segment's checkpoint before its run
    assert [record for frame in frames for record in frame.records] == [
        record for written in bench.flushes for record in unpack_records(written.payload)
    ]
