"""kill -9, with real processes. `python -m tests.integration.kill_rounds` is the long form of the rounds."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection, command
from edgekv.limits import GENERATION_ROWS, GIB
from tests.integration.kill_rounds import (
    READY_S,
    VICTIMS,
    KillRounds,
    applied_lsn,
    appliers_of,
    start,
    wait_for_applier,
    wait_for_no_applier,
)
from tests.integration.ledger import PATIENCE_S
from tests.integration.witnesses import Witness

ROWS = GENERATION_ROWS
VALUE = b"v" * 100


def check_rounds(directory: Path, rounds: int, seed: str) -> None:
    print(f"seed {seed}")
    with KillRounds(directory, seed) as killed:
        for number in range(rounds):
            killed.round(VICTIMS[number % len(VICTIMS)])
    print(killed.summary)
    assert killed.summary.failures == 0


def test_kill_9_of_node_applier_both_and_of_a_starting_node_loses_nothing_acknowledged(tmp_path: Path) -> None:
    check_rounds(tmp_path, len(VICTIMS), str(random.randrange(1 << 32)))


@pytest.mark.slow  # about 75 s
def test_thirty_kills_of_one_directory_lose_nothing_acknowledged(tmp_path: Path) -> None:
    check_rounds(tmp_path, 30, str(random.randrange(1 << 32)))


def at_most_one_applier(data_dir: Path) -> None:
    """Two would write to one LMDB. A look at /proc takes time, so an applier counts only if a second look still finds it."""
    found = appliers_of(data_dir)
    if len(found) > 1:
        still = set(found).intersection(appliers_of(data_dir))
        assert len(still) <= 1, f"appliers {still} at once"


@pytest.mark.slow  # about 30 s
def test_an_orphaned_applier_in_a_big_transaction_does_not_keep_the_next_node_from_being_ready(tmp_path: Path) -> None:
    """The generation stays in the log first (the applier is stopped), so that the next node's applier takes it in one transaction."""
    node = NodeProcess(tmp_path / "node", "--memory-bytes", str(GIB))
    killed_in_the_middle = 0
    ready_s = []
    alone = Witness(lambda: at_most_one_applier(node.data_dir), pause_s=0.02)
    try:
        node.start()
        applier = wait_for_applier(node.data_dir, other_than=0)
        os.kill(applier, signal.SIGSTOP)
        with RespConnection(node.resp, PATIENCE_S) as connection:
            connection.send_all((command(b"SET", b"row:%d" % number, VALUE) for number in range(ROWS)), lambda _: None)
        node.kill()
        os.kill(applier, signal.SIGKILL)
        wait_for_no_applier(node.data_dir)
        with alone:
            for moment_s in (0.1, 0.2, 0.4, 0.6, 0.9, 1.3):
                ready_s.append(start(node))
                time.sleep(moment_s)
                in_the_middle = applied_lsn(node.http) == 0
                node.kill()
                if in_the_middle and appliers_of(node.data_dir):
                    killed_in_the_middle += 1
            ready_s.append(start(node))
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"GET", b"row:0") == VALUE
            assert connection.call(b"DBSIZE") == ROWS
    finally:
        node.kill()
        wait_for_no_applier(node.data_dir)
    print(f"{killed_in_the_middle} orphans in the middle; ready after {', '.join(f'{s:.2f}' for s in ready_s)} s")
    assert killed_in_the_middle
    assert max(ready_s) < READY_S
