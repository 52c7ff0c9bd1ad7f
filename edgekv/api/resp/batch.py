"""EDGEKV.BATCH: operations of one keyspace as one change, all or nothing. MULTI with one round trip, and without errors that pass.

The arguments are flat: each operation is a word and as many arguments as it has, and the next word follows. So no key has a fixed
place, and metrics have it under no keyspace. The reply is an array with one result per operation.
"""

from typing import Final

from edgekv.api.resp.arguments import expiry_ms, text
from edgekv.api.resp.arguments import integer as integer_argument
from edgekv.api.resp.replies import array, integer
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import BATCH_OPERATIONS_MAX

Item = tuple[object, ...]

_NAME: Final = "edgekv.batch"
_WORDS: Final = {
    b"PUT": 4,
    b"DELETE": 2,
    b"ADD": 3,
    b"SADD": 3,
    b"SREM": 3,
    b"HSET": 4,
    b"HDEL": 3,
    b"HADD": 4,
}
"""How many words each operation has, its own included."""
_NAMES: Final = ", ".join(name.decode() for name in _WORDS)
_QUOTED_BYTES_MAX: Final = 128


@command(
    _NAME,
    arity=-3,
    flags="write denyoom movablekeys",
    group="transactions",
    since="0.1.0",
    complexity="O(N) where N is the number of operations.",
    summary="Carry out operations on keys of one keyspace as one change: all of them or none",
)
def edgekv_batch(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.BATCH operation [operation ...].

    An operation is one of PUT key value ttl_ms (0: none) | DELETE key | ADD key n | SADD key member | SREM key member |
    HSET key field value | HDEL key field | HADD key field n.
    """
    results = session.operations.batch(_items(arguments, session.operations.now_ms()))
    null = session.dialect.null
    return array([integer(result) if isinstance(result, int) else null for result in results])


def _items(arguments: Arguments, now_ms: int) -> list[Item]:
    """What `Operations.batch` takes; an error says which operation it is about."""
    items: list[Item] = []
    at = 1
    while at < len(arguments):
        if len(items) >= BATCH_OPERATIONS_MAX:
            raise TooLarge(f"the call has too many operations; the limit is {BATCH_OPERATIONS_MAX}. Split it.")
        count = _WORDS.get(arguments[at].upper())
        if count is None:
            word = text(arguments[at][:_QUOTED_BYTES_MAX])
            raise InvalidRequest(f"operation {len(items)}: a batch has no operation '{word}'. Use one of {_NAMES}.")
        words = arguments[at : at + count]
        if len(words) < count:
            raise InvalidRequest(f"operation {len(items)}: wrong number of arguments for {text(words[0].upper())}")
        try:
            items.append(_item(words, now_ms))
        except InvalidRequest as problem:
            raise InvalidRequest(f"operation {len(items)}: {problem}") from problem
        at += count
    return items


def _item(words: Arguments, now_ms: int) -> Item:
    name, key, *rest = words
    match name.upper(), rest:
        case b"PUT", [value, b"0"]:
            return ("put", key, value, 0)
        case b"PUT", [value, ttl_ms]:
            return ("put", key, value, expiry_ms("PX", ttl_ms, now_ms=now_ms, command=_NAME))
        case b"ADD", [n]:
            return ("add", key, integer_argument(n))
        case b"HSET", [field, value]:
            return ("hset", key, [(field, value)])
        case b"HADD", [field, n]:
            return ("hadd", key, field, integer_argument(n))
        case word, []:
            return (word.decode().lower(), key)
        case word, _:
            return (word.decode().lower(), key, rest)
