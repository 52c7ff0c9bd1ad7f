"""Two copies of one directory run: each goes on, as a node of its own, and no write of either is lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection
from edgekv.node import identity
from tests.integration.test_joining import WAIT_S, edge_process, has, hub_process, put, until


def say(node: NodeProcess, *command: bytes) -> object:
    with RespConnection(node.resp, WAIT_S) as connection:
        return connection.call(*command)


def edgekv(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "edgekv", *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return ended.returncode, ended.stdout


def has_ended(node: NodeProcess) -> bool:
    return node._process is not None and node._process.poll() is not None


def test_what_the_copy_had_that_lost_its_place_is_brought_back(tmp_path: Path) -> None:
    with hub_process(tmp_path) as hub:
        peer = str(hub.listeners["peer"])
        edge = edge_process(tmp_path, peer)
        with edge:
            until(lambda: put(edge, b"before", b"1"))
            assert edge.stop() == 0
            shutil.copytree(edge.data_dir, tmp_path / "twin")
            edge.start()
            flags = ("--node", "till-1", "--site", "shop-7", "--role", "edge", "--upstream")
            with NodeProcess(tmp_path / "twin", *flags, peer) as twin:
                until(
                    lambda: put(twin, b"twin", b"2")
                )  # it takes the place of the other one, which hears that and ends
                until(lambda: has_ended(edge))
                edge.kill()
                assert "the cluster has another history of this node" in edge.log.read_text()
                renamed = NodeProcess(edge.data_dir, "--node", "till-2", *flags[2:], peer)
                with renamed:
                    until(lambda: has(renamed, b"twin", b"2"))
                    (kept,) = identity.aside(renamed.data_dir)
                    code, said = edgekv("cluster", "status", "--http", str(renamed.http))
                    assert code == 0 and f"edgekv cluster unite {kept}" in said, said
                    assert say(hub, b"DEL", b"before") == 1
                    code, said = edgekv("cluster", "unite", kept, "--resp", str(hub.resp))
                    assert code == 0 and "Nothing was done" in said, said
                    code, said = edgekv("cluster", "unite", kept, "--resp", str(hub.resp), "--yes", "-o", "json")
                    assert code == 0, said
                    assert json.loads(said)["changes"] == 1
                    until(lambda: has(twin, b"before", b"1") and has(renamed, b"before", b"1"))
                    assert put(renamed, b"mine", b"3")
                    until(lambda: has(twin, b"mine", b"3"))


def test_both_copies_writes_are_in_the_cluster_in_the_end(tmp_path: Path) -> None:
    """The copy writes alone, under numbers that the original has given to something else."""
    with hub_process(tmp_path) as hub:
        peer = str(hub.listeners["peer"])
        with edge_process(tmp_path, peer) as edge:
            until(lambda: put(edge, b"before", b"1"))
            until(lambda: has(hub, b"before", b"1"))
            edge.kill()
            # As a machine's snapshot that is taken, and set back while the cluster has more: same inode, same incarnation.
            snapshot = tmp_path / "snapshot"
            shutil.copytree(edge.data_dir, snapshot)
            edge.start()
            assert say(edge, b"SADD", b"s", b"a") == 1
            assert put(edge, b"both", b"of the original")
            until(lambda: has(hub, b"both", b"of the original"))
            edge.kill()
            for folder in ("wal", "store"):
                shutil.rmtree(edge.data_dir / folder)
                shutil.copytree(snapshot / folder, edge.data_dir / folder)
            away = NodeProcess(
                edge.data_dir, "--node", "till-1", "--site", "shop-7", "--role", "edge", "--upstream", "127.0.0.1:9"
            )
            with away:
                assert say(away, b"SADD", b"s", b"b") == 1
                assert put(away, b"both", b"of the copy")
                assert put(away, b"copy", b"2")
                assert say(away, b"HSET", b"h", b"f", b"v") == 1
            edge.start()
            until(lambda: has_ended(edge))
            edge.kill()
            edge.start()
            until(lambda: has(edge, b"both", b"of the original"))
            (kept,) = identity.aside(edge.data_dir)
            code, said = edgekv("cluster", "unite", kept, "--resp", str(hub.resp), "--yes", "-o", "json")
            assert code == 4, said
            (differs,) = json.loads(said)["different"]
            assert (differs["key"], differs["here"], differs["aside"]) == ("both", "of the original", "of the copy")
            until(lambda: has(edge, b"copy", b"2") and say(edge, b"SCARD", b"s") == 2)
            assert say(edge, b"HGET", b"h", b"f") == b"v"
            code, said = edgekv("cluster", "verify", "--http", str(hub.http), "--http", str(edge.http))
            assert code == 0, said
