"""What the two sides of a cut write to the same keys in the demo, and what must become of it by the rules of docs/CONSISTENCY.md."""

from typing import Final

from edgekv.cli.demo_weather import Holdings

APART_S: Final = 0.02
"""Between two of these commands: "later" is then plain on everybody's clock."""

Commands = tuple[tuple[str, tuple[bytes, ...]], ...]
"""Who says what, in this order."""

BEFORE: Final[Commands] = (
    ("cloud", (b"SET", b"notice", b"all runways open")),
    ("cloud", (b"SET", b"plan", b"the old one")),
    ("cloud", (b"INCRBY", b"visitors", b"10")),
    ("cloud", (b"SADD", b"alerts", b"fog", b"ice")),
    ("cloud", (b"HSET", b"gate/7", b"state", b"open")),
    ("cloud", (b"HINCRBY", b"gate/7", b"departures", b"1")),
)
AFTER_BEFORE: Final = Holdings(
    strings={b"notice": b"all runways open", b"plan": b"the old one", b"visitors": b"10"},
    sets={b"alerts": {b"fog", b"ice"}},
    maps={b"gate/7": {b"state": b"open", b"departures": b"1"}},
)

DURING: Final[Commands] = (
    ("EWR", (b"SET", b"notice", b"runway 22L closed")),
    ("JFK", (b"SET", b"notice", b"runway 13R closed")),
    ("JFK", (b"DEL", b"plan")),
    ("JFK", (b"INCRBY", b"visitors", b"5")),
    ("LGA", (b"INCRBY", b"visitors", b"7")),
    ("JFK", (b"SREM", b"alerts", b"fog", b"ice")),
    ("EWR", (b"SADD", b"alerts", b"fog")),
    ("JFK", (b"HSET", b"gate/7", b"state", b"closed")),
    ("LGA", (b"HSET", b"gate/7", b"crew", b"eva")),
    ("JFK", (b"HINCRBY", b"gate/7", b"departures", b"2")),
    ("cloud", (b"HINCRBY", b"gate/7", b"departures", b"3")),
)
AFTER_DURING: Final = Holdings(
    strings={b"notice": b"runway 13R closed", b"visitors": b"22"},
    sets={b"alerts": {b"fog"}},
    maps={b"gate/7": {b"state": b"closed", b"crew": b"eva", b"departures": b"6"}},
)
OUTCOMES: Final = (
    ("visitors", "10, then +5 at JFK and +7 at LGA: 22"),
    ("alerts", "fog and ice removed at JFK, fog added again at EWR: fog"),
    ("gate/7", "closed at JFK, its crew named at LGA, departures 1, +2 at JFK, +3 in the cloud: all of it, and 6"),
    ("notice", "set at EWR, later at JFK: the later one"),
    ("plan", "deleted at JFK: gone everywhere"),
)
"""What became of each key, for people."""
