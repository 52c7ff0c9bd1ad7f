"""Spools: what is written comes back, what was damaged is found, what does not travel stays at home."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.joins import Rows, swept
from edgekv.crdt.operation import (
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SET_CLEAR,
    Row,
    element_suffix,
    field_suffix,
)
from edgekv.crdt.register import Cell
from edgekv.errors import Corruption, EdgeKVError, FormatUnknown, Unavailable
from edgekv.ids import KeyspaceId
from edgekv.store import layout
from edgekv.store.applied import Applied
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool import SpoolReader, SpoolWriter, keep, spool_file, spool_ids
from edgekv.store.spool_check import SpoolCheck
from tests.unit.store.test_fold import KEYS, KEYSPACE, SPOOL, A, B, chained, spool_of, store_of

ROWS: Final[dict[bytes, Row]] = {
    SUFFIX_REGISTER: Cell(b"value", 5, A, 1),
    element_suffix(b"both"): Element(((A, 1), (B, 1))),
    element_suffix(b"hidden"): Element(((A, 1),)),
    SUFFIX_SET_CLEAR: Clear(((A, 1),)),
    field_suffix(b"hidden"): Cell(b"v", 5, A, 1),
    field_suffix(b"shown"): Cell(b"v", 7, A, 2, 900),
    SUFFIX_MAP_CLEAR: Cell(None, 6, B, 1),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = store_of(tmp_path / "store", dict.fromkeys(KEYS, ROWS), {A: 2, B: 1}, strangers=3)
    yield store
    store.close()


def rows_in(file: Path) -> dict[tuple[bytes, bytes], Row]:
    reader = SpoolReader(file)
    found: dict[tuple[bytes, bytes], Row] = {}
    for block in reader.blocks():
        for lmdb_key, row in block:
            assert layout.check_row(lmdb_key, row)
            _, key, suffix = layout.split(layout.row_key_of(lmdb_key, row))
            found[key, suffix] = layout.decode_row(row, reader.head.actors.__getitem__)
    reader.close()
    return found


def check(file: Path, owns: Callable[[bytes], bool] = lambda _: True) -> None:
    checked = SpoolCheck(file, owns)
    try:
        while checked.step():
            pass
    finally:
        checked.close()


def test_all_rows_of_the_keyspace_come_back_with_clears_carried_out_and_without_counts(
    store: LmdbStore, tmp_path: Path
) -> None:
    summary = spool_of(store, tmp_path / "file")
    rows = rows_in(tmp_path / "file")
    assert rows == {(key, suffix): row for key in KEYS for suffix, row in swept(ROWS).items()}
    assert summary.rows == len(rows)
    assert summary.bytes == (tmp_path / "file").stat().st_size
    check(tmp_path / "file")


def test_a_check_looks_at_every_row_a_few_at_a_time(
    store: LmdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.store.spool_check.SPOOL_CHECK_ROWS", 2)
    summary = spool_of(store, tmp_path / "file")
    seen: list[bytes] = []
    checked = SpoolCheck(tmp_path / "file", lambda key: not seen.append(key))  # type: ignore[func-returns-value] # None
    steps = 0
    while checked.step():
        steps += 1
    assert steps >= summary.rows // 2
    assert set(seen) == set(KEYS)


def test_the_head_says_what_the_same_transaction_holds_of_the_keyspace(store: LmdbStore, tmp_path: Path) -> None:
    with store.write() as transaction:
        vectors = {KEYSPACE: chained({A: 2, B: 1}), 8: chained({A: 9})}
        transaction.put_applied(Applied(6, {**vectors}, {KEYSPACE: 44, 8: 99}, frozenset([KEYSPACE]), 1234))
    writer = SpoolWriter(store, KEYSPACE, tmp_path / "file")
    with store.write() as transaction:  # what comes later is not in it
        transaction.put_rows(layout.plain_rows(KEYSPACE, [b"later"], layout.plain_contents([b"v"], 50, 3, 3)))
        transaction.put_applied(Applied(7, {KEYSPACE: chained({A: 3, B: 1})}, {KEYSPACE: 50}, frozenset(), 1234))
    while writer.step(1):
        pass
    head = SpoolReader(tmp_path / "file").head
    assert head == writer.summary.head
    assert (head.keyspace, head.vector, head.hlc, head.ttl_ms, head.mixed) == (
        KEYSPACE,
        chained({A: 2, B: 1}),
        44,
        1234,
        True,
    )
    assert (b"later", SUFFIX_REGISTER) not in rows_in(tmp_path / "file")


def test_an_empty_keyspace_is_an_empty_spool(store: LmdbStore, tmp_path: Path) -> None:
    writer = SpoolWriter(store, KeyspaceId(99), tmp_path / "file")
    assert not writer.step()
    assert (writer.summary.rows, writer.head.vector, rows_in(tmp_path / "file")) == (0, {}, {})


def test_a_slice_is_bounded_in_rows_and_bytes(tmp_path: Path) -> None:
    large: dict[bytes, Rows] = {b"%d" % n: {SUFFIX_REGISTER: Cell(bytes(1 << 20), n, A, n)} for n in range(1, 9)}
    store = store_of(tmp_path / "store", large, {A: 8})
    for rows_max, at_least in ((3, 2), (1000, 1)):
        writer = SpoolWriter(store, KEYSPACE, tmp_path / "file")
        slices = 0
        while writer.step(rows_max):
            slices += 1
        assert slices >= at_least
    store.close()


def test_a_store_that_is_closed_ends_a_writer_with_a_sentence(store: LmdbStore, tmp_path: Path) -> None:
    reading = store.read()
    store.close()
    with pytest.raises(Unavailable, match="Begin again"):
        reading.applied()
    reading.close()


def test_bit_rot_does_not_leave_the_store(store: LmdbStore, tmp_path: Path) -> None:
    lmdb_key = layout.lmdb_key(KEYSPACE, KEYS[0], SUFFIX_REGISTER)
    with store.write() as transaction:
        row = bytearray(transaction.get(lmdb_key) or b"")
        row[-1] ^= 1
        transaction.put_rows([(lmdb_key, bytes(row))])
    with pytest.raises(Corruption, match="damaged"):
        spool_of(store, tmp_path / "file")


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 1 << 30), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_byte_or_a_cut_anywhere_is_found_before_the_end_is_reached(at: int, flip: int, cut: bool) -> None:
    file = _damaged(at, flip, cut=cut)
    with pytest.raises((Corruption, FormatUnknown)):
        rows_in(file)
    with pytest.raises((Corruption, FormatUnknown)):
        check(file)


_WHOLE: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("spool")
    store = store_of(folder / "store", dict.fromkeys(KEYS, ROWS), {A: 2, B: 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekv.store.spool.SPOOL_BLOCK_BYTES", 300)
        spool_of(store, folder / "whole")
    store.close()
    _WHOLE[:] = [folder / "whole"]


def _damaged(at: int, flip: int, *, cut: bool) -> Path:
    data = bytearray(_WHOLE[0].read_bytes())
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= flip
    file = _WHOLE[0].with_name("damaged")
    file.write_bytes(data)
    return file


def test_a_block_that_is_missing_between_good_ones_is_found(tmp_path: Path) -> None:
    """Each block's CRC is right; the digest is not."""
    data = _WHOLE[0].read_bytes()
    at, offsets = 12, []
    while at < len(data):
        offsets.append(at)
        at += 9 + int.from_bytes(data[at + 1 : at + 5], "little")
    file = tmp_path / "file"
    file.write_bytes(data[: offsets[2]] + data[offsets[3] :])
    with pytest.raises(Corruption):
        rows_in(file)
    file.write_bytes(data + b"more")
    with pytest.raises(Corruption):
        rows_in(file)


def test_a_later_releases_spool_is_refused_with_a_sentence(tmp_path: Path) -> None:
    data = bytearray(_WHOLE[0].read_bytes())
    data[8] = 2
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(FormatUnknown, match="spool format 2"):
        SpoolReader(tmp_path / "file")


def test_rows_at_keys_of_another_keyspace_are_refused(store: LmdbStore, tmp_path: Path) -> None:
    spool_of(store, tmp_path / "file")
    with pytest.raises(Corruption, match="no store has"):
        check(tmp_path / "file", lambda key: key != KEYS[3])


@pytest.mark.parametrize("harm", ["count", "clear", "order", "keyspace", "suffix", "actor", "short"])
def test_rows_that_no_store_would_send_are_refused(tmp_path: Path, harm: str) -> None:
    """By the check of what came from elsewhere, though every CRC is right."""
    store = store_of(tmp_path / "store", {b"k": {SUFFIX_REGISTER: Cell(b"v", 5, A, 1)}}, {A: 1})
    plain = layout.row_key(KEYSPACE, b"k", SUFFIX_REGISTER)
    rows: dict[bytes, bytes] = {}

    def put(row_key: bytes, row: layout.StoredRow, number: int = 0) -> None:
        rows[layout.lmdb_key_of(row_key)] = layout.encode_row(row_key, row, lambda _: number)

    put(plain, Cell(b"v", 5, A, 1))
    match harm:
        case "count":
            put(layout.row_key(KEYSPACE, b"k", layout.SUFFIX_COUNT), layout.Count(1, 0))
        case "clear":
            put(layout.row_key(KEYSPACE, b"k", SUFFIX_SET_CLEAR), Clear(((A, 1),)))
        case "order":
            put(layout.row_key(KEYSPACE, b"j", SUFFIX_REGISTER), Cell(b"v", 5, A, 1))
        case "keyspace":
            put(layout.row_key(KeyspaceId(KEYSPACE + 1), b"k", SUFFIX_REGISTER), Cell(b"v", 5, A, 1))
        case "suffix":
            put(layout.row_key(KEYSPACE, b"k", element_suffix(b"e")), Cell(b"v", 5, A, 1))
        case "actor":
            put(layout.row_key(KEYSPACE, b"l", SUFFIX_REGISTER), Cell(b"v", 5, A, 1), number=1)
        case "short":
            rows[layout.row_key(KEYSPACE, b"l", SUFFIX_REGISTER)] = b"\x00"
    _write_rows(tmp_path / "file", store, list(rows.items()))
    with pytest.raises(Corruption, match="no store has"):
        check(tmp_path / "file")
    store.close()


def _write_rows(file: Path, store: LmdbStore, rows: list[tuple[bytes, bytes]]) -> None:
    """A spool whose rows are these, by the writer's own hand."""
    writer = SpoolWriter(store, KEYSPACE, file)
    writer._parts += [part for key, row in rows for part in (_head(key, row), key, row)]
    writer._row_count += len(rows)
    writer._finish()


def _head(key: bytes, row: bytes) -> bytes:
    return len(key).to_bytes(2, "little") + len(row).to_bytes(4, "little")


def test_a_spool_that_is_kept_has_its_name_and_others_are_not_spools(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(_WHOLE[0].read_bytes())
    (tmp_path / "strange.spool").write_bytes(b"")
    keep(tmp_path / "part", tmp_path, SPOOL)
    assert spool_ids(tmp_path) == [SPOOL]
    check(spool_file(tmp_path, SPOOL))
    assert not (tmp_path / "part").exists()


def test_a_file_that_is_no_spool_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something else, long enough")
    with pytest.raises(EdgeKVError, match="is no spool"):
        SpoolReader(tmp_path / "file")
