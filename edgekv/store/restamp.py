"""Stamps of a clock that ran far ahead, put right in a store whose node does not run.

What a node wrote while its clock was days ahead no hub takes: it would win over everything for as long. So the node lowers these
stamps by what its clock was ahead (node/clock_restart.py). They keep their order and their dots, so nothing is written again, and
nothing counts twice. An expiry beside such a stamp was reckoned by the same clock, and is lowered with it. Elements and counter parts
have no stamps.

Which: those that the hub would not take, whoever made them. By how much, for each keyspace: the highest becomes *now*, by the hub. A
clock that was wrong in several ways leaves some stamps lower than they should be. What their writer had seen stays replaced all the
same, since lowered stamps travel with rows only, and those are joined by dots (crdt/joins.py).

All of a keyspace is checked first: of a damaged row nobody can tell whether its stamp is one of those, and once the log is gone, which
comes next, nobody would get the keyspace's rows from here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from edgekv.clock import hlc_from_ms, hlc_ms
from edgekv.crdt.register import Cell
from edgekv.crdt.rows import Row
from edgekv.crdt.siblings import Siblings
from edgekv.errors import Corruption
from edgekv.ids import KeyspaceId
from edgekv.limits import CLOCK_AHEAD_MS_MAX
from edgekv.store import layout
from edgekv.store.lmdb_store import LmdbStore, MapFull
from edgekv.store.lmdb_transactions import WriteTransaction
from edgekv.store.purge import index_entries
from edgekv.store.sweep import sweep_keyspace

_WINDOW_ROWS: Final = 1_000


class Restamped(NamedTuple):
    """What was done in one keyspace."""

    keyspace: KeyspaceId
    rows: int
    by_ms: int


def restamp(store: LmdbStore, stamps_max: Mapping[int, int], incarnation: bytes) -> list[Restamped]:
    """Lower what is above ``stamps_max``, by keyspace what the hub takes, all of it in one durable transaction.

    The log below the applied LSN holds the old stamps and is not to be read any more. Raises Corruption for a damaged row: nothing was
    changed. StoreError: `is_restamped`, of a store that was opened again, tells whether anything was.
    """
    return _written(store, lambda transaction: _restamp(transaction, stamps_max), incarnation)


def is_restamped(store: LmdbStore, incarnation: bytes) -> bool:
    """Whether that was done with what this incarnation has stamped: nothing may go on as that any more."""
    name = layout.META_RESTAMPED
    return any(found == incarnation for _, found in store.index_range(layout.DB_META, name, name + b"\x00"))


def note_again(store: LmdbStore, incarnation: bytes) -> None:
    """Make sure that the note is durable: the fdatasync of its commit may have failed, and Linux keeps no such page dirty."""
    _written(store, lambda transaction: [], incarnation)


def _written(
    store: LmdbStore, change: Callable[[WriteTransaction], list[Restamped]], incarnation: bytes
) -> list[Restamped]:
    """Change the store and note it, durably and at once."""
    while True:
        try:
            with store.write() as transaction:
                done = change(transaction)
                transaction.index_put(layout.DB_META, [(layout.META_RESTAMPED, incarnation)])
        except MapFull:
            store.grow()
        else:
            store.renew()
            store.sync()
            return done


def _restamp(transaction: WriteTransaction, stamps_max: Mapping[int, int]) -> list[Restamped]:
    before, done = transaction.applied(), []
    hlcs = dict(before.hlcs)
    for number, hlc in sorted(before.hlcs.items()):
        if hlc > stamps_max.get(number, hlc):
            keyspace = KeyspaceId(number)
            _check(transaction, keyspace)
            sweep_keyspace(transaction, keyspace, lambda: None)  # a clear that is lowered hides what it hid
            correction = _Correction(transaction, keyspace, hlc, stamps_max[number])
            hlcs[number] = correction.run()
            done.append(Restamped(keyspace, correction.rows, correction.by_ms))
    ttl_ms_max = hlc_ms(max(stamps_max.values(), default=1 << 63))
    ttl_ms = before.ttl_ms if before.ttl_ms <= ttl_ms_max else 0  # it is told anew when it is admitted
    transaction.put_applied(before._replace(hlcs=hlcs, ttl_ms=ttl_ms))
    return done


def _check(transaction: WriteTransaction, keyspace: KeyspaceId) -> None:
    for lmdb_key, data in _rows(transaction, keyspace):
        if not layout.check_row(lmdb_key, data):
            raise Corruption(
                f"the row {lmdb_key!r} is damaged. Write it anew if it is a plain value, else restore a backup of the directory.",
                path="data.mdb",
            )


def _rows(transaction: WriteTransaction, keyspace: KeyspaceId, low: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    start, end = (layout.key_start(KeyspaceId(keyspace + i), b"") for i in (0, 1))
    return transaction.range(low or start, end)


class _Correction:
    """Of one keyspace."""

    def __init__(self, transaction: WriteTransaction, keyspace: KeyspaceId, hlc: int, hlc_max: int) -> None:
        self._transaction: Final = transaction
        self._keyspace: Final = keyspace
        self._hlc_max: Final = hlc_max
        now_ms = hlc_ms(hlc_max) - CLOCK_AHEAD_MS_MAX
        self._now: Final = hlc_from_ms(now_ms)
        self.by_ms: Final = hlc_ms(hlc) - now_ms
        self.rows = 0

    def run(self) -> int:
        """Lower the stamps; the HLC from which the keyspace goes on."""
        transaction, hlc, low = self._transaction, self._now, b""
        while True:
            puts: list[tuple[bytes, bytes]] = []
            last = b""
            rows = _rows(transaction, self._keyspace, low)
            for (lmdb_key, data), _ in zip(rows, range(_WINDOW_ROWS), strict=False):
                last = lmdb_key
                if layout.is_count(data):
                    continue
                row = layout.decode_row(data, transaction.actor_of)
                lowered = self._lowered(row)
                hlc = max([hlc, *_stamps(lowered)])
                if lowered != row:
                    row_key = layout.row_key_of(lmdb_key, data)
                    puts.append((lmdb_key, layout.encode_row(row_key, lowered, transaction.intern)))
                    for index, entry in index_entries(row_key, lowered, transaction.intern):
                        transaction.index_put(index, [entry])
            if not last:
                return hlc
            transaction.put_rows(puts)
            self.rows += len(puts)
            low = last + b"\x00"

    def _lowered(self, row: Row) -> Row:
        if isinstance(row, Cell) and row.hlc > self._hlc_max:
            return row._replace(hlc=self._lower(row.hlc), expiry_ms=self._lower_expiry(row.expiry_ms))
        if isinstance(row, Siblings) and any(each.hlc > self._hlc_max for each in row.values):
            return Siblings(
                tuple(
                    each._replace(hlc=self._lower(each.hlc), expiry_ms=self._lower_expiry(each.expiry_ms))
                    if each.hlc > self._hlc_max
                    else each
                    for each in row.values
                )
            )
        return row

    def _lower(self, hlc: int) -> int:
        return max(1, hlc - hlc_from_ms(self.by_ms))

    def _lower_expiry(self, expiry_ms: int) -> int:
        """One that lies in the near future was meant by another clock than the wrong one."""
        return expiry_ms - self.by_ms if expiry_ms > hlc_ms(self._hlc_max) else expiry_ms


def _stamps(row: Row) -> Iterable[int]:
    if isinstance(row, Cell):
        return (row.hlc,)
    return [each.hlc for each in row.values] if isinstance(row, Siblings) else ()
