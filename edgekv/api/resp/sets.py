"""The set commands. Adding wins over a removal that did not see it; SPOP and SMOVE decide by this node's state (docs/RESP.md)."""

from collections.abc import Iterator
from typing import Final

from edgekv.api.resp.arguments import at_most, integer_from, syntax_error
from edgekv.api.resp.draws import check_repeated, dice, draw_count, drawn, first_met
from edgekv.api.resp.host import Sets
from edgekv.api.resp.pieces import Bulks, in_pieces
from edgekv.api.resp.replies import EMPTY_ARRAY, ONE, ZERO, array, integer
from edgekv.api.resp.scans import EMPTY_SCAN, scan_options, scan_reply
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.set_algebra import Algebra, combined, pages
from edgekv.api.resp.table import command
from edgekv.errors import Denied, EdgeKVError, InvalidRequest, TooLarge
from edgekv.limits import BATCH_OPERATIONS_MAX, RESP_PAGE_KEYS

_KEY: Final = (1, 1, 1)
_KEYS: Final = (1, -1, 1)
_ADVICE: Final = "Use SSCAN."
_FEWER: Final = "Ask for fewer members."
_SET_HEADER: Final = {2: b"*%d\r\n", 3: b"~%d\r\n"}


@command(
    "sadd",
    arity=-3,
    flags="write denyoom fast",
    keys=_KEY,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the number of members to be added.",
    summary="Add members to a set",
)
def sadd(session: Session, arguments: Arguments) -> Reply:
    """SADD key member [member ...]."""
    return integer(session.operations.sets.add(arguments[1], arguments[2:]))


@command(
    "srem",
    arity=-3,
    flags="write fast",
    keys=_KEY,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the number of members to be removed.",
    summary="Remove members from a set",
)
def srem(session: Session, arguments: Arguments) -> Reply:
    """SREM key member [member ...]."""
    return integer(session.operations.sets.remove(arguments[1], arguments[2:]))


@command(
    "sismember",
    arity=3,
    flags="readonly fast",
    keys=_KEY,
    group="set",
    since="1.0.0",
    summary="Determine if a value is a member of a set",
)
def sismember(session: Session, arguments: Arguments) -> Reply:
    """SISMEMBER key member."""
    return ONE if session.operations.sets.contains(arguments[1], arguments[2:])[0] else ZERO


@command(
    "smismember",
    arity=-3,
    flags="readonly fast",
    keys=_KEY,
    group="set",
    since="6.2.0",
    complexity="O(N) where N is the number of members asked for.",
    summary="Determine which values are members of a set",
)
def smismember(session: Session, arguments: Arguments) -> Reply:
    """SMISMEMBER key member [member ...]."""
    key, members, found = arguments[1], arguments[2:], list[bool]()

    def pieces() -> Iterator[None]:
        for i in range(0, len(members), RESP_PAGE_KEYS):
            found.extend(session.operations.sets.contains(key, members[i : i + RESP_PAGE_KEYS]))
            yield

    return in_pieces(session, pieces(), lambda: array([ONE if one else ZERO for one in found]))


@command(
    "scard",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="set",
    since="1.0.0",
    summary="Get the number of members in a set",
)
def scard(session: Session, arguments: Arguments) -> Reply:
    """SCARD key."""
    return integer(session.operations.sets.count(arguments[1]))


@command(
    "smembers",
    arity=2,
    flags="readonly",
    keys=_KEY,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the set cardinality.",
    summary="Get all the members in a set",
)
def smembers(session: Session, arguments: Arguments) -> Reply:
    """SMEMBERS key."""
    return _as_set(session, pages(session.operations.sets, arguments[1]))


def _as_set(session: Session, pieces: Iterator[list[bytes]]) -> Reply:
    """The pieces as a reply; the dialect is that of when the command came."""
    bulks, header = Bulks(_ADVICE), _SET_HEADER[session.dialect.version]

    def encoded() -> Iterator[None]:
        for piece in pieces:
            bulks.add(piece)
            yield

    return in_pieces(session, encoded(), lambda: bulks.headed(header % bulks.count))


@command(
    "sscan",
    arity=-3,
    flags="readonly",
    keys=_KEY,
    group="set",
    since="2.8.0",
    complexity="O(1) for every call. O(N) for a complete iteration.",
    summary="Incrementally iterate the members of a set, in order",
)
def sscan(session: Session, arguments: Arguments) -> Reply:
    """SSCAN key cursor [MATCH pattern] [COUNT count]."""
    _, key, cursor, *words = arguments
    start = session.shared.cursors.start(cursor)
    sets = session.operations.sets
    if not sets.count(key):
        return EMPTY_SCAN
    options = scan_options(words, typed=False)
    members, following = sets.page(key, start, options.limit)
    return scan_reply(session, following, [member for member in members if options.shown.fits(member)])


# -- one or some, by chance


@command(
    "srandmember",
    arity=-2,
    flags="readonly",
    keys=_KEY,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the number of members returned, or the cardinality if that number exceeds 1000.",
    summary="Get random members from a set",
)
def srandmember(session: Session, arguments: Arguments) -> Reply:
    """SRANDMEMBER key [count]."""
    sets, key = session.operations.sets, arguments[1]
    if len(arguments) == 2:
        return _one(session, _drawn_or_met(sets, key), writes=False)
    at_most(arguments, 3)
    count = draw_count(arguments[2])
    size = sets.count(key)
    if not size or not count:
        return EMPTY_ARRAY
    check_repeated(-count, _FEWER)
    bulks = Bulks(_FEWER)

    def draw(wanted: int, repeat: bool) -> list[bytes]:
        return sets.random(key, wanted, dice(), repeat=repeat)

    def encoded() -> Iterator[None]:
        for piece in drawn(draw, lambda: pages(sets, key), count, size, RESP_PAGE_KEYS):
            bulks.add(piece)
            yield

    return in_pieces(session, encoded(), bulks.array)


def _one(session: Session, pieces: Iterator[list[bytes]], *, writes: bool) -> Reply:
    """The first element that comes, or null."""
    found = list[bytes]()

    def looked() -> Iterator[None]:
        for piece in pieces:
            found.extend(piece)
            yield

    return in_pieces(session, looked(), lambda: session.dialect.optional(found[0] if found else None), writes=writes)


def _drawn_or_met(sets: Sets, key: bytes) -> Iterator[list[bytes]]:
    yield sets.random(key, 1, dice(), repeat=True) or (yield from first_met(pages(sets, key), 1))


@command(
    "spop",
    arity=-2,
    flags="write fast",
    keys=_KEY,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the number of members returned.",
    summary="Remove and return random members of a set, in changes of up to 1000",
)
def spop(session: Session, arguments: Arguments) -> Reply:
    """SPOP key [count]."""
    sets, key = session.operations.sets, arguments[1]
    if len(arguments) == 2:
        return _one(session, _popped(sets, key, 1), writes=True)
    at_most(arguments, 3)
    count = integer_from(arguments[2], 0, "value is out of range, must be positive")
    bulks, header = Bulks(_ADVICE), _SET_HEADER[session.dialect.version]

    def popped() -> Iterator[None]:
        """A later change that is refused, or for which the reply has no room, ends it: what was popped must be told."""
        left = min(count, sets.count(key))
        while left > 0:
            before = left
            try:
                for some in _popped(sets, key, min(left, RESP_PAGE_KEYS)):
                    left -= len(some)
                    bulks.add(some)
                    yield
                if left == before:  # All is gone.
                    return
            except EdgeKVError:
                if not bulks.count:
                    raise
                return

    return in_pieces(session, popped(), lambda: bulks.headed(header % bulks.count), writes=True)


def _popped(sets: Sets, key: bytes, wanted: int) -> Iterator[list[bytes]]:
    """Up to ``wanted``, as one change; at least one if there is any."""
    some = sets.pop(key, wanted, dice())
    if not some:
        some = yield from first_met(pages(sets, key), wanted)
        sets.remove(key, some)
    yield some


@command(
    "smove",
    arity=4,
    flags="write fast",
    keys=(1, 2, 1),
    group="set",
    since="1.0.0",
    summary="Move a member from one set to another of the same keyspace, as one change",
)
def smove(session: Session, arguments: Arguments) -> Reply:
    """SMOVE source destination member."""
    return ONE if session.operations.sets.move(*arguments[1:]) else ZERO


# -- several sets


def _shown(algebra: Algebra, session: Session, arguments: Arguments) -> Reply:
    return _as_set(session, combined(session.operations.sets, algebra, arguments[1:]))


def _stored(algebra: Algebra, session: Session, arguments: Arguments) -> Reply:
    """What is stored is one change; what it is made of may be read over several turns of the loop."""
    sets, target = session.operations.sets, arguments[1]
    members: list[bytes] = []
    names = sorted({session.operations.engine.keyspaces.of(key).name for key in arguments[1:]})
    if len(names) > 1:
        raise Denied(
            f"the keys are in different keyspaces ({', '.join(names)}), and what a change rests on is in its own. "
            "Read the sets, and add to the other key what they have."
        )

    def pieces() -> Iterator[None]:
        for piece in combined(sets, algebra, arguments[2:]):
            members.extend(piece)
            if len(members) > BATCH_OPERATIONS_MAX:
                raise TooLarge(
                    f"the result has more than {BATCH_OPERATIONS_MAX} members, and it is stored as one change."
                )
            yield
        sets.store(target, members)

    return in_pieces(session, pieces(), lambda: integer(len(members)), writes=True)


@command(
    "sinter",
    arity=-2,
    flags="readonly",
    keys=_KEYS,
    group="set",
    since="1.0.0",
    complexity="O(N*M) where N is the cardinality of the smallest set and M is the number of sets.",
    summary="Intersect multiple sets",
)
def sinter(session: Session, arguments: Arguments) -> Reply:
    """SINTER key [key ...]."""
    return _shown("inter", session, arguments)


@command(
    "sunion",
    arity=-2,
    flags="readonly",
    keys=_KEYS,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the total number of members in all given sets.",
    summary="Add multiple sets",
)
def sunion(session: Session, arguments: Arguments) -> Reply:
    """SUNION key [key ...]."""
    return _shown("union", session, arguments)


@command(
    "sdiff",
    arity=-2,
    flags="readonly",
    keys=_KEYS,
    group="set",
    since="1.0.0",
    complexity="O(N*M) where N is the cardinality of the first set and M is the number of sets.",
    summary="Subtract multiple sets",
)
def sdiff(session: Session, arguments: Arguments) -> Reply:
    """SDIFF key [key ...]."""
    return _shown("diff", session, arguments)


@command(
    "sinterstore",
    arity=-3,
    flags="write denyoom",
    keys=_KEYS,
    group="set",
    since="1.0.0",
    complexity="O(N*M) where N is the cardinality of the smallest set and M is the number of sets.",
    summary="Intersect multiple sets and store the resulting set in a key, as one change",
)
def sinterstore(session: Session, arguments: Arguments) -> Reply:
    """SINTERSTORE destination key [key ...]."""
    return _stored("inter", session, arguments)


@command(
    "sunionstore",
    arity=-3,
    flags="write denyoom",
    keys=_KEYS,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the total number of members in all given sets.",
    summary="Add multiple sets and store the resulting set in a key, as one change",
)
def sunionstore(session: Session, arguments: Arguments) -> Reply:
    """SUNIONSTORE destination key [key ...]."""
    return _stored("union", session, arguments)


@command(
    "sdiffstore",
    arity=-3,
    flags="write denyoom",
    keys=_KEYS,
    group="set",
    since="1.0.0",
    complexity="O(N*M) where N is the cardinality of the first set and M is the number of sets.",
    summary="Subtract multiple sets and store the resulting set in a key, as one change",
)
def sdiffstore(session: Session, arguments: Arguments) -> Reply:
    """SDIFFSTORE destination key [key ...]."""
    return _stored("diff", session, arguments)


@command(
    "sintercard",
    arity=-3,
    flags="readonly movablekeys",
    group="set",
    since="7.0.0",
    complexity="O(N*M) where N is the cardinality of the smallest set and M is the number of sets.",
    summary="Count the members of the intersection of multiple sets",
)
def sintercard(session: Session, arguments: Arguments) -> Reply:
    """SINTERCARD numkeys key [key ...] [LIMIT limit]; a limit of 0 is none."""
    count, *rest = arguments[1:]
    number = integer_from(count, 1, "numkeys should be greater than 0")
    if number > len(rest):
        raise InvalidRequest("Number of keys can't be greater than number of args")
    keys, words, limit = rest[:number], rest[number:], 0
    while words:
        if words[0].upper() != b"LIMIT" or len(words) < 2:
            raise syntax_error()
        limit = integer_from(words[1], 0, "LIMIT can't be negative")
        words = words[2:]
    for key in keys:
        session.operations.check_key(key)
    total = 0

    def counted() -> Iterator[None]:
        nonlocal total
        for piece in combined(session.operations.sets, "inter", keys):
            total += len(piece)
            if limit and total >= limit:
                return
            yield

    return in_pieces(session, counted(), lambda: integer(min(total, limit) if limit else total))
