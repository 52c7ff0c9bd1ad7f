"""The fold: the rows of a spool join the rows of a keyspace, where a BARRIER in the log says so.

Each side is complete and has its vector, so the dot rule decides row by row (crdt/joins.py): what the other side covers and does not
show was superseded or deleted there. Both sides lie in LMDB's order and are walked together, a *window* at a time: the rows up to the
least of the two last keys in sight. So memory is bounded by windows, besides the transaction's own dirty pages.

It may take several LMDB transactions, of which the last one alone moves what is stored as applied. A fold that ends in between begins
anew, from the first row, with the vector of before, and comes to the same rows: the dot rule decides on a row that it has joined as
it did the first time. So the count of a set or map has to be right in each: one that a transaction ends amid is counted for that, but
once only. Of a large one the rest is joined in one transaction. Nobody reads what lies between: the node's reader is pinned, and a
node that starts finishes the fold before it serves (engine/flip.py).

1. The clears of this side are carried out (store/sweep.py); the spool's were when it was written.
2. Windows. Rows that are equal, and those that only this side has and keeps, are not touched; plain rows are not even decoded for it.
3. The count of each set and map of which a row changed is made anew, behind its last row. A clear of a map hides fields of the other
   side at once; it gets into DB_SWEEPS like any other, and they go when the sweep comes to them.

A keyspace without rows and vector takes the spool's rows over as they are, but for the numbers of actors. Index entries are added as
they are for any row that is written; those of rows that went are recognised as stale by whoever meets them (store/purge.py).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from struct import Struct
from typing import Final

from edgekv.checksum import crc32c
from edgekv.crdt.joins import join_row
from edgekv.crdt.operation import (
    SUFFIX_MAP_CLEAR,
    TAG_ELEMENT,
    TAG_FIELD,
    TAG_REGISTER,
    TAG_SIBLINGS,
    Row,
    field_of_suffix,
)
from edgekv.crdt.register import Cell
from edgekv.errors import Corruption
from edgekv.ids import Actor, KeyspaceId, actor_text
from edgekv.limits import SPOOL_SLICE_BYTES, SPOOL_SLICE_ROWS
from edgekv.store import layout
from edgekv.store.applied import Applied, ChainedVector
from edgekv.store.collection_rows import CollectionRows, StoredRows
from edgekv.store.lmdb_transactions import WriteTransaction
from edgekv.store.lost_values import Lost, LostCells
from edgekv.store.purge import index_entries
from edgekv.store.spool import SpoolReader
from edgekv.store.sweep import sweep_keyspace
from edgekv.wal.record import Barrier

_PLAIN_HEAD: Final = Struct("<BIQQI")  # flags, CRC, HLC, seq, actor
_HEAD: Final = Struct("<BI")
_NUMBER: Final = Struct("<I")
_NUMBER_OFFSET: Final = 21
_VALUE_OFFSET: Final = layout.PLAIN_VALUE_OFFSET
_PLAIN_FLAGS: Final = b"\x00"
_INDEXES: Final = layout.DB_EXPIRY, layout.DB_TOMBSTONES, layout.DB_SWEEPS
_REMEDY: Final = "Restore a backup of the directory, or join the cluster again."

assert _PLAIN_HEAD.size == layout.PLAIN_VALUE_OFFSET == _NUMBER_OFFSET + _NUMBER.size

Window = dict[bytes, bytes]
"""LMDB key -> row."""


def joined_vector(mine: ChainedVector, theirs: ChainedVector) -> ChainedVector:
    """What either side has seen. Raises Corruption where they have other histories of an actor: equal seqs, different chains."""
    joined = dict(mine)
    for actor, head in theirs.items():
        own = mine.get(actor)
        if own is not None and own[0] == head[0] and own[1] != head[1]:
            raise Corruption(
                f"the store and a spool have different histories of {actor_text(actor)}, both up to {head[0]}. "
                "Restore a backup of the directory, or join the cluster again.",
                path="data.mdb",
            )
        if own is None or own[0] < head[0]:
            joined[actor] = head
    return joined


def fold(
    transaction: WriteTransaction, before: Applied, barrier: Barrier, spool: SpoolReader, poll: Callable[[], None]
) -> Applied:
    """Carry out a BARRIER in one transaction; see `Folding`."""
    applied = Folding(before.lsn, barrier, spool).step(transaction, before, poll, rows_max=1 << 62)
    assert applied is not None
    return applied


class Folding:
    """A fold over several transactions: `step` in each, until it says what has to be stored beside the rows."""

    def __init__(self, lsn: int, barrier: Barrier, spool: SpoolReader, begin: "Begin | None" = None) -> None:
        """``lsn``: of the BARRIER. ``begin``: another way to join than the dot rule (store/repair.py)."""
        self.lsn: Final = lsn
        self._barrier: Final = barrier
        self._spool: Final = spool
        self._begin: Final = begin or partial(Fold, unseen=dict(barrier.unseen), dropped=barrier.dropped)
        self._fold: Fold | None = None

    def step(
        self, transaction: WriteTransaction, before: Applied, poll: Callable[[], None], *, rows_max: int
    ) -> Applied | None:
        """Join about ``rows_max`` rows more; None: commit, and call again. If it raises, or a commit fails, another one has to begin.

        ``poll`` is called every few thousand rows and may raise. Raises Corruption: the spool is not the one that was logged, or
        damaged.
        """
        assert before.lsn == self.lsn
        keyspace = KeyspaceId(self._barrier.keyspace)
        mine = before.vectors.get(keyspace, {})
        if self._fold is None:
            joined = joined_vector(mine, spool_of(self._barrier, self._spool))
            sweep_keyspace(transaction, keyspace, poll)
            self._fold = self._begin(transaction, keyspace, self._spool, mine, joined)
        if not self._fold.run(transaction, poll, rows_max):
            return None
        self._fold.end(transaction, before.lsn)
        return Applied(
            before.lsn + 1,
            {**before.vectors, keyspace: self._fold.joined},
            {**before.hlcs, keyspace: max(before.hlcs.get(keyspace, 0), self._barrier.hlc)},
            before.mixed | {keyspace} if self._spool.head.mixed else before.mixed,
            before.ttl_ms,
        )

    def lost(self) -> Lost | None:
        """What was lost to concurrent writes with higher stamps, by the end; None: nothing."""
        return None if self._fold is None else self._fold.lost.lost()

    def close(self) -> None:
        """Give the spool back. Idempotent."""
        self._spool.close()


def spool_of(barrier: Barrier, spool: SpoolReader) -> ChainedVector:
    """The vector of the spool that a BARRIER names. Raises Corruption: this is another one."""
    head, theirs = spool.head, {actor: (seq, chain) for actor, seq, chain in barrier.vector}
    if (head.keyspace, head.vector, head.hlc) != (barrier.keyspace, theirs, barrier.hlc):
        raise Corruption(f"{spool.name} is another spool than the log speaks of. {_REMEDY}", path=spool.name)
    return theirs


class Fold:
    """One fold under way: what becomes of a row is decided in two methods, which a repair (store/repair.py) has of its own."""

    def __init__(
        self,
        transaction: WriteTransaction,
        keyspace: KeyspaceId,
        spool: SpoolReader,
        my_vector: ChainedVector,
        joined: ChainedVector,
        unseen: Mapping[Actor, int] | None = None,
        dropped: Sequence[tuple[Actor, int, int]] = (),
    ) -> None:
        """``unseen``, ``dropped``: see `Barrier`."""
        unseen = unseen or {}
        self._transaction = transaction
        """Of this step."""
        self._keyspace: Final = keyspace
        self._spool: Final = spool
        self._my_vector: Final = {actor: seq for actor, (seq, _) in my_vector.items()}
        self._my_cells_vector: Final = {a: min(seq, unseen.get(a, seq)) for a, seq in self._my_vector.items()}
        self._their_vector: Final = {actor: seq for actor, (seq, _) in spool.head.vector.items()}
        self.joined: Final = joined
        self._late: Final = dropped
        self.lost: Final = LostCells(keyspace)
        numbers = [transaction.intern(actor) for actor in spool.head.actors]
        self._is_same: Final = numbers == list(range(len(numbers)))
        """The rows of the spool name actors as this store does."""
        self._number_of: Final = {_NUMBER.pack(there): _NUMBER.pack(here) for there, here in enumerate(numbers)}
        self._their_seqs: Final = _by_number(self._their_vector, transaction.number_of)
        """What the spool covers, by this store's numbers."""
        there = {actor: number for number, actor in enumerate(spool.head.actors)}
        self._my_seqs: Final = _by_number(self._my_cells_vector, there.get)
        """What this store covers of cells, by the spool's numbers."""
        self._puts: Window = {}
        self._indexed: dict[bytes, list[tuple[bytes, bytes]]] = {index: [] for index in _INDEXES}
        self._uncounted: dict[bytes, None] = {}
        """Keys of whose set or map a row changed, in the order of their first one."""
        self._amid: set[bytes] = set()
        """Those amid which the transaction before this one ended: counting them again and again takes too long."""
        self._walk: Final = self._windows()

    def run(self, transaction: WriteTransaction, poll: Callable[[], None], rows_max: int) -> bool:
        """Join about so many rows more; whether those were the last."""
        self._transaction = transaction
        rows = 0
        for last, mine, theirs in self._walk:
            poll()
            rows += len(mine) + len(theirs)
            for lmdb_key, row in mine.items():
                self._join_mine(lmdb_key, row, theirs.pop(lmdb_key, None))
            self._add(theirs)
            self._write()
            self._count_up_to(last)
            if rows >= rows_max and self._uncounted.keys().isdisjoint(self._amid):
                self._amid = set(self._uncounted)
                self._count_up_to(None)  # as far as they are joined; what changes behind has them counted again
                return False
        self._count_up_to(None)
        return True

    def end(self, transaction: WriteTransaction, lsn: int) -> None:
        """All is joined: what has to be stored of that beside the rows. ``lsn``: of the BARRIER."""

    # -- both sides, in step

    def _windows(self) -> Iterator[tuple[bytes, Window, Window]]:
        """(last LMDB key, rows of this side, of the spool) between the same bounds, ascending; all of them in the end.

        While a window is worked on, rows up to its end may be written: what is in hand lies behind it.
        """
        blocks = self._spool.blocks()
        mine, theirs = self._read(layout.key_start(self._keyspace, b"")), next(blocks, [])
        while mine or theirs:
            last = min(side[-1][0] for side in (mine, theirs) if side)
            my_end, their_end = (bisect_right(side, last, key=_lmdb_key) for side in (mine, theirs))
            window = last, dict(mine[:my_end]), dict(theirs[:their_end])
            behind = mine[-1][0] + b"\x00" if mine else None
            mine, theirs = mine[my_end:], theirs[their_end:]
            yield window
            if behind is not None and not mine:
                mine = self._read(behind)
            theirs = theirs or next(blocks, [])

    def _read(self, low: bytes) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        size = 0
        for lmdb_key, row in self._transaction.range(low, layout.key_start(KeyspaceId(self._keyspace + 1), b"")):
            found.append((lmdb_key, row))
            size += len(row)
            if len(found) >= SPOOL_SLICE_ROWS or size >= SPOOL_SLICE_BYTES:
                break
        return found

    # -- what becomes of a row

    def _join_mine(self, lmdb_key: bytes, row: bytes, other: bytes | None) -> None:
        """A row of this side, with the spool's version of it."""
        if other is None and not row[0] and not self._late:
            _, _, _, seq, number = _PLAIN_HEAD.unpack_from(row)
            if seq <= self._their_seqs.get(number, 0):
                self._delete(lmdb_key, row)
        elif other is None or not self._is_equal(row, other):
            if layout.is_clear_or_count(row):
                return
            if not layout.check_row(lmdb_key, row):
                raise Corruption(f"the row {lmdb_key!r} is damaged. {_REMEDY}", path="data.mdb")
            row_key = layout.row_key_of(lmdb_key, row)
            mine = layout.decode_row(row, self._transaction.actor_of)
            theirs = None if other is None else layout.decode_row(other, self._their_actor)
            joined = self._join(row_key, mine, theirs)
            if joined is None:
                self._delete(lmdb_key, row)
            elif joined != mine:
                self._put(lmdb_key, row_key, joined)

    def _add(self, theirs: Window) -> None:
        """Rows that only the spool has."""
        puts, my_seqs, crc, pack = self._puts, self._my_seqs, crc32c, _HEAD.pack
        numbers = None if self._is_same else self._number_of
        for lmdb_key, row in theirs.items():
            if row[0]:
                row_key = layout.row_key_of(lmdb_key, row)
                joined = self._join(row_key, None, layout.decode_row(row, self._their_actor))
                if joined is not None:
                    self._put(lmdb_key, row_key, joined)
                continue
            _, _, _, seq, number = _PLAIN_HEAD.unpack_from(row)
            if seq <= my_seqs.get(number, 0):
                continue
            if numbers is None:
                puts[lmdb_key] = row
            else:
                content = row[5:_NUMBER_OFFSET] + numbers[row[_NUMBER_OFFSET:_VALUE_OFFSET]] + row[_VALUE_OFFSET:]
                puts[lmdb_key] = pack(0, crc(lmdb_key + _PLAIN_FLAGS + content)) + content
            if lmdb_key.find(b"\x00", 4) != len(lmdb_key) - 2 or lmdb_key[-1] != TAG_REGISTER:
                self._changed(lmdb_key)

    def _join(self, row_key: bytes, mine: Row | None, theirs: Row | None) -> Row | None:
        if self._late and isinstance(mine, Cell) and self._drops(row_key, mine):
            assert theirs is None or isinstance(theirs, Cell)
            if theirs is None or theirs.value != mine.value:
                self._tell(row_key, theirs, mine)
            return theirs
        my_vector = self._my_cells_vector if isinstance(mine or theirs, Cell) else self._my_vector
        joined = join_row(layout.split(row_key)[2], mine, my_vector, theirs, self._their_vector)
        if isinstance(mine, Cell) and isinstance(theirs, Cell):
            self._look_for_loss(row_key, mine, theirs, joined)
        return joined

    def _look_for_loss(self, row_key: bytes, mine: Cell, theirs: Cell, joined: Row | None) -> None:
        """Whether one of two versions is a value that the other one's writer had not seen, and that nobody is shown."""
        kept, discarded = (mine, theirs) if joined == mine else (theirs, mine)
        is_value = _is_value(row_key) and discarded.value not in (None, kept.value)
        seen = self._their_vector.get(mine.actor, 0) >= mine.seq or (
            self._my_cells_vector.get(theirs.actor, 0) >= theirs.seq
        )
        if is_value and not seen:
            self._tell(row_key, kept, discarded)

    def _tell(self, row_key: bytes, kept: Cell | None, discarded: Cell) -> None:
        _, key, suffix = layout.split(row_key)
        self.lost.add(key, None if suffix[0] == TAG_REGISTER else field_of_suffix(suffix), kept, discarded)

    def _drops(self, row_key: bytes, mine: Cell) -> bool:
        """Whether this is a value that came late where those are dropped. The spool's version stays then, which it had replaced."""
        late = any(actor == mine.actor and first <= mine.seq <= last for actor, first, last in self._late)
        return late and mine.value is not None and _is_value(row_key)

    def _is_equal(self, row: bytes, other: bytes) -> bool:
        """Whether a row is the same on both sides; False: it is not, or has to be decoded to tell."""
        if self._is_same or row[0] or other[0]:
            return self._is_same and row == other
        return (
            row[5:_NUMBER_OFFSET] == other[5:_NUMBER_OFFSET]
            and row[_NUMBER_OFFSET:_VALUE_OFFSET] == self._number_of[other[_NUMBER_OFFSET:_VALUE_OFFSET]]
            and row[_VALUE_OFFSET:] == other[_VALUE_OFFSET:]
        )

    def _their_actor(self, number: int) -> Actor:
        return self._spool.head.actors[number]

    # -- what is written

    def _put(self, lmdb_key: bytes, row_key: bytes, row: Row) -> None:
        self._puts[lmdb_key] = layout.encode_row(row_key, row, self._transaction.intern)
        for index, entry in index_entries(row_key, row, self._transaction.intern):
            self._indexed[index].append(entry)
        self._changed(row_key)

    def _delete(self, lmdb_key: bytes, row: bytes) -> None:
        self._transaction.delete(lmdb_key)
        self._changed(layout.row_key_of(lmdb_key, row))

    def _changed(self, row_key: bytes) -> None:
        """Remember the key of a row that is one of a set or map."""
        _, key, suffix = layout.split(row_key)
        if TAG_ELEMENT <= suffix[0] < TAG_SIBLINGS:
            self._uncounted[key] = None

    def _write(self) -> None:
        self._transaction.put_rows(sorted(self._puts.items()))
        self._puts.clear()
        for index, entries in self._indexed.items():
            if entries:
                self._transaction.index_put(index, sorted(entries))
                entries.clear()

    def _count_up_to(self, last: bytes | None) -> None:
        """Count the sets and maps of which all rows have been joined: those that do not reach to ``last``, the place in the walk."""
        for key in list(self._uncounted):
            beginning = layout.order_prefix(layout.row_key(self._keyspace, key, b""))
            if last is None or not last.startswith(beginning):
                self._count(key)
                del self._uncounted[key]

    def _count(self, key: bytes) -> None:
        stored = StoredRows(self._transaction, checked=False)
        rows = CollectionRows(stored, self._keyspace, key, [], self.joined)
        count = layout.Count(rows.count_elements(), rows.count_fields())
        if rows.header.map_clear is not None:  # it may hide what came: that has to go before the clear does
            clear_key = layout.lmdb_key(self._keyspace, key, SUFFIX_MAP_CLEAR)
            self._transaction.index_put(layout.DB_SWEEPS, [(clear_key, b"")])
        row_key = layout.row_key(self._keyspace, key, layout.SUFFIX_COUNT)
        lmdb_key = layout.lmdb_key_of(row_key)
        if any(count):
            self._transaction.put_rows([(lmdb_key, layout.encode_row(row_key, count, self._transaction.intern))])
        else:
            self._transaction.delete(lmdb_key)


def _by_number(vector: Mapping[Actor, int], number_of: Callable[[Actor], int | None]) -> dict[int, int]:
    """A vector by interned numbers; an actor without one has no rows."""
    numbered = ((number_of(actor), seq) for actor, seq in vector.items())
    return {number: seq for number, seq in numbered if number is not None}


def _is_value(row_key: bytes) -> bool:
    """Whether it is the key of a register or of a map's field."""
    return layout.split(row_key)[2][0] in (TAG_REGISTER, TAG_FIELD)


def _lmdb_key(row: tuple[bytes, bytes]) -> bytes:
    return row[0]


Begin = Callable[[WriteTransaction, KeyspaceId, SpoolReader, ChainedVector, ChainedVector], Fold]
"""As `Fold` is made."""
