"""EDGEKV.OP session n command...: a command that can be sent again. Sent twice, it is carried out once and answered twice.

The session is 16 bytes that the client made (ids.py), n counts from 1 in it. The node keeps the reply with the change that the command
made, in one record (engine/operation_ids.py), so this holds over a crash of the node. The id is looked up before anything else: what
was done is answered whatever the node would say now, a full disk included. A command that changed nothing (SREM of what is not there,
an error) leaves no record: sent again it is carried out again.

The command must write, and make one change. Those of `_ONE_CHANGE` do by themselves and have short replies; any other runs as in MULTI
(`Execution`): one change or none, refused when it spans keyspaces or reads too much, and undone when its reply is too large to keep.
Replies are kept as protocol 3 has them, and translated for a connection of protocol 2, whichever of them sent it first.
"""

from typing import Final

from edgekv.api.resp.arguments import integer
from edgekv.api.resp.replies import RESP3, downgraded
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import Command, command, find, key_indexes
from edgekv.api.resp.transactions import Execution
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.ids import SESSION_BYTES
from edgekv.metrics import NO_KEYSPACE

_ONE_CHANGE: Final = frozenset(
    (
        *("append", "decr", "decrby", "hdel", "hincrby", "hincrbyfloat", "hset", "incr", "incrby", "incrbyfloat"),
        *("sadd", "srem", "edgekv.batch"),
    )
)
_REFUSED: Final = frozenset(("edgekv.op", "exec", "flushall", "flushdb"))
_RESULT_BYTES: Final = 24
"""Of a batch: the reply has at most so many for each word of the command."""


@command(
    "edgekv.op",
    arity=-4,
    flags="write denyoom movablekeys no_multi",
    group="transactions",
    since="0.1.0",
    complexity="That of the command.",
    summary="Carry out a command once, however often it is sent with the same session and number",
)
def edgekv_op(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.OP session n command [argument ...]."""
    if session.transaction is not None:
        raise InvalidRequest("EDGEKV.OP cannot be part of a transaction. Use EDGEKV.OP session n EDGEKV.BATCH.")
    _, client_session, number, *inner = arguments
    if len(client_session) != SESSION_BYTES:
        raise InvalidRequest(f"a session has {SESSION_BYTES} bytes, not {len(client_session)}.")
    n = integer(number)
    if n < 1:
        raise InvalidRequest("the number of an operation is counted from 1 in its session.")
    reply = session.operations.engine.once(client_session, n, lambda: _carry_out(session, inner))
    return reply if session.dialect is RESP3 else downgraded(reply)


def _carry_out(session: Session, inner: Arguments) -> bytes:
    """The reply of the command, as protocol 3 has it."""
    entry = find(inner)
    if not isinstance(entry, Command):
        return entry
    if not entry.writes:
        raise InvalidRequest(f"{_shown(entry)} makes no change, so it needs no id. Send it by itself.")
    if entry.name in _REFUSED:
        raise InvalidRequest(f"{_shown(entry)} cannot have an id: it may be more than one change. Send it by itself.")
    dialect, session.dialect = session.dialect, RESP3
    try:
        if (
            entry.name in _ONE_CHANGE
            and _RESULT_BYTES * len(inner) <= session.operations.engine.operation_reply_bytes_max
        ):
            return _directly(session, entry, inner)
        return _as_one_change(session, entry, inner)
    finally:
        session.dialect = dialect


def _directly(session: Session, entry: Command, inner: Arguments) -> bytes:
    operations, indexes = session.operations, key_indexes(entry, len(inner))
    for i in indexes:
        operations.check_key(inner[i])
    assert entry.run is not None
    reply = entry.run(session, inner)
    assert isinstance(reply, bytes)
    keyspace = operations.engine.keyspaces.of(inner[indexes[0]]).name if indexes else NO_KEYSPACE
    session.shared.host.metrics.ops(entry.name, keyspace)
    return reply


def _as_one_change(session: Session, entry: Command, inner: Arguments) -> bytes:
    execution, reply_bytes_max = Execution(session), session.operations.engine.operation_reply_bytes_max
    with session.operations.transaction():
        reply = execution.carry_out(inner)
        if len(reply) > reply_bytes_max:
            raise TooLarge(
                f"the reply of {_shown(entry)} has {len(reply)} bytes; the limit is {reply_bytes_max} for one that is kept. "
                "Ask for less at once."
            )
    execution.count()
    return reply


def _shown(entry: Command) -> str:
    return entry.name.upper()
