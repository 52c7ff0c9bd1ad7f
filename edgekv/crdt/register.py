"""The register cell: one value, a tombstone, or an expiry, where the highest stamp wins.

The same cell serves a key's register, a map's field and a key's expiry. Callers are ``crdt.operation`` (an operation becomes a cell),
the layers above (join in memory) and the applier (join with LMDB); nothing here reads a clock or knows where a cell is stored.

Laws, for all cells of one row (tests/unit/crdt/test_register.py): ``merge`` is associative, commutative and idempotent, so any
grouping, duplication and order of deliveries ends in the same cell. Two cells with one stamp come from one change, and a change
has at most one operation per row: they are equal, so a tie decides nothing.

Expiry is a property of *reading*: a cell whose expiry has passed is hidden, never removed, because another node may already have
seen a later write. An ``EXPIRE`` therefore writes the whole cell again; a delta of the expiry alone would diverge.

Source: Shapiro et al., "A comprehensive study of convergent and commutative replicated data types" (2011), LWW-register; the rank
puts a clear that the system makes just above what it removes and below everything written later.
"""

from typing import Final, NamedTuple

from edgekv.ids import Actor

Stamp = tuple[int, int, Actor]
PlainRow = tuple[bytes, int]
"""A register as the memtable holds it after a plain local SET: ``(value, hlc)``, rank 0, no expiry, made by this node's own actor."""

RANK_CLIENT: Final = 0
RANK_SYSTEM: Final = 1


class Cell(NamedTuple):
    """One version of a register. ``value`` None is a tombstone; ``expiry_ms`` 0 is none.

    ``value`` and ``hlc`` come first so that a ``PlainRow`` and a ``Cell`` read alike; ``len(row) == 2`` tells them apart.
    """

    value: bytes | None
    hlc: int
    actor: Actor
    seq: int
    expiry_ms: int = 0
    rank: int = RANK_CLIENT
    of: tuple[Actor, int] | None = None  # the dot under which a late write was first made


Register = PlainRow | Cell


def stamp(cell: Cell) -> Stamp:
    """What cells are compared by."""
    return cell.hlc, cell.rank, cell.actor


def merge(a: Cell | None, b: Cell) -> Cell:
    """The cell with the highest stamp."""
    if a is None or a.hlc < b.hlc:
        return b
    if a.hlc > b.hlc:
        return a
    return a if (a.rank, a.actor) >= (b.rank, b.actor) else b


def visible(cell: Cell, ttl_now_ms: int) -> bool:
    """Whether a reader at this TTL time is shown the cell, as far as the cell itself says (the key's expiry may hide it too)."""
    return cell.value is not None and not 0 < cell.expiry_ms <= ttl_now_ms


def as_cell(row: Register, own_actor: Actor) -> Cell:
    """The whole cell of a row held in memory. A plain row does not keep its seq: 0 stands for it, and no stamp needs it."""
    return row if isinstance(row, Cell) else Cell(row[0], row[1], own_actor, 0)


def newest(old: Register | None, new: Cell, own_actor: Actor) -> Register:
    """``merge`` where the older row may be a plain one; that row itself is returned when it wins."""
    if old is None:
        return new
    return new if merge(as_cell(old, own_actor), new) is new else old
