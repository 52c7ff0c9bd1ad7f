from queue import SimpleQueue

import pytest

from edgekv.errors import LogFailed
from edgekv.wal.group_commit import (
    CloseJob,
    Failed,
    Flusher,
    FrameJob,
    Outcome,
    PromiseJob,
    RecycleJob,
    SyncJob,
    Written,
    execute,
)
from edgekv.wal.record import CLEAN_RECORD, pack_ttl
from tests.unit.wal.logs import CHECKPOINT, fill, new_disk, open_log, reopen


def first_frame(token: object = None, *, sync: bool = True) -> FrameJob:
    return FrameJob(CHECKPOINT + pack_ttl(1), 2, sync, False, token)


def written(outcome: Outcome) -> Written:
    assert isinstance(outcome, Written)
    return outcome


def test_a_synced_frame_is_durable_in_its_outcome_and_a_buffered_one_is_not_until_a_sync() -> None:
    log = open_log(new_disk())
    done = written(execute(log, first_frame("a")))
    assert (done.token, done.first_lsn, done.next_lsn, done.durable_lsn) == ("a", 0, 2, 2)
    done = written(execute(log, FrameJob(pack_ttl(2), 1, False, False, "b")))
    assert (done.token, done.first_lsn, done.next_lsn, done.durable_lsn) == ("b", 2, 3, 2)
    assert written(execute(log, SyncJob())).durable_lsn == 3


def test_an_outcome_tells_what_the_next_frame_needs() -> None:
    log = open_log(new_disk())
    done = written(execute(log, first_frame()))
    assert not done.at_segment_start and done.room_bytes == log.room_bytes
    done = written(execute(log, FrameJob(CHECKPOINT, 1, True, True, None)))
    assert [segment.base_lsn for segment in log.segments] == [0, 2]
    assert (done.first_lsn, done.next_lsn, done.at_segment_start) == (2, 3, False)


def test_an_idle_log_is_synced_and_promised_in_one_job() -> None:
    disk = new_disk()
    log = open_log(disk)
    execute(log, first_frame(sync=False))
    disk.trace = []
    assert written(execute(log, PromiseJob())).durable_lsn == 2
    assert [line.split()[0] for line in disk.trace] == ["fdatasync", "write"]


def test_recycling_is_a_job_and_its_spares_are_reported() -> None:
    log = open_log(new_disk())
    fill(log, 60)
    assert written(execute(log, RecycleJob(log.durable_lsn, 0))).spares == log.spares > 0


def test_closing_rolls_when_it_must_and_leaves_a_clean_log() -> None:
    disk = new_disk()
    log = open_log(disk)
    execute(log, first_frame())
    done = written(execute(log, CloseJob(CHECKPOINT + CLEAN_RECORD, 2, True)))
    assert done.durable_lsn == 4
    again, _ = reopen(disk)
    assert not again.at_segment_start and len(again.segments) == 2


@pytest.mark.parametrize("arm", ["eio", "enospc"])
def test_a_failure_is_an_outcome_and_every_job_after_it_fails_too(arm: str) -> None:
    disk = new_disk()
    log = open_log(disk)
    disk.arm = arm
    failed = execute(log, first_frame("a"))
    assert isinstance(failed, Failed) and failed.token == "a" and failed.error.outcome == "unknown"
    assert isinstance(execute(log, SyncJob()), Failed)


def test_the_flusher_delivers_one_outcome_per_job_in_order() -> None:
    disk = new_disk()
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    ticks = iter(range(1000))
    flusher = Flusher(open_log(disk), outcomes.put, clock=lambda: float(next(ticks)))
    flusher.start()
    flusher.submit(first_frame(0))
    for token in range(1, 5):
        flusher.submit(FrameJob(pack_ttl(token), 1, True, False, token))
    flusher.submit(CloseJob(CLEAN_RECORD, 1, False, 5))
    done = [written(outcomes.get(timeout=10)) for _ in range(6)]
    assert [outcome.token for outcome in done] == [0, 1, 2, 3, 4, 5]
    assert [outcome.durable_lsn for outcome in done] == [2, 3, 4, 5, 6, 7]
    assert {outcome.sync_s for outcome in done} == {1.0}
    flusher.close()
    assert reopen(disk)[0].next_lsn == 7


def test_after_a_failure_the_flusher_delivers_once_and_takes_nothing_more() -> None:
    disk = new_disk()
    log = open_log(disk)
    disk.arm = "eio"
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    flusher = Flusher(log, outcomes.put)
    flusher.submit(first_frame("a"))
    flusher.submit(FrameJob(pack_ttl(2), 1, True, False, "b"))
    flusher.start()
    failed = outcomes.get(timeout=10)
    assert isinstance(failed, Failed) and failed.token == "a"
    flusher.close()
    assert outcomes.empty()
    with pytest.raises(LogFailed):
        flusher.submit(SyncJob())


def test_a_bug_under_the_flusher_is_delivered_like_a_failing_disk_and_nobody_waits_for_ever() -> None:
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    flusher = Flusher(open_log(new_disk()), outcomes.put)
    flusher.start()
    flusher.submit(FrameJob(bytes(1 << 20), 1, True, False, "larger than the segment"))
    failed = outcomes.get(timeout=10)
    assert isinstance(failed, Failed) and isinstance(failed.error.__cause__, AssertionError)
    flusher.close()
    with pytest.raises(LogFailed):
        flusher.submit(SyncJob())


def test_a_closed_flusher_has_done_what_was_queued() -> None:
    disk = new_disk()
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    flusher = Flusher(open_log(disk), outcomes.put)
    flusher.submit(first_frame())
    flusher.start()
    flusher.close()
    assert written(outcomes.get_nowait()).durable_lsn == 2
