"""``/v1/kv/{key}`` in a keyspace that keeps concurrent values: what is different there.

A GET says in ``Edgekv-Context`` which values it showed, and shows all of them (300) when there are several. A PUT or DELETE that sends
the context back removes those and no others; one without it removes what this node holds.
"""

from typing import Final, NamedTuple

from aiohttp import web

from edgekv.api.http.content import JSON, MSGPACK, encoded, wanted_type
from edgekv.api.http.documents import tagged_reply
from edgekv.api.http.host import Operations
from edgekv.api.http.problem import Refusal
from edgekv.api.http.reply import Reply
from edgekv.api.http.waiting import Hold
from edgekv.errors import NotFound
from edgekv.node.operations import Entry, Values

CONTEXT: Final = "Edgekv-Context"


class Read(NamedTuple):
    """What a key holds, as far as a GET shows it: ``values`` where its keyspace keeps concurrent ones, ``entry`` when there is any."""

    entry: Entry | None
    values: Values | None


def read_step(operations: Operations, key: bytes) -> Read:
    """Read a key in any keyspace."""
    operations.check_key(key)
    if not operations.siblings.kept(key):
        return Read(operations.get_entry(key), None)
    values = operations.siblings.get(key)
    return Read(operations.get_entry(key) if values.values else None, values)


def context_header(values: Values | None) -> bytes:
    """The header that goes with an answer."""
    return b"" if values is None else f"{CONTEXT}: {values.context}\r\n".encode()


def absent(values: Values) -> Refusal:
    """404 with a context, so that a value can be put that does not hide one which comes in between."""
    return Refusal(404, NotFound.code, "the key does not exist.", context_header(values))


def all_values_reply(request: web.BaseRequest, values: Values, hold: Hold) -> Reply:
    """300 with every value, or 304."""
    media_type = wanted_type(request, (JSON, MSGPACK), otherwise=JSON)
    body = encoded({"context": values.context, "values": values.values}, media_type)
    return tagged_reply(request, body, media_type, headers=context_header(values), hold=hold, status=300)


def context_of(request: web.BaseRequest) -> str | None:
    """What the client has read, as it says; None: it does not say."""
    return request.headers.get(CONTEXT)


def delete_step(operations: Operations, key: bytes, context: str | None) -> int:
    """Delete what was read, or all; how many of it there were."""
    return operations.delete([key]) if context is None else operations.siblings.delete(key, context)
