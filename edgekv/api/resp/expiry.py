"""When keys expire: the EXPIRE and TTL families. Times are absolute milliseconds inside; -1 is "never", -2 "no such key"."""

from typing import Final

from edgekv.api.resp.arguments import Unit, deadline_ms, text
from edgekv.api.resp.replies import ONE, ZERO, integer
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command
from edgekv.errors import InvalidRequest

_KEY: Final = (1, 1, 1)
_NEVER: Final = -1
_PAST_MS: Final = 1
"""An expiry of 0 would mean none; any past moment deletes the key alike."""

_CONDITIONS: Final = frozenset([b"NX", b"XX", b"GT", b"LT"])


def _conditions(words: Arguments) -> frozenset[bytes]:
    found = frozenset(word.upper() for word in words)
    for word in words:
        if word.upper() not in _CONDITIONS:
            shown, _, _ = word.partition(b"\x00")  # As C has it.
            raise InvalidRequest(f"Unsupported option {text(shown)}")
    if b"NX" in found and len(found) > 1:
        raise InvalidRequest("NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in found and b"LT" in found:
        raise InvalidRequest("GT and LT options at the same time are not compatible")
    return found


def _holds(conditions: frozenset[bytes], current: int, wanted: int) -> bool:
    """Whether an expiry may change from ``current`` (-1: never) to ``wanted``. Never is later than any time."""
    return not (
        (b"NX" in conditions and current != _NEVER)
        or (b"XX" in conditions and current == _NEVER)
        or (b"GT" in conditions and (current == _NEVER or wanted <= current))
        or (b"LT" in conditions and current != _NEVER and wanted >= current)
    )


def _expire(session: Session, arguments: Arguments, unit: Unit, name: str) -> Reply:
    _, key, amount, *words = arguments
    conditions = _conditions(words)
    wanted = deadline_ms(unit, amount, now_ms=session.operations.now_ms(), command=name)
    if conditions:
        current = session.operations.expiry_of(key)
        if current < _NEVER or not _holds(conditions, current, wanted):
            return ZERO
    return ONE if session.operations.set_expiry(key, max(wanted, _PAST_MS)) else ZERO


@command(
    "expire",
    arity=-3,
    flags="write fast",
    keys=_KEY,
    group="generic",
    since="1.0.0",
    summary="Set a key's time to live in seconds",
)
def expire(session: Session, arguments: Arguments) -> Reply:
    """EXPIRE key seconds [NX | XX | GT | LT]."""
    return _expire(session, arguments, "EX", "expire")


@command(
    "pexpire",
    arity=-3,
    flags="write fast",
    keys=_KEY,
    group="generic",
    since="2.6.0",
    summary="Set a key's time to live in milliseconds",
)
def pexpire(session: Session, arguments: Arguments) -> Reply:
    """PEXPIRE key milliseconds [NX | XX | GT | LT]."""
    return _expire(session, arguments, "PX", "pexpire")


@command(
    "expireat",
    arity=-3,
    flags="write fast",
    keys=_KEY,
    group="generic",
    since="1.2.0",
    summary="Set the expiration for a key as a UNIX timestamp",
)
def expireat(session: Session, arguments: Arguments) -> Reply:
    """EXPIREAT key seconds [NX | XX | GT | LT]."""
    return _expire(session, arguments, "EXAT", "expireat")


@command(
    "pexpireat",
    arity=-3,
    flags="write fast",
    keys=_KEY,
    group="generic",
    since="2.6.0",
    summary="Set the expiration for a key as a UNIX timestamp in milliseconds",
)
def pexpireat(session: Session, arguments: Arguments) -> Reply:
    """PEXPIREAT key milliseconds [NX | XX | GT | LT]."""
    return _expire(session, arguments, "PXAT", "pexpireat")


@command(
    "ttl",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="generic",
    since="1.0.0",
    summary="Get the time to live for a key in seconds",
)
def ttl(session: Session, arguments: Arguments) -> Reply:
    """TTL key."""
    return integer(_in_seconds(_remaining_ms(session, arguments[1])))


@command(
    "pttl",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="generic",
    since="2.6.0",
    summary="Get the time to live for a key in milliseconds",
)
def pttl(session: Session, arguments: Arguments) -> Reply:
    """PTTL key."""
    return integer(_remaining_ms(session, arguments[1]))


@command(
    "expiretime",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="generic",
    since="7.0.0",
    summary="Get the expiration Unix timestamp for a key",
)
def expiretime(session: Session, arguments: Arguments) -> Reply:
    """EXPIRETIME key."""
    return integer(_in_seconds(session.operations.expiry_of(arguments[1])))


@command(
    "pexpiretime",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="generic",
    since="7.0.0",
    summary="Get the expiration Unix timestamp for a key in milliseconds",
)
def pexpiretime(session: Session, arguments: Arguments) -> Reply:
    """PEXPIRETIME key."""
    return integer(session.operations.expiry_of(arguments[1]))


@command(
    "persist",
    arity=2,
    flags="write fast",
    keys=_KEY,
    group="generic",
    since="2.2.0",
    summary="Remove the expiration from a key",
)
def persist(session: Session, arguments: Arguments) -> Reply:
    """PERSIST key."""
    return ONE if session.operations.persist(arguments[1]) else ZERO


def _remaining_ms(session: Session, key: bytes) -> int:
    expires = session.operations.expiry_of(key)
    return expires if expires < 0 else max(expires - session.operations.now_ms(), 0)


def _in_seconds(milliseconds: int) -> int:
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000
