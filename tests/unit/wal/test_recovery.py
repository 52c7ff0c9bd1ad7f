import pytest

from edgekv.errors import Corruption, LogFailed
from edgekv.limits import SEGMENT_HEADER_BYTES, SPARE_SEGMENTS_MAX
from edgekv.wal.log import Log
from edgekv.wal.record import pack_ttl
from edgekv.wal.recovery import recover
from edgekv.wal.segment import Segment, segment_name
from tests.sim.disk import SimDisk
from tests.unit.wal.logs import (
    CHECKPOINT,
    INCARNATION,
    NODE_ID,
    SEGMENT_BYTES,
    clone,
    entropy,
    fill,
    images,
    new_disk,
    open_log,
    reopen,
)


def flip(disk: SimDisk, name: str, offset: int, mask: int = 1) -> None:
    disk.entries[name].cache[offset] ^= mask


def test_an_empty_directory_becomes_an_empty_log() -> None:
    log, frames = reopen(new_disk())
    assert frames == [] and log.next_lsn == log.durable_lsn == 0 and log.at_segment_start
    assert [segment.number for segment in log.segments] == [1]


def test_everything_written_survives_a_kill_and_a_new_segment_is_opened() -> None:
    disk = new_disk()
    written = fill(open_log(disk), 40, sync=False)
    log, frames = reopen(disk)
    assert frames == written
    assert log.at_segment_start and log.durable_lsn == log.next_lsn == written[-1][0] + 1


def test_what_recovery_delivers_survives_a_power_cut_right_after_it() -> None:
    disk = new_disk()
    written = fill(open_log(disk), 6, sync=False)
    reopen(disk)
    disk.power()
    assert reopen(disk, seed=3)[1] == written


def test_what_an_fdatasync_failed_to_write_is_written_again_by_recovery() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 6, sync=False)
    disk.arm = "eio"
    with pytest.raises(LogFailed):
        log.sync()
    reopen(disk)
    disk.power()
    assert reopen(disk, seed=3)[1] == written


def test_an_empty_last_segment_goes_back_to_the_spares_and_its_number_is_given_again_with_another_salt() -> None:
    disk = new_disk()
    fill(open_log(disk), 1)
    first = open_log(disk, seed=2)
    second = open_log(disk, seed=3)
    assert [s.number for s in second.segments] == [s.number for s in first.segments] == [1, 2]
    assert second.segments[1].salt != first.segments[1].salt
    assert sorted(disk.names()) == [segment_name(1), segment_name(2)]


def test_an_empty_segment_without_a_predecessor_stays_for_it_alone_says_where_the_log_begins() -> None:
    disk = new_disk()
    lives = [open_log(disk, seed=seed) for seed in range(1, 5)]
    assert [[s.number for s in log.segments] for log in lives] == [[1], [1, 2], [1, 2], [1, 2]]
    assert lives[0].segments[0] == lives[3].segments[0]


def test_nothing_is_written_after_a_torn_frame_that_follows_a_clean_mark() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 2)
    log.close_clean()
    again = open_log(disk)
    end = again.next_lsn
    fill(again, 1)
    inode = disk.entries["seg-00000001.wal"]
    torn = inode.cache.rindex(pack_ttl(0))
    flip(disk, "seg-00000001.wal", torn)
    log, _ = reopen(disk)
    assert log.next_lsn == end
    assert [segment.number for segment in log.segments] == [1, 2]


def test_a_new_incarnation_begins_a_new_segment_even_after_a_clean_stop() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 1)
    log.close_clean()
    assert [s.number for s in open_log(disk, incarnation=b"incarn-2").segments] == [1, 2]


def test_reading_starts_at_the_segment_of_the_applied_lsn() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 70)
    third = log.segments[2].base_lsn
    _, frames = reopen(disk, applied_lsn=third + 3)
    assert frames == [frame for frame in written if frame[0] + frame[1] > third + 3]


def test_damage_in_a_segment_that_is_applied_does_not_keep_the_node_from_starting() -> None:
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 70)
    applied = log.segments[2].base_lsn
    flip(disk, segment_name(1), SEGMENT_HEADER_BYTES + 50)
    flip(disk, segment_name(2), 20)
    again, frames = reopen(clone(disk), applied_lsn=applied)
    assert again.next_lsn == written[-1][0] + 1
    assert frames == [frame for frame in written if frame[0] >= applied]
    assert again.segments[0].number == 3
    with pytest.raises(Corruption) as caught:
        reopen(disk, applied_lsn=applied - 1)
    assert (caught.value.first_lsn, caught.value.last_lsn) == (applied - 1, applied - 1)


def test_a_hole_in_the_numbers_is_corruption_only_above_the_applied_lsn() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 70)
    applied = log.segments[3].base_lsn
    disk.unlink(segment_name(3))
    with pytest.raises(Corruption, match="segments are missing"):
        reopen(clone(disk), applied_lsn=applied - 1)
    again, _ = reopen(disk, applied_lsn=applied)
    assert again.segments[0].number == 4
    assert again.stale == [segment_name(1), segment_name(2)]


@pytest.mark.parametrize("starts", [1, 2])
def test_what_lies_before_a_hole_stays_until_the_last_commit_but_one_has_passed_it(starts: int) -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 70)
    bases = [segment.base_lsn for segment in log.segments]
    flip(disk, segment_name(3), 20)
    for _ in range(starts):
        log = open_log(disk, applied_lsn=bases[4])
    before = images(disk)
    stale = [segment_name(number) for number in (1, 2, 3)]
    assert log.stale == stale
    log.recycle(bases[3] - 1)
    assert images(disk) == before, "a power cut may take LMDB back to a place in the damaged segment"
    spares = log.spares
    log.recycle(bases[3])
    assert before.keys() - images(disk).keys() == set(stale)
    assert log.stale == [] and log.spares == spares, "a file whose header could not be read is not used again"


def test_a_header_that_can_be_read_again_fills_the_hole() -> None:
    """As when a bad sector was a bad cable. LMDB's last commit, which had passed the hole, is gone since."""
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 70)
    applied = log.segments[1].base_lsn + 3
    flip(disk, segment_name(2), 20)
    fill(open_log(disk, applied_lsn=log.durable_lsn), 1)
    flip(disk, segment_name(2), 20)
    _, frames = reopen(disk, applied_lsn=applied)
    assert frames[:-1] == [frame for frame in written if frame[0] + frame[1] > applied]


def test_the_advice_names_the_directory() -> None:
    with pytest.raises(
        Corruption, match=r"the log is gone.* `edgekv wal salvage --data-dir /data --accept-data-loss`\.$"
    ):
        recover(
            new_disk(),
            node_id=NODE_ID,
            incarnation=INCARNATION,
            applied_lsn=1,
            segment_bytes=SEGMENT_BYTES,
            entropy=entropy(),
            data_dir="/data",
        )


def test_a_log_that_ends_below_the_applied_lsn_is_corruption() -> None:
    disk = new_disk()
    fill(open_log(disk), 3)
    with pytest.raises(Corruption, match="the log ends at LSN 4, the store has applied 5") as caught:
        reopen(disk, applied_lsn=5)
    assert (caught.value.first_lsn, caught.value.last_lsn) == (4, 4)


def test_a_log_that_is_gone_is_corruption_once_something_was_applied() -> None:
    with pytest.raises(Corruption, match="segments are missing"):
        reopen(new_disk(), applied_lsn=1)


def test_corruption_changes_nothing_on_disk() -> None:
    disk = new_disk()
    fill(open_log(disk), 70)
    flip(disk, segment_name(2), SEGMENT_HEADER_BYTES + 50)
    before = images(disk)
    with pytest.raises(Corruption, match="salvage"):
        reopen(disk)
    assert images(disk) == before


def test_the_directory_of_another_node_is_refused() -> None:
    disk = new_disk()
    fill(open_log(disk), 1)
    with pytest.raises(Corruption, match="of another node"):
        recover(
            disk,
            node_id=b"x" * 16,
            incarnation=INCARNATION,
            applied_lsn=0,
            segment_bytes=SEGMENT_BYTES,
            entropy=entropy(),
        )


def test_a_segment_under_another_ones_name_is_refused_even_when_it_is_applied() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 70)
    disk.rename(segment_name(5), segment_name(2))
    disk.rename(segment_name(4), segment_name(5))
    with pytest.raises(Corruption, match="holds the header of"):
        reopen(disk, applied_lsn=log.durable_lsn)


def test_a_sector_that_cannot_be_read_is_corruption_and_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk()
    fill(open_log(disk), 3)

    def unreadable(self: object, offset: int, length: int) -> bytes:
        raise OSError(5, "Input/output error")

    original = Segment.open

    def open_then_fail(disk: SimDisk, name: str) -> Segment | None:
        segment = original(disk, name)
        if segment is not None and opened:
            monkeypatch.setattr(type(segment.file), "pread", unreadable)
        opened.append(name)
        return segment

    opened: list[str] = []
    monkeypatch.setattr(Segment, "open", open_then_fail)
    with pytest.raises(Corruption, match=r"seg-00000001.wal at offset 4096, LSN 0: cannot be read"):
        reopen(disk)


def test_a_disk_that_fails_under_a_repair_ends_the_start_and_not_the_log() -> None:
    disk = new_disk()
    written = fill(open_log(disk), 3, sync=False)
    disk.arm = "eio"
    with pytest.raises(LogFailed, match="could not be recovered"):
        reopen(disk)
    assert reopen(disk, seed=3)[1] == written


def tear_last_frame(disk: SimDisk, log: Log) -> None:
    fill(log, 1)
    log.write(pack_ttl(7), 1)
    name = log.segments[-1].name
    flip(disk, name, disk.entries[name].cache.rindex(pack_ttl(7)))


def test_of_torn_tails_the_last_two_copies_are_kept() -> None:
    disk = new_disk()
    for seed in range(4):
        tear_last_frame(disk, open_log(disk, seed=seed))
    open_log(disk, seed=9)
    copies = sorted(name for name in disk.names() if name.startswith("torn-"))
    assert [name.split("-")[1] for name in copies] == ["00000003", "00000004"]
    assert pack_ttl(7)[1:] in bytes(disk.entries[copies[1]].cache)


def test_a_full_disk_does_not_keep_the_node_from_starting_for_a_copy_of_a_torn_tail() -> None:
    disk = new_disk()
    log = open_log(disk)
    disk.create("spare-1", SEGMENT_BYTES)
    tear_last_frame(disk, log)

    def full(name: str, size: int, pause: object = None) -> None:
        raise OSError(28, "No space left on device")

    disk.create = full  # type: ignore[method-assign,assignment]
    assert open_log(disk).next_lsn == 2


def test_half_made_files_and_spares_of_another_size_are_removed_and_the_rest_is_used() -> None:
    disk = new_disk()
    disk.create("spare-1.new", 10)
    disk.create("spare-2", SEGMENT_BYTES - 8)
    for i in range(3, 5 + SPARE_SEGMENTS_MAX):
        disk.create(f"spare-{i:02}", SEGMENT_BYTES)
    log = open_log(disk)
    assert log.spares == SPARE_SEGMENTS_MAX - 1  # one became the first segment
    assert sum(name.startswith("spare-") for name in disk.names()) == log.spares
    assert "spare-1.new" not in disk.names() and "spare-2" not in disk.names()


def test_a_log_whose_segment_size_was_changed_recovers_and_goes_on_with_the_new_size() -> None:
    disk = new_disk()
    written = fill(open_log(disk), 40)
    log, frames = reopen(disk, segment_bytes=SEGMENT_BYTES * 2)
    assert frames == written
    assert [s.file_bytes for s in log.segments][-2:] == [SEGMENT_BYTES, SEGMENT_BYTES * 2]
    log.roll()
    spares = log.spares
    log.recycle(log.durable_lsn)
    assert log.spares == spares, "a segment of the old size cannot be a spare"


def test_only_what_no_promise_covers_is_written_again() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 5)
    disk.trace = []
    reopen(disk)
    rewritten = [line for line in disk.trace if line.startswith(f"write {segment_name(1)}")]
    last_frame_bytes = 48 + 8
    assert rewritten == [f"write {segment_name(1)} {4096 + 64 + 3 * 56} {last_frame_bytes}"]


def test_the_checkpoint_of_the_first_payload_is_delivered_with_it() -> None:
    disk = new_disk()
    log = open_log(disk)
    log.write(CHECKPOINT + pack_ttl(1), 2)
    assert reopen(disk)[1] == [(0, 2, CHECKPOINT + pack_ttl(1))]
