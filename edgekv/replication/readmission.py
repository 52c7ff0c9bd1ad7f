"""Members that come back, as the leader writes it down: who may, one at a time, and what came late with them.

replication/returning.py tells the whole of it. Here are the entries of meta that begin and end a return. Pure.

A closed actor that is not settled held the stable cut all the while: nothing that it may not have seen is forgotten, so it is simply
open again. A node that was restored while it was parked comes as another actor, and returns as that one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from edgekv.ids import Actor, Vector
from edgekv.replication.log_source import covers
from edgekv.replication.members import Member, Members

_NEVER: Final = 1 << 62


def brought(members: Members, own: Mapping[int, Vector]) -> bool:
    """Whether the leader has all that those who returned before have brought: only then may the next one come."""
    return all(has_brought(member, own) for member in members.members.values())


def has_brought(member: Member, own: Mapping[int, Vector]) -> bool:
    """Whether the leader has what came late of an actor; of one that is settled, what there is of it."""
    for keyspace, ranges in member.late.items():
        head = member.heads.get(keyspace, 0) if member.state == "settled" else _NEVER
        if not covers(own.get(keyspace, {}), {member.actor: min(ranges[-1][1], head)}):
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
            if known is None or (known.state != "settled" and actor != member.actor):
                continue
            first = known.heads.get(keyspace, 0) + 1
            if seq >= first:
                ranges = [*known.late.get(keyspace, []), [first, seq]]
                heads = {**known.heads, keyspace: seq}
                changed[actor] = replace(known, revision=revision, heads=heads, late={**known.late, keyspace: ranges})
    known = changed.get(member.actor, member)
    changed[member.actor] = replace(known, state="open", revision=revision, heads={}, need={}, parked=False)
    return list(changed.values())
