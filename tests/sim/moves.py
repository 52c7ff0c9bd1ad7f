"""Keyspaces of a simulated cluster that are created while it runs, and come to sites and leave them."""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final

from edgekv.errors import EdgeKVError
from edgekv.replication.keyspace_orders import KeyspaceOrders

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

EVERY_US: Final = 300_000
PREFIXES: Final = tuple(b"moved-%d/" % i for i in range(6))


class Moves:
    """Of one cluster. ``happened`` counts what its leader carried out."""

    def __init__(self, cluster: "Cluster", rng: Random) -> None:
        self._cluster: Final = cluster
        self._rng: Final = rng
        self._ended = False
        self.happened: Final[Counter[str]] = Counter()
        self.prefixes: list[bytes] = []
        """Below which clients write; some do before they have heard of the keyspace."""

    def begin(self) -> None:
        """From now on."""
        self._next()

    def end(self) -> None:
        """No more of it."""
        self._ended = True

    def _next(self) -> None:
        self._cluster.at(int(self._rng.expovariate(1 / EVERY_US)), self._happen)

    def _happen(self) -> None:
        if self._ended:
            return
        leader = self._cluster.machines[0]
        if leader.is_leading:
            kind = self._rng.choice(("create", "add site", "remove site", "remove site"))
            try:
                if getattr(self, f"_{kind.replace(' ', '_')}")(leader.replication.keyspaces):
                    self.happened[f"({kind})"] += 1
            except EdgeKVError as refusal:
                self._cluster.note(f"{kind}: {refusal}")
        self._next()

    def _sites(self) -> list[str]:
        return [machine.node.config.site for machine in self._cluster.machines if not machine.is_hub]

    def _create(self, orders: KeyspaceOrders) -> bool:
        left = [prefix for prefix in PREFIXES if prefix not in self.prefixes]
        if not left:
            return False
        sites = self._sites()
        chosen = self._rng.sample(sites, self._rng.randint(1, len(sites)))
        orders.create(left[0][:-1].decode(), left[0], tuple(chosen), siblings=False)
        self.prefixes.append(left[0])
        keyspace = self._cluster.machines[0].node.engine.keyspaces.owner(left[0])
        self._cluster.witness.created(keyspace.id)
        return True

    def _add_site(self, orders: KeyspaceOrders) -> bool:
        return bool(self.prefixes) and orders.add_site(self._name(), self._rng.choice(self._sites()))

    def _remove_site(self, orders: KeyspaceOrders) -> bool:
        """Rather one that is cut off: it learns it late."""
        machines, network = self._cluster.machines, self._cluster.network
        cut = [m.node.config.site for m in machines if not m.is_hub and not network.can_connect(m.number, 0)]
        return bool(self.prefixes) and orders.remove_site(self._name(), self._rng.choice(cut or self._sites()))

    def _name(self) -> str:
        return self._rng.choice(self.prefixes)[:-1].decode()
