"""Decimal fractions as INCRBYFLOAT reads, adds and writes them: exact, where Redis computes in binary.

An argument has at most 256 bytes, as in Redis. A stored value may be as long as a sum can become, so that what was written here can
be added to: 4,933 digits before the point, by the greatest number that Redis' long double holds, and 17 decimals after it.
"""

import re
from decimal import Context, Decimal
from typing import Final

from edgekv.errors import NotANumber

ARGUMENT_BYTES_MAX: Final = 256
STORED_BYTES_MAX: Final = 5_000
DECIMALS: Final = 17
EXPONENT_MAX: Final = 4932
"""Of x86's long double. It also keeps a sum from having a million digits."""

_NUMBER: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,5}))?")
_INFINITY: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_BOUND: Final = Decimal(10) ** (EXPONENT_MAX + 1)
_EXACT: Final = Context(prec=2 * (STORED_BYTES_MAX + EXPONENT_MAX))
"""More digits than any two numbers that can be read have between their first and their last one."""
_NOT_A_NUMBER: Final = "value is not a valid float"
_NO_SUM: Final = "increment would produce NaN or Infinity"

assert len("-") + EXPONENT_MAX + 1 + len(".") + DECIMALS <= STORED_BYTES_MAX


def total(stored: bytes, increment: bytes, *, not_a_number: str = _NOT_A_NUMBER) -> bytes:
    """The sum, as Redis prints it: up to 17 decimals, no exponent, no trailing zeros.

    NotANumber when it is none, or too great; ``not_a_number`` is said of what is stored.
    """
    before = _number(stored, STORED_BYTES_MAX, not_a_number)  # Redis reads it first.
    found = _EXACT.add(before, _number(increment, ARGUMENT_BYTES_MAX, _NOT_A_NUMBER))
    if abs(found) >= _BOUND:
        raise NotANumber(_NO_SUM)
    text = f"{found:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return b"0" if text == "-0" else text.encode()


def check_increment(increment: bytes) -> None:
    """NotANumber unless it can be added. Redis' hashes tell infinity from a sum that becomes it."""
    if _INFINITY.fullmatch(increment) is not None:
        raise NotANumber("value is NaN or Infinity")
    _number(increment, ARGUMENT_BYTES_MAX, _NOT_A_NUMBER)


def _number(text: bytes, bytes_max: int, not_a_number: str) -> Decimal:
    """Python would also take "1_000", "nan", and an exponent that no sum can have."""
    if _INFINITY.fullmatch(text) is not None:
        raise NotANumber(_NO_SUM)
    match = _NUMBER.fullmatch(text) if len(text) <= bytes_max else None
    if match is None or abs(int(match[1] or 0)) > EXPONENT_MAX:
        raise NotANumber(not_a_number)
    return Decimal(text.decode("ascii"))
