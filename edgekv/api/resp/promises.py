"""What a connection was promised beyond this node: replies of writes that wait for other nodes, and the token of its session.

A connection that has sent EDGEKV.ACK or EDGEKV.SESSION (replication.py) has a `Promises`, through which all its payloads go, in order.
Each waits for its frame, as ever, and, if something was written since the one before, for the acknowledgements of the level; then it
leaves. Nothing else waits: further commands are processed meanwhile, up to the bound on held replies. Other connections pay nothing.

What a reply cannot say without being another reply, a push of protocol 3 says just before the payload, when it has changed:

    >2 edgekv.ack LEVEL       replies to writes from here on: durable at this level ("local": wider acknowledgement pending)
    >2 edgekv.session TOKEN   what the session has seen with the replies that follow

So a client that lost its connection anywhere has a token that covers each reply it got. With protocol 2 both are asked for.

What was written is known without any work per command: the own sequence numbers before and after. It may name what others wrote in
the same turns, never less than this connection did.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from edgekv.api.resp.replies import array, bulk
from edgekv.api.resp.session import Arguments, Releases, Session
from edgekv.api.resp.table import Command, find, key_indexes
from edgekv.engine.frame import Frame
from edgekv.errors import EdgeKVError
from edgekv.ids import KeyspaceId
from edgekv.limits import ACK_TIMEOUT_MS
from edgekv.replication.acks import Level, Wait

_BYTES: Final = {bytes}
_ACK: Final = bulk(b"edgekv.ack")
_SESSION: Final = bulk(b"edgekv.session")


class Entry:
    """A payload that has not left."""

    __slots__ = ("acknowledged", "durable", "is_endless", "leave", "level", "wait")

    def __init__(self, leave: Callable[[bytes], None]) -> None:
        self.leave: Final = leave
        """Called with what is to be written before it."""
        self.durable = False
        self.level: Level | None = None
        """What its writes were to reach; None: it has none, or nobody asked."""
        self.acknowledged: bool | None = True
        """None: it waits for other nodes. False: it has waited long enough."""
        self.wait: Wait | None = None
        self.is_endless = False


class Promises:
    """Of one connection; see the module docstring."""

    def __init__(self, session: Session) -> None:
        host = session.shared.host
        self._session: Final = session
        self._acks: Final = host.acks
        self._sessions: Final = host.sessions
        self._engine: Final = host.operations.engine
        self._host: Final = host
        self.level: Level = "local"
        self.timeout_ms = ACK_TIMEOUT_MS
        self.reached: Level = "local"
        """What the writes in the last payload that left have reached."""
        self.looked: set[KeyspaceId] | None = None
        """The keyspaces of the session; None: there is none."""
        self.behind = ""
        """A token that this node did not cover when it was asked."""
        self.unprocessed = 0
        """How many of the connection's commands were looked at in `begin` and not processed."""
        self.reads = False
        """The next payload answers a command that takes long and writes nothing."""
        self._everything: Final = self._sessions.all_keyspaces
        self._before: dict[KeyspaceId, int] = {}
        self._repeated = 0
        self._queue: Final[deque[Entry]] = deque()
        self._connection: Releases | None = None
        self._hurried = False
        self._told_level: Level | None = None
        self._told_token = ""

    # -- the session

    def begin_session(self, behind: str = "") -> None:
        """A new one, or one that had this token, which the node does not cover for all that is known."""
        self.looked, self.behind, self._told_token = set(), behind, ""

    def look_at(self, keyspaces: frozenset[KeyspaceId] | None) -> None:
        """The session sees these as well; None: all."""
        self.looked = (self.looked or set()) | (self._everything if keyspaces is None else keyspaces)

    def token(self) -> str:
        """What the session has seen with all that has left. While the node is behind, nothing of it was."""
        return self.behind or self._sessions.token(self.looked or ())

    def check(self, name: str) -> None:
        """Raise SessionBehind if the node is still behind the session. A transaction ends with it."""
        if name == "exec":
            self._session.end_transaction()
        self._sessions.check(self.behind)
        self.behind = ""

    def ask(self, level: Level, timeout_ms: int) -> None:
        """Writes from here on are to reach a level; what the next one reaches is told in any case."""
        self.level, self.timeout_ms, self._told_level = level, timeout_ms, None
        self.begin([])

    def end(self) -> None:
        """As on a connection that is new (RESET); what waits goes on waiting."""
        self.level, self.looked, self.behind = "local", None, ""

    # -- commands come in

    def begin(self, commands: list[Arguments]) -> None:
        """These are about to be processed."""
        if self.looked is not None and not self.looked >= self._everything:
            for command in commands[self.unprocessed :]:
                self._note(command)
        if self.level != "local":
            self._before = self._sessions.positions(self._everything)
            self._repeated = self._engine.repeated_total

    def _note(self, command: Arguments) -> None:
        if set(map(type, command)) != _BYTES:
            return
        entry = find(command)
        if not isinstance(entry, Command):
            return
        if entry.name == "edgekv.op":
            if command[3:]:
                self._note(command[3:])
        elif entry.name == "edgekv.batch":
            self._note_key(command[2])  # of its first operation; all are in one keyspace
        elif entry.keys[0]:
            for i in key_indexes(entry, len(command)):
                self._note_key(command[i])
        elif entry.name != "exec" and entry.uses_keys:
            self.look_at(None)

    def _note_key(self, key: bytes) -> None:
        assert self.looked is not None
        self.looked.add(self._engine.keyspaces.of(key).id)

    # -- replies go out

    def take(self, connection: Releases, held: object, frame: Frame | None) -> None:
        """A payload that leaves when ``frame`` is done, what was written is acknowledged, and those before it have left."""
        self._connection = connection
        entry = Entry(lambda prefix: connection.release_with(prefix, held))
        self._queue.append(entry)
        if self.reads:
            self.reads = False
            self.begin([])
        if self.level != "local":
            self._await(entry)
        self._hold(entry, frame)

    def when_left(self, frame: Frame | None, callback: Callable[[], None]) -> None:
        """Call it when ``frame`` is done and all that was taken has left, perhaps at once."""
        entry = Entry(lambda _prefix: callback())
        self._queue.append(entry)
        self._hold(entry, frame)

    def _hold(self, entry: Entry, frame: Frame | None) -> None:
        if frame is None or frame.done:
            self.release(entry)
        else:
            frame.waiters.append((self, entry))

    def _await(self, entry: Entry) -> None:
        positions = self._sessions.positions(self._everything)
        if self._engine.repeated_total == self._repeated:
            # Unless an operation came again: what it wrote may have been written long ago.
            before = self._before
            written = {keyspace: seq for keyspace, seq in positions.items() if seq != before.get(keyspace, 0)}
        else:
            written = positions
        self._before, self._repeated = positions, self._engine.repeated_total
        if not written:
            return

        def settle(met: bool) -> None:
            entry.acknowledged = met
            self._leave()

        if self._hurried and not self.timeout_ms:
            entry.level, entry.acknowledged = self.level, False
            return
        entry.level, entry.acknowledged = self.level, None
        entry.is_endless = not self.timeout_ms
        deadline_ms = None if entry.is_endless else self._host.monotonic_ms() + self.timeout_ms
        entry.wait = self._acks.wait(written, self._acks.want(self.level), deadline_ms, settle)

    def release(self, entry: object) -> None:
        """A payload's frame is done. Called by the engine."""
        assert isinstance(entry, Entry)
        entry.durable = True
        self._leave()

    def fail(self, problem: EdgeKVError) -> None:
        """Whether the writes happened is unknown."""
        self.close()
        if self._connection is not None:
            self._connection.fail(problem)

    def hurry(self) -> None:
        """The client sends no more, and may be gone: what waits without end is answered as pending."""
        self._hurried = True
        for entry in self._queue:
            if entry.wait is not None and entry.is_endless and entry.acknowledged is None:
                self._acks.cancel(entry.wait)
                entry.acknowledged = False
        self._leave()

    def close(self) -> None:
        """The connection is gone."""
        for entry in self._queue:
            if entry.wait is not None:
                self._acks.cancel(entry.wait)
        self._queue.clear()

    def _leave(self) -> None:
        queue = self._queue
        while queue and queue[0].durable and queue[0].acknowledged is not None:
            entry = queue.popleft()
            if entry.level is not None:
                self.reached = entry.level if entry.acknowledged else "local"
            entry.leave(self._prefix(entry))

    def _prefix(self, entry: Entry) -> bytes:
        if self._session.dialect.version < 3:
            return b""
        prefix = b""
        if entry.level is not None and self.reached != self._told_level:
            self._told_level = self.reached
            prefix = _push(_ACK, self.reached)
        if self.looked is not None and not self.behind:  # A token of this node would not cover the one that it lacks.
            token = self.token()
            if token != self._told_token:
                self._told_token = token
                prefix += _push(_SESSION, token)
        return prefix


def _push(kind: bytes, text: str) -> bytes:
    return b">" + array([kind, bulk(text.encode())])[1:]
