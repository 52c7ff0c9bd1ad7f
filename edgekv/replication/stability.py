"""The stable cut: what every member has seen, so that its deletions may be forgotten (REPLICATION rules in docs/ARCHITECTURE.md).

The leader computes from the SEENs of all members that are open, or closed and not settled:

    cut    the pointwise minimum of their vectors
    need   its own vector, which must cover every SEEN that was used: whoever covers it has all that the members had made before they
           spoke, and whatever they make later carries a higher stamp
    wall   the lowest of their TTL times
    parked the closed actors whose node has no open actor: they may come back, so their counter parts stay

and commits it as an entry of meta on the very revision that it was computed from. A closed actor is *settled* when every open member
has said SEEN at a revision that knows the closing and the leader covers all of those: what of it is beyond is nowhere else.

Pure functions; replication/leader.py calls them. The rules were found by breaking others with a model: see decision 0014.
"""

from collections.abc import Callable, Iterable, Mapping

from edgekv.ids import Actor, Vector
from edgekv.replication.log_source import covers
from edgekv.replication.members import Member
from edgekv.replication.messages import Seen
from edgekv.store.applied import Cut, Stable

Holds = Callable[[Member, int], bool]
"""Whether a member holds a keyspace."""


def compute_stable(
    members: Iterable[Member],
    seen: Mapping[Actor, Seen],
    own: Mapping[int, Vector],
    holds: Holds,
) -> Stable | None:
    """The STABLE of this moment; None when somebody has not spoken, or the leader lacks what somebody has seen."""
    members = list(members)
    counted = [member for member in members if member.state != "settled"]
    if any(member.actor not in seen for member in counted):
        return None
    if not all(_covers_all(own, seen[member.actor]) for member in counted):
        return None
    here = {member.node for member in members if member.state == "open"}
    parked = frozenset(m.actor for m in members if m.state != "open" and m.node not in here)
    cuts: dict[int, Cut] = {}
    for keyspace, need in own.items():
        vectors = [seen[m.actor].vectors.get(keyspace, {}) for m in counted if holds(m, keyspace)]
        cuts[keyspace] = Cut(_minimum(vectors), dict(need), parked)
    return Stable(min(seen[member.actor].ttl_ms for member in counted), cuts)


def settled_heads(
    members: Iterable[Member], seen: Mapping[Actor, Seen], own: Mapping[int, Vector]
) -> dict[Actor, dict[int, int]]:
    """The closed actors that may be called settled, and by keyspace their last seqs."""
    members = list(members)
    open_members = [member for member in members if member.state == "open"]
    found: dict[Actor, dict[int, int]] = {}
    for closed in members:
        if closed.state == "closed" and all(
            m.actor in seen and seen[m.actor].revision >= closed.revision and _covers_all(own, seen[m.actor])
            for m in open_members
        ):
            found[closed.actor] = {k: vector[closed.actor] for k, vector in own.items() if closed.actor in vector}
    return found


def _covers_all(own: Mapping[int, Vector], seen: Seen) -> bool:
    return all(covers(own.get(keyspace, {}), vector) for keyspace, vector in seen.vectors.items())


def _minimum(vectors: list[Vector]) -> Vector:
    if not vectors:
        return {}
    first, *others = vectors
    lowest = {actor: min([seq, *(vector.get(actor, 0) for vector in others)]) for actor, seq in first.items()}
    return {actor: seq for actor, seq in lowest.items() if seq}
