"""The simulated disk loses what it may lose and nothing else: a log tested on a disk that is too kind is not tested."""

import errno
from random import Random

import pytest

from tests.sim.disk import SECTOR_BYTES, Crash, SimDisk

SECTORS = 64


def new_file(seed: int, *, evicting: bool = False) -> SimDisk:
    disk = SimDisk(Random(seed), evicting=evicting)
    disk.create("f", SECTORS * SECTOR_BYTES)
    disk.sync_directory()
    return disk


def content(disk: SimDisk) -> bytes:
    return disk.open("f").pread(0, SECTORS * SECTOR_BYTES)


def sectors(data: bytes) -> list[bytes]:
    return [data[at : at + SECTOR_BYTES] for at in range(0, len(data), SECTOR_BYTES)]


OLD, NEW, NEWER = (bytes([fill]) * (SECTORS * SECTOR_BYTES) for fill in b"\0NM")


def test_what_was_synced_survives_a_power_cut() -> None:
    disk = new_file(1)
    disk.open("f").pwrite(0, NEW)
    disk.open("f").fdatasync()
    disk.power()
    assert content(disk) == NEW


def test_of_what_was_not_synced_each_sector_is_old_or_any_version_written() -> None:
    disk = new_file(1)
    disk.open("f").pwrite(0, NEW)
    disk.open("f").pwrite(0, NEWER)
    assert content(disk) == NEWER
    disk.power()
    assert set(sectors(content(disk))) == {s[:SECTOR_BYTES] for s in (OLD, NEW, NEWER)}


def test_a_name_is_durable_only_after_the_directory_is_synced() -> None:
    survived = set()
    for seed in range(20):
        disk = new_file(seed)
        disk.rename("f", "g")
        disk.power()
        survived.add(tuple(disk.names()))
    assert survived == {("f",), ("g",)}
    disk = new_file(1)
    disk.rename("f", "g")
    disk.sync_directory()
    disk.power()
    assert disk.names() == ["g"]


def test_a_failed_fdatasync_leaves_clean_pages_that_a_second_one_does_not_write() -> None:
    disk = new_file(1)
    file = disk.open("f")
    file.pwrite(0, NEW)
    disk.arm = "eio"
    with pytest.raises(OSError, match="Input/output error"):
        file.fdatasync()
    file.fdatasync()
    assert content(disk) == NEW
    disk.power()
    assert content(disk) == OLD


def test_clean_pages_of_a_failed_fdatasync_may_be_evicted_at_any_read() -> None:
    disk = new_file(1, evicting=True)
    file = disk.open("f")
    file.pwrite(0, NEW)
    disk.arm = "eio"
    with pytest.raises(OSError, match="Input/output error"):
        file.fdatasync()
    reads = [content(disk) for _ in range(50)]
    assert reads[-1] == OLD and len(set(reads)) > 2
    file.pwrite(0, NEW)
    file.fdatasync()
    assert content(disk) == NEW


def test_a_full_disk_stores_a_part_of_the_write() -> None:
    disk = new_file(1)
    disk.arm = "enospc"
    with pytest.raises(OSError, match="No space left") as caught:
        disk.open("f").pwrite(0, NEW)
    assert caught.value.errno == errno.ENOSPC
    stored = content(disk).rstrip(b"\0")
    assert stored == NEW[: len(stored)] and len(stored) < len(NEW)


def test_a_process_dies_in_the_operation_it_was_told_to_die_in() -> None:
    disk = new_file(1)
    disk.crash_at = disk.operations + 2
    file = disk.open("f")
    file.pwrite(0, NEW)
    with pytest.raises(Crash):
        file.pwrite(0, NEWER)
    torn = content(disk).rstrip(b"N").rstrip(b"M")
    assert torn == b""
