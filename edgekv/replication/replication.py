"""Replication of one node: its links, meta, and who has what.

Synchronous: the shell (edgekv/net, or a simulator) tells what happens to connections, when the engine's durable state has moved, and
that time passes; what is to be sent goes out through `Transport`. Nothing here knows a socket.

What goes over a link is told in replication/messages.py, a link's life in link.py. Here is what joins the parts: who may come
(greeting.py), who is a member (membership.py, leader.py), changes (streams.py, sender.py, engine/intake.py), rows instead of changes
(row_sync.py), what all have seen (seen_telling.py). A peer's mistake ends its link with a sentence, and nothing else.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspace_entry import Entry
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import Denied, PeerFault
from edgekv.ids import KeyspaceId, actor_text
from edgekv.limits import (
    CLOCK_READ_MS,
    LINKS_LOOK_MS,
    PEER_DEAD_MS,
    PEER_HEARTBEAT_MS,
    PEER_VERDICT_MS_MAX,
    SEEN_INTERVAL_MS,
)
from edgekv.replication import hub_time
from edgekv.replication.acks import HUB, Acks
from edgekv.replication.copies import Copies
from edgekv.replication.figures import Figures
from edgekv.replication.greeting import Greeting
from edgekv.replication.hearsay import Hearsay
from edgekv.replication.holdings import Holdings
from edgekv.replication.keyspace_orders import KeyspaceOrders
from edgekv.replication.leader import Leader
from edgekv.replication.lines import Lines
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable, Transport
from edgekv.replication.log_source import LogSource
from edgekv.replication.members import Members
from edgekv.replication.membership import EDGES_ADMIT_NOBODY, Membership
from edgekv.replication.messages import (
    Ack,
    Admit,
    Applicant,
    Heartbeat,
    Hello,
    Holds,
    Join,
    Message,
    OthersHave,
    Refused,
    Return,
    Runs,
    SeenList,
    SyncAsk,
    SyncDone,
    SyncOffer,
    SyncPiece,
    SyncWant,
    Welcome,
    WhoHas,
    parse,
)
from edgekv.replication.repairs import Repairs
from edgekv.replication.returning import Returning
from edgekv.replication.row_sync import RowSync, SyncMessage
from edgekv.replication.seen import SeenTable
from edgekv.replication.seen_hearing import SeenHearing
from edgekv.replication.seen_telling import SeenTelling
from edgekv.replication.silence import Silence
from edgekv.replication.streams import OWN_TROUBLE, Streams
from edgekv.replication.subscriptions import Subscriptions
from edgekv.replication.wrong_clock import WrongClock
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool_transfer import SpoolFolder


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
        remember: Callable[[list[Entry]], None],
        transport: Transport,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        kick: Callable[[], None],
        rolled_back: Callable[[], bool],
        acks: Acks,
        store: LmdbStore,
        folder: SpoolFolder,
        entropy: Callable[[int], bytes],
        max_offline_ms: int,
    ) -> None:
        """``founder``: it has no upstream. ``remember``: write these keyspaces down durably. ``kick``: flush soon. ``rolled_back``: a
        peer has changes of this node that it does not remember; it must go on as another incarnation; whether
        it does. ``max_offline_ms``: see `Silence`.
        """
        self._engine: Final = engine
        self._cluster: Final = cluster
        self._role: Final = myself.role
        self._actor: Final = myself.actor
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms
        self.links: Final[dict[int, Link]] = {}
        self.members: Final = Members(engine)
        self.seen: Final = SeenTable()
        self.silence: Final = Silence(
            self.members, self.seen.spoken, self.links, max_offline_ms=max_offline_ms, monotonic_ms=monotonic_ms
        )
        self.leader: Final = Leader(engine, self.members, self.seen, myself, self.silence, monotonic_ms)
        self.figures: Final = Figures(
            engine=engine,
            cluster=cluster,
            myself=myself,
            members=self.members,
            seen=self.seen,
            leader=self.leader,
            silence=self.silence,
            links=self.links,
            now_ms=now_ms(),
        )
        table = LinkTable(self.links, transport, self.figures, now_ms=now_ms, monotonic_ms=monotonic_ms)
        self._table: Final = table
        self._holdings: Final = Holdings(engine, self.members, myself)
        self._returning: Final = Returning(
            engine=engine, members=self.members, holdings=self._holdings, links=table, actor=myself.actor
        )
        self.copies: Final = Copies(self.links, myself.node)
        table.judge = self.copies.judge
        self.wrong_clock: Final = WrongClock(
            engine, self.members, say=table.say, now_ms=now_ms, monotonic_ms=monotonic_ms
        )
        self.repairs: Final = Repairs(engine=engine, store=store, links=table, now_ms=now_ms, monotonic_ms=monotonic_ms)
        self.row_sync: Final = RowSync(
            engine=engine,
            store=store,
            source=source,
            folder=folder,
            holdings=self._holdings,
            links=table,
            repairs=self.repairs,
            returning=self._returning,
            check_late=self._check_late,
            entropy=entropy,
            now_ms=monotonic_ms,
        )
        self._subscriptions: Final = Subscriptions(
            engine=engine,
            members=self.members,
            holdings=self._holdings,
            myself=myself,
            links=table,
            row_sync=self.row_sync,
            acks=acks,
            remember=remember,
        )
        self.leader.keyspaces.install = self._subscriptions.install
        self._lines: Final = Lines(
            engine=engine,
            members=self.members,
            table=self.seen,
            links=table,
            give_up_rows=self.row_sync.intake.give_up,
            node=myself.node,
        )
        self.membership: Final = Membership(
            engine=engine,
            members=self.members,
            leader=self.leader,
            myself=myself,
            founder=founder,
            links=table,
            acks=acks,
            kick=kick,
            subscriptions=self._subscriptions,
            lines=self._lines,
        )
        self._greeting: Final = Greeting(
            engine=engine,
            cluster=cluster,
            myself=myself,
            members=self.members,
            holdings=self._holdings,
            links=table,
            seen=self.seen,
            now_ms=now_ms,
            rolled_back=rolled_back,
        )
        self._hearsay: Final = Hearsay(
            engine=engine,
            acks=acks,
            table=self.seen,
            members=self.members,
            holdings=self._holdings,
            links=table,
            myself=myself,
            now_ms=monotonic_ms,
        )
        acks.asked = self._hearsay.ask
        self._streams: Final = Streams(
            engine=engine,
            source=source,
            myself=myself,
            members=self.members,
            membership=self.membership,
            holdings=self._holdings,
            row_source=self.row_sync.source,
            lines=self._lines,
            links=table,
            acks=acks,
            hearsay=self._hearsay,
            kick=kick,
        )
        self._telling: Final = SeenTelling(
            engine=engine,
            table=self.seen,
            members=self.members,
            holdings=self._holdings,
            links=table,
            actor=myself.actor,
        )
        self._hearing: Final = SeenHearing(
            engine=engine,
            table=self.seen,
            members=self.members,
            heard=self._hearsay.heard_of,
            gone=self._hearsay.gone,
            is_astray=self._lines.is_astray,
        )
        self._seen_at_ms = 0
        self._looked_at_ms = 0
        self._counts = False
        """Whether it is time to count what others lack."""
        engine.conflicts.is_late = self.figures.is_late
        engine.flips.dropped = self._returning.dropped
        engine.checkpoints.held_lsn = self.row_sync.source.held_lsn
        engine.judges_clocks = myself.role == "hub"
        if myself.role != "hub":
            engine.commit.stamp_ms = self._stamp_ms
        self.members.refresh()
        self.membership.follow_meta()

    @property
    def keyspaces(self) -> KeyspaceOrders:
        """What an operator may ask about keyspaces."""
        return self.leader.keyspaces

    # -- what the shell tells

    def connected(self, link: int, *, outgoing: bool) -> None:
        """A connection is there; ``outgoing``: this node made it."""
        opened = self._table.open(link, outgoing=outgoing)
        if self._lines.is_going:
            return  # it ends at the next tick
        hello = self._greeting.hello()
        opened.told.update(hello.vectors)
        self._table.send(opened, hello)

    def disconnected(self, link: int) -> None:
        """A connection is gone."""
        self._table.gone(link)

    def received(self, link: int, message: bytes) -> None:
        """What a peer sent, any bytes at all. What must not be ends that link."""
        from_link = self.links.get(link)
        if from_link is None or self._lines.is_going:
            return  # it was closed a moment ago, or is about to be
        from_link.heard_ms = self._monotonic_ms()
        from_link.received_bytes += len(message)
        try:
            self._take(from_link, parse(message))
        except PeerFault as error:
            self._table.refuse(from_link, error)
        except OWN_TROUBLE as error:  # the peer will come back
            self._table.close(from_link, str(error))

    def trouble(self, sentence: str) -> None:
        """Something went wrong with a connection that is no link."""
        self._table.say(sentence)

    def heard(self, link: int) -> None:
        """A part of a message came: its peer is alive, and the line slow."""
        from_link = self.links.get(link)
        if from_link is not None:
            from_link.heard_ms = self._monotonic_ms()

    def is_idle(self, link: int) -> bool:
        """Whether a peer is a hub that is no member, or not yet: no data goes over the link, whatever this node is.

        A node that knows of no cluster yet cannot tell, nor one that is not told yet what the peer knows of it.
        """
        known = self.links.get(link)
        if known is None or known.peer is None or known.phase != "meta" or not self.members.founded:
            return False
        is_told = known.astray or self.members.revision >= known.peer.revision  # of another line it is told nothing
        return is_told and not self.members.is_open(known.peer.actor)

    def durable(self) -> None:
        """The engine's durable state has moved: acknowledge what came, send what is new."""
        for link in self._table:
            self._streams.acknowledge(link)
            self._streams.pump(link)

    def tick(self) -> None:
        """About ten times a second."""
        now, monotonic = self._now_ms(), self._monotonic_ms()
        self.work()
        self.repairs.look()
        if self._lines.is_going:
            self._lines.close_all()
        self._hearsay.tick()
        for link in self._table:
            if monotonic - link.heard_ms > PEER_DEAD_MS:
                self._table.close(link, f"the peer has said nothing for {PEER_DEAD_MS // 1000} s")
                continue
            if link.untaken_ms is not None and monotonic - link.untaken_ms > PEER_VERDICT_MS_MAX:
                self._table.close(link, "it has another history of this node than this node has, and does not say so")
                continue
            self._streams.drain(link)
            self._streams.acknowledge(link)
            self._streams.pump(link)
            self._beat(link, now, monotonic)
        if not 0 <= now - self._seen_at_ms < SEEN_INTERVAL_MS:
            self._seen_at_ms = now
            self._tell_seen()
        else:
            self._telling.pay()
        self.seen.lowest.turn()
        if not 0 <= now - self._looked_at_ms < LINKS_LOOK_MS:
            self._looked_at_ms = now
            self.seen.arrivals.forget_said(self.seen.said, self.members.is_open)
            self._look(now)
        else:
            self._catch_up(now)

    def work(self) -> bool:
        """A little of what takes long, a few ms: row syncs (row_sync.py), and looking for what a peer lacks far back in the log.

        Whether there is more, for which `tick` need not be waited for.
        """
        if self.row_sync.work(list(self.links.values())):
            for link in self._table:
                self._streams.pump(link)
        self._streams.scan()
        return self.busy

    @property
    def busy(self) -> bool:
        """Whether there is something for `work`."""
        return self.row_sync.busy or bool(self._streams.scanning())

    def close(self) -> None:
        """No more links. What row syncs have open is given back. Idempotent."""
        for link in list(self.links):
            self.disconnected(link)
        self.row_sync.close()

    def status(self) -> dict[str, object]:
        """Figures for people and scripts."""
        return {
            **self.figures.status(self._now_ms(), self._monotonic_ms()),
            "repairs": self.repairs.status(),
            "aside": self.copies.aside,
            "refused_stamps": self.wrong_clock.status(),
        }

    def _tell_seen(self) -> None:
        """What is said of a revision is said by a node that follows it: it makes no change any more where its site was taken off."""
        try:
            self.membership.follow_meta()
            self._hearing.begin_again()
            self._telling.tell()
        except OWN_TROUBLE as error:
            self._table.say(f"what this node has seen is not said: {error}")

    # -- clocks

    def _beat(self, link: Link, now: int, monotonic: int) -> None:
        said = link.clock.said_at_ms
        if link.is_up and (said is None or monotonic - said >= CLOCK_READ_MS):
            self._table.send(link, Heartbeat(now, *link.clock.say(monotonic)))
        elif monotonic - link.sent_ms >= PEER_HEARTBEAT_MS:
            self._table.send(link, Heartbeat(now))

    def _read_clock(self, link: Link, wall_ms: int, round_trip_ms: int | None) -> None:
        if link.peer is not None and link.peer.role == "hub":
            link.clock.reading = hub_time.read(link.clock.reading, wall_ms, round_trip_ms, self._monotonic_ms())

    def _stamp_ms(self) -> int:
        """The hubs' time while one is linked that is a member, else the own clock."""
        hubs = [
            link.clock.reading
            for link in self.links.values()
            if link.clock.reading is not None and link.peer is not None and self.members.is_open(link.peer.actor)
        ]
        return hub_time.stamp_ms(hubs, self._now_ms(), self._monotonic_ms())

    # -- once a second

    def _look(self, now: int) -> None:
        try:
            self.membership.apply_all()
            for link in self._table:
                if link.is_up:
                    self._hearing.take(link)
            self._hearing.begin_again()
            self._hearing.forget_settled()
            self.seen.prove(self._holdings.vectors())
            if self._engine.admission.read_only is None:
                self.leader.tick(now, self._holdings.vectors())
            self.membership.follow_meta()
            self._returning.tell()
        except OWN_TROUBLE as error:
            self._table.say(f"what the leader has to do waits: {error}")
        if self.members.unreadable is not None:
            self._table.say(f"it goes on with the members as they were: {self.members.unreadable}")
        self._counts = True

    def _catch_up(self, now: int) -> None:
        """Of what is done once a second and takes long where there are many members, a part."""
        if self._counts:
            self._counts = False
            self.figures.look(now)
        elif self.seen.unproved:
            self.seen.prove(self._holdings.vectors())
        if self.leader.leads:
            self.seen.lowest.catch_up()

    # -- messages

    def _take(self, link: Link, message: Message) -> None:  # noqa: PLR0912 - one arm for each kind of message
        self.wrong_clock.look(link)
        if isinstance(message, Hello):
            self._greeted(link, message)
        elif isinstance(message, Refused):
            self._table.note(link, f"refused this node: {message.sentence}")
            self.copies.refused(link, message)
            self._table.close(link, message.sentence, told=True)
        elif isinstance(message, Join):
            self._asked_to_join(link)
        elif not link.is_up:
            if not link.node:
                raise PeerFault("it did not say HELLO first.")
            # What it said was not taken, and why is what it has to tell (`Greeting.accepts`).
        elif link.astray and isinstance(message, Runs | SeenList | Admit | Return | SyncOffer | SyncPiece):
            pass  # it takes meta anew when it has seen that of this node, and comes again
        elif link.owes_word and isinstance(message, SyncOffer | SyncPiece):
            pass  # it is asked again when the meta that it came with is here
        elif isinstance(message, Runs):
            self._streams.came(link, message.runs)
        elif isinstance(message, Ack):
            self._streams.acknowledged(link, message)
        elif isinstance(message, SyncMessage):
            self._sync(link, message)
        elif isinstance(message, SeenList | Holds):
            self._heard(link, message)
        elif isinstance(message, Admit):
            self._asked_to_admit(link, message)
        elif isinstance(message, WhoHas | OthersHave):
            self._hearsay.take(link, message)
        elif isinstance(message, Return):
            self._asked_to_return(link, message)
        elif isinstance(message, Heartbeat):
            link.clock.skew_ms = message.wall_ms - self._now_ms()
            round_trip_ms = link.clock.hear(*message[1:], self._monotonic_ms())
            self._read_clock(link, message.wall_ms, round_trip_ms)
        else:
            raise PeerFault(f"it sent {type(message).__name__}, which was not asked for.")

    def _heard(self, link: Link, message: SeenList | Holds) -> None:
        if isinstance(message, SeenList):
            self._hearing.check(link, message.members)
            for seen in message.members:
                if seen.actor == self._actor:
                    self._greeting.compare_word(link, seen)
            self._hearing.heard(link, message.members)
            return
        assert link.peer is not None
        self._greeting.compare(link, link.peer._replace(vectors=message.vectors))
        self._subscriptions.heard(link, message)

    def _greeted(self, link: Link, hello: Hello) -> None:
        self._hearing.begin_again()
        if not self._greeting.accepts(link, hello):
            link.untaken_ms = self._monotonic_ms()
            return
        link.peer, link.clock.skew_ms = hello, hello.wall_ms - self._now_ms()
        link.astray = self._lines.strays(hello.vectors.get(META_ID, {}))
        self._read_clock(link, hello.wall_ms, None)
        self.wrong_clock.look(link)
        self._streams.begin(link, hello)
        self._subscriptions.tell(link)
        self.leader.heard_hello(self._lines.without_astray(hello))
        self.membership.apply(link, hello)
        self._streams.pump(link)

    def _asked_to_join(self, link: Link) -> None:
        if self._role != HUB:
            raise PeerFault(EDGES_ADMIT_NOBODY)
        self._table.send(link, Welcome(self._cluster, self._subscriptions.entries()))
        self._table.close(link, "", told=True)

    def _asked_to_admit(self, link: Link, message: Admit) -> None:
        assert link.peer is not None
        if link.peer.role != "hub" or not self.members.is_open(link.peer.actor):
            return  # it asks for a leader that was restored, which admits itself, or has no business here
        for applicant in message.applicants:
            with suppress(Denied):  # the hub that asks hears nothing, and its peer waits
                self.membership.admit(applicant, late=message.late)

    def _asked_to_return(self, link: Link, message: Return) -> None:
        assert link.peer is not None
        if link.peer.actor == message.actor:
            link.need = link.need or {}
        elif link.peer.role != "hub" or not self.members.is_open(link.peer.actor):
            return
        self.membership.returned(message)
        self._streams.pump(link)

    def _sync(self, link: Link, message: SyncMessage) -> None:
        """Rows instead of changes (row_sync.py)."""
        keyspace = self._engine.keyspaces.by_id.get(KeyspaceId(message.keyspace))
        assert link.peer is not None and link.sender is not None
        # It may ask as whom this node sends changes to may: a restored leader, too.
        asks = isinstance(message, SyncWant | SyncDone | SyncAsk)
        if keyspace is not None and not asks and self._holdings.left(keyspace):
            return  # it was offered when the site had not been taken off it
        if keyspace is None or not self._holdings.holds(keyspace):
            raise PeerFault(f"it speaks of rows of keyspace {message.keyspace}, which this node does not hold.")
        if asks and message.keyspace not in self._holdings.shared(link.peer):
            return  # its site was taken off it: no more rows go there
        known = self.membership.may_send(link) if asks else self.members.is_open(link.peer.actor)
        if message.keyspace != META_ID and not known:
            raise PeerFault(f"{actor_text(link.peer.actor)} speaks of rows, and is no member that this node knows of.")
        if isinstance(message, SyncOffer):
            self._check_late(link, message)
            for actor, (seq, _) in message.vector.items():
                # Else it is offered its own rows, behind their BARRIER.
                link.sender.peer_has(message.keyspace, actor, seq)
        self.row_sync.take(link, message)
        if isinstance(message, SyncPiece):
            self._streams.acknowledge(link)
        elif isinstance(message, SyncWant | SyncAsk):
            self._streams.pump(link)
        elif isinstance(message, SyncDone):
            vector = {actor: seq for actor, (seq, _) in message.vector.items()}
            self._streams.resume(link, message.keyspace, vector)

    def _check_late(self, link: Link, offer: SyncOffer) -> None:
        """Whether a peer's rows may come in: once it is closed, what it was on the way to bring is settled without them."""
        assert link.peer is not None
        if offer.keyspace != META_ID and not self.members.is_open(link.peer.actor):
            raise PeerFault(f"{actor_text(link.peer.actor)} sent rows, and is no member any more.")
        for actor, (seq, _) in offer.vector.items():
            self.membership.check_late(actor, offer.keyspace, seq)
