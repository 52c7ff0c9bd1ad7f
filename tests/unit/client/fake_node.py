"""A node of dicts behind a real RESP listener, for the client's tests: it can be told what goes wrong, and remembers operation ids.

It runs on a loop in a thread of its own, so that both clients can talk to it. What happens to a command is decided by ``script``,
which gets the command's number, counted from 1 without greetings, and its words as the client meant them (without EDGEKV.OP).
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Self, cast

import hiredis

from edgekv.config import Address
from edgekv.ids import stamp_of

WINDOW = 1024
ACCEPT_TURNS = 5
"""Of the loop, in which a connection that was just let in becomes one of ``open_connections``."""
OK = b"+OK\r\n"


class Fault(Enum):
    """What may go wrong with one command."""

    RESET_BEFORE = auto()
    """The connection is reset, and nothing was done."""
    RESET_AFTER = auto()
    """It was done, and the connection is reset before the answer is sent."""
    SILENCE = auto()
    """It was done, and no answer ever comes on this connection."""
    GARBAGE = auto()
    """It was done, and what comes back is no RESP."""


Script = Callable[[int, list[bytes]], "Fault | bytes | float | None"]
"""A fault, an answer of its own, a number of seconds by which the answer is late, or None: the usual."""


class FakeNode:
    """See the module docstring. ``with`` it; ``stop`` and ``start`` keep the data and the address."""

    def __init__(self, name: str = "node-1", *, takes_ids: bool = False) -> None:
        self.name = name
        self.takes_ids = takes_ids
        self.script: Script = lambda number, words: None
        self.rows: dict[bytes, bytes] = {}
        self.done: Counter[bytes] = Counter()
        """How often each verb was carried out."""
        self.commands = 0
        self.connections = 0
        self.operations: dict[bytes, dict[int, bytes]] = {}
        self.durable_lsn = 7
        self.oldest_stamp = 0
        """Sessions below it are forgotten."""
        self.greeting_answer: bytes | None = None
        self.openings: list[list[bytes]] = []
        """What connections asked for behind their greeting: EDGEKV.ACK and EDGEKV.SESSION."""
        self.opening_answer: Callable[[list[bytes]], bytes] = lambda words: OK
        self.push: Callable[[list[bytes]], bytes] = lambda words: b""
        """What is pushed before the answer to a command."""
        self.address = Address("127.0.0.1", 0)
        self.open_connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-node", daemon=True)

    @property
    def url(self) -> str:
        return f"edgekv://{self.address}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def stop(self) -> None:
        """As a node that is killed: nobody listens, and every connection ends."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    def listening_ends(self) -> None:
        """From a script: connections stay, nobody new is let in."""
        assert self._server is not None
        self._server.close()
        self._server = None

    async def _start(self) -> None:
        self._server = await self._loop.create_server(lambda: _Connection(self), *self.address)
        self.address = Address(*self._server.sockets[0].getsockname()[:2])

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for connection in list(self.open_connections):
            connection.transport.abort()
        while self.open_connections:  # noqa: ASYNC110 - they end in the next turn
            await asyncio.sleep(0)

    # -- what a node does

    def greet(self, words: list[bytes]) -> bytes | None:
        """The answers to a client's handshake."""
        match words:
            case [b"HELLO", *_]:
                return self.greeting_answer or b"%2\r\n+server\r\n+edgekv\r\n+proto\r\n:3\r\n"
            case [b"CLIENT", b"SETINFO", *_]:
                return OK
            case [b"COMMAND", b"INFO", b"EDGEKV.OP"]:
                return b"*1\r\n*1\r\n+edgekv.op\r\n" if self.takes_ids else b"*1\r\n_\r\n"
            case [b"INFO", b"edgekv"]:
                text = b"# EdgeKV\r\nnode:a\r\nactor:%b\r\n" % self.name.encode() if self.name else b""
                text += b"durable_lsn:%d\r\n" % self.durable_lsn
                return b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text)
            case [b"EDGEKV.ACK" | b"EDGEKV.SESSION", *_]:
                self.openings.append(words)
                return self.opening_answer(words)
        return None

    def execute(self, words: list[bytes]) -> bytes:
        match words:
            case [b"EDGEKV.OP", session, number, *inner] if self.takes_ids:
                return self._once(session, int(number), inner)
        self.done[words[0]] += 1
        match words:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"SET", key, value, *_]:
                self.rows[key] = value
                return OK
            case [b"GET", key]:
                return bulk(self.rows.get(key))
            case [b"MGET", *keys]:
                return b"*%d\r\n" % len(keys) + b"".join(bulk(self.rows.get(key)) for key in keys)
            case [b"DEL", *keys]:
                return b":%d\r\n" % sum(self.rows.pop(key, None) is not None for key in keys)
            case [b"INCRBY", key, n]:
                self.rows[key] = b"%d" % (int(self.rows.get(key, b"0")) + int(n))
                return b":%b\r\n" % self.rows[key]
        return b"-ERR unknown command\r\n"

    def _once(self, session: bytes, number: int, words: list[bytes]) -> bytes:
        if stamp_of(session) < self.oldest_stamp:
            return b"-FORGOTTEN the session is forgotten\r\n"
        known = self.operations.setdefault(session, {})
        if number in known:
            return known[number]
        if known and number <= max(known) - WINDOW:
            return b"-FORGOTTEN the operation id is too old\r\n"
        known[number] = reply = self.execute(words)
        return reply


def bulk(value: bytes | None) -> bytes:
    return b"_\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def push(*words: bytes) -> bytes:
    return b">%d\r\n" % len(words) + b"".join(map(bulk, words))


class _Connection(asyncio.Protocol):
    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.reader = hiredis.Reader()
        self.transport: asyncio.Transport
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.node.connections += 1
        self.node.open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.node.open_connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (words := self.reader.gets()) is not False:
            answer = self.node.greet(words)
            if answer is not None:
                self.transport.write(answer)
            elif not self._serve(words):
                return

    def _serve(self, words: list[bytes]) -> bool:
        """One command; False when the connection has ended."""
        node = self.node
        node.commands += 1
        fault = node.script(node.commands, words[3:] if words[0] == b"EDGEKV.OP" else words)
        if fault is Fault.RESET_BEFORE:
            self.transport.abort()
            return False
        reply = fault if isinstance(fault, bytes) else node.push(words) + node.execute(words)
        if fault is Fault.RESET_AFTER:
            self.transport.abort()
            return False
        if fault is Fault.SILENCE:
            self.silent = True
        if fault is Fault.GARBAGE:
            reply = b"?what\r\n"
        if isinstance(fault, float):
            asyncio.get_running_loop().call_later(fault, self.transport.write, reply)
        elif not self.silent:
            self.transport.write(reply)
        return True
