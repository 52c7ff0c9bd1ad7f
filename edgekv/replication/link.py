"""One link to a peer: greeting, what it sends, what it takes in, its credit and its silence.

A link's life: *greeting* (HELLO goes out, one comes in) -> *meta* (only ``_meta`` is streamed, both ways) -> *data* (all keyspaces
that both hold), as soon as the peer's actor is open in this node's view of meta and the meta that the peer lacked is on its way. So
whoever gets data of an actor has been told before that it is a member.

Credit: what was sent and is not yet taken in by the peer has a bound. A peer whose disk or memory is full takes nothing more in; its
link waits by that, its heartbeats do not.
"""

from collections import deque
from typing import Final, Literal

from edgekv.ids import Actor, Vector
from edgekv.replication.hub_time import PeerClock
from edgekv.replication.messages import Hello, Seen, SyncOffer
from edgekv.replication.sender import Sender
from edgekv.wal.record import Changes

Phase = Literal["greeting", "meta", "data", "closed"]


class SeenWords:
    """SEENs on one link (replication/seen_telling.py, seen_hearing.py)."""

    def __init__(self) -> None:
        self.owed: dict[Actor, None] | None = None
        """Members whose SEENs go out here whole; None: nothing was said yet."""
        self.waiting: Final[list[Seen]] = []
        """SEENs that came and name what is not known here."""


class Link:
    """State of one link. replication/replication.py moves it."""

    def __init__(self, number: int, *, outgoing: bool, wall_ms: int, now_ms: int) -> None:
        """``now_ms``: monotonic, as all times here but ``since_ms``: silence is not measured by clocks that are set."""
        self.number: Final = number
        self.outgoing: Final = outgoing
        self.phase: Phase = "greeting"
        self.peer: Hello | None = None
        self.name = ""
        """Of the other node, as it says; empty before that."""
        self.sender: Sender | None = None
        self.node, self.role = b"", ""
        """The peer's, as it says in its HELLO, whatever comes of it."""
        self.untaken_ms: int | None = None
        """When its HELLO came, if it was not taken and the peer has to say why."""
        self.since_ms: Final = wall_ms
        self.sent_ms = now_ms
        self.heard_ms = now_ms
        self.clock: Final = PeerClock()
        self.is_judged = False
        """Whether this node has looked what its own stamps are by this peer's clock (replication/wrong_clock.py)."""
        self.skew_ms = 0
        """The peer's wall clock less this node's, when it last spoke, the way between them included."""
        self.unacknowledged = 0
        """Bytes sent that the peer has not taken in."""
        self.sent_bytes = 0
        """Of runs and pieces, as the peer counts them back."""
        self.inbox: Final[deque[tuple[list[Changes], int]]] = deque()
        """Runs that came and wait for room in the engine, by message, with what each counts."""
        self.inbox_bytes = 0
        self.taken_bytes = 0
        self.acked_bytes = 0
        """Of taken_bytes, as told to the peer."""
        self.undurable: Final[dict[tuple[int, Actor], int]] = {}
        """By keyspace and actor the last seq that came here and is not acknowledged yet."""
        self.acknowledged: Final[dict[int, dict[Actor, int]]] = {}
        """By keyspace what the peer said it has durably, in its HELLO and since."""
        self.seens: Final = SeenWords()
        self.told: Final[set[int]] = set()
        """The keyspaces of which the peer was told what this node has, by HELLO or HOLDS."""
        self.offered: Final[dict[int, bytes]] = {}
        """By keyspace the spool that was offered here (replication/row_sync.py)."""
        self.wanted: Final[dict[int, tuple[bytes, int]]] = {}
        """By keyspace the spool that the peer wants, and from which offset on."""
        # By keyspace what rows have to cover that the peer has asked for as one that returns; None: it has not.
        self.need: dict[int, Vector] | None = None
        self.asked: Final[set[int]] = set()
        """Keyspaces whose rows the peer asked for although it has all changes (replication/repairs.py)."""
        self.deferred: Final[dict[int, SyncOffer]] = {}
        """By keyspace what the peer has offered and this node takes in later."""
        self.received_bytes = 0
        self.sent_bytes_total = 0
        self.received_changes = 0
        self.sent_changes = 0

    @property
    def is_up(self) -> bool:
        """Whether both sides have greeted."""
        return self.phase in ("meta", "data")

    def charge(self, size: int) -> None:
        """So many bytes go out that the peer has to take in."""
        self.sent_bytes += size
        self.unacknowledged += size

    def __repr__(self) -> str:
        return f"Link({self.number}, {self.phase}, {self.peer.name if self.peer else '?'})"
