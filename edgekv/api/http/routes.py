"""Which call answers a request: a path, or a path's prefix whose rest is a key, and a method.

aiohttp's router is not used: it decodes paths (target.py says why not), and costs more than a GET.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from aiohttp import web

from edgekv.api.http.admin import AdminCalls
from edgekv.api.http.batch import BatchCalls
from edgekv.api.http.counters import CounterCalls
from edgekv.api.http.door import Door
from edgekv.api.http.health import HealthCalls
from edgekv.api.http.kv import KeyCalls
from edgekv.api.http.maps import MapCalls
from edgekv.api.http.openapi.document import OpenApiCalls
from edgekv.api.http.problem import method_not_allowed, no_such_path
from edgekv.api.http.reply import Reply
from edgekv.api.http.scan import ScanCalls
from edgekv.api.http.sets import SetCalls
from edgekv.api.http.target import percent_decoded, split_target
from edgekv.api.http.watch import WatchCalls

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


class Routes:
    """The table of one server."""

    def __init__(self, door: Door) -> None:
        keys, counters, sets, maps = KeyCalls(door), CounterCalls(door), SetCalls(door), MapCalls(door)
        health, admin = HealthCalls(door.host), AdminCalls(door)
        self.keyed: Final[dict[str, Methods]] = {
            KV: {
                "GET": Route("get", keys.get),
                "PUT": Route("put", keys.put),
                "DELETE": Route("delete", keys.delete),
            },
            "/v1/counter/": {
                "GET": Route("get", counters.get),
                "POST": Route("add", counters.add),
                "DELETE": Route("delete", counters.delete),
            },
            "/v1/set/": {
                "GET": Route("set-get", sets.get),
                "POST": Route("set-change", sets.post),
                "DELETE": Route("delete", sets.delete),
            },
            "/v1/map/": {
                "GET": Route("map-get", maps.get),
                "POST": Route("map-change", maps.post),
                "DELETE": Route("delete", maps.delete),
            },
        }
        """By what goes before the key, which is all that follows. None of them begins with another."""
        self.paths: Final[dict[str, Methods]] = {
            "/v1/scan": {"GET": Route("scan", ScanCalls(door).get)},
            "/v1/watch": {"GET": Route("watch", WatchCalls(door).get)},
            "/v1/batch": {"POST": Route("batch", BatchCalls(door).post)},
            "/v1/status": {"GET": Route("", health.status)},
            "/v1/admin/keyspaces": {"GET": Route("", admin.keyspaces), "PUT": Route("", admin.create_keyspace)},
            "/v1/admin/sites": {"PUT": Route("", admin.add_site), "DELETE": Route("", admin.remove_site)},
            "/v1/admin/vectors": {"GET": Route("", admin.vectors)},
            "/v1/admin/digest": {"GET": Route("", admin.digest)},
            "/v1/admin/leader": {"PUT": Route("", admin.lead)},
            "/v1/admin/members": {"DELETE": Route("", admin.remove_member)},
            "/v1/admin/repair": {"PUT": Route("", admin.repair)},
            "/v1/admin/conflicts": {"GET": Route("", admin.conflicts)},
            "/v1/openapi.json": {"GET": Route("", OpenApiCalls(door.host.version).get)},
            "/livez": {"GET": Route("", health.livez)},
            "/readyz": {"GET": Route("", health.readyz)},
            "/metrics": {"GET": Route("", health.metrics)},
        }
        for table in (self.keyed, self.paths):
            table.update({path: _with_head(methods) for path, methods in table.items() if "GET" in methods})

    def find(self, method: str, raw_target: str) -> Found:
        """The route of a request; 404 or 405 as Refusal."""
        path, query = split_target(raw_target)
        methods, key = self.paths.get(path), ""
        if methods is None:
            methods, key = self._with_key(path)
        route = methods.get(method)
        if route is None:
            raise method_not_allowed(method, ", ".join(methods))
        return Found(route, percent_decoded(key), query)

    def _with_key(self, path: str) -> tuple[Methods, str]:
        for before, methods in self.keyed.items():
            if path.startswith(before):
                return methods, path[len(before) :]
        raise no_such_path(path)


def _with_head(methods: Methods) -> Methods:
    """A HEAD is a GET whose body stays here (server.py)."""
    return {"GET": methods["GET"], "HEAD": methods["GET"], **methods}
