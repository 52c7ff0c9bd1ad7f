"""What a client can do with keys: the verbs of every interface, on one node.

Each verb finds the keyspace, checks key, value and admission, reads what it must know, and hands a change to engine/commit.py. Nothing
here waits: a verb returns at once, and its caller holds the reply until ``engine.barrier`` is durable. Verbs that decide by a state
(APPEND, RENAME, SET XX, GETDEL) decide by this node's state; a number and a string at one key are one value, the register plus the
counter parts (REPLICATION.md section 1).

Errors: InvalidRequest and TooLarge for bad keys and values, NotANumber, Denied, and whatever admission refuses with (DiskFull,
ReadOnly). When a verb raises, nothing happened.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal, NamedTuple, TypeVar

from edgekv.crdt.operation import EXPIRE, Operation
from edgekv.crdt.strings import (
    StringState,
    add_operations,
    delete_operations,
    expire_operations,
    parse_integer,
    put_operations,
)
from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace, successor
from edgekv.engine.reads import first_values
from edgekv.errors import Denied, InvalidRequest, NotANumber, NotFound, TooLarge
from edgekv.ids import Actor
from edgekv.limits import BATCH_OPERATIONS_MAX, CHANGE_OVERHEAD_BYTES, KEY_BYTES_MAX, VALUE_BYTES_MAX
from edgekv.node import decimals

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1
EXPIRY_MS_MAX: Final = (1 << 63) - 1
_NOT_AN_INTEGER: Final = "value is not an integer or out of range"
_RANDOM_KEY_PAGES_MAX: Final = 4
"""How far a random key is looked for among deleted ones: some 10,000 keys."""
_OPERATION_BYTES: Final = 64
"""More than the log needs for an operation besides keys and values."""


T = TypeVar("T")


class Version(NamedTuple):
    """Which writes a value comes from: the stamp of its register, and a digest of its counter parts; 0 where there is none."""

    hlc: int
    actor: Actor
    parts: int = 0


class Entry(NamedTuple):
    """A key that holds a string. ``expiry_ms`` is absolute, 0 for none."""

    key: bytes
    value: bytes
    version: Version
    expiry_ms: int


class Page(NamedTuple):
    """Entries in key order, consistent among themselves; ``next_key`` begins the next page, None at the end."""

    entries: list[Entry]
    next_key: bytes | None


def value_advice(value_bytes_max: int) -> str:
    """What to do with a value above ``limits.value_bytes_max``, which can be raised unless it is the largest."""
    if value_bytes_max >= VALUE_BYTES_MAX:
        return "Split it."
    return f"Split it, or raise limits.value_bytes_max, to {VALUE_BYTES_MAX} at most."


class Operations:
    """The verbs of one node."""

    def __init__(self, engine: Engine, *, value_bytes_max: int) -> None:
        self.engine: Final = engine
        self.value_bytes_max: Final = value_bytes_max

    def now_ms(self) -> int:
        """TTL time: expiries are judged by it."""
        return self.engine.ttl_now_ms()

    # -- checks at the door

    def check_key(self, key: bytes) -> None:
        """Raise InvalidRequest for an empty key, TooLarge for one over 4,096 bytes."""
        if not key:
            raise InvalidRequest("the key is empty. A key has 1 to 4096 bytes.")
        if len(key) > KEY_BYTES_MAX:
            raise TooLarge(f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}. Use a shorter key.")

    def check_value(self, value: bytes) -> None:
        """Raise TooLarge for a value over ``limits.value_bytes_max``."""
        if len(value) > self.value_bytes_max:
            raise TooLarge(
                f"the value has {len(value)} bytes; the limit is {self.value_bytes_max}. "
                f"{value_advice(self.value_bytes_max)}"
            )

    @staticmethod
    def _check_count(count: int) -> None:
        if count > BATCH_OPERATIONS_MAX:
            raise TooLarge(f"the call has {count} operations; the limit is {BATCH_OPERATIONS_MAX}. Split it.")

    def _check_change(self, operations: Sequence[Operation]) -> None:
        """A change is one record, and a segment of the log holds two of the largest. Only calls of several keys can exceed that."""
        size = sum(map(_operation_bytes, operations))
        if size > self.value_bytes_max + CHANGE_OVERHEAD_BYTES:
            raise TooLarge(
                f"the call changes {size} bytes at once; the limit is {self.value_bytes_max + CHANGE_OVERHEAD_BYTES} "
                "(limits.value_bytes_max and 64 KiB). Split it."
            )

    def _writable(self, key: bytes) -> Keyspace:
        """The keyspace of a key that a client wants to write; raises when it may not."""
        self.check_key(key)
        self.engine.admission.check_client()
        return self._allowed(self.engine.keyspaces.of(key))

    @staticmethod
    def _allowed(keyspace: Keyspace) -> Keyspace:
        if keyspace.policy.system:
            raise Denied(f"keys below {keyspace.prefix.decode()!r} belong to EdgeKV itself. Choose another key.")
        return keyspace

    def _default_expiry(self, keyspace: Keyspace) -> int:
        return self.now_ms() + keyspace.ttl_ms if keyspace.ttl_ms else 0

    # -- runs of one verb (the hot path)

    def get_run(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of checked keys, in order: all, or those of the first keys (at least one) up to READ_RUN_BYTES_MAX."""
        keyspace = self.engine.keyspaces.of_run(keys)
        if keyspace is None or keyspace.mixed:
            return first_values(self.get(key) for key in keys)
        return self.engine.reads.values(keyspace, keys)

    def set_run(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """SET each key, one change per key. Keys and values are checked by the caller."""
        self.engine.admission.check_client()
        keyspace = self.engine.keyspaces.of_run(keys)
        if keyspace is None or keyspace.mixed or keyspace.ttl_ms or keyspace.policy.system:
            for key, value in zip(keys, values, strict=True):
                self.set(key, value)
        else:
            self.engine.commit.put_plain(keyspace, keys, values)

    # -- reading one key

    def get(self, key: bytes) -> bytes | None:
        """The value as bytes (a number in decimal), or None."""
        keyspace = self.engine.keyspaces.of(key)
        if not keyspace.mixed:
            return self.engine.reads.value(keyspace, key)
        return _text(self.engine.reads.state(keyspace, key).value(self.now_ms()))

    def get_entry(self, key: bytes) -> Entry | None:
        """The value with its version and expiry, or None."""
        self.check_key(key)
        keyspace = self.engine.keyspaces.of(key)
        return self._entry(key, self.engine.reads.state(keyspace, key))

    def _entry(self, key: bytes, state: StringState) -> Entry | None:
        now = self.now_ms()
        value = _text(state.value(now))
        if value is None:
            return None
        return Entry(key, value, Version(*state.version(now)), state.expiry_ms())

    def exists(self, keys: Sequence[bytes]) -> int:
        """How many of the keys exist; a key named twice counts twice."""
        return sum(self.get(key) is not None for key in keys)

    def type_of(self, key: bytes) -> str:
        """``none`` or ``string``."""
        return "none" if self.get(key) is None else "string"

    def expiry_of(self, key: bytes) -> int:
        """When the key expires, absolute ms; -1: never; -2: there is no such key."""
        entry = self.get_entry(key)
        return -2 if entry is None else entry.expiry_ms or -1

    # -- writing one key

    def set(
        self,
        key: bytes,
        value: bytes,
        *,
        expiry_ms: int = 0,
        keep_expiry: bool = False,
        only_if: Literal["", "exists"] = "",
    ) -> bool:
        """SET. Clears the expiry unless one is given or kept. False: ``only_if`` did not hold and nothing happened."""
        keyspace = self._writable(key)
        self.check_value(value)
        expiry_ms = expiry_ms or self._default_expiry(keyspace)
        if not (keyspace.mixed or expiry_ms or keep_expiry or only_if):
            self.engine.commit.put_plain(keyspace, [key], [value])
            return True
        state = self.engine.reads.state(keyspace, key) if keyspace.mixed or keep_expiry or only_if else _BLANK
        now = self.now_ms()
        if only_if and not state.live(now):
            return False
        if keep_expiry and state.live(now):
            expiry_ms = state.expiry_ms()
        self.engine.commit.change(keyspace, put_operations(state, key, value, expiry_ms))
        return True

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """MSET: all pairs as ONE change; Denied when the keys span keyspaces."""
        self.batch([("put", key, value, 0) for key, value in pairs])

    def delete(self, keys: Sequence[bytes]) -> int:
        """DEL: the number of keys that existed. One change per keyspace; allowed on a full disk."""
        self.engine.admission.check_relief()
        self._check_count(len(keys))
        now, by_keyspace, deleted = self.now_ms(), dict[Keyspace, list[Operation]](), 0
        for key in dict.fromkeys(keys):
            self.check_key(key)
            keyspace = self._allowed(self.engine.keyspaces.of(key))
            state = self.engine.reads.state(keyspace, key)
            if state.live(now):
                deleted += 1
                by_keyspace.setdefault(keyspace, []).extend(delete_operations(state, key, now))
        for operations in by_keyspace.values():
            self._check_change(operations)
        for keyspace, operations in by_keyspace.items():
            self.engine.commit.change(keyspace, operations)
        return deleted

    def increment(self, key: bytes, delta: int) -> int:
        """Add to the number at the key (0 when absent) and return the sum that this node sees.

        NotANumber when the value is not a 64-bit integer or the sum would leave 64 bits.
        """
        keyspace = self._writable(key)
        return self._add(keyspace, key, delta)

    def _add(self, keyspace: Keyspace, key: bytes, delta: int) -> int:
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        total = _integer(state.value(now)) + delta
        if not INTEGER_MIN <= total <= INTEGER_MAX:
            raise NotANumber("increment or decrement would overflow")
        self.engine.commit.change(keyspace, self._add_operations(keyspace, state, key, delta, now))
        return total

    def _add_operations(
        self, keyspace: Keyspace, state: StringState, key: bytes, delta: int, now: int
    ) -> list[Operation]:
        """The increment; a number that it makes expires as the keyspace wants."""
        operations = add_operations(state, key, delta, self.engine.actor, keyspace.seq + 1, now)
        expiry_ms = 0 if state.live(now) else self._default_expiry(keyspace)
        if expiry_ms:
            operations = [operation for operation in operations if operation[0] != EXPIRE]
            operations.append((EXPIRE, key, expiry_ms))
        return operations

    def increment_float(self, key: bytes, delta: bytes) -> bytes:
        """Add a decimal fraction to the number at the key. The sum replaces the value (this node's state decides)."""
        keyspace = self._writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        text = decimals.total(_text(state.value(now)) or b"0", delta)
        self._replace(keyspace, key, state, text, now)
        return text

    def append(self, key: bytes, value: bytes) -> int:
        """APPEND: the length of the new value."""
        keyspace = self._writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        whole = (_text(state.value(now)) or b"") + value
        self._replace(keyspace, key, state, whole, now)
        return len(whole)

    def set_range(self, key: bytes, offset: int, value: bytes) -> int:
        """SETRANGE: overwrite from ``offset``, padding with zero bytes; the length of the new value."""
        keyspace = self._writable(key)
        if offset + len(value) > self.value_bytes_max:
            raise TooLarge("string exceeds maximum allowed size (limits.value_bytes_max)")
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        old = _text(state.value(now)) or b""
        if not value:
            return len(old)
        whole = old[:offset].ljust(offset, b"\x00") + value + old[offset + len(value) :]
        self._replace(keyspace, key, state, whole, now)
        return len(whole)

    def _replace(self, keyspace: Keyspace, key: bytes, state: StringState, value: bytes, now: int) -> None:
        """Write a value computed from the old one; the expiry stays."""
        self.check_value(value)
        expiry_ms = state.expiry_ms() if state.live(now) else self._default_expiry(keyspace)
        self.engine.commit.change(keyspace, put_operations(state, key, value, expiry_ms))

    def set_expiry(self, key: bytes, expiry_ms: int) -> bool:
        """EXPIREAT in ms; one that has passed deletes the key. False: there is no such key."""
        self.check_key(key)
        self.engine.admission.check_relief()
        keyspace = self._allowed(self.engine.keyspaces.of(key))
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        if not state.live(now):
            return False
        if expiry_ms <= now:
            self.engine.commit.change(keyspace, delete_operations(state, key, now))
        else:
            self.engine.commit.change(keyspace, expire_operations(state, key, expiry_ms, now))
        return True

    def persist(self, key: bytes) -> bool:
        """Remove the expiry. False: there is none, or no such key."""
        keyspace = self._writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        if not state.live(now) or not state.expiry_ms():
            return False
        self.engine.commit.change(keyspace, expire_operations(state, key, 0, now))
        return True

    def rename(self, old: bytes, new: bytes) -> None:
        """Move a value with its expiry, as one change. NotFound when there is none; Denied across keyspaces."""
        keyspace = self._writable(new)
        self.check_key(old)
        if self.engine.keyspaces.of(old) is not keyspace:
            raise Denied(
                "the two keys are in different keyspaces. Read the old key, write the new one, delete the old one."
            )
        now = self.now_ms()
        source, target = self.engine.reads.state(keyspace, old), self.engine.reads.state(keyspace, new)
        value = _text(source.value(now))
        if value is None:
            raise NotFound("no such key")
        if old != new:
            operations = delete_operations(source, old, now)
            operations += put_operations(target, new, value, source.expiry_ms())
            self.engine.commit.change(keyspace, operations)

    # -- several keys

    def batch(self, operations: Sequence[tuple[object, ...]]) -> list[object]:
        """Several operations of one keyspace as ONE change: ``("put", key, value, expiry_ms)`` -> None, ``("delete", key)`` -> whether
        it existed, ``("add", key, n)`` -> the sum. A key named again sees what the earlier operations did; the last one wins.
        """
        if not operations:
            return []
        self._check_count(len(operations))
        return Batch(self, operations).run()

    # -- ranges

    def page(self, start: bytes, prefix: bytes, limit: int) -> Page:
        """Up to ``limit`` entries below ``prefix`` from ``start`` on, in key order. There are more unless ``next_key`` is None."""
        found = self.engine.reads.range(max(start, prefix), successor(prefix), limit)
        entries = [self._entry(item.key, item.state) for item in found.found]
        return Page([entry for entry in entries if entry is not None], found.next_key)

    def keys_page(self, start: bytes, prefix: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """As `page`, keys only."""
        found = self.engine.reads.range(max(start, prefix), successor(prefix), limit)
        return [item.key for item in found.found], found.next_key

    def random_key(self, dice: int) -> bytes | None:
        """Some existing key near the position that ``dice`` picks in the key order; None when none is found."""
        position = dice.to_bytes(8, "big", signed=False)
        for first in (position, b""):
            start: bytes | None = first
            for _ in range(_RANDOM_KEY_PAGES_MAX):
                if start is None:
                    break
                keys, start = self.keys_page(start, b"", 1 + dice % 16)
                if keys:
                    return keys[-1]
        return None

    def status(self) -> dict[str, object]:
        """The node's figures, for /v1/status and the CLI."""
        return self.engine.status()


class Batch:
    """One client call of several operations, normalised to at most one operation per row."""

    def __init__(self, operations: Operations, wanted: Sequence[tuple[object, ...]]) -> None:
        self._operations: Final = operations
        self._engine: Final = operations.engine
        self._wanted: Final = wanted
        self._now: Final = operations.now_ms()
        self._before: Final[dict[bytes, StringState]] = {}
        self._after: Final[dict[bytes, Pending]] = {}

    def run(self) -> list[object]:
        """Check everything, then make the change. Nothing happens when anything is refused."""
        keyspaces = {self._named(index, self._keyspace) for index in range(len(self._wanted))}
        if len(keyspaces) > 1:
            names = ", ".join(sorted(k.name for k in keyspaces))
            raise Denied(f"the keys are in different keyspaces ({names}), and a change touches one. Split the call.")
        keyspace = keyspaces.pop()
        results = [self._named(index, partial(self._step, keyspace)) for index in range(len(self._wanted))]
        change = [op for key, pending in self._after.items() for op in self._operations_for(keyspace, key, pending)]
        if change:
            self._operations._check_change(change)
            self._engine.commit.change(keyspace, change)
        return results

    def _named(self, index: int, step: Callable[[tuple[object, ...]], T]) -> T:
        """A step for one of the operations, whose refusal says which it was."""
        try:
            return step(self._wanted[index])
        except (InvalidRequest, NotANumber, Denied) as error:
            raise type(error)(f"operation {index}: {error}") from error

    def _keyspace(self, operation: tuple[object, ...]) -> Keyspace:
        key = operation[1]
        assert isinstance(key, bytes)
        return self._operations._writable(key)

    def _step(self, keyspace: Keyspace, operation: tuple[object, ...]) -> object:
        verb, key = operation[0], operation[1]
        assert isinstance(key, bytes)
        pending = self._after.get(key)
        if pending is None:
            state = self._before[key] = self._engine.reads.state(keyspace, key)
            pending = self._after[key] = Pending(state.value(self._now))
        match operation:
            case ("put", _, bytes(value), int(expiry_ms)):
                self._operations.check_value(value)
                pending.put(value, expiry_ms)
                return None
            case ("delete", _):
                return pending.delete()
            case ("add", _, int(delta)):
                return pending.add(delta)
        raise InvalidRequest(f"a batch has no operation {verb!r}. Use put, delete or add.")

    def _operations_for(self, keyspace: Keyspace, key: bytes, pending: "Pending") -> list[Operation]:
        state = self._before[key]
        if pending.kind == "put":
            assert isinstance(pending.value, bytes)
            expiry_ms = pending.expiry_ms or self._operations._default_expiry(keyspace)
            return put_operations(state, key, pending.value, expiry_ms)
        if pending.kind == "delete":
            return delete_operations(state, key, self._now)
        if pending.kind == "add":
            return self._operations._add_operations(keyspace, state, key, pending.delta, self._now)
        return []


class Pending:
    """What a batch has made of one key so far."""

    __slots__ = ("delta", "expiry_ms", "kind", "value")

    def __init__(self, value: bytes | int | None) -> None:
        self.value = value
        self.kind: Literal["", "put", "delete", "add"] = ""
        self.delta = 0
        self.expiry_ms = 0

    def put(self, value: bytes, expiry_ms: int) -> None:
        self.kind, self.value, self.expiry_ms = "put", value, expiry_ms

    def delete(self) -> bool:
        existed = self.value is not None
        if existed or self.kind:
            self.kind = "delete"
        self.value, self.expiry_ms = None, 0
        return existed

    def add(self, delta: int) -> int:
        """An add after a put or delete of the same call becomes part of what is put."""
        total = _integer(self.value) + delta
        if not INTEGER_MIN <= total <= INTEGER_MAX:
            raise NotANumber("increment or decrement would overflow")
        if self.kind in ("put", "delete"):
            self.kind, self.value = "put", b"%d" % total
        else:
            self.kind, self.value, self.delta = "add", total, self.delta + delta
        return total


_BLANK: Final = StringState(None, None, {})


def _operation_bytes(operation: Operation) -> int:
    """What an operation takes in the log, at most."""
    size = _OPERATION_BYTES
    for element in operation:
        if isinstance(element, bytes):
            size += len(element)
        elif isinstance(element, list):  # the parts that a reset names
            size += _OPERATION_BYTES * len(element)
    return size


def _text(value: bytes | int | None) -> bytes | None:
    return b"%d" % value if isinstance(value, int) else value


def _integer(value: bytes | int | None) -> int:
    """A value as a 64-bit integer; an absent one counts as 0."""
    number = parse_integer(value) if isinstance(value, bytes) else value or 0
    if number is None or not INTEGER_MIN <= number <= INTEGER_MAX:
        raise NotANumber(_NOT_AN_INTEGER)
    return number
