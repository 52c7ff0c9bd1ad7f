"""What schemathesis is told beyond the document (tests/integration/test_openapi.py): msgpack, Accept, patience, and keys that meet."""

import itertools
import re
from typing import Any, Final

import schemathesis

from edgekv.codec import pack
from edgekv.limits import ACK_TIMEOUT_MS_MAX, SESSION_TOKEN_CHARS_MAX

ACCEPTS: Final = itertools.cycle(
    [
        "*/*",
        "application/json",
        "application/msgpack",
        "application/octet-stream, application/json;q=0.5, */*;q=0.1",
        "application/x-ndjson, application/json;q=0.5, */*;q=0.1",
    ]
)
SHARED_KEYS: Final = 4
TOKEN: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{SESSION_TOKEN_CHARS_MAX}}}")


@schemathesis.serializer("application/msgpack")
def msgpack_body(context: schemathesis.SerializationContext, value: Any) -> Any:
    """Bodies as msgpack; what it cannot carry goes as text, which is refused."""
    try:
        return pack(value)
    except (OverflowError, TypeError, ValueError):
        return pack(repr(value))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Ask for each representation in turn. A random key is hardly ever one that was written: half of them are made to meet."""
    case.headers["Accept"] = next(ACCEPTS)
    timeout_ms = str(case.headers.get("Edgekv-Ack-Timeout-Ms", 1_000))
    if timeout_ms.isdecimal() and int(timeout_ms) <= ACK_TIMEOUT_MS_MAX:
        case.headers["Edgekv-Ack-Timeout-Ms"] = "0"  # There is no other node.
    token = case.headers.get("Edgekv-Session")
    if isinstance(token, str) and TOKEN.fullmatch(token):
        del case.headers["Edgekv-Session"]  # It looks like one, and no node returned it.
    key = (case.path_parameters or {}).get("key")
    if isinstance(key, str) and key and len(key) % 2:
        case.path_parameters = {"key": f"{case.operation.path.split('/')[2]}-{len(key) % SHARED_KEYS}"}
