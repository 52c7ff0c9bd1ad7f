"""Clients write on while rows of another node are joined: what they wrote is in what comes out, exactly once, at any moment."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import Head, KeyspacePolicy
from edgekv.errors import EdgeKVError, Overloaded, Unavailable
from edgekv.ids import KeyspaceId
from edgekv.limits import REBASE_AT_ONCE_MAX, REBASE_STEP_OPERATIONS, REBASE_STEPS_MAX
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool import SpoolSummary
from tests.unit.engine.test_flip import (
    DEFAULT,
    SHOWN,
    SIBLINGS,
    advance,
    begin,
    node_in,
    offer,
    swept,
    vectors,
)
from tests.unit.engine.test_intake import VERBS, run_of, shown, step
from tests.unit.node.inline_node import START_MS, InlineNode

Call = Callable[[InlineNode], object]


@pytest.fixture
def in_many_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold of a few rows is one of many here, so something happens between them."""
    monkeypatch.setattr("edgekv.store.applier.FOLD_TRANSACTION_ROWS_MAX", 1)
    monkeypatch.setattr("edgekv.store.fold.SPOOL_SLICE_ROWS", 2)


def all_shown(node: InlineNode, keys: list[bytes] = SHOWN) -> list[object]:
    return [shown(node, key) for key in keys]


def is_joined(node: InlineNode, spool: SpoolSummary) -> bool:
    vector = node.engine.keyspaces.by_id[KeyspaceId(spool.head.keyspace)].vector
    return all(vector.get(actor, Head(0, 0)).seq >= seq for actor, (seq, _) in spool.head.vector.items())


def stage(node: InlineNode) -> str:
    """Where the flip under way is."""
    flip = node.engine.flips._flip
    if flip is None:
        return "none"
    if flip.frame is None:
        return "draining"
    if not flip.closed:
        return "logging"
    return "rebasing" if flip.rebase.begun else "applying"


def advance_to(node: InlineNode, wanted: str) -> None:
    for _ in range(400):
        if stage(node) == wanted:
            return
        advance(node)
    raise AssertionError(f"no flip is {wanted}")


def finish(node: InlineNode) -> None:
    for _ in range(400):
        if node.engine.flips.keyspace is None:
            return
        advance(node)
    raise AssertionError("a flip comes to its end")


def take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebase takes some steps, though there is nothing to do."""
    monkeypatch.setattr("edgekv.engine.flip.REBASE_AT_ONCE_MAX", -1)
    monkeypatch.setattr("edgekv.engine.flip.REBASE_STEPS_MAX", 4)


@pytest.mark.usefixtures("in_many_transactions")
@pytest.mark.parametrize("seed", range(20))
def test_what_clients_wrote_meanwhile_is_as_on_a_node_that_took_in_every_change(tmp_path: Path, seed: int) -> None:
    """At any moment readers see the rows of before or those of after, never those of before again, and always their own writes."""
    dice = Random(seed)
    source, target, before, union = (node_in(tmp_path / f"{i}", i) for i in range(4))
    for _ in range(dice.choice((10, 60))):
        node, other = dice.sample((source, target), 2)
        step(node, other, dice, pulls=dice.random() < 0.3)
    for node in (source, target):
        node.settle()
    keyspace = dice.choice((DEFAULT, SIBLINGS))
    if dice.random() < 0.3:
        target.pull(source)  # nothing comes that is not here
    spool = offer(source, target, keyspace)
    done: list[bool] = []
    was_joined = is_joined(target, spool)
    for node in (source, target):
        union.pull(node)
    begin(target, spool, lambda: done.append(True))
    while not done:
        for _ in range(dice.choice((0, 0, 1, 3))):
            with suppress(EdgeKVError):
                dice.choice(VERBS)(target, dice)
        if dice.random() < 0.5:
            target.engine.kick()
        if dice.random() < 0.3:
            target.settle()
            before.pull(target)
            union.pull(target)
            keys = [key for key in SHOWN if target.engine.keyspaces.of(key).id == keyspace]
            joined = is_joined(target, spool)
            assert joined or not was_joined
            was_joined = joined
            assert all_shown(target, keys) == all_shown(union if joined else before, keys), stage(target)
        if not done:
            advance(target)
    target.settle()
    union.pull(target)
    for node in (target, union):
        node.settle()
    keys = [key for key in SHOWN if target.engine.keyspaces.of(key).id == keyspace]
    assert all_shown(target, keys) == all_shown(union, keys)
    mine, theirs = (node.engine.keyspaces.by_id[keyspace] for node in (target, union))
    assert (mine.vector, mine.mixed) == (theirs.vector, theirs.mixed)
    live = {k: row for k, row in swept(target).contents().items() if k[0] == keyspace}
    assert live == {k: row for k, row in swept(union).contents().items() if k[0] == keyspace}
    target.kill()
    target.open()
    assert all_shown(target, keys) == all_shown(union, keys)
    for node in (source, target, before, union):
        node.kill()


def _add(element: bytes) -> Call:
    return lambda n: n.operations.sets.add(b"set", [element])


PREPARED: list[Call] = [
    lambda n: n.operations.set(b"k", b"old"),
    lambda n: n.operations.increment(b"n", 5),
    lambda n: n.operations.sets.add(b"set", [b"a", b"b"]),
    lambda n: n.operations.maps.put(b"map", [(b"f", b"1"), (b"g", b"2")]),
    lambda n: n.operations.maps.increment(b"map", b"n", 3),
    lambda n: n.operations.set(b"s/v", b"first"),
]
THEIRS: list[Call] = [
    lambda n: n.operations.set(b"k", b"theirs"),
    lambda n: n.operations.set(b"other", b"theirs"),
    lambda n: n.operations.increment(b"n", 100),
    lambda n: n.operations.sets.add(b"set", [b"x", b"y"]),
    lambda n: n.operations.sets.remove(b"set", [b"b"]),
    lambda n: n.operations.maps.put(b"map", [(b"h", b"3")]),
    lambda n: n.operations.maps.remove(b"map", [b"g"]),
    lambda n: n.operations.maps.increment(b"map", b"n", 40),
    lambda n: n.operations.set_expiry(b"set", START_MS + 9_000_000),
    lambda n: n.operations.set(b"s/v", b"theirs"),
]
WRITES: dict[str, Call] = {
    "SET": lambda n: n.operations.set(b"k", b"mine"),
    "SET with an expiry": lambda n: n.operations.set(b"k", b"mine", expiry_ms=START_MS + 8_000_000),
    "SET over a counter": lambda n: n.operations.set(b"n", b"1"),
    "DEL": lambda n: n.operations.delete([b"k"]),
    "DEL of a counter": lambda n: n.operations.delete([b"n"]),
    "DEL of a set": lambda n: n.operations.delete([b"set"]),
    "DEL of a map": lambda n: n.operations.delete([b"map"]),
    "DEL of siblings": lambda n: n.operations.delete([b"s/v"]),
    "INCR": lambda n: n.operations.increment(b"n", 1),
    "SADD": _add(b"c"),
    "SADD of what is there": _add(b"b"),
    "SADD of what comes": _add(b"x"),
    "SREM": lambda n: n.operations.sets.remove(b"set", [b"a"]),
    "SREM of what is not there": lambda n: n.operations.sets.remove(b"set", [b"x"]),
    "HSET": lambda n: n.operations.maps.put(b"map", [(b"f", b"9"), (b"i", b"9")]),
    "HDEL": lambda n: n.operations.maps.remove(b"map", [b"f", b"g"]),
    "HINCRBY": lambda n: n.operations.maps.increment(b"map", b"n", 1),
    "EXPIRE": lambda n: n.operations.set_expiry(b"set", START_MS + 7_000_000),
    "PERSIST": lambda n: n.operations.persist(b"set"),
    "a sibling": lambda n: n.operations.set(b"s/v", b"mine"),
}
SEEN = [b"k", b"other", b"n", b"set", b"map", b"s/v"]
STAGES = ["none", "draining", "logging", "applying", "rebasing"]


@pytest.mark.parametrize("at", STAGES)
@pytest.mark.parametrize("name", WRITES)
def test_one_write_at_each_moment(tmp_path: Path, name: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen at once by its client, and in the end everybody has it; the reply and the reads after it do not wait for the flip."""
    take_time(monkeypatch)
    keyspace = SIBLINGS if "sibling" in name else DEFAULT
    source, target, union = (node_in(tmp_path / f"{i}", i) for i in range(3))
    for call in PREPARED:
        call(target)
    target.settle()
    source.pull(target)
    source.settle()
    for call in THEIRS:
        call(source)
    target.operations.sets.add(b"set", [b"d"])
    spool = offer(source, target, keyspace)
    if at == "none":
        WRITES[name](target)
    if at == "draining":
        target.settle()
        target.engine.tick()
        target.now_ms += 5_000
        target.tick()  # a generation is on its way
    begin(target, spool, lambda: None)
    if at != "none":
        advance_to(target, at)
        WRITES[name](target)
    if name == "SET":
        assert target.operations.get(b"k") == b"mine"
    finish(target)
    target.settle()
    for node in (source, target):
        union.pull(node)
    union.settle()
    keys = [key for key in SEEN if target.engine.keyspaces.of(key).id == keyspace]
    assert all_shown(target, keys) == all_shown(union, keys)
    for _ in range(2):
        target.kill()
        target.open()
        assert all_shown(target, keys) == all_shown(union, keys)
        swept(target)
    for node in (source, target, union):
        node.kill()


@pytest.mark.usefixtures("in_many_transactions")
@pytest.mark.parametrize("power_cut", [False, True])
def test_a_crash_at_each_step_loses_no_write_that_was_durable(tmp_path: Path, power_cut: bool) -> None:
    """And leaves the rows of before or those of after, with these writes."""
    ends = set()
    for steps in range(60):
        folder = tmp_path / f"{steps}"
        folder.mkdir()
        source, target, union = (node_in(folder / f"{i}", i) for i in range(3))
        dice = Random(7)
        for _ in range(40):
            node, other = dice.sample((source, target), 2)
            step(node, other, dice, pulls=False)
        spool = offer(source, target, DEFAULT)
        target.settle()
        done: list[bool] = []
        store, kept = target.config.data_dir / "store" / "data.mdb", folder / "last"
        begin(target, spool, lambda done=done: done.append(True))  # type: ignore[misc]
        for _ in range(steps):
            with suppress(EdgeKVError):
                dice.choice(VERBS)(target, dice)
            data, lsn = store.read_bytes(), target.engine.checkpoints.applied_lsn
            advance(target)
            if target.engine.checkpoints.applied_lsn != lsn:
                kept.write_bytes(data)
            target.engine.kick()
        logged = target.logged_barrier()
        union.pull(target)
        target.kill()
        if power_cut and kept.exists():
            shutil.copy(kept, store)
        target.open()
        assert target.engine.admission.read_only is None
        if logged:
            union.pull(source)
        union.settle()
        keys = [key for key in SHOWN if not key.startswith(b"s/")]
        assert all_shown(target, keys) == all_shown(union, keys), steps
        assert vectors(target)[0] == vectors(union)[0]
        ends.add((logged, bool(done)))
        for node in (source, target, union):
            node.kill()
        if done and steps > 12:
            break
    assert ends == {(False, False), (True, False), (True, True)}


def busy_target(tmp_path: Path, writes: int) -> tuple[InlineNode, InlineNode]:
    """A flip whose rows are applied, with so many durable writes to one set behind its BARRIER."""
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.sets.add(b"set", [b"theirs"])
    begin(target, offer(source, target, DEFAULT), lambda: None)
    advance_to(target, "applying")
    for number in range(writes):
        target.operations.sets.add(b"set", [b"%d" % number])
    target.settle()
    return source, target


def test_many_writes_are_merged_a_few_at_a_time_while_others_come(tmp_path: Path) -> None:
    writes = 3_000
    _, target = busy_target(tmp_path, writes)
    advance_to(target, "rebasing")
    turns = 0
    while target.engine.flips.keyspace is not None:
        assert target.operations.sets.count(b"set") == writes + turns, "its own, theirs are not there yet"
        target.operations.sets.add(b"set", [b"more %d" % turns])
        turns += 1
        target.engine.flips.advance()
    assert turns >= writes // REBASE_STEP_OPERATIONS // 2
    assert target.operations.sets.count(b"set") == writes + turns + 1


def test_more_writes_than_can_be_merged_in_one_go_do_not_keep_a_flip_from_its_end(tmp_path: Path) -> None:
    _, target = busy_target(tmp_path, 1_000)
    advance_to(target, "rebasing")
    for _ in range(2 * REBASE_STEPS_MAX):
        if target.engine.flips.keyspace is None:
            break
        for number in range(REBASE_AT_ONCE_MAX + 1):
            target.operations.sets.add(b"set", [b"%d" % number])
        target.engine.flips.advance()
        target.settle()
    assert target.engine.flips.keyspace is None
    assert target.operations.sets.count(b"set") == 1_001
    assert target.engine.reads.recount(target.engine.keyspaces.of(b"set"), b"set") == (1_001, 0)


def test_a_reader_of_the_joined_rows_that_ends_too_early_does_not_split_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map had to move: the old rows cannot be shown any longer, so the flip ends in the same turn."""
    _, target = busy_target(tmp_path, 500)

    def fails(_store: LmdbStore) -> None:
        raise Unavailable("the map moved")

    monkeypatch.setattr(LmdbStore, "read", fails)
    seen = set()
    for _ in range(400):
        seen.add(target.operations.sets.count(b"set"))
        if target.engine.flips.keyspace is None:
            break
        advance(target)
    assert seen == {500, 501}
    assert target.engine.reads.recount(target.engine.keyspaces.of(b"set"), b"set") == (501, 0)


def test_runs_of_others_wait_and_those_of_other_keyspaces_do_not(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    begin(target, offer(source, target, DEFAULT), lambda: None)
    run = run_of([b"v"])
    for wanted in ("logging", "applying"):
        advance_to(target, wanted)
        with pytest.raises(Overloaded):
            target.engine.receive(run)
        assert target.engine.flips.holds([run])
        assert not target.engine.flips.holds([run._replace(keyspace=2)])
        assert not target.engine.write_blocked
    finish(target)
    assert not target.engine.flips.holds([run])
    assert target.engine.receive(run)


def test_nothing_is_frozen_or_asked_for_behind_a_barrier_before_its_rows_are_shown(tmp_path: Path) -> None:
    """Else the state that the rebase begins from would hold what it merges."""
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.sets.add(b"set", [b"theirs"])
    begin(target, offer(source, target, DEFAULT), lambda: None)
    advance_to(target, "applying")
    barrier_lsn = target.engine.commit.durable_lsn
    for number in range(20):
        target.operations.sets.add(b"set", [b"%d" % number])
        target.now_ms += 120_000
        target.tick()
        target.settle()
    assert [request.lsn for request in target.engine.checkpoints.requests] == [barrier_lsn]
    finish(target)
    assert target.operations.sets.count(b"set") == 21
    assert not target.engine.checkpoints.paused
    target.checkpoint()
    assert target.engine.memtable.empty, "and then it goes on"


def test_a_deleted_key_that_a_fold_removes_under_a_write_stays_one_key(tmp_path: Path) -> None:
    """The write's row was a whole one of before: an expiry that the other node removed must not come back with it."""
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    target.operations.sets.add(b"set", [b"a"])
    target.operations.set_expiry(b"set", START_MS + 1_000_000)
    target.settle()
    source.pull(target)
    source.settle()
    source.operations.persist(b"set")
    begin(target, offer(source, target, DEFAULT), lambda: None)
    advance_to(target, "applying")
    target.operations.sets.add(b"set", [b"b"])
    finish(target)
    assert target.operations.expiry_of(b"set") == source.operations.expiry_of(b"set")
    assert target.operations.sets.count(b"set") == 2


def test_a_scan_shows_the_joined_keys_and_no_key_twice(tmp_path: Path) -> None:
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    for key in (b"a", b"c"):
        source.operations.sets.add(key, [b"theirs"])
    begin(target, offer(source, target, DEFAULT), lambda: None)
    advance_to(target, "applying")
    target.operations.sets.add(b"b", [b"1"])
    target.operations.increment(b"n", 1)
    target.settle()
    assert [found.key for found in target.engine.reads.range(b"", None, 10).found] == [b"b", b"n"]
    finish(target)
    assert [found.key for found in target.engine.reads.range(b"", None, 10).found] == [b"a", b"b", b"c", b"n"]


def test_a_write_on_an_empty_node_survives_that_its_keyspace_is_taken_over(tmp_path: Path) -> None:
    """The first moments of a new node: its clients write before the rows are there."""
    one = (KeyspaceConfig(prefix=b"", name="default"),)
    source, target = (node_in(tmp_path / f"{seed}", seed, keyspaces=one) for seed in (1, 2))
    source.operations.set(b"k", b"theirs")
    source.operations.set(b"l", b"theirs")
    begin(target, offer(source, target, DEFAULT), lambda: None)
    advance_to(target, "applying")
    target.operations.set(b"k", b"mine")
    assert target.operations.get(b"l") is None
    finish(target)
    assert (target.operations.get(b"k"), target.operations.get(b"l")) == (b"mine", b"theirs")
    target.settle()
    assert target.engine.keyspaces.of(b"k").vector[target.engine.actor].seq == 1


@pytest.mark.parametrize("at", ["applying", "rebasing"])
def test_what_a_keyspace_that_is_created_meanwhile_takes_over_does_not_come_back(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes of before stay in the keyspace they were made in; under the new one they would hide what is written there."""
    take_time(monkeypatch)
    source, target = node_in(tmp_path / "source", 1), node_in(tmp_path / "target", 2)
    source.operations.set(b"k", b"theirs")
    begin(target, offer(source, target, DEFAULT), lambda: None)
    advance_to(target, "applying")
    target.operations.sets.add(b"t/durable", [b"1"])
    target.operations.increment(b"t/n", 1)
    target.operations.sets.add(b"u", [b"1"])
    target.settle()
    advance_to(target, at)
    target.operations.sets.add(b"t/filling", [b"1"])
    target.engine.create(KeyspacePolicy(id=KeyspaceId(7), name="new", prefix=b"t/"))
    target.operations.sets.add(b"t/durable", [b"2", b"3"])
    finish(target)
    counts = {key: target.operations.sets.count(key) for key in (b"t/durable", b"t/filling", b"u")}
    assert counts == {b"t/durable": 2, b"t/filling": 0, b"u": 1}
    assert target.operations.get(b"t/n") is None
