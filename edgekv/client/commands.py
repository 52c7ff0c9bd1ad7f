"""What can be asked of a node: for each verb the words that go out, how the answer is read, and whether it may be sent twice.

Pure functions from arguments to a `Command`. The shells turn each into a method (`calls` adaptors there), so the asynchronous and the
synchronous client have the same verbs with the same text. Keys, fields and members are ``bytes`` or ``str`` (as UTF-8); values are
bytes. A mistake in an argument raises InvalidRequest at the call, before anything is sent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, signature
from typing import Final, Generic, NamedTuple, Self, TypeVar, get_args

from edgekv.client import answers
from edgekv.client.answers import Values
from edgekv.client.wire import Words
from edgekv.errors import InvalidRequest

T_co = TypeVar("T_co", covariant=True)
V = TypeVar("V")
M = TypeVar("M", bound=Callable[..., object])
Name = bytes | str
"""Of a key, a field, a member."""

_MS_PER_S: Final = 1000


class Repeat(Enum):
    """Whether a command whose answer was lost may be sent again."""

    FREELY = "freely"
    """Done twice it leaves what doing it once leaves."""
    BY_ID = "by id"
    """Only with an operation id, and only to the node that got it first."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """What is true of every command of a verb."""

    name: str
    read: Callable[[object], T_co]
    """The answer's value; BrokenConversation when it is none that this verb has. What else it raises is the caller's to see."""
    writes: bool
    repeat: Repeat = Repeat.FREELY


class Command(NamedTuple, Generic[T_co]):
    """One command, ready to be sent."""

    words: Words
    kind: Kind[T_co]


class Codec(NamedTuple, Generic[V]):
    """How a register's values are made bytes, and back: ``Codec(lambda v: json.dumps(v).encode(), json.loads)``."""

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]


PLAIN: Final[Codec[bytes]] = Codec(lambda value: value, lambda value: value)


PING: Final = Kind("ping", answers.nothing, writes=False)
PUT: Final = Kind("put", answers.nothing, writes=True)
GET: Final = Kind("get", answers.optional, writes=False)
GET_MANY: Final = Kind("get_many", answers.optional_values, writes=False)
PUT_MANY: Final = Kind("put_many", answers.nothing, writes=True)
DELETE: Final = Kind("delete", answers.integer, writes=True)
EXISTS: Final = Kind("exists", answers.integer, writes=False)
EXPIRE: Final = Kind("expire", answers.truth, writes=True)
PERSIST: Final = Kind("persist", answers.truth, writes=True)
TTL: Final = Kind("ttl", answers.seconds, writes=False)
APPEND: Final = Kind("append", answers.integer, writes=True, repeat=Repeat.BY_ID)
SCAN: Final = Kind("scan", answers.page, writes=False)
BATCH: Final = Kind("batch", answers.several, writes=True, repeat=Repeat.BY_ID)

COUNTER_ADD: Final = Kind("counter.add", answers.integer, writes=True, repeat=Repeat.BY_ID)
COUNTER_GET: Final = Kind("counter.get", answers.number, writes=False)
COUNTER_RESET: Final = Kind("counter.reset", answers.nothing, writes=True)

SET_ADD: Final = Kind("set.add", answers.integer, writes=True)
SET_REMOVE: Final = Kind("set.remove", answers.integer, writes=True)
SET_CONTAINS: Final = Kind("set.contains", answers.truth, writes=False)
SET_CONTAINS_EACH: Final = Kind("set.contains_each", answers.truths, writes=False)
SET_MEMBERS: Final = Kind("set.members", answers.members, writes=False)
SET_LEN: Final = Kind("set.len", answers.integer, writes=False)

SIBLINGS_GET: Final = Kind("siblings.get", answers.concurrent, writes=False)
SIBLINGS_PUT: Final = Kind("siblings.put", answers.nothing, writes=True, repeat=Repeat.BY_ID)
SIBLINGS_DELETE: Final = Kind("siblings.delete", answers.integer, writes=True)

MAP_PUT: Final = Kind("map.put", answers.nothing, writes=True)
MAP_GET: Final = Kind("map.get", answers.optional, writes=False)
MAP_ADD: Final = Kind("map.add", answers.integer, writes=True, repeat=Repeat.BY_ID)
MAP_REMOVE: Final = Kind("map.remove", answers.integer, writes=True)
MAP_CONTAINS: Final = Kind("map.contains", answers.truth, writes=False)
MAP_ITEMS: Final = Kind("map.items", answers.items, writes=False)
MAP_LEN: Final = Kind("map.len", answers.integer, writes=False)


# -- arguments


def name(text: Name) -> bytes:
    """A key, field or member as bytes."""
    if type(text) is str:
        return text.encode()
    if isinstance(text, bytes):
        return text
    raise InvalidRequest(f"a {type(text).__name__} names no key, field or member. Give bytes, or str for UTF-8.")


def value_bytes(value: bytes | bytearray | memoryview) -> bytes:
    """A value as it goes out. Text is refused: whoever reads it gets bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidRequest(f"a value is bytes, not {type(value).__name__}. Encode it, or use a register with a codec.")


def _some(names: Sequence[Name], what: str) -> Words:
    if not names:
        raise InvalidRequest(f"the call names no {what}. Give at least one.")
    return tuple(map(name, names))


def _milliseconds(ttl_s: float) -> bytes:
    """At least one: what is to expire at once is deleted, not put."""
    if not ttl_s > 0:
        raise InvalidRequest(
            f"a time to live of {ttl_s} s has passed before it begins. Give a positive one, or delete the key."
        )
    return b"%d" % max(round(ttl_s * _MS_PER_S), 1)


def _delta(n: int) -> bytes:
    if not isinstance(n, int):
        raise InvalidRequest(f"a counter adds whole numbers, not {type(n).__name__}.")
    return b"%d" % n


def dressed(method: M, make: Callable[..., Command[object]], *, given: int) -> M:
    """A shell's method with the name, text and signature of the verb; its first ``given`` arguments come from ``self``."""
    own = signature(make)
    parameters = [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *list(own.parameters.values())[given:]]
    for attribute, value in (
        ("__name__", make.__name__.partition("_")[2] if given else make.__name__),
        ("__doc__", make.__doc__),
        ("__signature__", own.replace(parameters=parameters, return_annotation=get_args(own.return_annotation)[0])),
    ):
        setattr(method, attribute, value)
    return method


# -- keys and values


def ping() -> Command[None]:
    """Answer, if you live."""
    return Command((b"PING",), PING)


def put(key: Name, value: bytes, *, ttl_s: float | None = None) -> Command[None]:
    """Make this the value of the key; durable on return. Without ``ttl_s`` it never expires."""
    if type(key) is str:
        key = key.encode()
    elif type(key) is not bytes:
        key = name(key)
    if type(value) is not bytes:
        value = value_bytes(value)
    if ttl_s is None:
        return Command((b"SET", key, value), PUT)
    return Command((b"SET", key, value, b"PX", _milliseconds(ttl_s)), PUT)


def get(key: Name) -> Command[bytes | None]:
    """The value, None when there is none. WrongType for a key that holds only a set or a map."""
    return Command((b"GET", key if type(key) is bytes else name(key)), GET)


def get_many(keys: Sequence[Name]) -> Command[list[bytes | None]]:
    """The values of the keys, in their order."""
    return Command((b"MGET", *_some(keys, "key")), GET_MANY)


def put_many(pairs: Mapping[Name, bytes]) -> Command[None]:
    """Put all as ONE change: everybody sees all of it or nothing. The keys must lie in one keyspace, else Denied."""
    if not pairs:
        raise InvalidRequest("the call puts nothing. Give at least one key.")
    words = [b"MSET"]
    for key, value in pairs.items():
        words += name(key), value_bytes(value)
    return Command(tuple(words), PUT_MANY)


def delete(*keys: Name) -> Command[int]:
    """Delete the keys, whatever they hold; how many there were. (After a retry inside the call: how many the last attempt found.)"""
    return Command((b"DEL", *_some(keys, "key")), DELETE)


def exists(*keys: Name) -> Command[int]:
    """How many of the keys exist; one named twice counts twice."""
    return Command((b"EXISTS", *_some(keys, "key")), EXISTS)


def expire(key: Name, ttl_s: float) -> Command[bool]:
    """Let the key, with all that it holds, expire after so many seconds. False: there is no such key."""
    return Command((b"PEXPIRE", name(key), _milliseconds(ttl_s)), EXPIRE)


def persist(key: Name) -> Command[bool]:
    """Let it never expire. False: it does not, or there is no such key."""
    return Command((b"PERSIST", name(key)), PERSIST)


def ttl(key: Name) -> Command[float | None]:
    """Seconds until it expires; None when it never does, or does not exist."""
    return Command((b"PTTL", name(key)), TTL)


def append(key: Name, value: bytes) -> Command[int]:
    """Append to the value that this node sees; the new length."""
    return Command((b"APPEND", name(key), value_bytes(value)), APPEND)


def scan_page(cursor: int, prefix: bytes, limit: int) -> Command[tuple[int, list[bytes]]]:
    """The keys of one page, and the cursor of the next: 0 after the last."""
    pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\" else bytes([byte]) for byte in prefix) + b"*"
    return Command((b"SCAN", b"%d" % cursor, b"MATCH", pattern, b"COUNT", b"%d" % limit), SCAN)


# -- counters: a key whose concurrent additions add up


def counter_add(key: bytes, n: int = 1) -> Command[int]:
    """Add; the sum that this node sees. Counted once, or OutcomeUnknown: never twice."""
    return Command((b"INCRBY", key, _delta(n)), COUNTER_ADD)


def counter_get(key: bytes) -> Command[int]:
    """The sum that this node sees, 0 when there is none."""
    return Command((b"GET", key), COUNTER_GET)


def counter_reset(key: bytes) -> Command[None]:
    """Take back what this node sees of it, so that it is 0. What others add at the same moment stays."""
    return Command((b"DEL", key), COUNTER_RESET)


# -- sets: additions win over removals that did not see them


def set_add(key: bytes, *members: Name) -> Command[int]:
    """Add members; how many were new. (After a retry inside the call: new to the last attempt.)"""
    return Command((b"SADD", key, *_some(members, "member")), SET_ADD)


def set_remove(key: bytes, *members: Name) -> Command[int]:
    """Remove members as this node sees them; how many there were. (After a retry inside the call: what the last attempt found.)"""
    return Command((b"SREM", key, *_some(members, "member")), SET_REMOVE)


def set_contains(key: bytes, member: Name) -> Command[bool]:
    """Whether it is a member."""
    return Command((b"SISMEMBER", key, name(member)), SET_CONTAINS)


def set_contains_each(key: bytes, members: Sequence[Name]) -> Command[list[bool]]:
    """For each, whether it is a member."""
    return Command((b"SMISMEMBER", key, *_some(members, "member")), SET_CONTAINS_EACH)


def set_members(key: bytes) -> Command[set[bytes]]:
    """All members, at once."""
    return Command((b"SMEMBERS", key), SET_MEMBERS)


def set_len(key: bytes) -> Command[int]:
    """How many members there are."""
    return Command((b"SCARD", key), SET_LEN)


# -- maps: each field is a value or a counter of its own


def map_put(key: bytes, field: Name, value: bytes) -> Command[None]:
    """Make this the value of the field."""
    return Command((b"HSET", key, name(field), value_bytes(value)), MAP_PUT)


def map_update(key: bytes, fields: Mapping[Name, bytes]) -> Command[None]:
    """Put several fields as one change."""
    if not fields:
        raise InvalidRequest("the call puts nothing. Give at least one field.")
    words = [b"HSET", key]
    for field, value in fields.items():
        words += name(field), value_bytes(value)
    return Command(tuple(words), MAP_PUT)


def map_get(key: bytes, field: Name) -> Command[bytes | None]:
    """The value of the field (a number in decimal), None when there is none."""
    return Command((b"HGET", key, name(field)), MAP_GET)


def map_add(key: bytes, field: Name, n: int = 1) -> Command[int]:
    """Add to the field as to a counter. Counted once, or OutcomeUnknown: never twice."""
    return Command((b"HINCRBY", key, name(field), _delta(n)), MAP_ADD)


def map_remove(key: bytes, *fields: Name) -> Command[int]:
    """Remove fields; how many there were. (After a retry inside the call: what the last attempt found.)"""
    return Command((b"HDEL", key, *_some(fields, "field")), MAP_REMOVE)


def map_contains(key: bytes, field: Name) -> Command[bool]:
    """Whether there is such a field."""
    return Command((b"HEXISTS", key, name(field)), MAP_CONTAINS)


def map_items(key: bytes) -> Command[dict[bytes, bytes]]:
    """All fields with their values, at once."""
    return Command((b"HGETALL", key), MAP_ITEMS)


def map_len(key: bytes) -> Command[int]:
    """How many fields there are."""
    return Command((b"HLEN", key), MAP_LEN)


# -- siblings: a value of which concurrent versions are kept until somebody joins them


def siblings_get(key: bytes) -> Command[Values]:
    """All values, and the context to write with. Denied where the keyspace keeps one value only."""
    return Command((b"EDGEKV.SIBLINGS", b"GET", key), SIBLINGS_GET)


def siblings_put(key: bytes, value: bytes, *, context: str | None = None, ttl_s: float | None = None) -> Command[None]:
    """Put a value in place of those that were read; others stay beside it. Without ``context`` in place of all that the node holds.

    With a context it carries an operation id: sent a second time it would be a value beside the first.
    """
    if context is None:
        return put(key, value, ttl_s=ttl_s)
    words = (b"EDGEKV.SIBLINGS", b"PUT", key, _context(context), value_bytes(value))
    return Command(words if ttl_s is None else (*words, b"PX", _milliseconds(ttl_s)), SIBLINGS_PUT)


def siblings_delete(key: bytes, *, context: str | None = None) -> Command[int]:
    """Delete the values that were read, how many of them there were; without ``context`` the key, 1 if there was one."""
    if context is None:
        return delete(key)
    return Command((b"EDGEKV.SIBLINGS", b"DEL", key, _context(context)), SIBLINGS_DELETE)


def _context(context: str) -> bytes:
    if context:
        return context.encode()
    raise InvalidRequest("the context is not one that get() returned. Give its `context`, or none.")


# -- registers: a value through a codec


class Slot(NamedTuple, Generic[V]):
    """A register: where it is, and what its bytes mean."""

    key: bytes
    codec: Codec[V]

    def put(self, value: V, *, ttl_s: float | None = None) -> Command[None]:
        """As `put`, encoded."""
        return put(self.key, self.codec.encode(value), ttl_s=ttl_s)

    def get(self) -> Command[V | None]:
        """As `get`, decoded. What the codec raises is raised."""
        decode = self.codec.decode

        def read(reply: object) -> V | None:
            value = answers.optional(reply)
            return None if value is None else decode(value)

        return Command((b"GET", self.key), Kind("register.get", read, writes=False))


# -- batches


class Operations:
    """Operations on keys of one keyspace that become ONE change: everybody sees all of it or nothing. Methods return the batch."""

    def __init__(self) -> None:
        self._words: list[bytes] = []
        self._plain = True
        """Puts only, and none expires: MSET says the same, and may be sent twice."""

    def put(self, key: Name, value: bytes, *, ttl_s: float | None = None) -> Self:
        """Put a value; its result is None."""
        ttl = b"0" if ttl_s is None else _milliseconds(ttl_s)
        self._plain = self._plain and ttl_s is None
        self._words += b"PUT", name(key), value_bytes(value), ttl
        return self

    def delete(self, key: Name) -> Self:
        """Delete a key; its result is 1 if it existed, else 0."""
        self._plain = False
        self._words += b"DELETE", name(key)
        return self

    def add(self, key: Name, n: int = 1) -> Self:
        """Add to a counter; its result is the sum."""
        self._plain = False
        self._words += b"ADD", name(key), _delta(n)
        return self

    def command(self) -> Command[list[object]]:
        """All of it. The result has one item per operation."""
        if not self._words:
            raise InvalidRequest("the batch is empty. Put, delete or add something.")
        if not self._plain:
            return Command((b"EDGEKV.BATCH", *self._words), BATCH)
        keys, values = self._words[1::4], self._words[2::4]
        words = tuple(word for pair in zip(keys, values, strict=True) for word in pair)
        results: list[object] = [None] * len(keys)
        return Command((b"MSET", *words), Kind("batch", lambda _: results, writes=True))
