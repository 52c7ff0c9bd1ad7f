"""The set element: the dots of the adds that nobody has removed; and the clear of a whole set, a vector.

A set has one row per element, so adding costs the same at any size. An element is in the set while it has a dot that the set's
clear does not cover. Adding wins: a remove or clear takes the dots it has seen, and a concurrent add has another one.

    row       Element(dots)             complete: what is not there was removed. No dots: not there
    row       Clear(vector)             of the set: the join of its clears that the applier has not swept yet
    deltas    Element(one dot)          an add by its actor, in place of its own older dot
              Removal(dots)             removes these dots and lower ones of the same actors
              Edit(added, removed)      several of them joined

Dots are ascending, at most one per actor: an actor that adds again has seen its own older dot. So a row is written in one way only.

``join`` of deltas takes maxima per actor of what was added and of what was removed, and shows an added dot only above the removed
one: associative, commutative, idempotent. A row carries no context of what was removed, so it takes deltas, in causal order, and is
never joined with another row of the same element: that needs both sides' vectors, which say what was removed.

Sources: Bieniusa et al., "An optimized conflict-free replicated set" (2012); Brown et al., "Big(ger) sets" (2016), a row per element.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgekv.ids import Actor

Dot = tuple[Actor, int]
Dots = tuple[Dot, ...]
"""Ascending, at most one per actor."""


class Element(NamedTuple):
    """A complete element, or the delta of an add."""

    dots: Dots


class Removal(NamedTuple):
    """The delta of a remove: the dots it had seen."""

    dots: Dots


class Edit(NamedTuple):
    """Adds and removes of one element, joined; both are there, or it would be one of the others."""

    added: Dots
    removed: Dots


class Clear(NamedTuple):
    """What the clears of a set had seen. It covers the dots at or below its own of the same actor."""

    vector: Dots


ElementDelta = Element | Removal | Edit
_NOTHING: Dots = ()


def add(element: Element | None, dot: Dot) -> Element:
    """The element after an add."""
    return apply(element, Element((dot,)))


def remove(element: Element | None, observed: Dots) -> Element:
    """The element after a remove that had seen these dots; without dots when none is left."""
    return apply(element, Removal(observed))


def apply(element: Element | None, delta: ElementDelta) -> Element:
    """The complete element after a delta that comes after it in causal order."""
    added, removed = _halves(delta)
    if element is None:
        return Element(added)
    kept = _uncovered(element.dots, removed) if removed else element.dots
    return Element(_highest(kept, added))


def join(a: ElementDelta, b: ElementDelta) -> ElementDelta:
    """One delta that does what both do, in whichever order."""
    (added_a, removed_a), (added_b, removed_b) = _halves(a), _halves(b)
    removed = _highest(removed_a, removed_b)
    added = _uncovered(_highest(added_a, added_b), removed)
    if not removed:
        return Element(added)
    return Edit(added, removed) if added else Removal(removed)


def join_clears(a: Clear, b: Clear) -> Clear:
    """What either has seen."""
    return Clear(_highest(a.vector, b.vector))


def visible(element: Element, clear: Clear | None) -> Dots:
    """The dots that the set's clear does not cover: what a remove must name. None of them: the element is not in the set."""
    return element.dots if clear is None else _uncovered(element.dots, clear.vector)


def dots_of(vector: Mapping[Actor, int]) -> Dots:
    """A vector as operations and rows hold it."""
    return tuple(sorted((actor, seq) for actor, seq in vector.items() if seq))


def _halves(delta: ElementDelta) -> tuple[Dots, Dots]:
    if isinstance(delta, Element):
        return delta.dots, _NOTHING
    return (_NOTHING, delta.dots) if isinstance(delta, Removal) else delta


def _highest(a: Dots, b: Dots) -> Dots:
    """Per actor the higher dot of the two."""
    if not a or not b or a == b:
        return a or b
    return tuple(sorted({**dict(a), **{actor: seq for actor, seq in b if not _is_covered(actor, seq, a)}}.items()))


def _uncovered(dots: Iterable[Dot], vector: Dots) -> Dots:
    return tuple(dot for dot in dots if not _is_covered(*dot, vector))


def _is_covered(actor: Actor, seq: int, vector: Dots) -> bool:
    """Whether the vector has this dot or a higher one of its actor."""
    found = bisect_left(vector, (actor, seq))
    return found < len(vector) and vector[found][0] == actor
