"""``/v1/counter/{key}``: a number that only adding changes.

GET     {"value": n}
POST    {"add": n} -> {"value": n}
"""

import re
from typing import Final

from aiohttp import web

from edgekv.api.http.body import Bound, check_announced, read_body
from edgekv.api.http.changes import delete_key
from edgekv.api.http.content import decoded_object, integer_of, wanted_type
from edgekv.api.http.documents import answer_reply, document_reply
from edgekv.api.http.door import Door
from edgekv.api.http.kv import missing
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.errors import InvalidRequest, NotANumber
from edgekv.limits import COUNTER_BYTES_MAX

_COUNTER_BODY: Final = Bound(1024, 'Send {"add": n} and nothing else.')
_INTEGER: Final = re.compile(rb"-?(0|[1-9][0-9]*)")


class CounterCalls:
    """One counter at a time."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """``{"value": n}``; 404; 409 when the key holds something else."""
        if query:
            parameters(query, ())
        check_promises(request, writes=False)
        self._door.operations.check_key(key)
        media_type = wanted_type(request)
        value = await self._door.read(lambda operations: operations.get(key))
        if value is None:
            raise missing()
        return document_reply(request, {"value": _counted(value)}, media_type)

    async def add(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """``{"add": n}`` -> ``{"value": n}``, durable. An absent counter begins at 0."""
        if query:
            parameters(query, ())
        check_promises(request, writes=True)
        media_type = wanted_type(request)
        check_announced(request, _COUNTER_BODY)
        with self._door.budget.hold() as hold:
            wanted = decoded_object(request, await read_body(request, _COUNTER_BODY, hold))
        if wanted.keys() != {"add"}:
            raise InvalidRequest('a counter takes one field: {"add": n}.')
        delta = integer_of(wanted["add"], "add")
        total = await self._door.write(lambda operations: operations.increment(key, delta))
        return answer_reply({"value": total}, media_type)

    async def delete(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """204, durable; 404; 409 when the key holds other types only."""
        return await delete_key(self._door, request, key, query, lambda operations: operations.get(key) is not None)


def _counted(value: bytes) -> int:
    """A value as a counter shows it. A merged sum may leave 64 bits and is shown in full."""
    if len(value) > COUNTER_BYTES_MAX or not _INTEGER.fullmatch(value):
        raise NotANumber("the key holds a value that is not a whole number. Read it at /v1/kv/.")
    return int(value)
