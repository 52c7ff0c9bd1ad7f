"""A node that was killed between the BARRIER of a row sync and its commit: the log is inspected, and a real start finishes it."""

import json
import shutil
from pathlib import Path

import pytest

from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection
from edgekv.ids import KeyspaceId
from edgekv.store.applied import sync_path
from edgekv.store.spool import spool_file
from tests.unit.cli.conftest import Program
from tests.unit.node.inline_node import InlineNode

SPOOL = b"spool id"
SMALL = (
    "--limits-value-bytes-max=65536",
    "--wal-segment-bytes=1048576",
    "--memory-bytes=4194304",
    "--small-memory=true",
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Its log ends behind a BARRIER that LMDB has not applied."""
    source, target = (InlineNode(tmp_path / name, seed=seed) for seed, name in enumerate(("source", "target")))
    for number in range(50):
        source.operations.set(b"k%02d" % number, b"theirs")
        target.operations.set(b"k%02d" % (2 * number), b"mine")
    source.operations.sets.add(b"set", [b"a", b"b"])
    source.checkpoint()
    spool = source.spool(KeyspaceId(0), spool_file(sync_path(target.config.data_dir), SPOOL))
    target.engine.flip(KeyspaceId(0), SPOOL, spool.head.vector, spool.head.hlc, lambda: None)
    while not target.logged_barrier():
        if not target.flush() and not target.apply():
            target.tick()
    for node in (source, target):
        node.kill()
    return target.config.data_dir


@pytest.mark.parametrize("applier", ["process", "inline"])
def test_the_next_start_joins_the_rows_before_it_serves_anything(data_dir: Path, applier: str) -> None:
    for _ in range(2):
        with NodeProcess(data_dir, *SMALL, f"--applier={applier}", "--node=node-1", "--site=site-1") as node:
            with RespConnection(node.resp, 10) as connection:
                assert connection.call(b"GET", b"k01") == b"theirs"
                assert connection.call(b"GET", b"k98") == b"mine"
                assert connection.call(b"SCARD", b"set") == 2
                assert connection.call(b"SET", b"k01", b"later") == b"OK"
                assert connection.call(b"GET", b"k01") == b"later"
                assert connection.call(b"SET", b"k01", b"theirs") == b"OK"
            assert node.stop() == 0


@pytest.mark.parametrize("applier", ["process", "inline"])
def test_a_start_without_the_spool_serves_what_there_was_and_takes_no_writes(data_dir: Path, applier: str) -> None:
    shutil.rmtree(sync_path(data_dir))
    with NodeProcess(data_dir, *SMALL, f"--applier={applier}", "--node=node-1", "--site=site-1") as node:
        with RespConnection(node.resp, 10) as connection:
            assert connection.call(b"GET", b"k98") == b"mine"
            assert connection.call(b"GET", b"k01") is None
            with pytest.raises(Exception, match=f"{SPOOL.hex()}.spool, which is gone"):
                connection.call(b"SET", b"k01", b"later")
        assert node.stop() == 0


def test_the_log_shows_where_rows_joined(edgekv: Program, data_dir: Path) -> None:
    inspected = edgekv("wal", "inspect", "--data-dir", str(data_dir), "-o", "json")
    assert inspected.exit_code == 0, inspected.err
    barriers = [barrier for segment in json.loads(inspected.out)["segments"] for barrier in segment["barriers"]]
    assert [(barrier["keyspace"], barrier["spool"]) for barrier in barriers] == [(0, SPOOL.hex())]
    text = edgekv("wal", "inspect", "--data-dir", str(data_dir)).text
    assert f"the rows of spool {SPOOL.hex()} join keyspace 0" in text
