"""Counting and the Prometheus text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.metrics import Histogram, Metrics

LINE = re.compile(r'[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,[a-z]+="(\\.|[^"\\])*")*\})? [0-9.e+-]+')


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.exposition().splitlines() if line.startswith(name)]


def test_operations_are_counted_by_verb_keyspace_and_result() -> None:
    metrics = Metrics()
    metrics.ops("set", "default", 16)
    metrics.ops("set", "default")
    metrics.ops("set", "rooms", 2, "disk-full")
    assert lines(metrics, "edgekv_ops_total") == [
        'edgekv_ops_total{op="set",keyspace="default",result="ok"} 17',
        'edgekv_ops_total{op="set",keyspace="rooms",result="disk-full"} 2',
    ]


def test_a_run_of_operations_is_one_update_of_one_dict() -> None:
    """The hot path counts a thousand SETs as it counts one."""
    metrics = Metrics()
    metrics.ops("set", "default", 1000)
    assert metrics.operations == {("set", "default", "ok"): 1000}


def test_a_counter_that_its_owner_keeps_is_shown_as_a_counter() -> None:
    metrics = Metrics()
    metrics.counter("edgekv_write_blocks_total", "How often writers had to wait.", lambda: 3)
    assert lines(metrics, "# TYPE edgekv_write_blocks_total") == ["# TYPE edgekv_write_blocks_total counter"]
    assert lines(metrics, "edgekv_write_blocks_total") == ["edgekv_write_blocks_total 3"]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 1000))))
def test_a_bucket_holds_exactly_what_is_not_above_its_bound(observed: list[tuple[int, int]]) -> None:
    histogram = Histogram()
    for value, n in observed:
        histogram.observe(value, n)
    assert histogram.count == sum(n for _, n in observed)
    assert histogram.total == sum(value * n for value, n in observed)
    for bit in range(65):
        assert sum(histogram.counts[: bit + 1]) == sum(n for value, n in observed if value < 1 << bit)


def test_buckets_are_cumulative_and_seconds_are_seconds() -> None:
    metrics = Metrics()
    metrics.wal_frame(100, 5_000, 200_000)  # 0.2 ms
    metrics.wal_frame(1, 60, 3_000_000)
    metrics.wal_frame(1, 60, None)
    found = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines(metrics, "edgekv_wal")}
    below = {
        float(name.split('"')[1]): int(n)
        for name, n in found.items()
        if name.startswith("edgekv_wal_fsync_seconds_bucket")
    }
    assert [n for bound, n in sorted(below.items())] == sorted(below.values())
    assert max(n for bound, n in below.items() if bound < 0.0002) == 0
    assert min(n for bound, n in below.items() if bound > 0.0002 * 2) == 1
    assert float(found["edgekv_wal_fsync_seconds_sum"]) == pytest.approx(0.0032)
    assert (found["edgekv_wal_fsync_seconds_count"], found["edgekv_wal_batch_records_count"]) == ("2", "3")
    assert found['edgekv_wal_batch_records_bucket{le="1"}'] == "2"
    assert found['edgekv_wal_batch_records_bucket{le="127"}'] == "3"
    assert found["edgekv_wal_bytes_total"] == "5120"


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    metrics = Metrics()
    level = [1]
    metrics.gauge("edgekv_unapplied_bytes", "Rows not yet in LMDB.", lambda: level[0])
    metrics.gauge(
        "edgekv_members", "Members by state.", lambda: [((("state", "open"),), 2), ((("state", "closed"),), 1)]
    )
    level[0] = 5
    assert lines(metrics, "edgekv_unapplied_bytes") == ["edgekv_unapplied_bytes 5"]
    assert lines(metrics, "edgekv_members") == ['edgekv_members{state="open"} 2', 'edgekv_members{state="closed"} 1']


def test_every_line_is_well_formed_whatever_the_labels() -> None:
    metrics = Metrics()
    metrics.ops("set", 'a"b\\c\nd', 1)
    metrics.op_seconds["set"].observe(12_345, 16)
    for line in metrics.exposition().splitlines():
        assert line.startswith(("# HELP edgekv_", "# TYPE edgekv_")) or LINE.fullmatch(line), line
