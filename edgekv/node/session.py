"""Sessions: read your writes and monotonic reads across nodes, also of what is absent.

A session carries a token (node/token.py) of what it has seen: the durable vectors, at the moment a reply left, of the keyspaces that
it looked at (in a buffered keyspace: of what is written). That is enough, because a reply is held back until what it shows is durable,
whoever wrote it: the vector at that moment covers the reply, what was not there included. A node that covers the token may go on with
the session; one that does not has the call wait until it does, or refuses it as SessionBehind: nothing happened, another node may do.

Interfaces call `token` when a reply leaves and `wait` before a call; the shell calls `durable` whenever what is durable has moved, and
`tick`. A call that waits is parked under one entry that its node lacks, and is looked at again when that is there.
"""

from collections.abc import Callable, Collection, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple, Protocol

from edgekv.engine.keyspaces import Head, Keyspace, Keyspaces
from edgekv.errors import SessionBehind
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.limits import SESSION_WAITERS_MAX
from edgekv.node.token import Entries, Token, name_of, token_of, token_text
from edgekv.replication.members import Announced


class Commit(Protocol):
    """How far this node's log is (engine/commit.py)."""

    @property
    def durable_lsn(self) -> int: ...

    @property
    def written_lsn(self) -> int: ...

    def heads_written(self, keyspace: Keyspace, /) -> Mapping[Actor, Head]:
        """The keyspace's durable vector, and what is written and shown without a sync (in a buffered keyspace)."""


class Cuts(NamedTuple):
    """The newest STABLE that this node knows: its number, and per keyspace what every member has.

    ``gaps``: between which numbers there are only STABLEs that a leader forgot when it was restored, or that cover what is lost since.
    """

    number: int
    cuts: Mapping[KeyspaceId, Vector]
    gaps: tuple[tuple[int, int], ...] = ()


class Lack(NamedTuple):
    """What a node does not have yet: a place, and how far it must come there."""

    place: "Place"
    seq: int


Place = tuple[KeyspaceId, bytes] | str
"""A keyspace and the name of an actor, or one of the two words below."""
_LSN: Final = "lsn"
_STABLE: Final = "stable"


class Waiting:
    """A call that waits. Its callback is called once, with the error or with None when the node covers the token."""

    __slots__ = ("callback", "deadline_ms", "token")

    def __init__(self, token: Token, deadline_ms: int, callback: Callable[[SessionBehind | None], None]) -> None:
        self.token: Final = token
        self.deadline_ms: Final = deadline_ms
        self.callback: Callable[[SessionBehind | None], None] | None = callback
        """None: it has ended."""


class Sessions:
    """The sessions of one node. It keeps nothing of them but the calls that wait."""

    def __init__(self, *, actor: Actor, keyspaces: Keyspaces, commit: Commit) -> None:
        self._name: Final = name_of(actor)
        self._keyspaces: Final = keyspaces
        self._commit: Final = commit
        self._actors: Final[dict[bytes, Actor]] = {self._name: actor}
        self._parked: Final[dict[Place, list[tuple[int, int, Waiting]]]] = {}
        """By what they lack, heaps of (seq, arrival, call)."""
        self._waiting: Final[dict[int, Waiting]] = {}
        """By arrival."""
        self._arrivals = 0
        self._closed = False
        self._newest: tuple[tuple[int, int, int, frozenset[KeyspaceId]], str] | None = None
        """The last token made, and of what."""
        self.announced: Callable[[], Announced | None] = lambda: None
        """Set once by who has a view of meta: the newest STABLE in it. Numbers and cuts never decrease."""
        self._stable = Cuts(0, {})

    @property
    def all_keyspaces(self) -> frozenset[KeyspaceId]:
        """Those of users: what a session has looked at that did not say."""
        return frozenset(keyspace.id for keyspace in self._keyspaces.all if not keyspace.policy.system)

    def positions(self, keyspaces: Collection[KeyspaceId]) -> dict[KeyspaceId, int]:
        """The last change that clients of this node have made in each: at least what a call that just returned has written."""
        return {number: seq for number in keyspaces if (seq := self._keyspaces.by_id[number].seq)}

    @property
    def stable(self) -> "Cuts":
        """What every member has, and since when that is known."""
        announced = self.announced()
        if announced is not None and announced.number != self._stable.number:
            cuts = announced.stable.cuts or {}
            vectors = {KeyspaceId(number): cut.cut for number, cut in cuts.items()}
            self._stable = Cuts(announced.number, vectors, announced.gaps)
        return self._stable

    # -- tokens

    def token(self, keyspaces: Collection[KeyspaceId]) -> str:
        """What a session that has looked at these keyspaces has seen at most, now that its reply leaves."""
        wanted = frozenset(keyspaces) & self._keyspaces.by_id.keys()
        lsn, stable = self._commit.written_lsn, self.stable
        looked = [self._keyspaces.by_id[number] for number in sorted(wanted)]
        # Rows that are taken over as a whole move what is seen, and not the LSN.
        moment = lsn, stable.number, sum(keyspace.flips for keyspace in looked), wanted
        if self._newest is not None and self._newest[0] == moment:
            return self._newest[1]
        entries = {keyspace.id: self._entries(keyspace, stable.cuts.get(keyspace.id, {})) for keyspace in looked}
        text = token_text(Token(self._name, lsn, stable.number, entries))
        self._newest = moment, text
        return text

    def _entries(self, keyspace: Keyspace, cut: Vector) -> dict[bytes, int]:
        seen = {actor: head.seq for actor, head in self._commit.heads_written(keyspace).items()}
        return {name_of(actor): seq for actor, seq in seen.items() if seq > cut.get(actor, 0)}

    def lacks(self, token: Token) -> Lack | None:
        """Something that the token names and this node does not have; None: it covers the token. SessionBehind: it never will."""
        if token.maker == self._name and token.lsn <= self._commit.durable_lsn:
            return None
        if token.entries is None:
            if token.maker != self._name:
                raise SessionBehind(
                    "the session has seen changes of more nodes than its token can name, so only the node that made it can go on. "
                    "Ask that node, or begin a new session."
                )
            return Lack(_LSN, token.lsn)
        if token.stable > self.stable.number:
            return Lack(_STABLE, token.stable)
        if any(last < token.stable < first for last, first in self.stable.gaps):
            raise SessionBehind(
                "the session rests on what the hub that leads forgot when it was restored from a backup. Begin a new session."
            )
        return self._lacks(token.entries, cuts=token.stable > 0)

    def _lacks(self, entries: Entries, *, cuts: bool) -> Lack | None:
        stable = self.stable.cuts
        for number, seqs in entries.items():
            if number not in self._keyspaces.by_id:
                raise SessionBehind(
                    f"the session has used keyspace {number}, which this node does not hold. Ask a node that holds it."
                )
            for name, seq in seqs.items():
                if self._seq(number, name) < seq:
                    return Lack((number, name), seq)
            if cuts:  # A member that is being admitted may know a STABLE before it has the rows.
                for actor, seq in stable.get(number, {}).items():
                    if self._seq(number, name_of(actor)) < seq:
                        return Lack((number, name_of(actor)), seq)
        return None

    def _seq(self, number: KeyspaceId, name: bytes) -> int:
        """How much of an actor this node shows, 0 of one that it has not heard of."""
        heads = self._commit.heads_written(self._keyspaces.by_id[number])
        actor = self._actors.get(name)
        if actor is None:
            self._actors.update((name_of(known), known) for known in heads)
            actor = self._actors.get(name)
        head = None if actor is None else heads.get(actor)
        return 0 if head is None else head.seq

    # -- calls that wait

    def check(self, text: str) -> None:
        """Raise what a call with this token is refused with now, without waiting: InvalidRequest, SessionBehind."""
        lack = self.lacks(token_of(text))
        if lack is not None:
            raise self._behind(lack)

    def wait(self, text: str, deadline_ms: int, callback: Callable[[SessionBehind | None], None]) -> Callable[[], None]:
        """Call back when this node covers the token or at the deadline, on the clock of `tick`; what to call when the call is gone.

        When it covers it already or never will, the callback comes before this returns. InvalidRequest: it is no token.
        """
        waiting = Waiting(token_of(text), deadline_ms, callback)
        self._arrivals += 1
        self._look(self._arrivals, waiting)
        if waiting.callback is not None and (self._closed or len(self._waiting) > SESSION_WAITERS_MAX):
            busy = "too many calls wait for this node already, or it stops. Try again, or ask another node."
            self._end(self._arrivals, SessionBehind(busy))
        arrival = self._arrivals
        return lambda: self._forget(arrival)

    def durable(self) -> None:
        """What is durable has moved; meta is part of it."""
        if self._waiting:
            for place, heap in list(self._parked.items()):
                reached = self._reached(place)
                while heap and heap[0][0] <= reached:
                    _, arrival, waiting = heappop(heap)
                    if waiting.callback is not None:
                        self._look(arrival, waiting)
                if not heap:
                    del self._parked[place]

    def tick(self, now_ms: int) -> None:
        """End the calls that are due."""
        if self._waiting:
            for arrival, waiting in list(self._waiting.items()):
                if waiting.deadline_ms <= now_ms:
                    self._refuse(arrival, waiting)
        if sum(map(len, self._parked.values())) > 2 * len(self._waiting):
            for place, heap in list(self._parked.items()):
                self._parked[place] = [entry for entry in heap if entry[2].callback is not None]
                heapify(self._parked[place])

    def expire_all(self) -> None:
        """The node stops: nobody waits any longer, or begins to."""
        self._closed = True
        for arrival, waiting in list(self._waiting.items()):
            self._refuse(arrival, waiting)

    def _look(self, arrival: int, waiting: Waiting) -> None:
        """End a call that waits, or park it under what is lacking."""
        try:
            lack = self.lacks(waiting.token)
        except SessionBehind as error:
            self._waiting[arrival] = waiting
            self._end(arrival, error)
            return
        self._waiting[arrival] = waiting
        if lack is None:
            self._end(arrival, None)
        else:
            heappush(self._parked.setdefault(lack.place, []), (lack.seq, arrival, waiting))

    def _reached(self, place: Place) -> int:
        if isinstance(place, str):
            return self._commit.durable_lsn if place == _LSN else self.stable.number
        return self._seq(*place)

    def _refuse(self, arrival: int, waiting: Waiting) -> None:
        try:
            lack = self.lacks(waiting.token)
        except SessionBehind as error:
            self._end(arrival, error)
        else:
            self._end(arrival, None if lack is None else self._behind(lack))

    def _behind(self, lack: Lack) -> SessionBehind:
        if isinstance(lack.place, str):
            what = "its own log" if lack.place == _LSN else "the cluster's common state"
        else:
            keyspace = self._keyspaces.by_id[lack.place[0]].name
            what = f"keyspace {keyspace!r} (change {lack.seq} of a node, here {self._reached(lack.place)})"
        return SessionBehind(
            f"this node is behind what the session has seen in {what}. Nothing was done; try again, or ask another node."
        )

    def _end(self, arrival: int, error: SessionBehind | None) -> None:
        waiting = self._waiting.pop(arrival)
        callback, waiting.callback = waiting.callback, None
        if callback is not None:
            callback(error)

    def _forget(self, arrival: int) -> None:
        waiting = self._waiting.pop(arrival, None)
        if waiting is not None:
            waiting.callback = None
