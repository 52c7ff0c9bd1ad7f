"""Merged pages: in order over all layers and LMDB, whatever lies where, and bounded."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.counter import Part, reset_delta
from edgekv.crdt.operation import SUFFIX_EXPIRY, Row, counter_suffix
from edgekv.crdt.register import Cell
from edgekv.ids import KeyspaceId
from edgekv.store import layout, snapshot
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Layer
from edgekv.store.snapshot import Item, page
from tests.unit.store.node_log import OTHER, OWN

KS = KeyspaceId(5)
COUNTER = counter_suffix(OWN)
PART = Part(3, 1, 0, 0, None, fresh=True)


@pytest.fixture
def store(tmp_path: Path) -> LmdbStore:
    return LmdbStore.open(tmp_path, readonly=False, map_bytes=1 << 30)


def store_rows(store: LmdbStore, rows: list[tuple[bytes, bytes, Row]], keyspace: KeyspaceId = KS) -> None:
    with store.write() as transaction:
        for key, suffix, row in rows:
            row_key = layout.row_key(keyspace, key, suffix)
            transaction.put_rows([(layout.lmdb_key_of(row_key), layout.encode_row(row_key, row, transaction.intern))])


def cell(value: bytes | None, hlc: int = 1) -> Cell:
    return Cell(value, hlc, OTHER, 1)


def walk(layers: list[Layer], store: LmdbStore, limit: int, low: bytes = b"", high: bytes | None = None) -> list[Item]:
    """All pages of a chain, each within its limit and going forward."""
    items: list[Item] = []
    start: bytes | None = low
    while start is not None:
        found = page(layers, store, KS, start, high, limit)
        assert len(found.items) <= limit
        assert found.next_key is None or found.next_key > start
        items += found.items
        start = found.next_key
    return items


LONG = b"p" * 480
ANY_KEYS = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from([b"\x00", b"a", b"a\x00", b"a\x00\xff", b"a\x01", b"p" * 474, b"p" * 475, b"p" * 504, b"p" * 505]),
    st.binary(max_size=3).map(lambda tail: LONG + tail),
)
PLACED = st.lists(
    st.tuples(st.integers(0, 3), ANY_KEYS, st.sampled_from(["plain", "tombstone", "counter"])), max_size=40
)


@settings(max_examples=80)
@given(placed=PLACED, limit=st.integers(1, 7), low=st.one_of(st.just(b""), ANY_KEYS), high=st.none() | ANY_KEYS)
def test_pages_together_are_the_sorted_model(
    tmp_path_factory: pytest.TempPathFactory,
    placed: list[tuple[int, bytes, str]],
    limit: int,
    low: bytes,
    high: bytes | None,
) -> None:
    store = LmdbStore.open(tmp_path_factory.mktemp("store"), readonly=False, map_bytes=1 << 26)
    layers = [Layer(), Layer(), Layer()]
    registers: dict[bytes, bytes | None] = {}
    counters: set[bytes] = set()
    # The oldest place is written first: 3 is LMDB, 0 the newest layer.
    for number, (place, key, kind) in enumerate(sorted(placed, key=lambda step: -step[0])):
        value = b"%d" % number
        if kind == "counter":
            counters.add(key)
            if place == 3:
                store_rows(store, [(key, COUNTER, PART)])
            else:
                layers[place].put_row(key, COUNTER, PART)
            continue
        registers[key] = value if kind == "plain" else None
        if place == 3:
            store_rows(store, [(key, b"\x01", cell(registers[key], number))])
        elif kind == "plain":
            layers[place].put_register(key, (value, number))
        else:
            layers[place].put_register(key, cell(None, number))
    expected = {key: value for key, value in registers.items() if value is not None or key in counters}
    expected.update({key: None for key in counters if key not in registers})
    model = [
        (key, expected[key], key in counters) for key in sorted(expected) if key >= low and (high is None or key < high)
    ]
    found = walk(layers, store, limit, low, high)
    assert [(item.key, item.register and item.register[0], COUNTER in item.composites) for item in found] == model
    store.close()


def test_keys_of_other_keyspaces_are_not_shown(store: LmdbStore) -> None:
    for keyspace in (4, 5, 6):
        store_rows(store, [(b"%d" % keyspace, b"\x01", cell(b"v"))], KeyspaceId(keyspace))
    assert [item.key for item in walk([], store, 10)] == [b"5"]


def test_many_keys_with_one_long_beginning_come_in_order_and_few_are_held_at_a_time(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [LONG + b"%04d" % n for n in range(500)]
    store_rows(store, [(key, b"\x01", cell(b"v")) for key in keys])
    most = 0

    def watched(count: int, found: Any) -> Any:
        nonlocal most
        most = max(most, len(found))
        return sorted(found)[:count]

    monkeypatch.setattr(snapshot, "nsmallest", watched)
    assert [item.key for item in walk([], store, 10)] == keys
    assert most <= 3 * 11


def test_a_cell_from_elsewhere_is_compared_with_what_lmdb_has_and_a_local_set_is_not(store: LmdbStore) -> None:
    store_rows(store, [(key, b"\x01", cell(b"stored", 9)) for key in (b"a", b"b", b"c")])
    layer = Layer()
    layer.put_register(b"a", cell(b"received, older", 8))
    layer.put_register(b"b", cell(b"received, newer", 10))
    layer.put_register(b"c", (b"local", 10))
    values = [item.register and item.register[0] for item in walk([layer], store, 10)]
    assert values == [b"stored", b"received, newer", b"local"]


def test_a_part_in_a_layer_is_joined_with_the_stored_one_and_a_reset_of_an_absent_part_is_no_row(
    store: LmdbStore,
) -> None:
    store_rows(store, [(b"n", COUNTER, PART)])
    layer = Layer()
    reset = reset_delta(1, 3, (OTHER, 4))
    layer.put_row(b"n", COUNTER, reset)
    layer.put_row(b"n", SUFFIX_EXPIRY, Cell(b"", 5, OWN, 2, 99))
    layer.put_register(b"n", (b"v", 6))
    layer.put_row(b"m", COUNTER, reset)
    layer.put_register(b"m", (b"v", 6))
    m, n = walk([layer], store, 10)
    assert m.composites == {}
    assert n.composites == {COUNTER: Part(3, 1, 3, 1, (OTHER, 4), fresh=False), SUFFIX_EXPIRY: Cell(b"", 5, OWN, 2, 99)}


def test_a_key_whose_counter_is_reset_to_nothing_is_not_shown(store: LmdbStore) -> None:
    store_rows(store, [(b"n", COUNTER, Part(3, 1, 3, 1, (OTHER, 4), fresh=False)), (b"n", SUFFIX_EXPIRY, cell(b""))])
    assert walk([], store, 10) == []


def test_a_generation_applied_after_the_layers_were_taken_is_seen_once_and_not_missed(store: LmdbStore) -> None:
    layer = Layer()
    layer.put_register(b"a", (b"v", 1))
    layers = [layer]
    store_rows(store, [(b"a", b"\x01", Cell(b"v", 1, OWN, 1)), (b"b", b"\x01", cell(b"v"))])  # after the last renew
    assert [item.key for item in page(layers, store, KS, b"", None, 10).items] == [b"a", b"b"]


def test_a_desert_of_tombstones_ends_a_page_and_the_chain_goes_on(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SCAN_EXAMINED_KEYS_MAX", 20)
    layer = Layer()
    for n in range(100):
        layer.put_register(b"%03d" % n, cell(None))
    layer.put_register(b"x", (b"v", 1))
    first = page([layer], store, KS, b"", None, 10)
    assert first.items == []
    assert first.next_key is not None
    assert first.next_key <= b"050"
    assert [item.key for item in walk([layer], store, 10)] == [b"x"]
