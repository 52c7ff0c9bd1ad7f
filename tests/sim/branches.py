"""What watches a cluster in which directories are copied and machines set back: two histories of one actor at once.

A *copy* is a node that has, or had, changes of an actor which another one made as something else. It is judged by its own *branch* of
that actor's history, everybody else by what the cluster took in: the first branch of which a node that is no copy gets a run, or rows.
Beside what `Witness` says, these must be so:

- nobody takes in two branches: no run of the one on top of the other, no rows of the one joined with the other, unless nothing can
  tell (`unproved.py`);
- nothing is taken in that was made by somebody who had seen another branch than the cluster has;
- what a copy sets aside is whole: started, it has every change that was acknowledged there and every one that was durable, and shows
  what they say;
- in the end there is one history: whoever runs has the cluster's.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from edgekv.engine.keyspaces import Head
from edgekv.ids import Actor, KeyspaceId
from edgekv.replication.members import Members
from edgekv.replication.replication import Replication
from edgekv.wal.record import Changes
from tests.sim.oracle import Change, History, Shown, Vector, changes_of, shown
from tests.sim.sim_node import SimNode
from tests.sim.unproved import Joined, Unproved
from tests.sim.witness import Violation, Witness


class Branch(History):
    """The history of a keyspace with other changes of one actor than the cluster has."""

    def __init__(self, whole: History, actor: Actor, changes: Iterable[Change]) -> None:
        """``changes``: the actor's here."""
        super().__init__()
        self.whole: Final = whole
        self.actor: Final = actor
        self._forgotten_there = whole.forgotten
        for change in changes:
            self.add(change)

    @property
    def own(self) -> list[Change]:
        """What the actor made here."""
        return self.made.get(self.actor, [])

    @property
    def theirs(self) -> list[Change]:
        """What the cluster has of it."""
        return self.whole.made_by(self.actor)

    def is_old(self, count: int | None = None) -> bool:
        """Whether the first changes here, all of them or so many, are the cluster's."""
        own = self.own[:count]
        return own == self.theirs[: len(own)]

    def is_one(self) -> bool:
        """Whether one of the two goes on from the other."""
        both = min(len(self.own), len(self.theirs))
        return self.is_old(both)

    def add(self, change: Change) -> None:
        if change.actor == self.actor:
            super().add(change)
        else:
            self.whole.add(change)

    def forget_above(self, actor: Actor, seq: int) -> list[Change]:
        return super().forget_above(actor, seq) if actor == self.actor else self.whole.forget_above(actor, seq)

    def made_by(self, actor: Actor) -> list[Change]:
        return self.own if actor == self.actor else self.whole.made_by(actor)

    def seqs_of(self, key: bytes) -> dict[Actor, list[int]]:
        others = {actor: seqs for actor, seqs in self.whole.seqs_of(key).items() if actor != self.actor}
        return {**others, **super().seqs_of(key)}

    def heads(self) -> dict[Actor, int]:
        others = {actor: seq for actor, seq in self.whole.heads().items() if actor != self.actor}
        return {**others, **super().heads()}

    @property
    def keys(self) -> list[bytes]:
        return list(dict.fromkeys([*self.whole.keys, *super().keys]))

    def truth(self, key: bytes, vector: Vector, now_ms: int) -> Shown:
        if self._forgotten_there != self.whole.forgotten:
            self._forgotten_there = self.whole.forgotten
            self._states.clear()
        return super().truth(key, vector, now_ms)


class Copy(NamedTuple):
    """A node with a branch of its own, per keyspace; and what was acknowledged and seen there."""

    actor: Actor
    branches: dict[KeyspaceId, Branch]
    acknowledged: dict[KeyspaceId, int]
    seen: dict[tuple[KeyspaceId, int], dict[Actor, int]]
    """By seq what the maker of a change had seen."""

    def is_one(self) -> bool:
        """Whether its history and the cluster's are one."""
        return all(branch.is_one() for branch in self.branches.values())


class _Leaving(NamedTuple):
    """What a node has that is about to set it aside."""

    histories: dict[KeyspaceId, History]
    durable: dict[KeyspaceId, dict[Actor, int]]
    acknowledged: dict[KeyspaceId, int]
    actor: Actor


class ForkWitness(Witness):
    """Of one cluster with copies."""

    def __init__(self, keyspaces: Iterable[KeyspaceId]) -> None:
        super().__init__(keyspaces)
        self._copies: Final[dict[str, Copy]] = {}
        """By the name of the machine, those that run."""
        self._all_copies: Final[list[Copy]] = []
        self._heads: Final[dict[tuple[KeyspaceId, Actor, Head], Copy]] = {}
        """Which copy was seen to have made its actor's changes up to this head."""
        self._looked: Final[dict[tuple[str, KeyspaceId], dict[Actor, Head]]] = {}
        self._branch_seen: Final[dict[tuple[KeyspaceId, Actor, int], tuple[Branch, int]]] = {}
        """By change of a copy that goes on as another actor: how much of which branch its maker had seen."""
        self._leaving: Final[dict[str, _Leaving]] = {}
        self._nodes: Final[dict[str, SimNode]] = {}
        """By name, all that were ever started."""
        self._unproved: Final = Unproved(self._givers)
        self.found = 0
        """How many directories that were set aside have been looked through."""

    @property
    def is_settled(self) -> bool:
        """Whether there is one history of each actor just now."""
        actors = [copy.actor for copy in self._copies.values()]
        return len(set(actors)) == len(actors) and all(copy.is_one() for copy in self._copies.values())

    # -- what happens

    def forked(self, first: SimNode, copies: Sequence[SimNode], nodes: Sequence[SimNode]) -> None:
        """These nodes have each a copy of one directory; ``first``: the one whose directory it was, perhaps as it was before."""
        actor, names = self._actor_of(copies), {copy.name for copy in copies}
        known = self._copies.pop(first.name, None)
        entries = {copy.name: Copy(actor, {}, {}, {}) for copy in copies}
        for number, main in self.histories.items():
            made = list(self._made_of(known, number, actor))
            acknowledged = self.acknowledged.get((number, actor), 0)
            if known is not None and known.actor == actor:
                acknowledged = known.acknowledged.get(number, 0)
            got = max((self._has(node, number, actor) for node in nodes if node.name not in names), default=0)
            for change in made:
                seen = self._seen_by_maker.get((number, actor, change.seq), {})
                if known is not None and known.actor == actor:
                    seen = known.seen.get((number, change.seq), seen)
                for entry in entries.values():
                    entry.seen[number, change.seq] = seen
            main.forget_above(actor, got)
            for copy in copies:
                seq = copy.keyspace(number).seq if copy.actor == actor else copy.durable(number).get(actor, 0)
                entries[copy.name].branches[number] = Branch(main, actor, made[:seq])
                entries[copy.name].acknowledged[number] = min(acknowledged, seq)
        self._copies.update(entries)
        self._all_copies.extend(entries.values())
        for copy in copies:
            self.set_back(copy, nodes)
            self.check_durable(copy)

    def _actor_of(self, copies: Sequence[SimNode]) -> Actor:
        """Of which there are copies: of two, the first one's."""
        return copies[0].actor

    def _made_of(self, known: Copy | None, number: KeyspaceId, actor: Actor) -> list[Change]:
        if known is not None and known.actor == actor:
            return known.branches[number].own
        return self.histories[number].made_by(actor)

    def _has(self, node: SimNode, number: KeyspaceId, actor: Actor) -> int:
        keyspace = node.keyspace(number)
        head = (keyspace.observed.get(actor) or keyspace.vector.get(actor)) if node.up else None
        return max(self._durable.get((node.name, number), {}).get(actor, 0), head.seq if head is not None else 0)

    def leaves(self, node: SimNode, nodes: Sequence[SimNode]) -> None:
        """The node is about to set aside what it has."""
        copy = self._copies.get(node.name)
        mine = copy is not None and copy.actor == node.actor
        self._leaving[node.name] = _Leaving(
            {number: self.history_of(node, number) for number in self.histories},
            {number: dict(self._durable.get((node.name, number), {})) for number in self.histories},
            {
                number: copy.acknowledged.get(number, 0)
                if copy is not None and mine
                else self.acknowledged.get((number, node.actor), 0)
                for number in self.histories
            },
            node.actor,
        )
        self.set_back(node, nodes)

    def set_back(self, node: SimNode, nodes: Sequence[SimNode]) -> None:
        """What is about to be set aside elsewhere does not stay either."""
        super().set_back(node, [other for other in nodes if other.name not in self._leaving])

    def set_aside(self, node: SimNode, kept: SimNode) -> None:
        """What it has set aside is started as ``kept``: all of it must be there."""
        left = self._leaving.pop(node.name)
        copy = self._copies.pop(node.name, None)
        for number, history in left.histories.items():
            has = kept.durable(number)
            lacking = {a: seq for a, seq in left.durable[number].items() if has.get(a, 0) < seq}
            if lacking:
                raise Violation(f"{node.name} set aside less than it had: of {lacking} it kept {has}")
            if has.get(left.actor, 0) < left.acknowledged[number]:
                raise Violation(f"{node.name} set aside less than it had acknowledged in keyspace {number}")
            if copy is not None and has.get(copy.actor, 0) < copy.acknowledged.get(number, 0):
                raise Violation(f"{node.name} set aside less than was acknowledged before it went on as another")
            now_ms = kept.engine.ttl_now_ms()
            for key in history.keys:
                if kept.engine.keyspaces.owner(key).id != number:
                    continue
                must, is_shown = self._truth(kept, key, history, has, now_ms), shown(kept.node, key)
                if must != is_shown:
                    raise Violation(f"{node.name} set aside of {key!r}\n  {is_shown}\n  and had {must}")
        self.found += 1
        for number in self.histories:
            self._durable.pop((node.name, number), None)
            self._looked.pop((node.name, number), None)
        self._checked.pop(node.name, None)

    # -- what each is judged by

    def history_of(self, node: SimNode, number: KeyspaceId) -> History:
        copy = self._copies.get(node.name)
        return self.histories[number] if copy is None else copy.branches.get(number, self.histories[number])

    def made(self, node: SimNode, *, system: bool = False) -> None:
        super().made(node, system=system and node.name not in self._copies)

    def _remember(self, node: SimNode, number: KeyspaceId, change: Change, seen: dict[Actor, int]) -> None:
        copy = self._copies.get(node.name)
        if copy is not None and copy.actor == node.actor:
            copy.seen[number, change.seq] = seen
            return
        super()._remember(node, number, change, seen)
        if copy is not None:
            self._branch_seen[number, node.actor, change.seq] = copy.branches[number], seen.get(copy.actor, 0)

    def acknowledge(self, node: SimNode, number: KeyspaceId, made: int) -> None:
        copy = self._copies.get(node.name)
        if copy is not None and copy.actor == node.actor:
            copy.acknowledged[number] = max(copy.acknowledged.get(number, 0), made)
        else:
            super().acknowledge(node, number, made)

    def _may_show(self, number: KeyspaceId, key: bytes, vector: dict[Actor, int], now_ms: int) -> list[Shown]:
        return []  # nobody is parked, and by which changes a copy is judged this does not know

    def _check_wall(self, members: Members, wall_ms: int, nodes: Iterable[SimNode]) -> None:
        """A copy's time counts for its actor as the other's does, and so does what was said before it was set back."""
        super()._check_wall(members, wall_ms, [node for node in nodes if not self._is_copy(node, node.actor)])

    # -- what is taken in

    def watch_intake(self, node: SimNode) -> None:
        self._nodes[node.name] = node
        super().watch_intake(node)

    def watch_links(self, node: SimNode, replication: Replication) -> None:
        self._unproved.watch(node, replication)

    def _givers(self, number: KeyspaceId, actor: Actor, head: Head) -> list[SimNode]:
        """Of the copies that are up, whose rows have this head."""
        running = [n for n in self._nodes.values() if n.up and n.actor == actor and self._is_copy(n, actor)]
        maker = self._heads.get((number, actor, head))
        return [n for n in running if maker is None or self._copies[n.name] is maker]

    def _judge(self, node: SimNode, run: Changes) -> None:
        self._reunite(node)
        number, last = KeyspaceId(run.keyspace), run.first_seq + run.changes - 1
        self._follow_run(number, run, last)
        self._go_on(node, number, run.actor, last)
        super()._judge(node, run)
        for seq in range(run.first_seq, last + 1):
            branch, count = self._branch_seen.get((number, run.actor, seq), (None, 0))
            if branch is not None and not branch.is_old(count):
                raise Violation(f"{node.name} got change {seq} whose maker had seen another history than the cluster's")

    def _follow_run(self, number: KeyspaceId, run: Changes, last: int) -> None:
        """The cluster follows the copy that made the run, if it follows none yet."""
        known = len(self.histories[number].made_by(run.actor))
        if last <= known:
            return
        changes: list[Change] = []
        for copy in self._all_copies:
            if copy.actor != run.actor or len(copy.branches[number].own) < last:
                continue
            branch = copy.branches[number]
            changes = changes or list(changes_of(run))
            same = all(map(_is_same, branch.own[run.first_seq - 1 : last], changes))
            if same and branch.is_old(known):
                self._follow(copy, number, last)
                return

    def _go_on(self, node: SimNode, number: KeyspaceId, actor: Actor, last: int) -> None:
        """A node gets changes of an actor up to this one: if it has a branch of it, that is the cluster's as far as it goes."""
        copy = self._copies.get(node.name)
        if copy is None or copy.actor != actor:
            return
        branch = copy.branches[number]
        if not branch.is_old():
            raise Violation(f"{node.name} takes in changes up to {last} of a history that is not its own")
        for change in branch.theirs[len(branch.own) : last]:
            branch.add(change)

    def _follow(self, copy: Copy, number: KeyspaceId, last: int) -> None:
        branch = copy.branches[number]
        for change in branch.own[len(branch.theirs) : last]:
            branch.whole.add(change)
            self._seen_by_maker[number, copy.actor, change.seq] = copy.seen.get((number, change.seq), {})

    def _reunite(self, node: SimNode) -> None:
        """A copy that goes on as another actor, and has nothing that the cluster has not, is a node as all others."""
        copy = self._copies.get(node.name)
        if copy is not None and copy.actor != node.actor and all(b.is_old() for b in copy.branches.values()):
            del self._copies[node.name]

    # -- what must be so

    def check_durable(self, node: SimNode) -> None:
        self._reunite(node)
        for number in self.histories:
            vector = node.keyspace(number).vector
            if self._looked.get((node.name, number)) == vector:
                continue
            self._looked[node.name, number] = dict(vector)
            if node.actor in vector and self._is_copy(node, node.actor):
                self._heads[number, node.actor, vector[node.actor]] = self._copies[node.name]
            for actor in {copy.actor for copy in self._all_copies} & vector.keys():
                self._follow_rows(node, number, actor, vector[actor])
        super().check_durable(node)

    def _follow_rows(self, node: SimNode, number: KeyspaceId, actor: Actor, head: Head) -> None:
        """A node may have got rows, with all changes up to a head."""
        if head.seq <= len(self.history_of(node, number).made_by(actor)):
            return
        self._go_on(node, number, actor, head.seq)
        maker = self._heads.get((number, actor, head))
        for copy in self._all_copies if maker is None else [maker]:
            branch = copy.branches[number]
            if copy.actor == actor and branch.is_one() and len(branch.own) >= head.seq:
                self._follow(copy, number, head.seq)
                return
        if not self._is_copy(node, actor) and self._unproved.may_join(node, number, actor, head):
            raise Joined(f"{node.name} joins the rows of one copy with what it has of another one")

    def check_acks(self, node: SimNode, number: KeyspaceId) -> None:
        if not self._all_copies:  # they are known by names, which two may have
            super().check_acks(node, number)

    def restarted(self, node: SimNode) -> None:
        self._turn_back()
        copy = self._copies.get(node.name)
        if copy is None:
            super().restarted(node)
            return
        for number, branch in copy.branches.items():
            seq = node.durable(number).get(copy.actor, 0)
            lost = copy.acknowledged.get(number, 0) - seq
            if lost > 0:
                raise Violation(f"{node.name} lost {lost} acknowledged changes in keyspace {number}")
            if len(branch.own) > seq:
                branch.forget_above(copy.actor, seq)
        if copy.actor == node.actor:
            self._touched.pop(node.name, None)
            self._held.forget(node)
            self.check_durable(node)
        else:
            super().restarted(node)

    def _turn_back(self) -> None:
        """A crash took what was not durable: the cluster follows a copy no further than anybody else still has it.

        It may follow another one from there on. Who is down counts with all that it may come back with.
        """
        for node in self._nodes.values():
            self._reunite(node)
        for actor in dict.fromkeys(copy.actor for copy in self._all_copies):
            for number, main in self.histories.items():
                has = (self._may_have(n, number, actor) for n in self._nodes.values() if not self._is_copy(n, actor))
                for change in main.forget_above(actor, max(has, default=0)):
                    self._judged.pop((number, actor, change.seq), None)

    def _is_copy(self, node: SimNode, actor: Actor) -> bool:
        copy = self._copies.get(node.name)
        return copy is not None and copy.actor == actor

    def _may_have(self, node: SimNode, number: KeyspaceId, actor: Actor) -> int:
        keyspace = node.keyspace(number)
        heads = [head.seq for head in (keyspace.vector.get(actor), keyspace.observed.get(actor)) if head is not None]
        return max([self._durable.get((node.name, number), {}).get(actor, 0), *heads])

    def agree(self, nodes: Sequence[SimNode], keys: Iterable[bytes], *, everything_expired: bool) -> None:
        for name, copy in self._copies.items():
            if not copy.is_one():
                raise Violation(f"{name} has another history than the cluster in the end")
        super().agree(nodes, keys, everything_expired=everything_expired)


def _is_same(one: Change, other: Change) -> bool:
    return one[:3] == other[:3] and _plain(one.operations) == _plain(other.operations)


def _plain(item: object) -> object:
    """Without the difference between lists and tuples."""
    return [_plain(part) for part in item] if isinstance(item, (list, tuple)) else item
