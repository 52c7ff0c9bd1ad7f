"""The context of a read of siblings, as text that its reader hands back with a write: which values it had seen.

    base64url, no padding:  version 1 | CRC-32C u32 big-endian of the rest | msgpack [keyspace, key hash, [[actor, [seq, ...]], ...]]

It names dots, not the vector of a node, so it is small (about 50 bytes for one value) and good on every node. It is no proof of
anything: whoever may write the key may remove its values without one. The checksum and the names of keyspace and key are there so that
a mistake is refused, not carried out.
"""

import base64
import re
from hashlib import blake2b
from itertools import groupby
from typing import Final

from edgekv.checksum import crc32c
from edgekv.codec import pack, unpack
from edgekv.crdt.elements import Dot, Dots
from edgekv.errors import InvalidRequest
from edgekv.ids import ACTOR_BYTES, Actor, KeyspaceId
from edgekv.limits import CONTEXT_CHARS_MAX, CONTEXT_DOTS_MAX

_VERSION: Final = b"\x01"
_CRC_BYTES: Final = 4
_KEY_HASH_BYTES: Final = 8
_TEXT: Final = re.compile(r"([A-Za-z0-9_-]{4})+([A-Za-z0-9_-]{2,3})?")


def context_text(keyspace: KeyspaceId, key: bytes, dots: Dots) -> str:
    """The context of a read that showed the values with these dots, which are ascending.

    Of more than CONTEXT_DOTS_MAX the last ones are left out: a write with it leaves their values as siblings of its own.
    """
    by_actor = groupby(dots[:CONTEXT_DOTS_MAX], lambda dot: dot[0])
    body = pack([keyspace, _key_hash(key), [[actor, [seq for _, seq in group]] for actor, group in by_actor]])
    return base64.urlsafe_b64encode(_VERSION + _checksum(body) + body).rstrip(b"=").decode()


def context_dots(text: str, keyspace: KeyspaceId, key: bytes) -> frozenset[Dot]:
    """The dots that it names; InvalidRequest when it is no context, or one of another key."""
    if len(text) > CONTEXT_CHARS_MAX or not _TEXT.fullmatch(text):
        raise _malformed()
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    body = data[1 + _CRC_BYTES :]
    if data[:1] != _VERSION or data[1 : 1 + _CRC_BYTES] != _checksum(body):
        raise _malformed()
    match unpack(body):
        case [int(named), bytes(key_hash), list(actors)]:
            dots = frozenset(dot for actor in actors for dot in _dots(actor))
        case _:
            raise _malformed()
    if (named, key_hash) != (keyspace, _key_hash(key)):
        raise InvalidRequest(
            "the context is that of another key. Read this key, and send the context that came with it."
        )
    return dots


def _dots(item: object) -> list[Dot]:
    match item:
        case [bytes(actor), list(seqs)] if len(actor) == ACTOR_BYTES and all(type(seq) is int for seq in seqs):
            return [(Actor(actor), seq) for seq in seqs]
    raise _malformed()


def _key_hash(key: bytes) -> bytes:
    return blake2b(key, digest_size=_KEY_HASH_BYTES).digest()


def _checksum(body: bytes) -> bytes:
    return crc32c(_VERSION + body).to_bytes(_CRC_BYTES, "big")


def _malformed() -> InvalidRequest:
    return InvalidRequest(
        "the context is not one that a read returned. Read the key again, and send what came with it."
    )
