"""The node's leg of `bench.write_path`: a whole node in this process, driven through its verbs instead of a socket.

A number of callers each have one call in flight: SET of a run of keys, then wait until it is durable, then the
next. A run of one key is what an unpipelined client sends. Everything behind the listeners works as in a server:
uvloop, group commit on the flusher's thread, memtable, applier process, back-pressure.

Half of the callers start while the first half's frame is being synced. Without that all calls would meet in one
frame and the processor would wait for the disk and the disk for the processor, which clients on sockets do not do.

Run by `bench.write_path` as a process of its own (`python -m bench.engine_leg`), because a node wants its process
to itself: interpreter switch interval, garbage collector and signals. Prints one JSON line.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop

from bench.workload import Workload
from edgekv.cli.serve import SWITCH_INTERVAL_S
from edgekv.config import load
from edgekv.errors import EdgeKVError
from edgekv.limits import SPARE_SEGMENTS
from edgekv.server import Server

_SETTLE_POLL_S: Final = 0.05


class Callers:
    """The callers of one node; as the waiter of every frame, it learns which calls are durable."""

    def __init__(self, server: Server, columns: Iterator[tuple[list[bytes], list[bytes]]], seconds: float) -> None:
        self._server: Final = server
        self._columns: Final = columns
        self._seconds: Final = seconds
        self._loop: Final = asyncio.get_running_loop()
        self._ready = 0  # callers with no call in flight
        self._due = False
        self._started_s = 0.0
        self.durable_changes = 0
        self.elapsed_s = 0.0
        self.error: EdgeKVError | None = None

    def start(self, count: int) -> None:
        """Let `count` callers make their first call, half of them one turn of the loop later.

        Not before the new data directory has its spare log segments, which are zeroed in the background at first.
        """
        spares = self._server.engine.status()["spare_segments"]
        assert isinstance(spares, int)
        if spares < SPARE_SEGMENTS:
            self._loop.call_later(_SETTLE_POLL_S, self.start, count)
            return
        self._started_s = time.perf_counter()
        self._ready = count // 2
        self._submit()
        self._loop.call_soon(self._join, count - count // 2)

    def release(self, payload: object) -> None:
        """A call is durable (Waiter); `payload` is how many changes it made."""
        assert isinstance(payload, int)
        self.durable_changes += payload
        self._ready += 1
        self._submit_soon()

    def fail(self, error: EdgeKVError) -> None:
        """The log failed (Waiter)."""
        self.error = error
        self._end()

    def _join(self, count: int) -> None:
        self._ready += count
        self._submit_soon()

    def _submit_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._submit)

    def _submit(self) -> None:
        self._due = False
        if self.elapsed_s:
            return
        if time.perf_counter() - self._started_s >= self._seconds:
            self._end()
            return
        operations = self._server.operations
        engine = operations.engine
        if engine.write_blocked:
            engine.on_room.append(self._submit_soon)
            return
        for _ in range(self._ready):
            keys, values = next(self._columns)
            operations.set_run(keys, values)
            frame = engine.barrier
            assert frame is not None, "a SET leaves the frame it wrote to"
            frame.waiters.append((self, len(keys)))
        self._ready = 0
        self._server.kick_soon()

    def _end(self) -> None:
        self.elapsed_s = time.perf_counter() - self._started_s
        os.kill(os.getpid(), signal.SIGTERM)  # the way a server is stopped


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=512)
    parser.add_argument("--run", type=int, default=1, help="keys of a call")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    uvloop.install()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    callers = asyncio.run(_drive(arguments, Workload(arguments.seed)))
    if callers.error is not None or not callers.elapsed_s:
        sys.exit(f"the leg did not end well: {callers.error or 'the node stopped by itself'}")
    print(json.dumps({"changes": callers.durable_changes, "seconds": callers.elapsed_s}))


async def _drive(arguments: argparse.Namespace, workload: Workload) -> Callers:
    flags = {"data_dir": str(arguments.data_dir), "http": "127.0.0.1:0", "resp": "127.0.0.1:0"}
    server = Server(load(file=None, environ={}, flags=flags).config)
    callers = Callers(server, workload.columns(arguments.run), arguments.seconds)

    def announced(line: str) -> None:
        if line == "ready":
            asyncio.get_running_loop().call_soon(callers.start, arguments.callers)

    await server.run(announced)
    return callers


if __name__ == "__main__":
    main()
