"""What a node lists over HTTP, page after page: its keys, the members of a set, the fields of a map.

Used by ``edgekv scan``, ``export`` and ``demo``. A page is in memory at a time; each is consistent, a chain of them is no snapshot.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urljoin

from edgekv.cli.node_http import NodeHttp, Reply, key_path
from edgekv.codec import from_json
from edgekv.errors import Unavailable
from edgekv.limits import SCAN_LIMIT_MAX

TYPES: Final = ("string", "set", "hash")
PAGE_ENTRIES: Final = 1_001
"""One request lists as many as the default --limit of a scan, and tells whether there are more."""
PAGE_ROWS: Final = 1_000
"""Members or fields of one request."""
_ROOT: Final = "http://node"


class Listed(NamedTuple):
    """One entry of a scan. ``expiry_ms`` 0: it does not expire."""

    key: bytes
    kind: str
    """One of TYPES."""
    value: bytes
    """Of a string; else empty."""
    rows: int
    """The members of a set or the fields of a hash; of a string 0."""
    expiry_ms: int


def scan_pages(
    node: NodeHttp, prefix: bytes, start: bytes = b"", *, limit: int | None = None, kind: str | None = None
) -> Iterator[Listed]:
    """All entries below ``prefix`` from ``start`` on, at most ``limit``, of one type when that is given."""
    left = limit
    page = min(limit or PAGE_ENTRIES, PAGE_ENTRIES, SCAN_LIMIT_MAX)
    path = f"/v1/scan?prefix={quote(prefix, safe='')}&start={quote(start, safe='')}&limit={page}"
    if kind is not None:
        path += f"&type={kind}"
    for reply in _pages(node, path, {"Accept": "application/x-ndjson"}):
        for line in reply.body.splitlines():
            with _told_if_foreign():
                entry = _listed(json.loads(line))
            yield entry
            if left is not None:
                left -= 1
                if left == 0:
                    return


def member_pages(node: NodeHttp, key: bytes) -> Iterator[list[bytes]]:
    """The members of a set. NotFound or WrongType when it is not there, also in the middle."""
    for reply in _pages(node, f"{key_path('set', key)}?limit={PAGE_ROWS}", {}):
        with _told_if_foreign():
            members = [_bytes(each) for each in reply.json()["members"]]
        yield members


def field_pages(node: NodeHttp, key: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """The fields of a map with their values, a counter's as its number; otherwise as `member_pages`."""
    for reply in _pages(node, f"{key_path('map', key)}?limit={PAGE_ROWS}", {}):
        with _told_if_foreign():
            fields = [(_bytes(each["field"]), _bytes(each["value"])) for each in reply.json()["entries"]]
        yield fields


def _pages(node: NodeHttp, path: str, headers: dict[str, str]) -> Iterator[Reply]:
    """A chain of pages by their ``next`` links."""
    following: str | None = path
    while following is not None:
        reply = node.read(following, headers)
        yield reply
        following = _next(following, reply.headers.get("link", ""))


def _next(path: str, link: str) -> str | None:
    """The target of ``Link: <...>; rel="next"``, as a path; it may be relative to that of the page."""
    target, _, parameters = link.partition(">")
    if 'rel="next"' not in parameters:
        return None
    target = target.lstrip(" <")
    return path.partition("?")[0] + target if target.startswith("?") else urljoin(_ROOT, target).removeprefix(_ROOT)


def _listed(entry: Any) -> Listed:
    kind = entry.get("type", "string")
    if kind not in TYPES:
        raise ValueError(kind)
    value = _bytes(entry["value"]) if kind == "string" else b""
    rows = 0 if kind == "string" else int(entry["count"])
    return Listed(_bytes(entry["key"]), kind, value, rows, int(entry.get("expiry_ms") or 0))


def _bytes(value: object) -> bytes:
    data = from_json(value)
    if data is None:
        raise ValueError("neither text nor base64")
    return data


@contextmanager
def _told_if_foreign() -> Iterator[None]:
    """Unavailable when what is read is no page of a node."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unavailable("the answer is not a page of a scan: is this the HTTP listener of an EdgeKV node?") from error
