"""The paths of ``/v1/openapi.json``: each with its methods, and each method with all that it may answer."""

from typing import Any, Final

from edgekv.api.http.content import JSON, MSGPACK, NDJSON, OCTETS
from edgekv.api.http.openapi.answers import PROBLEMS, shown, taken
from edgekv.api.http.openapi.reference import Part, ref
from edgekv.api.http.watch import EVENT_STREAM
from edgekv.limits import HTTP_BATCH_BYTES_MAX, HTTP_BATCH_OPERATIONS_MAX, WATCH_HEARTBEAT_S

_TEXT: Final = "text/plain"

_EVERY: Final = (431, 503)
_DATA: Final = (400, 500, 504, *_EVERY)
_WRITE: Final = (403, 507, *_DATA)
_BODY: Final = (408, 413, 415, 417)

_READ_HEADERS: Final = [ref("parameters", name) for name in ("Consistency", "Session", "SessionTimeout")]
_CACHED_HEADERS: Final = [ref("parameters", "IfNoneMatch"), *_READ_HEADERS]
_WRITE_HEADERS: Final = [ref("parameters", "Ack"), ref("parameters", "AckTimeout"), *_READ_HEADERS]
_NOT_MODIFIED: Final[Part] = {"description": "The client has it."}
_NOTED: Final[Part] = {"Edgekv-Note": ref("headers", "Note")}
_DELETED: Final[Part] = {"204": {"description": "Deleted, durably."}}


def _operation(name: str, summary: str, answers: Part, problems: tuple[int, ...], **more: Any) -> Part:
    given = more.get("parameters", ())
    promised = {"Edgekv-Acked": ref("headers", "Acked")} if ref("parameters", "Ack") in given else {}
    if ref("parameters", "Session") in given:
        promised["Edgekv-Session"] = ref("headers", "Session")
    if promised:
        answers = {
            status: {**answer, "headers": {**answer.get("headers", {}), **promised}}
            for status, answer in answers.items()
        }
    refused = {str(status): ref("responses", f"Problem{status}") for status in sorted(set(problems))}
    return {"operationId": name, "summary": summary, **more, "responses": {**answers, **refused}}


def _with_head(get: Part, **others: Part) -> Part:
    """A path's methods; HEAD answers as GET does, without the body."""
    bodiless = {status: {"description": PROBLEMS.get(int(status), "As GET answers.")} for status in get["responses"]}
    name = get["operationId"].removeprefix("get")
    return {"get": get, "head": {**get, "operationId": f"head{name}", "responses": bodiless}, **others}


def _keyed(methods: Part) -> Part:
    return {"parameters": [ref("parameters", "Key")], **methods}


def _collection(name: str, noun: str, parameter: str, page: Part) -> Part:
    """A set or a map: the paths differ in names and schemas only."""
    return _keyed(
        _with_head(
            _operation(
                f"get{name}",
                f"Read a {noun}, a page at a time, or look one row up",
                {"200": page, "304": _NOT_MODIFIED},
                (404, 406, 409, 413, *_DATA),
                parameters=[ref("parameters", parameter), *_CACHED_HEADERS],
            ),
            post=_operation(
                f"post{name}",
                f"Change a {noun}, as one change",
                {"200": shown(f"{name}Changed", "What the change did, durably.")},
                (406, 409, *_BODY, *_WRITE),
                description=f"At most {HTTP_BATCH_OPERATIONS_MAX} rows and {HTTP_BATCH_BYTES_MAX} bytes.",
                parameters=_WRITE_HEADERS,
                requestBody=taken(f"{name}Change"),
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


_TAGGED: Final[Part] = {"ETag": ref("headers", "Digest")}
_PAGED: Final[Part] = {**_TAGGED, "Link": ref("headers", "Next")}

PATHS: Final[Part] = {
    "/v1/kv/{key}": _keyed(
        _with_head(
            _operation(
                "getValue",
                "Read a value",
                {
                    "200": shown(
                        "Entry",
                        "The raw bytes, unless Accept prefers what is known of the entry. The ETag of a document is weak.",
                        headers={"ETag": ref("headers", "Version"), "Edgekv-Context": ref("headers", "Context")},
                        more={OCTETS: {}},
                    ),
                    "300": shown(
                        "Values",
                        "All of several concurrent values.",
                        headers={**_TAGGED, "Edgekv-Context": ref("headers", "Context")},
                    ),
                    "304": _NOT_MODIFIED,
                },
                (404, 409, 413, *_DATA),
                parameters=_CACHED_HEADERS,
            ),
            put=_operation(
                "putValue",
                "Write a value, whatever the key holds",
                {"204": {"description": "Stored, durably.", "headers": {"ETag": ref("headers", "Version")}}},
                (*_BODY, *_WRITE),
                parameters=[ref("parameters", "TtlS"), ref("parameters", "Context"), *_WRITE_HEADERS],
                requestBody={"description": "The value; none is the empty one.", "content": {OCTETS: {}}},
            ),
            delete=_operation(
                "deleteKey",
                "Delete a key, whatever it holds, or the values of it that were read",
                _DELETED,
                (404, 413, *_WRITE),
                parameters=[ref("parameters", "Context"), *_WRITE_HEADERS],
            ),
        )
    ),
    "/v1/counter/{key}": _keyed(
        _with_head(
            _operation(
                "getCounter",
                "Read a number",
                {"200": shown("Counter", "The sum that this node sees.", headers=_TAGGED), "304": _NOT_MODIFIED},
                (404, 406, 409, 413, *_DATA),
                parameters=_CACHED_HEADERS,
            ),
            post=_operation(
                "addToCounter",
                "Add to a number; an absent one is 0",
                {"200": shown("Counter", "The sum that this node sees; the increment is durable.")},
                (406, 409, *_BODY, *_WRITE),
                parameters=_WRITE_HEADERS,
                requestBody=taken("CounterChange"),
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
                JSON: {"schema": {"anyOf": [ref("schemas", "SetPage"), ref("schemas", "SetTest")]}},
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
                JSON: {"schema": {"anyOf": [ref("schemas", "MapPage"), ref("schemas", "MapField")]}},
                MSGPACK: {},
                OCTETS: {},
            },
        },
    ),
    "/v1/scan": _with_head(
        _operation(
            "getEntries",
            "List keys and what they hold in key order, a page at a time",
            {
                "200": shown(
                    "ScanPage",
                    "A page; in NDJSON the entries alone, one per line.",
                    headers={"Link": ref("headers", "Next")},
                    more={NDJSON: {}},
                )
            },
            (406, 413, *_DATA),
            parameters=[ref("parameters", "Scan"), *_READ_HEADERS],
        )
    ),
    "/v1/watch": _with_head(
        _operation(
            "getEvents",
            "Follow what is written below a prefix",
            {"200": {"description": "Server-Sent Events, until the client leaves.", "content": {EVENT_STREAM: {}}}},
            (400, 403, 406, 413, *_EVERY),
            description=(
                "Events put, delete, expire and resync, at least once, in the order of the node's log. The id of an event is the "
                "cursor that resumes behind it, on any node. "
                f"After {WATCH_HEARTBEAT_S} s without an event comes a comment with a cursor."
            ),
            parameters=[ref("parameters", "Watch"), ref("parameters", "LastEventId"), *_READ_HEADERS],
        )
    ),
    "/v1/batch": {
        "post": _operation(
            "postBatch",
            "Several operations of one keyspace, as one change",
            {"200": shown("BatchResults", "One result each, durable.")},
            (406, 409, *_BODY, *_WRITE),
            description=(
                "All of it happens or nothing, and an operation sees what those before it did. "
                f"At most {HTTP_BATCH_OPERATIONS_MAX} operations and rows, and {HTTP_BATCH_BYTES_MAX} bytes."
            ),
            parameters=_WRITE_HEADERS,
            requestBody=taken("Batch"),
        )
    },
    "/v1/status": _with_head(
        _operation("getStatus", "The node's figures", {"200": shown("Status", "Now.")}, (400, 406, *_EVERY))
    ),
    "/v1/admin/keyspaces": {
        **_with_head(
            _operation(
                "getKeyspaces",
                "The node's keyspaces, in the order of their prefixes",
                {"200": shown("Keyspaces", "As the node knows them.")},
                (400, 406, *_EVERY),
            )
        ),
        "put": _operation(
            "putKeyspace",
            "Create a keyspace; asked of the hub that leads",
            {"204": {"description": "It is created; the other nodes hear of it.", "headers": _NOTED}},
            (400, 403, *_EVERY),
            parameters=[ref("parameters", "NewKeyspace")],
        ),
    },
    "/v1/admin/sites": {
        "put": _operation(
            "putSite",
            "Have the edges of a site hold a keyspace; asked of the hub that leads",
            {"204": {"description": "They fetch it when they hear of it.", "headers": _NOTED}},
            (400, 403, 404, *_EVERY),
            parameters=[ref("parameters", "KeyspaceSite")],
        ),
        "delete": _operation(
            "deleteSite",
            "Take a site off a keyspace: its edges drain, and then delete their copies; asked of the hub that leads",
            {"204": {"description": "It is taken off; the list of keyspaces says as long as it drains."}},
            (400, 403, 404, *_EVERY),
            parameters=[ref("parameters", "KeyspaceSite")],
        ),
    },
    "/v1/admin/vectors": _with_head(
        _operation(
            "getVectors",
            "What readers here see of each keyspace, as a digest names it",
            {"200": shown("Vectors", "Now.")},
            (400, 406, *_EVERY),
        )
    ),
    "/v1/admin/digest": _with_head(
        _operation(
            "getDigest",
            "A digest of what readers are shown of one keyspace: nodes with equal vectors have equal ones",
            {"200": shown("Digest", "Of no moment when `moved`: ask again.")},
            (406, *_DATA),
            parameters=[ref("parameters", "Digest")],
        )
    ),
    "/v1/admin/leader": {
        "put": _operation(
            "putLeader",
            "Have the hub that founded the cluster, and was restored, lead it again without those who have not come back",
            {"204": {"description": "It leads."}},
            (400, 403, *_EVERY),
        )
    },
    "/v1/admin/members": {
        "put": _operation(
            "putMember",
            "Let a member come back that was removed, with what it wrote meanwhile; asked of the hub that leads",
            {"204": {"description": "It may come."}},
            (400, 403, 404, *_EVERY),
            parameters=[ref("parameters", "Member")],
        ),
        "delete": _operation(
            "deleteMember",
            "Take a member out that will not come back; asked of the hub that leads",
            {"204": {"description": "It is out."}},
            (400, 403, 404, *_EVERY),
            parameters=[ref("parameters", "Member")],
        ),
    },
    "/v1/admin/repair": {
        "put": _operation(
            "putRepair",
            "Have rows mended by those of a node that this one has a link with; the status says what came of it",
            {"200": shown("RepairBegun", "It has begun.")},
            (400, 403, 406, *_EVERY),
            parameters=[
                ref("parameters", name) for name in ("RepairKeyspace", "RepairFrom", "RepairPrefixes", "Union")
            ],
        )
    },
    "/v1/admin/conflicts": _with_head(
        _operation(
            "getConflicts",
            "Values that were lost to concurrent writes, as far as this node is certain of it",
            {"200": shown("Conflicts", "Since the node started.")},
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
            parameters=[ref("parameters", "IfNoneMatch")],
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
