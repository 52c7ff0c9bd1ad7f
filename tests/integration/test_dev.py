"""``edgekv dev`` with real processes: what its nodes hold over cuts, kills and restarts, and that nothing outlives it."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from edgekv.errors import OutcomeUnknown, Unavailable
from tests.integration.dev_program import EDGEKV, TIMEOUT_S, DevProgram, until


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevProgram]:
    with DevProgram(tmp_path_factory.mktemp("dev"), "--site", "EWR", "--site", "JFK") as program:
        yield program


def test_its_nodes_are_told_one_per_line_and_in_a_list(cluster: DevProgram) -> None:
    nodes = cluster.nodes()
    assert {name: (node["site"], node["role"], node["state"]) for name, node in nodes.items()} == {
        "cloud-1": ("cloud", "hub", "ready"),
        "EWR-1": ("EWR", "edge", "ready"),
        "JFK-1": ("JFK", "edge", "ready"),
    }
    assert set(nodes["EWR-1"]) == {"name", "site", "role", "http", "resp", "peer", "pid", "state"}
    assert sorted(line.split()[0] for line in cluster.said[:-1]) == sorted(nodes)
    assert "EWR-1" in cluster.order("nodes")
    for name, node in nodes.items():
        assert psutil.Process(node["pid"]).cmdline()[-1].endswith(f"{name}.toml")
        assert cluster.ask(name, b"SET", b"from", name.encode()) == b"OK", "ready is who takes writes"


def test_a_cut_holds_back_both_ways_and_a_heal_lets_everything_through(cluster: DevProgram) -> None:
    cluster.ask("EWR-1", b"SET", b"before", b"1")
    cluster.wait_value("JFK-1", b"before", b"1")
    cluster.order("cut", "EWR", "cloud")
    assert {site: link["cut"] for site, link in cluster.links().items()} == {"EWR": True, "JFK": False}
    passed = cluster.links()["EWR"]["bytes"]

    cluster.ask("EWR-1", b"SET", b"at-the-edge", b"2")
    cluster.ask("cloud-1", b"SET", b"in-the-cloud", b"3")
    cluster.wait_value(
        "JFK-1", b"in-the-cloud", b"3"
    )  # Over a link that is up: a cut one would have let it pass by now.
    assert cluster.ask("EWR-1", b"GET", b"in-the-cloud") is None
    assert cluster.ask("cloud-1", b"GET", b"at-the-edge") is None
    assert cluster.links()["EWR"]["bytes"] == passed

    cluster.order("heal", "cloud", "EWR")
    cluster.wait_value("EWR-1", b"in-the-cloud", b"3")
    cluster.wait_value("JFK-1", b"at-the-edge", b"2")
    assert cluster.links()["EWR"]["bytes"] > passed


def test_a_node_is_killed_and_starts_again_with_what_it_acknowledged(cluster: DevProgram) -> None:
    cluster.ask("JFK-1", b"SET", b"acknowledged", b"4")
    before = cluster.nodes()["JFK-1"]
    cluster.order("kill", "JFK-1")
    assert not psutil.pid_exists(before["pid"])
    killed = cluster.nodes()["JFK-1"]
    assert (killed["state"], killed["pid"]) == ("stopped", None)
    with pytest.raises((Unavailable, OutcomeUnknown)):
        cluster.ask("JFK-1", b"PING")
    cluster.ask("cloud-1", b"SET", b"meanwhile", b"5")
    again = cluster.call("kill", "JFK-1")
    assert (again.returncode, "does not run" in again.stderr) == (2, True)

    cluster.order("start", "JFK-1")
    started = cluster.nodes()["JFK-1"]
    assert {**started, "pid": 0} == {**before, "pid": 0}
    assert cluster.ask("JFK-1", b"GET", b"acknowledged") == b"4"
    cluster.wait_value("JFK-1", b"meanwhile", b"5")


def test_a_second_one_on_its_directory_is_refused(cluster: DevProgram) -> None:
    second = subprocess.run(
        [*EDGEKV, "--dir", str(cluster.directory)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert second.returncode == Unavailable.exit_status
    assert "runs in" in second.stderr
    assert cluster.ask("cloud-1", b"PING") == b"PONG"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_it_and_a_new_start_is_the_same_cluster(tmp_path: Path, number: signal.Signals) -> None:
    with DevProgram(tmp_path / "dev", "--edges", "1") as first:
        nodes, processes = first.nodes(), first.processes()
        assert {node["pid"] for node in nodes.values()} <= {process.pid for process in processes}
        first.ask("edge-1-1", b"SET", b"kept", b"1")
        assert first.end(number) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        until(lambda: all_gone(processes))

    with DevProgram(tmp_path / "dev") as second:
        again, processes = second.nodes(), second.processes()
        assert [{**node, "pid": 0} for node in again.values()] == [{**node, "pid": 0} for node in nodes.values()]
        assert second.ask("edge-1-1", b"GET", b"kept") == b"1"
        second.wait_value("cloud-1", b"kept", b"1")
        assert second.end(signal.SIGTERM) == 0
        assert all_gone(processes)


def test_a_node_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    with DevProgram(tmp_path / "dev", "--edges", "0") as program:
        psutil.Process(program.nodes()["cloud-1"]["pid"]).kill()
        assert program.process.stdout is not None
        assert 'node "cloud-1" ended with exit code -9' in program.process.stdout.readline()
        assert program.nodes()["cloud-1"]["state"] == "stopped"
        assert program.end(signal.SIGTERM) == 0


def test_a_cluster_of_which_a_node_cannot_start_ends_with_its_reason(tmp_path: Path) -> None:
    directory = tmp_path / "dev"
    directory.mkdir()
    (directory / "cloud-1").write_text("no directory")
    ended = subprocess.run(
        [*EDGEKV, "--dir", str(directory), "--edges", "1"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == Unavailable.exit_status
    assert 'node "cloud-1" ended' in ended.stderr
