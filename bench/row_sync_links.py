"""Row sync between processes: an edge with an empty directory gets all rows of a hub whose log no longer reaches back to them."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench import pairs, resp_client, servers, status
from bench.link import Link, link_to
from bench.open_loop import INTERVAL_S, probing
from bench.pairs import Resync
from bench.results import Table
from bench.run import Run, step
from bench.samples import percentile, verdict
from bench.servers import Server, ServerError
from bench.workload import Workload

CUTS: Final = (0.1, 0.5, 0.9)
CUT_S: Final = 6.5
BYTES_BAR: Final = 1.3
READ_BAR_MS: Final = 10.0
WRITE_BAR_MS: Final = 25.0
TIMEOUT_S: Final = 180.0
HUB_SETTINGS: Final = f"{pairs.SMALL}retain_bytes = 0"
"""The log keeps two segments, so a newcomer needs rows."""

_POLL_S: Final = 0.001
_AFTER_S: Final = 1.0  # of probing, when the rows are there
_LAST: Final = b"last"


@dataclass(frozen=True, slots=True)
class Sync:
    """One newcomer, from its first connection until it showed the last row; ``cut_s`` of that the link was cut."""

    cut_at: float
    seconds: float
    cut_s: float
    bytes: int
    bytes_before_cut: int


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the receiver's own clients during a sync, from when each command was due."""

    reads_s: list[float]
    writes_s: list[float]
    refused: int


@dataclass(frozen=True, slots=True)
class Found:
    """All of it."""

    rows: int
    syncs: list[Sync]
    latencies: Latencies
    redis: Resync


def measure(run: Run, rows: int, cut_s: float) -> Found:
    settings = pairs.node_settings("cloud", "cloud", HUB_SETTINGS)
    with run.data_directory("hub") as directory, servers.node(directory, settings=settings) as hub:
        _load(hub, rows)
        status.wait_applied(hub)
        step(f"{rows:,} rows applied")
        syncs = [_sync(run, hub, 0, 0.0, 0.0)]
        for cut_at in CUTS:
            syncs.append(_sync(run, hub, syncs[0].bytes, cut_at, cut_s))
        latencies = _latencies(run, hub, rows)
        hub.check_alive()
    return Found(rows, syncs, latencies, _redis(run, rows))


def _sync(run: Run, hub: Server, whole_bytes: int, cut_at: float, cut_s: float) -> Sync:
    with link_to(hub.peer_address()) as link, _newcomer(run, link, f"edge-{cut_at * 100:.0f}") as edge:
        connected = link.wait_connected(0.0)
        before_cut = _cut(link, whole_bytes * cut_at, cut_s) if cut_at else 0
        seen = resp_client.wait_value(edge.resp_address(), _LAST, _LAST, TIMEOUT_S, _POLL_S)
        found = Sync(cut_at, seen - connected, cut_s, link.bytes, before_cut)
        step(f"row sync, cut at {cut_at:.0%}: {found.seconds:.1f} s, {found.bytes:,} bytes")
        status.wait_applied(edge)
        pairs.verify([edge, hub])
        return found


def _cut(link: Link, at_bytes: float, cut_s: float) -> int:
    """Cut it when so much has passed, and heal it; how much it was indeed."""
    deadline = time.monotonic() + TIMEOUT_S
    while link.bytes < at_bytes:
        if time.monotonic() > deadline:
            raise ServerError(f"only {link.bytes:,} bytes of a row sync had passed after {TIMEOUT_S:g} s")
        time.sleep(_POLL_S / 10)
    link.cut()
    passed = link.bytes
    time.sleep(cut_s)
    link.heal()
    return passed


def _latencies(run: Run, hub: Server, rows: int) -> Latencies:
    with link_to(hub.peer_address()) as link, _newcomer(run, link, f"edge-probed-{run._made}") as edge:
        with ExitStack() as stack:
            reads, writes = (stack.enter_context(probing(edge.resp_address(), word, rows)) for word in ("get", "set"))
            resp_client.wait_value(edge.resp_address(), _LAST, _LAST, TIMEOUT_S, 0.05)
            time.sleep(_AFTER_S)
        edge.check_alive()
        return Latencies(reads["times_s"], writes["times_s"], reads["refused"] + writes["refused"])


@contextmanager
def _newcomer(run: Run, link: Link, name: str) -> Iterator[Server]:
    """An edge with an empty directory. Those before it are members still, so its name is its own."""
    settings = pairs.node_settings(name, "shop", upstream=link.address)
    with run.data_directory("edge") as directory, servers.node(directory, settings=settings) as edge:
        yield edge


def _redis(run: Run, rows: int) -> Resync:
    """A full resync of an empty replica, of the same rows."""
    with (
        run.data_directory("redis") as directory,
        servers.redis(directory, pairs.REDIS_OPTIONS) as master,
        link_to(master.resp_address()) as link,
    ):
        _load(master, rows)
        return pairs.full_resync(run, link, _LAST, _LAST)


def _load(server: Server, rows: int) -> None:
    values = Workload(4).puts(1)
    written = ((resp_client.key_of(number), next(values)[0][1]) for number in range(rows - 1))
    resp_client.load_pairs(server.resp_address(), written)
    resp_client.load_pairs(server.resp_address(), [(_LAST, _LAST)])


def tables(found: Found) -> list[Table]:
    return [_sync_table(found), _latency_table(found.latencies)]


def _sync_table(found: Found) -> Table:
    whole = found.syncs[0].bytes
    rows = []
    for one in found.syncs:
        seconds, share = one.seconds - one.cut_s, one.bytes / whole
        bar = f"< {BYTES_BAR} {verdict(share, below=BYTES_BAR)}" if one.cut_at else ""
        label = f"EdgeKV, cut at {one.cut_at:.0%}" if one.cut_at else "EdgeKV, uncut"
        passed = f"{one.bytes_before_cut / 1e6:.1f}" if one.cut_at else ""
        cells = f"{seconds:.1f}", f"{found.rows / seconds:,.0f}", f"{one.bytes / 1e6:.1f}", passed, f"{share:.2f}", bar
        rows.append((label, *cells))
    theirs = found.redis
    for label, seconds in (("shown", theirs.seconds), ("durable", theirs.durable_s)):
        cells = f"{seconds:.1f}", f"{found.rows / seconds:,.0f}", f"{theirs.bytes / 1e6:.1f}", "", "", ""
        rows.append((f"Redis, full resync, {label}", *cells))
    note = (
        "100-byte values that do not compress. From the first connection of an empty edge until it shows the last row, without "
        f"the time of the cut ({found.syncs[-1].cut_s:g} s) and with that of reconnecting; then both nodes are compared, whole."
    )
    columns = ("", "seconds", "rows/s", "MB on the link", "MB before the cut", "of uncut", "bar")
    return Table(f"Row sync of {found.rows:,} rows between processes", columns, tuple(rows), (note,))


def _latency_table(found: Latencies) -> Table:
    rows = []
    for label, times_s, bar_ms in (
        ("GET", found.reads_s, READ_BAR_MS),
        ("durable SET", found.writes_s, WRITE_BAR_MS),
    ):
        p50, p99, worst = (percentile(times_s, fraction) * 1e3 for fraction in (0.5, 0.99, 1.0))
        bar = f"<= {bar_ms:g} {verdict(p99, below=bar_ms)}"
        rows.append((label, f"{len(times_s):,}", f"{p50:.1f}", f"{p99:.1f}", bar, f"{worst:,.0f}"))
    note = (
        f"A command each {INTERVAL_S * 1e3:g} ms, from its admission until {_AFTER_S:g} s after it shows the rows, timed from when "
        f"it was due. {found.refused} were refused."
    )
    columns = ("", "commands", "p50, ms", "p99, ms", "bar", "longest, ms")
    return Table("At the receiver during row sync and flip", columns, tuple(rows), (note,))


def measurements(found: Found) -> dict[str, Any]:
    return asdict(found)
