"""INCRBYFLOAT's numbers: what is refused with which words, what a sum is, and that it can be added to again."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.crdt.decimals import TEXT_BYTES_MAX, text_of
from edgekv.errors import NotANumber
from edgekv.node.decimals import ARGUMENT_BYTES_MAX, check_increment, sum_of

GREATEST = b"9" * 200 + b"e4732"


def total(stored: bytes | None, increment: bytes) -> bytes:
    return text_of(sum_of(stored, increment)[1])


@pytest.mark.parametrize(
    ("stored", "increment", "expected"),
    [
        (b"0", b"1", b"1"),
        (None, b"0.50", b"0.5"),
        (b"10.50", b"0.1", b"10.6"),
        (b"5.0e3", b"-.5", b"4999.5"),
        (b"+5.", b"1E-17", b"5.00000000000000001"),
        (b"1", b"-1", b"0"),
        (b"0", b"-1e-30", b"0"),
        (b"3.0", b"0", b"3"),
    ],
)
def test_a_sum_has_no_exponent_and_no_trailing_zeros(stored: bytes | None, increment: bytes, expected: bytes) -> None:
    assert total(stored, increment) == expected


@pytest.mark.parametrize("text", [b"", b"nan", b"1e5000", b" 1", b"1_0", b"0x1", b"1" * (TEXT_BYTES_MAX + 1)])
def test_what_is_no_number_is_refused_on_either_side(text: bytes) -> None:
    with pytest.raises(NotANumber, match="value is not a valid float"):
        sum_of(text, b"1")
    with pytest.raises(NotANumber, match="value is not a valid float"):
        sum_of(b"1", text)
    with pytest.raises(NotANumber, match="value is not a valid float"):
        check_increment(text)


def test_an_increment_has_at_most_256_bytes() -> None:
    assert total(b"0", b"1" * ARGUMENT_BYTES_MAX) == b"1" * ARGUMENT_BYTES_MAX
    with pytest.raises(NotANumber):
        sum_of(b"0", b"1" * (ARGUMENT_BYTES_MAX + 1))


@pytest.mark.parametrize("increment", [b"inf", b"-Infinity", b"9e4932"])
def test_a_sum_beyond_the_range_is_refused(increment: bytes) -> None:
    stored = GREATEST.replace(b"9", b"-9", 1) if increment[:1] == b"-" else b"9e4932"
    with pytest.raises(NotANumber, match="increment would produce NaN or Infinity"):
        sum_of(stored, increment)


@pytest.mark.parametrize("increment", [b"1e300", b"-" + GREATEST, GREATEST])
def test_what_a_sum_was_written_as_can_be_added_to(increment: bytes) -> None:
    """Redis' 1e300 has 301 digits."""
    written = total(b"0.12345678901234567", increment)
    assert len(written) <= TEXT_BYTES_MAX
    assert Fraction(Decimal(total(written, b"-1").decode())) == Fraction(Decimal(written.decode())) - 1


@given(st.decimals(places=17, allow_nan=False, allow_infinity=False), st.decimals(-10, 10, places=17))
def test_sums_are_exact(stored: Decimal, increment: Decimal) -> None:
    texts = f"{stored:f}".encode(), f"{increment:f}".encode()
    assert sum_of(*texts) == (Fraction(increment), Fraction(stored) + Fraction(increment))
