"""What a link costs, counted at the socket in both directions: rows as they come, one change a second, nothing at all; and a heal."""

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import flights, pairs, resp_client
from bench.pairs import Pair
from bench.results import Table
from bench.run import Run, step
from bench.samples import Spread, percentile, verdict
from bench.servers import ServerError
from edgekv.cli.resp_client import RespConnection, command
from edgekv.config import Address

BATCHED_BAR: Final = 0.3
SINGLE_BAR: Final = 1.5
IDLE_BAR_PER_S: Final = 100.0
HEAL_BAR_S: Final = 2.0
PACED_PER_S: Final = 1_000
CUT_S: Final = 6.5
"""Longer than a silent link lives, so that both sides know that it is cut."""
TIMEOUT_S: Final = 60.0

_SETTLE_S: Final = 3.0  # SEEN and acknowledgements of what was written before have passed
_SENTINEL: Final = b"sentinel"
_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed for some changes, and their keys and values."""

    changes: int
    raw_bytes: int
    link_bytes: int

    @property
    def ratio(self) -> float:
        return self.link_bytes / self.raw_bytes


def batched(run: Run, archive: Path | None, count: int, paced: int) -> dict[str, Traffic]:
    """Rows as JSON values, as fast as one connection writes them, and at a steady pace; then the same to a Redis replica."""
    found: dict[str, Traffic] = {}
    rows = list(itertools.islice(flights.pairs(archive), count))
    for name, start in pairs.STARTS.items():
        with start(run, through_link=True) as pair:
            found[f"{name}, as fast as they are taken"] = _traffic(pair, rows)
            if name == "edgekv":
                found[f"{name}, {PACED_PER_S:,} a second"] = _traffic(pair, rows[:paced], PACED_PER_S / _BATCH)
            pair.check()
    for name, one in found.items():
        step(f"{name}: {one.ratio:.3f} of {one.raw_bytes:,} bytes")
    return found


def _traffic(pair: Pair, rows: Sequence[tuple[bytes, bytes]], batches_per_s: float = 0.0) -> Traffic:
    """0: all at once, else so many batches a second."""
    link = pair.the_link()
    time.sleep(_SETTLE_S)
    before = link.bytes
    if not batches_per_s:
        resp_client.load_pairs(pair.writer.resp_address(), rows)
    else:
        due = time.monotonic()
        with RespConnection(pair.writer.resp_address(), TIMEOUT_S) as connection:
            for at in range(0, len(rows), _BATCH):
                batch = rows[at : at + _BATCH]
                connection.send(b"".join(command(b"SET", *each) for each in batch))
                for _ in batch:
                    connection.reply()
                due += 1 / batches_per_s
                time.sleep(max(0.0, due - time.monotonic()))
    key, value = rows[-1]
    resp_client.wait_value(pair.reader.resp_address(), key, value, TIMEOUT_S)
    time.sleep(_SETTLE_S)  # The acknowledgements belong to it, and a few heartbeats.
    return Traffic(len(rows), sum(len(key) + len(value) for key, value in rows), link.bytes - before)


def batched_table(found: dict[str, Traffic]) -> Table:
    rows = []
    for index, (name, one) in enumerate(found.items()):
        per_change = f"{one.link_bytes / one.changes:.0f}", f"{one.raw_bytes / one.changes:.0f}"
        ours = name.startswith("edgekv, as fast")
        bar = f"<= {BATCHED_BAR} {verdict(one.ratio, below=BATCHED_BAR)}" if ours else ""
        shown = name.replace("edgekv", "EdgeKV").replace("redis", "Redis replica")
        rows.append((shown, f"{one.changes:,}", *per_change, f"{one.ratio:.3f}", bar))
        assert index < 3
    note = f"Key and value of each row, JSON. At a pace: {_BATCH} rows at a time. {_SETTLE_S:g} s of heartbeats are included."
    columns = ("", "changes", "bytes on the link per change", "raw bytes per change", "ratio", "bar")
    return Table("Bytes on the link, both directions at the socket", columns, tuple(rows), (note,))


@dataclass(frozen=True, slots=True)
class Quiet:
    """A link on which little happens."""

    seconds: float
    single: Traffic
    idle_bytes: int


def quiet(run: Run, archive: Path | None, seconds: int) -> Quiet:
    """One edge writes a row a second, another one in a cluster of its own nothing, at the same time."""
    rows = list(itertools.islice(flights.pairs(archive), seconds))
    with ExitStack() as stack:
        writing, idle = (stack.enter_context(pairs.edgekv(run, through_link=True)) for _ in range(2))
        time.sleep(_SETTLE_S)
        before = writing.the_link().bytes, idle.the_link().bytes
        started = time.monotonic()
        with RespConnection(writing.writer.resp_address(), TIMEOUT_S) as connection:
            for number, (key, value) in enumerate(rows):
                connection.call(b"SET", key, value)
                time.sleep(max(0.0, started + number + 1 - time.monotonic()))
        passed = writing.the_link().bytes - before[0], idle.the_link().bytes - before[1]
        elapsed = time.monotonic() - started
        writing.check()
        idle.check()
    single = Traffic(len(rows), sum(len(key) + len(value) for key, value in rows), passed[0])
    step(f"one change a second: {single.ratio:.2f} of raw; idle: {passed[1] / elapsed:.0f} bytes/s")
    return Quiet(elapsed, single, passed[1])


def quiet_table(found: Quiet) -> Table:
    single, idle_per_s = found.single, found.idle_bytes / found.seconds
    per_s = single.link_bytes / found.seconds
    bars = (
        f"<= {SINGLE_BAR} times {verdict(single.ratio, below=SINGLE_BAR)}",
        f"< {IDLE_BAR_PER_S:g} bytes/s {verdict(idle_per_s, below=IDLE_BAR_PER_S)}",
    )
    rows = (
        (
            "one change a second",
            f"{single.raw_bytes / found.seconds:.0f}",
            f"{per_s:.0f}",
            f"{single.ratio:.2f}",
            bars[0],
        ),
        ("idle", "0", f"{idle_per_s:.0f}", "", bars[1]),
    )
    note = "Two clusters of one edge and one hub, at the same time. Heartbeats, acknowledgements and SEEN are included."
    columns = ("one edge alone", "raw bytes/s", "bytes/s on the link", "ratio", "bar")
    return Table(f"A quiet link over {found.seconds:.0f} s, both directions at the socket", columns, rows, (note,))


# -- heal


@dataclass(frozen=True, slots=True)
class Heal:
    """Seconds until both sides were equal, from the heal and from the new connection."""

    from_heal_s: float
    from_connected_s: float


def heals(run: Run, rounds: int, keys: int, cut_s: float) -> list[Heal]:
    """Both sides write the same keys while the link is cut."""
    found = []
    with pairs.edgekv(run, through_link=True) as pair:
        for index in range(rounds):
            found.append(_heal(pair, index, keys, cut_s))
            one = found[-1]
            step(
                f"round {index + 1} heal: {one.from_heal_s:.2f} s, {one.from_connected_s:.2f} s from the connection on"
            )
        pair.check()
    return found


def _heal(pair: Pair, index: int, keys: int, cut_s: float) -> Heal:
    link, sides = pair.the_link(), (pair.writer.resp_address(), pair.reader.resp_address())
    link.cut()
    since = time.monotonic()
    for number, side in enumerate(sides):
        written = ((b"heal:%06d" % key, b"%d from %d in round %d" % (key, number, index)) for key in range(keys))
        resp_client.load_pairs(side, written)
        resp_client.load_pairs(side, [(_SENTINEL + b"%d" % number, b"%d" % index)])
    time.sleep(max(0.0, since + cut_s - time.monotonic()))
    healed = link.heal()
    seen = 0.0
    for number, side in enumerate(reversed(sides)):
        seen = resp_client.wait_value(side, _SENTINEL + b"%d" % number, b"%d" % index, TIMEOUT_S)
    connected = link.wait_connected(healed)
    shown = [_values(side, keys) for side in sides]
    if shown[0] != shown[1]:
        raise ServerError("the nodes have each other's changes and show different values")
    return Heal(seen - healed, seen - connected)


def _values(side: Address, keys: int) -> list[object]:
    with RespConnection(side, TIMEOUT_S) as connection:
        connection.send(command(b"MGET", *(b"heal:%06d" % key for key in range(keys))))
        values = connection.reply()
    assert isinstance(values, list)
    return list(values)


def heal_table(found: Sequence[Heal], keys: int, cut_s: float) -> Table:
    rows = []
    for label, seconds in (
        ("from the heal", [one.from_heal_s for one in found]),
        ("from the new connection", [one.from_connected_s for one in found]),
    ):
        p99 = percentile(seconds, 0.99)
        bar = f"<= {HEAL_BAR_S:g} s {verdict(p99, below=HEAL_BAR_S)}"
        rows.append((label, Spread(tuple(seconds)).text(2), f"{p99:.2f}", bar))
    note = (
        f"{len(found)} rounds; {keys:,} keys written on both sides during a cut of {cut_s:g} s, then read on both sides and compared. "
        "Before a node dials again it waits, by chance, up to 1 s."
    )
    columns = ("", "median (lowest-highest), s", "p99, s", "bar")
    return Table(f"Heal to equal, {keys:,} diverged keys", columns, tuple(rows), (note,))
