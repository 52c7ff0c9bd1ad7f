"""``/v1/batch``: several operations of one keyspace as one change."""

import base64
import json

import pytest

from edgekv.codec import pack, unpack
from edgekv.limits import HTTP_BATCH_BYTES_MAX, HTTP_BATCH_OPERATIONS_MAX
from tests.unit.api.http.site import NOW_MS, Site, served


@served()
async def test_puts_deletes_and_adds_answer_one_result_each(site: Site) -> None:
    site.node.operations.set(b"old", b"1")
    wanted = [
        {"op": "put", "key": "a", "value": "1", "ttl_s": 60},
        {"op": "delete", "key": "old"},
        {"op": "delete", "key": "none"},
        {"op": "add", "key": "n", "n": 2},
        {"op": "put", "key": {"base64": base64.b64encode(b"\xff").decode()}, "value": {"base64": ""}},
    ]
    answer = await site.post("/v1/batch", {"operations": wanted})
    assert (answer.status, answer.json()) == (200, {"results": [None, True, False, 2, None]})
    rows = site.node.operations.rows
    assert (rows[b"a"].value, rows[b"a"].expiry_ms, rows[b"\xff"].value) == (b"1", NOW_MS + 60_000, b"")


@served()
async def test_msgpack_carries_keys_and_values_as_bytes(site: Site) -> None:
    wanted = {"operations": [{"op": "put", "key": b"\xff", "value": b"\x00"}, {"op": "add", "key": "text", "n": 1}]}
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    answer = await site.call("POST", "/v1/batch", headers, pack(wanted))
    assert unpack(answer.body) == {"results": [None, 1]}
    assert site.node.operations.rows[b"\xff"].value == b"\x00"


@served()
async def test_operations_on_all_types_are_one_batch_with_a_result_each(site: Site) -> None:
    site.node.operations.sets.add(b"s", [b"old"])
    wanted = [
        {"op": "put", "key": "a", "value": "1"},
        {"op": "sadd", "key": "s", "members": ["x", "y", "old"]},
        {"op": "srem", "key": "s", "members": ["old", "none"]},
        {"op": "srem", "key": "s", "members": []},
        {"op": "hset", "key": "m", "fields": {"f": "1", "g": "2"}},
        {"op": "hset", "key": "m", "fields": [[{"base64": "/w=="}, ""]]},
        {"op": "hadd", "key": "m", "field": "f", "n": 4},
        {"op": "hdel", "key": "m", "fields": ["g", "none"]},
    ]
    answer = await site.post("/v1/batch", {"operations": wanted})
    assert (answer.status, answer.json()) == (200, {"results": [None, 2, 1, 0, 2, 1, 5, 1]})
    assert set(site.node.operations.sets.rows[b"s"]) == {b"x", b"y"}
    assert site.node.operations.maps.rows[b"m"] == {b"f": b"5", b"\xff": b""}


@served()
async def test_a_batch_that_meets_another_type_is_a_conflict(site: Site) -> None:
    site.node.operations.sets.add(b"s", [b"a"])
    for operation in ({"op": "add", "n": 1}, {"op": "hset", "fields": {"f": "1"}}):
        answer = await site.post("/v1/batch", {"operations": [{"key": "s", **operation}]})
        assert (answer.status, answer.json()["code"]) == (409, "wrong-type")


@served()
async def test_elements_and_fields_count_as_operations_do(site: Site) -> None:
    many = [{"op": "sadd", "key": "s", "members": ["a"] * (HTTP_BATCH_OPERATIONS_MAX // 2)}] * 2
    assert (await site.post("/v1/batch", {"operations": many})).status == 200
    assert (await site.post("/v1/batch", {"operations": [*many, PUT]})).status == 413


PUT = {"op": "put", "key": "k", "value": "v"}


@pytest.mark.parametrize(
    "wanted",
    [
        [PUT],
        {"operations": PUT},
        {"operations": [PUT], "more": 1},
        {"operations": [PUT, 1]},
        {"operations": [PUT, {"op": "incr", "key": "k"}]},
        {"operations": [PUT, {"op": ["put"], "key": "k"}]},
        {"operations": [PUT, {"op": "put", "key": "k"}]},
        {"operations": [PUT, {"op": "delete", "key": "k", "value": "v"}]},
        {"operations": [PUT, {**PUT, "ttl_s": 0}]},
        {"operations": [PUT, {**PUT, "key": 1}]},
        {"operations": [PUT, {**PUT, "key": "\ud800"}]},
        {"operations": [PUT, {**PUT, "value": {"base64": "?"}}]},
        {"operations": [PUT, {**PUT, "value": {"base64": "YQ==", "x": 1}}]},
        {"operations": [PUT, {**PUT, "value": None}]},
        {"operations": [PUT, {"op": "add", "key": "k", "n": 1.5}]},
        {"operations": [PUT, {"op": "sadd", "key": "k", "members": "a"}]},
        {"operations": [PUT, {"op": "sadd", "key": "k"}]},
        {"operations": [PUT, {"op": "hset", "key": "k", "fields": ["a"]}]},
        {"operations": [PUT, {"op": "hset", "key": "k", "fields": {"a": 1}}]},
        {"operations": [PUT, {"op": "hdel", "key": "k", "fields": {"a": "1"}}]},
        {"operations": [PUT, {"op": "hadd", "key": "k", "field": "f", "n": "1"}]},
        {"operations": [PUT, {"op": "hadd", "key": "k", "n": 1}]},
        {"operations": [PUT, {"op": "srem", "key": "", "members": []}]},
    ],
)
def test_one_malformed_operation_refuses_the_whole_batch(wanted: object) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.post("/v1/batch", wanted)
        assert (answer.status, answer.json()["code"], answer.json()["outcome"]) == (
            400,
            "invalid-request",
            "not-applied",
        )
        assert not site.node.operations.rows

    refused()


@served()
async def test_the_error_says_which_operation_is_wrong(site: Site) -> None:
    answer = await site.post("/v1/batch", {"operations": [PUT, PUT, {"op": "put"}]})
    assert "operation 2" in answer.json()["detail"]


@served()
async def test_too_many_operations_or_bytes_are_too_large(site: Site) -> None:
    many = [{"op": "delete", "key": "k"}] * (HTTP_BATCH_OPERATIONS_MAX + 1)
    assert (await site.post("/v1/batch", {"operations": many})).status == 413
    head = {"Content-Type": "application/json", "Content-Length": str(HTTP_BATCH_BYTES_MAX + 1)}
    assert (await site.call("POST", "/v1/batch", head)).status == 413


@served()
async def test_a_batch_of_too_many_bytes_is_to_be_split_as_no_setting_bounds_it(site: Site) -> None:
    head = {"Content-Type": "application/json", "Content-Length": str(HTTP_BATCH_BYTES_MAX + 1)}
    detail = (await site.call("POST", "/v1/batch", head)).json()["detail"]
    assert detail == f"the body is longer than {HTTP_BATCH_BYTES_MAX} bytes, the limit here. Split it."


@served()
async def test_an_empty_batch_does_nothing(site: Site) -> None:
    assert (await site.post("/v1/batch", {"operations": []})).json() == {"results": []}


@served()
async def test_deep_nesting_is_refused_in_both_formats(site: Site) -> None:
    deep = b"[" * 100_000
    assert (await site.call("POST", "/v1/batch", {"Content-Type": "application/json"}, deep)).status == 400
    assert (
        await site.call("POST", "/v1/batch", {"Content-Type": "application/msgpack"}, b"\x91" * 100_000)
    ).status == 400
    assert json.loads((await site.call("GET", "/v1/status")).body)["ready"] is True
