"""Replies made of many elements: SMEMBERS, HGETALL, SUNION and their like.

The elements come from an iterator, in pieces of bounded work (an empty piece is work that found nothing). The first few pieces are
read at once, so that a set of ordinary size costs no task; what is larger goes on as `Slices`, between other clients. A reply's length
stands before its elements, so all of it is in memory before the first byte leaves: encoded, and up to a bound.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edgekv.api.resp.replies import optional_bulks
from edgekv.api.resp.session import Reply, Session, Slices
from edgekv.errors import TooLarge
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX, RESP_PAGES_AT_ONCE


class Bulks:
    """Strings, encoded as they come."""

    def __init__(self, advice: str) -> None:
        self._advice: Final = advice
        self._parts: Final[list[bytes]] = []
        self._bytes = 0
        self.count = 0

    def add(self, values: Sequence[bytes | None], null: bytes = b"") -> None:
        """Raise TooLarge when the reply gets too large."""
        self.add_encoded(optional_bulks(list(values), null), len(values))

    def add_encoded(self, part: bytes, count: int) -> None:
        """Likewise, ``count`` encoded elements."""
        self.count += count
        self._bytes += len(part)
        self._parts.append(part)
        if self._bytes > CONNECTION_OUTPUT_BYTES_MAX:
            raise TooLarge(f"the reply would exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. {self._advice}")

    def headed(self, header: bytes) -> bytes:
        """The reply."""
        return header + b"".join(self._parts)

    def array(self) -> bytes:
        """As an array."""
        return self.headed(b"*%d\r\n" % self.count)


def in_pieces(session: Session, pieces: Iterator[object], reply: Callable[[], bytes], *, writes: bool = False) -> Reply:
    """Exhaust ``pieces``, then reply: at once if they are few."""

    def step() -> bool:
        return next(pieces, _END) is not _END

    for _ in range(RESP_PAGES_AT_ONCE + 1):
        if not step():
            return reply()
    return Slices(step=step, reply=reply, writes=writes, barrier=session.operations.engine.barrier)


_END: Final = object()
