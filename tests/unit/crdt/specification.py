"""What a key holds by its specification: a pure function over the changes that are known, each with what it had seen.

After AntidoteDB's specifications: a value follows from the set of (happened-before, operation) pairs alone. No rows, dots, baselines
or tombstones appear here; ``events`` says what each call means on top of what the specification itself shows its writer.

    add(e), remove(e), clear set        e is in the set: it has an add that no remove or clear has seen
    put(f, v), unput(f), clear map      the highest stamp wins; a clear with a higher one hides it
    count(f, n), reset(f), reset map    the sum of what no reset has seen
    set(v, expiry), unset; incr(n), reset; x(expiry)       the same of the key itself, and its expiry
"""

from collections.abc import Iterator
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, NamedTuple

from edgekv.crdt.decimals import Number as Amount
from edgekv.crdt.strings import NEVER
from edgekv.ids import Actor
from tests.unit.crdt.histories import Change, World

Event = tuple[object, ...]
Stamp = tuple[int, Actor]
NO_STAMP: Stamp = (-1, Actor(b""))
_DIGITS: Final = Context(prec=100)  # more than a sum of these histories has


class Register(NamedTuple):
    value: bytes | None = None
    expiry_ms: int = 0
    stamp: Stamp = NO_STAMP


class Number(NamedTuple):
    register: bytes | None
    counts: list[Amount]

    @property
    def value(self) -> bytes | None:
        base = 0 if self.register is None else parsed(self.register)
        return self.register if not self.counts or base is None else _written(Fraction(base + sum(self.counts)))


def parsed(text: bytes) -> Fraction | None:
    try:
        return Fraction(Decimal(text.decode()))
    except InvalidOperation:
        return None


def _written(number: Fraction) -> bytes:
    digits = _DIGITS.divide(Decimal(number.numerator), Decimal(number.denominator))
    return f"{digits.normalize(_DIGITS):f}".encode()


class Shown(NamedTuple):
    """What a reader at some TTL time is shown."""

    string: bytes | None
    members: frozenset[bytes]
    fields: tuple[tuple[bytes, bytes], ...]
    expiry_ms: int  # -1: there is no such key; 0: never


class Key(NamedTuple):
    """The key at one vector; time has not been asked yet."""

    register: Register
    counts: list[Amount]
    expiry: Register
    members: frozenset[bytes]
    fields: dict[bytes, Number]

    def gone(self, now: int) -> bool:
        return 0 < self.expiry.expiry_ms <= now

    def register_shown(self, now: int) -> bool:
        own = 0 < self.register.expiry_ms <= now
        return self.register.value is not None and not own and not (self.gone(now) and self.below_expiry)

    @property
    def below_expiry(self) -> bool:
        return self.register.stamp < self.expiry.stamp and self.expiry.expiry_ms > 0

    @property
    def company(self) -> bool:
        return bool(self.members or self.fields)

    def live(self, now: int) -> bool:
        return self.register_shown(now) or (not self.gone(now) and (self.company or bool(self.counts)))

    def shown(self, now: int) -> Shown:
        gone = self.gone(now)
        register = self.register.value if self.register_shown(now) else None
        fields = sorted((field, number.value) for field, number in self.fields.items())
        return Shown(
            Number(register, [] if gone else self.counts).value,
            frozenset() if gone else self.members,
            () if gone else tuple((field, value) for field, value in fields if value is not None),
            self.end if self.live(now) else -1,
        )

    @property
    def end(self) -> int:
        key_end = self.expiry.expiry_ms or NEVER
        ends = [key_end] if self.company or self.counts else []
        if self.register.value is not None:
            own_end = self.register.expiry_ms or NEVER
            ends.append(min(own_end, key_end) if self.below_expiry else own_end)
        return 0 if max(ends) == NEVER else max(ends)


def key_at(world: World, vector: dict[Actor, int]) -> Key:
    """The key by all changes that the vector covers."""
    known = [change for change in world.changes if change.covered_by(vector)]
    clear = max((stamp for stamp, _ in _named(known, "clear map")), default=NO_STAMP)
    names = {event[1] for change in known for event in change.events if event[0] in {"put", "count"}}
    fields = {}
    for field in names:
        assert isinstance(field, bytes)
        cell = _highest(known, "put", "unput", field)
        register = cell.value if cell.stamp >= clear else None
        number = Number(register, list(_counted(known, ("count", field), [("reset", field), ("reset map",)])))
        if number.value is not None:
            fields[field] = number
    return Key(
        _highest(known, "set", "unset"),
        list(_counted(known, ("incr",), [("reset",)])),
        _highest(known, "x", "no x"),
        frozenset(_members(known)),
        fields,
    )


def _named(known: list[Change], name: str) -> Iterator[tuple[Stamp, Event]]:
    for change in known:
        for event in change.events:
            if event[0] == name:
                yield (change.hlc, change.actor), event


def _highest(known: list[Change], written: str, removed: str, *field: bytes) -> Register:
    """The register with the highest stamp: of ``(written, *field, value, expiry)`` and ``(removed, *field)``."""
    versions = [Register()]
    for stamp, event in [*_named(known, written), *_named(known, removed)]:
        if event[1 : 1 + len(field)] == field:
            match event[1 + len(field) :]:
                case (bytes(value), int(expiry_ms)):
                    versions.append(Register(value, expiry_ms, stamp))
                case _:
                    versions.append(Register(None, 0, stamp))
    return max(versions, key=lambda version: version.stamp)


def _members(known: list[Change]) -> Iterator[bytes]:
    for change in known:
        for event in change.events:
            if event[0] == "add":
                element = event[1]
                assert isinstance(element, bytes)
                if not _seen_by(change, known, [("remove", element), ("clear set",)]):
                    yield element


def _counted(known: list[Change], counting: Event, resets: list[Event]) -> Iterator[Amount]:
    for change in known:
        for event in change.events:
            if event[:-1] == counting and not _seen_by(change, known, resets):
                amount = event[-1]
                assert isinstance(amount, (int, Fraction))
                yield amount


def _seen_by(change: Change, known: list[Change], removals: list[Event]) -> bool:
    return any(change.covered_by(later.seen) for later in known if any(removal in later.events for removal in removals))


# What each call means, given what its writer is shown.


def clear_besides_register(key: Key) -> list[Event]:
    map_clear: list[Event] = [("clear map",), ("reset map",)] if key.fields else []
    return [*([("reset",)] if key.counts else []), *([("clear set",)] if key.members else []), *map_clear]


def clear_register(key: Key) -> list[Event]:
    return [("unset",)] if key.register.value is not None else []


def renew_expiry(key: Key, expiry_ms: int = 0) -> list[Event]:
    if expiry_ms:
        return [("x", b"", expiry_ms)]
    return [("no x",)] if key.expiry.expiry_ms else []


def first_write(key: Key, now: int, new_expiry_ms: int) -> list[Event]:
    if key.live(now) and not key.gone(now):
        return []
    if key.live(now):
        return [*clear_besides_register(key), *renew_expiry(key)]
    return [*clear_register(key), *clear_besides_register(key), *renew_expiry(key, new_expiry_ms)]


def last_row(key: Key, left: Key, now: int) -> list[Event]:
    return [] if left.live(now) else renew_expiry(key)


def set_events(key: Key, value: bytes, expiry_ms: int) -> list[Event]:
    return [("set", value, expiry_ms), *clear_besides_register(key), *renew_expiry(key)]


def delete_events(key: Key, now: int) -> list[Event]:
    return [*clear_register(key), *clear_besides_register(key), *renew_expiry(key)] if key.live(now) else []


def increment_events(key: Key, amount: Amount, now: int) -> list[Event]:
    shown, gone = key.register_shown(now), key.gone(now)
    events: list[Event] = [] if shown else clear_register(key)
    events += clear_besides_register(key) if gone else []
    if shown and key.register.expiry_ms and (gone or not key.expiry.expiry_ms):
        events.append(("x", b"", key.register.expiry_ms))
    elif gone or not key.live(now):
        events += renew_expiry(key)
    return [*events, ("incr", amount)]


def expire_events(key: Key, expiry_ms: int, now: int) -> list[Event]:
    shown = key.register_shown(now)
    events: list[Event] = [("set", key.register.value, expiry_ms)] if shown else []
    if not key.gone(now) and (key.company or key.counts or (shown and key.expiry.expiry_ms)):
        events.append(("x", b"", expiry_ms) if expiry_ms else ("no x",))
    return events


def add_members_events(key: Key, members: list[bytes], now: int, new_expiry_ms: int) -> list[Event]:
    return [*first_write(key, now, new_expiry_ms), *(("add", member) for member in members)]


def remove_members_events(key: Key, members: list[bytes], now: int) -> list[Event]:
    there = key.members.intersection(members)
    if key.gone(now) or not there:
        return []
    left = key._replace(members=key.members - there)
    return [*(("remove", member) for member in there), *last_row(key, left, now)]


def clear_set_events(key: Key, now: int) -> list[Event]:
    if key.gone(now) or not key.members:
        return []
    return [("clear set",), *last_row(key, key._replace(members=frozenset()), now)]


def store_events(key: Key, members: list[bytes], new_expiry_ms: int) -> list[Event]:
    adds = [("add", member) for member in members]
    return [*clear_register(key), *clear_besides_register(key), *renew_expiry(key, new_expiry_ms), *adds]


def put_fields_events(key: Key, pairs: dict[bytes, bytes], now: int, new_expiry_ms: int) -> list[Event]:
    puts: list[Event] = [("put", field, value, 0) for field, value in pairs.items()]
    return [*first_write(key, now, new_expiry_ms), *puts, *(("reset", field) for field in pairs)]


def delete_fields_events(key: Key, fields: list[bytes], now: int) -> list[Event]:
    there = {field: number for field, number in key.fields.items() if field in fields}
    if key.gone(now) or not there:
        return []
    left = key._replace(fields={field: number for field, number in key.fields.items() if field not in there})
    cells: list[Event] = [("unput", field) for field, number in there.items() if number.register is not None]
    return [*cells, *(("reset", field) for field in there), *last_row(key, left, now)]


def clear_map_events(key: Key, now: int) -> list[Event]:
    if key.gone(now) or not key.fields:
        return []
    return [("clear map",), ("reset map",), *last_row(key, key._replace(fields={}), now)]


def increment_field_events(key: Key, field: bytes, amount: Amount, now: int, new_expiry_ms: int) -> list[Event]:
    return [*first_write(key, now, new_expiry_ms), ("count", field, amount)]
