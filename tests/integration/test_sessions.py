"""Acknowledgements and sessions of real nodes: that the shell drives them, that tokens outlive a kill and are good on other nodes.

The first tests have nodes that are strangers to each other: no acknowledgement ever comes, and what one has shown no other gets.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
import redis

import edgekv
import edgekv.sync
from edgekv.cli.node_process import NodeProcess
from edgekv.errors import SessionBehind

SMALL = ("--memory-bytes", str(64 << 20))
LATE_S = 60.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "data", *SMALL) as running:
        yield running


def url(*nodes: NodeProcess) -> str:
    return "edgekv://" + ",".join(str(node.resp) for node in nodes)


def put(node: NodeProcess, **headers: str) -> HTTPResponse:
    connection = HTTPConnection(node.http.host, node.http.port, timeout=LATE_S)
    connection.request("PUT", "/v1/kv/k", b"v", {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_a_wait_ends_at_its_timeout_on_every_interface_and_the_write_is_there(node: NodeProcess) -> None:
    pending: list[str] = []
    with edgekv.sync.connect(url(node), ack="hub", ack_timeout_s=0.2, on_pending=pending.append) as db:
        began = time.monotonic()
        db.put("client", b"v")
        assert time.monotonic() - began >= 0.19  # timers count whole milliseconds
        assert pending == ["put"]
    answer = put(node, Edgekv_Ack="site", Edgekv_Ack_Timeout_Ms="200")
    assert (answer.status, answer.headers["Edgekv-Acked"]) == (204, "local")
    client = redis.Redis(node.resp.host, node.resp.port)
    client.set("redis", "v")
    assert client.wait(1, 200) == 0
    assert client.wait(0, 0) == 0
    assert client.mget("client", "k", "redis") == [b"v"] * 3


def test_redis_py_takes_the_pushes_of_protocol_3(node: NodeProcess) -> None:
    client = redis.Redis(node.resp.host, node.resp.port, protocol=3, single_connection_client=True)
    assert client.execute_command("EDGEKV.ACK", "hub", 100) == b"OK"  # type: ignore[no-untyped-call]
    assert client.execute_command("EDGEKV.SESSION", "NEW") == b"OK"  # type: ignore[no-untyped-call]
    assert client.set("k", "v") is True
    assert client.incr("n") == 1
    assert client.get("k") == b"v"


def test_a_session_goes_on_after_its_node_was_killed_and_started_again(node: NodeProcess) -> None:
    with edgekv.sync.connect(url(node)) as db, db.session() as session:
        session.put("k", b"v")
        token = session.token
    answer = put(node, Edgekv_Session=token)
    assert answer.status == 204
    node.kill()
    node.start()
    with edgekv.sync.connect(url(node)) as db, db.session(answer.headers["Edgekv-Session"]) as session:
        assert session.get("k") == b"v"
        assert session.token


def test_a_node_that_has_not_what_the_session_has_seen_refuses_it(node: NodeProcess, tmp_path: Path) -> None:
    with edgekv.sync.connect(url(node)) as db, db.session() as session:
        session.put("k", b"v")
        token = session.token
    with NodeProcess(tmp_path / "stranger", *SMALL) as stranger:
        began = time.monotonic()
        answer = put(stranger, Edgekv_Session=token, Edgekv_Session_Timeout_Ms="200")
        assert answer.status == 503 and time.monotonic() - began >= 0.2
        with edgekv.sync.connect(url(stranger), deadline_s=1.5) as db:
            assert db.get("k") is None
            with pytest.raises(SessionBehind), db.session(token):
                pass
        with edgekv.sync.connect(url(stranger, node)) as db, db.session(token) as session:
            assert session.get("k") == b"v", "the other address has it"


def test_a_node_that_is_stopped_does_not_wait_for_those_who_wait_without_end(node: NodeProcess) -> None:
    with socket.create_connection(node.resp, timeout=LATE_S) as client:
        client.sendall(b"SET k v\r\nWAIT 1 0\r\n")
        assert client.recv(64) == b"+OK\r\n", "the node has read both"
        assert node.stop() == 0
        assert client.recv(64) == b":0\r\n"


# -- a hub and two edges that replicate


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "hub", "--node", "hub-1", "--site", "cloud", *SMALL) as running:
        yield running


@contextmanager
def edge(hub: NodeProcess, tmp_path: Path, name: str) -> Iterator[NodeProcess]:
    """A member of the hub's cluster."""
    where = ("--node", name, "--site", "shop", "--role", "edge", "--upstream", str(hub.listeners["peer"]))
    with NodeProcess(tmp_path / name, *where, *SMALL) as running:
        until(lambda: put(running).status == 204)
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LATE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_write_at_an_edge_is_acknowledged_by_the_hub_on_every_interface(hub: NodeProcess, tmp_path: Path) -> None:
    pending: list[str] = []
    with edge(hub, tmp_path, "till-1") as till:
        terms = {"ack_timeout_s": LATE_S / 2, "deadline_s": LATE_S}
        with edgekv.sync.connect(url(till), ack="hub", on_pending=pending.append, **terms) as db:
            db.put("client", b"v")
        with edgekv.sync.connect(url(hub)) as db:
            assert db.get("client") == b"v"
        assert pending == []
        answer = put(till, Edgekv_Ack="hub", Edgekv_Ack_Timeout_Ms="30000")
        assert (answer.status, answer.headers["Edgekv-Acked"]) == (204, "hub")
        client = redis.Redis(till.resp.host, till.resp.port)
        client.set("redis", "v")
        assert client.wait(1, 30_000) == 1
        hub.kill()
        client.set("redis", "w")
        assert client.wait(1, 200) == 0
        assert put(till, Edgekv_Ack="hub", Edgekv_Ack_Timeout_Ms="200").headers["Edgekv-Acked"] == "local"


def test_a_session_reads_its_writes_at_whichever_node_it_goes_on(hub: NodeProcess, tmp_path: Path) -> None:
    with edge(hub, tmp_path, "till-1") as first, edge(hub, tmp_path, "till-2") as second:
        for count in range(20):
            with edgekv.sync.connect(url(first), deadline_s=LATE_S) as db, db.session() as session:
                session.put("k", b"%d" % count)
                token = session.token
            with edgekv.sync.connect(url(second), deadline_s=LATE_S) as db, db.session(token) as session:
                assert session.get("k") == b"%d" % count
                session.delete("k")
                token = session.token
            with edgekv.sync.connect(url(hub), deadline_s=LATE_S) as db, db.session(token) as session:
                assert session.get("k") is None


def test_a_session_goes_on_at_another_edge_when_its_own_is_killed(hub: NodeProcess, tmp_path: Path) -> None:
    async def converse() -> None:
        client = edgekv.connect(url(first, second), deadline_s=LATE_S, ack="hub", ack_timeout_s=LATE_S / 2)
        async with client as db, db.session() as session:
            assert await session.counter("n").add(5) == 5
            first.kill()
            assert await session.counter("n").get() == 5
            assert await session.counter("n").add(1) == 6

    with edge(hub, tmp_path, "till-1") as first, edge(hub, tmp_path, "till-2") as second:
        asyncio.run(converse())
