"""Concurrent values of a key on one node, at every moment that a row passes through: overlay, memtable, LMDB, restart, purge."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.crdt.operation import SUFFIX_SIBLINGS
from edgekv.crdt.siblings import Siblings
from edgekv.engine.frame import Frame
from edgekv.errors import ConcurrentValues, Denied, DiskFull, InvalidRequest, TooLarge, WrongType
from edgekv.ids import node_actor
from edgekv.limits import SIBLINGS_MAX
from edgekv.node.context import context_text
from edgekv.node.siblings import SiblingVerbs
from tests.unit.node.inline_node import InlineNode

KEY = b"s/k"
KEYSPACES = (
    KeyspaceConfig(prefix=b"s/", name="siblings", conflict="siblings"),
    KeyspaceConfig(prefix=b"t/", name="timed", conflict="siblings", ttl_s=10),
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path, keyspaces=KEYSPACES)
    yield node
    node.kill()


def siblings(node: InlineNode) -> SiblingVerbs:
    return node.operations.siblings


def conflict(node: InlineNode, first: bytes = b"a", second: bytes = b"b", key: bytes = KEY) -> str:
    """Two writers who had read the same; the context of what they leave."""
    read = siblings(node).get(key).context
    siblings(node).put(key, first, read)
    siblings(node).put(key, second, read)
    return siblings(node).get(key).context


def unread(node: InlineNode, key: bytes = KEY) -> str:
    """The context of a read that found nothing."""
    return context_text(node.engine.keyspaces.of(key).id, key, ())


def values(node: InlineNode, key: bytes = KEY) -> list[bytes]:
    return siblings(node).get(key).values


def waited_for(node: InlineNode) -> Frame | None:
    """The frame that a read of the key waits for."""
    node.engine.barrier = None
    values(node)
    return node.engine.barrier


def restart(node: InlineNode) -> None:
    node.settle()
    node.kill()
    node.open()


def nothing(_node: InlineNode) -> None:
    """The rows are in the frame that is being filled."""


moments: dict[str, Callable[[InlineNode], None]] = {
    "overlay": nothing,
    "memtable": InlineNode.settle,
    "replayed": restart,
    "LMDB": InlineNode.checkpoint,
}


@pytest.mark.parametrize("moment", moments.values(), ids=moments)
def test_two_writers_who_had_read_the_same_both_stay_until_one_has_read_both(
    node: InlineNode, moment: Callable[[InlineNode], None]
) -> None:
    context = conflict(node)
    moment(node)
    assert siblings(node).get(KEY) == (context, [b"b", b"a"])
    assert node.operations.get(KEY) == b"b"
    siblings(node).put(KEY, b"joined", context)
    moment(node)
    assert values(node) == [b"joined"]
    siblings(node).put(KEY, b"late", context)
    moment(node)
    assert values(node) == [b"late", b"joined"]


@pytest.mark.parametrize("moment", moments.values(), ids=moments)
def test_a_delete_removes_what_was_read_and_the_last_one_the_key(
    node: InlineNode, moment: Callable[[InlineNode], None]
) -> None:
    context = conflict(node)
    siblings(node).put(KEY, b"unread", unread(node))
    moment(node)
    assert siblings(node).delete(KEY, context) == 2
    moment(node)
    assert values(node) == [b"unread"]
    assert siblings(node).delete(KEY, context) == 0
    assert siblings(node).delete(KEY, siblings(node).get(KEY).context) == 1
    moment(node)
    assert (node.operations.exists([KEY]), node.operations.type_of(KEY)) == (0, "none")
    assert node.operations.keys_page(b"", b"s/", 10)[0] == []


def test_a_read_waits_for_the_values_that_it_shows(node: InlineNode) -> None:
    conflict(node)
    assert waited_for(node) is not None
    node.settle()
    assert waited_for(node) is None


def test_values_can_be_deleted_on_a_full_disk_and_none_be_put(node: InlineNode) -> None:
    context = conflict(node)
    node.engine.admission.disk_full = True
    with pytest.raises(DiskFull):
        siblings(node).put(KEY, b"c", context)
    assert siblings(node).delete(KEY, context) == 2


def test_a_put_without_a_context_replaces_what_this_node_holds(node: InlineNode) -> None:
    conflict(node)
    node.operations.set(KEY, b"all")
    assert values(node) == [b"all"]
    assert node.operations.delete([KEY]) == 1
    assert values(node) == []


@pytest.mark.parametrize("moment", moments.values(), ids=moments)
def test_every_read_shows_the_value_with_the_highest_stamp(
    node: InlineNode, moment: Callable[[InlineNode], None]
) -> None:
    conflict(node)
    moment(node)
    operations = node.operations
    assert operations.get_run([KEY, b"s/absent"]) == [b"b", None]
    entry = operations.get_entry(KEY)
    assert entry is not None and entry.value == b"b"
    assert [listed.string and listed.string.value for listed in operations.page(b"", b"s/", 10).listed] == [b"b"]
    assert operations.keys_page(b"", b"", 10)[0] == [KEY]
    assert (operations.exists([KEY]), operations.type_of(KEY)) == (1, "string")


@pytest.mark.parametrize("moment", moments.values(), ids=moments)
def test_each_value_expires_by_itself(node: InlineNode, moment: Callable[[InlineNode], None]) -> None:
    read = siblings(node).get(KEY).context
    siblings(node).put(KEY, b"stays", read)
    siblings(node).put(KEY, b"goes", read, expiry_ms=node.now_ms + 500_000)
    moment(node)
    assert values(node) == [b"goes", b"stays"]
    node.now_ms += 1_000_000
    assert values(node) == [b"stays"]
    assert node.operations.get(KEY) == b"stays"
    assert node.operations.expiry_of(KEY) == -1


def test_what_has_expired_is_purged_value_by_value(node: InlineNode) -> None:
    read = siblings(node).get(KEY).context
    siblings(node).put(KEY, b"stays", read)
    siblings(node).put(KEY, b"goes", read, expiry_ms=node.now_ms + 1_000)
    siblings(node).put(b"s/gone", b"goes", siblings(node).get(b"s/gone").context, expiry_ms=node.now_ms + 1_000)
    node.checkpoint()
    for _ in range(3):
        node.operations.set(b"s/other", b"")
        node.checkpoint()
    restart(node)
    row = node.stored_row(KEY, SUFFIX_SIBLINGS)
    assert isinstance(row, Siblings) and [sibling.value for sibling in row.values] == [b"stays"]
    assert node.stored_row(b"s/gone", SUFFIX_SIBLINGS) is None


def test_a_keyspace_gives_its_time_to_live_to_each_value(node: InlineNode) -> None:
    conflict(node, key=b"t/k")
    node.now_ms += 9_999
    assert values(node, b"t/k") == [b"b", b"a"]
    node.now_ms += 1
    assert values(node, b"t/k") == []


def test_verbs_that_work_on_one_value_refuse_several(node: InlineNode) -> None:
    context = conflict(node, b"1", b"2")
    operations, end = node.operations, node.now_ms + 1_000
    for call in (
        lambda: operations.append(KEY, b"x"),
        lambda: operations.set_range(KEY, 0, b"x"),
        lambda: operations.increment_float(KEY, b"1"),
        lambda: operations.increment(KEY, 1),
        lambda: operations.set_expiry(KEY, end),
        lambda: operations.rename(KEY, b"s/new"),
    ):
        with pytest.raises(ConcurrentValues):
            call()
    siblings(node).put(KEY, b"3", context)
    assert operations.append(KEY, b"0") == 2
    assert operations.set_expiry(KEY, end) and operations.expiry_of(KEY) == end
    assert operations.persist(KEY) and operations.expiry_of(KEY) == -1
    operations.rename(KEY, b"s/new")
    assert values(node, b"s/new") == [b"30"]
    with pytest.raises(ConcurrentValues):
        operations.increment(b"s/new", 1)


@pytest.mark.parametrize("moment", moments.values(), ids=moments)
def test_counters_sets_and_maps_work_as_elsewhere(node: InlineNode, moment: Callable[[InlineNode], None]) -> None:
    operations = node.operations
    assert operations.increment_run([b"s/n", b"s/n"], [1, 2]) == [1, 3]
    operations.sets.add(b"s/set", [b"x"])
    operations.maps.put(b"s/map", [(b"f", b"v")])
    moment(node)
    operations = node.operations
    assert (operations.get(b"s/n"), values(node, b"s/n")) == (b"3", [b"3"])
    assert operations.sets.contains(b"s/set", [b"x"]) == [True]
    assert operations.maps.get(b"s/map", [b"f"]) == [b"v"]
    with pytest.raises(WrongType):
        siblings(node).get(b"s/set")
    siblings(node).put(b"s/set", b"v", unread(node, b"s/set"))
    moment(node)
    assert node.engine.reads.types(node.engine.keyspaces.of(KEY), b"s/set", node.now_ms) == ("string",)
    assert node.operations.keys_page(b"", b"s/", 10)[0] == [b"s/map", b"s/n", b"s/set"]


def test_a_put_with_a_context_clears_the_other_types_and_the_expiry_as_set_does(node: InlineNode) -> None:
    operations = node.operations
    operations.sets.add(KEY, [b"x"])
    operations.set_expiry(KEY, node.now_ms + 1_000)
    node.checkpoint()
    siblings(node).put(KEY, b"new", unread(node))
    assert (operations.type_of(KEY), operations.expiry_of(KEY)) == ("string", -1)
    operations.sets.store(KEY, [b"y"])
    siblings(node).put(KEY, b"beside", unread(node))
    assert values(node) == [b"beside"]


def test_a_transaction_puts_one_value_of_a_key_and_sees_what_it_put(node: InlineNode) -> None:
    context = conflict(node)
    with node.operations.transaction():
        siblings(node).put(KEY, b"first", context)
        assert values(node) == [b"first"]
        siblings(node).put(KEY, b"second", context)
        assert values(node) == [b"second"]
    assert values(node) == [b"second"]
    restart(node)
    assert values(node) == [b"second"]
    with node.operations.transaction():
        node.operations.set(KEY, b"third")
        node.operations.delete([KEY])
    assert values(node) == []
    restart(node)
    assert values(node) == []


def test_a_context_that_was_read_in_a_transaction_names_no_value_that_is_put_after_it(node: InlineNode) -> None:
    with node.operations.transaction():
        node.operations.set(b"s/other", b"")
        node.operations.set(KEY, b"mine")
        read = siblings(node).get(KEY)
    assert read.values == [b"mine"]
    siblings(node).put(KEY, b"theirs", siblings(node).get(KEY).context)
    siblings(node).put(KEY, b"next", read.context)
    assert values(node) == [b"next", b"theirs"]


def test_a_batch_with_two_puts_of_a_key_leaves_the_last(node: InlineNode) -> None:
    node.operations.set_many([(KEY, b"1"), (b"s/z", b"2"), (KEY, b"3")])
    restart(node)
    assert (values(node), values(node, b"s/z")) == ([b"3"], [b"2"])


def test_there_is_a_bound_on_the_values_of_a_key_and_on_their_bytes(node: InlineNode) -> None:
    empty = siblings(node).get(KEY).context
    for number in range(SIBLINGS_MAX):
        siblings(node).put(KEY, b"%d" % number, empty)
    with pytest.raises(TooLarge):
        siblings(node).put(KEY, b"one more", empty)
    siblings(node).put(KEY, b"all", siblings(node).get(KEY).context)
    assert values(node) == [b"all"]
    siblings(node).put(b"s/large", bytes(60 << 10), siblings(node).get(b"s/large").context)
    siblings(node).put(b"s/large", bytes(60 << 10), unread(node, b"s/large"))
    with pytest.raises(TooLarge):
        siblings(node).put(b"s/large", bytes(60 << 10), unread(node, b"s/large"))
    assert len(values(node, b"s/large")) == 2


def test_what_is_no_context_of_the_key_is_refused(node: InlineNode) -> None:
    context = conflict(node)
    for bad in ("", "x", "not base64!", context[:-1], context[:-2] + "AA", context + "AAAA", "A" * 10_000):
        with pytest.raises(InvalidRequest):
            siblings(node).put(KEY, b"v", bad)
        with pytest.raises(InvalidRequest):
            siblings(node).delete(KEY, bad)
    for other in (b"s/other", b"t/k"):
        with pytest.raises(InvalidRequest, match="another key"):
            siblings(node).put(other, b"v", context)
    assert values(node) == [b"b", b"a"]


def test_a_context_of_values_that_this_node_has_not_is_no_harm(node: InlineNode) -> None:
    conflict(node)
    elsewhere = context_text(node.engine.keyspaces.of(KEY).id, KEY, ((node_actor(bytes(16), bytes(8)), 9),))
    siblings(node).put(KEY, b"c", elsewhere)
    assert values(node) == [b"c", b"b", b"a"]


def test_a_keyspace_that_keeps_the_last_value_refuses_contexts(node: InlineNode) -> None:
    for call in (
        lambda: siblings(node).get(b"k"),
        lambda: siblings(node).put(b"k", b"v", "AAAA"),
        lambda: siblings(node).delete(b"k", "AAAA"),
    ):
        with pytest.raises(Denied):
            call()
