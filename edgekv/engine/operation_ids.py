"""Operation ids: which operations of which clients this node has carried out, and what it answered. Pure, without a clock.

A client names an operation by a session (16 bytes that it makes, ids.py) and a number n, counted from 1 in the session. What is sent
again under the same name is answered again and not done again. The id and the reply are in the record of the change they belong to, so
a crash takes both or neither; this table holds those of durable changes, in the order of the log (engine/commit.py feeds it, recovery
rebuilds it from LMDB and the log). Bounded: per session OPERATION_WINDOW numbers up to its highest, OPERATION_SESSIONS_MAX sessions,
OPERATION_BYTES_MAX in all. The session that has made no change for the longest time is forgotten first.

What is forgotten is never taken for new
----------------------------------------
*In a session*: a number below its window is refused, known or not.

*A whole session*: one that is not in the table is either new or forgotten, and its bytes must tell which, for remembering who was
forgotten has no bound. So a session begins with a stamp: the durable LSN, which its client has asked this node for. The table keeps
one number, ``oldest_stamp``, above the stamps of all that it ever forgot; a session below it is refused, one at or above it is new.
There is no time limit: a client that comes back after a month is refused as well.

- A stamp above the durable LSN was not given by this node (random bytes, say): refused, else forgetting it would lock out all others.
- A session that is refused because it was idle, or new for too long, is no loss: its client asks for a fresh stamp. That one is high
  enough: whatever was forgotten had made a change that was durable by then, at or after its own stamp.
- A forgotten session may still have changes on their way to the disk. Those are not entered: the session stays refused as a whole.
- Changes that are not durable never make the table forget; else a crash could take them back and leave the loss.

Rejected: forgetting after 24 hours (a laptop that slept for two days counts twice); a Bloom filter of the forgotten (it fills up);
refusing all new sessions after one was forgotten (ten thousand reconnections, and counters stand still).
"""

from collections import OrderedDict
from typing import Final

from edgekv.errors import IdForgotten, InvalidRequest
from edgekv.ids import stamp_of
from edgekv.limits import (
    OPERATION_BYTES_MAX,
    OPERATION_ID_BYTES,
    OPERATION_SESSION_BYTES,
    OPERATION_SESSIONS_MAX,
    OPERATION_WINDOW,
)

_NOT_DONE: Final = (
    "The operation was not carried out now; whether an earlier attempt was is unknown. "
    "Read before you send it under a new session."
)


class _Session:
    __slots__ = ("bytes", "highest", "replies")

    def __init__(self) -> None:
        self.replies: dict[int, bytes] = {}
        self.highest = 0
        self.bytes = OPERATION_SESSION_BYTES


class OperationIds:
    """See the module docstring."""

    def __init__(self, *, sessions_max: int = OPERATION_SESSIONS_MAX, bytes_max: int = OPERATION_BYTES_MAX) -> None:
        self._sessions_max: Final = sessions_max
        self._bytes_max: Final = bytes_max
        self._sessions: Final[OrderedDict[bytes, _Session]] = OrderedDict()
        """The one whose last change is the oldest comes first."""
        self.bytes = 0
        """As OPERATION_BYTES_MAX counts."""
        self.oldest_stamp = 0
        """No session below it that is not in the table can be told from one that was forgotten."""

    def __len__(self) -> int:
        """How many sessions are remembered."""
        return len(self._sessions)

    def find(self, session: bytes, number: int, *, newest_stamp: int) -> bytes | None:
        """The reply of an operation; None: it was never carried out, and may be.

        IdForgotten: nobody knows. InvalidRequest: the session's stamp is above ``newest_stamp``.
        """
        known = self._sessions.get(session)
        if known is None:
            stamp = stamp_of(session)
            if stamp < self.oldest_stamp:
                raise IdForgotten(f"this node no longer knows the session, or never did. {_NOT_DONE}")
            if stamp > newest_stamp:
                raise InvalidRequest(
                    "the session does not begin with a stamp of this node: 8 bytes, big-endian, the durable_lsn of INFO edgekv."
                )
            return None
        if number <= known.highest - OPERATION_WINDOW:
            raise IdForgotten(
                f"the id is below the window of its session, which goes from {known.highest - OPERATION_WINDOW + 1} "
                f"to {known.highest}. {_NOT_DONE}"
            )
        return known.replies.get(number)

    def add(self, session: bytes, number: int, reply: bytes) -> None:
        """Enter an operation whose change is durable. Call it in the order of the log."""
        known = self._sessions.get(session)
        if known is None:
            if stamp_of(session) < self.oldest_stamp:
                return
            known = self._sessions[session] = _Session()
            self.bytes += OPERATION_SESSION_BYTES
        else:
            self._sessions.move_to_end(session)
        if number > known.highest:
            self._raise(known, number)
        if number > known.highest - OPERATION_WINDOW and number not in known.replies:
            known.replies[number] = reply
            self._grow(known, OPERATION_ID_BYTES + len(reply))
        while len(self._sessions) > self._sessions_max or self.bytes > self._bytes_max:
            self._forget_session()

    def _raise(self, known: _Session, highest: int) -> None:
        """Move the window up."""
        first, end = known.highest - OPERATION_WINDOW + 1, highest - OPERATION_WINDOW + 1
        known.highest = highest
        below = range(first, end) if end - first <= OPERATION_WINDOW else [n for n in known.replies if n < end]
        for number in below:
            reply = known.replies.pop(number, None)
            if reply is not None:
                self._grow(known, -OPERATION_ID_BYTES - len(reply))

    def _grow(self, known: _Session, size: int) -> None:
        known.bytes += size
        self.bytes += size

    def _forget_session(self) -> None:
        session, known = self._sessions.popitem(last=False)
        self.bytes -= known.bytes
        self.oldest_stamp = max(self.oldest_stamp, stamp_of(session) + 1)
