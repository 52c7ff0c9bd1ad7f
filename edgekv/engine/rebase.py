"""The rebase: changes that were made while another node's rows were joined (engine/flip.py), merged once more, on the joined rows.

While the applier joins a spool, this node's own changes of the keyspace go on, on the rows of before: LMDB's reader stays where it is,
and the layers above it are right for it. They are not right for the joined rows. A layer's rows are whole ones, and the count of a
set, a sibling, a counter's part or a key's expiry may have another version in LMDB now. So all that these changes wrote but for
registers is made anew, beside the layers, while reads and changes go on:

1. *Followed.* The runs that became durable behind the BARRIER are kept, as the log has them: those of plain SETs are not.
2. *Merged*, a few at a time, into a layer above the state that the applier committed, exactly as a restart would replay them.
3. *Put in place*, in one go with the reader and the vector: the durable ones in the active layer, and those of the frames that are
   not durable yet in each frame's own.

Why that is right. Such a change is an operation with a dot above all that either side knows of this node's actor. It names what it
observed (dots of elements, a clear's vector, parts), so it can be merged into any state in which its own predecessors are, in any
order with what came from others: that is what every other node does with it, and this one after a restart. What comes out is, row by
row, what the applier will make of the same records: both merge them above the same LMDB state.

Registers need not be made anew. The keyspace's HLC was raised above the spool's before the first of these changes was stamped, so a
register that one of them wrote is above the stored ones of both sides. System clears, which carry a lower stamp, are not made
meanwhile, and no other actor's runs are received.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from edgekv.crdt.operation import DELETE, PUT, Row
from edgekv.crdt.register import Register
from edgekv.engine.frame import Frame, Run
from edgekv.engine.keyspaces import Head, Keyspace
from edgekv.engine.merging import RunMerger
from edgekv.ids import Actor
from edgekv.limits import REBASE_STEP_OPERATIONS
from edgekv.store.applied import Applied
from edgekv.store.collection_rows import CollectionRows, Source, StoredRows
from edgekv.store.memtable import Layer
from edgekv.wal.record import Changes, Operations, is_columns, unpack_body, unpack_records

_Change = Any
"""A sequence of operations."""
_REGISTERS: Final = frozenset((PUT, DELETE))


class Rebase:
    """Of one keyspace, in one flip: `follow` from the BARRIER on; when it is applied `begin`, `step`, `complete`, `put`."""

    def __init__(self, actor: Actor, keyspace: Keyspace) -> None:
        self._actor: Final = actor
        self._keyspace: Final = keyspace
        self._runs: Final[deque[Changes]] = deque()
        """Durable, in the order of the log, and not merged."""
        self._arrived = 0
        """Changes that came since the last step."""
        self._rest: Sequence[_Change] = ()
        """Of the first run, the changes that are not merged; none: it was not unpacked."""
        self._merger: _Merger | None = None
        self._made: Final = _Made()
        self._frames: list[tuple[Frame, _Made]] = []
        self._forgotten: Final[list[tuple[bytes, bytes | None]]] = []

    def follow(self, payload: bytes) -> None:
        """The next frame of the log is durable. To be called for each one behind that of the BARRIER."""
        for record in unpack_records(payload):
            if isinstance(record, Changes) and record.keyspace == self._keyspace.id and not is_columns(record.body):
                self._runs.append(record)
                self._arrived += record.changes

    def begin(self, source: Source, applied: Applied) -> None:
        """The BARRIER is applied, and nothing behind it. ``source`` shows that, and goes on doing so.

        Again, with another source of that state: what was merged stays right.
        """
        if self._merger is None:
            self._arrived = 0
        self._merger = _Merger(self._actor, self._keyspace, source, applied)
        self._merger.layers.append(self._made.layer)

    @property
    def begun(self) -> bool:
        """Whether there is a state to merge into."""
        return self._merger is not None

    def step(self) -> bool:
        """Merge some changes, more than came since the last step; whether there are more that are durable."""
        budget = REBASE_STEP_OPERATIONS + 2 * self._arrived
        self._arrived = 0
        while self._runs and budget > 0:
            budget -= self._merge_next(budget)
        return bool(self._runs)

    def undurable(self, frames: Iterable[Frame]) -> int:
        """How many changes in frames that are not durable have to be merged when the rebase is put in place."""
        return sum(run.count for frame in frames for run in self._runs_of(frame) if run.changes is not None)

    def complete(self, frames: Iterable[Frame]) -> None:
        """Merge all that is left. ``frames``: those that are not durable, oldest first. If it raises, nothing is lost."""
        assert self._merger is not None
        while self._runs:
            self._merge_next(REBASE_STEP_OPERATIONS)
        self._frames = []
        del self._merger.layers[:-1]
        for frame in frames:
            made = _Made()
            self._merger.layers.insert(0, made.layer)
            self._frames.append((frame, made))
            for run in self._runs_of(frame):
                if run.changes is not None:
                    self._merger.merge(made, run.first_seq, run.base_hlc, run.changes)

    def forget_keys(self, low: bytes, high: bytes | None) -> None:
        """Keys in [low, high) belong to another keyspace from now on, whose rows the layers have under them."""
        self._forgotten.append((low, high))

    def put(self, active: Layer) -> bool:
        """Put what is complete in place: the durable part into the active layer. Whether the keyspace is mixed by it."""
        assert self._merger is not None
        active.replace(self._placed(self._made), self._made.layer)
        for frame, made in self._frames:
            frame.layer.replace(self._placed(made), made.layer)
        return self._merger.keyspace.mixed

    def _placed(self, made: "_Made") -> Iterable[bytes]:
        keys: Iterable[bytes] = made.keys
        for low, high in self._forgotten:
            keys = [key for key in keys if key < low or (high is not None and key >= high)]
        return keys

    def _runs_of(self, frame: Frame) -> Iterator[Run]:
        return (run for run in frame.runs if isinstance(run, Run) and run.keyspace is self._keyspace)

    def _merge_next(self, budget: int) -> int:
        """Merge changes of the first run; how many operations it were."""
        assert self._merger is not None
        run = self._runs[0]
        if not self._rest:
            body = unpack_body(run.body)
            assert isinstance(body, Operations)
            self._rest = body.changes
        count = size = 0
        while count < len(self._rest) and size < budget:
            size += sum(map(_weight, self._rest[count]))
            count += 1
        first = run.changes - len(self._rest)
        self._merger.merge(self._made, run.first_seq + first, run.base_hlc + first, self._rest[:count])
        self._rest = self._rest[count:]
        if not self._rest:
            self._runs.popleft()
        return size


class _Made:
    """A layer of rows made anew, and of which keys: of some there may be none."""

    __slots__ = ("keys", "layer")

    def __init__(self) -> None:
        self.layer: Final = Layer()
        self.keys: Final[dict[bytes, None]] = {}


class _Merger:
    """Merges own changes into the newest of ``layers``, above a state of the store."""

    def __init__(self, actor: Actor, keyspace: Keyspace, source: Source, applied: Applied) -> None:
        self._actor: Final = actor
        self.keyspace: Final = Keyspace(keyspace.policy)
        """As it is in the state that is merged into: it moves with what is merged."""
        vector = applied.vectors.get(keyspace.id, {})
        self.keyspace.vector = {actor: Head(*head) for actor, head in vector.items()}
        self.keyspace.hlc = applied.hlcs.get(keyspace.id, 0)
        self.keyspace.mixed |= keyspace.id in applied.mixed
        self._stored: Final = StoredRows(source, checked=False)
        self.layers: Final[list[Layer]] = []
        """Newest first."""

    def merge(self, made: _Made, first_seq: int, first_hlc: int, changes: Sequence[_Change]) -> None:
        """Changes with consecutive dots and stamps, the newest there are."""
        assert made.layer is self.layers[0] and first_hlc > self.keyspace.hlc
        merger = RunMerger(made.layer, self._actor, self._register, self._row, self._collection)
        body = Operations(list(changes))
        run = Changes(self.keyspace.id, self._actor, first_seq, first_hlc, 0, len(changes), b"")
        merger.merge(self.keyspace, run, body, self.keyspace.vector)
        self.keyspace.hlc = first_hlc + len(changes) - 1
        self.keyspace.vector[self._actor] = Head(first_seq + len(changes) - 1, 0)
        for operations in changes:
            made.keys.update((operation[1], None) for operation in operations if operation[0] not in _REGISTERS)

    def _register(self, _keyspace: Keyspace, _key: bytes) -> Register | None:
        raise AssertionError("a change made meanwhile is above all registers")

    def _row(self, keyspace: Keyspace, key: bytes, suffix: bytes) -> Row | None:
        for layer in self.layers:
            rows = layer.composites.get(key)
            if rows is not None and suffix in rows:
                return rows[suffix]
        return self._stored.row(keyspace.id, key, suffix)

    def _collection(self, keyspace: Keyspace, key: bytes) -> CollectionRows:
        found = [layer.collections[key] for layer in self.layers if key in layer.collections]
        return CollectionRows(self._stored, keyspace.id, key, found, keyspace.vector)


def _weight(operation: Sequence[Any]) -> int:
    """How many rows an operation is about, roughly."""
    listed = operation[2] if len(operation) > 2 else None
    return 1 + len(listed) if isinstance(listed, list) else 1
