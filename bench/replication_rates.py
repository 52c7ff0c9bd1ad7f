"""How fast changes get from an edge to its cloud: one by one under load, at the highest rate, and after a cut."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench import pairs, redis_benchmark, resp_client, servers
from bench.offered_load import offered
from bench.pairs import Pair
from bench.results import Table
from bench.run import Run, step
from bench.samples import Ratio, Spread, percentile, verdict
from bench.workload import Workload
from edgekv.cli.resp_client import RespConnection

OFFERED_PER_S: Final = 10_000
LAG_BARS_MS: Final = (10.0, 50.0)
PROBE_INTERVAL_S: Final = 0.03
PIPELINE: Final = 16
CONNECTED_BAR: Final = 0.5
LAST_BAR_S: Final = 1.0
CATCH_UP_BAR_PER_S: Final = 100_000
TIMEOUT_S: Final = 120.0

_SENTINEL: Final = b"sentinel"
_POLL_S: Final = 0.001


# -- steady state


@dataclass(frozen=True, slots=True)
class Steady:
    """One run under a steady load. Lags in seconds, of each probe from when its write was sent, and from when it was acknowledged."""

    from_sent_s: list[float]
    from_acknowledged_s: list[float]
    acknowledged_per_s: float


def steady(run: Run, rounds: int, seconds: float, per_s: int) -> dict[str, list[Steady]]:
    """Single keys are written beside the load, and asked for at the reader until they are there."""
    found: dict[str, list[Steady]] = {}
    for index in range(rounds):
        for name, start in pairs.STARTS.items():
            with start(run, through_link=False) as pair:
                one = _steady(pair, seconds, per_s)
                pair.check()
            found.setdefault(name, []).append(one)
            p50, p99 = (percentile(one.from_sent_s, fraction) * 1e3 for fraction in (0.5, 0.99))
            step(f"round {index + 1} steady {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(one.from_sent_s)} probes")
    return found


def _steady(pair: Pair, seconds: float, per_s: int) -> Steady:
    sent_s, acknowledged_s = [], []
    writer, reader = pair.writer.resp_address(), pair.reader.resp_address()
    with offered(writer, per_s) as load, RespConnection(writer, TIMEOUT_S) as here, RespConnection(reader, 60) as there:
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            value = b"%d" % number
            before = time.monotonic()
            here.call(b"SET", b"probe", value)
            acknowledged = time.monotonic()
            while there.call(b"GET", b"probe") != value:
                if time.monotonic() - acknowledged > TIMEOUT_S:
                    raise servers.ServerError(f"a write did not arrive within {TIMEOUT_S:g} s")
                time.sleep(_POLL_S)
            seen = time.monotonic()
            sent_s.append(seen - before)
            acknowledged_s.append(seen - acknowledged)
            time.sleep(PROBE_INTERVAL_S)
    return Steady(sent_s, acknowledged_s, load["acknowledged"] / load["seconds"])


def steady_table(found: dict[str, list[Steady]], per_s: int) -> Table:
    rows = []
    for name, runs in found.items():
        for label, lags in (
            ("from sending", [one.from_sent_s for one in runs]),
            ("from its acknowledgement", [one.from_acknowledged_s for one in runs]),
        ):
            cells: list[str] = []
            for fraction, bar in zip((0.5, 0.99), LAG_BARS_MS, strict=True):
                spread = Spread(tuple(percentile(one, fraction) * 1e3 for one in lags))
                judged = name == "edgekv" and label == "from sending"
                cells += [spread.text(1), f"<= {bar:g} {verdict(spread.median, below=bar)}" if judged else ""]
            rate = Spread(tuple(one.acknowledged_per_s for one in runs))
            rows.append((f"{_NAMES[name]}, {label}", rate.text(), *cells))
    note = (
        f"{per_s:,} durable SETs/s are offered, taken or not; beside them single keys are written and asked for at the "
        f"other node, once a millisecond, until they are there. Medians (lowest-highest) of {len(found['edgekv'])} runs."
    )
    columns = ("", "taken/s", "p50, ms", "bar", "p99, ms", "bar")
    return Table(f"Lag of the cloud, {per_s:,} writes/s offered at one edge", columns, tuple(rows), (note,))


# -- the highest rate


@dataclass(frozen=True, slots=True)
class Highest:
    """One run of SETs. ``last_s``: from its end until the reader had the last one; 0 without a reader."""

    per_s: float
    last_s: float


Rates = dict[tuple[str, bool], list[Highest]]


def highest(run: Run, rounds: int, requests: int) -> Rates:
    """Each from new directories: with the reader connected, and with the reader stopped."""
    found: Rates = {}
    for index in range(rounds):
        for name, start in pairs.STARTS.items():
            for connected in (True, False)[:: 1 if index % 2 == 0 else -1]:
                with start(run, through_link=False) as pair:
                    if not connected:
                        pair.reader.kill()
                    one = _highest(pair, requests, connected)
                found.setdefault((name, connected), []).append(one)
                word = f"last one after {one.last_s * 1e3:.0f} ms" if connected else "alone"
                step(f"round {index + 1} {name}: {one.per_s:,.0f}/s, {word}")
    return found


def _highest(pair: Pair, requests: int, connected: bool) -> Highest:
    writer = pair.writer.resp_address()
    report = redis_benchmark.run(writer, "set", pipeline=PIPELINE, requests=requests)
    ended = time.monotonic()
    if not connected:
        pair.writer.check_alive()
        return Highest(report.per_s, 0.0)
    pairs.ask(writer, b"SET", _SENTINEL, b"last")
    seen = resp_client.wait_value(pair.reader.resp_address(), _SENTINEL, b"last", TIMEOUT_S, _POLL_S)
    pair.check()
    return Highest(report.per_s, seen - ended)


def highest_table(found: Rates, requests: int) -> Table:
    rows = []
    for name in pairs.STARTS:
        alone, connected = (Spread(tuple(one.per_s for one in found[name, flag])) for flag in (False, True))
        last_s = Spread(tuple(one.last_s for one in found[name, True]))
        ratio = Ratio(connected, alone, CONNECTED_BAR if name == "edgekv" else None)
        bars = ("", "")
        if name == "edgekv":
            bars = f">= {CONNECTED_BAR} {ratio.verdict()}", f"<= 1 s {verdict(last_s.median, below=LAST_BAR_S)}"
        rows.append((_NAMES[name], alone.text(), connected.text(), ratio.text(), bars[0], last_s.text(2), bars[1]))
    note = (
        f"redis-benchmark, {requests:,} durable SETs of {redis_benchmark.VALUE_BYTES} bytes, pipeline {PIPELINE}, "
        f"{redis_benchmark.CONNECTIONS} connections, each from new directories. The last one is a key that is written after the end."
    )
    columns = ("", "alone", "connected", "ratio", "bar", "last one at the cloud after, s", "bar")
    return Table("Highest durable write rate (requests/s), all on the same cores", columns, tuple(rows), (note,))


# -- catch-up


@dataclass(frozen=True, slots=True)
class CatchUp:
    """``seconds``: from the new connection until the reader had the last change. ``reconnect_s``: from the heal to the connection."""

    seconds: float
    reconnect_s: float
    changes: int
    bytes: int


def catch_up(run: Run, rounds: int, changes: int) -> dict[str, list[CatchUp]]:
    """Of an edge and a Redis replica that were cut off, and of an empty Redis replica."""
    found: dict[str, list[CatchUp]] = {}
    for index in range(rounds):
        for name, start in pairs.STARTS.items():
            with start(run, through_link=True) as pair:
                legs = [(name, _after_cut(pair, changes))]
                if name == "redis":
                    legs.append(("redis, full", _full_resync(run, pair, changes)))
            for label, one in legs:
                found.setdefault(label, []).append(one)
                step(f"round {index + 1} catch-up {label}: {one.changes / one.seconds:,.0f} changes/s")
    return found


def _after_cut(pair: Pair, changes: int) -> CatchUp:
    link = pair.the_link()
    link.cut()
    resp_client.load_pairs(pair.writer.resp_address(), _pairs(changes))
    pair.wait_idle()
    before = link.bytes
    healed = link.heal()
    connected = link.wait_connected(healed)
    seen = resp_client.wait_value(pair.reader.resp_address(), _SENTINEL, b"last", TIMEOUT_S, _POLL_S)
    passed = link.bytes - before
    pair.wait_idle()
    pair.check()
    return CatchUp(seen - connected, connected - healed, changes, passed)


def _full_resync(run: Run, pair: Pair, changes: int) -> CatchUp:
    """A new replica of the same master; the other one is stopped."""
    pair.reader.kill()
    found = pairs.full_resync(run, pair.the_link(), _SENTINEL, b"last")
    return CatchUp(found.seconds, 0.0, changes, found.bytes)


def _pairs(changes: int) -> Iterator[tuple[bytes, bytes]]:
    """As many changes of as many keys; values that do not compress; the last one is the sentinel."""
    values = Workload(3).puts(1)
    for number in range(changes - 1):
        yield resp_client.key_of(number), next(values)[0][1]
    yield _SENTINEL, b"last"


def catch_up_table(found: dict[str, list[CatchUp]]) -> Table:
    ours = _rate(found["edgekv"])
    rows = []
    for label, runs in found.items():
        rate = _rate(runs)
        bar = f">= {CATCH_UP_BAR_PER_S:,} {verdict(rate.median, at_least=CATCH_UP_BAR_PER_S)}"
        ratio = "" if label == "edgekv" else Ratio(ours, rate).text()
        waited = Spread(tuple(one.reconnect_s for one in runs)).text(1)
        cells = (rate.text(), bar if label == "edgekv" else "", ratio, waited)
        rows.append((_LEGS[label], *cells, f"{runs[0].bytes / 1e6:.0f}"))
    changes = found["edgekv"][0].changes
    note = (
        f"{changes:,} SETs of 100 bytes that do not compress, written while the link was cut. From the first new connection until the "
        f"last change is there; then both sides are compared, whole. Medians (lowest-highest) of {len(found['edgekv'])} rounds. "
        "Reconnecting is a pause by chance, up to 1 s for either. Redis: repl-backlog-size 1gb; "
        "after a full resync its replica shows what it has before it is durable there."
    )
    columns = ("", "changes/s", "bar", "EdgeKV / it", "reconnected after, s", "MB on the link")
    return Table(f"Catch-up of {changes:,} changes after a cut", columns, tuple(rows), (note,))


def _rate(runs: Sequence[CatchUp]) -> Spread:
    return Spread(tuple(one.changes / one.seconds for one in runs))


_NAMES: Final = {"edgekv": "EdgeKV", "redis": "Redis"}
_LEGS: Final = {
    "edgekv": "EdgeKV",
    "redis": "Redis, partial resync",
    "redis, full": "Redis, full resync of an empty replica",
}
