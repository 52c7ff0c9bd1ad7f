"""A watch (node/watch.py) as something to await: the part that HTTP's event streams and RESP's pushes share.

Whoever serves a client makes one `Follower` per watch, and awaits `next` again when the client has taken what it returned. Nothing is
queued: a client that does not read holds up its own follower, which holds only its place in the log. Files are read by threads of the
loop's pool, so a watch that has fallen far behind does not hold the loop either.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from edgekv.limits import WATCH_HEARTBEAT_S, WATCH_PAUSE_MS, WATCHES_MAX
from edgekv.node.watch import Step
from edgekv.node.watch_events import Event

_PAUSE_S: Final = WATCH_PAUSE_MS / 1000 / WATCHES_MAX
"""Per watch that is open. A busy node wakes all of them with each frame, and each looks at all that was written."""


class Watch(Protocol):
    """One watch, as node/watch.py has it."""

    @property
    def cursor(self) -> str: ...
    @property
    def lags(self) -> bool: ...
    @property
    def durable_lsn(self) -> int: ...
    def load(self, durable_lsn: int) -> None: ...
    def step(self) -> Step: ...
    def close(self) -> None: ...


class Watches(Protocol):
    """All watches of a node."""

    @property
    def count(self) -> int: ...
    def open(self, prefix: bytes, cursor: str = "") -> Watch: ...
    def when_durable(self, callback: Callable[[], None]) -> None: ...
    def forget(self, callback: Callable[[], None]) -> None: ...


class Follower:
    """One client that watches. Made on the loop that serves it; `close` it."""

    def __init__(self, watches: Watches, watch: Watch, heartbeat_s: float = WATCH_HEARTBEAT_S) -> None:
        self._watches: Final = watches
        self._watch: Final = watch
        self._heartbeat_s: Final = heartbeat_s
        self._loop: Final = asyncio.get_running_loop()
        self._signal: Final = asyncio.Event()
        """Something to look at: more is durable, or the end."""
        self._flows: Final = asyncio.Event()
        self._flows.set()
        self._called = False
        """The node will call when more is durable."""
        self._looked_s = 0.0
        self._loading: asyncio.Future[None] | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self._ended

    @property
    def cursor(self) -> str:
        """Resumes behind everything that `next` has returned."""
        return self._watch.cursor

    async def next(self) -> list[Event]:
        """Wait for events. None after a while of silence: a heartbeat is due; and none when it has ended.

        Corruption: a durable frame of the log is damaged.
        """
        due_s = self._loop.time() + self._heartbeat_s
        while True:
            await self._flows.wait()
            await self._load()
            if self._ended:
                return []
            self._looked_s = self._loop.time()
            step = self._watch.step()
            if step.events:
                await asyncio.sleep(0)  # Others have their turn of the loop, however fast the client is.
                return step.events
            if step.more:
                await asyncio.sleep(0)
            elif not await self._more_durable(due_s):
                return []

    async def _load(self) -> None:
        """Have a thread read the files, if that is where the watch is."""
        if self._watch.lags and not self._ended:
            self._loading = self._loop.run_in_executor(None, self._watch.load, self._watch.durable_lsn)
            await asyncio.shield(self._loading)

    async def _more_durable(self, due_s: float) -> bool:
        """Wait until there is something to look at; False: ``due_s`` has come first."""
        pause_s = self._looked_s + _PAUSE_S * self._watches.count - self._loop.time()
        self._signal.clear()
        if not self._called:
            self._called = True
            self._watches.when_durable(self._wake)
        try:
            async with asyncio.timeout_at(due_s):
                await self._signal.wait()
                if pause_s > 0 and not self._ended:
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._called = False
        self._signal.set()

    def pause(self) -> None:
        """The client does not read: return nothing more."""
        self._flows.clear()

    def resume(self) -> None:
        """It reads again."""
        self._flows.set()

    def end(self) -> None:
        """The client is gone, or the node stops: `next` returns. Idempotent."""
        self._ended = True
        self._flows.set()
        self._signal.set()

    def close(self) -> None:
        """Give the watch back, as soon as no thread reads for it. Idempotent."""
        self.end()
        self._watches.forget(self._wake)
        if self._loading is not None and not self._loading.done():
            self._loading.add_done_callback(self._loaded)
        else:
            self._watch.close()

    def _loaded(self, loading: asyncio.Future[None]) -> None:
        """The thread is done, and nobody waits for it any more."""
        if not loading.cancelled():
            loading.exception()
        self._watch.close()
