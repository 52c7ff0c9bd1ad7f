"""The RESP listener: accepts connections, wakes those that wait for room, and owns the tasks of the few commands that take long.

edgekv/server makes one, `listen`s and `close`s it. A bounded number of slow commands runs at a time, the others wait their turn.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from edgekv.api.resp.host import Host
from edgekv.api.resp.protocol import Connection
from edgekv.api.resp.session import Shared, Slices, Waiting
from edgekv.api.resp.slow import SlowCommand
from edgekv.api.resp.watch import Pushes
from edgekv.errors import EdgeKVError
from edgekv.limits import CONNECTIONS_MAX, RESP_CLOSE_WAIT_S, RESP_SLOW_COMMANDS_MAX, RESP_WAKE_CONNECTIONS

_BACKLOG: Final = 1024
_WAKE_PAUSE_S: Final = 0.001
_CLOSE_POLL_S: Final = 0.005


class RespServer:
    """One listener."""

    def __init__(self, host: Host, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.shared: Final = Shared(host, connections_max)
        self._host: Final = host
        self._engine: Final = host.operations.engine
        self._connections: Final[set[Connection]] = set()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._turns: Final = asyncio.Semaphore(RESP_SLOW_COMMANDS_MAX)
        self._server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections; the address and the port that it got (port 0 picks one). Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: Connection(self), address, port, backlog=_BACKLOG)
        name = self._server.sockets[0].getsockname()
        self.shared.port = name[1]
        return name[0], name[1]

    async def close(self) -> None:
        """Accept nothing more, answer what was asked, close every connection. Waits a bounded time for clients and disk."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._connections):
            connection.finish()
        clock = asyncio.get_running_loop().time
        deadline = clock() + RESP_CLOSE_WAIT_S
        while (self._connections or self._tasks) and clock() < deadline:  # noqa: ASYNC110 - once, of many
            await asyncio.sleep(_CLOSE_POLL_S)
        for connection in list(self._connections):
            connection.abort()

    # -- what connections ask of their listener

    def joined(self, connection: Connection) -> None:
        """A client is connected."""
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        """It is not any more."""
        self._connections.discard(connection)
        self.shared.without_room.pop(connection, None)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in the next turn of the loop."""
        self._loop.call_soon(callback)

    def wait_for_room(self, waiting: Waiting) -> None:
        """Call ``waiting.room`` when writes find room again. One callback at the engine stands for everybody here."""
        if not self.shared.without_room:
            self._engine.on_room.append(self._wake)
        self.shared.without_room[waiting] = None

    def _wake(self) -> None:
        """Wake some, in the order in which they began to wait, and the next ones a little later if there is still room."""
        if self._engine.write_blocked:
            self._engine.on_room.append(self._wake)
            return
        for waiting in list(islice(self.shared.without_room, RESP_WAKE_CONNECTIONS)):
            del self.shared.without_room[waiting]
            waiting.room()
        if self.shared.without_room:
            self._loop.call_later(_WAKE_PAUSE_S, self._wake)

    def run_slow(self, connection: Connection, slices: Slices) -> None:
        """Run it in a task, then call `Connection.slow_reply`."""
        task = self._loop.create_task(self._slow(connection, slices))
        self._tasks.add(task)
        task.add_done_callback(partial(self._slow_ended, connection))

    def run_stream(self, connection: Connection, pushes: Pushes) -> None:
        """Hand what the watch shows to `Connection.push`, in a task."""
        task = self._loop.create_task(self._stream(connection, pushes))
        self._tasks.add(task)
        task.add_done_callback(partial(self._slow_ended, connection))

    async def _stream(self, connection: Connection, pushes: Pushes) -> None:
        problem: EdgeKVError | None = None
        try:
            connection.push(pushes.place())
            while payload := await pushes.next():
                connection.push(payload)
        except EdgeKVError as error:
            problem = error
        finally:
            pushes.follower.close()
        connection.stream_ended(problem)

    async def _slow(self, connection: Connection, slices: Slices) -> None:
        command = SlowCommand(self._host, slices, self.wait_for_room)
        async with self._turns:
            reply = await command.run(lambda: not connection.ended)
        connection.slow_reply(reply, command.barrier)

    def _slow_ended(self, connection: Connection, task: asyncio.Task[None]) -> None:
        """Whatever happened, no client is left waiting for ever."""
        self._tasks.discard(task)
        if task.cancelled():  # At shutdown, perhaps before it began.
            connection.abort()
            return
        if task.exception() is not None:
            connection.abort()
        task.result()  # A mistake of ours goes to the loop's exception handler.
