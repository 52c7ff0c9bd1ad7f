"""The token of a session as text: what the session has read and written, good on every node.

    base64url, no padding:  version 1 | CRC-32C u32 big-endian of version and body | body
    body:  msgpack [name of the maker, its LSN, number of a STABLE, [[keyspace, names, [seq, ...]], ...] or nil]

The maker is the actor whose node made the token. To that node alone the LSN says everything, so there a token costs one comparison.
Any other one compares its vectors with the entries: (keyspace, actor, seq), of each actor that the maker's durable vector had. An
actor's *name* is 8 bytes of its hash (25 bytes of each of a hundred actors would not fit into a header of HTTP); the names of a
keyspace lie one after the other. What the cut of the STABLE covers is left out: every member has it.

A token whose text would be longer than SESSION_TOKEN_CHARS_MAX has nil for its entries and is good on its maker only: it never says
less than was seen. It is no proof of anything; the checksum is there so that a mistake is refused, not waited for.
"""

import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from edgekv.checksum import crc32c
from edgekv.codec import pack, unpack
from edgekv.errors import InvalidRequest
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import SESSION_TOKEN_CHARS_MAX

_VERSION: Final = b"\x01"
_CRC_BYTES: Final = 4
NAME_BYTES: Final = 8
_ID_MAX: Final = 0xFFFF_FFFF
_NUMBER_MAX: Final = (1 << 64) - 1
_TEXT: Final = re.compile(r"([A-Za-z0-9_-]{4})+([A-Za-z0-9_-]{2,3})?")

Entries = Mapping[KeyspaceId, Mapping[bytes, int]]
"""By keyspace and name of an actor: a sequence number."""


class Token(NamedTuple):
    """What a session has seen."""

    maker: bytes
    lsn: int
    stable: int
    """The number of the STABLE whose cut is left out of the entries; 0: nothing is left out."""
    entries: Entries | None
    """None: too many to name, so only the maker can tell."""


@lru_cache(maxsize=1 << 16)
def name_of(actor: Actor) -> bytes:
    """The name of an actor in tokens."""
    return blake2b(actor, digest_size=NAME_BYTES).digest()


def token_text(token: Token) -> str:
    """The token as text; without its entries when they are too many."""
    text = _text(token)
    return text if len(text) <= SESSION_TOKEN_CHARS_MAX else _text(token._replace(entries=None))


def token_of(text: str) -> Token:
    """The inverse; InvalidRequest for what no node made."""
    if len(text) > SESSION_TOKEN_CHARS_MAX or not _TEXT.fullmatch(text):
        raise _malformed()
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    body = data[1 + _CRC_BYTES :]
    if data[:1] != _VERSION or data[1 : 1 + _CRC_BYTES] != _checksum(body):
        raise _malformed()
    match unpack(body):
        case [bytes(maker), int(lsn), int(stable), keyspaces] if len(maker) == NAME_BYTES:
            return Token(maker, _number(lsn), _number(stable), _entries(keyspaces))
    raise _malformed()


def _text(token: Token) -> str:
    keyspaces = (
        None
        if token.entries is None
        else [[keyspace, b"".join(seqs), list(seqs.values())] for keyspace, seqs in token.entries.items()]
    )
    body = pack([token.maker, token.lsn, token.stable, keyspaces])
    return base64.urlsafe_b64encode(_VERSION + _checksum(body) + body).rstrip(b"=").decode()


def _entries(keyspaces: object) -> Entries | None:
    if keyspaces is None:
        return None
    if not isinstance(keyspaces, list):
        raise _malformed()
    entries = dict[KeyspaceId, Mapping[bytes, int]]()
    for keyspace in keyspaces:
        match keyspace:
            case [int(number), bytes(names), list(seqs)] if len(names) == NAME_BYTES * len(seqs):
                starts = range(0, len(names), NAME_BYTES)
                entries[KeyspaceId(_number(number, _ID_MAX))] = {
                    names[start : start + NAME_BYTES]: _number(seq) for start, seq in zip(starts, seqs, strict=True)
                }
            case _:
                raise _malformed()
    return entries


def _number(value: object, greatest: int = _NUMBER_MAX) -> int:
    if type(value) is not int or not 0 <= value <= greatest:
        raise _malformed()
    return value


def _checksum(body: bytes) -> bytes:
    return crc32c(_VERSION + body).to_bytes(_CRC_BYTES, "big")


def _malformed() -> InvalidRequest:
    return InvalidRequest(
        "the session token is not one that a node returned. Send what came with the last reply, or begin a new session."
    )
