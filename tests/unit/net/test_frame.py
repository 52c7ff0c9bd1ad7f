"""The codec between nodes: whatever is cut, damaged or made up, messages come out whole or a fault does, and memory stays bounded."""

import random
import struct
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgekv.checksum import crc32c
from edgekv.errors import FormatUnknown, PeerFault
from edgekv.limits import PEER_COMPRESSED_BYTES_MIN, PEER_FRAME_BYTES_MAX
from edgekv.net.frame import FORMAT, MAGIC, MESSAGE_BYTES_MAX, PREFACE, Decoder, Framing

FRAMING = Framing()
messages = st.lists(
    st.binary(min_size=1, max_size=700)
    | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=4), st.just(600)),
    max_size=5,
)


def frame_of(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), crc32c(payload)) + payload


def greeted() -> Decoder:
    decoder = Decoder(FRAMING)
    assert list(decoder.feed(PREFACE)) == []
    return decoder


@given(messages, st.randoms(use_true_random=False))
def test_messages_come_back_in_order_however_the_stream_is_cut(sent: list[bytes], dice: random.Random) -> None:
    stream = PREFACE + b"".join(map(FRAMING.frame, sent))
    cuts = sorted(dice.sample(range(len(stream) + 1), dice.randint(0, min(len(stream), 8))))
    decoder, found = Decoder(FRAMING), list[bytes]()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[begin:end])
    assert found == sent and decoder.greeted


def test_every_single_cut_gives_the_messages_before_it_and_then_the_rest() -> None:
    sent = [b"one", b"2" * 600, b"three"]
    frames = [FRAMING.frame(message) for message in sent]
    stream = PREFACE + b"".join(frames)
    ends = [len(PREFACE) + sum(map(len, frames[: i + 1])) for i in range(3)]
    for cut in range(len(stream) + 1):
        decoder = Decoder(FRAMING)
        first = list(decoder.feed(stream[:cut]))
        assert first == sent[: sum(end <= cut for end in ends)]
        assert first + list(decoder.feed(stream[cut:])) == sent


@given(messages.filter(bool), st.data())
def test_a_flipped_bit_is_a_fault_and_never_another_message(sent: list[bytes], data: st.DataObject) -> None:
    stream = bytearray(PREFACE + b"".join(map(FRAMING.frame, sent)))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= 1 << data.draw(st.integers(0, 7))
    decoder, found = Decoder(FRAMING), list[bytes]()
    try:
        found.extend(decoder.feed(bytes(stream)))
    except (PeerFault, FormatUnknown):
        assert found == sent[: len(found)]
    else:  # a length that became longer: the stream waits for what never comes
        assert found == sent[: len(found)] and len(found) < len(sent)


@given(st.binary(max_size=300))
def test_garbage_after_the_preface_gives_messages_only_with_a_right_crc(garbage: bytes) -> None:
    with suppress(PeerFault):
        assert list(greeted().feed(garbage)) == []


@given(st.binary(min_size=1, max_size=300))
def test_a_payload_of_garbage_is_a_message_or_a_fault(payload: bytes) -> None:
    decoder = greeted()
    try:
        found = list(decoder.feed(frame_of(payload)))
    except PeerFault:
        return
    assert found == [payload[1:]] if payload[0] == 0 else len(found) == 1


def test_messages_before_a_fault_in_the_same_read_are_given_first() -> None:
    messages = greeted().feed(FRAMING.frame(b"good") + b"\x05\0\0\0" + bytes(9))
    assert next(messages) == b"good"
    with pytest.raises(PeerFault, match="CRC"):
        next(messages)


@pytest.mark.parametrize("length", [0, 1, PEER_FRAME_BYTES_MAX + 1, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_a_fault_before_anything_of_the_frame_is_there(length: int) -> None:
    with pytest.raises(PeerFault, match=f"a frame of {length} bytes was announced"):
        list(greeted().feed(struct.pack("<II", length, 0)))


def test_what_is_large_and_compresses_is_compressed_and_nothing_else_is() -> None:
    large, small = b"a" * PEER_COMPRESSED_BYTES_MIN, b"a" * (PEER_COMPRESSED_BYTES_MIN - 1)
    noise = random.Random(1).randbytes(4096)
    assert len(FRAMING.frame(large)) < 100
    for message in (small, noise):
        assert FRAMING.frame(message) == frame_of(b"\0" + message)
    assert list(greeted().feed(b"".join(map(FRAMING.frame, (large, small, noise))))) == [large, small, noise]


def test_the_largest_message_passes() -> None:
    message = bytes(MESSAGE_BYTES_MAX)
    assert list(greeted().feed(FRAMING.frame(message))) == [message]


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(MESSAGE_BYTES_MAX + 1))
    assert len(bomb) < 10_000
    with pytest.raises(PeerFault, match=f"names {MESSAGE_BYTES_MAX + 1} bytes as its size"):
        list(greeted().feed(frame_of(b"\1" + bomb)))


def test_a_compressed_message_that_does_not_name_its_size_is_refused() -> None:
    unnamed = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(PeerFault, match="as its size"):
        list(greeted().feed(frame_of(b"\1" + unnamed)))


@pytest.mark.parametrize(
    "payload",
    [
        b"\1" + zstandard.ZstdCompressor().compress(b"a" * 600) + b"more",
        b"\1" + zstandard.ZstdCompressor().compress(b"a" * 600)[:-1],
        b"\1" + zstandard.ZstdCompressor().compress(b""),
        b"\1no zstd",
        b"\2message",
    ],
)
def test_a_payload_that_is_not_one_whole_message_is_a_fault(payload: bytes) -> None:
    with pytest.raises(PeerFault):
        list(greeted().feed(frame_of(payload)))


def test_another_format_is_told_with_both_versions() -> None:
    with pytest.raises(FormatUnknown, match=rf"speaks format 7 of the peer protocol, this one format {FORMAT}"):
        list(Decoder(FRAMING).feed(MAGIC + b"\0\7"))


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"EDGY"])
def test_what_is_no_node_is_told_at_its_first_bytes(start: bytes) -> None:
    with pytest.raises(PeerFault, match="does not speak as a node"):
        list(Decoder(FRAMING).feed(start))
