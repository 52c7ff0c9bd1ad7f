"""The current rows below a prefix as events of a watch whose place the log no longer reaches.

Read page by page while the node goes on: each page is consistent in itself, and a row that changes after it was shown changes in the
log behind the watch's place as well, so it is shown again from there. Large sets and maps are shown in parts.
"""

from collections.abc import Iterator
from typing import Final

from edgekv.errors import WrongType
from edgekv.limits import WATCH_PAGE_KEYS
from edgekv.node.operations import Listed, Operations
from edgekv.node.watch_events import Written, version_text

_PART_ROWS: Final = 256


def current_rows(operations: Operations, prefix: bytes, start: bytes) -> Iterator[list[Written]]:
    """Keys below ``prefix`` from ``start`` on, in order, in lists of one read each; a key may go on in the next list."""
    next_key: bytes | None = start
    while next_key is not None:
        page = operations.page(next_key, prefix, WATCH_PAGE_KEYS)
        small: list[Written] = []
        for listed in page.listed:
            small += _strings(operations, listed)
            if listed.elements or listed.fields:
                yield small
                small = []
                yield from _elements(operations, listed)
                yield from _fields(operations, listed)
        yield small
        next_key = page.next_key


def _strings(operations: Operations, listed: Listed) -> list[Written]:
    entry = listed.string
    if entry is None:
        return []
    version = version_text(entry.version.hlc, entry.version.actor)
    if operations.siblings.kept(listed.key):
        values = operations.siblings.get(listed.key).values
        return [Written(listed.key, "siblings", version, value, entry.expiry_ms) for value in values]
    counted = entry.version.parts != 0
    return [Written(listed.key, "counter" if counted else "register", version, entry.value, entry.expiry_ms)]


def _elements(operations: Operations, listed: Listed) -> Iterator[list[Written]]:
    start: bytes | None = b"" if listed.elements else None
    while start is not None:
        try:
            found, start = operations.sets.page(listed.key, start, _PART_ROWS)
        except WrongType:  # It holds something else by now; the log tells of that.
            return
        yield [Written(listed.key, "set", expiry_ms=listed.expiry_ms, elements=found)] if found else []


def _fields(operations: Operations, listed: Listed) -> Iterator[list[Written]]:
    start: bytes | None = b"" if listed.fields else None
    while start is not None:
        try:
            found, start = operations.maps.page(listed.key, start, _PART_ROWS)
        except WrongType:  # It holds something else by now; the log tells of that.
            return
        yield [Written(listed.key, "map", expiry_ms=listed.expiry_ms, fields=list(found))] if found else []
