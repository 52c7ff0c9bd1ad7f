"""What goes wrong in a simulated cluster: at random times, of the kinds that its plan has, each for a while."""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final

from tests.sim.network import Direction
from tests.sim.plan import CLOCK_STEPS_MS, FORGET

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

_WHILE_US: Final = (50_000, 400_000, 1_500_000, 6_000_000)


class Faults:
    """Of one cluster. ``happened`` counts what had an effect: a fault that never bites proves nothing."""

    def __init__(self, cluster: "Cluster", rng: Random) -> None:
        self._cluster: Final = cluster
        self._rng: Final = rng
        self.happened: Final[Counter[str]] = Counter()
        self._peace = False
        self._restored: Machine | None = None
        """The machine that was set back last."""

    def begin(self) -> None:
        """From now on."""
        if self._cluster.plan.faults:
            self._next()

    def mend(self) -> None:
        """No more of it: every direction is free, every disk fast. Nodes that are down start as they would have."""
        self._peace = True
        self._cluster.network.block(set())
        self._cluster.network.slow.clear()
        for machine in self._cluster.machines:
            machine.stalled_until_us = 0

    def _next(self) -> None:
        every_us = self._cluster.plan.fault_every_ms * 1000
        self._cluster.at(int(self._rng.expovariate(1 / every_us)), self._happen)

    def _happen(self) -> None:
        if self._peace:
            return
        kinds = self._cluster.plan.faults
        rare = [kind for kind in kinds if kind in ("restore", FORGET)]  # it needs a backup first
        kind = self._rng.choice([*kinds, *rare, *rare])
        if getattr(self, f"_{kind.replace(' ', '_')}")():
            self.happened[kind] += 1
            self._cluster.note(f"fault: {kind}")
        self._next()

    def _while(self) -> int:
        return self._rng.choice(_WHILE_US)

    def _partition(self) -> bool:
        network = self._cluster.network
        if network.blocked:
            return False
        network.block(self._shape())
        self._cluster.at(self._while(), lambda: network.block(set()))
        return True

    def _shape(self) -> set[Direction]:
        """Which directions: one machine alone, two halves, hubs from edges, one way only, or one pair."""
        numbers = [machine.number for machine in self._cluster.machines]
        rng = self._rng
        side = set(rng.sample(numbers, rng.randint(1, len(numbers) - 1)))
        shape = rng.choice(("alone", "halves", "hubs", "one way", "pair"))
        if shape == "alone":
            side = {rng.choice(numbers)}
        elif shape == "hubs":
            side = {machine.number for machine in self._cluster.machines if machine.is_hub}
        out = {(a, b) for a in side for b in numbers if b not in side}
        back = {(b, a) for a, b in out}
        if shape == "one way":
            return rng.choice((out, back))
        if shape == "pair":
            one, other = rng.sample(numbers, 2)
            return {(one, other), (other, one)}
        return out | back

    def _reset(self) -> bool:
        return self._cluster.network.reset_some(self._rng.randint(1, 2)) > 0

    def _crash(self, *, power: bool) -> bool:
        up = [machine for machine in self._cluster.machines if machine.life and machine.node.up]
        if not up:
            return False
        self._rng.choice(up).crash(power=power)
        return True

    def _kill(self) -> bool:
        return self._crash(power=False)

    def _power(self) -> bool:
        return self._crash(power=True)

    def _power_all(self) -> bool:
        if self._rng.random() < 0.7:
            return False
        up = [machine for machine in self._cluster.machines if machine.life and machine.node.up]
        for machine in up:
            machine.crash(power=True)
        return bool(up)

    def _clock(self) -> bool:
        machine = self._rng.choice(self._cluster.machines)
        machine.skew_ms += self._rng.choice(CLOCK_STEPS_MS)
        return True

    def _stall(self) -> bool:
        machine = self._rng.choice(self._cluster.machines)
        machine.stalled_until_us = self._cluster.now_us + self._while()
        return True

    def _slow(self) -> bool:
        one, other = self._rng.sample(range(self._cluster.plan.nodes), 2)
        slow = self._cluster.network.slow
        slow[one, other] = self._rng.choice((50_000, 500_000, 2_000_000))
        self._cluster.at(self._while(), slow.clear)
        return True

    def _duplicate(self) -> bool:
        return self._rng.choice(self._cluster.machines).duplicate()

    def _park(self) -> bool:
        """One member, or a hub with the edges that are linked to it, is cut off from the others and taken for one that is away."""
        machines, network = self._cluster.machines, self._cluster.network
        leader = machines[0]
        others = [machine for machine in machines[1:] if machine.is_member and leader.knows(machine)]
        if network.blocked or not leader.is_leading or not others:
            return False
        away = self._rng.choice(others)
        side = {away.number}
        if away.is_hub and self._rng.random() < 0.7:
            side |= {machine.number for machine in others if not machine.is_hub and away.number in machine.dialed}
        network.block({way for a in side for b in range(len(machines)) if b not in side for way in ((a, b), (b, a))})
        self._cluster.at(self._rng.choice((1_000_000, 2_000_000, 4_000_000)), lambda: network.block(set()))
        leader.park([machines[number].node.name for number in sorted(side)])
        return True

    def _repair(self) -> bool:
        """An operator has a healthy node repaired from one that it has a link with: whatever comes between, nothing may change."""
        machine = self._rng.choice(self._cluster.machines)
        union = self._rng.random() < 0.5
        return bool(machine.life and machine.node.up and machine.repair(union=union))

    def _restore(self) -> bool:
        """A node is set back to an earlier backup; else backups are taken of all.

        One at a time, as an operator would: the last one is a member again. Others may be away, parked, or unknown to a leader that is
        set back to before they came: it does not wait for those (decision 0023).
        """
        machines = self._cluster.machines
        up = [machine for machine in machines if machine.life and machine.node.up]
        held = [machine for machine in up if machine.node.has_backup and machine.is_member]
        settled = machines[0].is_leading and (self._restored is None or self._restored.is_member)
        if settled and held and self._rng.random() < 0.7:
            self._restored = self._rng.choice(held)
            self._restored.restore()
            return True
        for machine in up:
            if machine.is_member and (machine.number or FORGET not in self._cluster.plan.faults):
                machine.node.back_up()
        return False

    def _forget(self) -> bool:
        """The leader is set back to a time when all others were parked, and hears of nobody for a while; else it is backed up then."""
        leader, network = self._cluster.machines[0], self._cluster.network
        if network.blocked or not leader.is_leading or not (self._restored is None or self._restored.is_member):
            return False
        others = range(1, len(self._cluster.machines))
        network.block({way for other in others for way in ((0, other), (other, 0))})
        self._cluster.at(self._rng.choice((1_500_000, 2_500_000, 4_000_000)), lambda: network.block(set()))
        if leader.node.has_backup:
            self._restored = leader
            leader.restore()
            return True
        leader.park([machine.node.name for machine in self._cluster.machines[1:] if leader.knows(machine)])
        life = leader.life
        self._cluster.at(1_000_000, lambda: leader.node.back_up() if leader.life == life else None)
        return False
