"""Replication of one node: its links, meta, and who has what.

Synchronous: the shell (edgekv/net, or a simulator) tells what happens to connections, when the engine's durable state has moved, and
that time passes; what is to be sent goes out through `Transport`. Nothing here knows a socket.

What goes over a link is told in replication/messages.py, a link's life in link.py. Here is what joins the parts: who may come
(greeting.py), who is a member (membership.py, leader.py), changes (streams.py, sender.py, engine/intake.py), rows instead of changes
(row_sync.py), what all have seen (seen_telling.py). A peer's mistake ends its link with a sentence, and nothing else.
"""

from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspace_entry import Entry
from edgekv.errors import PeerFault
from edgekv.limits import (
    CLOCK_READ_MS,
    LINKS_LOOK_MS,
    PEER_DEAD_MS,
    PEER_HEARTBEAT_MS,
    PEER_VERDICT_MS_MAX,
    SEEN_INTERVAL_MS,
)
from edgekv.replication import hub_time
from edgekv.replication.acks import Acks
from edgekv.replication.conversation import Conversation
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
from edgekv.replication.membership import Membership
from edgekv.replication.messages import Applicant, Heartbeat, parse
from edgekv.replication.repairs import Repairs
from edgekv.replication.returning import Returning
from edgekv.replication.row_sync import RowSync
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
            members=self.members,
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
        self._conversation: Final = Conversation(
            engine=engine,
            cluster=cluster,
            myself=myself,
            members=self.members,
            membership=self.membership,
            leader=self.leader,
            lines=self._lines,
            holdings=self._holdings,
            subscriptions=self._subscriptions,
            greeting=self._greeting,
            streams=self._streams,
            row_sync=self.row_sync,
            hearing=self._hearing,
            hearsay=self._hearsay,
            copies=self.copies,
            wrong_clock=self.wrong_clock,
            links=table,
            now_ms=now_ms,
            monotonic_ms=monotonic_ms,
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
            self._conversation.take(from_link, parse(message))
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
