"""Where in this node's log a receiver has to begin, and cursors from there.

Each segment begins with a mark that says which vectors the log had reached (wal/record.py). A receiver that covers them has all that
stands before it; what stands before the first segment, the *floor*, the log cannot serve. So nobody keeps a place for anybody: a peer
that comes back says its vectors, and the search reads one frame of each segment that is too new.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgekv.engine.tail import LogCursor, Tail
from edgekv.ids import Vector
from edgekv.wal.disk import Disk
from edgekv.wal.reader import LogReader, checkpoints


class Begin(NamedTuple):
    """Where to begin, for those keyspaces that the log can serve."""

    lsn: int
    beyond: set[int]
    """Keyspaces of which the receiver lacks what the log no longer has."""


class LogSource:
    """The log of one node, for those who read it from a vector on."""

    def __init__(self, tail: Tail, disk: Disk) -> None:
        self._tail: Final = tail
        self._disk: Final = disk

    def cursor(self, lsn: int) -> LogCursor:
        """A cursor of its own."""
        return LogCursor(self._tail, LogReader(self._disk), lsn)

    def begin(self, wanted: Mapping[int, Vector], floors: Mapping[int, Vector]) -> Begin:
        """Where a receiver begins that has these vectors of these keyspaces.

        ``floors``: by keyspace what a receiver must cover whatever the log holds.
        """
        beyond = {keyspace for keyspace, vector in wanted.items() if not covers(vector, floors.get(keyspace, {}))}
        left = wanted.keys() - beyond
        begin = 0
        for base_lsn, checkpoint in checkpoints(self._disk):
            if not left:
                break
            begin = base_lsn
            reached = {state.keyspace: {actor: seq for actor, seq, _ in state.vector} for state in checkpoint.keyspaces}
            left = {keyspace for keyspace in left if not covers(wanted[keyspace], reached.get(keyspace, {}))}
        return Begin(begin, beyond | left)


def covers(vector: Vector, other: Vector) -> bool:
    """Whether a vector covers all that another one does."""
    return all(seq <= vector.get(actor, 0) for actor, seq in other.items())
