"""MULTI, EXEC, DISCARD: commands that are kept, and carried out together as one change.

EXEC runs in one turn of the loop: nobody sees half of it, and nothing comes between its commands. As in Redis, a command that is wrong
when it comes (unknown, wrong number of arguments) discards everything at EXEC, and one that fails while it runs (WRONGTYPE) answers so
and leaves the others alone. Unlike Redis, what this node refuses in general (disk full, two keyspaces, a change too large) discards
everything too: nothing is half done. WATCH is refused (refused.py), so EXEC never finds that a key has changed.

protocol.py asks `Transaction.take` before it carries anything out, and tells it of commands that are none.
"""

# ruff: noqa: ARG001 - every command takes the same parameters

from typing import Final

from edgekv.api.resp.replies import OK, array, error, fault, status
from edgekv.api.resp.session import Arguments, Later, Session, Shared, Slices
from edgekv.api.resp.table import Command, command, find, key_indexes
from edgekv.errors import Corruption, Denied, EdgeKVError, OutcomeUnknown, TooLarge, Unavailable
from edgekv.limits import (
    CONNECTION_INPUT_BYTES_MAX,
    CONNECTION_OUTPUT_BYTES_MAX,
    RESP_INPUT_BYTES_TOTAL_MAX,
    RESP_INPUT_SHARE_BYTES,
    RESP_READ_RUN_KEYS,
    RESP_TRANSACTION_COMMANDS_MAX,
    RESP_TRANSACTION_ROWS_FREE,
    RESP_TRANSACTION_ROWS_MAX,
)
from edgekv.metrics import NO_KEYSPACE

_QUEUED: Final = status("QUEUED")
_AT_ONCE: Final = frozenset(["exec", "discard", "multi", "quit", "reset"])
_TOO_LARGE: Final = error(
    f"ERR the transaction has more than {RESP_TRANSACTION_COMMANDS_MAX} commands or {CONNECTION_INPUT_BYTES_MAX} bytes. Split it."
)
_NO_MEMORY: Final = error(
    "OVERLOADED too many bytes of unprocessed commands on this node. Try again, or split the transaction."
)
_DISCARDED: Final = error("EXECABORT Transaction discarded because of previous errors.")
_REFUSALS: Final = (Corruption, Denied, OutcomeUnknown, Unavailable)
"""What a node answers whatever the command's arguments are: then nothing of a transaction is done."""

_COMMAND_BYTES: Final = 128
"""What Python adds to a command that is kept."""
_ARGUMENT_BYTES: Final = 48


class Transaction:
    """The commands since MULTI. Its bytes count among those that wait, over all connections."""

    def __init__(self, shared: Shared) -> None:
        self._shared: Final = shared
        self._bytes = 0
        self.commands: list[Arguments] = []
        self.spoiled = False
        """A command was wrong: EXEC will discard everything, so nothing more is kept."""

    def take(self, name: str, flags: tuple[str, ...], command: Arguments) -> bytes | None:
        """See `Queue`. A command that is always refused, or here, is so at once, and counts as wrong."""
        if "refused" in flags or "no_multi" in flags:
            self.spoil()
            return None
        if name in _AT_ONCE:
            return None
        if self.spoiled:
            return _QUEUED
        size = _COMMAND_BYTES + sum(map(len, command)) + _ARGUMENT_BYTES * len(command)
        if len(self.commands) >= RESP_TRANSACTION_COMMANDS_MAX or self._bytes + size > CONNECTION_INPUT_BYTES_MAX:
            self.spoil()
            return _TOO_LARGE
        self._bytes += size
        self._shared.input_bytes += size
        if self._bytes > RESP_INPUT_SHARE_BYTES and self._shared.input_bytes > RESP_INPUT_BYTES_TOTAL_MAX:
            self.spoil()
            return _NO_MEMORY
        self.commands.append(command)
        return _QUEUED

    def spoil(self) -> None:
        """See `Queue`."""
        self.end()
        self.spoiled = True

    def end(self) -> None:
        """See `Queue`."""
        self._shared.input_bytes -= self._bytes
        self._bytes = 0
        self.commands = []


@command("multi", arity=1, flags="fast", group="transactions", since="1.2.0", summary="Start a transaction")
def multi(session: Session, arguments: Arguments) -> bytes:
    """MULTI."""
    if session.transaction is not None:
        return error("ERR MULTI calls can not be nested")
    session.transaction = Transaction(session.shared)
    return OK


@command("discard", arity=1, flags="fast", group="transactions", since="2.0.0", summary="Discard a transaction")
def discard(session: Session, arguments: Arguments) -> bytes:
    """DISCARD."""
    if session.transaction is None:
        return error("ERR DISCARD without MULTI")
    session.end_transaction()
    return OK


@command(
    "unwatch", arity=1, flags="fast", group="transactions", since="2.2.0", summary="Accepted: no key is ever watched"
)
def unwatch(session: Session, arguments: Arguments) -> bytes:
    """UNWATCH."""
    return OK


@command(
    "exec",
    arity=-1,
    flags="write",
    group="transactions",
    since="1.2.0",
    complexity="Depends on commands in the transaction",
    summary="Execute all commands of a transaction; what they write is one change, so in one keyspace",
)
def exec_(session: Session, arguments: Arguments) -> bytes:
    """EXEC. It takes no argument; with one, Redis discards the transaction, so it cannot be left to the table of arities."""
    transaction = session.transaction
    if len(arguments) > 1:
        session.end_transaction()
        return error("EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command")
    if transaction is None:
        return error("ERR EXEC without MULTI")
    assert isinstance(transaction, Transaction)
    commands = transaction.commands
    session.end_transaction()
    if transaction.spoiled:
        return _DISCARDED
    execution = Execution(session)
    try:
        with session.operations.transaction():
            replies = [execution.carry_out(command) for command in commands]
    except EdgeKVError as problem:
        reason = fault(problem)[1:-2].decode("utf-8", "surrogateescape")
        return error(f"EXECABORT Transaction discarded because of: {reason}")
    execution.count()
    return array(replies)


class Execution:
    """One EXEC at work. Everything happens in one turn of the loop, so what it may read is bounded."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session
        self._rows = RESP_TRANSACTION_ROWS_MAX
        self._bytes = CONNECTION_OUTPUT_BYTES_MAX
        self._done: Final[list[tuple[str, bytes, str]]] = []
        """Name, first key and result of each command."""

    def carry_out(self, arguments: Arguments) -> bytes:
        """The reply of one command, an error that is its own included. Raises when nothing may be done at all."""
        entry = find(arguments)
        assert isinstance(entry, Command) and entry.run is not None
        indexes = key_indexes(entry, len(arguments))
        key = arguments[indexes[0]] if indexes else b""
        self._rows += RESP_TRANSACTION_ROWS_FREE
        before = self._session.operations.rows_read
        try:
            for i in indexes:
                self._session.operations.check_key(arguments[i])
            reply = entry.run(self._session, arguments)
        except _REFUSALS:
            raise
        except EdgeKVError as problem:
            self._charge(before, RESP_TRANSACTION_ROWS_FREE)
            self._done.append((entry.name, key, problem.code))
            return fault(problem)
        self._charge(before, RESP_TRANSACTION_ROWS_FREE)
        if isinstance(reply, Slices):
            reply = self._at_once(reply)
        elif isinstance(reply, Later):
            assert reply.at_once is not None, "it is refused in transactions"
            reply = reply.at_once()
        assert isinstance(reply, bytes), "a watch is refused in a transaction"
        self._done.append((entry.name, key, "ok"))
        self._bytes -= len(reply)
        if self._bytes < 0:
            raise TooLarge(f"the replies would exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. Split the transaction.")
        return reply

    def _at_once(self, slices: Slices) -> bytes:
        more = True
        while more:
            before = self._session.operations.rows_read
            more = slices.step()
            self._charge(before, RESP_READ_RUN_KEYS)
        return slices.reply()

    def _charge(self, before: int, least: int) -> None:
        """Count what was looked at since ``before``, at least so many rows."""
        self._rows -= max(self._session.operations.rows_read - before, least)
        if self._rows < 0:
            raise TooLarge(
                "its commands read or delete too many keys or elements at once. Send the large ones by themselves."
            )

    def count(self) -> None:
        """Count what was done, in the metrics."""
        metrics, keyspaces = self._session.shared.host.metrics, self._session.operations.engine.keyspaces
        for name, key, result in self._done:
            metrics.ops(name, keyspaces.of(key).name if key else NO_KEYSPACE, 1, result)
