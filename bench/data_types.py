"""Sets, maps and counters: durable SADD, HSET and INCR against Redis `always`, and what the size of a set costs.

Expected: each command is a row of its own, as SET is, and two lookups more: whether the element is new is asked of every
layer and of LMDB (0.75 µs), which a SET of a plain key never is. Redis asks one hash table. So the distance to Redis is
larger than that of SET (`bench.vs_redis`).

A set has one row per element, so an add to a set of a million costs what it costs in a small one, in time and in bytes of
the log. Both sets are in one node, applied, and the adds alternate between them, one at a time.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from bench import redis_benchmark, servers, status
from bench.redis_benchmark import Report
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import Ratio, Spread, percentile, verdict
from bench.servers import Server
from edgekv.cli.resp_client import RespConnection

COMMANDS: Final = ("sadd", "hset", "incr")
PIPELINE: Final = 16
RATE_BAR: Final = 1.0
SIZES: Final = (1_000, 1_000_000)
SIZE_BAR: Final = 1.5
TIMEOUT_S: Final = 120.0
_CHUNK: Final = 1_000

Start = Callable[[Path], AbstractContextManager[Server]]
Rates = dict[tuple[str, str], list[Report]]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    quick: bool = arguments.quick
    rounds: int = arguments.rounds or (1 if quick else 3)
    requests = 200_000 if quick else 1_000_000
    adds = 2_000 if quick else 10_000
    sizes = (1_000, 100_000) if quick else SIZES
    with measured_run(arguments) as run:
        rates = _rates(run, rounds, requests)
        latencies, logged = _sizes(run, sizes, adds)
        save(
            "data_types",
            quick=quick,
            machine_description=run.machine,
            settings={
                "connections": redis_benchmark.CONNECTIONS,
                "keys": redis_benchmark.KEYS,
                "pipeline": PIPELINE,
                "requests": requests,
                "rounds": rounds,
                "sizes": sizes,
                "adds": adds,
            },
            measurements={
                "per_s": {"/".join(key): [report.per_s for report in reports] for key, reports in rates.items()},
                "add_s": latencies,
                "logged_bytes_per_add": logged,
            },
            tables=[_rate_table(rates, rounds), _size_table(latencies, logged)],
        )


def _rates(run: Run, rounds: int, requests: int) -> Rates:
    """Each run starts on an empty directory; the servers alternate, and which is first."""
    rates: Rates = {}
    starts: dict[str, Start] = {"redis": servers.redis, "edgekv": servers.node}
    for index in range(rounds):
        for command in COMMANDS:
            for name in list(starts)[:: 1 if index % 2 == 0 else -1]:
                with run.data_directory(name) as directory, starts[name](directory) as server:
                    if name == "edgekv":
                        status.wait_settled(server)
                    report = redis_benchmark.run(server.resp_address(), command, pipeline=PIPELINE, requests=requests)
                    server.check_alive()
                rates.setdefault((command, name), []).append(report)
                step(f"round {index + 1} {command.upper()} {name}: {report.per_s:,.0f}/s, p99 {report.p99_ms} ms")
    return rates


def _sizes(run: Run, sizes: Sequence[int], adds: int) -> tuple[dict[int, list[float]], dict[int, float]]:
    """The time of each add to a set of each size, and the bytes of the log per add."""
    with run.data_directory("edgekv") as directory, servers.node(directory) as node:
        status.wait_settled(node)
        with RespConnection(node.resp_address(), TIMEOUT_S) as connection:
            for size in sizes:
                _fill(connection, size)
                step(f"a set of {size:,}")
            status.wait_applied(node)
            latencies: dict[int, list[float]] = {size: [] for size in sizes}
            for number in range(adds):
                for size in sizes:
                    started = time.perf_counter()
                    reply = connection.call(b"SADD", _key(size), b"new:%08d" % number)
                    latencies[size].append(time.perf_counter() - started)
                    assert reply == 1
            logged = {size: _logged(node, connection, size) for size in sizes}
        node.check_alive()
    return latencies, logged


def _fill(connection: RespConnection, size: int) -> None:
    for first in range(0, size, _CHUNK):
        connection.call(b"SADD", _key(size), *(b"old:%08d" % number for number in range(first, first + _CHUNK)))


def _logged(node: Server, connection: RespConnection, size: int) -> float:
    """Payload of the log per add, of 1,000 adds that are alone in their frames."""
    before = status.metric(node, "edgekv_wal_bytes_total")
    for number in range(_CHUNK):
        connection.call(b"SADD", _key(size), b"log:%08d" % number)
    return (status.metric(node, "edgekv_wal_bytes_total") - before) / _CHUNK


def _key(size: int) -> bytes:
    return b"set:%08d" % size


def _rate_table(rates: Rates, rounds: int) -> Table:
    rows = []
    for command in COMMANDS:
        theirs, ours = (Spread(tuple(report.per_s for report in rates[command, name])) for name in ("redis", "edgekv"))
        ratio = Ratio(ours, theirs, RATE_BAR)
        rows.append((command.upper(), theirs.text(), ours.text(), ratio.text(), f"{RATE_BAR} {ratio.verdict()}"))
    note = f"Medians (lowest-highest) of {rounds} alternating rounds; 50 connections, 10^6 keys, elements or fields."
    title = f"Durable SADD, HSET, INCR, pipeline {PIPELINE} (requests/s)"
    return Table(title, ("command", "Redis", "EdgeKV", "ratio", "bar"), tuple(rows), (note,))


def _size_table(latencies: dict[int, list[float]], logged: dict[int, float]) -> Table:
    small, large = latencies
    p99 = {size: percentile(values, 0.99) for size, values in latencies.items()}
    ratio = p99[large] / p99[small]
    rows = [
        (f"{size:,}", f"{percentile(values, 0.5) * 1e6:,.0f}", f"{p99[size] * 1e6:,.0f}", f"{logged[size]:.0f}", "")
        for size, values in latencies.items()
    ]
    word = verdict(ratio, below=SIZE_BAR)
    rows.append(("ratio", "", f"{ratio:.2f}", f"{logged[large] / logged[small]:.2f}", f"<= {SIZE_BAR} {word}"))
    return Table(
        "Durable SADD of a new element, one at a time",
        ("elements", "p50, µs", "p99, µs", "log bytes", "bar"),
        tuple(rows),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1800)
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 with --quick")
    return parser


if __name__ == "__main__":
    main()
