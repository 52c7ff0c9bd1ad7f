"""``/v1/openapi.json``: what this listener serves, as an OpenAPI 3.1 document.

The document is data, below: components first, then one entry per path. tests/unit/api/http/test_openapi.py holds it to the routes (no
path missing, none extra, every documented status reachable), and tests/integration/test_openapi.py to a node's answers.

Three things that OpenAPI has no words for:

* keys are bytes: ``{key}`` is all of the rest of the path, slashes included, percent-encoded (target.py);
* parameters that exclude each other: where a page begins is ONE parameter, an object that is exploded into the query
  (``style: form``), and the schema says which of its properties go together;
* lengths in bytes: limits are in the descriptions, since ``maxLength`` counts characters.
"""

import json
from typing import Any, Final

from aiohttp import web

from edgekv.api.http.content import JSON, MSGPACK, NDJSON, OCTETS
from edgekv.api.http.cursors import POSITION
from edgekv.api.http.documents import tagged_reply
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.config import TTL_S_MAX
from edgekv.limits import (
    CONTEXT_CHARS_MAX,
    HTTP_BATCH_BYTES_MAX,
    HTTP_BATCH_OPERATIONS_MAX,
    HTTP_SCAN_LIMIT_DEFAULT,
    KEY_BYTES_MAX,
    SCAN_LIMIT_MAX,
)

Part = dict[str, Any]
"""A piece of the document: JSON, so its values have no one type."""
PROBLEM: Final = "application/problem+json"
_TEXT: Final = "text/plain"


class OpenApiCalls:
    """The document of one release."""

    def __init__(self, version: str) -> None:
        self._body: Final = json.dumps(document(version), separators=(",", ":")).encode()

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """200 with the document, or 304."""
        assert not key
        if query:
            parameters(query, ())
        check_promises(request, writes=False)
        return tagged_reply(request, self._body, JSON)


def document(version: str) -> Part:
    """The whole of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "EdgeKV",
            "version": version,
            "summary": "A replicated key-value store for places where the network cannot be trusted.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "responses": {f"Problem{status}": _problem(text, status) for status, text in PROBLEMS.items()},
        },
    }


def _ref(kind: str, name: str) -> Part:
    return {"$ref": f"#/components/{kind}/{name}"}


_ABOUT: Final = (
    f"Keys are bytes, 1 to {KEY_BYTES_MAX}: all that follows in the path, slashes included, percent-encoded. In JSON a string "
    'carries UTF-8 and other bytes are {"base64": "..."}; application/msgpack is exact, with keys and values as bin.\n\n'
    "Errors are application/problem+json (RFC 9457). Branch on `code` and `outcome`. Any path may also answer 400 `not-http` to "
    "what is no HTTP/1.1 request, and 503 `overloaded` when there are too many connections; a path that is not listed is 404 "
    "`no-such-path`, a method that is not, 405."
)

# -- components

_BASE64: Final = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

SCHEMAS: Final[Part] = {
    "Base64": {
        "type": "object",
        "description": "Bytes that are not UTF-8.",
        "properties": {"base64": {"type": "string", "contentEncoding": "base64", "pattern": f"^{_BASE64}$"}},
        "required": ["base64"],
        "additionalProperties": False,
    },
    "Bytes": {"description": "Any bytes; bin in msgpack.", "anyOf": [{"type": "string"}, _ref("schemas", "Base64")]},
    "Key": {
        "description": f"1 to {KEY_BYTES_MAX} bytes.",
        "anyOf": [
            {"type": "string", "minLength": 1},
            {
                "type": "object",
                "properties": {
                    "base64": {
                        "type": "string",
                        "contentEncoding": "base64",
                        "pattern": f"^{_BASE64}$",
                        "minLength": 4,
                    }
                },
                "required": ["base64"],
                "additionalProperties": False,
            },
        ],
    },
    "Row": {
        "description": f"An element of a set or a field of a map: 0 to {KEY_BYTES_MAX} bytes.",
        "anyOf": [{"type": "string"}, _ref("schemas", "Base64")],
    },
    "Integer": {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1},
    "Sum": {"type": "integer", "description": "What was added up; merging may take it beyond 64 bits."},
    "Problem": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "description": "Stable; docs/HTTP_API.md lists them."},
            "outcome": {
                "enum": ["not-applied", "unknown"],
                "description": "unknown: the write may have happened. Read before you repeat an add.",
            },
            "retryable": {"type": "boolean", "description": "The same request may succeed later."},
        },
        "required": ["type", "title", "status", "code", "outcome", "retryable"],
    },
    "Entry": {
        "type": "object",
        "properties": {
            "key": _ref("schemas", "Bytes"),
            "value": _ref("schemas", "Bytes"),
            "version": {"type": "string", "description": "The ETag of the raw value, without quotes."},
            "expiry_ms": {"type": "integer", "description": "Since the epoch; absent: it does not expire."},
        },
        "required": ["key", "value", "version"],
        "additionalProperties": False,
    },
    "Values": {
        "type": "object",
        "properties": {
            "context": _ref("schemas", "Context"),
            "values": {
                "type": "array",
                "items": _ref("schemas", "Bytes"),
                "minItems": 2,
                "description": "The latest first.",
            },
        },
        "required": ["context", "values"],
        "additionalProperties": False,
    },
    "Context": {
        "type": "string",
        "description": "Which values were read. Opaque.",
        "pattern": "^[A-Za-z0-9_-]+$",
        "minLength": 1,
        "maxLength": CONTEXT_CHARS_MAX,
    },
    "Keyspaces": {
        "type": "object",
        "properties": {"keyspaces": {"type": "array", "items": _ref("schemas", "Keyspace")}},
        "required": ["keyspaces"],
        "additionalProperties": False,
    },
    "Keyspace": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "prefix": _ref("schemas", "Bytes"),
            "consistency": {"enum": ["crdt", "strong"]},
            "conflict": {"enum": ["lww", "siblings"]},
            "durability": {"enum": ["fsync", "buffered"]},
            "ttl_s": {"type": "integer", "minimum": 0, "description": "0: keys do not expire by themselves."},
            "system": {"type": "boolean", "description": "Written by EdgeKV itself only."},
        },
        "required": ["name", "prefix", "consistency", "conflict", "durability", "ttl_s", "system"],
        "additionalProperties": False,
    },
    "Cursor": {"type": ["string", "null"], "description": "Of the next page; null: this is the last one."},
    "ScanPage": {
        "type": "object",
        "properties": {
            "entries": {"type": "array", "items": _ref("schemas", "Entry")},
            "cursor": _ref("schemas", "Cursor"),
        },
        "required": ["entries", "cursor"],
        "additionalProperties": False,
    },
    "Counter": {
        "type": "object",
        "properties": {"value": _ref("schemas", "Sum")},
        "required": ["value"],
        "additionalProperties": False,
    },
    "CounterChange": {
        "type": "object",
        "properties": {"add": _ref("schemas", "Integer")},
        "required": ["add"],
        "additionalProperties": False,
    },
    "SetPage": {
        "type": "object",
        "properties": {
            "members": {"type": "array", "items": _ref("schemas", "Row")},
            "count": {"type": "integer", "minimum": 1, "description": "Of all members."},
            "cursor": _ref("schemas", "Cursor"),
        },
        "required": ["members", "count", "cursor"],
        "additionalProperties": False,
    },
    "SetTest": {
        "type": "object",
        "properties": {"contains": {"type": "boolean"}},
        "required": ["contains"],
        "additionalProperties": False,
    },
    "SetChange": {
        "type": "object",
        "description": "What is in both is removed in the end.",
        "properties": {
            "add": {"type": "array", "items": _ref("schemas", "Row")},
            "remove": {"type": "array", "items": _ref("schemas", "Row")},
        },
        "minProperties": 1,
        "additionalProperties": False,
    },
    "SetChanged": {
        "type": "object",
        "properties": {
            "added": {"type": "integer", "minimum": 0, "description": "Members that are new."},
            "removed": {"type": "integer", "minimum": 0, "description": "Members that were there."},
        },
        "required": ["added", "removed"],
        "additionalProperties": False,
    },
    "MapPage": {
        "type": "object",
        "properties": {
            "entries": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"field": _ref("schemas", "Row"), "value": _ref("schemas", "Bytes")},
                    "required": ["field", "value"],
                    "additionalProperties": False,
                },
            },
            "count": {"type": "integer", "minimum": 1, "description": "Of all fields."},
            "cursor": _ref("schemas", "Cursor"),
        },
        "required": ["entries", "count", "cursor"],
        "additionalProperties": False,
    },
    "MapField": {
        "type": "object",
        "properties": {"value": _ref("schemas", "Bytes")},
        "required": ["value"],
        "additionalProperties": False,
    },
    "FieldValues": {
        "description": "Fields by name; as [field, value] pairs where a name is not UTF-8. A later one of a name wins.",
        "anyOf": [
            {"type": "object", "additionalProperties": _ref("schemas", "Bytes")},
            {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [_ref("schemas", "Row"), _ref("schemas", "Bytes")],
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        ],
    },
    "FieldAdds": {
        "description": "What to add to each field, an absent one counting as 0; as [field, n] pairs too.",
        "anyOf": [
            {"type": "object", "additionalProperties": _ref("schemas", "Integer")},
            {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [_ref("schemas", "Row"), _ref("schemas", "Integer")],
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        ],
    },
    "MapChange": {
        "type": "object",
        "description": "First set, then add, then remove.",
        "properties": {
            "set": _ref("schemas", "FieldValues"),
            "add": _ref("schemas", "FieldAdds"),
            "remove": {"type": "array", "items": _ref("schemas", "Row")},
        },
        "minProperties": 1,
        "additionalProperties": False,
    },
    "MapChanged": {
        "type": "object",
        "properties": {
            "created": {"type": "integer", "minimum": 0, "description": "Fields of `set` that are new."},
            "sums": {
                "type": "array",
                "description": "One per field of `add`, in its order.",
                "items": {
                    "type": "object",
                    "properties": {"field": _ref("schemas", "Row"), "value": _ref("schemas", "Sum")},
                    "required": ["field", "value"],
                    "additionalProperties": False,
                },
            },
            "removed": {"type": "integer", "minimum": 0, "description": "Fields of `remove` that were there."},
        },
        "required": ["created", "sums", "removed"],
        "additionalProperties": False,
    },
    "Operation": {
        "oneOf": [
            {
                "type": "object",
                "description": "Its result is null.",
                "properties": {
                    "op": {"const": "put"},
                    "key": _ref("schemas", "Key"),
                    "value": _ref("schemas", "Bytes"),
                    "ttl_s": {"type": ["integer", "null"], "minimum": 1, "maximum": TTL_S_MAX},
                },
                "required": ["op", "key", "value"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: whether the key existed.",
                "properties": {"op": {"const": "delete"}, "key": _ref("schemas", "Key")},
                "required": ["op", "key"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result is the sum.",
                "properties": {
                    "op": {"const": "add"},
                    "key": _ref("schemas", "Key"),
                    "n": _ref("schemas", "Integer"),
                },
                "required": ["op", "key", "n"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: how many members were new, or were there.",
                "properties": {
                    "op": {"enum": ["sadd", "srem"]},
                    "key": _ref("schemas", "Key"),
                    "members": {"type": "array", "items": _ref("schemas", "Row")},
                },
                "required": ["op", "key", "members"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: how many fields are new.",
                "properties": {
                    "op": {"const": "hset"},
                    "key": _ref("schemas", "Key"),
                    "fields": _ref("schemas", "FieldValues"),
                },
                "required": ["op", "key", "fields"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: how many fields were there.",
                "properties": {
                    "op": {"const": "hdel"},
                    "key": _ref("schemas", "Key"),
                    "fields": {"type": "array", "items": _ref("schemas", "Row")},
                },
                "required": ["op", "key", "fields"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result is the sum.",
                "properties": {
                    "op": {"const": "hadd"},
                    "key": _ref("schemas", "Key"),
                    "field": _ref("schemas", "Row"),
                    "n": _ref("schemas", "Integer"),
                },
                "required": ["op", "key", "field", "n"],
                "additionalProperties": False,
            },
        ],
    },
    "Batch": {
        "type": "object",
        "properties": {"operations": {"type": "array", "items": _ref("schemas", "Operation")}},
        "required": ["operations"],
        "additionalProperties": False,
    },
    "BatchResults": {
        "type": "object",
        "properties": {"results": {"type": "array", "items": {"type": ["null", "boolean", "integer"]}}},
        "required": ["results"],
        "additionalProperties": False,
    },
    "Status": {
        "type": "object",
        "properties": {
            "node": {"type": "string"},
            "site": {"type": "string"},
            "version": {"type": "string"},
            "started_ms": {"type": "integer"},
            "ready": {"type": "boolean"},
        },
        "required": ["node", "site", "version", "started_ms", "ready"],
    },
}

_QUERY_BYTES: Final[Part] = {"type": "string", "pattern": "^[^ ]*$"}
_QUERY_BYTES_NOTE: Final = (
    "Bytes, percent-encoded. A bare + is refused: form encoders mean a space by it, URLs a plus. Write %20 or %2B."
)
_LIMIT: Final[Part] = {"type": "integer", "minimum": 1, "maximum": SCAN_LIMIT_MAX, "default": HTTP_SCAN_LIMIT_DEFAULT}


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
        "schema": _ref("schemas", "Context"),
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "ETags that the client has.",
        "schema": {"type": "string"},
    },
    "Consistency": {
        "name": "Edgekv-Consistency",
        "in": "header",
        "description": "What this release cannot promise is refused.",
        "schema": {"enum": ["local"]},
    },
    "Ack": {
        "name": "Edgekv-Ack",
        "in": "header",
        "description": "What this release cannot promise is refused.",
        "schema": {"enum": ["local"]},
    },
    "Scan": _exploded(
        "range",
        "Where to begin: below a prefix at a key, or where the page before ended.",
        {"properties": {"prefix": _QUERY_BYTES, "start": _QUERY_BYTES, "limit": _LIMIT}},
        {
            "properties": {"cursor": {"type": "string", "pattern": f"^{POSITION}[.]{POSITION}$"}, "limit": _LIMIT},
            "required": ["cursor"],
        },
    ),
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

HEADERS: Final[Part] = {
    "Context": {
        "description": "Which values this shows, to be sent with the write that follows; absent where a keyspace keeps one value.",
        "schema": _ref("schemas", "Context"),
    },
    "Version": {"description": "The version of the value.", "schema": {"type": "string"}, "required": True},
    "Digest": {"description": "A digest of the body.", "schema": {"type": "string"}, "required": True},
    "Next": {"description": 'The next page, as rel="next"; absent on the last one.', "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
}

PROBLEMS: Final[dict[int, str]] = {
    400: "invalid-request: a malformed key, number, cursor, query or body, or a promise that this release cannot give.",
    403: "denied: the keyspace's policy, a batch over two keyspaces, or a conditional write.",
    404: "not-found: there is no such key or field.",
    406: "not-acceptable: none of the types in Accept is offered.",
    408: "too-slow: the body took too long.",
    409: (
        "wrong-type: the key holds another type. not-a-number: no number, or a sum beyond 64 bits. "
        "concurrent-values: the key holds several, and the call works on one."
    ),
    413: "too-large: a key, row, value, body or batch above its limit.",
    415: "unsupported-media-type: another Content-Type, or a Content-Encoding.",
    417: "expectation-failed: Expect other than 100-continue.",
    431: "too-large: the request line or a header.",
    500: "corruption: damaged data. internal: a fault of EdgeKV; the outcome is unknown.",
    503: "overloaded, read-only or unavailable: not now.",
    504: "outcome-unknown or log-failed: the write may have happened.",
    507: "disk-full: client writes are refused; reads and deletes go on.",
}


def _problem(description: str, status: int) -> Part:
    retry = {"headers": {"Retry-After": _ref("headers", "RetryAfter")}} if status in (503, 507) else {}
    return {"description": description, **retry, "content": {PROBLEM: {"schema": _ref("schemas", "Problem")}}}


# -- paths

_EVERY: Final = (431, 503)
_DATA: Final = (400, 500, 504, *_EVERY)
_WRITE: Final = (403, 507, *_DATA)
_BODY: Final = (408, 413, 415, 417)

_READ_HEADERS: Final = [_ref("parameters", "Consistency")]
_CACHED_HEADERS: Final = [_ref("parameters", "IfNoneMatch"), *_READ_HEADERS]
_WRITE_HEADERS: Final = [_ref("parameters", "Ack"), *_READ_HEADERS]
_NOT_MODIFIED: Final[Part] = {"description": "The client has it."}
_DELETED: Final[Part] = {"204": {"description": "Deleted, durably."}}


def _shown(schema: str, description: str, *, headers: Part | None = None, more: Part | None = None) -> Part:
    """A 200 as JSON or msgpack."""
    content = {JSON: {"schema": _ref("schemas", schema)}, MSGPACK: {}, **(more or {})}
    return {"description": description, "headers": headers or {}, "content": content}


def _taken(schema: str) -> Part:
    """A body as JSON or msgpack."""
    content = {media_type: {"schema": _ref("schemas", schema)} for media_type in (JSON, MSGPACK)}
    return {"required": True, "content": content}


def _operation(name: str, summary: str, answers: Part, problems: tuple[int, ...], **more: Any) -> Part:
    refused = {str(status): _ref("responses", f"Problem{status}") for status in sorted(set(problems))}
    return {"operationId": name, "summary": summary, **more, "responses": {**answers, **refused}}


def _with_head(get: Part, **others: Part) -> Part:
    """A path's methods; HEAD answers as GET does, without the body."""
    bodiless = {status: {"description": PROBLEMS.get(int(status), "As GET answers.")} for status in get["responses"]}
    name = get["operationId"].removeprefix("get")
    return {"get": get, "head": {**get, "operationId": f"head{name}", "responses": bodiless}, **others}


def _keyed(methods: Part) -> Part:
    return {"parameters": [_ref("parameters", "Key")], **methods}


def _collection(name: str, noun: str, parameter: str, page: Part) -> Part:
    """A set or a map: the paths differ in names and schemas only."""
    return _keyed(
        _with_head(
            _operation(
                f"get{name}",
                f"Read a {noun}, a page at a time, or look one row up",
                {"200": page, "304": _NOT_MODIFIED},
                (404, 406, 409, 413, *_DATA),
                parameters=[_ref("parameters", parameter), *_CACHED_HEADERS],
            ),
            post=_operation(
                f"post{name}",
                f"Change a {noun}, as one change",
                {"200": _shown(f"{name}Changed", "What the change did, durably.")},
                (406, 409, *_BODY, *_WRITE),
                description=f"At most {HTTP_BATCH_OPERATIONS_MAX} rows and {HTTP_BATCH_BYTES_MAX} bytes.",
                parameters=_WRITE_HEADERS,
                requestBody=_taken(f"{name}Change"),
            ),
            delete=_operation(
                f"delete{name}",
                f"Delete a key that holds a {noun}",
                _DELETED,
                (404, 409, 413, *_WRITE),
                parameters=_WRITE_HEADERS,
            ),
        )
    )


_TAGGED: Final[Part] = {"ETag": _ref("headers", "Digest")}
_PAGED: Final[Part] = {**_TAGGED, "Link": _ref("headers", "Next")}

PATHS: Final[Part] = {
    "/v1/kv/{key}": _keyed(
        _with_head(
            _operation(
                "getValue",
                "Read a value",
                {
                    "200": _shown(
                        "Entry",
                        "The raw bytes, unless Accept prefers what is known of the entry. The ETag of a document is weak.",
                        headers={"ETag": _ref("headers", "Version"), "Edgekv-Context": _ref("headers", "Context")},
                        more={OCTETS: {}},
                    ),
                    "300": _shown(
                        "Values",
                        "All of several concurrent values.",
                        headers={**_TAGGED, "Edgekv-Context": _ref("headers", "Context")},
                    ),
                    "304": _NOT_MODIFIED,
                },
                (404, 409, 413, *_DATA),
                parameters=_CACHED_HEADERS,
            ),
            put=_operation(
                "putValue",
                "Write a value, whatever the key holds",
                {"204": {"description": "Stored, durably.", "headers": {"ETag": _ref("headers", "Version")}}},
                (*_BODY, *_WRITE),
                parameters=[_ref("parameters", "TtlS"), _ref("parameters", "Context"), *_WRITE_HEADERS],
                requestBody={"description": "The value; none is the empty one.", "content": {OCTETS: {}}},
            ),
            delete=_operation(
                "deleteKey",
                "Delete a key, whatever it holds, or the values of it that were read",
                _DELETED,
                (404, 413, *_WRITE),
                parameters=[_ref("parameters", "Context"), *_WRITE_HEADERS],
            ),
        )
    ),
    "/v1/counter/{key}": _keyed(
        _with_head(
            _operation(
                "getCounter",
                "Read a number",
                {"200": _shown("Counter", "The sum that this node sees.", headers=_TAGGED), "304": _NOT_MODIFIED},
                (404, 406, 409, 413, *_DATA),
                parameters=_CACHED_HEADERS,
            ),
            post=_operation(
                "addToCounter",
                "Add to a number; an absent one is 0",
                {"200": _shown("Counter", "The sum that this node sees; the increment is durable.")},
                (406, 409, *_BODY, *_WRITE),
                parameters=_WRITE_HEADERS,
                requestBody=_taken("CounterChange"),
            ),
            delete=_operation(
                "deleteCounter",
                "Delete a key that holds a string or number",
                _DELETED,
                (404, 409, 413, *_WRITE),
                parameters=_WRITE_HEADERS,
            ),
        )
    ),
    "/v1/set/{key}": _collection(
        "Set",
        "set",
        "Members",
        {
            "description": "Members in order, or whether one is among them (also false when there is no set).",
            "headers": _PAGED,
            "content": {
                JSON: {"schema": {"anyOf": [_ref("schemas", "SetPage"), _ref("schemas", "SetTest")]}},
                MSGPACK: {},
            },
        },
    ),
    "/v1/map/{key}": _collection(
        "Map",
        "map",
        "Fields",
        {
            "description": "Fields in order, or the value of one: raw if Accept prefers that.",
            "headers": _PAGED,
            "content": {
                JSON: {"schema": {"anyOf": [_ref("schemas", "MapPage"), _ref("schemas", "MapField")]}},
                MSGPACK: {},
                OCTETS: {},
            },
        },
    ),
    "/v1/scan": _with_head(
        _operation(
            "getEntries",
            "Read values in key order, a page at a time",
            {
                "200": _shown(
                    "ScanPage",
                    "A page; in NDJSON the entries alone, one per line.",
                    headers={"Link": _ref("headers", "Next")},
                    more={NDJSON: {}},
                )
            },
            (406, 413, *_DATA),
            parameters=[_ref("parameters", "Scan"), *_READ_HEADERS],
        )
    ),
    "/v1/batch": {
        "post": _operation(
            "postBatch",
            "Several operations of one keyspace, as one change",
            {"200": _shown("BatchResults", "One result each, durable.")},
            (406, 409, *_BODY, *_WRITE),
            description=(
                "All of it happens or nothing, and an operation sees what those before it did. "
                f"At most {HTTP_BATCH_OPERATIONS_MAX} operations and rows, and {HTTP_BATCH_BYTES_MAX} bytes."
            ),
            parameters=_WRITE_HEADERS,
            requestBody=_taken("Batch"),
        )
    },
    "/v1/status": _with_head(
        _operation("getStatus", "The node's figures", {"200": _shown("Status", "Now.")}, (400, 406, *_EVERY))
    ),
    "/v1/admin/keyspaces": _with_head(
        _operation(
            "getKeyspaces",
            "The node's keyspaces, in the order of their prefixes",
            {"200": _shown("Keyspaces", "As they were created.")},
            (400, 406, *_EVERY),
        )
    ),
    "/v1/openapi.json": _with_head(
        _operation(
            "getOpenapi",
            "This document",
            {
                "200": {"description": "OpenAPI 3.1.", "headers": _TAGGED, "content": {JSON: {}}},
                "304": _NOT_MODIFIED,
            },
            (400, *_EVERY),
            parameters=_CACHED_HEADERS,
        )
    ),
    "/livez": _with_head(
        _operation(
            "getLivez",
            "Whether the process is alive",
            {"200": {"description": "Its event loop runs.", "content": {_TEXT: {}}}},
            _EVERY,
        )
    ),
    "/readyz": _with_head(
        _operation(
            "getReadyz",
            "Whether the node can be used",
            {"200": {"description": "It has recovered and takes writes.", "content": {_TEXT: {}}}},
            _EVERY,
        )
    ),
    "/metrics": _with_head(
        _operation(
            "getMetrics",
            "Figures for Prometheus",
            {"200": {"description": "Text format 0.0.4.", "content": {_TEXT: {}}}},
            _EVERY,
        )
    ),
}
