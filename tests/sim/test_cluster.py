"""Simulated clusters keep every promise, and can tell a cluster that does not.

More seeds: `python -m tests.sim.cluster --seeds 1000 --jobs 2`, of which .ci/run runs 2,000; one that is broken: `--seed N --trace`.
EDGEKV_TEST_PROFILE=ci runs more of them here.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.sim.cluster import run
from tests.sim.cluster_mistakes import MUTANTS
from tests.sim.cluster_mutants import caught, planted
from tests.sim.plan import FAULTS, PARK, PARKING, RETURN, ROW_SYNC, TIGHT, draw

LONG: Final = os.environ.get("EDGEKV_TEST_PROFILE") == "ci"
SEEDS: Final = range(40 if LONG else 5)
QUICK: Final = (
    "vector_before_durable",
    "peer_ack_before_durable",
    "hlc_not_folded",
    "relay_drops_others",
)
"""What the default suite plants; the longer one plants all."""


def test_clusters_keep_their_promises_and_agree_in_the_end() -> None:
    outcomes = [run(seed) for seed in SEEDS]
    assert [outcome.broken for outcome in outcomes if outcome.broken] == []
    happened = {fault for outcome in outcomes for fault, times in outcome.faults.items() if times}
    assert ROW_SYNC in happened
    assert happened >= {*FAULTS, ROW_SYNC} if LONG else len(happened) > len(FAULTS) // 2, "faults have had an effect"
    assert sum(outcome.changes for outcome in outcomes) > 200 * len(outcomes)


def test_parked_members_come_back_with_what_they_wrote_and_all_agree() -> None:
    outcomes = [run(seed) for seed in range(PARKING, PARKING + (40 if LONG else 4))]
    assert [outcome.broken for outcome in outcomes if outcome.broken] == []
    assert all(sum(outcome.faults.get(kind, 0) for outcome in outcomes) for kind in (PARK, RETURN))


def test_what_is_done_in_parts_keeps_every_promise_amid_them() -> None:
    outcomes = [run(seed) for seed in range(TIGHT, TIGHT + (20 if LONG else 3))]
    assert [outcome.broken for outcome in outcomes if outcome.broken] == []
    assert sum(outcome.faults.get(ROW_SYNC, 0) for outcome in outcomes) > len(outcomes)


def test_a_seed_is_one_history_whatever_the_hashes() -> None:
    seed, root = 5, Path(__file__).parents[2]
    command = [sys.executable, "-c", f"from tests.sim.cluster import run; print(run({seed}).digest)"]
    digests = {
        subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONHASHSEED": number}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for number in ("1", "2")
    }
    assert digests == {run(seed).digest}


def test_seeds_are_different() -> None:
    assert len({draw(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_mistake_still_has_its_place(name: str) -> None:
    with planted(MUTANTS[name]):
        pass


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if not mutant.rare] if LONG else QUICK)
def test_a_planted_mistake_is_caught(name: str) -> None:
    assert caught(name) is not None, f"not caught: {MUTANTS[name].why}"
