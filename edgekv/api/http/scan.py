"""``GET /v1/scan``: what keys hold, in key order, a page at a time.

An entry is a string with its value, or a set or map with how many rows it has; ``type`` says which. A key to which sites wrote
several types at the same time has an entry for each of them, in that order and in one page.

A page is read in steps of up to HTTP_SCAN_STEP_ENTRIES entries, each consistent in itself, with the event loop served between
them; it ends at its limit or at HTTP_SCAN_BYTES_MAX, whichever is first, and with ``?type=`` also when it has looked at
HTTP_SCAN_KEYS_MAX keys. A cursor (cursors.py) is ``prefix.next``, where ``next`` is
the key to go on from, without the prefix.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from aiohttp import web

from edgekv.api.http.content import JSON, MSGPACK, NDJSON, json_bytes, wanted_type
from edgekv.api.http.cursors import POSITION_BYTES_MAX, no_cursor, position_of, position_text
from edgekv.api.http.door import Door
from edgekv.api.http.host import Operations
from edgekv.api.http.kv import entry_fields
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import bytes_parameter, integer_parameter, parameters
from edgekv.api.http.waiting import Hold
from edgekv.codec import pack
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import (
    HTTP_SCAN_BYTES_MAX,
    HTTP_SCAN_KEYS_MAX,
    HTTP_SCAN_LIMIT_DEFAULT,
    HTTP_SCAN_STEP_ENTRIES,
    KEY_BYTES_MAX,
    SCAN_LIMIT_MAX,
)
from edgekv.node.operations import Listed

_KNOWN: Final = ("prefix", "start", "limit", "cursor", "type")
TYPES: Final = ("string", "set", "hash")
_FIRST_STEP_ENTRIES: Final = 8
"""Before the sizes here are known, a step is small: eight values of 16 MiB are bearable, 256 are not."""


class Wanted(NamedTuple):
    """What a scan was asked for."""

    prefix: bytes
    start: bytes
    limit: int
    kind: str
    """One of TYPES; empty: all of them."""


class ScanCalls:
    """The scan."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """One page as JSON, msgpack or NDJSON; ``Link: rel=next`` when there is more."""
        assert not key
        wanted = wanted_page(query)
        media_type = wanted_type(request, (JSON, MSGPACK, NDJSON))
        check_promises(request, writes=False)
        hold = self._door.budget.hold()
        try:
            page = PageReader(wanted, media_type, hold)
            await self._door.read_in_slices(page.step)
            body = page.body()
        except BaseException:
            hold.release()
            raise
        return Reply(200, page.headers(), body, hold=hold)


class PageReader:
    """A page while it is being read."""

    def __init__(self, wanted: Wanted, media_type: str, hold: Hold) -> None:
        self._wanted: Final = wanted
        self._media_type: Final = media_type
        self._hold: Final = hold
        self._rows: Final[list[bytes | dict[str, object]]] = []
        # Of all that was looked at, shown or not.
        self._keys = self._bytes = 0
        self._next: bytes | None = wanted.start

    def step(self, operations: Operations) -> bool:
        """Read some more keys; whether there are more to read for this page."""
        assert self._next is not None
        page = operations.page(self._next, self._wanted.prefix, self._step_keys())
        for listed in page.listed:
            if len(self._rows) >= self._wanted.limit:
                self._next = listed.key
                return False
            self._take(listed)
        self._next = page.next_key
        if page.next_key is None:
            return False
        if self._has_room:
            return True
        self._next = self._following(operations, page.next_key)
        return False

    def _take(self, listed: Listed) -> None:
        """Show a key, as far as it is of a type that is wanted. JSON is made here, in slices; msgpack is made at the end."""
        size = len(listed.key) + (len(listed.string.value) if listed.string is not None else 0)
        self._keys += 1
        self._bytes += size
        for fields in listed_fields(listed):
            if not self._wanted.kind or fields["type"] == self._wanted.kind:
                self._hold.add(size if "value" in fields else len(listed.key))
                self._rows.append(fields if self._media_type == MSGPACK else json_bytes(fields))

    @property
    def _has_room(self) -> bool:
        if self._wanted.kind and self._keys >= HTTP_SCAN_KEYS_MAX:
            return False
        return self._bytes < HTTP_SCAN_BYTES_MAX and len(self._rows) < self._wanted.limit

    def _following(self, operations: Operations, next_key: bytes) -> bytes | None:
        """Where the next page begins. A range may end full and not know yet that nothing but internal keys follows."""
        page = operations.page(next_key, self._wanted.prefix, 1)
        return page.listed[0].key if page.listed else page.next_key

    def _step_keys(self) -> int:
        # Of one type there may be few: as many keys are looked at as a step may, whatever is left of the limit.
        left = HTTP_SCAN_STEP_ENTRIES if self._wanted.kind else self._wanted.limit - len(self._rows)
        if not self._keys:
            return min(left, _FIRST_STEP_ENTRIES)
        fitting = (HTTP_SCAN_BYTES_MAX - self._bytes) * self._keys // max(self._bytes, 1)
        return max(1, min(left, HTTP_SCAN_STEP_ENTRIES, fitting))

    @property
    def _cursor(self) -> str | None:
        return None if self._next is None else cursor_text(self._wanted.prefix, self._next)

    def body(self) -> bytes:
        """``{"entries": [...], "cursor": text or null}``; in NDJSON the entries alone, one per line."""
        if self._media_type == MSGPACK:
            return pack({"entries": self._rows, "cursor": self._cursor})
        lines = [row for row in self._rows if isinstance(row, bytes)]
        if self._media_type == NDJSON:
            return b"".join(line + b"\n" for line in lines)
        return b'{"entries":[' + b",".join(lines) + b'],"cursor":' + json_bytes(self._cursor) + b"}"

    def headers(self) -> bytes:
        """Content-Type, and Link when there is more."""
        lines = b"Content-Type: %s\r\nVary: Accept\r\n" % self._media_type.encode()
        if self._cursor is not None:
            kind = f"&type={self._wanted.kind}" if self._wanted.kind else ""
            lines += f'Link: </v1/scan?cursor={self._cursor}&limit={self._wanted.limit}{kind}>; rel="next"\r\n'.encode()
        return lines


def wanted_page(query: str) -> Wanted:
    """Read the parameters. A cursor brings its own prefix; ``start`` beside it would contradict it."""
    found = parameters(query, _KNOWN)
    prefix, start = bytes_parameter(found, "prefix"), bytes_parameter(found, "start")
    limit = integer_parameter(found, "limit", low=1, high=SCAN_LIMIT_MAX) or HTTP_SCAN_LIMIT_DEFAULT
    if len(prefix) > KEY_BYTES_MAX or len(start) > KEY_BYTES_MAX:
        raise TooLarge(f"prefix and start have at most {KEY_BYTES_MAX} bytes, as keys do. Use shorter ones.")
    if "cursor" in found:
        if "start" in found:
            raise InvalidRequest("start and cursor both say where to begin. Give one of them.")
        cursor_prefix, start = read_cursor(found["cursor"])
        if "prefix" in found and prefix != cursor_prefix:
            raise InvalidRequest("the cursor belongs to a scan of another prefix. Leave prefix out, or start anew.")
        prefix = cursor_prefix
    return Wanted(prefix, start, limit, _kind(found))


def _kind(found: dict[str, str]) -> str:
    kind = found.get("type", "")
    if "type" in found and kind not in TYPES:
        raise InvalidRequest(f"type is one of {', '.join(TYPES)}; leave it out for all of them.")
    return kind


def listed_fields(listed: Listed) -> Iterator[dict[str, object]]:
    """A key's entries as documents show them: one for each type that it holds."""
    if listed.string is not None:
        yield entry_fields(listed.string)
    for kind, count in (("set", listed.elements), ("hash", listed.fields)):
        if count:
            fields: dict[str, object] = {"key": listed.key, "type": kind, "count": count}
            if listed.expiry_ms:
                fields["expiry_ms"] = listed.expiry_ms
            yield fields


def cursor_text(prefix: bytes, next_key: bytes) -> str:
    """A cursor that goes on at ``next_key``, which starts with ``prefix``."""
    assert next_key.startswith(prefix)
    return f"{position_text(prefix)}.{position_text(next_key[len(prefix) :])}"


def read_cursor(text: str) -> tuple[bytes, bytes]:
    """(prefix, next key); InvalidRequest for what `cursor_text` did not make."""
    prefix_text, dot, rest_text = text.partition(".")
    prefix, rest = position_of(prefix_text), position_of(rest_text)
    if not dot or len(prefix) + len(rest) > POSITION_BYTES_MAX:
        raise no_cursor()
    return prefix, prefix + rest
