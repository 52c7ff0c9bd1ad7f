"""What SCAN, SSCAN and HSCAN have in common: their options, their filter and their reply."""

from typing import Final, NamedTuple

from edgekv.api.resp import globs
from edgekv.api.resp.arguments import integer, syntax_error, text
from edgekv.api.resp.replies import array, bulk, bulks
from edgekv.api.resp.session import Arguments, Session
from edgekv.errors import TooLarge
from edgekv.limits import KEY_BYTES_MAX, RESP_PAGE_KEYS

EVERYTHING: Final = b"*"
_COUNT_DEFAULT: Final = 10

EMPTY_SCAN: Final = array([bulk(b"0"), bulks([])])


class Filter:
    """Which names a walk shows."""

    def __init__(self, pattern: bytes) -> None:
        if len(pattern) > KEY_BYTES_MAX:
            raise TooLarge(f"the pattern has {len(pattern)} bytes; the limit is {KEY_BYTES_MAX}.")
        self.prefix: Final = globs.literal_prefix(pattern)
        self._fits: Final = None if pattern == self.prefix + EVERYTHING else globs.compiled(pattern).fullmatch
        self._all: Final = pattern == EVERYTHING

    def __call__(self, names: list[bytes]) -> list[bytes]:
        """Those of a walk below `prefix` that fit."""
        return names if self._fits is None else [name for name in names if self._fits(name)]

    def fits(self, name: bytes) -> bool:
        """Whether a name of any walk fits."""
        if self._fits is None:
            return self._all or name.startswith(self.prefix)
        return self._fits(name) is not None


class ScanOptions(NamedTuple):
    """MATCH, COUNT and, for keys, TYPE."""

    shown: Filter
    limit: int
    """COUNT, at most a page."""
    type: str
    """Empty: any."""


def scan_options(words: Arguments, *, typed: bool) -> ScanOptions:
    """Read the options; the last one of a name counts. Redis reads them one by one, so the first that is wrong is told."""
    pattern, limit, kind = EVERYTHING, _COUNT_DEFAULT, b""
    for i in range(0, len(words), 2):
        name = words[i].upper()
        if i + 1 == len(words) or (name not in (b"MATCH", b"COUNT") and not (typed and name == b"TYPE")):
            raise syntax_error()
        if name == b"COUNT":
            limit = integer(words[i + 1])
            if limit < 1:
                raise syntax_error()
        elif name == b"MATCH":
            pattern = words[i + 1]
        else:
            kind = words[i + 1].lower()
    return ScanOptions(Filter(pattern), min(limit, RESP_PAGE_KEYS), text(kind))


def scan_reply(session: Session, following: bytes | None, found: list[bytes]) -> bytes:
    """A cursor for what follows (None: nothing does), and what was found."""
    cursor = 0 if following is None else session.shared.cursors.issue(following)
    return array([bulk(b"%d" % cursor), bulks(found)])
