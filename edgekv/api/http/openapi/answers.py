"""The answers of ``/v1/openapi.json``: headers, problems by their status, and bodies as this listener offers them."""

from typing import Final

from edgekv.api.http.content import JSON, MSGPACK
from edgekv.api.http.openapi.reference import Part, ref
from edgekv.replication.acks import LEVELS

PROBLEM: Final = "application/problem+json"

HEADERS: Final[Part] = {
    "Context": {
        "description": "Which values this shows, to be sent with the write that follows; absent where a keyspace keeps one value.",
        "schema": ref("schemas", "Context"),
    },
    "Version": {"description": "The version of the value.", "schema": {"type": "string"}, "required": True},
    "Digest": {"description": "A digest of the body.", "schema": {"type": "string"}, "required": True},
    "Next": {"description": 'The next page, as rel="next"; absent on the last one.', "schema": {"type": "string"}},
    "Acked": {
        "description": "How far the write has got; in answer to Edgekv-Ack and whatever else asks for more than this node.",
        "schema": {"enum": list(LEVELS)},
    },
    "Session": {
        "description": "What the session has seen with this answer; errors have it too. Absent where none was asked for.",
        "schema": ref("schemas", "SessionToken"),
    },
    "Note": {
        "description": "A sentence for whoever asked: at a site that was named no member stands. Absent when there is none.",
        "schema": {"type": "string"},
    },
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
    503: "overloaded, read-only or unavailable: not now. behind: the session has seen more than this node.",
    504: "outcome-unknown or log-failed: the write may have happened.",
    507: "disk-full: client writes are refused; reads and deletes go on.",
}


def problem(description: str, status: int) -> Part:
    """The response of a status that refuses."""
    retry = {"headers": {"Retry-After": ref("headers", "RetryAfter")}} if status in (503, 507) else {}
    return {"description": description, **retry, "content": {PROBLEM: {"schema": ref("schemas", "Problem")}}}


def shown(schema: str, description: str, *, headers: Part | None = None, more: Part | None = None) -> Part:
    """A 200 as JSON or msgpack."""
    content = {JSON: {"schema": ref("schemas", schema)}, MSGPACK: {}, **(more or {})}
    return {"description": description, "headers": headers or {}, "content": content}


def taken(schema: str) -> Part:
    """A body as JSON or msgpack."""
    content = {media_type: {"schema": ref("schemas", schema)} for media_type in (JSON, MSGPACK)}
    return {"required": True, "content": content}
