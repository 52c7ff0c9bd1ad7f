import errno
from collections.abc import Callable

import pytest

from edgekv.errors import LogFailed
from edgekv.limits import SPARE_SEGMENTS_MAX
from edgekv.wal.log import Log
from edgekv.wal.record import CLEAN_RECORD, pack_ttl
from tests.sim.disk import SimDisk
from tests.unit.wal.logs import CHECKPOINT, SEGMENT_BYTES, fill, new_disk, open_log, reopen


def test_a_frame_is_one_write_and_is_durable_after_one_fdatasync() -> None:
    disk = new_disk()
    log = open_log(disk)
    disk.trace = []
    assert log.write(CHECKPOINT + pack_ttl(1), 2) == 0
    assert (log.next_lsn, log.durable_lsn) == (2, 0)
    log.sync()
    assert log.durable_lsn == 2
    assert [line.split()[0] for line in disk.trace] == ["write", "fdatasync"]


def test_a_sync_with_nothing_written_does_not_touch_the_disk() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 1)
    disk.trace = []
    log.sync()
    assert disk.trace == []


def test_a_segment_wants_a_checkpoint_until_it_holds_a_record() -> None:
    log = open_log(new_disk())
    wants = [log.at_segment_start]
    for step in (lambda: log.write(b"", 0), lambda: log.write(CHECKPOINT, 1), log.roll):
        step()
        wants.append(log.at_segment_start)
    assert wants == [True, True, False, True]


def test_room_is_the_largest_payload_and_leaves_an_idle_promise_its_place() -> None:
    log = open_log(new_disk())
    room = log.room_bytes
    assert log.room(room) and not log.room(room + 1)
    log.write(bytes(room), 1)
    log.sync()
    assert not log.room(0)
    assert log.write_promise()


def test_a_successor_exists_only_after_its_predecessor_is_durable() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 1, sync=False)
    disk.trace = []
    log.roll()
    assert disk.trace[0].startswith("fdatasync")  # the file that is active, under the name it was opened by
    assert any(line.startswith("rename") for line in disk.trace[1:])
    assert log.durable_lsn == log.next_lsn == 2


def test_the_idle_promise_is_written_once_for_what_is_durable() -> None:
    log = open_log(new_disk())
    assert not log.write_promise()
    fill(log, 1, sync=False)
    assert not log.write_promise()
    log.sync()
    assert log.write_promise()
    log.sync()
    assert not log.write_promise()


def test_damage_to_the_last_record_is_told_from_a_torn_tail_by_the_idle_promise() -> None:
    disk = new_disk()
    log = open_log(disk)
    [(_, _, payload)] = fill(log, 1)
    log.write_promise()
    inode = disk.entries["seg-00000001.wal"]
    inode.cache[inode.cache.index(payload)] ^= 1
    with pytest.raises(Exception, match="says it was durable"):
        reopen(disk)


def fail_write(log: Log, disk: SimDisk) -> None:
    disk.arm = "enospc"
    log.write(pack_ttl(1), 1)


def fail_sync(log: Log, disk: SimDisk) -> None:
    log.write(pack_ttl(1), 1)
    disk.arm = "eio"
    log.sync()


def fail_roll_full(log: Log, disk: SimDisk) -> None:
    disk.arm = "enospc"
    log.roll()


def fail_roll_directory(log: Log, disk: SimDisk) -> None:
    disk.arm = "eio-directory"
    log.roll()


def fail_recycle(log: Log, disk: SimDisk) -> None:
    disk.arm = "eio-directory"
    log.recycle(log.durable_lsn)


@pytest.mark.parametrize("fail", [fail_write, fail_sync, fail_roll_full, fail_roll_directory, fail_recycle])
def test_after_any_failure_of_the_disk_nothing_is_written_or_acknowledged_any_more(
    fail: Callable[[Log, SimDisk], None],
) -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 60)
    durable = log.durable_lsn
    with pytest.raises(LogFailed, match="failed"):
        fail(log, disk)
    assert log.failed
    disk.trace = []
    calls: list[Callable[[], object]] = [
        lambda: log.write(b"", 0),
        log.sync,
        log.write_promise,
        log.roll,
        log.close_clean,
        lambda: log.recycle(durable),
    ]
    for call in calls:
        with pytest.raises(LogFailed):
            call()
    assert disk.trace == [] and log.durable_lsn == durable


def test_a_latched_log_says_what_failed() -> None:
    disk = new_disk()
    log = open_log(disk)
    disk.arm = "enospc"
    with pytest.raises(LogFailed, match=r"a write to the log failed: No space left .*start it again") as caught:
        log.write(CHECKPOINT, 1)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    assert caught.value.outcome == "unknown"


def test_recycling_takes_the_oldest_applied_segments_and_leaves_two() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 70)
    bases = [segment.base_lsn for segment in log.segments]
    assert len(bases) >= 5
    assert log.recycle(bases[1] - 1) == 0
    assert log.recycle(bases[2]) == 2
    assert [segment.base_lsn for segment in log.segments] == bases[2:]
    log.recycle(log.durable_lsn)
    assert [segment.base_lsn for segment in log.segments] == bases[-2:]


def test_a_recycled_segment_is_the_next_one_to_be_used_and_none_of_its_frames_are_seen_again() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 40)
    while log.spares:
        log.roll()
        fill(log, 1)
    kept = log.segments[-2].base_lsn
    recycled = log.recycle(log.durable_lsn)
    assert log.spares == recycled > 0
    files = len(disk.names())
    written = fill(log, 15, start=1000)
    assert len(disk.names()) == files
    _, frames = reopen(disk, applied_lsn=kept)
    assert [frame for frame in frames if frame[0] >= written[0][0]] == written


def test_what_is_retained_for_readers_is_not_recycled() -> None:
    log = open_log(new_disk())
    fill(log, 70)
    log.recycle(log.durable_lsn, retain_bytes=3 * SEGMENT_BYTES)
    assert len(log.segments) == 3


def test_surplus_segments_are_removed() -> None:
    disk = new_disk()
    log = open_log(disk)
    for i in range(SPARE_SEGMENTS_MAX):
        name = f"spare-{i}"
        disk.create(name, SEGMENT_BYTES)
        log.add_spare(name)
    active = {segment.name for segment in log.segments}
    for _ in range(2):
        log.roll()
    fill(log, 1)
    while log.spares < SPARE_SEGMENTS_MAX:
        disk.create(name := f"spare-more-{log.spares}", SEGMENT_BYTES)
        log.add_spare(name)
    assert log.recycle(log.durable_lsn) == 1
    assert log.spares == SPARE_SEGMENTS_MAX
    assert not active & set(disk.names())


def test_a_clean_stop_promises_everything_and_the_next_start_goes_on_in_the_same_segment() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 3, sync=False)
    log.close_clean()
    again, frames = reopen(disk)
    assert frames == [*written, (4, 1, CLEAN_RECORD)]
    assert len(again.segments) == 1 and not again.at_segment_start
    assert (again.next_lsn, again.durable_lsn) == (5, 5)
    more = fill(again, 2)
    _, frames = reopen(disk)
    assert frames[-2:] == more


def test_what_the_log_takes_from_a_record_on_counts_whole_segments() -> None:
    log = open_log(new_disk())
    bases = []
    for _ in range(3):
        bases.append(log.segments[-1].base_lsn)
        fill(log, 3)
        log.roll()
    size = [log.bytes_from(lsn) // SEGMENT_BYTES for lsn in (0, bases[1] - 1, bases[1], bases[2], log.next_lsn + 9)]
    assert size == [4, 4, 3, 2, 1]
