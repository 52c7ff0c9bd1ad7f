"""The benchmarks of replication run to their end; what they measure is for a quiet machine, that they measure is for here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report, results
from bench.machine import REPOSITORY

PROGRAMS = ("replication", "row_sync", "keyspaces", "couch", "fleet", "departures")
OTHERS = ("redis-server", "redis-benchmark")


def run_quick(name: str, directory: Path) -> dict[str, object]:
    """The result of a quick run."""
    file = results.RESULTS / f"{name}.quick.json"
    file.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", f"bench.{name}", "--quick", "--dir", str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(file.read_text())
    return found


def test_a_fleet_in_one_process_converges(tmp_path: Path) -> None:
    found = run_quick("fleet", tmp_path)
    measured = found["measurements"]
    assert found["quick"]
    assert isinstance(measured, dict)
    assert measured["changes"] > 0
    assert 0 < measured["idle_bytes_per_s"] < 10_000


@pytest.mark.slow  # 10 to 60 s each
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_quick_run_measures_everything_and_is_not_reported(name: str, tmp_path: Path) -> None:
    if name in ("replication", "row_sync") and not all(map(shutil.which, OTHERS)):
        pytest.skip("Redis is not installed")
    found = run_quick(name, tmp_path)
    assert found["quick"]
    tables = found["tables"]
    assert isinstance(tables, list)
    assert all(table["rows"] for table in tables)


def test_every_benchmark_is_run_by_all_of_it_and_described() -> None:
    programs = {path.stem for path in Path(report.__file__).parent.glob("*.py") if "measured_run(" in path.read_text()}
    programs -= {"run"}
    assert programs == set(report.ORDER)
    document = report.DOCUMENT.read_text()
    assert [name for name in report.ORDER if f"| `bench.{name}` |" not in document] == []
    assert [name for name in report.ORDER if f"\npython -m bench.{name} " not in document] == []


def test_a_result_says_nothing_of_where_its_machine_has_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "--flights", str(tmp_path / "flights.csv.zip"), "--rounds", "1"])
    path = results.save("none", quick=True, machine_description={}, settings={}, measurements={}, tables=[])
    assert json.loads(path.read_text())["command"] == "python -m bench.none --flights flights.csv.zip --rounds 1"
    capsys.readouterr()
