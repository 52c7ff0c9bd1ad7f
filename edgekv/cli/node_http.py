"""The command line's HTTP client: one connection to one node, whole requests, errors as EdgeKVError.

http.client from the standard library is enough for one request at a time and costs no aiohttp import. A problem that the node
reports (RFC 9457) becomes the class of the taxonomy with that ``code``, so the exit code is the same wherever an error was
found. What the network does is told apart by what it means for a write: a connection that was never made changed nothing;
one that broke after the request was sent leaves the outcome unknown.
"""

import http.client
import json
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

from edgekv.config import Address
from edgekv.errors import (
    Denied,
    EdgeKVError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
    WrongType,
)

BODY_BYTES_MAX: Final = 256 << 20  # A page of a scan is far below it; anything above is not a node's answer.
# How a server answers that has no such path or method. An EdgeKV node does so with a ``code``.
FOREIGN: Final = {http.client.NOT_FOUND, http.client.METHOD_NOT_ALLOWED, http.client.NOT_IMPLEMENTED}
CONTEXT: Final = "edgekv-context"  # What a node says with the concurrent values of a key.
REDIS_ERROR: Final = "-ERR "  # The answer of a RESP listener, the node's other port, to a request line. It did nothing.


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; Unavailable when it is none (something else listens there)."""
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Unavailable("the answer is not a JSON object: is this the HTTP listener of an EdgeKV node?")
        return document


class NodeHttp:
    """A connection to a node's HTTP listener, opened at the first request and kept."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.close()

    def read(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        """GET; raises the node's error, or Unavailable when it cannot be reached. 300: a key with several values."""
        reply = self._request("GET", path, b"", headers or {}, changes=False)
        if reply.status == http.client.MULTIPLE_CHOICES and CONTEXT in reply.headers:
            return reply
        return self._expect(http.client.OK, reply)

    def change(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        status: int = http.client.NO_CONTENT,
    ) -> Reply:
        """A request that changes something, answered with ``status``; OutcomeUnknown when the answer is lost."""
        return self._expect(status, self._request(method, path, body, headers or {}, changes=True))

    def _expect(self, status: int, reply: Reply) -> Reply:
        """Only a node's own success counts: a web server that answers 200 to everything has stored nothing."""
        if reply.status >= http.client.BAD_REQUEST:
            raise _problem(reply) or self._foreign(reply.status)
        if reply.status != status:
            raise self._foreign(reply.status)
        return reply

    def _foreign(self, status: int) -> Unavailable:
        return Unavailable(
            f"what listens at {self.address} is not an EdgeKV node (it answered {status}): "
            "give the node's HTTP listener with --http"
        )

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str], *, changes: bool) -> Reply:
        if self._connection.sock is None:
            self._connect()
        try:
            self._connection.request(method, path, body=body or None, headers=headers)
            response = self._connection.getresponse()
            content = response.read(BODY_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if isinstance(error, http.client.BadStatusLine) and str(error).startswith(REDIS_ERROR):
                raise Unavailable(
                    f"what listens at {self.address} speaks the Redis protocol: give the node's HTTP listener with --http"
                ) from error
            reason = str(error) or type(error).__name__
            if changes:
                raise OutcomeUnknown(
                    f"the connection to {self.address} ended before the answer ({reason}): "
                    "the change may or may not have happened; read it back before you try again"
                ) from error
            raise Unavailable(f"{self.address} did not answer ({reason}): try again") from error
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _connect(self) -> None:
        try:
            self._connection.connect()
        except OSError as error:
            raise Unavailable(
                f"no node answers at {self.address} ({(error.strerror or str(error)).lower()}): "
                "start one with edgekv serve, or name another with --http"
            ) from error


def key_path(kind: str, key: bytes) -> str:
    """``/v1/{kind}/{key}`` with every byte of the key that is not a letter, digit or ``-._~`` percent-encoded."""
    return f"/v1/{kind}/{quote(key, safe='')}"


def _problem(reply: Reply) -> EdgeKVError | None:
    """The error that a reply stands for: by its ``code``, or by its status when it carries none (a proxy's); None: foreign."""
    try:
        problem = reply.json()
    except Unavailable:
        problem = {}
    if "code" not in problem and reply.status in FOREIGN:
        return None
    message = str(problem.get("detail") or problem.get("title") or f"the node answered {reply.status}")
    known = {kind.code: kind for kind in _taxonomy(EdgeKVError)}
    other = OutcomeUnknown if problem.get("outcome") == OutcomeUnknown.outcome else _by_status(reply.status)
    return known.get(str(problem.get("code")), other)(message)


def _taxonomy(kind: type[EdgeKVError]) -> list[type[EdgeKVError]]:
    """The class and all below it that a message alone can make."""
    below = [known for child in kind.__subclasses__() for known in _taxonomy(child)]
    return [kind, *below] if kind.__init__ is Exception.__init__ else below


def _by_status(status: int) -> type[EdgeKVError]:
    if status == http.client.NOT_FOUND:
        return NotFound
    if status in {http.client.CONFLICT, http.client.PRECONDITION_FAILED}:
        return WrongType
    if status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        return Denied
    if status == http.client.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge
    if status < http.client.INTERNAL_SERVER_ERROR:
        return InvalidRequest
    return OutcomeUnknown if status == http.client.GATEWAY_TIMEOUT else Unavailable
