"""One call from being made to its answer or error: what may be sent again, and what an error says about a write.

Pure decisions; the shells do what they say. A call is in *doubt* once it was sent and its answer did not come. From then on:

- a command that may be repeated freely is sent again, to whichever node answers, as long as the retry budget lasts;
- one that may not (an addition) is sent again only with its operation id, and only to the node that got it first: that node knows
  whether it has done it, nobody else does. Anywhere else, or without an id, it ends as OutcomeUnknown;
- an id that the node has forgotten says that this attempt was not carried out: a first one is made again, in a new session;
- an error that a second attempt gets says nothing about the first one, so a write in doubt ends as OutcomeUnknown, whatever a node
  says now. Only an answer ends the doubt.
"""

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from edgekv.client.commands import Command, Repeat
from edgekv.client.wire import Peer, pack
from edgekv.errors import EdgeKVError, IdForgotten, OutcomeUnknown, Unavailable
from edgekv.ids import SESSION_BYTES, STAMP_BYTES, new_session

W = TypeVar("W")

RETRY_RESERVE: Final = 256
"""Retries that a client has before it has made calls, and at most saves: what one broken connection of a busy client costs."""
CALLS_PER_RETRY: Final = 10
RETRIES_MAX: Final = 5
"""Of one call: if it is what ends the connections, it must not go on ending those of everybody else."""
SESSION_WINDOW: Final = 1_000
"""Between the oldest id that waits and the newest; a node remembers 1,024 of a session, and never applies one below its window."""


class Budget:
    """A token bucket: retries are at most a tenth of the calls, so that clients do not bury a node that struggles."""

    def __init__(self) -> None:
        self._tokens = RETRY_RESERVE * CALLS_PER_RETRY

    def earn(self, calls: int) -> None:
        """Calls were made."""
        self._tokens = min(self._tokens + calls, RETRY_RESERVE * CALLS_PER_RETRY)

    def take(self) -> bool:
        """Whether one retry may be made now."""
        if self._tokens < CALLS_PER_RETRY:
            return False
        self._tokens -= CALLS_PER_RETRY
        return True


class OperationId(NamedTuple):
    """Names an attempted change for ever. ``node`` is the only one that knows it."""

    node: str
    session: bytes
    number: int


class OperationIds:
    """The ids of one connection. A session whose oldest id waits too long is left for a new one."""

    def __init__(self, peer: Peer, entropy: Callable[[int], bytes]) -> None:
        self.peer: Final = peer
        self._entropy: Final = entropy
        self._session = b""
        self._next = 1
        self._waiting: Final[dict[int, None]] = {}

    def issue(self) -> OperationId | None:
        """The next id; None when the node takes none."""
        node, stamp = self.peer.node, self.peer.stamp
        if node is None or stamp is None:
            return None
        if not self._session or (self._waiting and self._next - next(iter(self._waiting)) >= SESSION_WINDOW):
            self._session, self._next = new_session(stamp, self._entropy(SESSION_BYTES - STAMP_BYTES)), 1
            self._waiting.clear()
        number, self._next = self._next, self._next + 1
        self._waiting[number] = None
        return OperationId(node, self._session, number)

    def settled(self, operation: OperationId) -> None:
        """It was answered."""
        if operation.session == self._session:
            self._waiting.pop(operation.number, None)


class Call(Generic[W]):
    """One call. ``deadline_s`` is on the clock of whoever made it; ``waiter`` is what its shell knows the caller by."""

    __slots__ = ("attempts", "command", "deadline_s", "doubt", "operation", "packed", "waiter")

    def __init__(self, command: Command[object], deadline_s: float, waiter: W) -> None:
        self.command: Final = command
        self.deadline_s: Final = deadline_s
        self.waiter: Final = waiter
        self.packed: bytes | None = None
        self.operation: OperationId | None = None
        self.doubt = False
        self.attempts = 0
        """Beyond the first."""

    def bytes_for(self, ids: OperationIds) -> bytes:
        """What is sent to the node of ``ids``, now or again. Raises what ends the call instead: only its first node may get it."""
        operation = self.operation
        if operation is not None and operation.node != ids.peer.node:
            if self.doubt:
                raise self._ended("the node that it was sent to is gone, and no other knows whether it has done it")
            self._forget()
        packed = self.packed
        if packed is None:
            words, kind = self.command
            if kind.repeat is Repeat.BY_ID:
                self.operation = operation = ids.issue()
                if operation is not None:
                    words = (b"EDGEKV.OP", operation.session, b"%d" % operation.number, *words)
            self.packed = packed = pack(words)
        return packed

    def _forget(self) -> None:
        """It did not happen where it was sent: anywhere else it is a new call."""
        self.operation = self.packed = None

    # -- what ends it, or has it sent again (None)

    def lost(self, cause: Exception, budget: Budget) -> EdgeKVError | None:
        """The connection ended after it was sent and before its answer came."""
        kind = self.command.kind
        self.doubt = self.doubt or kind.writes
        if kind.repeat is Repeat.BY_ID and self.operation is None:
            return self._ended(f"the answer was lost ({cause}), and it must not be done twice")
        if self.attempts == RETRIES_MAX:
            return self._ended(f"{RETRIES_MAX + 1} connections ended while it was on its way ({cause})")
        if not budget.take():
            return self._ended(f"the answer was lost ({cause}), and the retry budget is used up")
        self.attempts += 1
        return None

    def refused(self, error: EdgeKVError, budget: Budget, *, addresses: int) -> EdgeKVError | None:
        """The node answered with an error. None: to be sent again, elsewhere if it is not in doubt.

        After IdForgotten it goes to the same node, on a new connection.
        """
        if isinstance(error, OutcomeUnknown):
            return self.lost(error, budget)
        if self.doubt:
            failure = self._ended(f"a second attempt was refused ({error})")
            failure.__cause__ = error
            return failure
        if isinstance(error, IdForgotten) and self.attempts < RETRIES_MAX and budget.take():
            self.attempts += 1
            self._forget()
            return None
        if isinstance(error, Unavailable) and self.attempts + 1 < addresses and budget.take():
            self.attempts += 1
            self._forget()
            return None
        return error

    def expired(self, *, sent: bool, why: str) -> EdgeKVError:
        """Its deadline has passed."""
        self.doubt = self.doubt or (sent and self.command.kind.writes)
        return self._ended(f"its deadline passed, {why}")

    def abandoned(self) -> EdgeKVError:
        """The client is closed while its answer is on the way."""
        self.doubt = self.doubt or self.command.kind.writes
        return self._ended("the client was closed before the answer came")

    def _ended(self, why: str) -> EdgeKVError:
        name = self.command.kind.name
        if self.doubt:
            return OutcomeUnknown(f"{name} may or may not have happened: {why}. Read before you decide what to do.")
        return Unavailable(f"{name} did not happen: {why}. Try again.")


def closed() -> EdgeKVError:
    """What a call on a closed client gets."""
    return Unavailable("the client is closed; nothing was sent. Open another.")
