"""Row sync: a peer that lacks what this node's log no longer has gets the rows, in a file that can be sent on after any cut.

The sender (row_source.py) spools a keyspace, its rows and the vector that they stand at, and offers the spool. The receiver
(row_intake.py) asks for it from where it is; when it is whole and sound its rows are joined with the receiver's own. Then the log of
the sender goes on from the vector that came out.
"""

from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.replication.holdings import Holdings
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import LogSource
from edgekv.replication.members import Members
from edgekv.replication.messages import SyncAsk, SyncDone, SyncGone, SyncOffer, SyncPiece, SyncWant
from edgekv.replication.repairs import Repairs
from edgekv.replication.returning import Returning
from edgekv.replication.row_intake import RowIntake
from edgekv.replication.row_source import RowSource
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool_transfer import SpoolFolder

SyncMessage = SyncOffer | SyncWant | SyncPiece | SyncDone | SyncGone | SyncAsk


class RowSync:
    """Both sides of it, of one node. Driven by `Replication`."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: LmdbStore,
        source: LogSource,
        folder: SpoolFolder,
        holdings: Holdings,
        links: LinkTable,
        repairs: Repairs,
        returning: Returning,
        members: Members,
        entropy: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        """``now_ms``: monotonic."""
        self._flips: Final = engine.flips
        self.source: Final = RowSource(
            engine=engine,
            store=store,
            source=source,
            folder=folder,
            floors=holdings.floors,
            links=links,
            entropy=entropy,
            now_ms=now_ms,
        )
        self.intake: Final = RowIntake(
            engine=engine,
            folder=folder,
            links=links,
            repairs=repairs,
            now_ms=now_ms,
            took=returning.took_rows,
            unseen=returning.unseen,
            members=members,
        )
        self.intake.joined = lambda keyspace, mended: self.source.replaced(keyspace, mended=mended)

    def take(self, link: Link, message: SyncMessage) -> None:
        """What a peer says, which may say it."""
        match message:
            case SyncOffer():
                self.intake.offered(link, message)
            case SyncPiece():
                self.intake.piece(link, message)
            case SyncGone():
                self.intake.gone(link, message)
            case SyncWant():
                self.source.wanted(link, message)
            case SyncAsk():
                self.source.asked(link, message.keyspace)
            case SyncDone():
                self.source.done(link, message)

    @property
    def busy(self) -> bool:
        """Whether there is something to write, to check or to merge."""
        return self.intake.busy or self._flips.rebasing or self.source.busy

    def work(self, links: list[Link]) -> bool:
        """Write, check and forget a little; whether a spool is finished, so that it can be offered."""
        if self._flips.rebasing:
            self._flips.advance()
        finished = self.source.work()
        self.intake.work(links)
        return finished

    def close(self) -> None:
        """Give back what both sides have open. Idempotent."""
        self.source.close()
        self.intake.close()

    @property
    def syncs_total(self) -> int:
        """Spools that were taken in."""
        return self.intake.syncs_total

    @property
    def again_total(self) -> int:
        """See `RowSource`."""
        return self.source.again_total

    @property
    def incoming_bytes(self) -> tuple[int, int]:
        """See `RowIntake`."""
        return self.intake.incoming_bytes
