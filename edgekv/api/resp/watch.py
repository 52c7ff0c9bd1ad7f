"""EDGEKV.WATCH: what is written below a prefix, pushed to the connection that asked, which is the watch's from then on.

    +OK
    >4  "edgekv.watch"  KIND  CURSOR  %DATA        RESP3: a push; RESP2: an array, and DATA an array of names and values in turn

KIND is ``put``, ``delete``, ``expire`` or ``resync`` with the data of HTTP's events, where ``elements`` is an array and ``fields`` an
array of field and value (null: none) in turn; or ``cursor`` without data: the first one, and after each WATCH_HEARTBEAT_S of silence.
"""

from collections.abc import Sequence
from typing import Final

from edgekv.api.resp.arguments import syntax_error, text
from edgekv.api.resp.replies import Dialect, array, bulk, bulks, integer
from edgekv.api.resp.session import Arguments, Reply, Session, Stream
from edgekv.api.resp.table import command
from edgekv.api.watch import Follower
from edgekv.errors import InvalidRequest
from edgekv.node.watch_events import Event, Written

_NAME: Final = bulk(b"edgekv.watch")


@command(
    "edgekv.watch",
    arity=-2,
    flags="readonly no_multi",
    group="generic",
    since="0.1.0",
    complexity="O(N) where N is the number of changes of the node.",
    summary="Push what is written below a prefix to this connection, until it ends",
)
def watch(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.WATCH prefix [CURSOR cursor]."""
    if session.transaction is not None:
        raise InvalidRequest("EDGEKV.WATCH cannot be part of a transaction. Use a connection of its own.")
    if session.promises is not None:
        raise InvalidRequest("EDGEKV.WATCH takes neither sessions nor acks. Use a connection of its own.")
    _, prefix, *options = arguments
    cursor = ""
    if options:
        if len(options) != 2 or options[0].upper() != b"CURSOR":
            raise syntax_error()
        cursor = text(options[1])
    watches = session.shared.host.watches
    return Stream(follower=Follower(watches, watches.open(prefix, cursor)))


class Pushes:
    """The messages of one watch, as its client's protocol has them."""

    def __init__(self, follower: Follower, dialect: Dialect) -> None:
        self.follower: Final = follower
        self._dialect: Final = dialect

    def place(self) -> bytes:
        """Where the watch is."""
        return self._message(b"cursor", self.follower.cursor, [])

    async def next(self) -> bytes:
        """Wait for events; the place after a while of silence; nothing at the end. Corruption."""
        events = await self.follower.next()
        if self.follower.ended:
            return b""
        return b"".join(map(self._event, events)) if events else self.place()

    def _event(self, event: Event) -> bytes:
        data = _phase(event) if event.written is None else self._written(event.kind, event.written)
        return self._message(event.kind.encode(), event.cursor, data)

    def _message(self, kind: bytes, cursor: str, data: Sequence[tuple[bytes, bytes]]) -> bytes:
        return self._dialect.push([_NAME, bulk(kind), bulk(cursor.encode()), self._dialect.map(data)])

    def _written(self, kind: str, written: Written) -> list[tuple[bytes, bytes]]:
        data = [(bulk(b"key"), bulk(written.key)), (bulk(b"type"), bulk(written.type.encode()))]
        if written.version:
            data.append((bulk(b"version"), bulk(written.version.encode())))
        if written.value is not None:
            data.append((bulk(b"value"), bulk(written.value)))
        if written.expiry_ms or kind == "expire":
            data.append((bulk(b"expiry_ms"), integer(written.expiry_ms)))
        if written.elements is not None:
            data.append((bulk(b"elements"), bulks(written.elements)))
        if written.fields is not None:
            pairs = [item for field, value in written.fields for item in (bulk(field), self._dialect.optional(value))]
            data.append((bulk(b"fields"), array(pairs)))
        return data


def _phase(event: Event) -> list[tuple[bytes, bytes]]:
    assert event.phase is not None
    return [(bulk(b"phase"), bulk(event.phase.encode()))]
