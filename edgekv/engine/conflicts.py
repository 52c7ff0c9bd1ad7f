"""The ledger of conflicts: values that were written and that no reader is shown, since a concurrent write had the higher stamp.

Counted is what is certain. A run carries no context of its writer, so a value that came and is shown may or may not have been written
with the replaced one in sight. But a value that comes and loses was written without sight of the winner, or its stamp would be higher;
and the winner without sight of it, or it would have come here first: causal order. So each conflict is counted once at each node to
which the winner came first, and at no other.

Where rows come instead of changes, both sides' vectors tell: of two values that neither side had seen of the other, one is lost, and
that is counted where they meet. So it is for what comes late (`is_late`): its fate is decided at the node that brings it.

Where late values are dropped (``late_write = "drop"``), those are listed too, with what is there instead, which may be nothing.

A deletion that loses discards no value, and two equal values discard none. Siblings, sets and counters keep all that is written.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from edgekv.crdt.register import Cell
from edgekv.ids import Actor, actor_text
from edgekv.store.lost_values import LOST_KEPT, Lost, LostValue, Version, lost_value


class Conflict(NamedTuple):
    """Of two concurrent writes to a register, or to a map's field, the one that is shown and the one that is not."""

    keyspace: str
    key: bytes
    field: bytes | None
    """None: the key's register."""
    kept: Cell
    discarded: Cell


class Conflicts:
    """Of one node, since it started."""

    def __init__(self) -> None:
        self.totals: Final[dict[str, int]] = {}
        """By the name of the keyspace."""
        self.is_late: Callable[[str, Actor, int], bool] = lambda keyspace, actor, seq: False
        """Set once by replication: whether a change was brought by a member that came back (replication/returning.py)."""
        self._newest: Final[deque[tuple[str, LostValue]]] = deque(maxlen=LOST_KEPT)

    def add(self, conflict: Conflict) -> None:
        """Count one that has happened."""
        self.totals[conflict.keyspace] = self.totals.get(conflict.keyspace, 0) + 1
        self._newest.append((conflict.keyspace, lost_value(*conflict[1:])))

    def add_all(self, keyspace: str, lost: Lost) -> None:
        """Count what was lost where rows joined."""
        self.totals[keyspace] = self.totals.get(keyspace, 0) + lost.total
        self._newest.extend((keyspace, value) for value in lost.newest)

    def newest(self) -> list[dict[str, object]]:
        """The last LOST_KEPT, the newest first, for people and scripts."""
        return [
            {
                "keyspace": keyspace,
                "key": value.key,
                "field": value.field,
                "kept": None if value.kept is None else self._shown(keyspace, value.kept),
                "discarded": self._shown(keyspace, value.discarded),
            }
            for keyspace, value in reversed(self._newest)
        ]

    def _shown(self, keyspace: str, version: Version) -> dict[str, object]:
        return {
            "value": version.value,
            "value_bytes": version.value_bytes,
            "actor": actor_text(version.actor),
            "wall_ms": version.hlc >> 16,
            "late": self.is_late(keyspace, version.actor, version.seq),
        }


def discards(kept: Cell, came: Cell) -> bool:
    """Whether a value that came is lost to a version that was here."""
    return came.value is not None and came.value != kept.value and kept.hlc >= came.hlc
