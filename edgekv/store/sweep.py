"""The sweep: removes, a bounded number of rows at a time, what a clear of a set or a map has hidden.

A clear is one small row, and what it covers is hidden at once; here it goes from LMDB. Called by the applier inside each transaction
that has reached its LSN, after the rows of that stretch of the log. DB_SWEEPS names each clear whose rows are not all gone, with the
place from which to go on; a clear that is written (anew) begins at its start.

A set's clear goes with the last row it covers: an add that it has seen came before it, since changes are applied in causal order.
A map's clear stays: a cell with a lower stamp may still come, until the stable cut has passed (store.purge).

What is removed was not visible, so counts do not change.
"""

from collections.abc import Callable
from typing import Final

from edgekv.crdt import elements
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.maps import hidden
from edgekv.crdt.operation import SUFFIX_SET_CLEAR, Row, element_suffix, field_suffix
from edgekv.crdt.register import Cell
from edgekv.errors import Corruption
from edgekv.ids import KeyspaceId
from edgekv.limits import PURGE_ROWS_MAX
from edgekv.store import layout
from edgekv.store.collection_rows import ELEMENTS_END, FIELDS_END
from edgekv.store.lmdb_transactions import WriteTransaction

SWEEP_BYTES_MAX: Final = 16 << 20
"""Of rows that one transaction reads to sweep."""


class Sweep:
    """Goes round the clears, so that a set which is filled and cleared over and over does not keep the others waiting."""

    def __init__(self) -> None:
        self._from = b""

    def run(self, transaction: WriteTransaction, rows_max: int) -> bool:
        """Look at up to ``rows_max`` rows; whether there are more."""
        while rows_max > 0:
            if transaction.index_is_empty(layout.DB_SWEEPS):
                return False
            entries = transaction.index_range(layout.DB_SWEEPS, self._from, None, 1)
            if not entries:
                self._from = b""
                continue
            lmdb_key, place = entries[0]
            rows_max -= _sweep(transaction, lmdb_key, place, rows_max)
            self._from = lmdb_key + b"\x00"
        return not transaction.index_is_empty(layout.DB_SWEEPS)


def sweep_keyspace(transaction: WriteTransaction, keyspace: KeyspaceId, poll: Callable[[], None]) -> None:
    """Remove all that the clears of one keyspace have hidden, however much that is. ``poll`` is called now and then and may raise."""
    low, high = layout.key_start(keyspace, b""), layout.key_start(KeyspaceId(keyspace + 1), b"")
    while entries := transaction.index_range(layout.DB_SWEEPS, low, high, 1):
        poll()
        _sweep(transaction, *entries[0], PURGE_ROWS_MAX)


def _sweep(transaction: WriteTransaction, clear_key: bytes, place: bytes, rows_max: int) -> int:
    """Some rows of one clear; how many were looked at, at least 1."""
    data = transaction.get(clear_key)
    if data is None:
        transaction.index_delete(layout.DB_SWEEPS, clear_key)
        return 1
    keyspace, key, suffix = layout.split(layout.row_key_of(clear_key, data))
    clear = layout.decode_row(data, transaction.actor_of)
    bounds = (element_suffix(b""), ELEMENTS_END) if suffix == SUFFIX_SET_CLEAR else (field_suffix(b""), FIELDS_END)
    rows, next_place = _stretch(transaction, keyspace, key, bounds, place, rows_max)
    kept: list[tuple[bytes, bytes]] = []
    for lmdb_key, found in rows:
        row_key = layout.row_key_of(lmdb_key, found)
        row = layout.decode_row(found, transaction.actor_of)
        left = left_by(clear, row)
        if left is None:
            transaction.delete(lmdb_key)
        elif left != row:
            if not layout.check_row(lmdb_key, found):
                raise Corruption(
                    f"the row {lmdb_key!r} is damaged. Restore a backup of the directory.", path="data.mdb"
                )
            kept.append((lmdb_key, layout.encode_row(row_key, left, transaction.intern)))
    transaction.put_rows(kept)
    if next_place is not None:
        transaction.index_put(layout.DB_SWEEPS, [(clear_key, next_place)])
        return rows_max
    transaction.index_delete(layout.DB_SWEEPS, clear_key)
    if suffix == SUFFIX_SET_CLEAR:
        transaction.delete(clear_key)
    return 1 + len(rows)


def _stretch(
    transaction: WriteTransaction,
    keyspace: KeyspaceId,
    key: bytes,
    bounds: tuple[bytes, bytes],
    place: bytes,
    rows_max: int,
) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """(LMDB key, row) of a key's rows between the suffixes ``bounds`` from ``place`` on, in LMDB's order, and the next place.

    Rows of other keys that lie among them, as those with a long common beginning do, count as looked at.
    """
    start, end = (layout.row_key(keyspace, key, suffix) for suffix in bounds)
    last = layout.order_prefix(end)
    found: list[tuple[bytes, bytes]] = []
    size = 0
    for looked, (lmdb_key, data) in enumerate(transaction.range(place or layout.order_prefix(start), None)):
        if layout.order_prefix(lmdb_key) > last:
            break
        if looked >= rows_max or size >= SWEEP_BYTES_MAX:
            return found, lmdb_key
        size += len(data)
        if start <= layout.row_key_of(lmdb_key, data) < end:
            found.append((lmdb_key, data))
    return found, None


def left_by(clear: Row, row: Row) -> Row | None:
    """What a clear leaves of an element's row or of a field's cell: the row itself, less of it, or nothing."""
    if isinstance(row, Element):
        assert isinstance(clear, Clear)
        dots = elements.visible(row, clear)
        if len(dots) == len(row.dots):
            return row
        return Element(dots) if dots else None
    assert isinstance(row, Cell) and isinstance(clear, Cell)
    return None if hidden(row, clear) else row
