"""``GET /v1/watch``: events as Server-Sent Events, for as long as the client stays.

    id: CURSOR
    event: put
    data: {"key":"room/7/temp","type":"register","version":"...","value":"21.5"}

The first block has an ``id`` only, so that a client which is cut off before the first event resumes where it began. After
WATCH_HEARTBEAT_S without an event comes a comment, with the cursor as it is by then: others write as well, and a cursor that stood
still would fall out of the log. The body ends with the connection; if the log is damaged, after an ``error`` that has no id.
"""

from collections.abc import Callable
from typing import Final, Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from edgekv.api.http.content import json_bytes, wanted_type
from edgekv.api.http.door import Door
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import bytes_parameter, parameters
from edgekv.api.watch import Follower
from edgekv.errors import EdgeKVError
from edgekv.node.watch_events import Event

EVENT_STREAM: Final = "text/event-stream"
_KNOWN: Final = ("prefix", "cursor")
_HEADERS: Final = b"Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
_LAST_ID: Final = "Last-Event-ID"


class Told(Protocol):
    """A connection (connection.py) that says when its client has left."""

    on_lost: Callable[[], None] | None


class WatchCalls:
    """The watch."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Events below ``?prefix=``, after ``Last-Event-ID`` or ``?cursor=`` or from now on."""
        assert not key
        found = parameters(query, _KNOWN)
        prefix = bytes_parameter(found, "prefix")
        cursor = request.headers.get(_LAST_ID, "") or found.get("cursor", "")
        wanted_type(request, (EVENT_STREAM,))
        check_promises(request, writes=False)
        watches = self._door.host.watches
        follower = Follower(watches, watches.open(prefix, cursor))
        self._door.followers.add(follower)
        return EventStream(follower, self._door)


class EventStream(Reply):
    """A reply that goes on: the head in `prepare`, the events in `write_eof`."""

    def __init__(self, follower: Follower, door: Door) -> None:
        super().__init__(200, _HEADERS, close=True)
        self._follower: Final = follower
        self._door: Final = door

    def _length(self) -> bytes:
        return b""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """The head, and where a client begins that sees nothing more."""
        await super().prepare(request)
        cast("Told", request.protocol).on_lost = self._follower.end
        if request.transport is None or request.transport.is_closing():
            self._follower.end()
        elif not self.without_body:
            request.transport.write(_place(self._follower))
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Events, until the client leaves or the node stops. What the socket does not take is waited for."""
        assert not data and self._request is not None
        request, follower = self._request, self._follower
        try:
            while not self.without_body:
                blocks = await _next_blocks(follower)
                if follower.ended or request.transport is None:
                    break
                request.transport.write(blocks)
                if request.protocol.writing_paused:
                    await request.writer.drain()
        except EdgeKVError as error:
            if request.transport is not None:
                request.transport.write(_fault(error))
        finally:
            follower.close()
            self._door.followers.discard(follower)


async def _next_blocks(follower: Follower) -> bytes:
    """Of the next events, or of a heartbeat."""
    events = await follower.next()
    return b"".join(map(_block, events)) if events else b": heartbeat\n" + _place(follower)


def _place(follower: Follower) -> bytes:
    """A block without an event: the client's last id is this cursor."""
    return b"id: %b\n\n" % follower.cursor.encode()


def _block(event: Event) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event.cursor.encode(),
        event.kind.encode(),
        json_bytes(event.document()),
    )


def _fault(error: EdgeKVError) -> bytes:
    """The last block of a stream that cannot go on: the log is damaged."""
    return b"event: error\ndata: %b\n\n" % json_bytes({"code": error.code, "detail": str(error)})
