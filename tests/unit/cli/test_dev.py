"""What ``edgekv dev`` decides without a node: shapes, ports, refusals, and the orders that a running cluster takes."""

import asyncio
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekv.cli import dev_layout
from edgekv.cli.dev import order
from edgekv.cli.dev_cluster import DevCluster
from edgekv.cli.dev_layout import HOST, Layout, short_path
from edgekv.errors import ConfigError, DirectoryInUse, InvalidRequest, Unavailable
from tests.unit.cli.conftest import Program


def test_edges_reach_every_hub_through_a_link_of_their_own() -> None:
    layout = dev_layout.create(["EWR", "JFK"], hubs=2)
    assert [(node.name, node.site, node.role) for node in layout.nodes] == [
        ("cloud-1", "cloud", "hub"),
        ("cloud-2", "cloud", "hub"),
        ("EWR-1", "EWR", "edge"),
        ("JFK-1", "JFK", "edge"),
    ]
    ports = {link.port: (link.site, link.hub) for link in layout.links}
    dialed = {node.name: [ports[address.port] for address in layout.upstreams(node)] for node in layout.edges}
    assert dialed == {
        "EWR-1": [("EWR", "cloud-1"), ("EWR", "cloud-2")],
        "JFK-1": [("JFK", "cloud-1"), ("JFK", "cloud-2")],
    }


def test_the_first_hub_founds_the_cluster_and_any_two_hubs_have_one_link() -> None:
    """Were the further ones linked with the first alone, its death would part them."""
    layout = dev_layout.create([], hubs=3)
    peers = [hub.peer for hub in layout.hubs]
    dialed = [[address.port for address in layout.upstreams(hub)] for hub in layout.hubs]
    assert dialed == [[], peers[:1], peers[:2]]


def test_a_cluster_keeps_its_shape_and_ports_in_its_directory(tmp_path: Path) -> None:
    layout = dev_layout.create(["EWR"], hubs=1)
    assert dev_layout.load(tmp_path) is None
    dev_layout.save(tmp_path, layout)
    assert dev_layout.load(tmp_path) == layout
    assert dev_layout.with_free_ports(layout) == layout


def test_a_port_that_somebody_else_keeps_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_layout, "PORTS_FREE_S", 0.0)
    layout = dev_layout.create(["EWR"], hubs=1)
    with socket.socket() as other:
        other.bind((HOST, layout.hubs[0].peer))
        other.listen()
        moved = dev_layout.with_free_ports(layout)
    assert moved.hubs[0].peer != layout.hubs[0].peer
    assert (moved.hubs[0].http, moved.edges, moved.links) == (layout.hubs[0].http, layout.edges, layout.links)


def test_ports_are_none_that_an_outgoing_connection_gets_while_a_node_is_down() -> None:
    layout = dev_layout.create(["EWR", "JFK"], hubs=2)
    ports = [port for node in layout.nodes for port in (node.http, node.resp, node.peer)]
    ports += [link.port for link in layout.links]
    assert len(set(ports)) == 4 * 3 + 2 * 2
    assert all(1024 <= port < 32_768 for port in ports), "Linux gives those from 32768 on to outgoing connections"


def test_too_few_free_ports_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_layout, "PORTS", range(20_000, 20_002))
    with pytest.raises(Unavailable, match="fewer than 7 ports from 20000 to 20001 are free"):
        dev_layout.create(["EWR"], hubs=1)


@pytest.mark.parametrize("sites", [["cloud"], ["EWR", "EWR"], ["a/b"], [".."], ['a"'], [""], ["x" * 60]])
def test_a_site_without_a_name_of_its_own_is_refused(sites: list[str]) -> None:
    with pytest.raises(ConfigError):
        dev_layout.create(sites, hubs=1)


def test_links_are_named_by_their_two_sites_in_any_order() -> None:
    layout = dev_layout.create(["EWR", "JFK"], hubs=2)
    assert layout.links_between("cloud", "JFK") == layout.links_between("JFK", "cloud") == list(layout.links[2:])
    with pytest.raises(ConfigError, match="the sites are EWR, JFK, cloud"):
        layout.links_between("EWR", "JFK")


@pytest.mark.parametrize("arguments", [("--edges", "2"), ("--hubs", "2"), ("--site", "LGA"), ("--edges", "0")])
def test_a_directory_with_a_cluster_of_another_shape_is_refused(
    edgekv: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A site that was asked for and is not there would be missed only later."""
    dev_layout.save(tmp_path, dev_layout.create(["EWR"], hubs=1))
    ended = edgekv("dev", "--dir", str(tmp_path), *arguments)
    assert ended.exit_code == InvalidRequest.exit_status
    assert "with --hubs 1 and the edge sites EWR" in ended.err


@pytest.mark.parametrize("arguments", [("nodes",), ("links",), ("cut", "a", "b"), ("start", "a")])
def test_an_order_without_a_cluster_says_how_to_start_one(
    edgekv: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = edgekv("dev", *arguments, "--dir", str(tmp_path))
    assert ended.exit_code == Unavailable.exit_status
    assert f"no development cluster runs in {tmp_path}. Start one" in ended.err
    assert edgekv("dev", "--dir", str(tmp_path), *arguments) == ended, (
        "--dir means the same on either side of the order"
    )


def test_orders_are_answered_or_refused_with_a_code(tmp_path: Path) -> None:
    def orders(directory: Path) -> None:
        assert order(directory, "nodes") == []
        with pytest.raises(ConfigError, match="no link goes"):
            order(directory, "cut", "EWR", "cloud")
        for words in (["dance"], ["kill"], ["nodes", "all"]):
            with pytest.raises(InvalidRequest, match="this is no order"):
                order(directory, *words)

    in_a_cluster(tmp_path, orders)


@pytest.mark.parametrize(
    "garbage", [b"\n", b"{}\n", b"5\n", b"[1, 2]\n", b"\xff\xfe\n", b"x" * 70_000 + b"\n", b"[[]]\n"]
)
def test_garbage_at_the_control_socket_is_answered_and_harms_nothing(tmp_path: Path, garbage: bytes) -> None:
    def orders(directory: Path) -> None:
        with short_path(directory) as path, socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(garbage)
            answer = json.loads(connection.makefile("rb").readline())
        assert answer["code"] == InvalidRequest.code
        assert order(directory, "links") == []

    in_a_cluster(tmp_path, orders)


def test_an_order_that_fails_on_the_disk_is_answered_with_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def orders(directory: Path) -> None:
        with pytest.raises(Unavailable, match=r"could not be done: .*No space left on device"):
            order(directory, "nodes")

    monkeypatch.setattr(DevCluster, "_carry_out", full)
    in_a_cluster(tmp_path, orders)


def test_a_cluster_that_hangs_up_without_an_answer_is_not_taken_for_none(tmp_path: Path) -> None:
    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.close()

    with socket.socket(socket.AF_UNIX) as listener:
        with short_path(tmp_path) as path:
            listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Unavailable, match=f"the development cluster in {tmp_path} did not answer"):
            order(tmp_path, "nodes")
        thread.join()


def test_a_second_cluster_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    def second(directory: Path) -> None:
        with pytest.raises(DirectoryInUse, match="a development cluster runs in"):
            DevCluster(directory, Layout((), ()), print)
        assert order(directory, "nodes") == []

    in_a_cluster(tmp_path, second)


def test_a_directory_with_a_long_path_takes_orders(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    in_a_cluster(deep, lambda directory: order(directory, "nodes"))


def in_a_cluster(directory: Path, act: Callable[[Path], object]) -> None:
    """Run a cluster without nodes until ``act`` has ended, in a thread of its own."""

    async def run() -> None:
        ready = asyncio.Event()
        cluster = DevCluster(directory, Layout((), ()), lambda _: ready.set())
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(cluster.run())
            await ready.wait()
            try:
                await asyncio.to_thread(act, directory)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

    asyncio.run(run())
    assert not (directory / dev_layout.SOCKET).exists()
