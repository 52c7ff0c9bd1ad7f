"""A small blocking RESP client: loads keys through one pipelined connection, reads some back, probes for stalls.

It writes the keys that `redis-benchmark -r` uses (`key:` and twelve digits), so that its GETs find them.
"""

import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final, Self

import hiredis

from bench.servers import Address

PIPELINE: Final = 2_000  # commands per send when loading
PROBE_INTERVAL_S: Final = 0.05
TIMEOUT_S: Final = 60.0


class CommandError(Exception):
    """The server answered with an error."""


def key_of(number: int) -> bytes:
    """The key that redis-benchmark makes of `number`."""
    return b"key:%012d" % number


class Connection:
    """One connection; `call` sends commands as one pipeline and returns their replies."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection((address.host, address.port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, commands: Sequence[tuple[bytes, ...]]) -> list[object]:
        self._socket.sendall(b"".join(map(_packed, commands)))
        return [self._reply() for _ in commands]

    def _reply(self) -> object:
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(1 << 18)
            if not received:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(received)
        if isinstance(reply, Exception):
            raise CommandError(str(reply))
        return reply


def load(address: Address, numbers: Iterable[int], value: bytes) -> int:
    """SET `value` at the key of every number, durably; returns how many."""
    loaded = 0
    with Connection(address) as connection:
        batch: list[tuple[bytes, ...]] = []
        for number in numbers:
            batch.append((b"SET", key_of(number), value))
            if len(batch) == PIPELINE:
                loaded += len(connection.call(batch))
                batch.clear()
        if batch:
            loaded += len(connection.call(batch))
    return loaded


def read(address: Address, numbers: Iterable[int]) -> list[object]:
    """The values at the keys of the numbers, None where there is none."""
    with Connection(address) as connection:
        return connection.call([(b"GET", key_of(number)) for number in numbers])


class Probe:
    """One connection that sends a command 20 times a second and keeps how long each answer took.

    A stalled server holds the probe's command as long as everybody else's, so the worst of these times is the
    worst stall a client saw, to within the interval.
    """

    def __init__(self, address: Address, command: tuple[bytes, ...] = (b"SET", b"probe", b"x" * 100)) -> None:
        self._connection = Connection(address)
        self._command = command
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self.times_s: list[float] = []

    @property
    def worst_s(self) -> float:
        return max(self.times_s, default=0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(TIMEOUT_S)
        self._connection.close()

    def _run(self) -> None:
        while not self._ended.wait(PROBE_INTERVAL_S):
            started = time.monotonic()
            try:
                self._connection.call([self._command])
            except (OSError, CommandError):
                # An unanswered probe is a stall too: its time so far is what we know of it.
                self.times_s.append(time.monotonic() - started)
                return
            self.times_s.append(time.monotonic() - started)


def _packed(command: tuple[bytes, ...]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in command)
