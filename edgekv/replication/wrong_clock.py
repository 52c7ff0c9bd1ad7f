"""What a node does about a hub that takes no more of its changes, as they are stamped too far ahead.

Its wall clock was days ahead while it wrote alone. As long as that clock still is, nothing can be done but to say so: somebody has to
set it. When it agrees with the hub's, the node's own stamps and its HLC are what is wrong, and the shell is asked to have them put
right (node/clock_restart.py), which takes a start.

It is a hub's word, so it counts only if this node dialed it, and only together with what this node sees itself: its wall clock and the
hub's are within a day of each other, and stamps that it holds are more than a day ahead of both. A hub whose own clock stands still
somewhere in the past changes nobody's stamps.
"""

from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.errors import ClockTooFarAhead
from edgekv.limits import CLOCK_AHEAD_MS_MAX
from edgekv.replication.link import Link
from edgekv.replication.messages import Refused

SHOWN_MS: Final = 60_000
"""A node that is refused dials again every few seconds: what was said longer ago is over."""
_HOUR_MS: Final = 3_600_000


class WrongClock:
    """Of one node."""

    def __init__(
        self,
        engine: Engine,
        *,
        say: Callable[[str], None],
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        """``say``: note a sentence for people."""
        self._engine: Final = engine
        self._say: Final = say
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms
        self._refused_at_ms = 0
        self._refusal: dict[str, object] | None = None
        self.was_wrong: Callable[[dict[int, int]], None] = lambda stamps_max: None
        """Set once by the shell: have stamps above these, by keyspace, put right."""

    def refused(self, link: Link, refused: Refused) -> None:
        """A peer ended a link."""
        if refused.code != ClockTooFarAhead.code or not link.outgoing or link.role != "hub" or link.peer is None:
            return
        clock_ahead_ms, hub_ms = -link.skew_ms, self._now_ms() + link.skew_ms
        stamps_ahead_ms = max(keyspace.hlc >> 16 for keyspace in self._engine.keyspaces.all) - hub_ms
        self._refused_at_ms = self._monotonic_ms()
        self._refusal = {"by": link.name, "clock_ahead_ms": clock_ahead_ms, "stamps_ahead_ms": stamps_ahead_ms}
        if abs(clock_ahead_ms) > CLOCK_AHEAD_MS_MAX:
            self._say(
                f"{link.name} takes nothing from this node: this node's clock is {abs(clock_ahead_ms) // _HOUR_MS} h "
                f"{'ahead of' if clock_ahead_ms > 0 else 'behind'} that hub's. Set the one that is wrong. Nothing is lost: when they "
                "agree, the stamps of what was written meanwhile are put right, and it is taken."
            )
        elif refused.stamps_max and stamps_ahead_ms > CLOCK_AHEAD_MS_MAX:
            self.was_wrong(dict(refused.stamps_max))

    def status(self) -> dict[str, object] | None:
        """Who takes nothing from this node since its stamps are too far ahead, and what its clock says; None: nobody."""
        over = self._monotonic_ms() - self._refused_at_ms > SHOWN_MS
        return None if over else self._refusal
