"""A reply whose head is bytes from the start: one concatenation, one write.

It stands where aiohttp expects a StreamResponse, and uses none of its machinery: building header dictionaries and a payload
writer costs 6 us per reply, a third of a GET. aiohttp's connection calls `prepare`, `write_eof` and `keep_alive`, in this
order, for every reply that a call returns, also when the client is gone.

Back-pressure: what does not fit the socket is waited for in `write_eof`, so a connection never holds more than one reply, and
a large one is on the budget (waiting.py) until it has left.
"""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from edgekv.api.http.waiting import Hold

_STATUS_LINES: Final = {s.value: b"HTTP/1.1 %d %s\r\nDate: " % (s.value, s.phrase.encode()) for s in HTTPStatus}
_NO_BODY: Final = {204, 304}
_COPIED_BYTES: Final = 16 * 1024
"""Below it copying head and body into one buffer is cheaper than a second one."""


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Reply(web.StreamResponse):
    """Status, header lines (each ending in CR LF, without Date, Content-Length and Connection) and body."""

    def __init__(
        self, status: int, headers: bytes = b"", body: bytes = b"", *, hold: Hold | None = None, close: bool = False
    ) -> None:
        # StreamResponse.__init__ is left out on purpose: nothing that it sets up is used.
        self.code: Final = status
        self.header_lines = headers
        self.body: Final = body
        self.without_body = False
        """The answer to a HEAD: Content-Length as if there were a body, and none."""
        self._hold = hold
        self._ends_connection = close
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection takes another request."""
        return not self._ends_connection and self._request is not None and self._request.keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it. A client that is gone is no error."""
        self._request = request
        transport = request.transport
        if transport is None or transport.is_closing():
            return None
        head = self._head(keep_alive=self.keep_alive, minor_version=request.version.minor)
        if self.without_body or not self.body:
            transport.write(head)
        elif len(self.body) <= _COPIED_BYTES:
            transport.write(head + self.body)
        else:
            transport.writelines((head, self.body))
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the socket took enough of it for the next reply to be begun."""
        assert not data and self._request is not None
        try:
            if self._request.protocol.writing_paused:
                await self._request.writer.drain()
        finally:
            if self._hold is not None:
                self._hold.release()

    def packed(self) -> bytes:
        """All of it, for a connection that goes on in HTTP/1.1."""
        return self._head(keep_alive=True, minor_version=1) + self.body

    def _head(self, *, keep_alive: bool, minor_version: int) -> bytes:
        lines = _STATUS_LINES[self.code] + _date(int(time.time())) + b"\r\n" + self.header_lines
        lines += self._length()
        if not keep_alive:
            lines += b"Connection: close\r\n"
        elif minor_version == 0:
            lines += b"Connection: keep-alive\r\n"
        return lines + b"\r\n"

    def _length(self) -> bytes:
        """The header that says how long the body is."""
        return b"" if self.code in _NO_BODY else b"Content-Length: %d\r\n" % len(self.body)
