"""A command that takes long: its steps in slices of a few milliseconds, and for writes, one durable change after the other.

The one coroutine of api/resp. server.py runs it in a task of its own; the connection holds meanwhile.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from edgekv.api.resp.host import Host
from edgekv.api.resp.replies import fault
from edgekv.api.resp.session import Slices
from edgekv.engine.frame import Frame, newer
from edgekv.errors import EdgeKVError


class Signal:
    """Something a task awaits: room (`RespServer.wait_for_room`) or a frame (`Frame.waiters`)."""

    def __init__(self) -> None:
        self._future: Final = asyncio.get_running_loop().create_future()

    def room(self) -> None:
        """There is room."""
        self.release(None)

    def release(self, payload: object) -> None:
        """The frame is durable."""
        if not self._future.done():
            self._future.set_result(payload)

    def fail(self, problem: EdgeKVError) -> None:
        """Whether the change happened is unknown."""
        if not self._future.done():
            self._future.set_exception(problem)

    async def wait(self) -> None:
        """Until one of them is called; raises what `fail` was called with."""
        await self._future


class SlowCommand:
    """One such command being carried out."""

    def __init__(self, host: Host, slices: Slices, wait_for_room: Callable[[Signal], None]) -> None:
        self._host: Final = host
        self._engine: Final = host.operations.engine
        self._slices: Final = slices
        self._wait_for_room: Final = wait_for_room
        self._more = True
        self.barrier: Frame | None = slices.barrier
        """What the reply waits for: everything the steps wrote or looked at."""

    async def run(self, wanted: Callable[[], bool]) -> bytes:
        """The reply. A read stops early when nobody wants it any more; a write is finished in any case."""
        try:
            while self._more and (self._slices.writes or wanted()):
                await self._go_on()
            return self._slices.reply()
        except EdgeKVError as problem:
            return fault(problem)

    async def _go_on(self) -> None:
        if not self._slices.writes:
            await self._host.run_slices(self._step)
            return
        while self._engine.write_blocked:
            room = Signal()
            self._wait_for_room(room)
            await room.wait()
        await self._host.run_slices(self._one_step)
        if self.barrier is not None and not self.barrier.done:
            durable = Signal()
            self.barrier.waiters.append((durable, None))
            self.barrier = None  # Waited for here; a frame that failed would never be done.
            self._host.kick_soon()
            await durable.wait()

    def _step(self) -> bool:
        self._engine.barrier = None
        try:
            self._more = self._slices.step()
        finally:  # An error, too, tells of what was looked at.
            self.barrier = newer(self.barrier, self._engine.barrier)
        return self._more

    def _one_step(self) -> bool:
        self._step()
        return False
