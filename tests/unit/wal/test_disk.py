import os
from pathlib import Path

import pytest

from edgekv.limits import ZERO_CHUNK_BYTES
from edgekv.wal.disk import UNFINISHED_SUFFIX, RealDisk


def test_a_created_file_holds_zeros_and_has_its_size(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "wal")
    file = disk.create("spare-1", ZERO_CHUNK_BYTES + 5)
    assert file.size() == ZERO_CHUNK_BYTES + 5
    assert not file.pread(0, ZERO_CHUNK_BYTES + 5).strip(b"\0")
    assert disk.names() == ["spare-1"]


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    seen: list[str] = []
    disk.create("spare-1", 3 * ZERO_CHUNK_BYTES, lambda: seen.extend(disk.names()))
    assert seen == ["spare-1" + UNFINISHED_SUFFIX] * 2


def test_giving_up_in_a_pause_leaves_nothing(tmp_path: Path) -> None:
    def give_up() -> None:
        raise KeyboardInterrupt

    disk = RealDisk(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        disk.create("spare-1", 2 * ZERO_CHUNK_BYTES, give_up)
    assert disk.names() == []


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: real(fd, b"".join(parts)[:3], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:2], offset))
    file = RealDisk(tmp_path).create("spare-1", 100)
    file.pwrite(10, b"abcd", b"", b"efgh")
    assert file.pread(9, 10) == b"\0abcdefgh\0"


def test_an_open_file_is_not_affected_by_a_rename_or_removal(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("spare-1", 8)
    disk.rename("spare-1", "seg-1")
    file.pwrite(0, b"x")
    assert disk.open("seg-1").pread(0, 1) == b"x"
    disk.unlink("seg-1")
    disk.sync_directory()
    assert file.pread(0, 1) == b"x" and disk.names() == []


def test_a_read_only_disk_creates_no_directory_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RealDisk(tmp_path / "absent", read_only=True)
    RealDisk(tmp_path).create("seg-1", 8).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        RealDisk(tmp_path, read_only=True).open("seg-1").pwrite(0, b"x")


def test_free_bytes_is_what_the_file_system_says(tmp_path: Path) -> None:
    assert 0 < RealDisk(tmp_path).free_bytes() < 1 << 60
