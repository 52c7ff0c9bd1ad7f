"""What simulated clients do: random calls of all types on a few keys, each value and member another one.

A call that the node refuses (another type at the key, no number, several values) has changed nothing and is as good as any.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from edgekv.errors import ConcurrentValues, InvalidRequest, NotANumber, NotFound, TooLarge, Unavailable, WrongType
from edgekv.node.operations import Operations

MEMBERS: Final = (b"m1", b"m2", b"m3")
FIELDS: Final = (b"f1", b"f2")
REFUSALS: Final = (ConcurrentValues, InvalidRequest, NotANumber, NotFound, TooLarge, Unavailable, WrongType)
LIFE_MS: Final = 8_000
"""The longest expiry that is given; most are much shorter."""


LASTING_MS: Final = 400_000


class Clients:
    """The clients of one node; all randomness is the caller's."""

    def __init__(self, rng: Random) -> None:
        self._rng: Final = rng
        self._calls = 0
        self.lasting = False
        """Nothing is to expire soon. A lone node removes expired keys without telling anybody, there is nobody to tell."""

    def call(self, operations: Operations, keys: Sequence[bytes], sibling_keys: Sequence[bytes] = ()) -> str:
        """Make one call; returns what was done, in words."""
        self._calls += 1
        rng = self._rng
        if sibling_keys and rng.random() < 0.1:
            key, verbs, weights = rng.choice(sibling_keys), _SIBLING_VERBS, None
        else:
            key, verbs, weights = rng.choice(keys), _VERBS, _WEIGHTS
        verb = rng.choices(verbs, weights)[0]
        keyspace = operations.engine.keyspaces.of(key)
        try:
            verb(self, operations, key, [other for other in keys if operations.engine.keyspaces.of(other) is keyspace])
        except REFUSALS as refusal:
            return f"{verb.__name__[1:]} {_words(key)}: {type(refusal).__name__}"
        return f"{verb.__name__[1:]} {_words(key)}"

    def _value(self) -> bytes:
        """Of its own, so that a value shown tells which write it is; some are numbers, to be counted with."""
        number = self._rng.randrange(1_000_000)
        return b"%d" % number if self._rng.random() < 0.4 else b"v%d.%d" % (self._calls, number)

    def _end(self, operations: Operations) -> int:
        life_ms = self._rng.choice((1, 50, 300, 1500, LIFE_MS))
        return operations.now_ms() + (LASTING_MS if self.lasting else life_ms)

    def _set(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.set(key, self._value())

    def _set_run(self, operations: Operations, _key: bytes, keys: Sequence[bytes]) -> None:
        chosen = self._rng.choices(keys, k=self._rng.randint(1, 5))
        operations.set_run(chosen, [self._value() for _ in chosen])

    def _setex(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.set(key, self._value(), expiry_ms=self._end(operations))

    def _append(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.append(key, b"+")

    def _del(self, operations: Operations, key: bytes, keys: Sequence[bytes]) -> None:
        operations.delete([key] if self._rng.random() < 0.8 else list(keys[:2]))

    def _incr(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.increment(key, self._rng.choice((1, 1, 2, -1, 1000)))

    def _incr_run(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.increment_run([key] * 3, [1, 2, 3])

    def _incrbyfloat(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.increment_float(key, self._rng.choice((b"0.5", b"-1.25", b"2")))

    def _expire(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.set_expiry(key, self._end(operations))

    def _persist(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.persist(key)

    def _rename(self, operations: Operations, key: bytes, keys: Sequence[bytes]) -> None:
        operations.rename(key, self._rng.choice(keys))

    def _members(self) -> list[bytes]:
        return self._rng.sample(MEMBERS, self._rng.randint(1, 2))

    def _sadd(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.sets.add(key, self._members())

    def _srem(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.sets.remove(key, self._members())

    def _spop(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.sets.pop(key, 1, self._rng.getrandbits(64))

    def _sstore(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.sets.store(key, self._members())

    def _hset(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        fields = self._rng.sample(FIELDS, self._rng.randint(1, 2))
        operations.maps.put(key, [(field, self._value()) for field in fields])

    def _hdel(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.maps.remove(key, [self._rng.choice(FIELDS)])

    def _hincr(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.maps.increment(key, self._rng.choice(FIELDS), self._rng.choice((1, 5, -2)))

    def _batch(self, operations: Operations, key: bytes, keys: Sequence[bytes]) -> None:
        other = self._rng.choice(keys)
        items: list[tuple[object, ...]] = [
            ("put", key, self._value(), self._rng.choice((0, 0, self._end(operations)))),
            ("delete", other),
            ("add", other, 3),
            ("sadd", key, [self._rng.choice(MEMBERS)]),
            ("srem", key, [self._rng.choice(MEMBERS)]),
            ("hset", other, [(self._rng.choice(FIELDS), self._value())]),
            ("hadd", other, FIELDS[0], 7),
        ]
        operations.batch(self._rng.sample(items, 2))

    def _transaction(self, operations: Operations, key: bytes, keys: Sequence[bytes]) -> None:
        with operations.transaction():
            operations.delete([key])
            operations.sets.add(key, self._members())
            operations.increment(self._rng.choice(keys), 1)

    def _put_sibling(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        context = operations.siblings.get(key).context
        end = self._end(operations) if self._rng.random() < 0.2 else 0
        operations.siblings.put(key, self._value(), context, expiry_ms=end)

    def _delete_siblings(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.siblings.delete(key, operations.siblings.get(key).context)

    def _set_sibling(self, operations: Operations, key: bytes, _keys: Sequence[bytes]) -> None:
        operations.set(key, self._value())


def _words(key: bytes) -> str:
    """A key to be read by people; of a long one both ends."""
    return repr(key if len(key) < 50 else key[:10] + b"..." + key[-10:])


_Verb = Callable[[Clients, Operations, bytes, Sequence[bytes]], None]
_WEIGHED: Final[dict[_Verb, int]] = {
    Clients._set: 10,
    Clients._set_run: 4,
    Clients._setex: 5,
    Clients._append: 1,
    Clients._del: 10,
    Clients._incr: 9,
    Clients._incr_run: 2,
    Clients._incrbyfloat: 2,
    Clients._expire: 5,
    Clients._persist: 2,
    Clients._rename: 1,
    Clients._sadd: 9,
    Clients._srem: 6,
    Clients._spop: 2,
    Clients._sstore: 2,
    Clients._hset: 8,
    Clients._hdel: 3,
    Clients._hincr: 6,
    Clients._batch: 5,
    Clients._transaction: 3,
}
_VERBS: Final = list(_WEIGHED)
_WEIGHTS: Final = list(_WEIGHED.values())
_SIBLING_VERBS: Final[list[_Verb]] = [
    Clients._put_sibling,
    Clients._put_sibling,
    Clients._set_sibling,
    Clients._delete_siblings,
]
