"""SEEN: what each member's durable log covers, as far as this node has heard.

A member says ``SEEN(number, vectors, TTL time, meta revision)``: a message with what moved, not a change (in everybody's sequence it
would cost members times vector times receivers). The number is its durable LSN; the rest is that of this LSN. Hubs pass on what they
hear. It says something about the past only, so it may be late, be lost and come twice.

A SEEN *counts* when this node has everything that it names. Until then the one before it counts: who names changes that nobody has
made holds up what is stable as one does who is silent, and spoils nothing of what the others say. Of SEENs that do not count yet the
oldest is kept, and all later ones together: a node that follows a busy member at a distance always has one that it covers soon.

A revision is said with the vector of meta that it sums up. When a restored leader goes on without the last entries of meta (lines.py),
those are left out of what was said, and no revision counts that is above what is left: the numbers are used a second time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edgekv.engine.keyspaces import META_ID
from edgekv.ids import Actor, Vector
from edgekv.replication.arrivals import Arrivals
from edgekv.replication.log_source import covers
from edgekv.replication.lowest import Lowest
from edgekv.replication.messages import Seen

PROVED_AT_ONCE: Final = 20_000
"""Entries of vectors that are compared in one call: 4 ms."""
_NOTHING: Final[Vector] = {}


class Spoken:
    """What one member has said. ``number`` to ``vectors`` are those of the newest SEEN that counts; -1: none does yet."""

    __slots__ = ("actor", "ahead", "news", "number", "revision", "told_revision", "ttl_ms", "vectors")

    def __init__(self, actor: Actor) -> None:
        self.actor: Final = actor
        self.number = -1
        self.ttl_ms = 0
        self.revision = 0
        self.vectors: Final[dict[int, Vector]] = {}
        """These dicts grow, and `Lowest` looks into them. What is taken back is missing in another one, which it knows by identity."""
        self.ahead: Final[list[Seen]] = []
        """SEENs that do not count yet, each with what it names beyond the ones before: the oldest, and all later ones as one."""
        self.news: dict[int, Vector] = {}
        """What was heard and not passed on."""
        self.told_revision = -1
        """Of the last that was passed on."""

    def newest(self) -> Seen:
        """The last thing it said, without vectors."""
        last = self.ahead[-1] if self.ahead else self
        return Seen(self.actor, last.number, last.ttl_ms, last.revision, {})

    def whole(self) -> Seen:
        """All that it said, as one SEEN."""
        vectors = {keyspace: dict(vector) for keyspace, vector in self.vectors.items()}
        for seen in self.ahead:
            for keyspace, vector in seen.vectors.items():
                vectors.setdefault(keyspace, {}).update(vector)
        return self.newest()._replace(vectors=vectors)

    def bounded(self, revision: int) -> int:
        """A revision as far as what was said of meta goes with it."""
        meta = self.vectors.get(META_ID)
        return revision if meta is None else min(revision, sum(meta.values()))

    def said(self, keyspace: int, actor: Actor) -> int:
        """How much of an actor it said it has."""
        for seen in reversed(self.ahead):
            seq = seen.vectors.get(keyspace, _NOTHING).get(actor)
            if seq is not None:
                return seq
        return self.vectors.get(keyspace, _NOTHING).get(actor, 0)


class SeenTable:
    """What all members have said."""

    def __init__(self) -> None:
        self.spoken: Final[dict[Actor, Spoken]] = {}
        self._actors: Final[dict[Actor, Actor]] = {}
        """One object for each actor: it is in the vector of every member."""
        self.arrivals: Final = Arrivals(self._actors)
        """What they came with, and have not said yet."""
        self.lowest: Final = Lowest()
        """Of the vectors that count."""
        self.unproved = False
        """Whether the last call of `prove` ended before it had looked at all."""
        self._ahead: Final[dict[Actor, Spoken]] = {}
        self._fresh: Final[dict[Actor, Spoken]] = {}
        """Who has said something since `take_news`."""

    def counted(self, actor: Actor) -> Spoken | None:
        """What of a member's words counts; None: nothing does yet."""
        spoken = self.spoken.get(actor)
        return None if spoken is None or spoken.number < 0 else spoken

    def hear(self, seen: Seen) -> bool:
        """Take one in; whether it is news. Its vectors may be what moved only: they add to what is known."""
        spoken = self.spoken.get(seen.actor)
        if spoken is None:
            actor = self._actors.setdefault(seen.actor, seen.actor)
            spoken = self.spoken[actor] = Spoken(actor)
        last = spoken.newest()
        if seen.number < last.number:
            return False
        if META_ID in seen.vectors:
            spoken.vectors.setdefault(META_ID, {})  # though nothing of it may be left: it bounds the revision
        news = self._beyond(spoken, seen.vectors)
        ttl_ms, revision = max(seen.ttl_ms, last.ttl_ms), max(seen.revision, last.revision)
        if not news and (seen.number, ttl_ms, revision) == last[1:4]:
            return False
        for keyspace, vector in news.items():
            spoken.news.setdefault(keyspace, {}).update(vector)
        if len(spoken.ahead) > 1:
            vectors = spoken.ahead.pop().vectors
            for keyspace, vector in news.items():
                vectors.setdefault(keyspace, {}).update(vector)
            news = vectors
        spoken.ahead.append(Seen(spoken.actor, seen.number, ttl_ms, revision, news))
        self._ahead[spoken.actor] = self._fresh[spoken.actor] = spoken
        return True

    def prove(self, own: Mapping[int, Vector]) -> None:
        """Have those count that name nothing which is not durable here. ``own``: this node's durable vectors.

        A call looks at a bounded number of entries, the next one goes on; ``unproved`` says whether there is more to look at.
        """
        looked = 0
        self.unproved = False
        for spoken in list(self._ahead.values()):
            if looked > PROVED_AT_ONCE:
                self.unproved = True
                break
            looked += sum(map(len, spoken.ahead[0].vectors.values()))
            del self._ahead[spoken.actor]
            while spoken.ahead and _covers_all(own, spoken.ahead[0]):
                self._count(spoken, spoken.ahead.pop(0))
            if spoken.ahead:
                self._ahead[spoken.actor] = spoken  # behind those that had no turn

    def word_beyond(self, actor: Actor, vectors: Mapping[int, Vector]) -> Seen | None:
        """What a member has said to have, or came with, if that is more than these vectors, of keyspaces that they name."""
        spoken = self.spoken.get(actor)
        if spoken is not None:
            said = spoken.whole()
            beyond = {k: v for k, v in said.vectors.items() if k in vectors and not covers(vectors[k], v)}
            if beyond:
                return said._replace(vectors=beyond)
        return self.arrivals.word_beyond(actor, vectors)

    def said(self, member: Actor, keyspace: int, actor: Actor) -> int:
        """How much of an actor a member has said it has."""
        spoken = self.spoken.get(member)
        return 0 if spoken is None else spoken.said(keyspace, actor)

    def take_news(self) -> Iterator[Seen]:
        """What was heard since the last time, once."""
        fresh = list(self._fresh.values())
        self._fresh.clear()
        for spoken in fresh:
            news, spoken.news = spoken.news, {}
            yield spoken.newest()._replace(vectors=news)

    def forget(self, actor: Actor) -> None:
        """Its words do not matter any more."""
        for by_actor in (self.spoken, self._ahead, self._fresh):
            by_actor.pop(actor, None)
        self.arrivals.forget(actor)

    def begin_again(self, actor: Actor, keyspace: int) -> None:
        """What a member said of a keyspace was of a copy that it has deleted."""
        self.arrivals.begin_again(actor, keyspace)
        spoken = self.spoken.get(actor)
        if spoken is not None:
            for vectors in (spoken.vectors, spoken.news, *(seen.vectors for seen in spoken.ahead)):
                vectors.pop(keyspace, None)

    def keep_meta(self, is_astray: Callable[[Actor, int], bool]) -> None:
        """Another incarnation leads: forget what was said of entries of meta that are given up."""
        for spoken in self.spoken.values():
            for vectors in (spoken.vectors, spoken.news, *(seen.vectors for seen in spoken.ahead)):
                if META_ID in vectors:
                    vectors[META_ID] = {a: seq for a, seq in vectors[META_ID].items() if not is_astray(a, seq)}
            spoken.revision = spoken.bounded(spoken.revision)

    def has_said(self, actor: Actor, keyspace: int, vector: Vector) -> bool:
        """Whether a member has said what it has of a keyspace, and that is no more than this."""
        spoken = self.spoken.get(actor)
        if spoken is None:
            return False
        said = [spoken.vectors, *(seen.vectors for seen in spoken.ahead)]
        return all(covers(vector, vectors.get(keyspace, _NOTHING)) for vectors in said)

    def clear(self) -> None:
        """Nothing was said."""
        for by_actor in (self.spoken, self._ahead, self._fresh):
            by_actor.clear()
        self.arrivals.clear()

    def _beyond(self, spoken: Spoken, vectors: Mapping[int, Vector]) -> dict[int, Vector]:
        actors, news = self._actors, {}
        for keyspace, vector in vectors.items():
            more = {actors.setdefault(a, a): seq for a, seq in vector.items() if seq > spoken.said(keyspace, a)}
            if more:
                news[keyspace] = more
        return news

    def _count(self, spoken: Spoken, seen: Seen) -> None:
        for keyspace, vector in seen.vectors.items():
            spoken.vectors.setdefault(keyspace, {}).update(vector)
            self.lowest.rose(keyspace, spoken.actor, vector)
        spoken.number, spoken.ttl_ms, spoken.revision = seen.number, seen.ttl_ms, spoken.bounded(seen.revision)


def _covers_all(own: Mapping[int, Vector], seen: Seen) -> bool:
    return all(covers(own.get(keyspace, _NOTHING), vector) for keyspace, vector in seen.vectors.items())
