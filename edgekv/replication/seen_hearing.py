"""SEENs that come: who may say what of whom, and what of it can be.

- An edge speaks for itself. A hub passes on what it has heard of others.
- What is said of a node, or names a node or a keyspace, that this node does not know waits on its link until meta, or the changes that
  are under way, have told of them. Later words of the same member wait behind it: each adds to the one before.
- What a member said of a keyspace before its site was added again is of a copy that is gone (replication/keyspace_list.py): it does
  not count, however late it comes. As little counts what it said of entries of meta that are given up (lines.py).
- So a table of SEENs has no more than the members, and each no more than the actors that there are. Whether what is named *exists* is
  asked before it counts (replication/seen.py).
"""

from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import PeerFault
from edgekv.ids import Actor, KeyspaceId, Vector, actor_text
from edgekv.limits import SEEN_WAITING_ENTRIES_MAX
from edgekv.replication.link import Link
from edgekv.replication.members import Member, Members
from edgekv.replication.messages import Seen
from edgekv.replication.seen import SeenTable


class SeenHearing:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        table: SeenTable,
        members: Members,
        heard: Callable[[Actor, int, Vector], None],
        gone: Callable[[Actor, int], None],
        is_astray: Callable[[Actor, int], bool],
    ) -> None:
        """``heard``: a member has this of a keyspace. ``gone``: it has deleted the copy of which it spoke.

        ``is_astray``: see `Lines`.
        """
        self._engine: Final = engine
        self._table: Final = table
        self._members: Final = members
        self._begun: Final[dict[tuple[int, str], int]] = {}
        """By keyspace and site the revision that added it, of which the table knows."""
        self._left: set[tuple[int, Actor]] = set()
        """Keyspaces and who has left them, of which it knows."""
        self._heard: Final = heard
        self._gone: Final = gone
        self._is_astray: Final = is_astray
        self._writer: Actor | None = None
        """Of meta, of which it knows."""

    @staticmethod
    def check(link: Link, said: list[Seen]) -> None:
        """PeerFault: a peer says what members have seen, and has no business to."""
        assert link.peer is not None
        for seen in said:
            if link.peer.role != "hub" and seen.actor != link.peer.actor:
                raise PeerFault(f"it is an edge, and says what {actor_text(seen.actor)} has seen.")

    def heard(self, link: Link, said: list[Seen]) -> None:
        """A peer says what members have seen. PeerFault: too much of it is what nobody can make sense of."""
        link.seens.waiting.extend(said)
        self.take(link)
        waiting = sum(1 + sum(map(len, seen.vectors.values())) for seen in link.seens.waiting)
        if waiting > SEEN_WAITING_ENTRIES_MAX:
            raise PeerFault(f"it says what members have seen that this node knows nothing of, {waiting} entries.")

    def take(self, link: Link) -> None:
        """Take in what this node knows enough for by now."""
        assert link.peer is not None
        self.begin_again()
        if not link.seens.waiting or not self._members.is_open(link.peer.actor):
            return
        waiting: list[Seen] = []
        behind: set[Actor] = set()
        for seen in link.seens.waiting:
            member = self._members.members.get(seen.actor)
            if member is not None and self._is_over(seen, member):
                continue
            now = seen if member is None else self._of_now(seen, member)
            if member is None or member.state == "settled" or seen.actor in behind or not self._knows_all(now):
                behind.add(seen.actor)
                waiting.append(seen)
            else:
                self._table.hear(now)
                for keyspace, vector in now.vectors.items():
                    self._heard(seen.actor, keyspace, vector)
        link.seens.waiting[:] = waiting

    def begin_again(self) -> None:
        """Forget what was said of keyspaces by those who hold them anew, as soon as meta says so: what they say then is all of it.

        And by those who have left: a leader that was set back since can never prove what was in their copies, nor anything said later.
        """
        members = self._members
        if members.writer != self._writer:
            self._writer = members.writer
            self._table.keep_meta(self._is_astray)
        for number, entry in members.keyspaces.items():
            for site, revision in entry.since.items():
                if self._begun.get((number, site)) != revision:
                    self._begun[number, site] = revision
                    for member in members.members.values():
                        if member.site == site:
                            self._forget_copy(member.actor, number)
        left = {(number, actor) for number, entry in members.keyspaces.items() for actor in entry.left}
        for number, actor in left - self._left:
            self._forget_copy(actor, number)
        self._left = left

    def _forget_copy(self, actor: Actor, number: int) -> None:
        self._table.begin_again(actor, number)
        self._gone(actor, number)

    def _of_now(self, seen: Seen, member: Member) -> Seen:
        """Without what it says of copies that are gone, and of entries of meta that are given up."""
        if any(self._is_astray(a, seq) for a, seq in seen.vectors.get(META_ID, {}).items()):
            meta = {a: seq for a, seq in seen.vectors[META_ID].items() if not self._is_astray(a, seq)}
            seen = seen._replace(vectors={**seen.vectors, META_ID: meta})
        keyspaces = self._members.keyspaces
        gone = {
            number
            for number in seen.vectors.keys() & keyspaces.keys()
            if keyspaces[number].is_gone(member.actor, member.site, seen.revision)
        }
        return seen._replace(vectors={k: v for k, v in seen.vectors.items() if k not in gone}) if gone else seen

    def _is_over(self, seen: Seen, member: Member) -> bool:
        """Whether it was said before its member was settled, or opened again: what others told of that time they may tell late."""
        if member.state == "settled":
            return seen.revision <= self._members.revision
        return member.state == "open" and seen.revision < member.revision

    def forget_settled(self) -> None:
        """Nobody asks any more what they have seen."""
        members = self._members.members
        for actor in [actor for actor in self._table.spoken if actor in members and members[actor].state == "settled"]:
            self._table.forget(actor)

    def _knows_all(self, seen: Seen) -> bool:
        members, by_id = self._members.members, self._engine.keyspaces.by_id
        for number, vector in seen.vectors.items():
            keyspace = by_id.get(KeyspaceId(number))
            if keyspace is None:
                return False
            # An actor of the founder's time alone is no member.
            if any(a not in members and a not in keyspace.vector and a not in keyspace.observed for a in vector):
                return False
        return True
