"""Nodes as their connections see them: a host that remembers what it was told, and sites that have links, a listener and a dialer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edgekv.config import Address
from edgekv.net.dialer import Dialer
from edgekv.net.links import Links, Transport
from edgekv.net.listener import PeerListener

LOOPBACK: Final = "127.0.0.1"
WAIT_S: Final = 20.0
new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop


class FakeHost:
    """What replication would be told."""

    def __init__(self, transport: Transport) -> None:
        self.transport: Final = transport
        self.events: Final[list[tuple[Any, ...]]] = []
        self.messages: Final[dict[int, list[bytes]]] = {}
        self.on_message: Callable[[int, bytes], None] = lambda link, message: None
        self.on_connected: Callable[[int], None] = lambda link: None
        self.parts = 0
        self.idle: Final[set[int]] = set()
        self.looks = 0
        """How often it was asked whether a link is."""
        self.troubles: Final[list[str]] = []

    def connected(self, link: int, *, outgoing: bool) -> None:
        self.events.append(("connected", link, outgoing))
        self.messages[link] = []
        self.on_connected(link)

    def received(self, link: int, message: bytes) -> None:
        self.messages[link].append(message)
        self.on_message(link, message)

    def heard(self, link: int) -> None:
        assert link in self.messages
        self.parts += 1

    def disconnected(self, link: int) -> None:
        self.events.append(("disconnected", link))

    def is_idle(self, link: int) -> bool:
        self.looks += 1
        return link in self.idle

    def trouble(self, sentence: str) -> None:
        self.troubles.append(sentence)

    @property
    def open(self) -> list[int]:
        ended = {event[1] for event in self.events if event[0] == "disconnected"}
        return [event[1] for event in self.events if event[0] == "connected" and event[1] not in ended]


class Site:
    """One node's links."""

    def __init__(self, incoming_max: int = 100) -> None:
        self.links: Final = Links(FakeHost, incoming_max=incoming_max)
        assert isinstance(self.links.host, FakeHost)
        self.host: Final = self.links.host
        self.listener = PeerListener(self.links)
        self.dialer: Dialer | None = None
        self.address = Address(LOOPBACK, 0)

    async def listen(self) -> Address:
        self.address = Address(*await self.listener.listen(LOOPBACK, self.address.port))
        return self.address

    def dial(self, *lines: list[Address], chance: float = 0.0) -> Dialer:
        self.dialer = Dialer(self.links, lines, chance=lambda: chance)
        self.dialer.start()
        return self.dialer

    async def stop(self) -> None:
        await self.listener.close()
        if self.dialer is not None:
            await self.dialer.close()
        await self.links.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


def run(scenario: Callable[..., Coroutine[None, None, None]], sites: int = 2, **settings: int) -> None:
    """Run a scenario between sites that listen; afterwards they stop and leave nothing."""

    async def main() -> None:
        there = [Site(**settings) for _ in range(sites)]
        for site in there:
            await site.listen()
        before = asyncio.all_tasks()
        try:
            await scenario(*there)
        finally:
            for site in there:
                await site.stop()
        assert asyncio.all_tasks() <= before, "stopping leaves no task"
        for site in there:
            assert site.host.open == [], "every link that was there has been said to be over"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
