"""The demo's story on a small part of the year: it comes out right, and it fails where a node holds something else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]
import pytest

from edgekv.cli.demo import DemoFailed, Story
from edgekv.cli.demo_cluster import DemoCluster
from edgekv.cli.demo_screen import Screen
from edgekv.cli.demo_weather import SITES, rows

PART = rows()[::10]
GONE_S: Final = 60.0


def test_the_story_comes_out_right_over_a_cut_and_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DemoCluster(tmp_path) as cluster:
        story = Story(cluster, Screen(), PART)
        story.first_act()
        story.second_act()
        story.third_act(kill_at=0.5)
        story.tell_figures()
    told = capsys.readouterr().out
    assert "of its readings were acknowledged; ready again after" in told
    assert told.count("at each of 4 nodes, all equal to the file, and no others") == 3


def test_the_story_fails_where_a_node_holds_something_else(tmp_path: Path) -> None:
    """Somebody else has counted in the cloud: nothing that the demo can have computed."""
    with DemoCluster(tmp_path) as cluster:
        story = Story(cluster, Screen(), PART)
        story.first_act()
        cluster.sites["cloud"].ask(b"INCRBY", b"hours/2013-01-02", b"1")
        with pytest.raises(DemoFailed, match=r"1 keys differ; hours/2013-01-02 should be .* and is"):
            story.second_act()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Who starts the tests in the background of a shell has SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_whoever_ends_the_demo_leaves_no_process_behind(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    """Ctrl-C reaches the demo and `edgekv dev`, which are in one group, and not the nodes; SIGKILL reaches the demo alone."""
    command = [sys.executable, "-m", "edgekv", "demo", "--dir", str(tmp_path / "demo")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0) as demo:
        assert demo.stdout is not None
        assert any(line.startswith(b"ok  ready") for line in demo.stdout)
        processes = psutil.Process(demo.pid).children(recursive=True)
        assert len(processes) >= 2 + len(SITES), "edgekv dev and four nodes, at least"
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)
        else:
            demo.kill()
        assert demo.wait(GONE_S) == exit_code
        assert psutil.wait_procs(processes, timeout=GONE_S)[1] == []
