import pytest

from edgekv.errors import Corruption, CursorLost
from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal.reader import LogReader
from edgekv.wal.record import pack_ttl
from edgekv.wal.segment import segment_name
from tests.unit.wal.logs import Frames, fill, new_disk, open_log


def test_a_reader_sees_every_durable_frame_of_every_segment_in_order() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 60)
    assert len(log.segments) > 3
    assert list(LogReader(disk).read(0, log.durable_lsn)) == written


def test_a_reader_follows_a_growing_log_from_where_it_stopped() -> None:
    disk = new_disk()
    log = open_log(disk)
    reader = LogReader(disk)
    seen: Frames = []
    written: Frames = []
    for i in range(60):
        written += fill(log, 1, start=i)
        seen += reader.read(len(seen) and seen[-1][0] + seen[-1][1], log.durable_lsn)
    assert seen == written


def test_nothing_that_is_not_durable_yet_is_read() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 3)
    fill(log, 3, sync=False)
    assert list(LogReader(disk).read(0, log.durable_lsn)) == written


def test_reading_may_begin_in_the_middle_of_a_frame_and_gets_all_of_it() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 1)
    log.write(pack_ttl(8) + pack_ttl(9), 2)
    log.sync()
    assert list(LogReader(disk).read(3, 4)) == [(2, 2, pack_ttl(8) + pack_ttl(9))]


def test_promises_are_passed_over() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 1)
    log.write_promise()
    written += fill(log, 1)
    assert list(LogReader(disk).read(0, log.durable_lsn)) == written


def test_a_reader_can_go_back() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 40)
    reader = LogReader(disk)
    assert list(reader.read(0, log.durable_lsn)) == list(reader.read(0, log.durable_lsn)) == written


def test_a_place_in_a_recycled_segment_is_lost_and_not_corrupt() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 60)
    reader = LogReader(disk)
    frames = reader.read(0, log.durable_lsn)
    assert next(frames) == written[0]
    reader_at = written[0][0] + written[0][1]
    log.recycle(log.durable_lsn)
    fill(log, 40)  # the files are in use again under their new salts
    with pytest.raises(CursorLost):
        list(reader.read(reader_at, log.durable_lsn))
    with pytest.raises(CursorLost, match="no longer holds LSN 0"):
        list(LogReader(disk).read(0, log.durable_lsn))


def test_a_damaged_durable_frame_is_corruption_with_its_place() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 3)
    disk.entries[segment_name(1)].cache[SEGMENT_HEADER_BYTES + 70] ^= 1
    frames = LogReader(disk).read(0, log.durable_lsn)
    assert next(frames) == written[0]
    with pytest.raises(Corruption, match=r"seg-00000001.wal at offset 4160, LSN 2") as caught:
        next(frames)
    assert caught.value.first_lsn == 2


def test_an_empty_segment_before_the_place_does_not_hide_it() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 1)
    log.roll()
    log.write_promise()
    log.roll()
    written = fill(log, 1, start=5)
    assert list(LogReader(disk).read(2, log.durable_lsn)) == written
