"""``/v1/set/{key}``: a set of byte strings.

GET             {"members": [...], "count": n, "cursor": text or null}     a page, ordered
GET ?member=m   {"contains": true}
POST            {"add": [...], "remove": [...]} -> {"added": n, "removed": n}
"""

from typing import Final

from aiohttp import web

from edgekv.api.http.changes import Item, check_names, checked_row, delete_key, post_change, rows_of
from edgekv.api.http.content import wanted_type
from edgekv.api.http.documents import answer_reply, document_reply
from edgekv.api.http.door import Door
from edgekv.api.http.listings import PAGING, Listing, list_rows
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import bytes_parameter, parameters
from edgekv.errors import InvalidRequest

_MEMBERS: Final = Listing[bytes](
    name="members",
    total=lambda operations, key: operations.sets.count(key),
    page=lambda operations, key, start, limit: operations.sets.page(key, start, limit),
    size=len,
    shown=lambda member: member,
)


class SetCalls:
    """One set at a time."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """A page of members, 404 when there is none; or whether one is among them."""
        found = parameters(query, ("member", *PAGING))
        check_promises(request, writes=False)
        self._door.operations.check_key(key)
        if "member" not in found:
            return await list_rows(self._door, request, key, found, _MEMBERS)
        if len(found) > 1:
            raise InvalidRequest("member asks for one element, limit and cursor for a page. Give one or the other.")
        member = checked_row(bytes_parameter(found, "member"), "member")
        media_type = wanted_type(request)
        [contains] = await self._door.read(lambda operations: operations.sets.contains(key, [member]))
        return document_reply(request, {"contains": contains}, media_type)

    async def post(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Add, then remove, as one change: how many were new, and how many were there."""
        media_type = wanted_type(request)
        results = iter(await post_change(self._door, request, key, query, lambda wanted: _items(key, wanted)))
        return answer_reply({"added": next(results), "removed": next(results)}, media_type)

    async def delete(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """204, durable; 404; 409 when the key holds other types only."""
        return await delete_key(self._door, request, key, query, lambda operations: operations.sets.count(key) > 0)


def _items(key: bytes, wanted: dict[object, object]) -> list[Item]:
    check_names(wanted, ("add", "remove"), "a set")
    return [
        ("sadd", key, rows_of(wanted.get("add", []), "add")),
        ("srem", key, rows_of(wanted.get("remove", []), "remove")),
    ]
