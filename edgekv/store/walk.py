"""A place in the order of LMDB's rows that can jump."""

from typing import Final

import lmdb


class Walk:
    """A cursor over the rows: to what it was sought, to the next one, or to the last one before something."""

    def __init__(self, cursor: "lmdb.Cursor[bytes]") -> None:
        self._cursor: Final = cursor

    def seek(self, lmdb_key: bytes) -> bool:
        """Go to the first row at or above this key; False: there is none."""
        return self._cursor.set_range(lmdb_key) if lmdb_key else self._cursor.first()

    def seek_before(self, lmdb_key: bytes) -> bool:
        """Go to the last row below this key; False: there is none."""
        return self._cursor.prev() if self._cursor.set_range(lmdb_key) else self._cursor.last()

    def next(self) -> bool:
        """Go to the next row; False: there is none."""
        return self._cursor.next()

    @property
    def key(self) -> bytes:
        """The LMDB key here."""
        return self._cursor.key()

    @property
    def value(self) -> bytes:
        """A copy of the row here."""
        return self._cursor.value()
