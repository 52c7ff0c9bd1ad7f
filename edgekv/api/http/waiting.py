"""The three things an HTTP call may have to wait for: its frame, room in memory or log, and bytes in flight. Each is bounded.

* `Durability`: a reply waits until the newest frame that its call wrote to or looked at is durable (engine/commit.py,
  invariant B). One future per suspended call (none in lane.py). A disk that hangs is told as an unknown outcome after
  HTTP_DURABLE_WAIT_S; one sweep a second looks after all deadlines, because a timer per request costs as much as its future.
* `Room`: a write waits while the engine is at its memory or log bound. Reads never come here.
* `Budget`: bodies and replies above HTTP_INLINE_BODY_BYTES are counted; beyond the bound the request is refused, not queued.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

from edgekv.api.http.host import Engine, Host
from edgekv.engine.frame import Frame, Waiter
from edgekv.errors import EdgeKVError, OutcomeUnknown, Overloaded
from edgekv.limits import HTTP_DURABLE_WAIT_S, HTTP_ROOM_WAIT_S, HTTP_WAITING_WRITES_MAX

_SWEEP_S: Final = 1.0


class Durability:
    """All replies that are held back, and their deadlines."""

    def __init__(self, host: Host) -> None:
        self._host: Final = host
        self._loop: Final = asyncio.get_running_loop()
        self._deadlines: Final[dict[Waiter, float]] = {}
        """In the order of their deadlines, as all wait equally long."""
        self._sweep: asyncio.TimerHandle | None = None

    async def wait(self, frame: Frame) -> None:
        """Return when the frame's replies may leave; OutcomeUnknown when that cannot be told."""
        future = self._loop.create_future()
        self.hold(HeldCall(self, future), frame)
        await future

    def hold(self, waiter: Waiter, frame: Frame) -> None:
        """Have a waiter released with the frame, or failed at the deadline. It calls `settle` first in both."""
        self._deadlines[waiter] = self._loop.time() + HTTP_DURABLE_WAIT_S
        if self._sweep is None:
            self._sweep = self._loop.call_later(_SWEEP_S, self._expire)
        frame.waiters.append((waiter, None))
        self._host.kick_soon()

    def settle(self, waiter: Waiter) -> bool:
        """Whether this is the waiter's first answer: a frame may become durable after the deadline was told."""
        return self._deadlines.pop(waiter, None) is not None

    def close(self) -> None:
        """Fail what is still held."""
        if self._sweep is not None:
            self._sweep.cancel()
        for waiter in list(self._deadlines):
            waiter.fail(
                OutcomeUnknown("the node stopped before the write was known to be durable. Read the key to see.")
            )

    def _expire(self) -> None:
        now = self._loop.time()
        for waiter in [waiter for waiter, deadline in self._deadlines.items() if deadline <= now]:
            waiter.fail(
                OutcomeUnknown(f"the log was not synced within {HTTP_DURABLE_WAIT_S} s. Read the key later to see.")
            )
        self._sweep = self._loop.call_later(_SWEEP_S, self._expire) if self._deadlines else None


class HeldCall:
    """A suspended call's place at a frame: the engine's Waiter."""

    __slots__ = ("_durability", "_future")

    def __init__(self, durability: Durability, future: asyncio.Future[None]) -> None:
        self._durability: Final = durability
        self._future: Final = future

    def release(self, payload: object) -> None:  # noqa: ARG002 - the call itself knows what to say
        """The frame is durable."""
        if self._durability.settle(self) and not self._future.done():  # Done: cancelled when the server closes.
            self._future.set_result(None)

    def fail(self, error: EdgeKVError) -> None:
        """Nobody knows whether it happened."""
        if self._durability.settle(self) and not self._future.done():
            self._future.set_exception(error)


class Room:
    """Writes that wait for the engine to have room again."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine
        self._waiting = 0
        self._opened: asyncio.Event | None = None

    async def wait(self) -> None:
        """Return when writes are taken; Overloaded when too many wait already, or for too long."""
        if self._waiting >= HTTP_WAITING_WRITES_MAX:
            raise Overloaded(
                f"{HTTP_WAITING_WRITES_MAX} writes wait for room in memory or log already. Send it again after a pause."
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(HTTP_ROOM_WAIT_S):
                while self._engine.write_blocked:
                    await self._next_opening()
        except TimeoutError as error:
            raise Overloaded(
                f"the node had no room in memory or log for {HTTP_ROOM_WAIT_S} s. Send it again after a pause."
            ) from error
        finally:
            self._waiting -= 1

    async def _next_opening(self) -> None:
        # One event, so one callback at the engine, for everybody: a deadline met leaves nothing behind there.
        if self._opened is None or self._opened.is_set():
            self._opened = asyncio.Event()
            self._engine.on_room.append(self._opened.set)
        await self._opened.wait()


class Budget:
    """Bytes of large bodies and replies in flight, over all connections."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max: Final = bytes_max
        self.used = 0

    def hold(self, size: int = 0) -> "Hold":
        """Start a holding; give it back with `Hold.release` or by leaving its ``with``."""
        hold = Hold(self)
        hold.add(size)
        return hold


class Hold:
    """What one request has taken of the budget."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget) -> None:
        self._budget: Final = budget
        self._size = 0

    def add(self, size: int) -> None:
        """Take more; Overloaded when the budget has not that much."""
        if self._budget.used + size > self._budget.bytes_max:
            raise Overloaded(
                f"{self._budget.used} bytes of large requests and replies are in flight, near the bound. Send it again after a pause."
            )
        self._budget.used += size
        self._size += size

    def release(self) -> None:
        """Give everything back. May be called again."""
        self._budget.used -= self._size
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
