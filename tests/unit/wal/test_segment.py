import pytest

from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal import segment as segment_module
from edgekv.wal.frame import SegmentHeader
from edgekv.wal.segment import Segment, SegmentWalk, segment_name, segment_number
from tests.unit.wal.logs import fill, new_disk, open_log, put


@pytest.mark.parametrize("number", [0, 1, 0xDEADBEEF, 1 << 40])
def test_a_segments_number_is_in_its_name(number: int) -> None:
    assert segment_number(segment_name(number)) == number


@pytest.mark.parametrize(
    "name", ["spare-00", "seg-1.wal", "seg-00000001.wal.new", "lost-seg-00000001.wal", "xseg-00000001.wal"]
)
def test_other_names_are_not_segments(name: str) -> None:
    assert segment_number(name) is None


def test_a_segment_is_complete_and_durable_before_it_is_visible() -> None:
    disk = new_disk()
    disk.create("spare-1", SEGMENT_HEADER_BYTES + 64)
    disk.trace = []
    Segment.publish(disk, "spare-1", SegmentHeader(b"n" * 16, b"i" * 8, 3, 0, 1, 0))
    assert disk.trace == [
        "write spare-1 0 4096",
        "fdatasync spare-1",
        "rename spare-1 seg-00000003.wal",
        "sync directory",
    ]


def test_a_segment_whose_header_is_damaged_does_not_open() -> None:
    disk = new_disk()
    put(disk, "seg-00000001.wal", bytes(5000))
    assert Segment.open(disk, "seg-00000001.wal") is None


@pytest.mark.parametrize("window_bytes", [1, 64, 100, 1 << 20])
def test_a_walk_sees_the_same_frames_through_any_window(monkeypatch: pytest.MonkeyPatch, window_bytes: int) -> None:
    disk = new_disk()
    written = fill(open_log(disk), 12)
    monkeypatch.setattr(segment_module, "LOG_READ_BYTES", window_bytes)
    segment = Segment.open(disk, segment_name(1))
    assert segment is not None
    walk = SegmentWalk(segment)
    seen, raw = [], b""
    while step := walk.step():
        header, payload = step
        seen.append((header.first_lsn, header.records, payload))
        raw += walk.frame(header)
    assert seen == written and walk.lsn == 13
    assert raw == segment.file.pread(SEGMENT_HEADER_BYTES, walk.offset - SEGMENT_HEADER_BYTES)
