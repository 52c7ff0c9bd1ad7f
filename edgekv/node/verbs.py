"""What the verbs of all types stand on: checks at the door, what a key holds, and the way in for changes.

A verb finds the keyspace, checks key, value and admission, reads what it must know, and makes its change in `Verbs.commit`: the
engine's, or a `Draft` while a transaction is open.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from edgekv.crdt.company import ALONE, Company
from edgekv.crdt.decimals import Number, text_of
from edgekv.crdt.operation import RESET_FIELDS, Operation, operation_bytes
from edgekv.crdt.strings import StringState, parse_integer
from edgekv.engine.collections import RANDOM_EXACT_ELEMENTS
from edgekv.engine.commit import Commit
from edgekv.engine.draft import Draft
from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace
from edgekv.engine.runs import RUN_BYTES_MAX, RUN_CHANGES_MAX
from edgekv.errors import ConcurrentValues, Denied, EdgeKVError, InvalidRequest, NotANumber, TooLarge, WrongType
from edgekv.limits import (
    BATCH_OPERATIONS_MAX,
    CHANGE_OVERHEAD_BYTES,
    KEY_BYTES_MAX,
    SCAN_EXAMINED_KEYS_MAX,
    VALUE_BYTES_MAX,
)

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1
NOT_AN_INTEGER: Final = "value is not an integer or out of range"
OVERFLOW: Final = "increment or decrement would overflow"
_QUOTED_BYTES_MAX: Final = 128
_DRAW_ROWS: Final = 32
"""What a draw from a large set or map looks at, about, for each that it finds."""

Kind = Literal["string", "set", "hash"]


def value_advice(value_bytes_max: int) -> str:
    """What to do with a value above ``limits.value_bytes_max``, which can be raised unless it is the largest."""
    if value_bytes_max >= VALUE_BYTES_MAX:
        return "Split it."
    return f"Split it, or raise limits.value_bytes_max, to {VALUE_BYTES_MAX} at most."


class Verbs:
    """Over one engine."""

    def __init__(self, engine: Engine, *, value_bytes_max: int) -> None:
        self.engine: Final = engine
        self.value_bytes_max: Final = value_bytes_max
        self.commit: Commit | Draft = engine.commit
        """Where changes go."""
        self.rows_read = 0
        """How many elements, fields and keys the walks and draws so far have looked at, about: a transaction has a bound on it."""

    def now_ms(self) -> int:
        """TTL time: expiries are judged by it."""
        return self.engine.ttl_now_ms()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What the verbs inside change becomes ONE change at the end of the block.

        Each verb sees what those before it did. One that raises adds nothing, and the block may go on; nothing at all happens when an
        exception leaves the block. Denied: a verb would write to a second keyspace. The end raises what the change as a whole is
        refused with. Nobody else may run meanwhile.
        """
        outer = self.commit
        draft = Draft(self.engine.actor, self.engine.commit, self.engine.reads, self.engine.collections)
        draft.begin()
        self.commit = draft
        try:
            yield
        finally:
            self.commit = outer
            draft.end()
        operations = draft.operations()
        if operations:
            assert draft.keyspace is not None
            self.check_change(operations)
            outer.change(draft.keyspace, operations)

    def change(self, keyspace: Keyspace, operations: list[Operation]) -> None:
        """Make one change, unless it is too large: whatever a verb writes may also clear what was at the key."""
        if len(operations) > 1 or (type(last := operations[0][-1]) is list and len(last) > 1):
            self.check_change(operations)
        self.commit.change(keyspace, operations)

    def in_runs(self, size: int) -> bool:
        """Whether small writes of so many bytes together may go the short way (engine/runs.py)."""
        return self.commit is self.engine.commit and size <= RUN_BYTES_MAX

    def is_new(self, keyspace: Keyspace, key: bytes) -> bool:
        """Whether nothing is at a key, and what is made there neither expires by policy nor is refused by it."""
        return not keyspace.ttl_ms and not keyspace.policy.system and self.engine.runs.is_new(keyspace, key)

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
    def check_names(names: Iterable[bytes], what: str) -> None:
        """Raise TooLarge for an element or a field over 4,096 bytes; it may be empty."""
        longest = max(map(len, names), default=0)
        if longest > KEY_BYTES_MAX:
            raise TooLarge(f"the {what} has {longest} bytes; the limit is {KEY_BYTES_MAX}. Use a shorter one.")

    @staticmethod
    def check_count(count: int) -> None:
        """Raise TooLarge above BATCH_OPERATIONS_MAX keys, elements or fields of one call."""
        if count > BATCH_OPERATIONS_MAX:
            raise TooLarge(f"the call has {count} operations; the limit is {BATCH_OPERATIONS_MAX}. Split it.")

    def check_change(self, operations: Sequence[Operation]) -> None:
        """A change is one record, and a segment of the log holds two of the largest. Only changes of several rows can exceed that."""
        size = sum(map(operation_bytes, operations))
        if size > self.value_bytes_max + CHANGE_OVERHEAD_BYTES:
            raise TooLarge(
                f"the call changes {size} bytes at once; the limit is {self.value_bytes_max + CHANGE_OVERHEAD_BYTES} "
                f"(limits.value_bytes_max and 64 KiB). {_split_advice(operations)}"
            )

    def writable(self, key: bytes) -> Keyspace:
        """The keyspace of a key that a client wants to write; raises when it may not."""
        self.check_key(key)
        self.engine.admission.check_client()
        return allowed(self.engine.keyspaces.of(key))

    def deletable(self, key: bytes) -> Keyspace:
        """The same for what takes something away: allowed on a full disk."""
        self.check_key(key)
        self.engine.admission.check_relief()
        return allowed(self.engine.keyspaces.of(key))

    def default_expiry(self, keyspace: Keyspace) -> int:
        """The end of a key that is made now, by the keyspace's policy."""
        return self.now_ms() + keyspace.ttl_ms if keyspace.ttl_ms else 0

    # -- what a key holds

    def company(self, keyspace: Keyspace, key: bytes) -> Company:
        """The set and the map at a key, with all that a clear must name."""
        elements, fields = self.engine.collections.counts(keyspace, key)
        if not elements and not fields:
            return ALONE
        counters = self.engine.collections.counter_fields(keyspace, key) if fields else {}
        self.rows_read += len(counters)
        return Company(elements, fields, counters, dict(self.engine.collections.observed(keyspace)))

    def counts(self, keyspace: Keyspace, key: bytes) -> Company:
        """The same for whoever clears nothing: how many there are."""
        return Company(*self.engine.collections.counts(keyspace, key))

    def looked(self, key: bytes, found: int, wanted: int, *, desert: bool = False) -> None:
        """Count what a page or a draw has looked at. One that found less may have passed by deleted ones, in a ``desert`` by many."""
        rows = found
        if found < wanted:
            layers = self.engine.collections.layers(key)
            deleted = SCAN_EXAMINED_KEYS_MAX if desert else sum(len(each.rows) + len(each.parts) for each in layers)
            rows += min(deleted, SCAN_EXAMINED_KEYS_MAX)
        self.rows_read += rows

    def drew(self, key: bytes, there: int, count: int) -> None:
        """Count what a draw of ``count`` looks at: all of a small set, some places of a large one."""
        exact = there <= max(RANDOM_EXACT_ELEMENTS, count)
        self.looked(key, there if exact else _DRAW_ROWS * count, there)

    def check_nothing_else(self, keyspace: Keyspace, key: bytes, state: StringState, now: int) -> None:
        """At a key without a string that can be seen: WrongType when it holds something else."""
        if not state.gone(now) and self.counts(keyspace, key):
            raise wrong_type("string")

    def check_no_string(self, state: StringState, company: Company, now: int, kind: Kind) -> None:
        """At a key without a set (or map, by ``kind``) that can be seen: WrongType when it holds something else."""
        if state.live(now, company):
            raise wrong_type(kind)


def check_one_value(state: StringState, now: int) -> None:
    """ConcurrentValues when there are several: a verb that writes what it makes of one would drop the others unread."""
    count = len(state.visible_siblings(now))
    if count > 1:
        raise ConcurrentValues(
            f"the key holds {count} concurrent values, and this call works on one. "
            "Read them all, and put one in their place with the context of that read."
        )


def allowed(keyspace: Keyspace) -> Keyspace:
    """The same; Denied when it is EdgeKV's own."""
    if keyspace.policy.system:
        raise Denied(f"keys below {keyspace.prefix.decode()!r} belong to EdgeKV itself. Choose another key.")
    return keyspace


def wrong_type(kind: Kind) -> WrongType:
    """What a verb on this type says of a key that holds other types only."""
    return WrongType(f"the key holds no {kind} but another type. Use the calls for what it holds, or delete it first.")


def attempt(verb: Callable[[], int]) -> int | EdgeKVError:
    """What it returns or raises."""
    try:
        return verb()
    except EdgeKVError as error:
        return error


def stretches(keys: Sequence[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(key, first, end) of the same key in a row, of so many that a frame has room for them."""
    first = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[first] or i - first == RUN_CHANGES_MAX:
            yield keys[first], first, i
            first = i


def text(value: bytes | Number | None) -> bytes | None:
    """A value as clients see it: numbers in decimal."""
    return value if value is None or isinstance(value, bytes) else text_of(value)


def integer(value: bytes | Number | None, sentence: str = NOT_AN_INTEGER) -> int:
    """A value as a 64-bit integer; an absent one counts as 0."""
    number = parse_integer(value) if isinstance(value, bytes) else value or 0
    if not isinstance(number, int) or not INTEGER_MIN <= number <= INTEGER_MAX:
        raise NotANumber(sentence)
    return number


def sum_of(value: bytes | Number | None, delta: int, sentence: str = NOT_AN_INTEGER) -> int:
    """Both together; NotANumber outside 64 bits."""
    total = integer(value, sentence) + delta
    if not INTEGER_MIN <= total <= INTEGER_MAX:
        raise NotANumber(OVERFLOW)
    return total


def _split_advice(operations: Sequence[Operation]) -> str:
    """What to do about a change that is too large. A hash of many counters is so because each is reset by itself."""
    resets = [operation for operation in operations if operation[0] == RESET_FIELDS]
    largest = max(resets, key=operation_bytes, default=None)
    if largest is None or 2 * operation_bytes(largest) < sum(map(operation_bytes, operations)):
        return "Split it."
    key, fields = largest[1], largest[2]
    assert isinstance(key, bytes) and isinstance(fields, list)
    name = key[:_QUOTED_BYTES_MAX].decode("utf-8", "backslashreplace")
    return f"It resets {len(fields)} counters of the hash {name!r}. Delete its fields in parts first."
