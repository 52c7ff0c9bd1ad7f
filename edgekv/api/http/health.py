"""``/livez``, ``/readyz``, ``/metrics``, ``/v1/status``: what operators and their programs ask. None of it waits for anything.

Probes answer whatever query they come with: a load balancer that adds one must not find the node dead.
"""

from typing import Final

from aiohttp import web

from edgekv import metrics
from edgekv.api.http.content import encoded, wanted_type
from edgekv.api.http.host import Host
from edgekv.api.http.problem import problem
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.errors import EdgeKVError, ReadOnly, Unavailable

_TEXT: Final = b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"


class HealthCalls:
    """The node's own state."""

    def __init__(self, host: Host) -> None:
        self._host: Final = host

    async def livez(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a probe's query is ignored
        """200 while the event loop runs."""
        return Reply(200, _TEXT, b"ok\n")

    async def readyz(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - as above
        """200 when the node has recovered and takes writes (also while one waits for room); else 503 with the reason."""
        return Reply(200, _TEXT, b"ok\n") if self._host.ready() else problem(self._why_not(), status=503)

    def _why_not(self) -> EdgeKVError:
        admission = self._host.operations.engine.admission
        if admission.read_only is not None:
            return ReadOnly(f"the node is read-only: {admission.read_only}")
        return admission.outsider or Unavailable("the node is starting or stopping.")

    async def metrics(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - scrapers may add a query
        """Prometheus' text format."""
        body = self._host.metrics.exposition().encode()
        return Reply(200, b"Content-Type: %s\r\n" % metrics.CONTENT_TYPE.encode(), body)

    async def status(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """The node's figures as JSON or msgpack."""
        assert not key
        if query:
            parameters(query, ())
        media_type = wanted_type(request)
        host = self._host
        figures: dict[str, object] = {
            "node": host.node_name,
            "site": host.site_name,
            "version": host.version,
            "started_ms": host.started_ms,
            "ready": host.ready(),
            "replication": None if host.replication is None else host.replication.status(),
        }
        body = encoded({**host.operations.status(), **figures}, media_type)
        return Reply(200, b"Content-Type: %s\r\nCache-Control: no-store\r\n" % media_type.encode(), body)
