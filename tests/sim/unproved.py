"""What a node can tell of somebody who comes as an actor that it knows: whether the two have one history.

Runs say what they go on from. Rows do not: who gives rows of its own changes has no log any more of where the other's history of it
ends, so there is nothing to compare. What tells a copy then is that it has less than its actor has said to have, but a node that was
started since has heard nothing of that (decision 0026). These must be so, and are looked at here:

- nobody goes on with a member that greets with less than its actor was heard to say, or came with;
- rows of a copy join another history only if no log of it went back to where that ends when they were offered, and
  nobody else who had more of others came as this actor before they were joined.

Then two histories have become one, and nobody can say what is to be shown. The simulated life ends there.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from edgekv.engine.keyspaces import Head
from edgekv.ids import Actor, KeyspaceId
from edgekv.replication.acks import HUB
from edgekv.replication.link import Link
from edgekv.replication.messages import ChainedVector, Hello, Seen, SyncOffer
from edgekv.replication.replication import Replication
from edgekv.wal.reader import checkpoints
from tests.sim.sim_node import SimNode
from tests.sim.witness import Violation

Vectors = dict[int, dict[Actor, int]]


class Joined(Exception):
    """Two histories of an actor became one at a node, and nobody could tell."""


class Joint(NamedTuple):
    """Where rows of an actor's history up to a head may be joined."""

    taker: str
    keyspace: KeyspaceId
    actor: Actor
    head: Head


class Unproved:
    """Of one cluster."""

    def __init__(self, givers: Callable[[KeyspaceId, Actor, Head], Iterable[SimNode]]) -> None:
        """``givers``: the copies whose rows have a head."""
        self._givers: Final = givers
        self._offered: Final[dict[Joint, Link]] = {}
        """With which heads rows were offered to a node, of whose continuation no log tells; and by whom."""
        self._begun: Final[set[Joint]] = set()
        """Of those, what was joined when no word told either."""
        self._said: Final[dict[str, dict[Actor, Vectors]]] = {}
        """By hub, since it was started, what members have said to have."""
        self._came: Final[dict[str, dict[Actor, Vectors]]] = {}
        """The same of what they came with; of who was sent away, what it had of others."""

    def watch(self, node: SimNode, replication: Replication) -> None:
        """From now on, until the node is started again."""
        self._said[node.name], self._came[node.name] = {}, {}
        if node.config.role == HUB:
            self._watch_greetings(node, replication)
        offered, flip = replication.row_sync.intake.offered, node.engine.flip

        def judged_offer(link: Link, offer: SyncOffer) -> None:
            for actor, (seq, chain) in offer.vector.items():
                self._compare(node, KeyspaceId(offer.keyspace), actor, Head(seq, chain), link)
            offered(link, offer)

        def judged_flip(number: KeyspaceId, spool: bytes, vector: ChainedVector, *rest: Any, **options: Any) -> None:
            for actor, (seq, chain) in vector.items():
                self._begin(Joint(node.name, number, actor, Head(seq, chain)))
            flip(number, spool, vector, *rest, **options)

        replication.row_sync.intake.offered = judged_offer  # type: ignore[method-assign] # a spy
        node.engine.flip = judged_flip  # type: ignore[assignment, method-assign] # a spy

    def may_join(self, node: SimNode, number: KeyspaceId, actor: Actor, head: Head) -> bool:
        """Whether rows with this head were joined when nothing could tell of which history they are."""
        return Joint(node.name, number, actor, head) in self._begun

    def _compare(self, node: SimNode, number: KeyspaceId, actor: Actor, head: Head, link: Link) -> None:
        keyspace, joint = node.keyspace(number), Joint(node.name, number, actor, head)
        here = keyspace.observed.get(actor) or keyspace.vector.get(actor)
        givers = list(self._givers(number, actor, head))
        self._offered.pop(joint, None)
        if here is None or here.seq >= head.seq or not givers:
            return
        if all(_log_begins(giver, number, actor) > here.seq for giver in givers):
            self._offered[joint] = link

    def _begin(self, joint: Joint) -> None:
        link = self._offered.get(joint)
        if link is not None and link.peer is not None:
            came = self._came[joint.taker].get(link.peer.actor, {})
            if not _lacks(link.peer, came):
                self._begun.add(joint)

    def _watch_greetings(self, node: SimNode, replication: Replication) -> None:
        said, came = self._said[node.name], self._came[node.name]
        greeting, hear = replication._greeting, replication.seen.hear
        accepts = greeting.accepts
        ours = [k.id for k in node.engine.keyspaces.all if not k.policy.system]

        def heard(seen: Seen) -> bool:
            _add(said.setdefault(seen.actor, {}), {k: v for k, v in seen.vectors.items() if k in ours})
            return hear(seen)

        def judged(link: Link, hello: Hello) -> bool:
            goes_on = accepts(link, hello)
            words = (said.get(hello.actor, {}), came.get(hello.actor, {}))
            if replication.members.is_open(hello.actor):
                if goes_on and any(_lacks(hello, vectors) for vectors in words):
                    raise Violation(f"{node.name} goes on with a node that comes with less than it has said to have")
                news: Vectors = {}
                for number, vector in hello.vectors.items():
                    if number in ours:
                        news[number] = {a: seq for a, (seq, _) in vector.items() if goes_on or a != hello.actor}
                _add(came.setdefault(hello.actor, {}), news)
            return goes_on

        replication.seen.hear, greeting.accepts = heard, judged  # type: ignore[method-assign] # spies


def _add(known: Vectors, vectors: Mapping[int, Mapping[Actor, int]]) -> None:
    for number, vector in vectors.items():
        mine = known.setdefault(number, {})
        mine.update({actor: max(seq, mine.get(actor, 0)) for actor, seq in vector.items()})


def _lacks(hello: Hello, vectors: Vectors) -> bool:
    """Whether somebody came with less than this."""
    for number, vector in vectors.items():
        has = hello.vectors.get(number, {})
        if any(seq > has.get(actor, (0, 0))[0] for actor, seq in vector.items()):
            return True
    return False


def _log_begins(node: SimNode, number: KeyspaceId, actor: Actor) -> int:
    """How much of an actor stands before the log of a node."""
    oldest = list(checkpoints(node.disk))[-1:]
    for _, checkpoint in oldest:
        for state in checkpoint.keyspaces:
            if state.keyspace == number:
                return max((seq for a, seq, _ in state.vector if a == actor), default=0)
    return 0
