"""The layout of rows: order, long keys, round trips, canonical bytes, and damage that is noticed."""

from fractions import Fraction
from struct import Struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.checksum import crc32c
from edgekv.crdt.counter import Part
from edgekv.crdt.decimals import BOUND, UNITS, whole
from edgekv.crdt.operation import SUFFIX_EXPIRY, SUFFIX_REGISTER, SUFFIX_SIBLINGS, Row, counter_suffix
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import KEY_BYTES_MAX, LMDB_KEY_BYTES_MAX
from edgekv.store import layout

ACTORS = [Actor(bytes([n]) * 25) for n in range(4)]
KEYSPACE = KeyspaceId(7)


def intern(actor: Actor) -> int:
    return ACTORS.index(actor)


def actor_of(number: int) -> Actor:
    return ACTORS[number]


# Bytes near the ends and around the escape, and lengths on both sides of every limit.
tricky = st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 2, 3, 0xFE, 0xFF]), max_size=8).map(bytes)
lengths = st.sampled_from([0, 1, 400, 470, 472, 474, 475, 476, 500, 503, 504, 505, 600])
keys = st.builds(
    lambda head, fill, length, tail: (head + fill * length + tail) or b"\x00",
    tricky,
    st.sampled_from([b"a", b"\x00", b"\xff"]),
    lengths,
    tricky,
)
suffixes = st.sampled_from([SUFFIX_REGISTER, SUFFIX_EXPIRY, SUFFIX_SIBLINGS, *map(counter_suffix, ACTORS)])
rows_at = st.tuples(st.sampled_from([KeyspaceId(0), KeyspaceId(1), KeyspaceId(0x0100)]), keys, suffixes)

u63 = st.integers(0, (1 << 63) - 1)
actors = st.sampled_from(ACTORS)
cells = st.builds(
    Cell,
    st.none() | st.binary(max_size=40),
    u63,
    actors,
    u63,
    st.just(0) | u63,
    st.integers(0, 255),
    st.none() | st.tuples(actors, u63),
)
totals = st.one_of(
    st.integers(-(1 << 65), 1 << 65),
    st.sampled_from(
        [(1 << 63) - 1, -(1 << 63), 1 << 63, -(1 << 63) - 1, BOUND - 1, Fraction(1 - BOUND * UNITS, UNITS)]
    ),
    st.integers(-(1 << 90), 1 << 90).map(lambda units: whole(Fraction(units, UNITS))),
)
parts = st.builds(Part, totals, u63, totals, u63, st.none() | st.tuples(actors, u63), st.booleans())
siblings = st.lists(
    st.builds(Sibling, actors, st.integers(1, 5), u63, st.binary(max_size=20), st.just(0) | u63),
    min_size=1,
    max_size=4,
    unique_by=lambda sibling: sibling.dot,
).map(lambda values: Siblings(tuple(sorted(values))))
rows = cells | parts | siblings


@given(st.lists(rows_at, max_size=12))
def test_row_keys_sort_by_keyspace_key_and_suffix(addresses: list[tuple[KeyspaceId, bytes, bytes]]) -> None:
    assert sorted(addresses) == sorted(addresses, key=lambda address: layout.row_key(*address))


@given(rows_at)
def test_a_row_key_splits_into_what_it_was_made_of(address: tuple[KeyspaceId, bytes, bytes]) -> None:
    assert layout.split(layout.row_key(*address)) == address


@given(st.lists(rows_at, min_size=1, max_size=12, unique=True))
def test_every_row_has_an_lmdb_key_of_its_own_within_the_limit(
    addresses: list[tuple[KeyspaceId, bytes, bytes]],
) -> None:
    lmdb_keys = [layout.lmdb_key(*address) for address in addresses]
    assert len(set(lmdb_keys)) == len(addresses)
    assert max(map(len, lmdb_keys)) <= LMDB_KEY_BYTES_MAX


@given(st.lists(rows_at, max_size=12))
def test_lmdb_keys_respect_the_order_of_rows_up_to_the_order_prefix(
    addresses: list[tuple[KeyspaceId, bytes, bytes]],
) -> None:
    in_lmdb = sorted((layout.lmdb_key(*address), layout.row_key(*address)) for address in addresses)
    prefixes = [layout.order_prefix(row_key) for _, row_key in in_lmdb]
    assert prefixes == sorted(prefixes)
    assert prefixes == [layout.order_prefix(lmdb_key) for lmdb_key, _ in in_lmdb]
    sorted_in_groups = sorted((layout.order_prefix(lmdb_key), row_key) for lmdb_key, row_key in in_lmdb)
    assert [row_key for _, row_key in sorted_in_groups] == sorted(row_key for _, row_key in in_lmdb)


@given(keys, keys, suffixes)
def test_the_rows_of_a_key_lie_between_its_start_and_its_end(key: bytes, other: bytes, suffix: bytes) -> None:
    start, end = layout.key_start(KEYSPACE, key), layout.key_end(KEYSPACE, key)
    assert start < layout.row_key(KEYSPACE, key, suffix) < end
    inside = start <= layout.row_key(KEYSPACE, other, suffix) < end
    assert inside == (other == key)


@given(keys)
def test_a_keyspace_ends_where_the_next_one_starts(key: bytes) -> None:
    row_key = layout.row_key(KEYSPACE, key, SUFFIX_REGISTER)
    assert layout.key_start(KEYSPACE, b"") < row_key < layout.key_start(KeyspaceId(KEYSPACE + 1), b"")


def test_the_longest_key_fits() -> None:
    lmdb_key = layout.lmdb_key(KEYSPACE, b"\x00" * KEY_BYTES_MAX, counter_suffix(ACTORS[0]))
    assert len(lmdb_key) == LMDB_KEY_BYTES_MAX


@given(rows_at, rows)
@settings(max_examples=300)
def test_a_row_is_what_was_encoded_and_passes_its_check(address: tuple[KeyspaceId, bytes, bytes], row: Row) -> None:
    row_key, lmdb_key = layout.row_key(*address), layout.lmdb_key(*address)
    stored = layout.encode_row(row_key, row, intern)
    assert layout.decode_row(stored, actor_of) == row
    assert layout.row_key_of(lmdb_key, stored) == row_key
    assert layout.check_row(lmdb_key, stored)


@given(rows_at, rows)
def test_equal_rows_have_equal_bytes(address: tuple[KeyspaceId, bytes, bytes], row: Row) -> None:
    row_key = layout.row_key(*address)
    stored = layout.encode_row(row_key, row, intern)
    assert layout.encode_row(row_key, layout.decode_row(stored, actor_of), intern) == stored


@given(st.sampled_from([b"k", b"k" * 600]), rows, st.data())
def test_every_flipped_bit_and_every_cut_is_noticed(key: bytes, row: Row, data: st.DataObject) -> None:
    row_key = layout.row_key(KEYSPACE, key, SUFFIX_REGISTER)
    lmdb_key, stored = layout.lmdb_key_of(row_key), layout.encode_row(row_key, row, intern)
    position = data.draw(st.integers(0, len(stored) * 8 - 1))
    flipped = bytearray(stored)
    flipped[position // 8] ^= 1 << position % 8
    assert not layout.check_row(lmdb_key, bytes(flipped))
    assert not layout.check_row(lmdb_key, stored[: position // 8])


@pytest.mark.parametrize("key", [b"k", b"k" * 600])
def test_a_row_under_another_key_is_noticed(key: bytes) -> None:
    stored = layout.encode_row(layout.row_key(KEYSPACE, key, SUFFIX_REGISTER), Cell(b"v", 1, ACTORS[0], 1), intern)
    assert not layout.check_row(layout.lmdb_key(KEYSPACE, key + b"x", SUFFIX_REGISTER), stored)


def test_a_long_row_whose_own_key_is_another_is_noticed() -> None:
    """Its CRC is right, so only the comparison of the keys can tell."""
    here, elsewhere = (layout.row_key(KEYSPACE, byte * 600, SUFFIX_REGISTER) for byte in (b"a", b"b"))
    body = layout.encode_row(elsewhere, Cell(b"v", 1, ACTORS[0], 1), intern)
    lmdb_key = layout.lmdb_key_of(here)
    forged = body[:1] + Struct("<I").pack(crc32c(lmdb_key + body[:1] + body[5:])) + body[5:]
    assert not layout.check_row(lmdb_key, forged)


@given(
    st.lists(st.tuples(keys | st.binary(min_size=1, max_size=12), st.binary(max_size=20)), max_size=6),
    st.integers(1, 1 << 62),
    st.integers(1, 1 << 62),
)
def test_rows_encoded_in_bulk_are_those_encoded_one_by_one(
    pairs: list[tuple[bytes, bytes]], first_hlc: int, first_seq: int
) -> None:
    contents = layout.plain_contents([value for _, value in pairs], first_hlc, first_seq, 2)
    encoded = layout.plain_rows(KEYSPACE, [key for key, _ in pairs], contents)
    expected = []
    for i, (key, value) in enumerate(pairs):
        row_key = layout.row_key(KEYSPACE, key, SUFFIX_REGISTER)
        cell = Cell(value, first_hlc + i, ACTORS[2], first_seq + i)
        expected.append((layout.lmdb_key_of(row_key), layout.encode_row(row_key, cell, intern)))
    assert encoded == expected


def test_a_number_that_is_no_integer_is_stored_in_units_of_its_last_digit() -> None:
    row_key = layout.row_key(KeyspaceId(1), b"a", SUFFIX_REGISTER)
    part = layout.encode_row(row_key, Part(Fraction(-1, 10), 2, 1, 1, None, fresh=True), intern)
    assert part[:1].hex() == "e0"
    assert part[5:].hex() == "0200000000000000" + "0100000000000000" + "0780" + "00003f900d79dc" + "0100" + "01"


def test_a_plain_row_shows_its_value_without_decoding() -> None:
    ((_, stored),) = layout.plain_rows(KEYSPACE, [b"key"], layout.plain_contents([b"value"], 1, 1, 0))
    assert stored[0] == 0
    assert stored[layout.PLAIN_VALUE_OFFSET :] == b"value"


def test_the_bytes_of_rows_are_those_of_the_table() -> None:
    """A change of any of these is a change of the format on disk."""
    contents = layout.plain_contents([b"v"], 0x0102, 3, 4)
    ((lmdb_key, plain),) = layout.plain_rows(KeyspaceId(1), [b"a\x00b"], contents)
    assert lmdb_key.hex() == "00000001" + "6100ff62" + "0001"
    assert plain.hex() == "00" + "18012758" + "0201000000000000" + "0300000000000000" + "04000000" + "76"
    row_key = layout.row_key(KeyspaceId(1), b"a", SUFFIX_REGISTER)
    full = layout.encode_row(row_key, Cell(None, 1, ACTORS[1], 2, 3, 4, (ACTORS[2], 5)), intern)
    assert full[:1].hex() == "1b"
    assert full[5:].hex() == ("0100000000000000020000000000000001000000030000000000000004020000000500000000000000")
    part = layout.encode_row(row_key, Part(-1, 2, 1 << 63, 1, None, fresh=True), intern)
    assert part[:1].hex() == "e0"
    assert part[5:].hex() == "0200000000000000" + "0100000000000000" + "0100" + "ff" + "0900" + "000000000000008000"


@given(st.lists(st.tuples(u63, st.binary(min_size=1, max_size=9)), max_size=8))
def test_the_expiry_index_is_ordered_by_expiry(entries: list[tuple[int, bytes]]) -> None:
    index = sorted(layout.expiry_index_key(expiry_ms, lmdb_key) for expiry_ms, lmdb_key in entries)
    assert [layout.expiry_of_index_key(key) for key in index] == sorted(expiry_ms for expiry_ms, _ in entries)
    assert len(set(index)) == len(set(entries)), "rows of one expiry have entries of their own"


@given(st.lists(st.tuples(st.integers(0, 3), u63, st.binary(min_size=1, max_size=9)), max_size=8))
def test_the_tombstone_index_is_ordered_by_dot(entries: list[tuple[int, int, bytes]]) -> None:
    index = sorted(layout.tombstone_index_key(*entry) for entry in entries)
    assert [layout.dot_of_index_key(key) for key in index] == sorted((number, seq) for number, seq, _ in entries)
    assert len(set(index)) == len(set(entries))


def test_the_names_under_meta_are_distinct() -> None:
    names = [layout.META_FORMAT, layout.META_APPLIED_LSN, layout.META_TTL]
    for keyspace in (KeyspaceId(0), KeyspaceId(1)):
        names += [layout.meta_vector(keyspace), layout.meta_hlc(keyspace), layout.meta_mixed(keyspace)]
    assert len(set(names)) == len(names)
