"""Values as bytes, and bytes inside values: msgpack in strict mode, and the form that bytes have in JSON.

msgpack: bytes stay bytes, text stays text, nothing is guessed. ``pack`` is deterministic for the values EdgeKV packs (lists, tuples,
bytes, str, int, float, None, bool and dicts in insertion order). This is the only module that imports msgpack.

JSON has no byte strings: in the HTTP API and in what the CLI reads and prints, bytes that are UTF-8 are a string, and any others
``{"base64": "..."}``.
"""

import base64
from typing import Any

import msgpack

from edgekv.errors import InvalidRequest

_packer = msgpack.Packer(buf_size=1 << 22, use_bin_type=True, autoreset=True)
# Any is honest here: what comes out of a decoder has no type until the caller has checked it.


def pack(value: Any) -> bytes:
    """Encode one value. Not for use from several threads at once: the event loop and the applier each are one thread."""
    packed: bytes = _packer.pack(value)
    return packed


def unpack(data: bytes) -> Any:
    """Decode exactly one value; InvalidRequest when the bytes are not one whole msgpack value."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=True)
    except (ValueError, msgpack.UnpackException, TypeError) as error:
        raise InvalidRequest(f"not a msgpack value: {error}. Send one complete msgpack value.") from error


def unpack_all(data: bytes) -> list[Any]:
    """Decode a concatenation of values; InvalidRequest when it is damaged or ends inside a value."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, use_list=True, max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    values: list[Any] = []
    try:
        values.extend(unpacker)
    except (ValueError, msgpack.UnpackException, TypeError) as error:
        raise InvalidRequest(f"not a sequence of msgpack values: {error}.") from error
    if unpacker.tell() != len(data):
        raise InvalidRequest("the last msgpack value is cut short.")
    return values


def as_json(data: bytes) -> str | dict[str, str]:
    """Bytes as JSON shows them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def from_json(value: object) -> bytes | None:
    """The inverse of ``as_json``; None when it is neither form."""
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
            return base64.b64decode(value["base64"], validate=True)
    except ValueError:  # half of a surrogate pair, or not base64
        return None
    return None
