"""The schemas of what is told of a cluster: its keyspaces, what nodes have, digests to compare them by, conflicts."""

from typing import Final

from edgekv.api.http.openapi.reference import Part, ref
from edgekv.store.lost_values import LOST_KEPT, VALUE_BYTES_SHOWN

CLUSTER_SCHEMAS: Final[Part] = {
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
}
