"""The side of a row sync that lacks the rows: a spool is taken in, checked, made durable, and joined.

It lies beside the store, apart from what reads see. When it is whole and sound the node *flips*: from one record in its log on the
rows are joined with its own by the dot rule (engine/flip.py). One is taken in at a time; what is offered meanwhile waits on its link.
What a link had brought before it was cut stays: when the same spool is offered again it is asked for from there on.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Corruption, FormatUnknown, PeerFault, Unavailable
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.limits import LMDB_MAP_BYTES, PEER_WINDOW_BYTES, SYNC_SILENCE_MS
from edgekv.replication.late_changes import check_offer
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.log_source import covers
from edgekv.replication.members import Members
from edgekv.replication.messages import (
    NO_SPOOL,
    ChainedVector,
    SyncDone,
    SyncGone,
    SyncOffer,
    SyncPiece,
    SyncWant,
)
from edgekv.replication.repairs import Repairs
from edgekv.replication.row_source import PIECE_OVERHEAD_BYTES
from edgekv.store.spool_check import SpoolCheck
from edgekv.store.spool_transfer import Part, SpoolFolder
from edgekv.wal.record import Repair


class Incoming:
    """A spool that is taken in: pieces, then a check of all of it, then the flip."""

    def __init__(self, offer: SyncOffer, part: Part, link: Link, repair: Repair | None, now_ms: int) -> None:
        self.offer: Final = offer
        self.part: Final = part
        self.link: Link = link
        self.repair = repair
        """What its rows were asked for; None: a sync."""
        self.check: SpoolCheck | None = None
        self.flipping = False
        """It is made durable, or becomes part of the keyspace: no way back."""
        self.waiting: Final[deque[SyncPiece]] = deque()
        """Pieces that came while the disk is full, as many as the peer has credit for."""
        self.heard_ms = now_ms


class RowIntake:
    """Of one node. `offered` and `piece` for what comes; `work` as long as it is `busy`, and at each tick."""

    def __init__(
        self,
        *,
        engine: Engine,
        folder: SpoolFolder,
        links: LinkTable,
        repairs: Repairs,
        now_ms: Callable[[], int],
        took: Callable[[int, ChainedVector], None],
        unseen: Callable[[int], Vector],
        members: Members,
    ) -> None:
        """``now_ms``: monotonic.

        ``took``: the rows that a peer had of a keyspace, at this vector, are here. ``unseen``: see `Returning.unseen`.
        """
        self._engine: Final = engine
        self._folder: Final = folder
        self._links: Final = links
        self._repairs: Final = repairs
        self._now_ms: Final = now_ms
        self._took: Final = took
        self._unseen: Final = unseen
        self._members: Final = members
        self._incoming: Incoming | None = None
        self.syncs_total = 0
        """Spools that were taken in."""
        self.joined: Callable[[int, bool], None] = lambda keyspace, mended: None
        """Set once: the rows of a keyspace were joined, or took the place of the own ones (True)."""

    # -- pieces

    def offered(self, link: Link, offer: SyncOffer) -> None:
        """Take a spool in, unless another one is under way; then it is offered again when that is done."""
        keyspace = self._engine.keyspaces.by_id[KeyspaceId(offer.keyspace)]
        if offer.bytes > LMDB_MAP_BYTES:
            raise PeerFault(f"it offers {offer.bytes} bytes of rows, and no store holds more than {LMDB_MAP_BYTES}.")
        repair = self._repairs.asked_of(link, offer.keyspace)
        vector = {actor: seq for actor, (seq, _) in offer.vector.items()}
        is_known = covers(_seqs(keyspace), vector)
        if (
            repair is None
            and is_known
            and not self._unseen(keyspace.id)
            and not self._engine.flips.dropped(keyspace.id)
        ):
            self._took(offer.keyspace, offer.vector)
            self._links.send(link, SyncDone(offer.keyspace, _chained(keyspace)))
            return
        if self._engine.admission.disk_full or self._engine.admission.read_only is not None:
            link.deferred[offer.keyspace] = offer
            return
        incoming = self._incoming
        if (
            incoming is not None
            and incoming.offer.spool == offer.spool
            and incoming.repair is repair
            and not incoming.flipping
            and not incoming.check
        ):
            incoming.link, incoming.heard_ms = link, self._now_ms()
            self._links.send(link, SyncWant(offer.keyspace, offer.spool, incoming.part.size))
            return
        if incoming is not None and (incoming.flipping or incoming.check or incoming.link.is_up):
            link.deferred[offer.keyspace] = offer
            return
        if incoming is not None:
            self._give_up(incoming)
        try:
            self._folder.remove_parts(but=offer.spool)
            part = self._folder.part(offer.spool)
            if part.size > offer.bytes:
                part.cut()
        except OSError as error:
            self._incoming = None
            raise _cannot_keep(error) from error
        self._incoming = Incoming(offer, part, link, repair, self._now_ms())
        if part.size == offer.bytes:
            self._begin_check(self._incoming)
        else:
            self._links.send(link, SyncWant(offer.keyspace, offer.spool, part.size))

    def gone(self, link: Link, gone: SyncGone) -> None:
        """The peer does not have the spool that it offered."""
        if gone.spool == NO_SPOOL and self._repairs.asked_of(link, gone.keyspace) is not None:
            self._repairs.failed("its own rows cannot be read either")
        link.deferred.pop(gone.keyspace, None)
        incoming = self._incoming
        if incoming is not None and incoming.link is link and incoming.offer.spool == gone.spool and not incoming.check:
            self._give_up(incoming)

    def piece(self, link: Link, piece: SyncPiece) -> None:
        """The next bytes of the spool that is taken in. Others are late ones of a sync that was given up: counted, and dropped."""
        incoming = self._incoming
        if (
            incoming is not None
            and incoming.link is link
            and piece.spool == incoming.offer.spool
            and (incoming.waiting or self._engine.admission.disk_full)
        ):
            if (
                len(incoming.waiting) * PIECE_OVERHEAD_BYTES + sum(len(p.data) for p in incoming.waiting)
                >= PEER_WINDOW_BYTES
            ):
                raise PeerFault("it sends rows although none are taken in.")
            incoming.waiting.append(piece)
            return
        self._take(link, piece)

    def _take(self, link: Link, piece: SyncPiece) -> None:
        link.taken_bytes += len(piece.data) + PIECE_OVERHEAD_BYTES
        incoming = self._incoming
        if incoming is None or incoming.link is not link or piece.spool != incoming.offer.spool or incoming.check:
            return
        if piece.offset != incoming.part.size or piece.offset + len(piece.data) > incoming.offer.bytes:
            raise PeerFault(f"it sent a piece of rows at {piece.offset}, where {incoming.part.size} was the next.")
        incoming.heard_ms = self._now_ms()
        try:
            incoming.part.append(piece.data)
        except OSError as error:
            self._give_up(incoming)
            raise _cannot_keep(error) from error
        if incoming.part.size == incoming.offer.bytes:
            self._begin_check(incoming)

    def _take_waiting(self, incoming: Incoming) -> None:
        """There is room on the disk again."""
        try:
            while incoming.waiting:
                self._take(incoming.link, incoming.waiting.popleft())
        except (PeerFault, Unavailable) as error:
            self._links.refuse(incoming.link, error)

    # -- the whole spool: checked, made durable, joined

    def _begin_check(self, incoming: Incoming) -> None:
        keyspace = self._engine.keyspaces.by_id[KeyspaceId(incoming.offer.keyspace)]
        try:
            may_hold = self._engine.keyspaces.may_hold
            incoming.check = SpoolCheck(incoming.part.path, lambda key: may_hold(keyspace, [key]))
        except (Corruption, FormatUnknown) as error:
            self._reject(incoming, error)
        except OSError as error:
            self._fail(incoming, error)

    def _check(self, incoming: Incoming, check: SpoolCheck) -> None:
        """Look at some of what came; at its end, flip."""
        offer = incoming.offer
        try:
            if check.step():
                incoming.part.write_back()
                return
            if (check.head.keyspace, check.head.vector, check.head.hlc) != (offer.keyspace, offer.vector, offer.hlc):
                raise Corruption("the spool is another than was offered.", path=incoming.part.path.name)
        except (Corruption, FormatUnknown) as error:
            self._reject(incoming, error)
            return
        except OSError as error:
            self._fail(incoming, error)
            return
        incoming.part.close()
        keyspace = self._engine.keyspaces.by_id[KeyspaceId(offer.keyspace)]
        incoming.flipping = True
        self._folder.keep(
            incoming.part.path,
            offer.spool,
            lambda error: self._kept(incoming, keyspace, check.head.ttl_ms, error),
        )

    def _kept(self, incoming: Incoming, keyspace: Keyspace, ttl_ms: int, error: OSError | None) -> None:
        """The spool is durable: flip."""
        if self._incoming is not incoming:
            return  # the node stops
        if error is not None:
            self._fail(incoming, error)
            return
        offer = incoming.offer
        if self._is_unwanted(incoming):
            self._folder.remove(offer.spool)
            self._give_up(incoming)
            return
        try:
            check_offer(self._members, incoming.link, offer)
            self._engine.checkpoints.learn_ttl(ttl_ms)
            self._engine.flip(
                *(keyspace.id, offer.spool, offer.vector, offer.hlc, lambda: self._flipped(incoming, keyspace)),
                repair=incoming.repair,
                failed=lambda sentence: self._not_flipped(incoming, keyspace, sentence),
                unseen=self._unseen(keyspace.id),
            )
        except PeerFault as fault:
            self._folder.remove(offer.spool)
            self._give_up(incoming)
            self._links.refuse(incoming.link, fault)

    def _is_unwanted(self, incoming: Incoming) -> bool:
        """Whether it came for a repair of which the operator was told that nothing was done."""
        return incoming.repair is not None and not self._repairs.waits_for(incoming.repair)

    def _flipped(self, incoming: Incoming, keyspace: Keyspace) -> None:
        self._incoming = None
        if incoming.repair is None:
            self.syncs_total += 1
            self._took(keyspace.id, incoming.offer.vector)
        else:
            self._repairs.done()
        self.joined(keyspace.id, incoming.repair is not None)
        if incoming.link.is_up:
            self._links.send(incoming.link, SyncDone(keyspace.id, _chained(keyspace)))

    def _not_flipped(self, incoming: Incoming, keyspace: Keyspace, sentence: str) -> None:
        """Of a repair nothing was done."""
        self._incoming = None
        self._repairs.failed(sentence)
        if incoming.link.is_up:
            self._links.send(incoming.link, SyncDone(keyspace.id, _chained(keyspace)))

    # -- work

    @property
    def busy(self) -> bool:
        """Whether there is something to check."""
        incoming = self._incoming
        return incoming is not None and incoming.check is not None and not incoming.flipping

    def work(self, links: list[Link]) -> None:
        """Check a little, look after what does not come, begin with what was offered meanwhile."""
        incoming = self._incoming
        if incoming is not None and not incoming.flipping:
            self._go_on(incoming)
        if incoming is not None and incoming.waiting and not self._engine.admission.disk_full:
            self._take_waiting(incoming)
        admission = self._engine.admission
        if self._incoming is None and not admission.disk_full and admission.read_only is None:
            for link in links:
                if link.deferred and link.is_up:
                    try:
                        self.offered(link, link.deferred.pop(next(iter(link.deferred))))
                    except Unavailable as error:
                        self._links.refuse(link, error)
                    break

    def _go_on(self, incoming: Incoming) -> None:
        if self._is_unwanted(incoming):
            self._give_up(incoming)
        elif incoming.check is not None:
            self._check(incoming, incoming.check)
        elif not incoming.link.is_up:
            self._give_up(incoming)  # what has come stays, for when it is offered again
        else:
            self._watch(incoming)

    def _watch(self, incoming: Incoming) -> None:
        """End a sync that comes to nothing, with its link: others have their turn, or it goes on where it is on the next one."""
        if incoming.waiting or self._engine.admission.disk_full:
            incoming.heard_ms = self._now_ms()  # it is this node that waits
        elif self._now_ms() - incoming.heard_ms > SYNC_SILENCE_MS:
            self._give_up(incoming)
            seconds, have, size = SYNC_SILENCE_MS // 1000, incoming.part.size, incoming.offer.bytes
            self._links.refuse(
                incoming.link,
                Unavailable(
                    f"no rows of a sync came for {seconds} s, after {have:,} of {size:,} bytes. They are asked for again."
                ),
            )

    # -- given up

    def give_up(self, keyspace: int) -> bool:
        """Take no rows of a keyspace in; False: it is too late for that, as long as those of a whole spool are joined."""
        incoming = self._incoming
        if incoming is None or incoming.offer.keyspace != keyspace:
            return True
        if incoming.flipping:
            return False
        incoming.part.cut()
        self._give_up(incoming)
        return True

    def _reject(self, incoming: Incoming, error: Exception) -> None:
        """What came is no spool: drop it, and have nothing more to do with whom it came from until it comes back."""
        incoming.part.cut()
        self._give_up(incoming)
        self._links.refuse(incoming.link, PeerFault(f"the rows that it sent cannot be used: {error}"))

    def _fail(self, incoming: Incoming, error: OSError) -> None:
        """It cannot be kept. Its link ends with it: on that one it would not be offered again."""
        self._give_up(incoming)
        self._links.refuse(incoming.link, _cannot_keep(error))

    def _give_up(self, incoming: Incoming) -> None:
        incoming.part.close()
        if incoming.check is not None:
            incoming.check.close()
        self._incoming = None
        if incoming.repair is not None and self._repairs.waits_for(incoming.repair):
            self._repairs.failed("its rows did not come whole")

    def close(self) -> None:
        """Give back what is open; what has come of a spool stays. Idempotent."""
        incoming = self._incoming
        if incoming is not None and not incoming.flipping:
            self._give_up(incoming)
        self._incoming = None

    @property
    def incoming_bytes(self) -> tuple[int, int]:
        """Of the spool that is taken in: what has come and all of it; zeros: there is none."""
        incoming = self._incoming
        return (0, 0) if incoming is None else (incoming.part.size, incoming.offer.bytes)


def _cannot_keep(error: OSError) -> Unavailable:
    return Unavailable(f"the rows of a sync cannot be kept: {error.strerror}.")


def _seqs(keyspace: Keyspace) -> Vector:
    return {actor: head.seq for actor, head in keyspace.vector.items()}


def _chained(keyspace: Keyspace) -> dict[Actor, tuple[int, int]]:
    return {actor: (head.seq, head.chain) for actor, head in keyspace.vector.items()}
