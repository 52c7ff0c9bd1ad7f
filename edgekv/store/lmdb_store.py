"""LMDB, as a checkpoint of the log: never the truth. Nothing talks to it but this and its transactions (store/lmdb_transactions.py).

The applier writes through ``write``, one transaction at a time; the node reads (``get``, ``range``, ``walk``, ``string_rows``) in one
held read transaction, which ``renew`` replaces. A pinned reader makes the file grow by 2.5 KB per applied row, never given back, so
no read transaction is older than READER_AGE_MS.

Invariants
- A write transaction stores the rows of a stretch of the log together with ``applied_lsn``, vectors and HLCs; the LSN never falls.
- ``metasync=False, sync=True, writemap=False``: after a crash the file shows the last commit or the one before it, whole. NOSYNC
  loses the order of meta page and data at an OS crash; writemap dies with SIGBUS on a full disk.
- LMDB does not remember that an fdatasync failed (the next commit "succeeds" on pages that Linux marked clean), so this does: after
  any error but a full map no further transaction is begun.
- LMDB 0.9 is named explicitly: py-lmdb carries two engines whose files exclude each other, and an environment variable chooses.

Named databases and the bytes in them: ``store.layout``. Source: LMDB's documentation, and OpenLDAP ITS#8704 on NOSYNC.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from weakref import WeakSet

import lmdb

from edgekv.errors import Corruption, FormatUnknown, Unavailable
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import LMDB_MAP_BYTES, LMDB_READERS_MAX, LMDB_RESERVE_BYTES
from edgekv.store import layout
from edgekv.store.applied import Applied
from edgekv.store.lmdb_transactions import Reading, WriteTransaction, iterate, read_applied, string_rows
from edgekv.store.walk import Walk

StoreError = lmdb.Error
"""What ``LmdbStore.get`` and writing raise; LMDB's own name stays here."""
MapFull = lmdb.MapFullError

FORMAT: Final = b"1"
ENGINE_0_9: Final = 0
META_PAGES: Final = 2
FALLOC_FL_KEEP_SIZE: Final = 1
_DATABASES: Final = (
    layout.DB_ROWS,
    layout.DB_META,
    layout.DB_ACTORS,
    layout.DB_EXPIRY,
    layout.DB_TOMBSTONES,
    layout.DB_SWEEPS,
    layout.DB_OPERATIONS,
)


class LmdbStore:
    """One LMDB environment. Readers of other processes open it ``readonly``; exactly one process writes."""

    get: Callable[[bytes], bytes | None]
    """The row under an LMDB key. Rebound by ``renew``: fetch it from the store each time, never keep it. Raises StoreError."""

    def __init__(self, path: Path, *, readonly: bool, map_bytes: int) -> None:
        self.path = path
        self._data_file = path / "data.mdb"
        self._readonly = readonly
        self._map_bytes = map_bytes
        self._attach()

    def _attach(self) -> None:
        self._environment = environment = lmdb.open(
            str(self.path),
            map_size=self._map_bytes,
            readonly=self._readonly,
            metasync=False,
            sync=True,
            writemap=False,
            max_readers=LMDB_READERS_MAX,
            max_dbs=len(_DATABASES),
            max_spare_txns=2,
            lib_version=ENGINE_0_9,
        )
        self._databases = dict(self._open_databases())
        self._main = environment.open_db(None)
        self._rows = self._databases[layout.DB_ROWS]
        self._failure: str | None = None
        self._pinned = False
        self._reader: lmdb.Transaction[bytes] | None = None
        self._readings: WeakSet[Reading] = WeakSet()
        self._actors: list[Actor] = []
        self._page_bytes: int = environment.stat()["psize"]
        self._reserve_fd = -1 if self._readonly else os.open(self._data_file, os.O_RDWR | os.O_CLOEXEC)
        if not self._readonly:
            self._begin_format()
        self.renew()

    def _open_databases(self) -> Iterator[tuple[bytes, lmdb._Database]]:
        for name in _DATABASES:
            try:
                yield name, self._environment.open_db(name, create=not self._readonly)
            except lmdb.NotFoundError:
                # The release before operation ids made no database for them, and a reader cannot. The node's applier, which opens
                # first, does; whoever looks at a stopped node's store has nothing to look for there.
                if name != layout.DB_OPERATIONS:
                    raise

    @classmethod
    def open(cls, path: Path, *, readonly: bool, map_bytes: int = LMDB_MAP_BYTES) -> "LmdbStore":
        """Open (a writer also: create) the environment in the directory ``path``, with a read transaction held.

        What was committed before is durable when a writer is open: else a power cut could still take back the last commit of a process
        that was killed, and with it what this one has gone on from.
        Raises Unavailable when LMDB cannot open it, FormatUnknown when another release wrote it.
        """
        if not readonly:
            path.mkdir(parents=True, exist_ok=True)
        try:
            store = cls(path, readonly=readonly, map_bytes=map_bytes)
            if not readonly:
                store.sync()
        except lmdb.Error as error:
            raise _cannot_open(path, error) from error
        store._check_format(path)
        return store

    def reopen(self) -> None:
        """A new environment in place of one that failed, as a new process would have it; what was committed is there.

        Raises Unavailable when LMDB cannot open it: the store is closed then.
        """
        self.close()
        try:
            self._attach()
        except lmdb.Error as error:
            raise _cannot_open(self.path, error) from error

    # Reading.

    def renew(self) -> None:
        """Take a new read transaction in place of the held one: what was committed before this call is seen after it.

        While the store is `pinned` nothing happens.
        """
        if self._pinned:
            return
        if self._reader is not None:
            self._reader.abort()
            self._reader = None
        try:
            self._reader = self._environment.begin(db=self._rows)
        except lmdb.MapResizedError:
            self._end_readings()
            self._environment.set_mapsize(0)  # Another process grew the map: take its size over.
            self._reader = self._environment.begin(db=self._rows)
        self.get = self._reader.get

    @property
    def pinned(self) -> bool:
        """Whether the held transaction stays the one it is, for as long as ``pin`` said so and the map did not have to move."""
        return self._pinned

    def pin(self) -> None:
        """Go on showing this very state, whatever is committed: until ``unpin``. Its pages are not used again meanwhile."""
        self._pinned = True

    def unpin(self) -> None:
        """Show what is committed."""
        self._pinned = False
        self.renew()

    def read(self) -> "Reading":
        """A read transaction of its own, of what is committed, also while the store is pinned. Close it soon: it pins pages.

        Raises Unavailable when there is none before the store is unpinned: another process made the map larger.
        """
        self.renew()
        try:
            transaction = self._environment.begin(db=self._rows)
        except lmdb.MapResizedError as error:
            raise Unavailable("the store has grown, and an older state of it is being read. Begin again.") from error
        reading = Reading(transaction, self._databases)
        self._readings.add(reading)
        return reading

    def _end_readings(self) -> None:
        """The map is about to move: no transaction may be open then."""
        for reading in list(self._readings):
            reading.close()

    def snapshot(self) -> int:
        """A number that is another one whenever the held transaction shows another state."""
        number: int = self._held().id()
        return number

    def applied(self) -> Applied:
        """What the held transaction stores beside the rows."""
        return read_applied(self._held(), self._databases[layout.DB_META])

    def range(self, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """(LMDB key, row) from ``low``, in LMDB's order, below ``high``. Consume it before the next ``renew``."""
        return iterate(self._held(), self._rows, low, high)

    def index_range(self, index: bytes, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """The same of another database than that of the rows."""
        return iterate(self._held(), self._databases[index], low, high)

    def walk(self) -> Walk:
        """A cursor over all rows that can jump. Not to be used after the next ``renew``."""
        return Walk(self._held().cursor(self._rows))

    def string_rows(self, keyspace: KeyspaceId, key: bytes, actors: Iterable[Actor]) -> list[tuple[bytes, bytes]]:
        """(suffix, row) of a key's register, expiry and counter parts. ``actors``: at least those that have parts in the keyspace."""
        return string_rows(self._held(), self._rows, keyspace, key, actors)

    def actor_of(self, number: int) -> Actor:
        """The actor behind an interned number in a row."""
        if number >= len(self._actors):
            self._load_actors(self._held())
        if number >= len(self._actors):
            raise Corruption(
                f"a row names actor number {number}, which the store does not have. Restore a backup of the directory.",
                path=str(self._data_file),
            )
        return self._actors[number]

    def reusable_bytes(self) -> int:
        """What the file could take without growing. Counts LMDB's own list of free pages as free: at most 0.3 % too much."""
        return self._page_bytes * (self._last_page() + 1) - self.live_bytes()

    def live_bytes(self) -> int:
        """What the rows, indexes and their tree occupy in the file."""
        reader = self._held()
        pages = META_PAGES
        for database in (self._main, *self._databases.values()):
            stat = reader.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return self._page_bytes * pages

    # Writing: only in the process of the applier.

    @contextmanager
    def write(self) -> Iterator["WriteTransaction"]:
        """A write transaction: committed, durable up to the meta page, when the block ends; aborted when it raises.

        MapFull: nothing was stored, ``grow`` and begin again. Any other StoreError latches.
        """
        if self._failure is not None:
            raise Unavailable(f"LMDB failed before: {self._failure}. Open the store again.")
        self._environment.reader_check()  # Slots of killed readers would pin pages for ever.
        try:
            with self._environment.begin(write=True) as transaction:
                self._load_actors(transaction)
                yield WriteTransaction(transaction, self._databases, self._actors)
        except MapFull:
            raise
        except lmdb.Error as error:
            self._failure = str(error)
            raise

    def grow(self) -> None:
        """Double the map, between transactions. Readers of other processes notice at their next ``renew``."""
        if self._reader is not None:
            self._reader.abort()
            self._reader = None
        self._pinned = False
        self._end_readings()
        self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        self.renew()

    def sync(self) -> None:
        """Make the last commit durable, the meta page included: no power cut takes it back (rule L7)."""
        self._environment.sync(True)

    def reserve(self) -> bool:
        """Keep LMDB_RESERVE_BYTES allocated behind the last used page; False when the disk is too full for it.

        Copy-on-write needs new pages even for a delete: on a full disk no delete succeeds without this, all do with it.
        """
        end = self._page_bytes * (self._last_page() + 1)
        return _fallocate(self._reserve_fd, end, LMDB_RESERVE_BYTES)

    def close(self) -> None:
        """Give everything back; idempotent."""
        if self._reader is not None:
            self._reader.abort()
            self._reader = None
        self._end_readings()
        self._environment.close()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
            self._reserve_fd = -1

    def _held(self) -> "lmdb.Transaction[bytes]":
        assert self._reader is not None, "the store is closed"
        return self._reader

    def _last_page(self) -> int:
        return self._environment.info()["last_pgno"]

    def _load_actors(self, transaction: "lmdb.Transaction[bytes]") -> None:
        """Numbers are dense and never change, so the list only grows. An aborted writer's additions are dropped."""
        cursor = transaction.cursor(self._databases[layout.DB_ACTORS])
        self._actors[:] = [Actor(actor) for _, actor in cursor]

    def _begin_format(self) -> None:
        with self._environment.begin(write=True, db=self._databases[layout.DB_META]) as transaction:
            if transaction.get(layout.META_FORMAT) is None:
                transaction.put(layout.META_FORMAT, FORMAT)

    def _check_format(self, path: Path) -> None:
        stored = self._held().get(layout.META_FORMAT, db=self._databases[layout.DB_META])
        if stored != FORMAT:
            self.close()
            raise FormatUnknown(
                f"{path} has store format {stored!r}, this release reads {FORMAT!r}. Start the release that wrote it."
            )


def _cannot_open(path: Path, error: lmdb.Error) -> Unavailable:
    return Unavailable(f"{path} cannot be opened: {error}. Check the disk and the directory's permissions.")


def disk_is_full(path: Path) -> bool:
    """Whether the file system has less room than the reserve: tells a full disk, which LMDB reports as EIO, from a broken one."""
    return free_bytes(path) < LMDB_RESERVE_BYTES


def free_bytes(path: Path) -> int:
    """What an unprivileged process may still write to the file system that holds ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _fallocate(fd: int, offset: int, length: int) -> bool:
    """``fallocate(KEEP_SIZE)``; False only when there is no room. A file system that cannot do it has no reserve to miss."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
        return True
    return ctypes.get_errno() not in (errno.ENOSPC, errno.EDQUOT)
