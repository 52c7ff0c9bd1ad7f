"""Errors on the wire: one table, one document, and a connection that stays usable."""

import inspect
import logging

import pytest

from edgekv import errors
from edgekv.api.http.problem import ANSWERS, code_of, problem
from edgekv.errors import Corruption, EdgeKVError
from tests.unit.api.http.site import Client, Site, served


def test_every_error_of_the_taxonomy_has_its_status() -> None:
    taxonomy = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EdgeKVError)}
    assert set(ANSWERS) == taxonomy


def test_only_an_unknown_outcome_is_504_so_that_a_client_can_tell_by_status() -> None:
    assert {kind for kind, answer in ANSWERS.items() if answer.status == 504} == {
        kind for kind in ANSWERS if kind.outcome == "unknown"
    }


def test_a_retryable_error_says_when() -> None:
    assert {kind for kind, answer in ANSWERS.items() if answer.retry_after_s} >= {
        kind for kind in ANSWERS if kind.retryable
    }


def test_an_error_keeps_its_code_outcome_and_sentence() -> None:
    error = Corruption("segment 3 is damaged.", path="seg")
    reply = problem(error)
    assert code_of(error) == "corruption" and b'"outcome": "not-applied"' in reply.body
    assert b"segment 3 is damaged." in reply.body and reply.code == 500


@served()
async def test_a_problem_is_an_rfc_9457_document(site: Site) -> None:
    answer = await site.call("GET", "/v1/kv/none")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().keys() == {"type", "title", "status", "detail", "code", "outcome", "retryable"}
    assert answer.json()["status"] == answer.status


@served()
async def test_a_path_that_is_not_served_is_404(site: Site) -> None:
    for target in ("/", "/v1/kv", "/v1", "/v1/scan/", "/v2/kv/k", "/%76%31/kv/k"):
        answer = await site.call("GET", target)
        assert (answer.status, answer.json()["code"]) == (404, "no-such-path")


@served()
async def test_a_method_that_is_not_offered_is_405_with_those_that_are(site: Site) -> None:
    expected = {
        "/v1/kv/k": "GET, HEAD, PUT, DELETE",
        "/v1/counter/k": "GET, HEAD, POST, DELETE",
        "/v1/scan": "GET, HEAD",
        "/v1/set/k": "GET, HEAD, POST, DELETE",
        "/v1/map/k": "GET, HEAD, POST, DELETE",
        "/v1/batch": "POST",
        "/v1/openapi.json": "GET, HEAD",
        "/livez": "GET, HEAD",
    }
    for target, allowed in expected.items():
        answer = await site.call("PATCH", target)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


async def refused(site: Site, data: bytes) -> tuple[int, str]:
    client: Client = await site.connect()
    await client.send_raw(data)
    answer = await client.receive()
    assert answer.json()["outcome"] == "not-applied" and await client.ended()
    return answer.status, answer.json()["code"]


@served()
async def test_what_is_not_http_is_told_so_and_the_connection_ends(site: Site) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        assert await refused(site, garbage) == (400, "not-http")
    assert (await site.call("GET", "/livez")).status == 200


@served()
async def test_a_request_line_or_header_beyond_its_limit_is_431(site: Site) -> None:
    assert await refused(site, b"GET /v1/kv/" + b"k" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == (431, "too-large")
    assert await refused(site, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"k" * 9_000 + b"\r\n\r\n") == (
        431,
        "too-large",
    )
    await site.client.close()
    client = await site.connect()
    await client.send_raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"k" * 9_000 + b"\r\n\r\n")
    detail = (await client.receive()).json()["detail"]
    assert detail == "the request line has more than 65536 bytes, or a header more than 8190. Shorten it."
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    status, _ = await refused(site, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")
    assert status in (400, 431)


@served()
async def test_two_lengths_that_disagree_are_refused_so_that_no_request_is_smuggled(site: Site) -> None:
    both = b"PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    twice = b"PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12"
    for data in (both, twice):
        assert await refused(site, data) == (400, "not-http")
    assert not site.node.operations.rows


def test_a_fault_of_ours_is_500_unknown_without_a_traceback_for_the_client(caplog: pytest.LogCaptureFixture) -> None:
    @served()
    async def fault(site: Site) -> None:
        site.node.operations.fault = ZeroDivisionError("secret")
        answer = await site.call("PUT", "/v1/kv/k", body=b"1")
        assert (answer.status, answer.json()["code"], answer.json()["outcome"]) == (500, "internal", "unknown")
        assert b"secret" not in answer.body and b"Traceback" not in answer.body

    with caplog.at_level(logging.ERROR, "edgekv.http"):
        fault()
    assert any(record.exc_info for record in caplog.records)


@served()
async def test_connection_close_and_http_1_0_are_honoured(site: Site) -> None:
    answer = await site.call("GET", "/livez", {"Connection": "close"})
    assert answer.headers["connection"] == "close" and await site.client.ended()
    old = await site.connect()
    await old.send_raw(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (await old.receive()).headers["connection"] == "keep-alive"
    await old.send_raw(b"GET /livez HTTP/1.0\r\n\r\n")
    assert (await old.receive()).headers["connection"] == "close" and await old.ended()
