"""The parameters of ``/v1/openapi.json``: what paths, queries and headers carry."""

from typing import Final

from edgekv.api.http.cursors import POSITION
from edgekv.api.http.openapi.reference import Part, ref
from edgekv.api.http.promises import ACK, ACK_TIMEOUT, CONSISTENCY, SESSION, SESSION_TIMEOUT
from edgekv.api.http.scan import TYPES
from edgekv.config import NAME, TTL_S_MAX
from edgekv.engine.keyspaces import DEFAULT_NAME
from edgekv.limits import (
    ACK_TIMEOUT_MS,
    ACK_TIMEOUT_MS_MAX,
    HTTP_SCAN_LIMIT_DEFAULT,
    KEY_BYTES_MAX,
    SCAN_LIMIT_MAX,
    SESSION_WAIT_MS,
)
from edgekv.node.operations import EXPIRY_MS_MAX
from edgekv.replication.acks import LEVELS

_NAME: Final[Part] = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_QUERY_BYTES: Final[Part] = {"type": "string", "pattern": "^[^ ]*$"}
_QUERY_BYTES_NOTE: Final = (
    "Bytes, percent-encoded. A bare + is refused: form encoders mean a space by it, URLs a plus. Write %20 or %2B."
)
_LIMIT: Final[Part] = {"type": "integer", "minimum": 1, "maximum": SCAN_LIMIT_MAX, "default": HTTP_SCAN_LIMIT_DEFAULT}
_MILLISECONDS: Final[Part] = {"type": "integer", "minimum": 0, "maximum": ACK_TIMEOUT_MS_MAX}
_TYPE: Final[Part] = {"enum": list(TYPES), "description": "Of what is wanted; absent: all."}


def _exploded(name: str, description: str, *alternatives: Part) -> Part:
    """One parameter whose properties are parameters of the query."""
    return {
        "name": name,
        "in": "query",
        "style": "form",
        "explode": True,
        "description": f"{description} {_QUERY_BYTES_NOTE}",
        "schema": {"oneOf": [{"type": "object", "additionalProperties": False, **each} for each in alternatives]},
    }


_PLACE: Final[Part] = {"properties": {"limit": _LIMIT, "cursor": {"type": "string", "pattern": f"^{POSITION}$"}}}
_WATCH_CURSOR: Final[Part] = {"type": "string", "description": "Of an event, as its id has it."}

PARAMETERS: Final[Part] = {
    "Key": {
        "name": "key",
        "in": "path",
        "required": True,
        "description": f"1 to {KEY_BYTES_MAX} bytes, percent-encoded: %ff is one byte, %2F and / are the same one.",
        "schema": {"type": "string", "minLength": 1},
    },
    "TtlS": {
        "name": "ttl_s",
        "in": "query",
        "description": "When the value expires, in seconds from now.",
        "schema": {"type": "integer", "minimum": 1, "maximum": TTL_S_MAX},
    },
    "Context": {
        "name": "Edgekv-Context",
        "in": "header",
        "description": (
            "Of the read that this write rests on: what it showed is removed, other values stay. Without it the write removes all "
            "that the node holds. Refused where the keyspace keeps one value."
        ),
        "schema": ref("schemas", "Context"),
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "ETags that the client has.",
        "schema": {"type": "string"},
    },
    "Consistency": {
        "name": CONSISTENCY,
        "in": "header",
        "description": "`session` without a token begins a session. What this release cannot promise is refused.",
        "schema": {"enum": ["local", "session"]},
    },
    "Session": {
        "name": SESSION,
        "in": "header",
        "description": "What the session has seen so far: the header of its last answer, of whichever node.",
        "schema": ref("schemas", "SessionToken"),
    },
    "SessionTimeout": {
        "name": SESSION_TIMEOUT,
        "in": "header",
        "description": "How long to wait for the node to cover the session; then it answers 503 `behind`.",
        "schema": {**_MILLISECONDS, "default": SESSION_WAIT_MS},
    },
    "Ack": {
        "name": ACK,
        "in": "header",
        "description": "Who has to have the write durably beside this node before it is answered.",
        "schema": {"enum": list(LEVELS), "default": "local"},
    },
    "AckTimeout": {
        "name": ACK_TIMEOUT,
        "in": "header",
        "description": "How long to wait for that; then the answer is the same, with `Edgekv-Acked: local`.",
        "schema": {**_MILLISECONDS, "default": ACK_TIMEOUT_MS},
    },
    "Member": {
        "name": "member",
        "in": "query",
        "required": True,
        "description": "The name of its node.",
        "schema": {"type": "string"},
    },
    "RepairKeyspace": {
        "name": "keyspace",
        "in": "query",
        "description": "Its name; the default keyspace when absent.",
        "schema": {"type": "string"},
    },
    "RepairFrom": {
        "name": "from",
        "in": "query",
        "required": True,
        "description": "The name of the node whose rows are taken.",
        "schema": {"type": "string"},
    },
    "RepairPrefixes": {
        "name": "prefixes",
        "in": "query",
        "description": "What the keys begin with, in hexadecimal, separated by commas; all of them when absent.",
        "schema": {"type": "string", "pattern": "^([0-9a-f]{2})*(,([0-9a-f]{2})*)*$"},
    },
    "Union": {
        "name": "union",
        "in": "query",
        "description": "1: keep what only this node has.",
        "schema": {"type": "integer", "enum": [0, 1], "default": 0},
    },
    "NewKeyspace": _exploded(
        "created",
        "Its name and its prefix; the sites whose edges hold it, by commas (absent: all); how concurrent values conflict, for ever.",
        {
            "properties": {
                "keyspace": _NAME,
                "prefix": {"type": "string", "minLength": 1, "pattern": "^[^+]*$"},
                "sites": {"type": "string", "pattern": "^[^+]*$"},
                "conflict": {"enum": ["lww", "siblings"], "default": "lww"},
            },
            "required": ["keyspace", "prefix"],
        },
    ),
    "KeyspaceSite": _exploded(
        "place",
        "A keyspace, and a site whose edges are to hold it or not.",
        {"properties": {"keyspace": _NAME, "site": _NAME}, "required": ["keyspace", "site"]},
    ),
    "Scan": _exploded(
        "range",
        "Where to begin: below a prefix at a key, or where the page before ended.",
        {"properties": {"prefix": _QUERY_BYTES, "start": _QUERY_BYTES, "limit": _LIMIT, "type": _TYPE}},
        {
            "properties": {
                "cursor": {"type": "string", "pattern": f"^{POSITION}[.]{POSITION}$"},
                "limit": _LIMIT,
                "type": _TYPE,
            },
            "required": ["cursor"],
        },
    ),
    "Watch": _exploded(
        "watched",
        'What to watch, and from where on: absent, from now on; "0", the current rows first.',
        {"properties": {"prefix": _QUERY_BYTES, "cursor": _WATCH_CURSOR}},
    ),
    "Digest": _exploded(
        "digested",
        "A keyspace by its name, the TTL time by which expiries are judged (absent: now), and a prefix of the keys.",
        {
            "properties": {
                "keyspace": {"type": "string", "pattern": "^[^ +]*$", "default": DEFAULT_NAME},
                "ttl_ms": {"type": "integer", "minimum": 0, "maximum": EXPIRY_MS_MAX},
                "prefix": _QUERY_BYTES,
            }
        },
    ),
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that the client has: goes before the cursor.",
        "schema": _WATCH_CURSOR,
    },
    "Members": _exploded(
        "members",
        "A page of members, or a test of one.",
        _PLACE,
        {"properties": {"member": _QUERY_BYTES}, "required": ["member"]},
    ),
    "Fields": _exploded(
        "fields",
        "A page of fields, or one field's value.",
        _PLACE,
        {"properties": {"field": _QUERY_BYTES}, "required": ["field"]},
    ),
}
