"""The pointwise minimum of many vectors that only grow, kept up at the cost of what moves.

For each actor one vector that has the lowest number of it is its *witness*. Only when that one rises the others are looked at: 0.1 ms
for a thousand vectors. What is told is never above the minimum; when much moved at once it may be below for a while, since a *turn*
compares a bounded number of numbers, of all keyspaces together.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from edgekv.ids import Actor, Vector

COMPARED_AT_ONCE: Final = 20_000
"""Numbers of vectors in one turn, about 2 ms."""


class Lowest:
    """Of one table of vectors, by keyspace."""

    def __init__(self, at_once: int = COMPARED_AT_ONCE) -> None:
        """``at_once``: how many numbers a turn compares; of one actor all, in any case."""
        self._keyspaces: Final[dict[int, _Columns]] = {}
        """Whose turn it was last is last."""
        self._at_once: Final = at_once
        self._left = at_once

    def turn(self) -> None:
        """So many numbers may be compared again."""
        self._left = self._at_once

    def rose(self, keyspace: int, owner: Actor, actors: Iterable[Actor]) -> None:
        """The vector of ``owner`` has risen in these actors."""
        columns = self._keyspaces.get(keyspace)
        if columns is not None and owner in columns.vectors:
            columns.rose(owner, actors)

    def of(self, keyspace: int, vectors: Mapping[Actor, Vector]) -> Vector:
        """The minimum of these vectors, by owner. They are kept: later calls want to be told by `rose` what moved in them."""
        columns = self._keyspaces.setdefault(keyspace, _Columns())
        for owner in [o for o, vector in columns.vectors.items() if vectors.get(o) is not vector]:
            columns.remove(owner)
        for owner in vectors.keys() - columns.vectors.keys():
            columns.add(owner, vectors[owner])
        self._look(columns)
        return {actor: seq for actor, seq in columns.lowest.items() if seq}

    def catch_up(self) -> None:
        """Compare what is left of this turn."""
        for keyspace in list(self._keyspaces):
            if self._left <= 0:
                return
            columns = self._keyspaces[keyspace] = self._keyspaces.pop(keyspace)
            self._look(columns)

    def _look(self, columns: "_Columns") -> None:
        for actor in list(columns.stale):
            if self._left <= 0:
                return
            columns.look(actor)
            self._left -= len(columns.vectors)


class _Columns:
    def __init__(self) -> None:
        self.vectors: Final[dict[Actor, Vector]] = {}
        self.lowest: Final[Vector] = {}
        """By actor; one that is not there has not been looked at."""
        self._witness: Final[dict[Actor, Actor]] = {}
        self.stale: Final[dict[Actor, None]] = {}
        """Actors whose witness has risen or gone, in the order of that."""

    def add(self, owner: Actor, vector: Vector) -> None:
        self.vectors[owner] = vector
        for actor, seq in self.lowest.items():
            mine = vector.get(actor, 0)
            if mine < seq:
                self.lowest[actor] = mine
                self._witness[actor] = owner
        if len(self.vectors) == 1:
            self.stale.update(dict.fromkeys(vector))  # of others the minimum is 0 until it rises here

    def remove(self, owner: Actor) -> None:
        del self.vectors[owner]
        if not self.vectors:
            for by_actor in (self.lowest, self._witness, self.stale):
                by_actor.clear()
        other = next(iter(self.vectors.values()), {})
        self.stale.update(dict.fromkeys(actor for actor, witness in self._witness.items() if witness == owner))
        self.stale.update(dict.fromkeys(actor for actor in other if actor not in self._witness))

    def rose(self, owner: Actor, actors: Iterable[Actor]) -> None:
        witness = self._witness
        self.stale.update(dict.fromkeys(actor for actor in actors if witness.get(actor, owner) == owner))

    def look(self, actor: Actor) -> None:
        """Compare all numbers of an actor that is stale."""
        del self.stale[actor]
        seqs = [vector.get(actor, 0) for vector in self.vectors.values()]
        self.lowest[actor] = lowest = min(seqs)
        self._witness[actor] = next(islice(self.vectors, seqs.index(lowest), None))
