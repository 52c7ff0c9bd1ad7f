"""One direction of a link: what this node's log has and the peer has not, in the order of the log.

The order of the log extends causality within a keyspace, so whoever applies what comes, in its order, is causally consistent at every
moment. Skipped is what the peer's vector covers, and what it does not subscribe to; never what its own node made: after a restore it
needs that back.

The sender remembers what the peer has, from its HELLO on: what was sent and what came from it. The link is ordered and ends at any
doubt, so nothing of that has to be said again, and a new link begins with the peer's vectors.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID
from edgekv.engine.tail import LogCursor
from edgekv.errors import CursorLost, Forked, PeerFault
from edgekv.ids import Actor, KeyspaceId, Vector, actor_text, node_of
from edgekv.replication.log_source import LogSource, covers
from edgekv.wal.record import Barrier, Changes

READ_BYTES: Final = 1 << 20
READS_AT_ONCE: Final = 4
"""In one `Sender.take`, about 5 ms: between two runs that a peer lacks there may be all of the log."""
RUN_OVERHEAD_BYTES: Final = 64
"""What a run takes in a message besides its body, at most."""


class Sender:
    """What one peer is sent. `begin` names the keyspaces; `take` gives the next runs."""

    def __init__(
        self,
        engine: Engine,
        source: LogSource,
        has: Mapping[int, Vector],
        floors: Callable[[], Mapping[int, Vector]],
    ) -> None:
        """``has``: the peer's vectors, by the keyspaces that it holds. ``floors``: see `LogSource.begin`."""
        self._engine: Final = engine
        self._source: Final = source
        self._floors: Final = floors
        self.has: Final[dict[int, dict[Actor, int]]] = {keyspace: dict(vector) for keyspace, vector in has.items()}
        self.keyspaces: set[int] = set()
        """That are streamed."""
        self.beyond: set[int] = set()
        """Of which the peer lacks what the log no longer has: it needs the rows."""
        self.given: Final[set[int]] = set()
        """Of which the peer got rows on this link, or had them when they were offered."""
        self.rows_first = False
        """Whether the peer is to have the rows of each keyspace before its changes, in any case."""
        self.scanning = False
        """`take` ended although there is more to read: what it has read the peer has, or does not want."""
        self._cursor: LogCursor | None = None
        self._found: Final[deque[Changes | Barrier]] = deque()

    def begin(self, keyspaces: set[int]) -> None:
        """Stream these from now on, and no others. CursorLost is not raised: what the log cannot serve is in ``beyond`` then."""
        self.close()
        rows = keyspaces - self.given - {META_ID} if self.rows_first else set()
        self.keyspaces = {keyspace for keyspace in keyspaces if keyspace in self.has} - rows
        wanted = {keyspace: self.has[keyspace] for keyspace in self.keyspaces}
        # While rows are taken over, the end of the log is behind a BARRIER whose rows no vector names yet: it has to be passed.
        flipping = self._engine.flips.keyspace is not None
        if not flipping and all(covers(vector, self._durable(keyspace)) for keyspace, vector in wanted.items()):
            self._cursor = self._source.cursor(self._engine.commit.durable_lsn)
            self.beyond = self.beyond - keyspaces | rows
            return
        begin = self._source.begin(wanted, self._floors())
        self.beyond = self.beyond - keyspaces | begin.beyond | rows
        self.keyspaces -= begin.beyond
        self._cursor = self._source.cursor(begin.lsn)

    def take(self, bytes_max: int) -> list[Changes]:
        """The next runs that the peer lacks, up to and including the one with which they have so many bytes.

        None: that is the end, or, if it is ``scanning``, not yet.

        Forked: the peer's vector stands inside a run. PeerFault: it stands before a hole, which nobody who told the truth does.
        """
        runs: list[Changes] = []
        size = reads = 0
        self.scanning = False
        while size < bytes_max:
            if not self._found:
                self.scanning = reads >= READS_AT_ONCE
                reads += 1
                if self.scanning or not self._read():
                    break
            while self._found and size < bytes_max:
                run = self._found.popleft()
                if isinstance(run, Barrier):
                    self._pass(run)
                elif run.keyspace in self.keyspaces and self._lacks(run):
                    runs.append(run)
                    size += len(run.body) + RUN_OVERHEAD_BYTES
        return runs

    @property
    def lsn(self) -> int | None:
        """What it has to read next; None: it has no place in the log."""
        return None if self._cursor is None else self._cursor.lsn

    @property
    def lags(self) -> bool:
        """Whether it is so far back that it reads files."""
        return self._cursor is not None and self._cursor.lags(self._engine.commit.durable_lsn)

    @property
    def at_end(self) -> bool:
        """Whether the peer has been sent all that is durable."""
        return not self._found and self._cursor is not None and self._cursor.lsn >= self._engine.commit.durable_lsn

    def peer_has(self, keyspace: int, actor: Actor, seq: int) -> None:
        """It sent this itself."""
        vector = self.has.get(keyspace)
        if vector is not None:
            vector[actor] = max(seq, vector.get(actor, 0))

    def took_rows(self, keyspace: int, vector: Vector) -> None:
        """The peer has the rows of a keyspace at this vector."""
        mine = self.has.setdefault(keyspace, {})
        for actor, seq in vector.items():
            mine[actor] = max(seq, mine.get(actor, 0))
        self.beyond.discard(keyspace)
        self.given.add(keyspace)

    def close(self) -> None:
        """Give up the place in the log."""
        self._found.clear()
        self.scanning = False
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def _read(self) -> bool:
        """Read on; whether there was anything."""
        if self._cursor is None:
            return False
        try:
            records = self._cursor.read(self._engine.commit.durable_lsn, READ_BYTES)
        except CursorLost:
            self.begin(self.keyspaces)
            return bool(self._cursor)
        for _, record in records:
            if isinstance(record, Changes | Barrier) and record.keyspace in self.keyspaces:
                self._found.append(record)
        return bool(records)

    def _pass(self, barrier: Barrier) -> None:
        """Here rows came in whose changes this log does not have: who lacks any of them needs rows as well.

        A repair brought rows whose changes the log has.
        """
        if barrier.repair is not None:
            return
        need = {actor: seq for actor, seq, _ in barrier.vector}
        if barrier.keyspace in self.keyspaces and not covers(self.has[barrier.keyspace], need):
            self.keyspaces.discard(barrier.keyspace)
            self.beyond.add(barrier.keyspace)

    def _lacks(self, run: Changes) -> bool:
        """Whether the peer lacks this run; it has it from now on."""
        vector = self.has[run.keyspace]
        last_seq, known = run.first_seq + run.changes - 1, vector.get(run.actor, 0)
        if last_seq <= known:
            return False
        if run.keyspace == META_ID and last_seq > self._durable(META_ID).get(run.actor, 0):
            return False  # of a copy of meta that was given up (lines.py)
        if run.first_seq <= known:
            raise Forked.of(
                node_of(run.actor),
                f"its history of {actor_text(run.actor)} ends at {known}, inside a run of this node's.",
            )
        if run.first_seq > known + 1:
            raise PeerFault(
                f"its history of {actor_text(run.actor)} ends at {known}, and this node's log goes on at {run.first_seq}."
            )
        vector[run.actor] = last_seq
        return True

    def _durable(self, keyspace: int) -> Vector:
        vector = self._engine.keyspaces.by_id[KeyspaceId(keyspace)].vector
        return {actor: head.seq for actor, head in vector.items()}
