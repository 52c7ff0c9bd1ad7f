"""Rows that come as a whole become visible at once, equal those of a node that took in every change, and survive a crash anywhere."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from edgekv.checksum import chain_next
from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import Head
from edgekv.errors import ClockTooFarAhead, Corruption, EdgeKVError, Forked, Overloaded
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import CLOCK_AHEAD_MS_MAX
from edgekv.store.applied import sync_path
from edgekv.store.spool import SpoolSummary, spool_file, spool_ids
from edgekv.wal.record import CHECKPOINT, Barrier, Mark, pack_operations
from tests.unit.engine.test_intake import KEYS, VERBS, run_of, shown, step
from tests.unit.node.inline_node import START_MS, InlineNode

DEFAULT, SIBLINGS = KeyspaceId(0), KeyspaceId(2)
KEYSPACES = (
    KeyspaceConfig(prefix=b"", name="default"),
    KeyspaceConfig(prefix=b"s/", name="siblings", conflict="siblings"),
)
SHOWN = [*KEYS, b"n", b"m"]
IN_DEFAULT = [key for key in SHOWN if not key.startswith(b"s/")]
SPOOL = b"spool id"


def node_in(path: Path, seed: int, *, keyspaces: tuple[KeyspaceConfig, ...] = KEYSPACES) -> InlineNode:
    return InlineNode(path, keyspaces=keyspaces, memory_bytes=8 << 20, seed=seed, retain_bytes=1 << 30, lone=False)


def offer(source: InlineNode, target: InlineNode, keyspace: KeyspaceId, spool_id: bytes = SPOOL) -> SpoolSummary:
    """The rows of ``source`` lie in the directory of ``target``."""
    source.checkpoint_at(source.now_ms + 5_000)
    assert source.engine.memtable.empty
    return source.spool(keyspace, spool_file(sync_path(target.config.data_dir), spool_id))


def begin(target: InlineNode, spool: SpoolSummary, done: Callable[[], None], spool_id: bytes = SPOOL) -> None:
    target.engine.flip(spool.head.keyspace, spool_id, spool.head.vector, spool.head.hlc, done)


def advance(node: InlineNode) -> None:
    """The least that can happen next."""
    if not node.flush() and not node.apply():
        node.tick()


def take_over(source: InlineNode, target: InlineNode, keyspace: KeyspaceId, spool_id: bytes = SPOOL) -> None:
    done: list[bool] = []
    begin(target, offer(source, target, keyspace, spool_id), lambda: done.append(True), spool_id)
    for _ in range(100):
        if done:
            return
        advance(target)
    raise AssertionError("a flip comes to its end")


def swept(node: InlineNode) -> InlineNode:
    """Everything is in LMDB, and the sweeps have come to their end."""
    for _ in range(3):
        node.checkpoint_at(node.now_ms + 5_000)
    return node


def vectors(node: InlineNode) -> list[dict[Actor, Head]]:
    return [keyspace.vector for keyspace in node.engine.keyspaces.all]


@pytest.mark.parametrize("seed", range(24))
def test_a_node_that_took_rows_over_has_what_one_has_that_took_in_every_change(tmp_path: Path, seed: int) -> None:
    """Of several nodes, each with a part of the changes, with its clears swept or not, before and after a restart."""
    dice = Random(seed)
    nodes = [node_in(tmp_path / f"{i}", i) for i in range(3)]
    for _ in range(dice.choice((20, 150))):
        node, other = dice.sample(nodes, 2)
        step(node, other, dice)
    source, target, _ = nodes
    for node in nodes:
        node.settle()
    union = node_in(tmp_path / "union", 9)
    for _ in range(2):
        for node in (source, target):
            union.pull(node)
    union.settle()
    for keyspace in (DEFAULT, SIBLINGS):
        take_over(source, target, keyspace, spool_id=b"%08d" % keyspace)
    assert [shown(target, key) for key in SHOWN] == [shown(union, key) for key in SHOWN]
    assert vectors(target) == vectors(union)
    assert [k.mixed for k in target.engine.keyspaces.all] == [k.mixed for k in union.engine.keyspaces.all]
    assert swept(target).contents() == swept(union).contents()
    target.kill()
    target.open()
    assert [shown(target, key) for key in SHOWN] == [shown(union, key) for key in SHOWN]
    for _ in range(30):  # and goes on as the other does
        with suppress(EdgeKVError):
            dice.choice(VERBS)(target, dice)
    target.settle()
    union.pull(target)
    assert [shown(target, key) for key in SHOWN] == [shown(union, key) for key in SHOWN]
    for node in (*nodes, union):
        node.kill()


# -- a crash


class Crash(NamedTuple):
    """What a flip that ended after some steps left behind."""

    done: bool
    logged: bool
    """The BARRIER was durable."""


def flip_until(node: InlineNode, spool: SpoolSummary, steps: int, *, power_cut: bool) -> Crash:
    """Begin a flip, and kill the node after so many steps; with a power cut LMDB's last commit is gone as well."""
    done: list[bool] = []
    store, before = node.config.data_dir / "store" / "data.mdb", node.config.data_dir / "before"
    begin(node, spool, lambda: done.append(True))
    commits = 0
    for _ in range(steps):
        shutil.copy(store, before)
        lsn = node.applied.lsn
        advance(node)
        if node.applied.lsn != lsn:
            commits += 1
            shutil.copy(before, before.with_suffix(".last"))
    logged = node.logged_barrier()
    node.kill()
    if power_cut and commits:
        shutil.copy(before.with_suffix(".last"), store)
    return Crash(bool(done), logged)


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_flip_that_is_crashed_anywhere_happened_or_did_not(tmp_path: Path, power_cut: bool) -> None:
    """And is never half there: the start after the crash finishes it if its BARRIER was durable."""
    seen = set()
    for steps in range(100):
        folder = tmp_path / f"{steps}"
        folder.mkdir()
        source, target, union = (
            node_in(folder / name, seed) for seed, name in enumerate(("source", "target", "union"))
        )
        dice = Random(5)
        for _ in range(60):
            node, other = dice.sample((source, target), 2)
            step(node, other, dice, pulls=False)
        target.settle()
        union.pull(target)
        old = [shown(union, key) for key in IN_DEFAULT]
        spool = offer(source, target, DEFAULT)
        union.pull(source)
        union.settle()
        new = [shown(union, key) for key in IN_DEFAULT]
        assert old != new
        crash = flip_until(target, spool, steps, power_cut=power_cut)
        target.open()
        assert target.engine.admission.read_only is None
        assert crash.logged or not crash.done
        assert [shown(target, key) for key in IN_DEFAULT] == (new if crash.logged else old), (steps, crash)
        seen.add(crash)
        target.operations.set(b"goes on", b"1")
        if not crash.logged:
            take_over(source, target, DEFAULT)
        target.settle()
        target.kill()
        target.open()
        assert [shown(target, key) for key in IN_DEFAULT] == new
        for node in (source, target, union):
            node.kill()
        if crash.done:
            break
    assert seen == {Crash(False, False), Crash(False, True), Crash(True, True)}


def test_a_fold_that_a_power_cut_took_back_is_done_again_with_all_that_was_logged_behind_it(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    source.operations.set(b"l", b"theirs")
    store, before = target.config.data_dir / "store" / "data.mdb", tmp_path / "before"
    shutil.copy(store, before)
    take_over(source, target, DEFAULT)
    target.operations.set(b"k", b"later")
    target.operations.sets.add(b"set", [b"a"])
    target.settle()
    target.kill()
    shutil.copy(before, store)
    target.open()
    assert [target.operations.get(key) for key in (b"k", b"l")] == [b"later", b"theirs"]
    assert target.operations.sets.count(b"set") == 1
    target.operations.set(b"l", b"goes on")


def test_the_file_of_a_spool_stays_until_no_crash_can_ask_for_it_again(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    take_over(source, target, DEFAULT)
    folder = sync_path(target.config.data_dir)
    while target.apply():
        pass
    assert spool_ids(folder) == [SPOOL], "the commit with the fold is the last one"
    target.kill()
    target.open()
    assert spool_ids(folder) == [SPOOL], "perhaps it still is"
    for number in range(3):
        target.operations.set(b"more", b"%d" % number)
        swept(target)
    assert spool_ids(folder) == []


@pytest.mark.parametrize("harm", ["gone", "damaged", "another"])
def test_a_node_without_the_spool_that_its_log_joins_starts_read_only_and_says_so(tmp_path: Path, harm: str) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    target.operations.set(b"mine", b"1")
    spool = offer(source, target, DEFAULT)
    begin(target, spool, lambda: None)
    while not target.logged_barrier():
        advance(target)
    file = spool_file(sync_path(target.config.data_dir), SPOOL)
    match harm:
        case "gone":
            file.unlink()
        case "damaged":
            data = bytearray(file.read_bytes())
            data[-40] ^= 1
            file.write_bytes(data)
        case "another":
            source.operations.set(b"k", b"newer")
            offer(source, target, DEFAULT)
    target.kill()
    target.open()
    assert isinstance(target.engine.admission.read_only, Corruption)
    assert file.name in str(target.engine.admission.read_only)
    assert (target.operations.get(b"mine"), target.operations.get(b"k")) == (b"1", None)


# -- while it runs


def test_reads_and_writes_go_on_while_rows_are_taken_over_and_runs_of_others_wait(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    target.operations.set(b"mine", b"1")
    target.engine.kick()
    target.operations.set(b"mine", b"1")  # while that frame is written, this one is filled
    woken: list[str] = []
    begin(target, offer(source, target, DEFAULT), lambda: woken.append("done"))
    assert not target.engine.write_blocked
    target.operations.set(b"k", b"meanwhile")
    with pytest.raises(Overloaded):
        target.engine.receive(run_of([b"v"]))
    assert target.engine.flips.keyspace is target.engine.keyspaces.of(b"k")
    target.engine.receive(
        run_of([b"v"], key=b"s/x", keyspace=2)._replace(body=pack_operations([[[14, b"s/x", b"v", 0, []]]]))
    )
    while not woken:
        assert (target.operations.get(b"mine"), target.operations.get(b"k")) == (b"1", b"meanwhile")
        advance(target)
    assert target.operations.get(b"k") == b"meanwhile"
    target.operations.set(b"k", b"after")
    target.settle()
    target.kill()
    target.open()
    assert target.operations.get(b"k") == b"after"
    assert target.engine.reads.state(target.engine.keyspaces.of(b"s/x"), b"s/x").visible_siblings(1)


def test_readers_see_all_rows_of_before_or_all_of_after_also_when_the_commit_is_not_reported_yet(
    tmp_path: Path,
) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    keys = [b"%d" % number for number in range(6)]
    for number, key in enumerate(keys):
        if number != 1:
            target.operations.set(key, b"before")
        if number == 2:
            target.checkpoint_at(target.now_ms + 5_000)  # the first ones lie in the cache
    source.now_ms = target.now_ms + 1_000
    for key in keys:
        source.operations.set(key, b"after")
    begin(target, offer(source, target, DEFAULT), lambda: None)
    seen, unheard = set(), 0
    while target.engine.flips.keyspace is not None:
        seen.add(tuple(target.operations.get(key) for key in keys))
        if not target.flush():
            if target.logged_barrier() and unheard < 2:  # what was before, then the rows
                target.apply_unheard()
                unheard += 1
            else:
                advance(target)
    seen.add(tuple(target.operations.get(key) for key in keys))
    before = tuple(None if number == 1 else b"before" for number in range(6))
    assert seen == {before, (b"after",) * 6}


def test_a_segment_that_begins_between_the_barrier_and_its_commit_says_what_the_log_before_it_joined(
    tmp_path: Path,
) -> None:
    """Else whoever has the keyspace's older vector could follow the log from there, and would lack the rows."""
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    spool = offer(source, target, DEFAULT)
    begin(target, spool, lambda: None)
    while not target.logged_barrier():
        advance(target)
    chain = 0
    for seq in range(1, 9):
        run = run_of([b"v"], key=b"s/x", keyspace=2, first_seq=seq, chain=chain)
        run = run._replace(body=pack_operations([[[14, b"s/x", bytes(50_000), 0, []]]]))
        target.engine.receive(run)
        chain = chain_next(chain, run.base_hlc, run.body)
        target.settle()
    records = target.log_records()
    after = records[[isinstance(record, Barrier) for record in records].index(True) :]
    checkpoint = next(record.value for record in after if isinstance(record, Mark) and record.kind == CHECKPOINT)
    state = next(state for state in checkpoint.keyspaces if state.keyspace == DEFAULT)
    assert {actor: (seq, chain) for actor, seq, chain in state.vector} == spool.head.vector
    assert source.engine.actor not in target.engine.keyspaces.of(b"k").vector, (
        "it is not told to anybody before the commit"
    )


def test_who_wants_all_that_is_durable_in_lmdb_waits_until_rows_that_are_taken_over_are_there(tmp_path: Path) -> None:
    """A spool for a third node, or a keyspace that is given up, asks at any moment."""
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    done: list[bool] = []
    spool = offer(source, target, DEFAULT)
    target.operations.set(b"mine", b"0")
    target.settle()
    begin(target, spool, lambda: done.append(True))
    target.operations.set(b"mine", b"1")
    target.engine.kick()
    target.apply()  # the BARRIER is in the frame after the one that is being written
    while not done:
        target.engine.checkpoints.carry()
        advance(target)
    assert (target.operations.get(b"k"), target.operations.get(b"mine")) == (b"theirs", b"1")


def test_a_second_flip_waits_for_the_first(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    done: list[int] = []
    spools = [offer(source, target, keyspace, b"%08d" % keyspace) for keyspace in (DEFAULT, SIBLINGS)]
    for spool in spools:
        number = spool.head.keyspace
        begin(target, spool, partial(done.append, number), b"%08d" % number)
    while len(done) < 2:
        advance(target)
    assert done == [DEFAULT, SIBLINGS]


def test_a_write_after_the_flip_is_above_all_that_came_with_it(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.now_ms += 3_600_000
    source.operations.set(b"k", b"from a fast clock")
    take_over(source, target, DEFAULT)
    target.operations.set(b"k", b"later")
    assert target.operations.get(b"k") == b"later"


def test_a_buffered_keyspace_is_synced_before_its_rows_are_joined(tmp_path: Path) -> None:
    buffered = (KeyspaceConfig(prefix=b"", name="default", durability="buffered"),)
    source, target = (node_in(tmp_path / f"{seed}", seed, keyspaces=buffered) for seed in (1, 2))
    source.operations.set(b"k", b"theirs")
    target.settle()
    target.operations.set(b"mine", b"1")
    target.engine.kick()
    target.flush()
    assert target.engine.commit.needs_sync
    take_over(source, target, DEFAULT)
    assert (target.operations.get(b"mine"), target.operations.get(b"k")) == (b"1", b"theirs")


# -- what is refused


def test_rows_of_another_history_are_refused_before_anything_happens(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    spool = offer(source, target, DEFAULT)
    (actor, (seq, chain)), *_ = spool.head.vector.items()
    target.pull(source)
    target.settle()
    own = target.engine.actor
    for vector in ({actor: (seq, chain ^ 1)}, {own: (1, 0)}):
        with pytest.raises(Forked):
            target.engine.flip(DEFAULT, SPOOL, vector, 1, lambda: None)
    target.engine.judges_clocks = True
    ahead = (START_MS + CLOCK_AHEAD_MS_MAX + 60_000) << 16
    with pytest.raises(ClockTooFarAhead):
        target.engine.flip(DEFAULT, SPOOL, spool.head.vector, ahead, lambda: None)
    assert target.engine.flips.keyspace is None
