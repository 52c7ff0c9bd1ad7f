"""Media types, and keys and values inside JSON and msgpack.

In JSON bytes have the form of ``codec.as_json``, in both directions. msgpack is exact: keys and values come as bin; a str is taken as
its UTF-8.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from edgekv.api.http.problem import Refusal
from edgekv.codec import as_json, from_json, pack, unpack
from edgekv.errors import InvalidRequest

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
NDJSON: Final = "application/x-ndjson"
OCTETS: Final = "application/octet-stream"
_FLOAT_EXACT_MAX: Final = 1 << 53
_SAME: Final = {"application/x-msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK, "application/ndjson": NDJSON}
_ANY: Final = {"*/*", "application/*"}


def wanted_type(request: web.BaseRequest, offered: Sequence[str] = (JSON, MSGPACK), *, otherwise: str = "") -> str:
    """The offered type that Accept likes best; the first one when it does not care; when it wants none, ``otherwise`` or 406."""
    accept = request.headers.get("Accept", "")
    if not accept or accept == "*/*":
        return offered[0]
    best, best_quality = "", 0.0
    for item in accept.split(","):
        name, quality = _quality(item)
        choice = offered[0] if name in _ANY else _SAME.get(name, name)
        if choice in offered and quality > best_quality:
            best, best_quality = choice, quality
    if not best and not otherwise:
        raise Refusal(406, "not-acceptable", f"none of the types in Accept is offered here. Use {', '.join(offered)}.")
    return best or otherwise


def encoded(value: object, media_type: str) -> bytes:
    """One value as JSON or msgpack."""
    return pack(value) if media_type == MSGPACK else json_bytes(value)


def json_bytes(value: object) -> bytes:
    """Compact JSON. Bytes anywhere in it follow the module's rule."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_leaf).encode()


def decoded_object(request: web.BaseRequest, body: bytes) -> dict[object, object]:
    """The object that a POST carries; 415 unless it says that it is JSON or msgpack, InvalidRequest when it is not.

    The type must be said: a form from a foreign web page can be posted to a node on localhost, JSON cannot without being asked for.
    """
    name = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    media_type = _SAME.get(name, name)
    if media_type not in (JSON, MSGPACK):
        raise Refusal(415, "unsupported-media-type", f"send the body with Content-Type: {JSON} or {MSGPACK}.")
    value = unpack(body) if media_type == MSGPACK else _json_value(body)
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not an object. See docs/HTTP_API.md for what this call takes.")
    return value


def bytes_of(value: object, what: str) -> bytes:
    """A key or value out of a decoded body."""
    data = value if isinstance(value, bytes) else from_json(value)
    if data is None:
        raise InvalidRequest(
            f'{what} is neither text nor bytes. Send a string of whole characters, or {{"base64": "..."}} in JSON.'
        )
    return data


def integer_of(value: object, what: str) -> int:
    """A 64-bit integer out of a decoded body. 1.0 is one as well, up to where floats are exact."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _FLOAT_EXACT_MAX:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise InvalidRequest(f"{what} is not a 64-bit integer. Send a whole number.")
    return value


def amount_of(value: object, what: str) -> int | bytes:
    """A number out of a decoded body: a 64-bit integer, or a fraction within that range as decimal text, as short as it was meant."""
    if isinstance(value, float) and not value.is_integer() and abs(value) < 1 << 63:
        return repr(value).encode()
    if isinstance(value, float) and -(1 << 63) <= value < 1 << 63:
        return int(value)
    if isinstance(value, float):
        raise InvalidRequest(f"{what} is not a number of 64 bits. Send one from -2^63 to below 2^63.")
    return integer_of(value, what)


def _json_leaf(value: object) -> object:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return as_json(value)


def _json_value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {str(error)[:200]}.") from error


def _quality(item: str) -> tuple[str, float]:
    """A media range of Accept and its q; one that cannot be read counts as 0."""
    name, *options = item.split(";")
    quality = 1.0
    for option in options:
        key, _, text = option.partition("=")
        if key.strip().lower() == "q":
            try:
                quality = float(text)
            except ValueError:
                quality = 0.0
    return name.strip().lower(), quality
