"""The side of a row sync that has the rows: they are spooled, offered, and sent as the peer asks for them.

A spool (store/spool.py) has the rows of a keyspace and the vector that they stand at, from one LMDB transaction. One serves all who
need it, as long as the log can go on from its vector, and as long as anybody asks for it.

What the log has behind a spool stays while that is on its way, and until the peer has caught up from it; else a slow link beside many
writes would bring the same rows for ever. At most SYNC_LOG_BYTES_MAX of log stay for that, and nothing on a full disk: who is slower
than that gets the rows, and then newer ones, and people are told.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgekv.engine.checkpoint import NOTHING_HELD
from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Corruption, Unavailable
from edgekv.ids import KeyspaceId, Vector
from edgekv.limits import (
    PEER_MESSAGE_BYTES,
    PEER_MESSAGES_AT_ONCE,
    PEER_WINDOW_BYTES,
    SPOOL_KEEP_MS,
    SYNC_LOG_BYTES_MAX,
    SYNC_SILENCE_MS,
)
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import LogSource, covers
from edgekv.replication.messages import (
    NO_SPOOL,
    SPOOL_ID_BYTES,
    SyncDone,
    SyncGone,
    SyncOffer,
    SyncPiece,
    SyncWant,
)
from edgekv.store.lmdb_store import LmdbStore, StoreError
from edgekv.store.spool import SpoolWriter
from edgekv.store.spool_transfer import SpoolFolder

PIECE_OVERHEAD_BYTES: Final = 64
"""What a piece counts for besides its bytes, on both sides."""
_WRITE_ROWS: Final = 2_000
"""Of a spool that is written, per step: about 2 ms."""


class Outgoing:
    """A spool that is written, or was and is offered."""

    def __init__(self, spool: bytes, writer: SpoolWriter, now_ms: int) -> None:
        self.spool: Final = spool
        self.writer: Final = writer
        self.offer: SyncOffer | None = None
        """None: it is not finished."""
        self.used_ms = now_ms
        self.takers: Final[dict[bytes, int]] = {}
        """Nodes that it was offered to and that have not taken it in, and when they were sent something of it last."""
        self.overtaken = False
        """More was logged meanwhile than stays for it."""

    @property
    def vector(self) -> Vector:
        return {actor: seq for actor, (seq, _) in self.writer.head.vector.items()}


class RowSource:
    """Of one node. `pump` for a link that needs rows or has asked for some; `work` as long as it is `busy`."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: LmdbStore,
        source: LogSource,
        folder: SpoolFolder,
        floors: Callable[[], dict[int, Vector]],
        links: LinkTable,
        entropy: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        """``floors``: see `LogSource.begin`. ``now_ms``: monotonic."""
        self._engine: Final = engine
        self._store: Final = store
        self._source: Final = source
        self._folder: Final = folder
        self._floors: Final = floors
        self._links: Final = links
        self._entropy: Final = entropy
        self._now_ms: Final = now_ms
        self._outgoing: Final[dict[int, Outgoing]] = {}
        """By keyspace."""
        self._unreadable: Final[set[int]] = set()
        """Keyspaces with damaged rows, which are not sent."""
        self.again_total = 0
        """Spools that were offered on a link on which the same keyspace's rows had just been sent."""

    # -- offered, and sent

    def pump(self, link: Link) -> None:
        """Offer what the peer needs and cannot get from the log; send pieces of what it asked for, as far as its credit goes."""
        assert link.sender is not None
        for keyspace in link.asked & self._unreadable:
            link.asked.discard(keyspace)
            self._links.send(link, SyncGone(keyspace, NO_SPOOL))
        for keyspace in sorted((link.sender.beyond | link.asked) - link.offered.keys() - self._unreadable):
            need = (link.need or {}).get(keyspace, {})
            spooled = self._spooled(keyspace, need) if keyspace not in link.asked or self._is_fresh(keyspace) else None
            if spooled is not None and spooled.offer is not None:
                if keyspace in link.sender.given - link.asked:
                    self._note_again(link, keyspace)
                link.offered[keyspace] = spooled.spool
                spooled.takers[link.node] = self._now_ms()
                self._links.send(link, spooled.offer)
        for _ in range(PEER_MESSAGES_AT_ONCE):
            if not link.wanted or link.unacknowledged >= PEER_WINDOW_BYTES:
                return
            keyspace, (spool, offset) = next(iter(link.wanted.items()))
            self._send_piece(link, keyspace, spool, offset)

    def asked(self, link: Link, keyspace: int) -> None:
        """The peer has all changes and wants rows: they are offered at the vector of this moment, as soon as LMDB has it."""
        link.asked.add(keyspace)
        link.offered.pop(keyspace, None)

    def wanted(self, link: Link, want: SyncWant) -> None:
        """The peer asks for a spool from an offset on. One that is gone is offered anew."""
        found = self._outgoing.get(want.keyspace)
        if found is None or found.offer is None or found.spool != want.spool or want.offset > found.offer.bytes:
            self._say_gone(link, want.keyspace, want.spool)
            return
        link.wanted[want.keyspace] = want.spool, want.offset

    def _send_piece(self, link: Link, keyspace: int, spool: bytes, offset: int) -> None:
        found = self._outgoing.get(keyspace)
        data = b""
        if found is not None and found.spool == spool:
            with suppress(OSError):
                data = self._folder.read(spool, offset, PEER_MESSAGE_BYTES)
        if found is None or found.offer is None or not data:
            self._say_gone(link, keyspace, spool)
            return
        found.used_ms = found.takers[link.node] = self._now_ms()
        if offset + len(data) >= found.offer.bytes:
            del link.wanted[keyspace]
        else:
            link.wanted[keyspace] = spool, offset + len(data)
        link.charge(len(data) + PIECE_OVERHEAD_BYTES)
        self._links.send(link, SyncPiece(keyspace, found.spool, offset, data))

    def _say_gone(self, link: Link, keyspace: int, spool: bytes) -> None:
        """The peer waits for what is not there; if it needs rows, `pump` offers others."""
        link.wanted.pop(keyspace, None)
        link.offered.pop(keyspace, None)
        self._links.send(link, SyncGone(keyspace, spool))

    def done(self, link: Link, done: SyncDone) -> None:
        """The peer has the rows: the log goes on."""
        assert link.sender is not None
        link.offered.pop(done.keyspace, None)
        found = self._outgoing.get(done.keyspace)
        if found is not None:
            found.takers.pop(link.node, None)
        link.asked.discard(done.keyspace)
        link.wanted.pop(done.keyspace, None)
        link.rows_sent = True
        link.sender.took_rows(done.keyspace, {actor: seq for actor, (seq, _) in done.vector.items()})

    def keep(self, link: Link, shared: set[int]) -> None:
        """Nothing of other keyspaces goes out on a link."""
        for keyspace in (link.offered.keys() | link.wanted.keys()) - shared:
            self.withdraw(link, keyspace)

    def withdraw(self, link: Link, keyspace: int) -> None:
        """The peer begins anew with a keyspace: what it was offered before it may have passed by, and is offered again."""
        link.offered.pop(keyspace, None)
        link.wanted.pop(keyspace, None)

    # -- which spool

    def _is_fresh(self, keyspace: int) -> bool:
        """Whether a spool would stand, or stands, where the keyspace does; what is missing for that is asked for."""
        durable = _seqs(self._engine.keyspaces.by_id[KeyspaceId(keyspace)])
        found = self._outgoing.get(keyspace)
        if found is not None:
            if found.offer is None or found.vector == durable:
                return True
            self._drop(keyspace)
        stored = self._store.applied().vectors.get(keyspace, {})
        if {actor: seq for actor, (seq, _) in stored.items()} == durable:
            return True
        self._engine.checkpoints.carry()
        return False

    def _spooled(self, keyspace: int, need: Vector) -> Outgoing | None:
        """A spool from which the log can go on, or the one that is being written; None: it cannot be written yet.

        ``need``: what it has to cover.
        """
        found = self._outgoing.get(keyspace)
        if found is not None and not covers(found.vector, need):
            self._drop(keyspace)
            found = None
        if found is not None and found.offer is not None:
            begin = self._source.begin({keyspace: found.vector}, self._floors())
            if begin.beyond:
                self._drop(keyspace)
                found = None
        if found is None:
            if self._engine.admission.disk_full:
                return None  # what is left is for what was acknowledged
            if self._engine.flips.keyspace is self._engine.keyspaces.by_id[KeyspaceId(keyspace)]:
                return None  # the log could not go on from it: a BARRIER comes
            if self._store.pinned and not self._engine.flips.is_busy:
                return None  # a start could not join rows: what LMDB has is a part of them
            stored = self._store.applied().vectors.get(keyspace, {})
            vector = {actor: seq for actor, (seq, _) in stored.items()}
            if not covers(vector, self._floors().get(keyspace, {})) or not covers(vector, need):
                return None  # the applier is on its way there
            spool = self._entropy(SPOOL_ID_BYTES)
            try:
                writer = SpoolWriter(self._store, KeyspaceId(keyspace), self._folder.path_of(spool))
            except (OSError, Unavailable, StoreError):
                return None  # no room on the disk, no reader's place: at the next tick perhaps
            found = self._outgoing[keyspace] = Outgoing(spool, writer, self._now_ms())
        found.used_ms = self._now_ms()
        return found

    def _note_again(self, link: Link, keyspace: int) -> None:
        """The peer got rows on this link, and when they were there the log did not go on from them any more: it may be so for ever."""
        self.again_total += 1
        peer = "a peer" if link.peer is None else link.peer.name
        self._links.say(
            f"{peer} needs the rows of keyspace {keyspace} again: while they were on their way the log has given up what comes behind "
            "them. If this repeats, keep more of the log (wal.retain_bytes) than is written while a row sync lasts."
        )

    # -- the log behind it

    def held_lsn(self) -> int:
        """From where on the log has to stay for row syncs under way."""
        if self._engine.admission.disk_full:
            return NOTHING_HELD
        held = NOTHING_HELD
        for keyspace, outgoing in self._outgoing.items():
            if outgoing.overtaken or not self._is_under_way(keyspace, outgoing):
                continue
            if self._engine.log_bytes_from(outgoing.writer.lsn) > SYNC_LOG_BYTES_MAX:
                outgoing.overtaken = True
                self._note_overtaken(keyspace)
            else:
                held = min(held, outgoing.writer.lsn)
        for link in self._links:
            lsn = self._reads_on_from(link)
            if lsn is not None:
                held = min(held, lsn)
        return held

    def _is_under_way(self, keyspace: int, outgoing: Outgoing) -> bool:
        """Whether it is written or sent, or was a moment ago: a link that was cut goes on with it."""
        return (
            outgoing.offer is None
            or any(self._now_ms() - sent_ms <= SYNC_SILENCE_MS for sent_ms in outgoing.takers.values())
            or any(link.offered.get(keyspace) == outgoing.spool for link in self._links)
        )

    def _reads_on_from(self, link: Link) -> int | None:
        """Where a link reads that sends what the log has behind rows; None: it has caught up, or never will."""
        if not link.rows_sent or link.sender is None or link.sender.lsn is None:
            return None
        lsn = link.sender.lsn
        link.rows_sent = link.sender.lags and self._engine.log_bytes_from(lsn) <= SYNC_LOG_BYTES_MAX
        return lsn if link.rows_sent else None

    def _note_overtaken(self, keyspace: int) -> None:
        self._links.say(
            f"the rows of keyspace {keyspace} that are on their way to a peer have to be sent again when they are there: more than "
            f"{SYNC_LOG_BYTES_MAX >> 20:,} MiB were logged meanwhile, and no more stays for a row sync."
        )

    # -- written, and dropped

    @property
    def busy(self) -> bool:
        """Whether a spool is being written."""
        return any(outgoing.offer is None for outgoing in self._outgoing.values())

    def work(self) -> bool:
        """Write a little, and drop what nobody asks for; whether a spool is finished, so that it can be offered."""
        finished = False
        for keyspace, outgoing in list(self._outgoing.items()):
            if outgoing.offer is None:
                finished |= self._write(keyspace, outgoing)
            elif self._now_ms() - outgoing.used_ms > SPOOL_KEEP_MS:
                self._drop(keyspace)
        return finished

    def _write(self, keyspace: int, outgoing: Outgoing) -> bool:
        """Some rows more; whether those were the last."""
        if self._engine.admission.disk_full:
            self._drop(keyspace)
            return False
        try:
            if outgoing.writer.step(_WRITE_ROWS):
                return False
        except (OSError, StoreError):
            self._drop(keyspace)  # no room, or no reader's place: begin again when it is asked for
            return False
        except Corruption as error:
            self._drop(keyspace)
            self._unreadable.add(keyspace)
            self._links.say(f"rows of keyspace {keyspace} are not sent to peers: {error}")
            return False
        summary = outgoing.writer.summary
        outgoing.offer = SyncOffer(
            keyspace, outgoing.spool, summary.bytes, summary.crc, summary.head.vector, summary.head.hlc
        )
        return True

    def replaced(self, keyspace: int, *, mended: bool) -> None:
        """This node has taken in rows of a keyspace: the log goes on from its spool to a BARRIER that this does not cover.

        ``mended``: they took the place of its own, which may have been damaged.
        """
        if mended:
            self._unreadable.discard(keyspace)
        if keyspace in self._outgoing:
            self._drop(keyspace)

    def close(self) -> None:
        """Give back what is open; what was written is of no use any more. Idempotent."""
        for keyspace in list(self._outgoing):
            self._drop(keyspace)

    def _drop(self, keyspace: int) -> None:
        outgoing = self._outgoing.pop(keyspace)
        outgoing.writer.close()
        self._folder.remove(outgoing.spool)


def _seqs(keyspace: Keyspace) -> Vector:
    return {actor: head.seq for actor, head in keyspace.vector.items()}
