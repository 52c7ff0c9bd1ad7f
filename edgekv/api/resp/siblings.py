"""EDGEKV.SIBLINGS: the concurrent values of a key, and writes that say which of them they had read.

For keys of a keyspace with ``conflict = "siblings"``. GET shows one of the values there, and SET and DEL remove all; these commands
show all of them, and remove those alone that the writer has read.
"""

from typing import Final

from edgekv.api.resp.arguments import Unit, expiry_ms, syntax_error, text
from edgekv.api.resp.replies import OK, array, bulk, bulks
from edgekv.api.resp.replies import integer as integer_reply
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command, container
from edgekv.errors import TooLarge
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX

_GROUP: Final = "string"
_KEY: Final = (2, 2, 1)
_UNITS: Final[dict[bytes, Unit]] = {b"EX": "EX", b"PX": "PX", b"EXAT": "EXAT", b"PXAT": "PXAT"}

container("edgekv.siblings", group=_GROUP, since="0.1.0", summary="A container for commands on concurrent values")


@command(
    "edgekv.siblings|get",
    arity=3,
    flags="readonly",
    keys=_KEY,
    group=_GROUP,
    since="0.1.0",
    complexity="O(N) where N is the number of values.",
    summary="Get all concurrent values of a key, the one that GET shows first, with the context to write with",
)
def siblings_get(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.SIBLINGS GET key: [context, [value, ...]]; of an absent key no values."""
    context, values = session.operations.siblings.get(arguments[2])
    if sum(map(len, values)) > CONNECTION_OUTPUT_BYTES_MAX:
        raise TooLarge(
            f"the values exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. GET shows one of them; SET puts one in place of all."
        )
    return array([bulk(context.encode()), bulks(values)])


@command(
    "edgekv.siblings|put",
    arity=-5,
    flags="write denyoom",
    keys=_KEY,
    group=_GROUP,
    since="0.1.0",
    summary="Put a value in place of those that a context names; others stay",
)
def siblings_put(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.SIBLINGS PUT key context value [EX s | PX ms | EXAT s | PXAT ms]."""
    _, _, key, context, value, *options = arguments
    session.operations.siblings.put(key, value, text(context), expiry_ms=_expiry(session, options))
    return OK


@command(
    "edgekv.siblings|del",
    arity=4,
    flags="write",
    keys=_KEY,
    group=_GROUP,
    since="0.1.0",
    summary="Delete the values that a context names; how many of them were there",
)
def siblings_del(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.SIBLINGS DEL key context."""
    _, _, key, context = arguments
    return integer_reply(session.operations.siblings.delete(key, text(context)))


def _expiry(session: Session, options: Arguments) -> int:
    match options:
        case []:
            return 0
        case [word, amount] if (unit := _UNITS.get(word.upper())) is not None:
            return expiry_ms(unit, amount, now_ms=session.operations.now_ms(), command="edgekv.siblings|put")
    raise syntax_error()
