"""``/v1/openapi.json``: it says what the routes do, no more and no less."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edgekv.api.http import body
from edgekv.api.http.openapi.document import document
from edgekv.api.http.problem import ANSWERS
from edgekv.errors import Corruption, DiskFull, LogFailed
from edgekv.limits import HTTP_BATCH_BYTES_MAX
from tests.unit.api.http.site import FakeNode, FakeReplication, Response, Site, served, until

DOCUMENT = document("1")
JSON = {"Content-Type": "application/json"}
METHODS = ("get", "head", "put", "post", "delete")


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def with_headers(self, **more: str) -> "Request":
        return replace(self, headers={**self.headers, **{name.replace("_", "-"): text for name, text in more.items()}})


def operations() -> Iterator[tuple[str, str]]:
    for path, item in DOCUMENT["paths"].items():
        yield from ((path, method) for method in METHODS if method in item)


def statuses() -> Iterator[tuple[str, str, int]]:
    for path, method in operations():
        for status in DOCUMENT["paths"][path][method]["responses"]:
            yield path, method, int(status)


MEMBERS = "/v1/admin/members"
REPAIR = "/v1/admin/repair"
SITES = "/v1/admin/sites"
KEYSPACES = "/v1/admin/keyspaces"
QUERIES = {
    (REPAIR, "put"): "?from=hub",
    (MEMBERS, "delete"): "?member=edge",
    (MEMBERS, "put"): "?member=edge",
    (KEYSPACES, "put"): "?keyspace=rooms&prefix=rooms%2F&sites=a,b",
    (SITES, "put"): "?keyspace=rooms&site=a",
    (SITES, "delete"): "?keyspace=rooms&site=a",
}
BODIES = {
    "/v1/counter/{key}": {"add": 1},
    "/v1/set/{key}": {"add": ["a"], "remove": ["b"]},
    "/v1/map/{key}": {"set": {"f": "1"}, "add": {"n": 1}, "remove": ["g"]},
    "/v1/batch": {"operations": [{"op": "add", "key": "k", "n": 1}]},
}


def good(path: str, method: str) -> Request:
    """A request that is answered with success once `stored` was called."""
    target = path.replace("{key}", "k") + QUERIES.get((path, method), "")
    if method == "post":
        return Request("POST", target, JSON, json.dumps(BODIES[path]).encode())
    return Request(method.upper(), target, body=b"1" if method == "put" else b"")


def stored(node: FakeNode, path: str) -> None:
    """Something of the path's own type at the key ``k``."""
    if path.startswith("/v1/set/"):
        node.operations.sets.add(b"k", [b"a"])
    elif path.startswith("/v1/map/"):
        node.operations.maps.put(b"k", [(b"f", b"1")])
    elif path in (MEMBERS, SITES, REPAIR, KEYSPACES, "/v1/admin/leader"):
        node.replication = FakeReplication()
    else:
        node.operations.set(b"k", b"1")


def stored_otherwise(node: FakeNode, path: str) -> None:
    if path.startswith("/v1/set/"):
        node.operations.maps.put(b"k", [(b"f", b"1")])
    else:
        node.operations.sets.add(b"k", [b"a"])


async def send(site: Site, request: Request) -> Response:
    return await site.call(request.method, request.target, request.headers, request.body)


async def plainly(site: Site, path: str, request: Request) -> Response:
    stored(site.node, path)
    return await send(site, request)


async def with_several_values(site: Site, path: str, request: Request) -> Response:
    site.node.operations.set(b"k", b"1")
    site.node.operations.siblings.values[b"k"] = [b"1", b"2"]
    return await send(site, request)


async def known(site: Site, path: str, request: Request) -> Response:
    return await plainly(site, path, request.with_headers(If_None_Match="*"))


async def malformed(site: Site, path: str, request: Request) -> Response:
    return await send(site, replace(request, target=f"{request.target.partition('?')[0]}?no-such-parameter=1"))


async def conditional(site: Site, path: str, request: Request) -> Response:
    if path == "/v1/watch":
        return await send(site, replace(request, target="/v1/watch?prefix=_meta%2F"))
    return await send(site, request.with_headers(If_Match="*"))


async def missing(site: Site, path: str, request: Request) -> Response:
    if path == MEMBERS:
        site.node.replication = FakeReplication()
        return await send(site, replace(request, target=f"{MEMBERS}?member=nobody"))
    if path == SITES:
        site.node.replication = FakeReplication()
        return await send(site, replace(request, target=f"{SITES}?keyspace=none&site=a"))
    return await send(site, request)


async def unacceptable(site: Site, path: str, request: Request) -> Response:
    return await send(site, request.with_headers(Accept="text/html"))


async def slow(site: Site, path: str, request: Request) -> Response:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(body, "HTTP_BODY_WAIT_S", 0)
        patched.setattr(body, "HTTP_BODY_BYTES_PER_S_MIN", 1 << 40)
        return await send(site, replace(request, body=b"").with_headers(Content_Length="5"))


async def of_another_type(site: Site, path: str, request: Request) -> Response:
    stored_otherwise(site.node, path)
    return await send(site, request)


async def too_large(site: Site, path: str, request: Request) -> Response:
    if path == "/v1/batch":
        return await send(site, replace(request, body=b"").with_headers(Content_Length=str(HTTP_BATCH_BYTES_MAX + 1)))
    long = "k" * 4097
    target = f"{path}?prefix={long}" if path in ("/v1/scan", "/v1/watch") else path.replace("{key}", long)
    return await send(site, replace(request, target=target))


async def encoded(site: Site, path: str, request: Request) -> Response:
    return await send(site, request.with_headers(Content_Encoding="gzip"))


async def expectant(site: Site, path: str, request: Request) -> Response:
    return await send(site, replace(request, body=b"").with_headers(Expect="miracles", Content_Length="1"))


async def long_header(site: Site, path: str, request: Request) -> Response:
    return await send(site, request.with_headers(X="x" * 9000))


async def damaged(site: Site, path: str, request: Request) -> Response:
    fault = Corruption("a page is damaged.", path="data.mdb")
    site.node.operations.fault = site.node.operations.read_fault = fault
    return await send(site, request)


async def crowded(site: Site, path: str, request: Request) -> Response:
    await site.call("GET", "/livez")
    client = await site.connect()
    return await client.receive()


async def with_a_failing_log(site: Site, path: str, request: Request) -> Response:
    site.node.log_stuck = True
    stored(site.node, path)
    await site.client.send(request.method, request.target, request.headers, request.body)
    await until(lambda: bool(site.node.operations.filling.waiters))
    site.node.fail_log(LogFailed("fdatasync: Input/output error"))
    return await site.client.receive(to_head=request.method == "HEAD")


async def on_a_full_disk(site: Site, path: str, request: Request) -> Response:
    stored(site.node, path)
    site.node.operations.fault = DiskFull("the disk is full.")
    return await send(site, request)


WAYS = {
    200: plainly,
    204: plainly,
    300: with_several_values,
    304: known,
    400: malformed,
    403: conditional,
    404: missing,
    406: unacceptable,
    408: slow,
    409: of_another_type,
    413: too_large,
    415: encoded,
    417: expectant,
    431: long_header,
    500: damaged,
    503: crowded,
    504: with_a_failing_log,
    507: on_a_full_disk,
}
"""How each status comes about."""


@pytest.mark.parametrize(("path", "method", "status"), list(statuses()))
def test_every_documented_status_is_reachable(path: str, method: str, status: int) -> None:
    @served(connections_max=1)
    async def reached(site: Site) -> None:
        answer = await WAYS[status](site, path, good(path, method))
        assert answer.status == status
        if status >= 400 and method != "head":
            assert answer.headers["content-type"] == "application/problem+json"

    reached()


def test_the_document_has_every_route_and_no_other() -> None:
    @served()
    async def compared(site: Site) -> None:
        routes = site.server._routes
        tables = {**routes.paths, **{f"{before}{{key}}": methods for before, methods in routes.keyed.items()}}
        assert set(operations()) == {(path, method.lower()) for path, table in tables.items() for method in table}

    compared()


def test_every_status_that_an_error_may_have_is_in_the_table_of_problems() -> None:
    documented = {int(name.removeprefix("Problem")) for name in DOCUMENT["components"]["responses"]}
    startup_only = {410, 502}  # CursorLost, and what a peer did: no call answers with these.
    assert {answer.status for answer in ANSWERS.values()} - startup_only <= documented


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    named = {f"#/components/{kind}/{name}" for kind, parts in DOCUMENT["components"].items() for name in parts}
    assert set(references(DOCUMENT)) == named


def test_operation_ids_are_unique() -> None:
    names = [DOCUMENT["paths"][path][method]["operationId"] for path, method in operations()]
    assert len(names) == len(set(names))


@served()
async def test_the_document_is_served_as_json_and_a_client_that_has_it_gets_304(site: Site) -> None:
    answer = await site.call("GET", "/v1/openapi.json", {"Accept": "text/html, */*;q=0.1"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == document("0")
    again = await site.call("GET", "/v1/openapi.json", {"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def media_types(path: str, method: str) -> set[str]:
    return set(DOCUMENT["paths"][path][method]["responses"]["200"]["content"])


@pytest.mark.parametrize(
    ("path", "query"),
    [("/v1/kv/{key}", ""), ("/v1/set/{key}", ""), ("/v1/map/{key}", "?field=f"), ("/v1/scan", "?type=string")],
)
def test_every_documented_media_type_is_offered(path: str, query: str) -> None:
    @served()
    async def offered(site: Site) -> None:
        stored(site.node, path)
        for media_type in media_types(path, "get"):
            answer = await site.call("GET", path.replace("{key}", "k") + query, {"Accept": media_type})
            assert (answer.status, answer.headers["content-type"]) == (200, media_type)

    offered()
