"""The counter part: what one actor has added at a key, and how much of that was reset. A counter's value is the sum of its parts.

A part is ``total``, the actor's running sum at its sequence number ``seq``, less a *baseline*: the ``base_total`` it had at
``base_seq``, which a reset, SET or delete observed. Only its own actor adds to a part; anybody may reset it.

merge     the higher ``seq`` wins the total; the higher ``base_seq`` wins the baseline; on equal ``base_seq`` the part made anew,
          then the higher dot of the reset. Both halves are maxima of a total order: merge is associative, commutative, idempotent.
value     sum of ``total - base_total``. A reset names (seq, total) of what it observed, so a concurrent increment survives it.
made anew a part that is absent, or reset to nothing, starts again at 0 with ``base_seq = seq - 1``: above every older part and
          reset of this actor that other nodes may still hold, so it may be purged once inert. (Starting at 0 with baseline 0
          lets an old reset swallow new increments.)
baseline  alone (``seq == 0``) is the delta of a reset. Where the part is absent it was purged as inert: there is nothing to reset.

Numbers are exact, integers or decimal fractions (crdt.decimals), and unbounded: a merged sum may leave 64 bits. Source: delta-state
PN-counters (Almeida, Shoker, Baquero, "Delta state replicated data types", 2018) with observed resets; the executable rules of the
design were checked over random schedules.
"""

from collections.abc import Iterable
from typing import NamedTuple

from edgekv.crdt.decimals import Number, whole
from edgekv.ids import Actor


class Part(NamedTuple):
    """One actor's part of a counter, or a delta of it."""

    total: Number
    seq: int  # of the actor's last increment; 0 in the delta of a reset
    base_total: Number
    base_seq: int
    base_dot: (
        tuple[Actor, int] | None
    )  # of the reset that set the baseline; None when nobody has, or the part was made anew
    fresh: bool  # the baseline is that of a part made anew


def increment(part: Part | None, delta: Number, seq: int) -> Part:
    """The own part after adding ``delta`` in the change ``seq``. Pass None for a part that is hidden by an expiry."""
    if part is None or is_inert(part):
        return Part(delta, seq, 0, seq - 1, None, fresh=True)
    total = part.total + delta
    total = total if type(total) is int else whole(total)
    return Part(total, seq, part.base_total, part.base_seq, part.base_dot, part.fresh)


def reset_delta(observed_seq: int, observed_total: Number, dot: tuple[Actor, int]) -> Part:
    """What a reset says of one part, to be merged into it wherever that part is held."""
    return Part(0, 0, observed_total, observed_seq, dot, fresh=False)


def reset(part: Part, observed_seq: int, observed_total: Number, dot: tuple[Actor, int]) -> Part:
    """The part after a reset that observed ``observed_total`` at ``observed_seq``."""
    return merge(part, reset_delta(observed_seq, observed_total, dot))


def merge(a: Part | None, b: Part) -> Part:
    """Join two versions, or deltas, of one actor's part."""
    if a is None:
        return b
    upper = a if a.seq >= b.seq else b
    lower = a if _baseline(a) >= _baseline(b) else b
    return Part(upper.total, upper.seq, lower.base_total, lower.base_seq, lower.base_dot, lower.fresh)


def _baseline(part: Part) -> tuple[int, bool, tuple[bytes, int]]:
    return part.base_seq, part.fresh, part.base_dot or (b"", 0)


def value(parts: Iterable[Part]) -> Number:
    """The counter's value."""
    total: Number = sum(part.total - part.base_total for part in parts)
    return total if type(total) is int else whole(total)


def is_inert(part: Part) -> bool:
    """Whether everything that was added has been reset: the part shows nothing and may be purged when the cut allows it."""
    return part.seq <= part.base_seq
