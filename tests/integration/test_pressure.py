"""The back-pressure cap, reached by every client at once: writers wait, and nobody and nothing else does."""

import http.client
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import redis

from edgekv.cli.node_process import NodeProcess
from edgekv.limits import MIB, TAIL_BYTES
from tests.integration.flood import DEPTH, Flood, Report
from tests.integration.witnesses import MemoryWatch, another_client, metric, pings, probes

SMALL: Final = ("--small-memory", "true", "--memory-bytes")
PROMPT_S: Final = 0.1
CROWDED_S: Final = 0.5
"""When a turn of the loop reads from 500 clients, or writes LMDB as well."""
VALUE_BYTES: Final = 10_000
RATE_LEFT: Final = 0.4  # of two measurements on a machine with other work


def small_writes(node: NodeProcess) -> Report:
    """The rate of small writes to few keys, as many as the memory holds: the cap has no part in it."""
    with Flood(node.resp, connections=10, value_bytes=20, seconds=1.0, keys=1000) as flood:
        return flood.report()


def under_pressure(
    node: NodeProcess, *, memory_bytes: int, connections: int, seconds: float, worst_s: float = PROMPT_S
) -> Report:
    """Flood the node and hold it to what must be true meanwhile and afterwards."""
    before = small_writes(node)
    with (
        pings(node) as ping,
        probes(node) as probe,
        another_client(node) as client,
        MemoryWatch(node) as memory,
        Flood(node.resp, connections=connections, value_bytes=VALUE_BYTES, seconds=seconds) as flood,
    ):
        report = flood.report()
    assert report.refused == 0 and report.answered > 0
    assert metric(node, "edgekv_write_blocks_total") > 3
    for witness in (ping, probe):
        assert witness.worst_s < worst_s and witness.percentile_s(99) < worst_s / 2
        assert len(witness.seconds) > 10 * seconds
    assert client.worst_s < 1.0 + 2 * connections * DEPTH / report.rate, (
        "a single writer waits for those before it, no longer"
    )
    # The cap bounds what is not in LMDB; beside it are reads in progress, LMDB's dirty pages, the applier's rows, the log's
    # tail in memory, which peers and watches read, and what each client has sent before it waits.
    assert memory.grown_bytes < 3 * memory_bytes + 96 * MIB + 2 * TAIL_BYTES + 3 * connections * DEPTH * VALUE_BYTES
    # A second is short, and other work may have the machine in it: what a node can do at all is the best of some.
    assert any(small_writes(node).rate > RATE_LEFT * before.rate for _ in range(5))
    return report


def _drains(node: NodeProcess) -> None:
    deadline = time.monotonic() + 15
    while metric(node, "edgekv_unapplied_bytes") > 0:
        assert time.monotonic() < deadline, "what is not in LMDB yet never gets there"
        time.sleep(0.2)
    assert metric(node, "edgekv_write_blocked") == 0


def test_pings_and_probes_are_prompt_while_fifty_writers_wait_for_room(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", *SMALL, str(8 * MIB)) as node:
        report = under_pressure(node, memory_bytes=8 * MIB, connections=50, seconds=3.0)
        assert report.longest_pause_s < 1.0
        assert node.stop() == 0


def test_a_write_by_http_waits_for_room_as_well_and_reads_do_not(tmp_path: Path) -> None:
    with (
        NodeProcess(tmp_path / "node", *SMALL, str(2 * MIB)) as node,
        Flood(node.resp, connections=30, value_bytes=10_000, seconds=1.5) as flood,
        closing(http.client.HTTPConnection(node.http.host, node.http.port, timeout=10)) as connection,
    ):
        reads: list[float] = []
        writes: list[float] = []
        for i in range(40):
            for method, took in (("PUT", writes), ("GET", reads)):
                started = time.perf_counter()
                connection.request(method, "/v1/kv/k", body=b"v%d" % i if method == "PUT" else None)
                response = connection.getresponse()
                body = response.read()
                assert (response.status, body) == ((204, b"") if method == "PUT" else (200, b"v%d" % i))
                took.append(time.perf_counter() - started)
        assert flood.report().refused == 0
        assert max(reads) < PROMPT_S and max(writes) < 5.0


def test_a_delete_waits_its_turn_and_a_client_that_leaves_while_it_waits_harms_nobody(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", *SMALL, str(2 * MIB)) as node:
        with Flood(node.resp, connections=30, value_bytes=10_000, seconds=1.5) as flood:
            for i in range(10):
                with redis.Redis(node.resp.host, node.resp.port, socket_timeout=10) as client:
                    client.set("k", "x" * 100_000)
                    assert client.delete("k") == 1
                    leaver = client.connection_pool.get_connection()
                    leaver.send_command("SET", f"left{i}", "x" * 200_000)
                    leaver.disconnect()
            assert flood.report().refused == 0
        _drains(node)


@pytest.mark.slow
@pytest.mark.parametrize(("memory_mib", "connections", "worst_s"), [(64, 50, PROMPT_S), (8, 500, CROWDED_S)])
def test_a_long_flood_changes_nothing(tmp_path: Path, memory_mib: int, connections: int, worst_s: float) -> None:
    memory_bytes = memory_mib * MIB
    with NodeProcess(tmp_path / "node", *SMALL, str(memory_bytes)) as node:
        under_pressure(node, memory_bytes=memory_bytes, connections=connections, seconds=20.0, worst_s=worst_s)
        _drains(node)
        assert node.stop() == 0


@pytest.mark.slow
def test_the_node_that_writes_lmdb_itself_bears_it_too(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", *SMALL, str(8 * MIB), "--applier", "inline") as node:
        under_pressure(node, memory_bytes=8 * MIB, connections=50, seconds=5.0, worst_s=CROWDED_S)
        _drains(node)
        assert node.stop() == 0
