"""What every reader must be shown, computed from the list of all changes that were ever made.

A `History` knows the changes of one keyspace as their makers logged them. `History.truth` says what a node with a given vector must
show at a given TTL time, by the rules of the data types alone: no row, no merge and no stored state of any node takes part, so it
cannot share a mistake with them.

    register, field, expiry     the highest stamp (hlc, rank, actor); a map's clear hides fields below its own stamp
    set                         the adds that no remove and no clear has observed
    counter                     the sum of the increments that no reset has observed; one that is made anew resets what was before
    siblings                    the values that no later put or delete has observed
    expiry                      hides at its time; the key's own expiry hides all but a register with a higher stamp

An increment is logged as a running total, so what it added is the difference to the total before it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeVar

from edgekv.crdt.checks import decode_number
from edgekv.engine.engine import Engine
from edgekv.engine.frame import Run
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import WrongType
from edgekv.ids import Actor
from edgekv.node.maps import Maps
from edgekv.node.node import Node
from edgekv.node.sets import Sets
from edgekv.wal.record import Changes, Columns, unpack_body

Stamp = tuple[int, int, Actor]
Vector = Mapping[Actor, int]
_T = TypeVar("_T")
_On = TypeVar("_On")

_DIGITS: Final = Context(prec=120)
_NEVER: Final = 1 << 70
_PAGE: Final = 1000


class Change(NamedTuple):
    """One change as its maker logged it; a plain SET is a PUT."""

    actor: Actor
    seq: int
    hlc: int
    operations: Sequence[Sequence[Any]]


class Shown(NamedTuple):
    """What a reader is shown of a key. Several values: siblings, the one that GET shows first."""

    values: tuple[bytes, ...] = ()
    members: tuple[bytes, ...] = ()
    fields: tuple[tuple[bytes, bytes], ...] = ()
    expiry_ms: int = -2
    """Absolute; -1: never; -2: there is no such key."""


NOTHING: Final = Shown()


class Version(NamedTuple):
    """One version of a cell."""

    stamp: Stamp
    value: bytes | None
    expiry_ms: int = 0


_NONE: Final = Version((-1, 0, Actor(b"")), None)


class _Count:
    """The increments of one counter, and what resets have observed."""

    def __init__(self) -> None:
        self._added: dict[Actor, list[tuple[int, Fraction | int]]] = {}
        self._totals: dict[Actor, Fraction | int] = {}
        self._reset: dict[Actor, int] = {}

    def add(self, actor: Actor, seq: int, total: Fraction | int, *, fresh: bool) -> None:
        """In the order of the actor's changes."""
        assert fresh or actor in self._totals, "an increment goes on from a total that there never was"
        before = 0 if fresh else self._totals[actor]
        if fresh:
            self.reset(actor, seq - 1)
        self._totals[actor] = total
        self._added.setdefault(actor, []).append((seq, total - before))

    def reset(self, actor: Actor, seq: int) -> None:
        """All that the actor had added at this seq."""
        self._reset[actor] = max(self._reset.get(actor, 0), seq)

    def added(self) -> list[Fraction | int]:
        """What counts."""
        return [
            amount
            for actor, amounts in self._added.items()
            for seq, amount in amounts
            if seq > self._reset.get(actor, 0)
        ]


class Key:
    """A key at one vector; nobody has asked for the time yet."""

    def __init__(self) -> None:
        self._register = _NONE
        self._expiry = _NONE
        self._siblings: dict[tuple[Actor, int], Version] | None = None
        self._siblings_seen: set[tuple[Actor, int]] = set()
        self._count = _Count()
        self._fields: dict[bytes, Version] = {}
        self._field_counts: dict[bytes, _Count] = {}
        self._map_clear: Stamp = _NONE.stamp
        self._adds: dict[bytes, list[tuple[Actor, int]]] = {}
        self._removed: dict[bytes, dict[Actor, int]] = {}
        self._cleared: dict[Actor, int] = {}
        self._ends: list[int] | None = None
        """When anything may cease to be shown, in order; None: nobody has asked yet."""
        self._shown: dict[int, Shown] = {}
        """By how many of those have passed: between two of them it is the same."""

    def take(self, actor: Actor, seq: int, hlc: int, operation: Sequence[Any]) -> None:
        """One operation. Those of one actor come in the order of its changes; otherwise any order will do."""
        _TAKE[operation[0]](self, (hlc, 0, actor), seq, *operation[2:])

    def _put(self, stamp: Stamp, _seq: int, value: bytes, expiry_ms: int) -> None:
        self._register_version(Version(stamp, value, expiry_ms))

    def _delete(self, stamp: Stamp, _seq: int, *system: int) -> None:
        self._register_version(Version(_system(stamp, *system), None))

    def _expire(self, stamp: Stamp, _seq: int, expiry_ms: int, *system: int) -> None:
        version = Version(stamp, b"", expiry_ms) if expiry_ms else Version(_system(stamp, *system), None)
        self._expiry_version(version)

    def _add(self, stamp: Stamp, seq: int, total: Any, _base_seq: int, _base: Any, fresh: int) -> None:
        self._count.add(stamp[2], seq, decode_number(total), fresh=fresh == 1)

    def _reset(self, _by: Stamp, _seq: int, parts: Sequence[Any]) -> None:
        for actor, seq, _ in parts:
            self._count.reset(actor, seq)

    def _add_elements(self, stamp: Stamp, seq: int, elements: Sequence[bytes]) -> None:
        for element in elements:
            self._adds.setdefault(element, []).append((stamp[2], seq))

    def _remove_elements(self, _by: Stamp, _seq: int, observed: Sequence[Any]) -> None:
        for element, dots in observed:
            _join(self._removed.setdefault(element, {}), dots)

    def _clear_set(self, _by: Stamp, _seq: int, vector: Sequence[Any]) -> None:
        _join(self._cleared, vector)

    def _put_fields(self, stamp: Stamp, _seq: int, pairs: Sequence[Any]) -> None:
        for field, value in pairs:
            self._field(field, Version(stamp, value))

    def _delete_fields(self, stamp: Stamp, _seq: int, fields: Sequence[bytes]) -> None:
        for field in fields:
            self._field(field, Version(stamp, None))

    def _add_field(
        self, stamp: Stamp, seq: int, field: bytes, total: Any, _base_seq: int, _base: Any, fresh: int
    ) -> None:
        self._field_count(field).add(stamp[2], seq, decode_number(total), fresh=fresh == 1)

    def _reset_fields(self, _by: Stamp, _seq: int, fields: Sequence[Any]) -> None:
        for field, parts in fields:
            for actor, seq, _ in parts:
                self._field_count(field).reset(actor, seq)

    def _clear_map(self, stamp: Stamp, _seq: int, *system: int) -> None:
        self._map_clear_stamp(_system(stamp, *system))

    def _put_sibling(self, stamp: Stamp, seq: int, value: bytes, expiry_ms: int, seen: Sequence[Any]) -> None:
        self._siblings = self._siblings or {}
        self._siblings[stamp[2], seq] = Version(stamp, value, expiry_ms)
        self._delete_siblings(stamp, seq, seen)

    def _delete_siblings(self, _by: Stamp, _seq: int, seen: Sequence[Any]) -> None:
        self._siblings_seen.update((Actor(actor), seq) for actor, seq in seen)

    def _register_version(self, version: Version) -> None:
        self._register = max(self._register, version, key=_stamp)

    def _expiry_version(self, version: Version) -> None:
        self._expiry = max(self._expiry, version, key=_stamp)

    def _map_clear_stamp(self, stamp: Stamp) -> None:
        self._map_clear = max(self._map_clear, stamp)

    def _field(self, field: bytes, version: Version) -> None:
        self._fields[field] = max(self._fields.get(field, _NONE), version, key=_stamp)

    def _field_count(self, field: bytes) -> _Count:
        return self._field_counts.setdefault(field, _Count())

    def shown(self, now_ms: int) -> Shown:
        """At this TTL time, when all operations have been taken."""
        if self._ends is None:
            siblings = self._siblings.values() if self._siblings is not None else ()
            self._ends = sorted({version.expiry_ms for version in (self._expiry, self._register, *siblings)} - {0})
        passed = bisect_right(self._ends, now_ms)
        found = self._shown.get(passed)
        if found is None:
            found = self._shown[passed] = self._shown_at(now_ms)
        return found

    def _shown_at(self, now_ms: int) -> Shown:
        end = self._expiry.expiry_ms or _NEVER
        gone = end <= now_ms
        amounts = self._count.added()
        versions = self._versions()
        visible = [version for version in versions if now_ms < self._end_of(version, end)]
        counted = [] if gone else amounts
        values = [_counted(version.value, counted) for version in visible] or [_counted(None, counted)]
        members, fields = self._members(), self._fields_shown()
        company = bool(members or fields)
        if not visible and (gone or not (amounts or company)):
            return NOTHING
        ends = [self._end_of(version, end) for version in versions]
        if company or amounts:
            ends.append(end)
        last = max(ends)
        return Shown(
            tuple(value for value in values if value is not None),
            () if gone else members,
            () if gone else fields,
            -1 if last >= _NEVER else last,
        )

    def _versions(self) -> list[Version]:
        """The register, or the siblings, that hold a value; the highest stamp first."""
        if self._siblings is not None:
            kept = [version for dot, version in self._siblings.items() if dot not in self._siblings_seen]
            return sorted(kept, key=_stamp, reverse=True)
        return [] if self._register.value is None else [self._register]

    def _end_of(self, version: Version, key_end: int) -> int:
        own = version.expiry_ms or _NEVER
        return min(own, key_end) if version.stamp < self._expiry.stamp else own

    def _members(self) -> tuple[bytes, ...]:
        return tuple(
            sorted(
                element
                for element, dots in self._adds.items()
                if any(not self._is_removed(element, actor, seq) for actor, seq in dots)
            )
        )

    def _is_removed(self, element: bytes, actor: Actor, seq: int) -> bool:
        return seq <= max(self._removed.get(element, {}).get(actor, 0), self._cleared.get(actor, 0))

    def _fields_shown(self) -> tuple[tuple[bytes, bytes], ...]:
        shown = []
        for field in sorted({*self._fields, *self._field_counts}):
            cell = self._fields.get(field, _NONE)
            value = cell.value if cell.stamp >= self._map_clear else None
            amounts = self._field_counts[field].added() if field in self._field_counts else []
            counted = _counted(value, amounts)
            if counted is not None:
                shown.append((field, counted))
        return tuple(shown)


_TAKE: Final[dict[int, Callable[..., None]]] = {
    1: Key._put,
    2: Key._delete,
    3: Key._add,
    4: Key._reset,
    5: Key._expire,
    6: Key._add_elements,
    7: Key._remove_elements,
    8: Key._clear_set,
    9: Key._put_fields,
    10: Key._delete_fields,
    11: Key._add_field,
    12: Key._reset_fields,
    13: Key._clear_map,
    14: Key._put_sibling,
    15: Key._delete_siblings,
}
"""By the codes of crdt.operation."""


class History:
    """All changes ever made in one keyspace. A change that a crash took, with all that nobody heard of, is taken out again."""

    def __init__(self) -> None:
        self.made: Final[dict[Actor, list[Change]]] = {}
        """By actor, without holes: the change with seq n is at index n - 1."""
        self._by_key: Final[dict[bytes, dict[Actor, list[int]]]] = {}
        self._states: Final[dict[bytes, dict[tuple[tuple[Actor, int], ...], Key]]] = {}

    def add(self, change: Change) -> None:
        """The next change of its actor. AssertionError when it is not the next."""
        changes = self.made.setdefault(change.actor, [])
        assert change.seq == len(changes) + 1, f"change {change.seq} after {len(changes)}"
        changes.append(change)
        for key in dict.fromkeys(operation[1] for operation in change.operations):
            self._by_key.setdefault(key, {}).setdefault(change.actor, []).append(change.seq)

    def forget_above(self, actor: Actor, seq: int) -> list[Change]:
        """The changes above this seq were never made. Returns them."""
        changes = self.made.get(actor, [])
        gone = changes[seq:]
        del changes[seq:]
        for change in gone:
            for key in {operation[1] for operation in change.operations}:
                seqs = self._by_key[key][actor]
                while seqs and seqs[-1] > seq:
                    seqs.pop()
                self._states.pop(key, None)
        return gone

    @property
    def keys(self) -> list[bytes]:
        """All keys that were ever written to."""
        return list(self._by_key)

    def heads(self) -> dict[Actor, int]:
        """The vector of all changes."""
        return {actor: len(changes) for actor, changes in self.made.items() if changes}

    def truth(self, key: bytes, vector: Vector, now_ms: int) -> Shown:
        """What a node with this vector must show of a key at this TTL time."""
        return self._at(key, vector).shown(now_ms)

    def _at(self, key: bytes, vector: Vector) -> Key:
        """The key by the changes that the vector covers; kept, since nodes with the same of them are asked about often."""
        by_actor = self._by_key.get(key, {})
        covered = tuple((actor, bisect_right(seqs, vector.get(actor, 0))) for actor, seqs in by_actor.items())
        states = self._states.setdefault(key, {})
        state = states.get(covered)
        if state is None:
            if len(states) > 16:
                states.clear()
            state = states[covered] = self._replayed(key, covered)
        return state

    def of_key(self, key: bytes) -> list[Change]:
        """All changes of a key, those of one actor in their order."""
        return [self.made[actor][seq - 1] for actor, seqs in self._by_key.get(key, {}).items() for seq in seqs]

    def _replayed(self, key: bytes, covered: Iterable[tuple[Actor, int]]) -> Key:
        by_actor = self._by_key.get(key, {})
        return replayed(key, (self.made[actor][seq - 1] for actor, count in covered for seq in by_actor[actor][:count]))


def replayed(key: bytes, changes: Iterable[Change]) -> Key:
    """A key by these changes, those of one actor in their order."""
    state = Key()
    for change in changes:
        for operation in change.operations:
            if operation[1] == key:
                state.take(change.actor, change.seq, change.hlc, operation)
    return state


def changes_of(record: Changes) -> Iterator[Change]:
    """The changes of a record of the log."""
    body = unpack_body(record.body)
    if isinstance(body, Columns):
        yield from _plain(record.actor, record.first_seq, record.base_hlc, body.keys, body.values)
        return
    for i, operations in enumerate(body.changes):
        yield Change(record.actor, record.first_seq + i, record.base_hlc + i, operations)


def changes_of_run(run: Run, actor: Actor) -> Iterator[Change]:
    """The changes of a run that is not in the log yet."""
    if run.changes is None:
        yield from _plain(actor, run.first_seq, run.base_hlc, run.keys, run.values)
        return
    for i, operations in enumerate(run.changes):
        yield Change(actor, run.first_seq + i, run.base_hlc + i, tuple(operations))


def _plain(
    actor: Actor, first_seq: int, base_hlc: int, keys: Sequence[bytes], values: Sequence[bytes]
) -> Iterator[Change]:
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        yield Change(actor, first_seq + i, base_hlc + i, ((1, key, value, 0),))


def shown(node: Node, key: bytes) -> Shown:
    """The same from a running node, through what its clients call. AssertionError when its calls contradict each other."""
    operations = node.operations
    once = _Once(node.engine)
    try:
        counts = node.engine.collections.counts(node.engine.keyspaces.of(key), key)
        values = _unless_another_type(_values, node, key)
        members = _unless_another_type(_pages, operations.sets, key) if counts.elements else ()  # the verbs say no more
        fields = _unless_another_type(_pages, operations.maps, key) if counts.fields else ()
        return Shown(tuple(values), tuple(members), tuple(fields), operations.expiry_of(key))
    finally:
        once.end()


class _Once:
    """While it lasts an engine looks at a key once, although every verb asks for the same again, and time stands still."""

    def __init__(self, engine: Engine) -> None:
        ask_state, ask_counts = engine.reads.state, engine.collections.counts
        states: dict[bytes, Any] = {}
        counted: dict[bytes, Any] = {}

        def state(keyspace: Keyspace, key: bytes) -> Any:
            if key not in states:
                states[key] = ask_state(keyspace, key)
            return states[key]

        def counts(keyspace: Keyspace, key: bytes) -> Any:
            if key not in counted:
                counted[key] = ask_counts(keyspace, key)
            return counted[key]

        now_ms = engine.ttl_now_ms()
        self._places: Final = (
            (vars(engine.reads), "state"),
            (vars(engine.collections), "counts"),
            (vars(engine), "ttl_now_ms"),
        )
        for (place, name), function in zip(self._places, (state, counts, lambda: now_ms), strict=True):
            place[name] = function

    def end(self) -> None:
        """It looks again."""
        for place, name in self._places:
            del place[name]


def _unless_another_type(read: Callable[[_On, bytes], list[_T]], on: _On, key: bytes) -> list[_T]:
    try:
        return read(on, key)
    except WrongType:
        return []


def _values(node: Node, key: bytes) -> list[bytes]:
    if node.operations.siblings.kept(key):
        return node.operations.siblings.get(key).values
    value = node.operations.get(key)
    return [] if value is None else [value]


def _pages(verbs: Sets | Maps, key: bytes) -> list[Any]:
    """All pages, and whether there are as many as the node counts."""
    count = verbs.count(key)
    if not count:
        return []  # so `page` begins, too
    found: list[Any] = []
    start: bytes | None = b""
    while start is not None:
        items, start = verbs.page(key, start, _PAGE)
        found += items
    assert len(found) == count, f"{count} are counted, {len(found)} are shown"
    return found


def _stamp(version: Version) -> Stamp:
    return version.stamp


def _system(stamp: Stamp, hlc: int | None = None) -> Stamp:
    """The stamp of a deletion; a system clear has its own."""
    return stamp if hlc is None else (hlc, 1, stamp[2])


def _join(vector: dict[Actor, int], dots: Iterable[Sequence[Any]]) -> None:
    for actor, seq in dots:
        vector[actor] = max(vector.get(actor, 0), seq)


def _counted(value: bytes | None, amounts: Sequence[Fraction | int]) -> bytes | None:
    """A value with what was counted beside it; one that is no number is shown as it is."""
    if not amounts:
        return value
    base = Fraction(0) if value is None else _parsed(value)
    return value if base is None else _written(base + sum(amounts))


def _parsed(text: bytes) -> Fraction | None:
    try:
        return Fraction(Decimal(text.decode("ascii")))
    except (InvalidOperation, UnicodeDecodeError):
        return None


def _written(number: Fraction) -> bytes:
    if number.denominator == 1:
        return b"%d" % number.numerator
    digits = _DIGITS.divide(Decimal(number.numerator), Decimal(number.denominator))
    return f"{digits.normalize(_DIGITS):f}".encode()
