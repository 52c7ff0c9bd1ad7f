"""SEENs on their way: this node's own, and those it has heard, to the hubs that it is linked to.

To a new peer all vectors of all members go, a message at each tick; from then on, what moved. What a member says first when it knows
that it was opened goes whole as well: of one that was settled before, some have forgotten all, and others have not.
"""

from typing import Final

from edgekv.engine.engine import Engine
from edgekv.ids import Actor
from edgekv.replication.holdings import Holdings
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.members import Members
from edgekv.replication.messages import Seen, SeenList
from edgekv.replication.seen import SeenTable

ENTRIES_MAX: Final = 10_000
"""Of vectors, after which a message of SEENs ends."""


class SeenTelling:
    """This node's own SEEN, and what it has heard, on their way to hubs."""

    def __init__(
        self, *, engine: Engine, table: SeenTable, members: Members, holdings: Holdings, links: LinkTable, actor: Actor
    ) -> None:
        """``actor``: this node's."""
        self._engine: Final = engine
        self._table: Final = table
        self._members: Final = members
        self._holdings: Final = holdings
        self._links: Final = links
        self._actor: Final = actor

    def tell(self) -> None:
        """Say what has moved since the last time.

        While rows are taken over, this node has changes that its vectors do not name yet. If it said that it knows of a closing, the
        actor would be settled without those.
        """
        engine = self._engine
        if self._members.is_open(self._actor) and not engine.flips.is_busy:
            ttl_ms, lsn = engine.checkpoints.ttl_durable_ms, engine.commit.durable_lsn
            vectors = self._holdings.vectors()
            self._table.hear(Seen(self._actor, lsn, ttl_ms, self._members.revision, vectors))
        links, news = self._hubs(), [self._whole_if_opened(seen) for seen in self._table.take_news()]
        for link in links:
            if link.seens.owed is None:
                link.seens.owed = dict.fromkeys(self._table.spoken)
            self._send(link, [seen for seen in news if seen.actor not in link.seens.owed])
        self.pay()

    def _whole_if_opened(self, news: Seen) -> Seen:
        spoken, member = self._table.spoken[news.actor], self._members.members.get(news.actor)
        told, spoken.told_revision = spoken.told_revision, news.revision
        return spoken.whole() if member is not None and told < member.revision <= news.revision else news

    def pay(self) -> None:
        """Tell each new peer a message more of what all have said so far."""
        for link in self._hubs():
            whole: list[Seen] = []
            entries = 0
            while link.seens.owed and entries < ENTRIES_MAX:
                spoken = self._table.spoken.get(link.seens.owed.popitem()[0])
                if spoken is not None:
                    whole.append(spoken.whole())
                    entries += _entries(whole[-1])
            self._send(link, whole)

    def _hubs(self) -> list[Link]:
        """Who is told: they have had the meta by which they know of whom it is said."""
        return [
            link for link in self._links if link.phase == "data" and link.peer is not None and link.peer.role == "hub"
        ]

    def _send(self, link: Link, said: list[Seen]) -> None:
        assert link.peer is not None
        message: list[Seen] = []
        entries = 0
        for seen in said:
            if seen.actor == link.peer.actor:
                continue
            message.append(seen)
            entries += _entries(seen)
            if entries >= ENTRIES_MAX:
                self._links.send(link, SeenList(message))
                message, entries = [], 0
        if message:
            self._links.send(link, SeenList(message))


def _entries(seen: Seen) -> int:
    return sum(map(len, seen.vectors.values()))
