"""How far other nodes are behind this one: in changes, and in time.

In changes: what is durable here and, as far as this node has heard, not there. In time: once a second `look` takes down what is
durable here; a node is *even* with the newest of these moments of which it has everything, and behind since then. So a node that
follows a busy one at a distance of 20 ms is at most about a second behind, not for as long as the writing lasts.

A look compares, of each node, the actors that moved here since its last mark, or that it lacked in it: whatever else there is in the
vectors, thousands of actors at thousands of nodes, costs nothing. All of a vector is compared when a node is known from elsewhere than
before (its link, its SEEN), 50 us for 1,000 actors.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Final

from edgekv.ids import Actor, Vector

Vectors = Mapping[int, Vector]
"""By keyspace."""
Since = Callable[[int, int], Sequence[Actor]]
"""The actors of a keyspace that have moved after a look."""
_NOTHING: Final[Vector] = {}
_NOBODY: Final[set[Actor]] = set()


def behind(own: Vectors, known: Vectors, keyspaces: Iterable[int], actor: Actor) -> int:
    """How many changes of ``own`` somebody lacks of whom ``known`` is known. ``actor``: its own, whose changes it does not lack."""
    lacking = 0
    for keyspace in keyspaces:
        mine, theirs = own.get(keyspace, _NOTHING), known.get(keyspace, _NOTHING)
        lacking += sum(n - m for n, m in zip(mine.values(), map(theirs.get, mine, repeat(0)), strict=True) if n > m)
        lacking -= max(0, mine.get(actor, 0) - theirs.get(actor, 0))
    return lacking


class OwnMoves:
    """What is durable here, look by look, and which actors have moved since when."""

    def __init__(self) -> None:
        self.number = 0
        """Of the last look."""
        self.vectors: Vectors = {}
        """At the last look."""
        self._moved: Final[dict[int, dict[Actor, int]]] = {}
        """By keyspace the look that found an actor moved last; in the order of that."""
        self._since: Final[dict[tuple[int, int], list[Actor]]] = {}

    def look(self, own: Vectors) -> None:
        """What is durable now. ``own`` is kept, and must not change."""
        self.number += 1
        self._since.clear()
        for keyspace in own:
            moved = self._moved.setdefault(keyspace, {})
            for actor in self._beyond(own, keyspace):
                moved.pop(actor, None)
                moved[actor] = self.number
        self.vectors = own

    def until(self, own: Vectors) -> Since:
        """As `since`, with those that have moved between the last look and this state."""
        beyond = {keyspace: self._beyond(own, keyspace) for keyspace in own}
        found: dict[tuple[int, int], list[Actor]] = {}

        def since(keyspace: int, number: int) -> list[Actor]:
            known = found.get((keyspace, number))
            if known is None:
                known = found[keyspace, number] = [*self.since(keyspace, number), *beyond.get(keyspace, ())]
            return known

        return since

    def _beyond(self, own: Vectors, keyspace: int) -> list[Actor]:
        """The actors that are not where they were at the last look."""
        now, then = own.get(keyspace, _NOTHING), self.vectors.get(keyspace, _NOTHING)
        return [] if now == then else [actor for actor, seq in now.items() if then.get(actor) != seq]

    def since(self, keyspace: int, number: int) -> list[Actor]:
        """The actors that have moved after a look."""
        found = self._since.get((keyspace, number))
        if found is None:
            found = self._since[keyspace, number] = []
            for actor, moved in reversed(self._moved.get(keyspace, {}).items()):
                if moved <= number:
                    break
                found.append(actor)
        return found


class EvenSince:
    """Of one other node."""

    def __init__(self, now_ms: int) -> None:
        self.even_ms = now_ms
        """It has all that was durable here at that time; at first: since when this is asked at all."""
        self._mark_ms = now_ms
        self._mark: Vectors = {}
        self._number = 0
        """Of the look at which the mark was set."""
        self._perhaps: dict[int, list[Actor]] = {}
        """By keyspace what it may lack of the mark: nothing else."""
        self._asked: tuple[Vectors, Sequence[int], Actor] | None = None
        """Of what that is true."""

    def look(self, now_ms: int, own: OwnMoves, known: Vectors, keyspaces: Sequence[int], actor: Actor) -> int:
        """Compare what it has now with what this node had at the last mark; set the next one.

        ``known``: the same object as before unless it is known from elsewhere now; what it holds only grows. Returns how many numbers
        were compared.
        """
        if not self._is_as_before(known, keyspaces, actor):
            self._asked = known, keyspaces, actor
            self._perhaps = {keyspace: list(self._mark.get(keyspace, ())) for keyspace in keyspaces}
        compared = 0
        for keyspace, actors in list(self._perhaps.items()):
            compared += len(actors)
            self._perhaps[keyspace] = self._lacking(keyspace, actors) if actors else []
        if not any(self._perhaps.values()):
            self.even_ms = max(self.even_ms, self._mark_ms)
            self._perhaps = {keyspace: own.since(keyspace, self._number) for keyspace in keyspaces}
            self._mark_ms, self._mark, self._number = now_ms, own.vectors, own.number
        return compared

    def changes(self, own: Vectors, moves: Since, known: Vectors, keyspaces: Sequence[int], actor: Actor) -> int:
        """As `behind`, which it is when nothing is remembered."""
        if not self._is_as_before(known, keyspaces, actor):
            return behind(own, known, keyspaces, actor)
        lacking = 0
        for keyspace in keyspaces:
            mine, theirs = own.get(keyspace, _NOTHING), known.get(keyspace, _NOTHING)
            left, moved = self._perhaps.get(keyspace, []), moves(keyspace, self._number)
            if 2 * (len(left) + len(moved)) > len(mine):
                lacking += 0 if mine == theirs else behind(own, known, [keyspace], actor)
                continue
            perhaps = {*left, *moved} if left or moved else _NOBODY
            lacking += sum(max(0, mine.get(a, 0) - theirs.get(a, 0)) for a in perhaps if a != actor)
        return lacking

    def lag_s(self, now_ms: int, lag_changes: int) -> float:
        """How long it has been behind, seconds; 0 when it is not."""
        return max(0, now_ms - self.even_ms) / 1000 if lag_changes else 0.0

    def _is_as_before(self, known: Vectors, keyspaces: Sequence[int], actor: Actor) -> bool:
        asked = self._asked
        return asked is not None and asked[0] is known and (asked[1], asked[2]) == (keyspaces, actor)

    def _lacking(self, keyspace: int, actors: Sequence[Actor]) -> list[Actor]:
        assert self._asked is not None
        known, _, own = self._asked
        mark, theirs = self._mark.get(keyspace, _NOTHING), known.get(keyspace, _NOTHING)
        if 2 * len(actors) > len(mark) and mark == theirs:
            return []
        return [actor for actor in actors if theirs.get(actor, 0) < mark.get(actor, 0) and actor != own]
