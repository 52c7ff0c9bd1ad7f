"""Watches of real nodes: kill -9 and resuming, slow readers, cursors older than the log, and the command line."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import edgekv.sync
from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection, command
from edgekv.client.watch import WatchEvent
from edgekv.config import Address
from edgekv.errors import Unavailable
from edgekv.limits import TAIL_BYTES
from tests.integration.cutting_proxy import CuttingProxy
from tests.unit.cli.conftest import Program

LATE_S = 60.0
SMALL = ("--memory-bytes", str(64 << 20))
SMALL_SEGMENTS = "[wal]\nsegment_bytes = 1048576\n[limits]\nvalue_bytes_max = 65536\n"


def url(address: Address) -> str:
    return f"edgekv://{address}"


class Stream:
    """An event stream over a plain socket, read when the test says so."""

    def __init__(self, node: NodeProcess, target: str, last_id: str = "") -> None:
        self._socket = socket.create_connection(node.http, LATE_S)
        header = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        self._file = self._socket.makefile("rb")
        while self._file.readline() != b"\r\n":
            pass

    def block(self) -> dict[str, str]:
        """The next block's fields."""
        found = {}
        while line := self._file.readline().rstrip(b"\n").decode():
            name, _, text = line.partition(": ")
            found[name] = text
        return found

    def keys(self) -> Iterator[str]:
        """Of the events, in order; a resync is an empty one."""
        while True:
            found = self.block()
            if "event" in found:
                yield json.loads(found["data"]).get("key", "")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextmanager
def writer(node: NodeProcess) -> Iterator[RespConnection]:
    with RespConnection(node.resp, LATE_S) as connection:
        yield connection


class Following(threading.Thread):
    """A client that keeps what it is shown, until it has seen a key."""

    def __init__(self, address: Address, last: bytes) -> None:
        super().__init__(name="following", daemon=True)
        self.events: list[WatchEvent] = []
        self.begun = threading.Event()
        self._address, self._last = address, last

    def run(self) -> None:
        with edgekv.sync.connect(url(self._address), deadline_s=LATE_S) as db:
            for event in db.watch("k/", cursor="0"):
                self.events.append(event)
                self.begun.set()
                if event.key == self._last:
                    return


def test_kill_9_in_the_middle_loses_no_event_of_an_acknowledged_write_and_keeps_the_order(tmp_path: Path) -> None:
    """The watcher's connection leads to whichever life of the node there is; it is never told of the kills."""
    node = NodeProcess(tmp_path / "data", *SMALL)
    node.start()
    acknowledged: list[bytes] = []
    try:
        with CuttingProxy(node.resp, seed=1) as proxy:
            following = Following(proxy.address, b"k/last")
            following.start()
            assert following.begun.wait(LATE_S)
            number = 0
            for _ in range(4):
                with edgekv.sync.connect(url(node.resp), deadline_s=LATE_S) as db:
                    for _ in range(300):
                        number += 1
                        key = b"k/%06d" % number
                        db.put(key, b"v")
                        acknowledged.append(key)
                node.kill()
                node.start()
                proxy.target = node.resp
            with edgekv.sync.connect(url(node.resp), deadline_s=LATE_S) as db:
                db.put("k/last", b"v")
            following.join(LATE_S)
            assert not following.is_alive()
    finally:
        node.kill()
    seen = [event.key for event in following.events if event.kind == "put"]
    assert [event.phase for event in following.events if event.kind == "resync"] == ["begin", "end"]
    assert list(dict.fromkeys(seen)) == [*acknowledged, b"k/last"]


def test_a_reader_that_stands_still_holds_nothing_up_and_misses_nothing_when_it_goes_on(tmp_path: Path) -> None:
    """More is written meanwhile than sockets and the log's end in memory have room for: it goes on in the files."""
    value, count = b"v" * 10_000, 4_000
    assert len(value) * count > 2 * TAIL_BYTES
    with NodeProcess(tmp_path / "data", *SMALL) as node:
        with (
            closing(Stream(node, "/v1/watch?prefix=k/")) as slow,
            closing(Stream(node, "/v1/watch?prefix=k/")) as quick,
        ):
            slow.block()
            quick.block()
            names = [f"k/{i:05d}" for i in range(count)]
            with writer(node) as connection:
                for first in range(0, count, 40):
                    connection.send(b"".join(command(b"SET", n.encode(), value) for n in names[first : first + 40]))
                    for name in names[first : first + 40]:
                        assert connection.reply() == b"OK"
                        assert json.loads(quick.block()["data"])["key"] == name
            keys = slow.keys()
            assert [next(keys) for _ in names] == names
        assert node.log.read_text() == ""


def test_a_cursor_older_than_the_log_is_given_the_rows_and_then_what_follows(tmp_path: Path) -> None:
    config = tmp_path / "edgekv.toml"
    config.write_text(SMALL_SEGMENTS)
    with NodeProcess(tmp_path / "data", "--config", str(config), *SMALL) as node, writer(node) as connection:
        with closing(Stream(node, "/v1/watch?prefix=a/")) as first:
            first.block()
            connection.call(b"SET", b"a/1", b"old")
            cursor = first.block()["id"]
        connection.call(b"SET", b"a/2", b"new")
        connection.call(b"DEL", b"a/1")
        deadline_s = time.monotonic() + LATE_S
        while True:  # Until the log's beginning has been given back and memory has gone on.
            assert time.monotonic() < deadline_s
            connection.send(b"".join(command(b"SET", b"filler/%d" % i, bytes(50_000)) for i in range(400)))
            for _ in range(400):
                connection.reply()
            with closing(Stream(node, "/v1/watch?prefix=a/", cursor)) as resumed:
                resumed.block()
                begun = resumed.block()
                if begun["event"] == "resync":
                    assert json.loads(begun["data"]) == {"phase": "begin"}
                    assert json.loads(resumed.block()["data"])["key"] == "a/2"
                    assert json.loads(resumed.block()["data"]) == {"phase": "end"}
                    connection.call(b"SET", b"a/3", b"x")
                    assert next(resumed.keys()) == "a/3"
                    return
                assert json.loads(begun["data"])["key"] == "a/2"


def test_the_command_line_prints_events_and_resumes(tmp_path: Path, edgekv: Program) -> None:
    with NodeProcess(tmp_path / "data", *SMALL) as node, writer(node) as connection:
        connection.call(b"SET", b"room/1", b"21.5")
        connection.call(b"SADD", b"room/s", b"a", b"\xff")
        at = ("--resp", str(node.resp))
        lines = edgekv("watch", "room/", "--cursor", "0", "--limit", "4", "-o", "json", *at).text.splitlines()
        begin, register, elements, end = map(json.loads, lines)
        assert (begin["event"], begin["phase"], end["phase"]) == ("resync", "begin", "end")
        assert (register["key"], register["type"], register["value"]) == ("room/1", "register", "21.5")
        assert elements["elements"] == ["a", {"base64": "/w=="}]
        connection.call(b"HSET", b"room/m", b"f", b"1")
        connection.call(b"DEL", b"room/1")
        table = edgekv("watch", "room/", "--cursor", end["cursor"], "--limit", "2", *at).text.splitlines()
        assert [line.split() for line in table] == [["put", "map", "room/m", "f=1"], ["delete", "register", "room/1"]]


@pytest.mark.parametrize("arguments", [("--cursor", "nonsense"), ("_meta/",)])
def test_what_a_node_refuses_is_an_error_of_the_command(
    tmp_path: Path, edgekv: Program, arguments: tuple[str, ...]
) -> None:
    with NodeProcess(tmp_path / "data", *SMALL) as node:
        refused = edgekv("watch", *arguments, "--resp", str(node.resp))
        assert refused.exit_code in (2, 6) and refused.err.startswith("edgekv: ")


def test_a_node_stops_at_once_while_it_is_watched(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "data", *SMALL)
    node.start()
    with closing(Stream(node, "/v1/watch")) as stream, RespConnection(node.resp, LATE_S) as connection:
        stream.block()
        assert connection.call(b"EDGEKV.WATCH", b"") == b"OK"
        began_s = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began_s < 5


@contextmanager
def two_sites(tmp_path: Path) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """A hub and an edge that takes writes."""
    with NodeProcess(tmp_path / "hub", "--node", "hub", "--site", "cloud", *SMALL) as hub:
        flags = ("--node", "edge", "--site", "shop", "--role", "edge", "--upstream", str(hub.listeners["peer"]))
        with NodeProcess(tmp_path / "edge", *flags, *SMALL) as edge:
            with edgekv.sync.connect(url(edge.resp), deadline_s=LATE_S) as db:
                deadline_s = time.monotonic() + LATE_S
                while True:
                    try:
                        db.put("admitted", b"1")
                        break
                    except Unavailable:
                        assert time.monotonic() < deadline_s
            yield hub, edge


def test_a_cursor_of_one_node_resumes_on_another_with_what_both_wrote_since(tmp_path: Path) -> None:
    with two_sites(tmp_path) as (hub, edge), writer(hub) as at_hub, writer(edge) as at_edge:
        with edgekv.sync.connect(url(hub.resp), deadline_s=LATE_S) as db:
            for number in range(50):
                at_hub.call(b"SET", b"k/hub/%02d" % number, b"v")
                at_edge.call(b"SET", b"k/edge/%02d" % number, b"v")
            seen, cursor = list[bytes](), "0"
            for event in db.watch("k/", cursor=cursor):
                seen += [event.key] if event.kind == "put" else []
                cursor = event.cursor
                if len(set(seen)) >= 60:
                    break
        for number in range(50, 60):
            at_hub.call(b"SET", b"k/hub/%02d" % number, b"v")
            at_edge.call(b"SET", b"k/edge/%02d" % number, b"v")
        with edgekv.sync.connect(url(edge.resp), deadline_s=LATE_S) as db:
            every = {b"k/%b/%02d" % (site, number) for site in (b"hub", b"edge") for number in range(60)}
            for event in db.watch("k/", cursor=cursor):
                seen += [event.key] if event.kind == "put" else []
                if set(seen) == every:
                    break


def test_a_client_whose_node_is_killed_goes_on_at_another_one(tmp_path: Path) -> None:
    with (
        two_sites(tmp_path) as (hub, edge),
        writer(hub) as at_hub,
        edgekv.sync.connect(f"edgekv://{edge.resp},{hub.resp}", deadline_s=LATE_S) as db,
    ):
        at_hub.call(b"SET", b"k/1", b"v")
        events = db.watch("k/", cursor="0")
        while next(events).key != b"k/1":
            pass
        at_hub.call(b"SET", b"k/2", b"v")
        while next(events).key != b"k/2":
            pass
        edge.kill()
        at_hub.call(b"SET", b"k/3", b"v")
        found = next(events)
        assert (found.kind, found.key) == ("put", b"k/3")
