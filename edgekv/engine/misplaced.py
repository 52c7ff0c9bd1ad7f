"""Misplaced rows: those of the default keyspace at keys that another keyspace has by now.

A keyspace is created where no hub has keys below its prefix. A node that has not heard of it yet may still write some, in the default
keyspace. Such a change is carried everywhere as any other of its keyspace, and its rows lie in LMDB where it was made; but no reader
comes there any more, and above LMDB, where rows have no keyspace, it has none. So nothing is lost, and nothing is mixed up with what
the new keyspace holds at the same keys. It is counted from what LMDB has: no restart forgets it.
"""

from itertools import islice
from typing import Final

from edgekv.crdt.operation import PUT
from edgekv.crdt.register import Cell
from edgekv.engine.keyspaces import DEFAULT_ID, Keyspace, Keyspaces, successor
from edgekv.store import layout
from edgekv.store.lmdb_store import LmdbStore
from edgekv.wal.record import Columns, Operations

ROWS_MAX: Final = 1_000
"""Of one prefix, that are looked at to count."""
KEYS_SHOWN: Final = 20


def placed(keyspaces: Keyspaces, keyspace: Keyspace, body: Columns | Operations) -> Columns | Operations:
    """A run's body without the operations on keys that are misplaced; the very same when there is none."""
    if keyspace.id != DEFAULT_ID:
        return body
    if isinstance(body, Columns):
        if keyspaces.lie_in(keyspace, body.keys):
            return body
        plain = zip(body.keys, body.values, strict=True)
        return Operations([[[PUT, key, value, 0]] if keyspaces.owner(key) is keyspace else [] for key, value in plain])
    if all(keyspaces.owner(operation[1]) is keyspace for change in body.changes for operation in change):
        return body
    return Operations([[o for o in change if keyspaces.owner(o[1]) is keyspace] for change in body.changes])


class Misplaced:
    """Of one node."""

    def __init__(self, keyspaces: Keyspaces, store: LmdbStore) -> None:
        self._keyspaces: Final = keyspaces
        self._store: Final = store

    def count(self) -> int:
        """How many keys, of the first rows below each prefix."""
        return len(self._all())

    def figures(self) -> dict[str, object]:
        """``keys``: how many, of the first rows below each prefix; ``first``: some of them."""
        keys = self._all()
        return {"keys": len(keys), "first": [key.decode(errors="backslashreplace") for key in keys[:KEYS_SHOWN]]}

    def _all(self) -> list[bytes]:
        prefixed = (keyspace for keyspace in self._keyspaces.all if keyspace.prefix and not keyspace.policy.system)
        return [key for keyspace in prefixed for key in self.keys(keyspace)]

    def keys(self, keyspace: Keyspace) -> list[bytes]:
        """Of the default keyspace, below the prefix of this one."""
        low = layout.key_start(DEFAULT_ID, keyspace.prefix)
        end = successor(low)
        found: dict[bytes, None] = {}
        for lmdb_key, data in islice(self._store.range(layout.order_prefix(low), end), ROWS_MAX):
            if layout.is_clear_or_count(data):
                continue
            row = layout.decode_row(data, self._store.actor_of)
            if not (isinstance(row, Cell) and row.value is None):
                found[layout.split(layout.row_key_of(lmdb_key, data))[1]] = None
        return list(found)
