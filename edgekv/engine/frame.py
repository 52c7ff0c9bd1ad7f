"""A frame as it is being filled: records, the rows they write (the overlay), and the replies that wait for it.

The bytes of a frame are wal/record.py's; this is what engine/commit.py keeps of it until it is durable. Changes of one keyspace that
follow each other form a *run*, one CHANGES record: change i of a run has the dot (actor, first_seq + i) and the HLC base_hlc + i, so a
small SET costs no metadata of its own. A run is either *plain* (one SET without expiry per change: two columns) or a list of changes.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from edgekv.crdt.operation import SUFFIX_EXPIRY, Operation, Row, RowDelta
from edgekv.crdt.register import Cell
from edgekv.engine.keyspaces import Head, Keyspace
from edgekv.errors import EdgeKVError
from edgekv.ids import Actor
from edgekv.store.collection_rows import Before, CollectionRows
from edgekv.store.memtable import Layer
from edgekv.wal.record import OperationId

RowReader = Callable[[Keyspace, bytes, bytes], Row | None]
"""The newest version of one row, by key and suffix, anywhere below the layer that is being filled."""
CollectionReader = Callable[[Keyspace, bytes], CollectionRows]
"""The rows of one key's set and map, in the layer that is being filled and anywhere below it."""


class Waiter(Protocol):
    """Somebody whose replies are held back. Exactly one of the two is called, once per (waiter, payload) pair."""

    def release(self, payload: object) -> None:
        """The frame is durable (in a buffered keyspace: written): send the replies."""

    def fail(self, error: EdgeKVError) -> None:
        """Whether the changes happened is unknown: say so, and acknowledge nothing."""


class Run:
    """Consecutive changes of this node's own actor in one keyspace."""

    __slots__ = ("base_hlc", "changes", "first_seq", "keys", "keyspace", "operation_ids", "values")

    def __init__(self, keyspace: Keyspace, first_seq: int, base_hlc: int, *, plain: bool) -> None:
        self.keyspace: Final = keyspace
        self.first_seq: Final = first_seq
        self.base_hlc: Final = base_hlc
        self.keys: Final[list[bytes]] = []
        self.values: Final[list[bytes]] = []
        self.changes: Final[list[Sequence[Operation]] | None] = None if plain else []
        self.operation_ids: list[OperationId] | None = None
        """Of those changes that have one, in their order."""

    @property
    def count(self) -> int:
        return len(self.keys) if self.changes is None else len(self.changes)


class ReceivedRun:
    """A run of another actor, as its maker logged it: the record goes into this log as it is."""

    __slots__ = ("actor", "head", "hlc", "keyspace", "record")

    def __init__(self, keyspace: Keyspace, actor: Actor, head: Head, hlc: int, record: bytes) -> None:
        self.keyspace: Final = keyspace
        self.actor: Final = actor
        self.head: Final = head
        """The actor's, once this is durable."""
        self.hlc: Final = hlc
        """Of its last change."""
        self.record: Final = record


class Frame:
    """One group commit. Filled by engine/commit.py only."""

    __slots__ = (
        "bytes",
        "changes",
        "done",
        "end_lsn",
        "first_lsn",
        "heads",
        "hlcs",
        "layer",
        "marks",
        "number",
        "operation_ids",
        "payload",
        "received",
        "run",
        "runs",
        "shown",
        "sync",
        "waiters",
    )

    def __init__(self, number: int) -> None:
        self.number: Final = number
        """Frames are numbered in the order they reach the log."""
        self.runs: Final[list[Run | ReceivedRun]] = []
        self.run: Run | None = None
        """The run being extended, the last of ``runs``; None: the next change opens one."""
        self.marks: Final[list[bytes]] = []
        self.layer: Final = Layer()
        """The overlay: what readers would see of this frame. Never part of the memtable before the frame is durable."""
        self.operation_ids: Final[dict[tuple[bytes, int], bytes]] = {}
        """By session and n, the replies of its runs' operation ids, in the order of the changes."""
        self.waiters: Final[list[tuple[Waiter, object]]] = []
        self.changes = 0
        self.bytes = 0
        """Of keys and values: what closes the frame."""
        self.sync = False
        """Whether any change in it asked for fsync; if none did, the frame is written, acknowledged and synced within 100 ms."""
        self.shown = False
        """Written and acknowledged without a sync (buffered): readers see it and need not wait."""
        self.done = False
        """Its replies may leave."""
        self.heads: Final[dict[Keyspace, Head]] = {}
        """The own actor's vector entries once this frame is durable."""
        self.received: Final[list[ReceivedRun]] = []
        """The runs of other actors in it."""
        self.hlcs: Final[dict[Keyspace, int]] = {}
        """The highest HLC that it holds of each keyspace."""
        self.first_lsn = 0
        self.end_lsn = 0
        self.payload = b""
        """Its bytes in the log, from when it is encoded until it is durable."""

    @property
    def empty(self) -> bool:
        return not self.runs and not self.marks


def put_row(layer: Layer, keyspace: Keyspace, key: bytes, suffix: bytes, row: Row, read_row: RowReader) -> None:
    """Put a row that is no register into a layer, beside the key's expiry.

    A layer that has some of a key's rows has its live expiry cell as well: the applier may remove that cell from LMDB together with
    all that it hides there, and what a layer above still holds of those rows must stay hidden.
    """
    if suffix != SUFFIX_EXPIRY:
        keep_expiry(layer, keyspace, key, read_row)  # first, as it may raise
    layer.put_row(key, suffix, row)


def keep_expiry(layer: Layer, keyspace: Keyspace, key: bytes, read_row: RowReader) -> None:
    """Put the key's live expiry cell into a layer that gets rows of the key."""
    if SUFFIX_EXPIRY not in layer.composites.get(key, ()):
        expiry = read_row(keyspace, key, SUFFIX_EXPIRY)
        if isinstance(expiry, Cell) and expiry.value is not None:
            layer.put_row(key, SUFFIX_EXPIRY, expiry)


class CollectionWriter:
    """Merges the deltas of one change into sets and maps of the layer being filled. Those of one key best come in a row."""

    def __init__(
        self, layer: Layer, keyspace: Keyspace, before: Before, read_row: RowReader, read_collection: CollectionReader
    ) -> None:
        self._layer: Final = layer
        self._keyspace: Final = keyspace
        self._before: Final = before
        self._read_row: Final = read_row
        self._read_collection: Final = read_collection
        self._rows: CollectionRows | None = None

    def merge(self, key: bytes, suffix: bytes, delta: RowDelta) -> None:
        """One delta of a row with a tag of 0x04 and above."""
        if self._rows is None or self._rows.key != key:
            self._rows = self._open(key)
        row = self._rows.merge(suffix, delta, self._before)
        if row is not None:
            self._layer.put_collection_row(self._layer.collections[key], suffix, row)

    def row(self, key: bytes, suffix: bytes) -> Row | None:
        """What the next delta of a row will be merged into."""
        if self._rows is None or self._rows.key != key:
            self._rows = self._open(key)
        return self._rows.row(suffix)

    def _open(self, key: bytes) -> CollectionRows:
        rows = self._read_collection(self._keyspace, key)
        if key in self._layer.collections:
            return rows
        keep_expiry(self._layer, self._keyspace, key, self._read_row)  # first, as it may raise
        self._layer.open_collection(key, rows.header)
        return self._read_collection(self._keyspace, key)


def newer(a: Frame | None, b: Frame | None) -> Frame | None:
    """The later of two frames in the order of the log; a reply that waits for it waits for both."""
    if a is None or b is None:
        return a or b
    return a if a.number >= b.number else b
