"""What the benchmarks do over RESP by themselves: load keys through one pipelined connection, read some back, probe for stalls.

It writes the keys that `redis-benchmark -r` uses (`key:` and twelve digits), so that its GETs find them.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final, Self

from bench.servers import ServerError
from edgekv.cli.resp_client import Reply, RespConnection, command
from edgekv.config import Address
from edgekv.errors import EdgeKVError

PROBE_INTERVAL_S: Final = 0.05
TIMEOUT_S: Final = 60.0


def key_of(number: int) -> bytes:
    """The key that redis-benchmark makes of `number`."""
    return b"key:%012d" % number


def load(address: Address, numbers: Iterable[int], value: bytes) -> int:
    """SET `value` at the key of every number, durably; returns how many."""
    return load_pairs(address, ((key_of(number), value) for number in numbers))


def load_pairs(address: Address, pairs: Iterable[tuple[bytes, bytes]]) -> int:
    """SET every key to its value, durably and in this order; returns how many."""
    with RespConnection(address, TIMEOUT_S) as connection:
        return connection.send_all((command(b"SET", key, value) for key, value in pairs), lambda _: None)


def read(address: Address, numbers: Sequence[int]) -> list[Reply]:
    """The values at the keys of the numbers, None where there is none."""
    with RespConnection(address, TIMEOUT_S) as connection:
        connection.send(b"".join(command(b"GET", key_of(number)) for number in numbers))
        return [connection.reply() for _ in numbers]


def wait_value(address: Address, key: bytes, value: bytes, timeout_s: float, poll_s: float = 0.001) -> float:
    """Until `key` reads as `value`; returns the time of `time.monotonic` at which it did."""
    deadline = time.monotonic() + timeout_s
    with RespConnection(address, TIMEOUT_S) as connection:
        while connection.call(b"GET", key) != value:
            if time.monotonic() > deadline:
                raise ServerError(f"{address} did not show {key.decode()} after {timeout_s:g} s")
            time.sleep(poll_s)
    return time.monotonic()


class Probe:
    """One connection that sends a command 20 times a second and keeps how long each answer took.

    A stalled server holds the probe's command as long as everybody else's, so the worst of these times is the
    worst stall a client saw, to within the interval.
    """

    def __init__(self, address: Address, command: tuple[bytes, ...] = (b"SET", b"probe", b"x" * 100)) -> None:
        self._connection = RespConnection(address, TIMEOUT_S)
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
                self._connection.call(*self._command)
            except EdgeKVError:
                # An unanswered probe is a stall too: its time so far is what we know of it.
                self.times_s.append(time.monotonic() - started)
                return
            self.times_s.append(time.monotonic() - started)
