"""The embedded stores that the storage path is compared with, and the disk alone.

Each store is opened on an empty directory and yields one function that makes a list of puts durable in one
transaction. Called with one put it is the store's cost of a durable put, called with everything that is in flight
it is the store under a perfect group commit: the best that a server built on it could do.

All sync on every call: LMDB with its defaults (MDB_NOSYNC off), SQLite in WAL mode with synchronous=FULL, RocksDB
and LevelDB with sync writes. RocksDB and LevelDB come with the `bench` extra and are skipped when absent.
"""

import importlib
import importlib.util
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

import lmdb

Puts = list[tuple[bytes, bytes]]
Write = Callable[[Puts], None]
Store = Callable[[Path], AbstractContextManager[Write]]

LMDB_MAP_BYTES: Final = 16 << 30
RAW_FILE_BYTES: Final = 64 << 20

_RECORD_OVERHEAD_BYTES: Final = 8  # two lengths: the least that a log must add to a key and a value


@contextmanager
def open_lmdb(directory: Path) -> Iterator[Write]:
    environment = lmdb.open(str(directory), map_size=LMDB_MAP_BYTES)

    def write(puts: Puts) -> None:
        with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            # Sorted, because neighbouring keys share pages: LMDB's best case.
            cursor.putmulti(sorted(puts))

    with closing(environment):
        yield write


@contextmanager
def open_sqlite(directory: Path) -> Iterator[Write]:
    with closing(sqlite3.connect(directory / "bench.sqlite", isolation_level=None)) as database:
        (mode,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
        assert mode == "wal"
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

        def write(puts: Puts) -> None:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("REPLACE INTO kv VALUES (?, ?)", puts)
            database.execute("COMMIT")

        yield write


@contextmanager
def open_rocksdb(directory: Path) -> Iterator[Write]:
    rocksdict = importlib.import_module("rocksdict")
    database = rocksdict.Rdict(str(directory), rocksdict.Options(raw_mode=True))
    options = rocksdict.WriteOptions()
    options.sync = True

    def write(puts: Puts) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in puts:
            batch.put(key, value)
        database.write(batch, options)

    with closing(database):
        yield write


@contextmanager
def open_leveldb(directory: Path) -> Iterator[Write]:
    plyvel = importlib.import_module("plyvel")
    database = plyvel.DB(str(directory / "leveldb"), create_if_missing=True)

    def write(puts: Puts) -> None:
        with database.write_batch(sync=True) as batch:
            for key, value in puts:
                batch.put(key, value)

    with closing(database):
        yield write


@contextmanager
def open_raw(directory: Path) -> Iterator[Write]:
    """Not a store: the same bytes into a zero-written file, one write and one fdatasync per call. The disk's limit."""
    fd = os.open(directory / "raw.log", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(RAW_FILE_BYTES >> 20):
            os.write(fd, bytes(1 << 20))
        os.fsync(fd)
        block = os.urandom(RAW_FILE_BYTES >> 4)
        offset = 0

        def write(puts: Puts) -> None:
            nonlocal offset
            size = sum(len(key) + len(value) + _RECORD_OVERHEAD_BYTES for key, value in puts)
            if offset + size > RAW_FILE_BYTES:
                offset = 0
            os.pwrite(fd, memoryview(block)[:size], offset)
            os.fdatasync(fd)
            offset += size

        yield write
    finally:
        os.close(fd)


STORES: Final[dict[str, Store]] = {
    "raw append + fdatasync": open_raw,
    "LMDB": open_lmdb,
    "SQLite WAL, synchronous=FULL": open_sqlite,
    "RocksDB, sync": open_rocksdb,
    "LevelDB, sync": open_leveldb,
}

_PACKAGES: Final[dict[Store, str]] = {open_rocksdb: "rocksdict", open_leveldb: "plyvel"}


def missing_package(store: Store) -> str | None:
    """The package that a store needs and this interpreter lacks, None when it can be opened."""
    package = _PACKAGES.get(store)
    return package if package is not None and importlib.util.find_spec(package) is None else None
