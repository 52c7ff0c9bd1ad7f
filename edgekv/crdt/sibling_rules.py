"""Operations on siblings, codes 14 and 15: what is well-formed, and the deltas it becomes. The table is in crdt.operation."""

from edgekv.crdt.checks import Operation, is_dot_set, is_u63
from edgekv.crdt.elements import Dots
from edgekv.crdt.rows import SUFFIX_SIBLINGS, Delta
from edgekv.crdt.siblings import Sibling, SiblingsEdit
from edgekv.ids import Actor


def valid_put_sibling(operation: Operation) -> bool:
    """[14, key, value, expiry_ms, [[actor, seq], ...]]."""
    return (
        len(operation) == 5
        and type(operation[2]) is bytes
        and is_u63(operation[3])
        and (is_dot_set(operation[4]) or operation[4] in ([], ()))
    )


def put_sibling_rows(operation: Operation, actor: Actor, seq: int, hlc: int) -> list[Delta]:
    """The value, instead of those that its writer had seen; its own was not among them."""
    _, key, value, expiry_ms, removed = operation
    seen = tuple(dot for dot in _dots(removed) if dot != (actor, seq))
    return [(key, SUFFIX_SIBLINGS, SiblingsEdit((Sibling(actor, seq, hlc, value, expiry_ms),), seen))]


def valid_delete_siblings(operation: Operation) -> bool:
    """[15, key, [[actor, seq], ...]]."""
    return len(operation) == 3 and is_dot_set(operation[2])


def delete_siblings_rows(operation: Operation, _actor: Actor, _seq: int, _hlc: int) -> list[Delta]:
    """The values without those that were seen."""
    return [(operation[1], SUFFIX_SIBLINGS, SiblingsEdit((), _dots(operation[2])))]


def _dots(dots: Operation) -> Dots:
    return tuple((Actor(actor), seq) for actor, seq in dots)
