"""A salvage, and the starts around it, crashed at every disk operation: by a kill, and by power cuts that keep any part of the rest.

Exhaustive in the place of the crash, seeded in what a power cut keeps. Whatever happens, the log can be salvaged and started in the
end, and every record that was in a segment before is in some file still: nothing is deleted.
"""

from collections.abc import Callable
from random import Random

import pytest

from edgekv.errors import Corruption
from edgekv.wal.log import Log
from edgekv.wal.record import pack_ttl
from edgekv.wal.salvage import salvage
from edgekv.wal.segment import segment_name
from tests.sim.disk import Crash, SimDisk
from tests.unit.wal.logs import fill, reopen

CUTS = 12
"""Power cuts tried per place; 0 is a kill."""
INCARNATION = b"incarn-2"


def damaged_log(dice: int, number: int, at: int) -> tuple[SimDisk, list[int], int]:
    """Five segments with a byte of one changed; their base LSNs, and the end."""
    disk = SimDisk(Random(dice), evicting=False)
    log, _ = reopen(disk)
    fill(log, 70)
    log.write_promise()
    inode = disk.entries[segment_name(number)]
    inode.cache[at] ^= 1
    inode.durable[at] ^= 1
    return disk, [segment.base_lsn for segment in log.segments], log.next_lsn


def do_salvage(disk: SimDisk, applied_lsn: int) -> None:
    salvage(
        disk,
        applied_lsn=applied_lsn,
        incarnation=INCARNATION,
        entropy=disk.rng.randbytes,
        accept_data_loss=True,
    )


def start(disk: SimDisk, applied_lsn: int) -> Log:
    return reopen(disk, applied_lsn=applied_lsn, incarnation=INCARNATION, seed=disk.rng.randrange(1 << 30))[0]


def start_and_recycle(disk: SimDisk, applied_lsn: int, below_lsn: int) -> None:
    start(disk, applied_lsn).recycle(below_lsn)


def crashed(disk: SimDisk, operation: int, cut: bool, act: Callable[..., object], *lsns: int) -> bool:
    """Crash in the n-th operation of the act; False when it has fewer. The machine then loses power, too, when told so."""
    disk.crash_at = disk.operations + operation
    try:
        act(disk, *lsns)
    except Crash:
        return True
    finally:
        disk.crash_at = None
        if cut:
            disk.power()
    return False


def records(disk: SimDisk, end_lsn: int) -> set[int]:
    """Which of the values that `fill` wrote can be found anywhere."""
    everything = b"".join(bytes(inode.cache) for inode in disk.entries.values())
    return {value for value in range(end_lsn) if pack_ttl(value) in everything}


@pytest.mark.parametrize("cut", range(CUTS))
@pytest.mark.parametrize(("number", "at"), [(4, 4096 + 20), (4, 5), (3, 5), (5, 4096 + 20)])
def test_a_salvage_that_begins_again_deletes_nothing_and_can_be_repeated_after_a_crash(
    number: int, at: int, cut: int
) -> None:
    for operation in range(1, 40):
        disk, bases, end = damaged_log(cut, number, at)
        applied = bases[number - 1] + 3
        found = records(disk, end)
        disk.sync_directory()
        died = crashed(disk, operation, cut > 0, do_salvage, applied)
        try:
            log = start(disk, applied)
        except Corruption:
            do_salvage(disk, applied)
            log = start(disk, applied)
        assert log.next_lsn == applied and log.stale == []
        assert records(disk, end) == found
        if not died:
            return
    raise AssertionError("a salvage has fewer operations")


@pytest.mark.parametrize("cut", range(CUTS))
def test_a_start_after_a_salvage_can_be_repeated_after_crashes_in_a_row(cut: int) -> None:
    for operation in range(1, 40):
        disk, bases, _ = damaged_log(cut, 4, 4096 + 20)
        applied = bases[3] + 3
        do_salvage(disk, applied)
        died = crashed(disk, operation, cut > 0, start, applied)
        for again in range(1, 8):
            crashed(disk, again, cut > 0, start, applied)
        assert start(disk, applied).next_lsn == applied
        if not died:
            return
    raise AssertionError("a start has fewer operations")


@pytest.mark.parametrize("cut", range(1, CUTS))
def test_a_power_cut_that_takes_the_store_back_behind_a_damaged_header_finds_what_lies_before_it(cut: int) -> None:
    """LMDB's last commit had passed the hole, the one before it had not: a start, and every crash of it, must leave both a way."""
    for operation in range(1, 40):
        disk, bases, end = damaged_log(cut, 3, 5)
        last, last_but_one = bases[3] + 3, bases[1] + 3
        found = records(disk, end)
        died = crashed(disk, operation, True, start_and_recycle, last, last_but_one)
        assert records(disk, end) == found
        with pytest.raises(Corruption):
            start(disk, last_but_one)
        do_salvage(disk, last_but_one)
        assert start(disk, last_but_one).next_lsn == bases[2], "all that lies before the damage was kept"
        if not died:
            return
    raise AssertionError("a start has fewer operations")
