"""Maps as clients see them: fields, each a register and counter parts as a string is, and how each verb writes them.

    HSET      the field's cell; resets the observed parts of the field. HINCRBYs elsewhere that it did not see survive it.
    HDEL      a tombstone where there is a value; resets the observed parts. The last row of a key takes the key's expiry with it.
    HINCRBY   the own part of the field; HINCRBYFLOAT too
    clear     one operation that hides every cell with a lower stamp, and a reset of each field with live parts

A field has no expiry of its own but the key's (crdt.key has what the first and the last row of a key do to it).

Every function returns operations of ONE change, at most one per row, and leaves out those without an effect. All are pure: ``now`` is
TTL time in ms. ``state`` and ``company`` are what this node sees at the key, and the caller has ruled out a wrong type; a field's own
state is a ``StringState`` without expiry (`field_state`), which says what its value is.
"""

from collections.abc import Mapping
from typing import Final

from edgekv.crdt.company import Company, Parts, clear_map_operations, reset_fields_operations, without
from edgekv.crdt.decimals import Number
from edgekv.crdt.key import first_write_operations, last_row_operations
from edgekv.crdt.operation import ADD_FIELD, DELETE_FIELDS, PUT_FIELDS, Operation
from edgekv.crdt.register import Cell, stamp
from edgekv.crdt.strings import StringState, increment_own
from edgekv.ids import Actor

NO_FIELD: Final = StringState(None, None, {})


def hidden(cell: Cell, clear: Cell | None) -> bool:
    """Whether the map's clear hides this cell of a field. A put in the change of the clear has an equal stamp and stays."""
    return clear is not None and stamp(cell) < stamp(clear)


def field_state(cell: Cell | None, parts: Parts, clear: Cell | None) -> StringState:
    """A field by its rows and the map's clear."""
    shown = None if cell is None or hidden(cell, clear) else cell
    return StringState(shown, None, parts)


def put_operations(
    state: StringState,
    company: Company,
    key: bytes,
    pairs: Mapping[bytes, bytes],
    observed: Mapping[bytes, StringState],
    now: int,
    new_expiry_ms: int = 0,
) -> list[Operation]:
    """HSET. ``observed``: those of the fields that have parts. A key that is made by it gets ``new_expiry_ms``, or no expiry."""
    if not pairs:
        return []
    first = first_write_operations(state, company, key, now, new_expiry_ms)
    parts = {} if state.gone(now) else {field: observed[field].parts for field in pairs if field in observed}
    return [*first, (PUT_FIELDS, key, list(pairs.items())), *reset_fields_operations(parts, key)]


def delete_operations(
    state: StringState, company: Company, key: bytes, observed: Mapping[bytes, StringState], now: int
) -> list[Operation]:
    """HDEL of the fields that have a value, each with its state."""
    if not observed or state.gone(now):
        return []
    values = [
        field for field, before in observed.items() if before.register is not None and before.register.value is not None
    ]
    left = company._replace(fields=company.fields - len(observed))
    return [
        *([(DELETE_FIELDS, key, values)] if values else []),
        *reset_fields_operations({field: before.parts for field, before in observed.items()}, key),
        *last_row_operations(state, left, key, now),
    ]


def clear_operations(state: StringState, company: Company, key: bytes, now: int) -> list[Operation]:
    """The map alone; a string and a set at the key stay."""
    if not company.fields or state.gone(now):
        return []
    return [*clear_map_operations(company, key), *last_row_operations(state, company._replace(fields=0), key, now)]


def increment_operations(
    state: StringState,
    company: Company,
    key: bytes,
    field: bytes,
    before: StringState,
    delta: Number,
    own_actor: Actor,
    next_seq: int,
    now: int,
    new_expiry_ms: int = 0,
) -> list[Operation]:
    """HINCRBY by ``delta`` in the own change ``next_seq``. Whether value and sum are in range, or integers, is the caller's check."""
    parts: Parts = {} if state.gone(now) else before.parts
    others = {**company.counter_fields, field: without(before.parts, own_actor)}
    first = first_write_operations(state, company._replace(counter_fields=others), key, now, new_expiry_ms)
    return [*first, (ADD_FIELD, key, field, *increment_own(parts, own_actor, delta, next_seq))]
