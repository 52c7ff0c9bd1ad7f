"""The calls of all callers of a loop, pipelined on one connection: the asynchronous client's engine.

A call is one future and one small object: no coroutine, no task, no timer of its own. Calls made in one turn of the loop leave in one
write; answers come in the order of the calls, so a deque knows whose they are. One timer stands for all deadlines: it is set to the
earliest. `Link` is one connection. What is sent again, and which error a caller sees, is decided in calls.py; where to connect next
in route.py.

Invariants
----------
- A call is in exactly one of: `Exchange._outbox` (not sent: nothing happened), `Link.waiting` (sent, in order), or nowhere (ended).
- A call whose future is done stays where it is until its answer comes, or is dropped when it would be sent.
- What is sent again goes before what is new, in its old order.
- There is at most one connecting task; the exchange owns it, and `close` ends it.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar, cast

import hiredis

from edgekv.client import wire
from edgekv.client.calls import Budget, Call, OperationIds, closed
from edgekv.client.commands import Command
from edgekv.client.faults import reason
from edgekv.client.route import Route
from edgekv.client.terms import Terms
from edgekv.client.timing import CONNECT_S
from edgekv.config import Address
from edgekv.errors import EdgeKVError, IdForgotten, Overloaded, SessionBehind, Unavailable

CALLS_WAITING_MAX: Final = 1 << 16
"""Calls that are not sent: the node is away, or does not read."""
WRITE_BUFFER_BYTES: Final = 1 << 20

T = TypeVar("T")
_FOREVER: Final = float("inf")
_UNUSUAL: Final = frozenset([hiredis.ReplyError, hiredis.PushNotification])

L = TypeVar("L", bound=asyncio.Protocol)


class Dial(Protocol):
    """Connects a new link to an address; raises OSError."""

    def __call__(self, address: Address, link: Callable[[], L], /) -> Coroutine[Any, Any, L]: ...


class Ending(Protocol):
    """A connection that is not the exchange's, and ends when its client is closed."""

    def end(self, fault: Exception) -> None: ...


Waiting = Call["asyncio.Future[Any]"]
"""A call and the future of its caller."""


def fail(call: Waiting, error: EdgeKVError) -> None:
    """End a call, unless its caller has left."""
    if not call.waiter.done():
        call.waiter.set_exception(error)


class Link(asyncio.Protocol):
    """One connection: greets, then answers calls in their order, until it ends."""

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange: Final = exchange
        self._loop: Final = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        reader = wire.reader()
        self._feed: Final = reader.feed
        self._gets: Final = reader.gets
        self._terms: Final = exchange.terms
        self._greeting: wire.Greeting | None = wire.Greeting(self._terms.opening(min(CONNECT_S, exchange.silence_s)))
        self.greeted: Final[asyncio.Future[None]] = self._loop.create_future()
        self.waiting: Final[deque[Waiting]] = deque()
        self.ids: OperationIds | None = None
        """Set when it has greeted."""
        self.paused = False
        self.ended = False
        self.quiet_s = self._loop.time()
        """Since when calls wait and nothing was heard."""
        self.answered = False
        """It has answered a call."""
        self.pending = False
        """Writes are being answered without the acknowledgement that was asked for."""
        self._leaving = False
        self._fault: Exception | None = None

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport = cast("asyncio.Transport", made)  # uvloop's is one by shape only
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        assert self._greeting is not None
        transport.write(self._greeting.request)

    def send(self, calls: "list[Waiting]", data: bytes) -> None:
        """Send calls; their answers come in this order."""
        if not self.waiting:
            self.quiet_s = self._loop.time()
        self.waiting.extend(calls)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Answers. Nothing here runs a caller's code: a future that is done wakes its caller in a later turn of the loop."""
        if self._fault is not None:
            return
        self.quiet_s = self._loop.time()
        gets, waiting = self._gets, self.waiting
        try:
            self._feed(data)
            if self._greeting is not None:
                self._greet(self._greeting)
            while (reply := gets()) is not wire.INCOMPLETE:
                if type(reply) in _UNUSUAL:
                    self._take_unusual(reply)
                    continue
                if not waiting:
                    raise wire.BrokenConversation("it answers what nobody asked")
                call = waiting[0]
                future = call.waiter
                if not future.done():
                    try:
                        value = call.command.kind.read(reply)
                        if self.pending and call.command.kind.writes:
                            self._terms.report(call.command.kind.name)
                        future.set_result(value)
                    except wire.BrokenConversation:
                        raise
                    except Exception as error:  # noqa: BLE001 - what a caller's codec makes of a value is for that caller
                        future.set_exception(error)
                del waiting[0]
                if call.operation is not None:
                    self._settle(call)
                self.answered = True
        except (*wire.BROKEN, Unavailable) as fault:
            self.end(fault)
        if self._leaving:
            self.leave()

    def _greet(self, greeting: wire.Greeting) -> None:
        while (reply := self._gets()) is not wire.INCOMPLETE:
            if type(reply) is hiredis.PushNotification:
                self._take_push(reply)
                continue
            peer = greeting.take(reply)
            if peer is not None:
                peer = peer if self._exchange.uses_ids else peer._replace(stamp=None)
                self._greeting, self.ids = None, OperationIds(peer, os.urandom)
                if not self.greeted.done():
                    self.greeted.set_result(None)
                return

    def _take_unusual(self, reply: object) -> None:
        """An error, or a push."""
        if isinstance(reply, hiredis.PushNotification):
            self._take_push(reply)
        elif isinstance(reply, hiredis.ReplyError):
            if not self.waiting:
                raise wire.BrokenConversation(str(reply))
            call = self.waiting.popleft()
            self._settle(call)
            self._exchange.refused(self, call, wire.problem(reply))

    def _take_push(self, push: hiredis.PushNotification) -> None:
        self.pending = self._terms.told(push, pending=self.pending)

    def _settle(self, call: Waiting) -> None:
        if call.operation is not None and self.ids is not None:
            self.ids.settled(call.operation)

    def end(self, fault: Exception) -> None:
        """Hang up at once. Nothing more is sent."""
        self._fault, self.paused = self._fault or fault, True
        self._transport.abort()

    def leave(self) -> None:
        """Take no more calls, and hang up when the last one is answered."""
        self._leaving = True
        if not self.waiting:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """What waits is lost."""
        self.ended = True
        fault = self._fault or exc or ConnectionError("it was closed")
        if not self.greeted.done():
            self.greeted.set_exception(fault)
            self.greeted.exception()  # Whoever awaited it may have left.
        self._exchange.lost(self, fault)

    def pause_writing(self) -> None:
        """The node does not read: what is not sent stays unsent."""
        self.paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self.paused = False
        self._exchange.flush()


class Exchange:
    """See the module docstring. Belongs to the loop that runs when `start` is called."""

    def __init__(
        self,
        route: Route[Address],
        silence_s: float,
        dial: Dial | None = None,
        *,
        uses_ids: bool = True,
        terms: Terms | None = None,
    ) -> None:
        self._route: Final = route
        self.terms: Final = terms or Terms()
        self.silence_s: Final = silence_s
        """A link on which calls wait and nothing is heard for so long has hung."""
        self.dial: Final = dial or _dial
        self.watching: Final[set[Ending]] = set()
        """Connections of watches."""
        self.uses_ids: Final = uses_ids
        """Whether operation ids are of use: not with a node that ends when its client does."""
        self._budget: Final = Budget()
        self._outbox: list[Waiting] = []
        self._link: Link | None = None
        self._leaving: Final[set[Link]] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._again = 0
        """How many of the outbox were sent before."""
        self._flush_due = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = _FOREVER
        self._closed = True
        self._behind: SessionBehind | None = None
        """Since there was a connection an address was behind the session."""

    def with_session(self, token: str | None) -> "Exchange":
        """Another exchange with the same nodes, beginning with the one that this one is at, for a session."""
        route = Route(self._route.addresses, random.random, place=self._route.place)
        terms = self.terms.with_session(token)
        return Exchange(route, self.silence_s, self.dial, uses_ids=self.uses_ids, terms=terms)

    def start(self) -> None:
        """Take calls. The connection is made when the first one comes."""
        self._loop = loop = asyncio.get_running_loop()
        self._time, self._create_future, self._call_soon = loop.time, loop.create_future, loop.call_soon
        self._closed = False

    async def close(self) -> None:
        """End every call and the connection. What was sent and not answered has an unknown outcome."""
        if self._closed:
            return
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        if self._alarm is not None:
            self._alarm.cancel()
        outbox, self._outbox = self._outbox, []
        for call in outbox:
            fail(call, closed())
        for link in [self._link, *self._leaving, *self.watching]:
            if link is not None:
                link.end(ConnectionError("the client was closed"))
        await asyncio.sleep(0)  # connection_lost comes in the next turn

    def submit(self, command: Command[T], deadline_s: float) -> "asyncio.Future[T]":
        """Make a call; its future has the answer, or an error that says whether it may have happened."""
        if self._closed:
            raise closed()
        future: asyncio.Future[T] = self._create_future()
        call: Waiting = Call(command, self._time() + deadline_s, future)
        if call.deadline_s < self._alarm_s:
            self._set_alarm(call.deadline_s)
        self._outbox.append(call)
        if not self._flush_due:
            self._flush_due = True
            self._call_soon(self.flush)
        return future

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Of the nodes."""
        return self._route.addresses

    @property
    def closed(self) -> bool:
        """Whether it takes no calls."""
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether a call made now would be the next that the node sees."""
        link = self._link
        return not self._outbox and link is not None and not link.paused

    # -- sending

    def flush(self) -> None:
        """Send what waits, as one write."""
        self._flush_due = False
        link = self._link
        if link is None:
            self._connect_soon()
        if link is None or link.paused or not self._outbox:
            self._bound()
            return
        ids = link.ids
        assert ids is not None
        calls, data = [], []
        for call in self._outbox:
            if call.waiter.done():
                continue
            try:
                data.append(call.bytes_for(ids))
            except EdgeKVError as error:
                fail(call, error)
            else:
                calls.append(call)
        self._outbox = []
        self._budget.earn(len(calls) - self._again)
        self._again = 0
        link.send(calls, b"".join(data))

    def _bound(self) -> None:
        while len(self._outbox) > CALLS_WAITING_MAX:
            fail(
                self._outbox.pop(),
                Overloaded(f"{CALLS_WAITING_MAX} calls wait to be sent already. Make fewer at once."),
            )

    # -- connecting

    def _connect_soon(self) -> None:
        if self.terms.has_session and self._leaving:
            return  # What is answered there is part of the session, and comes first: then `lost` comes here.
        if self._connecting is None and not self._closed and self._outbox:
            self._connecting = self._loop.create_task(self._connect(), name="edgekv-connect")

    async def _connect(self) -> None:
        """Until there is a connection, or nobody wants one any more."""
        try:
            while self._outbox:
                await asyncio.sleep(self._route.pause_s())
                address = self._route.address
                link: Link | None = None
                try:
                    async with asyncio.timeout(CONNECT_S):
                        link = await self.dial(address, lambda: Link(self))
                        await link.greeted
                    self._adopt(link)
                except (OSError, TimeoutError, EdgeKVError, *wire.BROKEN) as error:
                    self._route.failed(reason(error))
                    self._behind = error if isinstance(error, SessionBehind) else self._behind
                finally:  # Also when the client is closed meanwhile.
                    if link is not None and link is not self._link:
                        link.end(ConnectionError("it was given up"))
                if self._link is not None:
                    self.flush()
                    return
        finally:
            self._connecting = None

    def _adopt(self, link: Link) -> None:
        if link.ended:  # between its greeting and this turn
            raise ConnectionError("it was closed")
        self._link, self._behind = link, None

    # -- what links report

    def refused(self, link: Link, call: Waiting, error: EdgeKVError) -> None:
        """A node answered with an error."""
        failure = call.refused(error, self._budget, addresses=len(self._route.addresses))
        if failure is not None:
            fail(call, failure)
            return
        self._outbox.insert(0, call)
        self._again += 1
        if link is self._link:
            if isinstance(error, IdForgotten):
                self._route.broke(str(error))  # the same node, which gives a fresh stamp
            else:
                self._route.failed(str(error))
            self._link = None
            self._leaving.add(link)
            link.leave()
        self._call_soon(self.flush)

    def lost(self, link: Link, fault: Exception) -> None:
        """A connection ended."""
        again = []
        for call in link.waiting:
            if call.waiter.done():
                continue
            failure = call.abandoned() if self._closed else call.lost(fault, self._budget)
            if failure is not None:
                fail(call, failure)
            else:
                again.append(call)
        link.waiting.clear()
        self._outbox[:0] = again
        self._again += len(again)
        self._leaving.discard(link)
        if link is self._link:
            self._link = None
            if link.answered and not isinstance(fault, TimeoutError):
                self._route.broke(reason(fault))
            else:
                self._route.failed(reason(fault))
        if self._link is None:
            self._connect_soon()
        elif again:
            self.flush()

    # -- deadlines

    def _set_alarm(self, deadline_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = deadline_s
        self._alarm = self._loop.call_at(deadline_s, self._ring)

    def _ring(self) -> None:
        """End what is due, and find the next deadline."""
        now_s, self._alarm, self._alarm_s = self._time(), None, _FOREVER
        open_calls: list[Waiting] = []
        for call in self._outbox:
            if call.deadline_s <= now_s:
                behind = None if call.doubt else self._behind
                fail(call, behind or call.expired(sent=False, why=f"and no node could be asked ({self._route.reason})"))
            elif not call.waiter.done():
                open_calls.append(call)
        self._outbox = open_calls.copy()
        for link in [self._link, *self._leaving]:
            if link is not None:
                open_calls += self._ring_link(link, now_s)
        if open_calls:
            self._set_alarm(min(call.deadline_s for call in open_calls))

    def _ring_link(self, link: Link, now_s: float) -> list[Waiting]:
        due = [call for call in link.waiting if call.deadline_s <= now_s and not call.waiter.done()]
        for call in due:
            fail(call, call.expired(sent=True, why="and no answer came"))
        if due and now_s - link.quiet_s >= self.silence_s:
            self._call_soon(link.end, TimeoutError(f"it was silent for {now_s - link.quiet_s:.1f} s"))
        return [call for call in link.waiting if not call.waiter.done()]


async def _dial(address: Address, link: Callable[[], L]) -> L:
    _, made = await asyncio.get_running_loop().create_connection(link, address.host, address.port)
    return made
