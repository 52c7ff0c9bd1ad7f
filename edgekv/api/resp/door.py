"""The door of one connection: bytes in, commands out, and nothing else gets past it.

protocol.py calls `take` once per read. hiredis' Reader does the parsing (4.9 million small commands a second against 0.7 in Python),
but it trusts its input: ``*1000000000`` makes it allocate 8 GB and the release of that list stops the node for 1.6 s; a bulk length
has no bound; inline commands are errors to it; numbers, maps and nulls come out as int, dict and None. So before a read is fed, it
is searched for anything that could be a large header, which costs a few percent:

- no such thing, and the read ends with a line end: it is fed whole. This is nearly every read;
- otherwise it is fed piece by piece. When all before a suspect is parsed, ``has_data`` tells whether the Reader is inside a value (the
  suspect is data, and passes) or between elements (it is a header, and is judged). So the check is exact whatever values contain;
- a header cut by the end of a read is kept back and joined with the next one: the Reader never sees half a header.

What is left to the caller: the arguments may still be of any type (checked in runs, where it is cheap).

A *fault* is the text of the protocol error that ends the connection. Commands taken before it are good.
"""

import re
from collections.abc import Sequence
from typing import Final

import hiredis

from edgekv.api.resp.inline import words
from edgekv.limits import COMMAND_ARGUMENTS_MAX, CONNECTION_INPUT_BYTES_MAX, RESP_INLINE_BYTES_MAX

Taken = list[object]
"""Commands as the Reader made them: each a list of at least one element of any type."""

INVALID_ARRAY: Final = "invalid multibulk length"
INVALID_BULK: Final = "invalid bulk length"
_NULL_ARRAY: Final = b"*-1\r\n"
"""An array that is no command; as in Redis nothing answers it. The Reader makes None of it."""

_ASTERISK, _DOLLAR, _LINE_END = b"*$\n"
_TLS: Final = b"\x16\x03"
"""How a TLS hello begins. Most have no line end: their client would wait for an answer, and this node for the end of a line."""
_PENDING: Final = object()
_LIST: Final = {list}
_READER_ERRORS: Final = (hiredis.ProtocolError, TypeError, ValueError, MemoryError)
"""Besides its own error the Reader raises what Python raises, such as TypeError for a map with a list as key."""

# Seven digits: above the million arguments that a command may have. Eight: above 10 MB, judged exactly when it is a header.
# Separate patterns, because one that begins with a fixed byte is ten times as fast as one that begins with a class.
_LARGE_ARRAY: Final = re.compile(rb"\*[0-9]{7}").search
_LARGE_BULK: Final = re.compile(rb"\$[0-9]{8}").search
_LARGE_PUSH: Final = re.compile(rb">[0-9]{7}").search
_LARGE_SET: Final = re.compile(rb"~[0-9]{7}").search
_LARGE_ATTRIBUTE: Final = re.compile(rb"\|[0-9]{7}").search
_CUT_HEADER: Final = re.compile(rb"[*$>~|]-?[0-9]*\r?\Z").search
_SUSPECT: Final = re.compile(rb"[*$>~|](?:[0-9]{7,}|-?[0-9]*\r?\Z)")
_HEADER_BYTES_MAX: Final = 32

_TYPES: Final[dict[type, str]] = {
    bool: "#",
    int: ":",
    float: ",",
    list: "*",
    set: "~",
    dict: "%",
    hiredis.ReplyError: "-",
}


class Door:
    """See the module docstring."""

    __slots__ = ("_feed", "_gets", "_kept", "_reader", "fault", "pending")

    fault: str | None

    def __init__(self) -> None:
        self._kept = b""
        """A cut header, or the beginning of an inline command."""
        self.pending = 0
        """Bytes taken since the last complete command. The Reader's own ``len`` does not count elements that it has parsed."""
        self.fault: str | None = None
        self._renew()

    def _renew(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_PENDING)
        self._feed = self._reader.feed
        self._gets = self._reader.gets

    def take(self, data: bytes) -> Taken:
        """The commands that are complete with ``data``. After a fault there are no more."""
        size = len(data)
        if self._kept:
            data, self._kept = self._kept + data, b""
        if data[0] == _ASTERISK and not _suspicious(data):
            commands: Taken = []
            try:
                self._feed(data)
                commands.extend(iter(self._gets, _PENDING))
            except _READER_ERRORS as error:
                return self._counted(self._after_error(data, commands, error), size)
            if len(commands) == 1:
                command = commands[0]
                if type(command) is list and command:
                    self.pending = 0
                    return commands
            return self._counted(self._commands_only(commands), size)
        return self._counted(self._take_unusual(data), size)

    def _counted(self, commands: Taken, size: int) -> Taken:
        if commands:
            self.pending = 0
        else:
            self.pending += size
            if self.pending > CONNECTION_INPUT_BYTES_MAX:
                self._fail(f"a command has more than {CONNECTION_INPUT_BYTES_MAX} bytes")
        return commands

    def _fail(self, fault: str) -> None:
        if self.fault is None:
            self.fault = fault

    def _commands_only(self, commands: Taken) -> Taken:
        """Without empty ones, which Redis ignores; anything that is no array ends the connection."""
        if all(commands) and set(map(type, commands)) == _LIST:
            return commands
        good: Taken = []
        for command in commands:
            if type(command) is list or command is None:
                if command:
                    good.append(command)
            else:
                self._fail(f"expected '*', got '{_TYPES.get(type(command), '$')}'")
                break
        return good

    # -- reads that are not plain

    def _take_unusual(self, data: bytes) -> Taken:
        """Inline commands and arrays in any mixture, and reads that begin inside a command."""
        commands: Taken = []
        while data and self.fault is None:
            take = self._take_line if self._begins_a_line(data[0]) else self._take_checked
            data = take(data, commands)
        return commands

    def _begins_a_line(self, byte: int) -> bool:
        """Whether an inline command begins here. Between elements of an array nothing but ``$`` may follow: that is a fault."""
        if byte in (_ASTERISK, _DOLLAR) or self._reader.has_data():
            return False
        # Between two elements, or between two commands? Only the Reader knows: an empty array is a command by itself, or an element.
        try:
            self._feed(b"*0\r\n")
            between_commands: bool = self._gets() == []
        except _READER_ERRORS:
            between_commands = False
        if not between_commands:
            self._fail(f"expected '$', got '{chr(byte)}'" if 0x20 < byte < 0x7F else "expected '$'")
        return between_commands

    def _take_line(self, data: bytes, commands: Taken) -> bytes:
        """Take one inline command; what follows it."""
        line, end, rest = data.partition(b"\n")
        if line.startswith(_TLS):
            self._fail("this is TLS, and the listener speaks the plain Redis protocol")
        elif len(line) > RESP_INLINE_BYTES_MAX:
            self._fail("too big inline request")
        elif not end:
            self._kept = line
        else:
            command = words(line)
            if command is None:
                self._fail("unbalanced quotes in request")
            elif command:
                commands.append(command)
        return rest

    def _take_checked(self, data: bytes, commands: Taken) -> bytes:
        """Feed ``data`` piece by piece, each suspect header judged before the Reader sees it; what is left for a line."""
        if not _suspicious(data):
            return self._parse(data, commands)
        fed = 0
        for suspect in _SUSPECT.finditer(data):
            start = suspect.start()
            rest = self._parse(data[fed:start], commands)
            fed = start
            if rest or self.fault is not None:
                return rest + data[fed:]
            if self._reader.has_data():
                continue  # Inside a value.
            header = data[start : start + _HEADER_BYTES_MAX]
            if b"\n" not in header and len(header) < _HEADER_BYTES_MAX:
                self._kept = header
                return b""
            if not self._passes(header):
                return b""
        return self._parse(data[fed:], commands)

    def _passes(self, header: bytes) -> bool:
        """Whether the Reader may see a header; else it is a fault."""
        kind, digits = header[:1], header[1:].partition(b"\r")[0]
        length = int(digits) if digits.isdigit() else -1
        if header.startswith(_NULL_ARRAY):
            return True
        if kind == b"*" and not 0 <= length <= COMMAND_ARGUMENTS_MAX:
            self._fail(INVALID_ARRAY)
        elif kind == b"$" and not 0 <= length <= CONNECTION_INPUT_BYTES_MAX:
            self._fail(INVALID_BULK)
        elif kind not in (b"*", b"$"):
            self._fail(f"expected '$', got '{kind.decode()}'")
        return self.fault is None

    def _parse(self, data: bytes, commands: Taken) -> bytes:
        """Feed and collect; what follows an array if it is an inline command."""
        found: Taken = []
        rest = b""
        try:
            self._feed(data)
            found.extend(iter(self._gets, _PENDING))
        except _READER_ERRORS as error:
            rest = self._line_after(data, found)
            if not rest:
                self._fail(_reason(error))
        commands += self._commands_only(found)
        return rest

    def _after_error(self, data: bytes, commands: Taken, error: Exception) -> Taken:
        rest = self._line_after(data, commands)
        if not rest:
            self._fail(_reason(error))
        taken = self._commands_only(commands)
        if rest and self.fault is None:
            taken += self._take_unusual(rest)
        return taken

    def _line_after(self, data: bytes, commands: Taken) -> bytes:
        """After an error: the rest of ``data``, if it is nothing but whole arrays up to an inline command. Else nothing.

        The Reader does not say where it stopped. Written out again, the commands it found must be what ``data`` begins with.
        """
        plain = [
            command
            for command in commands
            if command is None or (type(command) is list and all(type(part) is bytes for part in command))
        ]
        written = b"".join(map(_written, plain))
        rest = data[len(written) :]
        if len(plain) < len(commands) or not data.startswith(written) or rest[:1] in b"*$:+-_,#(!=%~>|":
            return b""
        self._renew()
        return rest


def _suspicious(data: bytes) -> bool:
    """Whether ``data`` may hold a header that must be judged first, or ends with half a header."""
    return (
        _LARGE_ARRAY(data) is not None
        or _LARGE_BULK(data) is not None
        or (b">" in data and _LARGE_PUSH(data) is not None)
        or (b"~" in data and _LARGE_SET(data) is not None)
        or (b"|" in data and _LARGE_ATTRIBUTE(data) is not None)
        or (data[-1] != _LINE_END and _CUT_HEADER(data, max(len(data) - _HEADER_BYTES_MAX, 0)) is not None)
    )


def _written(command: Sequence[bytes] | None) -> bytes:
    if command is None:
        return _NULL_ARRAY
    return b"*%d\r\n%b" % (len(command), b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command))


def _reason(error: Exception) -> str:
    """Redis' words for what the Reader objected to."""
    text = str(error).lower()
    if "multi-bulk" in text:
        return INVALID_ARRAY
    if "bulk string" in text:
        return INVALID_BULK
    byte = re.search(r'got "(.+)" as reply type byte', str(error))
    return f"expected '$', got '{byte[1]}'" if byte else "expected '$'"


def bad_argument(command: Sequence[object]) -> str:
    """The fault of a command of which not every argument is a string."""
    wrong = next(part for part in command if type(part) is not bytes)
    return INVALID_BULK if wrong is None else f"expected '$', got '{_TYPES.get(type(wrong), '?')}'"
