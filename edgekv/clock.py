"""The hybrid logical clock, as arithmetic on one integer.

A stamp is a u64: milliseconds since the epoch << 16 | counter. Each keyspace keeps the highest one it has made or seen; the next
change gets ``next_hlc`` of it, so a later write beats whatever its writer saw, whatever the wall clocks say. A run of n changes takes
n consecutive stamps, and a full counter runs into the milliseconds.

Stamps order writes; they are not for hiding expired rows. That is TTL time (engine/reads.py), which is kept apart since one bad stamp
must not expire the world. Pure: the wall clock is read by the shell.

Source: Kulkarni et al., "Logical physical clocks and consistent snapshots in globally distributed databases" (2014).
"""

from typing import Final

HLC = int

COUNTER_BITS: Final = 16


def hlc_from_ms(ms: int) -> HLC:
    """The lowest stamp of this millisecond."""
    return ms << COUNTER_BITS


def hlc_ms(hlc: HLC) -> int:
    """The millisecond of a stamp."""
    return hlc >> COUNTER_BITS


def next_hlc(last: HLC, now_ms: int) -> HLC:
    """The stamp of the next change after ``last``, the highest that was made or seen."""
    return max(last + 1, now_ms << COUNTER_BITS)
