"""Edges of a simulated cluster whose directories are copied, and that are set back, with nobody telling them.

- *clone*: an edge's directory is copied while it runs, and a machine more starts on the copy, as the same node. As the copy of a
  machine it has the same inodes, so it does not notice (node/identity.py) and both go on as one actor; as a copied directory it takes
  a new incarnation at its start.
- *fork*: an edge is set back to an earlier state of its disk, inodes included.

Often one of the two is cut off for a while, so that it writes what the cluster has not. One at a time: the next comes when there is
one history of each actor.
"""

from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from edgekv.config import KeyspaceConfig
from edgekv.ids import Actor
from edgekv.node import identity
from tests.sim.branches import ForkWitness
from tests.sim.machine import Machine
from tests.sim.plan import ASIDE
from tests.sim.sim_node import Image, SimNode

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

MACHINES_MORE: Final = 2
_CUT_OFF_US: Final = (300_000, 1_000_000, 3_000_000)


class Forks:
    """Of one cluster. ``happened`` counts what nodes have set aside."""

    def __init__(self, cluster: "Cluster", directory: Path, keyspaces: tuple[KeyspaceConfig, ...], rng: Random) -> None:
        self._cluster: Final = cluster
        self._directory: Final = directory
        self._keyspaces: Final = keyspaces
        self._rng: Final = rng
        self._images: Final[dict[int, tuple[Actor, Image]]] = {}
        """By machine an earlier state of its disk, and as whom it ran."""
        self.happened: Final[Counter[str]] = Counter()

    # -- faults

    def clone(self) -> bool:
        """Start a copy of an edge beside it."""
        machines, found = self._cluster.machines, self._edges()
        if not found or len(machines) >= self._cluster.plan.nodes + MACHINES_MORE:
            return False
        original, number = self._rng.choice(found), len(machines)
        unnoticed = self._rng.random() < 0.6
        copy = Machine(
            self._cluster,
            number,
            self._directory / f"node-{number}",
            self._keyspaces,
            of=original,
            image=original.node.image(),
            unnoticed=unnoticed,
        )
        machines.append(copy)
        self._cluster.note(f"{original.node.name} has a copy, {copy.node.name}{', unnoticed' if unnoticed else ''}")
        self._witness.forked(original.node, [original.node, copy.node], self._nodes)
        self._cut_off(self._rng.choice((original, copy, copy, None)))
        copy.begin()
        return True

    def fork(self) -> bool:
        """Set an edge back; else take down what all could be set back to."""
        found = self._edges()
        held = [edge for edge in found if self._images.get(edge.number, (b"",))[0] == edge.node.actor]
        if not held or self._rng.random() < 0.3:
            self._images.update({edge.number: (edge.node.actor, edge.node.image()) for edge in found})
            return False
        edge = self._rng.choice(held)
        self._cut_off(self._rng.choice((edge, edge, None)))
        edge.fork(self._images.pop(edge.number)[1])
        return True

    def _edges(self) -> list[Machine]:
        """Those that this may befall."""
        if not self._witness.is_settled or not self._cluster.machines[0].is_leading:
            return []
        leader = self._cluster.machines[0]
        return [m for m in self._cluster.machines[1:] if m.is_member and leader.knows(m) and not m.ends]

    def _cut_off(self, machine: Machine | None) -> None:
        network = self._cluster.network
        if machine is None or network.blocked:
            return
        others = [other.number for other in self._cluster.machines if other is not machine]
        network.block({way for other in others for way in ((machine.number, other), (other, machine.number))})
        self._cluster.at(self._rng.choice(_CUT_OFF_US), lambda: network.block(set()))

    # -- what machines tell

    def went_back(self, machine: Machine) -> None:
        """It was started on an earlier state of its disk."""
        self._witness.forked(machine.node, [machine.node], self._nodes)

    def leaves(self, machine: Machine) -> None:
        """It is about to set aside what it has."""
        self._witness.leaves(machine.node, self._nodes)

    def found(self, machine: Machine) -> None:
        """It has begun anew: look through what it has set aside, as a node that is started there."""
        node = machine.node
        assert node.aside is not None
        folder, disk = node.aside
        kept = SimNode(
            folder,
            Random(f"aside {self._cluster.seed} {node.name} {machine.life}"),
            machine.now_ms,
            name=f"{node.name} aside",
            called=identity.read(folder).name,
            site=node.config.site,
            role="edge",
            keyspaces=self._keyspaces,
            segment_bytes=self._cluster.plan.segment_bytes,
            disk=disk,
        )
        try:
            self._witness.set_aside(node, kept)
        finally:
            kept.stop()
        self.happened[ASIDE] += 1

    @property
    def _witness(self) -> ForkWitness:
        witness = self._cluster.witness
        assert isinstance(witness, ForkWitness)
        return witness

    @property
    def _nodes(self) -> list[SimNode]:
        return [machine.node for machine in self._cluster.machines]
