"""How the answers of a node are read: from what the wire brought to what a verb returns.

BrokenConversation: it is none that the verb has, so what follows on the connection cannot be told apart either.
"""

from typing import Final, NamedTuple, cast

from edgekv.client.wire import BrokenConversation
from edgekv.errors import WrongType

_MS_PER_S: Final = 1000


def unexpected(reply: object) -> BrokenConversation:
    """What to raise for an answer that is none."""
    return BrokenConversation(f"a {type(reply).__name__} is not the answer to what was asked")


def nothing(reply: object) -> None:
    """OK, or whatever stands for it."""


def optional(reply: object) -> bytes | None:
    """A value, or None: there is none."""
    if reply is None or type(reply) is bytes:
        return reply
    raise unexpected(reply)


def integer(reply: object) -> int:
    """A number that the wire says is one."""
    if type(reply) is int:
        return reply
    raise unexpected(reply)


def truth(reply: object) -> bool:
    """1 or 0."""
    return bool(integer(reply))


def truths(reply: object) -> list[bool]:
    """Several of them."""
    return [truth(item) for item in several(reply)]


def several(reply: object) -> list[object]:
    """A list of anything."""
    if type(reply) is list:
        return reply
    raise unexpected(reply)


def optional_values(reply: object) -> list[bytes | None]:
    """A list of values, None where there is none."""
    return [optional(item) for item in several(reply)]


def values(reply: object) -> list[bytes]:
    """A list of values."""
    found = several(reply)
    if all(type(value) is bytes for value in found):
        return cast("list[bytes]", found)
    raise unexpected(reply)


def members(reply: object) -> set[bytes]:
    """The members of a set."""
    return set(values(reply))


def items(reply: object) -> dict[bytes, bytes]:
    """The fields of a map with their values."""
    if type(reply) is dict and all(type(key) is type(value) is bytes for key, value in reply.items()):
        return reply
    raise unexpected(reply)


def number(reply: object) -> int:
    """A counter's value: decimal digits, nothing for 0."""
    value = optional(reply)
    try:
        return int(value or b"0")
    except ValueError:
        raise WrongType("the key holds a value that is no integer. Read it with db.get().") from None


def seconds(reply: object) -> float | None:
    """Milliseconds; less than 0: there is no end."""
    ms = integer(reply)
    return ms / _MS_PER_S if ms >= 0 else None


def page(reply: object) -> tuple[int, list[bytes]]:
    """The next cursor, 0 at the end, and keys."""
    match reply:
        case [bytes(cursor), list(keys)] if cursor.isdigit():
            return int(cursor), values(keys)
    raise unexpected(reply)


class Values(NamedTuple):
    """The concurrent values of a key, the one that `get` would show first; none: it holds none. ``context`` says which they are."""

    values: list[bytes]
    context: str


def concurrent(reply: object) -> Values:
    """A context, and the values that it names."""
    match reply:
        case [bytes(context), list(found)]:
            return Values(values(found), context.decode())
    raise unexpected(reply)
