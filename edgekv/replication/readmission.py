"""Members that come back, as the leader writes it down: who may, one at a time, and what came late with them.

replication/returning.py tells the whole of it. Here are the entries of meta that begin and end a return. Pure.

A closed actor that is not settled held the stable cut all the while: nothing that it may not have seen is forgotten, so it is simply
open again. A node that was restored while it was parked comes as another actor, and returns as that one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from edgekv.ids import Actor, Vector, node_of
from edgekv.replication.log_source import covers
from edgekv.replication.members import Member, Members

_NEVER: Final = 1 << 62


def brought(members: Members, own: Mapping[int, Vector]) -> bool:
    """Whether the leader has all that those who returned before have brought: only then may the next one come."""
    return all(has_brought(member, own) for member in members.members.values())


def has_brought(member: Member, own: Mapping[int, Vector]) -> bool:
    """Whether the leader has what came late of an actor; of one that is settled, what there is of it."""
    for keyspace, (_, last, _) in member.late.items():
        head = member.heads.get(keyspace, 0) if member.state == "settled" else _NEVER
        if not covers(own.get(keyspace, {}), {member.actor: min(last, head)}):
            return False
    return True


def owed(members: Members, own: Mapping[int, Vector]) -> set[int]:
    """The revisions at which members were opened that the leader lacks something late of, their own or of others."""
    here = [member for member in members.members.values() if member.state in ("open", "settled")]
    return {member.revision for member in here if not has_brought(member, own)}


def undelivered(members: Members, own: Mapping[int, Vector]) -> list[Member]:
    """Settled members of which changes were to be brought by one that is being settled as well: they end at what the leader has."""
    found = [
        member for member in members.members.values() if member.state == "settled" and not has_brought(member, own)
    ]
    return [
        replace(m, heads={k: min(seq, own.get(k, {}).get(m.actor, 0)) for k, seq in m.heads.items()}) for m in found
    ]


def _joined(before: list[int] | None, first: int, last: int) -> list[int]:
    """One range for all returns of an actor: who lacks its end needs rows, who has some of it may not have seen the rest."""
    if before is None:
        return [first, last, last - first + 1]
    begin, end, changes = before
    return [min(begin, first), max(end, last), changes + max(0, last - max(end, first - 1))]


def stranger(actor: Actor, heads: dict[int, int], *, parked: bool) -> Member:
    """The entry of an actor that meta knows by late changes only: it was a member in entries that are lost. Its site is not known."""
    node = node_of(actor)
    return Member(
        actor=actor,
        node=node,
        name=node.hex()[:8],
        site="",
        role="edge",
        state="settled",
        revision=0,
        heads=heads,
        hlcs={},
        ttl_ms=0,
        parked=parked,
    )


def opened(members: Members, member: Member, late: Mapping[int, Vector], revision: int) -> list[Member]:
    """What becomes of a returning member that has taken the rows in, and of others whose late changes it brings.

    Those get its revision: so who is to deliver them is known.
    """
    changed: dict[Actor, Member] = {
        earlier.actor: replace(earlier, parked=False) for earlier in members.of_node(member.node) if earlier.parked
    }
    for keyspace, vector in late.items():
        for actor, seq in vector.items():
            known = changed.get(actor) or members.members.get(actor)
            if known is None:
                heads = {number: need[actor] for number, need in member.need.items() if actor in need}
                known = stranger(actor, heads, parked=node_of(actor) != member.node)
            if known.state != "settled" and actor != member.actor:
                continue
            first = known.heads.get(keyspace, 0) + 1
            if seq >= first:
                heads = {**known.heads, keyspace: seq}
                all_late = {**known.late, keyspace: _joined(known.late.get(keyspace), first, seq)}
                changed[actor] = replace(known, revision=revision, heads=heads, late=all_late)
    known = changed.get(member.actor, member)
    changed[member.actor] = replace(known, state="open", revision=revision, heads={}, need={}, parked=False)
    return list(changed.values())
