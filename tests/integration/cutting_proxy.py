"""A TCP proxy that resets connections at random points: requests that never arrive whole, and replies of what was done that get lost.

It runs on a loop in a thread of its own, so that both clients can talk through it. What it forwards before the first operation with an
id (the handshake) is not counted, so that every connection gets somewhere.
"""

import asyncio
import random
import threading
from types import TracebackType
from typing import Final, Self, cast

from edgekv.config import Address

REQUEST_BYTES: Final = (2_000, 30_000)
"""What passes before a cut on the way to the node."""
REPLY_BYTES: Final = (200, 2_600)
"""Likewise on the way back. Cuts come seldom enough for the retry budget of a client, a tenth of its calls, whatever is in flight."""


class CuttingProxy:
    """``with`` it; ``target`` may change, for connections to come. ``cuts``: how many requests, and how many replies it cut."""

    def __init__(self, target: Address, seed: int) -> None:
        self.target = target
        self.address = Address("127.0.0.1", 0)
        self.cuts = {"request": 0, "reply": 0}
        self.dice: Final = random.Random(seed)
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(target=self._loop.run_forever, name="cutting-proxy", daemon=True)
        self._open: Final[set[_Pipe]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await self._loop.create_server(lambda: _Front(self), *self.address)
        self.address = Address(*self._server.sockets[0].getsockname()[:2])

    async def _stop(self) -> None:
        self._server.close()
        for pipe in list(self._open):
            pipe.cut()
        while self._open:  # noqa: ASYNC110 - they end in the next turns
            await asyncio.sleep(0)

    def joined(self, pipe: "_Pipe") -> None:
        self._open.add(pipe)

    def left(self, pipe: "_Pipe") -> None:
        self._open.discard(pipe)


class _Pipe(asyncio.Protocol):
    """One side of a connection."""

    way: str
    between: tuple[int, int]

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.other: _Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self.waiting = b""
        self.counts = False
        self.left_bytes = proxy.dice.randint(*self.between)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.proxy.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy.left(self)
        if self.other is not None:
            self.other.cut()

    def data_received(self, data: bytes) -> None:
        if self.counts:
            self.left_bytes -= len(data)
        if self.left_bytes >= 0:
            self.forward(data)
            return
        self.proxy.cuts[self.way] += 1
        self.forward(data[: self.proxy.dice.randrange(len(data))])
        self.cut()

    def forward(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.waiting += data
        else:
            self.other.transport.write(data)

    def cut(self) -> None:
        """Reset both connections; what the node was sent whole it will carry out."""
        for side in (self, self.other):
            if side is not None and side.transport is not None:
                if isinstance(side, _Back):
                    side.transport.close()
                else:
                    side.transport.abort()


class _Front(_Pipe):
    """The client's side."""

    way = "request"
    between = REQUEST_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dialing = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        back = _Back(self.proxy)
        back.other, self.other = self, back
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, *self.proxy.target)
        except OSError:
            self.cut()
            return
        waiting, self.waiting = self.waiting, b""
        self.forward(waiting)

    def data_received(self, data: bytes) -> None:
        if not self.counts and b"EDGEKV.OP\r\n$16" in data and self.other is not None:
            self.counts = self.other.counts = True
        super().data_received(data)


class _Back(_Pipe):
    """The node's side."""

    way = "reply"
    between = REPLY_BYTES
