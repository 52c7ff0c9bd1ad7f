"""The HTTP listener: connections, and the way of one request through them.

    socket -> aiohttp's parser and connection (one task per connection, in order) -> HttpServer._answer -> routes -> a call
           <- Reply, one write                                                        <- or a problem

aiohttp's low-level server is used without Application, router and middlewares. It brings what is hard to get right in
HTTP/1.1: parsing, pipelining, flow control of bodies, keep-alive, draining a refused body. What it would answer by itself (a
request it cannot parse, a fault in a call) is told as problem+json, by connection.py, where also the short way (lane.py) of
the commonest requests branches off.

A client that leaves changes nothing: its write goes on, its reply is dropped. Everything a client may use is bounded:
connections, the request line and headers, the time for both, bodies and replies (waiting.Budget).
"""

import asyncio
import time
from typing import Final, cast

from aiohttp import web

from edgekv.api.http.connection import Connection
from edgekv.api.http.door import Door
from edgekv.api.http.guarantees import Guarantees
from edgekv.api.http.host import Host
from edgekv.api.http.lane import Lane
from edgekv.api.http.problem import code_of, problem
from edgekv.api.http.promises import Asked, asked_of
from edgekv.api.http.reply import Reply
from edgekv.api.http.routes import Found, Routes
from edgekv.api.http.tally import Tally
from edgekv.config import Address
from edgekv.errors import EdgeKVError, InvalidRequest
from edgekv.limits import (
    CONNECTIONS_MAX,
    HTTP_CLOSE_WAIT_S,
    HTTP_HEADER_BYTES_MAX,
    HTTP_HEADERS_MAX,
    HTTP_IDLE_S,
    HTTP_LINE_BYTES_MAX,
    HTTP_LINGER_S,
)

_FULL_BODY: Final = (
    b'{"code":"overloaded","outcome":"not-applied","retryable":true,"status":503,"title":"Too many connections"}'
)
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


class HttpServer:
    """The HTTP front end of one node. Made, used and closed on the node's event loop."""

    def __init__(self, host: Host, *, connections_max: int = CONNECTIONS_MAX, linger_s: float = HTTP_LINGER_S) -> None:
        self._door: Final = Door(host)
        self._routes: Final = Routes(self._door)
        self._tally: Final = Tally(host)
        self._guarantees: Final = Guarantees(host)
        self._lane: Final = Lane(self._door, self._tally)
        self._aiohttp: Final = web.Server(self._answer)
        self._connections_max: Final = connections_max
        self._linger_s: Final = linger_s
        self._listeners: Final[list[asyncio.Server]] = []

    async def listen(self, address: str, port: int) -> Address:
        """Accept connections at an address; port 0 picks one. Returns what was bound; OSError when it cannot be."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(self._connection, address, port, backlog=1024)
        self._listeners.append(listener)
        bound = listener.sockets[0].getsockname()
        return Address(bound[0], bound[1])

    async def close(self) -> None:
        """Stop listening, let requests in progress finish (a few seconds at most), end every connection.

        Close this before the flusher: writes in progress are waiting for it.
        """
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for follower in list(self._door.followers):
            follower.end()
        self._aiohttp.pre_shutdown()
        await self._aiohttp.shutdown(HTTP_CLOSE_WAIT_S)
        self._door.durability.close()

    def _connection(self) -> asyncio.Protocol:
        if len(self._aiohttp.connections) >= self._connections_max:
            return Refused()
        return Connection(
            self._aiohttp,
            self._lane,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=HTTP_IDLE_S,
            lingering_time=self._linger_s,
            max_line_size=HTTP_LINE_BYTES_MAX,
            max_field_size=HTTP_HEADER_BYTES_MAX,
            max_headers=HTTP_HEADERS_MAX,
        )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: always a reply, whatever the call raised."""
        found: Found | None = None
        covered: Asked | None = None
        try:
            started = time.perf_counter_ns()
            found = self._routes.find(request.method, request.raw_path)
            asked = asked_of(request) if found.route.op else None
            if asked is not None:
                await self._guarantees.covered(asked)
                covered = asked
            reply = await found.route.call(request, found.key, found.query)
            if asked is not None and request.method not in ("GET", "HEAD"):
                reply.header_lines += await self._guarantees.acknowledged(asked, found.key)
            self._tally.count(found.route.op, found.key, "ok", time.perf_counter_ns() - started)
        except EdgeKVError as error:
            if found is not None:
                self._tally.count(found.route.op, found.key, code_of(error), None)
            reply = problem(error, close=not request.content.is_eof())
        except web.RequestPayloadError as error:
            reply = problem(InvalidRequest(f"the body is not what its head says: {error}."), close=True)
        except ConnectionError:
            # The client left while its body was read: there is nobody to tell.
            reply = Reply(400, close=True)
        if covered is not None and found is not None:  # An error may be an observation too: of a key that is absent.
            reply.header_lines += self._guarantees.token(covered, found.key)
        if request.method == "HEAD":
            reply.without_body = True
        return reply


class Refused(asyncio.Protocol):
    """A connection above the limit: told so, and closed."""

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.WriteTransport", made)  # uvloop's is one by shape only
        transport.write(_FULL)
        transport.close()
