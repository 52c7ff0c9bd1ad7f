"""Random histories of one key at a few replicas, delivered causally, and what such a history means by its specification.

A `World` makes changes through functions given by the test, delivers them in any causal order, and keeps for each change what its
writer had seen. The oracles (`counted`, and those of specification.py) read only that list, never a replica's rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekv.crdt import elements, maps, operation
from edgekv.crdt.company import Company
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.decimals import Number
from edgekv.crdt.elements import Clear, Dots, Element
from edgekv.crdt.operation import (
    SUFFIX_MAP_CLEAR,
    SUFFIX_SET_CLEAR,
    TAG_COUNTER,
    TAG_ELEMENT,
    TAG_FIELD,
    TAG_FIELD_PART,
    Delta,
    Operation,
    Row,
    actor_of_suffix,
    element_of_suffix,
    field_of_suffix,
    merge_row,
    rows_of,
    validate_change,
)
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
    delta: Number = 0  # what an increment added; 0 for the rest
    resets: bool = False  # whether it reset what it had seen
    events: Sequence[tuple[object, ...]] = ()  # what it means: see specification.py

    def deltas(self) -> list[Delta]:
        return [delta for operation in self.operations for delta in rows_of(operation, self.actor, self.seq, self.hlc)]

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
        return {
            actor_of_suffix(suffix): row
            for suffix, row in self.rows.items()
            if isinstance(row, Part) and suffix[0] == TAG_COUNTER
        }

    def elements(self) -> dict[bytes, Dots]:
        """The elements of the set with the dots that are seen of them; the key's expiry hides nothing here."""
        clear = self.rows.get(SUFFIX_SET_CLEAR)
        assert clear is None or isinstance(clear, Clear)
        found = {}
        for suffix, row in self.rows.items():
            if suffix[0] == TAG_ELEMENT:
                assert isinstance(row, Element)
                found[element_of_suffix(suffix)] = elements.visible(row, clear)
        return {element: dots for element, dots in found.items() if dots}

    def fields(self) -> dict[bytes, StringState]:
        """The fields of the map that have a value; the key's expiry hides nothing here."""
        clear = self.rows.get(SUFFIX_MAP_CLEAR)
        assert clear is None or isinstance(clear, Cell)
        cells: dict[bytes, Cell] = {}
        parts: dict[bytes, dict[Actor, Part]] = {}
        for suffix, row in self.rows.items():
            if suffix[0] == TAG_FIELD and isinstance(row, Cell):
                cells[field_of_suffix(suffix)] = row
            elif suffix[0] == TAG_FIELD_PART and isinstance(row, Part):
                parts.setdefault(field_of_suffix(suffix), {})[actor_of_suffix(suffix)] = row
        found = {field: maps.field_state(cells.get(field), parts.get(field, {}), clear) for field in {**cells, **parts}}
        return {field: state for field, state in found.items() if state.live(0)}

    def company(self) -> Company:
        fields = self.fields()
        counters = {field: state.parts for field, state in fields.items() if state.live_parts()}
        return Company(len(self.elements()), len(fields), counters, self.vector)

    @property
    def next_seq(self) -> int:
        return self.vector.get(self.actor, 0) + 1

    def merge(self, change: Change) -> None:
        for _, suffix, delta in change.deltas():
            row = merge_row(self.rows.get(suffix), delta)
            if row is not None:
                self.rows[suffix] = row

    def sweep(self) -> None:
        """What the applier does in its own time: removes what the clears cover, then the set's clear."""
        shown, clear = self.elements(), self.rows.pop(SUFFIX_SET_CLEAR, None)
        map_clear = self.rows.get(SUFFIX_MAP_CLEAR)
        assert clear is None or isinstance(clear, Clear)
        assert map_clear is None or isinstance(map_clear, Cell)
        for suffix, row in list(self.rows.items()):
            if isinstance(row, Element):
                dots = shown.get(element_of_suffix(suffix))
                if dots is None:
                    del self.rows[suffix]
                else:
                    self.rows[suffix] = Element(dots)
            elif suffix[0] == TAG_FIELD and isinstance(row, Cell) and maps.hidden(row, map_clear):
                del self.rows[suffix]


class World:
    def __init__(self, replicas: int) -> None:
        self.replicas = [Replica(actor(number + 1)) for number in range(replicas)]
        self.changes: list[Change] = []

    def make(
        self,
        replica: Replica,
        operations: Sequence[Operation],
        *,
        delta: Number = 0,
        resets: bool = False,
        events: Sequence[tuple[object, ...]] = (),
        hlc_step: int = 1,
    ) -> None:
        if not operations:
            return
        validate_change(operations, replica.actor)
        replica.hlc += hlc_step
        change = Change(
            replica.actor,
            replica.next_seq,
            replica.hlc,
            operations,
            dict(replica.vector),
            delta=delta,
            resets=resets,
            events=events,
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
        """Remove what the stable cut allows: inert parts, tombstones and map clears below what every replica covers, where everything
        made is covered.
        """
        if not all(change.covered_by(replica.vector) for change in self.changes):
            return
        cut = {r.actor: min(other.vector.get(r.actor, 0) for other in self.replicas) for r in self.replicas}
        replica.sweep()
        for suffix, row in list(replica.rows.items()):
            dots: list[tuple[Actor, int]]
            if isinstance(row, Part) and is_inert(row):
                dots = [(actor_of_suffix(suffix), row.seq), *([] if row.base_dot is None else [row.base_dot])]
            elif isinstance(row, Cell) and row.value is None:
                dots = [(row.actor, row.seq)]
            else:
                continue
            if all(seq <= cut[a] for a, seq in dots):
                del replica.rows[suffix]

    def counted(self, vector: dict[Actor, int]) -> Number:
        """The specification of a counter: every increment that is covered and that no covered reset had seen counts once."""
        known = [change for change in self.changes if change.covered_by(vector)]
        resets = [change.seen for change in known if change.resets]
        return sum(change.delta for change in known if not any(change.covered_by(seen) for seen in resets))
