"""The links of a node: what goes out on one, and how one ends.

A link that ends is taken out at once, its place in the log given up, and why it ended is noted for people; what was sent before may
still leave.
"""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from edgekv.errors import EdgeKVError
from edgekv.replication.figures import Figures
from edgekv.replication.link import Link
from edgekv.replication.messages import Message, Refused, pack_message


class Transport(Protocol):
    """What replication asks of the shell."""

    def send(self, link: int, message: bytes) -> None:
        """Send one message. Never blocks."""

    def close(self, link: int, reason: str, *, instead: int = 0) -> None:
        """End a connection when what was sent has left; `Replication.disconnected` need not follow.

        ``reason``: empty when it is as it should be; ``instead``: the link with the same node that takes its place.
        """


class LinkTable:
    """Of one node."""

    def __init__(
        self,
        by_number: dict[int, Link],
        transport: Transport,
        figures: Figures,
        *,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self.judge: Callable[[Link, EdgeKVError], EdgeKVError] = lambda link, error: error
        """Set once: what a peer is told of an error (copies.py)."""
        self.by_number: Final = by_number
        self._transport: Final = transport
        self._figures: Final = figures
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms

    def __iter__(self) -> Iterator[Link]:
        """All links of this moment: any may end meanwhile."""
        return iter(list(self.by_number.values()))

    def open(self, number: int, *, outgoing: bool) -> Link:
        """A connection is there."""
        link = Link(number, outgoing=outgoing, wall_ms=self._now_ms(), now_ms=self._monotonic_ms())
        self.by_number[number] = link
        return link

    def send(self, link: Link, message: Message) -> None:
        """One message goes out."""
        data = pack_message(message)
        link.sent_ms = self._monotonic_ms()
        link.sent_bytes_total += len(data)
        self._transport.send(link.number, data)

    def refuse(self, link: Link, error: EdgeKVError) -> None:
        """End a link because of the peer, which is told."""
        error = self.judge(link, error)
        self.note(link, str(error))
        if link.number in self.by_number:
            self.send(link, Refused(error.code, str(error)))
        self.close(link, str(error), told=True)

    def close(self, link: Link, reason: str, *, told: bool = False) -> None:
        """End a link. ``told``: why has been noted."""
        if self.by_number.pop(link.number, None) is not None:
            if not told:
                self.note(link, reason)
            self._end(link)
            self._transport.close(link.number, reason)

    def gone(self, number: int) -> None:
        """A connection is gone."""
        link = self.by_number.pop(number, None)
        if link is not None:
            self._end(link)

    def replace(self, link: Link, by: Link) -> None:
        """End a link because there is another one with the same node: nothing is wrong."""
        if self.by_number.pop(link.number, None) is not None:
            self._end(link)
            self._transport.close(link.number, "there is another link with the same node", instead=by.number)

    def note(self, link: Link, sentence: str) -> None:
        """Something went wrong on a link."""
        self._figures.note(self._now_ms(), link.name or "an unknown node", sentence)

    def say(self, sentence: str) -> None:
        """Something went wrong here."""
        self._figures.note(self._now_ms(), "", sentence)

    def _end(self, link: Link) -> None:
        link.phase = "closed"
        if link.sender is not None:
            link.sender.close()
        self._figures.gone(link)
