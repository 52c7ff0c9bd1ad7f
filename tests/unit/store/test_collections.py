"""Sets and maps in LMDB: what the applier stores of them, counts that are exact whatever a clear has seen, sweeps in bounded steps."""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import rmtree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.operation import (
    ADD_ELEMENTS,
    ADD_FIELD,
    CLEAR_MAP,
    CLEAR_SET,
    DELETE_FIELDS,
    EXPIRE,
    PUT_FIELDS,
    REMOVE_ELEMENTS,
    RESET_FIELDS,
    SUFFIX_MAP_CLEAR,
    SUFFIX_SET_CLEAR,
    Operation,
    element_suffix,
    field_suffix,
)
from edgekv.crdt.register import Cell
from edgekv.errors import Corruption
from edgekv.ids import Actor, KeyspaceId
from edgekv.store import applier as applier_module
from edgekv.store import layout
from edgekv.store.applied import Progress, Stable
from edgekv.store.collection_rows import CollectionRows, StoredRows
from edgekv.store.lmdb_store import LmdbStore
from tests.unit.store.node_log import OTHER, OWN, NodeLog, applier_of, open_store

KS = KeyspaceId(0)
ALONE = Stable(wall_ms=0, cuts=None)
ACTORS = [OWN, OTHER, Actor(b"third actor of the set...")]


class Node:
    """A log, its store and its applier in one directory."""

    def __init__(self, data_dir: Path) -> None:
        self.log = NodeLog(data_dir)
        self.store = open_store(data_dir)
        self.applier = applier_of(self.store, data_dir)

    def apply(self, stable: Stable | None = None, rows_max: int = 1 << 20) -> list[Progress]:
        """Every transaction, until there is nothing left to do."""
        steps: list[Progress] = []
        while (progress := self.applier.apply(self.log.lsn, stable, rows_max=rows_max)) is not None:
            steps.append(progress)
        return steps

    def observed(self) -> list[list[object]]:
        return [[actor, seq] for (_, actor), (seq, _) in sorted(self.log.heads.items())]

    def rows(self, key: bytes = b"k") -> CollectionRows:
        return rows_in(self.store, key)

    def stored(self, key: bytes = b"k") -> dict[bytes, layout.StoredRow]:
        """All that LMDB has above a key's string, by suffix."""
        self.store.renew()
        start, end = layout.row_key(KS, key, b"\x03"), layout.row_key(KS, key, b"\xff")
        found: dict[bytes, layout.StoredRow] = {}
        for lmdb_key, data in self.store.range(b"", None):
            assert layout.check_row(lmdb_key, data)
            row_key = layout.row_key_of(lmdb_key, data)
            if start < row_key < end:
                count = layout.is_count(data)
                row = layout.decode_count(data) if count else layout.decode_row(data, self.store.actor_of)
                found[layout.split(row_key)[2]] = row
        return found


def rows_in(store: LmdbStore, key: bytes = b"k") -> CollectionRows:
    store.renew()
    actors = store.applied().vectors.get(KS, {})
    return CollectionRows(StoredRows(store, checked=True), KS, key, [], actors)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.store.close()


def test_elements_fields_and_their_count_are_stored_in_one_transaction(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"a", b"b"]], [PUT_FIELDS, b"k", [[b"f", b"1"]]])
    node.log.change([ADD_FIELD, b"k", b"n", 5, 1, 0, 1])
    assert len(node.apply()) == 1
    assert node.stored() == {
        element_suffix(b"a"): Element(((OWN, 1),)),
        element_suffix(b"b"): Element(((OWN, 1),)),
        field_suffix(b"f"): Cell(b"1", node.log.hlc - 1, OWN, 1),
        b"\x06n\x00\x00" + OWN: Part(5, 2, 0, 1, None, fresh=True),
        layout.SUFFIX_COUNT: layout.Count(2, 2),
    }
    assert node.store.applied().mixed == {0}


def test_an_element_that_nobody_holds_any_more_leaves_no_row_and_the_last_one_no_count(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"a", b"b"]])
    node.apply()
    node.log.change([REMOVE_ELEMENTS, b"k", [[b"a", [[OWN, 1]]], [b"none", [[OWN, 1]]]]])
    node.apply()
    assert node.stored() == {element_suffix(b"b"): Element(((OWN, 1),)), layout.SUFFIX_COUNT: layout.Count(1, 0)}
    node.log.change([REMOVE_ELEMENTS, b"k", [[b"b", [[OWN, 1]]]]])
    node.apply()
    assert node.stored() == {}


def test_a_concurrent_add_wins_over_a_remove_and_over_a_clear(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"a", b"b"]])
    node.log.change([ADD_ELEMENTS, b"k", [b"a", b"b"]], actor=OTHER)
    node.log.change([REMOVE_ELEMENTS, b"k", [[b"a", [[OWN, 1]]]]])
    node.log.change([CLEAR_SET, b"k", [[OWN, 2]]])
    node.apply()
    theirs = Element(((OTHER, 1),))
    assert node.stored() == {
        element_suffix(b"a"): theirs,
        element_suffix(b"b"): theirs,
        layout.SUFFIX_COUNT: layout.Count(2, 0),
    }


def test_a_sweep_leaves_the_dots_that_a_clear_has_not_seen(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"a", b"b"]])
    node.log.change([ADD_ELEMENTS, b"k", [b"a"]], actor=OTHER)
    node.apply()
    node.log.change([CLEAR_SET, b"k", [[OWN, 1]]])
    node.apply()
    assert node.stored() == {element_suffix(b"a"): Element(((OTHER, 1),)), layout.SUFFIX_COUNT: layout.Count(1, 0)}


def test_what_a_change_puts_stays_wherever_its_own_clears_stand(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"a", b"b"]], [PUT_FIELDS, b"k", [[b"f", b"1"]]])
    node.apply()
    seen = node.observed()
    puts = [ADD_ELEMENTS, b"k", [b"c"]], [PUT_FIELDS, b"k", [[b"g", b"1"]]]
    node.log.change(*puts, [CLEAR_SET, b"k", seen], [CLEAR_MAP, b"k"])
    node.apply()
    assert set(node.stored()) == {element_suffix(b"c"), field_suffix(b"g"), SUFFIX_MAP_CLEAR, layout.SUFFIX_COUNT}
    assert node.stored()[layout.SUFFIX_COUNT] == layout.Count(1, 1)


def test_a_clear_is_one_row_at_once_and_what_it_covers_goes_a_few_rows_at_a_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 10)
    node.log.change([ADD_ELEMENTS, b"k", [b"%03d" % n for n in range(100)]])
    node.log.change([PUT_FIELDS, b"k", [[b"%03d" % n, b"v"] for n in range(50)]])
    node.apply()
    node.log.change([CLEAR_SET, b"k", node.observed()], [CLEAR_MAP, b"k"], [ADD_ELEMENTS, b"k", [b"050", b"new"]])
    lengths, left = [], node.stored()
    while node.applier.apply(node.log.lsn, None) is not None:
        left = node.stored()
        lengths.append(len(left))
        assert left[layout.SUFFIX_COUNT] == layout.Count(2, 0)
    assert len(lengths) > 10
    assert all(before - after <= 11 for before, after in pairwise(lengths))
    assert set(left) == {element_suffix(b"050"), element_suffix(b"new"), SUFFIX_MAP_CLEAR, layout.SUFFIX_COUNT}


def test_a_sweep_goes_on_where_it_was_after_another_applier_took_over(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 10)
    node.log.change([ADD_ELEMENTS, b"k", [b"%03d" % n for n in range(40)]])
    node.apply()
    node.log.change([CLEAR_SET, b"k", node.observed()])
    assert node.applier.apply(node.log.lsn, None) is not None
    assert len(node.stored()) == 31
    node.applier = applier_of(node.store, tmp_path)
    node.apply()
    assert node.stored() == {}
    with node.store.write() as transaction:
        assert transaction.index_is_empty(layout.DB_SWEEPS)


def test_a_set_that_is_cleared_over_and_over_does_not_keep_another_clear_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 3)
    for key in (b"busy", b"quiet"):
        node.log.change([ADD_ELEMENTS, key, [b"%02d" % n for n in range(20)]])
    node.apply()
    node.log.change([CLEAR_SET, b"quiet", node.observed()])
    for _ in range(20):
        node.log.change([CLEAR_SET, b"busy", node.observed()])
        node.applier.apply(node.log.lsn, None)
    assert node.stored(b"quiet") == {}


def test_a_map_clear_waits_for_the_cut_and_for_the_fields_that_it_hides(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.log.change([PUT_FIELDS, b"k", [[b"%03d" % n, b"v"] for n in range(30)]])
    node.apply()
    node.log.change([CLEAR_MAP, b"k"])
    node.apply()
    assert list(node.stored()) == [SUFFIX_MAP_CLEAR]  # nobody has said what is stable
    node.log.change([PUT_FIELDS, b"k", [[b"%03d" % n, b"v"] for n in range(30)]])
    node.apply()
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 4)
    node.log.change([CLEAR_MAP, b"k"])
    while node.applier.apply(node.log.lsn, ALONE) is not None:
        assert rows_in(node.store).count_fields() == 0
    node.apply(ALONE)
    assert node.stored() == {}


def test_a_field_with_a_stamp_below_the_map_clear_is_hidden_whenever_it_comes(node: Node) -> None:
    early = node.log.hlc
    node.log.hlc += 10
    node.log.change([CLEAR_MAP, b"k"], [PUT_FIELDS, b"k", [[b"same", b"1"]]])
    node.log.change([PUT_FIELDS, b"k", [[b"late", b"1"]]], actor=OTHER, base_hlc=early + 1)
    node.apply()
    assert set(node.stored()) == {SUFFIX_MAP_CLEAR, field_suffix(b"same"), layout.SUFFIX_COUNT}
    assert node.stored()[layout.SUFFIX_COUNT] == layout.Count(0, 1)


def test_inert_parts_and_tombstones_of_fields_are_purged_by_the_cut(node: Node) -> None:
    node.log.change([ADD_FIELD, b"k", b"n", 5, 0, 0, 1], [PUT_FIELDS, b"k", [[b"f", b"v"]]])
    node.apply()
    node.log.change([RESET_FIELDS, b"k", [[b"n", [[OWN, 1, 5]]]]], [DELETE_FIELDS, b"k", [b"f"]])
    node.apply()
    assert set(node.stored()) == {field_suffix(b"f"), b"\x06n\x00\x00" + OWN}
    node.apply(ALONE)
    assert node.stored() == {}


def test_an_expired_key_goes_in_many_transactions_and_its_expiry_with_the_last_of_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 10)
    node.log.change([ADD_ELEMENTS, b"k", [b"%03d" % n for n in range(30)]], [EXPIRE, b"k", 1_000])
    node.log.change([PUT_FIELDS, b"k", [[b"%03d" % n, b"v"] for n in range(20)]], [ADD_ELEMENTS, b"other", [b"x"]])
    for n in range(10):
        node.log.change([ADD_FIELD, b"k", b"%03d" % (n + 15), 1, 0, 0, 1])
    node.apply()
    assert node.stored()[layout.SUFFIX_COUNT] == layout.Count(30, 25)
    node.log.ttl(2_000)
    steps = 0
    while (progress := node.applier.apply(node.log.lsn, Stable(2_000, None))) is not None:
        steps += 1
        rows = rows_in(node.store)
        assert (rows.header.elements, rows.header.fields) == (rows.count_elements(), rows.count_fields())
        there = node.store.get(layout.lmdb_key(KS, b"k", b"\x02")) is not None
        assert there == bool(node.stored())
        assert progress.cleared != there
    assert steps > 5
    assert node.stored() == {}
    assert node.stored(b"other") == {
        element_suffix(b"x"): Element(((OWN, 2),)),
        layout.SUFFIX_COUNT: layout.Count(1, 0),
    }


def test_a_damaged_element_is_reported_and_not_written_again(node: Node) -> None:
    node.log.change([ADD_ELEMENTS, b"k", [b"a"]])
    node.apply()
    lmdb_key = layout.lmdb_key(KS, b"k", element_suffix(b"a"))
    node.store.renew()
    data = node.store.get(lmdb_key)
    assert data is not None
    with node.store.write() as transaction:
        transaction.put_rows([(lmdb_key, data[:-1] + bytes([data[-1] ^ 1]))])
    node.log.change([ADD_ELEMENTS, b"k", [b"a"]])
    with pytest.raises(Corruption, match="damaged"):
        node.apply()


# Changes of several actors, clears that have seen a part only: counted as they are.

_ACTOR = st.sampled_from(ACTORS)
_NAMES = st.lists(st.sampled_from([b"a", b"b", b"c", b"x" * 490]), min_size=1, max_size=3, unique=True)
_STEP = st.one_of(
    st.tuples(st.just("add"), _ACTOR, _NAMES),
    st.tuples(st.just("remove"), _ACTOR, _NAMES),
    st.tuples(st.just("clear"), _ACTOR, st.lists(st.integers(0, 9), min_size=3, max_size=3)),
    st.tuples(st.just("put"), _ACTOR, _NAMES),
    st.tuples(st.just("unput"), _ACTOR, _NAMES),
    st.tuples(st.just("count"), _ACTOR, _NAMES),
    st.tuples(st.just("clear map"), _ACTOR, st.lists(st.integers(0, 9), min_size=1, max_size=1)),
    st.tuples(st.just("apply"), st.none(), st.integers(1, 4)),
)


def _operation(node: Node, kind: str, actor: Actor, names: list[bytes], numbers: list[int]) -> list[Operation]:
    seq = node.log.seq(0, actor)
    match kind:
        case "add":
            return [[ADD_ELEMENTS, b"k", names]]
        case "remove":
            own = [[OWN, node.log.seq()]] if node.log.seq() else [[actor, seq + 1]]
            return [[REMOVE_ELEMENTS, b"k", [[name, own] for name in names]]]
        case "clear":
            seen = [[a, n] for a, n in zip(ACTORS, numbers, strict=True) if 0 < n <= node.log.seq(0, a)]
            return [[CLEAR_SET, b"k", sorted(seen)]] if seen else []
        case "put":
            return [[PUT_FIELDS, b"k", [[name, b"v"] for name in names]]]
        case "unput":
            return [[DELETE_FIELDS, b"k", names]]
        case "count":
            return [[ADD_FIELD, b"k", names[0], seq + 1, 0, 0, 0]]
        case _:
            return [[CLEAR_MAP, b"k", node.log.hlc - numbers[0]]]


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_STEP, max_size=25), low_stamps=st.booleans())
def test_counts_equal_a_recount_whatever_was_seen_by_whom(
    steps: list[tuple[str, Actor, int | list[int | bytes]]], low_stamps: bool
) -> None:
    place = Path(tempfile.mkdtemp())
    node = Node(place)
    try:
        for kind, actor, what in [*steps, ("apply", OWN, 1 << 20)]:
            if kind == "apply":
                assert isinstance(what, int)
                node.applier.apply(node.log.lsn, None, rows_max=what)
                if what == 1 << 20:
                    node.apply()
                rows = rows_in(node.store)
                counted = rows.count_elements(), rows.count_fields()
                assert (rows.header.elements, rows.header.fields) == counted
                continue
            assert isinstance(what, list)
            names = [name for name in what if isinstance(name, bytes)]
            numbers = [number for number in what if isinstance(number, int)]
            operations = _operation(node, kind, actor, names, numbers)
            if operations:
                base = node.log.hlc - 3 if low_stamps and actor != OWN else None
                node.log.change(*operations, actor=actor, base_hlc=base)
        assert SUFFIX_SET_CLEAR not in node.stored()
    finally:
        node.store.close()
        rmtree(place)


# The bytes.


@given(dots=st.dictionaries(st.sampled_from(ACTORS), st.integers(1, (1 << 64) - 1)), long=st.booleans())
def test_rows_of_dots_and_counts_come_back_as_they_were(dots: dict[Actor, int], long: bool) -> None:
    numbers = {actor: number for number, actor in enumerate(ACTORS)}
    row_key = layout.row_key(KS, b"k" * 600 if long else b"k", element_suffix(b"e"))
    ordered = tuple(sorted(dots.items()))
    for row in (Element(ordered), Clear(ordered)):
        data = layout.encode_row(row_key, row, numbers.__getitem__)
        assert layout.check_row(layout.lmdb_key_of(row_key), data)
        assert layout.row_key_of(layout.lmdb_key_of(row_key), data) == row_key
        assert layout.decode_row(data, ACTORS.__getitem__) == row
        assert not layout.is_count(data)
    count = layout.Count(len(dots), (1 << 64) - 1)
    data = layout.encode_row(row_key, count, numbers.__getitem__)
    assert layout.check_row(layout.lmdb_key_of(row_key), data)
    assert layout.is_count(data)
    assert layout.decode_count(data) == count
