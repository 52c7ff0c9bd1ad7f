"""What a peer says, and what becomes of it: one message of one link at a time.

Who is not greeted says HELLO first; who has to explain itself is heard in nothing that rests on it. Each message then goes to the part
that it concerns. A mistake of the peer is a PeerFault: the caller ends the link with it, and nothing else.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import Denied, PeerFault
from edgekv.ids import KeyspaceId, actor_text
from edgekv.replication import hub_time
from edgekv.replication.acks import HUB
from edgekv.replication.copies import Copies
from edgekv.replication.greeting import Greeting
from edgekv.replication.hearsay import Hearsay
from edgekv.replication.holdings import Holdings
from edgekv.replication.late_changes import check_offer
from edgekv.replication.leader import Leader
from edgekv.replication.lines import Lines
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
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
)
from edgekv.replication.row_sync import RowSync, SyncMessage
from edgekv.replication.seen_hearing import SeenHearing
from edgekv.replication.streams import Streams
from edgekv.replication.subscriptions import Subscriptions
from edgekv.replication.wrong_clock import WrongClock


class Conversation:
    """Of one node with its peers."""

    def __init__(
        self,
        *,
        engine: Engine,
        cluster: bytes,
        myself: Applicant,
        members: Members,
        membership: Membership,
        leader: Leader,
        lines: Lines,
        holdings: Holdings,
        subscriptions: Subscriptions,
        greeting: Greeting,
        streams: Streams,
        row_sync: RowSync,
        hearing: SeenHearing,
        hearsay: Hearsay,
        copies: Copies,
        wrong_clock: WrongClock,
        links: LinkTable,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self._engine: Final = engine
        self._cluster: Final = cluster
        self._self: Final = myself
        self._members: Final = members
        self._membership: Final = membership
        self._leader: Final = leader
        self._lines: Final = lines
        self._holdings: Final = holdings
        self._subscriptions: Final = subscriptions
        self._greeting: Final = greeting
        self._streams: Final = streams
        self._row_sync: Final = row_sync
        self._hearing: Final = hearing
        self._hearsay: Final = hearsay
        self._copies: Final = copies
        self._wrong_clock: Final = wrong_clock
        self._links: Final = links
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms

    def take(self, link: Link, message: Message) -> None:  # noqa: PLR0912 - one arm for each kind of message
        """A message came over a link. Raises what ends that: PeerFault, and this node's own trouble (streams.py)."""
        self._wrong_clock.look(link)
        if isinstance(message, Hello):
            self._greeted(link, message)
        elif isinstance(message, Refused):
            self._links.note(link, f"refused this node: {message.sentence}")
            self._copies.refused(link, message)
            self._links.close(link, message.sentence, told=True)
        elif isinstance(message, Join):
            self._asked_to_join(link)
        elif not link.is_up:
            if not link.node:
                raise PeerFault("it did not say HELLO first.")
            # What it said was not taken, and why is what it has to tell (`Greeting.accepts`).
        elif link.astray and isinstance(message, Runs | SeenList | Admit | Return | SyncOffer | SyncPiece):
            pass  # it takes meta anew when it has seen that of this node, and comes again
        elif link.owes_word and isinstance(message, SyncOffer | SyncPiece) and message.keyspace != META_ID:
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
                if seen.actor == self._self.actor:
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
        self._wrong_clock.look(link)
        self._streams.begin(link, hello)
        self._subscriptions.tell(link)
        self._leader.heard_hello(self._lines.without_astray(hello))
        self._membership.apply(link, hello)
        self._streams.pump(link)

    def _read_clock(self, link: Link, wall_ms: int, round_trip_ms: int | None) -> None:
        if link.peer is not None and link.peer.role == "hub":
            link.clock.reading = hub_time.read(link.clock.reading, wall_ms, round_trip_ms, self._monotonic_ms())

    def _asked_to_join(self, link: Link) -> None:
        if self._self.role != HUB:
            raise PeerFault(EDGES_ADMIT_NOBODY)
        self._links.send(link, Welcome(self._cluster, self._subscriptions.entries()))
        self._links.close(link, "", told=True)

    def _asked_to_admit(self, link: Link, message: Admit) -> None:
        assert link.peer is not None
        if link.peer.role != "hub" or not self._members.is_open(link.peer.actor):
            return  # it asks for a leader that was restored, which admits itself, or has no business here
        for applicant in message.applicants:
            with suppress(Denied):  # the hub that asks hears nothing, and its peer waits
                self._membership.admit(applicant, late=message.late)

    def _asked_to_return(self, link: Link, message: Return) -> None:
        assert link.peer is not None
        if link.peer.actor == message.actor:
            link.need = link.need or {}
        elif link.peer.role != "hub" or not self._members.is_open(link.peer.actor):
            return
        self._membership.returned(message)
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
        known = self._membership.may_send(link) if asks else self._members.is_open(link.peer.actor)
        if message.keyspace != META_ID and not known:
            raise PeerFault(f"{actor_text(link.peer.actor)} speaks of rows, and is no member that this node knows of.")
        if isinstance(message, SyncOffer):
            check_offer(self._members, link, message)
            for actor, (seq, _) in message.vector.items():
                # Else it is offered its own rows, behind their BARRIER.
                link.sender.peer_has(message.keyspace, actor, seq)
        self._row_sync.take(link, message)
        if isinstance(message, SyncPiece):
            self._streams.acknowledge(link)
        elif isinstance(message, SyncWant | SyncAsk):
            self._streams.pump(link)
        elif isinstance(message, SyncDone):
            vector = {actor: seq for actor, (seq, _) in message.vector.items()}
            self._streams.resume(link, message.keyspace, vector)
