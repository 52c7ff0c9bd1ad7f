"""How a node without a cluster comes into that of its upstreams: it asks one of them which cluster it is, and which keyspaces it has.

That is all that is agreed here. What the answer says is written down before the node starts (server/shell.py); that it becomes a
member is settled when it has started and says HELLO, as after every other start.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from edgekv.config import Address
from edgekv.errors import PeerFault
from edgekv.limits import PEER_DEAD_MS
from edgekv.net.dialer import Dialer
from edgekv.net.links import Links, Transport
from edgekv.replication.messages import Join, Refused, Welcome, pack_message, parse

_log: Final = logging.getLogger("edgekv.net")

ANSWER_S: Final = PEER_DEAD_MS / 1000
PATIENCE_S: Final = 1.0
"""Before somebody who looks on is told what is waited for."""


async def join(
    upstreams: Sequence[Address],
    request: Join,
    *,
    stopping: asyncio.Event,
    say: Callable[[str], None],
    chance: Callable[[], float],
) -> Welcome | None:
    """Ask one upstream after the other until one welcomes this node; None when ``stopping`` is set before that.

    ``say`` gets one line if that takes longer than a moment. ``chance`` is the dialer's.
    """
    loop = asyncio.get_running_loop()
    welcome: asyncio.Future[Welcome] = loop.create_future()
    links = Links(lambda transport: Newcomer(transport, request, welcome))
    dialer = Dialer(links, [upstreams], chance=chance)
    places = " or ".join(map(str, upstreams))
    waiting = loop.call_later(PATIENCE_S, say, f"waiting for {places} to join its cluster")
    stopped = loop.create_task(stopping.wait(), name="edgekv-join")
    dialer.start()
    try:
        await asyncio.wait((welcome, stopped), return_when=asyncio.FIRST_COMPLETED)
        return welcome.result() if welcome.done() else None
    finally:
        waiting.cancel()
        stopped.cancel()
        await dialer.close()
        await links.stop()


class Newcomer:
    """The host of its connections: sends JOIN, and looks for the answer among what a node says to one that it does not know."""

    def __init__(self, transport: Transport, request: Join, welcome: asyncio.Future[Welcome]) -> None:
        self._transport: Final = transport
        self._request: Final = pack_message(request)
        self._welcome: Final = welcome
        self._answers: Final[dict[int, asyncio.TimerHandle]] = {}
        """By link, when it is given up."""
        self._refusal = ""

    def connected(self, link: int, *, outgoing: bool) -> None:
        """See `net.link.Host`."""
        assert outgoing, "it has no listener yet"
        loop = asyncio.get_running_loop()
        self._answers[link] = loop.call_later(ANSWER_S, self._transport.close, link, "it does not answer")
        self._transport.send(link, self._request)

    def received(self, link: int, message: bytes) -> None:
        """See `net.link.Host`. HELLO comes first, and is for members."""
        try:
            answer = parse(message)
        except PeerFault as error:
            self._transport.close(link, str(error))
            return
        if isinstance(answer, Refused):
            self._say_refusal(answer.sentence)
            self._transport.close(link, answer.sentence)
        elif isinstance(answer, Welcome) and not self._welcome.done():
            self._welcome.set_result(answer)

    def heard(self, link: int) -> None:
        """See `net.link.Host`. An answer is small: who has not sent it in time is not waited for."""

    def is_idle(self, link: int) -> bool:  # noqa: ARG002 - of `Host`
        """See `net.link.Host`. Who is asked to join answers, or is given up."""
        return False

    def disconnected(self, link: int) -> None:
        """See `net.link.Host`."""
        self._answers.pop(link).cancel()

    def trouble(self, sentence: str) -> None:
        """See `net.link.Host`. It is in the log, and there is no status yet."""

    def _say_refusal(self, sentence: str) -> None:
        """Once, while it stays the same: what is refused today may be taken in tomorrow."""
        if sentence != self._refusal:
            _log.warning("this node may not join: %s", sentence)
        self._refusal = sentence
