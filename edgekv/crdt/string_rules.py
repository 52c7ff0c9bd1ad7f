"""Operations on strings, codes 1 to 5: what is well-formed, and the deltas it becomes. The table is in crdt.operation."""

from edgekv.crdt import counter
from edgekv.crdt.checks import (
    EncodedNumber,
    Operation,
    decode_number,
    is_list,
    is_number_state,
    is_observed_part,
    is_u63,
)
from edgekv.crdt.counter import Part
from edgekv.crdt.register import RANK_SYSTEM, Cell
from edgekv.crdt.rows import SUFFIX_EXPIRY, SUFFIX_REGISTER, Delta, counter_suffix
from edgekv.ids import Actor


def valid_put(operation: Operation) -> bool:
    """[1, key, value, expiry_ms]."""
    return len(operation) == 4 and type(operation[2]) is bytes and is_u63(operation[3])


def put_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """The register."""
    _, key, value, expiry_ms = operation
    return [(key, SUFFIX_REGISTER, Cell(value, hlc, actor, seq, expiry_ms))]


def valid_delete(operation: Operation) -> bool:
    """[2, key] or [2, key, hlc]; also [13, key], [13, key, hlc]."""
    return len(operation) == 2 or (len(operation) == 3 and is_u63(operation[2]))


def delete_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """The register as a tombstone."""
    return [(operation[1], SUFFIX_REGISTER, tombstone(actor, seq, hlc, *operation[2:]))]


def tombstone(actor: Actor, seq: int, hlc: int, system_hlc: int | None = None) -> Cell:
    """A tombstone with the stamp of its change, or with its own when it is a system clear."""
    return Cell(None, hlc, actor, seq) if system_hlc is None else Cell(None, system_hlc, actor, seq, 0, RANK_SYSTEM)


def valid_add(operation: Operation) -> bool:
    """[3, key, total, base_seq, base_total, fresh]."""
    return is_number_state(operation[2:])


def add_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    """The own part."""
    return [(operation[1], counter_suffix(actor), own_part(seq, *operation[2:]))]


def own_part(seq: int, total: EncodedNumber, base_seq: int, base_total: EncodedNumber, fresh: int) -> Part:
    """The own part after an increment in the change ``seq``."""
    return Part(decode_number(total), seq, decode_number(base_total), base_seq, None, fresh == 1)


def valid_reset(operation: Operation) -> bool:
    """[4, key, [[actor, seq, total], ...]]."""
    return len(operation) == 3 and is_list(operation[2], is_observed_part)


def reset_rows(operation: Operation, actor: Actor, seq: int, _hlc: int) -> list[Delta]:
    """A baseline of each observed part."""
    _, key, observed = operation
    return [
        (key, counter_suffix(Actor(owner)), counter.reset_delta(owner_seq, decode_number(total), (actor, seq)))
        for owner, owner_seq, total in observed
    ]


def valid_expire(operation: Operation) -> bool:
    """[5, key, expiry_ms] or [5, key, 0, hlc]."""
    if len(operation) == 4:
        return type(operation[2]) is int and operation[2] == 0 and is_u63(operation[3])
    return len(operation) == 3 and is_u63(operation[2])


def expire_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """The key's expiry cell."""
    _, key, expiry_ms, *system_hlc = operation
    cell = Cell(b"", hlc, actor, seq, expiry_ms) if expiry_ms else tombstone(actor, seq, hlc, *system_hlc)
    return [(key, SUFFIX_EXPIRY, cell)]
