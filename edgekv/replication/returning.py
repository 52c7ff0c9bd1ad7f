"""The return of a parked member: how what it wrote while it was away comes to all, and nothing that was deleted comes back.

Its actor was settled: what others have of it ends at a *head*, and deletions have been forgotten since that it has not seen. What it
has beyond heads is *late*: its own changes, and those of other settled actors that it holds, and of actors that meta does not know,
which a leader that was restored has forgotten (lines.py). A late value may be older than a
deletion which some nodes have forgotten and others have not: as a change it would stay here and go there. Therefore **late changes
travel as rows only** (row_sync.py): rows come with a vector, and what the other side's vector covers and its rows do not show was
deleted there, whether anybody remembers it or not. Dots stay what they are, so nothing is counted or added twice, whoever else holds
the same changes.

1. The leader makes it ``returning``, one member at a time: ``need`` is the leader's vector, ``hlcs`` its clocks. While there is one,
   nothing is settled and no STABLE announced, so that nothing more is forgotten.
2. The member stamps above those clocks from then on. If it has nothing late, that is all: 4.
3. It says RETURN to the hub it is linked to. That gives it the rows of all keyspaces, at vectors that cover ``need``; it takes them
   in. What of its late values outlived what the cluster has deleted, and what did not, is decided here and nowhere else.
4. It says RETURN with how far its late changes reach. The leader opens it again and writes down these *late ranges*, for ever: to
   whoever lacks one, all nodes that have it give rows and no log (`Holdings.floors`).

A crash or a cut at any place leaves everybody with what was theirs before, and the member begins again at 3. If it stays away, it is
parked again. Two copies of its directory cannot both return: the second finds its actor open, with another history under its dots.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.intake import seen
from edgekv.engine.keyspace_entry import Entry, entry_of
from edgekv.engine.keyspaces import META_ID, Keyspace
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.limits import UNLISTED_AT_ONCE
from edgekv.replication.holdings import Holdings
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import covers
from edgekv.replication.members import Member, Members
from edgekv.replication.messages import ChainedVector, Return


class Returning:
    """The part of the member that returns; idle in one that does not."""

    def __init__(self, *, engine: Engine, members: Members, holdings: Holdings, links: LinkTable, actor: Actor) -> None:
        """``actor``: this node's."""
        self._engine: Final = engine
        self._members: Final = members
        self._holdings: Final = holdings
        self._links: Final = links
        self._actor: Final = actor
        self._began: tuple[int, frozenset[int]] = -1, frozenset()
        """The revision that began the return under way, and the keyspaces that are held."""
        self._joined: Final[set[int]] = set()
        """Keyspaces whose rows have been taken in since."""
        self._unlisted_from = 0
        """Where the next message begins that tells of keyspaces which the cluster does not know: if it lists none, of others."""
        self._late: dict[int, Vector] = {}
        """By keyspace what was late when it began; what was made since is stamped above all that was forgotten."""

    def took_rows(self, keyspace: int, vector: ChainedVector) -> None:
        """The rows that a hub had at this vector have joined this node's."""
        me = self._me()
        have = {actor: seq for actor, (seq, _) in vector.items()}
        if me is not None and covers(have, me.need.get(keyspace, {})):
            self._joined.add(keyspace)

    def unseen(self, keyspace: int) -> Vector:
        """Late ranges of which this node holds some, although others brought them: by actor the seq before them.

        Whether a late value outlived what was forgotten has been decided for all when it was brought. This node may have compared it
        with what it still knows, so where cells are joined it counts as one that has not seen the range: what it wrote since has a
        higher stamp, and what it deleted a tombstone.
        """
        if self._me() is None:
            return {}
        held = self._held().get(keyspace, {})
        begins = {m.actor: m.late[keyspace][0] - 1 for m in self._members.members.values() if keyspace in m.late}
        return {actor: before for actor, before in begins.items() if held.get(actor, 0) > before}

    def dropped(self, keyspace: int) -> list[tuple[Actor, int, int]]:
        """Where late values are dropped: by actor the first and the last of the late changes that this node may hold.

        What lies between two late ranges of an actor the hub has, so its version of that stays as well.
        """
        me = self._me()
        if me is None or not self._engine.keyspaces.by_id[KeyspaceId(keyspace)].policy.late_drop:
            return []
        members = self._members.members.values()
        heads = me.need.get(keyspace, {}) | {m.actor: m.heads.get(keyspace, 0) for m in members}
        brought = [(m.actor, m.late[keyspace][0], m.late[keyspace][1]) for m in members if keyspace in m.late]
        return sorted(brought + [(a, heads.get(a, 0) + 1, last) for a, last in self._late.get(keyspace, {}).items()])

    def tell(self) -> None:
        """Say where it stands, about once a second, as messages are lost with their links and a hub has to hear that it is there."""
        me = self._me()
        if me is None:
            self._tell_unlisted()
            return
        late, durable = self._late, self._holdings.vectors()
        # Of a keyspace that its site was taken off meanwhile it is given no rows, and what is late there goes as it is.
        keyspaces = {k.id for k in self._holdings.all() if self._holdings.takes(k)} - {META_ID}
        whole = all(covers(durable.get(keyspace, {}), vector) for keyspace, vector in late.items()) and (
            not (late or any(map(self.unseen, keyspaces))) or keyspaces <= self._joined
        )
        self._send(Return(self._actor, me.revision, whole, late if whole else {}, self._unlisted()))

    def _tell_unlisted(self) -> None:
        """As a member that never was away: keyspaces that were created in entries of meta which are lost, whatever is in them.

        Else keys below their prefixes would be hidden here, and shown where nobody knows of them.
        """
        me, unlisted = self._members.members.get(self._actor), self._holdings.unlisted()
        if me is not None and me.state == "open" and unlisted:
            self._send(Return(self._actor, me.revision, False, {}, self._some(unlisted)))
            self._links.say(
                f"the cluster does not know keyspace {unlisted[0].name!r}, which this node has: its leader was restored, and is told "
                "of it. Until it takes that in, what is written there stays on this node."
            )

    def _send(self, message: Return) -> None:
        for link in self._links:
            peer = link.peer if link.is_up else None
            if peer is not None and peer.role == "hub" and self._members.is_open(peer.actor):
                self._links.send(link, message)

    def _unlisted(self) -> list[Entry]:
        """Keyspaces with changes of which the cluster has forgotten that there are such, or that they are at this site.

        Of empty ones it speaks when it is open.
        """
        return self._some([*self._holdings.forgotten(), *self._holdings.kept()])

    def _some(self, keyspaces: list[Keyspace]) -> list[Entry]:
        """As many as one message tells of; the next one tells of others."""
        begin = self._unlisted_from % len(keyspaces) if keyspaces else 0
        self._unlisted_from = begin + UNLISTED_AT_ONCE
        return [entry_of(k.policy) for k in [*keyspaces[begin:], *keyspaces[:begin]][:UNLISTED_AT_ONCE]]

    def _me(self) -> Member | None:
        me = self._members.members.get(self._actor)
        if me is None or me.state != "returning":
            self._began = -1, frozenset()
            return None
        began = me.revision, frozenset(keyspace.id for keyspace in self._holdings.all())
        if began != self._began:
            if me.revision != self._began[0]:
                self._joined.clear()
            self._began = began
            self._late = late_of(self._held(), self._members.members.values(), me)
        return me

    def _held(self) -> dict[int, Vector]:
        """What this node has, durable or not."""
        return {
            keyspace.id: {actor: head.seq for actor, head in seen(keyspace, self._actor).items()}
            for keyspace in self._holdings.all()
            if keyspace.id != META_ID
        }


def late_of(held: dict[int, Vector], members: Iterable[Member], me: Member) -> dict[int, Vector]:
    """By keyspace how far the late changes reach that a returning member holds."""
    heads: dict[Actor, Mapping[int, int] | None] = {
        member.actor: member.heads if member.state == "settled" else None for member in members
    }
    heads[me.actor] = me.heads
    found: dict[int, Vector] = {}
    for keyspace, vector in held.items():
        need = me.need.get(keyspace, {})
        late: Vector = {}
        for actor, seq in vector.items():
            known = heads.get(actor, {keyspace: need.get(actor, 0)})
            if known is not None and seq > known.get(keyspace, 0):
                late[actor] = seq
        if late:
            found[keyspace] = late
    return found
