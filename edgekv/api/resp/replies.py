"""RESP, the outgoing half: values and errors to bytes, in protocol 2 or 3.

Called by the commands and by protocol.py. Most types look the same in both protocols and are plain functions; what differs (null, map,
set, text) is a `Dialect`, which a connection changes with HELLO. Error words are Redis' where Redis has one; docs/RESP.md lists ours.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from edgekv.errors import (
    Corruption,
    Denied,
    DiskFull,
    EdgeKVError,
    IdForgotten,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
    SessionBehind,
    Unavailable,
    WrongType,
)

OK: Final = b"+OK\r\n"
PONG: Final = b"+PONG\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"
EMPTY_ARRAY: Final = b"*0\r\n"

_CRLF: Final = b"\r\n"
_HEADERS: Final = [b"$%d\r\n" % length for length in range(4097)]

_BREAKS: Final = str.maketrans("\r\n", "  ")
_WORDS: Final[tuple[tuple[type[EdgeKVError], str], ...]] = (
    (WrongType, "WRONGTYPE"),
    (Denied, "DENIED"),
    (DiskFull, "DISKFULL"),
    (ReadOnly, "READONLY"),
    (Overloaded, "OVERLOADED"),
    (SessionBehind, "BEHIND"),
    (Unavailable, "UNAVAILABLE"),
    (OutcomeUnknown, "UNKNOWN"),
    (IdForgotten, "FORGOTTEN"),
    (Corruption, "CORRUPT"),
    (EdgeKVError, "ERR"),
)
"""The first that fits is the first word of the reply, which clients branch on."""


def status(text: str) -> bytes:
    """A simple string; ``text`` is one of ours, so it has no line breaks."""
    return b"+%b\r\n" % text.encode()


def integer(number: int) -> bytes:
    """An integer, of any size: a merged counter may exceed 64 bits and is shown in full."""
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    """A string of any bytes."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def downgraded(reply: bytes) -> bytes:
    """A reply of protocol 3 as protocol 2 has it. Only nulls, sets and maps are known; most replies stay what they are."""
    if reply[:1] in b":+-$":
        return reply
    parts = list[bytes]()
    at = 0
    while at < len(reply):
        end = reply.index(_CRLF, at) + 2
        kind, size = reply[at : at + 1], reply[at + 1 : end - 2]
        if kind == b"$":
            end += int(size) + 2
            parts.append(reply[at:end])
        elif kind == b"_":
            parts.append(RESP2.null)
        elif kind in b"~%":
            parts.append(b"*%d\r\n" % (int(size) * (2 if kind == b"%" else 1)))
        else:
            assert kind in b":+-*", f"no command that writes replies with {kind!r}"
            parts.append(reply[at:end])
        at = end
    return b"".join(parts)


def array(items: Sequence[bytes]) -> bytes:
    """An array of encoded items."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def bulks(values: Iterable[bytes]) -> bytes:
    """An array of strings."""
    return array([bulk(value) for value in values])


def error(text: str) -> bytes:
    """An error reply. ``text`` starts with its word; it may quote the client, so bytes that are not UTF-8 come as surrogates."""
    return b"-%b\r\n" % text.translate(_BREAKS).encode("utf-8", "surrogateescape")


def fault(problem: EdgeKVError) -> bytes:
    """The reply to a command that raised."""
    if type(problem) is WrongType:
        return error("WRONGTYPE Operation against a key holding the wrong kind of value")
    word = next(word for kind, word in _WORDS if isinstance(problem, kind))
    return error(f"{word} {problem}")


def optional_bulks(values: list[bytes | None], null: bytes) -> bytes:
    """The replies to a run of GETs: strings or nulls, one after the other."""
    if None not in values:
        lengths = set(map(len, values))  # type: ignore[arg-type] # None is not among them
        if len(lengths) == 1:  # Readings, counters, records of one shape: one join of C instead of a loop.
            header = b"$%d\r\n" % lengths.pop()
            return header + (_CRLF + header).join(values) + _CRLF  # type: ignore[arg-type]
    parts: list[bytes] = []
    add = parts.append
    for value in values:
        if value is None:
            add(null)
        else:
            length = len(value)
            add(_HEADERS[length] if length < len(_HEADERS) else b"$%d\r\n" % length)
            add(value)
            add(_CRLF)
    return b"".join(parts)


class Dialect:
    """What looks different in the two protocols."""

    __slots__ = ("null", "version")

    def __init__(self, version: int) -> None:
        self.version: Final = version
        self.null: Final = b"_\r\n" if version == 3 else b"$-1\r\n"

    def optional(self, value: bytes | None) -> bytes:
        """A string, or null."""
        return self.null if value is None else bulk(value)

    def map(self, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
        """A map of encoded keys and values; in protocol 2 an array of both in turn."""
        header = b"%%%d\r\n" % len(pairs) if self.version == 3 else b"*%d\r\n" % (2 * len(pairs))
        return header + b"".join([part for pair in pairs for part in pair])

    def set(self, items: Sequence[bytes]) -> bytes:
        """A set of encoded items; in protocol 2 an array."""
        return b"%b%d\r\n%b" % (b"~" if self.version == 3 else b"*", len(items), b"".join(items))

    def push(self, items: Sequence[bytes]) -> bytes:
        """An array that nobody asked for; in protocol 2 an array."""
        return b"%b%d\r\n%b" % (b">" if self.version == 3 else b"*", len(items), b"".join(items))

    def text(self, text: str) -> bytes:
        """Text for people, such as INFO's; in protocol 2 a string."""
        value = text.encode("utf-8", "surrogateescape")
        return b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value) if self.version == 3 else bulk(value)


RESP2: Final = Dialect(2)
RESP3: Final = Dialect(3)
