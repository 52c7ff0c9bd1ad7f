"""The string commands. A number made by INCR and a string made by SET are one value (a counter and a register that merge).

What decides by a state (SET XX, GETSET, APPEND, SETRANGE, INCRBYFLOAT) decides by this node's state; docs/RESP.md says what that means
when two sites do it at once. GET and SET without options are also handled in runs by protocol.py; both ways answer alike.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from edgekv.api.resp.arguments import INTEGER_MIN, Unit, expiry_ms, integer, pairs, syntax_error
from edgekv.api.resp.replies import EMPTY_ARRAY, OK, array, bulk
from edgekv.api.resp.replies import integer as integer_reply
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command
from edgekv.errors import InvalidRequest, NotANumber, TooLarge, WrongType
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX, READ_RUN_BYTES_MAX, RESP_READ_RUN_KEYS

_KEY: Final = (1, 1, 1)
_UNITS: Final[dict[bytes, Unit]] = {b"EX": "EX", b"PX": "PX", b"EXAT": "EXAT", b"PXAT": "PXAT"}
_NX_REFUSED: Final = (
    "SET NX is refused on a CRDT keyspace: another site may create the key at the same moment, so the promise of NX cannot be kept. "
    "Use SET; keyspaces that can promise it come with a later release"
)


class Options(NamedTuple):
    """What follows the value in SET, or the key in GETEX."""

    unit: Unit | None = None
    amount: bytes = b""
    keep_expiry: bool = False
    persist: bool = False
    get: bool = False
    if_absent: bool = False
    if_exists: bool = False

    def expiry_ms(self, session: Session, name: str) -> int:
        """When the value expires, absolute ms; 0: it does not."""
        if self.unit is None:
            return 0
        return expiry_ms(self.unit, self.amount, now_ms=session.operations.now_ms(), command=name)


def _options(words: Arguments, allowed: frozenset[bytes]) -> Options:
    """Read options in any order. One about the expiry excludes the others, NX excludes XX."""
    found = Options()
    remaining = iter(words)
    for raw in remaining:
        word = raw.upper()
        if word not in allowed:
            raise syntax_error()
        about_expiry = found.unit is not None or found.keep_expiry or found.persist
        if word in (b"NX", b"XX"):
            found = found._replace(
                if_absent=word == b"NX" or found.if_absent, if_exists=word == b"XX" or found.if_exists
            )
        elif word == b"GET":
            found = found._replace(get=True)
        elif word == b"KEEPTTL" and (found.keep_expiry or not about_expiry):
            found = found._replace(keep_expiry=True)
        elif word == b"PERSIST" and (found.persist or not about_expiry):
            found = found._replace(persist=True)
        elif (unit := _UNITS.get(word)) and (found.unit == unit or not about_expiry):
            found = found._replace(unit=unit, amount=_amount(remaining))
        else:
            raise syntax_error()
    if found.if_absent and found.if_exists:
        raise syntax_error()
    return found


def _amount(remaining: Iterator[bytes]) -> bytes:
    amount = next(remaining, None)
    if amount is None:
        raise syntax_error()
    return amount


_SET_OPTIONS: Final = frozenset([*_UNITS, b"KEEPTTL", b"GET", b"NX", b"XX"])
_GETEX_OPTIONS: Final = frozenset([*_UNITS, b"PERSIST"])


@command(
    "get", arity=2, flags="readonly fast", keys=_KEY, group="string", since="1.0.0", summary="Get the value of a key"
)
def get(session: Session, arguments: Arguments) -> Reply:
    """GET key."""
    return session.dialect.optional(session.operations.get(arguments[1]))


@command(
    "set",
    arity=-3,
    flags="write denyoom",
    keys=_KEY,
    group="string",
    since="1.0.0",
    summary="Set the string value of a key. NX is refused on a CRDT keyspace",
)
def set_(session: Session, arguments: Arguments) -> Reply:
    """SET key value [XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]."""
    _, key, value, *words = arguments
    options = _options(words, _SET_OPTIONS)
    if options.if_absent:
        raise InvalidRequest(_NX_REFUSED)
    expires = options.expiry_ms(session, "set")
    before = session.operations.get(key) if options.get else None
    done = session.operations.set(
        key,
        value,
        expiry_ms=expires,
        keep_expiry=options.keep_expiry,
        only_if="exists" if options.if_exists else "",
    )
    if options.get:
        return session.dialect.optional(before)
    return OK if done else session.dialect.null


@command(
    "setex",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group="string",
    since="2.0.0",
    summary="Set the value and expiration in seconds of a key",
)
def setex(session: Session, arguments: Arguments) -> Reply:
    """SETEX key seconds value."""
    return _set_expiring(session, arguments, "EX", "setex")


@command(
    "psetex",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group="string",
    since="2.6.0",
    summary="Set the value and expiration in milliseconds of a key",
)
def psetex(session: Session, arguments: Arguments) -> Reply:
    """PSETEX key milliseconds value."""
    return _set_expiring(session, arguments, "PX", "psetex")


def _set_expiring(session: Session, arguments: Arguments, unit: Unit, name: str) -> Reply:
    _, key, amount, value = arguments
    expires = expiry_ms(unit, amount, now_ms=session.operations.now_ms(), command=name)
    session.operations.set(key, value, expiry_ms=expires)
    return OK


@command(
    "getset",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="1.0.0",
    summary="Set the string value of a key and return its old value",
)
def getset(session: Session, arguments: Arguments) -> Reply:
    """GETSET key value."""
    _, key, value = arguments
    before = session.operations.get(key)
    session.operations.set(key, value)
    return session.dialect.optional(before)


@command(
    "getdel",
    arity=2,
    flags="write fast",
    keys=_KEY,
    group="string",
    since="6.2.0",
    summary="Get the value of a key and delete the key",
)
def getdel(session: Session, arguments: Arguments) -> Reply:
    """GETDEL key."""
    before = session.operations.get(arguments[1])
    if before is not None:
        session.operations.delete(arguments[1:])
    return session.dialect.optional(before)


@command(
    "getex",
    arity=-2,
    flags="write fast",
    keys=_KEY,
    group="string",
    since="6.2.0",
    summary="Get the value of a key and optionally set its expiration",
)
def getex(session: Session, arguments: Arguments) -> Reply:
    """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]."""
    key = arguments[1]
    options = _options(arguments[2:], _GETEX_OPTIONS)
    value = session.operations.get(key)
    if value is not None:
        if options.persist:
            session.operations.persist(key)
        elif options.unit is not None:
            session.operations.set_expiry(key, options.expiry_ms(session, "getex"))
    return session.dialect.optional(value)


@command(
    "mget",
    arity=-2,
    flags="readonly fast",
    keys=(1, -1, 1),
    group="string",
    since="1.0.0",
    complexity="O(N) where N is the number of keys to retrieve.",
    summary="Get the values of all the given keys",
)
def mget(session: Session, arguments: Arguments) -> Reply:
    """MGET key [key ...]."""
    keys, items, size, done = arguments[1:], list[bytes](), 0, 0
    while done < len(keys):
        values = _strings(session, keys[done : done + RESP_READ_RUN_KEYS])
        done += len(values)
        page = [session.dialect.optional(value) for value in values]
        items += page
        size += sum(map(len, page))
        if size > CONNECTION_OUTPUT_BYTES_MAX:
            raise TooLarge(f"the reply would exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. Ask for fewer keys at once.")
    return array(items) if items else EMPTY_ARRAY


def _strings(session: Session, keys: Arguments) -> list[bytes | None]:
    """The values of the first keys at least; a key of another type has none."""
    operations = session.operations
    try:
        return operations.get_run(keys)
    except WrongType:
        values, size = list[bytes | None](), 0
        for key in keys:
            try:
                value = operations.get(key)
            except WrongType:
                value = None
            values.append(value)
            size += len(value or b"")
            if size > READ_RUN_BYTES_MAX:
                break
        return values


@command(
    "mset",
    arity=-3,
    flags="write denyoom",
    keys=(1, -1, 2),
    group="string",
    since="1.0.1",
    complexity="O(N) where N is the number of keys to set.",
    summary="Set multiple keys of one keyspace to multiple values, as one change",
)
def mset(session: Session, arguments: Arguments) -> Reply:
    """MSET key value [key value ...]."""
    session.operations.set_many(pairs(arguments, 1, "mset"))
    return OK


@command(
    "append",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="2.0.0",
    summary="Append a value to a key",
)
def append(session: Session, arguments: Arguments) -> Reply:
    """APPEND key value."""
    return integer_reply(session.operations.append(arguments[1], arguments[2]))


@command(
    "strlen",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="string",
    since="2.2.0",
    summary="Get the length of the value stored in a key",
)
def strlen(session: Session, arguments: Arguments) -> Reply:
    """STRLEN key."""
    return integer_reply(len(session.operations.get(arguments[1]) or b""))


@command(
    "getrange",
    arity=4,
    flags="readonly",
    keys=_KEY,
    group="string",
    since="2.4.0",
    complexity="O(N) where N is the length of the value.",
    summary="Get a substring of the string stored at a key",
)
def getrange(session: Session, arguments: Arguments) -> Reply:
    """GETRANGE key start end; both ends included, negative ones count from the end."""
    start, end = integer(arguments[2]), integer(arguments[3])
    value = session.operations.get(arguments[1]) or b""
    length = len(value)
    if start < 0 and end < 0 and start > end:
        return bulk(b"")
    first = max(start + length, 0) if start < 0 else start
    last = max(end + length, 0) if end < 0 else end
    return bulk(value[first : last + 1])


@command(
    "setrange",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group="string",
    since="2.2.0",
    complexity="O(N) where N is the length of the value.",
    summary="Overwrite part of a string at key starting at the specified offset",
)
def setrange(session: Session, arguments: Arguments) -> Reply:
    """SETRANGE key offset value."""
    _, key, offset, value = arguments
    position = integer(offset)
    if position < 0:
        raise InvalidRequest("offset is out of range")
    if not value:
        return integer_reply(len(session.operations.get(key) or b""))
    if position + len(value) > session.operations.value_bytes_max:
        session.operations.get(key)  # A wrong type is told first.
        raise TooLarge("string exceeds maximum allowed size (proto-max-bulk-len)")
    return integer_reply(session.operations.set_range(key, position, value))


@command(
    "incr",
    arity=2,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="1.0.0",
    summary="Increment the integer value of a key by one",
)
def incr(session: Session, arguments: Arguments) -> Reply:
    """INCR key."""
    return integer_reply(session.operations.increment(arguments[1], 1))


@command(
    "decr",
    arity=2,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="1.0.0",
    summary="Decrement the integer value of a key by one",
)
def decr(session: Session, arguments: Arguments) -> Reply:
    """DECR key."""
    return integer_reply(session.operations.increment(arguments[1], -1))


@command(
    "incrby",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="1.0.0",
    summary="Increment the integer value of a key by the given amount",
)
def incrby(session: Session, arguments: Arguments) -> Reply:
    """INCRBY key increment."""
    return integer_reply(session.operations.increment(arguments[1], integer(arguments[2])))


@command(
    "decrby",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="1.0.0",
    summary="Decrement the integer value of a key by the given number",
)
def decrby(session: Session, arguments: Arguments) -> Reply:
    """DECRBY key decrement."""
    amount = integer(arguments[2])
    if amount == INTEGER_MIN:
        raise NotANumber("decrement would overflow")
    return integer_reply(session.operations.increment(arguments[1], -amount))


@command(
    "incrbyfloat",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group="string",
    since="2.6.0",
    summary="Increment the decimal value of a key by the given amount",
)
def incrbyfloat(session: Session, arguments: Arguments) -> Reply:
    """INCRBYFLOAT key increment."""
    return bulk(session.operations.increment_float(arguments[1], arguments[2]))
