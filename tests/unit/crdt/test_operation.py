"""Operations: what is refused, what survives the wire, and which rows they become."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.codec import pack, unpack
from edgekv.crdt import operation
from edgekv.crdt.counter import Part
from edgekv.crdt.operation import (
    ADD,
    DELETE,
    EXPIRE,
    PUT,
    RESET,
    SUFFIX_EXPIRY,
    SUFFIX_REGISTER,
    Operation,
    Row,
    counter_suffix,
    decode_integer,
    encode_integer,
    merge_row,
    rows_of,
    validate,
    validate_change,
)
from edgekv.crdt.register import Cell
from edgekv.errors import InvalidRequest
from edgekv.limits import COUNTER_BYTES_MAX, KEY_BYTES_MAX
from tests.unit.crdt.histories import actor

A, B = actor(1), actor(2)

keys = st.binary(min_size=1, max_size=20)
times = st.integers(0, (1 << 63) - 1)
numbers = st.integers(-(1 << 90), 1 << 90)
well_formed: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just(PUT), keys, st.binary(max_size=30), times),
    st.tuples(st.just(DELETE), keys),
    st.tuples(st.just(DELETE), keys, times),
    st.tuples(st.just(ADD), keys, numbers.map(encode_integer), times, numbers.map(encode_integer), st.integers(0, 1)),
    st.tuples(
        st.just(RESET),
        keys,
        st.lists(st.tuples(st.sampled_from([A, B]), times, numbers.map(encode_integer)), min_size=1, max_size=3),
    ),
    st.tuples(st.just(EXPIRE), keys, times),
    st.tuples(st.just(EXPIRE), keys, st.just(0), times),
)


@given(well_formed)
def test_an_operation_means_the_same_after_the_wire(op: Operation) -> None:
    validate(op)
    packed = pack(op)
    received = unpack(packed)
    validate(received)
    assert rows_of(received, A, 7, 99) == rows_of(op, A, 7, 99)
    assert pack(received) == packed


@given(numbers)
def test_integers_travel_as_short_as_possible(number: int) -> None:
    encoded = encode_integer(number)
    assert decode_integer(encoded) == number
    assert isinstance(encoded, int) == (-(1 << 63) <= number < 1 << 63)
    if isinstance(encoded, bytes):
        assert int.from_bytes(encoded[1:], "big", signed=True) != number


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=30)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@given(junk | st.lists(junk, max_size=5).map(lambda tail: [*tail[:0], 1 + len(tail) % 5, b"k", *tail]))
def test_whatever_passes_validation_can_be_applied(received: Any) -> None:
    try:
        validate(received)
    except InvalidRequest:
        return
    rows: dict[tuple[bytes, bytes], Row | None] = {}
    for other in (received, (PUT, b"k", b"v", 0), (ADD, b"k", 1, 0, 0, 1), (EXPIRE, b"k", 5), received):
        for key, suffix, delta in rows_of(other, A, 3, 9):
            rows[key, suffix] = merge_row(rows.get((key, suffix)), delta)


@pytest.mark.parametrize(
    "op",
    [
        [],
        None,
        b"\x01k",
        {1: b"k"},
        [True, b"k"],
        [99, b"k"],
        ["put", b"k", b"v", 0],
        [[1], b"k", b"v", 0],
        [DELETE],
        [DELETE, b""],
        [DELETE, b"k" * (KEY_BYTES_MAX + 1)],
        [DELETE, "k"],
        [DELETE, 5],
        [DELETE, b"k", -1],
        [DELETE, b"k", 1 << 63],
        [PUT, b"k", b"v"],
        [PUT, b"k", "v", 0],
        [PUT, b"k", 5, 0],
        [PUT, b"k", None, 0],
        [PUT, b"k", b"v", -1],
        [PUT, b"k", b"v", 0.5],
        [PUT, b"k", b"v", 1 << 63],
        [ADD, b"k", 1, 0, 0],
        [ADD, b"k", 1, 0, 0, 2],
        [ADD, b"k", 1, 0, 0, True],
        [ADD, b"k", 1, -1, 0, 0],
        [ADD, b"k", 1.0, 0, 0, 0],
        [ADD, b"k", 1 << 63, 0, 0, 0],
        [ADD, b"k", b"\x05", 0, 0, 0],
        [ADD, b"k", b"", 0, 0, 0],
        [ADD, b"k", b"\x00" * 3 + b"\x01" * 9, 0, 0, 0],
        [ADD, b"k", b"\x01" * (COUNTER_BYTES_MAX + 1), 0, 0, 0],
        [RESET, b"k", []],
        [RESET, b"k", [[A, 1]]],
        [RESET, b"k", [[A[:24], 1, 1]]],
        [RESET, b"k", [[A, 1, None]]],
        [EXPIRE, b"k"],
        [EXPIRE, b"k", -1],
        [EXPIRE, b"k", 5, 9],
    ],
)
def test_a_malformed_operation_is_refused(op: Any) -> None:
    with pytest.raises(InvalidRequest):
        validate(op)


@pytest.mark.parametrize(
    "operations",
    [
        [],
        {},
        [(PUT, b"k", b"v", 0), (DELETE, b"k")],
        [(ADD, b"k", 1, 0, 0, 1), (RESET, b"k", [(A, 0, 0)])],
        [(RESET, b"k", [(B, 1, 1), (B, 2, 2)])],
        [(EXPIRE, b"k", 5), (EXPIRE, b"k", 0)],
    ],
)
def test_a_change_writes_each_row_at_most_once(operations: Any) -> None:
    with pytest.raises(InvalidRequest):
        validate_change(operations, A)


def test_a_change_may_write_different_rows_of_one_key_and_several_keys() -> None:
    validate_change(
        [
            (PUT, b"k", b"v", 0),
            (EXPIRE, b"k", 0),
            (RESET, b"k", [(B, 1, 1)]),
            (ADD, b"k", 1, 0, 0, 1),
            (PUT, b"l", b"", 0),
        ],
        A,
    )


def test_each_operation_becomes_its_rows() -> None:
    assert rows_of((PUT, b"k", b"v", 5), A, 3, 9) == [(b"k", SUFFIX_REGISTER, Cell(b"v", 9, A, 3, 5))]
    assert rows_of((DELETE, b"k"), A, 3, 9) == [(b"k", SUFFIX_REGISTER, Cell(None, 9, A, 3))]
    assert rows_of((DELETE, b"k", 4), A, 3, 9) == [(b"k", SUFFIX_REGISTER, Cell(None, 4, A, 3, rank=1))]
    assert rows_of((EXPIRE, b"k", 5), A, 3, 9) == [(b"k", SUFFIX_EXPIRY, Cell(b"", 9, A, 3, 5))]
    assert rows_of((EXPIRE, b"k", 0), A, 3, 9) == [(b"k", SUFFIX_EXPIRY, Cell(None, 9, A, 3))]
    assert rows_of((EXPIRE, b"k", 0, 4), A, 3, 9) == [(b"k", SUFFIX_EXPIRY, Cell(None, 4, A, 3, rank=1))]
    added = rows_of((ADD, b"k", 12, 1, 10, 0), A, 3, 9)
    assert added == [(b"k", counter_suffix(A), Part(12, 3, 10, 1, None, fresh=False))]
    reset = rows_of((RESET, b"k", [(B, 7, 70)]), A, 3, 9)
    assert reset == [(b"k", counter_suffix(B), Part(0, 0, 70, 7, (A, 3), fresh=False))]


def test_suffixes_sort_the_register_first() -> None:
    suffixes = [SUFFIX_REGISTER, SUFFIX_EXPIRY, counter_suffix(A)]
    assert suffixes == sorted(suffixes)
    assert [suffix[0] for suffix in suffixes] == [
        operation.TAG_REGISTER,
        operation.TAG_EXPIRY,
        operation.TAG_COUNTER,
    ]
