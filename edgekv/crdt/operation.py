"""The operations inside a change: how each is written in the log and on the wire, and which rows it merges into.

An operation is a msgpack array whose first element is its code:

    code  array                                                   effect
    PUT     1  [1, key, value, expiry_ms]                         register := value
    DELETE  2  [2, key] or [2, key, hlc]                          register := tombstone
    ADD     3  [3, key, total, base_seq, base_total, fresh]       own counter part after the increment (fresh 1: made anew)
    RESET   4  [4, key, [[actor, seq, total], ...]]               resets the observed counter parts
    EXPIRE  5  [5, key, expiry_ms] or [5, key, 0, hlc]            the key's expiry cell; 0 removes it

Codes 6 to 127 are left for sets, maps and sibling registers. ``expiry_ms`` is milliseconds since the epoch, 0 for none. The forms
with an ``hlc`` are *system clears*: they carry their own stamp (hlc, rank 1), just above what they remove, whoever makes them.
Integers outside the signed 64 bits travel as bytes, two's complement, big-endian, as short as possible.

Rows of a key are addressed by (key, suffix), suffix = one tag byte and the element's bytes:

    0x01                  register              Cell
    0x02                  the key's expiry x    Cell: value b"" and expiry_ms, or a tombstone
    0x03 actor (25 B)     counter part          Part

``rows_of`` turns an operation of the change (actor, seq, hlc) into deltas; ``merge_row`` joins a delta into a row. Applied in causal
order, however grouped and repeated, they give the same rows everywhere. ``join`` merges deltas among themselves before they meet
the row (in the layers above LMDB): it keeps the baseline of a reset whose part is not in sight, which ``merge_row`` drops when
there is no part.

Whatever enters the log passes ``validate`` first: a record that an applier cannot carry out would kill every applier that reads it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from edgekv.crdt import counter, register
from edgekv.crdt.counter import Part
from edgekv.crdt.register import RANK_CLIENT, RANK_SYSTEM, Cell
from edgekv.errors import InvalidRequest
from edgekv.ids import ACTOR_BYTES, Actor
from edgekv.limits import COUNTER_BYTES_MAX, HLC_FOLD_MAX, KEY_BYTES_MAX

PUT: Final = 1
DELETE: Final = 2
ADD: Final = 3
RESET: Final = 4
EXPIRE: Final = 5

TAG_REGISTER: Final = 0x01
TAG_EXPIRY: Final = 0x02
TAG_COUNTER: Final = 0x03
SUFFIX_REGISTER: Final = bytes([TAG_REGISTER])
SUFFIX_EXPIRY: Final = bytes([TAG_EXPIRY])
_PREFIX_COUNTER: Final = bytes([TAG_COUNTER])

# Any is honest here: an operation is a msgpack array, and what its elements are is known after ``validate``.
Operation = Sequence[Any]
Row = Cell | Part
Delta = tuple[bytes, bytes, Row]  # key, suffix, what merges into the row


class _Rule(NamedTuple):
    validate: Callable[[Operation], bool]
    rows_of: Callable[[Operation, Actor, int, int], list[Delta]]


def validate(operation: Operation) -> None:
    """Raise InvalidRequest unless ``rows_of`` and ``merge_row`` can carry this operation out."""
    if not isinstance(operation, (list, tuple)) or not operation:
        raise InvalidRequest("an operation is a non-empty array. Send [code, key, ...].")
    code = operation[0]
    rule = OPERATIONS.get(code) if type(code) is int else None
    if rule is None:
        raise InvalidRequest(f"unknown operation {code!r}. This release knows the codes {sorted(OPERATIONS)}.")
    if len(operation) < 2 or not _is_key(operation[1]):
        raise InvalidRequest(f"an operation's key is 1 to {KEY_BYTES_MAX} bytes. Send the key as a byte string.")
    if not rule.validate(operation):
        raise InvalidRequest(f"malformed operation {code}. See the table of operations for its elements.")


def validate_change(operations: Sequence[Operation], actor: Actor) -> None:
    """Validate all operations of one change of ``actor``; refuse two for one row, whose tie no stamp decides."""
    if not isinstance(operations, (list, tuple)) or not operations:
        raise InvalidRequest("a change is a non-empty array of operations. Send [[code, key, ...], ...].")
    rows: set[tuple[bytes, bytes]] = set()
    count = 0
    for operation in operations:
        validate(operation)
        deltas = rows_of(operation, actor, 1, 0)
        count += len(deltas)
        rows.update((key, suffix) for key, suffix, _ in deltas)
    if len(rows) != count:
        raise InvalidRequest("two operations of one change write the same row. Send one operation per row.")


def rows_of(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """The deltas of a validated operation in the change with the dot (actor, seq) and this HLC."""
    return OPERATIONS[operation[0]].rows_of(operation, actor, seq, hlc)


def join(older: Row | None, newer: Row) -> Row:
    """Merge two versions or deltas of one row. Associative, commutative, idempotent."""
    if older is None:
        return newer
    if isinstance(newer, Cell):
        assert isinstance(older, Cell)
        return register.merge(older, newer)
    assert isinstance(older, Part)
    return counter.merge(older, newer)


def merge_row(row: Row | None, delta: Row) -> Row | None:
    """The row after a delta (None: no row). A baseline without a part is dropped: that part was purged as inert."""
    if row is None and isinstance(delta, Part) and delta.seq == 0:
        return None
    return join(row, delta)


def counter_suffix(actor: Actor) -> bytes:
    """The suffix of an actor's counter part."""
    return _PREFIX_COUNTER + actor


def encode_integer(number: int) -> int | bytes:
    """An unbounded integer as msgpack can carry it."""
    if -(1 << 63) <= number < 1 << 63:
        return number
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def decode_integer(encoded: int | bytes) -> int:
    """The inverse of ``encode_integer``."""
    return encoded if isinstance(encoded, int) else int.from_bytes(encoded, "big", signed=True)


def _is_key(element: object) -> bool:
    return type(element) is bytes and 1 <= len(element) <= KEY_BYTES_MAX


def _is_u63(element: object) -> bool:
    return type(element) is int and 0 <= element < HLC_FOLD_MAX


def _is_integer(element: object) -> bool:
    if type(element) is bytes:
        return len(element) <= COUNTER_BYTES_MAX and encode_integer(decode_integer(element)) == element
    return type(element) is int and -(1 << 63) <= element < 1 << 63


def _valid_put(operation: Operation) -> bool:
    return len(operation) == 4 and type(operation[2]) is bytes and _is_u63(operation[3])


def _put_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    _, key, value, expiry_ms = operation
    return [(key, SUFFIX_REGISTER, Cell(value, hlc, actor, seq, expiry_ms))]


def _valid_delete(operation: Operation) -> bool:
    return len(operation) == 2 or (len(operation) == 3 and _is_u63(operation[2]))


def _delete_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    own_hlc, rank = (hlc, RANK_CLIENT) if len(operation) == 2 else (operation[2], RANK_SYSTEM)
    return [(operation[1], SUFFIX_REGISTER, Cell(None, own_hlc, actor, seq, 0, rank))]


def _valid_add(operation: Operation) -> bool:
    if len(operation) != 6:
        return False
    _, _, total, base_seq, base_total, fresh = operation
    return (
        _is_integer(total) and _is_u63(base_seq) and _is_integer(base_total) and type(fresh) is int and fresh in (0, 1)
    )


def _add_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    _, key, total, base_seq, base_total, fresh = operation
    part = Part(decode_integer(total), seq, decode_integer(base_total), base_seq, None, fresh == 1)
    return [(key, counter_suffix(actor), part)]


def _valid_reset(operation: Operation) -> bool:
    if len(operation) != 3 or not isinstance(operation[2], (list, tuple)) or not operation[2]:
        return False
    return all(_is_observed_part(element) for element in operation[2])


def _is_observed_part(element: object) -> bool:
    if not isinstance(element, (list, tuple)) or len(element) != 3:
        return False
    actor, seq, total = element
    return type(actor) is bytes and len(actor) == ACTOR_BYTES and _is_u63(seq) and _is_integer(total)


def _reset_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    _, key, observed = operation
    return [
        (key, counter_suffix(Actor(owner)), counter.reset_delta(owner_seq, decode_integer(total), (actor, seq)))
        for owner, owner_seq, total in observed
    ]


def _valid_expire(operation: Operation) -> bool:
    if len(operation) == 4:
        return type(operation[2]) is int and operation[2] == 0 and _is_u63(operation[3])
    return len(operation) == 3 and _is_u63(operation[2])


def _expire_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    _, key, expiry_ms, *system_hlc = operation
    value = b"" if expiry_ms else None
    own_hlc, rank = (system_hlc[0], RANK_SYSTEM) if system_hlc else (hlc, RANK_CLIENT)
    return [(key, SUFFIX_EXPIRY, Cell(value, own_hlc, actor, seq, expiry_ms, rank))]


OPERATIONS: Final[dict[int, _Rule]] = {
    PUT: _Rule(_valid_put, _put_rows),
    DELETE: _Rule(_valid_delete, _delete_rows),
    ADD: _Rule(_valid_add, _add_rows),
    RESET: _Rule(_valid_reset, _reset_rows),
    EXPIRE: _Rule(_valid_expire, _expire_rows),
}
