"""Inline commands: a line of words instead of an array, for people with ``nc`` or ``telnet``.

Words are separated by blanks; "double quotes" know ``\\n \\r \\t \\b \\a \\xHH`` and take any other escaped byte as itself; 'single
quotes' know ``\\'`` only. A closing quote must be followed by a blank or the end of the line. Source: Redis' sdssplitargs.
"""

import re
from typing import Final

_WORD: Final = re.compile(
    rb"""\s*((?:"(?:[^"\\]|\\.)*"(?=\s|\Z)|'(?:[^'\\]|\\'|\\(?!'))*'(?=\s|\Z)|[^\s"'])+)""", re.DOTALL | re.ASCII
)
_PART: Final = re.compile(rb"""("(?:[^"\\]|\\.)*")|('(?:[^'\\]|\\'|\\(?!'))*')|([^"']+)""", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CONTROL: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def words(line: bytes) -> list[bytes] | None:
    """The words of a line without its end; None when its quotes do not balance."""
    found: list[bytes] = []
    end = 0
    line = line.rstrip()
    while end < len(line):
        match = _WORD.match(line, end)
        if match is None:
            return None
        found.append(b"".join(_unquoted(part) for part in _PART.finditer(match[1])))
        end = match.end()
    return found


def _unquoted(part: re.Match[bytes]) -> bytes:
    double, single, bare = part.groups()
    if bare is not None:
        return bytes(bare)
    if single is not None:
        return bytes(single[1:-1].replace(b"\\'", b"'"))
    return _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]) if m[1] else _CONTROL.get(m[2], m[2]), double[1:-1])
