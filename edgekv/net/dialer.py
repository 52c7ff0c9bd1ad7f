"""Keeps links to upstreams: a hub one to each, an edge one to the first that answers.

A *line* is a list of addresses of which one is to be connected. One task per line dials them in order, waits for the end of the link
that came about, and dials again after a pause of growing length and chance, so that a thousand edges do not come back in the same
instant. A link that lasted is followed by the first address again; one that ended soon (refused, or answered by nobody behind an open
port) by the next one. So is one to a hub that turns out to be no member of the cluster, however late: where there are other addresses,
it is ended.
A link that ended because there is another one with the same node (two hubs that dial each other, one node under
two names) is not missed: its line waits until that one has ended.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from edgekv.config import Address
from edgekv.limits import PEER_BACK_OFF_S_MAX, PEER_BACK_OFF_S_MIN, PEER_IDLE_S, PEER_LASTING_S
from edgekv.net.link import Connection, Host
from edgekv.net.links import Links

_log: Final = logging.getLogger("edgekv.net")
_NO_MEMBER: Final = "it is no member of the cluster now, and there are other upstreams"


def lines(upstreams: Sequence[Address], role: str) -> list[list[Address]]:
    """One line to each upstream for a hub; for an edge one line to any of them."""
    if role == "hub":
        return [[address] for address in upstreams]
    return [list(upstreams)] if upstreams else []


def back_off_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row (at least 1), for a ``chance`` in [0, 1)."""
    longest = min(PEER_BACK_OFF_S_MAX, PEER_BACK_OFF_S_MIN * 2.0 ** min(failures, 60))
    return PEER_BACK_OFF_S_MIN + chance * (longest - PEER_BACK_OFF_S_MIN)


class Line:
    """One link that is to be there, and why it is not."""

    def __init__(self, links: Links[Host], addresses: Sequence[Address], chance: Callable[[], float]) -> None:
        self._links: Final = links
        self._addresses: Final = addresses
        self._chance: Final = chance
        self._next = 0
        """Which address is dialed first."""
        self.connected: Address | None = None
        self.trouble = ""
        """Why there is no link, or was none before; empty: it is as it should be."""
        self._said: Final[dict[Address, str]] = {}
        """What was said last of each address."""

    async def keep(self) -> None:
        """Until it is cancelled."""
        failures = 0
        while True:
            lasted = await self._link()
            failures = 1 if lasted else failures + 1
            await asyncio.sleep(back_off_s(failures, self._chance()))

    async def _link(self) -> bool:
        """One link, from the attempt to its end; whether it was a good one."""
        loop = asyncio.get_running_loop()
        for turn in range(len(self._addresses)):
            number = (self._next + turn) % len(self._addresses)
            address = self._addresses[number]
            try:
                connection = await self._links.dial(address)
            except OSError as error:
                self._say(address, f"cannot connect to {address}: {_reason(error)}")
                self._links.host.trouble(self.trouble)
                continue
            self.connected, since_s = address, loop.time()
            ended = await self._ended(connection)
            other = connection.instead
            while other is not None:
                await asyncio.shield(other.ended)
                ended, other = "the other link with that node ended", other.instead
            self.connected = None
            lasted = ended != _NO_MEMBER and loop.time() - since_s >= PEER_LASTING_S
            self._next = 0 if lasted else (number + 1) % len(self._addresses)
            if lasted:
                self._said.pop(address, None)
            self._say(address, f"the link to {address} ended: {ended}")
            return lasted
        self._next = 0
        return False

    async def _ended(self, connection: Connection) -> str:
        while len(self._addresses) > 1 and not connection.ended.done():
            await asyncio.wait([connection.ended], timeout=PEER_IDLE_S)
            if not connection.ended.done() and self._links.host.is_idle(connection.number):
                connection.close(_NO_MEMBER)
        return await asyncio.shield(connection.ended)

    def _say(self, address: Address, trouble: str) -> None:
        """Once, while it stays the same."""
        if trouble != self._said.get(address):
            _log.warning("%s; it is tried again", trouble.removesuffix("."))
        self.trouble = self._said[address] = trouble


class Dialer:
    """All lines of a node."""

    def __init__(self, links: Links[Host], lines: Sequence[Sequence[Address]], *, chance: Callable[[], float]) -> None:
        """``chance``: a number in [0, 1), another one each time."""
        self.lines: Final = [Line(links, addresses, chance) for addresses in lines]
        self._tasks: Final[list[asyncio.Task[None]]] = []

    def start(self) -> None:
        """Dial, and go on until `close`."""
        loop = asyncio.get_running_loop()
        self._tasks.extend(loop.create_task(line.keep(), name="edgekv-dialer") for line in self.lines)

    async def close(self) -> None:
        """Dial no more. Links that are there stay: `Links.stop` ends them."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()  # a mistake of ours
        self._tasks.clear()


def _reason(error: OSError) -> str:
    """Without the address, which is said already."""
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).split(":")[-1].strip()
