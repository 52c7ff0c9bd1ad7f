"""Nodes that come together, as processes: a hub founds, others join it, wait for it, or are told why they may not."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import edgekv
from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection
from edgekv.errors import Unavailable

WAIT_S: Final = 30.0
KEYSPACES: Final = """
[[keyspace]]
prefix = "room/"
name = "rooms"
sites = ["shop-7"]
[[keyspace]]
prefix = "doc/"
name = "documents"
conflict = "siblings"
durability = "buffered"
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hub_process(tmp_path: Path, *arguments: str) -> NodeProcess:
    return NodeProcess(tmp_path / "hub", "--node", "hub-1", "--site", "cloud", *arguments)


def edge_process(tmp_path: Path, upstream: str, *arguments: str) -> NodeProcess:
    flags = ("--node", "till-1", "--site", "shop-7", "--role", "edge", "--upstream", upstream)
    return NodeProcess(tmp_path / "edge", *flags, *arguments)


def free_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def written(node: NodeProcess, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((node.data_dir / name).read_text())
    return record


def has(node: NodeProcess, key: bytes, value: bytes) -> bool:
    with RespConnection(node.resp, WAIT_S) as connection:
        return connection.call(b"GET", key) == value


def put(node: NodeProcess, key: bytes, value: bytes) -> bool:
    with RespConnection(node.resp, WAIT_S) as connection:
        try:
            return connection.call(b"SET", key, value) == b"OK"
        except Unavailable:  # it is not a member yet
            return False


def test_an_edge_joins_its_hub_and_each_gets_what_the_other_writes(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text(KEYSPACES)
    with hub_process(tmp_path, "--config", str(config)) as hub:
        with edge_process(tmp_path, str(hub.listeners["peer"])) as edge:
            ours, theirs = written(edge, "identity.json"), written(hub, "identity.json")
            assert ours["cluster"] == theirs["cluster"] and ours["node"] != theirs["node"]
            assert written(edge, "keyspaces.json") == written(hub, "keyspaces.json")
            assert put(hub, b"from/hub", b"1")
            until(lambda: put(edge, b"room/1", b"2"))
            until(lambda: has(edge, b"from/hub", b"1") and has(hub, b"room/1", b"2"))
            assert edge.stop() == 0
            assert put(hub, b"from/hub", b"3")
            edge.start()
            until(lambda: has(edge, b"from/hub", b"3"))
            assert written(edge, "identity.json") == ours
        assert hub.stop() == 0


def test_an_edge_goes_on_with_its_second_hub_when_the_first_one_is_killed(tmp_path: Path) -> None:
    first_hub = hub_process(tmp_path)
    first_hub.start()
    first = str(first_hub.listeners["peer"])
    flags = ("--node", "hub-2", "--site", "cloud", "--upstream", first)
    with NodeProcess(tmp_path / "hub-2", *flags) as second_hub:
        with edge_process(tmp_path, first, "--upstream", str(second_hub.listeners["peer"])) as edge:
            until(lambda: put(edge, b"a", b"1"))
            until(lambda: has(second_hub, b"a", b"1"))  # by way of the first one
            first_hub.kill()
            assert put(edge, b"b", b"2")
            until(lambda: has(second_hub, b"b", b"2"))
            until(lambda: put(second_hub, b"c", b"3"))
            until(lambda: has(edge, b"c", b"3"))
            assert edge.stop() == 0
        assert second_hub.stop() == 0


def test_a_node_inside_a_process_joins_as_any_other(tmp_path: Path) -> None:
    async def main(hub: NodeProcess) -> None:
        upstream = [str(hub.listeners["peer"])]
        async with edgekv.open(tmp_path / "inside", role="edge", applier="inline", upstream=upstream) as db:
            assert await asyncio.to_thread(put, hub, b"k", b"v")
            async with asyncio.timeout(WAIT_S):
                while await db.get("k") != b"v":  # noqa: ASYNC110 - it is the other node's doing
                    await asyncio.sleep(0.01)

    with hub_process(tmp_path) as hub:
        asyncio.run(main(hub))
        assert hub.stop() == 0


def test_a_node_inside_a_process_need_not_wait_for_its_upstream_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), edgekv.open(tmp_path / "inside", upstream=[free_address()]):
                raise AssertionError("there is nothing yet that it could hold")
        async with edgekv.open(tmp_path / "inside", applier="inline") as db:
            await db.put("k", b"v")

    asyncio.run(main())


def test_a_node_that_joins_waits_for_its_upstream_and_says_so(tmp_path: Path) -> None:
    address = free_address()
    edge = edge_process(tmp_path, address)
    process = subprocess.Popen(edge.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"waiting for {address} to join its cluster\n"
        assert not (edge.data_dir / "identity.json").exists()
        with hub_process(tmp_path, "--peer", address) as hub:
            lines = iter(process.stdout.readline, "ready\n")
            assert [line.split()[0] for line in lines] == ["http", "resp", "peer"]
            assert written(edge, "identity.json")["cluster"] == written(hub, "identity.json")["cluster"]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0
        assert said.count(f"cannot connect to {address}: Connection refused; it is tried again") == 1
    finally:
        process.kill()
        process.communicate()


def test_a_node_that_waits_to_join_is_stopped_as_any_other_and_leaves_nothing_behind(tmp_path: Path) -> None:
    edge = edge_process(tmp_path, free_address())
    process = subprocess.Popen(edge.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for ")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=WAIT_S)
        assert (process.returncode, out) == (0, "")
        assert sorted(path.name for path in edge.data_dir.iterdir() if path.is_file()) == ["lock"]
        with NodeProcess(edge.data_dir) as alone:
            assert alone.stop() == 0
    finally:
        process.kill()
        process.communicate()


def test_a_node_of_another_cluster_is_told_why_it_is_not_taken_in_and_goes_on_alone(tmp_path: Path) -> None:
    edge = edge_process(tmp_path, "127.0.0.1:1")
    with NodeProcess(edge.data_dir, "--node", "till-1", "--site", "shop-7") as alone:
        assert put(alone, b"k", b"v")
        assert alone.stop() == 0
    with hub_process(tmp_path) as hub, edge_process(tmp_path, str(hub.listeners["peer"])) as stranger:
        until(lambda: "belongs to cluster" in stranger.log.read_text())
        assert has(stranger, b"k", b"v") and not has(hub, b"k", b"v")
        assert "A node joins a cluster with an empty data directory only; it is tried again" in stranger.log.read_text()


def test_keyspaces_that_differ_from_those_of_the_cluster_are_said(tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text('[[keyspace]]\nprefix = "room/"\nname = "rooms"\n')
    with (
        hub_process(tmp_path) as hub,
        pytest.raises(Unavailable, match=r"names the keyspace 'rooms', which .* does not have"),
    ):
        edge_process(tmp_path, str(hub.listeners["peer"]), "--config", str(config)).start()


def test_an_edge_whose_directory_was_set_back_ends_and_begins_anew_with_what_it_had_set_aside(tmp_path: Path) -> None:
    """Its log and store are older ones, its identity is not a copy: only another node can tell."""
    with hub_process(tmp_path) as hub:
        edge = edge_process(tmp_path, str(hub.listeners["peer"]))
        edge.start()
        until(lambda: put(edge, b"a", b"1"))
        assert edge.stop() == 0
        for folder in ("wal", "store"):
            shutil.copytree(edge.data_dir / folder, tmp_path / "old" / folder)
        edge.start()
        assert put(edge, b"b", b"2")
        until(lambda: has(hub, b"b", b"2"))
        assert edge.stop() == 0
        for folder in ("wal", "store"):
            shutil.rmtree(edge.data_dir / folder)
            shutil.copytree(tmp_path / "old" / folder, edge.data_dir / folder)
        before = written(edge, "identity.json")
        ended = subprocess.run(edge.command(), capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert ended.returncode == 5 and "it was set back. Start it again: it begins anew" in ended.stderr
        after = written(edge, "identity.json")
        assert (after["node"], after["past"]) == (before["node"], [before["incarnation"]])
        edge.start()
        assert [folder.name for folder in (edge.data_dir / "forked").iterdir()] == [before["incarnation"]]
        until(lambda: has(edge, b"b", b"2"))
        until(lambda: put(edge, b"c", b"3"))
        until(lambda: has(hub, b"c", b"3"))
        assert edge.stop() == 0
