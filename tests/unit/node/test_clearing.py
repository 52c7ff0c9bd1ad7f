"""Keys that the applier clears with their expiry cell, and clocks that are set back: what was gone stays gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekv.engine import expired_keys
from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.limits import GENERATION_AGE_MS
from edgekv.store.applied import Progress
from tests.unit.node.inline_node import InlineNode

_HOUR_MS = 3_600_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path / "node")
    yield node
    node.kill()


def _expired_counter_above_its_expiry(node: InlineNode) -> None:
    """k has counted to 6 and expired; the layers above LMDB hold its part, and only LMDB was given its expiry cell."""
    operations = node.operations
    operations.increment(b"k", 5)
    operations.set_expiry(b"k", node.now_ms + 100_000)
    node.checkpoint_at(node.now_ms + 10_000)
    node.engine.memtable.drop_cache()
    operations.increment(b"k", 1)
    node.checkpoint_at(node.now_ms + 10_000)
    assert operations.get(b"k") == b"6"
    node.now_ms += 90_000
    assert operations.get(b"k") is None


def _purge_unheard(node: InlineNode) -> Progress:
    """The applier commits the purge; nobody has heard of it yet."""
    for _ in range(10):
        node.now_ms += 61_000
        node.tick()
        node.settle()
        progress = node._applier.step()
        if progress is not None and progress.cleared:
            return progress
        if progress is not None:
            node.engine.applied(progress)
    raise AssertionError("the key is never cleared")


def test_a_cleared_counter_stays_gone_between_the_commit_and_its_report(node: InlineNode) -> None:
    _expired_counter_above_its_expiry(node)
    progress = _purge_unheard(node)
    node.tick()  # renews the reader
    assert node.operations.get(b"k") is None
    node.engine.applied(progress)
    assert node.operations.get(b"k") is None
    assert node.operations.increment(b"k", 1) == 1


def test_a_cleared_counter_stays_gone_when_the_report_is_lost(node: InlineNode) -> None:
    _expired_counter_above_its_expiry(node)
    progress = _purge_unheard(node)
    node.engine.applied(progress._replace(cleared=False))  # what the next applier says
    assert node.operations.get(b"k") is None
    assert node.operations.increment(b"k", 1) == 1
    node.settle()
    node.kill()
    node.open()
    assert node.operations.get(b"k") == b"1"


def test_replay_keeps_the_expiry_beside_the_rows_of_a_counter_as_well(node: InlineNode) -> None:
    node.operations.increment(b"k", 5)
    node.operations.set_expiry(b"k", node.now_ms + 100_000)
    node.checkpoint_at(node.now_ms + 10_000)
    node.operations.increment(b"k", 1)
    node.settle()
    node.kill()
    node.open()
    node.checkpoint_at(node.now_ms + 10_000)
    node.now_ms += 90_000
    progress = _purge_unheard(node)
    node.engine.applied(progress._replace(cleared=False))
    assert node.operations.get(b"k") is None


def test_an_acknowledged_increment_is_not_added_to_what_had_expired_when_the_clock_is_set_back(
    node: InlineNode,
) -> None:
    node.operations.set(b"k", b"5", expiry_ms=node.now_ms + 10_000)
    node.checkpoint_at(node.now_ms + 5_000)
    node.now_ms += 20_000
    assert node.operations.increment(b"k", 1) == 1
    node.settle()
    node.kill()
    node.now_ms = 1_000  # a board without a clock of its own
    node.open()
    assert node.operations.get(b"k") == b"1"


def test_what_was_read_as_expired_stays_so_when_the_clock_is_set_back(node: InlineNode) -> None:
    node.operations.set(b"k", b"5", expiry_ms=node.now_ms + 10_000)
    node.settle()
    node.now_ms += 10_000
    assert node.operations.get(b"k") is None
    node.now_ms -= _HOUR_MS
    assert node.operations.get(b"k") is None


def test_a_clock_that_is_set_back_does_not_keep_rows_from_lmdb(node: InlineNode) -> None:
    node.operations.set(b"a", b"1")
    node.checkpoint_at(node.now_ms + 10_000)
    node.now_ms -= _HOUR_MS
    node.operations.set(b"b", b"1")
    node.settle()
    for _ in range(2):
        node.now_ms += GENERATION_AGE_MS
        node.tick()
        node.settle()
    assert node.engine.checkpoints.requests


def test_a_report_that_was_lost_with_an_error_is_made_by_the_next_inline_applier(node: InlineNode) -> None:
    node.operations.set(b"k", b"v")
    node.settle()
    node.now_ms += GENERATION_AGE_MS
    node.tick()
    node.settle()
    assert node._applier.step() is not None  # committed, and its report lost
    node.engine.checkpoints.repeat_requests()
    while node.apply():
        pass
    assert not node.engine.memtable.frozen and not node.engine.checkpoints.requests


# -- system clears


def _write(node: InlineNode, kind: str) -> None:
    """Change 1, before there is an expiry, or 3: what it hides all the same, as it is lower, or counted or added."""
    operations = node.operations
    if kind == "counter":
        operations.increment(b"k", 1)
    elif kind == "element":
        operations.sets.add(b"k", [b"a", b"%d" % operations.sets.count(b"k")])
    elif kind == "counter field":
        operations.maps.increment(b"k", b"f", 1)
    else:
        operations.maps.put(b"k", [(b"f", b"%d" % operations.maps.count(b"k"))])


def _cleared(node: InlineNode, up_to: int, end_ms: int) -> int:
    return node.engine.expired_keys.clear({DEFAULT_ID: {node.engine.actor: up_to}}, end_ms, 10)


@pytest.mark.parametrize("kind", ["counter", "element", "counter field", "field"])
def test_nothing_is_cleared_for_all_that_some_have_not_seen(tmp_path: Path, kind: str) -> None:
    """Who has not seen it may bring it back: what it writes first, when the key is gone for it, takes the expiry away."""
    node = InlineNode(tmp_path / "node", lone=False)
    _write(node, kind)
    end_ms = node.now_ms + 100_000
    assert node.operations.set_expiry(b"k", end_ms)
    _write(node, kind)
    node.checkpoint()
    assert [_cleared(node, up_to, end_ms) for up_to in (1, 2, 3)] == [0, 0, 1]
    node.kill()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InlineNode]:
    """A set that is too large to look at is change 1 of a key, its expiry change 2, and an element that this hides change 3."""
    monkeypatch.setattr(expired_keys, "_ELEMENTS_MAX", 3)
    node = InlineNode(tmp_path / "node", lone=False)
    node.operations.sets.add(b"k", [b"%d" % i for i in range(6)])
    assert node.operations.set_expiry(b"k", node.now_ms + _HOUR_MS)
    node.operations.sets.add(b"k", [b"last"])
    node.checkpoint()
    node.now_ms += 2 * _HOUR_MS
    yield node
    node.kill()


def test_a_large_set_is_cleared_when_all_have_seen_what_was_there_when_it_was_met_whatever_is_written_meanwhile(
    large: InlineNode,
) -> None:
    assert _cleared(large, 1, large.now_ms) == 0, "not all have seen the expiry"
    for up_to in (2, 2, 3):  # it is met, and waits for 3
        assert _cleared(large, up_to, large.now_ms) == (up_to == 3)
        large.operations.set(b"other", b"v")
    assert large.engine.collections.counts(large.engine.keyspaces.of(b"k"), b"k")[0] == 0


def test_a_large_set_waits_anew_when_rows_were_joined(large: InlineNode) -> None:
    """They may bring elements of one who was away."""
    assert _cleared(large, 2, large.now_ms) == 0, "it is met"
    large.engine.keyspaces.of(b"k").flips += 1
    large.operations.set(b"other", b"v")
    assert [_cleared(large, up_to, large.now_ms) for up_to in (3, 3, 4)] == [0, 0, 1]


@pytest.mark.parametrize("bound", ["_LARGE_MAX", "_LARGE_HEADS_MAX"])
def test_a_large_set_that_is_written_to_while_it_waits_keeps_no_other_from_going(
    large: InlineNode, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(expired_keys, bound, 1)
    assert _cleared(large, 2, large.now_ms) == 0, "it is met"
    large.operations.delete([b"k"])
    large.operations.sets.add(b"k", [b"anew"])
    large.operations.sets.add(b"next", [b"%d" % i for i in range(6)])
    assert large.operations.set_expiry(b"next", large.now_ms + _HOUR_MS)
    large.checkpoint()
    large.now_ms += 2 * _HOUR_MS
    assert [_cleared(large, 100, large.now_ms) for _ in range(3)].count(1) == 1


def test_large_sets_beyond_what_may_be_kept_for_them_wait_for_their_turn(
    large: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_keys, "_LARGE_HEADS_MAX", 1)
    large.operations.sets.add(b"next", [b"%d" % i for i in range(6)])
    assert large.operations.set_expiry(b"next", large.now_ms + _HOUR_MS)
    large.checkpoint()
    large.now_ms += 2 * _HOUR_MS
    assert _cleared(large, 100, large.now_ms) == 0
    assert len(large.engine.expired_keys._large) == 1
    assert sum(_cleared(large, 100, large.now_ms) for _ in range(4)) == 2


def test_a_call_ends_when_it_has_looked_at_so_many_rows_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_keys, "_ROWS_AT_ONCE", 25)
    node = InlineNode(tmp_path / "node", lone=False)
    end_ms = node.now_ms + 100_000
    for key in range(6):
        node.operations.sets.add(b"%d" % key, [b"%d" % i for i in range(10)])
        assert node.operations.set_expiry(b"%d" % key, end_ms + key)
    node.checkpoint()
    assert [_cleared(node, 100, end_ms + 10) for _ in range(3)] == [3, 3, 0]
    node.kill()
