import pytest

from edgekv.errors import Corruption, InvalidRequest
from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal.salvage import inspect, salvage
from edgekv.wal.segment import segment_name
from tests.sim.disk import SimDisk
from tests.unit.wal.logs import Frames, entropy, fill, images, new_disk, open_log, reopen


def log_of_five_segments() -> tuple[SimDisk, Frames, list[int]]:
    """A disk, what was written, and the base LSNs."""
    disk = new_disk()
    log = open_log(disk)
    written = fill(log, 70)
    log.write_promise()
    bases = [segment.base_lsn for segment in log.segments]
    assert len(bases) == 5
    return disk, written, bases


def damage(disk: SimDisk, number: int, offset: int = SEGMENT_HEADER_BYTES + 20) -> None:
    disk.entries[segment_name(number)].cache[offset] ^= 1


def do_salvage(disk: SimDisk, applied_lsn: int = 0, *, accept: bool = True) -> tuple[int | None, int | None, list[str]]:
    return salvage(disk, applied_lsn=applied_lsn, incarnation=b"incarn-2", entropy=entropy(7), accept_data_loss=accept)


def test_inspection_counts_what_is_there_and_changes_nothing() -> None:
    disk, written, bases = log_of_five_segments()
    before = images(disk)
    found = inspect(disk)
    assert images(disk) == before and not found.damage
    assert [report.end_lsn for report in found.segments] == [*bases[1:], written[-1][0] + 1]
    assert sum(report.records for report in found.segments) == written[-1][0] + 1
    assert sum(report.frames - report.promises for report in found.segments) == len(written)
    assert sum(report.payload_bytes for report in found.segments) == sum(len(payload) for _, _, payload in written)


def test_inspection_sees_a_clean_stop() -> None:
    disk = new_disk()
    log = open_log(disk)
    fill(log, 1)
    log.close_clean()
    assert [report.clean for report in inspect(disk).segments] == [True]


def test_inspection_lists_all_damage_with_its_place() -> None:
    disk, _, bases = log_of_five_segments()
    damage(disk, 1)
    damage(disk, 2, 5)
    disk.unlink(segment_name(4))
    damage(disk, 5)
    found = [(d.name, d.offset, d.lsn) for d in inspect(disk).damage]
    assert found == [
        (segment_name(1), SEGMENT_HEADER_BYTES, 0),
        (segment_name(2), 0, 0),
        (segment_name(4), 0, bases[3]),
        (segment_name(5), SEGMENT_HEADER_BYTES, bases[4]),
    ]


def test_a_whole_log_is_left_alone() -> None:
    disk, _, _ = log_of_five_segments()
    before = images(disk)
    assert do_salvage(disk, accept=False) == (None, None, [])
    assert images(disk) == before


def test_nothing_is_given_up_unless_it_is_accepted() -> None:
    disk, written, bases = log_of_five_segments()
    damage(disk, 3)
    before = images(disk)
    with pytest.raises(
        InvalidRequest, match=rf"from LSN {bases[2]} on \({written[-1][0]} is the last.*--accept-data-loss"
    ):
        do_salvage(disk, accept=False)
    assert images(disk) == before


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("offset", [5, SEGMENT_HEADER_BYTES + 20, SEGMENT_HEADER_BYTES + 56 * 4 + 20])
def test_everything_before_the_damage_is_kept_and_the_node_starts(number: int, offset: int) -> None:
    disk, written, _ = log_of_five_segments()
    damage(disk, number, offset)
    with pytest.raises(Corruption):
        reopen(disk)
    first_lost, last_lost, set_aside = do_salvage(disk)
    log, frames = reopen(disk, incarnation=b"incarn-2")
    assert frames == [frame for frame in written if frame[0] + frame[1] <= log.next_lsn]
    assert first_lost == log.next_lsn and last_lost is not None
    if number < 5:  # of the newest segment only what is readable behind the damage is known
        assert last_lost == written[-1][0]
    assert first_lost - 1 <= last_lost <= written[-1][0]
    assert set_aside and set(set_aside) <= set(disk.names())
    assert not inspect(disk).damage


def test_the_bytes_that_are_cut_off_are_kept_beside() -> None:
    disk, written, _ = log_of_five_segments()
    payload = written[-2][2]
    damage(disk, 5, SEGMENT_HEADER_BYTES + 70)
    _, _, [lost] = do_salvage(disk)
    assert payload in bytes(disk.entries[lost].cache)
    assert payload not in bytes(disk.entries[segment_name(5)].cache)


def test_damage_below_the_applied_lsn_sets_the_log_aside_and_begins_at_it() -> None:
    disk, written, bases = log_of_five_segments()
    damage(disk, 4)
    applied = bases[3] + 5
    first_lost, last_lost, set_aside = do_salvage(disk, applied)
    assert (first_lost, last_lost) == (applied, written[-1][0])
    assert len(set_aside) == 5
    log, frames = reopen(disk, applied_lsn=applied, incarnation=b"incarn-2")
    assert frames == [] and log.next_lsn == applied
    assert fill(log, 1)[0][0] == applied


def test_a_salvage_that_crashed_with_all_of_the_log_set_aside_is_done_again() -> None:
    disk, _, bases = log_of_five_segments()
    damage(disk, 4)
    applied = bases[3] + 5
    for number in range(1, 6):
        disk.rename(segment_name(number), "lost-" + segment_name(number))
    assert do_salvage(disk, applied)[2] == []
    log, _ = reopen(disk, applied_lsn=applied, incarnation=b"incarn-2")
    assert log.next_lsn == applied and [segment.number for segment in log.segments] == [6, 7]


def test_a_log_of_which_no_header_is_left_is_not_begun_again_and_the_way_out_is_one_there_is() -> None:
    disk = new_disk()
    fill(open_log(disk), 3)
    damage(disk, 1, 5)
    before = images(disk)
    with pytest.raises(InvalidRequest, match=r"no segment says whose log this is.*edgekv export"):
        do_salvage(disk, 9)
    assert images(disk) == before


def test_damage_in_segments_that_recovery_does_not_read_is_no_reason_to_salvage() -> None:
    disk, _, bases = log_of_five_segments()
    damage(disk, 1)
    damage(disk, 2, 5)
    assert do_salvage(disk, bases[2], accept=False) == (None, None, [])


def test_a_log_without_its_beginning_is_set_aside() -> None:
    disk, _, bases = log_of_five_segments()
    disk.unlink(segment_name(1))
    _, _, set_aside = do_salvage(disk, bases[1] - 1)
    assert len(set_aside) == 4
    assert reopen(disk, applied_lsn=bases[1] - 1)[0].next_lsn == bases[1] - 1


def test_a_second_salvage_does_not_overwrite_what_the_first_set_aside() -> None:
    disk, _, _ = log_of_five_segments()
    kept: set[str] = set()
    for _ in range(2):
        damage(disk, 4, 5)
        _, _, set_aside = do_salvage(disk)
        assert not kept & set(set_aside)
        kept |= set(set_aside)
        assert kept <= set(disk.names())
        fill(open_log(disk, seed=len(kept)), 30)
