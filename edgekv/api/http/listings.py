"""A page of a set or map: rows in the order of their bytes, read in steps with the event loop served between them, as a scan's are.

The first step also counts, so a page knows whether the key exists and how many rows there are in all. ``cursor`` is a place in the
order (cursors.py); what is there throughout a chain of pages is shown exactly once.
"""

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from aiohttp import web

from edgekv.api.http.content import MSGPACK, json_bytes, wanted_type
from edgekv.api.http.cursors import position_of, position_text
from edgekv.api.http.documents import tagged_reply
from edgekv.api.http.door import Door
from edgekv.api.http.host import Operations
from edgekv.api.http.kv import missing
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import integer_parameter
from edgekv.api.http.waiting import Hold
from edgekv.codec import pack
from edgekv.limits import HTTP_SCAN_BYTES_MAX, HTTP_SCAN_LIMIT_DEFAULT, HTTP_SCAN_STEP_ENTRIES, SCAN_LIMIT_MAX

Row = TypeVar("Row")
PAGING: Final = ("limit", "cursor")
_FIRST_STEP_ROWS: Final = 8
"""Before the sizes here are known, a step is small, as a scan's is."""


class Listing(NamedTuple, Generic[Row]):
    """What the rows of one type are called, where they come from, and how one is weighed and shown."""

    name: str
    total: Callable[[Operations, bytes], int]
    page: Callable[[Operations, bytes, bytes, int], tuple[list[Row], bytes | None]]
    size: Callable[[Row], int]
    shown: Callable[[Row], object]


async def list_rows(
    door: Door, request: web.BaseRequest, key: bytes, found: dict[str, str], listing: Listing[Row]
) -> Reply:
    """200 with ``{name: [...], "count": n, "cursor": text or null}`` and ``Link: rel=next`` when there is more; 404."""
    limit = integer_parameter(found, "limit", low=1, high=SCAN_LIMIT_MAX) or HTTP_SCAN_LIMIT_DEFAULT
    start = position_of(found.get("cursor", ""))
    media_type = wanted_type(request)
    hold = door.budget.hold()
    try:
        page = RowPage(listing, key, start, limit, media_type, hold)
        await door.read_in_slices(page.step)
        if not page.count:
            raise missing()
        return tagged_reply(request, page.body(), media_type, headers=page.headers(), hold=hold)
    except BaseException:
        hold.release()
        raise


class RowPage(Generic[Row]):
    """A page while it is being read."""

    def __init__(
        self, listing: Listing[Row], key: bytes, start: bytes, limit: int, media_type: str, hold: Hold
    ) -> None:
        self._listing: Final = listing
        self._key: Final = key
        self._limit: Final = limit
        self._media_type: Final = media_type
        self._hold: Final = hold
        self._rows: Final[list[object]] = []
        """In JSON already when that is wanted: it is made in slices, msgpack is fast enough to be made at the end."""
        self._bytes = 0
        self._next: bytes | None = start
        self.count = 0

    def step(self, operations: Operations) -> bool:
        """Read some more rows; whether there are more to read for this page."""
        assert self._next is not None
        if not self._rows:
            self.count = self._listing.total(operations, self._key)
            if not self.count:
                return False
        rows, self._next = self._listing.page(operations, self._key, self._next, self._step_rows())
        size = sum(map(self._listing.size, rows))
        self._hold.add(size)
        self._bytes += size
        shown = map(self._listing.shown, rows)
        self._rows.extend(shown if self._media_type == MSGPACK else map(json_bytes, shown))
        return self._next is not None and self._bytes < HTTP_SCAN_BYTES_MAX and len(self._rows) < self._limit

    def _step_rows(self) -> int:
        left = self._limit - len(self._rows)
        if not self._rows:
            return min(left, _FIRST_STEP_ROWS)
        fitting = (HTTP_SCAN_BYTES_MAX - self._bytes) * len(self._rows) // max(self._bytes, 1)
        return max(1, min(left, HTTP_SCAN_STEP_ENTRIES, fitting))

    @property
    def _cursor(self) -> str | None:
        return None if self._next is None else position_text(self._next)

    def body(self) -> bytes:
        """The document."""
        if self._media_type == MSGPACK:
            return pack({self._listing.name: self._rows, "count": self.count, "cursor": self._cursor})
        lines = b",".join(row for row in self._rows if isinstance(row, bytes))
        tail = json_bytes({"count": self.count, "cursor": self._cursor})
        return b'{"%s":[%s],%s' % (self._listing.name.encode(), lines, tail[1:])

    def headers(self) -> bytes:
        """Link when there is more: relative to the request, so that a long key is not told twice."""
        if self._cursor is None:
            return b""
        return f'Link: <?cursor={self._cursor}&limit={self._limit}>; rel="next"\r\n'.encode()
