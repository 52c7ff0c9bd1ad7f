"""``/v1/kv/{key}``: one value at a time."""

from typing import Final

from aiohttp import web

from edgekv.api.http.body import Bound, check_announced, inline_body, read_body
from edgekv.api.http.content import JSON, MSGPACK, OCTETS, encoded, wanted_type
from edgekv.api.http.documents import is_known
from edgekv.api.http.door import Door
from edgekv.api.http.host import Operations
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.siblings import absent, all_values_reply, context_header, context_of, delete_step, read_step
from edgekv.api.http.target import integer_parameter, parameters
from edgekv.api.http.waiting import Hold
from edgekv.config import TTL_S_MAX
from edgekv.errors import NotFound
from edgekv.limits import HTTP_INLINE_BODY_BYTES
from edgekv.node.operations import Entry, Version, value_advice

_VALUE_TYPE: Final = b"Content-Type: application/octet-stream\r\nVary: Accept\r\n"


def etag_of(version: Version) -> str:
    """A version as an entity tag: ``HLC-ACTOR`` (the actor's last 8 bytes), and ``HLC-ACTOR-PARTS`` for what was counted."""
    parts = f"-{version.parts:016x}" if version.parts else ""
    return f'"{version.hlc:016x}-{version.actor[-8:].hex():0>16}{parts}"'


def missing() -> NotFound:
    """404."""
    return NotFound("the key does not exist.")


def value_reply(entry: Entry, hold: Hold | None = None, headers: bytes = b"") -> Reply:
    """200 with the raw bytes."""
    headers += _VALUE_TYPE + b"ETag: %s\r\n" % etag_of(entry.version).encode()
    return Reply(200, headers, entry.value, hold=hold)


def entry_reply(entry: Entry, media_type: str, hold: Hold, headers: bytes = b"") -> Reply:
    """200 with the value among what is known of it, as a scan shows it. The ETag is weak: the raw bytes have the strong one."""
    headers += f"Content-Type: {media_type}\r\nVary: Accept\r\nETag: W/{etag_of(entry.version)}\r\n".encode()
    return Reply(200, headers, encoded(entry_fields(entry), media_type), hold=hold)


def entry_fields(entry: Entry) -> dict[str, object]:
    """A string as documents show it."""
    version = etag_of(entry.version).strip('"')
    fields: dict[str, object] = {"key": entry.key, "type": "string", "value": entry.value, "version": version}
    if entry.expiry_ms:
        fields["expiry_ms"] = entry.expiry_ms
    return fields


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
        """The value, raw unless Accept prefers a document, with its version as ETag; 304 when the client has it; 404.

        300 with all values where there are several.
        """
        if query:
            parameters(query, ())
        check_promises(request, writes=False)
        media_type = wanted_type(request, (OCTETS, JSON, MSGPACK), otherwise=OCTETS)
        entry, values = await self._door.read(lambda operations: read_step(operations, key))
        if values is not None and len(values.values) > 1:
            return all_values_reply(request, values, self._door.budget.hold(sum(map(len, values.values))))
        if entry is None:
            raise missing() if values is None else absent(values)
        etag, context = etag_of(entry.version), context_header(values)
        if is_known(request, etag):
            return Reply(304, b"ETag: %s\r\nVary: Accept\r\n" % etag.encode() + context)
        if media_type != OCTETS:
            return entry_reply(entry, media_type, self._door.budget.hold(len(entry.value)), context)
        hold = self._door.budget.hold(len(entry.value)) if len(entry.value) > HTTP_INLINE_BODY_BYTES else None
        return value_reply(entry, hold, context)

    async def put(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Store the body as the value: 204, durable, with the new version as ETag."""
        self._door.operations.check_key(key)
        ttl_s = integer_parameter(parameters(query, ("ttl_s",)), "ttl_s", low=1, high=TTL_S_MAX) if query else None
        check_promises(request, writes=True)
        check_announced(request, self._bound)
        context = context_of(request)
        value = inline_body(request, self._bound)
        if value is not None:
            return await self._store(key, value, ttl_s, context)
        await self._door.admit()
        with self._door.budget.hold() as hold:
            value = await read_body(request, self._bound, hold)
            return await self._store(key, value, ttl_s, context)

    async def _store(self, key: bytes, value: bytes, ttl_s: int | None, context: str | None) -> Reply:
        return stored_reply(await self._door.write(lambda operations: put_step(operations, key, value, ttl_s, context)))

    async def delete(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """204, durable; 404 when there was nothing."""
        if query:
            parameters(query, ())
        check_promises(request, writes=True)
        context = context_of(request)
        if not await self._door.write(lambda operations: delete_step(operations, key, context)):
            raise missing()
        return Reply(204)


def put_step(
    operations: Operations, key: bytes, value: bytes, ttl_s: int | None, context: str | None = None
) -> Version:
    """Store; the version is the stamp that the change got: its keyspace's newest HLC. (Reading the entry back costs as much again.)"""
    expiry_ms = operations.now_ms() + ttl_s * 1000 if ttl_s else 0
    if context is None:
        operations.set(key, value, expiry_ms=expiry_ms)
    else:
        operations.siblings.put(key, value, context, expiry_ms=expiry_ms)
    engine = operations.engine
    return Version(engine.keyspaces.of(key).hlc, engine.actor)
