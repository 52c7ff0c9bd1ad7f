"""The listener with real sockets: slow commands, room, shutdown."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import cast

import pytest

from edgekv.api.resp.host import Host
from edgekv.api.resp.server import RespServer
from edgekv.api.resp.session import Slices
from edgekv.api.resp.slow import SlowCommand
from edgekv.errors import DiskFull, LogFailed, WrongType
from edgekv.limits import RESP_PAGE_KEYS
from tests.unit.api.resp.fake_node import FakeNode, encode


class Peer:
    """A client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *commands: tuple[bytes | str | int, ...]) -> None:
        self.writer.write(b"".join(encode(*command) for command in commands))

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), 10)

    async def ask(self, *command: bytes | str | int) -> bytes:
        self.send(command)
        return await self.line()

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 10)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event; the test's timeout ends it
        await asyncio.sleep(0)


class Site:
    """A node that flushes when it is kicked, its listener, and clients."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.node.flush_when_kicked = True
        self.server = RespServer(self.node)
        self.port = 0
        self.peers: list[Peer] = []

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer


def served(scenario: Callable[[Site], Coroutine[None, None, None]]) -> None:
    """Run a scenario; afterwards the listener closes and leaves nothing."""

    async def main() -> None:
        site = Site()
        address, site.port = await site.server.listen("127.0.0.1", 0)
        assert address == "127.0.0.1"
        before = asyncio.all_tasks()
        await scenario(site)
        await site.server.close()
        assert asyncio.all_tasks() <= before, "close leaves no task"
        assert not site.server.shared.sessions, "close leaves no connection"
        for peer in site.peers:
            peer.writer.close()
            with suppress(ConnectionError):
                await peer.writer.wait_closed()

    asyncio.run(main())


def fill(node: FakeNode, count: int) -> None:
    node.operations.values = {b"k%06d" % i: b"v" for i in range(count)}


def test_keys_and_dbsize_walk_in_slices() -> None:
    async def scenario(site: Site) -> None:
        node = site.node
        fill(node, 2 * RESP_PAGE_KEYS + 1)
        peer = await site.connect()
        assert await peer.ask("DBSIZE") == b":2001\r\n"
        assert await peer.ask("KEYS", "k00000[12]") == b"*2\r\n"
        assert [await peer.line() for _ in range(4)] == [b"$7\r\n", b"k000001\r\n", b"$7\r\n", b"k000002\r\n"]
        assert node.slices == 2

    served(scenario)


def test_flushdb_deletes_everything_in_bounded_durable_changes() -> None:
    async def scenario(site: Site) -> None:
        node = site.node
        fill(node, 2 * RESP_PAGE_KEYS + 1)
        peer = await site.connect()
        assert await peer.ask("FLUSHDB") == b"+OK\r\n"
        assert not node.operations.values
        assert node.operations.calls == [("delete", 1000), ("delete", 1000), ("delete", 1)]
        assert node.operations.engine.filling.number == 4, "a frame each"

    served(scenario)


def test_flushdb_waits_for_room_between_its_changes_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        node, server = site.node, site.server
        fill(node, RESP_PAGE_KEYS + 1)
        operations, delete = node.operations, node.operations.delete

        def delete_until_full(keys: Sequence[bytes]) -> int:
            operations.engine.write_blocked = True
            return delete(keys)

        monkeypatch.setattr(operations, "delete", delete_until_full)
        flusher, other = await site.connect(), await site.connect()
        flusher.send(("FLUSHDB",))
        await until(lambda: bool(server.shared.without_room))
        assert len(operations.values) == 1
        assert await other.ask("PING") == b"+PONG\r\n"
        operations.engine.make_room()
        assert await flusher.line() == b"+OK\r\n"
        assert not operations.values

    served(scenario)


@pytest.mark.parametrize("problem", [DiskFull("no room."), LogFailed("the log failed.")])
def test_a_slow_command_that_is_refused_says_why(problem: DiskFull) -> None:
    async def scenario(site: Site) -> None:
        node = site.node
        fill(node, 1)
        node.operations.refusal = problem
        peer = await site.connect()
        assert (await peer.ask("FLUSHALL")).endswith(str(problem).encode() + b"\r\n")
        assert await peer.ask("PING") == b"+PONG\r\n"

    served(scenario)


def test_the_error_of_a_slow_command_waits_for_what_it_looked_at() -> None:
    async def scenario(site: Site) -> None:
        operations = site.node.operations
        frame = operations.engine.filling

        def step() -> bool:
            operations.engine.barrier = frame
            raise WrongType("the key holds no set but another type")

        slow = SlowCommand(cast("Host", site.node), Slices(step=step, reply=lambda: b""), lambda _: None)
        assert (await slow.run(lambda: True)).startswith(b"-WRONGTYPE")
        assert slow.barrier is frame

    served(scenario)


def test_a_frame_that_fails_under_flushdb_makes_its_outcome_unknown() -> None:
    async def scenario(site: Site) -> None:
        node = site.node
        fill(node, 1)
        node.flush_when_kicked = False
        peer = await site.connect()
        peer.send(("FLUSHALL",))
        await until(lambda: bool(node.operations.engine.filling.waiters))
        node.fail(LogFailed("the log failed."))
        assert await peer.line() == b"-UNKNOWN the log failed.\r\n"

    served(scenario)


def test_a_crowd_that_waits_for_room_is_served_in_the_end() -> None:
    async def scenario(site: Site) -> None:
        node, server = site.node, site.server
        node.operations.engine.write_blocked = True
        peers = [await site.connect() for _ in range(150)]
        for i, peer in enumerate(peers):
            peer.send(("SET", f"k{i}", "v"))
        await until(lambda: len(server.shared.without_room) == len(peers))
        assert len(node.operations.engine.on_room) == 1
        node.operations.engine.make_room()
        assert [await peer.line() for peer in peers] == [b"+OK\r\n"] * len(peers)

    served(scenario)


def test_close_answers_what_was_asked_and_ends_every_connection() -> None:
    async def scenario(site: Site) -> None:
        node, server = site.node, site.server
        node.flush_when_kicked = False
        idle, waiting = await site.connect(), await site.connect()
        assert await idle.ask("PING") == b"+PONG\r\n"
        waiting.send(("SET", "k", "v"))
        await until(lambda: bool(node.operations.engine.filling.waiters))
        closing = asyncio.ensure_future(server.close())
        assert await idle.rest() == b""
        node.flush()
        assert await waiting.rest() == b"+OK\r\n"
        await closing
        with pytest.raises(OSError, match="Connect"):
            await site.connect()

    served(scenario)


def test_close_does_not_wait_for_a_slow_command() -> None:
    async def scenario(site: Site) -> None:
        node, server = site.node, site.server
        fill(node, 1)
        node.flush_when_kicked = False
        peer = await site.connect()
        peer.send(("FLUSHDB",))
        await until(lambda: bool(server._tasks))
        await server.close()
        assert not server._tasks
        with suppress(ConnectionResetError):
            assert await peer.rest() == b""

    served(scenario)


def test_a_client_that_half_closes_gets_its_answers() -> None:
    async def scenario(site: Site) -> None:
        peer = await site.connect()
        peer.send(("SET", "k", "v"), ("GET", "k"))
        peer.writer.write_eof()
        assert await peer.rest() == b"+OK\r\n$1\r\nv\r\n"

    served(scenario)


def test_a_large_set_is_read_and_popped_in_slices_while_others_go_on() -> None:
    async def scenario(site: Site) -> None:
        members = {b"%06d" % i for i in range(5 * RESP_PAGE_KEYS)}
        site.node.operations.collections[b"s"] = set(members)
        peer, other = await site.connect(), await site.connect()
        peer.send(("SMEMBERS", "s"), ("SPOP", "s", 9999), ("SCARD", "s"))
        assert await other.ask("PING") == b"+PONG\r\n"
        for _ in range(2):
            assert await peer.line() == b"*5000\r\n"
            assert {(await peer.line(), await peer.line())[1][:-2] for _ in members} == members
        assert await peer.line() == b":0\r\n"
        assert site.node.slices > 1
        assert site.node.operations.engine.filling.number > 2, "more than one frame"

    served(scenario)
