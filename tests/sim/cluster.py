"""Whole clusters in one thread and virtual time: production nodes on simulated disks, a simulated network, a seed for everything.

    python -m tests.sim.cluster --seeds 100 [--start 0] [--jobs 2]       what each seed comes to; exit status 1 when one is broken
    python -m tests.sim.cluster --seed 7 [--trace]                       one seed; with every event
    python -m tests.sim.cluster --speed [--seconds 60] [--jobs 2]        virtual seconds per second: 5 nodes, 20 calls a second at each

One seed is one history, to the last byte, on any machine: its events have a digest. A cluster lives through *chaos* (clients call,
faults happen), then everything is mended, nobody calls any more, and all nodes must come to agree within a time. What is checked all
the while, tests/sim/witness.py says.
"""

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from edgekv.config import KeyspaceConfig
from edgekv.ids import Actor
from edgekv.store import layout
from tests.sim.branches import ForkWitness
from tests.sim.faults import Faults
from tests.sim.forks import Forks
from tests.sim.hurry import hurried, tight, unburdened
from tests.sim.machine import Machine
from tests.sim.moves import Moves
from tests.sim.network import Network
from tests.sim.oracle import Change
from tests.sim.plan import ANEW, JOINED, RETURN, ROW_SYNC, Plan, draw, steady
from tests.sim.sessions import Sessions
from tests.sim.sim_node import fast_directory
from tests.sim.unproved import Joined
from tests.sim.witness import Violation, Witness, garbage

KEYSPACES: Final = (
    KeyspaceConfig(prefix=b"", name="default", durability="fsync"),
    KeyspaceConfig(prefix=b"many/", name="many", conflict="siblings", durability="fsync"),
    KeyspaceConfig(prefix=b"fast/", name="fast", durability="buffered"),
)
LEADS: Final = (b"", b"A", b"_meta.", b"z", b"_meta0", b"g", b"\x00", b"L" * layout.ORDER_BYTES, b"\xff")
"""What keys begin with: so they lie on both sides of each prefix, ``_meta/`` among them, have a byte that LMDB's keys escape, and are
too long for LMDB to order their rows."""
LIVENESS_S: Final = 90
"""In which a mended cluster must agree."""
AFTER_ALL_EXPIRIES_MS: Final = 900_000
"""The longest expiry, by a clock that is ahead, has passed then for one that is behind and was set back besides."""
CLEARING_US: Final = 2_000_000
"""In which what has expired may be cleared; then all must agree again."""
KEYS_LIVE_CALLS: Final = 150
"""After so many calls other keys are used, so that the history of one stays short."""


class Outcome(NamedTuple):
    """What a seed came to."""

    seed: int
    broken: str
    """What was broken, with what repeats it; empty: nothing."""
    digest: str
    virtual_s: float
    checks: int
    changes: int
    faults: dict[str, int]


class Keys(NamedTuple):
    """What clients use for a while."""

    era: int
    plain: list[bytes]
    """Those of this time, and a few that were used before."""
    siblings: list[bytes]
    """In the keyspace that keeps concurrent values."""
    all: list[bytes]


def keys_of(era: int, count: int) -> Keys:
    """The keys of one time; ``count``: how many names they have."""
    names = [
        LEADS[(e + i) % len(LEADS)] + b"%d.%d" % (e, i) for e in range(max(0, era - 1), era + 1) for i in range(count)
    ]
    plain = [prefix + name for name in names for prefix in (b"", b"fast/")][-3 * count :]
    siblings = [b"many/" + LEADS[era % len(LEADS)] + b"%d" % era]
    return Keys(era, plain, siblings, [*plain, *siblings])


class Cluster:
    """One seed's cluster, from its first start to its end. ``trace`` gets every event as a line."""

    def __init__(
        self, seed: int, plan: Plan, directory: Path, *, trace: Callable[[str], None] | None = None, check_ms: int = 0
    ) -> None:
        """``check_ms``: how often each node is looked at as a whole; 0: after each step."""
        self.seed: Final = seed
        self.plan: Final = plan
        self.check_ms: Final = check_ms
        self._trace: Final = trace
        self.now_us = 0
        self._events: Final[list[tuple[int, int, Callable[[], None]]]] = []
        self._count = 0
        self._digest: Final = blake2b(digest_size=8)
        self.network: Final = Network(Random(f"network {seed}"), self.at, lambda: self.now_us)
        self.network.delay_us = plan.delay_us
        self.calls = 0
        self.row_syncs = 0
        self.returns = 0
        self.anew = 0
        self.calling = True
        self._keys = keys_of(0, plan.keys)
        self._moved: list[bytes] = []
        """The prefixes of keyspaces that were created, of those that are in use."""
        self.machines: Final = [
            Machine(self, number, directory / f"node-{number}", KEYSPACES) for number in range(plan.nodes)
        ]
        numbers = [k.id for k in self.machines[0].node.engine.keyspaces.all if not k.policy.system]
        self.witness: Final[Witness] = ForkWitness(numbers) if plan.forks else Witness(numbers)
        self.forks: Final = Forks(self, directory, KEYSPACES, Random(f"forks {seed}"))
        self.witness.revision_at = self._revision_at
        synced = [k.id for k in self.machines[0].node.engine.keyspaces.all if k.fsync and not k.policy.system]
        self.sessions: Final = Sessions(Random(f"sessions {seed}"), synced)
        self.faults: Final = Faults(self, Random(f"faults {seed}"))
        self.moves: Final = Moves(self, Random(f"moves of {seed}"))
        for machine in self.machines[:-1]:
            machine.begin()
        self.at(int(plan.late_s * 1e6), self.machines[-1].begin)

    # -- time

    def at(self, delay_us: int, do: Callable[[], None]) -> None:
        """Do this after a delay."""
        self._count += 1
        heappush(self._events, (self.now_us + delay_us, self._count, do))

    def note(self, event: str) -> None:
        """An event that happened: part of the digest and of the trace."""
        line = f"{self.now_us / 1e6:10.6f} {event}"
        self._digest.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    def run_until(self, end_us: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Let events happen up to this time or until the condition holds; whether it does."""
        looked = 0
        while self._events and self._events[0][0] <= end_us:
            self.now_us, _, do = heappop(self._events)
            do()
            looked += 1
            if looked % 64 == 0 and until():
                return True
        self.now_us = max(self.now_us, end_us)
        return until()

    # -- a life

    @property
    def digest(self) -> str:
        """Of all events so far."""
        return self._digest.hexdigest()

    @property
    def keys(self) -> Keys:
        """Of this time."""
        era = self.calls // KEYS_LIVE_CALLS
        if era != self._keys.era or self.moves.prefixes[-3:] != self._moved:
            self._moved = self.moves.prefixes[-3:]
            known = keys_of(era, self.plan.keys)
            moved = [prefix + b"%d" % i for prefix in self._moved for i in range(2)]
            self._keys = known._replace(plain=[*moved, *known.plain], all=[*moved, *known.all])
        return self._keys

    def all_keys(self) -> list[bytes]:
        """Every key that was ever written to."""
        return [key for history in self.witness.histories.values() for key in history.keys]

    def live(self) -> None:
        """Chaos, then peace. Raises Violation."""
        self.faults.begin()
        if self.plan.moves:
            self.moves.begin()
        self.run_until(int(self.plan.chaos_s * 1e6))
        self.note("peace")
        self.calling = False
        self.moves.end()
        self.faults.mend()
        self._agree("the last fault")
        for machine in self.machines:
            machine.skew_ms += AFTER_ALL_EXPIRIES_MS
        self.run_until(self.now_us + CLEARING_US)
        self._agree("everything had expired")
        if self.plan.hurry:
            self._tidy()

    def _agree(self, since: str) -> None:
        nodes = [machine.node for machine in self.machines]
        deadline_us = self.now_us + LIVENESS_S * 1_000_000
        if not self.run_until(deadline_us, lambda: all(n.up for n in nodes) and self.witness.agreed(nodes)):
            lacking = [sorted(node.durable(0).values()) for node in nodes if node.up]
            raise Violation(f"no agreement {LIVENESS_S} s after {since}; vectors of the default keyspace: {lacking}")
        self.witness.agree(nodes, self.all_keys(), everything_expired=since != "the last fault")
        self.witness.check_system_clears()

    def _tidy(self) -> None:
        """Everybody has seen everything: of what was deleted and what has expired nothing is left, and nothing came back."""
        nodes = [machine.node for machine in self.machines]
        if not self.run_until(self.now_us + LIVENESS_S * 1_000_000, lambda: not any(garbage(node) for node in nodes)):
            left = {node.name: found[:5] for node in nodes if (found := garbage(node))}
            raise Violation(f"garbage {LIVENESS_S} s after all had seen all: {left}")
        self._agree("nothing was left to forget")

    def end(self) -> None:
        """Close what is open."""
        for machine in self.machines:
            if machine.life and machine.node.up:
                machine.replication.close()
            machine.node.stop()

    def _revision_at(self, name: str) -> int:
        return next(m.replication.members.revision for m in self.machines if m.node.name == name)

    def changes(self) -> dict[Actor, list[Change]]:
        """Of the default keyspace."""
        return self.witness.histories[self.machines[0].node.keyspace(0).id].made


def run(
    seed: int, plan: Plan | None = None, *, trace: Callable[[str], None] | None = None, check_ms: int = 0
) -> Outcome:
    """One seed, from an empty directory to its end."""
    logging.disable(logging.ERROR)
    directory = fast_directory(f"edgekv-cluster-{seed}-")
    broken, joined, cluster = "", 0, None
    try:
        plan = plan or draw(seed)
        with hurried(plan.hurry), tight(plan.tight), unburdened():
            cluster = Cluster(seed, plan, directory, trace=trace, check_ms=check_ms)
            cluster.live()
    except Joined:
        joined = 1
    except Violation as violation:
        broken = f"{violation}\n{replay_line(seed)}"
    except Exception as error:  # a node that falls over is a finding as any other
        if trace is not None:
            raise
        broken = f"{type(error).__name__}: {error}\n{replay_line(seed)}"
    finally:
        if cluster is not None:
            cluster.end()
        shutil.rmtree(directory)
        logging.disable(logging.NOTSET)
    if cluster is None:
        return Outcome(seed, broken, "", 0.0, 0, 0, {})
    made = sum(sum(history.heads().values()) for history in cluster.witness.histories.values())
    happened = {
        **cluster.faults.happened,
        ROW_SYNC: cluster.row_syncs,
        RETURN: cluster.returns,
        ANEW: cluster.anew,
        JOINED: joined,
        **cluster.moves.happened,
        **cluster.forks.happened,
    }
    return Outcome(seed, broken, cluster.digest, cluster.now_us / 1e6, cluster.witness.checks, made, happened)


def replay_line(seed: int) -> str:
    """What repeats a seed."""
    return f"again: python -m tests.sim.cluster --seed {seed} --trace"


# The command line.


def _run_all(start: int, count: int, jobs: int) -> int:
    began = time.monotonic()
    broken = checks = changes = 0
    virtual_s = 0.0
    faults: dict[str, int] = {}
    with ProcessPoolExecutor(jobs) as pool:
        for outcome in pool.map(run, range(start, start + count)):
            virtual_s, checks, changes = (
                virtual_s + outcome.virtual_s,
                checks + outcome.checks,
                changes + outcome.changes,
            )
            for name, times in outcome.faults.items():
                faults[name] = faults.get(name, 0) + times
            if outcome.broken:
                broken += 1
                print(f"BROKEN seed {outcome.seed}: {outcome.broken}", flush=True)
    took_s = time.monotonic() - began
    print(f"faults: {', '.join(f'{name} {times}' for name, times in sorted(faults.items()))}")
    row_syncs = faults.pop(ROW_SYNC, 0)
    print(
        f"{count:,} simulated clusters from seed {start} on, {virtual_s:,.0f} virtual seconds in {took_s:.0f} s: {changes:,} changes, "
        f"{checks:,} checks, {row_syncs:,} row syncs, {sum(faults.values()):,} faults: "
        f"{f'{broken} BROKEN' if broken else 'every promise kept'}"
    )
    return 1 if broken else 0


def _run_one(seed: int, *, trace: bool) -> int:
    outcome = run(seed, trace=print if trace else None)
    print(draw(seed))
    print(
        f"seed {seed}: {outcome.broken or 'ok'}; digest {outcome.digest}, {outcome.changes} changes, {outcome.checks} checks"
    )
    return 1 if outcome.broken else 0


def _steady(seed: int, seconds: float) -> Outcome:
    return run(seed, steady(chaos_s=seconds), check_ms=1_000)


def _speed(seconds: float, jobs: int) -> int:
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(partial(_steady, seconds=seconds), range(jobs)))
    took_s = time.monotonic() - began
    virtual_s = sum(outcome.virtual_s for outcome in outcomes)
    changes, checks = sum(outcome.changes for outcome in outcomes), sum(outcome.checks for outcome in outcomes)
    print(
        f"{virtual_s / took_s:.0f} virtual s per s in {jobs} processes: {virtual_s:.0f} s of 5 nodes with 20 calls a second each "
        f"in {took_s:.1f} s, {changes} changes, {checks} checks {' '.join(outcome.broken for outcome in outcomes)}"
    )
    return 1 if any(outcome.broken for outcome in outcomes) else 0


def main() -> int:
    """Run what the arguments say; exit status 1 when something is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print its events")
    parser.add_argument("--speed", action="store_true", help="measure the simulation itself")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual, for --speed")
    arguments = parser.parse_args()
    if arguments.speed:
        return _speed(arguments.seconds, arguments.jobs)
    if arguments.seed is not None:
        return _run_one(arguments.seed, trace=arguments.trace)
    return _run_all(arguments.start, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
