"""The command line's RESP client: pipelined commands over one blocking socket, used where speed matters (import, demo, bench).

Replies come in the order of the commands, so the number of replies read is the number of commands acknowledged: a prefix,
whatever happens to the connection afterwards. Commands in flight are bounded by ``BATCHES_IN_FLIGHT``: one batch is being synced by
the node while the next one is already on its way.
"""

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import hiredis

from edgekv.config import Address
from edgekv.errors import (
    Denied,
    DiskFull,
    EdgeKVError,
    InvalidRequest,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
    SessionBehind,
    Unavailable,
    WrongType,
)

BATCH_COMMANDS: Final = 1_000
BATCH_BYTES_MAX: Final = 1 << 20
BATCHES_IN_FLIGHT: Final = 2
READ_BYTES: Final = 1 << 16

Commands = bytes | tuple[bytes, ...]
"""A command, or several that count as one: all are acknowledged, or it is not."""
Reply = bytes | int | float | bool | list["Reply"] | None
PENDING: Final = object()  # No whole reply has arrived. hiredis' own word for it is False, which is a reply too.

# The first word of an error reply, as docs/RESP.md lists them; ERR and what is not listed is the caller's mistake.
ERROR_WORDS: Final[dict[str, type[EdgeKVError]]] = {
    "WRONGTYPE": WrongType,
    "DENIED": Denied,
    "DISKFULL": DiskFull,
    "READONLY": ReadOnly,
    "OVERLOADED": Overloaded,
    "BEHIND": SessionBehind,
    "UNAVAILABLE": Unavailable,
    "UNKNOWN": OutcomeUnknown,
    "CORRUPT": EdgeKVError,
}


def command(*arguments: bytes) -> bytes:
    """One command as the bytes of a RESP array."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type] # typed as a tuple of one
    return packed


class RespConnection:
    """A blocking connection to a node's RESP listener."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        try:
            self._socket = socket.create_connection(address, timeout_s)
        except OSError as error:
            raise Unavailable(
                f"no node answers at {address} ({(error.strerror or str(error)).lower()}): "
                "start one with edgekv serve, or name another with --resp"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=PENDING)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._socket.close()

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, commands: bytes) -> None:
        """Hand whole commands to the node; OutcomeUnknown when the connection breaks."""
        try:
            self._socket.sendall(commands)
        except OSError as error:
            raise self._ended(error) from error

    def reply(self) -> Reply:
        """Wait for the next reply. An error reply is raised as the EdgeKVError it stands for."""
        while (reply := self.reply_nowait()) is PENDING:
            self.receive()
        answer: Reply = reply  # type: ignore[assignment] # not PENDING, which has no type of its own
        return answer

    def reply_nowait(self) -> object:
        """The next reply among what was received, or PENDING. Raises as ``reply`` does."""
        try:
            reply: object = self._reader.gets()
        except hiredis.ProtocolError as error:
            self._socket.close()
            raise Unavailable(
                f"what listens at {self.address} does not speak the Redis protocol: give the node's RESP listener with --resp"
            ) from error
        if isinstance(reply, hiredis.ReplyError):
            word, _, rest = str(reply).partition(" ")
            raise ERROR_WORDS.get(word, InvalidRequest)(rest or word)
        return reply

    def receive(self) -> None:
        """Take what has arrived, or wait for some; OutcomeUnknown when the connection breaks."""
        try:
            data = self._socket.recv(READ_BYTES)
        except OSError as error:
            raise self._ended(error) from error
        if not data:
            raise self._ended(None)
        self._reader.feed(data)

    def call(self, *arguments: bytes) -> Reply:
        """Send one command and wait for its reply."""
        self.send(command(*arguments))
        return self.reply()

    def send_all(self, commands: Iterable[Commands], acknowledged: Callable[[int], None]) -> int:
        """Send all commands in order; call ``acknowledged(total so far)`` after each batch's replies; return the total.

        When a command is refused or the connection breaks, the error is raised after ``acknowledged`` was told of the last
        reply that came. When ``commands`` itself raises InvalidRequest, what it gave before is sent and acknowledged first.
        """
        done = 0
        waiting: deque[list[int]] = deque()
        """Of each batch that is on its way, how many replies each of its items has."""

        def settle() -> None:
            nonlocal done
            try:
                for replies in waiting.popleft():
                    for _ in range(replies):
                        self.reply()
                    done += 1
            finally:
                acknowledged(done)

        batches = _batches(commands)
        bad_input: InvalidRequest | None = None
        while True:
            try:
                batch = next(batches, None)
            except InvalidRequest as error:
                bad_input = error
                break
            if batch is None:
                break
            self.send(b"".join(map(b"".join, batch)))
            waiting.append(list(map(len, batch)))
            if len(waiting) == BATCHES_IN_FLIGHT:
                settle()
        while waiting:
            settle()
        if bad_input is not None:
            raise bad_input
        return done

    def _ended(self, error: OSError | None) -> EdgeKVError:
        self._socket.close()
        reason = "it was closed" if error is None else (error.strerror or str(error)).lower()
        return OutcomeUnknown(f"the connection to {self.address} ended ({reason})")


def _batches(commands: Iterable[Commands]) -> Iterator[list[tuple[bytes, ...]]]:
    """Lists of commands of bounded number and size; what was collected is given before an error of the source is passed on."""
    batch: list[tuple[bytes, ...]] = []
    size = 0
    try:
        for item in commands:
            batch.append((item,) if isinstance(item, bytes) else item)
            size += sum(map(len, batch[-1]))
            if len(batch) == BATCH_COMMANDS or size >= BATCH_BYTES_MAX:
                yield batch
                batch, size = [], 0
    except InvalidRequest:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
