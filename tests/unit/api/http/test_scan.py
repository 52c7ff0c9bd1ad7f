"""``/v1/scan``: order, pages, cursors and representations."""

import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.api.http import scan
from edgekv.api.http.content import JSON
from edgekv.api.http.scan import PageReader, cursor_text, read_cursor, wanted_page
from edgekv.api.http.waiting import Budget
from edgekv.codec import pack, unpack
from edgekv.errors import InvalidRequest
from tests.unit.api.http.site import Site, served
from tests.unit.node.inline_node import InlineNode


def fill(site: Site, rows: dict[bytes, bytes]) -> None:
    for key, value in rows.items():
        site.node.operations.set(key, value)
    site.node.make_durable()


def keys_in(answer: object) -> list[object]:
    assert isinstance(answer, dict)
    return [entry["key"] for entry in answer["entries"]]


@served()
async def test_entries_come_in_key_order_with_value_and_version(site: Site) -> None:
    fill(site, {b"b": b"2", b"a": b"1"})
    site.node.operations.set(b"c", b"3", expiry_ms=99)
    site.node.make_durable()
    answer = (await site.call("GET", "/v1/scan")).json()
    assert keys_in(answer) == ["a", "b", "c"] and answer["cursor"] is None
    assert answer["entries"][0]["value"] == "1" and "expiry_ms" not in answer["entries"][0]
    assert answer["entries"][2]["expiry_ms"] == 99
    etag = (await site.call("GET", "/v1/kv/a")).headers["etag"]
    assert f'"{answer["entries"][0]["version"]}"' == etag


@served()
async def test_prefix_and_start_are_bytes(site: Site) -> None:
    fill(site, {b"a/1": b"", b"a/2": b"", b"a/\xff": b"", b"b": b"", b"a 1": b""})
    assert keys_in((await site.call("GET", "/v1/scan?prefix=a%2F")).json()) == ["a/1", "a/2", {"base64": "YS//"}]
    assert keys_in((await site.call("GET", "/v1/scan?prefix=a/&start=a/2")).json()) == ["a/2", {"base64": "YS//"}]
    assert keys_in((await site.call("GET", "/v1/scan?prefix=a%2f%ff")).json()) == [{"base64": "YS//"}]
    assert keys_in((await site.call("GET", "/v1/scan?prefix=a%20")).json()) == ["a 1"]


@settings(max_examples=30)  # each starts a server
@given(st.sets(st.binary(min_size=1, max_size=6), max_size=40), st.binary(max_size=1), st.integers(1, 9))
def test_following_the_links_shows_every_key_of_the_prefix_once_and_in_order(
    keys: set[bytes], prefix: bytes, limit: int
) -> None:
    @served()
    async def walk(site: Site) -> None:
        fill(site, dict.fromkeys(keys, b"v"))
        target, seen = f"/v1/scan?prefix={''.join(f'%{byte:02x}' for byte in prefix)}&limit={limit}", []
        while target:
            answer = await site.call("GET", target, {"Accept": "application/msgpack"})
            page = [entry["key"] for entry in unpack(answer.body)["entries"]]
            assert len(page) <= limit
            seen += page
            link = answer.headers.get("link", "")
            assert bool(link) == (unpack(answer.body)["cursor"] is not None)
            target = link.partition("<")[2].partition(">")[0]
        assert seen == sorted(key for key in keys if key.startswith(prefix))

    walk()


@served()
async def test_sets_and_maps_are_listed_with_their_type_count_and_expiry_and_without_their_rows(site: Site) -> None:
    fill(site, {b"a": b"1"})
    site.node.operations.sets.add(b"s", [b"x", b"y"])
    site.node.operations.maps.put(b"m", [(b"f", b"1"), (b"g", b"2"), (b"h", b"3")])
    site.node.operations.ends[b"s"] = 99
    site.node.make_durable()
    string, hash_, set_ = (await site.call("GET", "/v1/scan")).json()["entries"]
    assert (string["type"], string["value"]) == ("string", "1")
    assert hash_ == {"key": "m", "type": "hash", "count": 3}
    assert set_ == {"key": "s", "type": "set", "count": 2, "expiry_ms": 99}


@served()
async def test_a_key_of_several_types_has_an_entry_for_each_in_one_page(site: Site) -> None:
    fill(site, {b"k": b"1", b"l": b"2"})
    site.node.operations.sets.rows[b"k"] = {b"x": b""}
    site.node.operations.maps.rows[b"k"] = {b"f": b"1"}
    first = (await site.call("GET", "/v1/scan?limit=1")).json()
    assert [(entry["key"], entry["type"]) for entry in first["entries"]] == [("k", each) for each in scan.TYPES]
    assert keys_in((await site.call("GET", f"/v1/scan?cursor={first['cursor']}")).json()) == ["l"]


@pytest.mark.parametrize("kind", scan.TYPES)
def test_a_type_leaves_the_others_out_and_goes_with_the_link(kind: str) -> None:
    @served()
    async def chosen(site: Site) -> None:
        fill(site, {b"%d string" % i: b"" for i in range(9)})
        for i in range(9):
            site.node.operations.sets.add(b"%d set" % i, [b"x"])
            site.node.operations.maps.put(b"%d hash" % i, [(b"f", b"1")])
        site.node.make_durable()
        target, seen = f"/v1/scan?type={kind}&limit=4", list[object]()
        while target:
            answer = await site.call("GET", target)
            assert len(answer.json()["entries"]) <= 4
            seen += keys_in(answer.json())
            target = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
        assert seen == [f"{i} {kind}" for i in range(9)]

    chosen()


def test_a_page_of_a_rare_type_ends_after_so_many_keys_and_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "HTTP_SCAN_KEYS_MAX", 500)

    @served()
    async def bounded(site: Site) -> None:
        fill(site, {b"%04d" % i: b"" for i in range(2000)})
        site.node.operations.sets.add(b"z", [b"x"])
        site.node.make_durable()
        target, pages, seen = "/v1/scan?type=set", 0, list[object]()
        while target:
            answer = await site.call("GET", target)
            pages, seen = pages + 1, seen + keys_in(answer.json())
            target = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
        assert seen == ["z"] and pages >= 3

    bounded()


@served()
async def test_a_link_says_rel_next(site: Site) -> None:
    fill(site, {b"a": b"", b"b": b""})
    link = (await site.call("GET", "/v1/scan?limit=1")).headers["link"]
    assert link.endswith('; rel="next"') and "limit=1" in link


def test_a_page_after_which_only_internal_keys_come_is_the_last_one(tmp_path: Path) -> None:
    node = InlineNode(tmp_path / "node")
    node.operations.set(b"A", b"1")
    for query, more in (("limit=1", False), ("limit=1&prefix=A", False), ("limit=1&start=9", False)):
        page = read_page(node, query)
        assert (b"Link" in page.headers(), json.loads(page.body())["cursor"] is not None) == (more, more)
    node.operations.set(b"z", b"2")
    page = read_page(node, "limit=1")
    assert b"Link" in page.headers()
    cursor = json.loads(page.body())["cursor"]
    assert read_cursor(cursor) == (b"", b"z")
    node.kill()


def read_page(node: InlineNode, query: str) -> PageReader:
    page = PageReader(wanted_page(query), JSON, Budget(1 << 20).hold())
    while page.step(node.operations):
        pass
    return page


@served()
async def test_msgpack_is_exact_and_json_marks_what_is_not_text(site: Site) -> None:
    fill(site, {b"\xff\x00": b"\xfe", b"t\xc3\xa9xt": "é".encode()})
    exact = unpack((await site.call("GET", "/v1/scan", {"Accept": "application/msgpack"})).body)["entries"]
    assert [(entry["key"], entry["value"]) for entry in exact] == [
        (b"t\xc3\xa9xt", "é".encode()),
        (b"\xff\x00", b"\xfe"),
    ]
    shown = (await site.call("GET", "/v1/scan", {"Accept": "application/json"})).json()["entries"]
    assert [(entry["key"], entry["value"]) for entry in shown] == [
        ("téxt", "é"),
        ({"base64": "/wA="}, {"base64": "/g=="}),
    ]


@served()
async def test_ndjson_has_one_entry_a_line_and_the_cursor_in_the_link(site: Site) -> None:
    fill(site, {b"a": b"1\n", b"b": b"2", b"c": b"3"})
    answer = await site.call("GET", "/v1/scan?limit=2", {"Accept": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson" and "link" in answer.headers
    assert [json.loads(line)["value"] for line in answer.body.splitlines()] == ["1\n", "2"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json;q=0.1, application/x-msgpack", "application/msgpack"),
        ("text/html, application/x-ndjson;q=0.5", "application/x-ndjson"),
        ("text/html, */*;q=0.1", "application/json"),
    ],
)
def test_accept_chooses_the_representation(accept: str, chosen: str) -> None:
    @served()
    async def negotiated(site: Site) -> None:
        assert (await site.call("GET", "/v1/scan", {"Accept": accept})).headers["content-type"] == chosen

    negotiated()


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "application/json;q=x"])
def test_an_accept_that_cannot_be_met_is_406(accept: str) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.call("GET", "/v1/scan", {"Accept": accept})
        assert (answer.status, answer.json()["code"]) == (406, "not-acceptable")

    refused()


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=10001",
        "limit=x",
        "cursor=%21",
        "cursor=AAAA",
        "start=a&cursor=kwHEAMQBbg",
        "prefix=b&cursor=kwHEAWHEAA",
        "prfix=a",
        "type=list",
        "type=",
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(query: str) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.call("GET", f"/v1/scan?{query}")
        assert (answer.status, answer.json()["code"]) == (400, "invalid-request")

    refused()


def test_a_page_ends_at_its_bytes_whatever_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "HTTP_SCAN_BYTES_MAX", 10_000)

    @served()
    async def bounded(site: Site) -> None:
        fill(site, {b"%04d" % number: b"x" * 500 for number in range(100)})
        answer = (await site.call("GET", "/v1/scan?limit=100")).json()
        assert 10 <= len(answer["entries"]) <= 30 and answer["cursor"]
        following = (await site.call("GET", f"/v1/scan?cursor={answer['cursor']}")).json()
        assert following["entries"][0]["key"] == f"{len(answer['entries']):04d}"

    bounded()


@served()
async def test_a_long_page_is_read_in_steps_with_the_loop_served_between_them(site: Site) -> None:
    fill(site, {b"%04d" % number: b"" for number in range(2000)})
    answer = (await site.call("GET", "/v1/scan?limit=2000")).json()
    assert len(answer["entries"]) == 2000
    assert site.node.operations.pages >= 2000 // 256


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_cursor_brings_back_prefix_and_key(prefix: bytes, rest: bytes) -> None:
    assert read_cursor(cursor_text(prefix, prefix + rest)) == (prefix, prefix + rest)


@given(
    st.binary(max_size=40)
    | st.builds(
        pack,
        st.lists(st.integers() | st.binary(max_size=5000), max_size=4).filter(
            lambda v: all(not isinstance(i, int) or -(1 << 63) <= i < 1 << 64 for i in v)
        ),
    )
)
def test_a_damaged_cursor_is_refused_and_nothing_else(data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    with contextlib.suppress(InvalidRequest):
        prefix, key = read_cursor(text)
        assert cursor_text(prefix, key) and key.startswith(prefix)
