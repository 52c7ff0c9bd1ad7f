"""Who may talk data with whom: peers become members, and what meta says is carried out here.

*Data only with members*: to and from actors that this node's own view of meta holds as open. A node that is not yet one takes no
clients' writes (``Admission.outsider``): all that it will ever write is stamped above what was deleted before it came.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import Copied, Denied, PeerFault, Replaced, Unavailable
from edgekv.ids import KeyspaceId, Vector, actor_text
from edgekv.replication.acks import HUB, Acks, peer_of
from edgekv.replication.leader import Leader, refusal_of, vector_of
from edgekv.replication.lines import Lines
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import covers
from edgekv.replication.members import Members
from edgekv.replication.messages import Admit, Applicant, Hello, Return
from edgekv.replication.subscriptions import Subscriptions

EDGES_ADMIT_NOBODY: Final = (
    "this node is an edge, and only hubs take others into the cluster. Name a hub's peer listener as the upstream."
)


class Membership:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        members: Members,
        leader: Leader,
        myself: Applicant,
        founder: bool,
        links: LinkTable,
        acks: Acks,
        kick: Callable[[], None],
        subscriptions: Subscriptions,
        lines: Lines,
    ) -> None:
        """``founder``, ``kick``: see `Replication`."""
        self._subscriptions: Final = subscriptions
        self._lines: Final = lines
        self._engine: Final = engine
        self._members: Final = members
        self._leader: Final = leader
        self._self: Final = myself
        self._founder: Final = founder
        self._links: Final = links
        self._acks: Final = acks
        self._kick: Final = kick
        self.meta_moved = False
        """By runs whose entries have not been read yet: that costs as much as there are members."""

    def remove(self, name: str) -> bool:
        """Take a member out that will not come back (`Leader.remove`). Denied: this node does not lead."""
        self._check_leads()
        removed = self._leader.remove(name)
        self.follow_meta()
        self._kick()
        return removed

    def readmit(self, name: str) -> bool:
        """Let a member come back that was removed (`Leader.readmit`). Denied: this node does not lead."""
        self._check_leads()
        allowed = self._leader.readmit(name)
        self.follow_meta()
        self._kick()
        return allowed

    def _check_leads(self) -> None:
        if not self._leader.leads:
            leader = next((m.name for m in self._members.open_members() if m.node == self._members.leader), None)
            raise Denied(
                f"this node does not lead the cluster. Ask {leader!r}."
                if leader
                else "there is no cluster whose members could be changed."
            )

    def lead(self) -> bool:
        """An operator's word that a leader which was restored need not wait for anybody (`Leader.force`)."""
        led = self._leader.force()
        self.follow_meta()
        self._kick()
        return led

    def apply(self, link: Link, peer: Hello) -> None:
        """The node at the other end becomes a member, unless it may not be one."""
        if link.astray or (not self._members.founded and peer.vectors.get(META_ID)):
            return  # it has to learn of the leader's line first; or this node has to take meta from it
        member = self._members.members.get(peer.actor)
        edges = HUB not in (peer.role, self._self.role)
        if edges and self._members.is_open(self._self.actor) and not self._members.is_open(peer.actor):
            self._links.refuse(link, PeerFault(EDGES_ADMIT_NOBODY))
            return
        if member is not None and member.site and (member.site, member.role) != (peer.site, peer.role):
            # What is stable is computed by what meta says that it holds.
            sentence = (
                f"it was admitted as {member.role} of site {member.site!r}, and comes as {peer.role} of {peer.site!r}. "
            )
            self._links.refuse(link, PeerFault(f"{sentence}Start it as it was, or anew with an empty --data-dir."))
            return
        try:
            self.admit(
                Applicant(peer.node, peer.actor, peer.name, peer.site, peer.role),
                late=member is None and self._brings_late(peer),
            )
        except Replaced as error:
            self._links.refuse(link, Copied(str(error)))
        except Denied as error:
            self._links.refuse(link, PeerFault(str(error)))

    def _brings_late(self, peer: Hello) -> bool:
        """Whether one that meta does not know was a member in entries that are lost: it has written, or has what such ones made."""
        for number, vector in peer.vectors.items():
            keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(number))
            if number == META_ID:
                continue
            if peer.actor in vector or (keyspace is None and vector):
                return True
            if keyspace is None:
                continue
            own: Vector = vector_of(self._engine, number)
            if any(seq > own.get(a, 0) and not self._members.is_open(a) for a, (seq, _) in vector.items()):
                return True
        return False

    def apply_all(self) -> None:
        """Those at the other ends who are no members yet."""
        for link in self._links:
            if link.peer is not None and not self._members.is_open(link.peer.actor):
                self.apply(link, link.peer)

    def admit(self, applicant: Applicant, *, late: bool) -> None:
        """Make a node a member, or have the leader do it. ``late``: see `Leader.admit`. Denied: it may not be one."""
        known = self._members.members.get(applicant.actor)
        nodes_open = any(member.state == "open" for member in self._members.of_node(applicant.node))
        if known is not None and known.state != "open" and nodes_open:
            raise refusal_of(applicant, True)
        if self._engine.admission.read_only is not None or self._members.unreadable is not None:
            return
        if not self._members.founded and self._founder and not self._lines.waits:
            self._leader.found()
        if self._leader.leads:
            if self._leader.admit(applicant, late=late):
                self.follow_meta()
                self._kick()
        elif self._leader.is_leader:
            self._leader.heard_of(applicant)
        elif not self._members.is_open(applicant.actor):
            for other in self._links:
                if other.peer is not None and other.peer.node == self._members.leader:
                    self._links.send(other, Admit([applicant], late))

    def follow_meta(self) -> None:
        """Meta may have moved: what this node may do, and with whom."""
        self.meta_moved = False
        self._members.refresh()
        self._lines.follow()
        self._members.refresh()
        self._subscriptions.follow()
        engine, members = self._engine, self._members
        self._judge_writes()
        me = members.members.get(self._self.actor)
        if me is not None and me.state != "open":
            for link in self._links:
                if link.phase == "data":
                    self._links.close(link, "this node is parked: it exchanges no data until it is a member again")
        alone = all(m.node == self._self.node for m in members.members.values())
        engine.checkpoints.lone = self._founder and alone and not self._lines.waits
        self._follow_stable()
        self._forget_acks()
        for link in self._links:
            self.count(link)
        self._judge_links()

    def count(self, link: Link) -> None:
        """What the peer has durably counts from the moment on that it is a member: what strangers say does not."""
        peer = link.peer
        is_member = peer is not None and self._members.is_open(peer.actor)
        if peer is not None and is_member and not link.counts:
            has_left = partial(self._members.has_left, peer.actor, peer.revision)
            there = {k: vector for k, vector in link.acknowledged.items() if not has_left(k)}
            self._acks.met(peer_of(peer), {KeyspaceId(k): vector for k, vector in there.items()})
        link.counts = is_member

    def ask_again(self, link: Link) -> None:
        """The meta of one who came with less than it has said to have is here: by that it is judged when it comes again."""
        self._links.close(link, "it came with less than it has said to have, and with a newer meta, which is here now")

    def _judge_links(self) -> None:
        """Whether those at the other ends may still be there, by what they are now."""
        members = self._members
        for link in self._links:
            if link.owes_word and link.peer is not None and link.peer.revision <= members.revision:
                self.ask_again(link)
                continue
            actor = link.peer.actor if link.peer is not None else None
            member = members.members.get(actor) if actor is not None else None
            if member is not None and link.peer is not None and member.state == "open" and link.phase == "meta":
                self.apply(link, link.peer)  # it may not be what it says
            elif member is not None and member.state == "returning":
                if link.phase == "data" and link.return_revision != member.revision:
                    self._links.close(link, "the peer returns anew, and needs other rows")
            elif member is not None and member.state != "open":
                if member.parked and link.phase == "meta":
                    continue  # it is told so, and that it may come back
                self._links.close(
                    link, f"{actor_text(member.actor)} is closed: it was removed, or goes on as another incarnation"
                )

    def _judge_writes(self) -> None:
        """Whether this node takes clients' writes, and what they are stamped above."""
        engine, members = self._engine, self._members
        me = members.members.get(self._self.actor)
        if me is not None and members.goes_on(me.actor) and engine.admission.read_only is None:
            if me.state in ("open", "returning"):
                known = engine.keyspaces.by_id
                engine.fold({KeyspaceId(k): hlc for k, hlc in me.hlcs.items() if k in known}, me.ttl_ms)
            engine.admission.outsider = None
        elif me is None and self._has_written():
            engine.admission.outsider = None  # it was a member, and comes back with what it writes (lines.py)
        elif members.founded or not self._founder or self._lines.waits:
            engine.admission.outsider = Unavailable(
                "this node is not a member of its cluster yet: it has to reach a hub once. "
                "Check [[upstream]] and `edgekv cluster status`."
            )

    def _has_written(self) -> bool:
        """Whether this incarnation has made changes, which none does before it is a member."""
        return any(keyspace.seq for keyspace in self._engine.keyspaces.all if keyspace.id != META_ID)

    def _follow_stable(self) -> None:
        """What may be forgotten: as soon as expiries are judged by its time here, too.

        Of members that is so already. One that is parked, whose clock may be behind, would forget values before their end.
        """
        announced, checkpoints = self._members.announced, self._engine.checkpoints
        if announced is None:
            checkpoints.stable = None
            return
        if self._engine.admission.read_only is None:
            checkpoints.follow(announced.stable)

    def _forget_acks(self) -> None:
        """Of nodes that are no members any more, linked or not, and of copies that are gone."""
        members = self._members.members.values()
        if self._members.founded:  # else the list is on its way
            self._acks.keep({member.node for member in members if member.state == "open"})
        for member in members:
            if member.state == "open":
                self._acks.renewed(member.node, member.actor)
        for entry in self._members.keyspaces.values():
            for actor in entry.left:
                if self._members.is_open(actor):
                    self._acks.left(self._members.members[actor].node, entry.policy.id)

    def returned(self, message: Return) -> None:
        """A parked member says how its return stands: for the leader."""
        if self._leader.leads:
            if self._leader.returned(message):
                self.follow_meta()
                self._kick()
            return
        for other in self._links:
            if other.is_up and other.peer is not None and other.peer.node == self._members.leader:
                self._links.send(other, message)

    def may_send(self, link: Link) -> bool:
        """To members; to one that returns and asked for rows; to a leader that was restored, which has to learn what it forgot."""
        members, peer = self._members, link.peer
        if peer is None or not members.is_open(self._self.actor):
            return False
        return members.is_open(peer.actor) or peer.node == members.leader or self.need_of(link) is not None

    def need_of(self, link: Link) -> dict[int, Vector] | None:
        """By keyspace what rows for a peer that returns have to cover; None: it does not return, or this node lacks some."""
        member = None if link.peer is None else self._members.members.get(link.peer.actor)
        if member is None or member.state != "returning" or link.need is None:
            return None
        here: dict[int, Vector] = {k.id: vector_of(self._engine, k.id) for k in self._engine.keyspaces.all}
        return member.need if all(covers(here.get(k, {}), need) for k, need in member.need.items()) else None
