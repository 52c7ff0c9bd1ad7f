"""A watch as a client has it: what it asks, what the node pushes as events, and the cursor with which any node goes on. Without I/O.

watch_link.py and watch_line.py drive it, asynchronously and not. A connection that ends is replaced by another one, to the next
address if need be, and the watch goes on behind the last cursor that it was sent: nothing is left out, and a little may come twice.
"""

from typing import Final, NamedTuple

import hiredis

from edgekv.client.commands import Name, name
from edgekv.client.wire import BrokenConversation, pack, problem
from edgekv.errors import EdgeKVError, Unavailable
from edgekv.limits import WATCH_HEARTBEAT_S

SILENCE_S: Final = 2.5 * WATCH_HEARTBEAT_S
"""A node that pushes nothing for so long, not even where the watch is, has hung or is cut off."""


class WatchEvent(NamedTuple):
    """Something was written. docs/HTTP_API.md has the table of what comes with which."""

    kind: str
    """put, delete, expire, or resync."""
    cursor: str
    """Save it when the event is dealt with: ``watch(cursor=...)`` goes on behind it, at any node."""
    key: bytes = b""
    type: str = ""
    """register, counter, set, map, siblings; of an ``expire`` key. Empty: a resync."""
    version: str = ""
    """Of two puts of a register or a field the greater one is what all nodes keep."""
    value: bytes | None = None
    """Of a register or of siblings; of a counter only among current rows."""
    expiry_ms: int = 0
    """When the key ends, in ms since the epoch; 0: never."""
    elements: list[bytes] | None = None
    """Of a set: added or removed. None with a delete: all."""
    fields: dict[bytes, bytes | None] | None = None
    """Of a map: put, None where it counts; or deleted. None with a delete: all."""
    phase: str = ""
    """Of a resync: ``begin``, what you hold of the prefix is void, and puts of all current rows follow; ``end``, those were all."""


class Subscription:
    """The place of one watch."""

    def __init__(self, prefix: Name, cursor: str) -> None:
        self._prefix: Final = name(prefix)
        self.cursor = cursor
        self.begun = False
        """The node of the present connection has accepted."""

    def request(self) -> bytes:
        """What a new connection sends when it has greeted."""
        place = (b"CURSOR", self.cursor.encode()) if self.cursor else ()
        return pack((b"EDGEKV.WATCH", self._prefix, *place))

    def take(self, message: object) -> WatchEvent | None:
        """What a node sent. An error is raised as what it stands for; BrokenConversation for what no watch is sent."""
        if isinstance(message, hiredis.ReplyError):
            raise problem(message)
        match message:
            case [b"edgekv.watch", bytes(kind), bytes(cursor), dict(data)]:
                self.cursor = cursor.decode()
                return None if kind == b"cursor" else _event(kind.decode(), self.cursor, data)
            case [b"edgekv.watch", *_]:
                raise BrokenConversation("it pushes events of another form")
            case list():
                return None  # What a node pushes unasked is not for us.
        if self.begun:
            raise BrokenConversation("it answers what nobody asked")
        self.begun = True
        return None


def passes(error: EdgeKVError) -> bool:
    """Whether another attempt, perhaps at another node, may do better than what was refused."""
    return isinstance(error, Unavailable)


def _event(kind: str, cursor: str, data: dict[object, object]) -> WatchEvent:
    version, value, elements = data.get(b"version", b""), data.get(b"value"), data.get(b"elements")
    key, type_, phase, expiry_ms = (
        data.get(b"key", b""),
        data.get(b"type", b""),
        data.get(b"phase", b""),
        data.get(b"expiry_ms", 0),
    )
    match key, type_, version, value, expiry_ms, elements, phase:
        case bytes(), bytes(), bytes(), bytes() | None, int(), list() | None, bytes():
            fields = _fields(data.get(b"fields"))
            return WatchEvent(
                kind, cursor, key, type_.decode(), version.decode(), value, expiry_ms, elements, fields, phase.decode()
            )
    raise BrokenConversation("it pushes an event that cannot be read")


def _fields(items: object) -> dict[bytes, bytes | None] | None:
    if items is None:
        return None
    if not isinstance(items, list) or len(items) % 2:
        raise BrokenConversation("it pushes an event that cannot be read")
    return dict(zip(items[::2], items[1::2], strict=True))
