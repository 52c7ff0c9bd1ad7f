"""Arguments of commands: numbers, expiry times and words, read as strictly as Redis reads them.

A number that Redis would not take ("+1", "01", " 1") is not taken here either: a client must not find out later which server it talks
to. What cannot be read is InvalidRequest with Redis' words.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal

from edgekv.errors import InvalidRequest

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1

Unit = Literal["EX", "PX", "EXAT", "PXAT"]

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def text(argument: bytes) -> str:
    """An argument as it may be quoted in an error; bytes that are not UTF-8 survive the way back."""
    return argument.decode("utf-8", "surrogateescape")


def syntax_error() -> InvalidRequest:
    """The answer to options that make no sense."""
    return InvalidRequest("syntax error")


def integer(argument: bytes) -> int:
    """A 64-bit integer in its one canonical spelling."""
    if _INTEGER.fullmatch(argument) is not None:
        number = int(argument)
        if INTEGER_MIN <= number <= INTEGER_MAX:
            return number
    raise InvalidRequest("value is not an integer or out of range")


def integer_from(argument: bytes, least: int, sentence: str) -> int:
    """An integer of at least ``least``; InvalidRequest with this sentence for a smaller one and for what is none."""
    try:
        number = integer(argument)
    except InvalidRequest:
        raise InvalidRequest(sentence) from None
    if number < least:
        raise InvalidRequest(sentence)
    return number


def wrong_number(command: str) -> InvalidRequest:
    """The answer to a command with too few or too many arguments, by its name in lower case."""
    return InvalidRequest(f"wrong number of arguments for '{command}' command")


def at_most(arguments: Sequence[bytes], count: int) -> None:
    """Refuse more than ``count`` arguments, the command's name included, of a command whose last ones may be left out."""
    if len(arguments) > count:
        raise syntax_error()


def pairs(arguments: Sequence[bytes], first: int, command: str) -> list[tuple[bytes, bytes]]:
    """What comes in twos from the argument at ``first`` on: keys or fields with their values."""
    if (len(arguments) - first) % 2:
        raise wrong_number(command)
    return list(zip(arguments[first::2], arguments[first + 1 :: 2], strict=True))


def expiry_ms(unit: Unit, argument: bytes, *, now_ms: int, command: str) -> int:
    """When a value expires, absolute ms. It must be positive, as in SET ... EX; the past is allowed."""
    number = integer(argument)
    factor, base = _scale(unit, now_ms)
    if number <= 0 or number * factor + base > INTEGER_MAX:
        raise InvalidRequest(f"invalid expire time in '{command}' command")
    return number * factor + base


def deadline_ms(unit: Unit, argument: bytes, *, now_ms: int, command: str) -> int:
    """When a key expires, absolute ms, as in EXPIRE: any number that does not overflow, negative ones included."""
    number = integer(argument)
    factor, base = _scale(unit, now_ms)
    if not INTEGER_MIN <= number * factor <= number * factor + base <= INTEGER_MAX:
        raise InvalidRequest(f"invalid expire time in '{command}' command")
    return number * factor + base


def _scale(unit: Unit, now_ms: int) -> tuple[int, int]:
    """Milliseconds per unit, and what the number counts from."""
    return (1000 if unit in ("EX", "EXAT") else 1), (now_ms if unit in ("EX", "PX") else 0)
