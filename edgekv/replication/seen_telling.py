"""SEENs on their way: this node's own, and those it has heard, to the hubs that it is linked to.

To a new peer all vectors of all members go, which no message could hold: they are cut into several.
"""

from typing import Final

from edgekv.engine.engine import Engine
from edgekv.ids import Actor
from edgekv.replication.holdings import Holdings
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.members import Members
from edgekv.replication.messages import Hello, Seen, SeenList
from edgekv.replication.seen import SeenTable, moved

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
        """Say what has moved since the last time."""
        engine = self._engine
        if self._members.is_open(self._actor):
            ttl_ms, lsn = engine.checkpoints.ttl_durable_ms, engine.commit.durable_lsn
            vectors = self._holdings.vectors()
            self._table.hear(Seen(self._actor, lsn, ttl_ms, self._members.revision, vectors))
        for link in self._links:
            if link.peer is not None and link.peer.role == "hub" and link.is_up:
                self._tell(link, link.peer)

    def _tell(self, link: Link, peer: Hello) -> None:
        news: list[Seen] = []
        entries = 0
        for actor, seen in self._table.by_actor.items():
            known = link.said_seen.get(actor)
            if seen is not known and actor != peer.actor:
                news.append(moved(seen, known))
                link.said_seen[actor] = seen
                entries += sum(map(len, news[-1].vectors.values()))
                if entries >= ENTRIES_MAX:
                    self._links.send(link, SeenList(news))
                    news, entries = [], 0
        if news:
            self._links.send(link, SeenList(news))
