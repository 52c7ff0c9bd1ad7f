"""Links that can be cut, between two ends of loopback connections."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from edgekv.cli.dev_proxy import Proxy
from edgekv.config import Address

BARRIER = b"?"
"""What a node behind the link answers at once: when the answer to a later connection is there, an earlier byte would be as well."""
LARGE = b"x" * (8 << 20)
"""More than the kernel keeps for two sockets that nobody reads."""


@dataclass
class FarNode:
    """It collects what it gets, and answers each BARRIER by one."""

    received: bytearray = field(default_factory=bytearray)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        await self.reads.wait()
        try:
            while data := await reader.read(1 << 16):
                self.received += data
                if data.endswith(BARRIER):
                    writer.write(BARRIER)
        except ConnectionError:
            pass
        self.ended.set()
        writer.close()


@dataclass
class Link:
    proxy: Proxy
    node: FarNode
    address: Address
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self.writers.append(writer)
        return reader, writer

    async def connect_and_pass(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        writer.write(BARRIER)
        assert await reader.readexactly(1) == BARRIER
        return reader, writer


@asynccontextmanager
async def a_link() -> AsyncIterator[Link]:
    node = FarNode()
    node.reads.set()
    server = await asyncio.start_server(node.accepted, "127.0.0.1", 0)
    proxy = Proxy(Address(*server.sockets[0].getsockname()[:2]))
    link = Link(proxy, node, await proxy.listen(0))
    try:
        yield link
    finally:
        node.reads.set()
        proxy.close()
        for writer in [*link.writers, *node.connections]:
            if not writer.is_closing():
                writer.transport.abort()
        server.close()
        await until(lambda: proxy.connections == 0)
        await asyncio.sleep(0.01)  # the ends that were aborted here are forgotten in the next turns


def on_a_link(test: Callable[[Link], Awaitable[None]]) -> Callable[[], None]:
    async def run() -> None:
        async with asyncio.timeout(20), a_link() as link:
            await test(link)

    def wrapped() -> None:
        asyncio.run(run())

    wrapped.__doc__ = test.__doc__
    return wrapped


async def silence(reader: asyncio.StreamReader) -> None:
    """Nothing comes, and nobody says that it is over, for as long as loopback takes for a thousand round trips."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)


async def reset(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionResetError):
        assert await reader.read(1) == b""


@on_a_link
async def test_bytes_pass_both_ways_and_are_counted(link: Link) -> None:
    await link.connect_and_pass()
    assert link.node.received == BARRIER
    assert link.proxy.bytes == 2


@on_a_link
async def test_large_data_arrives_whole_at_a_node_that_reads_late(link: Link) -> None:
    link.node.reads.clear()
    reader, writer = await link.connect()
    writer.write(LARGE + BARRIER)
    await silence(reader)
    assert link.proxy.bytes < len(LARGE), "the proxy takes all that comes into memory"
    link.node.reads.set()
    assert await reader.readexactly(1) == BARRIER
    assert link.node.received == LARGE + BARRIER


@on_a_link
async def test_last_words_arrive_before_the_end(link: Link) -> None:
    _, writer = await link.connect()
    writer.write(LARGE)
    writer.close()
    await link.node.ended.wait()
    assert link.node.received == LARGE


@on_a_link
async def test_last_words_arrive_from_who_leaves_at_once(link: Link) -> None:
    """Before the proxy has reached the other side: a refusal must not get lost."""
    with socket.create_connection(link.address) as near:
        near.sendall(b"last words")
    await link.node.ended.wait()
    assert link.node.received == b"last words"


@on_a_link
async def test_over_a_cut_nothing_passes_and_nobody_is_told(link: Link) -> None:
    reader, writer = await link.connect_and_pass()
    link.proxy.cut()
    writer.write(BARRIER)
    link.node.connections[0].write(BARRIER)
    await silence(reader)
    assert link.node.received == BARRIER
    assert not link.node.ended.is_set()
    assert link.proxy.bytes == 2


@on_a_link
async def test_the_end_of_one_side_does_not_pass_a_cut(link: Link) -> None:
    """A process that is killed behind a cut is not missed by the other side, which would be a message."""
    near, _ = await link.connect_and_pass()
    link.proxy.cut()
    link.node.connections[0].transport.abort()
    await silence(near)

    link.proxy.heal()
    await reset(near)
    _, writer = await link.connect_and_pass()
    link.node.ended.clear()
    link.proxy.cut()
    writer.transport.abort()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.node.ended.wait(), 0.1)


@on_a_link
async def test_a_connection_made_during_a_cut_is_silent_and_reaches_nobody(link: Link) -> None:
    link.proxy.cut()
    reader, writer = await link.connect()
    writer.write(BARRIER)
    await silence(reader)
    assert link.node.connections == []
    link.proxy.heal()
    await reset(reader)


@on_a_link
async def test_a_heal_resets_what_was_cut_and_new_connections_pass(link: Link) -> None:
    """Of what was sent during the cut nothing may arrive later: a stream with a gap would go on."""
    reader, writer = await link.connect_and_pass()
    link.proxy.cut()
    writer.write(b"lost")
    await silence(reader)
    link.proxy.heal()
    await reset(reader)
    await link.node.ended.wait()
    await link.connect_and_pass()
    assert link.node.received == BARRIER * 2


@on_a_link
async def test_a_connection_stopped_by_a_slow_reader_does_not_outlive_its_maker_in_a_cut(link: Link) -> None:
    """Nodes dial again every few seconds: what they have left must not pile up in a cut of hours."""
    link.node.reads.clear()
    reader, writer = await link.connect()
    writer.write(LARGE)
    await silence(reader)
    link.proxy.cut()
    before = link.proxy.connections
    writer.transport.abort()
    await until(lambda: link.proxy.connections == before - 1)
    for _ in range(3):
        _, dialed = await link.connect()
        await until(lambda: link.proxy.connections == before)
        dialed.transport.abort()
        await until(lambda: link.proxy.connections == before - 1)


@on_a_link
async def test_a_heal_of_a_link_that_is_not_cut_changes_nothing(link: Link) -> None:
    reader, writer = await link.connect_and_pass()
    link.proxy.heal()
    writer.write(BARRIER)
    assert await reader.readexactly(1) == BARRIER


def test_a_link_to_nobody_ends_connections() -> None:
    async def run() -> None:
        async with asyncio.timeout(20), a_link() as link:
            proxy = Proxy(link.address)
            address = await proxy.listen(0)
            link.proxy.close()
            reader, writer = await asyncio.open_connection(*address)
            await reset(reader)
            writer.transport.abort()
            proxy.close()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the proxy tells nobody
        await asyncio.sleep(0.001)
