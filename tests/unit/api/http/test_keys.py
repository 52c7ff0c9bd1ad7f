"""``/v1/kv`` and ``/v1/counter``: what each method does and answers."""

import pytest

from edgekv.api.http.kv import etag_of
from edgekv.codec import pack, unpack
from edgekv.ids import Actor, node_actor
from edgekv.node.operations import Version
from tests.unit.api.http.site import NOW_MS, Site, served


@served()
async def test_a_value_is_stored_and_read_as_it_is(site: Site) -> None:
    value = bytes(range(256))
    put = await site.call("PUT", "/v1/kv/k", body=value)
    got = await site.call("GET", "/v1/kv/k")
    assert (put.status, put.body, got.status, got.body) == (204, b"", 200, value)
    assert got.headers["content-type"] == "application/octet-stream"
    assert put.headers["etag"] == got.headers["etag"]


@served()
async def test_a_put_without_a_body_stores_the_empty_value(site: Site) -> None:
    assert (await site.call("PUT", "/v1/kv/k")).status == 204
    got = await site.call("GET", "/v1/kv/k")
    assert (got.status, got.body) == (200, b"")


@served()
async def test_the_etag_is_the_version_so_each_write_changes_it(site: Site) -> None:
    first = (await site.call("PUT", "/v1/kv/k", body=b"same")).headers["etag"]
    second = (await site.call("PUT", "/v1/kv/k", body=b"same")).headers["etag"]
    assert first != second
    row = site.node.operations.rows[b"k"]
    assert second == f'"{row.hlc:016x}-0000000161626364"'


@served()
async def test_a_client_that_has_the_version_gets_304(site: Site) -> None:
    etag = (await site.call("PUT", "/v1/kv/k", body=b"1")).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        cached = await site.call("GET", "/v1/kv/k", {"If-None-Match": known})
        assert (cached.status, cached.body, cached.headers["etag"]) == (304, b"", etag)
    assert (await site.call("GET", "/v1/kv/k", {"If-None-Match": '"other"'})).body == b"1"


@served()
async def test_accept_chooses_between_the_raw_value_and_what_is_known_of_it(site: Site) -> None:
    etag = (await site.call("PUT", "/v1/kv/k?ttl_s=60", body=b"\xff")).headers["etag"]
    for accept in ("", "*/*", "application/octet-stream", "text/html, */*;q=0.8", "image/png", "application/*"):
        raw = await site.call("GET", "/v1/kv/k", {"Accept": accept} if accept else {})
        assert (raw.status, raw.body, raw.headers["etag"], raw.headers["vary"]) == (200, b"\xff", etag, "Accept")
    fields = {"version": etag.strip('"'), "expiry_ms": NOW_MS + 60_000}
    shown = await site.call("GET", "/v1/kv/k", {"Accept": "application/json"})
    assert shown.json() == {"key": "k", "type": "string", "value": {"base64": "/w=="}, **fields}
    assert (shown.headers["content-type"], shown.headers["etag"]) == ("application/json", f"W/{etag}")
    packed = await site.call("GET", "/v1/kv/k", {"Accept": "application/msgpack, */*;q=0.1"})
    assert unpack(packed.body) == {"key": b"k", "type": "string", "value": b"\xff", **fields}
    known = await site.call("GET", "/v1/kv/k", {"Accept": "application/json", "If-None-Match": f"W/{etag}"})
    assert known.status == 304


@served()
async def test_a_key_that_holds_no_string_is_a_conflict_to_read_and_may_be_overwritten_or_deleted(site: Site) -> None:
    for method, status in (("PUT", 204), ("DELETE", 204)):
        await site.post("/v1/set/k", {"add": ["a"]})
        answer = await site.call("GET", "/v1/kv/k")
        assert (answer.status, answer.json()["code"]) == (409, "wrong-type")
        assert (await site.call(method, "/v1/kv/k")).status == status
        assert (await site.call("GET", "/v1/set/k")).status == (409 if method == "PUT" else 404)
        await site.call("DELETE", "/v1/kv/k")


@served()
async def test_a_missing_key_is_404_for_get_and_delete(site: Site) -> None:
    for method in ("GET", "DELETE"):
        missing = await site.call(method, "/v1/kv/k")
        assert (missing.status, missing.json()["code"], missing.json()["outcome"]) == (404, "not-found", "not-applied")


@served()
async def test_a_deleted_key_is_gone(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    deleted = await site.call("DELETE", "/v1/kv/k")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await site.call("GET", "/v1/kv/k")).status == 404


@served()
async def test_head_answers_as_get_without_the_body(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"12345")
    head = await site.call("HEAD", "/v1/kv/k")
    assert (head.status, head.headers["content-length"]) == (200, "5")
    missing = await site.call("HEAD", "/v1/kv/none")
    assert missing.status == 404
    assert (await site.call("GET", "/v1/kv/k")).body == b"12345"  # The connection is in step.


@served()
async def test_ttl_s_is_added_to_the_nodes_time(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k?ttl_s=60", body=b"1")
    assert site.node.operations.rows[b"k"].expiry_ms == NOW_MS + 60_000


@pytest.mark.parametrize("query", ["ttl_s=0", "ttl_s=-1", "ttl_s=", "ttl_s=1.5", "ttl=60", "ttl_s=1&ttl_s=1"])
def test_a_ttl_that_cannot_be_meant_is_refused_and_nothing_is_stored(query: str) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.call("PUT", f"/v1/kv/k?{query}", body=b"1")
        assert (answer.status, answer.json()["code"]) == (400, "invalid-request")
        assert not site.node.operations.rows

    refused()


@pytest.mark.parametrize(
    ("target", "status"), [("/v1/kv/", 400), ("/v1/kv/" + "k" * 4097, 413), ("/v1/kv/" + "%6b" * 4096, 204)]
)
def test_a_key_has_1_to_4096_bytes_after_decoding(target: str, status: int) -> None:
    @served()
    async def judged(site: Site) -> None:
        assert (await site.call("PUT", target, body=b"1")).status == status

    judged()


@served()
async def test_a_conditional_write_is_refused_where_it_would_be_a_local_check_only(site: Site) -> None:
    for name in ("If-Match", "If-None-Match", "If-Unmodified-Since"):
        refused = await site.call("PUT", "/v1/kv/k", {name: "*"}, b"1")
        assert (refused.status, refused.json()["code"]) == (403, "denied")
    assert not site.node.operations.rows


@pytest.mark.parametrize(
    "header",
    [
        ("Idempotency-Key", "a"),
        ("Edgekv-Ack", "everywhere"),
        ("Edgekv-Ack-Timeout-Ms", "soon"),
        ("Edgekv-Ack-Timeout-Ms", "3600001"),
        ("Edgekv-Session-Timeout-Ms", "-1"),
        ("Edgekv-Consistency", "linearizable"),
        ("Edgekv-Session", "token"),
    ],
)
def test_a_guarantee_that_cannot_be_given_is_refused_not_ignored(header: tuple[str, str]) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.call("PUT", "/v1/kv/k", dict([header]), b"1")
        assert (answer.status, answer.json()["outcome"]) == (400, "not-applied")
        assert not site.node.operations.rows

    refused()


@served()
async def test_a_counter_adds_and_shows_its_sum(site: Site) -> None:
    assert (await site.post("/v1/counter/c", {"add": 5})).json() == {"value": 5}
    assert (await site.post("/v1/counter/c", {"add": -7})).json() == {"value": -2}
    assert (await site.call("GET", "/v1/counter/c")).json() == {"value": -2}
    assert (await site.call("DELETE", "/v1/counter/c")).status == 204
    assert (await site.call("GET", "/v1/counter/c")).status == 404


@served()
async def test_a_counter_has_the_etag_of_its_sum(site: Site) -> None:
    await site.post("/v1/counter/c", {"add": 5})
    etag = (await site.call("GET", "/v1/counter/c")).headers["etag"]
    assert (await site.call("GET", "/v1/counter/c", {"If-None-Match": etag})).status == 304
    await site.post("/v1/counter/c", {"add": 1.0})
    assert (await site.call("GET", "/v1/counter/c", {"If-None-Match": etag})).json() == {"value": 6}


@served()
async def test_a_key_of_another_type_is_a_conflict_for_every_method_of_a_counter(site: Site) -> None:
    await site.post("/v1/set/c", {"add": ["a"]})
    answers = [await site.call(method, "/v1/counter/c") for method in ("GET", "DELETE")]
    answers.append(await site.post("/v1/counter/c", {"add": 1}))
    assert {(answer.status, answer.json()["code"]) for answer in answers} == {(409, "wrong-type")}


@served()
async def test_a_counter_speaks_msgpack(site: Site) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    added = await site.call("POST", "/v1/counter/c", headers, pack({"add": 3}))
    assert (added.headers["content-type"], unpack(added.body)) == ("application/msgpack", {"value": 3})


@served()
async def test_a_merged_sum_beyond_64_bits_is_shown_in_full(site: Site) -> None:
    site.node.operations.set(b"c", b"%d" % (1 << 70))
    site.node.make_durable()
    assert (await site.call("GET", "/v1/counter/c")).json() == {"value": 1 << 70}


@served()
async def test_a_counter_adds_fractions_exactly_and_shows_all_digits(site: Site) -> None:
    assert (await site.post("/v1/counter/c", {"add": 0.1})).json() == {"value": 0.1}
    assert (await site.post("/v1/counter/c", {"add": 0.2})).body == b'{"value":0.3}'
    assert (await site.post("/v1/counter/c", {"add": 1})).json() == {"value": 1.3}, "an integer on top of a fraction"
    assert (await site.post("/v1/counter/c", {"add": -1e-17})).body == b'{"value":1.29999999999999999}'
    assert (await site.call("GET", "/v1/counter/c")).body == b'{"value":1.29999999999999999}'
    found = await site.call("GET", "/v1/counter/c", {"Accept": "application/msgpack"})
    assert unpack(found.body) == {"value": 1.3}


@served()
async def test_an_integer_that_would_leave_64_bits_is_a_conflict_also_beside_fractions(site: Site) -> None:
    await site.post("/v1/counter/c", {"add": (1 << 63) - 1})
    assert (await site.post("/v1/counter/c", {"add": 1})).status == 409
    assert (await site.post("/v1/counter/c", {"add": 0.5})).body == b'{"value":9223372036854775807.5}'


@served()
async def test_a_sum_of_any_size_is_shown(site: Site) -> None:
    site.node.operations.set(b"c", b"1" + b"0" * 4932)
    site.node.make_durable()
    assert (await site.call("GET", "/v1/counter/c")).body == b'{"value":1%b}' % (b"0" * 4932)
    found = await site.call("GET", "/v1/counter/c", {"Accept": "application/msgpack"})
    assert unpack(found.body) == {"value": float("inf")}


@served()
async def test_a_value_that_is_no_number_is_a_conflict_at_the_counter(site: Site) -> None:
    await site.call("PUT", "/v1/kv/c", body=b"text")
    for answer in (await site.call("GET", "/v1/counter/c"), await site.post("/v1/counter/c", {"add": 1})):
        assert (answer.status, answer.json()["code"]) == (409, "not-a-number")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"add": "1"},
        {"add": True},
        {"add": 1 << 63},
        {"add": 1e300},
        {"add": 1e19},
        {"add": 1, "x": 1},
        [1],
        1,
        None,
    ],
)
def test_what_is_no_increment_is_refused_and_counts_nothing(value: object) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.post("/v1/counter/c", value)
        assert (answer.status, answer.json()["code"]) == (400, "invalid-request")
        assert not site.node.operations.rows

    refused()


@served()
async def test_a_post_must_say_its_media_type_so_that_a_web_page_cannot_forge_one(site: Site) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = await site.call("POST", "/v1/counter/c", {"Content-Type": media_type}, b'{"add": 1}')
        assert (answer.status, answer.json()["code"]) == (415, "unsupported-media-type")
    assert not site.node.operations.rows


@pytest.mark.parametrize("body", [b"", b"{", b'{"add": NaN}', b"[" * 1000, b"\xff"])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    @served()
    async def refused(site: Site) -> None:
        answer = await site.call("POST", "/v1/counter/c", {"Content-Type": "application/json"}, body)
        assert answer.status == 400

    refused()


@served()
async def test_operations_are_counted_by_verb_and_result(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    await site.call("GET", "/v1/kv/k")
    await site.call("GET", "/v1/kv/none")
    assert dict(site.node.metrics.operations) == {
        ("put", "default", "ok"): 1,
        ("get", "default", "ok"): 1,
        ("get", "default", "not-found"): 1,
    }


def test_an_etag_tells_the_stamp_of_the_register_and_what_was_counted_beside_it() -> None:
    actor = node_actor(bytes(16), b"\x00\x00\x00\x01abcd")
    assert etag_of(Version(1, actor)) == '"0000000000000001-0000000161626364"'
    assert etag_of(Version(1, actor, 0xFF)) == '"0000000000000001-0000000161626364-00000000000000ff"'
    assert etag_of(Version(0, Actor(b""), 0xFF)) == '"0000000000000000-0000000000000000-00000000000000ff"'
