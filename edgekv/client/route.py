"""Which address is tried next, and how long to wait before: fail-over with jittered back-off, without a clock of its own.

A connection that worked and broke is tried at the same address first, since only the same node knows the operation ids that are in
doubt. One that fails sends the client to the next address at once; after a whole round of failures it waits, longer each time.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

A = TypeVar("A")

PAUSE_S: Final = 0.02
PAUSE_S_MAX: Final = 1.0
_DOUBLINGS_MAX: Final = 10


class Route(Generic[A]):
    """Where a client is among its addresses. ``dice`` gives numbers from 0 to 1."""

    def __init__(self, addresses: Sequence[A], dice: Callable[[], float], *, place: int = 0) -> None:
        assert addresses
        self.addresses: Final = tuple(addresses)
        self._dice: Final = dice
        self.place = place
        """Of the address to connect to next."""
        self._failures = 0
        """In a row."""
        self.reason = "no connection yet"
        """Why there is none."""

    @property
    def address(self) -> A:
        """Where to connect next."""
        return self.addresses[self.place]

    def pause_s(self) -> float:
        """How long to wait before that: full jitter, so that clients who lost the same node do not come back in step."""
        rounds = self._failures // len(self.addresses)
        if rounds == 0:
            return 0.0
        return self._dice() * min(PAUSE_S * (1 << min(rounds - 1, _DOUBLINGS_MAX)), PAUSE_S_MAX)

    def failed(self, reason: str) -> None:
        """The address was of no use: it refused, hung, or talked nonsense."""
        self.reason = f"{self.address}: {reason}"
        self.place = (self.place + 1) % len(self.addresses)
        self._failures += 1

    def broke(self, reason: str) -> None:
        """A connection that had answered ended."""
        self.reason = f"{self.address}: {reason}"
        self._failures = 0
