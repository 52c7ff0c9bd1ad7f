"""What replication tells people and their programs: members, links, who is how far behind, traffic, and what went wrong last.

Asked for by /v1/status and by each scrape of /metrics; `look` is called once a second. Nothing here decides anything.

A member without a link may get everything by way of other nodes. What it has is then known from its SEEN, and it is behind only if
that lacks something. A hub answers for all members; an edge for those that it has been linked to since it started: it has nothing to
do with the others.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final, Literal, NamedTuple

from edgekv.engine.engine import Engine
from edgekv.ids import Actor, KeyspaceId, Vector, actor_text
from edgekv.replication.acks import HUB
from edgekv.replication.lag import EvenSince, OwnMoves, behind
from edgekv.replication.leader import Leader
from edgekv.replication.link import Link
from edgekv.replication.members import Announced, Member, Members
from edgekv.replication.messages import Applicant
from edgekv.replication.seen import SeenTable
from edgekv.replication.silence import Silence

EVENTS_MAX: Final = 64
"""Of the last things that went wrong."""
COMPARED_AT_ONCE: Final = 100_000
"""Numbers of vectors in one `look`, 10 ms; members behind that have their turn at the next."""
NO_SITE: Final = "-"
"""Where the bytes of links are counted whose peers are no members."""
Direction = Literal["sent", "received"]


class Event(NamedTuple):
    """Something that went wrong."""

    wall_ms: int
    sentence: str
    """Begins with the name of the node at the other end, if there is one."""


class Lag(NamedTuple):
    """How far a member is behind this node."""

    member: Member
    linked: bool
    changes: int
    seconds: float


class LateRange(NamedTuple):
    """Changes of one actor that came late, so many between ``first`` and ``last``: it may have come back more than once."""

    member: Member
    keyspace: str
    first: int
    last: int
    changes: int


class Figures:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        cluster: bytes,
        myself: Applicant,
        members: Members,
        seen: SeenTable,
        leader: Leader,
        silence: Silence,
        links: Mapping[int, Link],
        now_ms: int,
    ) -> None:
        self._engine: Final = engine
        self._cluster: Final = cluster
        self._self: Final = myself
        self._members: Final = members
        self._seen: Final = seen
        self._leader: Final = leader
        self._silence: Final = silence
        self._links: Final = links
        self._started_ms: Final = now_ms
        self._even: Final[dict[bytes, EvenSince]] = {}
        """By node."""
        self._moves: Final = OwnMoves()
        self._looked = 0
        """Whose turn it is to be looked at, among the members."""
        self._cut: tuple[Announced | None, dict[int, Vector]] = None, {}
        """What is stable by the last STABLE, and that."""
        self._traffic: Final[dict[tuple[Direction, str], int]] = {}
        """By direction and site, bytes of links that are gone."""
        self.events: Final[list[Event]] = []
        """The last things that went wrong, the newest last."""

    # -- what happens

    def note(self, now_ms: int, who: str, sentence: str) -> None:
        """Something went wrong. What goes wrong again and again is one event, the time that of the last."""
        event = Event(now_ms, f"{who}: {sentence}" if who else sentence)
        others = [each for each in self.events if each.sentence != event.sentence]
        self.events[:] = [*others[-(EVENTS_MAX - 1) :], event]

    def gone(self, link: Link) -> None:
        """A link is over; called once."""
        for direction, size in _bytes_of(link):
            self._count(self._traffic, direction, link, size)

    def look(self, now_ms: int) -> int:
        """Once a second: who is even with this node. Returns how many numbers were compared."""
        self._moves.look(self._vectors())
        linked, members = self._linked(), self._others()
        for node in self._even.keys() - {member.node for member in members}:
            del self._even[node]
        held = self._held()
        compared, first = 0, self._looked % len(members) if members else 0
        for member in [*members[first:], *members[:first]]:
            node = member.node
            even = self._even.get(node)
            if even is None and (node in linked or self._self.role == HUB):
                # A hub that started has not seen anybody yet; who comes is new to it.
                even = self._even[node] = EvenSince(now_ms if node in linked else self._started_ms)
            if even is not None and compared < COMPARED_AT_ONCE:
                compared += even.look(now_ms, self._moves, self._known(member, linked), held(member), member.actor)
                self._looked += 1
        return compared

    # -- what is told

    def lags(self, now_ms: int) -> list[Lag]:
        """How far each member is behind that this node answers for."""
        own, linked, held = self._vectors(), self._linked(), self._held()
        moves = self._moves.until(own)
        found: list[Lag] = []
        for member in self._others():
            even = self._even.get(member.node)
            if even is not None or member.node in linked:
                asked = self._known(member, linked), held(member), member.actor
                changes = behind(own, *asked) if even is None else even.changes(own, moves, *asked)
                seconds = 0.0 if even is None else even.lag_s(now_ms, changes)
                found.append(Lag(member, member.node in linked, changes, seconds))
        return found

    def traffic(self) -> dict[tuple[Direction, str], int]:
        """Bytes of messages since the start, before compression, by direction and the site at the other end."""
        totals = dict(self._traffic)
        for link in self._links.values():
            for direction, size in _bytes_of(link):
                self._count(totals, direction, link, size)
        return totals

    def skews(self) -> dict[str, float]:
        """By the name of each linked node how far its clock is ahead of this one's, seconds; the way between them is included."""
        return {link.peer.name: link.clock.skew_ms / 1000 for link in self._links.values() if link.peer is not None}

    def member_states(self) -> dict[str, int]:
        """How many actors are members, by their state."""
        states = dict.fromkeys(("open", "parked", "returning", "closed", "settled"), 0)
        for member in self._members.members.values():
            states[self._shown_state(member)] += 1
        return states

    def silent_ms_max(self) -> int:
        """How long the member that has been silent longest has been, as far as this node knows."""
        return max((self._silence.silent_ms(member.actor) for member in self._others()), default=0)

    def status(self, now_ms: int, monotonic_ms: int) -> dict[str, object]:
        """All of it."""
        members = self._members
        lags = self.lags(now_ms)
        by_node = {lag.member.node: lag for lag in lags}
        return {
            "cluster": self._cluster.hex(),
            "role": self._self.role,
            "member": self._engine.admission.outsider is None,
            "leads": self._leader.leads,
            "meta_revision": members.revision,
            "stable": 0 if members.announced is None else members.announced.number,
            "members": [
                {
                    "name": m.name,
                    "site": m.site,
                    "role": m.role,
                    "state": self._shown_state(m),
                    "actor": actor_text(m.actor),
                    "silent_s": self._silence.silent_ms(m.actor) // 1000,
                }
                for m in sorted(members.members.values(), key=lambda m: (m.name, m.revision))
            ],
            "late_writes": self._late_writes(),
            "links": [_link_status(link, by_node, monotonic_ms) for link in self._links.values()],
            "unlinked": [
                {"name": lag.member.name, "site": lag.member.site, **_lag_status(lag)} for lag in lags if not lag.linked
            ],
            "events": [event._asdict() for event in self.events],
        }

    def late_changes(self) -> dict[str, int]:
        """By the name of the keyspace how many changes members brought when they returned."""
        totals: dict[str, int] = {}
        for each in self._late_ranges():
            totals[each.keyspace] = totals.get(each.keyspace, 0) + each.changes
        return totals

    def is_late(self, keyspace: str, actor: Actor, seq: int) -> bool:
        """Whether a change lies in their range."""
        member = self._members.members.get(actor)
        if member is None or not member.late:
            return False
        return any(each.keyspace == keyspace and each.first <= seq <= each.last for each in self._late_ranges([member]))

    def _late_writes(self) -> list[dict[str, object]]:
        return [
            {
                "name": each.member.name,
                "actor": actor_text(each.member.actor),
                "keyspace": each.keyspace,
                "first": each.first,
                "last": each.last,
                "changes": each.changes,
            }
            for each in self._late_ranges()
        ]

    def _late_ranges(self, members: Iterable[Member] | None = None) -> list[LateRange]:
        """What members brought when they returned (replication/returning.py)."""
        names = {keyspace.id: keyspace.name for keyspace in self._engine.keyspaces.all}
        members = self._members.members.values() if members is None else members
        return [
            LateRange(member, names.get(KeyspaceId(keyspace), str(keyspace)), first, last, changes)
            for member in sorted(members, key=lambda m: (m.name, m.actor))
            for keyspace, (first, last, changes) in sorted(member.late.items())
        ]

    # -- what is known

    def _shown_state(self, member: Member) -> str:
        """For people: whether a closed one may come back is what counts."""
        return "parked" if member.parked and member.state in ("closed", "settled") else member.state

    def _vectors(self) -> dict[int, Vector]:
        """What is durable here."""
        return {k.id: {a: head.seq for a, head in k.vector.items()} for k in self._engine.keyspaces.all}

    def _linked(self) -> dict[bytes, Link]:
        return {link.peer.node: link for link in self._links.values() if link.peer is not None}

    def _others(self) -> list[Member]:
        return [member for member in self._members.open_members() if member.node != self._self.node]

    def _known(self, member: Member, linked: Mapping[bytes, Link]) -> Mapping[int, Vector]:
        link = linked.get(member.node)
        if link is not None:
            return link.acknowledged
        seen = self._seen.counted(member.actor)
        if seen is not None:
            return seen.vectors
        announced = self._members.announced
        if announced is not self._cut[0]:
            cuts = {} if announced is None else announced.stable.cuts or {}
            self._cut = announced, {keyspace: cut.cut for keyspace, cut in cuts.items()}
        return self._cut[1]  # at least that, as every member

    def _held(self) -> Callable[[Member], list[int]]:
        """The keyspaces that this node and a member hold."""
        policies = [k.policy for k in self._engine.keyspaces.all if k.policy.held_at(self._self.site, self._self.role)]

        @cache
        def of(site: str, role: str) -> list[int]:
            return [policy.id for policy in policies if policy.held_at(site, role)]

        return lambda member: of(member.site, member.role)

    def _count(self, totals: dict[tuple[Direction, str], int], direction: Direction, link: Link, size: int) -> None:
        """Of members by their site; strangers may name any, and are one."""
        if link.peer is not None:
            member = self._members.members.get(link.peer.actor)
            key = direction, member.site if member is not None else NO_SITE
            totals[key] = totals.get(key, 0) + size


def _bytes_of(link: Link) -> list[tuple[Direction, int]]:
    return [("sent", link.sent_bytes_total), ("received", link.received_bytes)]


def _lag_status(lag: Lag | None) -> dict[str, object]:
    return {
        "lag_changes": 0 if lag is None else lag.changes,
        "lag_seconds": 0.0 if lag is None else lag.seconds,
    }


def _link_status(link: Link, lags: Mapping[bytes, Lag], monotonic_ms: int) -> dict[str, object]:
    peer = link.peer
    return {
        "peer": None if peer is None else peer.name,
        "site": None if peer is None else peer.site,
        "role": None if peer is None else peer.role,
        "phase": link.phase,
        "outgoing": link.outgoing,
        **_lag_status(None if peer is None else lags.get(peer.node)),
        "skew_ms": link.clock.skew_ms,
        "silent_ms": monotonic_ms - link.heard_ms,
        "since_ms": link.since_ms,
        "sent_bytes": link.sent_bytes_total,
        "received_bytes": link.received_bytes,
        "sent_changes": link.sent_changes,
        "received_changes": link.received_changes,
        "unacknowledged_bytes": link.unacknowledged,
    }
