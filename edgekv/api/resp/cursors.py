"""SCAN's cursors: small integers that stand for the key where the next page begins.

Clients read a cursor as an unsigned 64-bit number (redis-py calls ``int`` on it), and a key does not fit into one. So the number is
an id in a table, which is bounded: the cursor given out longest ago is forgotten first, and a forgotten one is an error, never a scan
that silently skips keys. Ids start at a random place, so a cursor from before a restart is unknown and not somebody else's.
"""

from typing import Final

from edgekv.errors import InvalidRequest

_CURSOR_END: Final = 1 << 64


class Cursors:
    """The table. ``first`` is the first id, at least 1: cursor 0 is the beginning and the end."""

    def __init__(self, size: int, first: int) -> None:
        assert size > 0 < first
        self._size: Final = size
        self._next = first
        self._starts: Final[dict[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def issue(self, start: bytes) -> int:
        """A cursor for the page that begins at ``start``. It stays good for as long as the table has room."""
        cursor = self._next
        self._next += 1
        if len(self._starts) >= self._size:
            del self._starts[next(iter(self._starts))]
        self._starts[cursor] = start
        return cursor

    def start(self, argument: bytes) -> bytes:
        """Where the page of a cursor begins; InvalidRequest when it is none, or forgotten."""
        if not argument.isdigit() or len(argument) > 20 or int(argument) >= _CURSOR_END:
            raise InvalidRequest("invalid cursor")
        cursor = int(argument)
        if cursor == 0:
            return b""
        if cursor not in self._starts:
            raise InvalidRequest(
                "invalid cursor: this scan was left too long ago, or the node restarted. Start at 0 again."
            )
        return self._starts[cursor]
