"""Which call answers a request: a path, or a path's prefix whose rest is a key, and a method.

aiohttp's router is not used: it decodes paths (target.py says why not), and costs more than a GET.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from aiohttp import web

from edgekv.api.http.batch import BatchCalls
from edgekv.api.http.door import Door
from edgekv.api.http.health import HealthCalls
from edgekv.api.http.kv import CounterCalls, KeyCalls
from edgekv.api.http.problem import method_not_allowed, no_such_path
from edgekv.api.http.reply import Reply
from edgekv.api.http.scan import ScanCalls
from edgekv.api.http.target import percent_decoded, split_target

Call = Callable[[web.BaseRequest, bytes, str], Awaitable[Reply]]
"""(request, key, query) -> reply. The key is empty where the path has none; the query is still encoded."""


class Route(NamedTuple):
    """What a method does at a path. ``op`` is its name in metrics; empty: not counted."""

    op: str
    call: Call


class Found(NamedTuple):
    """Where a request goes, with what."""

    route: Route
    key: bytes
    query: str


Methods = dict[str, Route]
KV: Final = "/v1/kv/"
COUNTER: Final = "/v1/counter/"


class Routes:
    """The table of one server."""

    def __init__(self, door: Door) -> None:
        keys, counters, health = KeyCalls(door), CounterCalls(door), HealthCalls(door.host)
        delete = Route("delete", keys.delete)
        self._kv: Final = _with_head({"GET": Route("get", keys.get), "PUT": Route("put", keys.put), "DELETE": delete})
        self._counter: Final = _with_head(
            {"GET": Route("get", counters.get), "POST": Route("add", counters.add), "DELETE": delete}
        )
        self._paths: Final[dict[str, Methods]] = {
            "/v1/scan": _with_head({"GET": Route("scan", ScanCalls(door).get)}),
            "/v1/batch": {"POST": Route("batch", BatchCalls(door).post)},
            "/v1/status": _with_head({"GET": Route("", health.status)}),
            "/livez": _with_head({"GET": Route("", health.livez)}),
            "/readyz": _with_head({"GET": Route("", health.readyz)}),
            "/metrics": _with_head({"GET": Route("", health.metrics)}),
        }

    def find(self, method: str, raw_target: str) -> Found:
        """The route of a request; 404 or 405 as Refusal."""
        path, query = split_target(raw_target)
        key = ""
        if path.startswith(KV):
            methods, key = self._kv, path[len(KV) :]
        elif path.startswith(COUNTER):
            methods, key = self._counter, path[len(COUNTER) :]
        else:
            known = self._paths.get(path)
            if known is None:
                raise no_such_path(path)
            methods = known
        route = methods.get(method)
        if route is None:
            raise method_not_allowed(method, ", ".join(methods))
        return Found(route, percent_decoded(key), query)


def _with_head(methods: Methods) -> Methods:
    """A HEAD is a GET whose body stays here (server.py)."""
    return {"GET": methods["GET"], "HEAD": methods["GET"], **methods}
