"""A link of a development cluster: a TCP forwarder that can be cut.

A cut link is one whose packets are lost. What either end sends from then on arrives nowhere, its end included (a node that is killed
behind a cut is not missed by the other side), and new connections are accepted and stay silent. The heal resets all of them, as a
router does with connections that it has forgotten, and lets new ones pass: no connection goes on with a gap in it.

What the proxy had taken over before the cut, up to two reads each way, may still arrive: it was on its way.
"""

import asyncio
from typing import Final, cast

from edgekv.config import Address


class Proxy:
    """One link: a port of loopback that leads to an address."""

    def __init__(self, target: Address) -> None:
        self.is_cut = False
        self.bytes = 0
        """Payload that was passed on, both ways."""
        self._target: Final = target
        self._ends: Final[set[_End]] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many it holds, on both of its sides."""
        return len(self._ends)

    async def listen(self, port: int) -> Address:
        """Accept connections on loopback; return where. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Front(self), "127.0.0.1", port)
        return Address(*self._server.sockets[0].getsockname()[:2])

    def cut(self) -> None:
        """From now on nothing passes. Idempotent."""
        self.is_cut = True
        for end in self._ends:
            end.resume_writing()  # Nobody is waited for any more, and who leaves is to be noticed.

    def heal(self) -> None:
        """Reset what was silent, and let new connections pass. Idempotent."""
        if self.is_cut:
            self.is_cut = False
            self._reset()

    def close(self) -> None:
        """Accept nothing more, and reset what there is."""
        if self._server is not None:
            self._server.close()
        self._reset()

    def _reset(self) -> None:
        for end in list(self._ends):
            end.lose()

    async def dial(self, front: "_Front") -> None:
        """Find the other end for a connection that was accepted. Where nobody listens it is reset."""
        back = _End(self)
        front.other, back.other = back, front
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, *self._target)
        except OSError:
            front.lose()

    def joined(self, end: "_End") -> None:
        """A connection is there."""
        self._ends.add(end)

    def left(self, end: "_End") -> None:
        """It is gone. The other end is told, unless the link is cut."""
        self._ends.discard(end)
        if not self.is_cut and end.other is not None:
            end.other.close()


class _End(asyncio.Protocol):
    """One of the two connections of which the proxy is the middle."""

    def __init__(self, proxy: Proxy) -> None:
        self.other: _End | None = None
        self._proxy: Final = proxy
        self._transport: asyncio.Transport | None = None
        self._over = False
        self._waiting = b""
        """What came for it before it was connected: loopback connects at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._proxy.joined(self)
        if not self._proxy.is_cut:
            self._transport.write(self._waiting)
        if self._over:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._proxy.is_cut and self.other is not None:
            self._proxy.bytes += len(data)
            self.other.send(data)

    def pause_writing(self) -> None:
        """It takes no more for now: its other end is not read from, so that a slow node holds the fast one back."""
        if self.other is not None:
            self.other.read_on(wanted=False)

    def resume_writing(self) -> None:
        """It goes on."""
        if self.other is not None:
            self.other.read_on(wanted=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._over, self._transport = True, None
        self._proxy.left(self)

    def read_on(self, *, wanted: bool) -> None:
        """Whether to take what comes from it. Idempotent."""
        if self._transport is not None:
            self._transport.resume_reading() if wanted else self._transport.pause_reading()

    def send(self, data: bytes) -> None:
        """Pass bytes on to it."""
        if self._transport is not None:
            self._transport.write(data)
        elif not self._over:
            self._waiting += data

    def close(self) -> None:
        """End it when it has got what is there for it."""
        self._over = True
        if self._transport is not None:
            self._transport.close()

    def lose(self) -> None:
        """Reset it: what is on its way to it is lost."""
        self._over, self._waiting = True, b""
        if self._transport is not None:
            self._transport.abort()


class _Front(_End):
    """The end that was accepted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._proxy.is_cut:  # else it stays silent until the heal resets it
            self._dialing = asyncio.get_running_loop().create_task(self._proxy.dial(self))
