"""Cursors of watches: which changes were seen, as text that is good on any node.

    base64url, without padding, of msgpack [1, actor 25 B, lsn, next_key | nil, [[keyspace_id, [[actor, seq], ...]], ...]]

The vectors say which changes were seen, in each keyspace that the watch covers: on every node the same thing. ``actor`` and ``lsn``
are a hint for the node that made the cursor, where in its log to go on without a search. With a ``next_key`` the watch was being shown
current rows, as they are at these vectors or later, and those from this key on had not been shown.

A client may make one up; it then misses what it says it has seen, which harms nobody else.
"""

import base64
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from edgekv.codec import pack, unpack
from edgekv.errors import InvalidRequest
from edgekv.ids import ACTOR_BYTES, Actor, Vector
from edgekv.limits import KEY_BYTES_MAX, WATCH_CURSOR_CHARS_MAX

START_TEXT: Final = "0"
"""Stands for a watch that has seen nothing and wants the current rows first."""
_FORMAT: Final = 1
_TEXT: Final = re.compile("[A-Za-z0-9_-]+")


class Cursor(NamedTuple):
    """See the module docstring."""

    actor: Actor
    lsn: int
    next_key: bytes | None
    vectors: dict[int, Vector]
    """By keyspace id."""


def cursor_text(actor: Actor, lsn: int, next_key: bytes | None, vectors: Mapping[int, Vector]) -> str:
    """A cursor as clients hold it."""
    seen = [(keyspace, list(vector.items())) for keyspace, vector in vectors.items()]
    return base64.urlsafe_b64encode(pack((_FORMAT, actor, lsn, next_key, seen))).rstrip(b"=").decode()


def cursor_of(text: str) -> Cursor:
    """The inverse; InvalidRequest for what `cursor_text` does not make."""
    if len(text) > WATCH_CURSOR_CHARS_MAX or not _TEXT.fullmatch(text) or len(text) % 4 == 1:
        raise _no_cursor()
    match _unpacked(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))):
        case [1, bytes(actor), int(lsn), None | bytes() as next_key, list(seen)] if (
            len(actor) == ACTOR_BYTES and lsn >= 0
        ):
            if next_key is not None and len(next_key) > KEY_BYTES_MAX + 1:
                raise _no_cursor()
            return Cursor(Actor(actor), lsn, next_key, dict(map(_keyspace, seen)))
    raise _no_cursor()


def _keyspace(item: object) -> tuple[int, Vector]:
    match item:
        case [int(keyspace), list(entries)]:
            return keyspace, dict(map(_entry, entries))
    raise _no_cursor()


def _entry(item: object) -> tuple[Actor, int]:
    match item:
        case [bytes(actor), int(seq)] if len(actor) == ACTOR_BYTES:
            return Actor(actor), seq
    raise _no_cursor()


def _unpacked(data: bytes) -> object:
    try:
        value: object = unpack(data)
    except InvalidRequest as error:
        raise _no_cursor() from error
    return value


def _no_cursor() -> InvalidRequest:
    return InvalidRequest(
        "the cursor is not one that a watch has given. "
        'Watch without it for what comes from now on, or with "0" for the current rows first.'
    )
