"""The asynchronous client's watch: one connection of its own, as long as somebody iterates, and another one when that ends."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, cast

from edgekv.client import wire
from edgekv.client.calls import closed
from edgekv.client.exchange import Exchange
from edgekv.client.faults import reason
from edgekv.client.route import Route
from edgekv.client.timing import CONNECT_S
from edgekv.client.watch import SILENCE_S, Subscription, WatchEvent, passes
from edgekv.errors import EdgeKVError, Unavailable

EVENTS_WAITING_MAX: Final = 1024
"""Received and not taken: above it the node is not read from, and waits."""


class WatchLink(asyncio.Protocol):
    """One connection: greets, asks, and keeps what comes until it is taken."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription: Final = subscription
        self._transport: asyncio.Transport
        self._parser: Final = wire.reader()
        self._greeting: wire.Greeting | None = wire.Greeting()
        self._messages: Final[deque[object]] = deque()
        self._signal: Final = asyncio.Event()
        self._paused = False
        self._fault: Exception | None = None

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", made)  # uvloop's is one by shape only
        assert self._greeting is not None
        self._transport.write(self._greeting.request)

    def data_received(self, data: bytes) -> None:
        """Keep the messages for `next`."""
        if self._fault is not None:
            return
        try:
            self._parser.feed(data)
            while (message := self._parser.gets()) is not wire.INCOMPLETE:
                if self._greeting is None:
                    self._messages.append(message)
                elif self._greeting.take(message) is not None:
                    self._greeting = None
                    self._transport.write(self._subscription.request())
        except (*wire.BROKEN, EdgeKVError) as fault:
            self.end(fault)
        if len(self._messages) > EVENTS_WAITING_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._signal.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """What was received may still be taken."""
        self._fault = self._fault or exc or ConnectionError("it was closed")
        self._signal.set()

    async def next(self) -> WatchEvent | None:
        """The next event; None for what is none. Raises what ended the connection, or what the node refused with."""
        while not self._messages:
            if self._fault is not None:
                raise self._fault
            self._signal.clear()
            async with asyncio.timeout(SILENCE_S):
                await self._signal.wait()
        event = self._subscription.take(self._messages.popleft())
        if self._paused and not self._messages and self._fault is None:
            self._paused = False
            self._transport.resume_reading()
        return event

    def end(self, fault: Exception) -> None:
        """Hang up."""
        self._fault = self._fault or fault
        self._signal.set()
        self._transport.close()


async def follow(exchange: Exchange, subscription: Subscription, deadline_s: float) -> AsyncIterator[WatchEvent]:
    """Events, for ever. Unavailable when no node takes the watch for ``deadline_s``; what a node refuses it with otherwise."""
    route = Route(exchange.addresses, random.random)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + deadline_s
    while not exchange.closed:
        if loop.time() > until_s:
            raise Unavailable(f"no node could be watched within {deadline_s:g} s ({route.reason}).")
        await asyncio.sleep(route.pause_s())
        subscription.begun = False
        link: WatchLink | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                link = await exchange.dial(route.address, lambda: WatchLink(subscription))
            exchange.watching.add(link)
            while True:
                event = await link.next()
                if event is not None:
                    yield event
        except (OSError, TimeoutError, EdgeKVError, *wire.BROKEN) as error:
            if isinstance(error, EdgeKVError) and not passes(error):
                raise
            if subscription.begun:
                until_s = loop.time() + deadline_s  # From the end on: until then nobody was looked for.
            if subscription.begun and not isinstance(error, TimeoutError):
                route.broke(reason(error))
            else:
                route.failed(reason(error))
        finally:
            if link is not None:
                exchange.watching.discard(link)
                link.end(ConnectionError("the watch has ended"))
    raise closed()
