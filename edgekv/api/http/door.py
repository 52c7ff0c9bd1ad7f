"""From a call to the engine and back: one synchronous step on the engine, then the wait for what it rests on.

`read` and `write` are the only places where HTTP touches `Operations`. The step runs without a pause, so that
``engine.barrier`` is of this call alone. Its reply, an error included, leaves after the newest frame that it wrote to or
looked at is durable. Most reads look at nothing undurable and answer without a future.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from edgekv.api.http.host import Host, Operations
from edgekv.api.http.waiting import Budget, Durability, Room
from edgekv.api.watch import Follower
from edgekv.engine.frame import Frame, newer
from edgekv.errors import EdgeKVError

T = TypeVar("T")


class Door:
    """What all calls of one server share."""

    def __init__(self, host: Host) -> None:
        self.host: Final = host
        self.operations: Final[Operations] = host.operations
        self.durability: Final = Durability(host)
        self.budget: Final = Budget(max(host.config.memory_bytes // 4, 4 * host.operations.value_bytes_max))
        self.followers: Final[set[Follower]] = set()
        """Of the watches that are being served; they end before the node does."""
        self._engine: Final = host.operations.engine
        self._room: Final = Room(self._engine)

    async def read(self, step: Callable[[Operations], T]) -> T:
        """Run a step that changes nothing. Never waits for back-pressure."""
        self._engine.barrier = None
        try:
            return step(self.operations)
        finally:
            frame = self._looked_at()
            if frame is not None and not frame.done:
                await self.durability.wait(frame)

    async def write(self, step: Callable[[Operations], T]) -> T:
        """Run a step that may change something, once there is room for it."""
        await self.admit()
        return await self.read(step)

    async def admit(self) -> None:
        """Wait until the engine takes writes. Called also before a body is read, which then waits in the socket."""
        if self._engine.write_blocked:
            await self._room.wait()

    async def read_in_slices(self, step: Callable[[Operations], bool]) -> None:
        """Run a read's steps until one returns False or raises, giving the loop back between them; wait for what all looked at."""
        looked_at: Frame | None = None

        def slice_step() -> bool:
            nonlocal looked_at
            self._engine.barrier = None
            try:
                return step(self.operations)
            finally:
                looked_at = newer(looked_at, self._looked_at())

        refusal: EdgeKVError | None = None
        try:
            await self.host.run_slices(slice_step)
        except EdgeKVError as error:
            refusal = error
        if looked_at is not None and not looked_at.done:
            await self.durability.wait(looked_at)
        if refusal is not None:
            raise refusal

    def _looked_at(self) -> Frame | None:
        """What the last step wrote to or looked at."""
        return self._engine.barrier
