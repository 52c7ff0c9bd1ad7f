"""`edgekv cluster repair`, on processes: what is lost from one node's store comes back from another one."""

import json
import subprocess
import sys
import time
from pathlib import Path

from edgekv.cli.node_http import NodeHttp
from edgekv.cli.node_process import NodeProcess
from edgekv.crdt.operation import SUFFIX_REGISTER
from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.node.directory import DataDirectory
from edgekv.store import layout
from edgekv.store.applied import store_path, sync_path, wal_path
from edgekv.store.applier import Applier
from edgekv.store.lmdb_store import LmdbStore
from edgekv.wal.disk import RealDisk
from tests.integration.test_joining import WAIT_S, edge_process, has, hub_process, put, until


def durable_lsn(node: NodeProcess) -> int:
    with NodeHttp(node.http, WAIT_S) as http:
        found: int = http.read("/v1/status").json()["durable_lsn"]
        return found


def lose(node: NodeProcess, lsn: int, key: bytes) -> None:
    """Of a killed node whose log reaches to ``lsn``: a row is gone from its store."""
    directory = DataDirectory.acquire(node.data_dir, time.sleep)  # the applier has ended
    store = LmdbStore.open(store_path(node.data_dir), readonly=False)
    Applier(store, RealDisk(wal_path(node.data_dir), read_only=True), sync_path(node.data_dir)).apply(lsn, None)
    with store.write() as transaction:
        assert transaction.get(layout.lmdb_key(DEFAULT_ID, key, SUFFIX_REGISTER)) is not None
        transaction.delete(layout.lmdb_key(DEFAULT_ID, key, SUFFIX_REGISTER))
    store.close()
    directory.release()


def cluster(hub: NodeProcess, edge: NodeProcess, *arguments: str) -> tuple[int, str]:
    nodes = ("--http", str(hub.http), "--http", str(edge.http), "--timeout-s", "30")
    command = [sys.executable, "-m", "edgekv", "cluster", *arguments, *nodes]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return ended.returncode, ended.stdout


def test_what_verify_found_is_mended_from_the_node_that_is_right(tmp_path: Path) -> None:
    with hub_process(tmp_path) as hub, edge_process(tmp_path, str(hub.listeners["peer"])) as edge:
        until(lambda: put(edge, b"alarm/1", b"open"))
        assert put(edge, b"other/1", b"on")
        until(lambda: has(hub, b"other/1", b"on"))
        lsn = durable_lsn(edge)
        edge.kill()
        lose(edge, lsn, b"alarm/1")
        edge.start()
        code, said = cluster(hub, edge, "verify")
        assert code == 4, said
        code, said = cluster(hub, edge, "repair", "--from", "hub-1")
        assert code == 0 and "Nothing was done" in said and has(edge, b"alarm/1", b"open") is False
        code, said = cluster(hub, edge, "repair", "--from", "hub-1", "--yes", "-o", "json")
        assert code == 0, said
        (done,) = json.loads(said)["done"]
        assert (done["node"], done["added"], done["replaced"], done["dropped"]) == ("till-1", 1, 0, 0)
        assert has(edge, b"alarm/1", b"open")
        code, said = cluster(hub, edge, "verify")
        assert code == 0, said
        code, said = cluster(hub, edge, "repair", "--union", "--yes")
        assert code == 0 and "Nothing differs" in said
        assert "was repaired from hub-1" in edge.log.read_text()
