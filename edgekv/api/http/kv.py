"""``/v1/kv/{key}`` and ``/v1/counter/{key}``: one key at a time."""

import re
from typing import Final

from aiohttp import web

from edgekv.api.http.body import Bound, check_announced, inline_body, read_body
from edgekv.api.http.content import decoded_object, encoded, integer_of, wanted_type
from edgekv.api.http.door import Door
from edgekv.api.http.host import Operations
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import integer_parameter, parameters
from edgekv.api.http.waiting import Hold
from edgekv.config import TTL_S_MAX
from edgekv.errors import InvalidRequest, NotANumber, NotFound
from edgekv.limits import COUNTER_BYTES_MAX, HTTP_INLINE_BODY_BYTES
from edgekv.node.operations import Entry, Version, value_advice

_COUNTER_BODY: Final = Bound(1024, 'Send {"add": n} and nothing else.')
_INTEGER: Final = re.compile(rb"-?(0|[1-9][0-9]*)")
_VALUE_TYPE: Final = b"Content-Type: application/octet-stream\r\n"


def etag_of(version: Version) -> str:
    """A version as an entity tag: ``HLC-ACTOR`` (the actor's last 8 bytes), and ``HLC-ACTOR-PARTS`` for what was counted."""
    parts = f"-{version.parts:016x}" if version.parts else ""
    return f'"{version.hlc:016x}-{version.actor[-8:].hex():0>16}{parts}"'


def missing() -> NotFound:
    """404."""
    return NotFound("the key does not exist.")


def value_reply(entry: Entry, hold: Hold | None = None) -> Reply:
    """200 with the raw bytes."""
    return Reply(200, _VALUE_TYPE + b"ETag: %s\r\n" % etag_of(entry.version).encode(), entry.value, hold=hold)


def stored_reply(version: Version) -> Reply:
    """204 with the new version."""
    return Reply(204, b"ETag: %s\r\n" % etag_of(version).encode())


class KeyCalls:
    """A register: raw bytes in and out."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door
        value_bytes_max = door.operations.value_bytes_max
        self._bound: Final = Bound(value_bytes_max, value_advice(value_bytes_max))

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """The value, with its version as ETag; 304 when the client has it; 404."""
        if query:
            parameters(query, ())
        check_promises(request, writes=False)
        entry = await self._door.read(lambda operations: operations.get_entry(key))
        if entry is None:
            raise missing()
        etag = etag_of(entry.version)
        if "If-None-Match" in request.headers and _names(request.headers["If-None-Match"], etag):
            return Reply(304, b"ETag: %s\r\n" % etag.encode())
        hold = self._door.budget.hold(len(entry.value)) if len(entry.value) > HTTP_INLINE_BODY_BYTES else None
        return value_reply(entry, hold)

    async def put(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Store the body as the value: 204, durable, with the new version as ETag."""
        self._door.operations.check_key(key)
        ttl_s = integer_parameter(parameters(query, ("ttl_s",)), "ttl_s", low=1, high=TTL_S_MAX) if query else None
        check_promises(request, writes=True)
        check_announced(request, self._bound)
        value = inline_body(request, self._bound)
        if value is not None:
            return await self._store(key, value, ttl_s)
        await self._door.admit()
        with self._door.budget.hold() as hold:
            value = await read_body(request, self._bound, hold)
            return await self._store(key, value, ttl_s)

    async def _store(self, key: bytes, value: bytes, ttl_s: int | None) -> Reply:
        return stored_reply(await self._door.write(lambda operations: put_step(operations, key, value, ttl_s)))

    async def delete(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """204, durable; 404 when there was nothing."""
        if query:
            parameters(query, ())
        check_promises(request, writes=True)
        if not await self._door.write(lambda operations: operations.delete([key])):
            raise missing()
        return Reply(204)


class CounterCalls:
    """A number that only adding changes."""

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
        return _sum_reply(_counted(value), media_type)

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
        return _sum_reply(await self._door.write(lambda operations: operations.increment(key, delta)), media_type)


def put_step(operations: Operations, key: bytes, value: bytes, ttl_s: int | None) -> Version:
    """Store; the version is the stamp that the change got: its keyspace's newest HLC. (Reading the entry back costs as much again.)"""
    operations.set(key, value, expiry_ms=operations.now_ms() + ttl_s * 1000 if ttl_s else 0)
    engine = operations.engine
    return Version(engine.keyspaces.of(key).hlc, engine.actor)


def _names(header: str, etag: str) -> bool:
    """If-None-Match by weak comparison."""
    return any(item.strip().removeprefix("W/") in (etag, "*") for item in header.split(","))


def _counted(value: bytes) -> int:
    """A value as a counter shows it. A merged sum may leave 64 bits and is shown in full."""
    if len(value) > COUNTER_BYTES_MAX or not _INTEGER.fullmatch(value):
        raise NotANumber("the key holds a value that is not a whole number. Read it at /v1/kv/.")
    return int(value)


def _sum_reply(value: int, media_type: str) -> Reply:
    return Reply(200, b"Content-Type: %s\r\n" % media_type.encode(), encoded({"value": value}, media_type))
