"""How often an applier that fails is started again, and what comes of it when that does not help."""

from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgekv.errors import ReadOnly, Unavailable
from edgekv.ids import KeyspaceId
from edgekv.limits import FOLD_TRIES_MAX
from edgekv.server import supervisor as supervisor_module
from edgekv.server.effects import Effects
from edgekv.server.supervisor import APPLIER_RESTART_S, ApplierSupervisor
from edgekv.store.applied import Applied, Ended, Failed, Message, Progress, sync_path
from edgekv.store.applier_process import ApplierProcess
from edgekv.store.fold import Fold
from edgekv.store.lmdb_store import LmdbStore, StoreError
from edgekv.store.lmdb_transactions import WriteTransaction
from edgekv.store.spool import spool_file
from tests.unit.node.inline_node import InlineNode

SPOOL = b"spool id"


def supervisor(applied_lsn: int) -> ApplierSupervisor:
    checkpoints = SimpleNamespace(applied_lsn=applied_lsn)

    def applied(progress: Progress) -> None:
        checkpoints.applied_lsn = progress.lsn

    made = object.__new__(ApplierSupervisor)
    made._restarts = made._fold_failures = 0
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


class Timers:
    """Of an event loop: what is due, which a test lets happen; and the time, which stands."""

    def __init__(self) -> None:
        self.due: deque[Callable[[], None]] = deque()

    def time(self) -> float:
        return 0.0

    def call_later(self, _seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        self.due.append(lambda: call(*arguments))

    def remove_reader(self, _fd: int) -> None:
        pass

    def run(self, tick: Callable[[], None]) -> None:
        """Some time passes, long enough for many tries."""
        for _ in range(20 * FOLD_TRIES_MAX):
            tick()
            for _ in range(len(self.due)):
                self.due.popleft()()


def watching(node: InlineNode) -> tuple[ApplierSupervisor, Timers]:
    """A supervisor of a node's inline applier, as after its start."""
    timers = Timers()
    made = object.__new__(ApplierSupervisor)
    made.__dict__.update(
        _loop=timers,
        _effects=Effects(),
        _directory=SimpleNamespace(store=node.config.data_dir, sync=sync_path(node.config.data_dir)),
        _disk=node._disk,
        _engine=node.engine,
        _check_disk=lambda lacking: None,
        _restarts=0,
        _fold_failures=0,
        _reason="",
        _lacked_disk=False,
        _resting=False,
        _closing=False,
        store=node._store,
    )
    made._effects.applier = node._applier
    node.engine.checkpoints._request = made._effects.apply  # type: ignore[misc] # of whichever applier there is
    return made, timers


@pytest.fixture
def joining(tmp_path: Path) -> InlineNode:
    return about_to_join(tmp_path)


def about_to_join(tmp_path: Path) -> InlineNode:
    """The applier has to join rows next, in the log of a node that had some of its own."""
    source, target = (InlineNode(tmp_path / name, seed=i, lone=False) for i, name in enumerate(("source", "target")))
    for i in range(200):
        source.operations.set(b"k%03d" % i, b"theirs")
    source.operations.sets.add(b"k/set", [b"their first", b"their second"])
    target.operations.set(b"k000/mine", b"mine")
    source.checkpoint()
    spool = source.spool(KeyspaceId(0), spool_file(sync_path(target.config.data_dir), SPOOL))
    source.kill()
    target.engine.flip(KeyspaceId(0), SPOOL, spool.head.vector, spool.head.hlc, lambda: None)
    while target.engine.flips.joining is None:
        if not target.flush() and not target.apply():
            target.tick()
    return target


def test_a_fold_that_fails_for_good_ends_read_only_in_the_state_of_before_and_says_what_to_do(
    joining: InlineNode, caplog: pytest.LogCaptureFixture
) -> None:
    node, file = joining, spool_file(sync_path(joining.config.data_dir), SPOOL)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + b"?" + whole[-8:])
    node.operations.set(b"behind", b"1")
    node.settle()
    made, timers = watching(node)
    timers.run(made.tick)
    assert sum("the applier failed" in line for line in caplog.messages) == FOLD_TRIES_MAX
    with pytest.raises(
        ReadOnly, match=r"keyspace 'default' .* after 8 tries \(Corruption: .*damaged.*Wait until they have it.*start"
    ):
        node.operations.set(b"k", b"v")
    assert str(node.engine.status()["read_only"]) in caplog.messages[-1]
    assert node.operations.get(b"k000/mine") == b"mine" and node.operations.get(b"behind") == b"1"
    assert node.operations.get(b"k007") is None, "nothing of what was joined so far is shown"
    node.kill()
    file.write_bytes(whole)
    node.open()
    assert node.operations.get(b"k007") == b"theirs" and node.operations.get(b"behind") == b"1"
    node.operations.set(b"k", b"v")
    node.kill()


def test_a_mistake_of_the_fold_itself_ends_the_same_way(joining: InlineNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object) -> bool:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(Fold, "run", mistaken)
    made, timers = watching(joining)
    timers.run(made.tick)
    with pytest.raises(ReadOnly, match="nobody thought of this"):
        joining.operations.set(b"k", b"v")
    joining.kill()


def test_an_applier_that_fails_for_want_of_disk_is_tried_for_as_long_as_it_takes(joining: InlineNode) -> None:
    made, _ = watching(joining)
    for _ in range(2 * FOLD_TRIES_MAX):
        assert made._may_try_again("no space left", lacked_disk=True)
    for _ in range(FOLD_TRIES_MAX - 1):
        assert made._may_try_again("damaged", lacked_disk=False)
    assert joining.engine.admission.read_only is None
    joining.kill()


class Ending(ApplierProcess):
    """Ends as soon as it is looked at."""

    said: list[Message]

    def receive(self) -> list[Message]:
        return self.said

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass

    def poll(self) -> int:
        return -9


def run_processes(made: ApplierSupervisor, timers: Timers, lasts: Callable[[int], list[Message]]) -> int:
    """Let processes end, each with what it says last, by its number; how many were started."""
    processes = 0

    def respawn(_ended: object) -> None:
        nonlocal processes
        process = object.__new__(Ending)
        process.said = lasts(processes)
        processes += 1
        made._effects.applier = process
        made._hear()

    made._respawn = respawn  # type: ignore[method-assign, assignment] # no process of its own for each
    respawn(None)
    timers.run(made.tick)
    return processes


def test_a_process_that_is_killed_while_it_joins_rows_is_started_again_for_as_long_as_it_takes(
    joining: InlineNode,
) -> None:
    """It says nothing of the rows: whoever killed it may do so with the next one, and with the one after that not."""
    made, timers = watching(joining)
    assert run_processes(made, timers, lambda i: [Ended((-9, -15, None)[i % 3])]) > 2 * FOLD_TRIES_MAX
    assert joining.engine.admission.read_only is None
    joining.kill()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (-7, "ended by SIGBUS"),
        (-6, "ended by SIGABRT"),
        (-40, "ended by 40"),
        (1, "ended with status 1"),
        (0, "ended with status 0"),
    ],
)
def test_a_process_that_the_rows_bring_down_without_a_word_is_not_started_for_ever(
    joining: InlineNode, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, timers = watching(joining)
    assert run_processes(made, timers, lambda _: [Ended(status)]) == FOLD_TRIES_MAX
    assert f"after 8 tries (its process {said})" in str(joining.engine.admission.read_only)
    assert sum(said in line for line in caplog.messages) >= FOLD_TRIES_MAX
    joining.kill()


def test_a_process_that_ends_while_the_node_stops_is_no_failure(
    joining: InlineNode, caplog: pytest.LogCaptureFixture
) -> None:
    made, timers = watching(joining)
    run_processes(made, timers, lambda i: [Ended(-7)] if i < FOLD_TRIES_MAX - 1 else [])
    process = made._effects.applier
    assert isinstance(process, Ending)
    process.said = [Ended(-7)]
    made._hear()
    made.stop()
    timers.run(made.tick)
    assert "read-only" not in caplog.text and joining.engine.admission.read_only is None
    joining.kill()


def test_only_what_the_rows_did_counts_against_them(joining: InlineNode) -> None:
    made, timers = watching(joining)
    failed: list[Message] = [Failed("Corruption: it is damaged.", False), Ended(1)]
    assert run_processes(made, timers, lambda i: [Ended(-9)] if i % 2 else failed) == 2 * FOLD_TRIES_MAX - 1
    assert "after 8 tries (Corruption: it is damaged)" in str(joining.engine.admission.read_only)
    joining.kill()


@pytest.fixture
def amid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InlineNode:
    """The applier joins rows in many commits, and LMDB fails at the third."""
    monkeypatch.setattr("edgekv.store.fold.SPOOL_SLICE_ROWS", 5)
    monkeypatch.setattr("edgekv.store.spool.SPOOL_BLOCK_BYTES", 100)
    monkeypatch.setattr("edgekv.store.applier_process.APPLIER_INLINE_ROWS", 20)
    node, commits, put_applied = about_to_join(tmp_path), count(), WriteTransaction.put_applied

    def fail(self: WriteTransaction, applied: Applied) -> None:
        put_applied(self, applied)
        if next(commits) == 2:
            raise StoreError("input/output error")

    monkeypatch.setattr(WriteTransaction, "put_applied", fail)
    return node


def joined(node: InlineNode) -> int:
    """How many of the rows of the other node are shown."""
    return sum(node.operations.get(b"k%03d" % i) == b"theirs" for i in range(200))


def test_what_is_joined_in_part_is_not_shown_when_lmdb_has_failed_amid_it(amid: InlineNode) -> None:
    """Opened again, it shows what it has: nobody reads before that is all."""
    made, timers = watching(amid)
    shown = []
    for _ in range(100):
        made.tick()
        shown.append(joined(amid))
        if timers.due:
            timers.due.popleft()()
            shown.append(joined(amid))
    assert set(shown) == {0, 200} and shown == sorted(shown)
    assert amid.operations.get(b"k000/mine") == b"mine" and amid.engine.admission.read_only is None
    amid.kill()


def test_on_a_full_disk_the_rows_of_before_are_shown_until_there_is_room(
    amid: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, timers = watching(amid)
    with monkeypatch.context() as patch:
        patch.setattr(supervisor_module, "disk_is_full", lambda path: True)
        timers.run(made.tick)
        assert joined(amid) == 0 and amid.operations.get(b"k000/mine") == b"mine"
    timers.run(made.tick)
    assert joined(amid) == 200 and amid.engine.admission.read_only is None
    amid.kill()


def test_a_node_whose_lmdb_fails_again_amid_rows_ends_and_joins_them_at_its_next_start(
    joining: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("input/output error")

    made, timers = watching(joining)
    ended: list[Exception] = []
    made.__dict__["_failed"] = ended.append
    with monkeypatch.context() as patch:
        patch.setattr(WriteTransaction, "put_applied", fail)
        timers.run(made.tick)
    assert len(ended) == 1
    with pytest.raises(ReadOnly, match="start the node again: it joins them before it serves"):
        joining.operations.set(b"k", b"v")
    joining.kill()
    joining.open()
    assert joined(joining) == 200
    joining.kill()


def test_rows_are_shown_as_a_whole_when_lmdb_fails_behind_the_commit_that_joined_the_last_of_them(
    joining: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written meanwhile is not merged with them yet, and LMDB, opened again, has them: nobody reads in between."""
    monkeypatch.setattr("edgekv.engine.rebase.REBASE_STEP_OPERATIONS", 1)
    for i in range(9):
        joining.operations.sets.add(b"k/set", [b"mine %d" % i])
        joining.settle()

    def fail(_: LmdbStore) -> None:
        raise StoreError("input/output error")

    made, timers = watching(joining)

    def works() -> bool:
        return made._effects.applier is not None

    while not joining.engine.flips.rebasing:
        made.tick()
    assert joined(joining) == 0
    with monkeypatch.context() as patch:
        patch.setattr(LmdbStore, "write", fail)
        while works():
            timers.due.popleft()()
    while not works():
        timers.due.popleft()()
    assert joined(joining) == 200
    elements, _ = joining.operations.sets.page(b"k/set", b"", 100)
    assert joining.operations.sets.count(b"k/set") == len(elements) == 2 + 9
    assert not joining.engine.flips.is_busy, "and so it covers what it shows"
    joining.kill()


@pytest.mark.parametrize("error", [StoreError("input/output error"), KeyError("nobody thought of this")])
def test_whatever_stops_the_inline_applier_at_a_start_is_said_as_one_error(
    joining: InlineNode, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The start goes on read-only then (`Node.recover`)."""

    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr(Fold, "run", fail)
    made, timers = watching(joining)
    with pytest.raises(Unavailable, match="Look after the disk, then start the node again"):
        made.apply_now(joining.engine.commit.durable_lsn)
    made.tick()
    assert not timers.due and made._effects.applier is not None, (
        "and it is not asked again: the node shows what was before"
    )
    joining.kill()
