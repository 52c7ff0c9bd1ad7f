"""What a running node tells Prometheus beyond what its calls count: where log and store are, and how late its event loop is."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.metrics import Metrics, Sample
from edgekv.node.watch import Watches
from edgekv.replication.figures import Figures, Lag

PROBE_S: Final = 0.02


class LoopProbe:
    """How late a timer comes is how long the callback before it took: the worst one is a metric."""

    def __init__(self) -> None:
        self._delay_s_max = 0.0
        self._stopped = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the clock every 20 ms, until `stop`."""
        self._loop = loop
        self._look(time.perf_counter())

    def stop(self) -> None:
        """End it. Idempotent."""
        self._stopped = True

    def _look(self, due: float) -> None:
        now = time.perf_counter()  # the loop's own time is cached, in whole milliseconds
        self._delay_s_max = max(self._delay_s_max, now - due)
        if not self._stopped:
            self._loop.call_later(PROBE_S, self._look, now + PROBE_S)

    def take_s(self) -> float:
        """The worst since this was last asked, seconds."""
        worst, self._delay_s_max = self._delay_s_max, 0.0
        return worst


def register_gauges(metrics: Metrics, engine: Engine, watches: Watches, probe: LoopProbe) -> None:
    """Offer them in /metrics."""
    gauge = metrics.gauge
    gauge("edgekv_unapplied_bytes", "Rows in the log and not yet in LMDB.", lambda: engine.unapplied_bytes)
    gauge("edgekv_memtable_rows", "Rows in memtable generations.", lambda: engine.memtable.rows)
    gauge("edgekv_applied_lsn", "Log position that LMDB holds.", lambda: engine.checkpoints.applied_lsn)
    gauge("edgekv_durable_lsn", "Log position that is durable.", lambda: engine.commit.durable_lsn)
    gauge("edgekv_write_blocked", "1 while writers wait for room.", lambda: int(engine.admission.blocked))
    gauge("edgekv_watches", "Watches that are open.", lambda: watches.count)
    metrics.counter(
        "edgekv_watch_resyncs_total",
        "How often a watch was given all rows: asked for, or as the log did not reach back to its place.",
        lambda: watches.resyncs_total,
    )
    metrics.counter(
        "edgekv_write_blocks_total", "How often writers had to wait.", lambda: engine.admission.blocks_total
    )
    gauge(
        "edgekv_operation_sessions",
        "Sessions of operation ids that are remembered.",
        lambda: len(engine.commit.operation_ids),
    )
    metrics.counter(
        "edgekv_conflicts_total",
        "Values that were lost to concurrent writes with a higher stamp, as far as this node is certain of it.",
        lambda: [((("keyspace", name),), total) for name, total in sorted(engine.conflicts.totals.items())],
    )
    gauge(
        "edgekv_misplaced_keys",
        "Keys of the default keyspace that lie below the prefix of one that was created later: no reader finds them.",
        engine.misplaced.count,
    )
    metrics.counter(
        "edgekv_operations_repeated_total",
        "Operations that came again and were answered, not done, again.",
        lambda: engine.repeated_total,
    )
    gauge(
        "edgekv_disk_full",
        "1 while client writes are refused for lack of disk.",
        lambda: int(engine.admission.disk_full),
    )
    gauge(
        "edgekv_loop_callback_seconds_max",
        "Longest callback of the event loop since the last scrape.",
        probe.take_s,
    )


def register_replication(metrics: Metrics, figures: Figures, now_ms: Callable[[], int]) -> None:
    """Offer what there is to say of other nodes in /metrics."""
    metrics.gauge(
        "edgekv_replication_lag_seconds",
        "How long members of a site have been behind this node, the worst of them; 0: they have everything.",
        lambda: _by_site(figures.lags(now_ms()), lambda lag: lag.seconds),
    )
    metrics.gauge(
        "edgekv_replication_lag_changes",
        "Durable changes of this node that members of a site have not acknowledged as durable, the worst of them.",
        lambda: _by_site(figures.lags(now_ms()), lambda lag: lag.changes),
    )
    metrics.counter(
        "edgekv_replication_bytes_total",
        "Bytes of messages to and from nodes of a site, before compression.",
        lambda: [
            ((("direction", direction), ("site", site)), size)
            for (direction, site), size in sorted(figures.traffic().items())
        ],
    )
    metrics.gauge(
        "edgekv_clock_skew_seconds",
        "How far the clock of a linked node is ahead of this one's, the way between them included.",
        lambda: [((("peer", name),), skew_s) for name, skew_s in sorted(figures.skews().items())],
    )
    metrics.gauge(
        "edgekv_late_changes",
        "Changes that members made while they were parked, and brought when they came back.",
        lambda: [((("keyspace", name),), count) for name, count in sorted(figures.late_changes().items())],
    )
    metrics.gauge(
        "edgekv_members_silent_seconds_max",
        "How long the member that has been silent longest has been, by the leader's count.",
        lambda: figures.silent_ms_max() / 1000,
    )
    metrics.gauge(
        "edgekv_members",
        "Members of the cluster, as this node knows them.",
        lambda: [((("state", state),), count) for state, count in figures.member_states().items()],
    )


def _by_site(lags: list[Lag], of: Callable[[Lag], float]) -> list[Sample]:
    worst: dict[str, float] = {}
    for lag in lags:
        worst[lag.member.site] = max(of(lag), worst.get(lag.member.site, 0))
    return [((("site", site),), value) for site, value in sorted(worst.items())]
