"""What the leading hub writes into meta: the founding, members, what is settled, and STABLE.

One node leads: the hub that founded the cluster. It writes on the very revision that it computed from, since nobody else writes and it
waits until what it wrote is durable. (The seam for Raft: a group writes these entries instead, and a hub that does not lead asks it.)

A leader that was restored goes on under a new actor. Its meta may lack its own last entries, so it leads again when every member it
knows of has shown its vectors and it has caught up with all of them; then it admits itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from edgekv.crdt.operation import PUT, Operation
from edgekv.engine.engine import Engine
from edgekv.engine.intake import seen
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import Denied, NotFound, Replaced, Unavailable
from edgekv.ids import Actor, Vector, actor_text, incarnation_of
from edgekv.limits import RESTORED_WAIT_MS, RETURN_LEASE_MS, STRANGERS_HEARD_MAX, VALUE_BYTES_MAX
from edgekv.replication.keyspace_orders import KeyspaceOrders
from edgekv.replication.log_source import covers
from edgekv.replication.members import (
    CLUSTER_KEY,
    SILENCE_KEY,
    STABLE_KEY,
    Announced,
    Member,
    Members,
    State,
    pack_announced,
    pack_cluster,
    pack_silences,
)
from edgekv.replication.messages import Applicant, Hello, Return
from edgekv.replication.readmission import brought, opened, owed, undelivered
from edgekv.replication.seen import SeenTable
from edgekv.replication.silence import Silence
from edgekv.replication.stability import compute_stable, raised, settled_heads
from edgekv.store.applied import Stable

STABLE_INTERVAL_MS: Final = 5_000
EXPIRED_AT_ONCE: Final = 200
"""Entries of the expiry index that are looked at in a second."""
_LOST_NUMBERS: Final = 1 << 28
"""Of STABLEs: what a leader announces in forty years."""
WALL_STEP_MS: Final = 60_000
"""A STABLE that says nothing new but a later wall waits until it is so much later."""


class Leader:
    """The leader's part of a node; idle in one that does not lead."""

    def __init__(
        self,
        engine: Engine,
        members: Members,
        table: SeenTable,
        applicant: Applicant,
        silence: Silence,
        monotonic_ms: Callable[[], int],
    ) -> None:
        """``applicant``: this node itself."""
        self._engine: Final = engine
        self._members: Final = members
        self._seen: Final = table
        self._self: Final = applicant
        self._silence: Final = silence
        self._monotonic_ms: Final = monotonic_ms
        self._waits_since_ms: int | None = None
        """When it began to wait for those who may know what it has forgotten."""
        self.keyspaces: Final = KeyspaceOrders(
            engine=engine, members=members, seen=table, myself=applicant, write=self._write
        )
        self._announced_at_ms = 0
        self._heard: Final[dict[bytes, Hello]] = {}
        """By node, what members said when they came, until this node leads again."""
        self._restored: Final[set[bytes]] = set()
        """Nodes of members that are at another hub as another incarnation, until then."""

    @property
    def is_leader(self) -> bool:
        """Whether this node writes meta, perhaps not yet again."""
        return self._members.leader == self._self.node

    @property
    def leads(self) -> bool:
        """Whether it may write now."""
        return self.is_leader and self._members.is_open(self._self.actor)

    def found(self) -> None:
        """A lone hub becomes the first member of its cluster: now others may come."""
        assert not self._members.founded
        floors = {keyspace.id: vector_of(self._engine, keyspace.id) for keyspace in self._engine.keyspaces.all}
        self._write(
            [
                self._cluster({k: v for k, v in floors.items() if v and k != META_ID}),
                self._entry(self._open(self._self)),
                *self.keyspaces.rows(),
            ]
        )

    def admit(self, applicant: Applicant, *, late: bool = False) -> bool:
        """Make a node a member, and close the actors that it had before; whether anything was written.

        ``late``: it comes with changes that may meet what was forgotten, though meta does not know it: it was a member in entries that
        are lost. Denied: its name is taken, it was removed, or it is a copy of this node.
        """
        members = self._members
        if applicant.node == self._self.node and applicant.actor != self._self.actor:
            raise Denied(
                "it is a copy of the directory of the node that leads, which runs. Start it with an empty --data-dir."
            )
        known, earlier = members.members.get(applicant.actor), members.of_node(applicant.node)
        if known is not None and known.state in ("open", "returning"):
            return False
        is_open = any(m.state == "open" for m in earlier)
        may_return = any(m.parked for m in earlier) if known is None else known.parked
        if (known is not None and is_open) or (earlier and not is_open and not may_return):
            raise refusal_of(applicant, is_open)
        for other in members.open_members():
            if other.name == applicant.name and other.node != applicant.node:
                raise Denied(f"there is a node {applicant.name!r} already. Start this one with another --node name.")
        if may_return and not is_open:
            return self._take_back(applicant, known, earlier)
        if late and not is_open:
            return self._begin_return(applicant, None)
        closed = [m for m in earlier if m.state == "open"]
        self._write(
            [
                *(self._begun_anew() if applicant == self._self else []),
                *(self._entry(self._changed(member, "closed", {})) for member in closed),
                self._entry(self._open(applicant)),
            ]
        )
        return True

    def _begun_anew(self) -> list[tuple[bytes, bytes]]:
        """This incarnation leads from now on. It may lack what one that returns was to cover: that one begins again.

        It may be several, each in another life of this node that it has forgotten.
        """
        returning = [member for member in self._members.members.values() if member.state == "returning"]
        return [
            self._cluster(self._members.floors),
            *(self._entry(self._return_ended(member)) for member in returning),
        ]

    def _return_ended(self, member: Member) -> Member:
        return replace(self._changed(member, "settled", member.heads), need={})

    def _take_back(self, applicant: Applicant, known: Member | None, earlier: list[Member]) -> bool:
        """A member that was parked is there (replication/readmission.py); False: nothing was written, and it has to wait."""
        if known is not None and known.state == "closed":
            self._write([self._entry(self._changed(known, "open", {}, parked=False))])
            return True
        ended = [m for m in earlier if m.state == "returning"] if known is None else []
        if ended:  # it was restored amid its return: what it was to bring is as late as before
            self._write([self._entry(self._return_ended(m)) for m in ended])
            self._begin_return(applicant, None)
            return True
        if known is None and not any(m.parked and m.state == "settled" for m in earlier):
            self._write([self._entry(m) for m in [*(replace(m, parked=False) for m in earlier), self._open(applicant)]])
            return True
        return self._begin_return(applicant, known)

    def _begin_return(self, applicant: Applicant, known: Member | None) -> bool:
        """False: another one returns just now."""
        others = [k.id for k in self._engine.keyspaces.all if k.id != META_ID]
        own: dict[int, Vector] = {number: vector_of(self._engine, number) for number in others}
        if self._members.returning is not None or not brought(self._members, own):
            return False
        now = self._open(applicant)
        if known is None:
            heads = {number: vector[applicant.actor] for number, vector in own.items() if applicant.actor in vector}
            member = replace(now, heads=heads)
        else:
            member = replace(now, heads=known.heads, late=known.late)
        self._silence.heard(applicant.actor)  # it has the whole lease, though an earlier return of it has run out
        self._write([self._entry(replace(member, state="returning", need=own, parked=True))])
        return True

    def returned(self, message: Return) -> bool:
        """A member says how its return stands; whether it is a member again by that. What it said of an earlier one does not count.

        One that is open says which keyspaces the list lacks.
        """
        member = self._members.members.get(message.actor)
        if member is None or member.revision != message.revision:
            return False
        if member.state == "open":
            return self.keyspaces.adopt(message.keyspaces, member)
        if member.state != "returning":
            return False
        self._silence.heard(member.actor)
        if self.keyspaces.adopt(message.keyspaces, member) or not message.whole:
            return False
        self._write([self._entry(m) for m in opened(self._members, member, message.late, self._members.next_revision)])
        return True

    def readmit(self, name: str) -> bool:
        """Let a member come back that was removed; False: it is one, or may. NotFound: there is none. Denied: it has forgotten."""
        known = [member for member in self._members.members.values() if member.name == name]
        if not known:
            raise NotFound(f"there is no member {name!r}. See `edgekv cluster members`.")
        if any(member.parked or member.state == "open" for member in known):
            return False
        newest = max(known, key=lambda member: member.actor)  # by its incarnation
        forgotten = self.keyspaces.forgotten(newest)
        if forgotten is not None:
            raise Denied(
                f"{name!r} forgot what it had made in keyspace {forgotten!r} when its site was taken off it, and the site has been "
                "added again. Start it anew with an empty --data-dir."
            )
        self._write([self._entry(replace(newest, parked=True))])
        return True

    def remove(self, name: str) -> bool:
        """Close a member that will not come back; False: it is closed already. NotFound: there is none. Denied: it leads."""
        known = [member for member in self._members.members.values() if member.name == name]
        if not known:
            raise NotFound(f"there is no member {name!r}. See `edgekv cluster members`.")
        if any(member.node == self._self.node for member in known):
            raise Denied(f"{name!r} leads the cluster, and cannot be removed from it.")
        closed = [self._changed(member, "closed", {}, parked=False) for member in known if member.state == "open"]
        away = [
            replace(member, state="settled" if member.state == "returning" else member.state, parked=False, need={})
            for member in known
            if member.parked
        ]
        if closed or away:
            self._write([self._entry(member) for member in [*closed, *away]])
        return bool(closed or away)

    def heard_hello(self, hello: Hello) -> None:
        """A member came: for a leader that has to find out what it has forgotten, perhaps that there is a cluster."""
        if (self.is_leader or not self._members.founded) and not self.leads:
            known = {member.node for member in self._members.open_members()}
            if hello.node in known or len(self._heard.keys() - known) < STRANGERS_HEARD_MAX:
                self._heard[hello.node] = hello

    def heard_of(self, applicant: Applicant) -> None:
        """A hub asks that another incarnation of a member be admitted: that one was restored as well, and is there."""
        if self.is_leader and not self.leads:
            open_actors = [m.actor for m in self._members.of_node(applicant.node) if m.state == "open"]
            if open_actors and applicant.actor not in open_actors:
                self._restored.add(applicant.node)

    def tick(self, now_ms: int, own: Mapping[int, Vector]) -> None:
        """Settle what can be, announce what is stable. ``own``: this node's durable vectors."""
        if not self._members.all_durable():
            return
        if not self.leads:
            if self.is_leader:
                self._return(own)
        else:
            self._park(own)
            is_calm = self._members.returning is None  # until a return is over nothing more is forgotten
            if is_calm and self._members.all_durable():
                self._settle(own)
            if self._members.all_durable():
                self.keyspaces.settle(own)
            if is_calm and self._members.all_durable() and not 0 <= now_ms - self._announced_at_ms < STABLE_INTERVAL_MS:
                self._announced_at_ms = now_ms
                self._announce(own)
            self._clear_expired()

    def _return(self, own: Mapping[int, Vector]) -> None:
        """After a restore: everybody is here, and nothing that they have is missing, nor what one has who came meanwhile.

        Here is who greeted this node, or whom a hub that did has heard of, or wants to have admitted under another incarnation.
        Whom it does not know it waits for as long as they take to come who are linked to it whenever they can be.
        Of a member that was restored as well only its meta counts: its changes it sends when it is admitted, which this leader does;
        and of keyspaces that this node has forgotten nothing: they come when it takes them into the list again.
        """
        meta = own.get(META_ID, {})
        others = {
            member.node
            for member in self._members.open_members()
            if member.node != self._self.node and not self._seen.has_said(member.actor, META_ID, meta)
        }
        complete = others <= self._heard.keys() | self._restored and all(
            covers(own.get(keyspace, {}), {actor: seq for actor, (seq, _) in vector.items()})
            for hello in self._heard.values()
            for keyspace, vector in hello.vectors.items()
            if keyspace in own and (keyspace == META_ID or self._members.is_open(hello.actor))
        )
        now_ms = self._monotonic_ms()
        if self._waits_since_ms is None:
            self._waits_since_ms = now_ms
        if complete and now_ms - self._waits_since_ms >= RESTORED_WAIT_MS:
            self._heard.clear()
            self._restored.clear()
            self.admit(self._self)

    def force(self) -> bool:
        """Lead again without those who have not come back; False: it leads. Denied: it is not the leader's node."""
        if not self.is_leader:
            raise Denied("this node did not found the cluster: it cannot lead it.")
        if self.leads:
            return False
        self._heard.clear()
        self._restored.clear()
        return self.admit(self._self)

    def _park(self, own: Mapping[int, Vector]) -> None:
        parked, row = self._silence.look(self._self.node)
        changed = [self._changed(member, "closed", {}, parked=True) for member in parked]
        owing = owed(self._members, own)
        for member in self._members.members.values():
            if self._silence.silent_ms(member.actor) < RETURN_LEASE_MS or member in parked:
                continue
            if member.state == "returning":
                changed.append(self._return_ended(member))
            elif member.state == "open" and member.revision in owing:
                changed.append(self._changed(member, "closed", {}, parked=True))
        entries = [self._entry(member) for member in changed]
        if row is not None:
            entries.append((SILENCE_KEY, pack_silences(row)))
        if entries:
            self._write(entries)

    def _settle(self, own: Mapping[int, Vector]) -> None:
        found = settled_heads(self._members.members.values(), self._seen, own)
        if found:
            members = self._members.members
            settled = [self._changed(members[a], "settled", heads) for a, heads in found.items()]
            self._write([self._entry(member) for member in [*settled, *undelivered(self._members, own)]])

    def _announce(self, own: Mapping[int, Vector]) -> None:
        members = self._members
        said = stable = compute_stable(
            members.members.values(),
            self._seen,
            own,
            members.counts,
        )
        last = members.announced
        if stable is not None and last is not None:
            stable = raised(stable, last.stable)
        if stable is not None and (last is None or _says_more(stable, last.stable)):
            row = pack_announced(self._numbered(stable, members.revision if stable == said else -1))
            if len(row) > VALUE_BYTES_MAX:
                raise Unavailable(
                    f"what is stable takes {len(row)} bytes, and an entry of meta {VALUE_BYTES_MAX}: there are too many actors or "
                    "keyspaces, and deletions are not forgotten any more."
                )
            self._write([(STABLE_KEY, row)])

    def _numbered(self, stable: Stable, said_at: int) -> Announced:
        """The next STABLE. The first of an incarnation begins far above what those before it can have given, known here or not.

        Where its cut falls, something is lost that all had: nothing that rests on any STABLE before is let in again.
        """
        actor, last = self._self.actor, self._members.announced
        known, gaps = (0, ()) if last is None else (last.number, last.gaps)
        number = known + 1
        goes_on = incarnation_of(actor) == 1 if last is None else last.by in (None, actor)
        if not goes_on:
            number += (1 + int.from_bytes(actor[-2:], "big")) * _LOST_NUMBERS  # one backup may be restored twice
            gaps = (*gaps, (known, number))
        if last is not None and not _covers_cuts(stable, last.stable):
            gaps = ((0, number),)
        return Announced(number=number, stable=stable, said_at=said_at, by=actor, gaps=gaps)

    def _clear_expired(self) -> None:
        """Remove keys whose expiry has passed for everybody (engine/expired_keys.py)."""
        announced = self._members.announced
        if announced is None or announced.stable.cuts is None or self._engine.admission.disk_full:
            return
        cuts = {keyspace: cut.cut for keyspace, cut in announced.stable.cuts.items()}
        self._engine.expired_keys.clear(cuts, announced.stable.wall_ms, EXPIRED_AT_ONCE)

    def _open(self, applicant: Applicant) -> Member:
        keyspaces = self._engine.keyspaces.all
        return Member(
            actor=applicant.actor,
            node=applicant.node,
            name=applicant.name,
            site=applicant.site,
            role=applicant.role,
            state="open",
            revision=self._members.next_revision,
            heads={},
            hlcs={keyspace.id: keyspace.hlc for keyspace in keyspaces},
            ttl_ms=self._engine.ttl_now_ms(),
            parked=False,
        )

    def _changed(self, member: Member, state: State, heads: dict[int, int], *, parked: bool | None = None) -> Member:
        """``parked`` None: as it was."""
        revision, parked = self._members.next_revision, member.parked if parked is None else parked
        return replace(member, state=state, revision=revision, heads=heads, parked=parked)

    def _cluster(self, floors: Mapping[int, Vector]) -> tuple[bytes, bytes]:
        """That this incarnation writes meta from now on, and what it has of those before it."""
        heads = seen(self._engine.keyspaces.by_id[META_ID], self._self.actor)
        line: Vector = {Actor(actor): head.seq for actor, head in heads.items() if actor != self._self.actor}
        return CLUSTER_KEY, pack_cluster(self._self.node, self._self.actor, line, floors)

    @staticmethod
    def _entry(member: Member) -> tuple[bytes, bytes]:
        return member.key, member.pack()

    def _write(self, entries: list[tuple[bytes, bytes]]) -> None:
        """One change of meta: one revision."""
        meta = self._engine.keyspaces.by_id[META_ID]
        operations: list[Operation] = [(PUT, key, value, 0) for key, value in entries]
        barrier = self._engine.barrier
        self._engine.commit.change(meta, operations)
        self._engine.barrier = barrier
        self._members.refresh()


def refusal_of(applicant: Applicant, goes_on: bool) -> Denied:
    """Why an actor is not a member any more."""
    if goes_on:
        return Replaced(
            f"{actor_text(applicant.actor)} was closed: its node goes on under another incarnation. Is it running twice?"
        )
    return Denied(
        f"{applicant.name!r} was removed from the cluster. To have it back with what it wrote, ask the hub that leads: "
        f"`edgekv cluster readmit {applicant.name}`. To have it back without, start it with an empty --data-dir."
    )


def vector_of(engine: Engine, keyspace: int) -> Vector:
    """A keyspace's durable vector."""
    heads = next(k.vector for k in engine.keyspaces.all if k.id == keyspace)
    return {Actor(actor): head.seq for actor, head in heads.items()}


def _covers_cuts(new: Stable, old: Stable) -> bool:
    assert new.cuts is not None and old.cuts is not None
    cuts = new.cuts
    return all(k == META_ID or (k in cuts and covers(cuts[k].cut, cut.cut)) for k, cut in old.cuts.items())


def _says_more(new: Stable, old: Stable) -> bool:
    """Whether a STABLE lets anything be forgotten that the last one does not, a little time apart."""
    assert new.cuts is not None and old.cuts is not None
    if new.wall_ms >= old.wall_ms + WALL_STEP_MS:
        return True
    return any(
        keyspace not in old.cuts
        or cut.parked != old.cuts[keyspace].parked
        or not covers(old.cuts[keyspace].cut, cut.cut)
        for keyspace, cut in new.cuts.items()
        if keyspace != META_ID  # each STABLE is a change of meta: it would announce itself for ever
    )
