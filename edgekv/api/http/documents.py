"""Replies that are documents, JSON or msgpack, with a digest of their bytes as ETag.

A counter, set or map has no single write that its state comes from, so its ETag cannot be a version: it is the same for the same
bytes, on every node.
"""

from hashlib import blake2b
from typing import Final

from aiohttp import web

from edgekv.api.http.content import encoded
from edgekv.api.http.reply import Reply
from edgekv.api.http.waiting import Hold

_DIGEST_BYTES: Final = 16


def document_reply(
    request: web.BaseRequest, value: object, media_type: str, *, headers: bytes = b"", hold: Hold | None = None
) -> Reply:
    """200 with a value as the client wants it; 304 when it has it."""
    return tagged_reply(request, encoded(value, media_type), media_type, headers=headers, hold=hold)


def tagged_reply(
    request: web.BaseRequest,
    body: bytes,
    media_type: str,
    *,
    headers: bytes = b"",
    hold: Hold | None = None,
    status: int = 200,
) -> Reply:
    """200, or another status, with a body and its ETag; or 304."""
    etag = f'"{blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()}"'
    headers += b"ETag: %s\r\nVary: Accept\r\n" % etag.encode()
    if is_known(request, etag):
        return Reply(304, headers, hold=hold)
    return Reply(status, b"Content-Type: %s\r\n" % media_type.encode() + headers, body, hold=hold)


def answer_reply(value: object, media_type: str) -> Reply:
    """200 with what a write answers: nothing to be cached."""
    return Reply(200, b"Content-Type: %s\r\n" % media_type.encode(), encoded(value, media_type))


def is_known(request: web.BaseRequest, etag: str) -> bool:
    """Whether If-None-Match names an ETag, by weak comparison."""
    header = request.headers.get("If-None-Match")
    return header is not None and any(item.strip().removeprefix("W/") in (etag, "*") for item in header.split(","))
