"""All the chance that one call may use: numbers out of one that its caller has rolled. So the engine rolls no dice itself."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

_MASK: Final = (1 << 64) - 1
T = TypeVar("T")


def numbers(dice: int) -> Iterator[int]:
    """SplitMix64 (Steele, Lea, Flood 2014): 64-bit numbers from one."""
    state = dice
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        yield mixed ^ mixed >> 31


def repeated(sample: Sequence[T], population: int, count: int, dice: int) -> list[T]:
    """``count`` draws with replacement, out of different ones drawn from a ``population`` of that size in random order.

    A draw is one of those drawn before as often as these are among all; else it is the next of the sample. So each draw has the same
    chances, though no more than ``count`` of the population were read.
    """
    if not sample:
        return []
    drawn = list[T]()
    used = 0
    rolled = numbers(~dice & _MASK)
    for _ in range(count):
        roll = next(rolled) % max(population, len(sample))
        if roll >= used and used < len(sample):
            drawn.append(sample[used])
            used += 1
        else:
            drawn.append(sample[roll % used])
    return drawn
