"""The bundled weather of 2013: what a site writes for each hour, and, computed from the file alone, what every node must hold then.

A reading is one change of several keys, some of which all three airports write:

weather/EWR/2013-01-01T06:00:00Z   register   the row as JSON
hours/2013-01-01                   counter    readings of that day, of all airports
rain/2013-01-01                    counter    hundredths of an inch of that day, of all airports
fog/2013-01-01                     set        "EWR 2013-01-01T06:00:00Z" for each hour with less than a mile of sight
dry                                set        all days, put there by the cloud; each airport takes out those on which it rained there
month/2013-01                      map        "readings": a counter; "EWR latest": when the airport wrote last, a register
"""

import csv
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Final

SITES: Final = ("EWR", "JFK", "LGA")
NO_VALUE: Final = "NA"
DRY: Final = b"dry"
DAYS: Final = tuple((date(2013, 1, 1) + timedelta(days=n)).isoformat() for n in range(365))
FOG_MILES: Final = 1.0
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that a node holds. A counter is a string, as every interface shows it."""

    strings: dict[bytes, bytes] = field(default_factory=dict)
    sets: dict[bytes, set[bytes]] = field(default_factory=dict)
    maps: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)

    def count(self) -> int:
        """Its keys."""
        return len(self.strings) + len(self.sets) + len(self.maps)


def rows() -> list[Row]:
    """The file, in its order: 26,115 rows."""
    with (
        (files("edgekv") / "data" / "weather.csv.gz").open("rb") as raw,
        gzip.open(raw, "rt", encoding="utf-8") as text,
    ):
        return list(csv.DictReader(text))


def operations(row: Row) -> tuple[bytes, ...]:
    """What its site writes for a row: the arguments of one EDGEKV.BATCH."""
    site, hour, day = row["origin"], row["time_hour"], _day(row)
    month = b"month/" + day[:7].encode()
    written = [b"PUT", f"weather/{site}/{hour}".encode(), json.dumps(row, separators=(",", ":")).encode(), b"0"]
    written += [b"ADD", f"hours/{day}".encode(), b"1"]
    if rain := _rain(row):
        written += [b"ADD", f"rain/{day}".encode(), b"%d" % rain, b"SREM", DRY, day.encode()]
    if _is_fog(row):
        written += [b"SADD", f"fog/{day}".encode(), f"{site} {hour}".encode()]
    written += [b"HADD", month, b"readings", b"1", b"HSET", month, f"{site} latest".encode(), hour.encode()]
    return tuple(written)


def raw_bytes(written: Iterable[bytes]) -> int:
    """Keys, values, members, fields and amounts of a change, without the words of the commands."""
    return sum(len(each) for each in written if each not in (b"PUT", b"ADD", b"SADD", b"SREM", b"HADD", b"HSET"))


def expected(written: Iterable[Row]) -> Holdings:
    """What these rows come to, whoever wrote them, in whichever order the airports' changes met; before them the days were listed."""
    registers = {}
    hours: dict[str, int] = {}
    rain: dict[str, int] = {}
    fog: dict[str, set[str]] = {}
    readings: dict[str, int] = {}
    latest: dict[str, dict[str, str]] = {}
    for row in written:
        day, site, hour = _day(row), row["origin"], row["time_hour"]
        registers[f"weather/{site}/{hour}"] = json.dumps(row, separators=(",", ":"))
        hours[day] = hours.get(day, 0) + 1
        readings[day[:7]] = readings.get(day[:7], 0) + 1
        latest.setdefault(day[:7], {})[site] = hour
        if _rain(row):
            rain[day] = rain.get(day, 0) + _rain(row)
        if _is_fog(row):
            fog.setdefault(day, set()).add(f"{site} {hour}")
    return Holdings(
        strings={key.encode(): value.encode() for key, value in registers.items()}
        | {f"hours/{day}".encode(): b"%d" % number for day, number in hours.items()}
        | {f"rain/{day}".encode(): b"%d" % number for day, number in rain.items()},
        sets={f"fog/{day}".encode(): {each.encode() for each in members} for day, members in fog.items()}
        | {DRY: {day.encode() for day in DAYS if day not in rain}},
        maps={
            f"month/{month}".encode(): {b"readings": b"%d" % readings[month]}
            | {f"{site} latest".encode(): hour.encode() for site, hour in latest[month].items()}
            for month in readings
        },
    )


def difference(right: Holdings, found: Holdings) -> str | None:
    """The first key in which what was found is not what is right; None: they are equal."""
    wanted = {**right.strings, **right.sets, **right.maps}
    there = {**found.strings, **found.sets, **found.maps}
    wrong = sorted(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
    if not wrong:
        return None
    key = wrong[0]
    return f"{len(wrong)} keys differ; {key.decode()} should be {wanted.get(key)!r} and is {there.get(key)!r}"


def _day(row: Row) -> str:
    return f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"


def _rain(row: Row) -> int:
    """In hundredths of an inch, as gauges have it."""
    return 0 if row["precip"] == NO_VALUE else int(Decimal(row["precip"]) * 100)


def _is_fog(row: Row) -> bool:
    return row["visib"] != NO_VALUE and float(row["visib"]) < FOG_MILES
