"""Keys that the applier clears with their expiry cell, and clocks that are set back: what was gone stays gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekv.engine import expired_keys
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
    else:
        operations.maps.increment(b"k", b"f", 1)


@pytest.mark.parametrize("elements_max", [1, 100])
@pytest.mark.parametrize("kind", ["counter", "element", "counter field"])
def test_nothing_is_cleared_for_all_that_some_have_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, elements_max: int
) -> None:
    """Who has not seen it may bring it back: what it writes first, when the key is gone for it, takes the expiry away."""
    monkeypatch.setattr(expired_keys, "_ELEMENTS_MAX", elements_max)
    node = InlineNode(tmp_path / "node", lone=False)
    _write(node, kind)
    end_ms = node.now_ms + 100_000
    assert node.operations.set_expiry(b"k", end_ms)
    _write(node, kind)
    node.checkpoint()
    cleared = [node.engine.expired_keys.clear(lambda _, __, seq, to=to: seq <= to, end_ms, 10) for to in (2, 3)]  # type: ignore[misc]
    assert cleared == [0, 1]
    node.kill()
