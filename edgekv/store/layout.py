"""How rows lie in LMDB: row keys, row bytes, index keys and the names under ``meta``.

Used by the applier (encode), the readers (decode) and nothing above them. Pure; LMDB itself is in ``store.lmdb_store``.

Row key
    keyspace u32 big-endian | key, each 0x00 escaped as 0x00 0xFF | 0x00 | suffix
    A suffix begins with a tag of 0x01 to 0xFE, so 0x00 tag ends a key and sorts below every longer key: rows are ordered by
    keyspace, key, suffix, for all byte strings.

LMDB key
    The row key when it has at most 510 bytes, else its first 479 bytes and BLAKE2b-32 of the whole (511 bytes, so the two never
    meet); such a row carries its row key. LMDB therefore orders rows by their first ORDER_BYTES only: a range read starts at
    ``order_prefix(low)``, ends after the prefix ``order_prefix(high)``, and sorts each group of equal ``order_prefix`` by row key.

Row (little-endian)
    offset  size  field
         0     1  flags; 0 = a live register without expiry, rank, ``of`` and long key ("plain")
         1     4  crc32c over the LMDB key, the flags byte and everything from offset 5
    of a cell
         5     8  hlc
        13     8  seq
        21     4  actor (interned)
        25        with EXPIRY: expiry_ms u64; with RANK: rank u8; with OF: actor u32, seq u64; with LONG_KEY: length u32, row key;
                  then the value
    of a part (flag PART)
         5     8  seq
        13     8  base_seq
        21        with OF: actor u32, seq u64 (the reset); with LONG_KEY: length u32, row key;
                  then total and base_total: i64 each, or with WIDE, of each: length u16 and two's complement; a length of
                  0x8000 and more stands for the rest of it, and for units of 10^-17 of a number that is no integer
    of an element (FRESH without PART), of the clear of a set (WIDE without PART), of a count (both without PART)
         5        with LONG_KEY: length u32, row key; then
                  actor u32, seq u64 of each dot, ascending by actor; or elements u64, fields u64
    of siblings (OF and FRESH without PART)
         5        with LONG_KEY: length u32, row key; then of each, ascending by dot:
                  actor u32, seq u64, hlc u64, expiry_ms u64, length u32, value

A count (suffix COUNT) says how many elements and fields of a key are visible in LMDB, the key's expiry apart. It is this store's own
bookkeeping, kept by the applier with each row that it counts, and no row of the data: it is neither replicated nor compared.

The CRC is checked by what copies or compares rows (row sync, folds, backup), not by each read: ``check_row``.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from hashlib import blake2b
from struct import Struct, error
from typing import Final, NamedTuple

from edgekv.checksum import crc32c
from edgekv.crdt.counter import Part
from edgekv.crdt.decimals import UNITS, Number, units_of
from edgekv.crdt.elements import Clear, Dots, Element
from edgekv.crdt.operation import SUFFIX_REGISTER, TAG_ELEMENT, Row
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import LMDB_KEY_BYTES_MAX

ORDER_BYTES: Final = 479
SHORT_ROW_KEY_BYTES_MAX: Final = 510
PLAIN_VALUE_OFFSET: Final = 25
INDEX_HASH_BYTES: Final = 8

DB_ROWS: Final = b"rows"
DB_META: Final = b"meta"
DB_ACTORS: Final = b"actors"
DB_EXPIRY: Final = b"expiry"
DB_TOMBSTONES: Final = b"tombstones"
DB_SWEEPS: Final = b"sweeps"
"""LMDB key of a clear whose covered rows are not all removed yet -> the LMDB key from which the sweep goes on, empty at its start."""

DB_OPERATIONS: Final = b"operations"
"""Operation ids: ``store.operation_rows``."""

SUFFIX_COUNT: Final = b"\x0a"
SUFFIX_COLLECTIONS: Final = bytes([TAG_ELEMENT])
"""At or below every row of a key's set and map, above its register, expiry and counter parts."""

META_FORMAT: Final = b"format"
META_APPLIED_LSN: Final = b"applied_lsn"
META_TTL: Final = b"ttl"
META_RESTAMPED: Final = b"restamped"
"""The incarnation whose stamps were lowered last (store/restamp.py)."""

FLAG_TOMBSTONE: Final = 0x01
FLAG_EXPIRY: Final = 0x02
FLAG_LONG_KEY: Final = 0x04
FLAG_OF: Final = 0x08
FLAG_RANK: Final = 0x10
FLAG_FRESH: Final = 0x20
FLAG_WIDE: Final = 0x40
FLAG_PART: Final = 0x80

_KIND: Final = FLAG_FRESH | FLAG_WIDE | FLAG_PART
_KIND_ELEMENT: Final = FLAG_FRESH
_KIND_CLEAR: Final = FLAG_WIDE
_KIND_COUNT: Final = FLAG_FRESH | FLAG_WIDE
_KINDS_AT_HOME: Final = frozenset((_KIND_CLEAR, _KIND_COUNT))
_FLAGS_SIBLINGS: Final = FLAG_FRESH | FLAG_OF

_FRACTION: Final = 0x8000
_HASH_BYTES: Final = LMDB_KEY_BYTES_MAX - ORDER_BYTES
_TERMINATOR: Final = b"\x00"
_ESCAPED_ZERO: Final = b"\x00\xff"
_PLAIN_TAIL: Final = _TERMINATOR + SUFFIX_REGISTER
_FLAGS_PLAIN: Final = b"\x00"

_KEYSPACE: Final = Struct(">I")
_EXPIRY_INDEX: Final = Struct(">Q")
_TOMBSTONE_INDEX: Final = Struct(">IQ")
_HEAD: Final = Struct("<BI")
_CELL: Final = Struct("<QQI")
_PART: Final = Struct("<QQ")
_DOT: Final = Struct("<IQ")
_U64: Final = Struct("<Q")
_U32: Final = Struct("<I")
_U16: Final = Struct("<H")
_TOTALS: Final = Struct("<qq")
_COUNT: Final = Struct("<QQ")
_SIBLING: Final = Struct("<IQQQI")

assert _HASH_BYTES == 32 and SHORT_ROW_KEY_BYTES_MAX == LMDB_KEY_BYTES_MAX - 1
assert _HEAD.size + _CELL.size == PLAIN_VALUE_OFFSET


class Count(NamedTuple):
    """How many elements and fields of a key are visible in LMDB, the key's expiry apart."""

    elements: int
    fields: int


StoredRow = Row | Count


# Keys.


def row_key(keyspace: KeyspaceId, key: bytes, suffix: bytes) -> bytes:
    """The row key, which orders rows by keyspace, key, suffix."""
    return key_start(keyspace, key) + _TERMINATOR + suffix


def key_start(keyspace: KeyspaceId, key: bytes) -> bytes:
    """At or below every row of ``key``, above every row of lower keys; ``b""`` gives the start of the keyspace."""
    return _KEYSPACE.pack(keyspace) + key.replace(b"\x00", _ESCAPED_ZERO)


def key_end(keyspace: KeyspaceId, key: bytes) -> bytes:
    """Above every row of ``key``, at or below every row of higher keys."""
    return key_start(keyspace, key) + _ESCAPED_ZERO


def split(row_key: bytes) -> tuple[KeyspaceId, bytes, bytes]:
    """Keyspace, key and suffix of a row key."""
    end = row_key.index(_TERMINATOR, 4)
    while row_key[end + 1] == 0xFF:
        end = row_key.index(_TERMINATOR, end + 2)
    keyspace = KeyspaceId(_KEYSPACE.unpack_from(row_key)[0])
    return keyspace, row_key[4:end].replace(_ESCAPED_ZERO, b"\x00"), row_key[end + 1 :]


def lmdb_key(keyspace: KeyspaceId, key: bytes, suffix: bytes) -> bytes:
    """The key under which LMDB holds this row."""
    return lmdb_key_of(row_key(keyspace, key, suffix))


def lmdb_key_of(row_key: bytes) -> bytes:
    """The LMDB key of a row key."""
    if len(row_key) <= SHORT_ROW_KEY_BYTES_MAX:
        return row_key
    return row_key[:ORDER_BYTES] + blake2b(row_key, digest_size=_HASH_BYTES).digest()


def row_key_of(lmdb_key: bytes, data: bytes) -> bytes:
    """The row key of a stored row: the LMDB key itself, or for a long one the copy inside the row."""
    if len(lmdb_key) < LMDB_KEY_BYTES_MAX:
        return lmdb_key
    offset = _long_key_offset(data)
    (length,) = _U32.unpack_from(data, offset)
    return data[offset + 4 : offset + 4 + length]


def order_prefix(row_key: bytes) -> bytes:
    """The part of a row key, or of an LMDB key, that LMDB's order respects."""
    return row_key[:ORDER_BYTES]


def expiry_index_key(expiry_ms: int, lmdb_key: bytes) -> bytes:
    """Key in DB_EXPIRY, ordered by expiry; its value is the LMDB key."""
    return _EXPIRY_INDEX.pack(expiry_ms) + _index_hash(lmdb_key)


def tombstone_index_key(actor_number: int, seq: int, lmdb_key: bytes) -> bytes:
    """Key in DB_TOMBSTONES, ordered by the dot; its value is the LMDB key."""
    return _TOMBSTONE_INDEX.pack(actor_number, seq) + _index_hash(lmdb_key)


def expiry_of_index_key(index_key: bytes) -> int:
    """The expiry in an expiry index key."""
    expiry_ms: int = _EXPIRY_INDEX.unpack_from(index_key)[0]
    return expiry_ms


def dot_of_index_key(index_key: bytes) -> tuple[int, int]:
    """Interned actor and seq in a tombstone index key."""
    actor_number, seq = _TOMBSTONE_INDEX.unpack_from(index_key)
    return actor_number, seq


def _index_hash(lmdb_key: bytes) -> bytes:
    return blake2b(lmdb_key, digest_size=INDEX_HASH_BYTES).digest()


def meta_vector(keyspace: KeyspaceId) -> bytes:
    """Under ``meta``: the applied vector and chain values of a keyspace."""
    return b"vector/" + _KEYSPACE.pack(keyspace)


def meta_hlc(keyspace: KeyspaceId) -> bytes:
    """Under ``meta``: the highest HLC of a keyspace's applied changes."""
    return b"hlc/" + _KEYSPACE.pack(keyspace)


def meta_mixed(keyspace: KeyspaceId) -> bytes:
    """Under ``meta``: there when the keyspace ever held anything but registers."""
    return b"mixed/" + _KEYSPACE.pack(keyspace)


# Rows.


def encode_row(row_key: bytes, row: StoredRow, intern: Callable[[Actor], int]) -> bytes:
    """The bytes of a row, to be stored under ``lmdb_key_of(row_key)``. Canonical: equal rows have equal bytes."""
    return _seal(row_key, *_encode(row, intern))


def _encode(row: StoredRow, intern: Callable[[Actor], int]) -> tuple[int, bytes]:
    """Flags, and the content from offset 5 without a long key."""
    match row:
        case Cell():
            return _encode_cell(row, intern)
        case Part():
            return _encode_part(row, intern)
        case Element(dots):
            return _KIND_ELEMENT, _encode_dots(dots, intern)
        case Clear(vector):
            return _KIND_CLEAR, _encode_dots(vector, intern)
        case Count():
            return _KIND_COUNT, _COUNT.pack(*row)
        case Siblings(values):
            return _FLAGS_SIBLINGS, b"".join([_encode_sibling(sibling, intern) for sibling in values])


def _seal(row_key: bytes, flags: int, content: bytes) -> bytes:
    """The row of a content without a long key: that key, if need be, and the CRC."""
    stored_under = lmdb_key_of(row_key)
    if stored_under is not row_key:
        flags |= FLAG_LONG_KEY
        at = _long_key_position(flags) - _HEAD.size
        content = content[:at] + _U32.pack(len(row_key)) + row_key + content[at:]
    return _HEAD.pack(flags, crc32c(stored_under + bytes([flags]) + content)) + content


def plain_contents(values: Sequence[bytes], first_hlc: int, first_seq: int, actor_number: int) -> list[bytes]:
    """What a run of plain SETs stores from offset 5: all of a row that does not depend on its key.

    Row i has ``first_hlc + i`` and ``first_seq + i``.
    """
    pack, count = _CELL.pack, len(values)
    stamps = zip(values, range(first_hlc, first_hlc + count), range(first_seq, first_seq + count), strict=True)
    return [pack(hlc, seq, actor_number) + value for value, hlc, seq in stamps]


def plain_rows(keyspace: KeyspaceId, keys: Sequence[bytes], contents: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """(LMDB key, row) of plain contents, in the order of ``keys``; for sorted keys LMDB's order, unless one is long.

    Both steps together take 0.7 us per row of 100 bytes, where ``encode_row`` takes 2: the applier does it half a million times
    per generation, and first drops the contents that a later SET replaced.
    """
    head = _KEYSPACE.pack(keyspace)
    short_bytes_max = SHORT_ROW_KEY_BYTES_MAX - len(head) - len(_PLAIN_TAIL)
    if max(map(len, keys), default=0) > short_bytes_max or b"\x00" in b"".join(keys):
        return [_plain_row(keyspace, key, content) for key, content in zip(keys, contents, strict=True)]
    crc, pack, tail, flags = crc32c, _HEAD.pack, _PLAIN_TAIL, _FLAGS_PLAIN
    return [
        (lmdb_key := head + key + tail, pack(0, crc(lmdb_key + flags + content)) + content)
        for key, content in zip(keys, contents, strict=True)
    ]


def _plain_row(keyspace: KeyspaceId, key: bytes, content: bytes) -> tuple[bytes, bytes]:
    """One row under any key, with zero bytes or longer than LMDB takes."""
    whole = row_key(keyspace, key, SUFFIX_REGISTER)
    return lmdb_key_of(whole), _seal(whole, 0, content)


def decode_row(data: bytes, actor_of: Callable[[int], Actor]) -> Row:
    """The row in these bytes, which LMDB returned whole, and which is no count. ``actor_of`` undoes ``intern``."""
    flags = data[0]
    if flags & _KIND:
        if flags & FLAG_PART:
            return _decode_part(data, flags, actor_of)
        assert flags & _KIND != _KIND_COUNT, "counts are no rows of the data"
        if flags & _FLAGS_SIBLINGS == _FLAGS_SIBLINGS:
            return _decode_siblings(data, flags, actor_of)
        dots = _decode_dots(data, flags, actor_of)
        return Element(dots) if flags & _KIND == _KIND_ELEMENT else Clear(dots)
    hlc, seq, actor_number = _CELL.unpack_from(data, _HEAD.size)
    actor = actor_of(actor_number)
    if not flags:
        return Cell(data[PLAIN_VALUE_OFFSET:], hlc, actor, seq)
    offset = PLAIN_VALUE_OFFSET
    expiry_ms = rank = 0
    of = None
    if flags & FLAG_EXPIRY:
        (expiry_ms,) = _U64.unpack_from(data, offset)
        offset += _U64.size
    if flags & FLAG_RANK:
        rank = data[offset]
        offset += 1
    if flags & FLAG_OF:
        of_number, of_seq = _DOT.unpack_from(data, offset)
        of = actor_of(of_number), of_seq
    value = None if flags & FLAG_TOMBSTONE else data[_content_offset(data, flags) :]
    return Cell(value, hlc, actor, seq, expiry_ms, rank, of)


def decode_count(data: bytes) -> Count:
    """The count in these bytes."""
    return Count(*_COUNT.unpack_from(data, _content_offset(data, data[0])))


def is_count(data: bytes) -> bool:
    """Whether these bytes are a count."""
    return data[0] & _KIND == _KIND_COUNT


def is_clear_or_count(data: bytes) -> bool:
    """Whether these bytes are a count or the clear of a set: what is not sent."""
    return data[0] & _KIND in _KINDS_AT_HOME


def check_row(lmdb_key: bytes, data: bytes) -> bool:
    """Whether the row's CRC, and a long row's own key, agree with the LMDB key it was found under."""
    if len(data) < _HEAD.size:
        return False
    _, crc = _HEAD.unpack_from(data)
    if crc != crc32c(lmdb_key + data[:1] + data[_HEAD.size :]):
        return False
    try:
        return lmdb_key_of(row_key_of(lmdb_key, data)) == lmdb_key
    except error:  # struct's: a row with a right CRC, written too short for its flags
        return False


def _encode_cell(cell: Cell, intern: Callable[[Actor], int]) -> tuple[int, bytes]:
    """Flags, and the content from offset 5 without a long key."""
    flags = 0
    fields = [_CELL.pack(cell.hlc, cell.seq, intern(cell.actor))]
    if cell.expiry_ms:
        flags |= FLAG_EXPIRY
        fields.append(_U64.pack(cell.expiry_ms))
    if cell.rank:
        flags |= FLAG_RANK
        fields.append(bytes([cell.rank]))
    if cell.of is not None:
        flags |= FLAG_OF
        fields.append(_DOT.pack(intern(cell.of[0]), cell.of[1]))
    if cell.value is None:
        flags |= FLAG_TOMBSTONE
    else:
        fields.append(cell.value)
    return flags, b"".join(fields)


def _encode_part(part: Part, intern: Callable[[Actor], int]) -> tuple[int, bytes]:
    """Flags, and the content from offset 5 without a long key."""
    flags = FLAG_PART | (FLAG_FRESH if part.fresh else 0)
    fields = [_PART.pack(part.seq, part.base_seq)]
    if part.base_dot is not None:
        flags |= FLAG_OF
        fields.append(_DOT.pack(intern(part.base_dot[0]), part.base_dot[1]))
    totals = part.total, part.base_total
    if all(isinstance(total, int) and -(1 << 63) <= total < 1 << 63 for total in totals):
        fields.append(_TOTALS.pack(*totals))
    else:
        flags |= FLAG_WIDE
        fields += map(_encode_wide, totals)
    return flags, b"".join(fields)


def _encode_wide(total: Number) -> bytes:
    mark, number = (0, total) if isinstance(total, int) else (_FRACTION, units_of(total))
    size = number.bit_length() // 8 + 1
    return _U16.pack(mark | size) + number.to_bytes(size, "little", signed=True)


def _decode_part(data: bytes, flags: int, actor_of: Callable[[int], Actor]) -> Part:
    seq, base_seq = _PART.unpack_from(data, _HEAD.size)
    base_dot = None
    if flags & FLAG_OF:
        number, reset_seq = _DOT.unpack_from(data, _HEAD.size + _PART.size)
        base_dot = actor_of(number), reset_seq
    offset = _content_offset(data, flags)
    total: Number
    base_total: Number
    if flags & FLAG_WIDE:
        total, offset = _decode_wide(data, offset)
        base_total, offset = _decode_wide(data, offset)
    else:
        total, base_total = _TOTALS.unpack_from(data, offset)
    return Part(total, seq, base_total, base_seq, base_dot, bool(flags & FLAG_FRESH))


def _encode_dots(dots: Dots, intern: Callable[[Actor], int]) -> bytes:
    return b"".join([_DOT.pack(intern(actor), seq) for actor, seq in dots])


def _decode_dots(data: bytes, flags: int, actor_of: Callable[[int], Actor]) -> Dots:
    content = data[_content_offset(data, flags) :]
    return tuple([(actor_of(number), seq) for number, seq in _DOT.iter_unpack(content)])


def _encode_sibling(sibling: Sibling, intern: Callable[[Actor], int]) -> bytes:
    head = _SIBLING.pack(intern(sibling.actor), sibling.seq, sibling.hlc, sibling.expiry_ms, len(sibling.value))
    return head + sibling.value


def _decode_siblings(data: bytes, flags: int, actor_of: Callable[[int], Actor]) -> Siblings:
    values: list[Sibling] = []
    offset = _content_offset(data, flags)
    while offset < len(data):
        number, seq, hlc, expiry_ms, length = _SIBLING.unpack_from(data, offset)
        offset += _SIBLING.size
        values.append(Sibling(actor_of(number), seq, hlc, data[offset : offset + length], expiry_ms))
        offset += length
    return Siblings(tuple(values))


def _decode_wide(data: bytes, offset: int) -> tuple[Number, int]:
    (size,) = _U16.unpack_from(data, offset)
    end = offset + 2 + (size & ~_FRACTION)
    number = int.from_bytes(data[offset + 2 : end], "little", signed=True)
    return (Fraction(number, UNITS) if size & _FRACTION else number), end


def _long_key_position(flags: int) -> int:
    """Where the long key's length stands, which is also where the content starts in a row without one."""
    if flags & _KIND and not flags & FLAG_PART:
        return _HEAD.size
    position = _HEAD.size + _PART.size if flags & FLAG_PART else PLAIN_VALUE_OFFSET
    position += _U64.size if flags & FLAG_EXPIRY else 0
    position += 1 if flags & FLAG_RANK else 0
    return position + (_DOT.size if flags & FLAG_OF else 0)


def _long_key_offset(data: bytes) -> int:
    return _long_key_position(data[0])


def _content_offset(data: bytes, flags: int) -> int:
    """Where the value, or a part's totals, start."""
    position = _long_key_position(flags)
    if flags & FLAG_LONG_KEY:
        (length,) = _U32.unpack_from(data, position)
        position += 4 + length
    return position
