"""The longest callback of a node's event loop under load, and what a client sees of it.

Whatever runs on the loop holds up everybody, so the longest callback is the bound of every other client's wait.
The node measures it itself (metric `edgekv_loop_callback_seconds_max`: the longest since the last scrape); a PING
20 times a second on a connection of its own shows it from outside, with the time spent waiting for a core added.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench import redis_benchmark, resp_client, servers, status
from bench.results import Table, save
from bench.run import argument_parser, measured_run, step
from bench.samples import percentile, verdict

METRIC: Final = "edgekv_loop_callback_seconds_max"
BAR_MS: Final = 100.0
LOADS: Final = (("set", 1), ("set", 16), ("set", 64), ("get", 1), ("get", 16), ("get", 64))


@dataclass(frozen=True, slots=True)
class Latency:
    """One load: the loop's longest callback, and the PINGs during it."""

    load: str
    callback_max_ms: float
    ping_p50_ms: float
    ping_max_ms: float


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    requests = arguments.requests or (200_000 if arguments.quick else 2_000_000)
    with measured_run(arguments) as run, run.data_directory("edgekv") as directory, servers.node(directory) as node:
        found = []
        for command, pipeline in LOADS:
            status.metric(node, METRIC)  # From here on the metric speaks of this load only.
            with resp_client.Probe(node.resp_address(), (b"PING",)) as probe:
                count = requests if pipeline > 1 else requests // 4
                redis_benchmark.run(node.resp_address(), command, pipeline=pipeline, requests=count)
            name = f"{command.upper()}, pipeline {pipeline}"
            callback_ms = status.metric(node, METRIC) * 1e3
            found.append(Latency(name, callback_ms, percentile(probe.times_s, 0.5) * 1e3, probe.worst_s * 1e3))
            step(f"{name}: longest callback {callback_ms:.1f} ms, worst PING {probe.worst_s * 1e3:.1f} ms")
        node.check_alive()
        save(
            "loop_latency",
            quick=run.quick,
            machine_description=run.machine,
            settings={"requests": requests, "connections": redis_benchmark.CONNECTIONS},
            measurements={"loads": [asdict(latency) for latency in found]},
            tables=[_table(found, requests)],
        )


def _table(found: Sequence[Latency], requests: int) -> Table:
    rows = [
        (one.load, f"{one.callback_max_ms:.1f}", f"{one.ping_p50_ms:.2f}", f"{one.ping_max_ms:.1f}") for one in found
    ]
    worst = max(one.callback_max_ms for one in found)
    rows.append(("worst", f"{worst:.1f}", "", ""))
    note = (
        f"Bar: longest callback < {BAR_MS:g} ms, {verdict(worst, below=BAR_MS)}. "
        f"{requests:,} requests a load, a quarter of that unpipelined."
    )
    columns = ("load", "longest callback, ms", "PING p50, ms", "PING worst, ms")
    return Table("The event loop under load", columns, tuple(rows), (note,))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=900)
    parser.add_argument("--requests", type=int, default=0, help="of each load; 0: 2,000,000, or 200,000 with --quick")
    return parser


if __name__ == "__main__":
    main()
