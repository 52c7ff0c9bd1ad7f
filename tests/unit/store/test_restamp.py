"""Stamps that are lowered in a store: what is far keeps its order and its dots, and nothing that was hidden is shown."""

from pathlib import Path

import pytest

from edgekv.clock import hlc_from_ms
from edgekv.crdt.operation import SUFFIX_EXPIRY, SUFFIX_MAP_CLEAR, SUFFIX_REGISTER, SUFFIX_SIBLINGS, field_suffix
from edgekv.crdt.register import Cell
from edgekv.crdt.rows import Row
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.errors import Corruption
from edgekv.limits import DAY_MS
from edgekv.store import layout
from edgekv.store.applied import Applied, ChainedVector
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.purge import index_entries
from edgekv.store.restamp import Restamped, is_restamped, restamp
from tests.unit.crdt.histories import actor
from tests.unit.store.node_log import open_store
from tests.unit.store.test_fold import KEYSPACE

A, B = actor(1), actor(2)
NOW_MS = 1_700_000_000_000
LIMIT = hlc_from_ms(NOW_MS + DAY_MS)
AHEAD_MS = 1000 * DAY_MS
INCARNATION = b"\x00\x00\x00\x01abcd"
FIELD = field_suffix(b"f")

Rows = dict[tuple[bytes, bytes], Row]


def far(ms: int) -> int:
    """The stamp, by a clock that was ahead, of so many ms before the last one."""
    return hlc_from_ms(NOW_MS + AHEAD_MS - ms)


def stored(store: LmdbStore) -> Rows:
    found: Rows = {}
    for lmdb_key, data in store.range(b"", None):
        _, key, suffix = layout.split(layout.row_key_of(lmdb_key, data))
        found[key, suffix] = layout.decode_row(data, store.actor_of)
    return found


def store_of(path: Path, rows: Rows) -> LmdbStore:
    store = open_store(path)
    with store.write() as transaction:
        for (key, suffix), row in sorted(rows.items()):
            row_key = layout.row_key(KEYSPACE, key, suffix)
            transaction.put_rows([(layout.lmdb_key_of(row_key), layout.encode_row(row_key, row, transaction.intern))])
            for index, entry in index_entries(row_key, row, transaction.intern):
                transaction.index_put(index, [entry])
        vectors: dict[int, ChainedVector] = {KEYSPACE: {A: (9, 1), B: (9, 2)}}
        transaction.put_applied(Applied(5, vectors, {KEYSPACE: far(0)}, frozenset(), NOW_MS + AHEAD_MS))
    store.renew()
    return store


def test_what_is_far_is_lowered_by_as_much_and_all_else_stays(tmp_path: Path) -> None:
    near = hlc_from_ms(NOW_MS - 5)
    rows: Rows = {
        (b"near", SUFFIX_REGISTER): Cell(b"v", LIMIT, A, 1),
        (b"far", SUFFIX_REGISTER): Cell(b"v", far(7), A, 2, NOW_MS + AHEAD_MS + 60_000),
        (b"deleted", SUFFIX_REGISTER): Cell(None, far(6), B, 3),
        (b"soon", SUFFIX_EXPIRY): Cell(b"", far(5), A, 4, NOW_MS + 60_000),
        (b"two", SUFFIX_SIBLINGS): Siblings((Sibling(A, 5, near, b"v", 7), Sibling(B, 5, far(4), b"w"))),
        (b"l" * 600, SUFFIX_REGISTER): Cell(b"last", far(0), A, 6),
    }
    store = store_of(tmp_path, rows)
    assert restamp(store, {KEYSPACE: LIMIT}, INCARNATION) == [Restamped(KEYSPACE, 5, AHEAD_MS)]

    def then(ms: int) -> int:
        return hlc_from_ms(NOW_MS - ms)

    assert stored(store) == rows | {
        (b"far", SUFFIX_REGISTER): Cell(b"v", then(7), A, 2, NOW_MS + 60_000),
        (b"deleted", SUFFIX_REGISTER): Cell(None, then(6), B, 3),
        (b"soon", SUFFIX_EXPIRY): Cell(b"", then(5), A, 4, NOW_MS + 60_000),
        (b"two", SUFFIX_SIBLINGS): Siblings((Sibling(A, 5, near, b"v", 7), Sibling(B, 5, then(4), b"w"))),
        (b"l" * 600, SUFFIX_REGISTER): Cell(b"last", then(0), A, 6),
    }
    applied = store.applied()
    assert applied.hlcs == {KEYSPACE: LIMIT}, "above all that is stored"
    assert (applied.lsn, applied.ttl_ms) == (5, 0)
    due = [key for key, _ in store.index_range(layout.DB_EXPIRY, b"", None)]
    assert NOW_MS + 60_000 in map(layout.expiry_of_index_key, due)
    assert restamp(store, {KEYSPACE: LIMIT}, INCARNATION) == [], "the second time there is nothing to do"
    store.close()


def test_a_field_that_a_clear_had_hidden_is_not_shown_by_a_clear_that_is_lowered(tmp_path: Path) -> None:
    """The clock was wrong twice: the clear is lowered to below a field that it hides, and that was not swept yet."""
    clear = Cell(None, LIMIT + 1, A, 5)
    store = store_of(tmp_path, {(b"m", FIELD): Cell(b"v", hlc_from_ms(NOW_MS), B, 1), (b"m", SUFFIX_MAP_CLEAR): clear})
    restamp(store, {KEYSPACE: LIMIT}, INCARNATION)
    assert list(stored(store)) == [(b"m", SUFFIX_MAP_CLEAR)]
    store.close()


@pytest.mark.parametrize("beginning", [b"", b"\xff", b"\x50"])
@pytest.mark.parametrize("of_clear", [False, True])
def test_a_row_that_is_damaged_leaves_all_as_it_was(tmp_path: Path, beginning: bytes, of_clear: bool) -> None:
    """However little of it can be read, and also where a clear hides it."""
    rows: Rows = {(b"a", SUFFIX_REGISTER): Cell(b"v", far(1), A, 1), (b"m", FIELD): Cell(b"v", far(2), A, 2)}
    if of_clear:
        rows[b"m", SUFFIX_MAP_CLEAR] = Cell(None, far(1), A, 3)
    store = store_of(tmp_path, rows)
    before = dict(store.range(b"", None))
    lmdb_key = layout.lmdb_key_of(layout.row_key(KEYSPACE, b"m", FIELD))
    before[lmdb_key] = beginning + before[lmdb_key][len(beginning) : -1] + b"x"
    with store.write() as transaction:
        transaction.put_rows([(lmdb_key, before[lmdb_key])])
    store.renew()
    with pytest.raises(Corruption, match="damaged"):
        restamp(store, {KEYSPACE: LIMIT}, INCARNATION)
    store.renew()
    assert store.applied().hlcs == {KEYSPACE: far(0)}
    assert dict(store.range(b"", None)) == before
    assert not is_restamped(store, INCARNATION)
    store.close()


def test_the_store_knows_whose_stamps_were_lowered(tmp_path: Path) -> None:
    store = store_of(tmp_path, {(b"k", SUFFIX_REGISTER): Cell(b"v", far(1), A, 1)})
    assert not is_restamped(store, INCARNATION)
    restamp(store, {KEYSPACE: LIMIT}, INCARNATION)
    assert is_restamped(store, INCARNATION)
    assert not is_restamped(store, b"\x00\x00\x00\x02abcd"), "it may have a wrong clock of its own later"
    store.close()
