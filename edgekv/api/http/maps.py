"""``/v1/map/{key}``: fields that are values or counters.

GET             {"entries": [{"field": f, "value": v}, ...], "count": n, "cursor": text or null}     a page, ordered
GET ?field=f    {"value": v}, or the raw bytes for Accept: application/octet-stream
POST            {"set": {f: v}, "add": {f: n}, "remove": [f]} -> {"created": n, "sums": [{"field": f, "value": n}], "removed": n}

``set`` and ``add`` may be lists of [field, value] pairs as well: a name in JSON cannot carry all bytes.
"""

from typing import Final

from aiohttp import web

from edgekv.api.http.changes import Item, check_names, checked_row, delete_key, pairs_of, post_change, rows_of
from edgekv.api.http.content import JSON, MSGPACK, OCTETS, bytes_of, integer_of, wanted_type
from edgekv.api.http.documents import answer_reply, document_reply, tagged_reply
from edgekv.api.http.door import Door
from edgekv.api.http.listings import PAGING, Listing, list_rows
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import bytes_parameter, parameters
from edgekv.errors import InvalidRequest, NotFound

_ENTRIES: Final = Listing[tuple[bytes, bytes]](
    name="entries",
    total=lambda operations, key: operations.maps.count(key),
    page=lambda operations, key, start, limit: operations.maps.page(key, start, limit),
    size=lambda pair: len(pair[0]) + len(pair[1]),
    shown=lambda pair: {"field": pair[0], "value": pair[1]},
)


class MapCalls:
    """One map at a time."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """A page of fields, or one field's value; 404 when there is none."""
        found = parameters(query, ("field", *PAGING))
        check_promises(request, writes=False)
        self._door.operations.check_key(key)
        if "field" not in found:
            return await list_rows(self._door, request, key, found, _ENTRIES)
        if len(found) > 1:
            raise InvalidRequest("field asks for one value, limit and cursor for a page. Give one or the other.")
        return await self._field(request, key, checked_row(bytes_parameter(found, "field"), "field"))

    async def _field(self, request: web.BaseRequest, key: bytes, field: bytes) -> Reply:
        media_type = wanted_type(request, (JSON, MSGPACK, OCTETS))
        [value] = await self._door.read(lambda operations: operations.maps.get(key, [field]))
        if value is None:
            raise NotFound("the map has no such field.")
        hold = self._door.budget.hold(len(value))
        if media_type == OCTETS:
            return tagged_reply(request, value, media_type, hold=hold)
        return document_reply(request, {"value": value}, media_type, hold=hold)

    async def post(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Set, then add, then remove, as one change: how many fields are new, the sums, how many were there."""
        media_type = wanted_type(request)
        adds = list[tuple[bytes, int]]()

        def items_of(wanted: dict[object, object]) -> list[Item]:
            check_names(wanted, ("set", "add", "remove"), "a map")
            adds.extend(pairs_of(wanted.get("add", []), "add", integer_of))
            return [
                ("hset", key, pairs_of(wanted.get("set", []), "set", bytes_of)),
                *(("hadd", key, field, n) for field, n in adds),
                ("hdel", key, rows_of(wanted.get("remove", []), "remove")),
            ]

        created, *sums, removed = await post_change(self._door, request, key, query, items_of)
        shown = [{"field": field, "value": total} for (field, _), total in zip(adds, sums, strict=True)]
        return answer_reply({"created": created, "sums": shown, "removed": removed}, media_type)

    async def delete(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """204, durable; 404; 409 when the key holds other types only."""
        return await delete_key(self._door, request, key, query, lambda operations: operations.maps.count(key) > 0)
