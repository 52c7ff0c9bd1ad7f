"""GET /v1/watch over a watch that the test feeds: the bytes of the stream, resuming, heartbeats, slow clients, the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edgekv.api.http import watch as http_watch
from edgekv.api.watch import Follower
from edgekv.limits import HTTP_CLOSE_WAIT_S
from edgekv.node.watch_events import Event, Written
from tests.unit.api.fake_watches import FakeWatch, put
from tests.unit.api.http.site import Client, FakeNode, Site, run_site, served, until


@asynccontextmanager
async def watching(site: Site, target: str, **headers: str) -> AsyncIterator[tuple[Client, FakeWatch]]:
    """A client whose stream has begun, and its watch."""
    client = await site.connect()
    await client.send("GET", target, {name.replace("_", "-"): text for name, text in headers.items()})
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and b"Content-Type: text/event-stream\r\n" in head, head
    assert b"Content-Length" not in head
    yield client, site.node.watches.opened[-1]
    client.writer.close()


async def block(client: Client) -> bytes:
    async with asyncio.timeout(5):
        return await client.reader.readuntil(b"\n\n")


@served()
async def test_events_come_with_cursor_name_and_data_after_a_first_place(site: Site) -> None:
    async with watching(site, "/v1/watch?prefix=a%2F%ff") as (client, watch):
        assert watch.prefix == b"a/\xff"
        assert await block(client) == b"id: 0\n\n"
        site.node.watches.write(b"k", b"\xff")
        assert (
            await block(client)
            == b'id: 1\nevent: put\ndata: {"key":"k","type":"register","version":"0-0","value":"v"}\n\n'
        )
        assert b'"key":{"base64":"/w=="}' in await block(client)
        watch.steps.append([Event("delete", "3", Written(b"m", "map", "0-0", fields=[(b"f", None)]))])
        watch.steps.append([Event("resync", "4", phase="begin")])
        site.node.watches.wake()
        assert b'event: delete\ndata: {"key":"m","type":"map","version":"0-0","fields":[{"field":"f"}]}' in await block(
            client
        )
        assert await block(client) == b'id: 4\nevent: resync\ndata: {"phase":"begin"}\n\n'


@served()
async def test_last_event_id_goes_before_the_cursor_of_the_query(site: Site) -> None:
    async with watching(site, "/v1/watch?cursor=7", Last_Event_ID="9") as (client, _):
        assert await block(client) == b"id: 9\n\n"


@served()
async def test_what_is_wrong_is_said_before_a_stream_begins(site: Site) -> None:
    for target, headers, status in (
        ("/v1/watch?cursor=x", {}, 400),
        ("/v1/watch?perfix=a", {}, 400),
        ("/v1/watch", {"Accept": "application/json"}, 406),
        ("/v1/watch", {"Edgekv-Consistency": "strong"}, 400),
    ):
        assert (await site.call("GET", target, headers)).status == status
    assert (await site.call("POST", "/v1/watch")).status == 405
    assert all(watch.closed for watch in site.node.watches.opened)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come after 10 ms."""
    monkeypatch.setattr(http_watch, "Follower", lambda watches, watch: Follower(watches, watch, heartbeat_s=0.01))


@pytest.mark.usefixtures("impatient")
@served()
async def test_silence_is_broken_by_heartbeats_with_the_cursor_as_it_is_by_then(site: Site) -> None:
    async with watching(site, "/v1/watch") as (client, watch):
        assert await block(client) == b"id: 0\n\n"
        watch.number = 12
        while (heartbeat := await block(client)) != b": heartbeat\nid: 12\n\n":
            assert heartbeat == b": heartbeat\nid: 0\n\n"
        assert len(site.node.watches.waiting) == 1


@served()
async def test_a_client_that_leaves_ends_its_watch_at_once(site: Site) -> None:
    async with watching(site, "/v1/watch") as (client, watch):
        await block(client)
        await until(lambda: bool(site.node.watches.waiting))
        client.writer.close()
        await until(lambda: watch.closed)
        assert not site.node.watches.waiting, "on an idle node nobody would take them out"


@served()
async def test_a_client_that_does_not_read_is_not_read_for_and_others_go_on(site: Site) -> None:
    async with watching(site, "/v1/watch") as (slow, held):
        large = [Event("put", "1", Written(b"k", "register", value=b"x" * (1 << 20)))]
        held.steps = [large] * 64
        site.node.watches.wake()
        async with watching(site, "/v1/watch") as (quick, watch):
            await block(quick)
            for i in range(50):
                watch.steps.append([put(b"k", str(i))])
                site.node.watches.wake()
                await block(quick)
        assert len(held.steps) > 32
        await slow.reader.readexactly(10 << 20)
        await until(lambda: len(held.steps) < 60)


@served()
async def test_files_are_read_by_a_thread_before_the_step_that_shows_them(site: Site) -> None:
    async with watching(site, "/v1/watch") as (client, watch):
        await block(client)
        watch.files.append([put(b"old", "1")])
        site.node.watches.wake()
        assert b'"key":"old"' in await block(client)


@served()
async def test_a_head_request_opens_no_stream(site: Site) -> None:
    reply = await site.call("HEAD", "/v1/watch")
    assert reply.status == 200 and reply.body == b""
    await until(lambda: site.node.watches.opened[0].closed)


def test_a_server_that_stops_ends_its_streams_without_waiting_for_them() -> None:
    """Each connection would have HTTP_CLOSE_WAIT_S to finish what it is answering."""
    node = FakeNode()

    async def leave_it_open(site: Site) -> None:
        client = await site.connect()
        await client.send("GET", "/v1/watch")
        await client.reader.readuntil(b"id: 0\n\n")
        began_s = asyncio.get_running_loop().time()
        await site.server.close()
        assert asyncio.get_running_loop().time() - began_s < HTTP_CLOSE_WAIT_S / 2

    asyncio.run(run_site(leave_it_open, node, 10))
    assert node.watches.opened[0].closed
