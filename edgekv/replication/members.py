"""Meta as this node knows it: who is a member, and what may be forgotten.

Meta is the keyspace ``_meta``, which one node writes, the *leader*: the hub that founded the cluster. (A Raft group takes its place
later: nothing here but `Leader` in replication/leader.py writes.) Its changes are numbered without holes and travel as any other
keyspace's, so every node knows a prefix of them; the *revision* of a node is the sum of what its durable vector of ``_meta`` covers.

    _meta/cluster          {"leader": node 16 B, "by": actor, "line": [[actor, seq], ...], "floors": {keyspace: [[actor, seq], ...]}}
                           by: the incarnation of the leader that writes meta; line: what it had of those before it when it began
                           (replication/lines.py); floors: what the founder had purged by itself, before there was anybody to tell
    _meta/member/<actor>   {"node", "name", "site", "role", "state", "revision", "heads": {keyspace: seq}, "hlcs": {keyspace: hlc},
                           "ttl_ms", "parked", "need": {keyspace: [[actor, seq], ...]}, "late": {keyspace: [first, last, changes]}}
                           ``state`` is open, closed (no data is exchanged with it any more), settled (nothing of it is on its way
                           any more) or returning (replication/returning.py); ``parked``: it was closed as its node was silent, or by
                           an operator who wants it back, and may come back; ``revision`` is the one that gave it this state
                           (or, of a settled one, its last late range); ``hlcs`` and ``ttl_ms`` are the leader's when it was
                           admitted: it stamps above them; ``need``: of one that returns, what rows that it takes have to cover;
                           ``late``: how many of its changes came late, which travel as rows only, and in which range they all are
    _meta/keyspace/<id>    replication/keyspace_list.py
    _meta/stable           {"number", "wall_ms", "cuts": {keyspace: [cut, need, [parked actor, ...]]}, "said_at", "by": actor,
                           "gaps": [[number, number], ...]}
                           the newest STABLE (replication/stability.py); by: the incarnation of the leader that announced it; gaps:
                           between which numbers there are only STABLEs that a leader forgot when it was restored, or that cover
                           what is lost since
    _meta/silence          {"silent": {actor: [ms, number]}, "parked_ago_ms": [ms, ...]}
                           who has been silent for long (replication/silence.py)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from edgekv.codec import pack, unpack
from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID, META_PREFIX, Keyspace
from edgekv.errors import Corruption, InvalidRequest
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.replication.keyspace_list import KEYSPACE_PREFIX, ListedKeyspace, parse_listed
from edgekv.store.applied import Cut, Stable

State = Literal["open", "closed", "settled", "returning"]

CLUSTER_KEY: Final = META_PREFIX + b"cluster"
STABLE_KEY: Final = META_PREFIX + b"stable"
SILENCE_KEY: Final = META_PREFIX + b"silence"
MEMBER_PREFIX: Final = META_PREFIX + b"member/"
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One actor of a node."""

    actor: Actor
    node: bytes
    name: str
    site: str
    role: str
    state: State
    revision: int
    heads: dict[int, int]
    hlcs: dict[int, int]
    ttl_ms: int
    parked: bool
    need: dict[int, Vector] = field(default_factory=dict)
    late: dict[int, list[int]] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """Of its row."""
        return MEMBER_PREFIX + self.actor.hex().encode()

    def pack(self) -> bytes:
        """Its row."""
        return pack(
            {
                "node": self.node,
                "name": self.name,
                "site": self.site,
                "role": self.role,
                "state": self.state,
                "revision": self.revision,
                "heads": self.heads,
                "hlcs": self.hlcs,
                "ttl_ms": self.ttl_ms,
                "parked": self.parked,
                "need": {keyspace: list(vector.items()) for keyspace, vector in self.need.items()},
                "late": self.late,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A STABLE and its number."""

    number: int
    stable: Stable
    said_at: int = -1
    """Of meta: all who were members at this revision had said that they have what the cuts cover; -1: not all had."""
    by: Actor | None = None
    """The incarnation of the leader that announced it; None: of before that was written down."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Each the last number that a restored leader knew of, and the first that it gave: those between are of a time that is lost.

    One from 0 on ends all before it: their cuts cover what nobody has any more.
    """


class Silences(NamedTuple):
    """What the leader has counted."""

    silent: dict[Actor, tuple[int, int]]
    """By actor of an open member: for how long, ms, and the number of its last SEEN."""
    parked_ago_ms: list[int]
    """How long ago members were parked, of the last day."""


class Members:
    """The view of one node. `refresh` reads it anew when meta has moved."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine
        self._keyspace: Final[Keyspace] = engine.keyspaces.by_id[META_ID]
        self._read_at = -1
        self._whole_at = -1
        self._parsed: Final[dict[bytes, tuple[bytes, Member]]] = {}
        """By key of a member's row what it was when it was read last, and says: of a thousand rows one has moved."""
        self.unreadable: Corruption | None = None
        """A row that came last cannot be read: all the rest here is as it was before, and so is `revision`."""
        self.leader = b""
        """The node that writes meta; empty: there is no meta yet."""
        self.writer: Actor | None = None
        """The incarnation of it that does."""
        self.line: Vector = {}
        """What that had of the entries of those before it when it began. What they made beyond is of another line (lines.py)."""
        self.floors: dict[int, Vector] = {}
        self.members: dict[Actor, Member] = {}
        self.keyspaces: dict[int, ListedKeyspace] = {}
        """The cluster's list, by id; meta itself is not in it."""
        self.announced: Announced | None = None
        self.silences = Silences({}, [])

    @property
    def revision(self) -> int:
        """How much of meta is durable here, and can be read."""
        durable = sum(head.seq for head in self._keyspace.vector.values())
        return durable if self.unreadable is None else min(durable, self._whole_at)

    def all_durable(self) -> bool:
        """Whether all of meta that readers here see is durable, and can be read."""
        return (
            self.unreadable is None
            and not self._keyspace.observed
            and self._keyspace.vector.get(self._engine.actor, (0, 0))[0] == self._keyspace.seq
        )

    @property
    def founded(self) -> bool:
        """Whether there is a cluster beyond this node."""
        return bool(self.leader)

    def refresh(self) -> bool:
        """Read meta again if it has moved, what is not durable yet included; whether it has.

        A row that cannot be read leaves the view that was whole, and `unreadable` says so. Corruption: there was none.
        """
        seen = self._seen
        if seen == self._read_at:
            return False
        self._read_at = seen
        whole = self.leader, self.writer, self.line, self.floors, self.members, self.keyspaces, self.announced
        try:
            self._read()
        except Corruption as error:
            if self._whole_at < 0:
                raise
            self.leader, self.writer, self.line, self.floors, self.members, self.keyspaces, self.announced = whole
            self.unreadable = error
            return False
        self.unreadable, self._whole_at = None, seen
        return True

    def forget(self) -> None:
        """The copy of meta goes: from here on there is none, until another one comes."""
        self._read_at = self._whole_at = -1
        self._parsed.clear()
        self.unreadable, self.leader, self.writer, self.announced = None, b"", None, None
        self.line, self.floors, self.members, self.keyspaces = {}, {}, {}, {}
        self.silences = Silences({}, [])

    @property
    def next_revision(self) -> int:
        """The one of the next change, if this node makes it: what it has written and is not durable yet comes before."""
        return self._seen + 1

    @property
    def _seen(self) -> int:
        """How much of meta readers here see."""
        seen = sum(head.seq for head in {**self._keyspace.vector, **self._keyspace.observed}.values())
        own = self._keyspace.vector.get(self._engine.actor, (0, 0))[0]
        return seen + self._keyspace.seq - own

    def is_open(self, actor: Actor) -> bool:
        """Whether data is exchanged with an actor."""
        member = self.members.get(actor)
        return member is not None and member.state == "open"

    def goes_on(self, actor: Actor) -> bool:
        """Whether an actor writes: as a member, or as one that is away and may come back."""
        member = self.members.get(actor)
        return member is not None and (member.state in ("open", "returning") or member.parked)

    @property
    def returning(self) -> Member | None:
        """The one that returns just now."""
        return next((member for member in self.members.values() if member.state == "returning"), None)

    def open_members(self) -> list[Member]:
        """All that take part, in the order of their names."""
        return sorted((m for m in self.members.values() if m.state == "open"), key=lambda m: m.name)

    def has_left(self, actor: Actor, revision: int, keyspace: int) -> bool:
        """Whether what a member has of a keyspace is a copy that it may delete: its site left it, and the leader has all of that.

        Not of one that came with a newer meta, ``revision``, than this node's: it may hold the keyspace anew.
        """
        entry = self.keyspaces.get(keyspace)
        return entry is not None and actor in entry.left and revision <= self.revision

    def counts(self, member: Member, keyspace: int) -> bool:
        """Whether what a member has seen of a keyspace holds its stable cut."""
        entry = self.keyspaces.get(keyspace)
        if entry is not None:
            return entry.counts(member.actor, member.site, member.role)
        return self._engine.keyspaces.by_id[KeyspaceId(keyspace)].policy.held_at(member.site, member.role)

    def of_node(self, node: bytes) -> list[Member]:
        """All actors that a node has had."""
        return [member for member in self.members.values() if member.node == node]

    def _read(self) -> None:
        barrier = self._engine.barrier
        self.members, self.keyspaces, low = {}, {}, META_PREFIX
        while True:
            page = self._engine.reads.range(low, META_PREFIX[:-1] + b"0", _PAGE)
            for found in page.found:
                register = found.state.register
                if register is not None and register.value is not None:
                    self._take(found.key, register.value)
            if page.next_key is None:
                break
            low = page.next_key
        self._engine.barrier = barrier

    def _take(self, key: bytes, value: bytes) -> None:
        known = self._parsed.get(key)
        if known is not None and known[0] == value:
            self.members[known[1].actor] = known[1]
            return
        try:
            entry = unpack(value)
            if key == CLUSTER_KEY:
                self.leader, self.writer = entry["leader"], Actor(entry["by"])
                self.line, self.floors = _vector(entry["line"]), _vectors(entry["floors"])
            elif key == STABLE_KEY:
                self.announced = _announced(entry)
            elif key == SILENCE_KEY:
                silent = {Actor(actor): (ms, number) for actor, (ms, number) in entry["silent"].items()}
                self.silences = Silences(silent, entry["parked_ago_ms"])
            elif key.startswith(KEYSPACE_PREFIX):
                listed = parse_listed(entry)
                self.keyspaces[listed.policy.id] = listed
            elif key.startswith(MEMBER_PREFIX):
                actor = Actor(bytes.fromhex(key[len(MEMBER_PREFIX) :].decode()))
                self.members[actor] = Member(actor=actor, **{**entry, "need": _vectors(entry["need"])})
                self._parsed[key] = value, self.members[actor]
        except (InvalidRequest, ValueError, TypeError, KeyError) as error:
            raise Corruption(
                f"the row {key!r} of meta cannot be read ({error}). Restore a backup of the leading hub.",
                path="data.mdb",
            ) from error


def pack_cluster(leader: bytes, by: Actor, line: Vector, floors: Mapping[int, Vector]) -> bytes:
    """The row of the cluster."""
    lists = {keyspace: list(vector.items()) for keyspace, vector in floors.items()}
    return pack({"leader": leader, "by": by, "line": list(line.items()), "floors": lists})


def pack_announced(announced: Announced) -> bytes:
    """The row of the newest STABLE."""
    assert announced.stable.cuts is not None
    cuts = {
        keyspace: [list(cut.cut.items()), list(cut.need.items()), sorted(cut.parked)]
        for keyspace, cut in announced.stable.cuts.items()
    }
    return pack(
        {
            "number": announced.number,
            "wall_ms": announced.stable.wall_ms,
            "cuts": cuts,
            "said_at": announced.said_at,
            "by": announced.by,
            "gaps": announced.gaps,
        }
    )


def pack_silences(silences: Silences) -> bytes:
    """The row of who is silent."""
    silent = {actor: list(entry) for actor, entry in silences.silent.items()}
    return pack({"silent": silent, "parked_ago_ms": silences.parked_ago_ms})


def _announced(entry: dict[str, Any]) -> Announced:
    cuts = {
        keyspace: Cut(_vector(cut), _vector(need), frozenset(map(Actor, parked)))
        for keyspace, (cut, need, parked) in entry["cuts"].items()
    }
    by = entry.get("by")
    return Announced(
        number=entry["number"],
        stable=Stable(entry["wall_ms"], cuts),
        said_at=entry.get("said_at", -1),
        by=None if by is None else Actor(by),
        gaps=tuple((last, first) for last, first in entry.get("gaps", [])),
    )


def _vectors(entries: dict[int, list[list[Any]]]) -> dict[int, Vector]:
    return {keyspace: _vector(vector) for keyspace, vector in entries.items()}


def _vector(entries: list[list[Any]]) -> Vector:
    return {Actor(actor): seq for actor, seq in entries}
