"""Commands on keys whatever they hold: DEL, EXISTS, TYPE, RENAME, and those that walk the key space.

A walk is in key order. SCAN is one page per call; KEYS, DBSIZE and FLUSHDB are `Slices`, because a walk over millions of keys must not
stop the node. A page is consistent, a walk is not a snapshot: a key that comes or goes meanwhile may or may not be in it.
"""

# ruff: noqa: ARG001 - every command takes the same parameters

import random
from typing import Final

from edgekv.api.resp.arguments import syntax_error
from edgekv.api.resp.replies import OK, array, bulk, integer, status
from edgekv.api.resp.scans import Filter, scan_options, scan_reply
from edgekv.api.resp.session import Arguments, Reply, Session, Slices
from edgekv.api.resp.table import command
from edgekv.errors import TooLarge
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX, RESP_PAGE_KEYS, RESP_READ_RUN_KEYS

_KEY: Final = (1, 1, 1)
_KEYS: Final = (1, -1, 1)


@command(
    "del",
    arity=-2,
    flags="write",
    keys=_KEYS,
    group="generic",
    since="1.0.0",
    complexity="O(N) where N is the number of keys.",
    summary="Delete a key",
)
def del_(session: Session, arguments: Arguments) -> Reply:
    """DEL key [key ...]."""
    return integer(session.operations.delete(arguments[1:]))


@command(
    "unlink",
    arity=-2,
    flags="write fast",
    keys=_KEYS,
    group="generic",
    since="4.0.0",
    complexity="O(N) where N is the number of keys.",
    summary="Delete a key (the same as DEL: values are freed in the background anyway)",
)
def unlink(session: Session, arguments: Arguments) -> Reply:
    """UNLINK key [key ...]."""
    return integer(session.operations.delete(arguments[1:]))


@command(
    "exists",
    arity=-2,
    flags="readonly fast",
    keys=_KEYS,
    group="generic",
    since="1.0.0",
    complexity="O(N) where N is the number of keys.",
    summary="Determine if a key exists",
)
def exists(session: Session, arguments: Arguments) -> Reply:
    """EXISTS key [key ...]; a key named twice counts twice."""
    return integer(_existing(session, arguments[1:]))


@command(
    "touch",
    arity=-2,
    flags="readonly fast",
    keys=_KEYS,
    group="generic",
    since="3.2.1",
    complexity="O(N) where N is the number of keys.",
    summary="Count the existing keys among those given (there is no last access time to alter)",
)
def touch(session: Session, arguments: Arguments) -> Reply:
    """TOUCH key [key ...]."""
    return integer(_existing(session, arguments[1:]))


def _existing(session: Session, keys: Arguments) -> int:
    """In pages: what is looked at may be in memory, and values are large."""
    pages = range(0, len(keys), RESP_READ_RUN_KEYS)
    return sum(session.operations.exists(keys[i : i + RESP_READ_RUN_KEYS]) for i in pages)


@command(
    "type",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group="generic",
    since="1.0.0",
    summary="Determine the type stored at key",
)
def type_(session: Session, arguments: Arguments) -> Reply:
    """TYPE key."""
    return status(session.operations.type_of(arguments[1]))


@command(
    "rename",
    arity=3,
    flags="write",
    keys=(1, 2, 1),
    group="generic",
    since="1.0.0",
    summary="Rename a key within its keyspace, as one change",
)
def rename(session: Session, arguments: Arguments) -> Reply:
    """RENAME key newkey."""
    session.operations.rename(arguments[1], arguments[2])
    return OK


@command("randomkey", arity=1, flags="readonly", group="generic", since="1.0.0", summary="Return a random key")
def randomkey(session: Session, arguments: Arguments) -> Reply:
    """RANDOMKEY. Not uniform: keys after a gap in the key order come more often."""
    return session.dialect.optional(session.operations.random_key(random.getrandbits(64)))


@command(
    "scan",
    arity=-2,
    flags="readonly",
    group="generic",
    since="2.8.0",
    complexity="O(1) for every call. O(N) for a complete iteration.",
    summary="Incrementally iterate the keys space",
)
def scan(session: Session, arguments: Arguments) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    start = session.shared.cursors.start(arguments[1])
    options = scan_options(arguments[2:], typed=True)
    operations = session.operations
    keys, following = operations.keys_page(start, options.shown.prefix, options.limit)
    found = options.shown(keys)
    if options.type:
        found = [key for key in found if operations.type_of(key) == options.type]
    return scan_reply(session, following, found)


class _Walk:
    """The key space, page by page."""

    def __init__(self, session: Session, prefix: bytes = b"") -> None:
        self._operations: Final = session.operations
        self._prefix: Final = prefix
        self._start: bytes | None = b""

    def page(self) -> list[bytes]:
        """The next keys; after the last of them `more` is False."""
        assert self._start is not None
        keys, self._start = self._operations.keys_page(self._start, self._prefix, RESP_PAGE_KEYS)
        return keys

    @property
    def more(self) -> bool:
        return self._start is not None


@command(
    "keys",
    arity=2,
    flags="readonly",
    group="generic",
    since="1.0.0",
    complexity="O(N) with N being the number of keys that begin as the pattern does.",
    summary="Find all keys matching the given pattern",
)
def keys(session: Session, arguments: Arguments) -> Reply:
    """KEYS pattern."""
    shown = Filter(arguments[1])
    walk = _Walk(session, shown.prefix)
    items: list[bytes] = []
    size = 0

    def step() -> bool:
        nonlocal size
        page = [bulk(key) for key in shown(walk.page())]
        items.extend(page)
        size += sum(map(len, page))
        if size > CONNECTION_OUTPUT_BYTES_MAX:
            raise TooLarge(f"the reply would exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. Use SCAN.")
        return walk.more

    return Slices(step=step, reply=lambda: array(items))


@command(
    "dbsize", arity=1, flags="readonly", group="server", since="1.0.0", complexity="O(N)", summary="Count the keys"
)
def dbsize(session: Session, arguments: Arguments) -> Reply:
    """DBSIZE. Counted, not remembered: with millions of keys it takes seconds."""
    walk = _Walk(session)
    total = 0

    def step() -> bool:
        nonlocal total
        total += len(walk.page())
        return walk.more

    return Slices(step=step, reply=lambda: integer(total))


@command(
    "flushdb",
    arity=-1,
    flags="write",
    group="server",
    since="1.0.0",
    complexity="O(N)",
    summary="Delete all keys, as a chain of bounded changes",
)
def flushdb(session: Session, arguments: Arguments) -> Reply:
    """FLUSHDB [ASYNC | SYNC]; both wait."""
    return _flush(session, arguments)


@command(
    "flushall",
    arity=-1,
    flags="write",
    group="server",
    since="1.0.0",
    complexity="O(N)",
    summary="Delete all keys, as a chain of bounded changes",
)
def flushall(session: Session, arguments: Arguments) -> Reply:
    """FLUSHALL [ASYNC | SYNC]; both wait."""
    return _flush(session, arguments)


def _flush(session: Session, arguments: Arguments) -> Reply:
    """Walks forward, so that it does not read past the same tombstones again for each page."""
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() not in (b"ASYNC", b"SYNC")):
        raise syntax_error()
    walk, left, limit = _Walk(session), list[bytes](), RESP_PAGE_KEYS

    def step() -> bool:
        """One change, or a page that proves too large for one: the next step tries half of it."""
        nonlocal left, limit
        if not left:
            left, limit = walk.page(), min(2 * limit, RESP_PAGE_KEYS)
        some = left[:limit]
        try:
            session.operations.delete(some)
            left = left[limit:]
        except TooLarge:
            if len(some) == 1:
                raise
            limit = len(some) // 2
        return bool(left) or walk.more

    return Slices(step=step, reply=lambda: OK, writes=True)
