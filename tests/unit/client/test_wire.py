"""Bytes in both directions."""

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.client import wire
from edgekv.client.wire import Greeting, Peer
from edgekv.errors import (
    Denied,
    DiskFull,
    EdgeKVError,
    IdForgotten,
    InvalidRequest,
    NotANumber,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
)
from edgekv.limits import COMMAND_ARGUMENTS_MAX, CONNECTION_INPUT_BYTES_MAX


@given(st.lists(st.binary(), min_size=1).map(tuple))
def test_a_packed_command_is_read_as_it_was_meant(words: tuple[bytes, ...]) -> None:
    reader = hiredis.Reader()
    reader.feed(wire.pack(words))
    assert reader.gets() == list(words)
    assert reader.gets() is False


def test_a_command_that_no_node_reads_is_refused_before_it_is_sent() -> None:
    with pytest.raises(TooLarge, match="Split it"):
        wire.pack((b"SET", b"k", bytes(CONNECTION_INPUT_BYTES_MAX)))
    with pytest.raises(TooLarge, match="Split it"):
        wire.pack((b"DEL", *[b"k"] * COMMAND_ARGUMENTS_MAX))


@pytest.mark.parametrize(
    ("text", "kind", "outcome"),
    [
        ("DENIED no", Denied, "not-applied"),
        ("DISKFULL full", DiskFull, "not-applied"),
        ("UNKNOWN the log failed", OutcomeUnknown, "unknown"),
        ("FORGOTTEN the session is not known any more", IdForgotten, "not-applied"),
        ("ERR value is not an integer or out of range", NotANumber, "not-applied"),
        ("ERR the key has 5000 bytes; the limit is 4096. Use a shorter key.", TooLarge, "not-applied"),
        ("ERR syntax error", InvalidRequest, "not-applied"),
        ("MOVED 1 10.0.0.1:7", InvalidRequest, "not-applied"),
    ],
)
def test_an_error_reply_is_the_error_it_stands_for(text: str, kind: type[EdgeKVError], outcome: str) -> None:
    error = wire.problem(hiredis.ReplyError(text))
    assert type(error) is kind and error.outcome == outcome and str(error) == text.partition(" ")[2]


def greeted(*replies: object) -> Peer | None:
    greeting = Greeting()
    return [greeting.take(reply) for reply in replies][-1]


HELLO, OK, KNOWN, UNKNOWN = {b"proto": 3}, b"OK", [[b"edgekv.op"]], [None]
OLD_INFO = b"# EdgeKV\r\nnode:clinic-2-a\r\nactor:node-1a2b.7-9f8e\r\n"
INFO = OLD_INFO + b"durable_lsn:4711\r\n"


def test_a_node_is_known_by_its_incarnation_and_ids_are_used_only_with_it() -> None:
    assert greeted(HELLO, OK, OK, KNOWN, INFO) == Peer("node-1a2b.7-9f8e", 4711)
    assert greeted(HELLO, OK, OK, KNOWN, OLD_INFO) == Peer("node-1a2b.7-9f8e", None), "no stamp for a session"
    assert greeted(HELLO, OK, OK, UNKNOWN, INFO) == Peer("node-1a2b.7-9f8e", None)
    assert greeted(HELLO, hiredis.ReplyError("ERR"), hiredis.ReplyError("ERR"), KNOWN, b"") == Peer(None, None)
    assert greeted(HELLO, OK, OK, KNOWN) is None, "one reply is missing"


def test_a_server_without_resp3_is_refused_with_its_own_words() -> None:
    with pytest.raises(Unavailable, match="NOPROTO"):
        greeted(hiredis.ReplyError("NOPROTO unsupported protocol version"))
