"""The order of the rows of long keys, which LMDB does not keep.

Rows whose row keys have their first ORDER_BYTES in common lie in the order of their hashes (layout.py). All rows of a key that is
that long are such a group, so finding the lowest of them means reading all of them; page after page, that is the square of their
number. So the group's order is remembered while the transaction of LMDB shows the same state, for a few keys and up to a bound.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from edgekv.ids import KeyspaceId
from edgekv.limits import MIB
from edgekv.store import layout

KEYS_MAX: Final = 4
"""Walks at a time: the sets of a union, exports."""
BYTES_MAX: Final = 8 * MIB
"""Of suffixes of one key; the order of more is found anew each time."""


class Source(Protocol):
    """A transaction of LMDB that only reads."""

    def range(self, low: bytes, high: bytes | None, /) -> Iterator[tuple[bytes, bytes]]: ...


class _Group(NamedTuple):
    snapshot: int
    suffixes: list[bytes]


class LongKeys:
    """The suffixes of the rows of long keys, in order."""

    def __init__(self, source: Source, snapshot: Callable[[], int]) -> None:
        """``snapshot`` is another number whenever ``source`` shows another state."""
        self._source: Final = source
        self._snapshot: Final = snapshot
        self._groups: Final[dict[bytes, _Group]] = {}

    @staticmethod
    def has(keyspace: KeyspaceId, key: bytes) -> bool:
        """Whether a key is so long that LMDB does not order its rows."""
        return len(layout.row_key(keyspace, key, b"")) >= layout.ORDER_BYTES

    def lowest(self, keyspace: KeyspaceId, key: bytes, low: bytes, high: bytes, wanted: int) -> list[bytes]:
        """Of a key of which `has` is true, the ``wanted`` lowest suffixes in [low, high), in order."""
        suffixes = self._ordered(layout.row_key(keyspace, key, b""))
        first = bisect_left(suffixes, low)
        return suffixes[first : min(first + wanted, bisect_left(suffixes, high, first))]

    def _ordered(self, beginning: bytes) -> list[bytes]:
        """All suffixes of the row keys with this beginning, which no other key's have."""
        snapshot = self._snapshot()
        group = self._groups.pop(beginning, None)
        if group is None or group.snapshot != snapshot:
            group = _Group(snapshot, sorted(self._read(beginning)))
            if sum(map(len, group.suffixes)) > BYTES_MAX:
                return group.suffixes
        self._groups[beginning] = group
        if len(self._groups) > KEYS_MAX:
            del self._groups[next(iter(self._groups))]
        return group.suffixes

    def _read(self, beginning: bytes) -> Iterator[bytes]:
        prefix = layout.order_prefix(beginning)
        for lmdb_key, data in self._source.range(prefix, None):
            if layout.order_prefix(lmdb_key) != prefix:
                return
            row_key = layout.row_key_of(lmdb_key, data)
            if row_key.startswith(beginning):
                yield row_key[len(beginning) :]
