"""Numbers that counters add up: integers, and decimal fractions of at most 17 digits after the point. Exact, so order decides nothing.

Binary floating point would make a sum depend on the order of its parts, and adding a little and taking it back leave a rest. Here a
number is an ``int`` of any size, or a ``Fraction`` in whole units of 10^-17 that is no integer (`whole` sees to that): one form for
one number. Redis prints and stores as many digits after the point, and its long double ends at the same power of ten, so whatever
INCRBYFLOAT can say can be added. Fractions, not ``decimal.Decimal``: their arithmetic is exact without a context, which a program
that has the node inside could have changed.

    as text      -12.5: no exponent, no zeros at the ends, no point without a digit behind it
    in the log   (crdt.checks) an integer; or the text as msgpack's str, which is nothing else there
    in LMDB      (store.layout) an integer; or the number of units of 10^-17
"""

import re
from fractions import Fraction
from typing import Final

Number = int | Fraction

DECIMALS: Final = 17
UNITS: Final = 10**DECIMALS
EXPONENT_MAX: Final = 4932
"""Of x86's long double, which Redis uses."""
BOUND: Final[int] = 10 ** (EXPONENT_MAX + 1)
"""Above every number that is read or that a sum may become at one node."""
TEXT_BYTES_MAX: Final = 5_000
"""Of a stored number: as long as a sum can become, so that what was written can be added to."""

_NUMBER: Final = re.compile(rb"([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,5}))?")
_FRACTION_TEXT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]{0,16}[1-9]", re.ASCII)
_SMALL_BYTES: Final = 18
_SMALL: Final = 1 << 64
_PIECE_DIGITS: Final = 320
"""Python converts so many at once fast, and a number of thousands in time that grows with their square, if at all."""

assert len("-") + EXPONENT_MAX + 1 + len(".") + DECIMALS <= TEXT_BYTES_MAX


def whole(number: Number) -> Number:
    """The same number, as an int when it is an integer."""
    return number.numerator if number.denominator == 1 else number


def parse(text: bytes, bytes_max: int = TEXT_BYTES_MAX) -> Number | None:
    """A number as INCRBYFLOAT reads it, to the nearest unit of 10^-17; None for anything else, and for what is too great.

    Python would also take "1_000", "nan", and an exponent that no sum can have.
    """
    if len(text) <= _SMALL_BYTES and text.removeprefix(b"-").isdigit():
        return int(text)
    match = _NUMBER.fullmatch(text) if len(text) <= bytes_max else None
    if match is None or abs(exponent := int(match[5] or 0)) > EXPONENT_MAX:
        return None
    fraction = match[3] or match[4] or b""
    digits, exponent = ((match[2] or b"") + fraction).lstrip(b"0"), exponent - len(fraction)
    if len(digits) + exponent > EXPONENT_MAX + 1:
        return None
    if len(digits) + exponent < -DECIMALS:
        return 0
    units = _rounded(_integer(digits), exponent + DECIMALS)
    return _of_units(-units if match[1] == b"-" else units)


def _rounded(number: int, exponent: int) -> int:
    """``number`` times this power of ten, to the nearest integer; of two, the even one."""
    if exponent >= 0:
        return number * _power(exponent)
    power = _power(-exponent)
    quotient, rest = divmod(number, power)
    return quotient + (2 * rest > power or (2 * rest == power and quotient & 1))


def _power(exponent: int) -> int:
    power: int = 10**exponent
    return power


def _of_units(units: int) -> Number:
    quotient, rest = divmod(units, UNITS)
    return Fraction(units, UNITS) if rest else quotient


def _integer(digits: bytes) -> int:
    """The integer with these digits, 0 without any."""
    if len(digits) <= _PIECE_DIGITS:
        return int(digits or b"0")
    half = len(digits) // 2
    return _integer(digits[:-half]) * _power(half) + _integer(digits[-half:])


def _digits(number: int, count: int) -> str:
    """The last ``count`` digits of an integer that is not negative, zeros in front included."""
    if count <= _PIECE_DIGITS:
        return str(number).rjust(count, "0")
    half = count // 2
    high, low = divmod(number, 10**half)
    return _digits(high, count - half) + _digits(low, half)


def _decimal(number: int) -> str:
    """The digits of an integer that is not negative. A bit is 0.30103 of a digit at most."""
    return _digits(number, number.bit_length() * 30103 // 100_000 + 1).lstrip("0") or "0"


def text_of(number: Number) -> bytes:
    """The number as clients and the log see it. (``str`` of an int of more than 4,300 digits is refused by Python.)"""
    if isinstance(number, int):
        if -_SMALL < number < _SMALL:
            return b"%d" % number
        return f"{'-' if number < 0 else ''}{_decimal(abs(number))}".encode()
    units = units_of(number)
    digits = _decimal(abs(units)).rjust(DECIMALS + 1, "0")
    fraction = digits[-DECIMALS:].rstrip("0")
    return f"{'-' if units < 0 else ''}{digits[:-DECIMALS]}.{fraction}".encode()


def is_fraction_text(text: str) -> bool:
    """Whether `text_of` makes this of a number that is no integer."""
    return _FRACTION_TEXT.fullmatch(text) is not None


def from_fraction_text(text: str) -> Fraction:
    """The inverse of `text_of` for what `is_fraction_text` accepts."""
    digits, _, fraction = text.removeprefix("-").partition(".")
    units = _integer((digits + fraction).encode("ascii")) * 10 ** (DECIMALS - len(fraction))
    return Fraction(-units if text[:1] == "-" else units, UNITS)


def units_of(number: Fraction) -> int:
    """How many units of 10^-17."""
    return number.numerator * (UNITS // number.denominator)
