"""Reading a request's body: bounded in bytes, in time and in what all bodies together may hold.

A small body is usually here with its head, and is taken without a pause. A larger one is announced (Content-Length) or comes
in chunks; it is refused before it is read when it is announced above its limit, and read only after the call was admitted: a
write that waits for room leaves its body in the socket.
"""

import asyncio
from typing import Final, NamedTuple

from aiohttp import web

from edgekv.api.http.problem import Refusal
from edgekv.api.http.waiting import Hold
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import HTTP_BODY_BYTES_PER_S_MIN, HTTP_BODY_WAIT_S

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_EXPECTED: Final = "100-continue"


class Bound(NamedTuple):
    """The longest body that a call takes, and what to do with a longer one."""

    bytes_max: int
    advice: str = "Split it."

    def error(self) -> TooLarge:
        """The refusal of a longer one."""
        return TooLarge(f"the body is longer than {self.bytes_max} bytes, the limit here. {self.advice}")


def check_announced(request: web.BaseRequest, bound: Bound) -> None:
    """Refuse a body by its head alone: too long, with an expectation, or in a coding that would be stored as if it were the value."""
    headers = request.headers
    if headers.get("Expect", _EXPECTED).lower() != _EXPECTED:
        raise Refusal(417, "expectation-failed", f"the only expectation known here is {_EXPECTED}. Leave it out.")
    if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":
        raise Refusal(415, "unsupported-media-type", "a Content-Encoding is not undone here. Send the body as it is.")
    if "Content-Range" in headers:
        raise InvalidRequest("a part of a value cannot be written. Send the whole value without Content-Range.")
    if not request.content.is_eof() and (request.content_length or 0) > bound.bytes_max:
        raise bound.error()


def inline_body(request: web.BaseRequest, bound: Bound) -> bytes | None:
    """A body that is all here already, without a pause; None: it has to be read. TooLarge above the bound."""
    content = request.content
    if not content.is_eof():
        return None
    body = content.read_nowait()
    if len(body) > bound.bytes_max:
        raise bound.error()
    return body


async def read_body(request: web.BaseRequest, bound: Bound, hold: Hold) -> bytes:
    """The whole body. TooLarge above the bound; 408 when it is too slow; ConnectionError when the client leaves."""
    body = inline_body(request, bound)
    if body is not None:
        return body
    _send_continue(request)
    seconds = HTTP_BODY_WAIT_S + (request.content_length or bound.bytes_max) / HTTP_BODY_BYTES_PER_S_MIN
    try:
        async with asyncio.timeout(seconds):
            return await _read_chunks(request, bound, hold)
    except TimeoutError as error:
        raise Refusal(408, "too-slow", f"the body did not arrive within {seconds:.0f} s. Send it faster.") from error


async def _read_chunks(request: web.BaseRequest, bound: Bound, hold: Hold) -> bytes:
    chunks: list[bytes] = []
    size = 0
    # An announced length is taken at once: two bodies that fit one by one shall not stop each other half-way.
    announced = request.content_length
    hold.add(announced or 0)
    while True:
        chunk = await request.content.readany()
        if not chunk:
            return b"".join(chunks)
        size += len(chunk)
        if size > bound.bytes_max:
            raise bound.error()
        if announced is None:
            hold.add(len(chunk))
        chunks.append(chunk)


def _send_continue(request: web.BaseRequest) -> None:
    """Clients that send ``Expect: 100-continue`` (curl, above 1 MiB) wait for this before the body."""
    if "Expect" in request.headers and request.version.minor > 0 and request.transport is not None:
        request.transport.write(_CONTINUE)
