"""What a client can do with keys: the verbs of every interface, on one node.

By noun: strings (node/strings.py), keys (keys.py), sets (sets.py), maps (maps.py), siblings (siblings.py), several at once (batch.py).
Nothing here waits: a verb returns at once, and its caller holds the reply until ``engine.barrier`` is durable. Verbs that decide by a
state (APPEND, RENAME, SET XX, GETDEL) decide by this node's state.

Errors: InvalidRequest and TooLarge for bad keys and values, WrongType, NotANumber, Denied, and whatever admission refuses with
(DiskFull, ReadOnly). When a verb raises, nothing happened.
"""

from collections.abc import Sequence
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.node import batch
from edgekv.node.digest import Digest, vector_seen
from edgekv.node.keys import EXPIRY_MS_MAX, Keys, Listed, Page
from edgekv.node.maps import Maps
from edgekv.node.sets import Sets
from edgekv.node.siblings import SiblingVerbs, Values
from edgekv.node.strings import Entry, Version
from edgekv.node.verbs import INTEGER_MAX, INTEGER_MIN, value_advice

__all__ = [
    "EXPIRY_MS_MAX",
    "INTEGER_MAX",
    "INTEGER_MIN",
    "Entry",
    "Listed",
    "Operations",
    "Page",
    "Values",
    "Version",
    "value_advice",
]


class Operations(Keys):
    """The verbs of one node."""

    def __init__(self, engine: Engine, *, value_bytes_max: int) -> None:
        super().__init__(engine, value_bytes_max=value_bytes_max)
        self.sets: Final = Sets(self)
        self.maps: Final = Maps(self)
        self.siblings: Final = SiblingVerbs(self)

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """MSET: all pairs as ONE change; Denied when the keys span keyspaces."""
        batch.put_all(self, pairs)

    def batch(self, operations: Sequence[tuple[object, ...]]) -> list[object]:
        """Several operations of one keyspace as ONE change, and the result of each:

        ``("put", key, value, expiry_ms)`` None, ``("delete", key)`` whether it existed, ``("add", key, n)`` the sum,
        ``("sadd", key, members)`` and ``("hset", key, pairs)`` how many are new, ``("srem", key, members)`` and
        ``("hdel", key, fields)`` how many there were, ``("hadd", key, field, n)`` the sum. Each sees what the earlier ones did.
        """
        return batch.run(self, operations)

    def keyspaces(self) -> list[dict[str, object]]:
        """The keyspaces in the order of their prefixes: name, prefix (bytes), consistency, conflict, durability, ttl_s, system."""
        ordered = sorted(self.engine.keyspaces.all, key=lambda keyspace: keyspace.prefix)
        return [{**keyspace.policy.figures(), "state": keyspace.state} for keyspace in ordered]

    def digest(self, keyspace: str, ttl_ms: int | None = None, prefix: bytes = b"") -> Digest:
        """Begin to digest what readers are shown of a keyspace (node/digest.py). InvalidRequest: there is none of that name."""
        return Digest(self, keyspace, ttl_ms, prefix)

    def vectors(self) -> dict[str, dict[str, int]]:
        """By the name of each keyspace what readers here see of it, as a digest names it."""
        engine = self.engine
        return {keyspace.name: vector_seen(keyspace, engine.actor) for keyspace in engine.keyspaces.all}

    def status(self) -> dict[str, object]:
        """The node's figures, for /v1/status and the CLI."""
        return self.engine.status()
