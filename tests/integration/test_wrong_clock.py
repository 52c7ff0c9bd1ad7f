"""A node whose clock is days ahead, as a process: it is told so, and comes back when the clock is right and it is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekv.cli.node_process import NodeProcess
from tests.integration.test_joining import edge_process, free_address, has, hub_process, put, until

FAKE_CLOCK = """
import os, time
real_ns = time.time_ns
def fake_ns():
    try:
        return real_ns() + int(open(os.environ["CLOCK_AHEAD"]).read() or 0) * 10**9
    except FileNotFoundError:
        return real_ns()
time.time_ns = fake_ns
"""
DAYS_AHEAD = 90


def started_ahead(node: NodeProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The node is started with a clock that is ahead by as many seconds as the file says."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(FAKE_CLOCK)
    seconds = tmp_path / "clock" / "ahead"
    seconds.write_text(str(DAYS_AHEAD * 86_400))
    with monkeypatch.context() as patch:
        patch.setenv("CLOCK_AHEAD", str(seconds))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "clock"), *sys.path]))
        node.start()
    return seconds


def said_by(node: NodeProcess) -> str:
    command = [sys.executable, "-m", "edgekv", "cluster", "status", "--http", str(node.http)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def test_what_a_node_wrote_by_a_wrong_clock_is_at_the_hub_when_the_clock_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = free_address()
    hub = hub_process(tmp_path)
    hub._arguments += ("--peer", peer)
    with hub:
        edge = edge_process(tmp_path, peer)
        with edge:
            until(lambda: put(edge, b"before", b"1"))
            until(lambda: has(hub, b"before", b"1"))
            assert hub.stop() == 0
            assert edge.stop() == 0
            ahead = started_ahead(edge, monkeypatch, tmp_path)
            assert put(edge, b"k", b"by the wrong clock")
            hub.start()
            until(lambda: "Set it" in said_by(edge))
            assert "90 days ahead" in said_by(edge)
            assert "Set the clock of the node" in said_by(hub)
            assert has(edge, b"k", b"by the wrong clock")
            ahead.write_text("0")
            process = edge._process
            until(lambda: process is not None and process.poll() is not None)
            edge.kill()
            assert "Start it again: it puts the stamps right" in edge.log.read_text()
            edge.start()
            assert "stamps of 1 rows" in edge.log.read_text()
            until(lambda: has(hub, b"k", b"by the wrong clock"))
            until(lambda: put(edge, b"next", b"2"))
            until(lambda: has(hub, b"next", b"2"))
            assert put(hub, b"k", b"of the hub")
            until(lambda: has(edge, b"k", b"of the hub"))
            assert json.loads((edge.data_dir / "identity.json").read_text())["clock"] is None
