"""Siblings in LMDB: what the applier stores of two actors' changes, and what it removes when they or their key expire."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekv.crdt.operation import (
    ADD_ELEMENTS,
    DELETE_SIBLINGS,
    EXPIRE,
    PUT_SIBLING,
    SUFFIX_EXPIRY,
    SUFFIX_SIBLINGS,
    element_suffix,
)
from edgekv.crdt.siblings import Siblings
from edgekv.ids import KeyspaceId
from edgekv.store import snapshot
from edgekv.store.applied import Cut, Stable
from tests.unit.store.node_log import FIRST_HLC, OTHER, OWN, NodeLog, applier_of, contents, open_store


class Node:
    """A log, its store and its applier in one directory."""

    def __init__(self, data_dir: Path) -> None:
        self.log = NodeLog(data_dir)
        self.store = open_store(data_dir)
        self.applier = applier_of(self.store, data_dir)

    def apply(self, wall_ms: int = 0, cut: Cut | None = None) -> None:
        cuts = None if cut is None else {0: cut}
        while self.applier.apply(self.log.lsn, Stable(wall_ms, cuts)) is not None:
            pass

    def values(self, key: bytes = b"k") -> list[bytes] | None:
        row = contents(self.store).get((0, key, SUFFIX_SIBLINGS))
        assert row is None or isinstance(row, Siblings)
        return None if row is None else [sibling.value for sibling in row.values]

    def suffixes(self, key: bytes = b"k") -> set[bytes]:
        return {suffix for _, found, suffix in contents(self.store) if found == key}


@pytest.fixture(params=[False, True], ids=["in one transaction", "one by one"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(tmp_path)
    if request.param:
        write = made.log.run

        def written(*args: object, **kwargs: object) -> int:
            lsn = write(*args, **kwargs)  # type: ignore[arg-type] # passed on
            made.apply()
            return lsn

        made.log.run = written  # type: ignore[method-assign]
    yield made
    made.store.close()


@pytest.mark.parametrize("key", [b"k", b"long" * 500], ids=["short key", "long key"])
def test_values_of_two_actors_are_kept_until_a_put_that_had_seen_both(node: Node, key: bytes) -> None:
    node.log.change([PUT_SIBLING, key, b"own", 0, []])
    node.log.change([PUT_SIBLING, key, b"other", 0, []], actor=OTHER)
    node.apply()
    assert node.values(key) == [b"own", b"other"]
    node.log.change([PUT_SIBLING, key, b"joined", 0, [[OWN, 1], [OTHER, 1]]], actor=OTHER)
    node.log.change([PUT_SIBLING, key, b"concurrent", 0, [[OWN, 1]]])
    node.apply()
    assert node.values(key) == [b"concurrent", b"joined"]


def test_a_key_whose_values_were_all_removed_has_no_row(node: Node) -> None:
    node.log.change([PUT_SIBLING, b"k", b"own", 0, []])
    node.log.change([PUT_SIBLING, b"k", b"other", 0, []], actor=OTHER)
    node.log.change([DELETE_SIBLINGS, b"k", [[OWN, 1], [OTHER, 1]]])
    node.apply()
    assert node.suffixes() == set()
    node.log.change([DELETE_SIBLINGS, b"k", [[OWN, 1]]], actor=OTHER)
    node.apply()
    assert node.suffixes() == set()


def test_a_value_that_has_expired_goes_and_the_others_stay(node: Node) -> None:
    node.log.change([PUT_SIBLING, b"k", b"early", 10, []])
    node.log.change([PUT_SIBLING, b"k", b"late", 20, []], actor=OTHER)
    node.log.change([PUT_SIBLING, b"k", b"never", 0, []], actor=OTHER)
    node.apply(wall_ms=9)
    assert node.values() == [b"early", b"late", b"never"]
    node.apply(wall_ms=10)
    assert node.values() == [b"late", b"never"]
    node.apply(wall_ms=20)
    assert node.values() == [b"never"]


def test_the_expiry_of_a_key_takes_older_values_with_it_and_spares_later_ones(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"e"]])
    node.log.change([PUT_SIBLING, b"k", b"older", 0, []], actor=OTHER, base_hlc=FIRST_HLC + 5)
    node.log.change([EXPIRE, b"k", 10], base_hlc=FIRST_HLC + 10)
    node.log.change([PUT_SIBLING, b"k", b"later", 0, []], actor=OTHER, base_hlc=FIRST_HLC + 15)
    node.apply(wall_ms=9)
    assert node.suffixes() == {SUFFIX_EXPIRY, SUFFIX_SIBLINGS, element_suffix(b"e")}
    node.apply(wall_ms=10)
    assert (node.values(), node.suffixes()) == ([b"later"], {SUFFIX_SIBLINGS})


def test_a_value_that_has_expired_stays_until_the_cut_covers_it(node: Node) -> None:
    node.log.change([PUT_SIBLING, b"k", b"own", 10, []])
    node.log.change([PUT_SIBLING, b"k", b"other", 10, []], actor=OTHER)
    node.apply(wall_ms=10, cut=Cut({OWN: 1}, {}, frozenset()))
    assert node.values() == [b"other"]
    node.apply(wall_ms=10, cut=Cut({OWN: 1, OTHER: 1}, {}, frozenset()))
    assert node.values() is None


@pytest.mark.parametrize("key", [b"k", b"long" * 500], ids=["short key", "long key"])
def test_a_page_shows_the_values_beside_a_set(node: Node, key: bytes) -> None:
    node.log.change([ADD_ELEMENTS, key, [b"e", b"f"]])
    node.log.change([PUT_SIBLING, key, b"v", 0, []], actor=OTHER)
    node.apply()
    (item,) = snapshot.page([], node.store, KeyspaceId(0), b"", None, 10).items
    row = item.composites[SUFFIX_SIBLINGS]
    assert isinstance(row, Siblings) and [sibling.value for sibling in row.values] == [b"v"]
    assert (item.key, item.elements) == (key, 2)
