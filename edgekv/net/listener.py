"""The ``peer`` listener: other nodes connect here."""

import asyncio
from typing import Final

from edgekv.net import endpoint
from edgekv.net.link import Host
from edgekv.net.links import Links


class PeerListener:
    """Accepts connections for `Links`, which bounds and owns them."""

    def __init__(self, links: Links[Host]) -> None:
        self._links: Final = links
        self._server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections; the address and the port that it got (port 0 picks one). Raises OSError."""
        self._server = await endpoint.listen(address, port, self._links.incoming)
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    async def close(self) -> None:
        """Accept nothing more. Connections stay: `Links.stop` ends them."""
        if self._server is not None:
            self._server.close()
            self._server = None
