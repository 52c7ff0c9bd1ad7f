"""A spool: all rows of one keyspace, as one LMDB transaction shows them, in a file that another store can take in.

Row syncs send it, the fold (store/fold.py) joins it. It names no number that is local to a store without saying whose it is, and a
block that was damaged on its way is found before a row of it is used.

File (little-endian)
    offset  size  field
         0     8  magic "EKVSPOOL"
         8     4  format version, 1
        12        blocks, each: kind u8 | length u32 | CRC-32C of the payload u32 | payload
    "H"  the first one: msgpack [keyspace, [[actor, seq, chain], ...], hlc, ttl_ms, mixed, [actor, ...]]: what the transaction holds of
         the keyspace, and the actor behind each number in the rows
    "R"  rows in LMDB's order: key length u16, row length u32, LMDB key, row (store.layout), until the block has BLOCK_BYTES
    "E"  the last one: msgpack [rows, digest]. The digest is chained over the heads of all blocks before it, which hold the CRCs of
         their payloads: digest = CRC-32C(digest u32 | head), from 0. It is the CRC of the whole file.

Clears of sets are carried out and left out, with what those of maps hide; these travel, since they hide what the other side has.
Counts are this store's own and left out. Rows are copied as they lie; each one's CRC is compared first, so bit rot stays at home.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple

from edgekv.checksum import crc32c
from edgekv.codec import pack, unpack
from edgekv.crdt.operation import SUFFIX_MAP_CLEAR, SUFFIX_SET_CLEAR, TAG_ELEMENT, TAG_FIELD, Row
from edgekv.errors import Corruption, EdgeKVError, FormatUnknown
from edgekv.ids import ACTOR_BYTES, Actor, KeyspaceId
from edgekv.limits import SPOOL_BLOCK_BYTES, SPOOL_SLICE_BYTES, SPOOL_SLICE_ROWS
from edgekv.store import layout
from edgekv.store.applied import ChainedVector
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.sweep import left_by

MAGIC: Final = b"EKVSPOOL"
VERSION: Final = 1
SUFFIX: Final = ".spool"

_HEX: Final = re.compile("[0-9a-f]{16}")
_START: Final = Struct("<8sI")
_BLOCK: Final = Struct("<cII")
_ROW: Final = Struct("<HI")
_CRC: Final = Struct("<I")
_CRC_OFFSET: Final = 1
_CONTENT_OFFSET: Final = 5
_HEAD, _ROWS, _END = b"H", b"R", b"E"


class SpoolHead(NamedTuple):
    """What the transaction that was spooled holds of the keyspace beside its rows."""

    keyspace: KeyspaceId
    vector: ChainedVector
    hlc: int
    ttl_ms: int
    mixed: bool
    actors: list[Actor]
    """By the number that stands for them in the rows."""


class SpoolSummary(NamedTuple):
    """A finished spool, as it is offered."""

    head: SpoolHead
    rows: int
    bytes: int
    crc: int


def spool_file(folder: Path, spool_id: bytes) -> Path:
    """Where a spool lies."""
    return folder / f"{spool_id.hex()}{SUFFIX}"


def spool_ids(folder: Path) -> list[bytes]:
    """Of the spools that lie there."""
    return [bytes.fromhex(file.stem) for file in folder.glob(f"*{SUFFIX}") if _HEX.fullmatch(file.stem)]


def keep(part: Path, folder: Path, spool_id: bytes) -> None:
    """A spool that was received whole and checked gets its name; durable on return."""
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(spool_file(folder, spool_id))
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class SpoolWriter:
    """Writes a spool, a slice at a time: ``step`` until it says that there is no more, then ``summary``; ``close`` in any case.

    It pins a state of the store, which makes LMDB's file grow while there are writers: let nothing keep it waiting.
    """

    def __init__(self, store: LmdbStore, keyspace: KeyspaceId, path: Path) -> None:
        """Raises Unavailable, OSError: there is no file then."""
        self._path: Final = path
        self._reading: Final = store.read()
        try:
            self._file: Final = path.open("wb", buffering=0)
        except OSError:
            self._reading.close()
            raise
        self._keyspace: Final = keyspace
        low, high = layout.key_start(keyspace, b""), layout.key_start(KeyspaceId(keyspace + 1), b"")
        self._rows: Final = self._reading.range(low, high)
        self._sweeps: Final = self._reading.range(low, high, layout.DB_SWEEPS)
        applied = self._reading.applied()
        self.lsn: Final = applied.lsn
        """The log from there on goes on from the spool."""
        self.head: Final = SpoolHead(
            keyspace,
            applied.vectors.get(keyspace, {}),
            applied.hlcs.get(keyspace, 0),
            applied.ttl_ms,
            keyspace in applied.mixed,
            self._reading.actors(),
        )
        self._numbers: Final = {actor: number for number, actor in enumerate(self.head.actors)}
        self._zone = self._next_zone()
        self._clears_of: tuple[bytes, Row | None, Row | None] = b"", None, None
        self._parts: list[bytes] = []
        self._block_bytes = 0
        self._digest = self._row_count = 0
        self._summary: SpoolSummary | None = None
        vector = [[actor, seq, chain] for actor, (seq, chain) in sorted(self.head.vector.items())]
        try:
            self._bytes = _write(self._file.fileno(), _START.pack(MAGIC, VERSION))
            self._put_block(_HEAD, pack([keyspace, vector, *self.head[2:]]))
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    @property
    def summary(self) -> SpoolSummary:
        """Of the finished file."""
        assert self._summary is not None, "step until it returns False"
        return self._summary

    def step(self, rows_max: int = SPOOL_SLICE_ROWS) -> bool:
        """Write some rows; False when that was all. Corruption: a row is damaged. StoreError, Unavailable: begin again."""
        crc, pack_row, unpack_crc, parts, zone = crc32c, _ROW.pack, _CRC.unpack_from, self._parts, self._zone
        size = 0
        for count, (lmdb_key, row) in enumerate(self._rows, 1):
            if crc(lmdb_key + row[:1] + row[_CONTENT_OFFSET:]) != unpack_crc(row, _CRC_OFFSET)[0]:
                raise self._damaged(lmdb_key)
            left: bytes | None = row
            if zone is not None and lmdb_key >= zone:
                left = self._swept(lmdb_key, row)
                zone = self._zone
            if left is not None and not layout.is_clear_or_count(left):
                self._row_count += 1
                head = pack_row(len(lmdb_key), len(left))
                parts += (head, lmdb_key, left)
                self._block_bytes += len(lmdb_key) + len(left) + _ROW.size
                if self._block_bytes >= SPOOL_BLOCK_BYTES:
                    size += self._block_bytes
                    self._flush()
            if count >= rows_max or size >= SPOOL_SLICE_BYTES:
                return True
        self._finish()
        return False

    def close(self) -> None:
        """Give transaction and file back. What was not finished is of no use. Idempotent."""
        self._reading.close()
        self._file.close()

    def _flush(self) -> None:
        if self._parts:
            self._put_block(_ROWS, b"".join(self._parts))
            self._parts.clear()
            self._block_bytes = 0

    def _finish(self) -> None:
        self._flush()
        self._put_block(_END, pack([self._row_count, self._digest]))
        self._summary = SpoolSummary(self.head, self._row_count, self._bytes, self._digest)
        self.close()

    def _put_block(self, kind: bytes, payload: bytes) -> None:
        head = _BLOCK.pack(kind, len(payload), crc32c(payload))
        self._digest = _chained(self._digest, head)
        self._bytes += _write(self._file.fileno(), head + payload)

    # -- clears that are not swept yet: each is in DB_SWEEPS, in the order of the rows

    def _next_zone(self) -> bytes | None:
        """What the LMDB keys begin with among which the next clear hides some; None: there is no further clear."""
        for clear_key, _ in self._sweeps:
            clear = self._reading.get(clear_key)
            if clear is not None:
                return layout.order_prefix(layout.row_key_of(clear_key, clear)[:-1])
        return None

    def _swept(self, lmdb_key: bytes, row: bytes) -> bytes | None:
        """What the clears of its key leave of a row that is in a zone, or behind it."""
        while self._zone is not None and lmdb_key > self._zone and not lmdb_key.startswith(self._zone):
            self._zone = self._next_zone()
        if self._zone is None or not lmdb_key.startswith(self._zone) or layout.is_clear_or_count(row):
            return row
        row_key = layout.row_key_of(lmdb_key, row)
        _, key, suffix = layout.split(row_key)
        if suffix[0] not in {TAG_ELEMENT, TAG_FIELD}:
            return row
        clear = self._clears(key)[suffix[0] == TAG_FIELD]
        if clear is None:
            return row
        decoded = layout.decode_row(row, self.head.actors.__getitem__)
        left = left_by(clear, decoded)
        if left is None or left is decoded:
            return left and row
        return layout.encode_row(row_key, left, self._numbers.__getitem__)

    def _clears(self, key: bytes) -> tuple[Row | None, Row | None]:
        """The clears of a key's set and map."""
        if self._clears_of[0] != key or not key:
            found = [
                None if data is None else layout.decode_row(data, self.head.actors.__getitem__)
                for suffix in (SUFFIX_SET_CLEAR, SUFFIX_MAP_CLEAR)
                for data in (self._reading.get(layout.lmdb_key(self._keyspace, key, suffix)),)
            ]
            self._clears_of = key, found[0], found[1]
        return self._clears_of[1:]

    def _damaged(self, lmdb_key: bytes) -> Corruption:
        return Corruption(f"the row {lmdb_key!r} is damaged. Restore a backup of the directory.", path="data.mdb")


class SpoolReader:
    """An open spool. Raises Corruption as soon as something is not as it was written, FormatUnknown for a later release's."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when there is no such file."""
        self._name: Final = path.name
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._size: Final = os.fstat(self._fd).st_size
            self._check_start()
            kind, payload, self._first, self._digest = self._block(_START.size, 0)
            if kind != _HEAD:
                raise self._damaged(_START.size, "it does not begin with its head")
            self.head: Final = self._parse_head(payload)
        except BaseException:
            self.close()
            raise

    def blocks(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """All (LMDB key, row) in order, a block at a time; the end is reached only when the whole file was as it was written."""
        offset, digest, rows = self._first, self._digest, 0
        while True:
            kind, payload, following, next_digest = self._block(offset, digest)
            if kind == _END:
                if payload != pack([rows, digest]) or following != self._size:
                    raise self._damaged(offset, "its end speaks of other rows")
                return
            if kind != _ROWS:
                raise self._damaged(offset, f"a block of kind {kind!r}")
            found = self._split(offset, payload)
            rows += len(found)
            yield found
            offset, digest = following, next_digest

    @property
    def name(self) -> str:
        """Of the file."""
        return self._name

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _check_start(self) -> None:
        start = os.pread(self._fd, _START.size, 0)
        if len(start) < _START.size or not start.startswith(MAGIC):
            raise self._damaged(0, "it is no spool")
        version = _START.unpack(start)[1]
        if version != VERSION:
            raise FormatUnknown(
                f"{self._name} has spool format {version}, this release reads {VERSION}. Use releases that are closer to each other."
            )

    def _block(self, offset: int, digest: int) -> tuple[bytes, bytes, int, int]:
        """Kind, payload, and the next block's offset and digest."""
        head = os.pread(self._fd, _BLOCK.size, offset)
        if len(head) < _BLOCK.size:
            raise self._damaged(offset, "it ends early")
        kind, length, crc = _BLOCK.unpack(head)
        end = offset + _BLOCK.size + length
        if end > self._size:
            raise self._damaged(offset, "it ends early")
        payload = _read(self._fd, offset + _BLOCK.size, length)
        if len(payload) < length or crc32c(payload) != crc:
            raise self._damaged(offset, "the CRC of a block")
        return kind, payload, end, _chained(digest, head)

    def _split(self, offset: int, payload: bytes) -> list[tuple[bytes, bytes]]:
        unpack_row, size, end, at = _ROW.unpack_from, _ROW.size, len(payload), 0
        found: list[tuple[bytes, bytes]] = []
        try:
            while at < end:
                key_bytes, row_bytes = unpack_row(payload, at)
                row_at = at + size + key_bytes
                at, start = row_at + row_bytes, at + size
                found.append((payload[start:row_at], payload[row_at:at]))
        except struct_error:
            at = -1
        if at != end or not found:
            raise self._damaged(offset, "a row ends behind its block")
        return found

    def _parse_head(self, payload: bytes) -> SpoolHead:
        try:
            match unpack(payload):
                case [int(keyspace), list(vector), int(hlc), int(ttl_ms), bool(mixed), list(actors)]:
                    chained = {Actor(actor): (seq, chain) for actor, seq, chain in vector}
                    if all(isinstance(actor, bytes) and len(actor) == ACTOR_BYTES for actor in (*chained, *actors)):
                        return SpoolHead(KeyspaceId(keyspace), chained, hlc, ttl_ms, mixed, [*map(Actor, actors)])
        except (EdgeKVError, ValueError, TypeError):
            pass
        raise self._damaged(_START.size, "its head has another shape")

    def _damaged(self, offset: int, what: str) -> Corruption:
        return Corruption(
            f"the spool {self._name} is damaged at offset {offset}: {what}. Let the row sync begin again.",
            path=self._name,
        )


def _chained(digest: int, head: bytes) -> int:
    return crc32c(_CRC.pack(digest) + head)


def _write(fd: int, data: bytes) -> int:
    """All of it; how many bytes that are."""
    written = 0
    while written < len(data):
        written += os.write(fd, data[written:] if written else data)
    return written


def _read(fd: int, offset: int, length: int) -> bytes:
    """As many bytes as there are up to ``length``: one call of the kernel returns at most 2 GiB."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data
