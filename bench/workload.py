"""Random puts for the storage path: the same sequence for every store, made before the clock starts."""

import random
from collections.abc import Iterator
from typing import Final

KEYS: Final = 1_000_000
VALUE_BYTES: Final = 100

_VALUES: Final = 4096  # distinct ones: enough that no compression finds them equal


class Workload:
    """100-byte values at random ones of 1,000,000 keys."""

    def __init__(self, seed: int) -> None:
        dice = random.Random(seed)
        self._keys: Final = [b"key:%012d" % number for number in dice.choices(range(KEYS), k=KEYS)]
        self._values: Final = [dice.randbytes(VALUE_BYTES) for _ in range(_VALUES)]

    def columns(self, size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Endless (keys, values), `size` of each. `size` divides the number of values."""
        assert _VALUES % size == 0
        while True:
            for at in range(0, KEYS - size + 1, size):
                first = at % _VALUES
                yield self._keys[at : at + size], self._values[first : first + size]

    def puts(self, size: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """Endless lists of `size` (key, value) pairs."""
        for keys, values in self.columns(size):
            yield list(zip(keys, values, strict=True))
