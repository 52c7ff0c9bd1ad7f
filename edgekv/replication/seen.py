"""SEEN: what each member's durable log covers, as far as this node has heard.

A member says ``SEEN(number, vectors, TTL time, meta revision)``: a message with what moved, not a change (in everybody's sequence it
would cost members times vector times receivers). The number is its durable LSN; the rest is that of this LSN. Hubs pass on what they
hear. It says something about the past only, so it may be late, be lost and come twice.
"""

from typing import Final

from edgekv.ids import Actor, Vector
from edgekv.replication.messages import Seen


class SeenTable:
    """The newest SEEN of each actor."""

    def __init__(self) -> None:
        self.by_actor: Final[dict[Actor, Seen]] = {}

    def hear(self, seen: Seen) -> bool:
        """Take one in; whether it is news. Its vectors may be what moved only: they add to what is known."""
        known = self.by_actor.get(seen.actor)
        if known is None:
            self.by_actor[seen.actor] = seen
            return True
        if seen.number < known.number or seen == known:
            return False
        vectors = {keyspace: dict(vector) for keyspace, vector in known.vectors.items()}
        for keyspace, vector in seen.vectors.items():
            mine = vectors.setdefault(keyspace, {})
            for actor, seq in vector.items():
                mine[actor] = max(seq, mine.get(actor, 0))
        newest = Seen(
            seen.actor,
            seen.number,
            max(seen.ttl_ms, known.ttl_ms),
            max(seen.revision, known.revision),
            vectors,
        )
        self.by_actor[seen.actor] = newest
        return newest != known


def moved(newer: Seen, older: Seen | None) -> Seen:
    """A SEEN with only what it says beyond an older one."""
    if older is None:
        return newer
    vectors: dict[int, Vector] = {}
    for keyspace, vector in newer.vectors.items():
        before = older.vectors.get(keyspace, {})
        news = {actor: seq for actor, seq in vector.items() if seq > before.get(actor, 0)}
        if news:
            vectors[keyspace] = news
    return newer._replace(vectors=vectors)
