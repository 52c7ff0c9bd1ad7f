"""Sets and maps of the dict node: what node/sets.py and node/maps.py promise to HTTP, and their operations in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edgekv.engine.frame import Frame
from edgekv.errors import Denied, InvalidRequest, NotANumber, WrongType
from edgekv.node.operations import Values

if TYPE_CHECKING:
    from tests.unit.api.http.site import FakeOperations


class FakeRows:
    """What sets and maps share: rows by key, and the frame that wrote to a key last."""

    def __init__(self, operations: FakeOperations) -> None:
        self.operations: Final = operations
        self.rows: Final[dict[bytes, dict[bytes, bytes]]] = {}
        self.frames: Final[dict[bytes, Frame]] = {}
        self.pages = 0

    def held(self, key: bytes) -> dict[bytes, bytes]:
        self.operations.look(key, self.frames.get(key))
        found = self.rows.get(key, {})
        if not found and self.operations.holds(key):
            raise WrongType("the key holds another type.")
        return found

    def count(self, key: bytes) -> int:
        return len(self.held(key))

    def remove(self, key: bytes, names: Sequence[bytes]) -> int:
        before = self.held(key)
        return len(before) - len(self._changed(key, {n: v for n, v in before.items() if n not in names}))

    def clear(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def _put(self, key: bytes, pairs: dict[bytes, bytes]) -> int:
        before = self.held(key)
        return len(self._changed(key, {**before, **pairs})) - len(before)

    def _changed(self, key: bytes, rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
        self.operations.begin_write(key)
        self.rows[key] = rows
        self.frames[key] = self.operations.filling
        return rows

    def _page(self, key: bytes, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        self.pages += 1
        rows = sorted(pair for pair in self.held(key).items() if pair[0] >= start)
        return rows[:limit], rows[limit][0] if len(rows) > limit else None


class FakeSets(FakeRows):
    def add(self, key: bytes, members: Sequence[bytes]) -> int:
        return self._put(key, dict.fromkeys(members, b""))

    def contains(self, key: bytes, members: Sequence[bytes]) -> list[bool]:
        held = self.held(key)
        return [member in held for member in members]

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        rows, following = self._page(key, start, limit)
        return [member for member, _ in rows], following


class FakeMaps(FakeRows):
    def put(self, key: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        return self._put(key, dict(pairs))

    def get(self, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]:
        held = self.held(key)
        return [held.get(field) for field in fields]

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        return self._page(key, start, limit)

    def increment(self, key: bytes, field: bytes, delta: int) -> int:
        value = self.held(key).get(field, b"0")
        if len(value) > 40 or not value.removeprefix(b"-").isdigit():
            raise NotANumber("hash value is not an integer")
        total = int(value) + delta
        if not -(1 << 63) <= total < 1 << 63:
            raise NotANumber("increment or decrement would overflow")
        self._put(key, {field: b"%d" % total})
        return total


class FakeSiblings:
    """Concurrent values of the keys that a test names; their context is made of the values."""

    def __init__(self, operations: FakeOperations) -> None:
        self.operations: Final = operations
        self.values: Final[dict[bytes, list[bytes]]] = {}

    def kept(self, key: bytes) -> bool:
        return key in self.values

    def get(self, key: bytes) -> Values:
        found = self.values[key]
        return Values(b"-".join([b"context", *found]).decode(), found)

    def put(self, key: bytes, value: bytes, context: str, *, expiry_ms: int = 0) -> None:
        self.values[key] = [value, *self._unread(key, context)]
        self.operations.set(key, value, expiry_ms=expiry_ms)

    def delete(self, key: bytes, context: str) -> int:
        left = self._unread(key, context)
        removed = len(self.values[key]) - len(left)
        self.values[key] = left
        return removed

    def _unread(self, key: bytes, context: str) -> list[bytes]:
        if not self.kept(key):
            raise Denied("the keyspace keeps one value.")
        word, *read = context.encode().split(b"-")
        if word != b"context":
            raise InvalidRequest("the context is not one that a read returned.")
        return [value for value in self.values[key] if value not in read]
