import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.checksum import crc32c
from edgekv.errors import FormatUnknown
from edgekv.wal.frame import (
    FRAME_HEADER_BYTES,
    PADDING,
    SegmentHeader,
    find_promise,
    frame_bytes,
    pack_frame_header,
    pack_segment_header,
    unpack_frame_header,
    unpack_segment_header,
)

HEADER = SegmentHeader(b"n" * 16, b"i" * 8, 7, 1000, 0xCAFE, 0xBEEF)
FILE_BYTES = 1 << 16


def frame(payload: bytes, *, offset: int = 4096, synced: int = 4096, salt: int = 0xCAFE, chain: int = 1) -> bytes:
    header, _ = pack_frame_header(payload, 3, 1000, offset, synced, salt, chain)
    return header + payload + PADDING[len(payload) % 8]


def test_the_bytes_of_a_frame_are_those_of_the_format_table() -> None:
    header, crc = pack_frame_header(b"payload", 3, 1000, 4096, 4000, 0xCAFE, 0xBEEF)
    rest = struct.pack("<IIIQQQII", 7, crc32c(b"payload"), 3, 1000, 4096, 4000, 0xCAFE, 0xBEEF)
    assert header == struct.pack("<I", crc32c(rest)) + rest
    assert crc == crc32c(rest)
    assert len(frame(b"payload")) == frame_bytes(7) == 56


def test_the_bytes_of_a_segment_header_are_those_of_the_format_table() -> None:
    block = pack_segment_header(HEADER)
    fields = b"EKVL" + b"\2\0\0\0" + b"n" * 16 + b"i" * 8 + struct.pack("<QQII", 7, 1000, 0xCAFE, 0xBEEF)
    assert block == (fields + struct.pack("<I", crc32c(fields))).ljust(4096, b"\0")
    assert unpack_segment_header(block) == HEADER


@pytest.mark.parametrize("at", range(60))
def test_a_segment_header_with_any_byte_changed_is_no_header(at: int) -> None:
    block = bytearray(pack_segment_header(HEADER))
    block[at] ^= 0x10
    assert unpack_segment_header(bytes(block)) is None


@pytest.mark.parametrize("other", [1, 3])
def test_a_segment_of_another_format_is_refused_with_a_sentence(other: int) -> None:
    fields = pack_segment_header(HEADER)[:4] + bytes([other, 0]) + pack_segment_header(HEADER)[6:56]
    with pytest.raises(FormatUnknown, match=f"format {other}, this release reads format 2"):
        unpack_segment_header(fields + struct.pack("<I", crc32c(fields)))


@given(payload=st.binary(max_size=100), at=st.integers(0, FRAME_HEADER_BYTES - 1), bit=st.integers(0, 7))
def test_a_frame_header_is_good_as_written_and_with_no_bit_changed(payload: bytes, at: int, bit: int) -> None:
    data = bytearray(frame(payload))
    good = unpack_frame_header(bytes(data), 0, offset=4096, salt=0xCAFE, file_bytes=FILE_BYTES)
    assert (
        good is not None and good.payload_bytes == len(payload) and good.records == 3 and good.end == 4096 + len(data)
    )
    data[at] ^= 1 << bit
    assert unpack_frame_header(bytes(data), 0, offset=4096, salt=0xCAFE, file_bytes=FILE_BYTES) is None


@pytest.mark.parametrize(("offset", "salt"), [(4104, 0xCAFE), (4096, 0xCAFF)])
def test_a_frame_of_another_place_or_another_use_of_the_file_is_no_frame(offset: int, salt: int) -> None:
    assert unpack_frame_header(frame(b"x"), 0, offset=offset, salt=salt, file_bytes=FILE_BYTES) is None


def test_a_frame_that_does_not_fit_into_its_file_is_no_frame() -> None:
    data = frame(b"x" * 100)
    end = 4096 + len(data)
    assert unpack_frame_header(data, 0, offset=4096, salt=0xCAFE, file_bytes=end) is not None
    assert unpack_frame_header(data, 0, offset=4096, salt=0xCAFE, file_bytes=end - 1) is None


def test_a_header_proves_what_it_promises_even_when_its_payload_is_torn() -> None:
    later = frame(b"y" * 40, offset=4096 + 64, synced=4097)[:FRAME_HEADER_BYTES]
    tail = bytes(64) + later + bytes(40)
    found = find_promise(tail, offset=4096, salt=0xCAFE, file_bytes=FILE_BYTES)
    assert found is not None and found.offset == 4096 + 64


@pytest.mark.parametrize(
    "later",
    [
        frame(b"", offset=4096 + 64, synced=4096),
        frame(b"", offset=4096 + 72, synced=5000),
        frame(b"", offset=4096 + 64, synced=5000, salt=0xCAFF),
        struct.pack("<I", 0xCAFE) * 12,
    ],
    ids=["promises no more", "another offset", "another salt", "the salt by accident"],
)
def test_what_is_no_promise_is_no_evidence(later: bytes) -> None:
    assert find_promise(bytes(64) + later, offset=4096, salt=0xCAFE, file_bytes=FILE_BYTES) is None


def test_the_frame_in_question_is_no_evidence_for_itself() -> None:
    assert find_promise(frame(b"", synced=5000), offset=4096, salt=0xCAFE, file_bytes=FILE_BYTES) is None
