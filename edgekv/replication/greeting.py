"""HELLO: what a node says of itself first, and what it makes of a peer's.

A peer is of the same cluster, another node, and its histories are this node's: equal numbers mean equal chains, and nobody knows more
of a node than itself, neither of what it has made nor of what it has said to have. Of two links with one node one goes.
"""

from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID, Head
from edgekv.errors import EdgeKVError, Forked, PeerFault
from edgekv.ids import Actor, KeyspaceId, Vector, actor_text, node_of
from edgekv.replication.acks import HUB
from edgekv.replication.holdings import Holdings
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import covers
from edgekv.replication.members import Member, Members
from edgekv.replication.messages import Applicant, ChainedVector, Hello, Seen, SeenList
from edgekv.replication.seen import SeenTable


class Greeting:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        cluster: bytes,
        myself: Applicant,
        members: Members,
        holdings: Holdings,
        links: LinkTable,
        seen: SeenTable,
        now_ms: Callable[[], int],
        rolled_back: Callable[[], bool],
    ) -> None:
        """``rolled_back``: see `Replication`."""
        self._engine: Final = engine
        self._cluster: Final = cluster
        self._self: Final = myself
        self._members: Final = members
        self._holdings: Final = holdings
        self._links: Final = links
        self._seen: Final = seen
        self._now_ms: Final = now_ms
        self._rolled_back: Final = rolled_back

    def hello(self) -> Hello:
        """What this node says now."""
        vectors: dict[int, ChainedVector] = {}
        for keyspace in [*self._holdings.all(), *self._holdings.forgotten()]:
            vectors[keyspace.id] = {actor: (head.seq, head.chain) for actor, head in keyspace.vector.items()}
        hlcs: dict[int, int] = (
            {keyspace.id: keyspace.hlc for keyspace in self._holdings.all()} if self._self.role == "hub" else {}
        )
        return Hello(
            *(self._cluster, self._self.node, self._self.actor, self._self.name, self._self.site, self._self.role),
            *(self._now_ms(), self._members.revision, vectors, hlcs),
        )

    def accepts(self, link: Link, hello: Hello) -> bool:
        """Whether the link goes on. PeerFault, Forked: the peer is told why it does not."""
        if link.peer is not None:
            raise PeerFault("it said HELLO twice.")
        link.name, link.node, link.role = hello.name, hello.node, hello.role
        if hello.cluster != self._cluster:
            raise PeerFault(
                f"it belongs to cluster {hello.cluster.hex()[:8]}, this node to {self._cluster.hex()[:8]}. "
                "A node joins a cluster with an empty data directory only."
            )
        if hello.node == self._self.node:
            raise PeerFault("it is this node itself, or a copy of its directory that runs as the same incarnation.")
        try:
            self.compare(link, hello)
        except Forked as error:
            if error.node == self._self.node and hello.role == "hub":
                return False  # it sees the same, and says whether this node runs elsewhere as well
            raise
        return self._hold_to_word(link, hello) and self._keep_one(link, hello)

    def _hold_to_word(self, link: Link, hello: Hello) -> bool:
        """Take down what a peer comes with, and send it away if that is not all that it has said to have; whether it stays.

        Deletions may have been forgotten that it has not seen. It is told what it said, and judges: that may have crossed its HELLO,
        on another link. Its next HELLO has it then.
        Of meta nothing is asked: it may be taken anew (lines.py). And nothing of one who comes with a newer meta than this node's, by
        which it may have left a keyspace and hold it anew: it is asked when that meta is here (`Membership.follow_meta`).
        """
        if self._self.role != HUB:
            return True
        vectors = {k: vector for k, vector in hello.vectors.items() if k != META_ID}
        has = {k: {actor: seq for actor, (seq, _) in vector.items()} for k, vector in vectors.items()}
        said = self._seen.word_beyond(hello.actor, has) or self._announced_beyond(hello.actor, has)
        knows_less = hello.revision > self._members.revision
        self._note(link, hello, taken=said is None or knows_less, anew=knows_less)
        if said is not None and knows_less:
            link.owes_word = True
            return True
        if said is not None:
            self._send_away(link, said)
        return said is None

    def _send_away(self, link: Link, said: Seen) -> None:
        self._links.send(link, SeenList([said]))
        self._links.close(link, "it comes with less than it has said to have")

    def _note(self, link: Link, hello: Hello, *, taken: bool, anew: bool) -> None:
        """Take down what a member came with. Who is linked as the same one and has less may be a copy."""
        member = self._members.members.get(hello.actor)
        if member is None or member.state != "open":
            return
        came = hello._replace(vectors=self._known_of(hello, member))
        word = self._seen.arrivals.note(came, self._seen.said, taken=taken, anew=anew)
        if word is None or taken:
            return
        for other in self._links:
            is_same = other is not link and other.is_up and other.peer is not None and other.peer.actor == hello.actor
            if is_same and not all(covers(other.acknowledged.get(k, {}), v) for k, v in word.vectors.items()):
                self._send_away(other, word)

    def _known_of(self, hello: Hello, member: Member) -> dict[int, ChainedVector]:
        """Of what a member has that which this node knows by name: so nobody has it remember more than there is.

        And not of copies that are gone, though the member may not know it yet.
        """
        known: dict[int, ChainedVector] = {}
        for number, vector in hello.vectors.items():
            keyspace, entry = self._engine.keyspaces.by_id.get(KeyspaceId(number)), self._members.keyspaces.get(number)
            is_gone = entry is not None and entry.is_gone(member.actor, member.site, hello.revision)
            if number != META_ID and keyspace is not None and not is_gone:
                there = (self._members.members, keyspace.vector, keyspace.observed)
                known[number] = {a: head for a, head in vector.items() if any(a in actors for actors in there)}
        return known

    def _announced_beyond(self, actor: Actor, has: dict[int, Vector]) -> Seen | None:
        """What a member must have said, if that is more than it has: what is stable rests on it. SEENs do not survive a restart."""
        announced, member = self._members.announced, self._members.members.get(actor)
        if announced is None or member is None or member.state != "open" or member.revision > announced.said_at:
            return None
        beyond: dict[int, Vector] = {}
        for number, cut in (announced.stable.cuts or {}).items():
            entry = self._members.keyspaces.get(number)
            if number in has and entry is not None and self._members.counts(member, number):
                is_newer = entry.since.get(member.site, 0) > announced.said_at
                if not is_newer and not covers(has[number], cut.cut):
                    beyond[number] = cut.cut
        return Seen(actor, 0, 0, announced.said_at, beyond) if beyond else None

    def compare(self, link: Link, hello: Hello) -> None:
        """Equal numbers mean equal histories, and nobody knows more of this node than itself."""
        for number, vector in hello.vectors.items():
            keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(number))
            if keyspace is None or not self._holdings.holds(keyspace):
                continue  # what was deleted here with a keyspace that the site left is not missed
            own = vector.get(self._self.actor, (0, 0))[0]
            if own > keyspace.seq:
                raise self._knows_more_of_me(
                    link,
                    hello.actor,
                    f"it has {own} changes of this node in keyspace {keyspace.name!r}, and this node remembers {keyspace.seq}",
                )
            for actor, (seq, chain) in vector.items():
                head = keyspace.vector.get(actor, Head(0, 0))
                if seq == head.seq and chain != head.chain:
                    raise Forked.of(
                        node_of(actor),
                        f"it has another history of {actor_text(actor)} in keyspace {keyspace.name!r} up to {seq}: "
                        "a directory was copied and both copies ran.",
                    )

    def compare_word(self, link: Link, said: Seen) -> None:
        """What a peer heard this node say that it has, it has; or else its directory was set back since.

        Unless that was of a copy that is gone: of a keyspace that the site has left since, or of meta, which was taken anew.
        """
        assert link.peer is not None
        for number, vector in said.vectors.items():
            keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(number))
            if keyspace is None or number == META_ID or not self._holdings.holds(keyspace):
                continue
            entry = self._members.keyspaces.get(number)
            if entry is not None and entry.is_gone(self._self.actor, self._self.site, said.revision):
                continue
            durable = {actor: head.seq for actor, head in keyspace.vector.items()}
            if not covers(durable, vector):
                claim = (
                    f"it heard this node say that it has changes in keyspace {keyspace.name!r} which this node has not"
                )
                raise self._knows_more_of_me(link, link.peer.actor, claim)

    def _knows_more_of_me(self, link: Link, peer: Actor, claim: str) -> EdgeKVError:
        """What a peer is told that claims to. Believed are members, as this node knows them, and whom it was told to dial."""
        if not (link.outgoing or self._members.is_open(peer)):
            return PeerFault(f"{claim}. It is no member that this node knows of, and is not believed.")
        if not self._rolled_back():
            return PeerFault(f"{claim}. This node took a new incarnation a moment ago, and takes no other so soon.")
        return Forked(f"{claim}: its directory was set back. It goes on as another incarnation.")

    def _keep_one(self, link: Link, hello: Hello) -> bool:
        """End one of two links with one node: the older of one direction, or the one that the higher node made; whether this stays."""
        for other in self._links:
            if other is link or other.peer is None or other.peer.node != hello.node:
                continue
            keep_mine = self._self.node < hello.node
            if other.outgoing == link.outgoing or other.outgoing != keep_mine:
                self._links.replace(other, link)
            else:
                self._links.replace(link, other)
                return False
        return True
