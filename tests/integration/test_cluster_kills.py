"""kill -9 in a cluster, with real processes. `python -m tests.integration.cluster_kills` is the long form."""

import random
from pathlib import Path

import pytest

from tests.integration.cluster_kills import EVENTS, run


@pytest.mark.slow  # about 30 s
def test_kills_and_cuts_in_a_cluster_lose_nothing_acknowledged_anywhere(tmp_path: Path) -> None:
    seed = str(random.randrange(1 << 32))
    print(f"seed {seed}")
    print(run(tmp_path / "dev", 2 * len(EVENTS), seed))
