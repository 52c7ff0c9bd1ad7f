"""All connections of this node to others: replication's `Transport`, which knows them by number."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from edgekv.config import Address
from edgekv.limits import PEER_CLOSE_WAIT_S, PEER_CONNECTIONS_MAX
from edgekv.net import endpoint
from edgekv.net.complaints import Complaints
from edgekv.net.frame import Framing
from edgekv.net.link import Connection, Host


class Transport(Protocol):
    """What the host of connections can do with them."""

    def send(self, link: int, message: bytes) -> None:
        """Send one message; nothing, when the link has ended. Never blocks."""

    def close(self, link: int, reason: str, *, instead: int = 0) -> None:
        """End a link when what was sent has left. ``reason``: empty when it is as it should be; ``instead``: the link that takes its
        place, with the same node.
        """


HostT_co = TypeVar("HostT_co", bound=Host, covariant=True)


class Links(Generic[HostT_co]):
    """One per node. Who listens (listener.py) and who dials (dialer.py) make connections of it."""

    def __init__(self, host: Callable[[Transport], HostT_co], *, incoming_max: int = PEER_CONNECTIONS_MAX) -> None:
        """``host`` makes the one who hears of connections, and gets what it sends through."""
        self.framing: Final = Framing()
        self.host: Final = host(self)
        self._incoming_max: Final = incoming_max
        self._connections: Final[set[Connection]] = set()
        self._by_number: Final[dict[int, Connection]] = {}
        self._numbers = 0
        self._incoming = 0
        self._complaints: Final = Complaints(time.monotonic)

    # -- what replication asks

    def send(self, link: int, message: bytes) -> None:
        """See `Transport`."""
        connection = self._by_number.get(link)
        if connection is not None:
            connection.send(message)

    def close(self, link: int, reason: str, *, instead: int = 0) -> None:
        """See `Transport`."""
        connection = self._by_number.get(link)
        if connection is None:
            return
        connection.instead = self._by_number.get(instead)
        if reason and not instead and not connection.outgoing:  # of its own ones the dialer speaks
            self._complaints.say(f"the link with {connection.place} ends: {reason}")
        connection.close(reason)

    # -- who makes connections

    def incoming(self) -> Connection:
        """For a connection that another node made."""
        return Connection(self, outgoing=False)

    async def dial(self, address: Address) -> Connection:
        """Connect to another node's listener. Raises OSError."""
        return await endpoint.connect(address, lambda: Connection(self, outgoing=True))

    async def stop(self) -> None:
        """End all of them, and wait a bounded time for what was sent to leave. Idempotent."""
        connections = list(self._connections)
        for connection in connections:
            connection.close("this node stops")
        if connections:
            await asyncio.wait([connection.lost for connection in connections], timeout=PEER_CLOSE_WAIT_S)
        for connection in list(self._connections):
            connection.abort()
            await connection.lost

    # -- what connections ask

    def accepts(self, connection: Connection) -> bool:
        """Whether there is room for one more; then it counts."""
        if not connection.outgoing:
            if self._incoming >= self._incoming_max:
                self.complain(connection, f"{self._incoming} connections of other nodes are open; more are refused")
                return False
            self._incoming += 1
        self._connections.add(connection)
        return True

    def greeted(self, connection: Connection) -> int:
        """The number of a connection that has a node at its other end."""
        self._numbers += 1
        self._by_number[self._numbers] = connection
        return self._numbers

    def complain(self, connection: Connection, sentence: str) -> None:
        """Tell people, by the host's status and in the log. Why one of its own ended the dialer logs."""
        if not connection.outgoing:
            self._complaints.say(sentence)
        self.host.trouble(sentence)

    def left(self, connection: Connection) -> None:
        """It is closed."""
        self._by_number.pop(connection.number, None)
        if connection in self._connections:
            self._connections.remove(connection)
            if not connection.outgoing:
                self._incoming -= 1
