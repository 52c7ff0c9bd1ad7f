"""The links of a development cluster: TCP forwarders that can be cut.

A cut link is one whose packets are lost: nothing that is sent arrives and nobody is told. Connections that are there stay silent,
new ones are accepted and stay silent too. When the link is healed both kinds are reset, as a router does with what it has forgotten,
and the nodes dial again.
"""

import asyncio
from contextlib import suppress
from typing import Final

from edgekv.config import Address

READ_BYTES: Final = 1 << 16


class Proxy:
    """One link: a port that leads to an address."""

    def __init__(self, target: Address) -> None:
        self._target: Final = target
        self._passes: Final = asyncio.Event()
        self._passes.set()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._server: asyncio.Server | None = None
        self.bytes = 0
        """That went through, both ways."""

    @property
    def is_cut(self) -> bool:
        return not self._passes.is_set()

    async def listen(self, port: int) -> None:
        """Accept connections on loopback. Raises OSError."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port)

    def cut(self) -> None:
        """From now on nothing passes. Idempotent."""
        self._passes.clear()

    def heal(self) -> None:
        """Reset what was silent, and let new connections pass. Idempotent."""
        if self.is_cut:
            for task in list(self._tasks):
                task.cancel()
            self._passes.set()

    async def close(self) -> None:
        """Accept nothing more, end what there is."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._passes.wait()
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the other side is not there, or the link was healed: either way this connection is over
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(self._target.host, self._target.port)
        try:
            directions = {
                asyncio.create_task(self._copy(reader, to_writer)),
                asyncio.create_task(self._copy(to_reader, writer)),
            }
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.wait(directions)
        finally:
            to_writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side has ended. What was read when the link was cut is lost with it."""
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await self._passes.wait()
                self.bytes += len(data)
                writer.write(data)
                await writer.drain()
            await asyncio.sleep(0)
