"""Checkpoints: carrying the memtable into LMDB, and giving back the log and the memory that this frees.

A *freeze* makes the active generation immutable and asks the applier to carry the log up to the durable LSN into LMDB. When its commit
is reported, the reader transaction is renewed first, then the generation leaves the read path (or its rows were in neither), then the
log below the applied LSN of the *last but one* commit is recycled (rule L7: with metasync=False a power cut may take the last commit).

A freeze happens when the active generation is large, when it is old, and when a bound on memory is met; the last two by the tick, not
by a commit: paused connections send none, so a freeze that waited for one would wait for ever.

A one-node cluster announces STABLE to itself, others hear it from the hub. Alone, the applier may purge tombstones and expired rows
whose dot the frozen vector covers, up to the TTL time that this log already holds (a MARK), so that it is never lower after a restart.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from edgekv.engine.commit import Commit
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Head, Keyspace, Keyspaces
from edgekv.ids import Actor, Lsn
from edgekv.limits import GENERATION_AGE_MS, GENERATION_ROWS
from edgekv.store.applied import Progress, Stable
from edgekv.store.memtable import Memtable
from edgekv.wal.record import Checkpoint, KeyspaceState, pack_checkpoint, pack_ttl

NOTHING_HELD: Final = 1 << 64
"""Above every LSN."""
_PURGE_INTERVAL_MS: Final = 60_000
_PURGE_HURRY_MS: Final = 3_000
"""On a full disk, where what has expired is the room that writers wait for."""
_GENERATIONS: Final = 3
"""The cap on memory is shared by the active generation and two frozen ones."""


class Request(NamedTuple):
    """What the applier was asked for and has not committed yet."""

    lsn: Lsn
    stable: Stable | None


class Checkpoints:
    """Freezes generations, follows the applier, recycles the log."""

    def __init__(
        self,
        *,
        commit: Commit,
        memtable: Memtable,
        keyspaces: Keyspaces,
        memory_bytes: int,
        request: Callable[[Lsn, Stable | None], None],
        renew_reader: Callable[[], None],
        recycle: Callable[[Lsn], None],
    ) -> None:
        self._commit: Final = commit
        self._memtable: Final = memtable
        self._keyspaces: Final = keyspaces
        self._generation_bytes: Final = memory_bytes // _GENERATIONS
        self._request: Final = request
        self._renew_reader: Final = renew_reader
        self._recycle: Final = recycle
        self.requests: list[Request] = []
        self.applied_lsn = Lsn(0)
        self.reusable_bytes = 0
        self.paused = False
        """Nothing is frozen, and the applier is asked for nothing more: rows of another node come in (engine/flip.py)."""
        self.hidden = False
        """What is applied is not shown: layers and reader stay what they are."""
        self.lone = True
        """Nobody else has this node's data: it announces STABLE to itself."""
        self.stable: Stable | None = None
        """What a node that is not alone may purge by: the newest STABLE it knows of."""
        self.dropped: frozenset[int] = frozenset()
        """Keyspaces of which the applier is to delete everything (engine/drop.py)."""
        self.heads_joined: Callable[[Keyspace], Mapping[Actor, Head]] = lambda keyspace: {}
        """Set once by the engine: the vector of a BARRIER that is in the log, and not yet in the keyspace's vector."""
        self.held_lsn: Callable[[], int] = lambda: NOTHING_HELD
        """Set once by replication: from where on the log has to stay although it is applied."""
        self.ttl_ms = 0
        """TTL time as logged: what the applier may purge by."""
        self._ttl_frame: Frame | None = None
        self._ttl_frame_ms = 0
        self._frozen_at_ms = 0
        self._purged_at_ms = 0

    @property
    def ttl_logged_ms(self) -> int:
        """TTL time that is logged or about to be.

        Readers and writers judge by it at once: a clock that is set back afterwards must not add to a key that a purge by this time
        may already remove.
        """
        return self.ttl_ms if self._ttl_frame is None else self._ttl_frame_ms

    def record(self) -> bytes:
        """The MARK that begins a segment: the state at the end of the log as written."""
        states = [
            KeyspaceState(
                keyspace=k.id,
                vector=[(actor, head.seq, head.chain) for actor, head in self._heads_written(k).items()],
                hlc=k.hlc_logged,
                own_seq=self._commit.own_seq_written(k),
            )
            for k in self._keyspaces.all
        ]
        return pack_checkpoint(Checkpoint(states, self.ttl_ms))

    def _heads_written(self, keyspace: Keyspace) -> dict[Actor, Head]:
        heads = self._commit.heads_written(keyspace)
        for actor, head in self.heads_joined(keyspace).items():
            if actor not in heads or heads[actor].seq < head.seq:
                heads[actor] = head
        return heads

    def learn_ttl(self, ttl_ms: int) -> None:
        """Another node's TTL time: logged at once, and none is logged below it."""
        if ttl_ms > self.ttl_logged_ms:
            self._ttl_frame, self._ttl_frame_ms = self._commit.filling, ttl_ms
            self._commit.mark(pack_ttl(ttl_ms))

    def follow(self, stable: Stable) -> None:
        """Purge by this STABLE, once this node's own TTL time has durably reached its wall: what is gone must look expired here.

        That of a member has, since the wall is the least that any of them said. One that is about to be a member, or is back with an
        older disk, may know of the STABLE first.
        """
        self.learn_ttl(stable.wall_ms)
        if self.ttl_durable_ms >= stable.wall_ms:
            self.stable = stable

    @property
    def purged_ms(self) -> int:
        """What has expired by then may be purged already."""
        if self.lone:
            return self.ttl_ms
        return 0 if self.stable is None else self.stable.wall_ms

    @property
    def ttl_durable_ms(self) -> int:
        """TTL time that a restart finds again: what may be said to others."""
        return self._ttl_frame_ms if self._ttl_frame is not None and self._ttl_frame.done else self.ttl_ms

    def grown(self) -> None:
        """After a flush: freeze a generation that has become large."""
        active = self._memtable.active
        if self.paused:
            return
        if active.rows >= GENERATION_ROWS or active.size_bytes >= self._generation_bytes:
            self._freeze()

    def tick(self, now_ms: int, *, blocked: bool) -> None:
        """Freeze what has become old, or anything at all when writers wait or are refused; let the applier purge now and then.

        While nothing can be frozen nothing is logged: on a full disk these marks would use up the reserve.
        """
        if self.paused:
            return
        if not self._memtable.active.empty:
            if self._memtable.can_freeze and (blocked or _passed(GENERATION_AGE_MS, self._frozen_at_ms, now_ms)):
                self._log_ttl(now_ms)
                self._freeze()
                self._frozen_at_ms = now_ms
        elif not self.requests:
            self._purge(now_ms, _PURGE_HURRY_MS if blocked else _PURGE_INTERVAL_MS)

    def applied(self, progress: Progress) -> None:
        """The applier committed."""
        lsn = Lsn(progress.lsn)
        assert lsn >= self.applied_lsn, "the applied LSN never moves backwards"
        self.applied_lsn, self.reusable_bytes = lsn, progress.reusable_bytes
        self.requests = [request for request in self.requests if request.lsn > lsn]
        self._memtable.applied(lsn)
        if not self.hidden:
            self._show(cleared=progress.cleared)
        self._recycle(Lsn(min(progress.previous_lsn, self.held_lsn())))
        self.grown()

    def _show(self, *, cleared: bool) -> None:
        self._renew_reader()  # first the reader, then the generation may leave the read path
        self._memtable.renewed(self.applied_lsn)
        if cleared:
            self._memtable.drop_cache()

    def carry(self) -> None:
        """Ask the applier for everything that is durable, if it was not.

        While two generations wait for it nothing can be asked, nor while a flip holds them: what is behind its BARRIER has to wait.
        """
        if self.paused:
            return
        if self.requests and self.requests[-1].lsn >= self._commit.durable_lsn:
            return
        if self._memtable.can_freeze:
            self._freeze()
        elif self._memtable.active.empty:
            self._ask(self._commit.durable_lsn)

    def close(self) -> None:
        """Ask the applier for all that is durable, and show nothing of it before ``reopen``. No generation may be on its way."""
        assert self.paused and not self._memtable.frozen
        self.hidden = True
        if not self._memtable.active.empty:
            self._memtable.freeze(self._commit.durable_lsn)
        self._ask(self._commit.durable_lsn)

    def reopen(self) -> None:
        """Show what is applied, which is all that was asked for, and freeze again."""
        self.paused = self.hidden = False
        self._show(cleared=True)

    def ask_again(self) -> None:
        """Have the applier drop more of what is not held any more, if it is not at work."""
        if not self.requests:
            self._ask(self._commit.durable_lsn)

    def repeat_requests(self) -> None:
        """The applier was restarted: ask again for what it had not committed."""
        for request in self.requests:
            self._request(request.lsn, request.stable)

    def _purge(self, now_ms: int, interval_ms: int) -> None:
        """Without anything to store: log the TTL time, and have the applier purge by it as soon as it is durable."""
        if self._ttl_frame is not None:
            if self._ttl_frame.done:
                self._ask(self._commit.durable_lsn)
        elif _passed(interval_ms, self._purged_at_ms, now_ms):
            self._purged_at_ms = now_ms
            self._log_ttl(now_ms)
            if self._ttl_frame is None:  # the clock was set back: tombstones can go all the same
                self._ask(self._commit.durable_lsn)

    def _freeze(self) -> None:
        if not self._memtable.can_freeze:
            return
        self._memtable.freeze(self._commit.durable_lsn)
        self._ask(self._commit.durable_lsn)

    def _ask(self, lsn: Lsn) -> None:
        if self._ttl_frame is not None and self._ttl_frame.done:
            self.ttl_ms, self._ttl_frame = self._ttl_frame_ms, None
        stable = Stable(wall_ms=self.ttl_ms, cuts=None) if self.lone else self.stable
        if self.dropped:
            stable = (stable or Stable(wall_ms=0, cuts={}))._replace(dropped=self.dropped)
        request = Request(lsn, stable)
        self.requests.append(request)
        self._request(request.lsn, request.stable)

    def _log_ttl(self, now_ms: int) -> None:
        """Log the TTL time; it is used from the first request after its frame is durable."""
        if self._ttl_frame is None and now_ms > self.ttl_ms:
            self._ttl_frame, self._ttl_frame_ms = self._commit.filling, now_ms
            self._commit.mark(pack_ttl(now_ms))


def _passed(interval_ms: int, since_ms: int, now_ms: int) -> bool:
    """Whether an interval is over; after a step back of the clock it is, or nothing would happen until the clock has caught up."""
    return not 0 <= now_ms - since_ms < interval_ms
