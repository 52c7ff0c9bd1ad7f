"""What a client asks of its connections beyond one node: acknowledgements of other nodes, and a session.

Pure. Each connection says the terms behind its greeting (`opening`), and hears how they are kept in pushes before the replies that
they are about (docs/RESP.md): the token of the session belongs to the client and goes with it to the next connection, how far writes
have got belongs to the connection.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from edgekv.client.wire import Words
from edgekv.errors import InvalidRequest

Ack = Literal["local", "site", "hub"]
ACKS: Final = ("local", "site", "hub")
SESSION_WAIT_MS: Final = 1_000
"""How long a new connection's node may take to cover the session, at most half of the time there is to connect; then the next address
is asked, until the call's deadline."""
_NEW: Final = b"NEW"


class Terms:
    """Of one client. ``on_pending`` is called with the verb of each write that was answered without the acknowledgement."""

    __slots__ = ("_ack", "_ack_timeout_ms", "has_session", "on_pending", "token")

    def __init__(
        self,
        ack: Ack = "local",
        ack_timeout_s: float = 0,
        on_pending: Callable[[str], None] | None = None,
        *,
        has_session: bool = False,
        token: bytes = b"",
    ) -> None:
        self._ack: Final = ack
        self._ack_timeout_ms: Final = round(ack_timeout_s * 1000)
        self.on_pending: Final = on_pending
        self.has_session: Final = has_session
        self.token = token
        """What the session has seen; empty: nothing."""

    def with_session(self, token: str | None) -> "Terms":
        """The same with a session, a new one or one to go on with."""
        given = b"" if token is None else token.encode()
        return Terms(self._ack, self._ack_timeout_ms / 1000, self.on_pending, has_session=True, token=given)

    def opening(self, patience_s: float) -> list[Words]:
        """What a new connection says first, which is answered within ``patience_s``."""
        words: list[Words] = []
        if self._ack != "local":
            words.append((b"EDGEKV.ACK", self._ack.encode(), b"%d" % self._ack_timeout_ms))
        if self.has_session:
            wait_ms = min(SESSION_WAIT_MS, int(patience_s * 500))
            go_on = (self.token, b"%d" % wait_ms) if self.token else (_NEW,)
            words.append((b"EDGEKV.SESSION", *go_on))
        return words

    def told(self, push: Sequence[object], *, pending: bool) -> bool:
        """A push came; whether the acknowledgement of writes is pending from here on."""
        match push:
            case [b"edgekv.session", bytes(token)] if self.has_session:
                self.token = token
            case [b"edgekv.ack", bytes(level)]:
                return level.decode() != self._ack
        return pending

    def report(self, verb: str) -> None:
        """A write was answered while its acknowledgement is pending. What the callback raises is the caller's to see."""
        if self.on_pending is not None:
            self.on_pending(verb)


def terms_of(ack: Ack, ack_timeout_s: float, on_pending: Callable[[str], None] | None, *, deadline_s: float) -> Terms:
    """The terms that `connect` was given; InvalidRequest when they make no sense."""
    if ack not in ACKS:
        raise InvalidRequest(f"ack={ack!r} is no level of acknowledgement. Use one of {', '.join(ACKS)}.")
    if ack != "local" and not 0.001 <= ack_timeout_s < deadline_s:
        raise InvalidRequest(
            f"ack_timeout_s={ack_timeout_s} is not below the deadline of {deadline_s} s, or less than a millisecond. "
            "A write that waits longer than its deadline ends as OutcomeUnknown; choose a shorter wait or a longer deadline."
        )
    return Terms(ack, ack_timeout_s, on_pending)
