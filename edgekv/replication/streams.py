"""Changes on the links: what leaves, what comes in, and the acknowledgements of both.

- *Only durable changes leave*, and what came is acknowledged when it is durable here.
- *Meta first.* Both sides stream ``_meta`` before anything else, so that each judges the other by the newest view of the two.
- A link that has no more credit waits, and nobody else does.
"""

from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import Corruption, CursorLost, FormatUnknown, PeerFault, Unavailable
from edgekv.ids import Actor, KeyspaceId, Vector, actor_text, node_of
from edgekv.limits import (
    PEER_ACK_BYTES,
    PEER_MESSAGE_BYTES,
    PEER_MESSAGES_AT_ONCE,
    PEER_WINDOW_BYTES,
    VECTOR_ENTRIES_MAX,
)
from edgekv.replication.acks import Acks, peer_of
from edgekv.replication.hearsay import Hearsay
from edgekv.replication.holdings import Holdings
from edgekv.replication.late_changes import check_late
from edgekv.replication.lines import Lines
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import LogSource
from edgekv.replication.members import Members
from edgekv.replication.membership import Membership
from edgekv.replication.messages import Ack, Applicant, Hello, Runs
from edgekv.replication.row_source import RowSource
from edgekv.replication.sender import RUN_OVERHEAD_BYTES, Sender
from edgekv.store.lmdb_store import StoreError
from edgekv.wal.record import Changes

OWN_TROUBLE: Final = (Unavailable, Corruption, CursorLost, FormatUnknown, StoreError, OSError)
"""What goes wrong in this node's log, store or folder while it serves a peer: that link ends, the others go on."""


class Streams:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        source: LogSource,
        myself: Applicant,
        members: Members,
        membership: Membership,
        holdings: Holdings,
        row_source: RowSource,
        lines: Lines,
        links: LinkTable,
        acks: Acks,
        hearsay: Hearsay,
        kick: Callable[[], None],
    ) -> None:
        """``kick``: see `Replication`."""
        self._engine: Final = engine
        self._source: Final = source
        self._self: Final = myself
        self._members: Final = members
        self._membership: Final = membership
        self._holdings: Final = holdings
        self._row_source: Final = row_source
        self._lines: Final = lines
        self._links: Final = links
        self._acks: Final = acks
        self._hearsay: Final = hearsay
        self._kick: Final = kick
        self._scanned = 0
        """The link that had its turn last."""

    # -- changes go out

    def begin(self, link: Link, hello: Hello) -> None:
        """A peer has greeted: what it has is known, and meta goes first."""
        has = {k: {actor: seq for actor, (seq, _) in vector.items()} for k, vector in hello.vectors.items()}
        link.acknowledged.update(has)
        link.sender = Sender(self._engine, self._source, has, self._holdings.floors)
        link.phase = "meta"
        self._membership.count(link)
        for keyspace, vector in has.items():
            self._hearsay.has(hello.actor, keyspace, vector)
        link.sender.begin({META_ID})

    def resume(self, link: Link, keyspace: int, vector: Vector) -> None:
        """A peer has taken rows of a keyspace in: changes go on from there."""
        assert link.peer is not None and link.sender is not None
        self._has_durably(link, link.peer, keyspace, vector)
        link.sender.begin(self._holdings.shared(link.peer) if link.phase == "data" else {META_ID})
        self.pump(link)

    def pump(self, link: Link, *, scan: bool = False) -> None:
        """Send what is new, as far as the credit goes.

        ``scan``: it is this link's turn to read on in the log although it has found nothing so far.
        """
        sender = link.sender
        if sender is None or not link.is_up:
            return
        try:
            if sender.beyond or link.wanted or link.asked:
                self._row_source.pump(link)
            for _ in range(PEER_MESSAGES_AT_ONCE):
                if link.unacknowledged >= PEER_WINDOW_BYTES or (sender.scanning and not scan):
                    return
                scan = False
                runs = sender.take(PEER_MESSAGE_BYTES)
                if runs:
                    self._send_runs(link, runs)
                elif not self._promote(link, sender):
                    return
        except PeerFault as error:
            self._links.refuse(link, error)
        except OWN_TROUBLE as error:
            self._links.close(link, str(error))

    def scan(self) -> None:
        """The next link's turn to look for what its peer lacks far back in the log."""
        scanning = self.scanning()
        if scanning:
            link = next((link for link in scanning if link.number > self._scanned), scanning[0])
            self._scanned = link.number
            self.pump(link, scan=True)

    def scanning(self) -> list[Link]:
        """Links that have their turn to come."""
        return [
            link
            for link in self._links
            if link.sender is not None and link.sender.scanning and link.unacknowledged < PEER_WINDOW_BYTES
        ]

    def acknowledged(self, link: Link, ack: Ack) -> None:
        """A peer has something durably. PeerFault: it cannot."""
        if ack.bytes > link.sent_bytes:
            raise PeerFault(f"it acknowledges {ack.bytes} bytes, and was sent {link.sent_bytes}.")
        assert link.peer is not None
        link.unacknowledged = link.sent_bytes - ack.bytes
        for keyspace, vector in ack.vectors.items():
            self._has_durably(link, link.peer, keyspace, vector)
        self.pump(link)

    def _send_runs(self, link: Link, runs: list[Changes]) -> None:
        link.charge(_size(runs))
        link.sent_changes += sum(run.changes for run in runs)
        self._links.send(link, Runs(runs))

    def _promote(self, link: Link, sender: Sender) -> bool:
        """Meta is on its way: data may follow, if the peer is a member."""
        assert link.peer is not None
        told = self._members.revision >= link.peer.revision  # else this node may be parked, and not know it yet
        if told and link.owes_word:
            self._membership.ask_again(link)
            return False
        ready = told and link.phase == "meta" and not sender.beyond and sender.at_end
        if not ready or not self._membership.may_send(link):
            return False
        link.phase = "data"
        shared, need = self._holdings.shared(link.peer), self._membership.need_of(link)
        if need is not None:
            link.need, link.return_revision = need, self._members.members[link.peer.actor].revision
            sender.rows_first = True
        sender.begin(shared)
        return True

    def _has_durably(self, link: Link, peer: Hello, keyspace: int, vector: Vector) -> None:
        known = self._engine.keyspaces.by_id.get(KeyspaceId(keyspace))
        if known is None or vector.get(self._self.actor, 0) > known.seq:
            raise PeerFault(
                "it acknowledges changes that this node has never made."
            )  # later ones must not count as covered
        acknowledged = link.acknowledged.setdefault(keyspace, {})
        acknowledged.update(vector)
        if len(acknowledged) > VECTOR_ENTRIES_MAX:
            raise PeerFault(f"it acknowledges changes of more than {VECTOR_ENTRIES_MAX} actors.")
        if link.counts and not self._members.has_left(peer.actor, peer.revision, keyspace):
            self._acks.heard(peer_of(peer), KeyspaceId(keyspace), vector)
        self._hearsay.has(peer.actor, keyspace, vector)

    # -- and come in

    def came(self, link: Link, runs: list[Changes]) -> None:
        """Changes of a peer, to be taken in when there is room. PeerFault: it sends more than it may."""
        size = _size(runs)
        if not size or link.inbox_bytes >= PEER_WINDOW_BYTES:
            raise PeerFault(f"it sends although {link.inbox_bytes} bytes are not taken in, or sends nothing.")
        link.inbox.append((runs, size))
        link.inbox_bytes += size
        self.drain(link)

    def drain(self, link: Link) -> None:
        """Take in what came, as long as the engine has room."""
        admission, flips = self._engine.admission, self._engine.flips
        if not link.inbox:
            return
        try:
            while link.inbox and link.is_up and not (admission.blocked or admission.disk_full or admission.read_only):
                if flips.holds(link.inbox[0][0]) or (link.owes_word and not _is_meta(link.inbox[0][0])):
                    break
                runs, size = link.inbox.popleft()
                link.inbox_bytes -= size
                for run in runs:
                    self._receive(link, run)
                if link.astray:
                    link.inbox.clear()
                    link.inbox_bytes = 0  # as what comes from now on: it is sent meta, and nothing else
                    break
                link.taken_bytes += size
                if self._membership.meta_moved:
                    self._membership.follow_meta()
        except PeerFault as error:
            self._links.refuse(link, error)
            return
        except OWN_TROUBLE as error:  # what is left of the message comes again on another link
            self._links.close(link, str(error))
            return
        finally:
            self._kick()
        if link.is_up:
            self.acknowledge(link)

    def acknowledge(self, link: Link) -> None:
        """Tell the peer what has become durable, and what it may send again."""
        vectors: dict[int, Vector] = {}
        for (number, actor), seq in list(link.undurable.items()):
            head = self._engine.keyspaces.by_id[KeyspaceId(number)].vector.get(actor)
            if head is not None and head.seq >= seq:
                vectors.setdefault(number, {})[actor] = head.seq
                del link.undurable[number, actor]
        if vectors or link.taken_bytes - link.acked_bytes >= PEER_ACK_BYTES:
            link.acked_bytes = link.taken_bytes
            self._links.send(link, Ack(link.taken_bytes, vectors))

    def _receive(self, link: Link, run: Changes) -> None:
        assert link.peer is not None and link.sender is not None
        if self._membership.meta_moved and run.keyspace != META_ID:
            self._membership.follow_meta()
        if not link.is_up or link.astray:
            return
        last_seq = run.first_seq + run.changes - 1
        if run.keyspace == META_ID and self._lines.is_astray(run.actor, last_seq):
            link.astray = True
            return
        keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(run.keyspace))
        if keyspace is not None and (keyspace.id in link.passed_by or self._holdings.left(keyspace)):
            link.passed_by.add(keyspace.id)
            return  # it was on its way when the site was taken off: no copy of it is kept, and none acknowledged
        self._check(link.peer.actor, run)
        if self._engine.receive(run):
            link.received_changes += run.changes
        link.sender.peer_has(run.keyspace, run.actor, last_seq)
        link.undurable[run.keyspace, run.actor] = last_seq
        self._membership.meta_moved |= run.keyspace == META_ID

    def _check(self, peer: Actor, run: Changes) -> None:
        """Whether it may come from there."""
        keyspace, members = self._engine.keyspaces.by_id.get(KeyspaceId(run.keyspace)), self._members
        if keyspace is None or not self._holdings.holds(keyspace):
            raise PeerFault(f"it sent changes of keyspace {run.keyspace}, which this node does not hold.")
        if run.keyspace != META_ID and not members.is_open(peer):
            raise PeerFault(f"{actor_text(peer)} sent data, and is no member that this node knows of.")
        if run.keyspace == META_ID and members.founded and node_of(run.actor) != members.leader:
            raise PeerFault(f"it sent entries of the cluster's list by {actor_text(run.actor)}, which does not lead.")
        check_late(members, run.actor, run.keyspace, run.first_seq + run.changes - 1)


def _is_meta(runs: list[Changes]) -> bool:
    return all(run.keyspace == META_ID for run in runs)


def _size(runs: list[Changes]) -> int:
    return sum(len(run.body) + RUN_OVERHEAD_BYTES for run in runs)
