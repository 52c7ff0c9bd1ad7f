"""Row sync: a peer that lacks what this node's log no longer has gets the rows, in a file that can be sent on after any cut.

The sender spools a keyspace (store/spool.py): its rows and the vector that they stand at, from one LMDB transaction. It offers the
spool, the receiver asks for it from where it is, and puts it beside its store, apart from what reads see. When it is whole and sound
the receiver *flips*: from one record in its log on the rows are joined with its own by the dot rule (engine/flip.py). Then the log of
the sender goes on from the vector that came out.

One spool of a keyspace serves all who need it, as long as the log can go on from its vector. A node takes one in at a time. What a
link had brought before it was cut stays: when the same spool is offered again it is asked for from there on.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Corruption, EdgeKVError, FormatUnknown, PeerFault, Unavailable
from edgekv.ids import Actor, KeyspaceId, Vector
from edgekv.limits import (
    LMDB_MAP_BYTES,
    PEER_MESSAGE_BYTES,
    PEER_MESSAGES_AT_ONCE,
    PEER_WINDOW_BYTES,
    SPOOL_KEEP_MS,
    SYNC_SILENCE_MS,
)
from edgekv.replication.link import Link
from edgekv.replication.log_source import LogSource, covers
from edgekv.replication.messages import (
    NO_SPOOL,
    SPOOL_ID_BYTES,
    ChainedVector,
    Message,
    SyncDone,
    SyncGone,
    SyncOffer,
    SyncPiece,
    SyncWant,
)
from edgekv.replication.repairs import Repairs
from edgekv.store.lmdb_store import LmdbStore, StoreError
from edgekv.store.spool import SpoolWriter
from edgekv.store.spool_check import SpoolCheck
from edgekv.store.spool_transfer import Part, SpoolFolder
from edgekv.wal.record import Repair

PIECE_OVERHEAD_BYTES: Final = 64
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

    @property
    def vector(self) -> Vector:
        return {actor: seq for actor, (seq, _) in self.writer.head.vector.items()}


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


class RowSync:
    """Both sides of it, of one node. Driven by `Replication`."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: LmdbStore,
        source: LogSource,
        folder: SpoolFolder,
        floors: Callable[[], dict[int, Vector]],
        send: Callable[[Link, Message], None],
        refuse: Callable[[Link, EdgeKVError], None],
        note: Callable[[str], None],
        repairs: Repairs,
        entropy: Callable[[int], bytes],
        now_ms: Callable[[], int],
        took: Callable[[int, ChainedVector], None],
        unseen: Callable[[int], Vector],
        check_late: Callable[[Link, SyncOffer], None],
    ) -> None:
        """``refuse``: end a link whose rows cannot be used or kept. ``note``: for the operator. ``now_ms``: monotonic.

        ``took``: the rows that a peer had of a keyspace, at this vector, are here. ``unseen``: see `Returning.unseen`.
        ``check_late``: PeerFault when what meta says by now does not let these rows in.
        """
        self._engine: Final = engine
        self._store: Final = store
        self._source: Final = source
        self._folder: Final = folder
        self._floors: Final = floors
        self._send: Final = send
        self._refuse: Final = refuse
        self._note: Final = note
        self._repairs: Final = repairs
        self._entropy: Final = entropy
        self._now_ms: Final = now_ms
        self._took: Final = took
        self._unseen: Final = unseen
        self._check_late: Final = check_late
        self._outgoing: Final[dict[int, Outgoing]] = {}
        """By keyspace."""
        self._unreadable: Final[set[int]] = set()
        """Keyspaces with damaged rows, which are not sent."""
        self._incoming: Incoming | None = None
        self.syncs_total = 0
        """Spools that were taken in."""
        self.again_total = 0
        """Spools that were offered on a link on which the same keyspace's rows had just been sent."""

    # -- the side that has the rows

    def pump(self, link: Link) -> None:
        """Offer what the peer needs and cannot get from the log; send pieces of what it asked for, as far as its credit goes."""
        assert link.sender is not None
        for keyspace in link.asked & self._unreadable:
            link.asked.discard(keyspace)
            self._send(link, SyncGone(keyspace, NO_SPOOL))
        for keyspace in sorted((link.sender.beyond | link.asked) - link.offered.keys() - self._unreadable):
            need = (link.need or {}).get(keyspace, {})
            spooled = self._spooled(keyspace, need) if keyspace not in link.asked or self._is_fresh(keyspace) else None
            if spooled is not None and spooled.offer is not None:
                if keyspace in link.sender.given - link.asked:
                    self._note_again(link, keyspace)
                link.offered[keyspace] = spooled.spool
                self._send(link, spooled.offer)
        for _ in range(PEER_MESSAGES_AT_ONCE):
            if not link.wanted or link.unacknowledged >= PEER_WINDOW_BYTES:
                return
            keyspace, (spool, offset) = next(iter(link.wanted.items()))
            self._send_piece(link, keyspace, spool, offset)

    def asked(self, link: Link, keyspace: int) -> None:
        """The peer has all changes and wants rows: they are offered at the vector of this moment, as soon as LMDB has it."""
        link.asked.add(keyspace)
        link.offered.pop(keyspace, None)

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
        self._note(
            f"{peer} needs the rows of keyspace {keyspace} again: while they were on their way the log has given up what comes behind "
            "them. If this repeats, keep more of the log (wal.retain_bytes) than is written while a row sync lasts."
        )

    def wanted(self, link: Link, want: SyncWant) -> None:
        """The peer asks for a spool from an offset on. One that is gone is offered anew."""
        found = self._outgoing.get(want.keyspace)
        if found is None or found.offer is None or found.spool != want.spool or want.offset > found.offer.bytes:
            self._say_gone(link, want.keyspace, want.spool)
            return
        link.wanted[want.keyspace] = want.spool, want.offset

    def _say_gone(self, link: Link, keyspace: int, spool: bytes) -> None:
        """The peer waits for what is not there; if it needs rows, `pump` offers others."""
        link.wanted.pop(keyspace, None)
        link.offered.pop(keyspace, None)
        self._send(link, SyncGone(keyspace, spool))

    def gone(self, link: Link, gone: SyncGone) -> None:
        """The peer does not have the spool that it offered."""
        if gone.spool == NO_SPOOL and self._repairs.asked_of(link, gone.keyspace) is not None:
            self._repairs.failed("its own rows cannot be read either")
        link.deferred.pop(gone.keyspace, None)
        incoming = self._incoming
        if incoming is not None and incoming.link is link and incoming.offer.spool == gone.spool and not incoming.check:
            self._give_up(incoming)

    def _send_piece(self, link: Link, keyspace: int, spool: bytes, offset: int) -> None:
        found = self._outgoing.get(keyspace)
        data = b""
        if found is not None and found.spool == spool:
            with suppress(OSError):
                data = self._folder.read(spool, offset, PEER_MESSAGE_BYTES)
        if found is None or found.offer is None or not data:
            self._say_gone(link, keyspace, spool)
            return
        found.used_ms = self._now_ms()
        if offset + len(data) >= found.offer.bytes:
            del link.wanted[keyspace]
        else:
            link.wanted[keyspace] = spool, offset + len(data)
        link.charge(len(data) + PIECE_OVERHEAD_BYTES)
        self._send(link, SyncPiece(keyspace, found.spool, offset, data))

    def done(self, link: Link, done: SyncDone) -> None:
        """The peer has the rows: the log goes on."""
        assert link.sender is not None
        link.offered.pop(done.keyspace, None)
        link.asked.discard(done.keyspace)
        link.wanted.pop(done.keyspace, None)
        link.sender.took_rows(done.keyspace, {actor: seq for actor, (seq, _) in done.vector.items()})

    # -- the side that lacks them

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
            self._send(link, SyncDone(offer.keyspace, _chained(keyspace)))
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
            self._send(link, SyncWant(offer.keyspace, offer.spool, incoming.part.size))
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
            self._send(link, SyncWant(offer.keyspace, offer.spool, part.size))

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
            self._check_late(incoming.link, offer)
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
            self._refuse(incoming.link, fault)

    def _is_unwanted(self, incoming: Incoming) -> bool:
        """Whether it came for a repair of which the operator was told that nothing was done."""
        return incoming.repair is not None and not self._repairs.waits_for(incoming.repair)

    def _flipped(self, incoming: Incoming, keyspace: Keyspace) -> None:
        self._incoming = None
        if incoming.repair is None:
            self.syncs_total += 1
            self._took(keyspace.id, incoming.offer.vector)
        else:
            self._unreadable.discard(keyspace.id)
            self._repairs.done()
        if keyspace.id in self._outgoing:
            self._drop(keyspace.id)  # the log goes on from it to a BARRIER that it does not cover
        if incoming.link.is_up:
            self._send(incoming.link, SyncDone(keyspace.id, _chained(keyspace)))

    def _not_flipped(self, incoming: Incoming, keyspace: Keyspace, sentence: str) -> None:
        """Of a repair nothing was done."""
        self._incoming = None
        self._repairs.failed(sentence)
        if incoming.link.is_up:
            self._send(incoming.link, SyncDone(keyspace.id, _chained(keyspace)))

    def keep(self, link: Link, shared: set[int]) -> None:
        """Nothing of other keyspaces goes out on a link."""
        for keyspace in (link.offered.keys() | link.wanted.keys()) - shared:
            link.offered.pop(keyspace, None)
            link.wanted.pop(keyspace, None)

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
        self._refuse(incoming.link, PeerFault(f"the rows that it sent cannot be used: {error}"))

    def _fail(self, incoming: Incoming, error: OSError) -> None:
        """It cannot be kept. Its link ends with it: on that one it would not be offered again."""
        self._give_up(incoming)
        self._refuse(incoming.link, _cannot_keep(error))

    def _give_up(self, incoming: Incoming) -> None:
        incoming.part.close()
        if incoming.check is not None:
            incoming.check.close()
        self._incoming = None
        if incoming.repair is not None and self._repairs.waits_for(incoming.repair):
            self._repairs.failed("its rows did not come whole")

    # -- both

    @property
    def busy(self) -> bool:
        """Whether there is something to write, to check or to merge."""
        incoming = self._incoming
        checking = incoming is not None and incoming.check is not None and not incoming.flipping
        return (
            checking
            or self._engine.flips.rebasing
            or any(outgoing.offer is None for outgoing in self._outgoing.values())
        )

    def work(self, links: list[Link]) -> bool:
        """Write, check and forget a little; whether a spool is finished, so that it can be offered."""
        finished = False
        if self._engine.flips.rebasing:
            self._engine.flips.advance()
        for keyspace, outgoing in list(self._outgoing.items()):
            if outgoing.offer is None:
                finished |= self._write(keyspace, outgoing)
            elif self._now_ms() - outgoing.used_ms > SPOOL_KEEP_MS:
                self._drop(keyspace)
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
                        self._refuse(link, error)
                    break
        return finished

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
            self._refuse(
                incoming.link,
                Unavailable(
                    f"no rows of a sync came for {seconds} s, after {have:,} of {size:,} bytes. They are asked for again."
                ),
            )

    def _take_waiting(self, incoming: Incoming) -> None:
        """There is room on the disk again."""
        try:
            while incoming.waiting:
                self._take(incoming.link, incoming.waiting.popleft())
        except (PeerFault, Unavailable) as error:
            self._refuse(incoming.link, error)

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
            self._note(f"rows of keyspace {keyspace} are not sent to peers: {error}")
            return False
        summary = outgoing.writer.summary
        outgoing.offer = SyncOffer(
            keyspace, outgoing.spool, summary.bytes, summary.crc, summary.head.vector, summary.head.hlc
        )
        return True

    def close(self) -> None:
        """Give back what is open; what has come of a spool stays, what was written is of no use any more. Idempotent."""
        for keyspace in list(self._outgoing):
            self._drop(keyspace)
        incoming = self._incoming
        if incoming is not None and not incoming.flipping:
            self._give_up(incoming)
        self._incoming = None

    def _drop(self, keyspace: int) -> None:
        outgoing = self._outgoing.pop(keyspace)
        outgoing.writer.close()
        self._folder.remove(outgoing.spool)

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
