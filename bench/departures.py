"""All departures of 2013, written at the three airports they left from while links are cut at random: the cloud ends up with the CSV.

`edgekv dev` with a cloud hub and EWR, JFK and LGA; three writers at once, each row one change of several keys with an operation id.
Meanwhile a link at a time is cut for some seconds, by a seed. At the end all links are healed, and what the cloud and each airport
hold is compared with a plain computation over the file: every row, every counter, every set, and no key besides.

flight/EWR/2013-01-01T10:00:00Z/UA1545/0   register   the row as JSON; the last number is that of the row in the file
departures/2013-01-01                      counter    of that day, of all airports
delay/UA                                   counter    minutes of delay of that airline, early ones subtract
planes/2013-01-01                          set        tail numbers of that day
"""

import argparse
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import flights
from bench.flights import Row
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.servers import ServerError
from edgekv.cli.demo_cluster import DemoCluster
from edgekv.cli.demo_site import Site
from edgekv.cli.demo_weather import NO_VALUE, SITES, Holdings, difference
from edgekv.errors import EdgeKVError

QUICK_ROWS: Final = 1_500
CUT_S: Final = (0.5, 8.0)
UP_S: Final = (0.5, 5.0)
QUICK_S: Final = (0.1, 0.4)
CONVERGE_TIMEOUT_S: Final = 300.0

_SENTINEL: Final = b"sentinel/"


@dataclass(frozen=True, slots=True)
class Found:
    """One run; seconds of a clock."""

    rows: int
    keys: int
    cuts: int
    cut_s: float
    ingest_s: float
    converge_s: float
    compare_s: float
    link_bytes: dict[str, int]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rows = list(flights.rows(arguments.flights))
    if arguments.quick:
        rows = rows[:: max(1, len(rows) // QUICK_ROWS)]
    with measured_run(arguments) as run:
        try:
            found = _measure(run, rows, random.Random(arguments.seed))
        except EdgeKVError as error:
            raise ServerError(f"the run failed: {error}") from error
        save(
            "departures",
            quick=run.quick,
            machine_description=run.machine,
            settings={"seed": arguments.seed, "flights": arguments.flights is not None, "cut_s": CUT_S, "up_s": UP_S},
            measurements=asdict(found),
            tables=[_table(found, "departures" if arguments.flights else "hours of weather")],
        )


def _measure(run: Run, rows: Sequence[Row], dice: random.Random) -> Found:
    changes: dict[str, list[tuple[bytes, ...]]] = {site: [] for site in SITES}
    for number, row in enumerate(rows):
        changes[row["origin"]].append(_operations(row, number))
    wanted = _wanted(rows)
    with run.data_directory("departures") as directory, DemoCluster(directory) as cluster:
        began = time.monotonic()
        writers = [_Writer(cluster.sites[site], changes[site]) for site in SITES]
        cuts, cut_s = _cut_at_random(cluster, writers, dice, run.quick)
        for writer in writers:
            writer.finish()
        written = time.monotonic()
        step(f"{len(rows):,} rows are acknowledged after {written - began:.0f} s and {cuts} cuts")
        _converge(cluster)
        converged = time.monotonic()
        step(f"all nodes have everything after {converged - written:.1f} s more")
        for site in cluster.sites.values():
            wrong = difference(wanted, _without_sentinels(site.holdings()))
            if wrong:
                raise ServerError(f"{site.name} does not hold what the file says: {wrong}")
            step(f"{site.name} holds what the file says")
        compared = time.monotonic()
        return Found(
            rows=len(rows),
            keys=wanted.count(),
            cuts=cuts,
            cut_s=cut_s,
            ingest_s=written - began,
            converge_s=converged - written,
            compare_s=compared - converged,
            link_bytes=cluster.link_bytes(),
        )


class _Writer:
    """The writer of one airport, in a thread: what takes time is the nodes."""

    def __init__(self, site: Site, changes: Sequence[tuple[bytes, ...]]) -> None:
        self._failure: BaseException | None = None
        self._site: Final = site
        self._changes: Final = changes
        self._thread: Final = threading.Thread(target=self._run, name=f"writer-{site.name}", daemon=True)
        self._thread.start()

    @property
    def is_writing(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        """Wait for it; raises what went wrong."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._site.write(self._changes, lambda _: None, self._gone)
        except BaseException as error:  # noqa: BLE001 - it is raised where the writer is waited for
            self._failure = error

    def _gone(self) -> None:
        raise ServerError(f"the node of {self._site.name} is gone")


def _cut_at_random(
    cluster: DemoCluster, writers: Sequence[_Writer], dice: random.Random, quick: bool
) -> tuple[int, float]:
    """A link at a time until all is written: how often, and for how long in all. At least once, and all are up at the end."""
    cuts, cut_s = 0, 0.0
    while not cuts or any(writer.is_writing for writer in writers):
        _pause(writers, dice.uniform(*(QUICK_S if quick else UP_S)))
        site = dice.choice(SITES)
        cluster.cut(site)
        began = time.monotonic()
        _pause(writers, dice.uniform(*(QUICK_S if quick else CUT_S)))
        cluster.heal(site)
        cuts, cut_s = cuts + 1, cut_s + time.monotonic() - began
    return cuts, cut_s


def _pause(writers: Sequence[_Writer], seconds: float) -> None:
    """As long, or until all is written."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(writer.is_writing for writer in writers):
        time.sleep(0.02)


def _converge(cluster: DemoCluster) -> None:
    """Each node's last write is at every node; then all have the same vectors and digests."""
    deadline = time.monotonic() + CONVERGE_TIMEOUT_S
    for name, site in cluster.sites.items():
        site.ask(b"SET", _SENTINEL + name.encode(), b"last")
    for name in cluster.sites:
        for site in cluster.sites.values():
            site.wait_value(_SENTINEL + name.encode(), b"last", deadline)
    command = [sys.executable, "-m", "edgekv", "cluster", "verify", "--timeout-s", str(CONVERGE_TIMEOUT_S)]
    for site in cluster.sites.values():
        command += ["--http", str(site.http)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"the nodes do not hold the same: {done.stdout[-500:]}{done.stderr[-500:]}")


def _operations(row: Row, number: int) -> tuple[bytes, ...]:
    """The arguments of one EDGEKV.BATCH."""
    written = [b"PUT", b"flight/" + flights.key_of(row, number), flights.value_of(row), b"0"]
    for key, amount in _counts(row):
        written += [b"ADD", key, b"%d" % amount]
    for key, member in _members(row):
        written += [b"SADD", key, member]
    return tuple(written)


def _wanted(rows: Sequence[Row]) -> Holdings:
    """By plain computation."""
    found, counts = Holdings(), dict[bytes, int]()
    for number, row in enumerate(rows):
        found.strings[b"flight/" + flights.key_of(row, number)] = flights.value_of(row)
        for key, amount in _counts(row):
            counts[key] = counts.get(key, 0) + amount
        for key, member in _members(row):
            found.sets.setdefault(key, set()).add(member)
    found.strings.update({key: b"%d" % amount for key, amount in counts.items()})
    return found


def _counts(row: Row) -> list[tuple[bytes, int]]:
    """The bundled weather has neither airlines nor planes: its directions of wind take their place."""
    counts = [(f"departures/{_day(row)}".encode(), 1)]
    delay = row.get("dep_delay", NO_VALUE)
    if delay not in (NO_VALUE, "") and float(delay):
        counts.append((f"delay/{row['carrier']}".encode(), int(float(delay))))
    return counts


def _members(row: Row) -> list[tuple[bytes, bytes]]:
    member = row["tailnum"] if "tailnum" in row else row["wind_dir"]
    return [(f"planes/{_day(row)}".encode(), member.encode())] if member not in (NO_VALUE, "") else []


def _day(row: Row) -> str:
    return f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"


def _without_sentinels(found: Holdings) -> Holdings:
    for key in [key for key in found.strings if key.startswith(_SENTINEL)]:
        del found.strings[key]
    return found


def _table(found: Found, what: str) -> Table:
    total = sum(found.link_bytes.values())
    rows = (
        ("rows, each acknowledged once", f"{found.rows:,}"),
        ("keys compared at each of four nodes", f"{found.keys:,}"),
        ("cuts of a link, and their time together, s", f"{found.cuts}, {found.cut_s:.0f}"),
        ("writing, s", f"{found.ingest_s:.1f}"),
        ("rows/s, three sites together", f"{found.rows / found.ingest_s:,.0f}"),
        ("from the last write until all are equal, s", f"{found.converge_s:.1f}"),
        ("comparing every key with the file, s", f"{found.compare_s:.1f}"),
        ("MB on the three links", f"{total / 1e6:.1f}"),
        ("the cloud and the sites equal the file", "met"),
    )
    note = (
        "A row is a register, counters and a set in one change. A difference ends the run, and nothing is written here."
    )
    return Table(f"All {what} at three sites, links cut at random", ("", "measured"), rows, (note,))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1200)
    parser.add_argument("--flights", type=Path, default=None, help="flights.csv.zip; absent: the bundled weather")
    parser.add_argument("--seed", type=int, default=1, help="of the cuts")
    return parser


if __name__ == "__main__":
    main()
