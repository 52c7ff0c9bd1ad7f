"""A node against Redis with `appendfsync always`, by redis-benchmark: durable SET, sustained SET, GET.

Expected, from one fdatasync of about 0.2 ms: both group what arrives during a sync, so at pipeline 1 (50 in
flight) the event loop is the limit, not the disk; from pipeline 16 on the cost per command decides. A GET from
LMDB costs CPython about 2 µs, hence the bar of one half of Redis at pipelines.

Each SET burst starts from an empty data directory, once the node has zeroed its spare log segments there; both
servers run with their defaults, except for `memory_bytes` of the node in the sustained run. The sustained run watches
three more things: the rate of each tenth, the worst stall (the slowest answer of redis-benchmark and of a 20 Hz
probe), and Σ RssAnon of the server's processes.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import redis_benchmark, resp_client, servers, status
from bench.processes import MemoryWatch
from bench.redis_benchmark import Report
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import Ratio, Spread, verdict
from bench.servers import Server
from edgekv.cli.resp_client import RespConnection

SUSTAINED_PIPELINE: Final = 16
SUSTAINED_MEMORY_BYTES: Final = 512 << 20
IDLE_TIMEOUT_S: Final = 180.0

SET_BARS: Final = {1: 0.9, 16: 1.1, 64: 1.1}
GET_BARS: Final = {1: 1.0, 16: 0.5, 64: 0.5}
SUSTAINED_BAR: Final = 0.9
STALL_BAR_S: Final = 1.0
LAST_TENTH_BAR: Final = 0.8
MEMORY_BAR_BYTES: Final = 1.1 * 2**30

Start = Callable[[Path], AbstractContextManager[Server]]


@dataclass(frozen=True, slots=True)
class Sustained:
    """One long run of SETs against one server."""

    per_s: float
    tenths_per_s: tuple[float, ...]
    slowest_request_s: float
    slowest_probe_s: float
    peak_anonymous_bytes: int

    @property
    def last_tenth(self) -> float:
        return self.tenths_per_s[-1] / self.tenths_per_s[0]

    @property
    def stall_s(self) -> float:
        return max(self.slowest_request_s, self.slowest_probe_s)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    pipelines: tuple[int, ...]
    burst_requests: int
    unpipelined_requests: int
    sustained_requests: int
    parts: frozenset[str]

    def requests(self, pipeline: int) -> int:
        return self.unpipelined_requests if pipeline == 1 else self.burst_requests


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    plan = _plan(arguments)
    redis_options = tuple(word for option in arguments.redis_option for word in option.split())
    starts: dict[str, Start] = {
        "redis": lambda directory: servers.redis(directory, redis_options),
        "edgekv": _settled_node,
    }
    sustained_starts = starts | {"edgekv": lambda path: _settled_node(path, memory_bytes=SUSTAINED_MEMORY_BYTES)}
    with measured_run(arguments) as run:
        tables: list[Table] = []
        measurements: dict[str, object] = {}
        if "burst" in plan.parts:
            sets = _burst(run, plan, starts)
            measurements["set"] = _raw(sets)
            tables.append(_ratio_table("Durable SET, burst (requests/s)", sets, plan, SET_BARS))
        if "sustained" in plan.parts:
            long_runs = _sustained(run, plan, sustained_starts)
            measurements["sustained"] = {name: [asdict(one) for one in runs] for name, runs in long_runs.items()}
            tables += _sustained_tables(plan, long_runs)
        if "get" in plan.parts:
            gets = _gets(run, plan, starts)
            measurements["get"] = _raw(gets)
            tables.append(_ratio_table("GET, applier idle (requests/s)", gets, plan, GET_BARS))
        settings: dict[str, object] = {
            "connections": redis_benchmark.CONNECTIONS,
            "value_bytes": redis_benchmark.VALUE_BYTES,
            "keys": redis_benchmark.KEYS,
            "rounds": plan.rounds,
            "requests": {pipeline: plan.requests(pipeline) for pipeline in plan.pipelines},
            "sustained_requests": plan.sustained_requests,
            "sustained_memory_bytes": SUSTAINED_MEMORY_BYTES,
            "redis_options": ["--appendonly yes", "--appendfsync always", '--save ""', *arguments.redis_option],
        }
        save(
            "vs_redis",
            quick=run.quick,
            machine_description=run.machine,
            settings=settings,
            measurements=measurements,
            tables=tables,
        )


@contextmanager
def _settled_node(directory: Path, *, memory_bytes: int | None = None) -> Iterator[Server]:
    with servers.node(directory, memory_bytes=memory_bytes) as node:
        status.wait_settled(node)
        yield node


def _burst(run: Run, plan: Plan, starts: Mapping[str, Start]) -> dict[tuple[str, int], list[Report]]:
    reports: dict[tuple[str, int], list[Report]] = {(name, p): [] for name in starts for p in plan.pipelines}
    for index, pipeline, name in _turns(plan, starts):
        with run.data_directory(name) as directory, starts[name](directory) as server:
            report = redis_benchmark.run(
                server.resp_address(), "set", pipeline=pipeline, requests=plan.requests(pipeline)
            )
            server.check_alive()
        reports[name, pipeline].append(report)
        step(f"round {index + 1} SET pipeline {pipeline} {name}: {report.per_s:,.0f}/s, p99 {report.p99_ms} ms")
    return reports


def _gets(run: Run, plan: Plan, starts: Mapping[str, Start]) -> dict[tuple[str, int], list[Report]]:
    """Both servers are loaded once and stay up; the GETs alternate between them."""
    reports: dict[tuple[str, int], list[Report]] = {(name, p): [] for name in starts for p in plan.pipelines}
    with (
        run.data_directory("redis") as redis_directory,
        run.data_directory("edgekv") as node_directory,
        starts["redis"](redis_directory) as redis,
        starts["edgekv"](node_directory) as node,
    ):
        loaded = {server.name: server for server in (redis, node)}
        for server in loaded.values():
            resp_client.load(server.resp_address(), range(redis_benchmark.KEYS), b"x" * redis_benchmark.VALUE_BYTES)
            step(f"loaded {server.name}")
        _wait_idle(redis, node)
        for index, pipeline, name in _turns(plan, starts):
            report = redis_benchmark.run(
                loaded[name].resp_address(), "get", pipeline=pipeline, requests=plan.requests(pipeline)
            )
            reports[name, pipeline].append(report)
            step(f"round {index + 1} GET pipeline {pipeline} {name}: {report.per_s:,.0f}/s, p99 {report.p99_ms} ms")
    return reports


def _sustained(run: Run, plan: Plan, starts: Mapping[str, Start]) -> dict[str, list[Sustained]]:
    runs: dict[str, list[Sustained]] = {name: [] for name in starts}
    for index in range(plan.rounds):
        for name in _order(starts, index):
            with run.data_directory(name) as directory, starts[name](directory) as server:
                one = _sustained_once(server, plan.sustained_requests)
            runs[name].append(one)
            step(
                f"round {index + 1} sustained {name}: {one.per_s:,.0f}/s, worst stall {one.stall_s * 1e3:.0f} ms, "
                f"last tenth {one.last_tenth:.2f}, peak {one.peak_anonymous_bytes / 2**20:,.0f} MiB"
            )
    return runs


def _sustained_once(server: Server, requests: int) -> Sustained:
    address = server.resp_address()
    with MemoryWatch(server.pid) as memory, resp_client.Probe(address) as probe:
        report = redis_benchmark.run(address, "set", pipeline=SUSTAINED_PIPELINE, requests=requests)
    server.check_alive()
    return Sustained(report.per_s, report.tenths_per_s(), report.max_ms / 1e3, probe.worst_s, memory.peak_bytes)


def _wait_idle(redis: Server, node: Server) -> None:
    """Until neither server has work of its own left: no AOF rewrite in Redis, nothing unapplied in the node."""
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while not (_redis_is_idle(redis) and status.unapplied_bytes(node) == 0):
        if time.monotonic() > deadline:
            raise servers.ServerError(f"the servers still had work after {IDLE_TIMEOUT_S} s")
        time.sleep(0.2)


def _redis_is_idle(redis: Server) -> bool:
    with RespConnection(redis.resp_address(), IDLE_TIMEOUT_S) as connection:
        information = connection.call(b"INFO", b"persistence")
    assert isinstance(information, bytes)
    return b"aof_rewrite_in_progress:0" in information


def _turns(plan: Plan, starts: Mapping[str, Start]) -> Iterator[tuple[int, int, str]]:
    """(round, pipeline, server), the servers alternating and the first one changing with the round."""
    for index in range(plan.rounds):
        for pipeline in plan.pipelines:
            for name in _order(starts, index):
                yield index, pipeline, name


def _order(starts: Mapping[str, Start], index: int) -> list[str]:
    names = list(starts)
    return names if index % 2 == 0 else names[::-1]


def _ratio_table(
    title: str, reports: Mapping[tuple[str, int], list[Report]], plan: Plan, bars: Mapping[int, float]
) -> Table:
    rows = []
    for pipeline in plan.pipelines:
        ours = Spread(tuple(report.per_s for report in reports["edgekv", pipeline]))
        theirs = Spread(tuple(report.per_s for report in reports["redis", pipeline]))
        ratio = Ratio(ours, theirs, bars.get(pipeline))
        p99 = [Spread(tuple(r.p99_ms for r in reports[name, pipeline])).text(1) for name in ("redis", "edgekv")]
        bar = f"{ratio.bar} {ratio.verdict()}" if ratio.bar is not None else ""
        rows.append((str(pipeline), theirs.text(), ours.text(), ratio.text(), bar, *p99))
    columns = ("pipeline", "Redis", "EdgeKV", "ratio", "bar", "p99 Redis, ms", "p99 EdgeKV, ms")
    return Table(title, columns, tuple(rows), (_spread_note(plan),))


def _sustained_tables(plan: Plan, runs: Mapping[str, Sequence[Sustained]]) -> list[Table]:
    ours, theirs = runs["edgekv"], runs["redis"]
    ratio = Ratio(Spread(tuple(r.per_s for r in ours)), Spread(tuple(r.per_s for r in theirs)), SUSTAINED_BAR)
    # A bar on the worst case is judged on the worst round, not on the median.
    stall, tenth = max(r.stall_s for r in ours), min(r.last_tenth for r in ours)
    peak = max(r.peak_anonymous_bytes for r in ours)

    def both(value: Callable[[Sustained], float], digits: int) -> tuple[str, str]:
        return Spread(tuple(map(value, theirs))).text(digits), Spread(tuple(map(value, ours))).text(digits)

    rows = (
        ("requests/s", *both(lambda r: r.per_s, 0), ratio.text(), f"{SUSTAINED_BAR} {ratio.verdict()}"),
        ("worst stall, ms", *both(lambda r: r.stall_s * 1e3, 0), "", f"< 1,000 {verdict(stall, below=STALL_BAR_S)}"),
        (
            "last tenth / first tenth",
            *both(lambda r: r.last_tenth, 2),
            "",
            f"{LAST_TENTH_BAR} {verdict(tenth, at_least=LAST_TENTH_BAR)}",
        ),
        (
            "peak Σ RssAnon, MiB",
            *both(lambda r: r.peak_anonymous_bytes / 2**20, 0),
            "",
            f"<= {MEMORY_BAR_BYTES / 2**20:,.0f} {verdict(peak, below=MEMORY_BAR_BYTES)}",
        ),
    )
    title = f"Sustained: {plan.sustained_requests:,} durable SETs, pipeline {SUSTAINED_PIPELINE}, memory_bytes 512 MiB"
    tenths = tuple((str(at + 1), *both(lambda r: r.tenths_per_s[at], 0)) for at in range(10))  # noqa: B023 - called at once
    return [
        Table(title, ("", "Redis", "EdgeKV", "ratio", "bar"), rows, (_spread_note(plan),)),
        Table("Sustained: requests/s in each tenth", ("tenth", "Redis", "EdgeKV"), tenths),
    ]


def _spread_note(plan: Plan) -> str:
    return f"Medians (lowest-highest) of {plan.rounds} alternating rounds; 50 connections, 100-byte values, 10^6 keys."


def _raw(reports: Mapping[tuple[str, int], list[Report]]) -> dict[str, object]:
    return {
        f"{name}/{pipeline}": [
            {"per_s": r.per_s, "p50_ms": r.p50_ms, "p99_ms": r.p99_ms, "max_ms": r.max_ms} for r in samples
        ]
        for (name, pipeline), samples in reports.items()
    }


def _plan(arguments: argparse.Namespace) -> Plan:
    quick: bool = arguments.quick
    requests: int = arguments.requests or (200_000 if quick else 1_000_000)
    return Plan(
        rounds=arguments.rounds or (1 if quick else 3),
        pipelines=tuple(map(int, arguments.pipelines.split(","))),
        burst_requests=requests,
        unpipelined_requests=min(requests, 100_000) if quick else requests,
        sustained_requests=arguments.sustained_requests or (1_000_000 if quick else 5_000_000),
        parts=frozenset(arguments.parts.split(",")),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=3600)
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 with --quick")
    parser.add_argument("--pipelines", default="1,16,64")
    parser.add_argument("--requests", type=int, default=0, help="of a burst; 0: 1,000,000, or 200,000 with --quick")
    parser.add_argument("--sustained-requests", type=int, default=0, help="0: 5,000,000, or 1,000,000 with --quick")
    parser.add_argument("--parts", default="burst,sustained,get", help="which of burst, sustained, get")
    parser.add_argument(
        "--redis-option", action="append", default=[], help='more flags for Redis: "--auto-aof-rewrite-percentage 0"'
    )
    return parser


if __name__ == "__main__":
    main()
