"""What a node does when its stamps are so far ahead that no hub takes them (engine/intake.py).

Its wall clock was days ahead while it wrote alone, or that of a hub that it followed was. As long as its clock still is, nothing can
be done but to say so: somebody has to set it. When it agrees with the hub's, the node's own stamps and its HLC are what is wrong, and
the shell is asked to have them put right (node/clock_restart.py), which takes a start.

A hub's HELLO says what it judges by: its clock, and by keyspace the HLC above which it stamps itself. So a node that has nothing to
send finds out as well, before writes of others, which are stamped as they should be, lose to values that it holds. It is a hub's
word: it counts only if this node dialed it and knows it as a member, which stamps above what its cluster has seen, and only together
with what this node sees itself, that both wall clocks are within a day of each other. A hub whose own clock stands still somewhere in
the past changes nobody's stamps.
"""

from collections.abc import Callable
from typing import Final

from edgekv.clock import hlc_from_ms, hlc_ms
from edgekv.engine.engine import Engine
from edgekv.limits import CLOCK_AHEAD_MS_MAX
from edgekv.replication.link import Link
from edgekv.replication.members import Members

SHOWN_MS: Final = 60_000
"""A node that is refused dials again every few seconds: what was said longer ago is over."""
_HOUR_MS: Final = 3_600_000


class WrongClock:
    """Of one node."""

    def __init__(
        self,
        engine: Engine,
        members: Members,
        *,
        say: Callable[[str], None],
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        """``say``: note a sentence for people."""
        self._engine: Final = engine
        self._members: Final = members
        self._say: Final = say
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms
        self._found_at_ms = 0
        self._found: dict[str, object] | None = None
        self.was_wrong: Callable[[dict[int, int]], None] = lambda stamps_max: None
        """Set once by the shell: have stamps above these, by keyspace, put right."""

    def look(self, link: Link) -> None:
        """A peer has spoken: once for each link, whether it is a hub that takes no such stamps as this node makes.

        Before it sends data, this node has the meta that names it as a member.
        """
        hello = link.peer
        if hello is None or link.clock.is_judged:
            return
        link.clock.is_judged = not link.outgoing or hello.role != "hub" or self._members.is_open(hello.actor)
        if not link.outgoing or hello.role != "hub" or not link.clock.is_judged:
            return
        stamps_max = {
            number: hlc_from_ms(max(hello.wall_ms, hlc_ms(hlc)) + CLOCK_AHEAD_MS_MAX)
            for number, hlc in hello.hlcs.items()
        }
        far = [k.hlc for k in self._engine.keyspaces.all if k.hlc > stamps_max.get(k.id, k.hlc)]
        if not far:
            return
        ahead_ms, hub_ms = -link.clock.skew_ms, self._now_ms() + link.clock.skew_ms
        self._found_at_ms = self._monotonic_ms()
        self._found = {
            "by": hello.name,
            "clock_ahead_ms": ahead_ms,
            "stamps_ahead_ms": hlc_ms(max(far)) - hub_ms,
        }
        if abs(ahead_ms) <= CLOCK_AHEAD_MS_MAX:
            self.was_wrong(stamps_max)
            return
        self._say(
            f"{hello.name} takes no changes of this node: this node's clock is {abs(ahead_ms) // _HOUR_MS} h "
            f"{'ahead of' if ahead_ms > 0 else 'behind'} that hub's. Set the one that is wrong. Nothing is lost: when they agree, the "
            "stamps of what was written meanwhile are put right, and it is taken."
        )

    def status(self) -> dict[str, object] | None:
        """Who takes nothing of this node since its stamps are too far ahead, and what its clock says; None: nobody."""
        over = self._monotonic_ms() - self._found_at_ms > SHOWN_MS
        return None if over else self._found
