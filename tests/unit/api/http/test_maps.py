"""``/v1/map``: fields that are values or counters."""

import base64

import pytest

from edgekv.codec import pack, unpack
from tests.unit.api.http.site import Site, served

MSGPACK = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
FF = {"base64": base64.b64encode(b"\xff").decode()}


@served()
async def test_a_post_sets_adds_and_removes_and_says_what_it_did(site: Site) -> None:
    first = await site.post("/v1/map/m", {"set": {"a": "1", "b": "x"}, "add": {"hits": 2, "misses": -1}})
    assert first.json() == {
        "created": 2,
        "sums": [{"field": "hits", "value": 2}, {"field": "misses", "value": -1}],
        "removed": 0,
    }
    second = await site.post("/v1/map/m", {"set": {"a": "2"}, "add": {"hits": 3}, "remove": ["b", "none"]})
    assert second.json() == {"created": 0, "sums": [{"field": "hits", "value": 5}], "removed": 1}
    assert (await site.call("GET", "/v1/map/m")).json() == {
        "entries": [{"field": "a", "value": "2"}, {"field": "hits", "value": "5"}, {"field": "misses", "value": "-1"}],
        "count": 3,
        "cursor": None,
    }


@served()
async def test_all_of_one_post_is_one_change_set_then_add_then_remove(site: Site) -> None:
    await site.post("/v1/map/m", {"remove": ["f"], "add": {"f": 2}, "set": {"f": "1"}})
    assert site.node.operations.batches == [
        [("hset", b"m", [(b"f", b"1")]), ("hadd", b"m", b"f", 2), ("hdel", b"m", [b"f"])]
    ]


@served()
async def test_pairs_carry_names_that_json_cannot(site: Site) -> None:
    answer = await site.post("/v1/map/m", {"set": [[FF, FF], ["a", "1"]], "add": [[{"base64": "AA=="}, 1]]})
    assert answer.json()["sums"] == [{"field": "\x00", "value": 1}]
    entries = (await site.call("GET", "/v1/map/m")).json()["entries"]
    assert entries == [{"field": "\x00", "value": "1"}, {"field": "a", "value": "1"}, {"field": FF, "value": FF}]


@served()
async def test_msgpack_is_exact_in_both_directions(site: Site) -> None:
    answer = await site.call("POST", "/v1/map/m", MSGPACK, pack({"set": {b"\xff": b"\xfe"}, "add": {"n": 1}}))
    assert unpack(answer.body) == {"created": 1, "sums": [{"field": b"n", "value": 1}], "removed": 0}
    page = unpack((await site.call("GET", "/v1/map/m?limit=1", MSGPACK)).body)
    assert page["entries"] == [{"field": b"n", "value": b"1"}] and page["count"] == 2
    rest = unpack((await site.call("GET", f"/v1/map/m?cursor={page['cursor']}", MSGPACK)).body)
    assert (rest["entries"], rest["cursor"]) == ([{"field": b"\xff", "value": b"\xfe"}], None)


@served()
async def test_one_field_is_json_msgpack_or_the_raw_bytes_each_with_its_etag(site: Site) -> None:
    site.node.operations.maps.put(b"m", [(b"f", b"\xfe\x00")])
    shown = {
        media_type: await site.call("GET", "/v1/map/m?field=f", {"Accept": media_type})
        for media_type in ("*/*", "application/msgpack", "application/octet-stream")
    }
    assert shown["*/*"].json() == {"value": {"base64": "/gA="}}
    assert unpack(shown["application/msgpack"].body) == {"value": b"\xfe\x00"}
    assert shown["application/octet-stream"].body == b"\xfe\x00"
    etags = {answer.headers["etag"] for answer in shown.values()}
    assert len(etags) == 3 and {answer.headers["vary"] for answer in shown.values()} == {"Accept"}
    known = await site.call("GET", "/v1/map/m?field=f", {"If-None-Match": shown["*/*"].headers["etag"]})
    assert (known.status, known.body) == (304, b"")


@served()
async def test_a_field_that_is_not_there_is_404_as_a_map_that_is_not(site: Site) -> None:
    site.node.operations.maps.put(b"m", [(b"f", b"1")])
    for target in ("/v1/map/m?field=g", "/v1/map/none?field=f", "/v1/map/none"):
        answer = await site.call("GET", target)
        assert (answer.status, answer.json()["code"]) == (404, "not-found")


@served()
async def test_a_key_of_another_type_is_a_conflict_for_every_method(site: Site) -> None:
    await site.post("/v1/set/k", {"add": ["a"]})
    answers = [await site.call(method, "/v1/map/k") for method in ("GET", "DELETE")]
    answers += [await site.post("/v1/map/k", {"set": {"a": "1"}}), await site.call("GET", "/v1/map/k?field=a")]
    assert {(answer.status, answer.json()["code"]) for answer in answers} == {(409, "wrong-type")}


@served()
async def test_adding_to_a_field_that_is_no_number_is_a_conflict(site: Site) -> None:
    await site.post("/v1/map/m", {"set": {"f": "text"}})
    answer = await site.post("/v1/map/m", {"add": {"f": 1}})
    assert (answer.status, answer.json()["code"]) == (409, "not-a-number")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"set": "a"},
        {"set": {"a": 1}},
        {"set": [["a"]]},
        {"set": [["a", "b", "c"]]},
        {"set": ["ab"]},
        {"add": {"a": "1"}},
        {"add": {"a": 1.5}},
        {"add": {"a": 1e17}},
        {"remove": {"a": 1}},
        {"remove": "a"},
        {"set": {"a": "1"}, "delete": ["b"]},
    ],
)
def test_what_is_no_change_of_a_map_is_refused_and_changes_nothing(value: object) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.post("/v1/map/m", value)
        assert (answer.status, answer.json()["code"]) == (400, "invalid-request")
        assert not site.node.operations.maps.rows

    refused()


@served()
async def test_a_deleted_map_is_gone(site: Site) -> None:
    await site.post("/v1/map/m", {"set": {"a": "1"}})
    assert [(await site.call("DELETE", "/v1/map/m")).status for _ in range(2)] == [204, 404]
