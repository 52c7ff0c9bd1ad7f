"""The flip: the moment at which the rows of a spool, received as a whole, become part of a keyspace.

Replication calls `begin` with a spool that lies complete, checked and synced in the node's directory. Then

1. *draining*: changes of this keyspace wait, client's and received ones. What was made before becomes durable and goes into LMDB, and
   the cache is dropped: no layer above LMDB holds a row of the keyspace, and LMDB shows what the vector says;
2. *logging*: one BARRIER record, with the spool's vector, synced as any change is;
3. *applying*: the applier joins the rows (store/fold.py) in one commit;
4. the keyspace takes the joined vector over, changes go on, ``done`` is called.

A crash before the BARRIER is durable leaves the keyspace as it was, and a spool that nobody counts on. After it the node's next start
carries out the fold before it replays anything (`Node.recover`). Only marks and runs of other keyspaces can follow the BARRIER in the
log before its commit.

Invariant: the file of a spool stays until LMDB's last but one commit has passed its BARRIER. A power cut may take the last one back
(rule L7), and the fold is done again.

Readers see old rows until the commit and all of the new ones after it; the vector that they are told follows when the commit is
reported, milliseconds later.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from edgekv.engine.admission import Admission
from edgekv.engine.checkpoint import Checkpoints
from edgekv.engine.commit import Commit
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Head, Keyspace
from edgekv.errors import ClockTooFarAhead, Forked
from edgekv.ids import Actor, Lsn, actor_text
from edgekv.store.applied import ChainedVector, Progress
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Memtable
from edgekv.wal.record import Barrier, Repair, pack_barrier

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

    __slots__ = ("asked", "drained_lsn", "frame", "through")

    def __init__(self, asked: _Asked, through: Frame) -> None:
        self.asked: Final = asked
        self.through: Final = through
        """The last frame that may hold a change of the keyspace."""
        self.drained_lsn: Lsn | None = None
        """All of those are durable below it; LMDB has to have them."""
        self.frame: Frame | None = None
        """The one with the BARRIER, from *logging* on."""


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
        admission: Admission,
        hlc_max: Callable[[Keyspace], int],
    ) -> None:
        self._actor: Final = actor
        self._commit: Final = commit
        self._checkpoints: Final = checkpoints
        self._memtable: Final = memtable
        self._store: Final = store
        self._admission: Final = admission
        self._hlc_max: Final = hlc_max
        self._flip: _Flip | None = None
        self._waiting: Final[deque[_Asked]] = deque()
        self._kept: Final[dict[bytes, int]] = {}
        """Spools on disk, and what the applied LSN of LMDB's last but one commit has to reach before they may go."""
        self.forget: Callable[[bytes], None] = lambda spool_id: None
        """Set once by the node: remove the file of a spool."""
        self.finished: Callable[[], None] = lambda: None
        """Set once by the node: rows were taken over as a whole, and what is durable has moved."""

    @property
    def keyspace(self) -> Keyspace | None:
        """The one that takes a spool's rows over just now: nothing may be given to `Engine.receive` for it."""
        return None if self._flip is None else self._flip.asked.keyspace

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
    ) -> None:
        """Have the rows of a spool join the keyspace's own; ``vector`` and ``hlc`` are those of its head.

        ``repair``: have them take the place of the own ones instead. That is right at one vector only: ``failed`` is called, and
        nothing happens, when the keyspace has another one at the moment at which its changes wait.

        If it raises, nothing happened. Forked: the spool has another history of an actor than this node, or changes of this node's own
        that it does not know. ClockTooFarAhead: its stamps are not folded in.
        """
        self._check(keyspace, vector, hlc)
        self._kept[spool_id] = _NOT_YET  # also if it lay there at the start, as something to remove
        entries = [(actor, seq, chain) for actor, (seq, chain) in sorted(vector.items())]
        self._waiting.append(_Asked(keyspace, Barrier(keyspace.id, spool_id, entries, hlc, repair), done, failed))
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

    def advance(self) -> None:
        """Something happened: go on as far as that allows. `begin`, a flush, a sync, a commit of the applier, the tick call it."""
        while (flip := self._flip) is not None or self._waiting:
            if flip is None:
                self._flip = self._hold(self._waiting.popleft())
            elif flip.frame is None:
                if not self._is_drained(flip):
                    return
                if flip.asked.barrier.repair is not None and not _is_even(flip.asked):
                    self._cancel(flip)
                else:
                    self._log(flip)
            elif not flip.frame.done:
                self._commit.kick()
                return
            elif self._checkpoints.applied_lsn < flip.frame.end_lsn:
                self._checkpoints.carry()
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
            raise ClockTooFarAhead(
                f"rows in keyspace {keyspace.name!r} are stamped {hlc >> 16} ms, more than a day ahead of this node. "
                "Set the clocks of both, and connect again."
            )

    def _hold(self, asked: _Asked) -> _Flip:
        commit = self._commit
        asked.keyspace.held = True
        commit.filling.run = None  # the next change must open a run, and is told to wait
        self._admission.hold()
        return _Flip(asked, commit.filling)

    def _is_drained(self, flip: _Flip) -> bool:
        """Whether LMDB has everything of the keyspace; what is missing for that is asked for."""
        commit = self._commit
        if any(frame.number <= flip.through.number and not frame.empty for frame in commit.overlays):
            commit.kick()
            return False
        if flip.drained_lsn is None:
            flip.drained_lsn = commit.durable_lsn
        if self._checkpoints.applied_lsn >= flip.drained_lsn or self._memtable.empty:
            return True
        self._checkpoints.carry()
        return False

    def _log(self, flip: _Flip) -> None:
        self._memtable.drop_cache()
        flip.frame = self._commit.filling
        self._commit.mark(pack_barrier(flip.asked.barrier))

    def _cancel(self, flip: _Flip) -> None:
        """Nothing of it is in the log: changes go on, and its spool may go."""
        self._kept[flip.asked.barrier.spool_id] = 0
        self._flip = None
        flip.asked.keyspace.held = False
        self._admission.release()
        flip.asked.failed("the two nodes did not have the same changes any more when the rows were there")

    def _finish(self, flip: _Flip) -> None:
        keyspace, applied = flip.asked.keyspace, self._store.applied()
        assert flip.frame is not None and not keyspace.observed
        keyspace.vector = {actor: Head(*head) for actor, head in applied.vectors[keyspace.id].items()}
        keyspace.hlc = max(keyspace.hlc, applied.hlcs.get(keyspace.id, 0))
        keyspace.hlc_logged = max(keyspace.hlc_logged, flip.asked.barrier.hlc)
        keyspace.mixed |= keyspace.id in applied.mixed
        self._kept[flip.asked.barrier.spool_id] = flip.frame.end_lsn
        self._flip = None
        keyspace.held = False
        keyspace.flips += 1
        self._admission.release()
        flip.asked.done()
        self.finished()


def _is_even(asked: _Asked) -> bool:
    """Whether a keyspace whose changes wait stands where the spool does."""
    return {(actor, *head) for actor, head in asked.keyspace.vector.items()} == set(asked.barrier.vector)
