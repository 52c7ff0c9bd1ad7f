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


class Hearsay:
    """What other members have of the peer's changes, on one link (replication/hearsay.py)."""

    def __init__(self) -> None:
        self.asked_ms: int | None = None
        """When this node asked the peer last."""
        self.until_ms = -1
        """For how long the peer wants to be told."""
        self.owed: Final[dict[Actor, dict[int, int]]] = {}
        """By member what the peer has not been told yet."""
        self.told_ms = 0


class Link:
    """State of one link. replication/replication.py moves it."""

    def __init__(self, number: int, *, outgoing: bool, wall_ms: int, now_ms: int) -> None:
        """``now_ms``: monotonic, as all times here but ``since_ms``: silence is not measured by clocks that are set."""
        self.number: Final = number
        self.outgoing: Final = outgoing
        self.phase: Phase = "greeting"
        self.peer: Hello | None = None
        self.sender: Sender | None = None
        self.name, self.node, self.role = "", b"", ""
        """The peer's, as it says in its HELLO, whatever comes of it; empty before that."""
        self.astray = False
        """Whether the peer has entries of meta that this node knows to be given up (lines.py)."""
        self.owes_word = False
        """Whether the peer came with less than it has said to have, and with a newer meta than this node's, which may say why."""
        self.untaken_ms: int | None = None
        """When its HELLO came, if it was not taken and the peer has to say why."""
        self.since_ms: Final = wall_ms
        self.sent_ms = self.heard_ms = now_ms
        self.clock: Final = PeerClock()
        self.sent_bytes = self.unacknowledged = 0
        """Of runs and pieces, as the peer counts them back; and how many of them it has not taken in."""
        self.inbox: Final[deque[tuple[list[Changes], int]]] = deque()
        """Runs that came and wait for room in the engine, by message, with what each counts."""
        self.inbox_bytes = 0
        self.taken_bytes = self.acked_bytes = 0
        """And how many of them the peer was told of."""
        self.undurable: Final[dict[tuple[int, Actor], int]] = {}
        """By keyspace and actor the last seq that came here and is not acknowledged yet."""
        self.acknowledged: Final[dict[int, dict[Actor, int]]] = {}
        """By keyspace what the peer said it has durably, in its HELLO and since."""
        self.counts = False  # whether that ends waits: the peer is a member
        self.seens: Final = SeenWords()
        self.hearsay: Final = Hearsay()
        self.told: Final[set[int]] = set()
        """The keyspaces of which the peer was told what this node has, by HELLO or HOLDS."""
        self.passed_by: Final[set[int]] = set()
        """The keyspaces of which something came while they were not held here: the peer believes that this node has it."""
        self.offered: Final[dict[int, bytes]] = {}
        """By keyspace the spool that was offered here (replication/row_source.py)."""
        self.wanted: Final[dict[int, tuple[bytes, int]]] = {}
        """By keyspace the spool that the peer wants, and from which offset on."""
        # By keyspace what rows have to cover that the peer has asked for as one that returns; None: it has not.
        self.need: dict[int, Vector] | None = None
        self.return_revision = 0
        """Of meta, that began the return for which the peer is given rows here; 0: for none."""
        self.asked: Final[set[int]] = set()
        """Keyspaces whose rows the peer asked for although it has all changes (replication/repairs.py)."""
        self.rows_sent = False
        """The peer has taken rows in, and has not caught up since with what the log has behind them."""
        self.deferred: Final[dict[int, SyncOffer]] = {}
        """By keyspace what the peer has offered and this node takes in later."""
        self.received_bytes = self.sent_bytes_total = 0
        self.received_changes = self.sent_changes = 0

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
