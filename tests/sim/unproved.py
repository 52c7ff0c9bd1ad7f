"""What a node can tell of somebody who comes as an actor that it knows: whether the two have one history.

Runs say what they go on from. Rows do not: who gives rows of its own changes has no log any more of where the other's history of it
ends, so there is nothing to compare. What tells a copy then is that it has less than its actor has said to have, but a node that was
started since has heard nothing of that (decision 0026). These must be so, and are looked at here:

- nobody goes on with a peer that greets with less than its actor was heard to say;
- rows of a copy join another history only if no log of it went back to where that ends when they were offered.

Then two histories have become one, and nobody can say what is to be shown. The simulated life ends there.
"""

from collections.abc import Callable, Iterable
from typing import Final

from edgekv.engine.keyspaces import Head
from edgekv.ids import Actor, KeyspaceId
from edgekv.replication.acks import HUB
from edgekv.replication.link import Link
from edgekv.replication.messages import Hello, Seen, SyncOffer
from edgekv.replication.replication import Replication
from edgekv.wal.reader import checkpoints
from tests.sim.sim_node import SimNode
from tests.sim.witness import Violation

Vector = dict[Actor, int]


class Joined(Exception):
    """Two histories of an actor became one at a node, and nobody could tell."""


class Unproved:
    """Of one cluster."""

    def __init__(self, givers: Callable[[KeyspaceId, Actor, Head], Iterable[SimNode]]) -> None:
        """``givers``: the copies whose rows have a head."""
        self._givers: Final = givers
        self._offered: Final[set[tuple[str, KeyspaceId, Actor, Head]]] = set()
        """Heads with which rows were offered to a node, of whose continuation no log tells."""

    def watch(self, node: SimNode, replication: Replication) -> None:
        """From now on, until the node is started again."""
        if node.config.role == HUB:
            self._watch_greetings(node, replication)
        offered = replication.row_sync.intake.offered

        def judged(link: Link, offer: SyncOffer) -> None:
            for actor, (seq, chain) in offer.vector.items():
                self._compare(node, KeyspaceId(offer.keyspace), actor, Head(seq, chain))
            offered(link, offer)

        replication.row_sync.intake.offered = judged  # type: ignore[method-assign] # a spy

    def may_join(self, node: SimNode, number: KeyspaceId, actor: Actor, head: Head) -> bool:
        """Whether rows with this head came to the node when nothing could tell of which history they are."""
        return (node.name, number, actor, head) in self._offered

    def _compare(self, node: SimNode, number: KeyspaceId, actor: Actor, head: Head) -> None:
        keyspace, key = node.keyspace(number), (node.name, number, actor, head)
        here = keyspace.observed.get(actor) or keyspace.vector.get(actor)
        givers = list(self._givers(number, actor, head))
        self._offered.discard(key)
        if here is None or here.seq >= head.seq or not givers:
            return
        if all(_log_begins(giver, number, actor) > here.seq for giver in givers):
            self._offered.add(key)

    def _watch_greetings(self, node: SimNode, replication: Replication) -> None:
        said: dict[Actor, dict[int, Vector]] = {}
        greeting, hear = replication._greeting, replication.seen.hear
        accepts = greeting.accepts

        def heard(seen: Seen) -> bool:
            for number, vector in seen.vectors.items():
                known = said.setdefault(seen.actor, {}).setdefault(number, {})
                known.update({actor: max(seq, known.get(actor, 0)) for actor, seq in vector.items()})
            return hear(seen)

        def judged(link: Link, hello: Hello) -> bool:
            goes_on = accepts(link, hello)
            for number, vector in said.get(hello.actor, {}).items() if goes_on else ():
                has = hello.vectors.get(number, {})
                if (
                    KeyspaceId(number) not in node.engine.keyspaces.by_id
                    or node.keyspace(KeyspaceId(number)).policy.system
                ):
                    continue
                if any(seq > has.get(actor, (0, 0))[0] for actor, seq in vector.items()):
                    raise Violation(f"{node.name} goes on with a node that comes with less than it has said to have")
            return goes_on

        replication.seen.hear, greeting.accepts = heard, judged  # type: ignore[method-assign] # spies


def _log_begins(node: SimNode, number: KeyspaceId, actor: Actor) -> int:
    """How much of an actor stands before the log of a node."""
    oldest = list(checkpoints(node.disk))[-1:]
    for _, checkpoint in oldest:
        for state in checkpoint.keyspaces:
            if state.keyspace == number:
                return max((seq for a, seq, _ in state.vector if a == actor), default=0)
    return 0
