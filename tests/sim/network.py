"""A simulated network between nodes: connections that keep order and lose nothing until they are reset, as TCP's do.

A direction between two machines can be *blocked*: what is sent that way waits, at most until the connection is reset, and arrives when
the direction is free again. So a partition is a set of blocked directions, of any shape, one-way ones included. Between connections
nothing is ordered, and there may be two between the same machines. A reset throws away what is under way, both ways.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, Protocol

Direction = tuple[int, int]
"""(from, to), numbers of machines."""
SILENCE_US: Final = 10_000_000
"""After which the other end of a connection to a machine without power hears of it, if its process does not find out first."""


class Port(Protocol):
    """What a machine does with its connections; ``link`` numbers them, every end its own."""

    def connected(self, link: int, *, outgoing: bool) -> None: ...

    def received(self, link: int, message: bytes) -> None: ...

    def disconnected(self, link: int) -> None: ...


class _End:
    """One end of a connection, and what is under way to it."""

    def __init__(self, link: int, machine: int, port: Port) -> None:
        self.link: Final = link
        self.machine: Final = machine
        self.port: Final = port
        self.open = True
        self.last_us = 0
        """When what was sent to it last arrives: nothing overtakes it."""
        self.held: list[bytes | None] = []
        """Waits for the direction to be free. None: the other side closes."""
        self.peer: _End


class Network:
    """Between machines that are numbers. ``at(delay_us, do)`` is the simulation's clock."""

    def __init__(self, rng: Random, at: Callable[[int, Callable[[], None]], None], now_us: Callable[[], int]) -> None:
        self._rng: Final = rng
        self._at: Final = at
        self._now_us: Final = now_us
        self._ends: Final[dict[int, _End]] = {}
        self._blocked: set[Direction] = set()
        self._links = 0
        self.delay_us = 1_000
        """One way, at least; as much again at random."""
        self.slow: Final[dict[Direction, int]] = {}
        """Directions with another delay."""
        self.messages = 0
        self.bytes = 0

    # -- what faults do

    @property
    def blocked(self) -> frozenset[Direction]:
        """The directions that nothing passes."""
        return frozenset(self._blocked)

    def block(self, directions: set[Direction]) -> None:
        """Exactly these directions are blocked from now on."""
        freed, self._blocked = self._blocked - directions, set(directions)
        for end in list(self._ends.values()):
            if (end.peer.machine, end.machine) in freed and end.held:
                held, end.held = end.held, []
                for message in held:
                    self._pass(end, message)

    def reset_some(self, count: int) -> int:
        """Reset up to so many connections; how many it were."""
        links = sorted(link for link, end in self._ends.items() if end.link < end.peer.link)
        chosen = self._rng.sample(links, min(count, len(links)))
        for link in chosen:
            self._reset(self._ends[link])
        return len(chosen)

    def drop(self, port: Port, *, silent: bool) -> None:
        """The process behind the port is dead, and its machine says so to the others; a silent one only after a while."""
        for end in [end for end in self._ends.values() if end.port is port]:
            end.open = False
            self._ends.pop(end.link, None)
            if silent and self._rng.random() < 0.5:
                self._at(SILENCE_US, partial(self._hang_up, end.peer))
            else:
                self._hang_up(end.peer)

    # -- what shells do

    def can_connect(self, one: int, other: int) -> bool:
        """Whether a connection can be made now: that takes both directions."""
        return not self._blocked & {(one, other), (other, one)}

    def connect(self, dialer: int, dialer_port: Port, listener: int, listener_port: Port) -> int:
        """Make a connection; the listener learns of it after a delay. Returns the dialer's link."""
        mine, theirs = (
            _End(self._links + 1, dialer, dialer_port),
            _End(self._links + 2, listener, listener_port),
        )
        self._links += 2
        mine.peer, theirs.peer = theirs, mine
        self._ends[mine.link], self._ends[theirs.link] = mine, theirs
        theirs.last_us = self._now_us() + self._delay(dialer, listener)
        self._at(theirs.last_us - self._now_us(), lambda: self._greet(theirs))
        self._greet(mine, outgoing=True)
        return mine.link

    def send(self, link: int, message: bytes) -> None:
        """From this end to the other. What is sent into a dead connection is lost."""
        end = self._ends.get(link)
        if end is not None and end.open:
            self.messages += 1
            self.bytes += len(message)
            self._forward(end.peer, message)

    def close(self, link: int) -> None:
        """After all that was sent: this end is done, and hears it as a shell would."""
        end = self._ends.get(link)
        if end is not None and end.open:
            self._forward(end.peer, None)
            self._hang_up(end)

    # -- under way

    def _greet(self, end: _End, *, outgoing: bool = False) -> None:
        if end.open:
            end.port.connected(end.link, outgoing=outgoing)

    def _forward(self, to: _End, message: bytes | None) -> None:
        if (to.peer.machine, to.machine) in self._blocked:
            to.held.append(message)
        else:
            self._pass(to, message)

    def _pass(self, to: _End, message: bytes | None) -> None:
        to.last_us = max(to.last_us, self._now_us() + self._delay(to.peer.machine, to.machine))
        self._at(to.last_us - self._now_us(), lambda: self._arrive(to, message))

    def _arrive(self, to: _End, message: bytes | None) -> None:
        if not to.open:
            return
        if message is None:
            self._gone(to)
        else:
            to.port.received(to.link, message)

    def _delay(self, sender: int, receiver: int) -> int:
        delay_us = self.slow.get((sender, receiver), self.delay_us)
        return delay_us + int(self._rng.random() * delay_us)

    def _reset(self, end: _End) -> None:
        self._hang_up(end)
        self._hang_up(end.peer)

    def _hang_up(self, end: _End) -> None:
        """The end gets no more messages, and hears that it is disconnected a little later."""
        if end.open:
            end.open = False
            self._at(self._delay(end.peer.machine, end.machine), lambda: self._gone(end))

    def _gone(self, end: _End) -> None:
        end.open = False
        if self._ends.pop(end.link, None) is not None:
            end.port.disconnected(end.link)
