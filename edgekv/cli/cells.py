"""One cell of what is imported, as the bytes that a node stores; and what is said of one that has none."""

import json

from edgekv.codec import from_json
from edgekv.errors import InvalidRequest


class BadInput(InvalidRequest):
    """The file or the template cannot be imported. The sentence names the row, where there is one."""

    code = "bad-input"


def cell_bytes(value: object, number: int) -> bytes:
    """Text as it is, ``{"base64": ...}`` decoded, anything else as JSON. ``number`` (from 1) names the row in an error."""
    if isinstance(value, str):
        return text_bytes(value, number)
    decoded = from_json(value)
    return decoded if decoded is not None else json_bytes(value, number)


def json_bytes(value: object, number: int) -> bytes:
    """Compact JSON."""
    try:
        return text_bytes(json.dumps(value, ensure_ascii=False, separators=(",", ":")), number)
    except RecursionError as error:
        raise BadInput(f"row {number} is nested too deeply") from error


def text_bytes(text: str, number: int) -> bytes:
    """Text as it was in the file, also where it was not UTF-8. JSON can name halves of characters, which are no bytes."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise BadInput(f"row {number} has {half}, which is half of a character: write the whole pair") from error
