"""The production log and recovery under simulated lives (tests/sim/wal_lives.py), and proof that the lives can tell a broken log.

More seeds: `python -m tests.sim.wal_lives --seeds 1000000 --jobs 2`.
"""

import pytest

from tests.sim.wal_lives import Code, World, first_violation
from tests.sim.wal_mutants import MUTANTS, load


def test_the_log_keeps_its_promises_through_a_thousand_seeds_of_crashes_power_cuts_and_failing_disks() -> None:
    assert first_violation(Code(), range(1_000)) is None


@pytest.mark.slow
def test_the_log_keeps_its_promises_through_twenty_thousand_seeds() -> None:
    assert first_violation(Code(), range(1_000, 21_000)) is None


def test_a_seed_is_one_history() -> None:
    first, second = World(7), World(7)
    first.disk.trace, second.disk.trace = [], []
    first.run()
    second.run()
    assert first.disk.trace == second.disk.trace != []


@pytest.mark.parametrize("name", MUTANTS)
def test_the_lives_catch_a_planted_mistake(name: str) -> None:
    mutant = MUTANTS[name]
    assert first_violation(load(mutant), range(mutant.seeds_max)) is not None, f"not caught: {mutant.why}"
