"""When Python looks for garbage cycles. Rows make none, and are most of what a busy node allocates.

CPython's collector runs each time so many more objects were made than freed, and looks at all that it has not seen before. A memtable
that grows by 200,000 rows a second has it look at each of them twice, to find nothing: some percent of the event loop, and long pauses
in the older generation (docs/BENCHMARKS.md). So there are two modes:

    quiet       no automatic collection. At each tick the young objects are frozen, which costs nothing, and they are not looked at
                again. At one tick of `PROBES` they are looked at before; when there is a cycle among them: automatic.
    automatic   CPython's young generations, as what serves HTTP needs. After `PROBES` collections without any cycle: quiet.

What became garbage after it was frozen, or in a generation that is not collected, waits for `sweep`, which looks at everything, once
cycles were seen: it is for moments when nothing is asked of the node. The counts that decide are the collector's own. No clock, no
thread.
"""

import gc
from typing import Final

PROBES: Final = 16
YOUNG: Final = (10_000, 50, 1 << 30)
"""Thresholds in automatic mode: never the oldest generation, which takes 100 ms and more with a large memtable."""
OFF: Final = (0, 50, 1 << 30)


class Garbage:
    """Of one process. `tick` comes from the event loop, often."""

    def __init__(self) -> None:
        """Take the collector over; everything that is there now is frozen."""
        gc.collect()
        self._ticks = 0
        self._found = self._in_vain = 0
        self._seen = False
        """There were cycles since the last sweep, so there may be others among what is frozen."""
        self._calm()

    @property
    def quiet(self) -> bool:
        """Whether nothing is collected between ticks."""
        return gc.get_threshold() == OFF

    def tick(self) -> None:
        """Look at the young objects, or freeze them; change the mode when what is found says so."""
        if not self.quiet:
            found, collections = _so_far()
            if found != self._found:
                self._found, self._in_vain, self._seen = found, collections, True
            elif collections - self._in_vain >= PROBES:
                self._calm()
            return
        self._ticks += 1
        if self._ticks < PROBES:
            gc.freeze()
        elif gc.collect(0):
            self._seen = True
            self._found, self._in_vain = _so_far()
            gc.set_threshold(*YOUNG)
        else:
            self._calm()

    def sweep(self) -> None:
        """Collect everything, frozen or not, if it may hold cycles: 20 ms for each 100,000 objects."""
        if not self._seen:
            return
        self._seen = False
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _calm(self) -> None:
        self._ticks = 0
        gc.freeze()
        gc.set_threshold(*OFF)


def _so_far() -> tuple[int, int]:
    """Objects that the collector has freed, and how often it ran."""
    generations = gc.get_stats()
    return sum(each["collected"] for each in generations), sum(each["collections"] for each in generations)
