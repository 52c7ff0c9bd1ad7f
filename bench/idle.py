"""What an idle node costs: Σ RssAnon and CPU time of the node and its applier, with nothing asked of it.

Measured twice: on an empty data directory, and after 1,000,000 keys were loaded and applied and the node was
restarted. Expected: two CPython processes with aiohttp, LMDB and msgpack are 60-80 MB together; timers that fire
some tens of times a second cost less than 1 % of a core.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench import processes, redis_benchmark, resp_client, servers, status
from bench.results import Table, save
from bench.run import argument_parser, measured_run, step
from bench.samples import verdict
from bench.servers import Server

MEMORY_BAR_BYTES: Final = 90_000_000
CPU_BAR_PERCENT: Final = 1.0

_SETTLE_S: Final = 6.0  # longer than a generation's age: whatever start-up left to do is done


@dataclass(frozen=True, slots=True)
class Idle:
    """An idle node over some seconds."""

    anonymous_bytes: int
    cpu_percent: float
    processes: tuple[tuple[str, int], ...]  # (command line, RssAnon in bytes)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    seconds = arguments.seconds or (5 if arguments.quick else 30)
    keys = 100_000 if arguments.quick else redis_benchmark.KEYS
    with measured_run(arguments) as run, run.data_directory("edgekv") as directory:
        with servers.node(directory) as node:
            empty = _observe(node, seconds)
            step("empty node observed")
            resp_client.load(node.resp_address(), range(keys), b"x" * redis_benchmark.VALUE_BYTES)
            status.wait_applied(node)
        with servers.node(directory) as node:
            filled = _observe(node, seconds)
        found = {"empty": empty, f"{keys:,} keys, restarted": filled}
        save(
            "idle",
            quick=run.quick,
            machine_description=run.machine,
            settings={"seconds": seconds, "keys": keys},
            measurements={name: asdict(idle) for name, idle in found.items()},
            tables=[_table(found, seconds)],
        )


def _observe(node: Server, seconds: int) -> Idle:
    time.sleep(_SETTLE_S)
    pids = processes.family(node.pid)
    before_s, started = processes.cpu_s(pids), time.monotonic()
    time.sleep(seconds)
    node.check_alive()
    percent = (processes.cpu_s(pids) - before_s) / (time.monotonic() - started) * 100
    each = tuple((processes.command_of(pid), processes.anonymous_bytes([pid])) for pid in pids)
    return Idle(sum(size for _, size in each), percent, each)


def _table(found: dict[str, Idle], seconds: int) -> Table:
    rows = []
    for name, idle in found.items():
        megabytes = idle.anonymous_bytes / 1e6
        rows.append(
            (
                name,
                str(len(idle.processes)),
                f"{megabytes:.1f}",
                f"< 90 {verdict(idle.anonymous_bytes, below=MEMORY_BAR_BYTES)}",
                f"{idle.cpu_percent:.2f}",
                f"< 1 {verdict(idle.cpu_percent, below=CPU_BAR_PERCENT)}",
            )
        )
    return Table(
        f"An idle node over {seconds} s",
        ("node", "processes", "Σ RssAnon, MB", "bar", "CPU, % of a core", "bar"),
        tuple(rows),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=600)
    parser.add_argument("--seconds", type=int, default=0, help="of observation; 0: 30, or 5 with --quick")
    return parser


if __name__ == "__main__":
    main()
