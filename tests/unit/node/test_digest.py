"""A digest is of what readers are shown, and of nothing else."""

from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.config import KeyspaceConfig
from edgekv.errors import InvalidRequest
from edgekv.ids import KeyspaceId
from edgekv.node.digest import Digest
from edgekv.store.applied import sync_path
from edgekv.store.spool import spool_file
from tests.unit.node.inline_node import START_MS, InlineNode

KEYSPACES = (
    KeyspaceConfig(prefix=b"", name="default"),
    KeyspaceConfig(prefix=b"s/", name="siblings", conflict="siblings"),
)
Make = Callable[[], InlineNode]
LATER = START_MS + 1_000_000_000


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    nodes: list[InlineNode] = []

    def new() -> InlineNode:
        n = len(nodes)
        nodes.append(InlineNode(tmp_path / str(n), keyspaces=KEYSPACES, seed=n, retain_bytes=1 << 30))
        return nodes[-1]

    yield new
    for node in nodes:
        node.kill()


def read(node: InlineNode, keyspace: str = "default", ttl_ms: int = START_MS, prefix: bytes = b"") -> Digest:
    digest = node.operations.digest(keyspace, ttl_ms, prefix)
    while digest.step():
        pass
    return digest


def value(node: InlineNode, keyspace: str = "default", ttl_ms: int = START_MS) -> object:
    return read(node, keyspace, ttl_ms).figures()["digest"]


CHANGES: list[Callable[[InlineNode], object]] = [
    lambda n: n.operations.set(b"k", b"other"),
    lambda n: n.operations.set(b"new", b""),
    lambda n: n.operations.delete([b"k"]),
    lambda n: n.operations.set(b"k", b"v", expiry_ms=LATER),
    lambda n: n.operations.increment(b"n", 1),
    lambda n: n.operations.sets.add(b"set", [b"z"]),
    lambda n: n.operations.sets.remove(b"set", [b"e1"]),
    lambda n: n.operations.maps.put(b"map", [(b"f1", b"other")]),
    lambda n: n.operations.maps.increment(b"map", b"count", 1),
    lambda n: n.operations.set_expiry(b"set", LATER),
    lambda n: n.operations.set_expiry(b"n", LATER),
]


def fill(node: InlineNode) -> None:
    node.operations.set(b"k", b"v")
    node.operations.increment(b"n", 5)
    node.operations.sets.add(b"set", [b"e%d" % i for i in range(1500)])
    node.operations.maps.put(b"map", [(b"f%d" % i, b"v") for i in range(1500)])
    node.operations.maps.increment(b"map", b"count", 1)
    node.settle()


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_reader_would_notice_is_in_it(make: Make, change: Callable[[InlineNode], object]) -> None:
    node = make()
    fill(node)
    before = value(node)
    change(node)
    assert value(node) != before


def test_it_does_not_tell_where_rows_are_stored_or_that_others_are_gone(make: Make) -> None:
    plain, other = make(), make()
    fill(plain)
    other.operations.set(b"gone", b"v")
    other.operations.set(b"short", b"v", expiry_ms=START_MS + 5)
    other.operations.sets.add(b"gone-set", [b"x"])
    other.operations.increment(b"gone-count", 3)
    other.operations.delete([b"gone", b"gone-set", b"gone-count"])
    other.operations.sets.add(b"set", [b"removed"])
    other.operations.sets.remove(b"set", [b"removed"])
    fill(other)
    assert value(plain) != value(other), "the short-lived one is still there"
    assert value(plain, ttl_ms=START_MS + 5) == value(other, ttl_ms=START_MS + 5)
    other.checkpoint()
    other.checkpoint()
    assert value(plain, ttl_ms=other.now_ms) == value(other, ttl_ms=other.now_ms)
    other.kill()
    other.open()
    assert value(plain, ttl_ms=other.now_ms) == value(other, ttl_ms=other.now_ms)


def test_nodes_that_have_the_same_changes_in_another_order_agree(make: Make) -> None:
    nodes = [make() for _ in range(3)]
    for i, node in enumerate(nodes):
        node.now_ms += i
        node.operations.set(b"k", b"%d" % i)
        node.operations.set(b"s/k", b"%d" % i)
        node.operations.increment(b"n", i)
        node.operations.sets.add(b"set", [b"%d" % i, b"x"])
        node.operations.sets.remove(b"set", [b"x"])
        node.operations.maps.put(b"m", [(b"f", b"%d" % i)])
        node.settle()
    for node, order in zip(nodes, permutations(nodes), strict=False):
        for source in order:
            if source is not node:
                node.pull(source)
        node.settle()
    for keyspace in ("default", "siblings"):
        assert len({str(read(node, keyspace).vector) for node in nodes}) == 1
        assert len({value(node, keyspace, START_MS + 10) for node in nodes}) == 1
    assert read(nodes[0], "siblings").figures()["keys"] == 1


def test_a_write_on_the_way_is_noticed(make: Make) -> None:
    node = make()
    fill(node)
    digest = node.operations.digest("default")
    assert digest.step()
    node.operations.set(b"a", b"early")
    while digest.step():
        pass
    assert digest.moved and digest.figures()["moved"]
    assert not read(node).moved


def test_rows_that_are_taken_over_as_a_whole_show_when_the_vector_says_so(make: Make) -> None:
    """Else two nodes that lack the same would seem to differ at equal vectors."""
    source, target = make(), make()
    fill(source)
    source.checkpoint_at(source.now_ms + 5_000)
    spool = source.spool(KeyspaceId(0), spool_file(sync_path(target.config.data_dir), b"spool id"))
    target.engine.flip(KeyspaceId(0), b"spool id", spool.head.vector, spool.head.hlc, lambda: None)
    empty, found = value(make()), read(target)
    for _ in range(20):
        found = read(target)
        assert (found.figures()["digest"] == empty) == (found.vector == {})
        if not target.flush() and not target.apply():
            target.tick()
    assert not found.moved and value(target) == value(source)


def test_a_time_beyond_which_the_node_has_purged_is_noticed(make: Make) -> None:
    """Else a node that takes long, and one that was asked before it, would seem to differ."""
    node = make()
    node.operations.set(b"k", b"v", expiry_ms=START_MS + 50)
    node.settle()
    before = read(node)
    assert not before.moved and before.figures()["keys"] == 1
    node.checkpoint()
    node.kill()
    node.open()  # without the cache, in which it could still be seen
    purged = read(node)
    assert purged.vector == before.vector and purged.figures()["keys"] == 0
    assert purged.moved and not read(node, ttl_ms=node.now_ms).moved


def test_ranges_name_where_two_nodes_differ(make: Make) -> None:
    one, other = make(), make()
    for node in (one, other):
        for key in (b"a/1", b"b/1", b"b/2", b"c"):
            node.operations.set(key, b"v")
    other.operations.set(b"b/2", b"w")
    first, second = ({r.name: (r.digest, r.keys, r.first, r.last) for r in read(n).ranges} for n in (one, other))
    assert [name for name in first if first[name] != second[name]] == [b"b"]
    assert first[b"b"][1:] == (2, b"b/1", b"b/2")
    assert [r.name for r in read(one, prefix=b"b/").ranges] == [b"b/1", b"b/2"]


def test_only_keys_of_the_keyspace_are_read(make: Make) -> None:
    node = make()
    node.operations.set(b"k", b"v")
    node.operations.set(b"s/k", b"v")
    assert read(node).figures()["keys"] == read(node, "siblings").figures()["keys"] == 1
    assert read(node, "siblings", prefix=b"k").figures()["keys"] == 0
    with pytest.raises(InvalidRequest, match="no keyspace"):
        node.operations.digest("none")


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(max_size=4), max_size=12), st.randoms())
def test_the_order_of_writes_does_not_show(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[bytes, bytes], random: object
) -> None:
    shuffled = list(rows.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a Random
    found = []
    for order in (list(rows.items()), shuffled):
        node = InlineNode(tmp_path_factory.mktemp("node"))
        for key, data in order:
            node.operations.set(key, data)
        found.append((value(node), read(node).figures()["keys"]))
        node.kill()
    assert found[0] == found[1]
