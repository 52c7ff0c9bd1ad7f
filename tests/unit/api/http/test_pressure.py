"""Bounds: what waits, what is refused, and that nobody else notices."""

import asyncio

import pytest

from edgekv.api.http import body, waiting
from edgekv.errors import DiskFull
from tests.unit.api.http.site import Site, served, until


async def pause() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@served()
async def test_a_write_waits_for_room_and_goes_on_when_there_is_some(site: Site) -> None:
    site.node.block()
    await site.client.send("PUT", "/v1/kv/k", body=b"1")
    await until(lambda: len(site.node.operations.engine.on_room) == 1)
    assert not site.node.operations.rows
    site.node.open()
    assert (await site.client.receive()).status == 204


@served()
async def test_a_write_that_finds_the_room_taken_again_goes_on_waiting(site: Site) -> None:
    site.node.block()
    await site.client.send("PUT", "/v1/kv/k", body=b"1")
    engine = site.node.operations.engine
    await until(lambda: len(engine.on_room) == 1)
    engine.on_room.pop()()  # Called, although writes are still blocked.
    await until(lambda: len(engine.on_room) == 1)
    site.node.open()
    assert (await site.client.receive()).status == 204


@served()
async def test_reads_and_probes_are_answered_while_writes_wait(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    site.node.block()
    writers = [await site.connect() for _ in range(5)]
    for writer in writers:
        await writer.send("PUT", "/v1/kv/other", body=b"2")
    await until(lambda: len(site.node.operations.engine.on_room) == 1)
    async with asyncio.timeout(0.1):
        for target in ("/livez", "/readyz", "/v1/kv/k", "/v1/scan", "/metrics", "/v1/status"):
            assert (await site.call("GET", target)).status == 200
    site.node.open()
    assert [(await writer.receive()).status for writer in writers] == [204] * 5


def test_a_write_that_waited_too_long_is_refused_and_nothing_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "HTTP_ROOM_WAIT_S", 0.01)

    @served()
    async def refused(site: Site) -> None:
        site.node.block()
        for _ in range(3):
            answer = await site.call("PUT", "/v1/kv/k", body=b"1")
            assert (answer.status, answer.json()["code"], answer.json()["retryable"]) == (503, "overloaded", True)
            assert answer.headers["retry-after"] == "1"
        assert len(site.node.operations.engine.on_room) == 1  # Deadlines leave nothing behind in the engine.
        assert not site.node.operations.rows

    refused()


def test_the_number_of_waiting_writes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "HTTP_WAITING_WRITES_MAX", 1)

    @served()
    async def bounded(site: Site) -> None:
        site.node.block()
        await site.client.send("PUT", "/v1/kv/k", body=b"1")
        await until(lambda: len(site.node.operations.engine.on_room) == 1)
        second = await site.connect()
        assert (await second.call("DELETE", "/v1/kv/k")).json()["code"] == "overloaded"
        site.node.open()
        assert (await site.client.receive()).status == 204

    bounded()


@served()
async def test_a_full_disk_is_507_with_the_advice_to_retry(site: Site) -> None:
    site.node.operations.fault = DiskFull("no room")
    answer = await site.call("PUT", "/v1/kv/k", body=b"1")
    assert (answer.status, answer.json()["code"], answer.json()["outcome"]) == (507, "disk-full", "not-applied")
    assert "retry-after" in answer.headers


@served(value_bytes_max=1000)
async def test_a_body_announced_above_the_limit_is_refused_before_it_is_sent(site: Site) -> None:
    await site.client.send("PUT", "/v1/kv/k", {"Content-Length": "1001", "Expect": "100-continue"})
    answer = await site.client.receive()
    assert (answer.status, answer.json()["code"], answer.headers["connection"]) == (413, "too-large", "close")


@served(value_bytes_max=1000)
async def test_a_body_in_chunks_is_refused_when_it_grows_above_the_limit(site: Site) -> None:
    await site.client.send("PUT", "/v1/kv/k", {"Transfer-Encoding": "chunked"})
    await pause()
    await site.client.send_raw(b"258\r\n" + b"x" * 600 + b"\r\n")
    await pause()
    await site.client.send_raw(b"258\r\n" + b"x" * 600 + b"\r\n")
    assert (await site.client.receive()).json()["code"] == "too-large"
    assert not site.node.operations.rows


@served(value_bytes_max=1000)
async def test_a_value_of_exactly_the_limit_is_stored(site: Site) -> None:
    assert (await site.call("PUT", "/v1/kv/k", body=b"x" * 1000)).status == 204


@served()
async def test_a_body_in_chunks_is_one_value(site: Site) -> None:
    await site.client.send("PUT", "/v1/kv/k", {"Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await site.client.receive()).status == 204
    assert site.node.operations.rows[b"k"].value == b"abcde"


@served(value_bytes_max=8 << 20)
async def test_a_large_value_makes_the_round_trip_and_its_budget_is_given_back(site: Site) -> None:
    value = bytes(range(256)) * (16 << 10)
    assert (await site.call("PUT", "/v1/kv/k", body=value)).status == 204
    assert (await site.call("GET", "/v1/kv/k")).body == value
    assert (await site.call("GET", "/v1/scan")).status == 200
    assert site.server._door.budget.used == 0


@served()
async def test_a_client_that_expects_100_continue_is_told_to_go_on(site: Site) -> None:
    await site.client.send("PUT", "/v1/kv/k", {"Content-Length": "5", "Expect": "100-continue"})
    assert (await site.client.receive()).status == 100
    await site.client.send_raw(b"12345")
    assert (await site.client.receive()).status == 204
    assert (await site.call("PUT", "/v1/kv/k", {"Expect": "miracles", "Content-Length": "1"})).status == 417


@served()
async def test_an_unknown_expectation_is_refused_also_when_the_body_came_with_it(site: Site) -> None:
    answer = await site.call("PUT", "/v1/kv/k", {"Expect": "miracles"}, b"v")
    assert (answer.status, answer.json()["code"]) == (417, "expectation-failed")
    assert not site.node.operations.rows


@served()
async def test_bytes_in_flight_are_bounded_over_all_connections(site: Site) -> None:
    budget = site.server._door.budget
    with budget.hold(budget.bytes_max):
        await site.client.send("PUT", "/v1/kv/k", {"Content-Length": "500000"})
        answer = await site.client.receive()
        assert (answer.status, answer.json()["code"]) == (503, "overloaded")
        small = await site.connect()
        assert (await small.call("PUT", "/v1/kv/k", body=b"1")).status == 204
    assert budget.used == 0


def test_a_body_that_comes_too_slowly_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "HTTP_BODY_WAIT_S", 0.01)

    @served()
    async def slow(site: Site) -> None:
        await site.client.send("PUT", "/v1/kv/k", {"Content-Length": "5"})
        assert (await site.client.receive()).status == 408
        assert not site.node.operations.rows

    slow()


@served()
async def test_a_client_that_leaves_in_the_middle_of_a_body_stores_nothing(site: Site) -> None:
    leaving = await site.connect()
    await leaving.send("PUT", "/v1/kv/k", {"Content-Length": "500000"}, b"half of it")
    await until(lambda: site.server._door.budget.used > 0)
    await leaving.close()
    await until(lambda: site.server._door.budget.used == 0)
    assert (await site.call("GET", "/v1/kv/k")).status == 404


@served()
async def test_a_coded_or_partial_body_is_refused_because_it_would_be_stored_as_the_value(site: Site) -> None:
    assert (await site.call("PUT", "/v1/kv/k", {"Content-Encoding": "gzip"}, b"x")).status == 415
    assert (await site.call("PUT", "/v1/kv/k", {"Content-Range": "bytes 0-0/2"}, b"x")).status == 400
    assert not site.node.operations.rows


@served(connections_max=2)
async def test_a_connection_above_the_limit_is_told_so_and_others_go_on(site: Site) -> None:
    assert (await site.call("GET", "/livez")).status == 200
    second = await site.connect()
    assert (await second.call("GET", "/livez")).status == 200
    third = await site.connect()
    assert (await third.receive()).json()["code"] == "overloaded"
    assert await third.ended()
    await second.close()
    await until(lambda: len(site.server._aiohttp.connections) == 1)
    fourth = await site.connect()
    assert (await fourth.call("GET", "/livez")).status == 200


@served(value_bytes_max=8 << 20)
async def test_a_client_that_does_not_read_stops_its_own_connection_only(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"x" * (4 << 20))
    lazy = await site.connect()
    await lazy.send_raw(b"GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    budget = site.server._door.budget
    await until(lambda: budget.used > 0)
    await pause()
    assert budget.used == 4 << 20  # One reply is under way, 49 have not begun.
    assert (await site.call("GET", "/livez")).status == 200
    lazy.writer.transport.abort()
    await until(lambda: budget.used == 0)
