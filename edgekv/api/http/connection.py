r"""One client's connection: aiohttp's, with the short way in front, and with its complaints told as ours.

aiohttp keeps parsed requests in a queue and wakes its task for them (``start``), which answers one after the other.
`data_received` lets it parse, and when the connection was idle and exactly one request came, offers that to the lane (lane.py)
before the task is woken:

    idle --one request--> offered --taken, durable------------> idle
                             |  \----taken, not durable--> held --released--> idle (queued requests wake the task)
                             \-------not taken--> the task is woken: the ordinary way

While a reply is held, what arrives is parsed and queued and the task sleeps, so replies keep the order of requests. `_held` is
the only state that is added. A few of aiohttp's private attributes are used for it (``_waiter``, ``_messages``, ``_parser``,
``_request_in_progress``, ``_handler_waiter``, ``_next_keepalive_close_time``): tests/unit/api/http/test_lane.py fails when their
meaning changes.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from edgekv.api.http.lane import Answer, Lane
from edgekv.api.http.problem import Refusal, internal_problem, problem, problem_reply
from edgekv.errors import EdgeKVError, TooLarge
from edgekv.limits import HTTP_HEADER_BYTES_MAX, HTTP_LINE_BYTES_MAX

_log: Final = logging.getLogger("edgekv.http")


class Connection(web.RequestHandler):
    """See the module docstring. ``options`` are aiohttp's."""

    __slots__ = ("_held", "_lane", "on_lost")

    def __init__(self, manager: web.Server, lane: Lane, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        # No access log (which costs a time stamp per request); a body is stored as it comes, not decompressed.
        super().__init__(manager, loop=loop, access_log=None, auto_decompress=False, logger=_log, **options)  # type: ignore[arg-type]
        self._lane: Final = lane
        self._held = False
        """A reply of the short way has not been sent: the task must not run."""
        self.on_lost: Callable[[], None] | None = None
        """Called when the client is gone, for a reply that goes on and would not notice."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Bytes came. The task's waiter is hidden while aiohttp parses, so that it is woken here, or not."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            super().data_received(data)
            return
        self._waiter = None
        super().data_received(data)
        self._waiter = waiter
        if self._messages and not self._held and (len(self._messages) > 1 or self.writing_paused or not self._offer()):
            self._wake()

    def _offer(self) -> bool:
        """Offer the one queued request to the lane; whether it was taken."""
        message, payload = self._messages[0]
        if not isinstance(message, RawRequestMessage):
            return False
        # Reading a body may make aiohttp parse on, which comes back here: the request is out of the queue by then, and held.
        self._messages.popleft()
        self._held = True
        answer = self._take(message, payload)
        if answer is None:
            self._messages.appendleft((message, payload))
            self._held = False
            return False
        if self._parser is not None:
            self._parser.message_consumed()
        if answer.frame is None:
            self.send(answer, answer.reply.packed())
        else:
            self._request_in_progress = True
            self._lane.durability.hold(ShortReply(self, self._lane, answer), answer.frame)
        return True

    def _take(self, message: RawRequestMessage, payload: StreamReader) -> Answer | None:
        try:
            return self._lane.take(message, payload)
        except Exception as error:  # noqa: BLE001 - a fault of ours is told as on the ordinary way, where aiohttp catches it
            _log.error("a call failed: %s %s", message.method, message.path[:200], exc_info=error)
            return Answer(internal_problem(), None, "", b"", "internal", 0)

    def send(self, answer: Answer, data: bytes) -> None:
        """The reply may leave; what came meanwhile goes the ordinary way."""
        self._held = False
        self._request_in_progress = False
        self._next_keepalive_close_time = self._loop.time() + self.keepalive_timeout
        if self.transport is not None:
            self.transport.write(data)
        self._lane.sent(answer)
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)  # The server is closing and waits for this reply.
        if self._messages:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What to answer to bytes that are no request (400, 431), or when a call failed in a way it should not (500)."""
        if status >= 500:
            _log.error("a call failed: %s %s", request.method, request.raw_path[:200], exc_info=exc)
            return internal_problem()
        if isinstance(exc, LineTooLong):
            # aiohttp's own words quote the line as Python writes bytes.
            bounds = f"{HTTP_LINE_BYTES_MAX} bytes, or a header more than {HTTP_HEADER_BYTES_MAX}"
            detail = f"the request line has more than {bounds}. Shorten it."
            return problem_reply(
                431, TooLarge.code, "Request line or header too long", detail, "not-applied", close=True
            )
        detail = (message or "it cannot be parsed").strip().partition("\n")[0].rstrip(":.")[:200]
        return problem(
            Refusal(400, "not-http", f"this is not an HTTP/1.1 request: {detail}. This listener speaks plain HTTP."),
            close=True,
        )


class ShortReply:
    """A reply of the short way at a frame that is not durable yet: the engine's Waiter."""

    __slots__ = ("_answer", "_connection", "_lane")

    def __init__(self, connection: Connection, lane: Lane, answer: Answer) -> None:
        self._connection: Final = connection
        self._lane: Final = lane
        self._answer: Final = answer

    def release(self, payload: object) -> None:  # noqa: ARG002 - the reply is here
        """The frame is durable."""
        if self._lane.durability.settle(self):
            self._connection.send(self._answer, self._answer.reply.packed())

    def fail(self, error: EdgeKVError) -> None:
        """Nobody knows whether it happened."""
        if self._lane.durability.settle(self):
            self._connection.send(self._answer._replace(result=error.code), problem(error).packed())
