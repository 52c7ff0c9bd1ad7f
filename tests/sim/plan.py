"""What one simulated cluster is and what befalls it, drawn from its seed: each seed has other nodes, other rates and other faults."""

from dataclasses import dataclass, replace
from random import Random
from typing import Final

FAULTS: Final = ("partition", "reset", "kill", "power", "power all", "clock", "stall", "slow", "duplicate", "restore")
PARK: Final = "park"
PARKING: Final = 100_000
"""From this seed on members are parked as well, and come back."""
FORGET: Final = "forget"
FORGETTING: Final = 700_000
"""From this seed on, up to TIGHT, the leader is also set back to a time when it knew no other member, and hears of none."""
CLONE, FORK = "clone", "fork"
"""A copy of an edge's directory is started beside it; an edge is set back to an earlier state of its disk and does not notice."""
CLONING: Final = 1_000_000
"""From this seed on there is one hub, and these two befall its edges, beside what does not move keyspaces or park members."""
ASIDE: Final = "(set aside)"
"""Counted with the faults: a node began anew beside what it had."""
JOINED: Final = "(joined)"
"""Counted with the faults: two histories of one node became one. The life ended there (tests/sim/unproved.py)."""
TIGHT: Final = 900_000
"""From this seed on sizes are small as well."""
RETURN: Final = "(return)"
"""Counted with the faults: a parked member brought what it had written meanwhile."""
ANEW: Final = "(meta anew)"
"""Counted with the faults: a node took meta anew, as a restored leader went on without entries that it had."""
ROW_SYNC: Final = "(row sync)"
"""Counted with the faults: it is what some of them lead to."""
MOVES_SHARE: Final = 0.3
CLOCK_STEPS_MS: Final = (-30_000, -500, 200, 5_000, 60_000)
SKEWS_MS: Final = (0, 0, 0, 40, -40, 2_000, -2_000, 90_000)


@dataclass(frozen=True)
class Plan:
    """One cluster."""

    hubs: int
    edges: int
    skews_ms: tuple[int, ...]
    keys: int
    """How many keys clients use at a time."""
    calls_per_s: float
    """Of each node's clients."""
    delay_us: int
    sync_us: int
    faults: tuple[str, ...]
    fault_every_ms: int
    chaos_s: float
    """How long clients call and faults happen; then everything is mended, and all nodes must come to agree."""
    segment_bytes: int
    retain_segments: int
    """Log that is kept for others. Few: who was away needs rows."""
    hurry: bool
    """Whether what all have seen is announced and purged many times in this life (tests/sim/hurry.py)."""
    moves: bool = False
    """Whether keyspaces are created, and sites added to them and taken off (tests/sim/moves.py)."""
    tight: bool = False
    """Whether what is done in parts when there is much of it is done in parts here (tests/sim/hurry.py)."""
    late_s: float = 0.0
    """When the last edge comes; the others are there from the start."""

    @property
    def forks(self) -> bool:
        """Whether there may be two histories of one actor."""
        return FORK in self.faults

    @property
    def nodes(self) -> int:
        return self.hubs + self.edges


def draw(seed: int, *, chaos_s: float = 5.0) -> Plan:
    """The plan of a seed."""
    plan = _draw(seed, chaos_s)
    if seed < CLONING:
        return plan
    faults = tuple(kind for kind in plan.faults if kind not in (PARK, FORGET, "restore"))
    edges = min(3, plan.hubs + plan.edges - 1)
    return replace(plan, hubs=1, edges=edges, faults=(*faults, CLONE, FORK), moves=False, tight=False)


def _draw(seed: int, chaos_s: float) -> Plan:
    rng = Random(f"plan {seed}")
    hubs, edges = rng.choice(((1, 1), (1, 2), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (1, 4), (3, 2)))
    quiet = rng.random() < 0.1
    count = 0 if quiet else rng.randint(1, len(FAULTS))
    late_s = rng.choice((0.0, 0.0, 0.0, 2.0, 4.0))
    skews_ms = [rng.choice(SKEWS_MS) for _ in range(hubs + edges)]
    if late_s and rng.random() < 0.5:
        skews_ms[-1] = -90_000  # what it writes first is below all deletions
    return Plan(
        hubs=hubs,
        edges=edges,
        skews_ms=tuple(skews_ms),
        keys=rng.choice((1, 2, 3, 6)),
        calls_per_s=rng.choice((5.0, 10.0, 20.0, 20.0, 60.0)),
        delay_us=rng.choice((100, 2_000, 20_000, 150_000)),
        sync_us=rng.choice((100, 1_000, 8_000)),
        faults=tuple(
            sorted(
                [
                    *rng.sample(FAULTS, count),
                    *([PARK] if seed >= PARKING else []),
                    *([FORGET] if FORGETTING <= seed < TIGHT else []),
                ]
            )
        ),
        fault_every_ms=rng.choice((200, 700, 2_000)),
        chaos_s=chaos_s,
        segment_bytes=rng.choice((16 << 10, 32 << 10)),
        retain_segments=rng.choice((0, 0, 0, 2, 1_000)),
        hurry=rng.random() < 0.8 or seed >= PARKING,
        late_s=late_s,
        tight=seed >= TIGHT,
        moves=Random(f"moves {seed}").random() < MOVES_SHARE,
    )


def steady(*, chaos_s: float) -> Plan:
    """Five nodes, 20 calls a second at each, no faults: what the speed of the simulation is measured by."""
    return Plan(1, 4, (0,) * 5, 6, 20.0, 2_000, 1_000, (), 1_000, chaos_s, 256 << 10, 1_000, hurry=False)
