"""Operations on sets and maps, codes 6 to 13: what is well-formed, and the deltas it becomes. The table is in crdt.operation."""

from edgekv.crdt import counter
from edgekv.crdt.checks import (
    Operation,
    decode_number,
    is_dots,
    is_list,
    is_member,
    is_number_state,
    is_observed_part,
    is_tuple,
)
from edgekv.crdt.elements import Clear, Dots, Element, Removal
from edgekv.crdt.register import Cell
from edgekv.crdt.rows import (
    SUFFIX_MAP_CLEAR,
    SUFFIX_SET_CLEAR,
    Delta,
    element_suffix,
    field_part_suffix,
    field_suffix,
)
from edgekv.crdt.string_rules import own_part, tombstone
from edgekv.ids import Actor


def valid_members(operation: Operation) -> bool:
    """[6, key, [element, ...]] and [10, key, [field, ...]]."""
    return len(operation) == 3 and is_list(operation[2], is_member)


def add_elements_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    """Each element with the dot of the change."""
    _, key, members = operation
    added = Element(((actor, seq),))
    return [(key, element_suffix(member), added) for member in members]


def valid_remove_elements(operation: Operation) -> bool:
    """[7, key, [[element, [[actor, seq], ...]], ...]]."""
    return len(operation) == 3 and is_list(operation[2], lambda removed: is_tuple(removed, is_member, is_dots))


def remove_elements_rows(operation: Operation, _actor: Actor, _seq: int, _hlc: int) -> list[Delta]:
    """Each element without the dots that were observed."""
    _, key, observed = operation
    return [(key, element_suffix(member), Removal(_dots(dots))) for member, dots in observed]


def valid_clear_set(operation: Operation) -> bool:
    """[8, key, [[actor, seq], ...]]."""
    return len(operation) == 3 and is_dots(operation[2])


def clear_set_rows(operation: Operation, _actor: Actor, _seq: int, _hlc: int) -> list[Delta]:
    """The set's clear."""
    return [(operation[1], SUFFIX_SET_CLEAR, Clear(_dots(operation[2])))]


def valid_put_fields(operation: Operation) -> bool:
    """[9, key, [[field, value], ...]]."""
    return len(operation) == 3 and is_list(operation[2], lambda put: is_tuple(put, is_member, _is_value))


def put_fields_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """A cell of each field."""
    _, key, pairs = operation
    return [(key, field_suffix(field), Cell(value, hlc, actor, seq)) for field, value in pairs]


def delete_fields_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """A tombstone of each field."""
    _, key, fields = operation
    deleted = tombstone(actor, seq, hlc)
    return [(key, field_suffix(field), deleted) for field in fields]


def valid_add_field(operation: Operation) -> bool:
    """[11, key, field, total, base_seq, base_total, fresh]."""
    return len(operation) == 7 and is_member(operation[2]) and is_number_state(operation[3:])


def add_field_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    """The own part of the field."""
    return [(operation[1], field_part_suffix(operation[2], actor), own_part(seq, *operation[3:]))]


def valid_reset_fields(operation: Operation) -> bool:
    """[12, key, [[field, [[actor, seq, total], ...]], ...]]."""
    return len(operation) == 3 and is_list(operation[2], lambda reset: is_tuple(reset, is_member, _is_observed))


def reset_fields_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    """A baseline of each observed part of each field."""
    _, key, fields = operation
    return [
        (
            key,
            field_part_suffix(field, Actor(owner)),
            counter.reset_delta(owner_seq, decode_number(total), (actor, seq)),
        )
        for field, observed in fields
        for owner, owner_seq, total in observed
    ]


def clear_map_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """The map's clear."""
    return [(operation[1], SUFFIX_MAP_CLEAR, tombstone(actor, seq, hlc, *operation[2:]))]


def _is_value(element: object) -> bool:
    return type(element) is bytes


def _is_observed(element: object) -> bool:
    return is_list(element, is_observed_part)


def _dots(dots: Operation) -> Dots:
    return tuple((Actor(actor), seq) for actor, seq in dots)
