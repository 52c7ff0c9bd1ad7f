"""Sets and maps through every layer: reads are what a plain model holds, counts are what a recount finds, at every moment."""

import copy
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgekv.crdt import counter
from edgekv.crdt.company import observed_parts
from edgekv.crdt.counter import is_inert
from edgekv.crdt.elements import Element
from edgekv.crdt.operation import (
    ADD_ELEMENTS,
    ADD_FIELD,
    CLEAR_MAP,
    CLEAR_SET,
    DELETE_FIELDS,
    EXPIRE,
    PUT,
    PUT_FIELDS,
    REMOVE_ELEMENTS,
    RESET_FIELDS,
    Operation,
    Row,
    encode_number,
    validate_change,
)
from edgekv.engine.collections import RANDOM_LOOKED_AT_MAX, Collections
from edgekv.engine.keyspaces import Keyspace
from edgekv.ids import KeyspaceId
from edgekv.limits import GENERATION_AGE_MS, ROW_OVERHEAD_BYTES
from edgekv.store import applier_process, collection_rows
from edgekv.store.collection_rows import CollectionRows, StoredRows
from edgekv.store.memtable import Memtable
from edgekv.store.walk import Walk
from tests.unit.node.inline_node import InlineNode

DAY_MS = 86_400_000
LONG = b"l" * 480


class Sets:
    """What verbs will do: changes made of what is read."""

    def __init__(self, node: InlineNode) -> None:
        self._node = node

    @property
    def collections(self) -> Collections:
        return self._node.engine.collections

    def keyspace(self, key: bytes) -> Keyspace:
        return self._node.engine.keyspaces.of(key)

    @property
    def now(self) -> int:
        return self._node.engine.ttl_now_ms()

    def change(self, key: bytes, *operations: Operation) -> None:
        """One change; the first write to a key that is gone clears what is left of it."""
        first: list[Operation] = []
        if self.collections.gone(self.keyspace(key), key, self.now):
            first = [*self.clear_operations(key), (EXPIRE, key, 0)]
        whole = [*first, *operations]
        if whole:
            validate_change(whole, self._node.engine.actor)
            self._node.engine.commit.change(self.keyspace(key), whole)

    def clear_operations(self, key: bytes) -> list[Operation]:
        """What clears all that is observed of the key's set and map, also of what an expiry hides."""
        keyspace, operations = self.keyspace(key), list[Operation]()
        elements, fields = self.collections.counts(keyspace, key)
        if elements:
            operations.append((CLEAR_SET, key, [list(dot) for dot in self.collections.observed(keyspace)]))
        if fields:
            operations.append((CLEAR_MAP, key))
            counters = self.collections.counter_fields(keyspace, key)
            resets = [[field, observed_parts(parts)] for field, parts in counters.items()]
            operations += [(RESET_FIELDS, key, resets)] if resets else []
        return operations

    def add(self, key: bytes, *members: bytes) -> None:
        self.change(key, (ADD_ELEMENTS, key, list(members)))

    def remove(self, key: bytes, *members: bytes) -> None:
        found = zip(members, self.collections.elements(self.keyspace(key), key, members), strict=True)
        named = [[member, [list(dot) for dot in element.dots]] for member, element in found if element is not None]
        if named and not self.collections.gone(self.keyspace(key), key, self.now):
            self.change(key, (REMOVE_ELEMENTS, key, named))

    def delete(self, key: bytes) -> None:
        operations = self.clear_operations(key)
        expiry = self.collections.key_state(self.keyspace(key), key)
        if expiry.expiry is not None and expiry.expiry.value is not None:
            operations.append((EXPIRE, key, 0))
        if operations:
            self._node.engine.commit.change(self.keyspace(key), operations)

    def put(self, key: bytes, **fields: int) -> None:
        self.put_fields(key, {name.encode(): value for name, value in fields.items()})

    def put_fields(self, key: bytes, fields: dict[bytes, int]) -> None:
        gone = self.collections.gone(self.keyspace(key), key, self.now)
        resets = [] if gone else self._resets(key, list(fields))
        self.change(key, (PUT_FIELDS, key, [[field, b"%d" % value] for field, value in fields.items()]), *resets)

    def delete_fields(self, key: bytes, *fields: bytes) -> None:
        if self.collections.gone(self.keyspace(key), key, self.now):
            return
        states = {field: self.collections.field(self.keyspace(key), key, field) for field in fields}
        cells = [field for field, state in states.items() if state.visible_register(0) is not None]
        operations: list[Operation] = [(DELETE_FIELDS, key, cells)] if cells else []
        self.change(key, *operations, *self._resets(key, list(fields)))

    def increment(self, key: bytes, field: bytes, delta: int) -> None:
        keyspace = self.keyspace(key)
        actor = self._node.engine.actor
        gone = self.collections.gone(keyspace, key, self.now)
        before = None if gone else self.collections.field(keyspace, key, field).parts.get(actor)
        made_anew = before is None or is_inert(before)
        part = counter.increment(before, delta, keyspace.seq + 1)
        totals = encode_number(part.total), part.base_seq, encode_number(part.base_total)
        # A clear in the same change resets the parts that it sees, so the own one of this very field is left to the new baseline.
        add: Operation = (ADD_FIELD, key, field, *totals, int(made_anew))
        if not gone:
            self.change(key, add)
            return
        clears = [_without(operation, field, actor) for operation in self.clear_operations(key)]
        self._node.engine.commit.change(keyspace, [*filter(None, clears), (EXPIRE, key, 0), add])

    def _resets(self, key: bytes, fields: list[bytes]) -> list[Operation]:
        resets: list[object] = []
        for field in fields:
            parts = self.collections.field(self.keyspace(key), key, field).live_parts()
            if parts:
                resets.append([field, [[actor, part.seq, encode_number(part.total)] for actor, part in parts.items()]])
        return [(RESET_FIELDS, key, resets)] if resets else []

    # What is read.

    def members(self, key: bytes, limit: int = 3) -> list[bytes]:
        found: list[bytes] = []
        start: bytes | None = b""
        while start is not None:
            page, start = self.collections.members_page(self.keyspace(key), key, start, limit, 1 << 20)
            assert len(page) <= limit
            found += page
        return found

    def fields(self, key: bytes, limit: int = 3) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        start: bytes | None = b""
        while start is not None:
            page, start = self.collections.fields_page(self.keyspace(key), key, start, limit, 1 << 20)
            assert len(page) <= limit
            found += page
        return found

    def stored(self, key: bytes) -> CollectionRows:
        """LMDB alone."""
        store = self._node._store
        keyspace = self.keyspace(key)
        return CollectionRows(StoredRows(store, checked=True), KeyspaceId(keyspace.id), key, [], keyspace.vector)

    def counts(self, key: bytes) -> tuple[int, int]:
        keyspace = self.keyspace(key)
        return self.collections.set_count(keyspace, key), self.collections.map_count(keyspace, key)


def _without(operation: Operation, field: bytes, actor: bytes) -> Operation | None:
    if operation[0] != RESET_FIELDS:
        return operation
    resets = [[name, [part for part in parts if (name, part[0]) != (field, actor)]] for name, parts in operation[2]]
    left = [reset for reset in resets if reset[1]]
    return (RESET_FIELDS, operation[1], left) if left else None


class Model:
    """What a user believes to have."""

    def __init__(self) -> None:
        self.sets: dict[bytes, set[bytes]] = {}
        self.maps: dict[bytes, dict[bytes, int]] = {}
        self.ends: dict[bytes, int] = {}

    def touch(self, key: bytes, now: int) -> None:
        if self.ends.get(key, now + 1) <= now:
            self.drop(key)

    def drop(self, key: bytes) -> None:
        self.sets.pop(key, None)
        self.maps.pop(key, None)
        self.ends.pop(key, None)


KEYS = st.sampled_from([b"k", b"k\x00", b"other", LONG + b"1", LONG + b"2"])
MEMBERS = st.lists(
    st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"b", LONG + b"1", LONG + b"2"]), min_size=1, max_size=4, unique=True
)
FIELD = st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"\x00\xff", LONG + b"f"])
NUMBER = st.integers(-5, 5)


class CollectionsAgainstModel(RuleBasedStateMachine):
    """Rules are what clients do and what happens to a node; tiny transactions make every intermediate state come up."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(applier_process, "APPLIER_INLINE_ROWS", 3)
        self.patch.setattr(collection_rows, "WALK_ROWS", 2)
        self.place = Path(tempfile.mkdtemp())
        self.node = InlineNode(self.place / "node")
        self.sets = Sets(self.node)
        self.model = Model()
        self.history: list[tuple[int, Model]] = [(0, Model())]

    def teardown(self) -> None:
        self.node.kill()
        shutil.rmtree(self.place)
        self.patch.undo()

    def changed(self) -> None:
        barrier = self.node.engine.barrier
        if barrier is not None:
            self.history.append((barrier.number, copy.deepcopy(self.model)))

    # Clients.

    @rule(key=KEYS, members=MEMBERS)
    def add(self, key: bytes, members: list[bytes]) -> None:
        self.model.touch(key, self.sets.now)
        self.model.sets.setdefault(key, set()).update(members)
        self.sets.add(key, *members)
        self.changed()

    @rule(key=KEYS, members=MEMBERS)
    def remove(self, key: bytes, members: list[bytes]) -> None:
        if self.model.ends.get(key, self.sets.now + 1) > self.sets.now:
            self.model.sets.get(key, set()).difference_update(members)
        self.sets.remove(key, *members)
        self.changed()

    @rule(key=KEYS, field=FIELD, other=FIELD, value=NUMBER)
    def put(self, key: bytes, field: bytes, other: bytes, value: int) -> None:
        self.model.touch(key, self.sets.now)
        fields = {field: value, other: value}
        self.model.maps.setdefault(key, {}).update(fields)
        self.sets.put_fields(key, fields)
        self.changed()

    @rule(key=KEYS, field=FIELD, delta=NUMBER)
    def increment(self, key: bytes, field: bytes, delta: int) -> None:
        self.model.touch(key, self.sets.now)
        fields = self.model.maps.setdefault(key, {})
        fields[field] = fields.get(field, 0) + delta
        self.sets.increment(key, field, delta)
        self.changed()

    @rule(key=KEYS, field=FIELD, other=FIELD)
    def delete_fields(self, key: bytes, field: bytes, other: bytes) -> None:
        if self.model.ends.get(key, self.sets.now + 1) > self.sets.now:
            for name in (field, other):
                self.model.maps.get(key, {}).pop(name, None)
        self.sets.delete_fields(key, *dict.fromkeys((field, other)))
        self.changed()

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        self.model.drop(key)
        self.sets.delete(key)
        self.changed()

    @rule(key=KEYS, members=MEMBERS)
    def store(self, key: bytes, members: list[bytes]) -> None:
        """Clears and adds in one change."""
        self.model.drop(key)
        self.model.sets[key] = set(members)
        clears = self.sets.clear_operations(key)
        self.node.engine.commit.change(
            self.sets.keyspace(key), [(ADD_ELEMENTS, key, members), *clears, (EXPIRE, key, 0)]
        )
        self.changed()

    @rule(key=KEYS, after_ms=st.sampled_from([1_000, 100_000]))
    def expire(self, key: bytes, after_ms: int) -> None:
        self.model.touch(key, self.sets.now)
        self.model.ends[key] = self.sets.now + after_ms
        self.sets.change(key)
        gone = self.sets.collections.gone(self.sets.keyspace(key), key, self.sets.now)
        assert not gone
        self.node.engine.commit.change(self.sets.keyspace(key), [(EXPIRE, key, self.model.ends[key])])
        self.changed()

    # What happens to a node.

    @rule()
    def flush(self) -> None:
        self.node.engine.kick()
        self.node.flush()

    @rule(steps=st.integers(1, 5))
    def apply(self, steps: int) -> None:
        for _ in range(steps):
            self.node.apply()

    @rule()
    def apply_unheard(self) -> None:
        """A commit that is not reported yet, while the reader is renewed: LMDB has a part of what a layer holds."""
        self.node._applier.step()
        self.node._store.renew()

    @rule(passing_ms=st.sampled_from([100, GENERATION_AGE_MS, 61_000]))
    def tick(self, passing_ms: int) -> None:
        self.node.now_ms += passing_ms
        self.node.tick()

    @rule()
    def checkpoint(self) -> None:
        self.node.checkpoint()
        for _ in range(3):
            self.node.checkpoint_at(self.node.now_ms + 61_000)

    @rule()
    def drop_cache(self) -> None:
        self.node.engine.memtable.drop_cache()

    @rule()
    def kill(self) -> None:
        written = self.node.frames_written
        self.node.kill()
        durable = [model for frame, model in self.history if frame <= written]
        self.model = copy.deepcopy(durable[-1])
        self.node.open()
        self.history = [(0, copy.deepcopy(self.model))]

    @rule()
    def restart(self) -> None:
        self.node.stop()
        self.node.open()
        self.history = [(0, copy.deepcopy(self.model))]

    # What must hold.

    @invariant()
    def what_is_read_is_what_the_model_holds(self) -> None:
        now, sets = self.sets.now, self.sets
        shown: dict[bytes, tuple[str, ...]] = {}
        for key in (b"k", b"k\x00", b"other", LONG + b"1", LONG + b"2"):
            keyspace = sets.keyspace(key)
            stored = sets.stored(key)
            assert (stored.header.elements, stored.header.fields) == (stored.count_elements(), stored.count_fields())
            if self.model.ends.get(key, now + 1) <= now:
                assert sets.collections.gone(keyspace, key, now) or sets.counts(key) == (0, 0)
                assert self.node.engine.reads.types(keyspace, key, now) == ()
                continue
            members, fields = self.model.sets.get(key, set()), self.model.maps.get(key, {})
            if sets.collections.gone(keyspace, key, now):
                assert not members and not fields
                continue
            assert sets.counts(key) == (len(members), len(fields))
            assert tuple(self.node.engine.reads.recount(keyspace, key)) == (len(members), len(fields))
            assert sets.members(key) == sorted(members)
            assert sets.fields(key) == [(field, b"%d" % fields[field]) for field in sorted(fields)]
            found = sets.collections.elements(keyspace, key, [b"", b"a", b"b", b"none"])
            assert [element is not None for element in found] == [
                name in members for name in (b"", b"a", b"b", b"none")
            ]
            for field in (b"", b"a", b"\x00"):
                assert sets.collections.field(keyspace, key, field).value(now) in (
                    [fields[field], b"%d" % fields[field]] if field in fields else [None]
                )
            assert sorted(sets.collections.random_members(keyspace, key, 7, 100)) == sorted(members)
            types = (("set",) if members else ()) + (("hash",) if fields else ())
            assert self.node.engine.reads.types(keyspace, key, now) == types
            if types:
                shown[key] = types
        found_keys = self.node.engine.reads.range(b"", None, 100).found
        assert [item.key for item in found_keys] == sorted(shown)

    @invariant()
    def a_clear_would_name_only_what_was_applied_here(self) -> None:
        keyspace = self.sets.keyspace(b"k")
        for actor, seq in self.sets.collections.observed(keyspace):
            assert actor == self.node.engine.actor
            assert seq == keyspace.seq

    @invariant()
    def memory_is_accounted_for(self) -> None:
        for layer in self.node.engine.memtable.layers:
            assert layer.collection_rows == sum(collection.row_count for collection in layer.collections.values())


TestCollectionsAgainstModel = CollectionsAgainstModel.TestCase
TestCollectionsAgainstModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    made = InlineNode(tmp_path / "node")
    yield made
    made.kill()


@pytest.fixture
def sets(node: InlineNode) -> Sets:
    return Sets(node)


LARGE = [b"member:%06d" % n for n in range(20_000)]


def _store_large(node: InlineNode, sets: Sets) -> None:
    """A large set and a large map in LMDB, nothing above it."""
    for first in range(0, len(LARGE), 1_000):
        sets.add(b"large", *LARGE[first : first + 1_000])
        sets.put_fields(b"large", dict.fromkeys(LARGE[first : first + 1_000], 1))
        node.settle()
    node.checkpoint()
    node.checkpoint()
    node.engine.memtable.drop_cache()
    assert all(layer.empty for layer in node.engine.memtable.layers)


@contextmanager
def _rows_read(node: InlineNode) -> Iterator[list[bytes]]:
    """Every row that LMDB is asked for or walked over."""
    store, asked = node._store, list[bytes]()
    get, ranged, seek, go_on = store.get, store.range, Walk.seek, Walk.next

    def seen_get(lmdb_key: bytes) -> bytes | None:
        asked.append(lmdb_key)
        return get(lmdb_key)

    def seen_range(low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        asked.append(low)
        for lmdb_key, data in ranged(low, high):
            asked.append(lmdb_key)
            yield lmdb_key, data

    def seen_seek(walk: Walk, lmdb_key: bytes) -> bool:
        asked.append(lmdb_key)
        return seek(walk, lmdb_key)

    def seen_next(walk: Walk) -> bool:
        asked.append(b"")
        return go_on(walk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "get", seen_get)
        patch.setattr(store, "range", seen_range)
        patch.setattr(Walk, "seek", seen_seek)
        patch.setattr(Walk, "next", seen_next)
        yield asked


def test_one_more_of_a_large_set_or_map_takes_a_few_point_reads(node: InlineNode, sets: Sets) -> None:
    _store_large(node, sets)
    with _rows_read(node) as asked:
        sets.add(b"large", b"one more", LARGE[7])
        sets.remove(b"large", LARGE[8])
        sets.put(b"large", one_more=1)
        sets.increment(b"large", b"a counter", 1)
    assert len(asked) < 50
    assert sets.counts(b"large") == (len(LARGE), len(LARGE) + 2)
    with _rows_read(node) as asked:
        assert sets.counts(b"large") == (len(LARGE), len(LARGE) + 2)
        assert sets.collections.elements(sets.keyspace(b"large"), b"large", [LARGE[8]]) == [None]
    assert asked == []  # the overlay knows


def test_keys_behind_a_large_set_are_found_without_walking_it(node: InlineNode, sets: Sets) -> None:
    _store_large(node, sets)
    node.operations.set(b"largest", b"v")
    node.engine.commit.change(sets.keyspace(b"large"), [(PUT, b"large", b"a string too", 0)])  # as another node might
    with _rows_read(node) as asked:
        found = node.engine.reads.range(b"", None, 100).found
        state = node.engine.reads.state(sets.keyspace(b"large"), b"large")
    assert [(item.key, item.elements, item.fields) for item in found] == [
        (b"large", len(LARGE), len(LARGE)),
        (b"largest", 0, 0),
    ]
    assert state.live(sets.now)
    assert len(asked) < 50


def test_a_clear_of_a_large_set_is_one_small_change_and_what_is_added_after_it_stays(
    node: InlineNode, sets: Sets
) -> None:
    _store_large(node, sets)
    before = node.engine.commit.filling.layer.size_bytes
    with _rows_read(node) as asked:
        sets.delete(b"large")
        assert sets.counts(b"large") == (0, 0)
        assert sets.members(b"large") == []
    assert len(asked) < 20
    assert node.engine.commit.filling.layer.size_bytes - before < 2_000
    assert node.engine.reads.types(sets.keyspace(b"large"), b"large", sets.now) == ()
    sets.add(b"large", LARGE[3])
    for _ in range(3):
        node.checkpoint()
        assert sets.members(b"large") == [LARGE[3]]
        assert sets.counts(b"large") == (1, 0)
    assert len(list(node._store.range(b"", None))) == 2  # the element and the count


def test_a_page_ends_at_its_bytes_with_at_least_one_element(node: InlineNode, sets: Sets) -> None:
    sets.add(b"k", b"a" * 100, b"b" * 100, b"c" * 100)
    sets.put_fields(b"k", {b"f" * 100: 1, b"g" * 100: 2})
    keyspace = sets.keyspace(b"k")
    assert sets.collections.members_page(keyspace, b"k", b"", 10, 150) == ([b"a" * 100], b"b" * 100)
    assert sets.collections.members_page(keyspace, b"k", b"b", 10, 10) == ([b"b" * 100], b"c" * 100)
    assert sets.collections.fields_page(keyspace, b"k", b"", 10, 10) == ([(b"f" * 100, b"1")], b"g" * 100)
    assert sets.collections.fields_page(keyspace, b"k", b"g", 10, 10) == ([(b"g" * 100, b"2")], None)


def test_a_page_gives_up_among_elements_that_are_cleared_and_says_where_to_go_on(node: InlineNode, sets: Sets) -> None:
    _store_large(node, sets)
    sets.delete(b"large")
    sets.add(b"large", LARGE[-1])
    with _rows_read(node) as asked:
        found, start = sets.collections.members_page(sets.keyspace(b"large"), b"large", b"", 10, 1 << 20)
    assert found == []
    assert start is not None
    assert len(asked) < 5_000
    assert sets.members(b"large") == [LARGE[-1]]


def test_random_members_of_a_large_set_are_different_ones_from_all_over_it(node: InlineNode, sets: Sets) -> None:
    _store_large(node, sets)
    keyspace = sets.keyspace(b"large")
    with _rows_read(node) as asked:
        found = sets.collections.random_members(keyspace, b"large", 42, 50)
    assert len(set(found)) == 50
    assert set(found) <= set(LARGE)
    assert len({name[:9] for name in found}) >= 2
    assert len(asked) < 50 * 200
    positions = sorted(int(name[7:]) for name in found)
    assert positions[0] < len(LARGE) // 4
    assert positions[-1] > 3 * len(LARGE) // 4


def test_every_element_of_a_small_set_has_the_same_chance(node: InlineNode, sets: Sets) -> None:
    members = [b"%d" % n for n in range(10)]
    sets.add(b"k", *members)
    drawn = Counter(sets.collections.random_members(sets.keyspace(b"k"), b"k", dice, 1)[0] for dice in range(5_000))
    assert set(drawn) == set(members)
    assert max(drawn.values()) < 600 and min(drawn.values()) > 400


def test_a_reply_waits_for_the_frame_that_holds_what_it_read(node: InlineNode, sets: Sets) -> None:
    sets.add(b"k", b"old")
    sets.put(b"k", f=1)
    node.settle()
    engine, keyspace = node.engine, sets.keyspace(b"k")

    def barrier_of(read: Callable[[], object]) -> bool:
        engine.barrier = None
        read()
        return engine.barrier is not None

    assert not barrier_of(lambda: sets.counts(b"k"))
    sets.add(b"k", b"new")
    assert barrier_of(lambda: sets.collections.elements(keyspace, b"k", [b"new"]))
    assert not barrier_of(lambda: sets.collections.elements(keyspace, b"k", [b"old"]))
    assert barrier_of(lambda: sets.collections.set_count(keyspace, b"k"))
    assert barrier_of(lambda: sets.members(b"k"))
    assert not barrier_of(lambda: sets.collections.field(keyspace, b"k", b"f"))
    sets.increment(b"k", b"n", 1)
    assert barrier_of(lambda: sets.collections.field(keyspace, b"k", b"n"))
    sets.remove(b"k", b"new")
    assert barrier_of(lambda: sets.collections.elements(keyspace, b"k", [b"new"]))
    sets.delete(b"k")
    assert barrier_of(lambda: sets.collections.elements(keyspace, b"k", [b"old"]))
    assert barrier_of(lambda: sets.collections.field(keyspace, b"k", b"f"))
    sets.change(b"k", (EXPIRE, b"k", sets.now - 1))
    assert barrier_of(lambda: sets.collections.gone(keyspace, b"k", sets.now))
    node.settle()
    assert not barrier_of(lambda: sets.collections.elements(keyspace, b"k", [b"old"]))


def test_what_an_incarnation_added_and_the_next_one_cleared_stays_gone(node: InlineNode, sets: Sets) -> None:
    """Two actors: their dots stand side by side in a row, and a row that is written after the clear must not keep the covered one."""
    sets.add(b"k", b"e", b"other")
    node.stop()
    node.look_restored()
    node.open()
    sets.delete(b"k")
    sets.add(b"k", b"e")
    node.settle()
    row = node.engine.collections.row(sets.keyspace(b"k"), b"k", b"\x04e")
    assert isinstance(row, Element)
    assert [actor for actor, _ in row.dots] == [node.engine.actor]
    assert {actor for actor, _ in sets.collections.observed(sets.keyspace(b"k"))} > {node.engine.actor}
    sets.remove(b"k", b"e")
    for _ in range(2):
        node.checkpoint()
        assert sets.members(b"k") == []
        assert sets.counts(b"k") == (0, 0)
    assert list(node._store.range(b"", None)) == []


def test_a_field_of_several_actors_is_the_sum_of_its_parts(node: InlineNode, sets: Sets) -> None:
    for n in range(3):
        sets.increment(b"k", b"f", 10**n)
        sets.increment(b"k", b"g", 1)
        node.checkpoint()
        node.engine.memtable.drop_cache()
        node.stop()
        node.look_restored()
        node.open()
    assert sets.fields(b"k", limit=1) == [(b"f", b"111"), (b"g", b"3")]
    assert sets.counts(b"k") == (0, 2)
    sets.delete(b"k")
    assert sets.counts(b"k") == (0, 0)
    sets.increment(b"k", b"f", 5)
    assert sets.fields(b"k") == [(b"f", b"5")]


def test_a_set_that_was_purged_stays_gone_when_the_report_is_lost(node: InlineNode, sets: Sets) -> None:
    """The layers hold one of its elements; they were given its expiry beside it."""
    sets.add(b"k", b"a", b"b")
    sets.change(b"k", (EXPIRE, b"k", node.now_ms + 100_000))
    node.checkpoint_at(node.now_ms + 10_000)
    node.engine.memtable.drop_cache()
    sets.add(b"k", b"c")
    sets.put(b"k", f=1)
    node.checkpoint_at(node.now_ms + 10_000)
    assert sets.counts(b"k") == (3, 1)
    node.now_ms += 90_000
    for _ in range(10):
        node.now_ms += 61_000
        node.tick()
        node.settle()
        progress = node._applier.step()
        if progress is not None:
            node.engine.applied(progress._replace(cleared=False))
    assert list(node._store.range(b"", None)) == []
    keyspace = sets.keyspace(b"k")
    assert node.engine.memtable.cached
    assert sets.counts(b"k") == (3, 1)
    assert sets.collections.gone(keyspace, b"k", sets.now)
    assert node.engine.reads.range(b"", None, 10).found == []
    sets.add(b"k", b"d")
    assert sets.members(b"k") == [b"d"]
    assert sets.counts(b"k") == (1, 0)


def test_a_large_layer_that_was_given_up_is_freed_in_steps(tmp_path: Path) -> None:
    node = InlineNode(tmp_path / "node", memory_bytes=64 << 20)
    sets, layer = Sets(node), node.engine.memtable.active
    for first in range(0, 5_000, 1_000):
        sets.add(b"k", *LARGE[first : first + 1_000])
        sets.put_fields(b"k", dict.fromkeys(LARGE[first : first + 1_000], 1))
        node.settle()
    assert sets.members(b"k", 1_000) == LARGE[:5_000]
    assert layer.collection_rows == 10_000
    assert layer.size_bytes > 10_000 * ROW_OVERHEAD_BYTES
    memtable = Memtable()
    memtable._garbage.append(layer)
    steps = 0
    while memtable._garbage:
        before = sum(collection.row_count for collection in layer.collections.values())
        memtable.sweep(100)
        assert before - sum(collection.row_count for collection in layer.collections.values()) <= 100
        steps += 1
    assert steps >= 100
    node.kill()


def test_many_changes_of_a_set_with_a_long_key_fit_into_the_segments(node: InlineNode, sets: Sets) -> None:
    key = b"k" * 4096
    members = [b"%d" % n for n in range(150)]
    for member in members:
        sets.add(key, member)
    for member in members[:-1]:
        sets.remove(key, member)
    node.settle()
    assert sets.members(key) == members[-1:]


@pytest.mark.parametrize("allowed", range(11))
def test_a_change_that_cannot_read_a_row_is_not_made(node: InlineNode, sets: Sets, allowed: int) -> None:
    """Whichever read fails: no row of it is seen, and the log does not have it."""
    sets.add(b"k", b"a", b"b")
    sets.put(b"k", f=1)
    node.checkpoint()
    node.engine.memtable.drop_cache()
    sets.add(b"k", b"own")
    keyspace, store, get, left = sets.keyspace(b"k"), node._store, node._store.get, [allowed]
    change: list[Operation] = [
        (ADD_ELEMENTS, b"k", [b"c", b"d"]),
        (PUT_FIELDS, b"k", [[b"f", b"2"], [b"g", b"3"]]),
        (ADD_ELEMENTS, b"new", [b"x"]),
    ]

    def failing(lmdb_key: bytes) -> bytes | None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("cannot be read")
        return get(lmdb_key)

    before = keyspace.seq, keyspace.hlc
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "get", failing)
        with pytest.raises(OSError, match="cannot be read"):
            node.engine.commit.change(keyspace, change)
        left[0] = min(allowed, 1)
        with pytest.raises(OSError, match="cannot be read"):
            node.engine.runs.add_elements(keyspace, b"k", [b"e1", b"e2"], new=False)
        left[0] = min(allowed, 1)
        with pytest.raises(OSError, match="cannot be read"):
            node.engine.runs.put_fields(keyspace, b"k", [b"e1", b"e2"], [b"", b""], new=False)
    assert (keyspace.seq, keyspace.hlc) == before
    for _ in range(2):
        assert sets.counts(b"k") == (3, 1) and sets.counts(b"new") == (0, 0)
        assert sets.members(b"k") == [b"a", b"b", b"own"]
        assert sets.fields(b"k") == [(b"f", b"1")]
        node.stop()
        node.open()
    sets.add(b"k", b"after")
    node.checkpoint()
    assert sets.counts(b"k") == (4, 1)


def test_one_element_behind_many_removed_ones_is_drawn_without_a_walk_over_all(node: InlineNode, sets: Sets) -> None:
    for first in range(0, len(LARGE), 1_000):
        sets.add(b"k", *LARGE[first : first + 1_000])
        node.settle()
    for first in range(0, len(LARGE) - 1, 1_000):
        sets.remove(b"k", *LARGE[first : min(first + 1_000, len(LARGE) - 1)])
        node.settle()
    looked, merged = [0], CollectionRows.lowest

    def lowest(rows: CollectionRows, low: bytes, high: bytes, wanted: int) -> list[tuple[bytes, Row]]:
        found = merged(rows, low, high, wanted)
        looked[0] += len(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CollectionRows, "lowest", lowest)
        for dice in range(5):
            looked[0] = 0
            assert sets.collections.random_members(sets.keyspace(b"k"), b"k", dice, 1) == LARGE[-1:]
            assert looked[0] < 2 * RANDOM_LOOKED_AT_MAX


@pytest.mark.parametrize("stored", [False, True])
def test_a_set_of_which_most_was_removed_never_looks_empty(node: InlineNode, sets: Sets, *, stored: bool) -> None:
    members = [b"%c%05d" % (block, n) for block in range(9) for n in range(2_100 if block < 8 else 1_100)]
    for first in range(0, len(members), 1_000):
        sets.add(b"k", *members[first : first + 1_000])
        node.settle()
    if stored:
        node.checkpoint()
        node.engine.memtable.drop_cache()
    for first in range(0, 8 * 2_100, 700):
        sets.remove(b"k", *members[first : first + 700])
        node.settle()
    sets.remove(b"k", members[-1])
    keyspace, random = sets.keyspace(b"k"), Random(1)
    for _ in range(40):
        found = sets.collections.random_members(keyspace, b"k", random.getrandbits(64), 1)
        assert len(found) == 1 and found[0] >= b"\x08"


@pytest.mark.parametrize("stored", [False, True])
def test_the_fields_of_a_map_of_counters_are_drawn_from_all_over_it(
    node: InlineNode, sets: Sets, *, stored: bool
) -> None:
    fields = [b"f%06d" % n for n in range(2_000)]
    for n, field in enumerate(fields):
        sets.increment(b"k", field, 1)
        if n % 100 == 0:
            node.settle()
    sets.put_fields(b"k", {b"f000500\x00": 1, b"f001500\x00": 1})
    node.settle()
    if stored:
        node.checkpoint()
        node.engine.memtable.drop_cache()
    keyspace, random = sets.keyspace(b"k"), Random(1)
    drawn = {
        name for _ in range(100) for name in sets.collections.random_fields(keyspace, b"k", random.getrandbits(64), 1)
    }
    assert len(drawn) > 70
    assert min(drawn) < fields[300] and max(drawn) > fields[-300]
    assert len(set(sets.collections.random_fields(keyspace, b"k", 5, 50))) == 50


def test_removed_elements_leave_the_cache_and_what_comes_back_is_there(node: InlineNode, sets: Sets) -> None:
    members = LARGE[:500]
    sets.add(b"k", *members)
    node.checkpoint()
    assert sets.members(b"k", 100) == members  # sorted once
    sets.remove(b"k", *members[:-1])
    sets.add(b"k", members[3])
    node.checkpoint()
    node.checkpoint()
    memtable = node.engine.memtable
    memtable.trim(memtable.memory_bytes - memtable.cached[0].size_bytes)  # the older layers go
    (cache,) = memtable.cached
    assert cache.collections[b"k"].row_count == cache.collection_rows == 1
    assert 0 < cache.payload_bytes < 100_000
    assert sets.members(b"k") == [members[3], members[-1]]
    sets.add(b"k", *members[:3])
    for _ in range(3):
        assert sets.members(b"k") == [*members[:4], members[-1]]
        assert sets.counts(b"k") == (5, 0)
        node.checkpoint()


def test_a_header_without_rows_counts(node: InlineNode, sets: Sets) -> None:
    """A clear that is not durable, above a set that is: the header of the newest layer decides although it has no rows."""
    sets.add(b"k", b"a", b"b")
    node.engine.kick()
    sets.delete(b"k")
    header = node.engine.commit.filling.layer.collections[b"k"]
    assert header.row_count == 0
    assert bool(header) is True
    assert sets.counts(b"k") == (0, 0)
    assert sets.collections.set_count(sets.keyspace(b"k"), b"k") == 0
