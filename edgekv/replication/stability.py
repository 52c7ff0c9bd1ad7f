"""The stable cut: what every member has seen, so that its deletions may be forgotten (REPLICATION rules in docs/ARCHITECTURE.md).

The leader computes from the SEENs of all members that are open, or closed and not settled:

    cut    the pointwise minimum of their vectors (replication/lowest.py)
    need   its own vector, which must cover every SEEN that was used (only such ones count, replication/seen.py): whoever covers it
           has all that the members had made before they spoke, and whatever they make later carries a higher stamp
    wall   the lowest of their TTL times
    parked the closed actors whose node has no open actor: they may come back, so their counter parts stay

and commits it as an entry of meta on the very revision that it was computed from. A closed actor is *settled* when every open member
has said SEEN at a revision that knows the closing and the leader covers all of those: what of it is beyond is nowhere else, but
perhaps at others that are closed and not settled, so all of those are settled at once.

A cut never falls, though a member comes that has seen little: what an earlier one let go may go for ever, since whoever came later
stamps above it. (It does where a restored leader finds that something is lost which all had.) Session tokens leave out what any
earlier cut covers (node/session.py).

Nothing here has a state; replication/leader.py calls it. The rules were found by breaking others with a model: see decision 0014.
"""

from collections.abc import Callable, Iterable, Mapping

from edgekv.ids import Actor, Vector
from edgekv.replication.members import Member
from edgekv.replication.seen import SeenTable
from edgekv.store.applied import Cut, Stable

Holds = Callable[[Member, int], bool]
"""Whether a member holds a keyspace."""


def compute_stable(
    members: Iterable[Member],
    table: SeenTable,
    own: Mapping[int, Vector],
    holds: Holds,
) -> Stable | None:
    """The STABLE of this moment; None when nothing yet counts of what somebody has said."""
    members = list(members)
    counted = [member for member in members if member.state != "settled"]
    seen = {member.actor: spoken for member in counted if (spoken := table.counted(member.actor)) is not None}
    if any(member.actor not in seen for member in counted):
        return None
    here = {member.node for member in members if member.state == "open"}
    parked = frozenset(m.actor for m in members if m.state != "open" and m.node not in here)
    cuts: dict[int, Cut] = {}
    for keyspace, need in own.items():
        vectors = {m.actor: seen[m.actor].vectors.setdefault(keyspace, {}) for m in counted if holds(m, keyspace)}
        cuts[keyspace] = Cut(table.lowest.of(keyspace, vectors), dict(need), parked)
    return Stable(min(seen[member.actor].ttl_ms for member in counted), cuts)


def raised(stable: Stable, last: Stable) -> Stable:
    """A STABLE with what the cuts of the ``last`` one covered, as far as its own need does: a leader may have been set back."""
    assert stable.cuts is not None and last.cuts is not None
    cuts: dict[int, Cut] = {}
    for keyspace, new in stable.cuts.items():
        old = last.cuts.get(keyspace)
        kept = (
            {}
            if old is None
            else {a: seq for a, seq in old.cut.items() if new.cut.get(a, 0) < seq <= new.need.get(a, 0)}
        )
        cuts[keyspace] = new._replace(cut={**new.cut, **kept})
    return stable._replace(cuts=cuts)


def settled_heads(
    members: Iterable[Member], table: SeenTable, own: Mapping[int, Vector]
) -> dict[Actor, dict[int, int]]:
    """The closed actors that may be called settled, and by keyspace their last seqs: all of them, or none.

    One that is not settled may be open again, and hold what another made that was closed with it.
    """
    members = list(members)
    open_members = [member for member in members if member.state == "open"]
    seen = [table.counted(member.actor) for member in open_members]
    revision = min((-1 if spoken is None else spoken.revision for spoken in seen), default=-1)
    closed = [member for member in members if member.state == "closed"]
    if any(member.revision > revision for member in closed):
        return {}
    return {m.actor: {k: vector[m.actor] for k, vector in own.items() if m.actor in vector} for m in closed}
