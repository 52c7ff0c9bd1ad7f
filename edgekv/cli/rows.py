"""Rows of a CSV or JSON Lines file, and what each becomes in a node. Used by ``edgekv import`` and ``edgekv demo``.

A row is a dict from column to value. ``Shape`` turns it into one SET: the key from a template such as
``weather/{origin}/{time_hour}`` (``{{`` and ``}}`` stand for the braces themselves), the value from one column or, without one, the
whole row as compact JSON. Lines that ``edgekv export`` wrote (exported.py) need no template.

What is wrong with the file or the template is a BadInput, which says where.
"""

import csv
import difflib
import gzip
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from edgekv.cli.cells import BadInput, cell_bytes, json_bytes, text_bytes
from edgekv.cli.exported import COLLECTIONS, collection_commands
from edgekv.cli.resp_client import Commands, command
from edgekv.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

Format = Literal["csv", "jsonl"]
Row = dict[str, object]

PLACEHOLDER: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Source(NamedTuple):
    """An open file: its rows, and how many of its bytes were read (compressed ones, when it is compressed)."""

    rows: Iterator[Row]
    bytes_read: Callable[[], int]
    size_bytes: int  # 0: unknown (stdin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a row becomes a SET."""

    key: str | None
    """The key's template; None: the columns of an export."""

    value: str | None = None
    """The column that is the value; None: the whole row as JSON."""

    ttl_s: int = 0
    """Expiry of what is written, seconds; 0: none."""

    def commands(self, row: Row, number: int) -> Commands:
        """What writes a row: one SET, or what restores a line of a set or hash. ``number`` (from 1) names it in an error."""
        key = self.row_key(row, number)
        if not 1 <= len(key) <= KEY_BYTES_MAX:
            raise BadInput(f"row {number}: its key has {len(key)} bytes; a key has 1 to {KEY_BYTES_MAX}")
        if self.key is None and self.value is None and "value" not in row and row.get("type") in COLLECTIONS:
            return collection_commands(key, row, number, ttl_s=self.ttl_s)
        return self._set_command(key, row, number)

    def _set_command(self, key: bytes, row: Row, number: int) -> bytes:
        value = self.row_value(row, number)
        if self.ttl_s:
            return command(b"SET", key, value, b"EX", b"%d" % self.ttl_s)
        if self.key is None and row.get("expiry_ms"):
            return command(b"SET", key, value, b"PXAT", text_bytes(str(row["expiry_ms"]), number))
        return command(b"SET", key, value)

    def row_key(self, row: Row, number: int) -> bytes:
        """The key of a row."""
        if self.key is None:
            if "key" not in row:
                example = f"--key 'row/{{{next(iter(row), 'column')}}}'"
                raise BadInput(f'row {number} has no column "key": say how its columns make a key, such as {example}')
            return _column(row, "key", number)

        def fill(match: re.Match[str]) -> str:
            if match[0] in {"{{", "}}"}:
                return match[0][0]
            if not match[1]:
                raise BadInput(f'the key template "{self.key}" has a lone or empty brace: write {{column}} or {{{{')
            return _column(row, match[1], number).decode("utf-8", "surrogateescape")

        return text_bytes(PLACEHOLDER.sub(fill, self.key), number)

    def row_value(self, row: Row, number: int) -> bytes:
        """The value of a row."""
        column = "value" if self.key is None and self.value is None else self.value
        if column is not None:
            return _column(row, column, number)
        return json_bytes(row, number)


@contextmanager
def open_rows(path: Path, kind: Format | None, delimiter: str = ",") -> Iterator[Source]:
    """Open a file ("-": stdin; ``.gz``: decompressed on the way). ``kind`` None: by the name's ending.

    Lines without anything on them are no rows.
    """
    if str(path) == "-":
        if kind is None:
            raise BadInput("say what stdin carries: --format csv or --format jsonl")
        yield Source(_rows(_text(sys.stdin.buffer), kind, delimiter, path), lambda: 0, 0)
        return
    plain = path.name.lower().removesuffix(".gz")
    kind = kind or _format_of(plain)
    with path.open("rb") as raw:
        stream: IO[bytes] | gzip.GzipFile = raw if plain == path.name.lower() else gzip.GzipFile(fileobj=raw)
        # Held until the end: a text layer that is let go closes the file below it.
        with _text(stream) as text:
            yield Source(_rows(text, kind, delimiter, path), raw.tell, path.stat().st_size)


def _format_of(name: str) -> Format:
    if name.endswith(".csv"):
        return "csv"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    raise BadInput(f'cannot tell the format of "{name}": say --format csv or --format jsonl')


def _text(stream: IO[bytes] | gzip.GzipFile) -> TextIOWrapper:
    # Bytes that are not UTF-8 go through unchanged: surrogateescape here and where a row is encoded again.
    return TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _rows(text: TextIOWrapper, kind: Format, delimiter: str, path: Path) -> Iterator[Row]:
    try:
        yield from _csv(text, delimiter) if kind == "csv" else _json_lines(text)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be decompressed ({error}): is it a whole .gz file?") from error


def _csv(text: TextIOWrapper, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(VALUE_BYTES_MAX)
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    number = 0
    try:
        for name, count in Counter(reader.fieldnames or []).items():
            if count > 1:
                raise BadInput(f'the header names the column "{name}" {count} times: give each its own name')
        for row in reader:
            number += 1
            if None in row or None in row.values():
                raise BadInput(f"row {number} (line {reader.line_num}) does not have as many columns as the header")
            yield dict(row)
    except csv.Error as error:
        raise BadInput(f"row {number + 1} is not CSV: {error}") from error


def _json_lines(text: TextIOWrapper) -> Iterator[Row]:
    number = 0
    for line in text:
        if not line.strip():
            continue
        number += 1
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"row {number} is not JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:  # an endless number, an endless nest
            raise BadInput(f"row {number} cannot be read: {error}") from error
        if not isinstance(row, dict):
            raise BadInput(f"row {number} is not a JSON object: write one object on each line")
        yield row


def _column(row: Row, column: str, number: int) -> bytes:
    """One column as bytes."""
    if column not in row:
        close = difflib.get_close_matches(column, row, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"it has {', '.join(row)}"
        raise BadInput(f'row {number} has no column "{column}": {hint}')
    return cell_bytes(row[column], number)
