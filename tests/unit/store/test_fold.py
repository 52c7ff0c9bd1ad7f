"""The fold: two stores' rows of a keyspace become, row by row, what the dot rule says, with counts and indexes, in one transaction."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.joins import Rows, Vector, join_rows
from edgekv.crdt.operation import SUFFIX_EXPIRY, SUFFIX_REGISTER, SUFFIX_SIBLINGS, Row, element_suffix, field_suffix
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.errors import Corruption
from edgekv.ids import Actor, KeyspaceId
from edgekv.store import fold as fold_module
from edgekv.store import layout
from edgekv.store.applied import Applied, Cut, Stable, sync_path
from edgekv.store.applier import AbortedError
from edgekv.store.fold import Folding, fold, joined_vector
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.purge import index_entries
from edgekv.store.spool import SpoolReader, SpoolSummary, SpoolWriter, spool_file
from edgekv.store.sweep import sweep_keyspace
from edgekv.wal.record import Barrier, pack_barrier, unpack_records
from tests.unit.crdt.histories import Replica, actor
from tests.unit.crdt.test_joins import Copy, copies_of
from tests.unit.crdt.test_specification import History, steps
from tests.unit.store.node_log import OWN, NodeLog, applier_of, contents, open_store, register_row

KEYSPACE: Final = KeyspaceId(7)
A, B = actor(1), actor(2)
# A short one, one with zeros, neighbours whose rows lie in the order of hashes, and one whose own rows do.
KEYS: Final = [b"k", b"k\x00", b"z\x00\xffz", b"l" * 470, b"l" * 474, b"l" * 474 + b"a", b"l" * 474 + b"b", b"m" * 600]
SPOOL: Final = b"spool id"
FOLDERS: Final = itertools.count()


def chained(vector: Vector) -> dict[Actor, tuple[int, int]]:
    """Histories that agree."""
    return {owner: (seq, 1000 + seq) for owner, seq in vector.items() if seq}


def store_of(folder: Path, rows: dict[bytes, Rows], vector: Vector, *, strangers: int = 0) -> LmdbStore:
    """A store with these rows, by key. ``strangers``: actors who have the first numbers, so that those of two stores differ."""
    store = open_store(folder)
    with store.write() as transaction:
        for number in range(strangers):
            transaction.intern(actor(100 + number))
        put: list[tuple[bytes, bytes]] = []
        for key, of_key in rows.items():
            replica = Replica(A, dict(of_key))
            for suffix, row in [
                *of_key.items(),
                (layout.SUFFIX_COUNT, layout.Count(len(replica.elements()), len(replica.fields()))),
            ]:
                if row in (layout.Count(0, 0), Element(())):
                    continue
                row_key = layout.row_key(KEYSPACE, key, suffix)
                put.append((layout.lmdb_key_of(row_key), layout.encode_row(row_key, row, transaction.intern)))
                for index, entry in index_entries(row_key, row, transaction.intern):
                    transaction.index_put(index, [entry])
        transaction.put_rows(sorted(put))
        heads: dict[int, dict[Actor, tuple[int, int]]] = {KEYSPACE: chained(vector)} if vector else {}
        transaction.put_applied(Applied(5, heads, {KEYSPACE: 40}, frozenset(), 0))
    store.renew()
    return store


def spool_of(store: LmdbStore, file: Path) -> SpoolSummary:
    writer = SpoolWriter(store, KEYSPACE, file)
    try:
        while writer.step(2):
            pass
    finally:
        writer.close()
    return writer.summary


def barrier_of(spool: SpoolSummary) -> Barrier:
    entries = [(owner, seq, chain) for owner, (seq, chain) in sorted(spool.head.vector.items())]
    return Barrier(spool.head.keyspace, SPOOL, entries, spool.head.hlc)


def fold_into(store: LmdbStore, file: Path, spool: SpoolSummary) -> None:
    reader = SpoolReader(file)
    with store.write() as transaction:
        before = transaction.applied()
        transaction.put_applied(fold(transaction, before, barrier_of(spool), reader, lambda: None))
    reader.close()
    store.renew()


def fold_in_pieces(store: LmdbStore, file: Path, spool: SpoolSummary, dice: Random) -> None:
    """The same in several transactions; now and then the applier ends between two of them, or amid one."""
    folding: Folding | None = None
    applied: Applied | None = None
    ends = 3
    while applied is None:
        if folding is None:
            folding = Folding(store.applied().lsn, barrier_of(spool), SpoolReader(file))
        with store.write() as transaction:
            before = transaction.applied()
            applied = folding.step(transaction, before, lambda: None, rows_max=dice.choice((1, 2, 9)))
            transaction.put_applied(applied or before)
        store.renew()
        if applied is None and ends and dice.random() < 0.3:
            if dice.random() < 0.5:
                with suppress(AbortedError), store.write() as transaction:
                    folding.step(transaction, transaction.applied(), lambda: None, rows_max=3)
                    raise AbortedError
            folding.close()
            folding, ends = None, ends - 1
    assert folding is not None
    folding.close()


def rows_by_key(store: LmdbStore) -> dict[bytes, dict[bytes, Row]]:
    """What is left when the sweeps have come to their end."""
    with store.write() as transaction:
        sweep_keyspace(transaction, KEYSPACE, lambda: None)
    found: dict[bytes, dict[bytes, Row]] = {}
    for (_, key, suffix), row in contents(store).items():
        found.setdefault(key, {})[suffix] = row
    return found


def counts_of(store: LmdbStore) -> dict[bytes, tuple[int, int]]:
    counts: dict[bytes, tuple[int, int]] = {}
    for lmdb_key, data in store.range(b"", None):
        if layout.is_count(data):
            counts[layout.split(layout.row_key_of(lmdb_key, data))[1]] = layout.decode_count(data)
    return counts


def assert_is_joined(store: LmdbStore, mine: dict[bytes, Rows], theirs: dict[bytes, Rows], a: Copy, b: Copy) -> None:
    expected = {
        key: rows for key in KEYS if (rows := join_rows(mine.get(key, {}), a.vector, theirs.get(key, {}), b.vector))
    }
    counts = counts_of(store)
    assert rows_by_key(store) == expected
    shown = {key: Replica(A, dict(rows)) for key, rows in expected.items()}
    visible = {key: (len(replica.elements()), len(replica.fields())) for key, replica in shown.items()}
    assert counts == {key: count for key, count in visible.items() if any(count)}
    indexed = {index: dict(store.index_range(index, b"", None)) for index in (layout.DB_EXPIRY, layout.DB_TOMBSTONES)}
    numbers = {owner: number for number, owner in enumerate(_actors(store))}
    for key, rows in expected.items():
        for suffix, row in rows.items():
            for index, (index_key, lmdb_key) in index_entries(
                layout.row_key(KEYSPACE, key, suffix), row, numbers.__getitem__
            ):
                assert index == layout.DB_SWEEPS or indexed[index][index_key] == lmdb_key


def _actors(store: LmdbStore) -> list[Actor]:
    reading = store.read()
    actors = reading.actors()
    reading.close()
    return actors


@settings(max_examples=60, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_a_fold_is_the_join_of_every_key_with_its_counts_and_indexes(history: History, dice: Random) -> None:
    """Clears that are not swept yet, keys that one side lacks, long keys, and actors that have other numbers there."""
    _, copies = copies_of(history, purges=True)
    a, b = dice.choices(copies, k=2)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_module, "SPOOL_SLICE_ROWS", dice.choice((1, 3, 1000)))
        patch.setattr("edgekv.store.spool.SPOOL_BLOCK_BYTES", dice.choice((1, 200, 1 << 18)))
        folder = Path(name)
        mine: dict[bytes, Rows] = {key: a.rows for key in KEYS if dice.random() < 0.8}
        theirs: dict[bytes, Rows] = {key: b.rows for key in KEYS if dice.random() < 0.8}
        source = store_of(folder / "source", theirs, b.vector)
        target = store_of(folder / "target", mine, a.vector, strangers=dice.choice((0, 2)))
        spool = spool_of(source, folder / "file")
        if dice.random() < 0.3:
            fold_into(target, folder / "file", spool)
        else:
            fold_in_pieces(target, folder / "file", spool, dice)
        assert not any(isinstance(row, Clear) for row in contents(target).values()), "they were carried out"
        assert_is_joined(target, mine, theirs, a, b)
        joined = target.applied()
        assert joined.vectors.get(KEYSPACE, {}) == joined_vector(chained(a.vector), chained(b.vector))
        assert joined.lsn == 6
        before = contents(target)
        with target.write() as transaction:  # again, as when LMDB's last commit was lost
            transaction.put_applied(
                fold(transaction, transaction.applied(), barrier_of(spool), reader_of(folder), lambda: None)
            )
        assert contents(target) == before
        source.close()
        target.close()


def reader_of(folder: Path) -> SpoolReader:
    return SpoolReader(folder / "file")


@settings(max_examples=30, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_an_empty_keyspace_takes_the_rows_over_as_they_are(history: History, dice: Random) -> None:
    _, copies = copies_of(history, purges=True)
    b = dice.choice(copies)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs: dict[bytes, Rows] = dict.fromkeys(KEYS, b.rows)
        source = store_of(folder / "source", theirs, b.vector)
        target = store_of(folder / "target", {}, {}, strangers=dice.choice((0, 2)))
        fold_into(target, folder / "file", spool_of(source, folder / "file"))
        assert_is_joined(target, {}, theirs, Copy({}, {}), b)
        source.close()
        target.close()


def test_a_fold_of_many_sets_is_many_transactions_and_one_of_a_large_set_is_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.store.spool.SPOOL_BLOCK_BYTES", 1 << 13)
    for name, sets, elements, fewest, most in (("small", 500, 4, 8, 12), ("large", 1, 2_000, 2, 3)):
        theirs: dict[bytes, Rows] = {
            b"%05d" % n: {element_suffix(b"%d" % i): Element(((B, n * elements + i + 1),)) for i in range(elements)}
            for n in range(sets)
        }
        folder = tmp_path / name
        source = store_of(folder / "source", theirs, {B: sets * elements})
        target = store_of(folder / "target", {}, {})
        folding = Folding(target.applied().lsn, barrier_of(spool_of(source, folder / "file")), reader_of(folder))
        applied, transactions = None, 0
        while applied is None:
            with target.write() as transaction:
                before = transaction.applied()
                applied = folding.step(transaction, before, lambda: None, rows_max=200)
                transaction.put_applied(applied or before)
            transactions += 1
            target.renew()
        folding.close()
        assert fewest <= transactions <= most, "a bound on dirty pages, and on how often a large set is counted"
        assert counts_of(target) == dict.fromkeys(theirs, (elements, 0))


def test_siblings_are_joined_and_stored_under_their_expiries(tmp_path: Path) -> None:
    kept, seen, new = Sibling(A, 2, 5, b"kept"), Sibling(A, 1, 4, b"seen"), Sibling(B, 1, 6, b"new", 900)
    source = store_of(tmp_path / "source", {b"k": {SUFFIX_SIBLINGS: Siblings((new,))}}, {A: 1, B: 1})
    target = store_of(tmp_path / "target", {b"k": {SUFFIX_SIBLINGS: Siblings((seen, kept))}}, {A: 2})
    fold_into(target, tmp_path / "file", spool_of(source, tmp_path / "file"))
    assert rows_by_key(target) == {b"k": {SUFFIX_SIBLINGS: Siblings((kept, new))}}
    assert [layout.expiry_of_index_key(key) for key, _ in target.index_range(layout.DB_EXPIRY, b"", None)] == [900]


def test_equal_rows_are_not_written_again(tmp_path: Path) -> None:
    rows: dict[bytes, Rows] = {b"%d" % n: {SUFFIX_REGISTER: Cell(b"v", n, A, n)} for n in range(1, 9)}
    source, target = (
        store_of(tmp_path / "source", rows, {A: 8}),
        store_of(tmp_path / "target", rows, {A: 8}, strangers=1),
    )
    spool = spool_of(source, tmp_path / "file")
    with target.write() as transaction:
        fold(transaction, transaction.applied(), barrier_of(spool), reader_of(tmp_path), lambda: None)
        assert not transaction.changed


def test_values_that_neither_side_had_seen_of_the_other_are_lost_and_told(tmp_path: Path) -> None:
    """Not those of which one replaced the other, nor deletions, nor what is the same on both sides."""
    field = field_suffix(b"f")

    def rows(side: Actor, hlc: int) -> dict[bytes, Rows]:
        name = b"mine" if side == A else b"theirs"
        return {
            b"apart": {SUFFIX_REGISTER: Cell(name, hlc, side, 5), field: Cell(name, hlc, side, 6)},
            b"deleted": {SUFFIX_REGISTER: Cell(None if side == B else name, hlc, side, 7)},
            b"deletes": {SUFFIX_REGISTER: Cell(None if side == A else name, hlc, side, 7)},
            b"same": {SUFFIX_REGISTER: Cell(b"same", hlc, side, 8)},
            b"seen": {SUFFIX_REGISTER: Cell(name, hlc, side, 1 if side == A else 9)},
            b"x": {SUFFIX_EXPIRY: Cell(b"", hlc, side, 9, 1_000 * hlc)},
        }

    mine = store_of(tmp_path / "mine", rows(A, 30), {A: 9, B: 1})
    theirs = store_of(tmp_path / "theirs", rows(B, 31), {A: 1, B: 9}, strangers=1)
    spool = spool_of(theirs, tmp_path / "spool")
    folding = Folding(mine.applied().lsn, barrier_of(spool), SpoolReader(tmp_path / "spool"))
    with mine.write() as transaction:
        applied = folding.step(transaction, transaction.applied(), lambda: None, rows_max=99)
        assert applied is not None
        transaction.put_applied(applied)
    lost = folding.lost()
    assert lost is not None and (lost.keyspace, lost.total) == (KEYSPACE, 3)
    assert [(each.key, each.field) for each in lost.newest] == [(b"apart", None), (b"apart", b"f"), (b"deleted", None)]
    kept, discarded = lost.newest[0].kept, lost.newest[0].discarded
    assert kept is not None
    assert (kept.value, kept.actor, kept.seq) == (b"theirs", B, 5)
    assert (discarded.value, discarded.actor, discarded.seq) == (b"mine", A, 5)
    folding.close()
    for store in (mine, theirs):
        store.close()


def test_a_value_that_came_late_where_those_are_dropped_makes_room_for_the_spools(tmp_path: Path) -> None:
    """Also where it had replaced that one; a deletion that came late stays. A barrier says so over a restart."""
    late, before = Cell(b"late", 90, A, 5), Cell(b"before", 10, B, 1)
    mine: dict[bytes, Rows] = {
        b"alone": {SUFFIX_REGISTER: late},
        b"deletes": {SUFFIX_REGISTER: late._replace(value=None)},
        b"earlier": {SUFFIX_REGISTER: late._replace(seq=3)},
        b"replaced": {SUFFIX_REGISTER: late, field_suffix(b"f"): late},
        b"since": {SUFFIX_REGISTER: late._replace(seq=7)},
    }
    theirs: dict[bytes, Rows] = {key: {SUFFIX_REGISTER: before} for key in mine if key != b"alone"}
    store = store_of(tmp_path / "mine", mine, {A: 7, B: 1})
    other = store_of(tmp_path / "theirs", theirs, {A: 3, B: 1}, strangers=1)
    spool = spool_of(other, tmp_path / "spool")
    (barrier,) = unpack_records(pack_barrier(barrier_of(spool)._replace(dropped=[(A, 4, 6)])))
    assert isinstance(barrier, Barrier) and barrier.dropped == [(A, 4, 6)]
    folding = Folding(store.applied().lsn, barrier, SpoolReader(tmp_path / "spool"))
    with store.write() as transaction:
        applied = folding.step(transaction, transaction.applied(), lambda: None, rows_max=99)
        assert applied is not None
        transaction.put_applied(applied)
    store.renew()
    assert {key: register_of(store, key) for key in mine} == {
        b"alone": None,
        b"deletes": late._replace(value=None),
        b"earlier": late._replace(seq=3),
        b"replaced": before,
        b"since": late._replace(seq=7),
    }
    lost = folding.lost()
    assert lost is not None
    assert [(each.key, each.field, each.kept and each.kept.value) for each in lost.newest] == [
        (b"alone", None, None),
        (b"replaced", None, b"before"),
        (b"replaced", b"f", None),
    ]
    folding.close()
    for each in (store, other):
        each.close()


def register_of(store: LmdbStore, key: bytes) -> Row | None:
    data = store.get(layout.lmdb_key(KEYSPACE, key, SUFFIX_REGISTER))
    return None if data is None else layout.decode_row(data, store.actor_of)


def test_histories_of_one_actor_that_differ_are_corruption() -> None:
    assert joined_vector({A: (3, 7)}, {A: (4, 9), B: (1, 1)}) == {A: (4, 9), B: (1, 1)}
    assert joined_vector({A: (4, 9)}, {A: (3, 7)}) == {A: (4, 9)}
    with pytest.raises(Corruption, match="different histories"):
        joined_vector({A: (3, 7)}, {A: (3, 8)})


def test_bit_rot_in_a_row_that_has_to_be_merged_is_found(tmp_path: Path) -> None:
    mine, theirs = Cell(b"mine", 5, A, 1, 900), Cell(b"theirs", 6, B, 1)
    source = store_of(tmp_path / "source", {b"k": {SUFFIX_REGISTER: theirs}}, {B: 1})
    target = store_of(tmp_path / "target", {b"k": {SUFFIX_REGISTER: mine}}, {A: 1})
    lmdb_key = layout.lmdb_key(KEYSPACE, b"k", SUFFIX_REGISTER)
    with target.write() as transaction:
        row = bytearray(transaction.get(lmdb_key) or b"")
        row[-1] ^= 1
        transaction.put_rows([(lmdb_key, bytes(row))])
    with pytest.raises(Corruption, match="damaged"):
        fold_into(target, tmp_path / "file", spool_of(source, tmp_path / "file"))


# -- in the applier


class Node:
    """A log with a BARRIER, its store and its applier."""

    def __init__(self, folder: Path, rows: dict[bytes, Rows], vector: Vector) -> None:
        self.log = NodeLog(folder)
        self.store = open_store(folder)
        self.applier = applier_of(self.store, folder)
        sync_path(folder).mkdir()
        self.file = spool_file(sync_path(folder), SPOOL)
        source = store_of(folder / "source", rows, vector)
        self.spool = spool_of(source, self.file)
        source.close()

    def barrier(self) -> int:
        return self.log.frame([pack_barrier(barrier_of(self.spool))])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, {b"k": {SUFFIX_REGISTER: Cell(b"theirs", 6, B, 1)}}, {B: 1})
    yield made
    made.store.close()


def test_a_barrier_is_a_transaction_of_its_own_between_what_is_before_and_behind_it(node: Node) -> None:
    before = node.log.put([b"a"], [b"1"], keyspace=KEYSPACE)
    barrier = node.barrier()
    node.log.ttl(123)
    end = node.log.put([b"b"], [b"2"], keyspace=KEYSPACE)
    lsns = []
    while (progress := node.applier.apply(end, None)) is not None:
        lsns.append((progress.lsn, progress.cleared))
        assert node.applier.purge_more or progress.lsn != barrier, "nothing was purged in there"
    assert lsns == [(before, False), (barrier, True), (end, False)], "and caches above LMDB know"
    assert {key for _, key, _ in contents(node.store)} == {b"a", b"b", b"k"}
    applied = node.store.applied()
    assert applied.vectors[KEYSPACE][B] == (1, 1001)
    assert applied.vectors[KEYSPACE][OWN][0] == 2
    assert (applied.hlcs[KEYSPACE], applied.ttl_ms) == (node.log.hlc, 123)


def test_a_generation_that_ends_at_the_barrier_leaves_it_alone(node: Node) -> None:
    before = node.log.put([b"a"], [b"1"], keyspace=KEYSPACE)
    node.barrier()
    node.applier.apply(before, None)
    assert node.applier.apply(before, None) is None
    assert node.store.applied().lsn == before


@pytest.mark.parametrize("at", [0, 30, -30, -3])
def test_a_spool_that_is_damaged_at_the_barrier_is_corruption_and_nothing_is_stored(node: Node, at: int) -> None:
    data = bytearray(node.file.read_bytes())
    data[at] ^= 1
    node.file.write_bytes(data)
    end = node.barrier()
    node.applier.apply(end, None)  # what is before it
    with pytest.raises(Corruption, match=r"spool|\.spool"):
        node.applier.apply(end, None)
    assert contents(node.store) == {}


def test_a_spool_that_is_gone_or_is_another_one_is_corruption(node: Node) -> None:
    other = barrier_of(node.spool)._replace(hlc=99)
    end = node.log.frame([pack_barrier(other)])
    node.applier.apply(end, None)
    with pytest.raises(Corruption, match="another spool"):
        node.applier.apply(end, None)
    node.file.unlink()
    with pytest.raises(Corruption, match="which is gone"):
        node.applier.apply(end, None)


def test_an_orphan_gives_a_fold_up(node: Node) -> None:
    end = node.barrier()
    node.applier.apply(end, None)
    with pytest.raises(AbortedError):
        node.applier.apply(end, None, poll=lambda: True)
    assert contents(node.store) == {}


def test_what_came_with_a_spool_is_purged_by_the_cut_as_anything_else(tmp_path: Path) -> None:
    rows: dict[bytes, Rows] = {
        b"deleted": {SUFFIX_REGISTER: Cell(None, 6, B, 1)},
        b"expired": {SUFFIX_REGISTER: Cell(b"v", 7, B, 2, 500)},
        b"k": {SUFFIX_REGISTER: Cell(b"v", 8, B, 3)},
    }
    node = Node(tmp_path, rows, {B: 3})
    node.barrier()
    end = node.log.put(
        [b"a"],
        [b"1"],
        keyspace=KEYSPACE,
    )
    stable = Stable(1000, {KEYSPACE: Cut({B: 3}, {B: 3}, frozenset())})
    while node.applier.apply(end, stable) is not None:
        pass
    assert {key for _, key, _ in contents(node.store)} == {b"a", b"k"}
    node.store.close()


def test_a_map_that_is_full_is_grown_and_the_fold_begins_anew(tmp_path: Path) -> None:
    rows: dict[bytes, Rows] = {b"%d" % n: {SUFFIX_REGISTER: Cell(bytes(3000), n, B, n)} for n in range(1, 400)}
    node = Node(tmp_path, rows, {B: 399})
    node.store.close()
    node.store = open_store(tmp_path, map_bytes=1 << 20)
    node.applier = applier_of(node.store, tmp_path)
    end = node.barrier()
    while node.applier.apply(end, None) is not None:
        pass
    assert len(contents(node.store)) == 399
    assert register_row(node.store, b"5", KEYSPACE) == rows[b"5"][SUFFIX_REGISTER]
    node.store.close()
