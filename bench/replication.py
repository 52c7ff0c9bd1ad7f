"""An edge and its cloud hub as processes: lag, highest rate, catch-up after a cut, bytes on the link, heal; Redis beside it.

Expected: a change waits for the edge's sync, goes over loopback, and is read from the hub's memory, so a few milliseconds.
On two cores the hub does for each change most of what the edge does, hence one half of the rate. A run of plain SETs costs the
receiver about what it costs to write, 2 to 3 µs, so catch-up is several 100,000/s. JSON rows compress to a fifth.

Parts: `steady`, `highest`, `catch-up`, `bytes`, `quiet`, `heal`. What each measures and how is said under its table.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench import replication_bytes as costs
from bench import replication_rates as rates
from bench.results import Table, save
from bench.run import argument_parser, measured_run

PARTS: Final = ("steady", "highest", "catch-up", "bytes", "quiet", "heal")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    quick: bool = arguments.quick
    parts: list[str] = arguments.parts or list(PARTS)
    archive: Path | None = arguments.flights
    rounds: int = arguments.rounds or (1 if quick else 3)
    settings: dict[str, Any] = {"rounds": rounds, "flights": archive is not None}
    measurements: dict[str, object] = {}
    tables: list[Table] = []
    with measured_run(arguments) as run:
        if "steady" in parts:
            settings["steady"] = {"seconds": 2.0 if quick else 15.0, "per_s": 2_000 if quick else rates.OFFERED_PER_S}
            steady = rates.steady(run, rounds, **settings["steady"])
            measurements["steady"] = {name: [asdict(one) for one in runs] for name, runs in steady.items()}
            tables.append(rates.steady_table(steady, settings["steady"]["per_s"]))
        if "highest" in parts:
            settings["highest"] = {"requests": 50_000 if quick else 1_000_000}
            highest = rates.highest(run, rounds, **settings["highest"])
            measurements["highest"] = {
                f"{name}, {'connected' if connected else 'alone'}": [asdict(one) for one in runs]
                for (name, connected), runs in highest.items()
            }
            tables.append(rates.highest_table(highest, **settings["highest"]))
        if "catch-up" in parts:
            settings["catch-up"] = {"changes": 30_000 if quick else 1_000_000}
            catch_ups = rates.catch_up(run, rounds, **settings["catch-up"])
            measurements["catch-up"] = {name: [asdict(one) for one in runs] for name, runs in catch_ups.items()}
            tables.append(rates.catch_up_table(catch_ups))
        if "bytes" in parts:
            settings["bytes"] = {"count": 5_000 if quick else 100_000, "paced": 1_000 if quick else 20_000}
            batched = costs.batched(run, archive, **settings["bytes"])
            measurements["bytes"] = {name: asdict(one) for name, one in batched.items()}
            tables.append(costs.batched_table(batched))
        if "quiet" in parts:
            settings["quiet"] = {"seconds": 5 if quick else 60}
            quiet = costs.quiet(run, archive, **settings["quiet"])
            measurements["quiet"] = asdict(quiet)
            tables.append(costs.quiet_table(quiet))
        if "heal" in parts:
            settings["heal"] = {"keys": 1_000 if quick else 10_000, "cut_s": 0.2 if quick else costs.CUT_S}
            heals = costs.heals(run, 2 if quick else 20, **settings["heal"])
            measurements["heal"] = [asdict(one) for one in heals]
            tables.append(costs.heal_table(heals, **settings["heal"]))
        save(
            "replication",
            quick=quick,
            machine_description=run.machine,
            settings=settings,
            measurements=measurements,
            tables=tables,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1800)
    parser.add_argument(
        "--rounds", type=int, default=0, help="of steady, highest and catch-up; 0: 3, or 1 with --quick"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="these only; absent: all")
    parser.add_argument("--flights", type=Path, default=None, help="flights.csv.zip; absent: the bundled weather")
    return parser


if __name__ == "__main__":
    main()
