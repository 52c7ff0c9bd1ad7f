"""The commit pipeline: the one door into the engine, for every change of every interface.

What happens to a change
------------------------
1. *Stamped.* It gets the next HLC and the next dot of its keyspace, in queue order. So dot order is log order, and a run of changes
   needs one stamp in the log.
2. *Overlaid.* The rows it writes, joined with their newest version above LMDB, enter the overlay of the frame being filled. The next
   read sees them, and waits with its reply for that frame.
3. *Flushed.* When no flush is running, the filled frame is encoded and handed to the flusher: one write, one fdatasync. Everything
   that arrives meanwhile goes into the next frame. There is no timer: when idle, the first change starts a flush.
4. *Durable.* The overlay becomes part of the memtable, the vector moves, the held replies leave, the next frame is flushed.

Invariants
----------
A. A row that is not durable is in no memtable, in no vector, in no LMDB and at no peer: only `written` moves overlays, and it is
   called after the fdatasync. A crash therefore takes only what nobody was told of.
B. A reply waits for the newest frame that its call wrote to *or looked at*. Looking counts even where nothing is found to do
   (DEL -> 0, EXISTS, a failed condition): the answer may rest on a row that a crash would take back. `barrier` is that frame.
C. Frames reach the log in the order of their numbers; at most one is being written; a frame is encoded only when the log is quiet.
   So the chain values, the room left in the segment and the checkpoint that begins a segment are exact at that moment without a
   lock, although the log belongs to the flusher's thread while it writes.
D. A sequence number is taken only after admission, validation and size checks: dots are dense, and a record never holds an
   operation that a reader of the log would choke on.
E. At most one operation per row in a change (callers normalise), so ties inside a change do not exist.
F. After a failure nothing is acknowledged: `failed` latches, every waiter hears that the outcome is unknown, and the process ends.

Tried and rejected
------------------
- *Rows in the memtable at once, an LSN per row, readers compare it with the durable LSN.* 60-100 ns per row more than an overlay, and
  a failed flush would have to take rows back out.
- *A timer that waits for company* (group commit delay). Whatever arrives during one fdatasync is already a group; the timer only
  adds latency at low load.
- *A future per command.* A task and its wake-up cost 7 us, more than everything else together; one list of waiters per frame and one
  payload per connection and read replaces it.
- *Encoding on the flusher's thread.* It needs the GIL as much there as here, and the chain would need a lock.
- *Two frames in flight.* The torn region after a crash would be two frames, and with one disk nothing is gained.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from edgekv.checksum import FAST, chain_next
from edgekv.crdt.operation import (
    ADD,
    ADD_ELEMENTS,
    ADD_FIELD,
    DELETE,
    DELETE_FIELDS,
    DELETE_SIBLINGS,
    EXPIRE,
    PUT,
    PUT_FIELDS,
    PUT_SIBLING,
    REMOVE_ELEMENTS,
    SUFFIX_REGISTER,
    SUFFIX_SIBLINGS,
    TAG_ELEMENT,
    Operation,
    merge_row,
    operation_bytes,
    rows_of,
)
from edgekv.crdt.register import Cell
from edgekv.engine.frame import (
    CollectionReader,
    CollectionWriter,
    Frame,
    ReceivedRun,
    RowReader,
    Run,
    keep_expiry,
    newer,
    put_row,
)
from edgekv.engine.keyspaces import Head, Keyspace
from edgekv.engine.operation_ids import OperationIds
from edgekv.errors import EdgeKVError, LogFailed
from edgekv.ids import Actor, Lsn
from edgekv.limits import (
    FRAME_BYTES_TARGET,
    FRAME_BYTES_TARGET_SLOW_CRC,
    FRAME_CHANGES_MAX,
    OPERATION_REPLY_BYTES_MAX,
    SEGMENT_BYTES,
)
from edgekv.store.collection import Collection
from edgekv.store.collection_rows import Before, CollectionRows, clears_first
from edgekv.store.memtable import Layer, Memtable
from edgekv.wal.record import pack_changes, pack_columns, pack_operations

_FRAME_BYTES: Final = FRAME_BYTES_TARGET if FAST else FRAME_BYTES_TARGET_SLOW_CRC
_FRAMES_PER_SEGMENT: Final = 8
"""A frame closes at this part of a segment at the latest. Its bytes, the framing of its changes, one change of the largest size
(half a segment less its header) and the largest reply that is kept with it then fit into one segment, however small segments are."""
_CHANGE_FRAMING_BYTES: Final = 256
"""What the log adds at most to a change that is a run by itself."""
_OF_ONE_ROW: Final = frozenset((PUT, DELETE, ADD, EXPIRE, ADD_FIELD, PUT_SIBLING, DELETE_SIBLINGS))
_OF_A_LIST: Final = frozenset((ADD_ELEMENTS, REMOVE_ELEMENTS, PUT_FIELDS, DELETE_FIELDS))


class LogState(Protocol):
    """What the pipeline asks of the log while it is quiet."""

    @property
    def next_lsn(self) -> int: ...

    @property
    def at_segment_start(self) -> bool: ...

    def room(self, payload_bytes: int) -> bool: ...


class Flush(Protocol):
    """Hand one encoded frame to the flusher; `Commit.written` or `Commit.failed` answers, later, in order."""

    def __call__(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None: ...


class Commit:
    """The pipeline of one node. Synchronous; driven by client calls, `kick`, `written` and `failed`."""

    def __init__(
        self,
        *,
        actor: Actor,
        memtable: Memtable,
        log: LogState,
        now_ms: Callable[[], int],
        flush: Flush,
        checkpoint: Callable[[], bytes],
        segment_bytes: int = SEGMENT_BYTES,
        grown: Callable[[], None] = lambda: None,
        operation_ids: OperationIds | None = None,
    ) -> None:
        self._actor: Final = actor
        self._memtable: Final = memtable
        self._log: Final = log
        self.stamp_ms = now_ms
        """The clock that stamps are made by; replication has it follow the hubs (replication/hub_time.py)."""
        self._flush: Final = flush
        self._checkpoint: Final = checkpoint
        self._grown: Final = grown
        share = segment_bytes // _FRAMES_PER_SEGMENT
        self._frame_bytes: Final = min(_FRAME_BYTES, share)
        self._frame_changes: Final = min(FRAME_CHANGES_MAX, share // _CHANGE_FRAMING_BYTES)
        self.operation_reply_bytes_max: Final = min(OPERATION_REPLY_BYTES_MAX, share)
        """How large a reply may be that is kept with its change."""
        self.operation_ids: Final = OperationIds() if operation_ids is None else operation_ids
        """Of the changes that are durable; those of the others are in their frames."""
        self.read_row: RowReader = lambda keyspace, key, suffix: None
        """Set once by the engine: the newest version of a row anywhere, LMDB included."""
        self.read_collection: CollectionReader = _no_collections
        """Set once by the engine: the same for all rows of a key's set and map."""
        self.on_durable: Callable[[int, bytes], None] = lambda first_lsn, payload: None
        """Set once by the engine: called with each frame's first LSN and payload when it is durable, in order."""
        self.barrier: Frame | None = None
        """Invariant B. Callers set it to None before a batch of calls and wait for what it is after it."""
        self.filling = Frame(1)
        self.overlays: list[Frame] = [self.filling]
        """What readers look at above the memtable, newest first: filling, closed, in flight, written but not synced."""
        self.inflight: Frame | None = None
        self.error: EdgeKVError | None = None
        self.durable_lsn = Lsn(log.next_lsn)
        """Everything below it is durable, and in the memtable or in LMDB."""
        self._closed: Final[deque[Frame]] = deque()
        self._unsynced: Final[deque[Frame]] = deque()

    # -- changes come in

    def put_plain(self, keyspace: Keyspace, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """SET each key, one change per key, without expiry: the hot path. Keys and values are checked by the caller.

        The stamps exceed everything this node has seen in the keyspace, so the rows dominate and nothing is looked up.
        """
        count, size = len(keys), sum(map(len, keys)) + sum(map(len, values))
        if count > 1 and (size > self._frame_bytes or count > self._frame_changes):
            half = count // 2
            self.put_plain(keyspace, keys[:half], values[:half])
            self.put_plain(keyspace, keys[half:], values[half:])
            return
        frame = self.filling
        run = frame.run
        if run is None or run.keyspace is not keyspace or run.changes is not None:
            run = self._open_run(keyspace, plain=True)
        run.keys.extend(keys)
        run.values.extend(values)
        frame.layer.put_plain_run(keys, values, keyspace.hlc + 1, size)
        keyspace.hlc += count
        keyspace.seq += count
        self.grew(count, size)

    def change(self, keyspace: Keyspace, operations: list[Operation]) -> None:
        """Make one change of validated operations, at most one per row (invariants D and E). If it raises, nothing happened."""
        changes = self.begin(keyspace)
        self.take(self.filling, keyspace, operations)
        changes.append(operations)
        self.grew(1, sum(map(operation_bytes, operations)))

    def take(self, frame: Frame, keyspace: Keyspace, operations: list[Operation]) -> None:
        """Give a change the keyspace's next dot and stamp, and its rows to the newest overlay. If it raises, nothing happened."""
        mixed = keyspace.mixed
        keyspace.hlc += 1
        keyspace.seq += 1
        try:
            if len(operations) == 1 and _is_one_row(operations[0]):
                self.overlay(frame, keyspace, operations)  # which reads first
            else:
                self._overlay_whole(frame, keyspace, operations)
        except BaseException:
            keyspace.hlc -= 1
            keyspace.seq -= 1
            keyspace.mixed = mixed
            raise

    def _overlay_whole(self, frame: Frame, keyspace: Keyspace, operations: list[Operation]) -> None:
        """All rows of a change or none: they are made in a frame above, and moved down."""
        above = Frame(0)
        above.shown = True  # no reply waits for it
        self.overlays.insert(0, above)
        try:
            self.overlay(above, keyspace, operations)
        finally:
            self.overlays.remove(above)
        frame.layer.merge_from(above.layer)

    def begin(self, keyspace: Keyspace) -> list[Sequence[Operation]]:
        """Where changes of this keyspace go in the frame being filled; their maker takes the dots and says at last how it `grew`."""
        run = self.filling.run
        if run is None or run.keyspace is not keyspace or run.changes is None:
            run = self._open_run(keyspace, plain=False)
        assert run.changes is not None
        return run.changes

    def overlay(self, frame: Frame, keyspace: Keyspace, operations: list[Operation]) -> None:
        """Merge the rows of the change that has the keyspace's newest dot into a frame's overlay, the newest one there is."""
        writer: CollectionWriter | None = None
        for operation in clears_first(operations):
            for key, suffix, delta in rows_of(operation, self._actor, keyspace.seq, keyspace.hlc):
                if suffix == SUFFIX_REGISTER:
                    assert isinstance(delta, Cell)
                    frame.layer.put_register(key, delta)
                    continue
                keyspace.mixed = True
                if suffix[0] >= TAG_ELEMENT and suffix != SUFFIX_SIBLINGS:
                    writer = writer or self._collection_writer(frame, keyspace)
                    writer.merge(key, suffix, delta)
                    continue
                row = merge_row(self.read_row(keyspace, key, suffix), delta)
                if row is not None:
                    put_row(frame.layer, keyspace, key, suffix, row, self.read_row)

    def open_collection(self, layer: Layer, keyspace: Keyspace, key: bytes) -> Collection:
        """A layer's part of a key's set and map, to put rows into."""
        if key not in layer.collections:
            header = self.read_collection(keyspace, key).header
            keep_expiry(layer, keyspace, key, self.read_row)
            layer.open_collection(key, header)
        return layer.collections[key]

    def _collection_writer(self, frame: Frame, keyspace: Keyspace) -> CollectionWriter:
        heads = {**keyspace.vector, **keyspace.observed} if keyspace.observed else keyspace.vector
        before = Before(heads, self._actor, keyspace.seq - 1, keyspace.hlc - 1)
        return CollectionWriter(frame.layer, keyspace, before, self.read_row, self.read_collection)

    # -- operation ids

    def reply_to(self, session: bytes, number: int) -> bytes | None:
        """The reply of an operation that was carried out before, and what it waits for; None: this is its first attempt.

        IdForgotten, InvalidRequest: see `OperationIds.find`.
        """
        for frame in self.overlays:
            if frame.operation_ids:
                reply = frame.operation_ids.get((session, number))
                if reply is not None:
                    if not frame.shown:
                        self.looked(frame)
                    return reply
        return self.operation_ids.find(session, number, newest_stamp=self.durable_lsn)

    def remember(self, frame: Frame, changes: int, session: bytes, number: int, reply: bytes) -> None:
        """Log the reply with the change that was made since the filling ``frame`` had so many.

        If none was, there is nothing to keep: carried out again, the operation finds the same.
        """
        if frame.changes == changes:
            assert self.filling is frame
            return
        assert frame.changes == changes + 1 and (self.filling is frame or not self.filling.changes), (
            "one id, one change"
        )
        assert len(reply) <= self.operation_reply_bytes_max
        run = frame.runs[-1]
        assert isinstance(run, Run), "the change was made a moment ago"
        if run.operation_ids is None:
            run.operation_ids = []
        run.operation_ids.append((run.count - 1, session, number, reply))
        frame.operation_ids[session, number] = reply
        frame.bytes += len(reply)
        if frame is self.filling and frame.bytes > self._frame_bytes:
            self._close_filling()
            self._grown()

    # -- runs of other actors (engine/intake.py)

    def make_room(self, size: int) -> None:
        """Before a received run of so many bytes: it shares the filling frame only if it leaves that one a frame's size."""
        if self.error is not None:
            raise self.error
        if self.filling.bytes + size > self._frame_bytes and not self.filling.empty:
            self._close_filling()

    def received(self, run: ReceivedRun, changes: int, size: int) -> None:
        """Log a run whose rows are in the filling frame's overlay. A client's next change opens a run of its own behind it."""
        frame = self.filling
        frame.runs.append(run)
        frame.run = None
        frame.sync |= run.keyspace.fsync
        barrier = self.barrier
        self.grew(changes, size)
        self.barrier = barrier  # no client waits for it

    def mark(self, record: bytes) -> None:
        """Append a MARK record to the frame being filled. It is written with the next flush."""
        self.filling.marks.append(record)
        self.filling.sync = True

    def mark_end(self, record: bytes) -> None:
        """The same, and the frame ends with it: whatever is changed from now on lies behind it in the log."""
        self.mark(record)
        self._close_filling()

    def looked(self, frame: Frame) -> None:
        """A reader used a row of a frame that is not durable: its reply waits (invariant B)."""
        self.barrier = newer(self.barrier, frame)

    def _open_run(self, keyspace: Keyspace, *, plain: bool) -> Run:
        if self.error is not None:
            raise self.error
        keyspace.hlc = max(keyspace.hlc, self.stamp_ms() << 16)
        run = Run(keyspace, keyspace.seq + 1, keyspace.hlc + 1, plain=plain)
        frame = self.filling
        frame.runs.append(run)
        frame.run = run
        frame.sync |= keyspace.fsync
        return run

    def grew(self, changes: int, size: int) -> None:
        """The frame being filled has so many changes more, with so many bytes of keys and values."""
        frame = self.barrier = self.filling
        frame.changes += changes
        frame.bytes += size
        if frame.bytes > self._frame_bytes or frame.changes >= self._frame_changes:
            self._close_filling()
            self._grown()

    # -- frames go out

    def kick(self) -> None:
        """Start a flush if none is running and there is something to write."""
        if self.inflight is not None or self.error is not None:
            return
        if not self._closed:
            if self.filling.empty:
                return
            self._close_filling()
        frame = self.inflight = self._closed.popleft()
        payload, records, roll = self._encode(frame)
        self._flush(frame, payload, records, sync=frame.sync, roll=roll)

    def _close_filling(self) -> None:
        self._closed.append(self.filling)
        self.filling = Frame(self.filling.number + 1)
        self.overlays.insert(0, self.filling)

    def _encode(self, frame: Frame) -> tuple[bytes, int, bool]:
        """The payload of a frame, its record count, and whether a new segment must be opened for it (invariant C)."""
        records = [
            self._encode_run(run, frame) if isinstance(run, Run) else self._encode_received(run, frame)
            for run in frame.runs
        ]
        records += frame.marks
        payload = b"".join(records)
        roll = not self._log.at_segment_start and not self._log.room(len(payload))
        count = len(records)
        if roll or self._log.at_segment_start:
            payload = self._checkpoint() + payload
            count += 1
        frame.first_lsn = self._log.next_lsn
        frame.end_lsn = frame.first_lsn + count
        frame.payload = payload
        return payload, count, roll

    def _encode_run(self, run: Run, frame: Frame) -> bytes:
        keyspace = run.keyspace
        body = pack_columns(run.keys, run.values) if run.changes is None else pack_operations(run.changes)
        record = pack_changes(
            *(keyspace.id, self._actor, run.first_seq, run.base_hlc, keyspace.chain, run.count, body), run.operation_ids
        )
        keyspace.chain = chain_next(keyspace.chain, run.base_hlc, body)
        frame.hlcs[keyspace] = run.base_hlc + run.count - 1
        frame.heads[keyspace] = Head(run.first_seq + run.count - 1, keyspace.chain)
        return record

    @staticmethod
    def _encode_received(run: ReceivedRun, frame: Frame) -> bytes:
        frame.hlcs[run.keyspace] = max(frame.hlcs.get(run.keyspace, 0), run.hlc)
        frame.received.append(run)
        return run.record

    # -- and come back

    def written(self, frame: Frame) -> None:
        """The flusher wrote the frame and, if it asked for it, synced it: release its replies and start the next flush."""
        assert frame is self.inflight, "frames return in order"
        self.inflight = None
        self._unsynced.append(frame)
        for keyspace, hlc in frame.hlcs.items():
            keyspace.hlc_logged = max(keyspace.hlc_logged, hlc)  # a run of another actor may be older
        if frame.sync:
            self.synced()
        else:
            frame.shown = True
        frame.done = True
        self.kick()  # before the replies: the disk works while they are sent
        waiters = frame.waiters[:]
        frame.waiters.clear()
        for waiter, payload in waiters:
            waiter.release(payload)

    def synced(self) -> None:
        """Everything written so far is durable: move its overlays into the memtable and its heads into the vectors."""
        while self._unsynced:
            frame = self._unsynced.popleft()
            self.overlays.remove(frame)
            self._memtable.active.merge_from(frame.layer)
            for (session, number), reply in frame.operation_ids.items():
                self.operation_ids.add(session, number, reply)
            self.durable_lsn = Lsn(frame.end_lsn)
            for keyspace, head in frame.heads.items():
                keyspace.vector[self._actor] = head
            for run in frame.received:
                run.keyspace.vector[run.actor] = run.head
                if run.keyspace.observed.get(run.actor) is run.head:
                    del run.keyspace.observed[run.actor]
            self.on_durable(frame.first_lsn, frame.payload)
            frame.payload = b""

    @property
    def pending_bytes(self) -> int:
        """Bytes, as the memtable counts them, of frames that are not in it yet."""
        return sum(frame.layer.size_bytes for frame in self.overlays)

    def heads_written(self, keyspace: Keyspace) -> dict[Actor, Head]:
        """The keyspace's vector including frames that are written but not synced: what a checkpoint at the log's end says."""
        vector = dict(keyspace.vector)
        for frame in self._unsynced:
            if keyspace in frame.heads:
                vector[self._actor] = frame.heads[keyspace]
            vector.update((run.actor, run.head) for run in frame.received if run.keyspace is keyspace)
        return vector

    def own_seq_written(self, keyspace: Keyspace) -> int:
        """The last own sequence number that the log holds, synced or not."""
        for frame in reversed(self._unsynced):
            if keyspace in frame.heads:
                return frame.heads[keyspace].seq
        head = keyspace.vector.get(self._actor)
        return 0 if head is None else head.seq

    @property
    def written_lsn(self) -> int:
        """Everything below it is written, and synced except what was acknowledged as buffered."""
        return self._unsynced[-1].end_lsn if self._unsynced else self.durable_lsn

    @property
    def needs_sync(self) -> bool:
        """Whether something was acknowledged as buffered and is not synced yet."""
        return bool(self._unsynced)

    def failed(self, error: LogFailed) -> None:
        """The log failed. Latched: every waiter hears that the outcome is unknown, every later change is refused (invariant F)."""
        self.error = error
        self.filling.run = None  # the next change must open a run, and hears the error
        for frame in self._undone():
            waiters = frame.waiters[:]
            frame.waiters.clear()
            for waiter, _ in waiters:
                waiter.fail(error)

    def _undone(self) -> Iterable[Frame]:
        if self.inflight is not None:
            yield self.inflight
        yield from self._closed
        yield self.filling


def _is_one_row(operation: Operation) -> bool:
    """Whether it is known to write one row. A clear is more: it recounts."""
    return operation[0] in _OF_ONE_ROW or (operation[0] in _OF_A_LIST and len(operation[2]) == 1)


def _no_collections(_keyspace: Keyspace, _key: bytes) -> CollectionRows:
    raise AssertionError("the engine sets read_collection")
