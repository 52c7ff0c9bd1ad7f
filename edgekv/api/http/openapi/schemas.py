"""The schemas of ``/v1/openapi.json``: what bodies look like."""

from typing import Final

from edgekv.api.http.openapi.reference import Part, ref
from edgekv.config import TTL_S_MAX
from edgekv.limits import CONTEXT_CHARS_MAX, KEY_BYTES_MAX, SESSION_TOKEN_CHARS_MAX
from edgekv.store.lost_values import LOST_KEPT, VALUE_BYTES_SHOWN

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
    "Keyspaces": {
        "type": "object",
        "properties": {"keyspaces": {"type": "array", "items": ref("schemas", "Keyspace")}},
        "required": ["keyspaces"],
        "additionalProperties": False,
    },
    "Keyspace": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "prefix": ref("schemas", "Bytes"),
            "consistency": {"enum": ["crdt", "strong"]},
            "conflict": {"enum": ["lww", "siblings"]},
            "late_write": {
                "enum": ["keep", "drop"],
                "description": "What becomes of values that a member wrote while it was parked.",
            },
            "durability": {"enum": ["fsync", "buffered"]},
            "ttl_s": {"type": "integer", "minimum": 0, "description": "0: keys do not expire by themselves."},
            "system": {"type": "boolean", "description": "Written by EdgeKV itself only."},
            "sites": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Whose edges hold it; empty: those of every site.",
            },
            "draining": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Sites that were taken off it, and have a copy still.",
            },
            "state": {
                "enum": ["held", "draining", "elsewhere"],
                "description": "Of this node's copy; draining: its site was taken off, and it is about to be deleted.",
            },
        },
        "required": [
            *(
                "name",
                "prefix",
                "consistency",
                "conflict",
                "late_write",
                "durability",
                "ttl_s",
                "system",
                "sites",
                "draining",
                "state",
            ),
        ],
        "additionalProperties": False,
    },
    "Vector": {
        "type": "object",
        "description": "The sequence number of the last change of each actor.",
        "additionalProperties": {"type": "integer", "minimum": 1},
    },
    "RepairBegun": {
        "type": "object",
        "required": ["wall_ms"],
        "properties": {
            "wall_ms": {"type": "integer", "description": "Names it in `replication.repairs` of the status."}
        },
    },
    "Vectors": {
        "type": "object",
        "properties": {
            "ttl_ms": {"type": "integer", "description": "The TTL time, by which expiries are judged."},
            "vectors": {
                "type": "object",
                "description": "By the name of the keyspace.",
                "additionalProperties": ref("schemas", "Vector"),
            },
        },
        "required": ["ttl_ms", "vectors"],
        "additionalProperties": False,
    },
    "Digest": {
        "type": "object",
        "properties": {
            "keyspace": {"type": "string"},
            "ttl_ms": {"type": "integer", "description": "The TTL time, by which expiries were judged."},
            "moved": {
                "type": "boolean",
                "description": "Whether what readers see changed meanwhile, or was purged beyond `ttl_ms`.",
            },
            "vector": ref("schemas", "Vector"),
            "vector_after": ref("schemas", "Vector"),
            "keys": {"type": "integer", "minimum": 0},
            "digest": ref("schemas", "DigestValue"),
            "ranges": {"type": "array", "items": ref("schemas", "DigestRange")},
        },
        "required": ["keyspace", "ttl_ms", "moved", "vector", "vector_after", "keys", "digest", "ranges"],
        "additionalProperties": False,
    },
    "DigestRange": {
        "type": "object",
        "description": "The keys with one first byte behind the prefix.",
        "properties": {
            "prefix": ref("schemas", "Bytes"),
            "digest": ref("schemas", "DigestValue"),
            "keys": {"type": "integer", "minimum": 1},
            "first": ref("schemas", "Bytes"),
            "last": ref("schemas", "Bytes"),
        },
        "required": ["prefix", "digest", "keys", "first", "last"],
        "additionalProperties": False,
    },
    "DigestValue": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "Conflicts": {
        "type": "object",
        "properties": {
            "totals": {
                "type": "object",
                "description": "How many, by the name of the keyspace.",
                "additionalProperties": {"type": "integer", "minimum": 1},
            },
            "conflicts": {
                "type": "array",
                "items": ref("schemas", "Conflict"),
                "description": "The newest first.",
                "maxItems": LOST_KEPT,
            },
        },
        "required": ["totals", "conflicts"],
        "additionalProperties": False,
    },
    "Conflict": {
        "type": "object",
        "properties": {
            "keyspace": {"type": "string"},
            "key": ref("schemas", "Bytes"),
            "field": {
                "oneOf": [ref("schemas", "Bytes"), {"type": "null"}],
                "description": "Of the map; null: the key's value.",
            },
            "kept": {
                "oneOf": [ref("schemas", "ConflictVersion"), {"type": "null"}],
                "description": "null: nothing is there; what was discarded came late, and the keyspace drops that.",
            },
            "discarded": ref("schemas", "ConflictVersion"),
        },
        "required": ["keyspace", "key", "field", "kept", "discarded"],
        "additionalProperties": False,
    },
    "ConflictVersion": {
        "type": "object",
        "properties": {
            "value": {
                "oneOf": [ref("schemas", "Bytes"), {"type": "null"}],
                "description": f"Its first {VALUE_BYTES_SHOWN} bytes; null: a deletion.",
            },
            "value_bytes": {"type": "integer", "minimum": 0},
            "actor": {"type": "string", "description": "Who wrote it: the actor of a node, as status shows it."},
            "wall_ms": {"type": "integer", "minimum": 0, "description": "When, by its stamp."},
            "late": {
                "type": "boolean",
                "description": "Its writer was parked then, and brought it when it came back.",
            },
        },
        "required": ["value", "value_bytes", "actor", "wall_ms", "late"],
        "additionalProperties": False,
    },
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
