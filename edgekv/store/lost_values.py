"""Values that are lost to a concurrent write with a higher stamp, as the applier tells the node of them.

Of changes the node itself sees which of two versions is shown (engine/conflicts.py). Where rows join (store/fold.py) only the applier
has both: they cross in its message, cut to what people are shown.
"""

from collections import deque
from typing import Final, NamedTuple

from edgekv.crdt.register import Cell
from edgekv.ids import Actor

LOST_KEPT: Final = 64
VALUE_BYTES_SHOWN: Final = 256
"""Of each value and name that is kept: the ledger is for people, and bounded."""


class Version(NamedTuple):
    """One of the two."""

    value: bytes | None
    """Its beginning; None: a deletion."""
    value_bytes: int
    actor: Actor
    seq: int
    """0: not known, of a value that this node has put and that is not in LMDB yet."""
    hlc: int


class LostValue(NamedTuple):
    """Of two concurrent writes to a register, or to a map's field, the one that is shown and the one that is not."""

    key: bytes
    field: bytes | None
    """None: the key's register."""
    kept: Version | None
    """None: nothing; the other one came late, and was dropped."""
    discarded: Version


class Lost(NamedTuple):
    """What was lost where rows of a keyspace joined."""

    keyspace: int
    total: int
    newest: tuple[LostValue, ...]
    """LOST_KEPT of them at most, the newest last."""


class LostCells:
    """Collects them."""

    def __init__(self, keyspace: int) -> None:
        self._keyspace: Final = keyspace
        self._total = 0
        self._newest: Final[deque[LostValue]] = deque(maxlen=LOST_KEPT)

    def add(self, key: bytes, field: bytes | None, kept: Cell | None, discarded: Cell) -> None:
        """One more."""
        self._total += 1
        self._newest.append(lost_value(key, field, kept, discarded))

    def lost(self) -> Lost | None:
        """All of it; None: nothing was lost."""
        return Lost(self._keyspace, self._total, tuple(self._newest)) if self._total else None


def lost_value(key: bytes, field: bytes | None, kept: Cell | None, discarded: Cell) -> LostValue:
    """With names and values cut."""
    shown = None if field is None else field[:VALUE_BYTES_SHOWN]
    kept_version = None if kept is None else _version(kept)
    return LostValue(key[:VALUE_BYTES_SHOWN], shown, kept_version, _version(discarded))


def _version(cell: Cell) -> Version:
    value = None if cell.value is None else cell.value[:VALUE_BYTES_SHOWN]
    return Version(value, len(cell.value or b""), cell.actor, cell.seq, cell.hlc)
