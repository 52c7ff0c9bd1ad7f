"""A process that offers SETs at a fixed rate whether or not the server keeps up, pipelined over a few connections.

`python -m bench.offered_load --resp HOST:PORT --per-s 10000` prints "running" when the first batch is out, goes on until its input
ends, and then prints {"offered", "acknowledged", "seconds", "late_s"}: `late_s` is by how much it was itself late at worst.
"""

import argparse
import json
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any, Final

from bench import machine
from bench.resp_client import key_of
from bench.servers import ServerError
from bench.workload import Workload
from edgekv.cli.resp_client import PENDING, RespConnection, command
from edgekv.config import Address

CONNECTIONS: Final = 4
BATCH_INTERVAL_S: Final = 0.002
TIMEOUT_S: Final = 60.0


@contextmanager
def offered(address: Address, per_s: int) -> Iterator[dict[str, Any]]:
    """The load while the block runs; the dictionary is filled with its figures at the end."""
    command_line = [sys.executable, "-m", "bench.offered_load", "--resp", str(address), "--per-s", str(per_s)]
    found: dict[str, Any] = {}
    with Popen(command_line, cwd=machine.REPOSITORY, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdin is not None
            process.stdout.readline()
            yield found
            output, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    if process.returncode:
        raise ServerError("the process that offers load failed")
    found.update(json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--resp", type=Address.parse, required=True)
    parser.add_argument("--per-s", type=int, required=True)
    arguments = parser.parse_args()
    batches = _batches(round(arguments.per_s * BATCH_INTERVAL_S))
    connections = [RespConnection(arguments.resp, TIMEOUT_S) for _ in range(CONNECTIONS)]
    sent = acknowledged = number = 0
    late_s = 0.0
    started = due = time.monotonic()
    while not _input_ended():
        due += BATCH_INTERVAL_S
        pause = due - time.monotonic()
        late_s = max(late_s, -pause)
        if pause > 0:
            time.sleep(pause)
        batch, count = next(batches)
        connections[number % CONNECTIONS].send(batch)
        sent += count
        number += 1
        acknowledged += sum(map(_take, connections))
        if number == 1:
            print("running", flush=True)
    seconds = time.monotonic() - started
    done = acknowledged
    while done < sent:
        for connection in connections:
            if select.select([connection], [], [], 0.01)[0]:
                connection.receive()
            done += _take(connection, receive=False)
    print(json.dumps({"offered": sent, "acknowledged": acknowledged, "seconds": seconds, "late_s": late_s}))


def _batches(size: int) -> Iterator[tuple[bytes, int]]:
    """Endless commands of one batch, and how many."""
    workload, number = Workload(2).puts(1), 0
    while True:
        pairs = [(key_of((number + index) % 1_000_000), next(workload)[0][1]) for index in range(size)]
        number += size
        yield b"".join(command(b"SET", key, value) for key, value in pairs), size


def _take(connection: RespConnection, *, receive: bool = True) -> int:
    """Take the replies that are there; how many."""
    if receive and select.select([connection], [], [], 0)[0]:
        connection.receive()
    count = 0
    while connection.reply_nowait() is not PENDING:
        count += 1
    return count


def _input_ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    main()
