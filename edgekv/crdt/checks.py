"""What the elements of an operation may be, and numbers of any size as msgpack can carry them.

An operation comes from the log or from another node: before ``operation.validate`` has asked these, nothing about it is known.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from edgekv.crdt import decimals
from edgekv.crdt.decimals import Number
from edgekv.ids import ACTOR_BYTES
from edgekv.limits import COUNTER_BYTES_MAX, COUNTER_TEXT_BYTES_MAX, HLC_FOLD_MAX, KEY_BYTES_MAX

# Any is honest here: an operation is a msgpack array, and what its elements are is known after ``operation.validate``.
Operation = Sequence[Any]
EncodedNumber = int | bytes | str

assert decimals.BOUND * 10**120 < 1 << (8 * COUNTER_BYTES_MAX - 1), "a part of any node may be logged and sent"
assert decimals.EXPONENT_MAX + 120 + decimals.DECIMALS < COUNTER_TEXT_BYTES_MAX


def encode_number(number: Number) -> EncodedNumber:
    """A number of any size as msgpack can carry it."""
    if not isinstance(number, int):
        return decimals.text_of(number).decode("ascii")
    if -(1 << 63) <= number < 1 << 63:
        return number
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def decode_number(encoded: EncodedNumber) -> Number:
    """The inverse of ``encode_number``."""
    if isinstance(encoded, int):
        return encoded
    return decimals.from_fraction_text(encoded) if isinstance(encoded, str) else _from_bytes(encoded)


def _from_bytes(encoded: bytes) -> int:
    return int.from_bytes(encoded, "big", signed=True)


def is_key(element: object) -> bool:
    """A key: bytes, not none, not too many."""
    return is_member(element) and element != b""


def is_member(element: object) -> bool:
    """A set element or the name of a map field: as a key, but it may be empty."""
    return type(element) is bytes and len(element) <= KEY_BYTES_MAX


def is_u63(element: object) -> bool:
    """A sequence number, an HLC or a time in ms."""
    return type(element) is int and 0 <= element < HLC_FOLD_MAX


def is_number(element: object) -> bool:
    """What ``encode_number`` makes, of a length that a counter total may have."""
    if type(element) is bytes:
        return len(element) <= COUNTER_BYTES_MAX and encode_number(_from_bytes(element)) == element
    if type(element) is str:
        return len(element) <= COUNTER_TEXT_BYTES_MAX and decimals.is_fraction_text(element)
    return type(element) is int and -(1 << 63) <= element < 1 << 63


def is_list(element: Any, check: Callable[[Any], bool]) -> bool:
    """A list of such elements with at least one."""
    return isinstance(element, (list, tuple)) and bool(element) and all(map(check, element))


def is_tuple(element: Any, *checks: Callable[[Any], bool]) -> bool:
    """A list of exactly these elements."""
    return (
        isinstance(element, (list, tuple))
        and len(element) == len(checks)
        and all(check(item) for check, item in zip(checks, element, strict=True))
    )


def is_dots(element: Any) -> bool:
    """Dots or a vector as operations hold them: ascending [actor, seq], one per actor, at least one."""
    return is_list(element, _is_dot) and all(a[0] < b[0] for a, b in pairwise(element))


def is_dot_set(element: Any) -> bool:
    """Dots of which several may be of one actor: ascending [actor, seq], each once, at least one."""
    return is_list(element, _is_dot) and all((a[0], a[1]) < (b[0], b[1]) for a, b in pairwise(element))


def is_observed_part(element: object) -> bool:
    """[actor, seq, total] of a counter part that a reset has seen."""
    return is_tuple(element, _is_actor, is_u63, is_number)


def is_number_state(element: Sequence[Any]) -> bool:
    """[total, base_seq, base_total, fresh] of the own part after an increment."""
    return is_tuple(element, is_number, is_u63, is_number, lambda fresh: type(fresh) is int and fresh in {0, 1})


def _is_actor(element: object) -> bool:
    return type(element) is bytes and len(element) == ACTOR_BYTES


def _is_dot(element: Any) -> bool:
    return is_tuple(element, _is_actor, is_u63) and bool(element[1])
