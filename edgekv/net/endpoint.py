"""Where connections between nodes are made: nowhere else is a socket opened for them, so this is where they will be encrypted."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from edgekv.config import Address
from edgekv.limits import PEER_DIAL_S

_BACKLOG: Final = 256

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)


async def connect(address: Address, make: Callable[[], Protocol]) -> Protocol:
    """Connect within PEER_DIAL_S. Raises OSError, of which TimeoutError is one."""
    async with asyncio.timeout(PEER_DIAL_S):
        _, protocol = await asyncio.get_running_loop().create_connection(make, address.host, address.port)
    return protocol


async def listen(address: str, port: int, make: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    """Accept connections; port 0 picks a free one. Raises OSError."""
    return await asyncio.get_running_loop().create_server(make, address, port, backlog=_BACKLOG)


def prepare(transport: asyncio.BaseTransport) -> None:
    """What every connection wants: small messages leave at once, and the kernel finds out when the other machine is gone."""
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def place(transport: asyncio.BaseTransport, *, outgoing: bool) -> str:
    """The other end, for people: where it listens, or the machine that a connection came from, whose port says nothing."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "an unknown place"
    return str(Address(name[0], name[1])) if outgoing else str(name[0])
