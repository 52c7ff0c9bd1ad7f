"""When cycles are looked for, on Python's own collector."""

import gc
from collections.abc import Iterator

import pytest

from edgekv.garbage import OFF, PROBES, YOUNG, Garbage


class Knot:
    """A cycle, once it is tied."""

    def __init__(self) -> None:
        self.end: Knot | None = None


def tie() -> None:
    knot = Knot()
    knot.end = knot


def knots() -> int:
    return sum(type(thing) is Knot for thing in gc.get_objects())


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    thresholds = gc.get_threshold()
    garbage = Garbage()
    yield garbage
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()


def tick(garbage: Garbage, count: int) -> None:
    for _ in range(count):
        garbage.tick()


def test_without_cycles_nothing_is_collected_and_nothing_is_seen_twice(garbage: Garbage) -> None:
    tick(garbage, 10 * PROBES)
    before = [generation["collections"] for generation in gc.get_stats()]
    rows = [(number, bytearray()) for number in range(200_000)]
    assert garbage.quiet and [generation["collections"] for generation in gc.get_stats()] == before
    tick(garbage, 1)
    assert gc.get_count()[0] < 1_000 and len(rows) == 200_000
    assert [generation["collections"] for generation in gc.get_stats()] == before


def test_cycles_are_noticed_and_collected_young(garbage: Garbage) -> None:
    for _ in range(2 * PROBES):
        tie()
        garbage.tick()
    assert not garbage.quiet and gc.get_threshold() == YOUNG
    for _ in range(100_000):
        tie()
    assert knots() < 20_000


def test_without_cycles_it_becomes_quiet_again(garbage: Garbage) -> None:
    while garbage.quiet:
        tie()
        garbage.tick()
    garbage.tick()
    for _ in range(PROBES + 1):
        assert len([(number, bytearray()) for number in range(20_000)]) == 20_000
        garbage.tick()
    assert gc.get_threshold() == OFF


def test_cycles_that_come_slowly_do_not_become_quiet(garbage: Garbage) -> None:
    while garbage.quiet:
        tie()
        garbage.tick()
    tick(garbage, 100 * PROBES)
    assert not garbage.quiet


def test_a_sweep_finds_what_was_frozen_once_cycles_were_seen(garbage: Garbage) -> None:
    for _ in range(10):
        tie()
    garbage.tick()
    gc.collect()
    assert frozen_knots() == 10, "a collection did not see them"
    garbage.sweep()
    assert frozen_knots() == 10, "and nothing says that there are any"
    while garbage.quiet:
        tie()
        garbage.tick()
    garbage.sweep()
    assert frozen_knots() == 0


def frozen_knots() -> int:
    gc.unfreeze()
    found = knots()
    gc.freeze()
    return found
