"""The storage path alone, without sockets: durable changes a second with 512 in flight, against embedded stores.

Each leg writes 100-byte values at random ones of 1,000,000 keys into an empty directory for a fixed time; the legs
of a round follow each other and the rounds are repeated. The stores are called with one put per transaction, and
with all 512 in one transaction. For the node the same 512 are in flight at once and it groups them itself
(`bench.engine_leg`): 512 callers with one key each, or 32 with runs of 16.

Expected: with 512 changes per fdatasync of 0.1-0.3 ms the disk would carry 1.7 to 5 million a second, so what is
measured is the cost per change in CPython; one transaction per put costs one or two fdatasyncs each.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench import embedded, machine
from bench.embedded import Puts, Store
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import Ratio, Spread, verdict
from bench.servers import ServerError
from bench.workload import KEYS, VALUE_BYTES, Workload

IN_FLIGHT: Final = 512

CHANGES_BAR_PER_S: Final = 150_000
LMDB_BAR: Final = 20.0

RUN_KEYS: Final = 16
LEG_MARGIN_S: Final = 90.0

EDGEKV: Final = f"EdgeKV, {IN_FLIGHT} callers"
EDGEKV_RUNS: Final = f"EdgeKV, {IN_FLIGHT // RUN_KEYS} callers with runs of {RUN_KEYS}"
LMDB_EACH: Final = "LMDB, each"


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    seconds = arguments.seconds or (1.0 if arguments.quick else 10.0)
    workload = Workload(arguments.seed)
    gc.freeze()  # A million keys need no looking through at every collection of a leg.
    with measured_run(arguments) as run:
        rates: dict[str, list[float]] = {}
        for index in range(rounds):
            for name, per_s in _round(run, workload, seconds, arguments.seed):
                rates.setdefault(name, []).append(per_s)
                step(f"round {index + 1} {name}: {per_s:,.0f}/s")
        spreads = {name: Spread(tuple(samples)) for name, samples in rates.items()}
        save(
            "write_path",
            quick=run.quick,
            machine_description=run.machine,
            settings={
                "in_flight": IN_FLIGHT,
                "keys": KEYS,
                "value_bytes": VALUE_BYTES,
                "rounds": rounds,
                "seconds": seconds,
                "seed": arguments.seed,
            },
            measurements={"changes_per_s": rates},
            tables=[_table(spreads, rounds, seconds)],
        )


def edgekv_leg(directory: Path, *, run_keys: int, seconds: float, seed: int) -> float:
    """The node's engine with 512 changes in flight, in calls of `run_keys`; durable changes a second."""
    command = [sys.executable, "-m", "bench.engine_leg", "--data-dir", str(directory), "--seconds", str(seconds)]
    command += ["--callers", str(IN_FLIGHT // run_keys), "--run", str(run_keys), "--seed", str(seed)]
    # SIGKILL of the leg, at a timeout or Ctrl-C, ends its applier too: that ends with its pipe.
    done = subprocess.run(
        command, cwd=machine.REPOSITORY, capture_output=True, text=True, timeout=seconds + LEG_MARGIN_S, check=False
    )
    if done.returncode:
        raise ServerError(f"bench.engine_leg failed: {done.stderr[-1000:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return float(measured["changes"] / measured["seconds"])


def _round(run: Run, workload: Workload, seconds: float, seed: int) -> Iterator[tuple[str, float]]:
    for name, run_keys in ((EDGEKV, 1), (EDGEKV_RUNS, RUN_KEYS)):
        with run.data_directory("edgekv") as directory:
            yield name, edgekv_leg(directory, run_keys=run_keys, seconds=seconds, seed=seed)
    for name, store in embedded.STORES.items():
        if (package := embedded.missing_package(store)) is not None:
            step(f"{name}: skipped, {package} is not installed")
            continue
        for label, size in (("each", 1), (f"groups of {IN_FLIGHT}", IN_FLIGHT)):
            with run.data_directory("store") as directory:
                yield f"{name}, {label}", _store_leg(store, directory, workload.puts(size), seconds)


def _store_leg(store: Store, directory: Path, batches: Iterator[Puts], seconds: float) -> float:
    """Write batch after batch for `seconds`; durable puts a second."""
    written = 0
    with store(directory) as write:
        started = time.perf_counter()
        deadline = started + seconds
        while time.perf_counter() < deadline:
            batch = next(batches)
            write(batch)
            written += len(batch)
        return written / (time.perf_counter() - started)


def _table(spreads: dict[str, Spread], rounds: int, seconds: float) -> Table:
    ours = spreads[EDGEKV]
    rows = []
    for name, spread in spreads.items():
        ratio = Ratio(ours, spread, LMDB_BAR if name == LMDB_EACH else None)
        bar = f">= {LMDB_BAR:.0f} times {ratio.verdict()}" if ratio.bar is not None else ""
        if name == EDGEKV:
            bar = f">= {CHANGES_BAR_PER_S:,}/s {verdict(ours.median, at_least=CHANGES_BAR_PER_S)}"
        rows.append((name, spread.text(), "" if name == EDGEKV else ratio.text(), bar))
    note = f"Medians (lowest-highest) of {rounds} rounds of {seconds:g} s a leg; 100-byte values, {KEYS:,} keys, no sockets."
    return Table(
        "The storage path alone (durable changes/s)", ("", "changes/s", "first row / it", "bar"), tuple(rows), (note,)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1800)
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 with --quick")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each leg; 0: 10, or 1 with --quick")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
