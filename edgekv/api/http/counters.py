"""``/v1/counter/{key}``: a number that only adding changes.

GET     {"value": n}
POST    {"add": n} -> {"value": n}

A sum is exact, and JSON shows all of its digits: they may be more than the double has that a client reads them into. msgpack has the
nearest double for what is no integer of 64 bits.
"""

import re
from typing import Final

from aiohttp import web

from edgekv.api.http.body import Bound, check_announced, read_body
from edgekv.api.http.changes import delete_key
from edgekv.api.http.content import JSON, amount_of, decoded_object, encoded, wanted_type
from edgekv.api.http.documents import tagged_reply
from edgekv.api.http.door import Door
from edgekv.api.http.host import Operations
from edgekv.api.http.kv import missing
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.crdt.decimals import Number, parse, text_of
from edgekv.errors import InvalidRequest, NotANumber

_INTEGER: Final = re.compile(rb"-?[0-9]+")
_COUNTER_BODY: Final = Bound(1024, 'Send {"add": n} and nothing else.')


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
        return tagged_reply(request, _body(_counted(value), media_type), media_type)

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
        amount = amount_of(wanted["add"], "add")
        total = await self._door.write(lambda operations: _add(operations, key, amount))
        return Reply(200, b"Content-Type: %s\r\n" % media_type.encode(), _body(total, media_type))

    async def delete(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """204, durable; 404; 409 when the key holds other types only."""
        return await delete_key(self._door, request, key, query, lambda operations: operations.get(key) is not None)


def _add(operations: Operations, key: bytes, amount: int | bytes) -> Number:
    """The sum. An integer on top of a fraction is added as fractions are; integers stay within 64 bits."""
    if isinstance(amount, int):
        try:
            return operations.increment(key, amount)
        except NotANumber:
            held = operations.get(key)
            if held is None or _INTEGER.fullmatch(held):
                raise
        amount = b"%d" % amount
    return _counted(operations.increment_float(key, amount))


def _counted(value: bytes) -> Number:
    """A value as a counter shows it. A merged sum may leave 64 bits and is shown in full."""
    number = parse(value)
    if number is None:
        raise NotANumber("the key holds a value that is not a number. Read it at /v1/kv/.")
    return number


def _body(number: Number, media_type: str) -> bytes:
    if media_type == JSON:
        return b'{"value":%b}' % text_of(number)
    whole = isinstance(number, int) and -(1 << 63) <= number < 1 << 63
    return encoded({"value": number if whole else float(text_of(number))}, media_type)
