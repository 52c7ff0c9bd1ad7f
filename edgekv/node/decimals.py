"""What INCRBYFLOAT takes and adds, with Redis' words for what it refuses. The numbers themselves are those of crdt.decimals."""

import re
from typing import Final

from edgekv.crdt.decimals import BOUND, TEXT_BYTES_MAX, Number, parse, whole
from edgekv.errors import NotANumber

ARGUMENT_BYTES_MAX: Final = 256
"""As in Redis."""

_INFINITY: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_NOT_A_NUMBER: Final = "value is not a valid float"
_NO_SUM: Final = "increment would produce NaN or Infinity"


def sum_of(
    value: Number | bytes | None, increment: bytes, *, not_a_number: str = _NOT_A_NUMBER
) -> tuple[Number, Number]:
    """What the increment adds, and the sum with a value (an absent one counts as 0).

    NotANumber when either is none, or the sum is too great; ``not_a_number`` is said of the value, which Redis looks at first.
    """
    before = 0 if value is None else _number(value, not_a_number) if isinstance(value, bytes) else value
    added = _argument(increment)
    total = whole(before + added)
    if not -BOUND < total < BOUND:
        raise NotANumber(_NO_SUM)
    return added, total


def check_increment(increment: bytes) -> None:
    """NotANumber unless it can be added. Redis' hashes tell infinity from a sum that becomes it."""
    if _INFINITY.fullmatch(increment) is not None:
        raise NotANumber("value is NaN or Infinity")
    _argument(increment)


def _argument(text: bytes) -> Number:
    return _number(text, _NOT_A_NUMBER, ARGUMENT_BYTES_MAX)


def _number(text: bytes, not_a_number: str, bytes_max: int = TEXT_BYTES_MAX) -> Number:
    if _INFINITY.fullmatch(text) is not None:
        raise NotANumber(_NO_SUM)
    number = parse(text, bytes_max)
    if number is None:
        raise NotANumber(not_a_number)
    return number
