"""What members come with is their word, as a SEEN is: who comes later as the same member has it, or is a copy, or was set back.

A SEEN comes some time after the HELLO. Until then this is all that a hub knows of what a member had; what SEENs say is forgotten here.
Meta is left out (greeting.py): it may be taken anew.

Of a peer that is sent away what it has of *others* counts as well. Two copies may each have what the other has not: then the one that
is linked is told too, and nobody goes on as a member whose history nobody can prove. What a peer that is sent away has made itself
does not count: it may be the copy, and the linked one the member.
"""

from collections.abc import Callable, Mapping
from typing import Final

from edgekv.ids import Actor, Vector
from edgekv.replication.log_source import covers
from edgekv.replication.messages import Hello, Seen

Said = Callable[[Actor, int, Actor], int]
"""How much a member has said to have in a keyspace of an actor."""
LOOKED_AT_ONCE: Final = 10_000
"""Entries of words that are compared in one call, and at most one vector more: 3 ms."""
_NOTHING: Final[Vector] = {}


class Arrivals:
    """At one hub, since it started."""

    def __init__(self, actors: dict[Actor, Actor]) -> None:
        """``actors``: one object for each, which the table of SEENs keeps as well."""
        self._actors: Final = actors
        self._words: Final[dict[Actor, Seen]] = {}

    def word_beyond(self, actor: Actor, vectors: Mapping[int, Vector]) -> Seen | None:
        """What a member came with, if that is more than these vectors, of keyspaces that they name."""
        word = self._words.get(actor)
        if word is None:
            return None
        beyond = {k: v for k, v in word.vectors.items() if k in vectors and not covers(vectors[k], v)}
        return word._replace(vectors=beyond) if beyond else None

    def note(self, hello: Hello, said: Said, *, taken: bool, anew: bool) -> Seen | None:
        """A member greets: what it says by that beyond what it has said so far, if anything.

        ``taken``: the link goes on. ``anew``: what it came with before may be of copies that are gone.
        """
        if anew:
            self.forget(hello.actor)
        actors = self._actors
        known = self._words[hello.actor].vectors if hello.actor in self._words else {}
        news: dict[int, Vector] = {}
        for keyspace, vector in hello.vectors.items():
            had = known.get(keyspace, _NOTHING)
            more = {
                actors.setdefault(actor, actor): seq
                for actor, (seq, _) in vector.items()
                if (taken or actor != hello.actor)
                and seq > had.get(actor, 0)
                and seq > said(hello.actor, keyspace, actor)
            }
            if more:
                news[keyspace] = more
        if not news:
            return None
        word = {
            keyspace: {**known.get(keyspace, {}), **news.get(keyspace, {})} for keyspace in known.keys() | news.keys()
        }
        self._words[hello.actor] = Seen(hello.actor, 0, 0, hello.revision, word)
        return Seen(hello.actor, 0, 0, hello.revision, news)

    def forget_said(self, said: Said, is_open: Callable[[Actor], bool]) -> None:
        """What SEENs say by now, and who is no member any more.

        A call looks at a bounded number of entries, the next one goes on.
        """
        left = LOOKED_AT_ONCE
        for member in list(self._words):
            if left <= 0:
                return
            left -= 1
            word = self._words.pop(member)
            if not is_open(member):
                continue
            for keyspace in list(word.vectors):
                if left <= 0:
                    break
                vector = word.vectors.pop(keyspace)
                entries = enumerate(vector.items(), 1)
                unsaid = next((n for n, (actor, seq) in entries if seq > said(member, keyspace, actor)), 0)
                left -= unsaid or len(vector)
                if unsaid:
                    word.vectors[keyspace] = vector
            if word.vectors:
                self._words[member] = word  # behind those that had no turn, as the keyspaces of it

    def forget(self, actor: Actor) -> None:
        """Its words do not matter any more."""
        self._words.pop(actor, None)

    def begin_again(self, actor: Actor, keyspace: int) -> None:
        """What a member came with of a keyspace was of a copy that it has deleted."""
        word = self._words.get(actor)
        if word is not None:
            word.vectors.pop(keyspace, None)

    def clear(self) -> None:
        """Nothing was said."""
        self._words.clear()
