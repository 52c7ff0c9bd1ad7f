"""The flip: the moment at which the rows of a spool, received as a whole, become part of a keyspace.

Replication calls `begin` with a spool that lies complete, checked and synced in the node's directory. Then

1. *draining*: runs of other actors wait in this keyspace. What is durable is on its way to LMDB, and no generation is frozen until
   it is there;
2. *logging*: one BARRIER record, with the spool's vector, synced as any change is. The keyspace's HLC is above the spool's from then
   on;
3. *applying*: the generation that ends with the BARRIER goes into LMDB, then the applier joins the rows (store/fold.py), in several
   commits. What is shown stays what it was: LMDB's reader is pinned, no layer leaves;
4. *rebasing*: what this node's own changes behind the BARRIER wrote is made anew on the joined rows (engine/rebase.py), a little at a
   time;
5. in one go the reader moves, the layers are those of the joined rows, and the keyspace has the joined vector. ``done`` is called.

Clients read and write all the time: the old rows before step 5, the joined ones after it, with their own changes in both.

A crash before the BARRIER is durable leaves the keyspace as it was, and a spool that nobody counts on. After it the node's next start
carries out the fold, and then all that the log has behind it, before anything is served (`Node.recover`): what step 5 would show.

A fold that fails again and again has no way back: what clients wrote since is stamped and logged behind the BARRIER. The node goes
read-only then, in the state of before (`Engine.cannot_join`).

Invariants
- Own changes of the keyspace that the log has before its BARRIER are joined by the applier; those behind it have stamps above all
  stored ones of either side, and dots above all that the spool knows of this node.
- No run of another actor in the keyspace lies between the BARRIER and its commit: it would go on from a vector that is none any more.
- The applier is asked for nothing behind the BARRIER before step 5: its commit is the state that the rebase begins from.
- The file of a spool stays until LMDB's last but one commit has passed its BARRIER. A power cut may take the last one back
  (rule L7), and the fold is done again.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from edgekv.engine.checkpoint import Checkpoints
from edgekv.engine.commit import Commit
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Head, Keyspace
from edgekv.engine.rebase import Rebase
from edgekv.errors import ClockTooFarAhead, Forked, Unavailable
from edgekv.ids import Actor, Vector, actor_text
from edgekv.limits import REBASE_AT_ONCE_MAX, REBASE_STEPS_MAX
from edgekv.store.applied import ChainedVector, Progress
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.lmdb_transactions import Reading
from edgekv.store.memtable import Memtable
from edgekv.wal.record import Barrier, Changes, Repair, pack_barrier

_NOT_YET: Final = 1 << 64
"""Above every LSN."""


class _Asked(NamedTuple):
    """What `begin` was called with."""

    keyspace: Keyspace
    barrier: Barrier
    done: Callable[[], None]
    failed: Callable[[str], None]


class _Flip:
    """The flip under way."""

    __slots__ = ("asked", "closed", "frame", "reading", "rebase", "steps")

    def __init__(self, asked: _Asked, rebase: Rebase) -> None:
        self.asked: Final = asked
        self.rebase: Final = rebase
        self.frame: Frame | None = None
        """The one with the BARRIER, from *logging* on."""
        self.closed = False
        """*Applying* has begun."""
        self.reading: Reading | None = None
        """Of the joined rows, from *rebasing* on."""
        self.steps = 0
        """Of the rebase, since all that is durable was merged."""


class Flips:
    """Of one node: one at a time, the others wait. Driven by `begin` and, on each of the engine's events, `advance`."""

    def __init__(
        self,
        *,
        actor: Actor,
        commit: Commit,
        checkpoints: Checkpoints,
        memtable: Memtable,
        store: LmdbStore,
        hlc_max: Callable[[Keyspace], int],
    ) -> None:
        self._actor: Final = actor
        self._commit: Final = commit
        self._checkpoints: Final = checkpoints
        self._memtable: Final = memtable
        self._store: Final = store
        self._hlc_max: Final = hlc_max
        self._flip: _Flip | None = None
        self._waiting: Final[deque[_Asked]] = deque()
        self._kept: Final[dict[bytes, int]] = {}
        """Spools on disk, and what the applied LSN of LMDB's last but one commit has to reach before they may go."""
        self.forget: Callable[[bytes], None] = lambda spool_id: None
        """Set once by the node: remove the file of a spool."""
        self.dropped: Callable[[int], list[tuple[Actor, int, int]]] = lambda keyspace: []
        """Set once by replication: of a keyspace, the values that come late and are dropped (replication/returning.py)."""
        self.finished: Callable[[], None] = lambda: None
        """Set once by the node: rows were taken over as a whole, and what is durable has moved."""

    @property
    def keyspace(self) -> Keyspace | None:
        """The one that takes a spool's rows over just now: nothing may be given to `Engine.receive` for it."""
        return None if self._flip is None else self._flip.asked.keyspace

    @property
    def is_busy(self) -> bool:
        """Whether rows are taken over, or wait for that."""
        return self._flip is not None or bool(self._waiting)

    @property
    def joining(self) -> Keyspace | None:
        """The one whose rows are what the applier has to join next, before anything else."""
        flip = self._flip
        if flip is None or flip.frame is None or not flip.closed:
            return None
        return flip.asked.keyspace if self._checkpoints.applied_lsn == flip.frame.end_lsn - 1 else None

    def holds(self, runs: Iterable[Changes]) -> bool:
        """Whether any of these runs of other actors has to wait."""
        keyspace = self.keyspace
        return keyspace is not None and any(run.keyspace == keyspace.id for run in runs)

    def begin(
        self,
        keyspace: Keyspace,
        spool_id: bytes,
        vector: ChainedVector,
        hlc: int,
        done: Callable[[], None],
        *,
        repair: Repair | None = None,
        failed: Callable[[str], None] = lambda sentence: None,
        unseen: Vector | None = None,
    ) -> None:
        """Have the rows of a spool join the keyspace's own; ``vector`` and ``hlc`` are those of its head.

        ``repair``: have them take the place of the own ones instead. That is right at one vector only: ``failed`` is called, and
        nothing happens, when the keyspace has another one where the BARRIER would stand. ``unseen``: as if this node had seen no
        more of these actors, where cells are joined (replication/returning.py).

        If it raises, nothing happened. Forked: the spool has another history of an actor than this node, or changes of this node's own
        that it does not know. ClockTooFarAhead: its stamps are not folded in.
        """
        self._check(keyspace, vector, hlc)
        self._kept[spool_id] = _NOT_YET  # also if it lay there at the start, as something to remove
        entries = [(actor, seq, chain) for actor, (seq, chain) in sorted(vector.items())]
        dropped = self.dropped(keyspace.id) if repair is None else []
        barrier = Barrier(keyspace.id, spool_id, entries, hlc, repair, sorted((unseen or {}).items()), dropped)
        self._waiting.append(_Asked(keyspace, barrier, done, failed))
        self.advance()

    def found(self, spool_ids: Iterable[bytes], lsn: int) -> None:
        """At a start: spools that lie there, which only records below ``lsn`` may name."""
        self._kept.update(dict.fromkeys(spool_ids, lsn))

    def applied(self, progress: Progress) -> None:
        """The applier committed: spools that no crash can bring back may go."""
        for spool_id in [spool_id for spool_id, lsn in self._kept.items() if lsn <= progress.previous_lsn]:
            del self._kept[spool_id]
            self.forget(spool_id)
        self.advance()

    def durable(self, payload: bytes) -> None:
        """A frame has become durable: one behind the BARRIER holds what is to be rebased."""
        flip = self._flip
        if flip is not None and flip.frame is not None and flip.frame.done:
            flip.rebase.follow(payload)

    def forget_keys(self, low: bytes, high: bytes | None) -> None:
        """Keys in [low, high) belong to another keyspace from now on: nothing that was written to them before may come back."""
        if self._flip is not None:
            self._flip.rebase.forget_keys(low, high)

    @property
    def rebasing(self) -> bool:
        """Whether `advance` has something to do at once, a few ms of it."""
        return self._flip is not None and self._flip.rebase.begun

    def advance(self) -> None:
        """Something happened: go on as far as that allows. `begin`, a flush, a sync, a commit of the applier, the tick call it."""
        while (flip := self._flip) is not None or self._waiting:
            if flip is None:
                self._flip = self._hold(self._waiting.popleft())
            elif flip.frame is None:
                if self._memtable.frozen or self._checkpoints.requests:
                    return
                if flip.asked.barrier.repair is not None and not self._is_even(flip.asked):
                    self._cancel(flip)
                else:
                    self._log(flip)
            elif not flip.frame.done:
                self._commit.kick()
                return
            elif not flip.closed:
                self._close(flip)
            elif self._checkpoints.applied_lsn < flip.frame.end_lsn or not self._rebased(flip):
                return
            else:
                self._finish(flip)

    def heads_joined(self, keyspace: Keyspace) -> dict[Actor, Head]:
        """The vector of a BARRIER that the log holds, as long as the keyspace's own does not have it in it.

        A segment that begins meanwhile names it: whoever reads the log from there on has not passed the BARRIER.
        """
        flip = self._flip
        if flip is None or flip.asked.keyspace is not keyspace or flip.frame is None or not flip.frame.done:
            return {}
        return {actor: Head(seq, chain) for actor, seq, chain in flip.asked.barrier.vector}

    def _check(self, keyspace: Keyspace, vector: ChainedVector, hlc: int) -> None:
        known = {**keyspace.vector, **keyspace.observed}
        own = vector.get(self._actor, (0, 0))[0]
        if own > keyspace.vector.get(self._actor, Head(0, 0)).seq:
            raise Forked(f"its rows hold changes of this node, up to {own}, that this node does not know.")
        for actor, (seq, chain) in vector.items():
            head = known.get(actor)
            if head is not None and head.seq == seq and head.chain != chain:
                raise Forked(f"its rows come from another history of {actor_text(actor)}, up to {seq}.")
        if hlc > self._hlc_max(keyspace):
            raise ClockTooFarAhead.of(f"rows in keyspace {keyspace.name!r}", hlc, self._hlc_max(keyspace))

    def _hold(self, asked: _Asked) -> _Flip:
        asked.keyspace.held = True
        self._checkpoints.carry()  # what the generation that ends with the BARRIER need not hold
        self._checkpoints.paused = True
        return _Flip(asked, Rebase(self._actor, asked.keyspace))

    def _log(self, flip: _Flip) -> None:
        keyspace, barrier = flip.asked.keyspace, flip.asked.barrier
        keyspace.hlc = max(keyspace.hlc, barrier.hlc)
        flip.frame = self._commit.filling
        self._commit.mark_end(pack_barrier(barrier))

    def _close(self, flip: _Flip) -> None:
        """What is durable now ends with the BARRIER's frame. The generation is that of before; what comes is above it."""
        assert flip.frame is not None and self._commit.durable_lsn == flip.frame.end_lsn
        flip.closed = True
        self._store.pin()
        self._checkpoints.close()

    def _rebased(self, flip: _Flip) -> bool:
        """Merge a little more on the joined rows; whether there is so little left that the flip can come to its end."""
        try:
            if flip.reading is None:
                flip.reading = self._store.read()
                flip.rebase.begin(flip.reading, flip.reading.applied())
            if not self._store.pinned:
                return True  # it shows the joined rows already
            if flip.rebase.step():
                return False
            flip.steps += 1
            frames = self._frames()
            if flip.rebase.undurable(frames) > REBASE_AT_ONCE_MAX and flip.steps < REBASE_STEPS_MAX:
                return False
            flip.rebase.complete(frames)
        except Unavailable:  # the map had to move: there is one state to read, and nothing may happen in between
            self._store.unpin()
        return True

    def _frames(self) -> list[Frame]:
        """Those that are not durable, oldest first."""
        return self._commit.overlays[::-1]

    def _is_even(self, asked: _Asked) -> bool:
        """Whether what the log has before this moment's frame ends, of the keyspace, is what the spool has."""
        keyspace = asked.keyspace
        heads = {**keyspace.vector, **keyspace.observed}
        own = keyspace.vector.get(self._actor, Head(0, 0)).seq
        return keyspace.seq == own and {(actor, *head) for actor, head in heads.items()} == set(asked.barrier.vector)

    def _cancel(self, flip: _Flip) -> None:
        """Nothing of it is in the log: changes go on, and its spool may go."""
        self._kept[flip.asked.barrier.spool_id] = 0
        self._flip = None
        flip.asked.keyspace.held = self._checkpoints.paused = False
        flip.asked.failed("the two nodes did not have the same changes any more when the rows were there")

    def _finish(self, flip: _Flip) -> None:
        keyspace, store, rebase = flip.asked.keyspace, self._store, flip.rebase
        assert flip.frame is not None and not keyspace.observed
        if flip.reading is not None:
            flip.reading.close()
        pinned = store.pinned
        store.unpin()
        applied = store.applied()
        if not pinned:
            rebase.begin(store, applied)
            rebase.complete(self._frames())
        self._checkpoints.reopen()
        keyspace.mixed |= rebase.put(self._memtable.active)
        for actor, head in applied.vectors[keyspace.id].items():
            if head[0] > keyspace.vector.get(actor, Head(0, 0)).seq:
                keyspace.vector[actor] = Head(*head)
        keyspace.hlc_logged = max(keyspace.hlc_logged, flip.asked.barrier.hlc)
        self._kept[flip.asked.barrier.spool_id] = flip.frame.end_lsn
        self._flip = None
        keyspace.held = False
        keyspace.flips += 1
        self._checkpoints.grown()
        flip.asked.done()
        self.finished()
