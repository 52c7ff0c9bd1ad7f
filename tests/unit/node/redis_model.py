"""Keys as Redis has them, one type each, in a dict. A verb returns what Redis would return, and raises what EdgeKV raises for it."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from edgekv.errors import EdgeKVError, NotANumber, NotFound, WrongType
from edgekv.node.operations import INTEGER_MAX, INTEGER_MIN

FOREVER: Final = 0
Value = bytes | frozenset[bytes] | tuple[tuple[bytes, bytes], ...]
"""A string, a set, or a map in the order of its fields. None of them changes in place."""


class Held(NamedTuple):
    """A key."""

    value: Value
    expiry_ms: int


class RedisModel:
    """The verbs, named as in node/operations.py; those on sets and maps with ``s_`` and ``h_`` before their name."""

    def __init__(self, now: Callable[[], int], default_expiry: Callable[[bytes], int]) -> None:
        self._now: Final = now
        self._default_expiry: Final = default_expiry
        self.keys: dict[bytes, Held] = {}

    def live(self, key: bytes) -> Held | None:
        held = self.keys.get(key)
        return None if held is None or 0 < held.expiry_ms <= self._now() else held

    def all_live(self) -> dict[bytes, Held]:
        return {key: held for key in sorted(self.keys) if (held := self.live(key)) is not None}

    def put(self, key: bytes, value: Value, expiry_ms: int | None = None) -> None:
        """None: the expiry stays, or a new key gets the keyspace's. A set or map without rows is gone."""
        held = self.live(key)
        if not value and not isinstance(value, bytes):
            if held is not None:
                del self.keys[key]
            return
        kept = held.expiry_ms if held else self._default_expiry(key)
        self.keys[key] = Held(value, kept if expiry_ms is None else expiry_ms)

    # Strings.

    def string(self, key: bytes) -> bytes | None:
        held = self.live(key)
        if held is not None and not isinstance(held.value, bytes):
            raise WrongType
        return held.value if held is not None and isinstance(held.value, bytes) else None

    get = string

    def get_run(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.string(key) for key in keys]

    def set(
        self, key: bytes, value: bytes, *, expiry_ms: int, keep_expiry: bool, only_if: Literal["", "exists"]
    ) -> bool:
        held = self.live(key)
        if only_if and held is None:
            return False
        kept = held.expiry_ms if keep_expiry and held else expiry_ms or self._default_expiry(key)
        self.put(key, value, kept)
        return True

    def set_run(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.put(key, value, self._default_expiry(key))

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self.put(key, value, self._default_expiry(key))

    def increment(self, key: bytes, delta: int) -> int:
        total = _sum(self.string(key), delta)
        self.put(key, b"%d" % total)
        return total

    def increment_run(self, keys: Sequence[bytes], deltas: Sequence[int]) -> list[int | EdgeKVError]:
        return _each(self.increment, keys, deltas)

    def increment_float(self, key: bytes, delta: bytes) -> bytes:
        total = _float_sum(self.string(key), delta)
        self.put(key, total)
        return total

    def append(self, key: bytes, value: bytes) -> int:
        whole = (self.string(key) or b"") + value
        self.put(key, whole)
        return len(whole)

    def set_range(self, key: bytes, offset: int, value: bytes) -> int:
        old = self.string(key) or b""
        whole = old[:offset].ljust(offset, b"\x00") + value + old[offset + len(value) :]
        self.put(key, whole)
        return len(whole)

    # Keys.

    def delete(self, keys: Sequence[bytes]) -> int:
        existing = {key for key in keys if self.live(key)}
        for key in existing:
            del self.keys[key]
        return len(existing)

    def exists(self, keys: Sequence[bytes]) -> int:
        return sum(self.live(key) is not None for key in keys)

    def type_of(self, key: bytes) -> str:
        held = self.live(key)
        if held is None:
            return "none"
        return "string" if isinstance(held.value, bytes) else "set" if isinstance(held.value, frozenset) else "hash"

    def expiry_of(self, key: bytes) -> int:
        held = self.live(key)
        return -2 if held is None else held.expiry_ms or -1

    def set_expiry(self, key: bytes, expiry_ms: int) -> bool:
        held = self.live(key)
        if held is None:
            return False
        if expiry_ms <= self._now():
            del self.keys[key]
        else:
            self.put(key, held.value, expiry_ms)
        return True

    def persist(self, key: bytes) -> bool:
        held = self.live(key)
        if held is None or not held.expiry_ms:
            return False
        self.put(key, held.value, FOREVER)
        return True

    def rename(self, old: bytes, new: bytes) -> None:
        held = self.live(old)
        if held is None:
            raise NotFound
        del self.keys[old]
        self.keys[new] = held

    # Sets.

    def members(self, key: bytes) -> frozenset[bytes]:
        held = self.live(key)
        if held is not None and not isinstance(held.value, frozenset):
            raise WrongType
        return held.value if held is not None and isinstance(held.value, frozenset) else frozenset()

    def s_add(self, key: bytes, members: Sequence[bytes]) -> int:
        before = self.members(key)
        self.put(key, before | set(members))
        return len(set(members) - before)

    def s_add_run(self, keys: Sequence[bytes], members: Sequence[bytes]) -> list[int | EdgeKVError]:
        return _each(lambda key, member: self.s_add(key, [member]), keys, members)

    def s_remove(self, key: bytes, members: Sequence[bytes]) -> int:
        before = self.members(key)
        self.put(key, before - set(members))
        return len(set(members) & before)

    def s_contains(self, key: bytes, members: Sequence[bytes]) -> list[bool]:
        return [member in self.members(key) for member in members]

    def s_count(self, key: bytes) -> int:
        return len(self.members(key))

    def s_move(self, source: bytes, target: bytes, member: bytes) -> bool:
        if not self.members(source):
            return False
        other = self.members(target)
        if member not in self.members(source):
            return False
        if source != target:
            self.put(source, self.members(source) - {member})
            self.put(target, other | {member})
        return True

    def s_store(self, key: bytes, members: Sequence[bytes]) -> None:
        self.put(key, frozenset(members), self._default_expiry(key))

    # Maps.

    def fields(self, key: bytes) -> dict[bytes, bytes]:
        held = self.live(key)
        if held is not None and not isinstance(held.value, tuple):
            raise WrongType
        return dict(held.value) if held is not None and isinstance(held.value, tuple) else {}

    def _put_fields(self, key: bytes, fields: dict[bytes, bytes]) -> None:
        self.put(key, tuple(sorted(fields.items())))

    def h_put(self, key: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        before = self.fields(key)
        self._put_fields(key, {**before, **dict(pairs)})
        return len(dict(pairs).keys() - before.keys())

    def h_put_run(
        self, keys: Sequence[bytes], fields: Sequence[bytes], values: Sequence[bytes]
    ) -> list[int | EdgeKVError]:
        pairs = zip(fields, values, strict=True)
        return _each(lambda key, pair: self.h_put(key, [pair]), keys, list(pairs))

    def h_put_if_absent(self, key: bytes, field: bytes, value: bytes) -> bool:
        if field in self.fields(key):
            return False
        self.h_put(key, [(field, value)])
        return True

    def h_get(self, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]:
        there = self.fields(key)
        return [there.get(field) for field in fields]

    def h_remove(self, key: bytes, fields: Sequence[bytes]) -> int:
        before = self.fields(key)
        self._put_fields(key, {field: value for field, value in before.items() if field not in fields})
        return len(before.keys() & set(fields))

    def h_count(self, key: bytes) -> int:
        return len(self.fields(key))

    def h_increment(self, key: bytes, field: bytes, delta: int) -> int:
        total = _sum(self.fields(key).get(field), delta)
        self.h_put(key, [(field, b"%d" % total)])
        return total

    def h_increment_float(self, key: bytes, field: bytes, delta: bytes) -> bytes:
        total = _float_sum(self.fields(key).get(field), delta)
        self.h_put(key, [(field, total)])
        return total


def _each(verb: Callable[[bytes, Any], int], keys: Sequence[bytes], rest: Sequence[Any]) -> list[int | EdgeKVError]:
    results: list[int | EdgeKVError] = []
    for key, own in zip(keys, rest, strict=True):
        try:
            results.append(verb(key, own))
        except EdgeKVError as error:
            results.append(error)
    return results


def _sum(value: bytes | None, delta: int) -> int:
    """A 64-bit integer in its one spelling, and the sum."""
    try:
        number = int(value or b"0")
    except ValueError:
        raise NotANumber from None
    if value not in (None, b"%d" % number) or not INTEGER_MIN <= number <= INTEGER_MAX:
        raise NotANumber
    if not INTEGER_MIN <= number + delta <= INTEGER_MAX:
        raise NotANumber
    return number + delta


def _float_sum(value: bytes | None, delta: bytes) -> bytes:
    try:
        total = Decimal("0" if value is None else value.decode()) + Decimal(delta.decode())
    except ArithmeticError:
        raise NotANumber from None
    text = f"{total:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return b"0" if text == "-0" else text.encode()
