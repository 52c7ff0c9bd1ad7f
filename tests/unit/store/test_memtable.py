"""The memtable: what a layer holds and costs, what its sorted keys are, and when a generation leaves the read path."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.operation import SUFFIX_EXPIRY, SUFFIX_REGISTER, Row, counter_suffix, field_part_suffix
from edgekv.crdt.register import Cell
from edgekv.ids import Actor, Lsn
from edgekv.limits import CACHED_GENERATIONS_MAX, ROW_OVERHEAD_BYTES
from edgekv.store import sorted_keys
from edgekv.store.collection import Collection
from edgekv.store.memtable import Layer, Memtable, rows_in_layers

OWN = Actor(b"a" * 25)
OTHER = Actor(b"b" * 25)
PART = Part(1, 1, 0, 0, None, fresh=True)
COUNTER = counter_suffix(OWN)


def layer_of(**registers: bytes) -> Layer:
    layer = Layer()
    for key, value in registers.items():
        layer.put_register(key.encode(), (value, 1))
    return layer


def filled(number: int) -> Memtable:
    """A memtable whose active layer holds one key named by ``number``."""
    table = Memtable(memory_bytes=10_000)
    table.active.put_register(b"%d" % number, (b"v", 1))
    return table


# Layers.


def test_a_run_of_plain_sets_takes_consecutive_stamps_and_the_last_of_a_key_wins() -> None:
    layer = Layer()
    layer.put_plain_run([b"a", b"b", b"a"], [b"1", b"2", b"3"], 10, 6)
    assert layer.registers == {b"a": (b"3", 12), b"b": (b"2", 11)}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"k", b"l", b"m"]),
            st.sampled_from([SUFFIX_REGISTER, SUFFIX_EXPIRY, COUNTER]),
            st.booleans(),
            st.integers(0, 3),
        ),
        max_size=20,
    )
)
def test_layers_merged_hold_and_cost_what_one_layer_does(writes: list[tuple[bytes, bytes, bool, int]]) -> None:
    whole, older, newer = Layer(), Layer(), Layer()
    half = len(writes) // 2
    for i, (key, suffix, plain, size) in enumerate(writes):
        for layer in (whole, older if i < half else newer):
            if plain and suffix == SUFFIX_REGISTER:
                layer.put_plain_run([key], [b"v" * size], i, len(key) + size)
            else:
                row: Row = PART._replace(total=i) if suffix == COUNTER else Cell(b"v" * size, i, OWN, i)
                layer.put_row(key, suffix, row)
    older.merge_from(newer)
    assert older.registers == whole.registers
    assert older.composites == whole.composites
    assert (older.rows, older.size_bytes, older.payload_bytes) == (whole.rows, whole.size_bytes, whole.payload_bytes)
    assert whole.rows == len({(key, suffix) for key, suffix, _, _ in writes})
    assert whole.size_bytes == whole.payload_bytes + whole.rows * ROW_OVERHEAD_BYTES


_SUFFIXES = [b"\x04a", b"\x04b", b"\x05a", field_part_suffix(b"a", OWN), field_part_suffix(b"b", OTHER)]


@given(st.lists(st.tuples(st.sampled_from([b"k", b"l"]), st.sampled_from(_SUFFIXES), st.integers(0, 3)), max_size=20))
def test_layers_with_collections_merged_hold_and_cost_what_one_layer_does(
    writes: list[tuple[bytes, bytes, int]],
) -> None:
    whole, older, newer = Layer(), Layer(), Layer()
    half = len(writes) // 2
    for i, (key, suffix, size) in enumerate(writes):
        row: Row = Element(((OWN, i + 1),) * size) if suffix[0] == 4 else Cell(b"v" * size, i, OWN, i)
        if suffix[0] == 6:
            row = PART._replace(total=i)
        for layer in (whole, older if i < half else newer):
            collection = layer.open_collection(key, Collection())
            collection.elements = i
            layer.put_collection_row(collection, suffix, row)
    opened = older.collections.keys() & newer.collections.keys()
    older.merge_from(newer)
    for key, collection in whole.collections.items():
        merged = older.collections[key]
        assert (merged.rows, merged.parts, merged.elements) == (collection.rows, collection.parts, collection.elements)
    # Only the key that a frame opens again is counted again, as is whatever is written again.
    assert older.size_bytes - sum(map(len, opened)) == whole.size_bytes
    assert older.rows == whole.rows == len({(key, suffix) for key, suffix, _ in writes})
    assert not any(older.collections[key] is newer.collections[key] for key in newer.collections)


def test_a_clear_costs_its_vector_and_is_no_row() -> None:
    layer = Layer()
    collection = layer.open_collection(b"k", Collection())
    before = layer.size_bytes
    layer.put_collection_row(collection, b"\x07", Clear(((OWN, 1), (OTHER, 2))))
    assert layer.size_bytes > before
    assert layer.rows == 0
    assert not layer.empty
    table = Memtable()
    table.active = layer
    assert table.can_freeze


def test_a_merge_leaves_the_newer_layer_as_it_is() -> None:
    """Readers may still hold the overlay of a frame that became durable."""
    older, newer = Layer(), Layer()
    newer.put_row(b"k", COUNTER, PART)
    older.merge_from(newer)
    older.put_row(b"k", SUFFIX_EXPIRY, Cell(b"", 1, OWN, 1, 5))
    assert newer.composites == {b"k": {COUNTER: PART}}


def test_a_number_of_thousands_of_digits_costs_what_it_takes() -> None:
    for total in (10**4932, -(10**4932), Fraction(10**4932 + 1, 10)):
        small, large = Layer(), Layer()
        small.put_row(b"k", COUNTER, PART)
        large.put_row(b"k", COUNTER, PART._replace(total=total))
        assert 2_000 < large.size_bytes - small.size_bytes < 2_200


def test_a_replaced_payload_counts_until_the_layer_is_applied() -> None:
    layer = Layer()
    for _ in range(3):
        layer.put_register(b"k", (b"v" * 100, 1))
    assert layer.rows == 1
    assert layer.size_bytes == 3 * 101 + ROW_OVERHEAD_BYTES


def test_rows_of_a_key_come_from_the_newest_layer_that_has_each() -> None:
    newest, oldest = Layer(), Layer()
    expiry = Cell(b"", 2, OWN, 2, 5)
    oldest.put_register(b"k", (b"old", 1))
    oldest.put_row(b"k", COUNTER, PART)
    oldest.put_row(b"k", SUFFIX_EXPIRY, expiry._replace(hlc=1))
    newest.put_row(b"k", SUFFIX_EXPIRY, expiry)
    assert rows_in_layers([newest, oldest], b"k") == ((b"old", 1), {COUNTER: PART, SUFFIX_EXPIRY: expiry})
    tombstone = Cell(None, 3, OWN, 3)
    newest.put_register(b"k", tombstone)
    assert rows_in_layers([newest, oldest], b"k")[0] is tombstone
    assert rows_in_layers([newest, oldest], b"other") == (None, {})


# Sorted keys.

small_keys = st.binary(max_size=3)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.lists(small_keys, max_size=12), small_keys, st.none() | small_keys, st.integers(1, 9)), max_size=6
    ),
    st.integers(1, 5),
)
def test_sorted_keys_are_the_first_of_the_range_however_the_layer_grew(
    scans: list[tuple[list[bytes], bytes, bytes | None, int]], step: int
) -> None:
    layer, held = Layer(), set[bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_keys, "SORT_STEP_KEYS", step)
        for arrivals, low, high, limit in scans:
            for key in arrivals:
                if len(key) == 2:
                    layer.put_row(key, COUNTER, PART)
                else:
                    layer.put_register(key, (b"v", 1))
            held.update(arrivals)
            inside = sorted(key for key in held if low <= key and (high is None or key < high))
            assert layer.sorted_keys(low, high, limit) == inside[:limit]


def test_sorting_goes_in_steps_that_end() -> None:
    layer = Layer()
    keys = [b"%06d" % (n * 7919 % 100_003) for n in range(3 * sorted_keys.SORT_STEP_KEYS)]
    layer.put_plain_run(keys, keys, 1, 0)
    order, steps = layer._register_keys, 1
    while order.step():
        steps += 1
    assert steps == 3
    assert layer.sorted_keys(b"", None, len(keys)) == sorted(keys)


def test_a_key_with_a_register_and_a_counter_part_is_listed_once() -> None:
    layer = layer_of(k=b"v")
    layer.put_row(b"k", COUNTER, PART)
    assert layer.sorted_keys(b"", None, 10) == [b"k"]


# Generations.


def test_a_frozen_layer_leaves_only_after_its_commit_and_the_renewal_of_the_reader() -> None:
    table = filled(1)
    frozen = table.freeze(Lsn(5)).layer
    assert table.renewed(Lsn(5)) == 0, "the reader saw it, but the commit was not reported"
    table.applied(Lsn(5))
    assert frozen in table.layers, "readers that began before the commit do not see its rows"
    assert table.renewed(Lsn(4)) == 0, "this reader began before the commit"
    assert table.renewed(Lsn(5)) == 1
    assert not table.frozen and table.rows == 0


def test_a_commit_below_a_layers_end_does_not_release_it() -> None:
    table = filled(1)
    table.freeze(Lsn(5))
    table.applied(Lsn(4))
    assert table.renewed(Lsn(9)) == 0


def test_layers_are_read_newest_first() -> None:
    table = filled(1)
    first = table.freeze(Lsn(1)).layer
    table.active.put_register(b"2", (b"v", 2))
    second = table.freeze(Lsn(2)).layer
    assert table.layers == (table.active, second, first)
    table.applied(Lsn(1))
    table.renewed(Lsn(1))
    assert table.layers == (table.active, second, first), "the oldest stays as the cache"
    assert table.cached == [first]
    assert table.rows == 1, "what LMDB has does not count as unapplied"


def test_a_cache_never_outlives_the_generation_after_it() -> None:
    """Its rows would hide the newer ones of LMDB."""
    table = filled(1)
    table.freeze(Lsn(1))
    table.applied(Lsn(1))
    table.renewed(Lsn(1))
    table.active.put_register(b"1", (b"v" * 20_000, 2))  # too large to be kept
    table.freeze(Lsn(2))
    table.applied(Lsn(2))
    table.renewed(Lsn(2))
    assert not table.cached
    assert table.layers == (table.active,)


def test_the_cache_can_be_given_up() -> None:
    table = filled(1)
    table.freeze(Lsn(1))
    table.applied(Lsn(1))
    table.renewed(Lsn(1))
    table.drop_cache()
    assert table.layers == (table.active,)


def test_two_generations_wait_at_most_and_an_empty_one_never() -> None:
    table = filled(1)
    table.freeze(Lsn(1))
    answers = [table.can_freeze]
    table.active.put_register(b"2", (b"v", 2))
    answers.append(table.can_freeze)
    table.freeze(Lsn(2))
    table.active.put_register(b"3", (b"v", 3))
    answers.append(table.can_freeze)
    table.applied(Lsn(1))
    table.renewed(Lsn(1))
    answers.append(table.can_freeze)
    assert answers == [False, True, False, True], "empty, filled, two are waiting, one has left"


def test_a_scan_keeps_the_layers_it_began_with() -> None:
    table = filled(1)
    view = table.layers
    table.freeze(Lsn(1))
    table.applied(Lsn(1))
    table.renewed(Lsn(1))
    table.drop_cache()
    assert [layer.sorted_keys(b"", None, 10) for layer in view] == [[b"1"]]


def applied_through(table: Memtable, lsn: int) -> None:
    table.freeze(Lsn(lsn))
    table.applied(Lsn(lsn))
    table.renewed(Lsn(lsn))


def test_a_later_generation_is_cached_above_the_earlier_ones() -> None:
    table = filled(1)
    table.active.put_register(b"old", (b"1", 1))
    applied_through(table, 1)
    table.active.put_register(b"old", (b"2", 2))
    applied_through(table, 2)
    assert [layer.registers.get(b"old") for layer in table.cached] == [(b"2", 2), (b"1", 1)]
    assert table.layers == (table.active, *table.cached)


def test_of_many_cached_generations_the_oldest_goes_first() -> None:
    table = Memtable(memory_bytes=10_000_000)
    for i in range(1, CACHED_GENERATIONS_MAX + 3):
        table.active.put_register(b"k", (b"%d" % i, i))
        applied_through(table, i)
    newest = CACHED_GENERATIONS_MAX + 2
    assert [layer.registers[b"k"][1] for layer in table.cached] == [newest - i for i in range(CACHED_GENERATIONS_MAX)]
    table.trim(table.memory_bytes - table.cached[0].size_bytes)
    assert [layer.registers[b"k"][1] for layer in table.cached] == [newest]


def test_the_cache_goes_when_rows_that_must_be_kept_need_its_memory() -> None:
    table = filled(1)
    applied_through(table, 1)
    table.trim(9_000)
    assert table.cached
    table.trim(9_900)
    assert table.layers == (table.active,)


def test_layers_that_were_given_up_are_freed_a_few_rows_at_a_time() -> None:
    table = Memtable(memory_bytes=10_000_000)
    for i in range(10):
        table.active.put_register(b"%d" % i, (b"v", i))
    layer = table.active
    applied_through(table, 1)
    table.drop_cache()
    table.sweep(4)
    assert len(layer.registers) == 6
    table.sweep(100)
    assert not layer.registers
    table.sweep(100)
