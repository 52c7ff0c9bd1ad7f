"""Redis' patterns of KEYS, SCAN MATCH and CONFIG GET: ``*``, ``?``, ``[a-z]``, ``[^a]``, and ``\\`` for the next byte as itself.

A pattern becomes a regular expression in which each star is an atomic group up to the next fixed piece: the first place where a piece
fits is as good as any later one, so nothing is tried twice and a pattern like ``*a*a*a*a*b`` costs no more than its length times the
key's. The fixed beginning of a pattern is what the range read starts with.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(rb"\*+|\?|\\(.)|\[(\^?)((?:\\.|[^\]\\])*)(?:\]|\\?\Z)|(.)", re.DOTALL)
_MEMBER: Final = re.compile(rb"(\\.|[^\\])-(\\.|[^\\])|(\\.|.)", re.DOTALL)
_SPECIAL: Final = re.compile(rb"[*?\[\\]")


def literal_prefix(pattern: bytes) -> bytes:
    """What every key that fits begins with."""
    special = _SPECIAL.search(pattern)
    return pattern if special is None else pattern[: special.start()]


def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """An expression whose ``fullmatch`` says whether a key fits."""
    pieces: list[list[bytes]] = [[]]
    for token in _TOKEN.finditer(pattern):
        if token[0].startswith(b"*"):
            pieces.append([])
        else:
            pieces[-1].append(_one_byte(token))
    first, *middle = [b"".join(piece) for piece in pieces]
    if not middle:
        return re.compile(first, re.DOTALL)
    *middle, last = middle
    return re.compile(first + b"".join([b"(?>.*?%b)" % piece for piece in middle if piece]) + b".*" + last, re.DOTALL)


def _one_byte(token: re.Match[bytes]) -> bytes:
    escaped, inverted, members, plain = token.groups()
    if token[0] == b"?":
        return b"."
    if members is not None:
        return _class(inverted, members)
    return re.escape(plain if escaped is None else escaped)


def _class(inverted: bytes, members: bytes) -> bytes:
    if not members:
        return b"." if inverted else b"(?!)"
    parts: list[bytes] = []
    for low, high, single in (match.groups() for match in _MEMBER.finditer(members)):
        if single is not None:
            parts.append(re.escape(single[-1:]))
        else:
            least, greatest = sorted((low[-1:], high[-1:]))
            parts.append(re.escape(least) + b"-" + re.escape(greatest))
    return b"[%b%b]" % (inverted, b"".join(parts))
