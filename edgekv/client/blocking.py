"""Calls over blocking sockets: the synchronous client's engine.

Safe to share between threads: a call takes a connection that is free, or makes one, so as many callers as there are threads wait at
the same time, and what they write shares the node's next sync. What is sent again, which error a caller sees and where to connect next
is decided where exchange.py has it decided (calls.py, route.py); only the waiting differs. After a fork the child begins without
connections: an operation id must never be used by two processes.
"""

import os
import random
import socket
import threading
import time
import weakref
from typing import Final, TypeVar

import hiredis

from edgekv.client import wire
from edgekv.client.calls import Budget, Call, OperationIds, closed
from edgekv.client.commands import Command, Repeat
from edgekv.client.faults import reason
from edgekv.client.route import Route
from edgekv.client.terms import Terms
from edgekv.client.timing import CONNECT_S
from edgekv.config import Address
from edgekv.errors import EdgeKVError, IdForgotten, SessionBehind, Unavailable

READ_BYTES: Final = 1 << 16

T = TypeVar("T")


class Line:
    """One blocking connection that has greeted; one caller at a time."""

    __slots__ = ("_feed", "_gets", "_receive", "_send", "_socket", "_terms", "ids", "pending", "place")

    def __init__(self, place: int, address: Address, deadline_s: float, terms: Terms | None = None) -> None:
        """Raises OSError, Unavailable and wire.BROKEN. ``place`` is the address's, in the order of the URL."""
        self.place: Final = place
        self._terms: Final = terms or Terms()
        self.pending = False
        """Writes are being answered without the acknowledgement that was asked for."""
        patience_s = max(min(CONNECT_S, deadline_s - time.monotonic()), 0.001)
        self._socket: Final = socket.create_connection(address, patience_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._receive, self._send = self._socket.recv, self._socket.sendall
        reader = wire.reader()
        self._feed, self._gets = reader.feed, reader.gets
        try:
            self.ids: Final = OperationIds(self._greet(patience_s), os.urandom)
        except BaseException:
            self.close()
            raise

    def _greet(self, patience_s: float) -> wire.Peer:
        greeting, peer, deadline_s = wire.Greeting(self._terms.opening(patience_s)), None, time.monotonic() + patience_s
        self._send(greeting.request)
        while peer is None:
            peer = greeting.take(self._reply(deadline_s))
        return peer

    def ask(self, data: bytes, deadline_s: float) -> object:
        """Send one command; its reply. TimeoutError at the deadline, another OSError when the connection ends."""
        self._socket.settimeout(max(deadline_s - time.monotonic(), 0.001))
        self._send(data)
        self._feed(self._more())
        reply = self._gets()
        if type(reply) is hiredis.PushNotification:
            self._take_push(reply)
            return self._reply(deadline_s)
        return self._reply(deadline_s) if reply is wire.INCOMPLETE else reply

    def _take_push(self, push: hiredis.PushNotification) -> None:
        self.pending = self._terms.told(push, pending=self.pending)

    def _reply(self, deadline_s: float) -> object:
        """The next reply, however many reads it takes."""
        while (reply := self._gets()) is wire.INCOMPLETE or type(reply) is hiredis.PushNotification:
            if type(reply) is hiredis.PushNotification:
                self._take_push(reply)
            else:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError("no answer came")
                self._socket.settimeout(left_s)
                self._feed(self._more())
        return reply

    def _more(self) -> bytes:
        data = self._receive(READ_BYTES)
        if not data:
            raise ConnectionError("it was closed")
        return data

    def send(self, data: bytes) -> None:
        """Send a command whose answers `message` takes."""
        self._send(data)

    def message(self, patience_s: float) -> object:
        """The next reply, those included that nobody asked for. TimeoutError when nothing comes for so long."""
        while (reply := self._gets()) is wire.INCOMPLETE:
            self._socket.settimeout(patience_s)
            self._feed(self._more())
        return reply

    @property
    def fresh(self) -> bool:
        """Whether nothing happened to it while it was idle: the node has not closed it."""
        try:
            self._socket.setblocking(False)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Exchange:
    """Calls, one after the other per thread; see the module docstring."""

    def __init__(self, addresses: tuple[Address, ...], silence_s: float, terms: Terms | None = None) -> None:
        self.addresses: Final = addresses
        self.terms: Final = terms or Terms()
        self._turn: Final = threading.Lock() if self.terms.has_session else None
        """A session is one conversation: its calls are made one after the other."""
        self._silence_s: Final = silence_s
        """A node that says nothing for so long has hung."""
        self._budget: Final = Budget()
        self._idle: list[Line] = []
        """Used as a stack, whose ``append`` and ``pop`` are atomic."""
        self._place = 0
        """Of the address that answered last."""
        self._closed = False
        _exchanges.add(self)

    @property
    def closed(self) -> bool:
        """Whether it takes no calls."""
        return self._closed

    def close(self) -> None:
        """End the connections."""
        self._closed = True
        self.drop_connections()

    def drop_connections(self) -> None:
        """Hang up those that are idle."""
        lines, self._idle = self._idle, []
        for line in lines:
            line.close()

    def with_session(self, token: str | None) -> "Exchange":
        """Another exchange with the same nodes, beginning with the one that this one is at, for a session."""
        session = Exchange(self.addresses, self._silence_s, self.terms.with_session(token))
        session._place = self._place
        return session

    def submit(self, command: Command[T], deadline_s: float) -> T:
        """Make a call; its answer, or an error that says whether it may have happened."""
        if self._turn is None:
            return self._submit(command, deadline_s)
        with self._turn:
            return self._submit(command, deadline_s)

    def _submit(self, command: Command[T], deadline_s: float) -> T:
        if self._closed:
            raise closed()
        call: Call[None] = Call(command, time.monotonic() + deadline_s, None)
        self._budget.earn(1)
        while True:
            line = self._line(call)
            try:
                reply = line.ask(call.bytes_for(line.ids), call.deadline_s)
                if call.operation is not None:
                    line.ids.settled(call.operation)
                if type(reply) is not hiredis.ReplyError:
                    value = command.kind.read(reply)
                    self._put_back(line)
                    if line.pending and command.kind.writes:
                        self.terms.report(command.kind.name)
                    return value
            except TimeoutError as cause:
                line.close()
                if deadline_s >= self._silence_s:
                    self._leave(line)
                raise call.expired(sent=True, why="and no answer came") from cause
            except (OSError, hiredis.ProtocolError, wire.BrokenConversation) as cause:
                line.close()
                failure = call.lost(cause, self._budget)
                if failure is not None:
                    raise failure from cause
            except (
                BaseException
            ):  # Such as KeyboardInterrupt: an answer may still come, and would be taken for another's.
                line.close()
                raise
            else:
                self._refused(call, line, wire.problem(reply))

    def _refused(self, call: Call[None], line: Line, error: EdgeKVError) -> None:
        """A node answered with an error: raise it, or return to have the call sent again."""
        forgotten = isinstance(error, IdForgotten)
        if forgotten:
            line.close()  # the next one has a fresh stamp
        else:
            self._put_back(line)
        failure = call.refused(error, self._budget, addresses=len(self.addresses))
        if failure is not None:
            raise failure
        if not forgotten:
            self._leave(line)

    def _leave(self, line: Line) -> None:
        """Prefer the address after this one's."""
        self._place = (line.place + 1) % len(self.addresses)
        self.drop_connections()

    def _put_back(self, line: Line) -> None:
        self._idle.append(line)
        if self._closed:
            self.drop_connections()

    def _line(self, call: Call[None]) -> Line:
        """A connection that nobody uses."""
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            # What may be sent only once is not risked on a connection that the node has closed meanwhile.
            if call.command.kind.repeat is Repeat.FREELY or line.ids.peer.takes_ids or line.fresh:
                return line
            line.close()
        return self._connect(call)

    def _connect(self, call: Call[None]) -> Line:
        route = Route(self.addresses, random.random, place=self._place)
        behind: SessionBehind | None = None
        tried = False
        while (left_s := call.deadline_s - time.monotonic()) > 0:
            time.sleep(min(route.pause_s(), left_s))
            try:
                line = Line(route.place, route.address, call.deadline_s, self.terms)
            except (OSError, Unavailable, *wire.BROKEN) as error:
                if tried and isinstance(error, TimeoutError) and time.monotonic() >= call.deadline_s:
                    break  # The deadline cut it short: what was wrong before is why.
                tried = True
                route.failed(reason(error))
                behind = error if isinstance(error, SessionBehind) else behind
            else:
                self._place = route.place
                return line
        if behind is not None and not call.doubt:
            raise behind
        raise call.expired(sent=False, why=f"and no node could be asked ({route.reason})")


_exchanges: Final[weakref.WeakSet[Exchange]] = weakref.WeakSet()


def _after_fork() -> None:
    for exchange in _exchanges:
        exchange.drop_connections()


os.register_at_fork(after_in_child=_after_fork)
