"""``POST /v1/batch``: many operations of one keyspace as one change: all or nothing, and never seen in part.

{"operations": [{"op": "put", "key": "a", "value": "1", "ttl_s": 60}, {"op": "delete", "key": "b"}, {"op": "add", "key": "c", "n": 2}]}
-> {"results": [null, true, 2]}         put: null; delete: whether it existed; add: the sum

{"op": "sadd" or "srem", "key": k, "members": [...]}    how many were new, or were there
{"op": "hset", "key": k, "fields": {f: v}}              how many fields are new; pairs in a list as well, as in maps.py
{"op": "hdel", "key": k, "fields": [...]}               how many were there
{"op": "hadd", "key": k, "field": f, "n": n}            the sum
"""

from typing import Final

from aiohttp import web

from edgekv.api.http.body import Bound, check_announced, read_body
from edgekv.api.http.changes import Item, check_size, pairs_of, row_of, rows_of
from edgekv.api.http.content import bytes_of, decoded_object, encoded, integer_of, wanted_type
from edgekv.api.http.door import Door
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.config import TTL_S_MAX
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import HTTP_BATCH_BYTES_MAX, HTTP_BATCH_OPERATIONS_MAX

_BODY: Final = Bound(HTTP_BATCH_BYTES_MAX)
_FIELDS: Final[dict[object, tuple[set[str], set[str]]]] = {
    "put": ({"op", "key", "value"}, {"ttl_s"}),
    "delete": ({"op", "key"}, set()),
    "add": ({"op", "key", "n"}, set()),
    "sadd": ({"op", "key", "members"}, set()),
    "srem": ({"op", "key", "members"}, set()),
    "hset": ({"op", "key", "fields"}, set()),
    "hdel": ({"op", "key", "fields"}, set()),
    "hadd": ({"op", "key", "field", "n"}, set()),
}
"""Each operation's required and optional fields."""


class BatchCalls:
    """The batch."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def post(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Apply the operations: 200 with one result each, durable."""
        assert not key
        if query:
            parameters(query, ())
        check_promises(request, writes=True)
        media_type = wanted_type(request)
        check_announced(request, _BODY)
        await self._door.admit()
        with self._door.budget.hold() as hold:
            wanted = decoded_object(request, await read_body(request, _BODY, hold))
            items = operations_of(wanted, self._door.operations.now_ms())
            check_size(items)
            results = await self._door.write(lambda operations: operations.batch(items))
        body = encoded({"results": results}, media_type)
        return Reply(200, b"Content-Type: %s\r\n" % media_type.encode(), body)


def operations_of(wanted: dict[object, object], now_ms: int) -> list[Item]:
    """What node/operations.py takes, out of a decoded body; InvalidRequest names the operation that is wrong."""
    items = wanted.get("operations")
    if wanted.keys() != {"operations"} or not isinstance(items, list):
        raise InvalidRequest('a batch has one field: {"operations": [...]}.')
    if len(items) > HTTP_BATCH_OPERATIONS_MAX:
        raise TooLarge(f"the batch has {len(items)} operations; the limit is {HTTP_BATCH_OPERATIONS_MAX}. Split it.")
    return [_operation(item, f"operation {index}", now_ms) for index, item in enumerate(items)]


def _operation(item: object, where: str, now_ms: int) -> Item:
    if not isinstance(item, dict) or not isinstance(item.get("op"), str) or item["op"] not in _FIELDS:
        raise InvalidRequest(f'{where} is not an object whose "op" is one of {", ".join(map(str, _FIELDS))}.')
    required, optional = _FIELDS[item["op"]]
    if not required <= item.keys() <= required | optional:
        names = ", ".join(sorted(required)) + (f", and optionally {', '.join(optional)}" if optional else "")
        raise InvalidRequest(f"{where} ({item['op']}) has the fields {names}; this one has others.")
    key = bytes_of(item["key"], f"{where}: key")
    match item["op"]:
        case "put":
            return ("put", key, bytes_of(item["value"], f"{where}: value"), _expiry(item.get("ttl_s"), where, now_ms))
        case "delete":
            return ("delete", key)
        case "add":
            return ("add", key, integer_of(item["n"], f"{where}: n"))
        case "sadd" | "srem":
            return (item["op"], key, rows_of(item["members"], f"{where}: members"))
        case "hset":
            return ("hset", key, pairs_of(item["fields"], f"{where}: fields", bytes_of))
        case "hdel":
            return ("hdel", key, rows_of(item["fields"], f"{where}: fields"))
        case _:
            return ("hadd", key, row_of(item["field"], f"{where}: field"), integer_of(item["n"], f"{where}: n"))


def _expiry(ttl_s: object, where: str, now_ms: int) -> int:
    if ttl_s is None:
        return 0
    seconds = integer_of(ttl_s, f"{where}: ttl_s")
    if not 1 <= seconds <= TTL_S_MAX:
        raise InvalidRequest(f"{where}: ttl_s is out of range. Write a whole number from 1 to {TTL_S_MAX}.")
    return now_ms + seconds * 1000
