"""``/v1/set``: members in and out, and what the key's other types mean for it."""

import base64
import json

import pytest

from edgekv.api.http import listings
from edgekv.codec import pack, unpack
from edgekv.limits import HTTP_BATCH_OPERATIONS_MAX
from tests.unit.api.http.site import Response, Site, served, until

MSGPACK = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}


async def members(site: Site, target: str) -> Response:
    return await site.call("GET", target)


@served()
async def test_a_post_adds_and_removes_and_says_how_many_it_was(site: Site) -> None:
    assert (await site.post("/v1/set/s", {"add": ["a", "b"]})).json() == {"added": 2, "removed": 0}
    assert (await site.post("/v1/set/s", {"add": ["b", "c"], "remove": ["a", "x"]})).json() == {
        "added": 1,
        "removed": 1,
    }
    assert (await site.call("GET", "/v1/set/s")).json() == {"members": ["b", "c"], "count": 2, "cursor": None}


@served()
async def test_adds_and_removes_of_one_post_are_one_change(site: Site) -> None:
    await site.post("/v1/set/s", {"remove": ["a"], "add": ["a", "b"]})
    assert site.node.operations.batches == [[("sadd", b"s", [b"a", b"b"]), ("srem", b"s", [b"a"])]]


@served()
async def test_lists_that_are_empty_change_nothing(site: Site) -> None:
    assert (await site.post("/v1/set/s", {"add": [], "remove": []})).json() == {"added": 0, "removed": 0}
    assert (await site.call("GET", "/v1/set/s")).status == 404


@served()
async def test_one_member_is_tested_without_reading_the_others(site: Site) -> None:
    await site.post("/v1/set/s", {"add": ["a b", {"base64": base64.b64encode(b"\xff").decode()}, ""]})
    for member, contained in (("a%20b", True), ("%ff", True), ("", True), ("b", False)):
        answer = await site.call("GET", f"/v1/set/s?member={member}")
        assert (answer.status, answer.json()) == (200, {"contains": contained})
    assert (await site.call("GET", "/v1/set/none?member=a")).json() == {"contains": False}
    assert site.node.operations.sets.pages == 0


@served()
async def test_json_marks_members_that_are_not_text_and_msgpack_is_exact(site: Site) -> None:
    await site.call("POST", "/v1/set/s", MSGPACK, pack({"add": [b"\xff", "é"]}))
    assert (await site.call("GET", "/v1/set/s")).json()["members"] == ["é", {"base64": "/w=="}]
    answer = await site.call("GET", "/v1/set/s", MSGPACK)
    assert unpack(answer.body) == {"members": ["é".encode(), b"\xff"], "count": 2, "cursor": None}


@pytest.mark.parametrize("limit", [1, 7, 300, 1000])
def test_following_the_cursor_shows_every_member_once_in_order(limit: int) -> None:
    @served()
    async def followed(site: Site) -> None:
        names = [b"%03d" % number for number in range(0, 700, 7)] + [b"", b"\xff\x00"]
        site.node.operations.sets.add(b"s/%", names)
        seen: list[object] = []
        target = f"/v1/set/s/%25?limit={limit}"
        while target:
            answer = await members(site, target)
            seen += answer.json()["members"]
            assert answer.json()["count"] == len(names)
            link = answer.headers.get("link", "")
            assert bool(link) == (answer.json()["cursor"] is not None)
            target = f"/v1/set/s/%25{link[1 : link.index('>')]}" if link else ""
        assert seen == [*sorted(name.decode() for name in names[:-1]), {"base64": "/wA="}]

    followed()


def test_a_page_ends_at_its_bytes_whatever_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "HTTP_SCAN_BYTES_MAX", 10_000)

    @served()
    async def bounded(site: Site) -> None:
        site.node.operations.sets.add(b"s", [b"%0500d" % number for number in range(100)])
        page = (await members(site, "/v1/set/s?limit=100")).json()
        assert 10 <= len(page["members"]) <= 30 and page["cursor"] and page["count"] == 100
        assert site.server._door.budget.used == 0

    bounded()


@served()
async def test_a_large_page_is_read_in_steps_with_the_loop_served_between_them(site: Site) -> None:
    site.node.operations.sets.add(b"s", [b"%d" % number for number in range(2000)])
    assert len((await members(site, "/v1/set/s?limit=2000")).json()["members"]) == 2000
    assert site.node.operations.sets.pages >= 2000 // 256


@served()
async def test_the_etag_is_of_the_content_so_it_changes_with_it_and_304_saves_the_body(site: Site) -> None:
    await site.post("/v1/set/s", {"add": ["a"]})
    first = await members(site, "/v1/set/s")
    assert (await site.call("GET", "/v1/set/s", {"If-None-Match": first.headers["etag"]})).status == 304
    await site.post("/v1/set/s", {"add": ["a"]})
    assert (await members(site, "/v1/set/s")).headers["etag"] == first.headers["etag"]
    await site.post("/v1/set/s", {"add": ["b"]})
    changed = await site.call("GET", "/v1/set/s", {"If-None-Match": first.headers["etag"]})
    assert changed.status == 200 and changed.headers["etag"] != first.headers["etag"]


@served()
async def test_a_deleted_set_is_gone_and_deleting_nothing_is_404(site: Site) -> None:
    await site.post("/v1/set/s", {"add": ["a"]})
    assert [(await site.call("DELETE", "/v1/set/s")).status for _ in range(2)] == [204, 404]
    assert (await members(site, "/v1/set/s")).status == 404


@served()
async def test_a_key_of_another_type_is_a_conflict_for_every_method(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    answers = [await site.call(method, "/v1/set/k") for method in ("GET", "DELETE")]
    answers += [await site.post("/v1/set/k", {"add": ["a"]}), await members(site, "/v1/set/k?member=a")]
    assert {(answer.status, answer.json()["code"]) for answer in answers} == {(409, "wrong-type")}
    assert (await site.call("GET", "/v1/kv/k")).body == b"1"


@served()
async def test_a_conflict_waits_when_it_rests_on_a_row_that_is_not_durable(site: Site) -> None:
    site.node.log_stuck = True
    site.node.operations.sets.add(b"s", [b"a"])
    site.node.operations.sets.remove(b"s", [b"a"])
    await site.client.send("GET", "/v1/set/s")
    await until(lambda: bool(site.node.operations.filling.waiters))
    site.node.make_durable()
    assert (await site.client.receive()).status == 404


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"add": "a"},
        {"add": {"a": 1}},
        {"add": [1]},
        {"add": [None]},
        {"add": ["a"], "more": 1},
        {"remove": [{}]},
    ],
)
def test_what_is_no_change_of_a_set_is_refused_and_changes_nothing(value: object) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.post("/v1/set/s", value)
        assert (answer.status, answer.json()["code"]) == (400, "invalid-request")
        assert not site.node.operations.sets.rows

    refused()


@pytest.mark.parametrize(
    "query", ["limit=0", "cursor=!", "cursor=A", "cursor=AA%3D%3D", "member=a&limit=1", "member=a+b", "field=a"]
)
def test_a_query_that_cannot_be_meant_is_refused(query: str) -> None:
    @served()
    async def refused(site: Site) -> None:
        await site.post("/v1/set/s", {"add": ["a"]})
        assert (await site.call("GET", f"/v1/set/s?{query}")).status == 400

    refused()


@served()
async def test_too_many_members_or_bytes_are_refused_up_front(site: Site) -> None:
    many = {"add": ["a"] * HTTP_BATCH_OPERATIONS_MAX, "remove": ["b"]}
    for wanted in (many, {"add": ["a" * 4097]}):
        answer = await site.post("/v1/set/s", wanted)
        assert (answer.status, answer.json()["code"], answer.json()["outcome"]) == (413, "too-large", "not-applied")
    assert (await members(site, f"/v1/set/s?member={'a' * 4097}")).status == 413
    assert not site.node.operations.sets.rows
    assert json.loads((await site.post("/v1/set/s", {"add": ["a" * 4096]})).body) == {"added": 1, "removed": 0}
