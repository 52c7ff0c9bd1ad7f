"""Restart after SIGKILL: 1,000,000 keys in LMDB and 50 MB of log that LMDB does not have, until `ready`.

Three restarts a round: *clean* (nothing to replay: what interpreter, imports and LMDB cost), *killed* (node and
applier killed together, the applier having been stopped before it could apply) and *orphan* (only the node is
killed, its applier in the middle of a big transaction and still holding the directory's lock). After each, the
last values acknowledged before the kill are read back. The log is in the page cache, as after any process crash.

Expected: 50 MB are about 400,000 changes; decoding a column of plain SETs into a dict costs about 1 µs a change,
and an orphan ends within one chunk of rows, so both should be ready within 2 s.
"""

import argparse
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import processes, redis_benchmark, resp_client, servers, status
from bench.results import Table, save
from bench.run import argument_parser, measured_run, step
from bench.samples import Spread, verdict
from bench.servers import Server, ServerError

LOG_BYTES: Final = 50_000_000
MEMORY_BYTES: Final = 1 << 30
READY_BAR_S: Final = 3.0
REPLAY_BAR_PER_S: Final = 200_000

_CHANGE_BYTES: Final = 16 + 100 + 4  # key, value and their msgpack headers
_READ_BACK: Final = 2_000
_APPLIER_BUSY_S: Final = 0.15  # CPU time after which its transaction is well under way
_APPLIER_TIMEOUT_S: Final = 60.0
_ORPHAN_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart. `changes` and `log_bytes` are what was unapplied when the node was killed."""

    kind: str
    ready_s: float
    changes: int
    log_bytes: int


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    keys = 200_000 if arguments.quick else redis_benchmark.KEYS
    changes = (LOG_BYTES // 2 if arguments.quick else LOG_BYTES) // _CHANGE_BYTES
    with measured_run(arguments) as run, run.data_directory("edgekv") as directory:
        with _node(directory) as node:
            resp_client.load(node.resp_address(), range(keys), _value(b"first"))
            status.wait_applied(node)
            step(f"{keys:,} keys applied")
        restarts = []
        for index in range(rounds):
            dice = random.Random(index)
            for kind in ("clean", "killed", "orphan"):
                restart = _sure_restart(kind, directory, [dice.randrange(keys) for _ in range(changes)], index)
                restarts.append(restart)
                step(f"round {index + 1} {kind}: ready after {restart.ready_s:.2f} s, {restart.log_bytes:,} B of log")
        save(
            "recovery",
            quick=run.quick,
            machine_description=run.machine,
            settings={"keys": keys, "changes": changes, "rounds": rounds, "memory_bytes": MEMORY_BYTES},
            measurements={"restarts": [asdict(restart) for restart in restarts]},
            tables=[_table(restarts, keys)],
        )


class NoOrphan(ServerError):
    """The applier had ended with its node: it was between two transactions, or at a point where it looks."""


def _sure_restart(kind: str, directory: Path, numbers: Sequence[int], index: int) -> Restart:
    """`_restart`, again when it left no orphan where one was wanted."""
    for _ in range(_ORPHAN_ATTEMPTS):
        try:
            return _restart(kind, directory, numbers, index)
        except NoOrphan:
            step("no orphan, once more")
    raise ServerError(f"no applier outlived its node in {_ORPHAN_ATTEMPTS} attempts")


def _restart(kind: str, directory: Path, numbers: Sequence[int], index: int) -> Restart:
    """Prepare the data directory, end the node the given way, start it again, check what it holds."""
    value = _value(b"%s-%d" % (kind.encode(), index))
    if kind == "clean":
        with _node(directory) as node:
            return Restart(kind, node.ready_s, 0, 0)
    with _node(directory) as node:
        applier = status.applier_pid(node)
        if kind == "killed":
            os.kill(applier, signal.SIGSTOP)
        busy_from_s = processes.cpu_s([applier])
        resp_client.load(node.resp_address(), numbers, value)
        if kind == "orphan":
            _wait_busy(applier, busy_from_s)
            if not status.unapplied_bytes(node):
                raise NoOrphan
        node.kill()
        if kind == "killed":
            os.kill(applier, signal.SIGKILL)
        elif not processes.is_running(applier):
            raise NoOrphan
        # The orphan lives on in the first node's process group, which is killed when this block is left: not before
        # the second node is ready.
        with _node(directory) as again:
            _check(again, numbers, value)
            status.wait_applied(again)
            return Restart(kind, again.ready_s, len(numbers), len(numbers) * _CHANGE_BYTES)


@contextmanager
def _node(directory: Path) -> Iterator[Server]:
    with servers.node(directory, memory_bytes=MEMORY_BYTES) as node:
        yield node


def _wait_busy(applier: int, busy_from_s: float) -> None:
    deadline = time.monotonic() + _APPLIER_TIMEOUT_S
    while processes.cpu_s([applier]) - busy_from_s < _APPLIER_BUSY_S:
        if time.monotonic() > deadline:
            raise ServerError(f"the applier did not begin within {_APPLIER_TIMEOUT_S} s")
        time.sleep(0.005)


def _check(node: Server, numbers: Sequence[int], value: bytes) -> None:
    """The last acknowledged values are there."""
    last = numbers[-_READ_BACK:]
    wrong = sum(found != value for found in resp_client.read(node.resp_address(), last))
    if wrong:
        raise ServerError(f"{wrong} of {len(last)} acknowledged values are lost after the restart")


def _value(word: bytes) -> bytes:
    return word.ljust(redis_benchmark.VALUE_BYTES, b".")


def _table(restarts: Sequence[Restart], keys: int) -> Table:
    rows = []
    clean_s = Spread(tuple(r.ready_s for r in restarts if r.kind == "clean"))
    for kind in ("clean", "killed", "orphan"):
        some = [restart for restart in restarts if restart.kind == kind]
        ready_s = Spread(tuple(restart.ready_s for restart in some))
        log_mb = f"{some[0].log_bytes / 1e6:.0f}"
        # A bar on the worst case is judged on the worst round.
        bar = f"< {READY_BAR_S:g} s {verdict(ready_s.high, below=READY_BAR_S)}"
        rate, rate_bar = "", ""
        if kind == "killed":
            # What lies between a clean start and this one is the replay.
            per_s = some[0].changes / max(ready_s.median - clean_s.median, 1e-3)
            rate, rate_bar = f"{per_s:,.0f}", f">= {REPLAY_BAR_PER_S:,} {verdict(per_s, at_least=REPLAY_BAR_PER_S)}"
        rows.append((kind, log_mb, f"{some[0].changes:,}", ready_s.text(2), bar, rate, rate_bar))
    columns = ("restart", "unapplied log, MB", "changes", "ready after, s", "bar", "replay, changes/s", "bar")
    note = "Replay rate: changes over (killed - clean), medians. Every restart read acknowledged values back."
    return Table(f"Restart after SIGKILL with {keys:,} keys", columns, tuple(rows), (note,))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=900)
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 with --quick")
    return parser


if __name__ == "__main__":
    main()
