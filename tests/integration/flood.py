"""Many connections that pipeline SETs as fast as the node takes them: ``python -m tests.integration.flood HOST:PORT``.

A process of its own, so that what it needs of the interpreter does not disturb the latencies that a test measures. When its time is up
it sends nothing more, waits for the replies to everything sent, and prints one line of JSON: commands answered, commands refused, the
seconds it took, and the longest time without any reply.
"""

import argparse
import json
import selectors
import socket
import subprocess
import sys
import time
from typing import Final, NamedTuple, Self

from edgekv.config import Address

DEPTH: Final = 16
READ_BYTES: Final = 1 << 16
PATIENCE_S: Final = 30.0


class Report(NamedTuple):
    """What came of a flood."""

    answered: int
    refused: int
    seconds: float
    longest_pause_s: float

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


class Flood:
    """A flood on a node, running beside the test."""

    def __init__(
        self, address: Address, *, connections: int, value_bytes: int, seconds: float, keys: int = 1_000_000
    ) -> None:
        command = [sys.executable, "-m", "tests.integration.flood", str(address)]
        command += [
            f"--connections={connections}",
            f"--value-bytes={value_bytes}",
            f"--seconds={seconds}",
            f"--keys={keys}",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def report(self) -> Report:
        """Wait until it is over."""
        output, _ = self._process.communicate(timeout=2 * PATIENCE_S)
        return Report(**json.loads(output))


class Lane:
    """One connection, with up to DEPTH commands in flight."""

    def __init__(self, address: Address, value: bytes, number: int, keys: int) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self.answered = self.refused = self.sent = 0
        self._value, self._next_key, self._keys = value, number * 7919, keys
        self._output = memoryview(b"")
        self._line = b""

    def write(self) -> None:
        """Send what the socket takes."""
        if not self._output:
            self._output = memoryview(b"".join(self._command() for _ in range(DEPTH)))
            self.sent += DEPTH
        try:
            self._output = self._output[self.socket.send(self._output) :]
        except BlockingIOError:
            return

    def _command(self) -> bytes:
        self._next_key = (self._next_key + 104_729) % self._keys
        return b"*3\r\n$3\r\nSET\r\n$12\r\nflood%07d\r\n$%d\r\n%b\r\n" % (self._next_key, len(self._value), self._value)

    def read(self) -> bool:
        """Count replies; whether there were any."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the node closed the connection")
        *lines, self._line = (self._line + data).split(b"\r\n")
        self.answered += len(lines)
        self.refused += sum(line[:1] != b"+" for line in lines)
        return bool(lines)

    @property
    def events(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.wants_to_write else 0)

    @property
    def wants_to_write(self) -> bool:
        return bool(self._output) or self.sent - self.answered <= DEPTH

    @property
    def is_in_a_command(self) -> bool:
        return bool(self._output)


def flood(address: Address, *, connections: int, value_bytes: int, seconds: float, keys: int) -> Report:
    """Run it here."""
    lanes = [Lane(address, b"x" * value_bytes, i, keys) for i in range(connections)]
    selector = selectors.DefaultSelector()
    for lane in lanes:
        selector.register(lane.socket, lane.events, lane)
    started = last = time.monotonic()
    pause = 0.0
    while True:
        now = time.monotonic()
        over = now - started >= seconds
        if over and all(lane.sent == lane.answered for lane in lanes):
            break
        assert now - last < PATIENCE_S, "the node does not answer any more"
        for key, events in selector.select(0.1):
            lane = key.data
            if events & selectors.EVENT_READ and lane.read():
                pause, last = max(pause, time.monotonic() - last), time.monotonic()
            if events & selectors.EVENT_WRITE and (lane.is_in_a_command or not over):
                lane.write()
            wanted = lane.events if lane.is_in_a_command or not over else selectors.EVENT_READ
            if wanted != key.events:
                selector.modify(lane.socket, wanted, lane)
    answered, refused = sum(lane.answered for lane in lanes), sum(lane.refused for lane in lanes)
    return Report(answered, refused, time.monotonic() - started, max(pause, time.monotonic() - last))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", type=Address.parse)
    for name in ("--connections", "--value-bytes", "--keys"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = vars(parser.parse_args())
    print(json.dumps(flood(options.pop("address"), **options)._asdict()))


if __name__ == "__main__":
    main()
