"""Load on a node, a ledger of what it acknowledged, and the judge of what it holds after a disaster.

`Load` runs `python -m tests.integration.ledger` as a process of its own, which outlives the node. It keeps a few connections (lanes)
full of pipelined SET, MSET, DEL and INCRBY, each lane on keys of its own, and compares every reply with what the lane's history makes
it. After each read a lane appends one line, `LANE ACKNOWLEDGED SENT`, to the ledger, and fdatasyncs it before it reads on.

What a lane does is a function of its seed, so the ledger holds two numbers and not the operations. A lane's operations reach the log
in their order, and a crash takes a suffix of the log: so after it the lane's keys must look as after the first n of them, for ONE n
with acknowledged <= n <= sent. `judge` checks this, and per key says what went wrong when it is not so.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import hiredis

from edgekv.cli.resp_client import RespConnection, command
from edgekv.codec import pack, unpack
from edgekv.config import Address

LANES: Final = 3
KEYS: Final = 1_000  # of each kind in a lane: few enough to be overwritten and deleted often
WINDOW: Final = 256  # operations of a lane in flight
READ_BYTES: Final = 1 << 16
PATIENCE_S: Final = 30.0

Operation = tuple[bytes, ...]
"""A RESP command."""
State = dict[bytes, bytes]
"""The keys of a lane that exist, and their values."""


class Verdict(NamedTuple):
    """What is wrong with a lane after a crash. All empty and `is_prefix` true: nothing."""

    lost: list[bytes]
    """Keys with a value older than acknowledged, or none."""
    resurrected: list[bytes]
    """Keys that exist although an acknowledged DEL was the last that was done to them."""
    miscounted: list[bytes]
    """Counters outside what lies between the acknowledged and the attempted increments."""
    is_prefix: bool
    """One prefix of the lane's history explains all of its keys at once."""


class Progress(NamedTuple):
    """A lane's last line in the ledger."""

    acknowledged: int
    sent: int
    refused: str = ""
    """The error reply that ended the lane; empty when the connection ended or the lane was told to stop."""


def script(seed: str, lane: int) -> Iterator[Operation]:
    """The operations of a lane, without end, always the same for a seed."""
    dice = random.Random(f"{seed}/{lane}")
    for index in count():
        value = b"%s.%d.%d" % (seed.encode(), lane, index) + b"x" * dice.choice((0, 10, 100, 100, 1_000))
        register, counter = b"%d:r%d" % (lane, dice.randrange(KEYS)), b"%d:c%d" % (lane, dice.randrange(KEYS))
        match dice.randrange(20):
            case 0 | 1 | 2:
                yield b"DEL", register
            case 3 | 4 | 5 | 6:
                yield b"INCRBY", counter, b"%d" % dice.randint(-5, 100)
            case 7:
                yield b"DEL", counter
            case 8:
                yield b"SET", counter, b"%d" % index
            case 9:
                yield b"MSET", register, value, b"%d:r%d" % (lane, dice.randrange(KEYS)), value
            case 10:
                yield b"SET", register, value, b"EX", b"86400"
            case _:
                yield b"SET", register, value


def lane_keys(lane: int) -> list[bytes]:
    """Every key that a lane may write."""
    return [b"%d:%s%d" % (lane, kind, number) for kind in (b"r", b"c") for number in range(KEYS)]


def touched(operation: Operation) -> tuple[bytes, ...]:
    """The keys that an operation writes."""
    return operation[1::2] if operation[0] == b"MSET" else operation[1:2]


def perform(state: State, operation: Operation) -> bytes | int:
    """Carry an operation out on the model; return what the node has to reply."""
    match operation:
        case (b"SET", key, value, *_):
            state[key] = value
            return b"OK"
        case (b"MSET", *pairs):
            state.update(zip(pairs[::2], pairs[1::2], strict=True))
            return b"OK"
        case (b"DEL", key):
            return int(state.pop(key, None) is not None)
        case (b"INCRBY", key, delta):
            total = int(state.get(key, b"0")) + int(delta)
            state[key] = b"%d" % total
            return total
    raise AssertionError(operation)


def judge(before: State, seed: str, lane: int, progress: Progress, found: State) -> Verdict:
    """Compare what a node holds of a lane with what it may hold, `before` being the state when the load began."""
    state, operations = dict(before), script(seed, lane)
    for operation in islice(operations, progress.acknowledged):
        perform(state, operation)
    acknowledged = dict(state)
    allowed = {key: {state.get(key)} for key in lane_keys(lane)}
    different = {key for key in allowed if state.get(key) != found.get(key)}
    is_prefix = not different
    for operation in islice(operations, progress.sent - progress.acknowledged):
        perform(state, operation)
        for key in touched(operation):
            allowed[key].add(state.get(key))
            (different.discard if state.get(key) == found.get(key) else different.add)(key)
        is_prefix = is_prefix or not different
    wrong = [key for key, values in allowed.items() if found.get(key) not in values]
    resurrected = [key for key in wrong if key not in acknowledged]
    miscounted = [key for key in wrong if key in acknowledged and b":c" in key and key in found]
    lost = [key for key in wrong if key not in {*resurrected, *miscounted}]
    return Verdict(lost, resurrected, miscounted, is_prefix)


def read_back(resp: Address) -> list[State]:
    """The state of every lane as a node answers: by MGET, and the same keys by KEYS."""
    states: list[State] = []
    with RespConnection(resp, PATIENCE_S) as connection:
        for lane in range(LANES):
            keys = lane_keys(lane)
            values = connection.call(b"MGET", *keys)
            assert isinstance(values, list)
            states.append({key: value for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)})
        listed = connection.call(b"KEYS", b"[0-9]:*")
    assert isinstance(listed, list)
    held = [key for state in states for key in state]
    assert sorted(map(bytes, listed)) == sorted(held), "a scan shows other keys than single reads"  # type: ignore[arg-type]
    return states


class Load:
    """The load process. Its files lie in `directory`, which is not on the file system under test."""

    def __init__(self, directory: Path, seed: str, before: list[State]) -> None:
        self.seed = seed
        self.before = before
        self._ledger = directory / "ledger"
        self._before = directory / "before"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def start(self, resp: Address) -> None:
        """Start it; returns when every lane has an acknowledgement."""
        self._ledger.write_bytes(b"")
        self._before.write_bytes(pack(self.before))
        arguments = ["--resp", str(resp), "--seed", self.seed, "--ledger", str(self._ledger)]
        command_line = [sys.executable, "-m", "tests.integration.ledger", *arguments, "--before", str(self._before)]
        self._process = subprocess.Popen(command_line)
        until = time.monotonic() + PATIENCE_S
        while not all(progress.acknowledged for progress in self.progress()):
            assert time.monotonic() < until and self._process.poll() is None, "the load did not begin"
            time.sleep(0.005)

    def stop(self) -> None:
        """Tell it to wait for what it sent and to end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def join(self) -> list[Progress]:
        """Wait for its end, which a broken connection brings; AssertionError when a reply was not what it had to be."""
        assert self._process is not None
        assert self._process.wait(PATIENCE_S) == 0, "the load saw a wrong reply"
        return self.progress()

    def progress(self) -> list[Progress]:
        """What the ledger holds now, per lane."""
        latest = [Progress(0, 0)] * LANES
        for line in self._ledger.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                lane, acknowledged, sent, refused = line[:-1].split(" ", 3)
                latest[int(lane)] = Progress(int(acknowledged), int(sent), refused)
        return latest

    def judge(self, progress: list[Progress], found: list[State]) -> list[Verdict]:
        """A verdict per lane."""
        return [judge(self.before[i], self.seed, i, progress[i], found[i]) for i in range(LANES)]


class Lane:
    """One connection of the load process, on a thread of its own."""

    def __init__(self, resp: Address, seed: str, number: int, state: State, ledger: int) -> None:
        self._socket = socket.create_connection(resp, PATIENCE_S)
        self._reader = hiredis.Reader()
        self._script = script(seed, number)
        self._dice = random.Random(f"{seed}/{number}/window")
        self._number = number
        self._state = state
        self._ledger = ledger
        self._expected: deque[tuple[Operation, bytes | int]] = deque()
        self._acknowledged = self._sent = 0
        self._refused = ""
        self.wrong = ""

    def run(self, stopping: threading.Event) -> None:
        """Until the connection ends, or `stopping` and everything sent has its reply."""
        try:
            while not self.wrong:
                if not stopping.is_set() and not self._refused:
                    self._send()
                elif not self._expected:
                    break
                data = self._socket.recv(READ_BYTES)
                if not data:
                    break
                self._reader.feed(data)
                self._take_replies()
                self._record()
        except ConnectionError:
            pass
        self._record()
        self._socket.close()

    def _send(self) -> None:
        wanted = self._dice.randint(1, WINDOW) - len(self._expected)
        batch = list(islice(self._script, max(0, wanted)))
        for operation in batch:
            self._expected.append((operation, perform(self._state, operation)))
        self._sent += len(batch)  # before the bytes leave: a kill may come in between
        self._socket.sendall(b"".join(command(*operation) for operation in batch))

    def _take_replies(self) -> None:
        while (reply := self._reader.gets()) is not False:
            operation, expected = self._expected.popleft()
            if isinstance(reply, hiredis.ReplyError):
                self._refused = self._refused or str(reply)
            elif self._refused:
                self.wrong = f"{operation!r} was acknowledged after {self._refused!r}"
            elif reply != expected:
                self.wrong = f"{operation!r} got {reply!r}, not {expected!r}"
            else:
                self._acknowledged += 1

    def _record(self) -> None:
        line = f"{self._number} {self._acknowledged} {self._sent} {self._refused}\n"
        os.write(self._ledger, line.encode())
        os.fdatasync(self._ledger)


def main() -> int:
    """The load process; 0 unless a reply was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.ledger", description=__doc__)
    parser.add_argument("--resp", type=Address.parse, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True)
    options = parser.parse_args()
    ledger = os.open(options.ledger, os.O_WRONLY | os.O_APPEND)
    states: list[State] = unpack(options.before.read_bytes())
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    lanes = [Lane(options.resp, options.seed, number, state, ledger) for number, state in enumerate(states)]
    threads = [threading.Thread(target=lane.run, args=(stopping,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [lane.wrong for lane in lanes if lane.wrong]
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
