"""One connection to another node: frames in, messages to replication; messages of replication out.

No task, future or queue exists per message: `data_received` hands messages over as it decodes them, `send` writes into the transport's
buffer. Replication bounds what is under way by credit and closes who is silent (replication/link.py); here it is bounded whatever
replication does:

- *Greeting.* Replication hears of a connection when the other side's preface is there. Who sends none within PEER_DEAD_MS is dropped,
  and has been told nothing but this side's preface.
- *Input.* In one turn of the loop a connection hands over messages of PEER_TURN_BYTES, and the one with which it has so many; what
  came beyond waits for the next turn, and nothing more is read meanwhile. uvloop reads as long as there is something, and a piece of a
  few KiB may be a MiB when it is decompressed: on a fast link clients of this node would wait for all of it.
- *Output.* Who takes nothing for PEER_DEAD_MS while more is waiting than the transport likes to hold is dropped; progress, however
  slow, is enough. So is who has PEER_OUTPUT_BYTES_MAX waiting. The buffer is the connection's own: nobody else waits for it.
- *End.* `close` sends what was handed over, then a FIN, and reads on without looking until the other side ends it too: bytes that came
  and are not read would make the kernel send a reset, which overtakes the last words. After PEER_DEAD_MS it is cut off.

`Links` numbers the connections; replication knows them by number only.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Protocol, cast

from edgekv.errors import FormatUnknown, PeerFault
from edgekv.limits import PEER_DEAD_MS, PEER_OUTPUT_BYTES_MAX, PEER_TURN_BYTES, PEER_TURN_MESSAGE_BYTES
from edgekv.net.endpoint import place, prepare
from edgekv.net.frame import PREFACE, Decoder, Framing

DEAD_S: Final = PEER_DEAD_MS / 1000
_LOOK_S: Final = 0.5
"""Between two looks at whether the other side takes anything."""


class Host(Protocol):
    """What connections tell: replication, and a node that joins (join.py)."""

    def connected(self, link: int, *, outgoing: bool) -> None:
        """A node is at the other end."""

    def received(self, link: int, message: bytes) -> None:
        """A message came."""

    def heard(self, link: int) -> None:
        """A part of a message came: the other side is alive, and the line slow."""

    def disconnected(self, link: int) -> None:
        """It is over. Comes once for each `connected`, never from inside of `send` or `close`."""

    def is_idle(self, link: int) -> bool:
        """Whether nothing goes over it that is of use to this node, and another upstream may be better."""

    def trouble(self, sentence: str) -> None:
        """Something went wrong with a connection: who is at the other end is not a node, or cannot be reached."""


class Registry(Protocol):
    """What a connection asks of `Links`."""

    @property
    def framing(self) -> Framing: ...

    @property
    def host(self) -> Host: ...

    def accepts(self, connection: "Connection") -> bool: ...

    def greeted(self, connection: "Connection") -> int: ...

    def left(self, connection: "Connection") -> None: ...

    def complain(self, connection: "Connection", sentence: str) -> None: ...


class Connection(asyncio.Protocol):
    """See the module docstring."""

    def __init__(self, links: Registry, *, outgoing: bool) -> None:
        self._links: Final = links
        self._decoder: Final = Decoder(links.framing)
        self._loop: Final = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        """Of the greeting, the output, or the end: it waits for one of them at a time."""
        self._written = 0
        self._arrived: Iterator[bytes] | None = None
        """Messages that wait for the next turn; nothing is read then."""
        self._taken_bytes = 0
        """In this turn."""
        self.outgoing: Final = outgoing
        self.number = 0
        """Replication's name for it; 0: it has not heard of it."""
        self.place = ""
        """Of the other end."""
        self.instead: Connection | None = None
        """It ended because there is this one, with the same node."""
        self.ended: Final[asyncio.Future[str]] = self._loop.create_future()
        """Why nothing more is received or sent."""
        self.lost: Final[asyncio.Future[None]] = self._loop.create_future()
        """The socket is closed."""

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.place = place(transport, outgoing=self.outgoing)
        if not self._links.accepts(self):
            self._end("there are too many connections")
            self._transport.abort()
            return
        prepare(transport)
        self._transport.write(PREFACE)
        self._wait(DEAD_S, lambda: self._cut_off("it did not greet as a node does"))

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        assert self._arrived is None, "reading is paused"
        before = self._taken_bytes
        self._take(self._decoder.feed(data))
        if self._decoder.greeted and not self.ended.done():
            self._greet()
            if self._taken_bytes == before:
                self._links.host.heard(self.number)

    def _take(self, arrived: Iterator[bytes]) -> None:
        """Hand over what has arrived, as much of it as this turn may; the rest waits, and reading with it."""
        reading, self._arrived = self._arrived is None, arrived
        try:
            for message in arrived:
                self._greet()
                self._links.host.received(self.number, message)
                if self.ended.done():
                    return
                if self._count(len(message)):
                    if reading:
                        self._transport.pause_reading()
                    return
        except (PeerFault, FormatUnknown) as error:
            self._links.complain(self, f"the link with {self.place} ends: {error}")
            self.close(str(error))
            return
        self._arrived = None
        if not reading:
            self._read_on()

    def _count(self, size: int) -> bool:
        """A message of this turn; whether it was the last one."""
        if not self._taken_bytes:
            self._loop.call_soon(self._next_turn)
        self._taken_bytes += size + PEER_TURN_MESSAGE_BYTES
        return self._taken_bytes >= PEER_TURN_BYTES

    def _next_turn(self) -> None:
        self._taken_bytes = 0
        if self._arrived is not None:
            self._take(self._arrived)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _greet(self) -> None:
        if not self.number:
            self._wait(0, None)
            self.number = self._links.greeted(self)
            self._links.host.connected(self.number, outgoing=self.outgoing)

    def eof_received(self) -> None:
        """The transport flushes and closes itself when this returns nothing."""
        self._end("the other side closed it")
        self._wait(DEAD_S, self._transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._wait(0, None)
        self._end("the connection broke" if error is None else f"the connection broke: {error}")
        self.lost.set_result(None)
        self._links.left(self)
        if self.number:
            self._links.host.disconnected(self.number)

    def pause_writing(self) -> None:
        if not self.ended.done():
            self._watch_output(self._taken(), self._loop.time())

    def resume_writing(self) -> None:
        if not self.ended.done():
            self._wait(0, None)

    # -- what `Links` asks

    def send(self, message: bytes) -> None:
        """Send a message; one that comes after the end is dropped. Never blocks."""
        if self.ended.done() or self._transport.is_closing():
            return
        frame = self._links.framing.frame(message)
        self._written += len(frame)
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > PEER_OUTPUT_BYTES_MAX:
            self._cut_off(f"it has not taken {PEER_OUTPUT_BYTES_MAX} bytes")

    def close(self, reason: str) -> None:
        """Send what was handed over, and end it."""
        if self.ended.done():
            return
        self._end(reason)
        if self._transport.is_closing():
            return
        self._wait(DEAD_S, self._transport.abort)
        try:
            self._transport.write_eof()
        except OSError:  # the other side has reset it, and this loop has not heard yet
            self._transport.abort()

    def abort(self) -> None:
        """End it now."""
        self._end("this node stops")
        self._transport.abort()

    # -- inside

    def _cut_off(self, reason: str) -> None:
        self._links.complain(self, f"the link with {self.place} is cut off: {reason}")
        self._end(reason)
        self._transport.abort()

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
            if self._arrived is not None:
                self._arrived = None
                self._read_on()  # to see the end

    def _taken(self) -> int:
        return self._written - self._transport.get_write_buffer_size()

    def _watch_output(self, taken: int, since_s: float) -> None:
        """Look again and again; ``taken``: the bytes that had left at ``since_s``."""
        now_s, now_taken = self._loop.time(), self._taken()
        if now_taken > taken:
            taken, since_s = now_taken, now_s
        elif now_s - since_s >= DEAD_S:
            self._cut_off(f"it takes nothing, for {DEAD_S:.0f} s")
            return
        self._wait(min(_LOOK_S, DEAD_S), lambda: self._watch_output(taken, since_s))

    def _wait(self, seconds: float, then: Callable[[], None] | None) -> None:
        """Call ``then`` in a while, unless this is called again before; None: call nothing."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if then is None else self._loop.call_later(seconds, then)
