"""The RESP listener: accepts connections, wakes those that wait for room, and runs the few commands that take long.

edgekv/server.py makes one, `listen`s and `close`s it. The only tasks of api/resp are those of slow commands, and they are owned here:
a bounded number runs at a time, and `close` ends them.
"""

import asyncio
import socket
from typing import Final

from edgekv.api.resp.host import Engine, Host
from edgekv.api.resp.protocol import Connection
from edgekv.api.resp.replies import fault
from edgekv.api.resp.session import Shared, Slices
from edgekv.engine.frame import Frame, newer
from edgekv.errors import EdgeKVError
from edgekv.limits import CONNECTIONS_MAX, RESP_CLOSE_WAIT_S, RESP_SLOW_COMMANDS_MAX

_BACKLOG: Final = 1024
_POLL_S: Final = 0.005
_SWEEP_SPARE: Final = 64


class RespServer:
    """One listener."""

    def __init__(self, host: Host, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._host: Final = host
        self._shared: Final = Shared(host, connections_max)
        self._connections: set[Connection] = set()
        self._without_room: list[Connection] = []
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._turns: Final = asyncio.Semaphore(RESP_SLOW_COMMANDS_MAX)
        self._server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections; the address and the port that it got (port 0 picks one). Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(self._connect, address, port, backlog=_BACKLOG)
        name = self._server.sockets[0].getsockname()
        self._shared.port = name[1]
        return name[0], name[1]

    async def close(self) -> None:
        """Accept nothing more, answer what was asked, close every connection. Waits a bounded time for clients and disk."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._living():
            connection.finish()
        deadline = self._loop.time() + RESP_CLOSE_WAIT_S
        while self._living() and self._loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
        for connection in self._living():
            connection.abort()
        self._server = None

    def _living(self) -> list[Connection]:
        self._connections = {one for one in self._connections if not one.ended}
        return list(self._connections)

    def _connect(self) -> Connection:
        if len(self._connections) > 2 * len(self._shared.sessions) + _SWEEP_SPARE:
            self._living()  # forget the ended ones now and then, not at each end
        connection = Connection(
            self._shared,
            wait_for_room=self._wait_for_room,
            run_slow=self._run_slow,
            call_soon=self._loop.call_soon,
        )
        self._connections.add(connection)
        return connection

    # -- connections that wait for room

    def _wait_for_room(self, connection: Connection) -> None:
        if not self._without_room:
            self._host.operations.engine.on_room.append(self._room)
        self._without_room.append(connection)

    def _room(self) -> None:
        waiting, self._without_room = self._without_room, []
        for connection in waiting:
            connection.room()

    # -- slow commands

    def _run_slow(self, connection: Connection, slices: Slices) -> None:
        task = self._loop.create_task(self._slow(connection, slices))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _slow(self, connection: Connection, slices: Slices) -> None:
        walk = _Walk(self._host.operations.engine, connection, slices)
        async with self._turns:
            if slices.writes:
                while await self._room_for(walk) and walk.step():
                    await self._durable(walk.newest)
            else:
                await self._host.run_slices(walk.step)
        reply = slices.reply() if walk.failure is None else fault(walk.failure)
        connection.slow_reply(reply, walk.newest)

    async def _room_for(self, walk: "_Walk") -> bool:
        while walk.engine.write_blocked and not walk.connection.ended:
            await asyncio.sleep(_POLL_S)
        return True

    async def _durable(self, frame: Frame | None) -> None:
        """Each change of a chain is durable before the next one begins: a slow disk slows the chain, not the clients."""
        self._host.kick_soon()
        while frame is not None and not frame.done and self._host.ready():
            await asyncio.sleep(_POLL_S)


class _Walk:
    """A slow command in progress."""

    def __init__(self, engine: Engine, connection: Connection, slices: Slices) -> None:
        self.engine: Final = engine
        self.connection: Final = connection
        self.failure: EdgeKVError | None = None
        self.newest: Frame | None = None
        self._slices: Final = slices

    def step(self) -> bool:
        """One slice; whether there is more to do."""
        if self.connection.ended:
            return False
        self.engine.barrier = None
        try:
            more = self._slices.step()
        except EdgeKVError as problem:
            self.failure, more = problem, False
        self.newest = newer(self.newest, self.engine.barrier)
        return more
