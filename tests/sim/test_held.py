"""What has moved at a node is looked at; while nothing has, one look in eight is taken nevertheless."""

import shutil
from collections.abc import Iterator
from random import Random

import pytest

from tests.sim.held import Held
from tests.sim.sim_node import SimNode, fast_directory

KEY = b"k"
MUST = object()


@pytest.fixture
def node() -> Iterator[SimNode]:
    path = fast_directory("edgekv-held-")
    node = SimNode(path / "node-1", Random(1), lambda: 1_700_000_000_000)
    yield node
    node.stop()
    shutil.rmtree(path)


@pytest.fixture
def held(node: SimNode) -> Held:
    """It has looked at the key once."""
    held = Held()
    node.operations.set(KEY, b"1")
    assert not is_same(held, node)
    return held


def is_same(held: Held, node: SimNode, must: object = MUST) -> bool:
    return held.is_same(node, node.keyspace(), KEY, must)


def test_a_key_of_which_nothing_moves_is_looked_at_one_time_in_eight(node: SimNode, held: Held) -> None:
    assert [is_same(held, node) for _ in range(16)].count(False) == 2


def test_a_new_value_has_moved(node: SimNode, held: Held) -> None:
    node.operations.set(KEY, b"2")
    assert not is_same(held, node)


def test_an_element_that_is_written_in_place_has_moved_when_its_change_is_told_of(node: SimNode, held: Held) -> None:
    held.touch(node, KEY)
    assert not is_same(held, node)


def test_a_value_on_its_way_to_the_memtable_and_to_lmdb_has_moved(node: SimNode, held: Held) -> None:
    node.settle()
    assert not is_same(held, node)
    node.request(node.engine.commit.durable_lsn, None)
    assert node.apply()
    node.store.renew()
    assert not is_same(held, node)


def test_another_key_does_not_move_this_one(node: SimNode, held: Held) -> None:
    node.settle()
    is_same(held, node)
    node.operations.set(b"other", b"1")
    node.settle()
    assert is_same(held, node)


def test_what_must_be_shown_moves_with_the_time(node: SimNode, held: Held) -> None:
    assert not is_same(held, node, object())


def test_a_node_is_idle_until_a_frame_comes_or_goes(node: SimNode, held: Held) -> None:
    held.is_idle(node)
    assert held.is_idle(node)
    node.settle()
    assert not held.is_idle(node)
