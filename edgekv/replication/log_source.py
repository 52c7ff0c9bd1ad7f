"""Where in this node's log a receiver has to begin, and cursors from there.

Each segment begins with a mark that says which vectors the log had reached (wal/record.py). A receiver that covers them has all that
stands before it; what stands before the first segment, the *floor*, the log cannot serve. So nobody keeps a place for anybody: a peer
that comes back says its vectors, and the search reads one frame of each segment.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgekv.engine.tail import LogCursor, Tail
from edgekv.ids import Vector
from edgekv.wal.disk import Disk
from edgekv.wal.reader import LogReader
from edgekv.wal.record import CHECKPOINT, Mark, unpack_records
from edgekv.wal.segment import Segment, SegmentWalk, segment_name, segment_number

_KNOWN_MAX: Final = 1024


class Start(NamedTuple):
    """The begin of a segment."""

    lsn: int
    vectors: dict[int, Vector]  # by keyspace: what the log before it amounts to


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
        self._known: dict[tuple[int, int], Start] = {}

    def cursor(self, lsn: int) -> LogCursor:
        """A cursor of its own."""
        return LogCursor(self._tail, LogReader(self._disk), lsn)

    def begin(self, wanted: Mapping[int, Vector], floors: Mapping[int, Vector]) -> Begin:
        """Where a receiver begins that has these vectors of these keyspaces.

        ``floors``: by keyspace what a receiver must cover whatever the log holds.
        """
        starts = self.starts()
        beyond = {keyspace for keyspace, vector in wanted.items() if not covers(vector, floors.get(keyspace, {}))}
        place = len(starts) - 1
        for keyspace, vector in wanted.items():
            if keyspace in beyond:
                continue
            reach = [i for i, start in enumerate(starts) if covers(vector, start.vectors.get(keyspace, {}))]
            if reach:
                place = min(place, reach[-1])
            else:
                beyond.add(keyspace)
        return Begin(starts[place].lsn if starts else 0, beyond)

    def starts(self) -> list[Start]:
        """Of every segment that has a first frame, in order."""
        numbers = [number for name in self._disk.names() if (number := segment_number(name)) is not None]
        found = [start for number in sorted(numbers) if (start := self._start(number)) is not None]
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        return found

    def _start(self, number: int) -> Start | None:
        try:
            segment = Segment.open(self._disk, segment_name(number))
        except FileNotFoundError:  # recycled a moment ago
            return None
        if segment is None:
            return None
        try:
            known = self._known.get((number, segment.info.salt))
            if known is None:
                known = _read_start(segment)
                if known is not None:
                    self._known[number, segment.info.salt] = known
            return known
        finally:
            segment.close()


def _read_start(segment: Segment) -> Start | None:
    found = SegmentWalk(segment).step()
    if found is None:
        return None
    _, payload = found
    first = next(iter(unpack_records(payload)), None)
    if not isinstance(first, Mark) or first.kind != CHECKPOINT:
        return None
    states = first.value.keyspaces
    return Start(segment.header.base_lsn, {state.keyspace: {a: seq for a, seq, _ in state.vector} for state in states})


def covers(vector: Vector, other: Vector) -> bool:
    """Whether a vector covers all that another one does."""
    return all(seq <= vector.get(actor, 0) for actor, seq in other.items())
