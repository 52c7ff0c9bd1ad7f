"""``edgekv demo``: a year of weather at three airports that lose each other, a node that is killed, and a proof that nothing is lost.

A cloud hub and the edge sites EWR, JFK and LGA run on this machine (``edgekv dev``). Each airport writes its own hours of the bundled
year 2013 at its own node, a third of the year per act: with all links up; with JFK cut off, while both sides of the cut also write the
same keys (demo_conflicts.py); healed, with LGA killed by SIGKILL on the way. After each act every node must hold exactly what
demo_weather.py computes from the file: every register, counter, set and map, and no other key. Exit code 1 on any difference.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import click

from edgekv.cli import demo_conflicts
from edgekv.cli.demo_cluster import DemoCluster, Kill
from edgekv.cli.demo_screen import Screen
from edgekv.cli.demo_site import Site
from edgekv.cli.demo_weather import DAYS, DRY, SITES, Holdings, Row, difference, expected, operations, raw_bytes, rows
from edgekv.cli.dev_layout import CLOUD
from edgekv.cli.options import PathType
from edgekv.cli.progress import progress
from edgekv.errors import EdgeKVError, Unavailable

MONTHS: Final = (range(1, 5), range(5, 9), range(9, 13))
"""Of the three acts."""
CUT_SITE: Final = "JFK"
KILLED_SITE: Final = "LGA"
CONVERGE_S: Final = 60.0


class DemoFailed(EdgeKVError):
    """A node does not hold what it should."""

    code = "demo-failed"


@click.command()
@click.option("--seed", type=int, default=None, help="Chooses the moment of the kill. Default: by chance.")
@click.option(
    "--dir",
    "directory",
    type=PathType(path_type=Path, file_okay=False),
    envvar="EDGEKV_DEMO_DIR",
    help="Keep the cluster here. Default: nowhere.",
)
def demo(seed: int | None, directory: Path | None) -> None:
    """Write a year of weather at three sites, cut a link, kill a node, and check what every node holds.

    \b
    edgekv demo
    edgekv demo --dir ./demo    and then, to look around: edgekv dev --dir ./demo
    """
    seed = random.randrange(1 << 32) if seed is None else seed
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgekv-demo-") as temporary:
        home = (directory or Path(temporary)).absolute()
        home.mkdir(parents=True, exist_ok=True)
        with DemoCluster(home) as cluster:
            story = Story(cluster, Screen(), rows())
            story.tell_cluster(time.monotonic() - started)
            story.first_act()
            story.second_act()
            story.third_act(random.Random(seed).uniform(0.2, 0.8))
            story.tell_figures()
    seconds = time.monotonic() - started
    story.screen.end(
        f"All four nodes hold what the file says, and nothing else. {seconds:.0f} s; --seed {seed} repeats the moment of the kill."
    )


class Story:
    """The three acts, on a cluster and with the rows of a year. Each raises DemoFailed where something is not as it should be."""

    def __init__(self, cluster: DemoCluster, screen: Screen, year: list[Row]) -> None:
        self.screen: Final = screen
        self._cluster: Final = cluster
        self._sites: Final = cluster.sites
        self._year: Final = year
        self._found: Final[dict[str, Holdings]] = {}

    def tell_cluster(self, seconds: float) -> None:
        """Who plays."""
        self.screen.act("A cloud hub and three airports, each a process of its own")
        self.screen.tell("ready", f"{', '.join(site.node for site in self._sites.values())} after {seconds:.1f} s")

    def first_act(self) -> None:
        """All links are up."""
        self.screen.act("January to April: all links are up")
        self._list_days()
        self._write_common(demo_conflicts.BEFORE)
        self._ingest(0)
        self._mark(1)
        seconds = self._wait_marks(1, self._sites, self._sites)
        self.screen.tell("converged", f"all four nodes had everything {_milliseconds(seconds)} after the last write")
        self._check_all(self._everything(1, 1, demo_conflicts.AFTER_BEFORE))

    def second_act(self) -> None:
        """One link is cut, both sides go on, and it is healed."""
        self.screen.act(f"May to August: the link of {CUT_SITE} is cut, and everybody goes on")
        self._cluster.cut(CUT_SITE)
        before = self._cluster.link_bytes()[CUT_SITE]
        self._ingest(1)
        self._mark(2)
        connected = {name: site for name, site in self._sites.items() if name != CUT_SITE}
        self._wait_marks(2, connected, connected)
        for name, side in ((CLOUD, connected), (CUT_SITE, {CUT_SITE: self._sites[CUT_SITE]})):
            count = self._check(side, self._one_side(side))
            self.screen.tell(
                f"side of {name}", f"{count:,} keys: all that its own side wrote, nothing of the other side"
            )
        self._write_common(demo_conflicts.DURING)
        self.screen.tell("both sides write", "the same counter, set, map and value; one deletes a key")
        passed = self._cluster.link_bytes()[CUT_SITE]
        if passed != before:
            raise DemoFailed(f"{passed - before} bytes passed the link of {CUT_SITE} while it was cut")
        self._mark(3)
        self._cluster.heal(CUT_SITE)
        seconds = self._wait_marks(3, self._sites, self._sites)
        caught_up = self._cluster.link_bytes()[CUT_SITE] - passed
        self.screen.tell(
            "healed", f"all four nodes had everything after {_milliseconds(seconds)}, {_size(caught_up)} on the link"
        )
        self._check_all(self._everything(2, 3, demo_conflicts.AFTER_DURING))
        for key, outcome in demo_conflicts.OUTCOMES:
            self.screen.tell(key, outcome)

    def third_act(self, kill_at: float) -> None:
        """A node is killed when it has written the fraction ``kill_at`` of its part."""
        self.screen.act(f"September to December: kill -9 of {KILLED_SITE} while it writes")
        self._ingest(2, kill_at)
        self._mark(4)
        seconds = self._wait_marks(4, self._sites, self._sites)
        self.screen.tell("converged", f"all four nodes had everything {_milliseconds(seconds)} after the last write")
        self._check_all(self._everything(3, 4, demo_conflicts.AFTER_DURING))

    def tell_figures(self) -> None:
        """What each node holds, and what it cost."""
        self.screen.act("What they hold, and what it cost")
        dry = len(self._found[CLOUD].sets[DRY])
        self.screen.tell("dry days", f"{dry} of {len(DAYS)}: what three airports left of a set that they share")
        raw = sum(raw_bytes(operations(row)) for row in self._year)
        passed = self._cluster.link_bytes()
        self.screen.table(
            ("node", "values and counters", "sets", "maps", "equal", "on its link", "of keys and values"),
            [
                (
                    self._sites[name].node,
                    f"{len(found.strings):,}",
                    f"{len(found.sets)}",
                    f"{len(found.maps)}",
                    "yes",
                    _size(passed[name]) if name in passed else "",
                    f"{passed[name] / raw:.0%}" if name in passed else "",
                )
                for name, found in ((name, self._found[name]) for name in self._sites)
            ],
        )

    # -- writing

    def _list_days(self) -> None:
        """An airport can take out of a set what has reached it."""
        self._sites[CLOUD].ask(b"SADD", DRY, *(day.encode() for day in DAYS))
        self._mark(0)
        self._wait_marks(0, self._sites, self._sites)

    def _ingest(self, act: int, kill_at: float | None = None) -> None:
        """All airports write their part of the year at once. ``kill_at``: the fraction of its part at which KILLED_SITE is killed."""
        parts = {name: [operations(row) for row in self._rows([act]) if row["origin"] == name] for name in SITES}
        done = dict.fromkeys(SITES, 0)
        kill = None if kill_at is None else Kill(self._cluster, KILLED_SITE, int(kill_at * len(parts[KILLED_SITE])))
        started = time.monotonic()
        with progress("ingest", sum(map(len, parts.values()))) as advance:

            def write(name: str) -> None:
                def acknowledged(count: int) -> None:
                    done[name] = count
                    advance(sum(done.values()), f"{sum(done.values())} readings durable")
                    if kill is not None and kill.site == name:
                        kill.acknowledged(count)

                def revive() -> None:
                    if kill is None or kill.site != name or not kill.revive():
                        raise DemoFailed(
                            f"the node of {name} is gone, and nobody killed it; see {self._cluster.directory}"
                        )

                self._sites[name].write(parts[name], acknowledged, revive)

            _all_at_once(write, SITES)
        if kill is not None:
            kill.revive()  # where its writer had finished before the kill came
            self.screen.tell("killed, started", kill.story())
        count, seconds = sum(done.values()), time.monotonic() - started
        self.screen.tell(
            "ingested",
            f"{count:,} readings at three nodes, {count / seconds:,.0f} a second, acknowledged when durable",
        )

    def _write_common(self, commands: Iterable[tuple[str, tuple[bytes, ...]]]) -> None:
        for name, arguments in commands:
            self._sites[name].ask(*arguments)
            time.sleep(demo_conflicts.APART_S)

    # -- convergence

    def _mark(self, number: int) -> None:
        """A last write at each node. What one node writes arrives in order: who has its mark has all before it."""
        for name, site in self._sites.items():
            site.ask(b"SET", _mark_key(name), b"%d" % number)

    def _wait_marks(self, number: int, of: Iterable[str], at: dict[str, Site]) -> float:
        """Seconds until every node has every mark."""
        started = time.monotonic()

        def wait(name: str) -> None:
            for other in of:
                try:
                    at[name].wait_value(_mark_key(other), b"%d" % number, started + CONVERGE_S)
                except Unavailable as error:
                    raise DemoFailed(str(error)) from error

        _all_at_once(wait, at)
        return time.monotonic() - started

    # -- proof

    def _rows(self, acts: Iterable[int]) -> list[Row]:
        months = {month for act in acts for month in MONTHS[act]}
        return [row for row in self._year if int(row["month"]) in months]

    def _everything(self, acts: int, mark: int, common: Holdings) -> Holdings:
        """What a node must hold that has all of so many acts."""
        return _joined(expected(self._rows(range(acts))), common, dict.fromkeys(self._sites, mark))

    def _one_side(self, side: dict[str, Site]) -> Holdings:
        """What a side of the cut must hold: the first act, and of the second what its own airports wrote."""
        written = self._rows([0]) + [row for row in self._rows([1]) if row["origin"] in side]
        marks = {name: 2 if name in side else 1 for name in self._sites}
        return _joined(expected(written), demo_conflicts.AFTER_BEFORE, marks)

    def _check_all(self, right: Holdings) -> None:
        count = self._check(self._sites, right)
        self.screen.tell(
            "checked",
            f"{count:,} keys at each of {len(self._sites)} nodes, all equal to the file, and no others",
        )

    def _check(self, sites: dict[str, Site], right: Holdings) -> int:
        """How many keys each of these nodes holds, all as they should be."""

        def check(name: str) -> None:
            self._found[name] = found = sites[name].holdings()
            if wrong := difference(right, found):
                raise DemoFailed(f"{sites[name].node}: {wrong}")

        _all_at_once(check, sites)
        return right.count()


def _joined(weather: Holdings, common: Holdings, marks: dict[str, int]) -> Holdings:
    return Holdings(
        weather.strings | common.strings | {_mark_key(name): b"%d" % number for name, number in marks.items()},
        weather.sets | common.sets,
        weather.maps | common.maps,
    )


def _mark_key(name: str) -> bytes:
    return b"mark/" + name.encode()


def _all_at_once(act: Callable[[str], None], names: Iterable[str]) -> None:
    """In threads; the first error is raised when all have ended."""
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(act, name) for name in names]:
            future.result()


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB"
