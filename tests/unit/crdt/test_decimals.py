"""Decimal numbers: which texts are one, and that each has one text."""

from decimal import Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.crdt.decimals import (
    BOUND,
    DECIMALS,
    TEXT_BYTES_MAX,
    UNITS,
    Number,
    from_fraction_text,
    is_fraction_text,
    parse,
    text_of,
    whole,
)

numbers_of_digits = st.integers(0, 5).flatmap(lambda places: st.integers(0, 10 ** (10**places // 50)))
numbers = st.integers(-BOUND, BOUND) | st.integers(-(10**40), 10**40).map(lambda units: whole(Fraction(units, UNITS)))


@given(numbers)
def test_a_number_is_read_from_its_text_and_has_one(number: Number) -> None:
    text = text_of(number)
    if -BOUND < number < BOUND:
        assert parse(text) == number
        assert type(parse(text)) is type(number)
    assert is_fraction_text(text.decode()) == isinstance(number, Fraction)
    if isinstance(number, Fraction):
        assert from_fraction_text(text.decode()) == number


@given(numbers, numbers)
def test_the_text_of_a_number_is_its_shortest_without_an_exponent(a: Number, b: Number) -> None:
    text = text_of(whole(a + b)).decode()
    assert "e" not in text.lower() and not text.startswith(("+", "."))
    assert Fraction(Decimal(text)) == a + b
    if "." in text:
        assert text[-1] not in "0." and len(text.partition(".")[2]) <= DECIMALS


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"-0.0", 0),
        (b"007", 7),
        (b"+5.", 5),
        (b"-.5", Fraction(-1, 2)),
        (b"5.0e3", 5000),
        (b"1E-17", Fraction(1, UNITS)),
        (b"4e-18", 0),
        (b"6e-18", Fraction(1, UNITS)),
        (b"-6e-18", Fraction(-1, UNITS)),
        (b"1e-4932", 0),
    ],
)
def test_a_number_is_read_to_the_nearest_of_its_17_digits(text: bytes, number: Number) -> None:
    assert parse(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *[b"", b"-", b".", b"nan", b"inf", b" 1", b"1 ", b"1_0", b"0x1", b"1e", b"1\n", "٣".encode()],
        *[b"1e4933", b"10e4932", b"1e99999", b"1e999999", b"1" * (TEXT_BYTES_MAX + 1)],
    ],
)
def test_what_is_no_number_is_none(text: bytes) -> None:
    assert parse(text) is None


def test_the_greatest_numbers_are_read_and_written() -> None:
    """Python refuses to write an int of so many digits."""
    assert parse(b"1e4932") == 10**4932
    assert text_of(10**4932) == b"1" + b"0" * 4932
    assert text_of(Fraction(-BOUND * 10 + 1, 10)) == b"-" + b"9" * 4933 + b".9"


def test_no_decimal_context_of_the_program_around_it_matters() -> None:
    """The embedded node shares its thread with a program that may have chosen its own."""
    with localcontext(Context(prec=2, traps=list(Context().flags))):
        assert text_of(Fraction(10**30 + 1, 10**17)) == b"10000000000000.00000000000000001"
        assert parse(b"10000000000000.00000000000000001") == Fraction(10**30 + 1, 10**17)


@given(
    st.from_regex(rb"[+-]?([0-9]{0,3}\.[0-9]{1,25}|[0-9]{1,25}\.?[0-9]{0,20})([eE][+-]?[0-9]{1,2})?", fullmatch=True)
    | st.builds(lambda a, b, e: b"%d.%de%d" % (a, b, e), numbers_of_digits, numbers_of_digits, st.integers(-4932, 4932))
)
def test_what_is_read_is_the_nearest_unit_to_the_exact_number(text: bytes) -> None:
    exact = Fraction(Decimal(text.decode()))
    expected = whole(Fraction(round(exact * UNITS), UNITS)) if abs(exact) < BOUND else None
    assert parse(text) == expected and type(parse(text)) is type(expected)
