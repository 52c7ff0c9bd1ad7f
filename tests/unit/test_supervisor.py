"""How often an applier that fails is started again."""

from types import SimpleNamespace
from typing import cast

from edgekv.server.supervisor import APPLIER_RESTART_S, ApplierSupervisor
from edgekv.store.applied import Progress


def supervisor(applied_lsn: int) -> ApplierSupervisor:
    checkpoints = SimpleNamespace(applied_lsn=applied_lsn)

    def applied(progress: Progress) -> None:
        checkpoints.applied_lsn = progress.lsn

    made = object.__new__(ApplierSupervisor)
    made._restarts = 0
    made._engine = cast("object", SimpleNamespace(checkpoints=checkpoints, applied=applied))  # type: ignore[assignment] # all that is asked
    return made


def commit(lsn: int) -> Progress:
    return Progress(lsn, lsn, 0, True, False)


def test_a_fold_that_fails_at_the_same_row_each_time_is_tried_more_and_more_seldom() -> None:
    """Its first transactions are committed each time; they move nothing."""
    waits = []
    made = supervisor(applied_lsn=7)
    for _ in APPLIER_RESTART_S:
        made._came(commit(7))
        waits.append(made._back_off_s())
    assert waits == list(APPLIER_RESTART_S)
    made._came(commit(8))
    assert made._back_off_s() == APPLIER_RESTART_S[0]
