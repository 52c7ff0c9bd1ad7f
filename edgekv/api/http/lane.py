"""The short way for the two requests that come most: a plain GET or PUT of one key, all of it in one read of an idle connection.

The ordinary way costs a task, a request object and, for a write, a future per request: 15 us of the 38 that a durable PUT
took. A request is answered here, within `data_received`, when nothing about it needs those: no query, no headers beyond
`PLAIN_HEADERS`, a body that is here already, no back-pressure. Everything else, and everything behind it on its connection,
takes the ordinary way (server.py); both answer alike, which tests/unit/api/http/test_lane.py holds them to.

connection.py offers each request here first.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage

from edgekv.api.http.door import Door
from edgekv.api.http.kv import missing, put_step, stored_reply, value_reply
from edgekv.api.http.problem import problem
from edgekv.api.http.reply import Reply
from edgekv.api.http.routes import KV
from edgekv.api.http.tally import Tally
from edgekv.api.http.target import percent_decoded
from edgekv.engine.frame import Frame
from edgekv.errors import EdgeKVError, InvalidRequest
from edgekv.limits import HTTP_INLINE_BODY_BYTES

PLAIN_HEADERS: Final = {
    b"host",
    b"user-agent",
    b"accept",
    b"accept-encoding",
    b"content-type",
    b"content-length",
    b"connection",
}
"""Headers that change nothing about a GET or PUT of a key."""
_PLAIN_ACCEPTS: Final = {b"*/*", b"application/octet-stream"}


class Answer(NamedTuple):
    """What to send, the frame that it waits for (None: none), and what to count when it is sent."""

    reply: Reply
    frame: Frame | None
    op: str
    key: bytes
    result: str
    started_ns: int


class Lane:
    """The short way of one server."""

    def __init__(self, door: Door, tally: Tally) -> None:
        self.durability: Final = door.durability
        self._operations: Final = door.operations
        self._engine: Final = door.operations.engine
        self._tally: Final = tally

    def take(self, message: RawRequestMessage, payload: StreamReader) -> Answer | None:
        """Answer a request, or None when it needs the ordinary way; then nothing has happened."""
        target, method = message.path, message.method
        if not target.startswith(KV) or "?" in target or message.should_close or message.version.minor != 1:
            return None
        for name, value in message.raw_headers:
            lowered = name.lower()
            if lowered not in PLAIN_HEADERS:
                return None
            if lowered == b"accept" and value not in _PLAIN_ACCEPTS:
                return None  # The ordinary way negotiates.
        try:
            key = percent_decoded(target[len(KV) :])
        except InvalidRequest:
            return None
        if method == "GET" and payload.at_eof():
            return self._answer("get", key, lambda: self._get(key))
        if method == "PUT" and payload.is_eof() and not self._engine.write_blocked:
            return self._answer("put", key, lambda: self._put(key, payload.read_nowait()))
        return None

    def sent(self, answer: Answer) -> None:
        """Count it."""
        nanoseconds = time.perf_counter_ns() - answer.started_ns if answer.result == "ok" else None
        self._tally.count(answer.op, answer.key, answer.result, nanoseconds)

    def _answer(self, op: str, key: bytes, step: Callable[[], Reply | None]) -> Answer | None:
        started_ns, result = time.perf_counter_ns(), "ok"
        self._engine.barrier = None
        try:
            reply = step()
        except EdgeKVError as error:
            reply, result = problem(error), error.code
        if reply is None:
            return None
        frame = self._looked_at()
        return Answer(reply, None if frame is None or frame.done else frame, op, key, result, started_ns)

    def _looked_at(self) -> Frame | None:
        return self._engine.barrier

    def _get(self, key: bytes) -> Reply | None:
        if self._operations.siblings.kept(key):
            return None  # The ordinary way shows all of several values.
        entry = self._operations.get_entry(key)
        if entry is None:
            raise missing()
        if len(entry.value) > HTTP_INLINE_BODY_BYTES:
            return None  # The ordinary way asks the budget.
        return value_reply(entry)

    def _put(self, key: bytes, value: bytes) -> Reply:
        return stored_reply(put_step(self._operations, key, value, None))
