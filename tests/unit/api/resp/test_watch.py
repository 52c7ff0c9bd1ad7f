"""EDGEKV.WATCH with real sockets, over a watch that the test feeds."""

import asyncio

import hiredis
import pytest

from edgekv.api.resp import watch as resp_watch
from edgekv.api.watch import Follower
from edgekv.errors import Corruption
from edgekv.node.watch_events import Event, Written
from tests.unit.api.fake_watches import FakeWatch, put
from tests.unit.api.resp.test_server import Peer, Site, served, until


class Watching:
    """A client that reads messages."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.parser = hiredis.Reader(notEnoughData=self)

    async def message(self) -> object:
        while (found := self.parser.gets()) is self:
            data = await asyncio.wait_for(self.peer.reader.read(1 << 16), 10)
            assert data, "the connection was closed"
            self.parser.feed(data)
        return found


async def begin(site: Site, *command: bytes | str, hello: int = 3) -> tuple[Watching, FakeWatch]:
    client = Watching(await site.connect())
    client.peer.send(("HELLO", hello), command)
    await client.message()
    assert await client.message() == b"OK"
    return client, site.node.watches.opened[-1]


def test_events_are_pushed_with_kind_cursor_and_data() -> None:
    async def scenario(site: Site) -> None:
        client, watch = await begin(site, "EDGEKV.WATCH", b"a/\xff", "CURSOR", "4")
        assert watch.prefix == b"a/\xff"
        first = await client.message()
        assert type(first) is hiredis.PushNotification and first == [b"edgekv.watch", b"cursor", b"4", {}]
        watch.steps.append(
            [
                Event("put", "5", Written(b"k", "register", "0-0", b"v", 7)),
                Event("put", "6", Written(b"m", "map", fields=[(b"f", b"1"), (b"n", None)])),
                Event("delete", "7", Written(b"s", "set", elements=[b"x"])),
                Event("expire", "8", Written(b"k", "key")),
                Event("resync", "9", phase="end"),
            ]
        )
        site.node.watches.wake()
        data = {b"key": b"k", b"type": b"register", b"version": b"0-0", b"value": b"v", b"expiry_ms": 7}
        assert await client.message() == [b"edgekv.watch", b"put", b"5", data]
        data = {b"key": b"m", b"type": b"map", b"fields": [b"f", b"1", b"n", None]}
        assert await client.message() == [b"edgekv.watch", b"put", b"6", data]
        data = {b"key": b"s", b"type": b"set", b"elements": [b"x"]}
        assert await client.message() == [b"edgekv.watch", b"delete", b"7", data]
        data = {b"key": b"k", b"type": b"key", b"expiry_ms": 0}
        assert await client.message() == [b"edgekv.watch", b"expire", b"8", data]
        assert await client.message() == [b"edgekv.watch", b"resync", b"9", {b"phase": b"end"}]

    served(scenario)


def test_in_protocol_2_messages_are_arrays() -> None:
    async def scenario(site: Site) -> None:
        client, _ = await begin(site, "EDGEKV.WATCH", "", hello=2)
        assert await client.message() == [b"edgekv.watch", b"cursor", b"0", []]
        site.node.watches.write(b"k")
        fields = [b"key", b"k", b"type", b"register", b"version", b"0-0", b"value", b"v"]
        assert await client.message() == [b"edgekv.watch", b"put", b"1", fields]

    served(scenario)


@pytest.mark.parametrize("words", [(), ("", "CURSOR"), ("", "FROM", "1"), ("", "CURSOR", "x"), ("_meta/",)])
def test_what_makes_no_sense_is_refused_and_the_connection_goes_on(words: tuple[str, ...]) -> None:
    async def scenario(site: Site) -> None:
        peer = await site.connect()
        assert (await peer.ask("EDGEKV.WATCH", *words)).startswith((b"-ERR ", b"-DENIED "))
        assert await peer.ask("PING") == b"+PONG\r\n"

    served(scenario)


def test_in_a_transaction_it_is_refused_and_spoils_it() -> None:
    async def scenario(site: Site) -> None:
        peer = await site.connect()
        assert await peer.ask("MULTI") == b"+OK\r\n"
        assert (await peer.ask("EDGEKV.WATCH", "")).startswith(b"-ERR EDGEKV.WATCH cannot be part")
        assert (await peer.ask("EXEC")).startswith(b"-EXECABORT")

    served(scenario)


def test_a_client_that_leaves_ends_its_watch_at_once_whatever_it_sent_before() -> None:
    async def scenario(site: Site) -> None:
        client, watch = await begin(site, "EDGEKV.WATCH", "")
        await client.message()
        client.peer.send(("PING",))
        client.peer.writer.write_eof()
        await until(lambda: watch.closed)
        assert await client.peer.rest() == b""

    served(scenario)


def test_a_client_that_does_not_read_holds_up_its_own_watch_only_and_may_go_on() -> None:
    async def scenario(site: Site) -> None:
        slow, held = await begin(site, "EDGEKV.WATCH", "")
        held.steps = [[Event("put", "1", Written(b"k", "register", value=bytes(1 << 20)))]] * 64
        site.node.watches.wake()
        quick, watch = await begin(site, "EDGEKV.WATCH", "")
        await quick.message()
        for i in range(50):
            watch.steps.append([put(b"k", str(i))])
            site.node.watches.wake()
            await quick.message()
        assert len(held.steps) > 32
        for _ in range(65):
            await slow.message()
        await until(lambda: not held.steps)
        slow.peer.writer.close()
        await until(lambda: held.closed)

    served(scenario)


def test_silence_is_broken_by_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp_watch, "Follower", lambda watches, watch: Follower(watches, watch, heartbeat_s=0.01))

    async def scenario(site: Site) -> None:
        client, watch = await begin(site, "EDGEKV.WATCH", "")
        watch.number = 12
        while await client.message() != [b"edgekv.watch", b"cursor", b"12", {}]:
            pass

    served(scenario)


def test_damage_in_the_log_is_said_and_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_self: FakeWatch) -> None:
        raise Corruption("a durable frame is damaged.", path="seg")

    async def scenario(site: Site) -> None:
        client, watch = await begin(site, "EDGEKV.WATCH", "")
        await client.message()
        monkeypatch.setattr(FakeWatch, "step", damaged)
        site.node.watches.wake()
        assert str(await client.message()) == "CORRUPT a durable frame is damaged."
        assert await client.peer.rest() == b""
        assert watch.closed

    served(scenario)


def test_a_listener_that_closes_ends_its_watches() -> None:
    opened: list[FakeWatch] = []

    async def scenario(site: Site) -> None:
        opened.append((await begin(site, "EDGEKV.WATCH", ""))[1])

    served(scenario)
    assert opened[0].closed
