"""The state that commands see: of one connection (`Session`), and of all of them (`Shared`).

protocol.py creates them and enforces what they say; commands read and change them. Neither knows a transport.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from edgekv.api.resp.cursors import Cursors
from edgekv.api.resp.host import Host, Operations
from edgekv.api.resp.replies import RESP2, Dialect
from edgekv.api.watch import Follower
from edgekv.engine.frame import Frame
from edgekv.errors import EdgeKVError
from edgekv.ids import KeyspaceId
from edgekv.limits import CONNECTIONS_MAX, SCAN_CURSORS_MAX

_FIRST_CURSOR_BITS: Final = 47


class Waiting(Protocol):
    """Somebody who waits for room."""

    def room(self) -> None: ...


class Queue(Protocol):
    """A transaction that a connection has begun (transactions.py). What it keeps counts in `Shared.input_bytes`."""

    def take(self, name: str, flags: tuple[str, ...], command: "Arguments") -> bytes | None:
        """Keep a command; the reply to it. None: it has to be carried out at once."""

    def spoil(self) -> None:
        """A command was wrong, and nothing will be carried out."""

    def end(self) -> None:
        """Forget the commands."""


class Releases(Protocol):
    """Where payloads leave."""

    def release_with(self, prefix: bytes, held: object) -> None:
        """Write a payload with something before it."""

    def fail(self, problem: EdgeKVError) -> None: ...


class Promised(Protocol):
    """What a connection was promised beyond this node (promises.py). All its payloads go through it."""

    behind: str
    """A token that this node did not cover when it was asked; what uses keys is checked against it. Empty: there is none."""
    unprocessed: int
    """How many of the connection's commands `begin` has seen and are not processed."""
    reads: bool
    """What the next payload answers has written nothing, however much others have since `begin`."""

    def check(self, name: str) -> None:
        """Raise SessionBehind unless the node covers the token by now."""

    def begin(self, commands: "list[Arguments]") -> None:
        """These are about to be processed."""

    def take(self, connection: Releases, held: object, frame: Frame | None) -> None:
        """Have a payload leave, in order, when ``frame`` is done and other nodes have what they must."""

    def hurry(self) -> None:
        """The client sends no more: nothing waits without end."""

    def end(self) -> None:
        """Promise nothing more."""

    def close(self) -> None:
        """The connection is gone."""


class Shared:
    """What the connections of one listener share."""

    def __init__(self, host: Host, connections_max: int = CONNECTIONS_MAX) -> None:
        self.host: Final = host
        self.connections_max: Final = connections_max
        self.sessions: Final[dict[int, Session]] = {}
        self.cursors: Final = Cursors(SCAN_CURSORS_MAX, 1 + secrets.randbits(_FIRST_CURSOR_BITS))
        self.port = 0
        """Where it listens; 0 before it does."""
        self.connections_total = 0
        self.connections_refused = 0
        self.commands_total = 0
        self.protocol_errors = 0
        self.without_room: Final[dict[Waiting, None]] = {}
        """Who waits for room, in the order of their coming."""
        self.input_bytes = 0
        """Of commands that are incomplete or wait, over all connections."""
        self.output_bytes = 0
        """Of replies that wait for their clients to take them, over all connections."""

    def admit(self) -> "Session | None":
        """A new connection's session; None when there are too many."""
        if len(self.sessions) >= self.connections_max:
            self.connections_refused += 1
            return None
        self.connections_total += 1
        session = Session(self, self.connections_total)
        self.sessions[session.id] = session
        return session

    def leave(self, session: "Session") -> None:
        """The connection is gone."""
        del self.sessions[session.id]
        session.end_transaction()
        session.end_promises()


class Session:
    """What one connection has said about itself."""

    __slots__ = (
        "address",
        "awaited",
        "began",
        "closing",
        "created_ms",
        "dialect",
        "endless",
        "id",
        "lib_name",
        "lib_version",
        "local_address",
        "name",
        "operations",
        "promises",
        "shared",
        "transaction",
    )

    def __init__(self, shared: Shared, number: int) -> None:
        self.shared: Final = shared
        self.operations: Final[Operations] = shared.host.operations
        self.id: Final = number
        self.created_ms: Final = self.operations.now_ms()
        self.dialect: Dialect = RESP2
        self.name = ""
        self.lib_name = ""
        self.lib_version = ""
        self.address = ""
        self.local_address = ""
        self.transaction: Queue | None = None
        """The commands since MULTI."""
        self.closing = False
        """No further command is processed; the connection ends when its replies have left."""
        self.promises: Promised | None = None
        self.awaited: Callable[[], None] | None = None
        """What gives up the reply that is waited for (`Later`)."""
        self.endless: Callable[[], bytes] | None = None
        """Its `Later.endless`."""
        sessions = shared.host.sessions
        self.began: Final = sessions.positions(sessions.all_keyspaces)
        """The last change of this node's clients in each keyspace when the connection was made."""

    def written(self) -> dict[KeyspaceId, int]:
        """The last change in each keyspace that this connection may have written to: no less than it has written."""
        sessions, began = self.shared.host.sessions, self.began
        positions = sessions.positions(sessions.all_keyspaces)
        return {keyspace: seq for keyspace, seq in positions.items() if seq != began.get(keyspace, 0)}

    def give_up(self) -> None:
        """No reply is waited for any more."""
        if self.awaited is not None:
            self.awaited()
        self.awaited = self.endless = None

    def end_promises(self) -> None:
        """Nobody waits for other nodes any more."""
        self.give_up()
        if self.promises is not None:
            self.promises.close()

    def end_transaction(self) -> None:
        """Forget the commands since MULTI."""
        if self.transaction is not None:
            self.transaction.end()
            self.transaction = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """A reply that takes long: KEYS, DBSIZE, FLUSHDB, a large set or map. Its connection waits, everybody else goes on."""

    step: Callable[[], bool]
    """Do a few milliseconds' work; False when it was the last."""

    reply: Callable[[], bytes]
    """After the last step."""

    writes: bool = False
    """Each step is a change: it waits for room before, and is durable before the next one begins."""

    barrier: Frame | None = None
    """What the reply waits for because of work that was done before the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A reply after which the connection takes no more commands: what a watch shows is written to it, until its client leaves."""

    follower: Follower


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A reply that other nodes decide about. Its connection waits, everybody else goes on."""

    begin: Callable[[Frame | None, Callable[[bytes], None]], Callable[[], None]]
    """Begin to wait. Given are the newest frame that earlier replies wait for, and what to call, once, with the reply, perhaps before
    this returns. Returns what gives up."""

    endless: Callable[[], bytes] | None = None
    """It may wait for ever: the reply when nobody can say any more that its client has not left. None: it does not."""

    at_once: Callable[[], bytes] | None = None
    """The reply inside a transaction, which waits for nobody. None: it cannot be part of one."""


Reply = bytes | Slices | Later | Stream
Arguments = list[bytes]
"""A command with its name at 0."""

Run = Callable[[Session, Arguments], Reply]
