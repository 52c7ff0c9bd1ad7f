"""Physical removal of what every member has seen the end of: tombstones, expired cells and siblings, inert counter parts.

Called by the applier inside the transaction that stores a generation, after its rows. Only rows in LMDB are ever purged;
a purge is neither a change nor a log record. docs/ARCHITECTURE.md has the rules; the points that matter here:

- A STABLE is used only when the vector that this very transaction stores covers its ``need``. Then the store has every change
  the members made before they announced what the cut is made of, and whatever they make later carries a higher stamp.
- A one-node cluster announces to itself: the cut is the vector that this transaction stores.
- Two indexes make it a bounded walk: expiry -> row, and dot -> row for tombstones and inert parts. They are kept lazily: an
  entry is added when a row is written and never taken out when it is overwritten; a stale one is recognised by its row.
- A key's expiry cell ``x`` hides the key's elements, fields, counter parts and an older register. It never goes before them, that
  would show them again. In a cluster the leading hub clears such a key with a change. A one-node cluster has nobody to tell: here
  all that ``x`` hides is removed once its expiry has passed and the cut covers it, a million elements in many transactions, and
  ``x`` with the last of it. A client that writes to the key meanwhile clears what it sees and removes ``x`` itself.
- A map's clear goes by the cut as tombstones do, but not before the fields that it hides are swept.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Clear
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
    actor_of_suffix,
    element_of_suffix,
    field_of_suffix,
)
from edgekv.crdt.register import Cell, stamp
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.errors import Corruption
from edgekv.ids import Actor, KeyspaceId
from edgekv.store import layout
from edgekv.store.applied import ChainedVector, Stable
from edgekv.store.collection_rows import CollectionRows, StoredRows
from edgekv.store.lmdb_transactions import WriteTransaction

_MAP_CLEAR_END: Final = b"\x00" + SUFFIX_MAP_CLEAR


class Purged(NamedTuple):
    """What a walk did. ``more``: it ended at its bound, the next transaction goes on."""

    more: bool
    cleared: bool  # keys went together with their expiry cell


class Cuts:
    """A STABLE, as far as a transaction that stores these vectors may use it."""

    def __init__(self, stable: Stable, stored: dict[int, ChainedVector]) -> None:
        self.wall_ms = stable.wall_ms
        self.alone = stable.cuts is None
        self._cuts: dict[int, dict[Actor, int]] = {}
        self._parked: dict[int, frozenset[Actor]] = {}
        vectors = {keyspace: {actor: seq for actor, (seq, _) in vector.items()} for keyspace, vector in stored.items()}
        if stable.cuts is None:
            self._cuts = vectors
            return
        for keyspace, cut in stable.cuts.items():
            vector = vectors.get(keyspace, {})
            if all(seq <= vector.get(actor, 0) for actor, seq in cut.need.items()):
                self._cuts[keyspace] = cut.cut
                self._parked[keyspace] = cut.parked

    def highest_seqs(self) -> dict[Actor, int]:
        """Per actor a seq above which no keyspace's cut covers anything."""
        highest: dict[Actor, int] = {}
        for cut in self._cuts.values():
            for actor, seq in cut.items():
                highest[actor] = max(highest.get(actor, 0), seq)
        return highest

    def actors(self, keyspace: KeyspaceId) -> dict[Actor, int]:
        """Everybody who has made a change that the cut covers."""
        return self._cuts.get(keyspace, {})

    def allow_unwritten(self, row_key: bytes, row: layout.StoredRow) -> bool:
        """Whether this row need not be written at all. A map's clear must: it hides rows that are stored."""
        return self.allow(row_key, row) and not row_key.endswith(_MAP_CLEAR_END)

    def allow(self, row_key: bytes, row: layout.StoredRow) -> bool:
        """Whether this row may be removed by the cut. Elements, clears of sets and counts are none of its business."""
        if not isinstance(row, (Cell, Part)):
            return False
        keyspace, _, suffix = layout.split(row_key)
        if isinstance(row, Part):
            return is_inert(row) and self._allow_part(keyspace, actor_of_suffix(suffix), row)
        if not self.covers(keyspace, row.actor, row.seq):
            return False
        expired = 0 < row.expiry_ms <= self.wall_ms and suffix == SUFFIX_REGISTER
        return row.value is None or expired

    def covers(self, keyspace: int, actor: Actor, seq: int) -> bool:
        """Whether the cut covers a dot."""
        return seq <= self._cuts.get(keyspace, {}).get(actor, 0)

    def _allow_part(self, keyspace: int, owner: Actor, part: Part) -> bool:
        if owner in self._parked.get(keyspace, frozenset()) or not self.covers(keyspace, owner, part.seq):
            return False
        return part.base_dot is None or self.covers(keyspace, *part.base_dot)


def index_entries(
    row_key: bytes, row: layout.StoredRow, intern: Callable[[Actor], int]
) -> list[tuple[bytes, tuple[bytes, bytes]]]:
    """(index, entry) that a row needs when it is written, so that a later walk finds it."""
    lmdb_key = layout.lmdb_key_of(row_key)
    entries: list[tuple[bytes, tuple[bytes, bytes]]] = []
    if isinstance(row, Clear):
        entries.append((layout.DB_SWEEPS, (lmdb_key, b"")))
    elif isinstance(row, Cell):
        if row.value is None:
            if layout.split(row_key)[2] == SUFFIX_MAP_CLEAR:
                entries.append((layout.DB_SWEEPS, (lmdb_key, b"")))
            index_key = layout.tombstone_index_key(intern(row.actor), row.seq, lmdb_key)
            entries.append((layout.DB_TOMBSTONES, (index_key, lmdb_key)))
        elif row.expiry_ms:
            entries.append((layout.DB_EXPIRY, (layout.expiry_index_key(row.expiry_ms, lmdb_key), lmdb_key)))
    elif isinstance(row, Siblings):
        ends = {sibling.expiry_ms for sibling in row.values if sibling.expiry_ms}
        entries += [(layout.DB_EXPIRY, (layout.expiry_index_key(end, lmdb_key), lmdb_key)) for end in sorted(ends)]
    elif isinstance(row, Part) and row.base_dot is not None and is_inert(row):
        # By the dot of the reset: what covers it covers the part it observed, since each member is causally consistent.
        actor, seq = row.base_dot
        entries.append((layout.DB_TOMBSTONES, (layout.tombstone_index_key(intern(actor), seq, lmdb_key), lmdb_key)))
    return entries


class Purge:
    """The two walks. Keeps its places between transactions, so entries that have to stay are not met each time."""

    def __init__(self) -> None:
        self._expiry_from = b""
        self._tombstones_from: dict[Actor, bytes] = {}

    def run(self, transaction: WriteTransaction, cuts: Cuts, rows_max: int) -> Purged:
        """Look at up to ``rows_max`` entries of each index and remove what the cuts allow."""
        cleared, more = False, False
        high = (cuts.wall_ms + 1).to_bytes(8, "big")
        expired = transaction.index_range(layout.DB_EXPIRY, self._expiry_from, high, rows_max)
        self._expiry_from = _after(expired[-1][0]) if len(expired) == rows_max else b""
        room = rows_max
        for index_key, lmdb_key in expired:
            outcome = _expire(transaction, cuts, index_key, lmdb_key, room)
            cleared |= outcome.cleared
            room -= outcome.rows
            if outcome.more or room <= 0:
                self._expiry_from, more = index_key if outcome.more else _after(index_key), True
                break
        else:
            more = len(expired) == rows_max
        return Purged(self._walk_tombstones(transaction, cuts, rows_max) or more, cleared)

    def _walk_tombstones(self, transaction: WriteTransaction, cuts: Cuts, rows_max: int) -> bool:
        if transaction.index_is_empty(layout.DB_TOMBSTONES):
            return False
        for actor, seq in cuts.highest_seqs().items():
            number = transaction.number_of(actor)
            if number is None:
                continue  # No row names it.
            low = self._tombstones_from.get(actor, _index_start(number, 0))
            high = _index_start(number, seq + 1)
            entries = transaction.index_range(layout.DB_TOMBSTONES, low, high, rows_max)
            for index_key, lmdb_key in entries:
                _forget(transaction, cuts, index_key, lmdb_key)
            rows_max -= len(entries)
            if rows_max == 0:
                self._tombstones_from[actor] = _after(entries[-1][0])
                return True
            self._tombstones_from.pop(actor, None)
        return False


def _index_start(actor_number: int, seq: int) -> bytes:
    """At or below the tombstone index keys of this dot, above those of lower ones."""
    return layout.tombstone_index_key(actor_number, seq, b"")[: -layout.INDEX_HASH_BYTES]


def _after(index_key: bytes) -> bytes:
    """The lowest key above this one."""
    return index_key + b"\x00"


class _Expired(NamedTuple):
    """What became of one entry of the expiry index."""

    rows: int
    more: bool = False  # the key has more rows than there was room for
    cleared: bool = False  # the whole key is gone


def _expire(transaction: WriteTransaction, cuts: Cuts, index_key: bytes, lmdb_key: bytes, room: int) -> _Expired:
    """One entry of the expiry index, up to ``room`` rows."""
    data = transaction.get(lmdb_key)
    row = None if data is None else layout.decode_row(data, transaction.actor_of)
    if data is not None and isinstance(row, Siblings):
        return _expire_siblings(transaction, cuts, index_key, lmdb_key, data, row)
    if data is None or not isinstance(row, Cell) or row.expiry_ms != layout.expiry_of_index_key(index_key):
        transaction.index_delete(layout.DB_EXPIRY, index_key)
        return _Expired(1)
    row_key = layout.row_key_of(lmdb_key, data)
    if cuts.allow(row_key, row):
        transaction.delete(lmdb_key)
        transaction.index_delete(layout.DB_EXPIRY, index_key)
        return _Expired(1)
    outcome = _Expired(1)
    if cuts.alone and layout.split(row_key)[2] == SUFFIX_EXPIRY:
        outcome = _clear_key(transaction, cuts, row_key, row, room)
        if outcome.cleared:
            transaction.index_delete(layout.DB_EXPIRY, index_key)
    return outcome


def _expire_siblings(
    transaction: WriteTransaction, cuts: Cuts, index_key: bytes, lmdb_key: bytes, data: bytes, row: Siblings
) -> _Expired:
    """One entry that names siblings: those that have expired and may go. The entry goes with the last that it speaks of."""
    row_key = layout.row_key_of(lmdb_key, data)
    keyspace, end = layout.split(row_key)[0], layout.expiry_of_index_key(index_key)
    kept = [
        sibling
        for sibling in row.values
        if not (0 < sibling.expiry_ms <= cuts.wall_ms and cuts.covers(keyspace, sibling.actor, sibling.seq))
    ]
    if len(kept) < len(row.values):
        _put_siblings(transaction, row_key, lmdb_key, data, kept)
    if all(sibling.expiry_ms != end for sibling in kept):
        transaction.index_delete(layout.DB_EXPIRY, index_key)
    return _Expired(1)


def _put_siblings(
    transaction: WriteTransaction, row_key: bytes, lmdb_key: bytes, data: bytes, kept: list[Sibling]
) -> None:
    """What is left of a row of siblings, which was ``data``."""
    if not kept:
        transaction.delete(lmdb_key)
        return
    if not layout.check_row(lmdb_key, data):
        raise Corruption(f"the row {lmdb_key!r} is damaged. Restore a backup of the directory.", path="data.mdb")
    row = layout.encode_row(row_key, Siblings(tuple(kept)), transaction.intern)
    transaction.put_rows([(lmdb_key, row)])


def _clear_key(transaction: WriteTransaction, cuts: Cuts, row_key: bytes, expiry: Cell, room: int) -> _Expired:
    """Remove what an expired ``x`` hides, and ``x`` when nothing else is left."""
    keyspace, key, _ = layout.split(row_key)
    hidden = [SUFFIX_EXPIRY]
    if not cuts.covers(keyspace, expiry.actor, expiry.seq):
        return _Expired(1)
    for suffix, data in transaction.string_rows(keyspace, key, cuts.actors(keyspace)):
        row = layout.decode_row(data, transaction.actor_of)
        if isinstance(row, Part):
            assert suffix[0] == TAG_COUNTER
            if not cuts.covers(keyspace, Actor(suffix[1:]), row.seq):
                return _Expired(1)
            hidden.append(suffix)
        elif suffix == SUFFIX_REGISTER and isinstance(row, Cell) and stamp(row) < stamp(expiry):
            if not cuts.covers(keyspace, row.actor, row.seq):
                return _Expired(1)
            hidden.append(suffix)
    # The cut of a lone node is the vector that this transaction stores: it covers every element and field.
    removed = _clear_collection(transaction, cuts, keyspace, key, room)
    if removed == room:
        return _Expired(removed, more=True)
    for suffix in hidden:
        transaction.delete(layout.lmdb_key(keyspace, key, suffix))
    _clear_siblings(transaction, layout.row_key(keyspace, key, SUFFIX_SIBLINGS), expiry)
    return _Expired(removed + len(hidden), cleared=True)


def _clear_siblings(transaction: WriteTransaction, row_key: bytes, expiry: Cell) -> None:
    """Remove the siblings that an expired ``x`` hides: those below it."""
    lmdb_key = layout.lmdb_key_of(row_key)
    data = transaction.get(lmdb_key)
    if data is None:
        return
    row = layout.decode_row(data, transaction.actor_of)
    assert isinstance(row, Siblings)
    kept = [sibling for sibling in row.values if stamp(sibling.cell) >= stamp(expiry)]
    if len(kept) < len(row.values):
        _put_siblings(transaction, row_key, lmdb_key, data, kept)


def _clear_collection(transaction: WriteTransaction, cuts: Cuts, keyspace: KeyspaceId, key: bytes, room: int) -> int:
    """Remove up to ``room`` rows of a key's set and map, and keep their count exact; fewer than ``room``: nothing is left."""
    stored = StoredRows(transaction, checked=False)
    rows = CollectionRows(stored, keyspace, key, [], cuts.actors(keyspace))
    found = stored.suffixes(keyspace, key, layout.SUFFIX_COLLECTIONS, SUFFIX_SIBLINGS, room)
    elements, fields = rows.header.elements, rows.header.fields
    for suffix in found:
        lmdb_key = layout.lmdb_key(keyspace, key, suffix)
        if suffix[0] == TAG_ELEMENT:
            elements -= rows.element(element_of_suffix(suffix)) is not None
            transaction.delete(lmdb_key)
        elif suffix[0] in {TAG_FIELD, TAG_FIELD_PART}:
            field = field_of_suffix(suffix)
            before = rows.field(field).visible
            transaction.delete(lmdb_key)
            fields += rows.field(field).visible - before
        else:
            transaction.delete(lmdb_key)
    count_key = layout.row_key(keyspace, key, layout.SUFFIX_COUNT)
    if len(found) < room:
        transaction.delete(layout.lmdb_key_of(count_key))
    elif found:
        count = layout.encode_row(count_key, layout.Count(elements, fields), transaction.intern)
        transaction.put_rows([(layout.lmdb_key_of(count_key), count)])
    return len(found)


def _forget(transaction: WriteTransaction, cuts: Cuts, index_key: bytes, lmdb_key: bytes) -> None:
    """One entry of the tombstone index."""
    data = transaction.get(lmdb_key)
    row = None if data is None else layout.decode_row(data, transaction.actor_of)
    if data is None or row is None or not _is_named_by(row, layout.dot_of_index_key(index_key), transaction):
        transaction.index_delete(layout.DB_TOMBSTONES, index_key)
    elif cuts.allow(layout.row_key_of(lmdb_key, data), row) and not transaction.is_sweeping(lmdb_key):
        transaction.delete(lmdb_key)
        transaction.index_delete(layout.DB_TOMBSTONES, index_key)


def _is_named_by(row: Row, dot: tuple[int, int], transaction: WriteTransaction) -> bool:
    """Whether a tombstone index entry still speaks of this row."""
    if isinstance(row, Cell):
        return row.value is None and (transaction.number_of(row.actor), row.seq) == dot
    if not isinstance(row, Part) or row.base_dot is None or not is_inert(row):
        return False
    return (transaction.number_of(row.base_dot[0]), row.base_dot[1]) == dot
