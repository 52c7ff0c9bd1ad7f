"""Concurrent values over HTTP: all of them with a context, and writes that send it back."""

import pytest

from edgekv.api.http.content import MSGPACK
from edgekv.codec import unpack
from tests.unit.api.http.site import Site, served

K = "/v1/kv/k"


def holding(site: Site, *values: bytes) -> None:
    site.node.operations.siblings.values[b"k"] = list(values)
    if values:
        site.node.operations.set(b"k", values[0])


@served()
async def test_one_value_is_answered_as_elsewhere_with_its_context(site: Site) -> None:
    holding(site, b"a")
    answer = await site.call("GET", K)
    assert (answer.status, answer.body, answer.headers["edgekv-context"]) == (200, b"a", "context-a")
    again = await site.call("GET", K, {"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.headers["edgekv-context"]) == (304, "context-a")
    document = await site.call("GET", K, {"Accept": "application/json"})
    assert (document.json()["value"], document.headers["edgekv-context"]) == ("a", "context-a")


@served()
async def test_several_values_are_300_with_all_of_them(site: Site) -> None:
    holding(site, b"b", b"\xff")
    site.node.operations.siblings.values[b"k"] = [b"b", b"a"]
    answer = await site.call("GET", K)
    assert (answer.status, answer.headers["content-type"]) == (300, "application/json")
    assert answer.json() == {"context": "context-b-a", "values": ["b", "a"]}
    assert answer.headers["edgekv-context"] == "context-b-a"
    packed = await site.call("GET", K, {"Accept": MSGPACK})
    assert unpack(packed.body) == {"context": "context-b-a", "values": [b"b", b"a"]}
    again = await site.call("GET", K, {"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.headers["edgekv-context"]) == (304, "context-b-a")
    head = await site.call("HEAD", K)
    assert (head.status, head.headers["edgekv-context"]) == (300, "context-b-a")


@served()
async def test_an_absent_key_has_a_context_too(site: Site) -> None:
    holding(site)
    answer = await site.call("GET", K)
    assert (answer.status, answer.json()["code"], answer.headers["edgekv-context"]) == (404, "not-found", "context")


@served()
async def test_a_put_with_a_context_removes_what_was_read(site: Site) -> None:
    holding(site, b"b", b"a")
    assert (await site.call("PUT", K, {"Edgekv-Context": "context-a"}, b"c")).status == 204
    assert site.node.operations.siblings.values[b"k"] == [b"c", b"b"]
    assert (await site.call("PUT", f"{K}?ttl_s=5", {"Edgekv-Context": "context-c-b"}, b"d")).status == 204
    assert (await site.call("GET", K)).body == b"d"
    assert site.node.operations.rows[b"k"].expiry_ms > 0


@served()
async def test_a_delete_with_a_context_removes_what_was_read(site: Site) -> None:
    holding(site, b"b", b"a")
    assert (await site.call("DELETE", K, {"Edgekv-Context": "context-a"})).status == 204
    assert site.node.operations.siblings.values[b"k"] == [b"b"]
    assert (await site.call("DELETE", K, {"Edgekv-Context": "context-a"})).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_what_is_no_context_is_400_and_one_where_one_value_is_kept_403(method: str) -> None:
    @served()
    async def refused(site: Site) -> None:
        holding(site, b"a")
        answer = await site.call(method, K, {"Edgekv-Context": "rubbish"})
        assert (answer.status, answer.json()["outcome"]) == (400, "not-applied")
        assert (await site.call(method, K, {"Edgekv-Context": ""})).status == 400
        assert (await site.call(method, "/v1/kv/plain", {"Edgekv-Context": "context-a"})).status == 403
        assert site.node.operations.siblings.values[b"k"] == [b"a"]

    refused()


@served()
async def test_a_keyspace_that_keeps_one_value_says_no_context(site: Site) -> None:
    site.node.operations.set(b"k", b"v")
    assert "edgekv-context" not in (await site.call("GET", K)).headers


@served()
async def test_keyspaces_are_listed_with_prefixes_as_bytes_are_shown(site: Site) -> None:
    answer = await site.call("GET", "/v1/admin/keyspaces")
    assert [(each["name"], each["prefix"]) for each in answer.json()["keyspaces"]] == [
        ("default", ""),
        ("odd", {"base64": "/w=="}),
    ]
    packed = await site.call("GET", "/v1/admin/keyspaces", {"Accept": MSGPACK})
    assert unpack(packed.body)["keyspaces"][1]["prefix"] == b"\xff"
    assert (await site.call("GET", "/v1/admin/keyspaces?x=1")).status == 400
