"""What this node holds: the keyspaces of its site, how far it has each, and which of them a peer is to have."""

from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace, KeyspacePolicy
from edgekv.ids import Vector
from edgekv.replication.keyspace_list import ListedKeyspace
from edgekv.replication.members import Members
from edgekv.replication.messages import Applicant, Hello


def is_same(one: KeyspacePolicy, other: KeyspacePolicy) -> bool:
    """Whether two entries with one id are of one keyspace."""
    return (one.prefix, one.siblings) == (other.prefix, other.siblings)


class Holdings:
    """Of one node."""

    def __init__(self, engine: Engine, members: Members, myself: Applicant) -> None:
        self._engine: Final = engine
        self._members: Final = members
        self._self: Final = myself

    def all(self) -> list[Keyspace]:
        """The keyspaces that this node has a copy of and answers for, meta among them."""
        return [keyspace for keyspace in self._engine.keyspaces.all if self.holds(keyspace)]

    def takes(self, keyspace: Keyspace) -> bool:
        """Whether this node subscribes to one: clients write to it here, and peers send it."""
        return (
            keyspace.policy.held_at(self._self.site, self._self.role)
            and self.is_listed(keyspace)
            and not self._engine.drops.is_busy(keyspace.id)
        )

    def forgotten(self) -> list[Keyspace]:
        """Keyspaces with changes that the cluster does not know any more."""
        return [keyspace for keyspace in self.unlisted() if keyspace.vector]

    def unlisted(self) -> list[Keyspace]:
        """Keyspaces that the cluster does not know any more."""
        listed = self._members.keyspaces
        return [k for k in self._engine.keyspaces.all if k.id not in listed and not self.is_listed(k)]

    def kept(self) -> list[Keyspace]:
        """Keyspaces with changes that are not at this site as the cluster knows it, and whose copies may not go (lines.py)."""
        found = [(k, self._members.keyspaces.get(k.id)) for k in self._engine.keyspaces.all if k.vector]
        return [
            k
            for k, entry in found
            if entry is not None and is_same(entry.policy, k.policy) and not self.holds(k) and not self.may_go(entry)
        ]

    def may_go(self, entry: ListedKeyspace) -> bool:
        """Whether the leader has all of this node's copy of a keyspace that its site was taken off.

        A leader that was restored has forgotten when a site was added: one that is no member yet lets it know first.
        """
        return self._self.actor in entry.left and self._members.is_open(self._self.actor)

    def is_listed(self, keyspace: Keyspace) -> bool:
        """Whether the cluster knows it. One that was created in entries of meta that are lost (lines.py) is this node's alone."""
        entry = self._members.keyspaces.get(keyspace.id)
        if entry is None:
            return keyspace.policy.system or not self._members.founded
        return is_same(entry.policy, keyspace.policy)

    def holds(self, keyspace: Keyspace) -> bool:
        """Whether this node has a copy that the cluster counts on: it subscribes to it, or its site drains it.

        One that may be held again since a moment, when the last of an earlier copy went, is `absent` until `Subscriptions.follow`.
        """
        return (self.takes(keyspace) and not keyspace.absent) or self.drains(keyspace)

    def drains(self, keyspace: Keyspace) -> bool:
        """Whether its site was taken off it, and the leader may lack what was made here before this node knew."""
        entry = self._members.keyspaces.get(keyspace.id)
        return entry is not None and self._self.site in entry.draining and self._self.actor not in entry.left

    def left(self, keyspace: Keyspace) -> bool:
        """Whether its site was taken off it. What peers sent before they knew is passed by."""
        entry = self._members.keyspaces.get(keyspace.id)
        return entry is not None and self._self.site in entry.draining and not self.takes(keyspace)

    def shared(self, peer: Hello) -> set[int]:
        """What this node has and a peer subscribes to."""
        return {k.id for k in self.all() if k.id in peer.vectors and k.policy.held_at(peer.site, peer.role)}

    def vectors(self) -> dict[int, Vector]:
        """What is durable here."""
        return {k.id: {actor: head.seq for actor, head in k.vector.items()} for k in self.all()}

    def floors(self) -> dict[int, Vector]:
        """What this node has that its log must not be asked for.

        What the founder made alone: the log does not say what was forgotten then. And what came late (replication/returning.py).
        """
        own = self.vectors()
        floors: dict[int, Vector] = {}
        for keyspace, floor in self._members.floors.items():
            vector = own.get(keyspace, {})
            floors[keyspace] = {actor: min(seq, vector[actor]) for actor, seq in floor.items() if actor in vector}
        for member in self._members.members.values():
            for keyspace, (_, last, _) in member.late.items():
                known, floor = own.get(keyspace, {}).get(member.actor, 0), floors.setdefault(keyspace, {})
                if known:
                    floor[member.actor] = max(min(last, known), floor.get(member.actor, 0))
        return floors
