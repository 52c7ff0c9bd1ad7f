"""The ledger of conflicts: values that were written and that no reader is shown, since a concurrent write had the higher stamp.

Counted is what is certain. A run carries no context of its writer, so a value that came and is shown may or may not have been written
with the replaced one in sight. But a value that comes and loses was written without sight of the winner, or its stamp would be higher;
and the winner without sight of it, or it would have come here first: causal order. So each conflict is counted once at each node to
which the winner came first, and at no other.

A deletion that loses discards no value, and two equal values discard none. Siblings, sets and counters keep all that is written.
"""

from collections import deque
from typing import Final, NamedTuple

from edgekv.crdt.register import Cell
from edgekv.ids import actor_text

CONFLICTS_KEPT: Final = 64
VALUE_BYTES_SHOWN: Final = 256
"""Of each value and name that is kept: the ledger is for people, and bounded."""


class Conflict(NamedTuple):
    """Of two concurrent writes to a register, or to a map's field, the one that is shown and the one that is not."""

    keyspace: str
    key: bytes
    field: bytes | None
    """None: the key's register."""
    kept: Cell
    discarded: Cell

    def figures(self) -> dict[str, object]:
        """For people and scripts."""
        return {
            "keyspace": self.keyspace,
            "key": self.key[:VALUE_BYTES_SHOWN],
            "field": None if self.field is None else self.field[:VALUE_BYTES_SHOWN],
            "kept": _version(self.kept),
            "discarded": _version(self.discarded),
        }


class Conflicts:
    """Of one node, since it started."""

    def __init__(self) -> None:
        self.totals: Final[dict[str, int]] = {}
        """By the name of the keyspace."""
        self._newest: Final[deque[dict[str, object]]] = deque(maxlen=CONFLICTS_KEPT)

    def add(self, conflict: Conflict) -> None:
        """Count one that has happened."""
        self.totals[conflict.keyspace] = self.totals.get(conflict.keyspace, 0) + 1
        self._newest.append(conflict.figures())

    def newest(self) -> list[dict[str, object]]:
        """The last CONFLICTS_KEPT, the newest first."""
        return list(reversed(self._newest))


def discards(kept: Cell, came: Cell) -> bool:
    """Whether a value that came is lost to a version that was here."""
    return came.value is not None and came.value != kept.value and kept.hlc >= came.hlc


def _version(cell: Cell) -> dict[str, object]:
    return {
        "value": None if cell.value is None else cell.value[:VALUE_BYTES_SHOWN],
        "value_bytes": 0 if cell.value is None else len(cell.value),
        "actor": actor_text(cell.actor),
        "wall_ms": cell.hlc >> 16,
    }
