"""Operations: what is refused, what survives the wire, and which rows they become."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.codec import pack, unpack
from edgekv.crdt.counter import Part
from edgekv.crdt.decimals import BOUND, UNITS, Number, whole
from edgekv.crdt.elements import Clear, Element, Removal
from edgekv.crdt.operation import (
    ADD,
    ADD_ELEMENTS,
    ADD_FIELD,
    CLEAR_MAP,
    CLEAR_SET,
    DELETE,
    DELETE_FIELDS,
    DELETE_SIBLINGS,
    EXPIRE,
    OPERATIONS,
    PUT,
    PUT_FIELDS,
    PUT_SIBLING,
    REMOVE_ELEMENTS,
    RESET,
    RESET_FIELDS,
    SUFFIX_EXPIRY,
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SET_CLEAR,
    SUFFIX_SIBLINGS,
    Operation,
    Row,
    counter_suffix,
    decode_number,
    element_suffix,
    encode_number,
    field_part_suffix,
    field_suffix,
    merge_row,
    operation_bytes,
    rows_of,
    validate,
    validate_change,
)
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Sibling, SiblingsEdit
from edgekv.errors import InvalidRequest
from edgekv.limits import COUNTER_BYTES_MAX, COUNTER_TEXT_BYTES_MAX, KEY_BYTES_MAX
from tests.unit.crdt.histories import actor

A, B = actor(1), actor(2)

keys = st.binary(min_size=1, max_size=20)
times = st.integers(0, (1 << 63) - 1)
integers = st.integers(-(1 << 90), 1 << 90)
fractions = st.tuples(integers, st.integers(0, 17)).map(lambda drawn: whole(Fraction(drawn[0], 10 ** drawn[1])))
numbers = integers | fractions
members = st.binary(max_size=20)
dots = st.dictionaries(st.sampled_from([A, B]), st.integers(1, (1 << 63) - 1), min_size=1).map(
    lambda vector: sorted(vector.items())
)
dot_sets = st.sets(st.tuples(st.sampled_from([A, B]), st.integers(1, 9)), max_size=4).map(sorted)
resets = st.lists(st.tuples(st.sampled_from([A, B]), times, numbers.map(encode_number)), min_size=1, max_size=3)


def some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, min_size=1, max_size=3)


well_formed: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just(PUT), keys, st.binary(max_size=30), times),
    st.tuples(st.just(DELETE), keys),
    st.tuples(st.just(DELETE), keys, times),
    st.tuples(st.just(ADD), keys, numbers.map(encode_number), times, numbers.map(encode_number), st.integers(0, 1)),
    st.tuples(st.just(RESET), keys, resets),
    st.tuples(st.just(EXPIRE), keys, times),
    st.tuples(st.just(EXPIRE), keys, st.just(0), times),
    st.tuples(st.just(ADD_ELEMENTS), keys, some(members)),
    st.tuples(st.just(REMOVE_ELEMENTS), keys, some(st.tuples(members, dots))),
    st.tuples(st.just(CLEAR_SET), keys, dots),
    st.tuples(st.just(PUT_FIELDS), keys, some(st.tuples(members, st.binary(max_size=30)))),
    st.tuples(st.just(DELETE_FIELDS), keys, some(members)),
    st.tuples(
        st.just(ADD_FIELD),
        keys,
        members,
        numbers.map(encode_number),
        times,
        numbers.map(encode_number),
        st.integers(0, 1),
    ),
    st.tuples(st.just(RESET_FIELDS), keys, some(st.tuples(members, resets))),
    st.tuples(st.just(CLEAR_MAP), keys),
    st.tuples(st.just(CLEAR_MAP), keys, times),
    st.tuples(st.just(PUT_SIBLING), keys, st.binary(max_size=30), times, dot_sets),
    st.tuples(st.just(DELETE_SIBLINGS), keys, dot_sets.filter(bool)),
)


@given(well_formed)
def test_an_operation_means_the_same_after_the_wire(op: Operation) -> None:
    validate(op)
    packed = pack(op)
    received = unpack(packed)
    validate(received)
    assert rows_of(received, A, 7, 99) == rows_of(op, A, 7, 99)
    assert pack(received) == packed


@given(integers)
def test_integers_travel_as_short_as_possible(number: int) -> None:
    encoded = encode_number(number)
    assert decode_number(encoded) == number
    assert isinstance(encoded, int) == (-(1 << 63) <= number < 1 << 63)
    if isinstance(encoded, bytes):
        assert int.from_bytes(encoded[1:], "big", signed=True) != number


@given(numbers)
def test_a_number_travels_in_one_form_only(number: Number) -> None:
    encoded = encode_number(number)
    assert decode_number(encoded) == number and type(decode_number(encoded)) is type(number)
    assert isinstance(encoded, str) == isinstance(number, Fraction)
    assert encode_number(decode_number(encoded)) == encoded


@pytest.mark.parametrize(
    "number",
    [BOUND - 1, 1 - BOUND, Fraction(BOUND * UNITS - 1, UNITS), Fraction(1, UNITS)],
    ids=["greatest integer", "least integer", "greatest", "smallest"],
)
def test_the_greatest_and_the_least_number_can_be_added(number: Number) -> None:
    operation = (ADD, b"k", encode_number(number), 0, encode_number(number), 1)
    validate(operation)
    ((_, _, part),) = rows_of(unpack(pack(operation)), A, 3, 9)
    assert part == Part(number, 3, number, 0, None, fresh=True)
    assert operation_bytes(operation) >= len(pack(operation))


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


def almost(head: tuple[int, bytes]) -> st.SearchStrategy[list[Any]]:
    return st.lists(junk | st.lists(junk | st.just(A), min_size=1, max_size=3), max_size=5).map(
        lambda tail: [*head, *tail]
    )


def spoiled(op: Operation) -> st.SearchStrategy[Any]:
    """A well-formed operation with something else somewhere in it."""
    copies = [list(op)]
    for index, element in enumerate(op):
        if isinstance(element, (list, tuple)):
            copies.append([*op[:index], [*element[:-1]], *op[index + 1 :]])
            copies.append([*op[:index], [*element, *element], *op[index + 1 :]])
    return st.tuples(st.sampled_from(copies), st.integers(0, 7), junk).map(
        lambda drawn: [*drawn[0][: drawn[1]], drawn[2], *drawn[0][drawn[1] + 1 :]] if drawn[1] else drawn[0]
    )


@given(
    junk | st.tuples(st.sampled_from(sorted(OPERATIONS)), st.just(b"k")).flatmap(almost) | well_formed.flatmap(spoiled)
)
def test_whatever_passes_validation_can_be_applied(received: Any) -> None:
    try:
        validate(received)
    except InvalidRequest:
        return
    rows: dict[tuple[bytes, bytes], Row | None] = {}
    others: list[Operation] = [
        (PUT, b"k", b"v", 0),
        (ADD, b"k", 1, 0, 0, 1),
        (EXPIRE, b"k", 5),
        (ADD_ELEMENTS, b"k", [b""]),
        (CLEAR_SET, b"k", [(A, 2)]),
        (PUT_FIELDS, b"k", [(b"", b"v")]),
        (CLEAR_MAP, b"k"),
        (PUT_SIBLING, b"k", b"v", 0, [(B, 1)]),
    ]
    for other in (received, *others, received):
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
        [ADD, b"k", "1", 0, 0, 0],
        [ADD, b"k", "1.0", 0, 0, 0],
        [ADD, b"k", "1.50", 0, 0, 0],
        [ADD, b"k", "01.5", 0, 0, 0],
        [ADD, b"k", ".5", 0, 0, 0],
        [ADD, b"k", "+0.5", 0, 0, 0],
        [ADD, b"k", "-0.0", 0, 0, 0],
        [ADD, b"k", "5e-1", 0, 0, 0],
        [ADD, b"k", "0.5\n", 0, 0, 0],
        [ADD, b"k", "\u0663.5", 0, 0, 0],
        [ADD, b"k", "0.000000000000000001", 0, 0, 0],
        [ADD, b"k", 1, 0, "0.10", 0],
        [ADD, b"k", "1" * COUNTER_TEXT_BYTES_MAX + ".5", 0, 0, 0],
        [RESET, b"k", [[A, 1, "0.50"]]],
        [ADD, b"k", b"\x00" * 3 + b"\x01" * 9, 0, 0, 0],
        [ADD, b"k", b"\x01" * (COUNTER_BYTES_MAX + 1), 0, 0, 0],
        [RESET, b"k", []],
        [RESET, b"k", [[A, 1]]],
        [RESET, b"k", [[A[:24], 1, 1]]],
        [RESET, b"k", [[A, 1, None]]],
        [EXPIRE, b"k"],
        [EXPIRE, b"k", -1],
        [EXPIRE, b"k", 5, 9],
        [ADD_ELEMENTS, b"k"],
        [ADD_ELEMENTS, b"k", []],
        [ADD_ELEMENTS, b"k", b"ab"],
        [ADD_ELEMENTS, b"k", ["a"]],
        [ADD_ELEMENTS, b"k", [b"a", 5]],
        [ADD_ELEMENTS, b"k", [b"a" * (KEY_BYTES_MAX + 1)]],
        [ADD_ELEMENTS, b"k", {b"a": 1}],
        [REMOVE_ELEMENTS, b"k", [b"a"]],
        [REMOVE_ELEMENTS, b"k", [[b"a", []]]],
        [REMOVE_ELEMENTS, b"k", [[b"a", [[A, 0]]]]],
        [REMOVE_ELEMENTS, b"k", [[b"a", [[A, True]]]]],
        [REMOVE_ELEMENTS, b"k", [[b"a", [[A[1:], 1]]]]],
        [REMOVE_ELEMENTS, b"k", [[b"a", [[A, 1], [A, 2]]]]],
        [REMOVE_ELEMENTS, b"k", [[b"a", [[B, 1], [A, 1]]]]],
        [CLEAR_SET, b"k"],
        [CLEAR_SET, b"k", []],
        [CLEAR_SET, b"k", [[B, 1], [A, 1]]],
        [CLEAR_SET, b"k", [[A, 1, 1]]],
        [PUT_FIELDS, b"k", []],
        [PUT_FIELDS, b"k", [[b"f"]]],
        [PUT_FIELDS, b"k", [[b"f", None]]],
        [PUT_FIELDS, b"k", [[b"f", "v"]]],
        [PUT_FIELDS, b"k", [[b"f", b"v", 5]]],
        [DELETE_FIELDS, b"k", []],
        [DELETE_FIELDS, b"k", [None]],
        [ADD_FIELD, b"k", 1, 0, 0, 1],
        [ADD_FIELD, b"k", "f", 1, 0, 0, 1],
        [ADD_FIELD, b"k", b"f", 1, 0, 0, 2],
        [ADD_FIELD, b"k", b"f", 1, 0, 0, 1, 1],
        [RESET_FIELDS, b"k", []],
        [RESET_FIELDS, b"k", [[b"f", []]]],
        [RESET_FIELDS, b"k", [[b"f", [[A, 1]]]]],
        [CLEAR_MAP, b"k", -1],
        [CLEAR_MAP, b"k", 1, 1],
        [PUT_SIBLING, b"k", b"v", 0],
        [PUT_SIBLING, b"k", b"v", -1, []],
        [PUT_SIBLING, b"k", None, 0, []],
        [PUT_SIBLING, b"k", b"v", 0, b""],
        [PUT_SIBLING, b"k", b"v", 0, {}],
        [PUT_SIBLING, b"k", b"v", 0, [[A, 2], [A, 1]]],
        [PUT_SIBLING, b"k", b"v", 0, [[A, 1], [A, 1]]],
        [PUT_SIBLING, b"k", b"v", 0, [[B, 1], [A, 1]]],
        [PUT_SIBLING, b"k", b"v", 0, [[A, 0]]],
        [DELETE_SIBLINGS, b"k"],
        [DELETE_SIBLINGS, b"k", []],
        [DELETE_SIBLINGS, b"k", [[A[1:], 1]]],
        [DELETE_SIBLINGS, b"k", [[A, 1]], 5],
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
        [(ADD_ELEMENTS, b"k", [b"a", b"a"])],
        [(ADD_ELEMENTS, b"k", [b"a"]), (REMOVE_ELEMENTS, b"k", [(b"a", [(B, 1)])])],
        [(CLEAR_SET, b"k", [(A, 1)]), (CLEAR_SET, b"k", [(B, 1)])],
        [(PUT_FIELDS, b"k", [(b"f", b"1"), (b"f", b"2")])],
        [(PUT_FIELDS, b"k", [(b"f", b"1")]), (DELETE_FIELDS, b"k", [b"f"])],
        [(ADD_FIELD, b"k", b"f", 1, 0, 0, 1), (RESET_FIELDS, b"k", [(b"f", [(A, 0, 0)])])],
        [(RESET_FIELDS, b"k", [(b"f", [(B, 1, 1)]), (b"f", [(B, 2, 2)])])],
        [(CLEAR_MAP, b"k"), (CLEAR_MAP, b"k", 5)],
        [(PUT_SIBLING, b"k", b"v", 0, []), (DELETE_SIBLINGS, b"k", [(B, 1)])],
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
            (CLEAR_SET, b"k", [(A, 1)]),
            (ADD_ELEMENTS, b"k", [b"", b"f"]),
            (CLEAR_MAP, b"k"),
            (PUT_FIELDS, b"k", [(b"", b""), (b"f", b"1")]),
            (ADD_FIELD, b"k", b"f", 1, 0, 0, 1),
            (RESET_FIELDS, b"k", [(b"f", [(B, 1, 1)]), (b"g", [(A, 1, 1)])]),
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


def test_each_operation_on_a_set_or_a_map_becomes_its_rows() -> None:
    assert rows_of((ADD_ELEMENTS, b"k", [b"a", b""]), A, 3, 9) == [
        (b"k", element_suffix(b"a"), Element(((A, 3),))),
        (b"k", element_suffix(b""), Element(((A, 3),))),
    ]
    removed = rows_of((REMOVE_ELEMENTS, b"k", [[b"a", [[A, 1], [B, 2]]]]), A, 3, 9)
    assert removed == [(b"k", element_suffix(b"a"), Removal(((A, 1), (B, 2))))]
    cleared = rows_of((CLEAR_SET, b"k", [[A, 2], [B, 7]]), A, 3, 9)
    assert cleared == [(b"k", SUFFIX_SET_CLEAR, Clear(((A, 2), (B, 7))))]
    assert rows_of((PUT_FIELDS, b"k", [[b"f", b"v"]]), A, 3, 9) == [(b"k", field_suffix(b"f"), Cell(b"v", 9, A, 3))]
    assert rows_of((DELETE_FIELDS, b"k", [b"f"]), A, 3, 9) == [(b"k", field_suffix(b"f"), Cell(None, 9, A, 3))]
    added = rows_of((ADD_FIELD, b"k", b"f", 12, 1, 10, 0), A, 3, 9)
    assert added == [(b"k", field_part_suffix(b"f", A), Part(12, 3, 10, 1, None, fresh=False))]
    reset = rows_of((RESET_FIELDS, b"k", [[b"f", [[B, 7, 70]]]]), A, 3, 9)
    assert reset == [(b"k", field_part_suffix(b"f", B), Part(0, 0, 70, 7, (A, 3), fresh=False))]
    assert rows_of((CLEAR_MAP, b"k"), A, 3, 9) == [(b"k", SUFFIX_MAP_CLEAR, Cell(None, 9, A, 3))]
    assert rows_of((CLEAR_MAP, b"k", 4), A, 3, 9) == [(b"k", SUFFIX_MAP_CLEAR, Cell(None, 4, A, 3, rank=1))]


def test_each_operation_on_siblings_becomes_its_row() -> None:
    put = rows_of((PUT_SIBLING, b"k", b"v", 5, [[A, 1], [A, 3], [B, 2]]), A, 3, 9)
    assert put == [(b"k", SUFFIX_SIBLINGS, SiblingsEdit((Sibling(A, 3, 9, b"v", 5),), ((A, 1), (B, 2))))]
    removed = rows_of((DELETE_SIBLINGS, b"k", [[A, 1], [A, 2]]), A, 3, 9)
    assert removed == [(b"k", SUFFIX_SIBLINGS, SiblingsEdit((), ((A, 1), (A, 2))))]
