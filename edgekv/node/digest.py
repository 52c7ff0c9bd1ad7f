"""A digest of what readers are shown of one keyspace, to compare nodes by: equal vectors must mean equal digests.

Hashed is what a reader at a stated TTL time sees, in key order: keys, values with their expiry, what counters say, elements, fields,
concurrent values. Not hashed is what may differ between nodes that agree: tombstones, clears and spent counter parts, which each
node purges when it gets to it, and the order in which changes came. The time must be one that no node has purged beyond: that of the
node which is furthest (`edgekv cluster verify` asks all of them first).

A digest is of one vector. It is read in steps, and writes go on between them: if what readers here see has moved from the first step
to the last (`vector` and `vector_after` differ), the digest is of no moment, and the caller asks again. Rows that are taken
over as a whole show in the moment in which the vector says so (engine/flip.py).

    key     BLAKE2b-128 over msgpack: [key, expiry, [[value, expiry], ...], number of elements, of fields], each element, each
            [field, value]
    range   the keys with one first byte behind the prefix asked for: BLAKE2b-128 over their digests
    digest  BLAKE2b-128 over the ranges' names and digests
"""

from collections.abc import Generator, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edgekv.codec import pack
from edgekv.crdt.company import Company
from edgekv.engine.intake import seen
from edgekv.engine.keyspaces import Keyspace, successor
from edgekv.engine.reads import Found
from edgekv.errors import InvalidRequest
from edgekv.ids import Actor, actor_text
from edgekv.node.verbs import text

if TYPE_CHECKING:
    from edgekv.node.operations import Operations

_DIGEST_BYTES: Final = 16
_STEP_KEYS_MAX: Final = 256
_STEP_BYTES: Final = 1 << 20
"""Of values that one step hashes, about: half a millisecond."""
_PAGE_ROWS: Final = 512


class Range:
    """The keys with one first byte behind the prefix."""

    def __init__(self, name: bytes) -> None:
        self.name: Final = name
        self.keys = 0
        self.first = self.last = b""
        self._hash: Final = blake2b(digest_size=_DIGEST_BYTES)

    def add(self, key: bytes, digest: bytes) -> None:
        """The next key."""
        self.first = self.first if self.keys else key
        self.last = key
        self.keys += 1
        self._hash.update(digest)

    @property
    def digest(self) -> bytes:
        """Of all keys so far."""
        return self._hash.digest()


class Digest:
    """One reading. `step` until it returns False, then look at the rest."""

    def __init__(self, operations: "Operations", keyspace_name: str, ttl_ms: int | None, prefix: bytes) -> None:
        """``ttl_ms`` None: now. ``prefix``: only keys that begin with it. InvalidRequest: there is no such keyspace."""
        self._engine: Final = operations.engine
        self._keyspace: Final = _named(operations, keyspace_name)
        self._prefix: Final = max(prefix, self._keyspace.prefix, key=len)
        within = self._prefix.startswith(prefix) and self._prefix.startswith(self._keyspace.prefix)
        self.ttl_ms: Final = operations.now_ms() if ttl_ms is None else ttl_ms
        self.ranges: Final[list[Range]] = []
        self.vector: Final = self._vector()
        self.vector_after = self.vector
        self._purged_ms = 0
        self._reading: Final = self._read() if within else iter(())

    def step(self) -> bool:
        """Read on; whether there is more."""
        for _ in self._reading:
            return True
        self.vector_after = self._vector()
        self._purged_ms = self._engine.checkpoints.purged_ms
        return False

    @property
    def moved(self) -> bool:
        """Whether what readers see has changed since it began, or was purged beyond its time: then it is the digest of no moment."""
        return self.vector != self.vector_after or self._purged_ms > self.ttl_ms

    def figures(self) -> dict[str, object]:
        """For the command line."""
        total = blake2b(digest_size=_DIGEST_BYTES)
        for each in self.ranges:
            total.update(pack([each.name, each.digest]))
        return {
            "keyspace": self._keyspace.name,
            "ttl_ms": self.ttl_ms,
            "moved": self.moved,
            "vector": self.vector,
            "vector_after": self.vector_after,
            "keys": sum(each.keys for each in self.ranges),
            "digest": total.hexdigest(),
            "ranges": [
                {
                    "prefix": each.name,
                    "digest": each.digest.hex(),
                    "keys": each.keys,
                    "first": each.first,
                    "last": each.last,
                }
                for each in self.ranges
            ],
        }

    def _vector(self) -> dict[str, int]:
        """What readers here see, durable or not."""
        return vector_seen(self._keyspace, self._engine.actor)

    def _read(self) -> Iterator[None]:
        keys = 8  # Before the sizes here are known, a step is small: 256 values of 16 MiB would hold up everybody.
        for interval in self._engine.keyspaces.intervals(self._prefix, successor(self._prefix)):
            start: bytes | None = interval.low if interval.keyspace is self._keyspace else None
            while start is not None:
                page = self._engine.reads.range(start, interval.high, keys, ttl_ms=self.ttl_ms)
                size = 0
                for found in page.found:
                    size += yield from self._key(found)
                keys = max(1, min(_STEP_KEYS_MAX, 2 * keys, keys * _STEP_BYTES // (size + 1)))
                start = page.next_key
                yield

    def _key(self, found: Found) -> Generator[None, None, int]:
        """Hash one key; how many bytes its values have."""
        state, now = found.state, self.ttl_ms
        company = Company(elements=found.elements, fields=found.fields)
        if state.siblings is None:
            values = [[text(value), 0] for value in state.values(now)]
        else:
            values = [[sibling.value, sibling.expiry_ms] for sibling in state.visible_siblings(now)]
            values.append([text(state.value(now)), 0])  # with what was counted beside it
        digest = blake2b(digest_size=_DIGEST_BYTES)
        head = pack([found.key, state.expiry_ms(company), values, found.elements, found.fields])
        digest.update(head)
        if found.elements:
            yield from self._elements(found.key, digest)
        if found.fields:
            yield from self._fields(found.key, digest)
        self._range(found.key).add(found.key, digest.digest())
        return len(head)

    def _elements(self, key: bytes, digest: "blake2b") -> Iterator[None]:
        """One by one, so that a page's end, which is each node's own, makes no difference."""
        start: bytes | None = b""
        while start is not None:
            page, start = self._engine.collections.members_page(self._keyspace, key, start, _PAGE_ROWS, _STEP_BYTES)
            digest.update(b"".join(map(pack, page)))
            yield

    def _fields(self, key: bytes, digest: "blake2b") -> Iterator[None]:
        start: bytes | None = b""
        while start is not None:
            page, start = self._engine.collections.fields_page(self._keyspace, key, start, _PAGE_ROWS, _STEP_BYTES)
            digest.update(b"".join(pack(list(pair)) for pair in page))
            yield

    def _range(self, key: bytes) -> Range:
        name = key[: len(self._prefix) + 1]
        if not self.ranges or self.ranges[-1].name != name:
            self.ranges.append(Range(name))
        return self.ranges[-1]


def vector_seen(keyspace: Keyspace, own_actor: Actor) -> dict[str, int]:
    """What readers here see of a keyspace, durable or not: the last change of each actor."""
    heads = seen(keyspace, own_actor)
    return {actor_text(actor): head.seq for actor, head in sorted(heads.items()) if head.seq}


def _named(operations: "Operations", name: str) -> Keyspace:
    for keyspace in operations.engine.keyspaces.all:
        if keyspace.name == name:
            return keyspace
    raise InvalidRequest(f"there is no keyspace named {name!r} here. See /v1/admin/keyspaces.")
