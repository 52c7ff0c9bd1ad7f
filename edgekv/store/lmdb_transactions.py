"""Transactions of LMDB: the one that the applier writes in, and those that show one state of the store for a while.

Made by `LmdbStore` (store/lmdb_store.py), which says what can be relied on; the bytes are those of store/layout.py.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import lmdb

from edgekv.codec import pack, unpack
from edgekv.crdt.operation import SUFFIX_EXPIRY, SUFFIX_REGISTER, counter_suffix
from edgekv.errors import Unavailable
from edgekv.ids import ACTOR_BYTES, Actor, KeyspaceId
from edgekv.store import layout
from edgekv.store.applied import NOTHING_APPLIED, Applied


class WriteTransaction:
    """The applier's hands: everything it puts here is stored at once or not at all."""

    def __init__(
        self, transaction: "lmdb.Transaction[bytes]", databases: "dict[bytes, lmdb._Database]", actors: list[Actor]
    ) -> None:
        self._transaction = transaction
        self._databases = databases
        self._rows = databases[layout.DB_ROWS]
        self._row_cursor = transaction.cursor(self._rows)
        self._actors = actors
        self._numbers = {actor: number for number, actor in enumerate(actors)}
        self.changed = False
        """Whether a row or an index entry was put or removed."""

    def applied(self) -> Applied:
        """What was stored before this transaction, or by it."""
        return read_applied(self._transaction, self._databases[layout.DB_META])

    def put_applied(self, applied: Applied) -> None:
        """Store the LSN, vectors, HLCs, flags and TTL time that go with the rows put here."""
        before = self.applied()
        assert applied.lsn >= before.lsn, "the applied LSN never falls"
        meta = self._databases[layout.DB_META]
        put = self._transaction.put
        put(layout.META_APPLIED_LSN, pack(applied.lsn), db=meta)
        put(layout.META_TTL, pack(applied.ttl_ms), db=meta)
        for number, vector in applied.vectors.items():
            if vector != before.vectors.get(number):
                entries = [[actor, seq, chain] for actor, (seq, chain) in sorted(vector.items())]
                put(layout.meta_vector(KeyspaceId(number)), pack(entries), db=meta)
        for number in before.vectors.keys() - applied.vectors.keys():
            self.changed |= self._transaction.delete(layout.meta_vector(KeyspaceId(number)), db=meta)
        for number, hlc in applied.hlcs.items():
            put(layout.meta_hlc(KeyspaceId(number)), pack(hlc), db=meta)
        for number in applied.mixed - before.mixed:
            put(layout.meta_mixed(KeyspaceId(number)), b"", db=meta)
        for number in before.mixed - applied.mixed:
            self._transaction.delete(layout.meta_mixed(KeyspaceId(number)), db=meta)

    def get(self, lmdb_key: bytes) -> bytes | None:
        """The row under an LMDB key, as this transaction sees it."""
        return self._transaction.get(lmdb_key, db=self._rows)

    def put_rows(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Store (LMDB key, row), best in ascending order."""
        consumed, _ = self._row_cursor.putmulti(rows)
        self.changed |= consumed > 0

    def delete(self, lmdb_key: bytes) -> None:
        """Remove a row, if it is there."""
        self.changed |= self._transaction.delete(lmdb_key, db=self._rows)

    def range(self, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """(LMDB key, row) from ``low``, in LMDB's order, below ``high``. Nothing may be written before it is consumed."""
        return iterate(self._transaction, self._rows, low, high)

    def string_rows(self, keyspace: KeyspaceId, key: bytes, actors: Iterable[Actor]) -> list[tuple[bytes, bytes]]:
        """(suffix, row) of a key's register, expiry and counter parts."""
        return string_rows(self._transaction, self._rows, keyspace, key, actors)

    def intern(self, actor: Actor) -> int:
        """The number that stands for an actor in rows; a new actor gets the next one."""
        number = self._numbers.get(actor)
        if number is None:
            number = self._numbers[actor] = len(self._actors)
            self._actors.append(actor)
            self._transaction.put(number.to_bytes(4, "big"), actor, db=self._databases[layout.DB_ACTORS])
        return number

    def number_of(self, actor: Actor) -> int | None:
        """The number that stands for an actor; None when no row can name it."""
        return self._numbers.get(actor)

    def actor_of(self, number: int) -> Actor:
        """The inverse of ``intern``."""
        return self._actors[number]

    def index_put(self, index: bytes, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Add (index key, LMDB key) to DB_EXPIRY or DB_TOMBSTONES, (LMDB key, place) to DB_SWEEPS, what it has to DB_OPERATIONS."""
        consumed, _ = self._transaction.cursor(self._databases[index]).putmulti(entries)
        self.changed |= consumed > 0

    def index_get(self, index: bytes, index_key: bytes) -> bytes | None:
        """An index entry, as this transaction sees it."""
        return self._transaction.get(index_key, db=self._databases[index])

    def index_range(self, index: bytes, low: bytes, high: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """The first ``limit`` (index key, LMDB key) in [low, high)."""
        entries = iterate(self._transaction, self._databases[index], low, high)
        return [entry for entry, _ in zip(entries, range(limit), strict=False)]

    def index_delete(self, index: bytes, index_key: bytes) -> None:
        """Remove an index entry."""
        self.changed |= self._transaction.delete(index_key, db=self._databases[index])

    def is_sweeping(self, lmdb_key: bytes) -> bool:
        """Whether a clear still hides rows that are to be removed."""
        return self._transaction.get(lmdb_key, db=self._databases[layout.DB_SWEEPS]) is not None

    def index_is_empty(self, index: bytes) -> bool:
        """Whether an index holds nothing."""
        return self._transaction.stat(self._databases[index])["entries"] == 0


class Reading:
    """One state of the store, for work that takes longer than a held transaction lives. Made by ``LmdbStore.read``.

    The store ends it when it is closed or its map has to move; all methods raise Unavailable then: begin again.
    """

    def __init__(self, transaction: "lmdb.Transaction[bytes]", databases: "dict[bytes, lmdb._Database]") -> None:
        self._transaction: lmdb.Transaction[bytes] | None = transaction
        self._databases: Final = databases
        self._actors: list[Actor] = []

    def applied(self) -> Applied:
        """What is stored beside the rows."""
        return read_applied(self._open(), self._databases[layout.DB_META])

    def actors(self) -> list[Actor]:
        """The actors behind the interned numbers in the rows, by number."""
        return [Actor(actor) for _, actor in self._open().cursor(self._databases[layout.DB_ACTORS])]

    def actor_of(self, number: int) -> Actor:
        """The actor behind an interned number in a row."""
        if not self._actors:
            self._actors = self.actors()
        return self._actors[number]

    def get(self, lmdb_key: bytes) -> bytes | None:
        """The row under an LMDB key."""
        return self._open().get(lmdb_key)

    def range(self, low: bytes, high: bytes | None, database: bytes = layout.DB_ROWS) -> Iterator[tuple[bytes, bytes]]:
        """(LMDB key, row) from ``low``, in LMDB's order, below ``high``; of another database: what that has."""
        return iterate(self._open(), self._databases[database], low, high)

    def close(self) -> None:
        """Idempotent."""
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None

    def _open(self) -> "lmdb.Transaction[bytes]":
        if self._transaction is None:
            raise Unavailable("the store was closed or grew while its rows were read. Begin again.")
        return self._transaction


def read_applied(transaction: "lmdb.Transaction[bytes]", meta: "lmdb._Database") -> Applied:
    """What a transaction finds stored beside the rows."""
    lsn, ttl_ms = NOTHING_APPLIED.lsn, NOTHING_APPLIED.ttl_ms
    vectors: dict[int, dict[Actor, tuple[int, int]]] = {}
    hlcs: dict[int, int] = {}
    mixed: set[int] = set()
    for name, value in transaction.cursor(meta):
        kind, _, keyspace = name.partition(b"/")
        number = int.from_bytes(keyspace, "big")
        if name == layout.META_APPLIED_LSN:
            lsn = unpack(value)
        elif name == layout.META_TTL:
            ttl_ms = unpack(value)
        elif kind == b"vector":
            vectors[number] = {Actor(actor): (seq, chain) for actor, seq, chain in unpack(value)}
        elif kind == b"hlc":
            hlcs[number] = unpack(value)
        elif kind == b"mixed":
            mixed.add(number)
    return Applied(lsn, vectors, hlcs, frozenset(mixed), ttl_ms)


def iterate(
    transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", low: bytes, high: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a database from ``low``, ascending, below ``high``."""
    cursor = transaction.cursor(database)
    if not (cursor.set_range(low) if low else cursor.first()):
        return
    for name in cursor.iternext(keys=True, values=False):
        if high is not None and name >= high:
            return  # before its value is copied, which may have 16 MiB
        yield name, cursor.value()


def string_rows(
    transaction: "lmdb.Transaction[bytes]",
    rows: "lmdb._Database",
    keyspace: KeyspaceId,
    key: bytes,
    actors: Iterable[Actor],
) -> list[tuple[bytes, bytes]]:
    """The rows of a key that are not elements or fields, by suffix.

    One range read, which ends before the elements; for a key so long that LMDB does not order its rows, point reads.
    """
    start = layout.row_key(keyspace, key, b"")
    end = start + layout.SUFFIX_COLLECTIONS
    if len(end) + ACTOR_BYTES <= layout.ORDER_BYTES:
        return [(row_key[len(start) :], row) for row_key, row in iterate(transaction, rows, start, end)]
    suffixes = [SUFFIX_REGISTER, SUFFIX_EXPIRY, *map(counter_suffix, actors)]
    found = ((suffix, transaction.get(layout.lmdb_key_of(start + suffix), db=rows)) for suffix in suffixes)
    return [(suffix, row) for suffix, row in found if row is not None]
