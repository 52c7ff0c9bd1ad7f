"""A link between two servers, that can be cut and counts its bytes at the socket: a forwarder in a thread."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from bench.servers import ServerError
from edgekv.cli.dev_proxy import Proxy
from edgekv.config import Address

CONNECT_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.001


class _Forwarder(Proxy):
    """Remembers when the last connection was passed on."""

    def __init__(self, target: Address) -> None:
        super().__init__(target)
        self.dialed_s = 0.0

    async def dial(self, front: Any) -> None:
        self.dialed_s = time.monotonic()
        await super().dial(front)


class Link:
    """The way to `target`: connect to `address` instead."""

    def __init__(self, loop: asyncio.AbstractEventLoop, forwarder: _Forwarder, address: Address) -> None:
        self.address: Final = address
        self._loop: Final = loop
        self._forwarder: Final = forwarder

    @property
    def bytes(self) -> int:
        """Payload of TCP that has passed so far, both ways."""
        return self._forwarder.bytes

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._on_loop(self._forwarder.cut)

    def heal(self) -> float:
        """What was silent is reset, new connections pass; returns the time."""
        self._on_loop(self._forwarder.heal)
        return time.monotonic()

    def wait_connected(self, since_s: float) -> float:
        """The time at which the first connection was passed on after `since_s`; waits for it."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while self._forwarder.dialed_s < since_s:
            if time.monotonic() > deadline:
                raise ServerError(f"nobody connected within {CONNECT_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)
        return self._forwarder.dialed_s

    def _on_loop(self, act: Callable[[], None]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(act)
        self._loop.call_soon_threadsafe(done.set)
        done.wait()


@contextmanager
def link_to(target: Address) -> Iterator[Link]:
    """A link, as long as the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="link", daemon=True)
    thread.start()
    forwarder = _Forwarder(target)
    address = asyncio.run_coroutine_threadsafe(forwarder.listen(0), loop).result()
    try:
        yield Link(loop, forwarder, address)
    finally:
        loop.call_soon_threadsafe(forwarder.close)
        loop.call_soon_threadsafe(lambda: loop.call_soon(loop.stop))
        thread.join()
        loop.close()
