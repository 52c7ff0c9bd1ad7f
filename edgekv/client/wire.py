"""RESP3 as the client speaks it: commands to bytes, bytes to replies, the handshake, and error replies as errors.

Without I/O: both shells feed it. hiredis does the work in both directions. What is no RESP3, or not the reply that a command has,
raises `BrokenConversation`: nothing that follows on that connection can be attributed, so the connection ends.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import hiredis

import edgekv
from edgekv.errors import (
    Denied,
    DiskFull,
    EdgeKVError,
    IdForgotten,
    InvalidRequest,
    NotANumber,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
    SessionBehind,
    TooLarge,
    Unavailable,
    WrongType,
)
from edgekv.limits import COMMAND_ARGUMENTS_MAX, CONNECTION_INPUT_BYTES_MAX

Words = tuple[bytes, ...]
"""A command with its name at 0."""

INCOMPLETE: Final = object()
"""What a reader gives when the next reply has not arrived whole."""

_ERRORS: Final[dict[str, type[EdgeKVError]]] = {
    "WRONGTYPE": WrongType,
    "DENIED": Denied,
    "NOAUTH": Denied,
    "NOPERM": Denied,
    "WRONGPASS": Denied,
    "DISKFULL": DiskFull,
    "READONLY": ReadOnly,
    "OVERLOADED": Overloaded,
    "BEHIND": SessionBehind,
    "UNAVAILABLE": Unavailable,
    "UNKNOWN": OutcomeUnknown,
    "FORGOTTEN": IdForgotten,
    "CORRUPT": EdgeKVError,
}
"""By the first word of an error reply (docs/RESP.md). ERR, and what is not listed, is the caller's mistake."""
_NUMBERS: Final = re.compile(r"(operation [0-9]+: )?(value is not|hash value is not|increment|decrement)")
"""How the sentences of ERR about arithmetic begin: Redis' own, and in a batch after the number of the operation."""

_SIZES: Final = ("; the limit is ", "would exceed", "exceeds maximum")


class BrokenConversation(Exception):
    """The other side does not speak RESP3, or does not answer what was asked."""


def reader() -> hiredis.Reader:
    """A parser of replies for one connection: ``feed``, then ``gets`` until INCOMPLETE."""
    return hiredis.Reader(notEnoughData=INCOMPLETE)


BROKEN: Final = (hiredis.ProtocolError, TypeError, ValueError, BrokenConversation)
"""What reading raises: the Reader's own, what Python raises inside it (a list as the key of a map), and ours."""


def pack(words: Words) -> bytes:
    """The bytes of one command; TooLarge when no node would read it, and would hang up on everybody else's commands with it."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type] # typed as a tuple of one
    if len(packed) > CONNECTION_INPUT_BYTES_MAX or len(words) > COMMAND_ARGUMENTS_MAX:
        raise TooLarge(
            f"the command has {len(packed)} bytes and {len(words)} arguments; the limits are {CONNECTION_INPUT_BYTES_MAX} "
            f"and {COMMAND_ARGUMENTS_MAX}. Split it."
        )
    return packed


def problem(reply: hiredis.ReplyError) -> EdgeKVError:
    """The error that an error reply stands for."""
    word, _, sentence = str(reply).partition(" ")
    kind = _ERRORS.get(word)
    if kind is None:
        kind = _refusal(sentence)
    return kind(sentence or word)


def _refusal(sentence: str) -> type[EdgeKVError]:
    """What ERR means, for which Redis has no words."""
    if _NUMBERS.match(sentence):
        return NotANumber
    return TooLarge if any(words in sentence for words in _SIZES) else InvalidRequest


class Peer(NamedTuple):
    """Who is at the other end."""

    node: str | None
    """Names one incarnation of a node: what it remembers of operation ids dies with it. None: it is no EdgeKV node."""
    stamp: int | None
    """What sessions of operation ids begin with. None: it has no ``EDGEKV.OP``, by which what is sent again happens once."""

    @property
    def takes_ids(self) -> bool:
        """Whether it has ``EDGEKV.OP``."""
        return self.stamp is not None


class Greeting:
    """The handshake: one write, and as many replies as it has commands. ``opening``: what is asked for behind it."""

    _COMMANDS: Final[tuple[Words, ...]] = (
        (b"HELLO", b"3"),
        (b"CLIENT", b"SETINFO", b"LIB-NAME", b"edgekv-py"),
        (b"CLIENT", b"SETINFO", b"LIB-VER", edgekv.__version__.encode()),
        (b"COMMAND", b"INFO", b"EDGEKV.OP"),
        (b"INFO", b"edgekv"),
    )
    _REQUEST: Final = b"".join(map(pack, _COMMANDS))

    def __init__(self, opening: Sequence[Words] = ()) -> None:
        self.request: Final = self._REQUEST + b"".join(map(pack, opening))
        self._opening: Final = opening
        self._replies: list[object] = []

    def take(self, reply: object) -> Peer | None:
        """The next reply; the peer with the last one. Unavailable when the other end cannot be talked to."""
        if not self._replies and type(reply) is hiredis.ReplyError:
            raise Unavailable(f"the node refused the connection: {reply}. It must speak RESP3 (HELLO 3).")
        greeted = len(self._COMMANDS)
        if len(self._replies) >= greeted and type(reply) is hiredis.ReplyError:
            raise self._refused(self._opening[len(self._replies) - greeted], reply)
        self._replies.append(reply)
        if len(self._replies) < greeted + len(self._opening):
            return None
        fields = _fields(self._replies[greeted - 1])
        node, stamp = fields.get("actor"), fields.get("durable_lsn", "")
        takes_ids = node is not None and stamp.isdecimal() and _knows(self._replies[greeted - 2])
        return Peer(node, int(stamp) if takes_ids else None)

    @staticmethod
    def _refused(words: Words, reply: hiredis.ReplyError) -> Unavailable:
        error = problem(reply)
        if isinstance(error, Unavailable):
            return error
        return Unavailable(f"the node refused {words[0].decode()}: {reply}. It must be an EdgeKV node that has it.")


def _knows(information: object) -> bool:
    """COMMAND INFO of one command: whether it exists."""
    return isinstance(information, list) and len(information) == 1 and bool(information[0])


def _fields(information: object) -> dict[str, str]:
    """The lines ``name:value`` of INFO."""
    if not isinstance(information, bytes):
        return {}
    parted = (line.partition(":") for line in information.decode(errors="replace").splitlines())
    return {name: value for name, _, value in parted if value}
