"""A value that is lost to a concurrent write is counted at the nodes to which the winner came first, and nowhere else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.store.lost_values import LOST_KEPT, VALUE_BYTES_SHOWN
from tests.unit.node.inline_node import InlineNode

KEYSPACES = (
    KeyspaceConfig(prefix=b"", name="default"),
    KeyspaceConfig(prefix=b"s/", name="siblings", conflict="siblings"),
)
Nodes = tuple[InlineNode, InlineNode]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """The second one's clock is a second ahead: its writes win."""
    pair = [InlineNode(tmp_path / str(i), keyspaces=KEYSPACES, seed=i, retain_bytes=1 << 30) for i in range(2)]
    pair[1].now_ms += 1000
    yield pair[0], pair[1]
    for node in pair:
        node.kill()


def exchange(nodes: Nodes) -> None:
    for node in nodes:
        node.settle()
    nodes[0].pull(nodes[1])
    nodes[1].pull(nodes[0])
    for node in nodes:
        node.settle()


def totals(nodes: Nodes) -> list[dict[str, int]]:
    return [node.engine.conflicts.totals for node in nodes]


def test_the_loser_of_two_concurrent_writes_is_shown_with_the_winner(nodes: Nodes) -> None:
    nodes[0].operations.set(b"k", b"loses")
    nodes[1].operations.set(b"k", b"wins")
    exchange(nodes)
    assert [node.operations.get(b"k") for node in nodes] == [b"wins", b"wins"]
    assert totals(nodes) == [{}, {"default": 1}], "only where the winner was first it is certain"
    (conflict,) = nodes[1].engine.conflicts.newest()
    assert (conflict["keyspace"], conflict["key"], conflict["field"]) == ("default", b"k", None)
    kept, discarded = conflict["kept"], conflict["discarded"]
    assert isinstance(kept, dict) and isinstance(discarded, dict)
    assert (kept["value"], discarded["value"]) == (b"wins", b"loses")
    assert kept["actor"] != discarded["actor"]
    assert nodes[1].engine.status()["conflicts"] == {"default": 1}


def test_a_field_of_a_map_that_loses_is_a_conflict(nodes: Nodes) -> None:
    nodes[0].operations.maps.put(b"m", [(b"f", b"loses"), (b"other", b"1")])
    nodes[1].operations.maps.put(b"m", [(b"f", b"wins")])
    exchange(nodes)
    assert totals(nodes) == [{}, {"default": 1}]
    assert nodes[1].engine.conflicts.newest()[0]["field"] == b"f"


def test_who_has_read_what_it_replaces_conflicts_with_nobody(nodes: Nodes) -> None:
    for i in range(4):
        nodes[i % 2].operations.set(b"k", b"%d" % i)
        nodes[i % 2].operations.maps.put(b"m", [(b"f", b"%d" % i)])
        exchange(nodes)
    assert totals(nodes) == [{}, {}]


def test_nothing_is_lost_by_deletions_equal_values_siblings_sets_and_counters(nodes: Nodes) -> None:
    nodes[0].operations.set(b"deleted", b"0")
    exchange(nodes)
    nodes[0].operations.delete([b"deleted"])
    nodes[1].operations.set(b"deleted", b"1")
    for node in nodes:
        node.operations.set(b"equal", b"same")
        node.operations.set(b"s/k", b"%d" % node.now_ms)
        node.operations.sets.add(b"set", [b"%d" % node.now_ms, b"x"])
        node.operations.increment(b"n", 1)
    exchange(nodes)
    assert totals(nodes) == [{}, {}]


def test_the_ledger_is_bounded_and_counts_on(nodes: Nodes) -> None:
    for i in range(LOST_KEPT + 3):
        nodes[0].operations.set(b"k%d" % i, b"x" * 5000)
        nodes[1].operations.set(b"k%d" % i, b"y")
    exchange(nodes)
    newest = nodes[1].engine.conflicts.newest()
    assert totals(nodes)[1] == {"default": LOST_KEPT + 3}
    assert len(newest) == LOST_KEPT and newest[0]["key"] == b"k%d" % (LOST_KEPT + 2)
    discarded = newest[0]["discarded"]
    assert isinstance(discarded, dict)
    assert (len(discarded["value"]), discarded["value_bytes"]) == (VALUE_BYTES_SHOWN, 5000)


def test_a_restart_counts_nothing_again(nodes: Nodes) -> None:
    nodes[0].operations.set(b"k", b"loses")
    nodes[1].operations.set(b"k", b"wins")
    exchange(nodes)
    nodes[1].kill()
    nodes[1].open()
    assert nodes[1].engine.conflicts.totals == {}
