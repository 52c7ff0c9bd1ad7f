"""What an operator asks of the leading hub about keyspaces: create one, add a site, take one off; and the end of a site's draining.

A hub that has no cluster yet does it to its own list; the founding writes that into meta.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import Final

from edgekv.config import NAME
from edgekv.engine.engine import Engine
from edgekv.engine.keyspace_entry import Entry, policy_of
from edgekv.engine.keyspaces import META_ID, KeyspacePolicy, Keyspaces, successor
from edgekv.errors import ConfigError, Denied, InvalidRequest, NotFound
from edgekv.ids import Actor, KeyspaceId, Vector, incarnation_of
from edgekv.limits import KEY_BYTES_MAX, UNLISTED_AT_ONCE
from edgekv.replication.keyspace_list import ListedKeyspace, listed
from edgekv.replication.log_source import covers
from edgekv.replication.members import Member, Members
from edgekv.replication.messages import Applicant
from edgekv.replication.seen import SeenTable

_PAGE: Final = 1
_IDS_OF_ONE: Final = 1 << 16
"""Ids of keyspaces that one incarnation of a leader gives."""
_ID_MAX: Final = 1 << 31
"""The highest that is taken from a member."""


class KeyspaceOrders:
    """Of one node; only one that leads, or has no cluster, carries them out."""

    def __init__(
        self,
        *,
        engine: Engine,
        members: Members,
        seen: SeenTable,
        myself: Applicant,
        write: Callable[[list[tuple[bytes, bytes]]], None],
    ) -> None:
        """``write``: one change of meta."""
        self._engine: Final = engine
        self._members: Final = members
        self._seen: Final = seen
        self._self: Final = myself
        self._write: Final = write
        self.install: Callable[[ListedKeyspace], None] = lambda entry: None
        """Set once by `Replication`: take an entry into the node's own list."""

    def create(self, name: str, prefix: bytes, sites: tuple[str, ...], *, siblings: bool) -> None:
        """A new keyspace; ``sites`` empty: every site holds it. How concurrent values conflict is fixed from now on.

        Denied: this node does not lead, the name is taken, prefixes would nest, or there are keys below the prefix. InvalidRequest: a
        name is none.
        """
        self._check_leads()
        self._check_names(name, prefix, sites)
        sites = tuple(dict.fromkeys(sites))
        policies = [keyspace.policy for keyspace in self._engine.keyspaces.all]
        if any(policy.name == name for policy in policies):
            raise Denied(f"there is a keyspace {name!r} already. See `edgekv keyspace list`.")
        number = self._next_id({*(policy.id for policy in policies), *self._members.keyspaces})
        policy = KeyspacePolicy(id=KeyspaceId(number), name=name, prefix=prefix, siblings=siblings, sites=sites)
        try:
            Keyspaces([*policies, policy])
        except ConfigError as error:
            raise Denied(f"keyspace {name!r} cannot be created: {error}") from error
        found = self._first_key(prefix)
        if found is not None:
            shown = found.decode(errors="backslashreplace")
            raise Denied(
                f"there are keys below {prefix.decode(errors='backslashreplace')!r}, {shown!r} is the first: they would be hidden. "
                "Export and delete them (edgekv export, edgekv del), create the keyspace, and import them."
            )
        self._put(listed(policy))

    def _next_id(self, taken: set[int]) -> int:
        """For a keyspace that is created: not one that an earlier incarnation of the leader may have given, in an entry that is lost.

        The first has the lowest ids; each of the others those of a place that chance has given it.
        """
        place = int.from_bytes(self._self.actor[-2:], "big") % (_ID_MAX // _IDS_OF_ONE - 1) + 1
        before = META_ID if incarnation_of(self._self.actor) == 1 else place * _IDS_OF_ONE - 1
        return next(number for number in count(before + 1) if number not in taken)

    def unknown(self, sites: Iterable[str]) -> list[str]:
        """Those of the sites at which no member stands, nor one that may come back."""
        known = {m.site for m in self._members.members.values() if m.state in ("open", "returning") or m.parked}
        return [site for site in dict.fromkeys(sites) if site not in known | {self._self.site}]

    def add_site(self, name: str, site: str) -> bool:
        """Have a site hold a keyspace; False: it does. NotFound: there is none. Denied: it cannot, or this node does not lead."""
        self._check_leads()
        self._check_names(name, b"-", (site,))
        entry = self._entry(name)
        if not entry.policy.sites or site in entry.policy.sites:
            return False
        since = entry.draining.get(site, -1)
        present = self._present(site)
        older = {
            m.name for m in present if (m.state == "open" and m.revision <= since) or self._has_forgotten(m, entry)
        }
        if older:
            raise Denied(
                f"site {site!r} was taken off keyspace {name!r}, and {', '.join(sorted(older))} forgot what they had made in it. "
                "Remove them (edgekv cluster remove), start them anew with an empty --data-dir, then add the site."
            )
        self._put(
            replace(
                entry.with_sites((*entry.policy.sites, site)),
                draining={other: revision for other, revision in entry.draining.items() if other != site},
                left=entry.left - {m.actor for m in present},
                hlcs={**entry.hlcs, site: self._engine.keyspaces.by_id[entry.policy.id].hlc},
                since={**entry.since, site: self._members.next_revision},
            )
        )
        return True

    def adopt(self, entries: list[Entry], member: Member) -> bool:
        """Take keyspaces into the list that a member has, and that were created in entries of meta which are lost.

        One that its site was added to in such entries it drains, unless it is open: it never was away. Whether any was taken. One
        whose id, name or prefix is another's by now stays with that node alone. A leader that was never restored has lost none.
        """
        adopted, has_lost = False, incarnation_of(self._self.actor) > 1
        for entry in entries[:UNLISTED_AT_ONCE] if has_lost else ():
            policies = [keyspace.policy for keyspace in self._engine.keyspaces.all]
            try:
                policy = replace(policy_of(entry), draining=())
                if not META_ID < policy.id <= _ID_MAX:
                    continue
                known = self._members.keyspaces.get(policy.id)
                if known is not None and known.policy.prefix == policy.prefix:
                    adopted |= member.state == "returning" and self._drain(known, member)
                    continue
                self._check_names(policy.name, policy.prefix, policy.sites)
                Keyspaces([*policies, policy])
            except (ConfigError, InvalidRequest, KeyError, TypeError, ValueError):
                continue
            if any(policy.id == other.id or policy.name == other.name for other in policies):
                continue
            self._put(listed(policy))
            adopted = True
        return adopted

    def _drain(self, entry: ListedKeyspace, member: Member) -> bool:
        if not entry.policy.sites or member.site in entry.policy.sites:
            return False
        draining = {member.site: self._members.next_revision, **entry.draining}
        self._put(replace(entry, draining=draining, left=entry.left - {member.actor}))
        return True

    def forgotten(self, member: Member) -> str | None:
        """A keyspace that a member would hold again of which it has forgotten what it made: it would count from one again."""
        for entry in self._members.keyspaces.values():
            if entry.policy.held_at(member.site, member.role) and self._has_forgotten(member, entry):
                return entry.policy.name
        return None

    def _present(self, site: str) -> list[Member]:
        """The members of a site that are here or may come back."""
        return [m for m in self._members.members.values() if m.site == site and (m.state == "open" or m.parked)]

    def _has_forgotten(self, member: Member, entry: ListedKeyspace) -> bool:
        """Who has left deletes its copy, its own changes with it; all of those are here."""
        return member.actor in entry.left and member.actor in self._engine.keyspaces.by_id[entry.policy.id].vector

    def remove_site(self, name: str, site: str) -> bool:
        """Take a site off a keyspace: it drains, and then deletes its copy. False: it was taken off. Otherwise as `add_site`."""
        self._check_leads()
        entry = self._entry(name)
        if site in entry.draining:
            return False
        if not entry.policy.sites:
            raise Denied(
                f"every site holds keyspace {name!r}. Only from one that was created with --sites one can be taken off."
            )
        if site not in entry.policy.sites:
            raise NotFound(f"keyspace {name!r} is not at site {site!r}. See `edgekv keyspace list`.")
        hub = next((m.name for m in self._members.open_members() if m.site == site and m.role == "hub"), None)
        if hub is not None:
            raise Denied(f"{hub!r} stands at site {site!r}: a hub holds every keyspace.")
        sites = tuple(other for other in entry.policy.sites if other != site)
        if not sites:
            raise Denied(f"{site!r} is the last site of keyspace {name!r}. Add another one first.")
        draining = {**entry.draining, site: self._members.next_revision}
        left = entry.left - {m.actor for m in self._present(site)}  # who was readmitted since the site was added again
        self._put(replace(entry.with_sites(sites), draining=draining, left=left))
        return True

    def rows(self) -> list[tuple[bytes, bytes]]:
        """What the founding writes into meta, and a leader what meta lacks."""
        return [
            listed(keyspace.policy).row
            for keyspace in self._engine.keyspaces.all
            if keyspace.id != META_ID and keyspace.id not in self._members.keyspaces
        ]

    def settle(self, own: Mapping[int, Vector]) -> None:
        """Write down who has left. ``own``: this node's durable vectors."""
        rows = self.rows()
        for number, entry in self._members.keyspaces.items():
            left = {
                member.actor
                for member in self._members.open_members()
                if self._has_left(member, entry, own.get(number, {}))
            }
            if left:
                rows.append(replace(entry, left=entry.left | left).row)
        if rows:
            self._write(rows)

    def _has_left(self, member: Member, entry: ListedKeyspace, own: Vector) -> bool:
        """Whether a member of a site that drains has said its last SEEN, and all that it says is here."""
        since, seen = entry.draining.get(member.site), self._seen.counted(member.actor)
        if since is None or seen is None or member.role == "hub" or member.actor in entry.left:
            return False
        return seen.revision >= since and covers(own, seen.vectors.get(entry.policy.id, {}))

    def _put(self, entry: ListedKeyspace) -> None:
        if self._members.founded:
            self._write([entry.row])
        self.install(entry)

    def _entry(self, name: str) -> ListedKeyspace:
        for keyspace in self._engine.keyspaces.all:
            if keyspace.name == name and not keyspace.policy.system:
                return self._members.keyspaces.get(keyspace.id, listed(keyspace.policy))
        raise NotFound(f"there is no keyspace {name!r}. See `edgekv keyspace list`.")

    def _first_key(self, prefix: bytes) -> bytes | None:
        barrier, low = self._engine.barrier, prefix
        try:
            while True:
                page = self._engine.reads.range(low, successor(prefix), _PAGE)
                if page.found or page.next_key is None:
                    return page.found[0].key if page.found else None
                low = page.next_key
        finally:
            self._engine.barrier = barrier

    def _check_leads(self) -> None:
        members = self._members
        if self._engine.admission.read_only is not None:
            raise self._engine.admission.read_only
        if members.founded and not (members.leader == self._self.node and members.is_open(self._self.actor)):
            leader = next(
                (m.name for m in members.open_members() if m.node == members.leader), "the hub that founded it"
            )
            raise Denied(f"this node does not lead the cluster. Ask {leader!r}.")
        if self._engine.admission.outsider is not None:
            raise self._engine.admission.outsider

    @staticmethod
    def _check_names(name: str, prefix: bytes, sites: tuple[str, ...]) -> None:
        for each in (name, *sites):
            if not NAME.fullmatch(each):
                raise InvalidRequest(f"{each!r} is not a name: use letters, digits, dots, dashes or underscores.")
        if not 0 < len(prefix) <= KEY_BYTES_MAX:
            raise InvalidRequest(f"the prefix has {len(prefix)} bytes; it needs 1 to {KEY_BYTES_MAX}.")


def still_draining(entry: ListedKeyspace, members: Mapping[Actor, Member]) -> tuple[str, ...]:
    """The sites that were taken off, of which a member has not left yet."""
    waiting = {m.site for m in members.values() if m.state == "open" and m.role != "hub" and m.actor not in entry.left}
    return tuple(site for site in entry.draining if site in waiting)
