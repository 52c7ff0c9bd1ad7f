"""Rows of a CSV or JSON Lines file, and what key and value each becomes. Used by ``edgekv import`` and ``edgekv demo``.

A row is a dict from column to value. ``Shape`` turns it into one SET: the key from a template such as
``weather/{origin}/{time_hour}`` (``{{`` and ``}}`` stand for the braces themselves), the value from one column or, without one, the
whole row as compact JSON. Lines that ``edgekv export`` wrote (``key``, ``value``, ``expiry_ms``) need no template.

What is wrong with the file is an InvalidRequest that names the row.
"""

import csv
import difflib
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from edgekv.cli.options import from_json
from edgekv.cli.resp_client import command
from edgekv.errors import InvalidRequest
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

    def set_command(self, row: Row, number: int) -> bytes:
        """The row as the bytes of one SET. ``number`` (from 1) names it in an error."""
        key = self.row_key(row, number)
        value = self.row_value(row, number)
        if not 1 <= len(key) <= KEY_BYTES_MAX:
            raise InvalidRequest(f"row {number}: its key has {len(key)} bytes; a key has 1 to {KEY_BYTES_MAX}")
        if self.ttl_s:
            return command(b"SET", key, value, b"EX", b"%d" % self.ttl_s)
        if self.key is None and row.get("expiry_ms"):
            return command(b"SET", key, value, b"PXAT", str(row["expiry_ms"]).encode())
        return command(b"SET", key, value)

    def row_key(self, row: Row, number: int) -> bytes:
        """The key of a row."""
        if self.key is None:
            return _column(row, "key", number)

        def fill(match: re.Match[str]) -> str:
            if match[0] in {"{{", "}}"}:
                return match[0][0]
            if not match[1]:
                raise InvalidRequest(
                    f'the key template "{self.key}" has a lone or empty brace: write {{column}} or {{{{'
                )
            return _column(row, match[1], number).decode("utf-8", "surrogateescape")

        return PLACEHOLDER.sub(fill, self.key).encode("utf-8", "surrogateescape")

    def row_value(self, row: Row, number: int) -> bytes:
        """The value of a row."""
        column = "value" if self.key is None and self.value is None else self.value
        if column is not None:
            return _column(row, column, number)
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


@contextmanager
def open_rows(path: Path, kind: Format | None, delimiter: str = ",") -> Iterator[Source]:
    """Open a file ("-": stdin; ``.gz``: decompressed on the way). ``kind`` None: by the name's ending."""
    if str(path) == "-":
        if kind is None:
            raise InvalidRequest("say what stdin carries: --format csv or --format jsonl")
        yield Source(_rows(_text(sys.stdin.buffer), kind, delimiter), lambda: 0, 0)
        return
    plain = path.name.lower().removesuffix(".gz")
    kind = kind or _format_of(plain)
    with path.open("rb") as raw:
        stream: IO[bytes] | gzip.GzipFile = raw if plain == path.name.lower() else gzip.GzipFile(fileobj=raw)
        # Held until the end: a text layer that is let go closes the file below it.
        with _text(stream) as text:
            yield Source(_rows(text, kind, delimiter), raw.tell, path.stat().st_size)


def _format_of(name: str) -> Format:
    if name.endswith(".csv"):
        return "csv"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    raise InvalidRequest(f'cannot tell the format of "{name}": say --format csv or --format jsonl')


def _text(stream: IO[bytes] | gzip.GzipFile) -> TextIOWrapper:
    # Bytes that are not UTF-8 go through unchanged: surrogateescape here and where a row is encoded again.
    return TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _rows(text: TextIOWrapper, kind: Format, delimiter: str) -> Iterator[Row]:
    return _csv(text, delimiter) if kind == "csv" else _json_lines(text)


def _csv(text: TextIOWrapper, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(VALUE_BYTES_MAX)
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    number = 0
    try:
        for row in reader:
            number += 1
            if None in row or None in row.values():
                raise InvalidRequest(
                    f"row {number} (line {reader.line_num}) does not have as many columns as the header"
                )
            yield dict(row)
    except csv.Error as error:
        raise InvalidRequest(f"row {number + 1} is not CSV: {error}") from error


def _json_lines(text: TextIOWrapper) -> Iterator[Row]:
    for number, line in enumerate(text, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidRequest(f"row {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidRequest(f"row {number} is not a JSON object: write one object on each line")
        yield row


def _column(row: Row, column: str, number: int) -> bytes:
    """One column as bytes: text as it is, ``{"base64": ...}`` decoded, anything else as JSON."""
    if column not in row:
        close = difflib.get_close_matches(column, row, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"it has {', '.join(row)}"
        raise InvalidRequest(f'row {number} has no column "{column}": {hint}')
    value = row[column]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    decoded = from_json(value)
    return decoded if decoded is not None else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
