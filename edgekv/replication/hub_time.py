"""The hubs' time: what a node stamps by while it is linked to one, instead of by its own clock.

A board that boots in 1970, or whose clock is two days ahead, then stamps as everybody else; the HLC is above all it has made and seen
as ever, so no stamp goes back when a link comes or goes. Hubs use their own clocks, and so does a node without a link to one.

A hub says its wall clock in HELLO and HEARTBEAT. What is learned is how far it is ahead of this node's *monotonic* clock, so it does
not matter when somebody sets the wall clock here. A message was under way for at most the round trip, so half of that is added, and
half is how wrong the reading may be; of HELLO no round trip is known: it is taken as it is, UNKNOWN_ERROR_MS wrong, until the first
answer. The reading that may be wrong least is kept, and one that contradicts it takes its place: the hub's clock was set.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from edgekv.limits import HLC_FOLD_MAX, PEER_DEAD_MS

UNKNOWN_ERROR_MS: Final = PEER_DEAD_MS
"""A link whose messages take longer is dead."""
DRIFT_DIVISOR: Final = 10_000
"""Clocks drift apart by at most this part of the time that passes (100 ppm)."""
WALL_MS_MAX: Final = HLC_FOLD_MAX >> 17
"""No clock is there before the year 4000; stamps of it could not be folded in."""


class Reading(NamedTuple):
    """Of a hub's clock."""

    ahead_ms: int
    """How far it is ahead of this node's monotonic clock."""
    error_ms: int
    """By how much that may be wrong."""
    at_ms: int
    """When it was read, monotonic."""

    def error_at(self, at_ms: int) -> int:
        """By how much it may be wrong later."""
        return self.error_ms + (at_ms - self.at_ms) // DRIFT_DIVISOR


def read(last: Reading | None, wall_ms: int, round_trip_ms: int | None, at_ms: int) -> Reading | None:
    """What is known of a hub's clock after it said ``wall_ms``; None: still nothing.

    ``round_trip_ms``: None when it is not known. ``at_ms``: this node's monotonic clock.
    """
    if wall_ms > WALL_MS_MAX or (round_trip_ms is not None and not 0 <= round_trip_ms <= 2 * UNKNOWN_ERROR_MS):
        return last
    half = 0 if round_trip_ms is None else round_trip_ms // 2
    error_ms = UNKNOWN_ERROR_MS if round_trip_ms is None else round_trip_ms - half
    new = Reading(wall_ms + half - at_ms, error_ms, at_ms)
    if last is None or new.error_ms <= last.error_at(at_ms):
        return new
    return new if abs(new.ahead_ms - last.ahead_ms) > new.error_ms + last.error_at(at_ms) else last


def stamp_ms(readings: Iterable[Reading | None], now_ms: int, at_ms: int) -> int:
    """The time to stamp by. ``readings``: of linked hubs; ``now_ms``: the own wall clock, used when there are none."""
    known = [reading for reading in readings if reading is not None]
    if not known:
        return now_ms
    return max(0, min(known, key=lambda reading: reading.error_at(at_ms)).ahead_ms + at_ms)


class PeerClock:
    """The clock at the other end of one link, as HEARTBEATs tell of it."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        """Of a hub's."""
        self.skew_ms = 0
        """The peer's wall clock less this node's, when it last spoke, the way between them included."""
        self.is_judged = False
        """Whether this node has looked what its own stamps are by this clock (replication/wrong_clock.py)."""
        self._heard_ms = 0
        self._heard_at_ms = 0
        self.said_at_ms: int | None = None
        """When the last one with these fields went out here."""

    def say(self, at_ms: int) -> tuple[int, int, int]:
        """The own monotonic time, that of the peer when it last said it, and how long ago that came; all 0 but the first: never."""
        self.said_at_ms = at_ms
        return at_ms, self._heard_ms, at_ms - self._heard_at_ms if self._heard_ms else 0

    def hear(self, sent_ms: int, echo_ms: int, held_ms: int, at_ms: int) -> int | None:
        """Take in what the peer says; the round trip, None when it does not answer anything."""
        if sent_ms:
            self._heard_ms, self._heard_at_ms = sent_ms, at_ms
        return at_ms - echo_ms - held_ms if echo_ms else None
