"""The operations inside a change: how each is written in the log and on the wire, and which rows it merges into.

An operation is a msgpack array whose first element is its code:

    code                array                                                   effect
    PUT              1  [1, key, value, expiry_ms]                              register := value
    DELETE           2  [2, key] or [2, key, hlc]                               register := tombstone
    ADD              3  [3, key, total, base_seq, base_total, fresh]            the own counter part; fresh 1: made anew
    RESET            4  [4, key, [[actor, seq, total], ...]]                    resets the observed counter parts
    EXPIRE           5  [5, key, expiry_ms] or [5, key, 0, hlc]                 the key's expiry cell; 0 removes it
    ADD_ELEMENTS     6  [6, key, [element, ...]]                                each gets the change's dot
    REMOVE_ELEMENTS  7  [7, key, [[element, [[actor, seq], ...]], ...]]         removes the observed dots
    CLEAR_SET        8  [8, key, [[actor, seq], ...]]                           the vector that was observed: before this change
    PUT_FIELDS       9  [9, key, [[field, value], ...]]                         field := value
    DELETE_FIELDS   10  [10, key, [field, ...]]                                 field := tombstone
    ADD_FIELD       11  [11, key, field, total, base_seq, base_total, fresh]    as ADD, of a field
    RESET_FIELDS    12  [12, key, [[field, [[actor, seq, total], ...]], ...]]   as RESET, of fields
    CLEAR_MAP       13  [13, key] or [13, key, hlc]                             hides the fields with a lower stamp
    PUT_SIBLING     14  [14, key, value, expiry_ms, [[actor, seq], ...]]        the value, instead of those with the dots seen
    DELETE_SIBLINGS 15  [15, key, [[actor, seq], ...]]                          removes the values with these dots

Lists of [actor, seq] are ascending, one entry per actor but in 14 and 15, and at least one entry but in 14; the other lists name each
element or field once. Codes to 127 are left for what comes. ``expiry_ms`` is milliseconds since the epoch, 0 for none. The forms with
an ``hlc`` are *system clears*: they carry their own stamp (hlc, rank 1), just above what they remove, whoever makes them. A total or
base_total is a number in one form only: an integer, outside the signed 64 bits as bytes, two's complement, big-endian, as short as
possible; what is no integer as text, "-12.5", with at most 17 digits after the point and no zeros at the ends (crdt.decimals).

``rows_of`` turns an operation of the change (actor, seq, hlc) into deltas of rows (crdt.rows, whose names are given here too: this
is the door). A change has at most one operation per row, so ties inside it do not exist. A clear and what is put after it may stand
in one change: the clear comes first, since its vector does not cover the change's own dot, and it hides only stamps below its own.

Whatever enters the log passes ``validate`` first: a record that an applier cannot carry out would kill every applier that reads it.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from edgekv.crdt import collection_rules, sibling_rules, string_rules
from edgekv.crdt.checks import Operation, decode_number, encode_number, is_key
from edgekv.crdt.rows import (
    SUFFIX_EXPIRY,
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SET_CLEAR,
    SUFFIX_SIBLINGS,
    TAG_COUNTER,
    TAG_ELEMENT,
    TAG_EXPIRY,
    TAG_FIELD,
    TAG_FIELD_PART,
    TAG_MAP_CLEAR,
    TAG_REGISTER,
    TAG_SET_CLEAR,
    TAG_SIBLINGS,
    Delta,
    Row,
    RowDelta,
    actor_of_suffix,
    counter_suffix,
    element_of_suffix,
    element_suffix,
    field_of_suffix,
    field_part_suffix,
    field_parts_prefix,
    field_suffix,
    join,
    merge_row,
)
from edgekv.errors import InvalidRequest
from edgekv.ids import Actor
from edgekv.limits import KEY_BYTES_MAX

__all__ = [
    "PUT",
    "DELETE",
    "ADD",
    "RESET",
    "EXPIRE",
    "ADD_ELEMENTS",
    "REMOVE_ELEMENTS",
    "CLEAR_SET",
    "PUT_FIELDS",
    "DELETE_FIELDS",
    "ADD_FIELD",
    "RESET_FIELDS",
    "CLEAR_MAP",
    "PUT_SIBLING",
    "DELETE_SIBLINGS",
    "OPERATIONS",
    "Operation",
    "decode_number",
    "encode_number",
    "operation_bytes",
    "rows_of",
    "validate",
    "validate_change",
    "SUFFIX_EXPIRY",
    "SUFFIX_MAP_CLEAR",
    "SUFFIX_REGISTER",
    "SUFFIX_SET_CLEAR",
    "SUFFIX_SIBLINGS",
    "TAG_COUNTER",
    "TAG_ELEMENT",
    "TAG_EXPIRY",
    "TAG_FIELD",
    "TAG_FIELD_PART",
    "TAG_MAP_CLEAR",
    "TAG_REGISTER",
    "TAG_SET_CLEAR",
    "TAG_SIBLINGS",
    "Delta",
    "Row",
    "RowDelta",
    "actor_of_suffix",
    "counter_suffix",
    "element_of_suffix",
    "element_suffix",
    "field_of_suffix",
    "field_part_suffix",
    "field_parts_prefix",
    "field_suffix",
    "join",
    "merge_row",
]

PUT: Final = 1
DELETE: Final = 2
ADD: Final = 3
RESET: Final = 4
EXPIRE: Final = 5
ADD_ELEMENTS: Final = 6
REMOVE_ELEMENTS: Final = 7
CLEAR_SET: Final = 8
PUT_FIELDS: Final = 9
DELETE_FIELDS: Final = 10
ADD_FIELD: Final = 11
RESET_FIELDS: Final = 12
CLEAR_MAP: Final = 13
PUT_SIBLING: Final = 14
DELETE_SIBLINGS: Final = 15
_OPERATION_BYTES: Final = 64
"""More than the log needs for an operation besides keys, values and lists."""
_ITEM_BYTES: Final = 9
"""What an integer of a list takes, and more than the head of a string or list there."""


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
    if len(operation) < 2 or not is_key(operation[1]):
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


def operation_bytes(operation: Operation) -> int:
    """What an operation takes in the log, at most."""
    return _OPERATION_BYTES + sum(map(_item_bytes, operation))


def _item_bytes(item: object) -> int:
    if isinstance(item, (bytes, str)):
        return len(item) + _ITEM_BYTES
    if isinstance(item, (list, tuple)):
        return _ITEM_BYTES + sum(map(_item_bytes, item))
    return _ITEM_BYTES


OPERATIONS: Final[dict[int, _Rule]] = {
    PUT: _Rule(string_rules.valid_put, string_rules.put_rows),
    DELETE: _Rule(string_rules.valid_delete, string_rules.delete_rows),
    ADD: _Rule(string_rules.valid_add, string_rules.add_rows),
    RESET: _Rule(string_rules.valid_reset, string_rules.reset_rows),
    EXPIRE: _Rule(string_rules.valid_expire, string_rules.expire_rows),
    ADD_ELEMENTS: _Rule(collection_rules.valid_members, collection_rules.add_elements_rows),
    REMOVE_ELEMENTS: _Rule(collection_rules.valid_remove_elements, collection_rules.remove_elements_rows),
    CLEAR_SET: _Rule(collection_rules.valid_clear_set, collection_rules.clear_set_rows),
    PUT_FIELDS: _Rule(collection_rules.valid_put_fields, collection_rules.put_fields_rows),
    DELETE_FIELDS: _Rule(collection_rules.valid_members, collection_rules.delete_fields_rows),
    ADD_FIELD: _Rule(collection_rules.valid_add_field, collection_rules.add_field_rows),
    RESET_FIELDS: _Rule(collection_rules.valid_reset_fields, collection_rules.reset_fields_rows),
    CLEAR_MAP: _Rule(string_rules.valid_delete, collection_rules.clear_map_rows),
    PUT_SIBLING: _Rule(sibling_rules.valid_put_sibling, sibling_rules.put_sibling_rows),
    DELETE_SIBLINGS: _Rule(sibling_rules.valid_delete_siblings, sibling_rules.delete_siblings_rows),
}
