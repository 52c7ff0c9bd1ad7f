"""The bytes of a segment file: its header block and its frames. Pure; `wal.segment` and `wal.recovery` do the reading and writing.

All integers are little-endian, every CRC is CRC-32C. A segment is one header block of 4,096 bytes and then frames, each at a multiple
of 8; the file was written with zeros, or holds the frames of an earlier use (then under another salt), before its first frame.

Segment header, the start of the block (the rest is zeros):

    offset  size  field
         0     4  magic         b"EKVL"
         4     2  format        2 (in 1 chains did not cover stamps, checksum.chain_next)
         6     2  reserved      0
         8    16  node_id       whose log this is
        24     8  incarnation   of the node when the segment was opened
        32     8  number        consecutive; only that of an empty last segment that went back to the spares is given again
        40     8  base_lsn      LSN of the first record
        48     4  salt          random, never 0: frames of an earlier use of the file carry another one
        52     4  chain         header CRC of the predecessor's last frame, 0 in the first segment
        56     4  crc           of bytes 0..56

`number`, `base_lsn` and `chain` together are the predecessor's seal: it ends with exactly that frame (rule L2).

Frame = one group commit:

    offset  size  field
         0     4  header_crc    of bytes 4..48
         4     4  payload_len   bytes of payload, without the padding
         8     4  payload_crc
        12     4  records       how many records the payload holds; 0 is a promise frame
        16     8  first_lsn     LSN of the first record
        24     8  offset        of this frame in its file
        32     8  synced        the promise: every byte below this offset was durable when the frame was built
        40     4  salt          of the segment
        44     4  chain         header CRC of the previous frame, in the first frame the segment header's chain
        48     n  payload       msgpack records (wal.record), then zeros up to a multiple of 8

A frame header is *good* when its CRC, its salt and its own offset are right and it fits into the file. A frame is good when its header
is, its `chain` and `first_lsn` continue the frame before it, and its payload has the CRC it names. The padding is not covered.

The shape follows Pebble's log records (their sync offset tells damage from a torn tail) and SQLite's WAL (the salt).
"""

import struct
from typing import Final, NamedTuple

from edgekv.checksum import crc32c
from edgekv.errors import FormatUnknown
from edgekv.ids import ID_BYTES, INCARNATION_BYTES
from edgekv.limits import SEGMENT_HEADER_BYTES

MAGIC: Final = b"EKVL"
FORMAT: Final = 2
ALIGNMENT: Final = 8

_SEGMENT: Final = struct.Struct("<4sHH16s8sQQII")
_CRC: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<IIIIQQQII")
_FRAME_REST: Final = struct.Struct("<IIIQQQII")  # all but the header CRC
_SALT_AT: Final = 40

FRAME_HEADER_BYTES: Final = _FRAME.size
PADDING: Final = tuple(bytes(-n % ALIGNMENT) for n in range(ALIGNMENT))
"""By ``len(payload) % 8``: what fills a payload up to a multiple of 8."""

assert _SEGMENT.size + _CRC.size == 60 and ID_BYTES == 16 and INCARNATION_BYTES == 8
assert FRAME_HEADER_BYTES == 48 and _FRAME_REST.size == 44
assert SEGMENT_HEADER_BYTES % ALIGNMENT == 0


class SegmentHeader(NamedTuple):
    """What a segment says about itself and, by number, base LSN and chain, about the end of the one before it."""

    node_id: bytes
    incarnation: bytes
    number: int
    base_lsn: int
    salt: int
    chain: int


class FrameHeader(NamedTuple):
    """A good frame header; ``crc`` is its own, the ``chain`` of the frame after it."""

    crc: int
    payload_bytes: int
    payload_crc: int
    records: int
    first_lsn: int
    offset: int
    synced: int
    salt: int
    chain: int
    end: int
    """Not in the file: the offset of the frame after this one."""


def frame_bytes(payload_bytes: int) -> int:
    """What a frame with this payload takes in a segment."""
    return FRAME_HEADER_BYTES + payload_bytes + -payload_bytes % ALIGNMENT


def pack_segment_header(header: SegmentHeader) -> bytes:
    """The whole header block."""
    assert header.salt != 0
    node_id, incarnation, number, base_lsn, salt, chain = header
    fields = _SEGMENT.pack(MAGIC, FORMAT, 0, node_id, incarnation, number, base_lsn, salt, chain)
    return (fields + _CRC.pack(crc32c(fields))).ljust(SEGMENT_HEADER_BYTES, b"\0")


def unpack_segment_header(block: bytes) -> SegmentHeader | None:
    """The header at the start of `block`, None when it is damaged; FormatUnknown when another release wrote it."""
    if len(block) < _SEGMENT.size + _CRC.size:
        return None
    magic, version, _, node_id, incarnation, number, base_lsn, salt, chain = _SEGMENT.unpack_from(block)
    if magic != MAGIC or _CRC.unpack_from(block, _SEGMENT.size)[0] != crc32c(block[: _SEGMENT.size]):
        return None
    if version != FORMAT:
        raise FormatUnknown(
            f"the log has format {version}, this release reads format {FORMAT}. Start the release that wrote it."
        )
    return SegmentHeader(node_id, incarnation, number, base_lsn, salt, chain)


def pack_frame_header(
    payload: bytes, records: int, first_lsn: int, offset: int, synced: int, salt: int, chain: int
) -> tuple[bytes, int]:
    """The header of a frame and its CRC. Reads `payload` for its checksum only: the caller writes the two side by side."""
    rest = _FRAME_REST.pack(len(payload), crc32c(payload), records, first_lsn, offset, synced, salt, chain)
    crc = crc32c(rest)
    return _CRC.pack(crc) + rest, crc


def unpack_frame_header(buffer: bytes, at: int, *, offset: int, salt: int, file_bytes: int) -> FrameHeader | None:
    """The good frame header at ``buffer[at:]``, which is `offset` in its file, or None."""
    if at + FRAME_HEADER_BYTES > len(buffer):
        return None
    crc, payload_bytes, payload_crc, records, first_lsn, own_offset, synced, own_salt, chain = _FRAME.unpack_from(
        buffer, at
    )
    if own_offset != offset or own_salt != salt:  # cheap, and decides for all of the zeros after the log's end
        return None
    end = offset + FRAME_HEADER_BYTES + payload_bytes + -payload_bytes % ALIGNMENT
    if crc != crc32c(buffer[at + 4 : at + FRAME_HEADER_BYTES]) or end > file_bytes:
        return None
    return FrameHeader(crc, payload_bytes, payload_crc, records, first_lsn, offset, synced, salt, chain, end)


def find_promise(tail: bytes, *, offset: int, salt: int, file_bytes: int) -> FrameHeader | None:
    """Rule L3: the first good frame header after `offset` which promises that more than `offset` was durable, or None.

    `tail` is the file from `offset` to its end. Only the header counts: its payload may be torn, the promise was true all the same.
    Looks where the salt's bytes are instead of at every offset; no payload can hold them on purpose, and one by accident has no CRC.
    """
    needle = salt.to_bytes(4, "little")
    found = tail.find(needle, ALIGNMENT + _SALT_AT)
    while found >= 0:
        at = found - _SALT_AT
        if at % ALIGNMENT == 0:
            header = unpack_frame_header(tail, at, offset=offset + at, salt=salt, file_bytes=file_bytes)
            if header is not None and header.synced > offset:
                return header
        found = tail.find(needle, found + 1)
    return None
