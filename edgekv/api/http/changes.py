"""A POST that changes one set or map: a body in, one change of several operations, their results out.

The operations are node/operations.py's: ``("sadd", key, members)``, ``("srem", key, members)``, ``("hset", key, pairs)``,
``("hadd", key, field, n)``, ``("hdel", key, fields)``; each sees what those before it did, and nobody sees a part. What reads elements
and fields out of a decoded body is here too, and /v1/batch uses it.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from aiohttp import web

from edgekv.api.http.body import Bound, check_announced, read_body
from edgekv.api.http.content import bytes_of, decoded_object
from edgekv.api.http.door import Door
from edgekv.api.http.host import Operations
from edgekv.api.http.kv import missing
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import HTTP_BATCH_BYTES_MAX, HTTP_BATCH_OPERATIONS_MAX, KEY_BYTES_MAX

Item = tuple[object, ...]
T = TypeVar("T")
_BODY: Final = Bound(HTTP_BATCH_BYTES_MAX)
_ROW_LISTS: Final = {"sadd", "srem", "hset", "hdel"}


async def post_change(
    door: Door, request: web.BaseRequest, key: bytes, query: str, items_of: Callable[[dict[object, object]], list[Item]]
) -> list[object]:
    """Read a POST's body, make its operations of it, apply them as one change. Their results, durable."""
    if query:
        parameters(query, ())
    door.operations.check_key(key)
    check_promises(request, writes=True)
    check_announced(request, _BODY)
    await door.admit()
    with door.budget.hold() as hold:
        items = items_of(decoded_object(request, await read_body(request, _BODY, hold)))
        check_size(items)
        return await door.write(lambda operations: _applied(operations, items))


def _applied(operations: Operations, items: Sequence[Item]) -> list[object]:
    """Apply as one change. An operation that names no row does nothing: it has the result 0 and is left out."""
    results = iter(operations.batch([item for item in items if _rows_named(item)]))
    return [next(results) if _rows_named(item) else 0 for item in items]


def _rows_named(item: Item) -> int:
    """How many elements or fields an operation names; one that is about a whole key counts as 1."""
    return len(item[2]) if item[0] in _ROW_LISTS and isinstance(item[2], list) else 1


async def delete_key(
    door: Door, request: web.BaseRequest, key: bytes, query: str, holds: Callable[[Operations], bool]
) -> Reply:
    """204, durable; 404 when there was nothing; what ``holds`` raises when the key holds other types only."""
    if query:
        parameters(query, ())
    door.operations.check_key(key)
    check_promises(request, writes=True)
    if not await door.write(lambda operations: holds(operations) and operations.delete([key])):
        raise missing()
    return Reply(204)


def check_size(items: Sequence[Item]) -> None:
    """TooLarge above HTTP_BATCH_OPERATIONS_MAX elements, fields and single operations together."""
    size = sum(map(_rows_named, items))
    if size > HTTP_BATCH_OPERATIONS_MAX:
        raise TooLarge(
            f"the call names {size} elements, fields and operations; the limit is {HTTP_BATCH_OPERATIONS_MAX}. Split it."
        )


def rows_of(value: object, what: str) -> list[bytes]:
    """Elements or fields out of a decoded body."""
    if not isinstance(value, list):
        raise InvalidRequest(f"{what} is not a list.")
    return [row_of(item, f"{what}[{index}]") for index, item in enumerate(value)]


def pairs_of(value: object, what: str, value_of: Callable[[object, str], T]) -> list[tuple[bytes, T]]:
    """Fields with what belongs to them: an object, or, as JSON's names are text only, a list of [field, value] pairs."""
    pairs: Sequence[object]
    if isinstance(value, dict):
        pairs = [list(pair) for pair in value.items()]
    elif isinstance(value, list):
        pairs = value
    else:
        raise InvalidRequest(f"{what} is neither an object nor a list of [field, value] pairs.")
    found = list[tuple[bytes, T]]()
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidRequest(f"{what}[{index}] is not a [field, value] pair.")
        where = f"{what}[{index}]"
        found.append((row_of(pair[0], f"{where}: field"), value_of(pair[1], f"{where}: value")))
    return found


def row_of(value: object, what: str) -> bytes:
    """An element or field: at most KEY_BYTES_MAX bytes, and it may be empty."""
    return checked_row(bytes_of(value, what), what)


def checked_row(row: bytes, what: str) -> bytes:
    """The same bytes; TooLarge when they are too many."""
    if len(row) > KEY_BYTES_MAX:
        raise TooLarge(f"{what} has {len(row)} bytes; the limit is {KEY_BYTES_MAX}. Use a shorter one.")
    return row


def check_names(wanted: dict[object, object], known: Sequence[str], what: str) -> None:
    """Refuse an object that names nothing, or something else."""
    if not wanted or not wanted.keys() <= set(known):
        raise InvalidRequest(f"{what} takes {', '.join(known)}: at least one of them, and nothing else.")
