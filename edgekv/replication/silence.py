"""How long members have been silent, by the leader's count, and which of them are *parked*: closed until they come back.

A member that is silent holds the stable cut, so tombstones are kept for it. Who was silent for ``max_offline`` is closed, which takes
nothing from it: it goes on serving its users, and comes back as replication/returning.py says.

*Silent* is who neither is linked to the leader nor is heard of through another hub: no SEEN of a higher number than before came. Time
is counted on the leader's monotonic clock, by the looks that it takes, so neither a step of a wall clock nor a stamp parks anybody.
What was counted is written into meta every `STEP_MS` and whenever a long silence ends: a restart of the leader loses a step of it at
most and adds nothing. In a day at most a third of the members are parked, or one: if many are silent, it is the leader who is cut off.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from edgekv.ids import Actor
from edgekv.limits import DAY_MS
from edgekv.replication.link import Link
from edgekv.replication.members import Member, Members, Silences
from edgekv.replication.seen import Spoken

STEP_MS: Final = 3_600_000
_LOOK_MS_MAX: Final = 60_000
"""That counts between two looks: a process that was stopped heard nobody."""


class Judged(NamedTuple):
    """What a look came to."""

    parked: list[Member]
    row: Silences | None
    """To be written into meta, with the parking of those; None: what is there will do."""


class Silence:
    """Of the node that leads; others have a view of what it wrote."""

    def __init__(
        self,
        members: Members,
        spoken: Mapping[Actor, Spoken],
        links: Mapping[int, Link],
        *,
        max_offline_ms: int,
        monotonic_ms: Callable[[], int],
    ) -> None:
        """``max_offline_ms`` 0: nobody is parked."""
        self._members: Final = members
        self._spoken: Final = spoken
        self._links: Final = links
        self._max_offline_ms: Final = max_offline_ms
        self._monotonic_ms: Final = monotonic_ms
        self._looked_ms: int | None = None
        self._silent: dict[Actor, tuple[int, int]] = {}
        """By actor of an open member: for how long, and the number of the last SEEN that was heard."""
        self._ages: list[int] = []
        """How long ago members were parked, of the last day."""

    def look(self, own: bytes) -> Judged:
        """Count, as the leader, whose node is ``own``, does about once a second."""
        now_ms = self._monotonic_ms()
        if self._looked_ms is None:
            self._silent, self._ages = dict(self._members.silences.silent), list(self._members.silences.parked_ago_ms)
            self._looked_ms = now_ms
        passed_ms = min(max(0, now_ms - self._looked_ms), _LOOK_MS_MAX)
        self._looked_ms = now_ms
        self._ages = [age for age in (age + passed_ms for age in self._ages) if age < DAY_MS]
        present = [member for member in self._members.members.values() if member.state in ("open", "returning")]
        others = [member for member in present if member.node != own]
        self._silent = {member.actor: self._counted(member.actor, passed_ms) for member in others}
        parked = self._due(others)
        self._ages += [0] * len(parked)
        for member in parked:
            del self._silent[member.actor]
        return Judged(parked, self._row() if parked or self._has_moved() else None)

    def heard(self, actor: Actor) -> None:
        """A hub passed on what a member said."""
        if actor in self._silent:
            self._silent[actor] = 0, self._silent[actor][1]

    def silent_ms(self, actor: Actor) -> int:
        """How long a member has been silent, as far as this node knows."""
        found = self._silent if self._looked_ms is not None else self._members.silences.silent
        return found.get(actor, (0, 0))[0]

    def _counted(self, actor: Actor, passed_ms: int) -> tuple[int, int]:
        silent_ms, number = self._silent.get(actor, (0, -1))
        spoken = self._spoken.get(actor)
        newest = number if spoken is None else max(number, spoken.newest().number)
        linked = any(link.is_up and link.peer is not None and link.peer.actor == actor for link in self._links.values())
        return (0, newest) if linked or newest > number else (silent_ms + passed_ms, number)

    def _due(self, others: list[Member]) -> list[Member]:
        if not self._max_offline_ms:
            return []
        members = [member for member in others if member.state == "open"]
        due = [member for member in members if self._silent[member.actor][0] >= self._max_offline_ms]
        due.sort(key=lambda member: (-self._silent[member.actor][0], member.actor))
        of_a_day = max(1, (len(members) + 1 + len(self._ages)) // 3)
        return due[: max(0, of_a_day - len(self._ages))]

    def _has_moved(self) -> bool:
        """Whether what meta says is a step behind, or more than there is."""
        written = self._members.silences.silent
        return any(
            silent_ms >= written.get(actor, (0, 0))[0] + STEP_MS or silent_ms < written.get(actor, (0, 0))[0]
            for actor, (silent_ms, _) in self._silent.items()
        )

    def _row(self) -> Silences:
        return Silences({actor: entry for actor, entry in self._silent.items() if entry[0]}, list(self._ages))
