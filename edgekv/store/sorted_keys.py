"""The keys of a dict that only grows, in order on demand: what a layer's scans are made of. Pure."""

from bisect import bisect_left
from collections.abc import Collection
from itertools import islice
from typing import Final

SORT_STEP_KEYS: Final = 16_384  # 5 to 10 ms of sorting


class SortedKeys:
    """The keys of a dict that only grows (or says that it has ``shrunk``), sorted on demand into runs of falling size.

    A key list that is sorted anew whenever it grew costs 20 ms at 500,000 keys, even if one key came; merging only runs of
    comparable size costs each key a logarithmic number of comparisons in all. The dict's own order is that of arrival, so the keys
    that are not in a run yet are its tail.
    """

    __slots__ = ("_runs", "_sorted", "_source")

    def __init__(self, source: Collection[bytes]) -> None:
        self._source = source
        self._runs: list[list[bytes]] = []
        self._sorted = 0

    def step(self) -> bool:
        """Sort the next keys; whether there are more."""
        if self._sorted == len(self._source):
            return False
        run = sorted(islice(self._source, self._sorted, self._sorted + SORT_STEP_KEYS))
        self._sorted += len(run)
        runs = self._runs
        while runs and len(runs[-1]) <= 2 * len(run):
            run = runs.pop() + run
            run.sort()  # two ascending runs: a merge
        runs.append(run)
        return self._sorted < len(self._source)

    def between(self, low: bytes, high: bytes | None, limit: int) -> list[bytes]:
        """The first ``limit`` keys in [low, high)."""
        while self.step():
            pass
        found: list[bytes] = []
        for run in self._runs:
            start = bisect_left(run, low)
            end = len(run) if high is None else bisect_left(run, high)
            found += run[start : min(end, start + limit)]
        if len(self._runs) > 1:
            found.sort()
        return found[:limit]

    def last(self, low: bytes, high: bytes | None) -> bytes | None:
        """The last key in [low, high)."""
        while self.step():
            pass
        ends = [(run, len(run) if high is None else bisect_left(run, high)) for run in self._runs]
        return max((run[end - 1] for run, end in ends if end and run[end - 1] >= low), default=None)

    def shrunk(self) -> None:
        """Keys were deleted from the dict: those that are left are in the order of their arrival still."""
        runs = ([key for key in run if key in self._source] for run in self._runs)
        self._runs = [run for run in runs if run]
        self._sorted = sum(map(len, self._runs))

    def forget(self, keys: int) -> None:
        """Free up to ``keys`` references. The order is of no use after this: its dict was given up."""
        while self._runs and keys > 0:
            run = self._runs[-1]
            keys -= len(run)
            del run[max(0, -keys) :]
            if not run:
                self._runs.pop()
