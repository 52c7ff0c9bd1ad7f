"""``edgekv.open``: the node inside the process, and the asynchronous client on it without a socket.

The node is `Server`'s, on the loop that runs, without listeners and signals. The client is `edgekv.connect`'s: what its connection
writes is handed to a RESP connection of the node, and back, by a function call (`Pipe`). So an embedded store has the same verbs,
durability, order and back-pressure as one behind a socket, by the same code.

What belongs to the application is given back or left alone: signals, the garbage collector's thresholds, the event loop policy. The
interpreter's switch interval is shortened while a store is open (`SWITCH_INTERVAL_S`).
"""

import asyncio
import os
import random
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from edgekv import config
from edgekv.api.resp.protocol import Connection
from edgekv.api.resp.server import RespServer
from edgekv.client import commands
from edgekv.client.asynchronous import Verbs
from edgekv.client.commands import Name
from edgekv.client.exchange import Exchange, L
from edgekv.client.route import Route
from edgekv.client.timing import DEADLINE_S
from edgekv.config import Address, Config
from edgekv.errors import ConfigError, EdgeKVError, Unavailable
from edgekv.limits import WATCHES_MAX
from edgekv.server import Server

SWITCH_INTERVAL_S: Final = 5e-5
"""After each fdatasync the flusher's thread needs the GIL to say so; with Python's 5 ms it waits that long for a busy loop."""
AT_ONCE_MAX: Final = 64
"""Reads in a row that may be answered without giving the loop back: about 100 µs."""
_INSIDE: Final = Address("inside", 0)


class End(asyncio.Transport):
    """One end of a pipe, as a transport: what is written here the protocol at the other end receives at once."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: Final = asyncio.get_running_loop()
        self._own: asyncio.Protocol
        self._other: End
        self._closing = False

    def join(self, own: asyncio.Protocol, other: "End") -> None:
        """``own`` writes here; what it writes goes to the protocol of ``other``."""
        self._own, self._other = own, other

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._other._own.data_received(data)  # type: ignore[arg-type] # both protocols write bytes

    def pause_reading(self) -> None:
        self._other._own.pause_writing()

    def resume_reading(self) -> None:
        self._other._own.resume_writing()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Both ends hear of it in the next turn of the loop."""
        for end in (self, self._other):
            if not end._closing:
                end._closing = True
                self._loop.call_soon(end._own.connection_lost, None)

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""

    def get_write_buffer_size(self) -> int:
        return 0


class Inside(RespServer):
    """The node's RESP door for the process that it is in."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, connections_max=1 + WATCHES_MAX)
        self._loop = asyncio.get_running_loop()

    def connect(self, link: L) -> L:
        """A new connection between the client's link and the node."""
        theirs = Connection(self)
        outer, inner = End(), End()
        outer.join(link, inner)
        inner.join(theirs, outer)
        theirs.connection_made(inner)
        link.connection_made(outer)
        return link


class InsideServer(Server):
    """A node without listeners, on the loop of the application."""

    def __init__(self, settings: Config) -> None:
        super().__init__(settings)
        self.door: Inside | None = None
        """While it serves."""

    def _take_collector(self) -> None:
        """It is the application's."""

    async def _serve(self, announce: Callable[[str], None]) -> None:
        self.door = Inside(self)
        self._listeners.append(self.door)
        announce("ready")
        self._tick()
        self._peers.dial()
        try:
            await self._stopping.wait()
        finally:
            self.door = None

    def _heed_signals(self) -> None:
        """They are the application's."""

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()


class Embedded(Verbs):
    """A store in this process. ``async with`` it, or ``await`` it and `close` it."""

    __slots__ = ("_at_once", "_loop", "_server", "_switch_interval_s", "_task")

    def __init__(self, settings: Config, deadline_s: float) -> None:
        route = Route((_INSIDE,), random.random)
        super().__init__(Exchange(route, deadline_s, self._dial, uses_ids=False), deadline_s)
        self._server: Final = InsideServer(settings)
        self._task: asyncio.Task[None] | None = None
        self._at_once = 0
        self._switch_interval_s = 0.0

    async def _dial(self, address: Address, link: Callable[[], L]) -> L:  # noqa: ARG002 - there is one place
        if self._server.door is None:
            raise Unavailable(f"the node has stopped{self._last_words()}. Open it again.")
        return self._server.door.connect(link())

    def get(self, key: Name) -> "asyncio.Future[bytes | None]":
        """The value, None when there is none. WrongType for a key that holds only a set or a map.

        Most answers are there at once: no other caller runs meanwhile. Each AT_ONCE_MAX-th takes the way of all calls, so that a
        caller that does nothing but read lets the others run.
        """
        if self._at_once < AT_ONCE_MAX and self._exchange.idle:
            operations, name = self._server.operations, commands.name(key)
            self._server.engine.barrier = None
            try:
                operations.check_key(name)
                value = operations.get(name)
            except EdgeKVError:
                pass  # The usual way words it.
            else:
                looked_at = operations.engine.barrier
                if looked_at is None or looked_at.done:
                    self._at_once += 1
                    future: asyncio.Future[bytes | None] = self._loop.create_future()
                    future.set_result(value)
                    return future
        self._at_once = 0
        return super().get(key)

    def status(self) -> dict[str, object]:
        """The node's figures, as /v1/status has them."""
        return self._server.operations.status()

    def _last_words(self) -> str:
        ended = self._task is not None and self._task.done() and not self._task.cancelled()
        error = self._task.exception() if ended and self._task is not None else None
        return "" if error is None else f" ({error})"

    async def _open(self) -> Self:
        assert self._task is None, "a store is opened once"
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch_interval_s, SWITCH_INTERVAL_S))
        ready = asyncio.Event()
        self._loop = loop = asyncio.get_running_loop()
        self._task = task = loop.create_task(self._server.run(lambda _: ready.set()), name="edgekv-node")
        waiting = loop.create_task(ready.wait())
        try:
            await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            self._exchange.start()
            await self.ping()
        except BaseException:
            await self.close()
            raise
        finally:
            waiting.cancel()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Make what was called durable, and stop the node cleanly. LogFailed when its log had failed."""
        task = self._task
        if task is None:
            return
        self._server.stop()
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
            await self._exchange.close()
        finally:
            sys.setswitchinterval(self._switch_interval_s)
            self._task = None
        task.result()


def open(  # noqa: A001 - as gzip.open
    path: str | os.PathLike[str],
    *,
    deadline_s: float = DEADLINE_S,
    config_file: str | os.PathLike[str] | None = None,
    **settings: object,
) -> Embedded:
    """The store in directory ``path``, created when absent, with the node inside this process.

    ``settings`` are keys of the configuration (``durability="buffered"``, ``memory_bytes=...``, ``applier="inline"``), and go before
    those of ``config_file``, where keyspaces are named; its listeners do not matter. ``upstream=["127.0.0.1:7482"]`` are nodes to
    replicate with; an empty directory is entered when one of them has answered. Raises ConfigError here, and when it is entered
    or awaited DirectoryInUse if another process has it open.
    """
    unknown = sorted(settings.keys() - config.KEYS.keys() - {config.UPSTREAM})
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting. Those of docs/OPERATIONS.md that have no dot can be given."
        )
    flags = {"data_dir": os.fspath(path), **settings}
    file = None if config_file is None else Path(config_file)
    return Embedded(config.load(file=file, environ={}, flags=flags).config, deadline_s)
