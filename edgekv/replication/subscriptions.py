"""What this node holds, as the cluster's list of keyspaces says: new ones begin here, and what it is taken off goes.

`follow` brings the node in line with meta whenever that has moved:

- a keyspace that it did not know is created, first in the file that a start reads, then in the engine: the log has no record of it
  before;
- one that its site holds from now on takes writes, stamped above what was deleted before, and HOLDS says on every link what it has of
  it, which is nothing. So it is fetched there, alone, by the log or as rows;
- one that its site was taken off takes no more writes, and nothing more of it is taken in or sent to nodes of that site. What was made
  before drains to a hub, as all changes do;
- when the leader has it all (replication/keyspace_list.py), the copy is deleted (engine/drop.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspace_entry import Entry, entry_of
from edgekv.engine.keyspaces import Keyspace, Keyspaces
from edgekv.errors import ConfigError
from edgekv.ids import KeyspaceId
from edgekv.replication.acks import Acks, peer_of
from edgekv.replication.holdings import Holdings, is_same
from edgekv.replication.keyspace_list import ListedKeyspace
from edgekv.replication.keyspace_orders import still_draining
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.members import Members
from edgekv.replication.messages import Applicant, ChainedVector, Hello, Holds
from edgekv.replication.row_sync import RowSync
from edgekv.replication.sender import Sender


class Subscriptions:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        members: Members,
        holdings: Holdings,
        myself: Applicant,
        links: LinkTable,
        row_sync: RowSync,
        acks: Acks,
        remember: Callable[[list[Entry]], None],
    ) -> None:
        """``remember``: write the entries down durably, for the next start."""
        self._engine: Final = engine
        self._members: Final = members
        self._holdings: Final = holdings
        self._self: Final = myself
        self._links: Final = links
        self._row_sync: Final = row_sync
        self._acks: Final = acks
        self._remember: Final = remember
        for keyspace in engine.keyspaces.all:
            if engine.drops.is_torn(keyspace.id):
                keyspace.absent = True
                engine.drops.begin(keyspace)

    def entries(self) -> list[Entry]:
        """The keyspaces as WELCOME says them."""
        return [entry_of(keyspace.policy) for keyspace in self._engine.keyspaces.all]

    def follow(self) -> None:
        """Meta may have moved. OSError: the file cannot be written; nothing else happened then."""
        if self._engine.admission.read_only is not None:
            return
        entries = [entry for entry in self._members.keyspaces.values() if self._is_possible(entry)]
        changed = [entry for entry in map(self._shown, entries) if self._is_news(entry)]
        if changed:
            self.install(*changed)
        for entry in entries:
            self._hold(entry)
        for link in self._links:
            self._renew(link)

    def install(self, *entries: ListedKeyspace) -> None:
        """Take entries into the node's own list: the file first."""
        keyspaces = self._engine.keyspaces
        policies = {keyspace.id: keyspace.policy for keyspace in keyspaces.all}
        policies.update({entry.policy.id: entry.policy for entry in entries})
        self._remember([entry_of(policy) for policy in policies.values()])
        for entry in entries:
            known = keyspaces.by_id.get(entry.policy.id)
            if known is None:
                known = self._engine.create(entry.policy)
                known.absent = not self._holdings.takes(known)
            known.policy = entry.policy

    def heard(self, link: Link, message: Holds) -> None:
        """The peer holds more than it said in its HELLO, or anew what it had left."""
        peer = link.peer
        assert peer is not None and link.sender is not None
        peer.vectors.update(message.vectors)
        for number, vector in message.vectors.items():
            seqs = {actor: seq for actor, (seq, _) in vector.items()}
            link.acknowledged[number] = dict(seqs)
            link.sender.has[number] = dict(seqs)
            self._row_sync.source.withdraw(link, number)
            if link.counts:
                self._acks.holds(peer_of(peer), KeyspaceId(number), seqs)
        if link.phase == "data":
            link.sender.begin(self._holdings.shared(peer))

    def tell(self, link: Link) -> None:
        """Say what this node holds and has not said on this link."""
        news: dict[int, ChainedVector] = {}
        for keyspace in self._holdings.all():
            if keyspace.id not in link.told:
                link.told.add(keyspace.id)
                news[keyspace.id] = {actor: (head.seq, head.chain) for actor, head in keyspace.vector.items()}
        if news:
            self._links.send(link, Holds(news))

    def _is_possible(self, entry: ListedKeyspace) -> bool:
        """Whether this node has no other keyspace in its place, which the cluster has forgotten (lines.py)."""
        keyspaces, policy = self._engine.keyspaces, entry.policy
        known = keyspaces.by_id.get(policy.id)
        if known is not None:
            possible = is_same(known.policy, policy)
        else:
            try:
                Keyspaces([*(keyspace.policy for keyspace in keyspaces.all), policy])
                possible = True
            except ConfigError:
                possible = False
        if not possible:
            self._links.say(
                f"keyspace {policy.name!r} of the cluster is not held here: this node has another one in its place, which the cluster "
                "does not know any more. Export what is needed of that, and start the node anew with an empty --data-dir."
            )
        return possible

    def _shown(self, entry: ListedKeyspace) -> ListedKeyspace:
        draining = still_draining(entry, self._members.members)
        if draining == entry.policy.draining:
            return entry
        return replace(entry, policy=replace(entry.policy, draining=draining))

    def _is_news(self, entry: ListedKeyspace) -> bool:
        known = self._engine.keyspaces.by_id.get(entry.policy.id)
        return known is None or known.policy != entry.policy

    def _hold(self, entry: ListedKeyspace) -> None:
        keyspace = self._engine.keyspaces.by_id[entry.policy.id]
        if self._holdings.takes(keyspace):
            if keyspace.absent:
                self._engine.fold({keyspace.id: entry.hlcs.get(self._self.site, 0)}, 0)
                self._engine.drops.held_again(keyspace.id)
                keyspace.absent = False
                for link in self._links:
                    self._say_anew(link, keyspace)
            return
        keyspace.absent = True
        self._engine.commit.filling.run = None
        is_free = self._row_sync.intake.give_up(keyspace.id) and not self._holdings.holds(keyspace)
        if is_free and (not keyspace.vector or self._holdings.may_go(entry)):
            self._engine.drops.begin(keyspace)

    def _say_anew(self, link: Link, keyspace: Keyspace) -> None:
        """Of a keyspace that is held again the peer has to hear what is here: nothing.

        If it missed that it was not held, it has sent changes that were passed by, and goes on behind them: a new link begins anew.
        """
        link.told.discard(keyspace.id)
        if keyspace.id in link.passed_by:
            self._links.close(link, f"it sent changes of keyspace {keyspace.name!r} while that was not at this site")

    def _renew(self, link: Link) -> None:
        """Stream on a link what both ends hold now."""
        if link.phase == "greeting" or link.sender is None or link.peer is None:
            return
        self.tell(link)
        self._forget_left(link, link.peer, link.sender)
        shared = self._holdings.shared(link.peer)
        self._row_sync.source.keep(link, shared)
        if link.phase == "data" and link.sender.keyspaces | link.sender.beyond != shared:
            link.sender.begin(shared)
            link.sender.beyond &= shared

    def _forget_left(self, link: Link, peer: Hello, sender: Sender) -> None:
        """What the peer said of keyspaces that it has left: if its site is added again, it says so when it knows.

        A peer that greeted with a newer meta than this node's may know of that already.
        """
        if peer.revision > self._members.revision:
            return
        for entry in self._members.keyspaces.values():
            number = entry.policy.id
            if number in peer.vectors and not entry.counts(peer.actor, peer.site, peer.role):
                del peer.vectors[number]
                sender.has.pop(number, None)
                link.acknowledged.pop(number, None)
