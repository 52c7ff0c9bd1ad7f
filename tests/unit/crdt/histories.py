"""Random histories of one key at a few replicas, delivered causally, and what such a history means by its specification.

A `World` makes changes through functions given by the test, delivers them in any causal order, and keeps for each change what its
writer had seen. The oracle (`counted`) reads only that list, never a replica's rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekv.crdt import operation
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.operation import Operation, Row, merge_row, rows_of, validate_change
from edgekv.crdt.register import Cell
from edgekv.crdt.strings import StringState
from edgekv.ids import Actor, node_actor

KEY = b"k"
Rows = dict[bytes, Row]


def actor(number: int) -> Actor:
    return node_actor(bytes([number]) * 16, bytes(8))


@dataclass
class Change:
    actor: Actor
    seq: int
    hlc: int
    operations: Sequence[Operation]
    seen: dict[Actor, int]
    delta: int = 0  # what an increment added; 0 for the rest
    resets: bool = False  # whether it reset what it had seen

    def covered_by(self, vector: dict[Actor, int]) -> bool:
        return vector.get(self.actor, 0) >= self.seq


@dataclass
class Replica:
    actor: Actor
    rows: Rows = field(default_factory=dict)
    vector: dict[Actor, int] = field(default_factory=dict)
    hlc: int = 0

    def state(self) -> StringState:
        register, expiry = self.rows.get(operation.SUFFIX_REGISTER), self.rows.get(operation.SUFFIX_EXPIRY)
        assert register is None or isinstance(register, Cell)
        assert expiry is None or isinstance(expiry, Cell)
        return StringState(register, expiry, self.parts())

    def parts(self) -> dict[Actor, Part]:
        return {Actor(suffix[1:]): row for suffix, row in self.rows.items() if isinstance(row, Part)}

    @property
    def next_seq(self) -> int:
        return self.vector.get(self.actor, 0) + 1

    def merge(self, change: Change) -> None:
        for op in change.operations:
            for _, suffix, delta in rows_of(op, change.actor, change.seq, change.hlc):
                row = merge_row(self.rows.get(suffix), delta)
                if row is not None:
                    self.rows[suffix] = row


class World:
    def __init__(self, replicas: int) -> None:
        self.replicas = [Replica(actor(number + 1)) for number in range(replicas)]
        self.changes: list[Change] = []

    def make(
        self,
        replica: Replica,
        operations: Sequence[Operation],
        *,
        delta: int = 0,
        resets: bool = False,
        hlc_step: int = 1,
    ) -> None:
        if not operations:
            return
        validate_change(operations, replica.actor)
        replica.hlc += hlc_step
        change = Change(
            replica.actor, replica.next_seq, replica.hlc, operations, dict(replica.vector), delta=delta, resets=resets
        )
        self.changes.append(change)
        self.deliver(replica, change)

    def deliver(self, replica: Replica, change: Change) -> None:
        assert replica.vector.get(change.actor, 0) == change.seq - 1
        assert all(replica.vector.get(a, 0) >= seq for a, seq in change.seen.items())
        replica.merge(change)
        replica.vector[change.actor] = change.seq
        replica.hlc = max(replica.hlc, change.hlc)

    def deliverable(self, replica: Replica) -> list[Change]:
        return [
            change
            for change in self.changes
            if replica.vector.get(change.actor, 0) == change.seq - 1
            and all(replica.vector.get(a, 0) >= seq for a, seq in change.seen.items())
        ]

    def deliver_all(self, choose: Callable[[int], int] = lambda _: 0) -> None:
        for replica in self.replicas:
            while ready := self.deliverable(replica):
                self.deliver(replica, ready[choose(len(ready))])

    def purge(self, replica: Replica) -> None:
        """Remove inert parts as the stable cut allows it: below what every replica covers, where everything made is covered."""
        if not all(change.covered_by(replica.vector) for change in self.changes):
            return
        cut = {r.actor: min(other.vector.get(r.actor, 0) for other in self.replicas) for r in self.replicas}
        for owner, part in replica.parts().items():
            dots = [(owner, part.seq), *([] if part.base_dot is None else [part.base_dot])]
            if is_inert(part) and all(seq <= cut[a] for a, seq in dots):
                del replica.rows[operation.counter_suffix(owner)]

    def counted(self, vector: dict[Actor, int]) -> int:
        """The specification of a counter: every increment that is covered and that no covered reset had seen counts once."""
        known = [change for change in self.changes if change.covered_by(vector)]
        resets = [change.seen for change in known if change.resets]
        return sum(change.delta for change in known if not any(change.covered_by(seen) for seen in resets))
