"""The synchronous client: the same verbs, without await. See asynchronous.py, of which this is the surface, and blocking.py."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from edgekv.client import commands, url
from edgekv.client.blocking import Exchange
from edgekv.client.commands import PLAIN, Codec, Command, Name, Slot, dressed
from edgekv.client.terms import Ack, terms_of
from edgekv.client.timing import ACK_TIMEOUT_S, DEADLINE_S
from edgekv.client.walk import Walk
from edgekv.client.watch import Subscription, WatchEvent
from edgekv.client.watch_line import follow
from edgekv.errors import EdgeKVError

T = TypeVar("T")
V = TypeVar("V")
P = ParamSpec("P")


def _verb(make: Callable[P, Command[T]]) -> "Callable[Concatenate[Verbs, P], T]":
    """A method that sends the command of a verb."""

    def method(self: "Verbs", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._exchange.submit(make(*args, **kwargs), self._deadline_s)

    return dressed(method, make, given=0)


def _handle_verb(
    make: Callable[Concatenate[bytes, P], Command[T]],
) -> "Callable[Concatenate[Handle, P], T]":
    """The same for a handle, which gives the key."""

    def method(self: "Handle", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._exchange.submit(make(self.key, *args, **kwargs), self._deadline_s)

    return dressed(method, make, given=1)


class Handle:
    """One key, as the type that its class says. Costs nothing to make."""

    __slots__ = ("_deadline_s", "_exchange", "key")

    def __init__(self, exchange: Exchange, deadline_s: float, key: bytes) -> None:
        self._exchange: Final = exchange
        self._deadline_s: Final = deadline_s
        self.key: Final = key


class Counter(Handle):
    """A number that concurrent additions of all sites add up to."""

    __slots__ = ()

    add = _handle_verb(commands.counter_add)
    get = _handle_verb(commands.counter_get)
    reset = _handle_verb(commands.counter_reset)


class Set(Handle):
    """A set of which an addition wins over a removal that did not see it."""

    __slots__ = ()

    add = _handle_verb(commands.set_add)
    remove = _handle_verb(commands.set_remove)
    contains = _handle_verb(commands.set_contains)
    contains_each = _handle_verb(commands.set_contains_each)
    members = _handle_verb(commands.set_members)
    len = _handle_verb(commands.set_len)


class Map(Handle):
    """Fields, each a value (the last write wins) or a counter."""

    __slots__ = ()

    put = _handle_verb(commands.map_put)
    update = _handle_verb(commands.map_update)
    get = _handle_verb(commands.map_get)
    add = _handle_verb(commands.map_add)
    remove = _handle_verb(commands.map_remove)
    contains = _handle_verb(commands.map_contains)
    items = _handle_verb(commands.map_items)
    len = _handle_verb(commands.map_len)


class Siblings(Handle):
    """One value of which concurrent versions are kept side by side until somebody joins them (conflict = "siblings")."""

    __slots__ = ()

    get = _handle_verb(commands.siblings_get)
    put = _handle_verb(commands.siblings_put)
    delete = _handle_verb(commands.siblings_delete)


class Register(Handle, Generic[V]):
    """One value (the last write wins), through a codec."""

    __slots__ = ("_slot",)

    def __init__(self, exchange: Exchange, deadline_s: float, slot: Slot[V]) -> None:
        super().__init__(exchange, deadline_s, slot.key)
        self._slot: Final = slot

    def put(self, value: V, *, ttl_s: float | None = None) -> None:
        """Put a value."""
        return self._exchange.submit(self._slot.put(value, ttl_s=ttl_s), self._deadline_s)

    def get(self) -> V | None:
        """The value, None when there is none."""
        return self._exchange.submit(self._slot.get(), self._deadline_s)

    def delete(self) -> int:
        """Delete it; 1 if there was one."""
        return self._exchange.submit(commands.delete(self.key), self._deadline_s)


class Batch(commands.Operations):
    """Operations that `commit` sends as one change."""

    def __init__(self, exchange: Exchange, deadline_s: float) -> None:
        super().__init__()
        self._exchange: Final = exchange
        self._deadline_s: Final = deadline_s

    def commit(self) -> list[object]:
        """All of it happens, or nothing; one result per operation."""
        return self._exchange.submit(self.command(), self._deadline_s)


class Verbs:
    """What can be done with a store, within a deadline per call. Threads may share it."""

    __slots__ = ("_deadline_s", "_exchange")

    def __init__(self, exchange: Exchange, deadline_s: float) -> None:
        self._exchange: Final = exchange
        self._deadline_s: Final = deadline_s

    def within(self, deadline_s: float) -> "Verbs":
        """The same store with another deadline: ``db.within(0.2).get(key)``."""
        return Verbs(self._exchange, deadline_s)

    put = _verb(commands.put)
    get = _verb(commands.get)
    get_many = _verb(commands.get_many)
    put_many = _verb(commands.put_many)
    delete = _verb(commands.delete)
    exists = _verb(commands.exists)
    expire = _verb(commands.expire)
    persist = _verb(commands.persist)
    ttl = _verb(commands.ttl)
    append = _verb(commands.append)
    ping = _verb(commands.ping)

    def counter(self, key: Name) -> Counter:
        """The key as a counter."""
        return Counter(self._exchange, self._deadline_s, commands.name(key))

    def set(self, key: Name) -> Set:
        """The key as a set."""
        return Set(self._exchange, self._deadline_s, commands.name(key))

    def map(self, key: Name) -> Map:
        """The key as a map."""
        return Map(self._exchange, self._deadline_s, commands.name(key))

    def siblings(self, key: Name) -> Siblings:
        """The key as a value whose concurrent versions are kept."""
        return Siblings(self._exchange, self._deadline_s, commands.name(key))

    @overload
    def register(self, key: Name) -> Register[bytes]: ...
    @overload
    def register(self, key: Name, codec: Codec[V]) -> Register[V]: ...
    def register(self, key: Name, codec: Codec[Any] = PLAIN) -> Register[Any]:
        """The key as a value of the codec's type."""
        return Register(self._exchange, self._deadline_s, Slot(commands.name(key), codec))

    def batch(self) -> Batch:
        """Operations that become one change."""
        return Batch(self._exchange, self._deadline_s)

    def keys(self, prefix: Name = b"") -> Iterator[bytes]:
        """The keys that begin with the prefix, in order, whatever they hold. Each page has its own deadline."""
        for page in self._pages(prefix):
            yield from page

    def scan(self, prefix: Name = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys that begin with the prefix and hold a value, in order, with it."""
        for page in self._pages(prefix):
            for key, value in zip(page, self.get_many(page), strict=True):
                if value is not None:
                    yield key, value

    def watch(self, prefix: Name = b"", *, cursor: str | None = None) -> Iterator[WatchEvent]:
        """What is written to keys that begin with the prefix, as it becomes durable, at least once, until you stop iterating.

        After ``cursor``, an event's; without one from now on, which is when the iteration begins; after "0" the current rows first.
        When the log does not reach back to a cursor, a ``resync`` and the current rows come instead of what was missed. A lost
        connection is made again, to any node, without a gap; Unavailable when that takes longer than the deadline.
        """
        return follow(self._exchange, Subscription(prefix, cursor or ""), self._deadline_s)

    def _pages(self, prefix: Name) -> Iterator[list[bytes]]:
        walk = Walk(prefix)
        while walk.more:
            try:
                page = walk.page(self._exchange.submit(walk.command(), self._deadline_s))
            except EdgeKVError as error:
                walk.failed(error)
                continue
            if page:
                yield page


class Client(Verbs):
    """A store, reached through connections to one of its nodes. Use it in a ``with`` block, or `close` it."""

    __slots__ = ()

    def __enter__(self) -> Self:
        try:
            self.ping()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def session(self, token: str | None = None) -> "Session":
        """A session, a new one or one to go on with, on a connection of its own: ``with db.session() as s``.

        It ends with its block; its token is good for ever. A call of it raises SessionBehind when no node that can be reached has what
        the session has seen, until the deadline; InvalidRequest or Unavailable when the token is none.
        """
        return Session(self._exchange.with_session(token), self._deadline_s)

    def close(self) -> None:
        """End the connections that are idle, and each other one with its call."""
        self._exchange.close()


class Session(Client):
    """The same store for one conversation: it reads what it wrote and nothing older than it has read, at whichever node."""

    __slots__ = ()

    @property
    def token(self) -> str:
        """What it has seen: ``db.session(token)``, in any process, goes on with it. Empty: nothing yet."""
        return self._exchange.terms.token.decode()


def connect(
    address: str,
    *,
    deadline_s: float = DEADLINE_S,
    ack: Ack = "local",
    ack_timeout_s: float = ACK_TIMEOUT_S,
    on_pending: Callable[[str], None] | None = None,
) -> Client:
    """The store behind ``edgekv://HOST:PORT,HOST:PORT``. A call ends within ``deadline_s``, whatever happens to the nodes.

    The client stays with one node and goes to the next address when that one is gone. Raises Unavailable, when it is entered, if no
    node answers in time.

    With ``ack`` a write returns when another node of the site, or a hub, has it durably as well, at the latest after
    ``ack_timeout_s``: then it is durable at its node and on its way, and ``on_pending`` is called with the verb's name ("put",
    "counter.add"). What that raises comes out of the call. InvalidRequest: a level or a timeout that makes no sense.
    """
    terms = terms_of(ack, ack_timeout_s, on_pending, deadline_s=deadline_s)
    return Client(Exchange(url.parse(address), deadline_s, terms), deadline_s)
