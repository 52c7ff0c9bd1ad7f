"""Repairs amid everything that goes wrong: of nodes that are sound they change nothing, whatever comes between.

Every seed's cluster also has nodes repaired from each other, by union and by replacing, while clients write. All promises hold, and
the nodes agree in the end; each planted mistake breaks that.
"""

import os
from dataclasses import replace
from typing import Final

import pytest

from edgekv.engine.flip import Flips
from tests.sim.cluster import Outcome, run
from tests.sim.cluster_mistakes import Mutant
from tests.sim.cluster_mutants import planted
from tests.sim.plan import draw

SEEDS: Final = range(20 if os.environ.get("EDGEKV_TEST_PROFILE") == "ci" else 3)
MISTAKES: Final = (
    Mutant(
        "rows are exchanged though changes have come since they were read",
        (
            (
                Flips._is_even,
                "keyspace.seq == own and {(actor, *head) for actor, head in heads.items()} == set(asked.barrier.vector)",
                "True",
            ),
        ),
    ),
    Mutant(
        "a repair that is given up keeps the keyspace to itself",
        ((Flips._cancel, "flip.asked.keyspace.held = self._checkpoints.paused = False", "pass"),),
    ),
)


def repaired(seed: int) -> Outcome:
    plan = draw(seed, chaos_s=3.0)
    kinds = tuple(kind for kind in plan.faults if kind != "restore")
    return run(seed, replace(plan, faults=(*kinds, "repair", "repair", "repair"), fault_every_ms=100))


def test_repairs_of_sound_nodes_change_nothing_whatever_comes_between() -> None:
    outcomes = [repaired(seed) for seed in SEEDS]
    assert [outcome.broken for outcome in outcomes if outcome.broken] == []
    assert sum(outcome.faults.get("repair", 0) > 0 for outcome in outcomes) > len(outcomes) // 2


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.why)
def test_a_mistake_in_repairs_is_caught(mistake: Mutant) -> None:
    with planted(mistake):
        assert any(repaired(seed).broken for seed in range(mistake.seeds_max))
