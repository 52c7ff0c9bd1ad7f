"""The hash commands. A field is a register or a counter of its own, so writes to different fields never meet.

HSETNX decides by this node's state, as does HRANDFIELD; HINCRBY and HINCRBYFLOAT add up over all nodes (docs/RESP.md).
"""

from collections.abc import Callable, Iterator
from typing import Final

from edgekv.api.resp.arguments import INTEGER_MAX, at_most, pairs, syntax_error
from edgekv.api.resp.arguments import integer as integer_argument
from edgekv.api.resp.draws import check_repeated, dice, draw_count, drawn, first_met
from edgekv.api.resp.host import Maps
from edgekv.api.resp.pieces import Bulks, in_pieces
from edgekv.api.resp.replies import EMPTY_ARRAY, OK, ONE, ZERO, bulk, integer
from edgekv.api.resp.scans import EMPTY_SCAN, scan_options, scan_reply
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command
from edgekv.errors import InvalidRequest
from edgekv.limits import RESP_PAGE_KEYS, RESP_READ_RUN_KEYS

_KEY: Final = (1, 1, 1)
_ADVICE: Final = "Use HSCAN."
_FEWER: Final = "Ask for fewer fields."

Pairs = list[tuple[bytes, bytes]]


@command(
    "hset",
    arity=-4,
    flags="write denyoom fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields.",
    summary="Set the value of fields of a hash",
)
def hset(session: Session, arguments: Arguments) -> Reply:
    """HSET key field value [field value ...]."""
    return integer(session.operations.maps.put(arguments[1], pairs(arguments, 2, "hset")))


@command(
    "hmset",
    arity=-4,
    flags="write denyoom fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields.",
    summary="Set the value of fields of a hash (HSET counts the new ones)",
)
def hmset(session: Session, arguments: Arguments) -> Reply:
    """HMSET key field value [field value ...]."""
    session.operations.maps.put(arguments[1], pairs(arguments, 2, "hmset"))
    return OK


@command(
    "hsetnx",
    arity=4,
    flags="write denyoom fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    summary="Set the value of a field that this node does not know yet",
)
def hsetnx(session: Session, arguments: Arguments) -> Reply:
    """HSETNX key field value."""
    return ONE if session.operations.maps.put_if_absent(*arguments[1:]) else ZERO


@command(
    "hget",
    arity=3,
    flags="readonly fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    summary="Get the value of a field of a hash",
)
def hget(session: Session, arguments: Arguments) -> Reply:
    """HGET key field."""
    return session.dialect.optional(session.operations.maps.get(arguments[1], arguments[2:])[0])


@command(
    "hmget",
    arity=-3,
    flags="readonly fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields.",
    summary="Get the values of fields of a hash",
)
def hmget(session: Session, arguments: Arguments) -> Reply:
    """HMGET key field [field ...]."""
    _, key, *fields = arguments
    bulks, null = Bulks("Ask for fewer fields at once."), session.dialect.null

    def pieces() -> Iterator[None]:
        while bulks.count < len(fields):
            part = fields[bulks.count : bulks.count + RESP_READ_RUN_KEYS]
            bulks.add(session.operations.maps.get(key, part), null)
            yield

    return in_pieces(session, pieces(), bulks.array)


@command(
    "hdel",
    arity=-3,
    flags="write fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields.",
    summary="Delete fields of a hash",
)
def hdel(session: Session, arguments: Arguments) -> Reply:
    """HDEL key field [field ...]."""
    return integer(session.operations.maps.remove(arguments[1], arguments[2:]))


@command(
    "hexists",
    arity=3,
    flags="readonly fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    summary="Determine if a field of a hash exists",
)
def hexists(session: Session, arguments: Arguments) -> Reply:
    """HEXISTS key field."""
    return ZERO if session.operations.maps.get(arguments[1], arguments[2:])[0] is None else ONE


@command(
    "hlen",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    summary="Get the number of fields of a hash",
)
def hlen(session: Session, arguments: Arguments) -> Reply:
    """HLEN key."""
    return integer(session.operations.maps.count(arguments[1]))


@command(
    "hstrlen",
    arity=3,
    flags="readonly fast",
    keys=_KEY,
    group="hash",
    since="3.2.0",
    summary="Get the length of the value of a field of a hash",
)
def hstrlen(session: Session, arguments: Arguments) -> Reply:
    """HSTRLEN key field."""
    return integer(len(session.operations.maps.get(arguments[1], arguments[2:])[0] or b""))


@command(
    "hincrby",
    arity=4,
    flags="write denyoom fast",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    summary="Increment the integer value of a field of a hash by the given number",
)
def hincrby(session: Session, arguments: Arguments) -> Reply:
    """HINCRBY key field increment."""
    return integer(session.operations.maps.increment(arguments[1], arguments[2], integer_argument(arguments[3])))


@command(
    "hincrbyfloat",
    arity=4,
    flags="write denyoom fast",
    keys=_KEY,
    group="hash",
    since="2.6.0",
    summary="Increment the decimal value of a field of a hash by the given amount",
)
def hincrbyfloat(session: Session, arguments: Arguments) -> Reply:
    """HINCRBYFLOAT key field increment."""
    return bulk(session.operations.maps.increment_float(*arguments[1:]))


# -- all of them


def pages(maps: Maps, key: bytes) -> Iterator[Pairs]:
    """The fields and values of one map, in the order of the fields."""
    start: bytes | None = b""
    while start is not None:
        page, start = maps.page(key, start, RESP_PAGE_KEYS)
        yield page


def _both(page: Pairs) -> list[bytes]:
    return [part for pair in page for part in pair]


def _fields(page: Pairs) -> list[bytes]:
    return [field for field, _ in page]


def _values(page: Pairs) -> list[bytes]:
    return [value for _, value in page]


def _walked(
    session: Session, key: bytes, part: Callable[[Pairs], list[bytes]], reply: Callable[[Bulks], bytes]
) -> Reply:
    """Something of every field."""
    bulks = Bulks(_ADVICE)

    def encoded() -> Iterator[None]:
        for page in pages(session.operations.maps, key):
            bulks.add(part(page))
            yield

    return in_pieces(session, encoded(), lambda: reply(bulks))


@command(
    "hgetall",
    arity=2,
    flags="readonly",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the size of the hash.",
    summary="Get all fields and values of a hash",
)
def hgetall(session: Session, arguments: Arguments) -> Reply:
    """HGETALL key."""
    return _walked(session, arguments[1], _both, _as_map if session.dialect.version == 3 else Bulks.array)


def _as_map(bulks: Bulks) -> bytes:
    return bulks.headed(b"%%%d\r\n" % (bulks.count // 2))


@command(
    "hkeys",
    arity=2,
    flags="readonly",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the size of the hash.",
    summary="Get all fields of a hash",
)
def hkeys(session: Session, arguments: Arguments) -> Reply:
    """HKEYS key."""
    return _walked(session, arguments[1], _fields, Bulks.array)


@command(
    "hvals",
    arity=2,
    flags="readonly",
    keys=_KEY,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the size of the hash.",
    summary="Get all values of a hash",
)
def hvals(session: Session, arguments: Arguments) -> Reply:
    """HVALS key."""
    return _walked(session, arguments[1], _values, Bulks.array)


@command(
    "hscan",
    arity=-3,
    flags="readonly",
    keys=_KEY,
    group="hash",
    since="2.8.0",
    complexity="O(1) for every call. O(N) for a complete iteration.",
    summary="Incrementally iterate the fields and values of a hash, in the order of the fields",
)
def hscan(session: Session, arguments: Arguments) -> Reply:
    """HSCAN key cursor [MATCH pattern] [COUNT count]."""
    _, key, cursor, *words = arguments
    start = session.shared.cursors.start(cursor)
    maps = session.operations.maps
    if not maps.count(key):
        return EMPTY_SCAN
    options = scan_options(words, typed=False)
    page, following = maps.page(key, start, options.limit)
    return scan_reply(session, following, _both([pair for pair in page if options.shown.fits(pair[0])]))


@command(
    "hrandfield",
    arity=-2,
    flags="readonly",
    keys=_KEY,
    group="hash",
    since="6.2.0",
    complexity="O(N) where N is the number of fields returned, or the size of the hash if that number exceeds 1000.",
    summary="Get random fields of a hash",
)
def hrandfield(session: Session, arguments: Arguments) -> Reply:
    """HRANDFIELD key [count [WITHVALUES]]."""
    maps, key = session.operations.maps, arguments[1]
    if len(arguments) == 2:
        return _random_field(session, key)
    count = draw_count(arguments[2])
    with_values = len(arguments) == 4
    at_most(arguments, 4)
    if with_values and arguments[3].upper() != b"WITHVALUES":
        raise syntax_error()
    if with_values and abs(count) > INTEGER_MAX // 2:
        raise InvalidRequest("value is out of range")
    size = maps.count(key)
    if not size or not count:
        return EMPTY_ARRAY
    check_repeated(-count * (2 if with_values else 1), _FEWER)
    bulks, nested = Bulks(_FEWER), session.dialect.version == 3

    def draw(wanted: int, repeat: bool) -> Pairs:
        return maps.random(key, wanted, dice(), repeat=repeat)

    def encoded() -> Iterator[None]:
        for page in drawn(draw, lambda: pages(maps, key), count, size, RESP_READ_RUN_KEYS):
            if with_values and nested:
                bulks.add_encoded(b"".join([b"*2\r\n" + bulk(field) + bulk(value) for field, value in page]), len(page))
            else:
                bulks.add(_both(page) if with_values else _fields(page))
            yield

    return in_pieces(session, encoded(), bulks.array)


def _random_field(session: Session, key: bytes) -> Reply:
    maps, found = session.operations.maps, Pairs()

    def looked() -> Iterator[Pairs]:
        found.extend(maps.random(key, 1, dice(), repeat=True) or (yield from first_met(pages(maps, key), 1)))

    return in_pieces(session, looked(), lambda: session.dialect.optional(found[0][0] if found else None))
