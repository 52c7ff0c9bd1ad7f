"""The short way: which requests take it, that it answers as the ordinary way does, and that order survives where the two meet."""

import asyncio
from collections.abc import Mapping

import pytest

from edgekv.errors import DiskFull, LogFailed
from tests.unit.api.http.site import Client, Response, Site, served, until

ORDINARY = {"X-Ordinary": "1"}
"""A header that the short way does not know: it sends a request the ordinary way and changes nothing else."""


def went_the_ordinary_way(site: Site) -> int:
    """aiohttp counts what its task answers."""
    return site.server._aiohttp.requests_count


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def settle(site: Site) -> None:
    """Let aiohttp's task of the first connection start, so that it is idle."""
    await until(lambda: all(conn._waiter is not None for conn in site.server._aiohttp.connections))


def content(answer: Response) -> tuple[int, dict[str, str], bytes]:
    return answer.status, {name: text for name, text in answer.headers.items() if name != "date"}, answer.body


@served()
async def test_plain_gets_and_puts_of_a_key_take_it(site: Site) -> None:
    await settle(site)
    assert (
        await site.call("PUT", "/v1/kv/a%2Fb", {"User-Agent": "u", "Content-Type": "t", "Accept": "*/*"}, b"1")
    ).status == 204
    assert (await site.call("GET", "/v1/kv/a%2fb")).body == b"1"
    assert (await site.call("GET", "/v1/kv/none")).status == 404
    assert went_the_ordinary_way(site) == 0


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/v1/kv/k", ORDINARY),
        ("GET", "/v1/kv/k", {"If-None-Match": "*"}),
        ("GET", "/v1/kv/k", {"Accept": "application/json"}),
        ("GET", "/v1/kv/k", {"Connection": "close"}),
        ("PUT", "/v1/kv/k?ttl_s=1", {}),
        ("PUT", "/v1/kv/k", {"Content-Encoding": "gzip"}),
        ("PUT", "/v1/kv/k", {"Idempotency-Key": "1"}),
        ("DELETE", "/v1/kv/k", {}),
        ("HEAD", "/v1/kv/k", {}),
        ("GET", "/v1/kv/%zz", {}),
        ("GET", "/livez", {}),
    ],
)
def test_what_needs_more_goes_the_ordinary_way(method: str, target: str, headers: Mapping[str, str]) -> None:
    @served()
    async def ordinary(site: Site) -> None:
        await settle(site)
        await site.call(method, target, headers)
        assert went_the_ordinary_way(site) == 1

    ordinary()


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/kv/k", b""),
        ("GET", "/v1/kv/none", b""),
        ("GET", "/v1/kv/", b""),
        ("GET", "/v1/kv/" + "k" * 5000, b""),
        ("PUT", "/v1/kv/", b"1"),
        ("PUT", "/v1/kv/new", b"x" * 1001),
        ("GET", "/v1/kv/k", b"a body that nobody asked for"),
    ],
)
def test_both_ways_answer_alike(method: str, target: str, body: bytes) -> None:
    @served(value_bytes_max=1000)
    async def alike(site: Site) -> None:
        site.node.operations.set(b"k", b"value")
        site.node.make_durable()
        await settle(site)
        short = await site.call(method, target, body=body)
        assert content(await site.call(method, target, ORDINARY, body)) == content(short)

    alike()


@served()
async def test_both_ways_store_alike_and_count_alike(site: Site) -> None:
    for headers in ({}, ORDINARY):
        stored = await site.call("PUT", "/v1/kv/k", headers, b"1")
        assert content(stored)[1].keys() == {"etag"}
        assert (await site.call("GET", "/v1/kv/k", headers)).headers["etag"] == stored.headers["etag"]
        await site.call("GET", "/v1/kv/none", headers)
    assert dict(site.node.metrics.operations) == {
        ("put", "default", "ok"): 2,
        ("get", "default", "ok"): 2,
        ("get", "default", "not-found"): 2,
    }
    assert site.node.metrics.op_seconds["put"].count == 2


async def held_write(site: Site) -> Client:
    """A PUT by the short way that waits for its frame."""
    await settle(site)
    site.node.log_stuck = True
    await site.client.send("PUT", "/v1/kv/k", body=b"1")
    await until(lambda: len(site.node.operations.filling.waiters) == 1)
    return site.client


@served()
async def test_requests_behind_a_held_reply_wait_their_turn(site: Site) -> None:
    client = await held_write(site)
    for target in ("/livez", "/v1/kv/none", "/v1/kv/k"):
        await client.send("GET", target)
        await turns()  # Each arrives by itself.
    assert not client.reader._buffer  # type: ignore[attr-defined]
    site.node.make_durable()
    answers = [await client.receive() for _ in range(4)]
    assert [answer.status for answer in answers] == [204, 200, 404, 200]
    assert (answers[1].body, answers[3].body) == (b"ok\n", b"1")


@served()
async def test_a_client_that_asks_and_never_reads_is_answered_no_further(site: Site) -> None:
    site.node.operations.set(b"k", b"x" * 100_000)
    site.node.make_durable()
    await settle(site)
    for _ in range(150):
        await site.client.send("GET", "/v1/kv/k")
        await turns(5)
    (connection,) = site.server._aiohttp.connections
    assert connection.transport is not None
    assert connection.transport.get_write_buffer_size() < 300_000
    for _ in range(150):
        assert len((await site.client.receive()).body) == 100_000


@served()
async def test_the_connection_takes_the_short_way_again_after_the_ordinary_one(site: Site) -> None:
    await settle(site)
    await site.call("PUT", "/v1/kv/k", body=b"1")
    await site.call("GET", "/livez")
    await site.call("GET", "/v1/kv/k")
    assert went_the_ordinary_way(site) == 1


@served()
async def test_a_head_and_a_body_in_pieces_are_one_request(site: Site) -> None:
    await settle(site)
    for piece in (b"PUT /v1/k", b"v/k HTTP/1.1\r\nHo", b"st: x\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd"):
        await site.client.send_raw(piece)
        await turns(5)
    assert (await site.client.receive()).status == 204
    assert site.node.operations.rows[b"k"].value == b"abcd"


@served()
async def test_a_body_near_the_read_buffer_is_stored_whole_by_either_way(site: Site) -> None:
    await settle(site)
    for size in (60_000, 65_536, 70_000, 131_072, 131_073, 200_000):
        assert (await site.call("PUT", "/v1/kv/k", body=b"x" * size)).status == 204
        assert (await site.call("GET", "/v1/kv/k")).body == b"x" * size


@served()
async def test_a_client_that_leaves_before_its_held_reply_hurts_nobody(site: Site) -> None:
    client = await held_write(site)
    await client.close()
    await until(lambda: not site.server._aiohttp.connections)
    site.node.log_stuck = False
    site.node.make_durable()
    other = await site.connect()
    assert (await other.call("GET", "/v1/kv/k")).body == b"1"


@served()
async def test_a_failed_log_is_told_by_the_short_way_too(site: Site) -> None:
    client = await held_write(site)
    site.node.fail_log(LogFailed("fdatasync: Input/output error"))
    answer = await client.receive()
    assert (answer.status, answer.json()["outcome"]) == (504, "unknown")
    assert site.node.metrics.operations["put", "default", "log-failed"] == 1


@served()
async def test_a_refused_write_is_told_by_the_short_way_too(site: Site) -> None:
    await settle(site)
    site.node.operations.fault = DiskFull("no room")
    assert (await site.call("PUT", "/v1/kv/k", body=b"1")).status == 507
    assert went_the_ordinary_way(site) == 0


@served()
async def test_a_write_under_back_pressure_waits_on_the_ordinary_way(site: Site) -> None:
    await settle(site)
    site.node.block()
    await site.client.send("PUT", "/v1/kv/k", body=b"1")
    await until(lambda: len(site.node.operations.engine.on_room) == 1)
    site.node.open()
    assert (await site.client.receive()).status == 204
    assert went_the_ordinary_way(site) == 1


@served()
async def test_close_waits_for_a_held_reply(site: Site) -> None:
    client = await held_write(site)
    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(site.server.close())
        await turns()
        assert not closing.done()
        site.node.make_durable()
    assert (await client.receive()).status == 204
    assert await client.ended()
