"""A keyspace in meta: its policy, and which sites hold it, are leaving it, have left it.

    _meta/keyspace/<id>    the entry of keyspaces.json (engine/keyspace_entry.py), and
                           "draining": {site: revision}    sites that were taken off it, at which revision of meta
                           "left": [actor, ...]            of those sites: all that they had of it is at the leader
                           "hlcs": {site: hlc}             the leader's when a site was added: its nodes stamp above it
                           "since": {site: revision}       when that was: what its nodes said before is of an earlier copy

A member *counts*, which holds the stable cut, from the revision on that adds its site, though it has said nothing yet: what it has of
the keyspace is nothing then, and so is the cut, until it speaks. A member whose site was taken off counts until it is in ``left``: it
may have made changes before it knew, which are to meet no purged tombstone. The leader writes that down when it has heard a SEEN that
the member said at a revision that knows of it, and covers it. After that the member deletes its copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgekv.codec import pack
from edgekv.engine.keyspace_entry import Entry, entry_of, policy_of
from edgekv.engine.keyspaces import META_PREFIX, KeyspacePolicy
from edgekv.ids import Actor

KEYSPACE_PREFIX: Final = META_PREFIX + b"keyspace/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKeyspace:
    """One entry."""

    policy: KeyspacePolicy
    draining: Mapping[str, int]
    left: frozenset[Actor]
    hlcs: Mapping[str, int]
    since: Mapping[str, int]

    @property
    def row(self) -> tuple[bytes, bytes]:
        """Its row in meta: key and value."""
        more = {
            "draining": dict(self.draining),
            "left": sorted(self.left),
            "hlcs": dict(self.hlcs),
            "since": dict(self.since),
        }
        return KEYSPACE_PREFIX + b"%d" % self.policy.id, pack({**entry_of(self.policy), **more})

    def counts(self, actor: Actor, site: str, role: str) -> bool:
        """Whether what a member has seen of it holds the stable cut, and what it has made may still be wanted."""
        return self.policy.held_at(site, role) or (site in self.draining and actor not in self.left)

    def is_gone(self, actor: Actor, site: str, revision: int) -> bool:
        """Whether the copy of which a member spoke at a revision is not there any more: its site has left it since."""
        return actor in self.left or self.since.get(site, 0) > revision

    def with_sites(self, sites: tuple[str, ...]) -> "ListedKeyspace":
        """The same at other sites."""
        return replace(self, policy=replace(self.policy, sites=sites))


def listed(policy: KeyspacePolicy) -> ListedKeyspace:
    """A keyspace that no site has joined or left since it was created."""
    return ListedKeyspace(policy=policy, draining={}, left=frozenset(), hlcs={}, since={})


def parse_listed(entry: Entry) -> ListedKeyspace:
    """An entry by the value of its row. Raises as `policy_of`."""
    more: dict[str, Any] = {field: entry.pop(field) for field in ("draining", "left", "hlcs", "since")}
    return ListedKeyspace(policy=policy_of(entry), **{**more, "left": frozenset(map(Actor, more["left"]))})
