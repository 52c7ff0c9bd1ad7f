"""Acknowledgements of other nodes: which of this node's own changes they have durably, and who waits for that.

Links feed it: `met` with the vectors of a HELLO, `holds` with that of a HOLDS, `heard` with those of each ACK; of nodes that are not
linked `heard_of`, with what hubs say of them (hearsay.py). Interfaces ask it: `covered_by` for RESP's
WAIT, `wait` for replies that leave when another node of the site, or a hub, has what was written. Only this node's own actor matters
here, because only own changes are acknowledged to clients; so what is kept is a number per other node and keyspace.

Invariants
----------
- *Never too much.* A node counts for a position only while the last thing it said covers it. A node that comes back restored says less
  in its HELLO, and `met` takes back what it had said before. What is said of an incarnation that is not the newest one known counts
  for nothing: that one may have lost it.
- *Once.* The callback of a wait is called exactly once: with True when it is met, with False at its deadline, at `expire_all`, and at
  once when ACK_WAITERS_MAX wait already; unless it is `cancel`led before.
- *Cost.* An acknowledgement looks at the waits that it may end and at no others: each keyspace has a heap by sequence number for each
  kind of wait. What has ended stays in them until they have doubled.
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, Literal, NamedTuple

from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import ACK_PEERS_MAX, ACK_WAITERS_MAX
from edgekv.replication.messages import Hello

Level = Literal["local", "site", "hub"]
LEVELS: Final[tuple[Level, ...]] = ("local", "site", "hub")
HUB: Final = "hub"
"""The role of a hub."""

Positions = Mapping[KeyspaceId, int]
"""Of own changes: the last sequence number that matters in each keyspace."""

_GARBAGE_MIN: Final = 64


class Peer(NamedTuple):
    """Another node."""

    node: bytes
    name: str
    site: str
    role: str
    actor: Actor = Actor(b"")
    """Its incarnation; empty: unknown."""


def peer_of(hello: Hello) -> Peer:
    """Who greets."""
    return Peer(hello.node, hello.name, hello.site, hello.role, hello.actor)


class Want(NamedTuple):
    """Whose acknowledgements are waited for: of ``nodes`` other nodes, all of ``site`` (None: any) and of ``role`` (None: any)."""

    nodes: int
    site: str | None = None
    role: str | None = None

    def counts(self, peer: Peer) -> bool:
        """Whether a node is one of those."""
        return self.site in (None, peer.site) and self.role in (None, peer.role)


class Wait:
    """Somebody who waits. Ended by its callback or by `Acks.cancel`."""

    __slots__ = ("callback", "positions", "want")

    def __init__(self, positions: Positions, want: Want, callback: Callable[[bool], None]) -> None:
        self.positions: Final = positions
        self.want: Final = want
        self.callback: Callable[[bool], None] | None = callback
        """None: it has ended."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.callback is None

    def end(self, met: bool) -> None:
        """Call back, once."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback(met)


_Entry = tuple[int, int, Wait]
"""A sequence number or a deadline in ms, the order of arrival (so that waits are never compared), and the wait."""


class Acks:
    """See the module docstring. ``site`` is the own site, ``actor`` the own actor."""

    def __init__(self, *, actor: Actor, site: str) -> None:
        self._actor: Final = actor
        self._site: Final = site
        self._peers: Final[dict[bytes, Peer]] = {}
        self._seqs: Final[dict[bytes, dict[KeyspaceId, int]]] = {}
        """By node: how much of the own actor it has durably."""
        self._heaps: Final[dict[Want, dict[KeyspaceId, list[_Entry]]]] = {}
        self._deadlines: list[_Entry] = []
        self._open = 0
        self._open_for_any = 0
        """Of those, the ones that any node may end, not hubs alone."""
        self.asked: Callable[[], None] = lambda: None
        """Set once by replication: somebody waits whom any node may help, and hubs know of more nodes than are linked."""
        self._entries = 0
        """In all heaps by sequence number."""
        self._entries_swept = 0
        """How many of them the last sweep left."""
        self._arrivals = 0
        self._closed = False

    # -- what other nodes have

    def met(self, peer: Peer, vectors: Mapping[KeyspaceId, Mapping[Actor, int]]) -> None:
        """A link to a node was made, and these are its durable vectors: what it had said before is forgotten."""
        if self._knows(peer):
            self._seqs[peer.node] = {}
            for keyspace, vector in vectors.items():
                self.heard(peer, keyspace, vector)

    def holds(self, peer: Peer, keyspace: KeyspaceId, vector: Mapping[Actor, int]) -> None:
        """A node has a keyspace now, or anew: what it had said of it before is forgotten."""
        if self._knows(peer):
            self._seqs[peer.node].pop(keyspace, None)
            self.heard(peer, keyspace, vector)

    def heard_of(self, peer: Peer, keyspace: KeyspaceId, seq: int) -> None:
        """A hub says that an incarnation of a node has this durably, of this node's own changes."""
        self.renewed(peer.node, peer.actor)
        known = self._peers.get(peer.node)
        if known is None or known.actor == peer.actor:
            self.heard(peer, keyspace, {self._actor: seq})

    def heard(self, peer: Peer, keyspace: KeyspaceId, vector: Mapping[Actor, int]) -> None:
        """A node has this durably, as it says. A vector that is older than another from the same link changes nothing."""
        if self._knows(peer):
            seq, seqs = vector.get(self._actor, 0), self._seqs[peer.node]
            if seq > seqs.get(keyspace, 0):
                seqs[keyspace] = seq
                self._advanced(peer, keyspace, seq)

    def _knows(self, peer: Peer) -> bool:
        """Whether there is a place for the node."""
        if peer.node not in self._peers and len(self._peers) >= ACK_PEERS_MAX:
            return False
        self._peers[peer.node] = peer
        self._seqs.setdefault(peer.node, {})
        return True

    def renewed(self, node: bytes, actor: Actor) -> None:
        """A node is a member as this incarnation: what an older one had counts no more."""
        known = self._peers.get(node)
        if known is not None and known.actor < actor:
            self.met(known._replace(actor=actor), {})

    def forget(self, node: bytes) -> None:
        """A node is no member any more."""
        self._peers.pop(node, None)
        self._seqs.pop(node, None)

    def keep(self, nodes: set[bytes]) -> None:
        """All others are no members, perhaps not even in the list of them any more."""
        for node in self._peers.keys() - nodes:
            self.forget(node)

    def left(self, node: bytes, keyspace: KeyspaceId) -> None:
        """A node has no copy of a keyspace any more."""
        self._seqs.get(node, {}).pop(keyspace, None)

    def covered_by(self, positions: Positions) -> list[Peer]:
        """The other nodes that have all of this durably, as far as this node has heard."""
        return [
            self._peers[node]
            for node, seqs in self._seqs.items()
            if all(seqs.get(keyspace, 0) >= seq for keyspace, seq in positions.items())
        ]

    # -- who waits for that

    def want(self, level: Level) -> Want:
        """What a level of acknowledgement asks for beside this node."""
        return {
            "local": Want(0),
            "site": Want(1, site=self._site),
            "hub": Want(1, role=HUB),
        }[level]

    @property
    def wait_for_any(self) -> bool:
        """Whether anybody waits whom any node may help."""
        return self._open_for_any > 0

    def is_met(self, positions: Positions, want: Want) -> bool:
        """Whether enough nodes have it."""
        return want.nodes <= 0 or sum(map(want.counts, self.covered_by(positions))) >= want.nodes

    def wait(self, positions: Positions, want: Want, deadline_ms: int | None, callback: Callable[[bool], None]) -> Wait:
        """Call back once enough nodes have all of ``positions``, or at the deadline, on the clock of `tick` (None: never).

        When that is so already, or too many wait, it is called before this returns.
        """
        wait = Wait(positions, want, callback)
        if self.is_met(positions, want):
            wait.end(True)
        elif self._closed or self._open >= ACK_WAITERS_MAX:
            wait.end(False)
        else:
            self._open += 1
            self._open_for_any += want.role is None
            self._arrivals += 1
            for keyspace, seq in positions.items():
                self._push(keyspace, (seq, self._arrivals, wait))
            if deadline_ms is not None:
                heappush(self._deadlines, (deadline_ms, self._arrivals, wait))
            if want.role is None:
                self.asked()
        return wait

    def cancel(self, wait: Wait) -> None:
        """Whoever waited is gone: no call back."""
        if not wait.ended:
            wait.callback = None
            self._closed_one(wait)

    def tick(self, now_ms: int) -> None:
        """End what is due. About ten times a second, so a deadline may be met that much late."""
        while self._deadlines and (self._deadlines[0][2].ended or self._deadlines[0][0] <= now_ms):
            self._end(heappop(self._deadlines)[2], met=False)
        self._sweep()

    def expire_all(self) -> None:
        """The node stops: nobody waits any longer, or begins to."""
        self._closed = True
        for wait in self._waits():
            self._end(wait, met=False)
        self._heaps.clear()
        self._deadlines.clear()
        self._entries = 0

    def status(self) -> dict[str, object]:
        """Figures for people and scripts."""
        return {"peers": len(self._peers), "waiting": self._open}

    def _advanced(self, peer: Peer, keyspace: KeyspaceId, seq: int) -> None:
        ended: list[Wait] = []
        for want, heaps in self._heaps.items():
            heap = heaps.get(keyspace)
            if heap and want.counts(peer):
                ended += self._reached(want, heap, seq)
        for wait in ended:  # At last, as a callback may wait again.
            self._end(wait, met=True)

    def _reached(self, want: Want, heap: list[_Entry], seq: int) -> Iterable[Wait]:
        """The waits that end now, out of those whose number in this keyspace was reached by one more node."""
        kept: list[_Entry] = []
        while heap and heap[0][0] <= seq:
            entry = heappop(heap)
            self._entries -= 1
            wait = entry[2]
            if wait.ended:
                continue
            if self.is_met(wait.positions, want):
                yield wait
            else:
                kept.append(entry)
        for entry in kept:
            heappush(heap, entry)
            self._entries += 1

    def _end(self, wait: Wait, *, met: bool) -> None:
        if not wait.ended:
            self._closed_one(wait)
            wait.end(met)

    def _closed_one(self, wait: Wait) -> None:
        self._open -= 1
        self._open_for_any -= wait.want.role is None

    def _push(self, keyspace: KeyspaceId, entry: _Entry) -> None:
        heappush(self._heaps.setdefault(entry[2].want, {}).setdefault(keyspace, []), entry)
        self._entries += 1

    def _waits(self) -> list[Wait]:
        return [entry[2] for heaps in self._heaps.values() for heap in heaps.values() for entry in heap]

    def _sweep(self) -> None:
        """Let go of what has ended, once the entries have doubled: while no hub can be reached, nothing else does."""
        if len(self._deadlines) > 2 * self._open + _GARBAGE_MIN:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].ended]
            heapify(self._deadlines)
        if self._entries <= 2 * self._entries_swept + _GARBAGE_MIN:
            return
        self._entries = 0
        for want, heaps in list(self._heaps.items()):
            for keyspace, heap in list(heaps.items()):
                left = [entry for entry in heap if not entry[2].ended]
                heapify(left)
                self._entries += len(left)
                if left:
                    heaps[keyspace] = left
                else:
                    del heaps[keyspace]
            if not heaps:
                del self._heaps[want]
        self._entries_swept = self._entries
