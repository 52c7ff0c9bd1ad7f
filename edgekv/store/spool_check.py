"""What a spool that came from elsewhere has to pass before anything relies on it."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from struct import error
from typing import Final

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.operation import (
    SUFFIX_EXPIRY,
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SIBLINGS,
    TAG_COUNTER,
    TAG_ELEMENT,
    TAG_FIELD,
    TAG_FIELD_PART,
    Row,
)
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Siblings
from edgekv.errors import Corruption
from edgekv.ids import ACTOR_BYTES
from edgekv.limits import LMDB_KEY_BYTES_MAX, SPOOL_CHECK_ROWS
from edgekv.store import layout
from edgekv.store.spool import SpoolReader


class SpoolCheck:
    """Reads a spool that came from elsewhere, a slice at a time, before anything relies on it: `step` until it returns False.

    What passes is whole and in order, and every row is one that the fold and the readers can decode, at a key of its keyspace.
    """

    def __init__(self, path: Path, owns: Callable[[bytes], bool]) -> None:
        """``owns``: whether a key lies in the keyspace of the spool. Raises OSError, Corruption, FormatUnknown."""
        self._reader: Final = SpoolReader(path)
        self.head: Final = self._reader.head
        self._owns: Final = owns
        self._blocks: Final = self._reader.blocks()
        self._start: Final = layout.key_start(self.head.keyspace, b"")
        self._last = b""
        self._key = b""
        self._block: Iterator[tuple[bytes, bytes]] = iter(())
        """What was not looked at of the last one."""

    def step(self) -> bool:
        """Look at some rows; False when there were none. Raises Corruption."""
        rows = list(islice(self._block, SPOOL_CHECK_ROWS))
        if not rows:
            block = next(self._blocks, None)
            if block is None:
                self.close()
                return False
            self._block = iter(block)
            rows = list(islice(self._block, SPOOL_CHECK_ROWS))
        for lmdb_key, row in rows:
            if not self._last < lmdb_key or not lmdb_key.startswith(self._start) or not self._is_sound(lmdb_key, row):
                raise Corruption(
                    f"the spool {self._reader.name} has a row at {lmdb_key!r} that no store has. Let the row sync begin again.",
                    path=self._reader.name,
                )
            self._last = lmdb_key
        return True

    def close(self) -> None:
        """Idempotent."""
        self._reader.close()

    def _is_sound(self, lmdb_key: bytes, row: bytes) -> bool:
        if len(lmdb_key) > LMDB_KEY_BYTES_MAX or not layout.check_row(lmdb_key, row) or layout.is_clear_or_count(row):
            return False
        try:
            _, key, suffix = layout.split(layout.row_key_of(lmdb_key, row))
            decoded = layout.decode_row(row, self.head.actors.__getitem__)
        except (ValueError, IndexError, error):
            return False
        if key != self._key:
            if not self._owns(key):
                return False
            self._key = key
        return _belongs(suffix, decoded)


def _belongs(suffix: bytes, row: Row) -> bool:
    """Whether a suffix is one of such a row."""
    match row:
        case Cell():
            return suffix in {SUFFIX_REGISTER, SUFFIX_EXPIRY, SUFFIX_MAP_CLEAR} or suffix[0] == TAG_FIELD
        case Part():
            return suffix[0] in {TAG_COUNTER, TAG_FIELD_PART} and len(suffix) > ACTOR_BYTES
        case Element(dots):
            return suffix[0] == TAG_ELEMENT and bool(dots)
        case Siblings(values):
            return suffix == SUFFIX_SIBLINGS and bool(values)
        case Clear():
            return False
