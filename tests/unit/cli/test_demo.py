"""What the demo computes from the bundled file, and that it notices whatever a node could get wrong."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.cli import dev_layout
from edgekv.cli.demo_weather import DAYS, DRY, SITES, Holdings, Row, difference, expected, operations, rows
from edgekv.errors import InvalidRequest
from tests.unit.cli.conftest import Program

YEAR = rows()
WORDS = {b"PUT": 3, b"ADD": 2, b"SADD": 2, b"SREM": 2, b"HADD": 3, b"HSET": 3}
"""How many arguments each operation has."""


def carried_out(changes: Sequence[tuple[bytes, ...]]) -> Holdings:
    """What one node that does them all in this order holds, after the days."""
    held = Holdings(sets={DRY: {day.encode() for day in DAYS}})
    for change in changes:
        words = list(change)
        while words:
            verb = words.pop(0)
            key, *rest = (words.pop(0) for _ in range(WORDS[verb]))
            match verb, rest:
                case b"PUT", (value, b"0"):
                    held.strings[key] = value
                case b"ADD", (number,):
                    held.strings[key] = b"%d" % (int(held.strings.get(key, b"0")) + int(number))
                case b"SADD", (member,):
                    held.sets.setdefault(key, set()).add(member)
                case b"SREM", (member,):
                    held.sets[key].discard(member)
                case b"HADD", (name, number):
                    fields = held.maps.setdefault(key, {})
                    fields[name] = b"%d" % (int(fields.get(name, b"0")) + int(number))
                case b"HSET", (name, value):
                    held.maps.setdefault(key, {})[name] = value
                case _:
                    raise AssertionError(change)
    return held


def test_the_year_has_three_airports_and_each_hour_once() -> None:
    assert len(YEAR) == 26_115
    assert {row["origin"] for row in YEAR} == set(SITES)
    assert len({(row["origin"], row["time_hour"]) for row in YEAR}) == len(YEAR)


def test_what_is_computed_is_what_the_writes_come_to() -> None:
    assert difference(expected(YEAR), carried_out([operations(row) for row in YEAR])) is None


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_the_airports_meet_does_not_matter(dice: object) -> None:
    parts: list[list[Row]] = [[row for row in YEAR[::50] if row["origin"] == site] for site in SITES]
    mixed = []
    while parts := [part for part in parts if part]:
        mixed.append(dice.choice(parts).pop(0))  # type: ignore[attr-defined]
    assert carried_out([operations(row) for row in mixed]) == expected(YEAR[::50])


MISTAKES: dict[str, Callable[[Holdings], object]] = {
    "a register is lost": lambda held: held.strings.pop(b"weather/EWR/2013-01-30T13:00:00Z"),
    "a register is an older one": lambda held: held.strings.update({b"weather/EWR/2013-01-30T13:00:00Z": b"{}"}),
    "a reading counts twice": lambda held: held.strings.update({b"hours/2013-01-30": b"73"}),
    "a counter is lost": lambda held: held.strings.pop(b"rain/2013-01-30"),
    "a member is lost": lambda held: held.sets[b"fog/2013-01-30"].pop(),
    "a member is back": lambda held: held.sets[b"fog/2013-01-30"].add(b"SFO"),
    "a day that somebody took out is back": lambda held: held.sets[DRY].add(b"2013-01-30"),
    "a set is lost": lambda held: held.sets.pop(b"fog/2013-01-30"),
    "a field is lost": lambda held: held.maps[b"month/2013-01"].pop(b"JFK latest"),
    "a field counts one less": lambda held: held.maps[b"month/2013-01"].update({b"readings": b"1"}),
    "a key is there that nobody wrote": lambda held: held.strings.update({b"stray": b""}),
    "a key has another type": lambda held: held.sets.update(
        {b"rain/2013-01-30": {held.strings.pop(b"rain/2013-01-30")}}
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_every_difference_is_noticed(mistake: Callable[[Holdings], object]) -> None:
    right = expected(YEAR)
    held = copy.deepcopy(right)
    assert difference(right, held) is None
    mistake(held)
    assert difference(right, held) is not None


def test_a_directory_that_holds_a_cluster_is_refused(edgekv: Program, tmp_path: Path) -> None:
    dev_layout.save(tmp_path, dev_layout.create(["EWR"], hubs=1))
    ended = edgekv("demo", "--dir", str(tmp_path))
    assert ended.exit_code == InvalidRequest.exit_status
    assert "holds a cluster already" in ended.err
