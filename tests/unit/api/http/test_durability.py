"""A reply leaves when what it rests on is durable, and never before."""

import asyncio

import pytest

from edgekv.api.http import waiting
from edgekv.errors import LogFailed
from tests.unit.api.http.site import Client, Site, served, until


async def held(site: Site, client: Client) -> None:
    """Assert that the client's request reached the node and has no reply."""
    await until(lambda: len(site.node.operations.filling.waiters) > 0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not client.reader._buffer  # type: ignore[attr-defined]  # what has arrived and is not read


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/v1/kv/k", b"1"),
        ("POST", "/v1/counter/n", b'{"add": 1}'),
        ("POST", "/v1/batch", b'{"operations": [{"op": "delete", "key": "new"}]}'),
    ],
)
def test_a_write_is_answered_after_its_frame_is_durable(method: str, target: str, body: bytes) -> None:
    @served()
    async def waits(site: Site) -> None:
        site.node.log_stuck = True
        site.node.operations.set(b"new", b"not durable")
        await site.client.send(method, target, {"Content-Type": "application/json"}, body)
        await held(site, site.client)
        site.node.make_durable()
        assert (await site.client.receive()).status in (200, 204)

    waits()


@pytest.mark.parametrize("target", ["/v1/kv/k", "/v1/counter/k", "/v1/scan"])
def test_a_read_of_a_row_that_is_not_durable_waits_for_it(target: str) -> None:
    @served()
    async def waits(site: Site) -> None:
        site.node.log_stuck = True
        site.node.operations.set(b"k", b"1")
        await site.client.send("GET", target)
        await held(site, site.client)
        site.node.make_durable()
        assert (await site.client.receive()).status == 200

    waits()


@served()
async def test_not_found_waits_when_it_rests_on_a_delete_that_is_not_durable(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    site.node.log_stuck = True
    site.node.operations.delete([b"k"])
    await site.client.send("GET", "/v1/kv/k")
    await held(site, site.client)
    site.node.make_durable()
    assert (await site.client.receive()).status == 404


@served()
async def test_an_error_waits_when_it_rests_on_a_row_that_is_not_durable(site: Site) -> None:
    site.node.log_stuck = True
    site.node.operations.set(b"k", b"text")
    await site.client.send("POST", "/v1/counter/k", {"Content-Type": "application/json"}, b'{"add": 1}')
    await held(site, site.client)
    site.node.make_durable()
    assert (await site.client.receive()).status == 409


@served()
async def test_a_read_that_rests_on_durable_rows_never_waits_for_the_log(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    site.node.log_stuck = True
    site.node.operations.set(b"other", b"not durable")
    assert (await site.call("GET", "/v1/kv/k")).body == b"1"


@served()
async def test_writes_of_one_turn_share_a_frame(site: Site) -> None:
    site.node.log_stuck = True
    clients = [await site.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        await client.send("PUT", f"/v1/kv/{number}", body=b"1")
    await until(lambda: len(site.node.operations.filling.waiters) == len(clients))
    site.node.make_durable()
    assert [(await client.receive()).status for client in clients] == [204] * 5
    assert site.node.frames_flushed == 1


@served()
async def test_a_failed_log_is_told_as_an_unknown_outcome(site: Site) -> None:
    site.node.log_stuck = True
    await site.client.send("PUT", "/v1/kv/k", body=b"1")
    await held(site, site.client)
    site.node.fail_log(LogFailed("fdatasync: Input/output error"))
    answer = await site.client.receive()
    assert (answer.status, answer.json()["code"], answer.json()["outcome"]) == (504, "log-failed", "unknown")
    assert answer.json()["retryable"] is False


def test_a_log_that_hangs_is_told_as_an_unknown_outcome_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "HTTP_DURABLE_WAIT_S", 0)
    monkeypatch.setattr(waiting, "_SWEEP_S", 0.01)

    @served()
    async def times_out(site: Site) -> None:
        site.node.log_stuck = True
        answer = await site.call("PUT", "/v1/kv/k", body=b"1")
        assert (answer.status, answer.json()["outcome"]) == (504, "unknown")
        site.node.make_durable()  # The late release of a request that was answered is harmless.
        assert (await site.call("GET", "/v1/kv/k")).body == b"1"

    times_out()


@served()
async def test_a_client_that_leaves_neither_stops_its_write_nor_hurts_the_node(site: Site) -> None:
    site.node.log_stuck = True
    leaving = await site.connect()
    await leaving.send("PUT", "/v1/kv/k", body=b"1")
    await held(site, leaving)
    await leaving.close()
    site.node.log_stuck = False
    site.node.make_durable()
    assert (await site.call("GET", "/v1/kv/k")).body == b"1"


@served()
async def test_requests_of_one_connection_are_answered_in_order(site: Site) -> None:
    one = b"PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    await site.client.send_raw(one + b"1" + b"GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n" + one + b"2")
    answers = [await site.client.receive() for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [(204, b""), (200, b"1"), (204, b"")]


@served()
async def test_close_lets_a_write_in_progress_finish(site: Site) -> None:
    site.node.log_stuck = True
    await site.client.send("PUT", "/v1/kv/k", body=b"1")
    await held(site, site.client)
    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(site.server.close())
        await asyncio.sleep(0)
        assert not closing.done()
        site.node.make_durable()
    answer = await site.client.receive()
    assert answer.status == 204
    assert await site.client.ended()
