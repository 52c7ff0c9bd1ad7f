"""The siblings of a register: the values that nobody who wrote after them had seen.

In a keyspace with ``conflict = "siblings"`` a key's register keeps concurrent values side by side. A put removes the values that its
writer had seen and adds its own; a delete removes those that it had seen. What it had not seen stays, so nothing is lost to a stamp.

    row       Siblings(values)              complete, ascending by dot; none: there is nothing
    delta     SiblingsEdit(added, removed)  a put: its own value, and the dots that it had seen; a delete: those alone

Each value has the dot of its change. An actor may have several: two clients of one node that had both read the same value and then
write are concurrent, although one node stamps both. So a removal names dots exactly, and never takes lower ones of the same actor as
the removal of a set element does (crdt.elements).

``join`` of deltas is the union of what was added, less the union of what was removed: associative, commutative, idempotent. A row
carries no context of what was removed, so it takes deltas, in causal order, and is never joined with another row: that needs both
sides' vectors.

Sources: Preguica et al., "Dotted version vectors" (2010): why a node's own clients need a dot each; Shapiro et al., "A comprehensive
study of convergent and commutative replicated data types" (2011), MV-register.
"""

from collections.abc import Iterable
from typing import NamedTuple

from edgekv.crdt.elements import Dot, Dots
from edgekv.crdt.register import Cell
from edgekv.ids import Actor


class Sibling(NamedTuple):
    """One value, under the dot of the change that put it. ``expiry_ms`` 0: it does not expire."""

    actor: Actor
    seq: int
    hlc: int
    value: bytes
    expiry_ms: int = 0

    @property
    def dot(self) -> Dot:
        return self.actor, self.seq

    @property
    def cell(self) -> Cell:
        """The same as a register's cell: stamps and expiry are judged alike."""
        return Cell(self.value, self.hlc, self.actor, self.seq, self.expiry_ms)


class Siblings(NamedTuple):
    """A complete row, ascending by dot."""

    values: tuple[Sibling, ...]

    @property
    def dots(self) -> Dots:
        return tuple(sibling.dot for sibling in self.values)


class SiblingsEdit(NamedTuple):
    """A delta: values that were put, ascending by dot, and dots that were removed, ascending; none is in both."""

    added: tuple[Sibling, ...]
    removed: Dots


NO_SIBLINGS = Siblings(())


def apply(row: Siblings | None, delta: SiblingsEdit) -> Siblings:
    """The complete row after a delta that comes after it in causal order."""
    held = () if row is None else row.values
    return Siblings(_union(_without(held, delta.removed), delta.added))


def join(a: SiblingsEdit, b: SiblingsEdit) -> SiblingsEdit:
    """One delta that does what both do, in whichever order."""
    removed = tuple(sorted({*a.removed, *b.removed}))
    return SiblingsEdit(_without(_union(a.added, b.added), removed), removed)


def _union(a: tuple[Sibling, ...], b: tuple[Sibling, ...]) -> tuple[Sibling, ...]:
    if not a or not b:
        return a or b
    return tuple(sorted({sibling.dot: sibling for sibling in (*a, *b)}.values()))


def _without(values: Iterable[Sibling], dots: Dots) -> tuple[Sibling, ...]:
    removed = frozenset(dots)
    return tuple(sibling for sibling in values if sibling.dot not in removed)
