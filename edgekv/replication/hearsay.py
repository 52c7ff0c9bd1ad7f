"""Who else has a node's changes, as hubs tell it: an edge has one link, and its neighbours are behind the hub.

While somebody waits for other nodes at large (`WAIT`, the level `site`), and not for hubs alone, the node asks the hubs that it is
linked to (WHO_HAS). For HEARSAY_MS a hub then tells what other members have of that node's own changes (OTHERS_HAVE): what it knows
at once, from its links and from SEENs, and from then on what moves. Nothing is said to those who have not asked.

- Members that are linked to the hub count as soon as their ACK is there; those behind another hub with their SEEN, some seconds later.
- On each link a message goes out at most every HEARSAY_PAUSE_MS, of about HEARSAY_ENTRIES_MAX numbers. What moves meanwhile is said
  with the next one, so the cost is bounded whatever is written.
- Of a member that is linked here only its own word counts, and of others what is said of the incarnation that is open, and of copies
  that are there.
"""

from collections.abc import Callable, Mapping
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.errors import PeerFault
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.limits import HEARSAY_ENTRIES_MAX, HEARSAY_MS, HEARSAY_PAUSE_MS
from edgekv.replication.acks import HUB, Acks, Peer
from edgekv.replication.holdings import Holdings
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.members import Members
from edgekv.replication.messages import Applicant, OthersHave, WhoHas
from edgekv.replication.seen import SeenTable


class Hearsay:
    """Of one node, on both sides."""

    def __init__(
        self,
        *,
        engine: Engine,
        acks: Acks,
        table: SeenTable,
        members: Members,
        holdings: Holdings,
        links: LinkTable,
        myself: Applicant,
        now_ms: Callable[[], int],
    ) -> None:
        """``now_ms``: monotonic."""
        self._engine: Final = engine
        self._acks: Final = acks
        self._table: Final = table
        self._members: Final = members
        self._holdings: Final = holdings
        self._links: Final = links
        self._self: Final = myself
        self._now_ms: Final = now_ms
        self._askers: Final[dict[Actor, Link]] = {}
        """By actor, who wants to be told."""

    def ask(self) -> None:
        """Somebody waits: have hubs tell who has this node's changes, unless they do."""
        if not self._acks.wait_for_any:
            return
        now = self._now_ms()
        for link in self._links:
            asked = link.hearsay.asked_ms
            is_hub = link.phase == "data" and link.peer is not None and link.peer.role == HUB
            if is_hub and (asked is None or now - asked >= HEARSAY_MS // 2):
                link.hearsay.asked_ms = now
                self._links.send(link, WhoHas())

    def take(self, link: Link, message: WhoHas | OthersHave) -> None:
        """What a peer asks or tells. PeerFault: it is an edge, which speaks for itself only."""
        assert link.peer is not None
        if isinstance(message, WhoHas):
            self._asked(link, link.peer.actor)
        elif link.peer.role != HUB:
            raise PeerFault("it is an edge, and says what others have.")
        elif self._members.is_open(link.peer.actor):
            for actor, seqs in message.members.items():
                self._heard(actor, seqs)

    def has(self, member: Actor, keyspace: int, vector: Vector) -> None:
        """A member has this of a keyspace durably: tell those of its changes who have asked."""
        for actor, link in self._askers.items():
            seq = vector.get(actor)
            if seq is not None and actor != member:
                self._owe(link, member, keyspace, seq)
                self._tell(link)

    def heard_of(self, member: Actor, keyspace: int, vector: Vector) -> None:
        """The same, of a member that need not be linked here: it says so by way of others."""
        seq = vector.get(self._self.actor)
        if seq is not None:
            self._heard(member, {keyspace: seq})
        self.has(member, keyspace, vector)

    def gone(self, member: Actor, keyspace: int) -> None:
        """What a member has said of a keyspace was of a copy that it has deleted."""
        for link in self._askers.values():
            link.hearsay.owed.get(member, {}).pop(keyspace, None)
        known = self._members.members.get(member)
        if known is not None and not self._is_linked(known.node):
            self._acks.left(known.node, KeyspaceId(keyspace))

    def tick(self) -> None:
        """Ask again while somebody waits; tell what had to wait; forget who has not asked again."""
        self.ask()
        now = self._now_ms()
        for actor, link in list(self._askers.items()):
            if link.phase != "data" or link.hearsay.until_ms < now:
                link.hearsay.owed.clear()
                del self._askers[actor]
            else:
                self._tell(link)

    # -- asked

    def _asked(self, link: Link, actor: Actor) -> None:
        if self._self.role != HUB or link.phase != "data":
            return
        asks_again = self._askers.get(actor) is link
        self._askers[actor], link.hearsay.until_ms = link, self._now_ms() + HEARSAY_MS
        if asks_again:
            return
        assert link.peer is not None
        keyspaces = self._holdings.shared(link.peer)
        for spoken in self._table.spoken.values():
            for keyspace in keyspaces:
                self._owe(link, spoken.actor, keyspace, spoken.said(keyspace, actor))
        for other in self._links:
            if other.peer is not None and other.is_up:
                for keyspace, vector in other.acknowledged.items():
                    self._owe(link, other.peer.actor, keyspace, vector.get(actor, 0))
        self._tell(link)

    def _owe(self, link: Link, member: Actor, keyspace: int, seq: int) -> None:
        peer, keyspaces = link.peer, self._engine.keyspaces.by_id
        assert peer is not None
        known = keyspaces.get(KeyspaceId(keyspace))
        if known is None or not known.policy.held_at(peer.site, peer.role):
            return  # the peer does not wait for it
        if seq and member not in (peer.actor, self._self.actor) and self._has_copy(member, keyspace):
            owed = link.hearsay.owed.setdefault(member, {})
            owed[keyspace] = max(seq, owed.get(keyspace, 0))

    def _tell(self, link: Link) -> None:
        hearsay, now = link.hearsay, self._now_ms()
        if hearsay.owed and link.phase == "data" and now - hearsay.told_ms >= HEARSAY_PAUSE_MS:
            hearsay.told_ms = now
            told: dict[Actor, dict[int, int]] = {}
            entries = 0
            while hearsay.owed and entries < HEARSAY_ENTRIES_MAX:
                actor = next(iter(hearsay.owed))
                told[actor] = hearsay.owed.pop(actor)
                entries += 1 + len(told[actor])
            self._links.send(link, OthersHave(told))

    def _has_copy(self, member: Actor, keyspace: int) -> bool:
        known = self._members.members.get(member)
        return known is not None and known.state == "open" and self._members.counts(known, keyspace)

    # -- told

    def _heard(self, actor: Actor, seqs: Mapping[int, int]) -> None:
        """What is no change of this node, or of no member, is passed by: nobody waits for it."""
        member = self._members.members.get(actor)
        if member is None or member.state != "open" or self._is_linked(member.node):
            return
        peer = Peer(member.node, member.name, member.site, member.role, actor)
        for number, seq in seqs.items():
            keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(number))
            if keyspace is not None and seq <= keyspace.seq and self._has_copy(actor, number):
                self._acks.heard_of(peer, keyspace.id, seq)

    def _is_linked(self, node: bytes) -> bool:
        return node == self._self.node or any(link.node == node and link.is_up for link in self._links)
