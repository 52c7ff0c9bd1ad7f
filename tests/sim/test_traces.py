"""The shortest traces of the mistakes that the rules of replication exclude, played by production nodes."""

import pytest

from tests.sim.cluster_mistakes import MUTANTS
from tests.sim.cluster_mutants import caught
from tests.sim.traces import TRACES, broken_by


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_that_breaks_wrong_rules_breaks_nothing_here(name: str) -> None:
    assert broken_by(TRACES[name]) == ""


@pytest.mark.parametrize("name", sorted(TRACES.keys() & MUTANTS.keys()))
def test_a_trace_shows_its_mistake(name: str) -> None:
    assert caught(name) is not None, MUTANTS[name].why
