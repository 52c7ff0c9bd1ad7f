"""Two lines of meta: a leader that was restored may go on without the last entries, and then those who have them begin anew.

A leader that was restored waits a while and takes back what its members have of the lost entries (leader.py). Who was away all that
time may have more. By then the leader has written entries of its own, so there are two *lines*; the leader's counts. Its first entry
says which incarnation writes it and what that had of the earlier ones' entries (`Members.writer`, `Members.line`). Therefore:

- Entries of an earlier incarnation beyond that are *astray*. Nobody takes them in who knows the newer line, and of a peer that has any
  nothing is taken in at all, nor is it admitted: it is only sent meta.
- By that it learns of the newer line, and sees that its own copy of meta is astray. It deletes this copy, as one of a keyspace that is
  not held any more (engine/drop.py), and takes meta anew. What it says about revisions of the old line is forgotten with its links,
  here and there: the numbers are used a second time.
- If the leader knows it, it goes on as the member that it is: it held the stable cut. If not, it comes with changes of actors that
  meta does not know. Deletions may have been forgotten that it has not seen, so they are *late*, and it returns as one that was
  parked (returning.py). It goes on taking writes all the while.

Of what was written nothing is lost: what is astray is only who was a member.
"""

from collections.abc import Callable, Mapping
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.intake import seen
from edgekv.engine.keyspaces import META_ID, Keyspace
from edgekv.ids import Actor, node_of
from edgekv.replication.link_table import LinkTable
from edgekv.replication.members import Members
from edgekv.replication.messages import ChainedVector, Hello
from edgekv.replication.seen import SeenTable


class Lines:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        members: Members,
        table: SeenTable,
        links: LinkTable,
        give_up_rows: Callable[[int], bool],
        node: bytes,
    ) -> None:
        """``give_up_rows``: see `RowIntake.give_up`. ``node``: this one."""
        self._engine: Final = engine
        self._meta: Final[Keyspace] = engine.keyspaces.by_id[META_ID]
        self._members: Final = members
        self._table: Final = table
        self._links: Final = links
        self._give_up_rows: Final = give_up_rows
        self._node: Final = node

    @property
    def is_going(self) -> bool:
        """Whether this node's copy of meta is being deleted: it talks to nobody."""
        return self._meta.absent

    @property
    def waits(self) -> bool:
        """Whether this node has no meta because it takes it anew, also after a restart: its stamp is left of an earlier copy.

        It founds no cluster then, and is not alone.
        """
        return self.is_going or (self._meta.hlc > 0 and not self._members.founded)

    def is_astray(self, actor: Actor, seq: int) -> bool:
        """Whether an entry, this one's number ``seq`` of an actor, is of a line that this node knows to be given up."""
        members = self._members
        writer = members.writer
        if writer is None or actor == writer or node_of(actor) != members.leader or seq <= members.line.get(actor, 0):
            return False
        return actor < writer or writer == self._engine.actor  # else it may be of one that leads now

    def strays(self, vector: ChainedVector) -> bool:
        """Whether a peer has any such entries."""
        return any(self.is_astray(actor, seq) for actor, (seq, _) in vector.items())

    def without_astray(self, hello: Hello) -> Hello:
        """What a peer says that it has, as far as this node will ever take it: of meta nothing, if it has any such entries."""
        if not self.strays(hello.vectors.get(META_ID, {})):
            return hello
        return hello._replace(vectors={k: vector for k, vector in hello.vectors.items() if k != META_ID})

    def follow(self) -> None:
        """Meta may have moved, or the old copy be gone. The members are read anew after this."""
        if self._meta.absent:
            if not self._engine.drops.is_busy(META_ID):
                self._engine.drops.held_again(META_ID)
                self._meta.absent = False
                self._members.forget()
        elif self._has_strayed() and self._give_up_rows(META_ID):
            self._meta.absent = True
            self._members.forget()
            self._engine.checkpoints.stable = None
            self._table.clear()
            self._links.say(
                "the hub that leads was restored, and goes on without entries of the cluster's list that this node has: "
                "it takes the list anew, and what it wrote meanwhile comes with it"
            )
            self.close_all()
            self._engine.drops.begin(self._meta)

    def close_all(self) -> None:
        """No link goes on: each begins with another meta."""
        for link in self._links:
            self._links.close(link, "this node takes the cluster's list anew", told=True)

    def _has_strayed(self) -> bool:
        members = self._members
        if members.writer is None or members.leader == self._node or self._engine.admission.read_only is not None:
            return False
        own: Mapping[Actor, tuple[int, int]] = seen(self._meta, self._engine.actor)
        return any(a != members.writer and seq > members.line.get(a, 0) for a, (seq, _) in own.items())
