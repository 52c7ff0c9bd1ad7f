"""A walk over the keys below a prefix, page by page, that survives the node it began at. Without I/O; `scan` of the shells drives it.

A cursor is known to one node only. When it is forgotten, or another node answers, the walk begins again and skips what it has shown:
keys come in order.
"""

from typing import Final

from edgekv.client.commands import Command, Name, name, scan_page
from edgekv.errors import EdgeKVError, InvalidRequest

PAGE_KEYS: Final = 100
"""Of a page: their values may be large, and a node answers one call with 64 MiB at most."""
_FORGOTTEN: Final = "invalid cursor"


class Walk:
    """The place of one walk."""

    def __init__(self, prefix: Name) -> None:
        self._prefix: Final = name(prefix)
        self._cursor = 0
        self._shown = b""
        self.more = True

    def command(self) -> Command[tuple[int, list[bytes]]]:
        """Asks for the next page."""
        return scan_page(self._cursor, self._prefix, PAGE_KEYS)

    def page(self, answer: tuple[int, list[bytes]]) -> list[bytes]:
        """The keys of a page that were not shown yet."""
        self._cursor, keys = answer
        self.more = self._cursor != 0
        keys = [key for key in keys if key > self._shown]
        if keys:
            self._shown = keys[-1]
        return keys

    def failed(self, error: EdgeKVError) -> None:
        """A page was refused: begin again if the cursor was forgotten, else raise the error."""
        if not self._cursor or not isinstance(error, InvalidRequest) or not str(error).startswith(_FORGOTTEN):
            raise error
        self._cursor = 0
