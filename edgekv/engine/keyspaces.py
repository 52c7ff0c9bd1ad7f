"""Keyspaces: the unit of policy, replication and causality, chosen by key prefix.

Prefixes do not nest (only the default keyspace has the empty one), so keyspaces are disjoint intervals of the key order and the
keyspace of a key is one bisection; that of a run of keys is two, of its least and greatest key. Keyspaces are created while a node
runs: `Keyspaces.add` cuts another interval out of the default one's.

A `Keyspace` also holds the state that its changes move: the HLC, the next sequence number of this node's own actor, and the durable
vector with its chain values. Only engine/commit.py and engine/recovery.py change it.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from edgekv.errors import ConfigError, Denied, Overloaded
from edgekv.ids import Actor, KeyspaceId

DEFAULT_NAME: Final = "default"
DEFAULT_ID: Final = KeyspaceId(0)
META_NAME: Final = "_meta"
META_ID: Final = KeyspaceId(1)
META_PREFIX: Final = b"_meta/"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyspacePolicy:
    """What an operator decides about a keyspace. ``id`` comes from meta and is never given twice."""

    id: KeyspaceId
    name: str
    prefix: bytes
    fsync: bool = True
    """False: acknowledged after the write, synced within 100 ms ("buffered")."""
    system: bool = False
    """Written by EdgeKV itself only."""
    ttl_ms: int = 0
    """Expiry given to writes that name none; 0: none."""
    siblings: bool = False
    """Concurrent values of a register are kept side by side, until a writer who has read them puts one in their place."""
    late_drop: bool = False
    """Values that a member wrote while it was parked are dropped when it comes back, and listed."""
    consistency: str = "crdt"
    sites: tuple[str, ...] = ()
    """That hold it; none: every site does."""
    draining: tuple[str, ...] = ()
    """That were taken off it, and may still have a copy."""

    def held_at(self, site: str, role: str) -> bool:
        """Whether a node of this site and role has its data. Hubs have everything, and everybody has meta."""
        return role == "hub" or not self.sites or self.system or site in self.sites

    def figures(self) -> dict[str, object]:
        """The same in the words of the configuration."""
        return {
            "name": self.name,
            "prefix": self.prefix,
            "consistency": self.consistency,
            "conflict": "siblings" if self.siblings else "lww",
            "late_write": "drop" if self.late_drop else "keep",
            "durability": "fsync" if self.fsync else "buffered",
            "ttl_s": self.ttl_ms // 1000,
            "system": self.system,
            "sites": list(self.sites),
            "draining": list(self.draining),
        }


class Head(NamedTuple):
    """How far one actor's history reaches in a keyspace: its last seq, and the chain value after the run that ends there."""

    seq: int
    chain: int


class Keyspace:
    """One keyspace of this node: its policy, and the state that changes move."""

    __slots__ = (
        "absent",
        "chain",
        "flips",
        "fsync",
        "held",
        "hlc",
        "hlc_logged",
        "id",
        "mixed",
        "name",
        "observed",
        "policy",
        "prefix",
        "row_prefix",
        "seq",
        "siblings",
        "ttl_ms",
        "vector",
    )

    def __init__(self, policy: KeyspacePolicy) -> None:
        self.policy = policy
        self.id, self.name, self.prefix = policy.id, policy.name, policy.prefix
        self.fsync, self.ttl_ms, self.siblings = policy.fsync, policy.ttl_ms, policy.siblings
        self.row_prefix = policy.id.to_bytes(4, "big")
        self.hlc = 0
        """The highest HLC made or seen. Never decreases."""
        self.hlc_logged = 0
        """The highest HLC of a change that is in the log as written: what a checkpoint may say without hiding what follows it."""
        self.seq = 0
        """The last sequence number that this node's own actor has issued here (durable or not)."""
        self.chain = 0
        """The own actor's chain value after the last run handed to the log."""
        self.mixed = policy.siblings
        """Whether a key here may hold rows other than its register. Until it does, a SET need not look for others to clear."""
        self.absent = False
        """Its data is not at this site: a node of another one answers for it."""
        self.held = False
        """It takes the rows of a spool over (engine/flip.py): no run of another actor is received, and no system clear made."""
        self.flips = 0
        """How often it has done so in this process: the vector moved then past the log."""
        self.vector: dict[Actor, Head] = {}
        """Durable: what the log covers."""
        self.observed: dict[Actor, Head] = {}
        """Of the other actors, what was received from peers: readers see it, the log may not have it yet."""

    @property
    def state(self) -> str:
        """Of this node's copy: ``held``; ``draining`` when it is about to go; ``elsewhere`` when there is none."""
        if not self.absent:
            return "held"
        return "draining" if self.vector else "elsewhere"

    def check_held(self) -> None:
        """Raise what refuses a received run while the keyspace is held, from whoever did not wait."""
        if self.held:
            raise Overloaded(f"keyspace {self.name!r} takes over rows of another node just now. Try again in a moment.")


def successor(prefix: bytes) -> bytes | None:
    """The least key above every key that starts with ``prefix``; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


class Interval(NamedTuple):
    """Keys in [low, high) that belong to one keyspace; high None: no upper end."""

    low: bytes
    high: bytes | None
    keyspace: Keyspace


class Keyspaces:
    """The table of keyspaces. Raises ConfigError when prefixes nest or repeat."""

    def __init__(self, policies: Iterable[KeyspacePolicy]) -> None:
        self.all: Final = [Keyspace(policy) for policy in policies]
        self.by_id: Final = {keyspace.id: keyspace for keyspace in self.all}
        self._divide()

    def add(self, policy: KeyspacePolicy) -> Keyspace:
        """One more, in the place of which the default keyspace was. ConfigError: its prefix nests or repeats; nothing is added."""
        keyspace = Keyspace(policy)
        self.all.append(keyspace)
        try:
            self._divide()
        except ConfigError:
            self.all.pop()
            raise
        self.by_id[policy.id] = keyspace
        return keyspace

    def _divide(self) -> None:
        self._check()
        cuts = {cut for k in self.all for cut in (k.prefix, successor(k.prefix)) if cut is not None}
        self._edges = sorted(cuts | {b""})
        self._owner = [self._owner_of(edge) for edge in self._edges]

    def _check(self) -> None:
        prefixes = sorted(k.prefix for k in self.all)
        if b"" not in prefixes:
            raise ConfigError("there is no default keyspace; one keyspace must have the empty prefix.")
        for lower, upper in pairwise(prefixes):
            if (lower and upper.startswith(lower)) or lower == upper:
                raise ConfigError(
                    f"the keyspace prefixes {lower!r} and {upper!r} overlap; choose prefixes of which none begins with another."
                )

    def _owner_of(self, edge: bytes) -> Keyspace:
        return max((k for k in self.all if edge.startswith(k.prefix)), key=lambda k: len(k.prefix))

    def of(self, key: bytes) -> Keyspace:
        """The keyspace of a key. Denied when it is not at this site."""
        found = self._owner[bisect_right(self._edges, key) - 1]
        if found.absent:
            raise _not_here(found)
        return found

    def owner(self, key: bytes) -> Keyspace:
        """The keyspace of a key, at this site or not."""
        return self._owner[bisect_right(self._edges, key) - 1]

    def lie_in(self, keyspace: Keyspace, keys: Collection[bytes]) -> bool:
        """Whether all these keys are the keyspace's now."""
        low, high = bisect_right(self._edges, min(keys)), bisect_right(self._edges, max(keys))
        if low == high:
            return self._owner[low - 1] is keyspace
        return all(self.owner(key) is keyspace for key in keys)

    def may_hold(self, keyspace: Keyspace, keys: Collection[bytes]) -> bool:
        """Whether changes of these keys may belong to a keyspace: the keys lie in it, or did when its maker had not heard of another.

        Of the latter only the default one has any: a key that another keyspace's prefix took from it is *misplaced* in it.
        """
        low, high = bisect_right(self._edges, min(keys)), bisect_right(self._edges, max(keys))
        if low == high and self._owner[low - 1] is keyspace:
            return True
        owners = {id(owner): owner for owner in map(self.owner, keys)}.values()
        return all(o is keyspace or (keyspace.id == DEFAULT_ID and not o.policy.system) for o in owners)

    def of_run(self, keys: Sequence[bytes]) -> Keyspace | None:
        """The one keyspace of all keys; None when they span several. Denied when it is not at this site."""
        if len(self._edges) == 1:
            return self._owner[0]
        low = bisect_right(self._edges, min(keys))
        if low == bisect_right(self._edges, max(keys)):
            found = self._owner[low - 1]
        else:  # on both sides of another's prefix: of ``_meta/``, "A" and "a" are
            owners = {self._owner[bisect_right(self._edges, key) - 1] for key in keys}
            if len(owners) > 1:
                return None
            (found,) = owners
        if found.absent:
            raise _not_here(found)
        return found

    def intervals(self, low: bytes, high: bytes | None) -> list[Interval]:
        """The pieces of [low, high) in key order, each within one keyspace that is at this site.

        EdgeKV's own rows are passed by, unless they are asked for by their prefix.
        """
        pieces: list[Interval] = []
        for i in range(bisect_right(self._edges, low) - 1, len(self._edges)):
            begin = max(low, self._edges[i])
            last = self._edges[i + 1] if i + 1 < len(self._edges) else None
            end = high if last is None else last if high is None else min(high, last)
            if high is not None and begin >= high:
                break
            owner = self._owner[i]
            hidden = owner.policy.system and not low.startswith(owner.prefix)
            if not owner.absent and not hidden:
                pieces.append(Interval(begin, end, self._owner[i]))
        return pieces


def _not_here(keyspace: Keyspace) -> Denied:
    sites = ", ".join(keyspace.policy.sites)
    return Denied(f"keyspace {keyspace.name!r} is not at this site. Ask a node of one of its own ({sites}), or a hub.")
