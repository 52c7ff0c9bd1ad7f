"""LMDB as the store uses it: readers, growth, latching, what a full disk does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import lmdb
import pytest

from edgekv.crdt.operation import counter_suffix
from edgekv.crdt.register import Cell
from edgekv.errors import Corruption, FormatUnknown, Unavailable
from edgekv.ids import SESSION_BYTES, Actor, KeyspaceId
from edgekv.limits import LMDB_RESERVE_BYTES
from edgekv.store import layout, operation_rows
from edgekv.store.applied import NOTHING_APPLIED, Applied
from edgekv.store.lmdb_store import LmdbStore, MapFull, StoreError, disk_is_full
from tests.unit.store.node_log import OTHER, OWN, TINY_DISK_BYTES, fill_disk

KS = KeyspaceId(0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore.open(tmp_path / "store", readonly=False, map_bytes=1 << 30)
    yield opened
    opened.close()


def put(store: LmdbStore, key: bytes, value: bytes, suffix: bytes = b"\x01") -> bytes:
    """Store a cell in a transaction of its own; its LMDB key."""
    row_key = layout.row_key(KS, key, suffix)
    with store.write() as transaction:
        row = layout.encode_row(row_key, Cell(value, 1, OWN, 1), transaction.intern)
        transaction.put_rows([(layout.lmdb_key_of(row_key), row)])
    return layout.lmdb_key_of(row_key)


def test_a_commit_is_seen_after_renew_and_not_before(store: LmdbStore) -> None:
    key = put(store, b"a", b"1")
    assert store.get(key) is None
    store.renew()
    assert store.get(key) is not None


@pytest.mark.parametrize("readonly", [False, True])
def test_what_a_killed_process_committed_last_is_durable_when_a_writer_has_opened(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch, readonly: bool
) -> None:
    """Its meta page is not synced: a power cut could take it back after others have gone on from there."""
    synced: list[Path] = []
    put(store, b"a", b"1")
    monkeypatch.setattr(LmdbStore, "sync", lambda self: synced.append(self.path))
    copy = store.path.with_name("copy")
    copytree(store.path, copy)
    opened = LmdbStore.open(copy, readonly=readonly, map_bytes=1 << 30)
    assert synced == ([] if readonly else [copy])
    opened.close()


def test_what_was_applied_comes_back_as_it_was_stored(store: LmdbStore) -> None:
    assert store.applied() == NOTHING_APPLIED
    applied = Applied(9, {1: {OWN: (3, 77), OTHER: (1, 5)}, 258: {}}, {1: 42}, frozenset([258]), 1234)
    with store.write() as transaction:
        transaction.put_applied(applied)
    store.renew()
    assert store.applied() == applied


def test_a_lower_applied_lsn_cannot_be_stored(store: LmdbStore) -> None:
    with store.write() as transaction:
        transaction.put_applied(NOTHING_APPLIED._replace(lsn=5))
    with pytest.raises(AssertionError, match="never falls"), store.write() as transaction:
        transaction.put_applied(NOTHING_APPLIED._replace(lsn=4))


def test_actors_keep_their_numbers_and_those_of_an_aborted_transaction_are_given_again(store: LmdbStore) -> None:
    with store.write() as transaction:
        assert [transaction.intern(OWN), transaction.intern(OWN)] == [0, 0]
    writing = store.write()
    assert writing.__enter__().intern(OTHER) == 1
    abort = RuntimeError("abort")
    assert not writing.__exit__(RuntimeError, abort, None)
    third = Actor(b"t" * 25)
    with store.write() as transaction:
        assert [transaction.intern(third), transaction.number_of(OTHER)] == [1, None]
    store.renew()
    assert [store.actor_of(0), store.actor_of(1)] == [OWN, third]


def test_a_row_that_names_an_unknown_actor_is_corruption(store: LmdbStore) -> None:
    with pytest.raises(Corruption, match="actor number 7"):
        store.actor_of(7)


@pytest.mark.parametrize("length", [1, 470, 474, 475, 476, 480, 504, 600, 4096])
def test_all_rows_of_a_key_and_only_those_are_found_whatever_its_length(store: LmdbStore, length: int) -> None:
    key = b"k" * length
    neighbours = [key[:-1] + b"j", key + b"\x00", key + b"k", key[:-1] or b"\x00"]
    suffixes = [b"\x01", b"\x02", counter_suffix(OWN), counter_suffix(OTHER)]
    for name in [key, *neighbours]:
        for suffix in suffixes:
            put(store, name, name, suffix)
    store.renew()
    found = store.string_rows(KS, key, [OWN, OTHER])
    assert sorted(suffix for suffix, _ in found) == suffixes
    assert {layout.decode_row(row, store.actor_of)[0] for _, row in found} == {key}


def test_a_map_that_is_full_stores_nothing_until_it_has_grown(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "store", readonly=False, map_bytes=64 << 10)
    rows = [(b"%08d" % n, b"v" * 1000) for n in range(100)]
    with pytest.raises(MapFull), store.write() as transaction:
        transaction.put_rows(rows)
    store.renew()
    assert list(store.range(b"", None)) == []
    store.grow()
    store.grow()
    with store.write() as transaction:
        transaction.put_rows(rows)
    store.renew()
    assert list(store.range(b"", None)) == rows
    store.close()


IN_CHILD = """
import sys
from pathlib import Path
from edgekv.store.lmdb_store import LmdbStore
store = LmdbStore.open(Path(sys.argv[1]), readonly=sys.argv[2] == "reader", map_bytes=1 << 18)
"""


def child(path: Path, role: str, code: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", IN_CHILD + code, str(path), role]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate("go\n", timeout=60)
    return output


def test_a_reader_in_another_process_follows_a_map_that_grew(tmp_path: Path) -> None:
    path = tmp_path / "store"
    LmdbStore.open(path, readonly=False, map_bytes=1 << 18).close()
    code = 'print("open", flush=True); input(); store.renew(); print(len(list(store.range(b"", None))))'
    reader = child(path, "reader", code)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    writer = LmdbStore.open(path, readonly=False, map_bytes=1 << 18)
    writer.grow()
    writer.grow()
    writer.grow()
    with writer.write() as transaction:
        transaction.put_rows((b"%08d" % n, b"v" * 1000) for n in range(500))
    assert finish(reader) == "500\n"
    writer.close()


def test_a_killed_reader_does_not_pin_pages_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = LmdbStore.open(path, readonly=False, map_bytes=1 << 30)
    rows = [(b"%08d" % n, b"v" * 1000) for n in range(500)]
    for _ in range(3):
        with store.write() as transaction:
            transaction.put_rows(rows)
    reader = child(path, "reader", 'print("open", flush=True); input()')
    assert reader.stdout is not None
    reader.stdout.readline()
    reader.kill()
    reader.communicate()
    store.renew()
    pinned = (path / "data.mdb").stat().st_size
    for _ in range(10):
        with store.write() as transaction:
            transaction.put_rows(rows)
        store.renew()
    assert (path / "data.mdb").stat().st_size < 1.5 * pinned
    store.close()


def test_after_an_error_of_lmdb_no_further_transaction_is_begun(store: LmdbStore) -> None:
    with pytest.raises(StoreError), store.write() as transaction:
        transaction.put_rows([(b"k" * 600, b"longer than LMDB takes")])
    with pytest.raises(Unavailable, match="LMDB failed before"), store.write():
        pass


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    LmdbStore.open(tmp_path, readonly=False, map_bytes=1 << 20).close()
    environment = lmdb.open(str(tmp_path), max_dbs=8, lib_version=0)
    with environment.begin(write=True, db=environment.open_db(layout.DB_META)) as transaction:
        transaction.put(layout.META_FORMAT, b"2")
    environment.close()
    with pytest.raises(FormatUnknown, match="store format b'2'"):
        LmdbStore.open(tmp_path, readonly=False, map_bytes=1 << 20)


def test_a_directory_that_is_no_environment_is_refused_to_a_reader_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        LmdbStore.open(tmp_path / "absent", readonly=True)


def test_deleted_rows_become_reusable_bytes(store: LmdbStore) -> None:
    keys = [b"%08d" % n for n in range(2000)]
    with store.write() as transaction:
        transaction.put_rows((key, b"v" * 1000) for key in keys)
    store.renew()
    before = store.reusable_bytes()
    with store.write() as transaction:
        for key in keys:
            transaction.delete(key)
    store.renew()
    assert store.reusable_bytes() - before > 2_000_000


def test_on_a_full_disk_a_commit_fails_deletes_go_on_in_the_reserve_and_give_room_back(tiny_disk: Path) -> None:
    store = LmdbStore.open(tiny_disk / "store", readonly=False, map_bytes=1 << 30)
    keys = [b"%08d" % n for n in range(4000)]
    with store.write() as transaction:
        transaction.put_rows((key, b"v" * 1000) for key in keys)
    store.renew()
    assert store.reserve()
    assert not disk_is_full(tiny_disk)
    fill_disk(tiny_disk)
    assert disk_is_full(tiny_disk)
    with pytest.raises(StoreError), store.write() as transaction:
        transaction.put_rows((b"new" + key, b"v" * 3000) for key in keys)
    store.reopen()
    assert len(list(store.range(b"", None))) == 4000, "what was committed before the failure"
    for start in range(0, 4000, 100):
        with store.write() as transaction:
            for key in keys[start : start + 100]:
                transaction.delete(key)
        store.renew()
    assert list(store.range(b"", None)) == []
    assert store.reusable_bytes() > 3_000_000
    store.close()


def test_a_reserve_that_does_not_fit_is_reported(tiny_disk: Path) -> None:
    store = LmdbStore.open(tiny_disk / "store", readonly=False, map_bytes=1 << 30)
    (tiny_disk / "filler").write_bytes(bytes(TINY_DISK_BYTES - LMDB_RESERVE_BYTES))
    assert not store.reserve()
    (tiny_disk / "filler").unlink()
    assert store.reserve()
    store.close()


def test_a_store_from_before_operation_ids_can_be_read_and_becomes_one_with_them(tmp_path: Path) -> None:
    path = tmp_path / "store"
    old = LmdbStore.open(path, readonly=False)
    with old.write() as transaction:
        transaction.put_applied(NOTHING_APPLIED._replace(lsn=5))
    old.close()
    with lmdb.open(str(path), max_dbs=16) as environment:
        database = environment.open_db(layout.DB_OPERATIONS)
        with environment.begin(write=True) as drop:
            drop.drop(database)
    reader = LmdbStore.open(path, readonly=True)
    assert reader.applied().lsn == 5, "edgekv wal inspect and salvage ask for it before the node has started again"
    reader.close()
    writer = LmdbStore.open(path, readonly=False)
    assert operation_rows.load(writer) == (0, [])
    with writer.write() as transaction:
        operation_rows.save(transaction, {b"s" * SESSION_BYTES: {1: b":1\r\n"}})
    writer.close()
