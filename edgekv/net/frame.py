"""The bytes between two nodes: a preface of each side, then frames of one message each. Pure; `net.link` moves them.

Preface, the first thing that each side sends, without waiting for the other's:

    offset  size  field
         0     6  magic         b"EDGEKV"
         6     2  format        u16 big-endian: 1

Frame, integers little-endian:

    offset  size  field
         0     4  length        of the payload, 2 to PEER_FRAME_BYTES_MAX
         4     4  crc           CRC-32C of the payload
         8     1  flag          the payload begins here: 0, the message as it is; 1, one zstd frame that names its content's size
         9     n  message       a msgpack array; what it says is replication's business

A message has 1 to PEER_FRAME_BYTES_MAX - 1 bytes, also when it was compressed: the size it names is judged before anything is made of
it, so a small frame cannot fill the memory. A length is judged when its four bytes are there. TCP's checksum lets one damaged segment
in some millions through, and what arrives here is written to a log: hence the CRC.
"""

import struct
from collections.abc import Iterator
from typing import Final

import zstandard

from edgekv.checksum import crc32c
from edgekv.errors import FormatUnknown, PeerFault
from edgekv.limits import PEER_COMPRESSED_BYTES_MIN, PEER_FRAME_BYTES_MAX

MAGIC: Final = b"EDGEKV"
FORMAT: Final = 1

_VERSION: Final = struct.Struct(">H")
_HEADER: Final = struct.Struct("<II")
_RAW: Final = 0
_ZSTD: Final = 1
_RAW_FLAG: Final = bytes([_RAW])
_ZSTD_FLAG: Final = bytes([_ZSTD])
_LEVEL: Final = 1  # zstd's own default, 3, takes half as long again for a few percent of what rows are made of

PREFACE: Final = MAGIC + _VERSION.pack(FORMAT)
MESSAGE_BYTES_MAX: Final = PEER_FRAME_BYTES_MAX - 1


class Framing:
    """Makes frames, and decoders for them. One per event loop: zstd's contexts are not for two threads at once."""

    def __init__(self) -> None:
        self._compressor: Final = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=True)
        self._decompressor: Final = zstandard.ZstdDecompressor()

    def frame(self, message: bytes) -> bytes:
        """The frame of one message of 1 to MESSAGE_BYTES_MAX bytes; compressed when that makes it smaller."""
        assert 0 < len(message) <= MESSAGE_BYTES_MAX, len(message)
        payload = _RAW_FLAG + message
        if len(message) >= PEER_COMPRESSED_BYTES_MIN:
            compressed = self._compressor.compress(message)
            if len(compressed) < len(message):
                payload = _ZSTD_FLAG + compressed
        return _HEADER.pack(len(payload), crc32c(payload)) + payload

    def message(self, payload: bytes) -> bytes:
        """The message of a payload whose CRC is right. Raises PeerFault."""
        if payload[0] == _RAW:
            return payload[1:]
        if payload[0] != _ZSTD:
            raise PeerFault(f"a frame has the unknown flag {payload[0]}. The other node is broken, or is none.")
        compressed = memoryview(payload)[1:]
        try:
            size = zstandard.frame_content_size(compressed)
            if not 0 < size <= MESSAGE_BYTES_MAX:
                raise PeerFault(
                    f"a compressed message names {size} bytes as its size, and 1 to {MESSAGE_BYTES_MAX} are allowed."
                )
            return self._decompressor.decompress(compressed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise PeerFault(f"a compressed message cannot be read: {error}. The other node is broken.") from error


class Decoder:
    """Takes what the other side sends, in whatever pieces it comes, and gives back its messages."""

    __slots__ = ("_buffer", "_framing", "greeted")

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._buffer = bytearray()
        self.greeted = False
        """Whether the other side's preface has come: it is a node, and of this format."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with ``data``, one by one as they are asked for; ask for all of them.

        Raises FormatUnknown when the other side speaks another format, PeerFault for anything that is no frame: after the messages
        before it. Nothing can follow either.
        """
        self._buffer += data
        if not self.greeted and not self._greet():
            return
        buffer, offset = self._buffer, 0
        while len(buffer) - offset >= _HEADER.size:
            length, crc = _HEADER.unpack_from(buffer, offset)
            if not 2 <= length <= PEER_FRAME_BYTES_MAX:
                raise PeerFault(
                    f"a frame of {length} bytes was announced, and 2 to {PEER_FRAME_BYTES_MAX} are allowed. "
                    "The other node is broken, or is none."
                )
            begin, end = offset + _HEADER.size, offset + _HEADER.size + length
            if end > len(buffer):
                break
            payload = bytes(memoryview(buffer)[begin:end])
            if crc32c(payload) != crc:
                raise PeerFault("a frame was damaged on its way: its CRC is wrong. It is sent again on a new link.")
            offset = end
            yield self._framing.message(payload)
        del buffer[:offset]

    def _greet(self) -> bool:
        """Judge the preface, as far as it is there."""
        start = bytes(self._buffer[: len(PREFACE)])
        if start[: len(MAGIC)] != MAGIC[: len(start)]:
            raise PeerFault("what is connected does not speak as a node of EdgeKV does. Give it another address.")
        if len(start) < len(PREFACE):
            return False
        (version,) = _VERSION.unpack_from(start, len(MAGIC))
        if version != FORMAT:
            raise FormatUnknown(
                f"the other node speaks format {version} of the peer protocol, this one format {FORMAT}. "
                "Upgrade the older of the two."
            )
        del self._buffer[: len(PREFACE)]
        self.greeted = True
        return True
