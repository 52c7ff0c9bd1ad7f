"""The lines of an export: JSON, one object each, and what restores them. Whatever reads JSON Lines can use them too.

{"key": k, "value": v}                                    a string or number
{"key": k, "type": "set", "members": [m, ...]}            some members of a set
{"key": k, "type": "hash", "fields": [[f, v], ...]}       some fields of a map, a counter's as its number

and, of a key that expires, "expiry_ms". Keys, values, members and fields are text, or {"base64": ...}. A large set or map has many
lines, so that neither side ever holds all of it; each carries the expiry. Writing a line twice leaves what writing it once does: an
import that begins again in the middle, or repeats what was on its way, restores the same.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from edgekv.cli.cells import BadInput, cell_bytes, text_bytes
from edgekv.cli.listing import Listed
from edgekv.cli.resp_client import command
from edgekv.codec import as_json

COLLECTIONS: Final = ("set", "hash")
LINE_ROWS_MAX: Final = 1_000
LINE_BYTES_MAX: Final = 256 << 10
"""Of members or fields and values. A single larger field has a line of its own."""
Line = dict[str, object]
Row = TypeVar("Row")


def string_line(entry: Listed) -> bytes:
    """The line of a string."""
    return _line({"key": as_json(entry.key), "value": as_json(entry.value)}, entry)


def set_lines(entry: Listed, members: Sequence[bytes]) -> Iterator[bytes]:
    """The lines of some members of a set."""
    for part in _parts(members, len):
        yield _line({"key": as_json(entry.key), "type": "set", "members": list(map(as_json, part))}, entry)


def hash_lines(entry: Listed, fields: Sequence[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The lines of some fields of a map."""
    for part in _parts(fields, lambda pair: len(pair[0]) + len(pair[1])):
        pairs = [[as_json(field), as_json(value)] for field, value in part]
        yield _line({"key": as_json(entry.key), "type": "hash", "fields": pairs}, entry)


def collection_commands(key: bytes, line: Line, number: int, *, ttl_s: int) -> tuple[bytes, ...]:
    """What writes a line of a set or hash; BadInput names the row by its ``number``. ``ttl_s`` 0: the line's expiry."""
    if line["type"] == "set":
        verb, rows = b"SADD", [[cell_bytes(member, number)] for member in _list(line, "members", number)]
    else:
        verb, rows = b"HSET", [_pair(pair, number) for pair in _fields(line, number)]
    written = [
        command(verb, key, *(cell for row in rows[at : at + LINE_ROWS_MAX] for cell in row))
        for at in range(0, len(rows), LINE_ROWS_MAX)
    ]
    if written and ttl_s:
        written.append(command(b"EXPIRE", key, b"%d" % ttl_s))
    elif written and line.get("expiry_ms"):
        written.append(command(b"PEXPIREAT", key, text_bytes(str(line["expiry_ms"]), number)))
    return tuple(written)


def _line(line: Line, entry: Listed) -> bytes:
    if entry.expiry_ms:
        line["expiry_ms"] = entry.expiry_ms
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parts(rows: Sequence[Row], size_of: Callable[[Row], int]) -> Iterator[list[Row]]:
    """Rows in parts that make one line each."""
    part, size = list[Row](), 0
    for row in rows:
        size += size_of(row)
        if part and (size > LINE_BYTES_MAX or len(part) == LINE_ROWS_MAX):
            yield part
            part, size = [], size_of(row)
        part.append(row)
    if part:
        yield part


def _list(line: Line, name: str, number: int) -> list[object]:
    rows = line.get(name)
    if not isinstance(rows, list):
        raise BadInput(f'row {number} is a {line["type"]} without a list of "{name}"')
    return rows


def _fields(line: Line, number: int) -> Sequence[object]:
    """An object is as good as pairs, where all names are text."""
    fields = line.get("fields")
    return [list(pair) for pair in fields.items()] if isinstance(fields, dict) else _list(line, "fields", number)


def _pair(pair: object, number: int) -> list[bytes]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise BadInput(f"row {number} has a field that is no [field, value] pair")
    return [cell_bytes(cell, number) for cell in pair]
