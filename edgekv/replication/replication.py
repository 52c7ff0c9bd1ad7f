"""Replication of one node: its links, meta, and who has what.

Synchronous: the shell (edgekv/net, or a simulator) tells what happens to connections, when the engine's durable state has moved, and
that time passes; what is to be sent goes out through `Transport`. Nothing here knows a socket.

What goes over a link is told in replication/messages.py, a link's life in link.py, what a peer is sent in sender.py, what it sends in
engine/intake.py. Here is what joins them:

- *Only durable changes leave*, and what came is acknowledged when it is durable here.
- *Meta first.* Both sides stream ``_meta`` before anything else, so that each judges the other by the newest view of the two.
- *Data only with members.* To and from actors that this node's own view of meta holds as open. A node that is not yet one takes no
  clients' writes (``Admission.outsider``): all that it will ever write is stamped above what was deleted before it came.
- A peer's mistake ends its link with a sentence, and nothing else.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID, Head, Keyspace
from edgekv.errors import (
    Corruption,
    CursorLost,
    Denied,
    EdgeKVError,
    Forked,
    FormatUnknown,
    PeerFault,
    Unavailable,
)
from edgekv.ids import Actor, KeyspaceId, Vector, actor_text, node_of
from edgekv.limits import (
    LINKS_LOOK_MS,
    PEER_ACK_BYTES,
    PEER_DEAD_MS,
    PEER_HEARTBEAT_MS,
    PEER_MESSAGE_BYTES,
    PEER_MESSAGES_AT_ONCE,
    PEER_WINDOW_BYTES,
    SEEN_INTERVAL_MS,
)
from edgekv.replication.acks import Acks, Peer
from edgekv.replication.figures import Figures
from edgekv.replication.leader import Leader
from edgekv.replication.link import Link
from edgekv.replication.log_source import LogSource
from edgekv.replication.members import Members
from edgekv.replication.messages import (
    Ack,
    Admit,
    Applicant,
    ChainedVector,
    Heartbeat,
    Hello,
    Join,
    Message,
    Refused,
    Runs,
    Seen,
    SeenList,
    SyncDone,
    SyncGone,
    SyncOffer,
    SyncPiece,
    SyncWant,
    Welcome,
    pack_message,
    parse,
)
from edgekv.replication.row_sync import RowSync
from edgekv.replication.seen import SeenTable, moved
from edgekv.replication.sender import RUN_OVERHEAD_BYTES, Sender
from edgekv.store.lmdb_store import LmdbStore, StoreError
from edgekv.store.spool_transfer import SpoolFolder
from edgekv.wal.record import Changes

SEEN_ENTRIES: Final = 10_000
"""Of vectors, after which a message of SEENs ends: to a new peer all vectors of all members go, which no message could hold."""
_OWN_TROUBLE: Final = (Unavailable, Corruption, CursorLost, FormatUnknown, StoreError, OSError)
"""What goes wrong in this node's log, store or folder while it serves a peer: that link ends, the others go on."""


class Transport(Protocol):
    """What replication asks of the shell."""

    def send(self, link: int, message: bytes) -> None:
        """Send one message. Never blocks."""

    def close(self, link: int, reason: str) -> None:
        """End a connection when what was sent has left; `Replication.disconnected` need not follow."""


class Replication:
    """See the module docstring."""

    def __init__(
        self,
        *,
        engine: Engine,
        source: LogSource,
        cluster: bytes,
        myself: Applicant,
        founder: bool,
        keyspaces: list[dict[str, object]],
        transport: Transport,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        kick: Callable[[], None],
        rolled_back: Callable[[], None],
        acks: Acks,
        store: LmdbStore,
        folder: SpoolFolder,
        entropy: Callable[[int], bytes],
    ) -> None:
        """``founder``: it has no upstream. ``keyspaces``: as WELCOME says them. ``kick``: flush soon. ``rolled_back``: a peer has
        changes of this node that it does not remember; it must go on as another incarnation.
        """
        self._engine: Final = engine
        self._source: Final = source
        self._cluster: Final = cluster
        self._self: Final = myself
        self._founder: Final = founder
        self._keyspace_entries: Final = keyspaces
        self._transport: Final = transport
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms
        self._kick: Final = kick
        self._rolled_back: Final = rolled_back
        self._acks: Final = acks
        self.links: Final[dict[int, Link]] = {}
        self.members: Final = Members(engine)
        self.seen: Final = SeenTable()
        self.leader: Final = Leader(engine, self.members, self.seen, myself)
        self.row_sync: Final = RowSync(
            engine=engine,
            store=store,
            source=source,
            folder=folder,
            floors=self._floors,
            send=self._send,
            refuse=self._refuse,
            note=self._say,
            entropy=entropy,
            now_ms=monotonic_ms,
        )
        self.figures: Final = Figures(
            engine=engine,
            cluster=cluster,
            myself=myself,
            members=self.members,
            seen=self.seen,
            leader=self.leader,
            links=self.links,
            now_ms=now_ms(),
        )
        self._seen_at_ms = 0
        self._looked_at_ms = 0
        self._meta_moved = False
        """By runs whose entries have not been read yet: that costs as much as there are members."""
        self._scanned = 0
        """The link that had its turn last."""
        engine.judges_clocks = myself.role == "hub"
        self.members.refresh()
        self._follow_meta()

    # -- what the shell tells

    def connected(self, link: int, *, outgoing: bool) -> None:
        """A connection is there; ``outgoing``: this node made it."""
        self.links[link] = Link(link, outgoing=outgoing, wall_ms=self._now_ms(), now_ms=self._monotonic_ms())
        self._send(self.links[link], self._hello())

    def remove(self, name: str) -> bool:
        """Take a member out that will not come back (`Leader.remove`). Denied: this node does not lead."""
        if not self.leader.leads:
            leader = next((m.name for m in self.members.open_members() if m.node == self.members.leader), None)
            raise Denied(
                f"this node does not lead the cluster. Ask {leader!r}."
                if leader
                else "there is no cluster to remove it from."
            )
        removed = self.leader.remove(name)
        self._follow_meta()
        self._kick()
        return removed

    def lead(self) -> bool:
        """An operator's word that a leader which was restored need not wait for anybody (`Leader.force`)."""
        led = self.leader.force()
        self._follow_meta()
        self._kick()
        return led

    def disconnected(self, link: int) -> None:
        """A connection is gone."""
        gone = self.links.pop(link, None)
        if gone is not None:
            self._end(gone)

    def received(self, link: int, message: bytes) -> None:
        """What a peer sent, any bytes at all. What must not be ends that link."""
        from_link = self.links.get(link)
        if from_link is None:
            return  # it was closed a moment ago
        from_link.heard_ms = self._monotonic_ms()
        from_link.received_bytes += len(message)
        try:
            self._take(from_link, parse(message))
        except PeerFault as error:
            self._refuse(from_link, error)
        except _OWN_TROUBLE as error:  # the peer will come back
            self._close(from_link, str(error))

    def heard(self, link: int) -> None:
        """A part of a message came: its peer is alive, and the line slow."""
        from_link = self.links.get(link)
        if from_link is not None:
            from_link.heard_ms = self._monotonic_ms()

    def durable(self) -> None:
        """The engine's durable state has moved: acknowledge what came, send what is new."""
        for link in list(self.links.values()):
            self._acknowledge(link)
            self._pump(link)

    def tick(self) -> None:
        """About ten times a second."""
        now, monotonic = self._now_ms(), self._monotonic_ms()
        self.work()
        for link in list(self.links.values()):
            if monotonic - link.heard_ms > PEER_DEAD_MS:
                self._close(link, f"the peer has said nothing for {PEER_DEAD_MS // 1000} s")
                continue
            self._drain(link)
            self._acknowledge(link)
            self._pump(link)
            if monotonic - link.sent_ms >= PEER_HEARTBEAT_MS:
                self._send(link, Heartbeat(now))
        if not 0 <= now - self._seen_at_ms < SEEN_INTERVAL_MS:
            self._seen_at_ms = now
            self._say_seen()
        if not 0 <= now - self._looked_at_ms < LINKS_LOOK_MS:
            self._looked_at_ms = now
            try:
                for link in list(self.links.values()):
                    if link.peer is not None and not self.members.is_open(link.peer.actor):
                        self._apply(link, link.peer)
                if self._engine.admission.read_only is None:
                    self.leader.tick(now, self._vectors())
                self._follow_meta()
            except _OWN_TROUBLE as error:
                self._say(f"what the leader has to do waits: {error}")
            self.figures.look(now)

    def work(self) -> bool:
        """A little of what takes long, a few ms: row syncs (row_sync.py), and looking for what a peer lacks far back in the log.

        Whether there is more, for which `tick` need not be waited for.
        """
        offered = self.row_sync.work(list(self.links.values()))
        if offered:
            for link in list(self.links.values()):
                self._pump(link)
        scanning = self._scanning()
        if scanning:
            link = next((link for link in scanning if link.number > self._scanned), scanning[0])
            self._scanned = link.number
            self._pump(link, scan=True)
        return self.busy

    @property
    def busy(self) -> bool:
        """Whether there is something for `work`."""
        return self.row_sync.busy or bool(self._scanning())

    def _scanning(self) -> list[Link]:
        return [
            link
            for link in self.links.values()
            if link.sender is not None and link.sender.scanning and link.unacknowledged < PEER_WINDOW_BYTES
        ]

    def close(self) -> None:
        """No more links. What row syncs have open is given back. Idempotent."""
        for link in list(self.links):
            self.disconnected(link)
        self.row_sync.close()

    # -- messages

    def _take(self, link: Link, message: Message) -> None:  # noqa: PLR0912 - one arm for each kind of message
        if isinstance(message, Hello):
            self._greeted(link, message)
        elif isinstance(message, Refused):
            self._note(link, f"refused this node: {message.sentence}")
            self._close(link, message.sentence, told=True)
        elif isinstance(message, Join):
            self._send(link, Welcome(self._cluster, self._keyspace_entries))
            self._close(link, "it was told which cluster this is", told=True)
        elif not link.is_up:
            raise PeerFault("it did not say HELLO first.")
        elif isinstance(message, Runs):
            size = sum(len(run.body) + RUN_OVERHEAD_BYTES for run in message.runs)
            if not size or link.inbox_bytes >= PEER_WINDOW_BYTES:
                raise PeerFault(f"it sends although {link.inbox_bytes} bytes are not taken in, or sends nothing.")
            link.inbox.append((message.runs, size))
            link.inbox_bytes += size
            self._drain(link)
        elif isinstance(message, Ack):
            self._acknowledged(link, message)
        elif isinstance(message, SyncOffer | SyncWant | SyncPiece | SyncDone | SyncGone):
            self._sync(link, message)
        elif isinstance(message, SeenList):
            for seen in message.members:
                self.seen.hear(seen)
        elif isinstance(message, Admit):
            assert link.peer is not None
            if link.peer.role != "hub" or not self.members.is_open(link.peer.actor):
                return  # it asks for a leader that was restored, which admits itself, or has no business here
            for applicant in message.applicants:
                with suppress(Denied):  # the hub that asks hears nothing, and its peer waits
                    self._admit(applicant)
        elif isinstance(message, Heartbeat):
            link.skew_ms = message.wall_ms - self._now_ms()
        else:
            raise PeerFault(f"it sent {type(message).__name__}, which was not asked for.")

    def _sync(self, link: Link, message: SyncOffer | SyncWant | SyncPiece | SyncDone | SyncGone) -> None:
        """Rows instead of changes (row_sync.py)."""
        keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(message.keyspace))
        assert link.peer is not None and link.sender is not None
        if keyspace is None or not self._holds(keyspace):
            raise PeerFault(f"it speaks of rows of keyspace {message.keyspace}, which this node does not hold.")
        asks = isinstance(
            message, SyncWant | SyncDone
        )  # as it may whom this node sends changes to: a restored leader, too
        known = self._may_send(link.peer) if asks else self.members.is_open(link.peer.actor)
        if message.keyspace != META_ID and not known:
            raise PeerFault(f"{actor_text(link.peer.actor)} speaks of rows, and is no member that this node knows of.")
        if isinstance(message, SyncOffer):
            for actor, (seq, _) in message.vector.items():
                self._check_late(actor, message.keyspace, seq)
                link.sender.peer_has(
                    message.keyspace, actor, seq
                )  # else it is offered its own rows, behind their BARRIER
            self.row_sync.offered(link, message)
        elif isinstance(message, SyncPiece):
            self.row_sync.piece(link, message)
            self._acknowledge(link)
        elif isinstance(message, SyncWant):
            self.row_sync.wanted(link, message)
            self._pump(link)
        elif isinstance(message, SyncGone):
            self.row_sync.gone(link, message)
        else:
            self.row_sync.done(link, message)
            vector = {actor: seq for actor, (seq, _) in message.vector.items()}
            self._has_durably(link, link.peer, message.keyspace, vector)
            link.sender.begin(self._shared(link.peer) if link.phase == "data" else {META_ID})
            self._pump(link)

    def _hello(self) -> Hello:
        vectors: dict[int, ChainedVector] = {}
        for keyspace in self._held():
            vectors[keyspace.id] = {actor: (head.seq, head.chain) for actor, head in keyspace.vector.items()}
        hlcs: dict[int, int] = {k.id: k.hlc for k in self._held()}
        return Hello(
            *(self._cluster, self._self.node, self._self.actor, self._self.name, self._self.site, self._self.role),
            *(self._now_ms(), self.members.revision, vectors, hlcs, self._engine.checkpoints.ttl_durable_ms),
        )

    def _greeted(self, link: Link, hello: Hello) -> None:
        if link.peer is not None:
            raise PeerFault("it said HELLO twice.")
        if hello.cluster != self._cluster:
            raise PeerFault(
                f"it belongs to cluster {hello.cluster.hex()[:8]}, this node to {self._cluster.hex()[:8]}. "
                "A node joins a cluster with an empty data directory only."
            )
        if hello.node == self._self.node:
            raise PeerFault("it is this node itself, or a copy of its directory that runs as the same incarnation.")
        self._compare(hello)
        if not self._is_wanted(link, hello):
            return
        link.peer, link.skew_ms = hello, hello.wall_ms - self._now_ms()
        has = {k: {actor: seq for actor, (seq, _) in vector.items()} for k, vector in hello.vectors.items()}
        link.acknowledged.update(has)
        link.sender = Sender(self._engine, self._source, has, self._floors)
        link.phase = "meta"
        self._acks.met(_peer(hello), {KeyspaceId(k): vector for k, vector in has.items()})
        self.leader.heard_hello(hello)
        link.sender.begin({META_ID})
        self._apply(link, hello)
        self._pump(link)

    def _compare(self, hello: Hello) -> None:
        """Equal numbers mean equal histories, and nobody knows more of this node than itself."""
        for number, vector in hello.vectors.items():
            keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(number))
            if keyspace is None:
                continue
            own = vector.get(self._self.actor, (0, 0))[0]
            if own > keyspace.seq:
                self._rolled_back()
                raise Forked(
                    f"it has {own} changes of this node in keyspace {keyspace.name!r}, and this node remembers {keyspace.seq}: "
                    "its directory was set back. It goes on as another incarnation."
                )
            for actor, (seq, chain) in vector.items():
                head = keyspace.vector.get(actor, Head(0, 0))
                if seq == head.seq and chain != head.chain:
                    raise Forked(
                        f"it has another history of {actor_text(actor)} in keyspace {keyspace.name!r} up to {seq}: "
                        "a directory was copied and both copies ran."
                    )

    def _is_wanted(self, link: Link, hello: Hello) -> bool:
        """Of two links with one node one goes: the older of one direction, which is dead, or the one that the higher node made."""
        for other in list(self.links.values()):
            if other is link or other.peer is None or other.peer.node != hello.node:
                continue
            keep_mine = self._self.node < hello.node
            if other.outgoing == link.outgoing or other.outgoing != keep_mine:
                self._close(other, "another link with the same node took its place")
            else:
                self._close(link, "there is a link with the same node already")
                return False
        return True

    # -- members

    def _apply(self, link: Link, peer: Hello) -> None:
        """The node at the other end becomes a member, unless it may not be one."""
        member = self.members.members.get(peer.actor)
        if member is not None and (member.site, member.role) != (peer.site, peer.role):
            # What is stable is computed by what meta says that it holds.
            sentence = (
                f"it was admitted as {member.role} of site {member.site!r}, and comes as {peer.role} of {peer.site!r}. "
            )
            self._refuse(link, PeerFault(f"{sentence}Start it as it was, or anew with an empty --data-dir."))
            return
        try:
            self._admit(Applicant(peer.node, peer.actor, peer.name, peer.site, peer.role))
        except Denied as error:
            self._refuse(link, PeerFault(str(error)))

    def _admit(self, applicant: Applicant) -> None:
        """Make a node a member, or have the leader do it."""
        if self._engine.admission.read_only is not None:
            return
        if not self.members.founded and self._founder:
            self.leader.found()
        if self.leader.leads:
            if self.leader.admit(applicant):
                self._follow_meta()
                self._kick()
        elif not self.leader.is_leader and not self.members.is_open(applicant.actor):
            for other in self.links.values():
                if other.peer is not None and other.peer.node == self.members.leader:
                    self._send(other, Admit([applicant]))

    def _follow_meta(self) -> None:
        """Meta may have moved: what this node may do, and with whom."""
        self._meta_moved = False
        self.members.refresh()
        engine, members = self._engine, self.members
        me = members.members.get(self._self.actor)
        if me is not None and me.state == "open" and engine.admission.read_only is None:
            known = engine.keyspaces.by_id
            engine.fold({KeyspaceId(k): hlc for k, hlc in me.hlcs.items() if k in known}, me.ttl_ms)
            engine.admission.outsider = None
        elif members.founded or not self._founder:
            engine.admission.outsider = Unavailable(
                "this node is not a member of its cluster yet: it has to reach a hub once. "
                "Check [[upstream]] and `edgekv cluster status`."
            )
        engine.checkpoints.lone = self._founder and all(m.node == self._self.node for m in members.members.values())
        engine.checkpoints.stable = None if members.announced is None else members.announced.stable
        for link in list(self.links.values()):
            actor = link.peer.actor if link.peer is not None else None
            member = members.members.get(actor) if actor is not None else None
            if member is not None and link.peer is not None and member.state == "open" and link.phase == "meta":
                self._apply(link, link.peer)  # it may not be what it says
            elif member is not None and member.state != "open":
                if not any(other.state == "open" for other in members.of_node(member.node)):
                    self._acks.forget(member.node)
                self._close(
                    link, f"{actor_text(member.actor)} is closed: it was removed, or goes on as another incarnation"
                )

    # -- changes go out

    def _pump(self, link: Link, *, scan: bool = False) -> None:
        """``scan``: it is this link's turn to read on in the log although it has found nothing so far."""
        sender = link.sender
        if sender is None or not link.is_up:
            return
        try:
            if sender.beyond or link.wanted:
                self.row_sync.pump(link)
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
            self._refuse(link, error)
        except _OWN_TROUBLE as error:
            self._close(link, str(error))

    def _send_runs(self, link: Link, runs: list[Changes]) -> None:
        size = sum(len(run.body) + RUN_OVERHEAD_BYTES for run in runs)
        link.charge(size)
        link.sent_changes += sum(run.changes for run in runs)
        self._send(link, Runs(runs))

    def _promote(self, link: Link, sender: Sender) -> bool:
        """Meta is on its way: data may follow, if the peer is a member."""
        assert link.peer is not None
        if link.phase != "meta" or sender.beyond or not sender.at_end or not self._may_send(link.peer):
            return False
        link.phase = "data"
        sender.begin(self._shared(link.peer))
        return True

    def _may_send(self, peer: Hello) -> bool:
        """To members; and to the leader that was restored, which has to learn what it has forgotten."""
        return self.members.is_open(self._self.actor) and (
            self.members.is_open(peer.actor) or peer.node == self.members.leader
        )

    def _shared(self, peer: Hello) -> set[int]:
        return {k.id for k in self._held() if k.id in peer.vectors and k.policy.held_at(peer.site, peer.role)}

    def _acknowledged(self, link: Link, ack: Ack) -> None:
        if ack.bytes > link.sent_bytes:
            raise PeerFault(f"it acknowledges {ack.bytes} bytes, and was sent {link.sent_bytes}.")
        assert link.peer is not None
        link.unacknowledged = link.sent_bytes - ack.bytes
        for keyspace, vector in ack.vectors.items():
            self._has_durably(link, link.peer, keyspace, vector)
        self._pump(link)

    def _has_durably(self, link: Link, peer: Hello, keyspace: int, vector: Vector) -> None:
        known = self._engine.keyspaces.by_id.get(KeyspaceId(keyspace))
        if known is None or vector.get(self._self.actor, 0) > known.seq:
            raise PeerFault(
                "it acknowledges changes that this node has never made."
            )  # later ones must not count as covered
        link.acknowledged.setdefault(keyspace, {}).update(vector)
        self._acks.heard(_peer(peer), KeyspaceId(keyspace), vector)

    # -- and come in

    def _drain(self, link: Link) -> None:
        """Take in what came, as long as the engine has room."""
        admission = self._engine.admission
        if not link.inbox:
            return
        try:
            while link.inbox and not (admission.waits or admission.disk_full or admission.read_only):
                runs, size = link.inbox.popleft()
                link.inbox_bytes -= size
                for run in runs:
                    self._receive(link, run)
                link.taken_bytes += size
                if self._meta_moved:
                    self._follow_meta()
        except PeerFault as error:
            self._refuse(link, error)
            return
        except _OWN_TROUBLE as error:  # what is left of the message comes again on another link
            self._close(link, str(error))
            return
        finally:
            self._kick()
        self._acknowledge(link)

    def _receive(self, link: Link, run: Changes) -> None:
        assert link.peer is not None and link.sender is not None
        if self._meta_moved and run.keyspace != META_ID:
            self._follow_meta()
        keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(run.keyspace))
        if keyspace is None or not self._holds(keyspace):
            raise PeerFault(f"it sent changes of keyspace {run.keyspace}, which this node does not hold.")
        if run.keyspace != META_ID and not self.members.is_open(link.peer.actor):
            raise PeerFault(f"{actor_text(link.peer.actor)} sent data, and is no member that this node knows of.")
        if run.keyspace == META_ID and self.members.founded and node_of(run.actor) != self.members.leader:
            raise PeerFault(f"it sent entries of the cluster's list by {actor_text(run.actor)}, which does not lead.")
        self._check_late(run.actor, run.keyspace, run.first_seq + run.changes - 1)
        if self._engine.receive(run):
            link.received_changes += run.changes
        last_seq = run.first_seq + run.changes - 1
        link.sender.peer_has(run.keyspace, run.actor, last_seq)
        link.undurable[run.keyspace, run.actor] = last_seq
        self._meta_moved |= run.keyspace == META_ID

    def _check_late(self, actor: Actor, keyspace: int, seq: int) -> None:
        """Of an actor that is settled nothing more can turn up: what does may have been deleted, and the deletion forgotten."""
        member = self.members.members.get(actor)
        if member is not None and member.state == "settled" and seq > member.heads.get(keyspace, 0):
            raise PeerFault(
                f"it has changes of {actor_text(actor)} up to {seq}, and the cluster settled what there is of it at "
                f"{member.heads.get(keyspace, 0)}: they come too late. Export what is missed from that node, and start it with an "
                "empty --data-dir."
            )

    def _acknowledge(self, link: Link) -> None:
        """Tell the peer what has become durable, and what it may send again."""
        vectors: dict[int, Vector] = {}
        for (number, actor), seq in list(link.undurable.items()):
            head = self._engine.keyspaces.by_id[KeyspaceId(number)].vector.get(actor)
            if head is not None and head.seq >= seq:
                vectors.setdefault(number, {})[actor] = head.seq
                del link.undurable[number, actor]
        if vectors or link.taken_bytes - link.acked_bytes >= PEER_ACK_BYTES:
            link.acked_bytes = link.taken_bytes
            self._send(link, Ack(link.taken_bytes, vectors))

    # -- who has seen what

    def _say_seen(self) -> None:
        engine = self._engine
        if self.members.is_open(self._self.actor):
            ttl_ms, lsn = engine.checkpoints.ttl_durable_ms, engine.commit.durable_lsn
            self.seen.hear(Seen(self._self.actor, lsn, ttl_ms, self.members.revision, self._vectors()))
        for link in self.links.values():
            if link.peer is not None and link.peer.role == "hub" and link.is_up:
                self._tell_seen(link, link.peer)

    def _tell_seen(self, link: Link, peer: Hello) -> None:
        news: list[Seen] = []
        entries = 0
        for actor, seen in self.seen.by_actor.items():
            known = link.said_seen.get(actor)
            if seen is not known and actor != peer.actor:
                news.append(moved(seen, known))
                link.said_seen[actor] = seen
                entries += sum(map(len, news[-1].vectors.values()))
                if entries >= SEEN_ENTRIES:
                    self._send(link, SeenList(news))
                    news, entries = [], 0
        if news:
            self._send(link, SeenList(news))

    def _vectors(self) -> dict[int, Vector]:
        return {k.id: {actor: head.seq for actor, head in k.vector.items()} for k in self._held()}

    def _floors(self) -> dict[int, Vector]:
        """What of the founder's time alone this node has: its log does not say what was forgotten then."""
        own = self._vectors()
        floors: dict[int, Vector] = {}
        for keyspace, floor in self.members.floors.items():
            vector = own.get(keyspace, {})
            floors[keyspace] = {actor: min(seq, vector[actor]) for actor, seq in floor.items() if actor in vector}
        return floors

    def _held(self) -> list[Keyspace]:
        return [keyspace for keyspace in self._engine.keyspaces.all if self._holds(keyspace)]

    def _holds(self, keyspace: Keyspace) -> bool:
        return keyspace.policy.held_at(self._self.site, self._self.role)

    # -- ends

    def _send(self, link: Link, message: Message) -> None:
        data = pack_message(message)
        link.sent_ms = self._monotonic_ms()
        link.sent_bytes_total += len(data)
        self._transport.send(link.number, data)

    def _refuse(self, link: Link, error: EdgeKVError) -> None:
        self._note(link, str(error))
        if link.number in self.links:
            self._send(link, Refused(error.code, str(error)))
        self._close(link, str(error), told=True)

    def _close(self, link: Link, reason: str, *, told: bool = False) -> None:
        if self.links.pop(link.number, None) is not None:
            if not told:
                self._note(link, reason)
            self._end(link)
            self._transport.close(link.number, reason)

    def _end(self, link: Link) -> None:
        link.phase = "closed"
        if link.sender is not None:
            link.sender.close()
        self.figures.gone(link)

    def _note(self, link: Link, sentence: str) -> None:
        name = link.peer.name if link.peer is not None else f"link {link.number}"
        self.figures.note(self._now_ms(), name, sentence)

    def _say(self, sentence: str) -> None:
        self.figures.note(self._now_ms(), "", sentence)

    # -- figures

    def status(self) -> dict[str, object]:
        """Figures for people and scripts."""
        return self.figures.status(self._now_ms(), self._monotonic_ms())


def _peer(hello: Hello) -> Peer:
    return Peer(hello.node, hello.name, hello.site, hello.role)
