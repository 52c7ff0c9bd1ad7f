"""Commands about other nodes: WAIT as in Redis, EDGEKV.ACK for how far writes are acknowledged, EDGEKV.SESSION for what a session saw.

The first one asks once; the other two change what the connection is promised from then on (promises.py).
"""

from collections.abc import Callable
from typing import Final

from edgekv.api.resp.arguments import at_most, integer, integer_from, text
from edgekv.api.resp.promises import Promises
from edgekv.api.resp.replies import OK, array, bulk, fault
from edgekv.api.resp.replies import integer as integer_reply
from edgekv.api.resp.session import Arguments, Later, Reply, Session
from edgekv.api.resp.table import command
from edgekv.engine.frame import Frame
from edgekv.errors import InvalidRequest, SessionBehind
from edgekv.limits import ACK_TIMEOUT_MS, ACK_TIMEOUT_MS_MAX, SESSION_WAIT_MS
from edgekv.node.token import token_of
from edgekv.replication.acks import LEVELS, Want

_RANGE: Final = "value is out of range, must be positive"


@command(
    "wait",
    arity=3,
    flags="",
    group="generic",
    since="3.0.0",
    summary="Wait until other nodes have durably what this connection has written, and say how many do",
)
def wait(session: Session, arguments: Arguments) -> Reply:
    """WAIT numreplicas timeout (ms; 0: without end)."""
    nodes = integer_from(arguments[1], 0, _RANGE)
    timeout_ms = integer(arguments[2])
    if timeout_ms < 0:
        raise InvalidRequest("timeout is negative")
    acks, positions, want = session.shared.host.acks, session.written(), Want(nodes)

    def count() -> bytes:
        return integer_reply(len(acks.covered_by(positions)))

    def begin(_barrier: Frame | None, done: Callable[[bytes], None]) -> Callable[[], None]:
        deadline_ms = _deadline_ms(session, timeout_ms) if timeout_ms else None
        waiting = acks.wait(positions, want, deadline_ms, lambda _met: done(count()))
        return lambda: acks.cancel(waiting)

    return (
        count()
        if acks.is_met(positions, want)
        else Later(begin=begin, at_once=count, endless=None if timeout_ms else count)
    )


@command(
    "edgekv.ack",
    arity=-1,
    flags="no_multi",
    group="connection",
    since="0.1.0",
    summary="How far this connection's writes have to be durable before they are answered",
)
def edgekv_ack(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.ACK: level, timeout, and what the last answered write has reached. EDGEKV.ACK local|site|hub [timeout_ms]: set it."""
    _outside_transaction(session, "EDGEKV.ACK")
    at_most(arguments, 3)
    promises = _promises(session)
    if len(arguments) == 1:

        def told() -> bytes:
            return array(
                [bulk(promises.level.encode()), integer_reply(promises.timeout_ms), bulk(promises.reached.encode())]
            )

        return _after_all(promises, told)
    level = next((level for level in LEVELS if level.encode() == arguments[1].lower()), None)
    if level is None:
        raise InvalidRequest(f"'{text(arguments[1][:32])}' is no level of acknowledgement. Use local, site or hub.")
    timeout_ms = ACK_TIMEOUT_MS if len(arguments) == 2 else integer_from(arguments[2], 0, _RANGE)
    promises.ask(level, min(timeout_ms, ACK_TIMEOUT_MS_MAX))
    return OK


@command(
    "edgekv.session",
    arity=-1,
    flags="no_multi",
    group="connection",
    since="0.1.0",
    summary="Begin a session, go on with one that another connection had, or get its token",
)
def edgekv_session(session: Session, arguments: Arguments) -> Reply:
    """EDGEKV.SESSION: its token. EDGEKV.SESSION NEW | END. EDGEKV.SESSION token [timeout_ms]: go on once this node covers it."""
    _outside_transaction(session, "EDGEKV.SESSION")
    at_most(arguments, 3)
    promises = _promises(session)
    match arguments[1:]:
        case []:
            if promises.looked is None:
                promises.look_at(None)
            return _after_all(promises, lambda: bulk(promises.token().encode()))
        case [word] if word.upper() == b"NEW":
            promises.begin_session()
            return OK
        case [word] if word.upper() == b"END":
            promises.looked, promises.behind = None, ""
            return OK
        case [token]:
            return _go_on(session, promises, text(token), SESSION_WAIT_MS)
        case [token, timeout_ms]:
            return _go_on(session, promises, text(token), integer_from(timeout_ms, 0, _RANGE))
    raise AssertionError("the arity was checked")


def _go_on(session: Session, promises: Promises, token: str, timeout_ms: int) -> Reply:
    """Whatever follows on the connection is refused until the node covers the token, so it may be sent with it."""
    entries = token_of(token).entries
    promises.begin_session(behind=token)
    promises.look_at(None if entries is None else frozenset(entries))
    sessions = session.shared.host.sessions

    def begin(_barrier: Frame | None, done: Callable[[bytes], None]) -> Callable[[], None]:
        def settle(error: SessionBehind | None) -> None:
            if error is None:
                promises.behind = ""
            done(OK if error is None else fault(error))

        return sessions.wait(token, _deadline_ms(session, timeout_ms), settle)

    return Later(begin=begin)


def _deadline_ms(session: Session, timeout_ms: int) -> int:
    return session.shared.host.monotonic_ms() + min(timeout_ms, ACK_TIMEOUT_MS_MAX)


def _after_all(promises: Promises, reply: Callable[[], bytes]) -> Later:
    """A reply about what those before it have reached, so it is made when they have left."""

    def begin(barrier: Frame | None, done: Callable[[bytes], None]) -> Callable[[], None]:
        promises.when_left(barrier, lambda: done(reply()))
        return promises.close

    return Later(begin=begin)


def _promises(session: Session) -> Promises:
    if session.promises is None:
        session.promises = Promises(session)
    assert isinstance(session.promises, Promises)
    return session.promises


def _outside_transaction(session: Session, name: str) -> None:
    if session.transaction is not None:
        raise InvalidRequest(f"{name} cannot be part of a transaction. Send it before MULTI.")
