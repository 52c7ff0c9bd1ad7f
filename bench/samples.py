"""Medians, spread and ratios of repeated measurements.

Two servers are measured alternately, so sample *i* of one side was taken next to sample *i* of the other. The
ratio is that of the medians; the ratios of the single rounds are given beside it, since their range is what
tells a difference from the noise of a shared machine.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """One quantity measured several times, in the order it was measured."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)

    def text(self, digits: int = 0) -> str:
        """Median and range: "61,200 (59,000-63,100)"."""
        if len(self.samples) == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over theirs (above 1: ours is faster), against the bar it should reach."""

    ours: Spread
    theirs: Spread
    bar: float | None = None

    @property
    def value(self) -> float:
        return self.ours.median / self.theirs.median

    @property
    def rounds(self) -> tuple[float, ...]:
        return tuple(mine / other for mine, other in zip(self.ours.samples, self.theirs.samples, strict=True))

    def text(self) -> str:
        """Ratio of the medians and the range over the rounds: "1.21 (1.10-1.30)"."""
        if len(self.rounds) == 1:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({min(self.rounds):.2f}-{max(self.rounds):.2f})"

    def verdict(self) -> str:
        return verdict(self.value, at_least=self.bar) if self.bar is not None else ""


def verdict(value: float, *, at_least: float | None = None, below: float | None = None) -> str:
    """ "met" or "missed" against a bar; exactly one of the two bounds is given."""
    if at_least is not None:
        return "met" if value >= at_least else "missed"
    assert below is not None
    return "met" if value < below else "missed"


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of the sorted values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]
