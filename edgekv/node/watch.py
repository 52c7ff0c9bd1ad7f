"""Watches: what is written below a prefix, in the order of this node's log, at least once, for as long as somebody asks.

A `Watch` is pulled: its owner calls `step` whenever its reader has taken what the last one returned, and when there is nothing more,
leaves a callback in `Watches.when_durable`. So a slow reader holds nothing but its place: what it has not read stays in the log, first
in the memory that all watches and senders share (engine/tail.py), then in the files, and when the log has been recycled it is given
the current rows instead. The node does not wait for any of them.

    TAIL   events of the log's records, from the watch's LSN on; changes that its vectors cover are passed by
    ROWS   `resync begin`, puts of the current rows, `resync end`; then TAIL from where the log stood before the first row was read

A watch goes from TAIL to ROWS when its place is gone, when its cursor is older than the log, and when changes came past the log, as
the rows of a row sync (engine/flip.py counts those of this process; a BARRIER, or a run that does not join on to what was seen, tells
of earlier ones): never a silent gap. Its *vectors* are what it has seen, per keyspace; they make its cursors good on any node, and a
change that they cover is not shown again. Only what is durable is shown: rows that were read are kept back until every frame that
they may come from is durable.

Synchronous; api/watch.py waits, writes, and has threads read files.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from edgekv.engine.keyspaces import Keyspace, successor
from edgekv.engine.tail import LogCursor
from edgekv.errors import CursorLost, Denied, Overloaded, TooLarge
from edgekv.ids import Vector
from edgekv.limits import (
    KEY_BYTES_MAX,
    WATCH_BODIES_BYTES_MAX,
    WATCH_READ_BYTES,
    WATCH_STEP_EVENTS,
    WATCHES_MAX,
)
from edgekv.node.operations import Operations
from edgekv.node.watch_cursor import START_TEXT, Cursor, cursor_of, cursor_text
from edgekv.node.watch_events import Event, event_of, version_text
from edgekv.node.watch_rows import current_rows
from edgekv.replication.log_source import LogSource, covers
from edgekv.wal.disk import Disk
from edgekv.wal.reader import LogReader
from edgekv.wal.record import Barrier, Body, Changes, Columns, Record, unpack_body

_PUT: Final = 1
_NEVER: Final = 1 << 64
"""Above every LSN."""


class Step(NamedTuple):
    """What a step found. ``more``: there is more to do at once; else wait for the next durable frame."""

    events: list[Event]
    more: bool


class Watches:
    """All watches of a node."""

    def __init__(self, operations: Operations, disk: Disk) -> None:
        self.operations: Final = operations
        self.disk: Final = disk
        self._open: Final[set[Watch]] = set()
        self._waiting: dict[Callable[[], None], None] = {}
        self._bodies: Final[OrderedDict[int, tuple[Body, int]]] = OrderedDict()
        """By LSN, the newest runs that were unpacked, with the bytes that each had."""
        self._bodies_bytes = 0
        self.resyncs_total = 0
        """How often a watch was given all rows: it asked for them, or the log did not reach back to its place."""

    def open(self, prefix: bytes, cursor: str = "") -> "Watch":
        """Watch keys that begin with ``prefix``, after ``cursor``; without one, what becomes durable from now on.

        InvalidRequest for what is no cursor; TooLarge; Denied for keys that are EdgeKV's own; Overloaded above WATCHES_MAX watches.
        Close it.
        """
        if len(prefix) > KEY_BYTES_MAX:
            raise TooLarge(f"the prefix has {len(prefix)} bytes; the limit is {KEY_BYTES_MAX}. Use a shorter one.")
        place = cursor_of(cursor) if cursor not in ("", START_TEXT) else None
        intervals = self.operations.engine.keyspaces.intervals(prefix, successor(prefix))
        keyspaces: dict[int, Keyspace] = {
            each.keyspace.id: each.keyspace for each in intervals if not each.keyspace.policy.system
        }
        if not keyspaces:
            raise Denied(
                f"keys below {prefix.decode(errors='replace')!r} belong to EdgeKV itself. Watch another prefix."
            )
        if len(self._open) >= WATCHES_MAX:
            raise Overloaded(f"{WATCHES_MAX} watches are open on this node already. Close one, or watch another node.")
        watch = Watch(self, prefix, keyspaces, place, from_rows=cursor == START_TEXT)
        self._open.add(watch)
        return watch

    def closed(self, watch: "Watch") -> None:
        """It is not read any more."""
        self._open.discard(watch)

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def when_durable(self, callback: Callable[[], None]) -> None:
        """Call it, once, when more has become durable."""
        self._waiting[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it any more: a node that is idle would keep whoever has left. Idempotent."""
        self._waiting.pop(callback, None)

    def durable(self) -> None:
        """More has become durable. Called after each frame; with nobody waiting it costs nothing."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for callback in waiting:
                callback()

    def body(self, lsn: int, run: Changes) -> Body:
        """A run's body, unpacked once for all watches that come by soon."""
        found = self._bodies.get(lsn)
        if found is not None:
            return found[0]
        body = unpack_body(run.body)
        self._bodies[lsn] = body, len(run.body)
        self._bodies_bytes += len(run.body)
        while self._bodies_bytes > WATCH_BODIES_BYTES_MAX:
            self._bodies_bytes -= self._bodies.popitem(last=False)[1][1]
        return body


class Watch:
    """One watch; see the module docstring."""

    def __init__(
        self,
        watches: Watches,
        prefix: bytes,
        keyspaces: dict[int, Keyspace],
        place: Cursor | None,
        *,
        from_rows: bool,
    ) -> None:
        self._watches: Final = watches
        self._engine: Final = watches.operations.engine
        self._prefix: Final = prefix
        self._keyspaces: Final[dict[int, Keyspace]] = keyspaces
        self._actor: Final = self._engine.actor
        self._loaded: list[tuple[int, Record]] = []
        """Read from the files by `load`."""
        self._pending: Iterator[Event] | None = None
        """Of what was read and is not shown yet."""
        self._held: list[Event] = []
        """Rows that may come from frames that are not durable, and the newest of those."""
        self._held_frame = 0
        self._held_cursor = ""
        """Resumes with them."""
        self._broken = False
        """Changes came past the log: what was seen does not join on to what it holds next."""
        self._flips = self._flips_now()
        """How often rows had been taken over as a whole when that was last looked at."""
        self._next_key: bytes | None = None
        """ROWS: rows from this key on are not shown yet. None: TAIL."""
        self._barrier_lsn = _NEVER
        """Of a BARRIER that was passed while its rows were being joined: a cursor that lay behind it would never meet them."""
        self._record_lsn: int = self._engine.commit.durable_lsn
        """Of the record that is being shown: where its node goes on after a cursor."""
        self._vectors = self._durable_vectors()
        self._log: Final = LogCursor(self._engine.tail, LogReader(watches.disk, WATCH_READ_BYTES), self._record_lsn)
        if from_rows:
            self._begin_rows()
        elif place is not None:
            self._resume(place)

    # -- what its owner calls

    @property
    def cursor(self) -> str:
        """Resumes behind everything that `step` has returned."""
        return self._held_cursor if self._held else self._cursor

    @property
    def _cursor(self) -> str:
        lsn = min(self._record_lsn, self._barrier_lsn)
        return cursor_text(self._actor, lsn, self._next_key, self._vectors)

    @property
    def lags(self) -> bool:
        """Whether the next `step` would read the log's files: `load` before it, in a thread."""
        return (
            self._next_key is None
            and self._pending is None
            and not self._loaded
            and self._log.lags(self._engine.commit.durable_lsn)
        )

    def load(self, durable_lsn: int) -> None:
        """Read the files for the next `step`. Blocks as the disk does; touches nothing but this watch. Corruption."""
        try:
            self._loaded = self._log.read_files(durable_lsn, WATCH_READ_BYTES)
        except CursorLost:
            self._loaded = []  # `step` meets it again, and finds another way.

    @property
    def durable_lsn(self) -> int:
        """How far the log may be read now."""
        return self._engine.commit.durable_lsn

    def step(self) -> Step:
        """The next events, about WATCH_READ_BYTES and WATCH_STEP_EVENTS of them at most.

        Corruption: a durable frame in the log is damaged.
        """
        if self._held:
            return self._release()
        if self._pending is None:
            if self._flips != self._flips_now():
                self._take_over()
            try:
                self._pending = self._next()
            except CursorLost:
                self._find_place()
                return Step([], more=True)
            if self._pending is None:
                return Step([], more=False)
        in_rows, before = self._next_key is not None, self._cursor
        events, size = list[Event](), 0
        for event in self._pending:
            events.append(event)
            size += event.size
            if size >= WATCH_READ_BYTES or len(events) >= WATCH_STEP_EVENTS:
                break
        else:
            self._pending = None
        if self._broken:
            self._broken = False
            self._begin_rows()
        return self._hold(events, before) if in_rows else Step(events, more=True)

    def close(self) -> None:
        """Give back what it holds. Idempotent."""
        self._log.close()
        self._watches.closed(self)

    # -- places

    def _resume(self, place: Cursor) -> None:
        self._vectors = {each: dict(place.vectors.get(each, {})) for each in self._keyspaces}
        own = place.actor == self._actor and place.lsn <= self._engine.commit.durable_lsn
        lsn = place.lsn if own else self._search()
        # Of rows that another node was showing, one that is behind that node cannot show the rest.
        if lsn is None or place.next_key == b"" or (place.next_key is not None and not (own or self._is_level())):
            self._begin_rows()
            return
        self._go_to(lsn)
        self._next_key = place.next_key

    def _find_place(self) -> None:
        """Go on where the log begins to hold what was not seen; if it does not hold all of that, with rows."""
        lsn = self._search()
        if lsn is None:
            self._begin_rows()
        else:
            self._go_to(lsn)

    def _search(self) -> int | None:
        """Where the log goes on from what was seen: at its end, or at a checkpoint that says nothing else. None: nowhere."""
        if self._has_seen(self._durable_vectors()):
            return self._engine.commit.durable_lsn
        begin = LogSource(self._engine.tail, self._watches.disk).begin(self._vectors, {})
        return None if begin.beyond else begin.lsn

    def _is_level(self) -> bool:
        """Whether this node has all that was seen."""
        durable = self._durable_vectors()
        return all(covers(durable[each], seen) for each, seen in self._vectors.items())

    def _durable_vectors(self) -> dict[int, Vector]:
        return {each: {a: head.seq for a, head in k.vector.items()} for each, k in self._keyspaces.items()}

    def _go_to(self, lsn: int) -> None:
        self._log.close()
        self._log.lsn = self._record_lsn = lsn
        self._barrier_lsn = _NEVER
        self._loaded, self._pending, self._next_key = [], None, None

    # -- TAIL

    def _next(self) -> Iterator[Event] | None:
        """Events of what is read next; None when there is nothing. CursorLost."""
        if self._next_key is not None:
            return self._rows(self._next_key)
        records, self._loaded = self._loaded, []
        records = records or self._log.read(self._engine.commit.durable_lsn, WATCH_READ_BYTES)
        return self._changes(records) if records else None

    def _changes(self, records: Sequence[tuple[int, Record]]) -> Iterator[Event]:
        for lsn, record in records:
            self._record_lsn = lsn
            if isinstance(record, Barrier) and record.keyspace in self._vectors:
                came = {actor: seq for actor, seq, _ in record.vector}
                if not covers(self._vectors[record.keyspace], came):
                    if not self._keyspaces[record.keyspace].held:
                        self._broken = True
                        return
                    self._barrier_lsn = min(lsn, self._barrier_lsn)
            if isinstance(record, Changes) and record.keyspace in self._vectors:
                vector = self._vectors[record.keyspace]
                last = record.first_seq + record.changes - 1
                seen = vector.get(record.actor, 0)
                if record.first_seq > seen + 1:
                    self._broken = True
                    return
                if seen < last:
                    yield from self._run(lsn, record, vector)
                    vector[record.actor] = last
            self._record_lsn = lsn + 1

    def _run(self, lsn: int, run: Changes, vector: Vector) -> Iterator[Event]:
        """Events of the changes of a run that were not seen."""
        first = max(vector.get(run.actor, 0) + 1 - run.first_seq, 0)
        body = self._watches.body(lsn, run)
        prefix = self._prefix
        if isinstance(body, Columns):
            for i in range(first, run.changes):
                if body.keys[i].startswith(prefix):
                    yield from self._change(run, i, vector, [(_PUT, body.keys[i], body.values[i], 0)])
            return
        for i in range(first, run.changes):
            shown = [operation for operation in body.changes[i] if operation[1].startswith(prefix)]
            if shown:
                yield from self._change(run, i, vector, shown)

    def _change(self, run: Changes, i: int, vector: Vector, operations: Sequence[Sequence[object]]) -> Iterator[Event]:
        """Events of one change. The cursors of all but the last lie before it: what comes of it comes whole, or again."""
        version = version_text(run.base_hlc + i, run.actor)
        vector[run.actor] = run.first_seq + i - 1
        if len(operations) > 1:
            before = self._cursor
            for operation in operations[:-1]:
                kind, written = event_of(operation, version)
                yield Event(kind, before, written)
        vector[run.actor] = run.first_seq + i
        kind, written = event_of(operations[-1], version)
        yield Event(kind, self._cursor, written)

    # -- ROWS

    def _flips_now(self) -> int:
        return sum(keyspace.flips for keyspace in self._keyspaces.values())

    def _take_over(self) -> None:
        """A row sync has moved what is durable past the log: show all rows, unless nothing came that was not seen."""
        self._flips = self._flips_now()
        self._barrier_lsn = _NEVER
        if not self._has_seen(self._durable_vectors()):
            self._begin_rows()

    def _has_seen(self, vectors: dict[int, Vector]) -> bool:
        return all(covers(self._vectors[each], vector) for each, vector in vectors.items())

    def _begin_rows(self) -> None:
        """Show all current rows, and then what the log has from here on."""
        self._watches.resyncs_total += 1
        self._go_to(self._engine.commit.durable_lsn)
        self._vectors = self._durable_vectors()
        self._next_key = b""

    def _rows(self, start: bytes) -> Iterator[Event]:
        if not start:
            yield Event("resync", self._cursor, phase="begin")
        for found in current_rows(self._watches.operations, self._prefix, start):
            for written in found:
                self._next_key = written.key
                yield Event("put", self._cursor, written)
        self._next_key = None
        yield Event("resync", self._cursor, phase="end")

    def _hold(self, events: list[Event], before: str) -> Step:
        """Keep rows back until the frames that they may come from are durable; ``before``: the cursor that resumes with them."""
        undurable = [frame.number for frame in self._engine.commit.overlays if not frame.layer.empty]
        if not undurable or not events:
            return Step(events, more=True)
        self._held, self._held_frame, self._held_cursor = events, max(undurable), before
        return Step([], more=False)

    def _release(self) -> Step:
        if any(f.number <= self._held_frame and not f.layer.empty for f in self._engine.commit.overlays):
            return Step([], more=False)
        events, self._held = self._held, []
        return Step(events, more=True)
