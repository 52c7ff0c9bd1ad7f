"""The schemas of ``/v1/openapi.json``: what bodies look like."""

from typing import Final

from edgekv.api.http.openapi.cluster_schemas import CLUSTER_SCHEMAS
from edgekv.api.http.openapi.reference import Part, ref
from edgekv.config import TTL_S_MAX
from edgekv.limits import CONTEXT_CHARS_MAX, KEY_BYTES_MAX, SESSION_TOKEN_CHARS_MAX

_BASE64: Final = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

SCHEMAS: Final[Part] = {
    "Base64": {
        "type": "object",
        "description": "Bytes that are not UTF-8.",
        "properties": {"base64": {"type": "string", "contentEncoding": "base64", "pattern": f"^{_BASE64}$"}},
        "required": ["base64"],
        "additionalProperties": False,
    },
    "Bytes": {"description": "Any bytes; bin in msgpack.", "anyOf": [{"type": "string"}, ref("schemas", "Base64")]},
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
        "anyOf": [{"type": "string"}, ref("schemas", "Base64")],
    },
    "Integer": {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1},
    "Amount": {
        "type": "number",
        "minimum": -(1 << 63),
        "maximum": (1 << 63) - 1,
        "description": "An integer, or a fraction, of which 17 digits after the point count.",
    },
    "Total": {
        "type": "number",
        "description": "The exact sum, all of its digits; in msgpack the nearest double for what is no 64-bit integer.",
    },
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
            "key": ref("schemas", "Bytes"),
            "type": {"const": "string"},
            "value": ref("schemas", "Bytes"),
            "version": {"type": "string", "description": "The ETag of the raw value, without quotes."},
            "expiry_ms": ref("schemas", "ExpiryMs"),
        },
        "required": ["key", "type", "value", "version"],
        "additionalProperties": False,
    },
    "CollectionEntry": {
        "type": "object",
        "properties": {
            "key": ref("schemas", "Bytes"),
            "type": {"enum": ["set", "hash"], "description": "hash: a map."},
            "count": {"type": "integer", "minimum": 1, "description": "Of its members or fields."},
            "expiry_ms": ref("schemas", "ExpiryMs"),
        },
        "required": ["key", "type", "count"],
        "additionalProperties": False,
    },
    "ExpiryMs": {"type": "integer", "description": "Since the epoch; absent: it does not expire."},
    "Values": {
        "type": "object",
        "properties": {
            "context": ref("schemas", "Context"),
            "values": {
                "type": "array",
                "items": ref("schemas", "Bytes"),
                "minItems": 2,
                "description": "The latest first.",
            },
        },
        "required": ["context", "values"],
        "additionalProperties": False,
    },
    "SessionToken": {
        "type": "string",
        "description": "What a session has seen. Opaque.",
        "pattern": "^[A-Za-z0-9_-]+$",
        "minLength": 1,
        "maxLength": SESSION_TOKEN_CHARS_MAX,
    },
    "Context": {
        "type": "string",
        "description": "Which values were read. Opaque.",
        "pattern": "^[A-Za-z0-9_-]+$",
        "minLength": 1,
        "maxLength": CONTEXT_CHARS_MAX,
    },
    **CLUSTER_SCHEMAS,
    "Cursor": {"type": ["string", "null"], "description": "Of the next page; null: this is the last one."},
    "ScanPage": {
        "type": "object",
        "properties": {
            "entries": {
                "type": "array",
                "description": "A key that holds several types has an entry for each.",
                "items": {"oneOf": [ref("schemas", "Entry"), ref("schemas", "CollectionEntry")]},
            },
            "cursor": ref("schemas", "Cursor"),
        },
        "required": ["entries", "cursor"],
        "additionalProperties": False,
    },
    "Counter": {
        "type": "object",
        "properties": {"value": ref("schemas", "Total")},
        "required": ["value"],
        "additionalProperties": False,
    },
    "CounterChange": {
        "type": "object",
        "properties": {"add": ref("schemas", "Amount")},
        "required": ["add"],
        "additionalProperties": False,
    },
    "SetPage": {
        "type": "object",
        "properties": {
            "members": {"type": "array", "items": ref("schemas", "Row")},
            "count": {"type": "integer", "minimum": 1, "description": "Of all members."},
            "cursor": ref("schemas", "Cursor"),
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
            "add": {"type": "array", "items": ref("schemas", "Row")},
            "remove": {"type": "array", "items": ref("schemas", "Row")},
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
                    "properties": {"field": ref("schemas", "Row"), "value": ref("schemas", "Bytes")},
                    "required": ["field", "value"],
                    "additionalProperties": False,
                },
            },
            "count": {"type": "integer", "minimum": 1, "description": "Of all fields."},
            "cursor": ref("schemas", "Cursor"),
        },
        "required": ["entries", "count", "cursor"],
        "additionalProperties": False,
    },
    "MapField": {
        "type": "object",
        "properties": {"value": ref("schemas", "Bytes")},
        "required": ["value"],
        "additionalProperties": False,
    },
    "FieldValues": {
        "description": "Fields by name; as [field, value] pairs where a name is not UTF-8. A later one of a name wins.",
        "anyOf": [
            {"type": "object", "additionalProperties": ref("schemas", "Bytes")},
            {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [ref("schemas", "Row"), ref("schemas", "Bytes")],
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        ],
    },
    "FieldAdds": {
        "description": "What to add to each field, an absent one counting as 0; as [field, n] pairs too.",
        "anyOf": [
            {"type": "object", "additionalProperties": ref("schemas", "Integer")},
            {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [ref("schemas", "Row"), ref("schemas", "Integer")],
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
            "set": ref("schemas", "FieldValues"),
            "add": ref("schemas", "FieldAdds"),
            "remove": {"type": "array", "items": ref("schemas", "Row")},
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
                    "properties": {"field": ref("schemas", "Row"), "value": ref("schemas", "Sum")},
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
                    "key": ref("schemas", "Key"),
                    "value": ref("schemas", "Bytes"),
                    "ttl_s": {"type": ["integer", "null"], "minimum": 1, "maximum": TTL_S_MAX},
                },
                "required": ["op", "key", "value"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: whether the key existed.",
                "properties": {"op": {"const": "delete"}, "key": ref("schemas", "Key")},
                "required": ["op", "key"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result is the sum.",
                "properties": {
                    "op": {"const": "add"},
                    "key": ref("schemas", "Key"),
                    "n": ref("schemas", "Integer"),
                },
                "required": ["op", "key", "n"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: how many members were new, or were there.",
                "properties": {
                    "op": {"enum": ["sadd", "srem"]},
                    "key": ref("schemas", "Key"),
                    "members": {"type": "array", "items": ref("schemas", "Row")},
                },
                "required": ["op", "key", "members"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: how many fields are new.",
                "properties": {
                    "op": {"const": "hset"},
                    "key": ref("schemas", "Key"),
                    "fields": ref("schemas", "FieldValues"),
                },
                "required": ["op", "key", "fields"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result: how many fields were there.",
                "properties": {
                    "op": {"const": "hdel"},
                    "key": ref("schemas", "Key"),
                    "fields": {"type": "array", "items": ref("schemas", "Row")},
                },
                "required": ["op", "key", "fields"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "description": "Its result is the sum.",
                "properties": {
                    "op": {"const": "hadd"},
                    "key": ref("schemas", "Key"),
                    "field": ref("schemas", "Row"),
                    "n": ref("schemas", "Integer"),
                },
                "required": ["op", "key", "field", "n"],
                "additionalProperties": False,
            },
        ],
    },
    "Batch": {
        "type": "object",
        "properties": {"operations": {"type": "array", "items": ref("schemas", "Operation")}},
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
