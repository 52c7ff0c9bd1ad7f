"""The storage engine of one node: the commit pipeline, reads, admission and checkpoints over one log, one memtable and one LMDB store.

Synchronous and pure: events come in (client calls through node/operations.py, `written`, `synced`, `failed`, `applied`, `tick`),
effects go out through the functions given at construction. It reads no clock, opens no file and starts no thread, so the simulator
runs it as it is.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from edgekv.engine.admission import Admission
from edgekv.engine.checkpoint import Checkpoints
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit, LogState
from edgekv.engine.conflicts import Conflicts
from edgekv.engine.drop import Drops
from edgekv.engine.expired_keys import ExpiredKeys
from edgekv.engine.flip import Flips
from edgekv.engine.frame import Frame, newer
from edgekv.engine.intake import Intake
from edgekv.engine.keyspaces import Keyspace, KeyspacePolicy, Keyspaces, successor
from edgekv.engine.misplaced import Misplaced
from edgekv.engine.reads import Reads
from edgekv.engine.recovery import Replay
from edgekv.engine.runs import Runs
from edgekv.engine.tail import Tail
from edgekv.errors import EdgeKVError, LogFailed, Unavailable
from edgekv.ids import Actor, KeyspaceId, Lsn, Vector, actor_text
from edgekv.limits import CLOCK_AHEAD_MS_MAX, HLC_FOLD_MAX, RESERVE_SEGMENTS, RESTART_SEGMENTS
from edgekv.store.applied import ChainedVector, Progress, Stable
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Memtable
from edgekv.wal.record import Changes, Repair, pack_hlcs

_SWEEP_ROWS: Final = 64
_SWEEP_FACTOR: Final = 1
"""Rows freed per row written: with the tick's share, garbage goes faster than it comes."""
_SWEEP_IDLE_ROWS: Final = 20_000  # about 3 ms

_RELIEF_SHARE: Final = 4
"""Part of ``memory_bytes`` that deletes may take beyond it on a full disk."""


class Log(LogState, Protocol):
    """What the engine reads of the log."""

    @property
    def spares(self) -> int: ...

    @property
    def room_bytes(self) -> int: ...

    def bytes_from(self, lsn: int) -> int: ...


class Effects(Protocol):
    """What the engine asks of its shell. None of these may call back into the engine before it returns."""

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        """Hand an encoded frame to the flusher; `Engine.written` or `Engine.failed` answers."""

    def apply(self, lsn: Lsn, stable: Stable | None) -> None:
        """Ask the applier to carry the log up to ``lsn`` (exclusive, durable) into LMDB."""

    def recycle(self, below_lsn: Lsn) -> None:
        """The log below may be given back."""


class Engine:
    """See the module docstring. Built by `Node.recover` in node/node.py."""

    def __init__(
        self,
        *,
        actor: Actor,
        keyspaces: Keyspaces,
        memtable: Memtable,
        store: LmdbStore,
        replay: Replay,
        log: Log,
        memory_bytes: int,
        segment_bytes: int,
        now_ms: Callable[[], int],
        effects: Effects,
    ) -> None:
        self.actor: Final = actor
        self.keyspaces: Final = keyspaces
        self.memtable: Final = memtable
        self._log: Final = log
        self._segment_bytes: Final = segment_bytes
        self._client_room_bytes: Final = segment_bytes // 8
        self._now_ms: Final = now_ms
        self._ttl_ms = 0
        self.judges_clocks = False
        """Whether changes from a far future are refused: hubs do, and decide for all."""
        self.repeated_total = 0
        """Operations that came again and got the reply of their first attempt."""
        self.admission: Final = Admission(memory_bytes)
        self._relief_bytes_max: Final = memory_bytes + memory_bytes // _RELIEF_SHARE
        self.admission.reserve_has_room = self._reserve_has_room
        self.commit: Final = Commit(
            actor=actor,
            memtable=memtable,
            log=log,
            now_ms=now_ms,
            flush=effects.flush,
            checkpoint=self._checkpoint,
            segment_bytes=segment_bytes,
            grown=self._judge,
            operation_ids=replay.operation_ids,
        )
        self.tail: Final = Tail()
        """The end of the log in memory, for those who follow it."""
        self.commit.on_durable = self._durable
        self.collections: Final = Collections(actor=actor, commit=self.commit, memtable=memtable, store=store)
        self.reads: Final = Reads(
            actor=actor,
            commit=self.commit,
            memtable=memtable,
            store=store,
            keyspaces=keyspaces,
            collections=self.collections,
            ttl_now_ms=self.ttl_now_ms,
        )
        self.runs: Final = Runs(
            actor=actor, commit=self.commit, memtable=memtable, store=store, collections=self.collections
        )
        self.conflicts: Final = Conflicts()
        """What concurrent writes elsewhere have lost to what was here."""
        self.intake: Final = Intake(
            actor=actor,
            commit=self.commit,
            keyspaces=keyspaces,
            read_register=self.reads.register,
            run_bytes_max=segment_bytes // 2,
            hlc_max=self._hlc_max,
            conflicts=self.conflicts,
        )
        self.expired_keys: Final = ExpiredKeys(
            commit=self.commit, reads=self.reads, collections=self.collections, keyspaces=keyspaces, store=store
        )
        self.commit.read_row = self.reads.row
        self.commit.read_collection = self.collections.rows
        self.checkpoints: Final = Checkpoints(
            commit=self.commit,
            memtable=memtable,
            keyspaces=keyspaces,
            memory_bytes=memory_bytes,
            request=effects.apply,
            renew_reader=store.renew,
            recycle=effects.recycle,
        )
        self.checkpoints.ttl_ms = replay.ttl_ms
        self.checkpoints.applied_lsn = Lsn(replay.applied_lsn)
        self.flips: Final = Flips(
            actor=actor,
            commit=self.commit,
            checkpoints=self.checkpoints,
            memtable=memtable,
            store=store,
            hlc_max=self._hlc_max,
        )
        self.checkpoints.heads_joined = self.flips.heads_joined
        self.drops: Final = Drops(commit=self.commit, checkpoints=self.checkpoints, memtable=memtable, store=store)
        self.misplaced: Final = Misplaced(keyspaces, store)

    # -- what interfaces use

    @property
    def barrier(self) -> Frame | None:
        """The newest frame that the calls since it was set to None wrote to or looked at."""
        return self.commit.barrier

    @barrier.setter
    def barrier(self, frame: Frame | None) -> None:
        self.commit.barrier = frame

    @property
    def write_blocked(self) -> bool:
        """A bound is met: hold the write, stop reading from its connection, leave a callback in ``on_room``."""
        return self.admission.blocked

    @property
    def on_room(self) -> list[Callable[[], None]]:
        """One-shot callbacks for when there is room again."""
        return self.admission.on_room

    newer = staticmethod(newer)

    @property
    def operation_reply_bytes_max(self) -> int:
        """How large the reply of an operation with an id may be."""
        return self.commit.operation_reply_bytes_max

    def once(self, session: bytes, number: int, call: Callable[[], bytes]) -> bytes:
        """The reply of ``call``, which is called unless the operation with this id was carried out before (engine/operation_ids.py).

        ``call`` makes at most one change, with a reply of at most `operation_reply_bytes_max`, and nothing happened when it raises.
        IdForgotten, InvalidRequest: it is not called.
        """
        commit = self.commit
        reply = commit.reply_to(session, number)
        if reply is None:
            frame = commit.filling
            changes = frame.changes
            reply = call()
            commit.remember(frame, changes, session, number, reply)
        else:
            self.repeated_total += 1
        return reply

    # -- what replication uses

    def receive(self, run: Changes) -> bool:
        """Take in a run of another actor; False: it is here already. Durable when the vector says so; see `Intake.receive`."""
        return self.intake.receive(run)

    def flip(
        self,
        number: KeyspaceId,
        spool_id: bytes,
        vector: ChainedVector,
        hlc: int,
        done: Callable[[], None],
        *,
        repair: Repair | None = None,
        failed: Callable[[str], None] = lambda sentence: None,
        unseen: Vector | None = None,
    ) -> None:
        """Have the rows of a checked spool join those of a keyspace, or mend them, then call ``done``; see `Flips.begin`."""
        self.flips.begin(
            *(self.keyspaces.by_id[number], spool_id, vector, hlc, done),
            repair=repair,
            failed=failed,
            unseen=unseen or {},
        )

    def cannot_join(self, tries: int, reason: str) -> EdgeKVError:
        """The applier has failed so often at the rows of a spool, at last for this ``reason``: no more writes, and why."""
        keyspace = self.flips.joining
        assert keyspace is not None
        error = Unavailable(
            f"the rows of keyspace {keyspace.name!r} that another node sent cannot be joined with its own, after {tries} tries "
            f"({reason.rstrip('.')}). Reads go on with the rows of before, and what was written here goes on to other nodes. Wait "
            "until they have it (`edgekv cluster status`), then start the node again, which tries once more; if that fails as well, "
            "let it join with an empty directory."
        )
        self.admission.refuse(error)
        return error

    def log_bytes_from(self, lsn: int) -> int:
        """What the log takes of the disk from an LSN on."""
        return self._log.bytes_from(lsn)

    def create(self, policy: KeyspacePolicy) -> Keyspace:
        """One more keyspace. What was written below its prefix is misplaced from now on. ConfigError: see `Keyspaces.add`."""
        keyspace = self.keyspaces.add(policy)
        low, high = policy.prefix, successor(policy.prefix)
        for frame in self.commit.overlays:
            frame.layer.forget(low, high)
        self.memtable.forget(low, high)
        self.flips.forget_keys(low, high)
        return keyspace

    def fold(self, hlcs: Mapping[KeyspaceId, int], ttl_ms: int) -> None:
        """Stamp above these, by keyspace, and judge expiries by no earlier time than this, also after a restart."""
        higher = [(number, hlc) for number, hlc in hlcs.items() if hlc > self.keyspaces.by_id[number].hlc]
        if higher:
            for number, hlc in higher:
                self.keyspaces.by_id[number].hlc = hlc
            self.commit.filling.run = None  # its stamps go on from lower ones
            self.commit.mark(pack_hlcs(higher))
        self.checkpoints.learn_ttl(ttl_ms)

    def _hlc_max(self, keyspace: Keyspace) -> int:
        if not self.judges_clocks:
            return HLC_FOLD_MAX - 1
        return (max(self._now_ms(), keyspace.hlc >> 16) + CLOCK_AHEAD_MS_MAX) << 16

    def ttl_now_ms(self) -> int:
        """TTL time: the larger of the wall clock and what the log has learned, never lower than before; expiries are judged by it."""
        self._ttl_ms = max(self._ttl_ms, self._now_ms(), self.checkpoints.ttl_logged_ms)
        return self._ttl_ms

    def kick(self) -> None:
        """Start a flush if none is running. Called once per turn of the loop in which something was changed."""
        self.commit.kick()

    def _checkpoint(self) -> bytes:
        return self.checkpoints.record()

    # -- events

    def _durable(self, first_lsn: int, payload: bytes) -> None:
        self.tail.append(first_lsn, payload)
        self.flips.durable(payload)

    def written(self, frame: Frame) -> None:
        """The flusher finished a frame (see `Commit.written`)."""
        self.commit.written(frame)
        self.checkpoints.grown()
        self.memtable.sweep(_SWEEP_ROWS + _SWEEP_FACTOR * frame.changes)
        self.flips.advance()
        self._judge()

    def synced(self) -> None:
        """A sync without a frame finished: what was buffered is durable."""
        self.commit.synced()
        self.flips.advance()
        self._judge()

    def failed(self, error: LogFailed) -> None:
        """The log failed. Nothing is acknowledged after this; the process is about to end."""
        self.admission.read_only = error
        self.commit.failed(error)

    def applied(self, progress: Progress) -> None:
        """The applier committed."""
        self.checkpoints.applied(progress)
        self.flips.applied(progress)
        if progress.lost is not None:
            keyspace = self.keyspaces.by_id.get(KeyspaceId(progress.lost.keyspace))
            self.conflicts.add_all(str(progress.lost.keyspace) if keyspace is None else keyspace.name, progress.lost)
        self.drops.advance()
        self._judge()

    def tick(self) -> None:
        """About ten times a second: freezes that no commit triggers, and the bounds."""
        self.checkpoints.tick(self._now_ms(), blocked=self.admission.blocked or self.admission.disk_full)
        self.memtable.sweep(_SWEEP_IDLE_ROWS)
        self.commit.kick()
        self.flips.advance()
        self.drops.advance()
        self._judge()

    def disk(self, *, free_bytes: int, spares_failed: bool) -> None:
        """What the file system has left; ``spares_failed``: another log segment could not be zeroed."""
        self.admission.disk(
            free_bytes=free_bytes,
            reusable_bytes=self.checkpoints.reusable_bytes,
            unapplied_bytes=self.unapplied_bytes,
            spares_failed=spares_failed,
        )

    @property
    def unapplied_bytes(self) -> int:
        """What is not in LMDB yet, as it counts against ``memory_bytes``."""
        return self.memtable.size_bytes + self.commit.pending_bytes

    def _judge(self) -> None:
        """A client's frame must not need a spare that belongs to the reserve."""
        unapplied_bytes = self.unapplied_bytes
        self.memtable.trim(unapplied_bytes)
        log_has_room = self._log.spares > RESERVE_SEGMENTS or self._log.room_bytes > self._client_room_bytes
        self.admission.update(unapplied_bytes=unapplied_bytes, log_has_room=log_has_room)

    def _reserve_has_room(self) -> bool:
        """Whether what waits for the log and one more change, half a segment at most, fit without the spare that a restart needs.

        A frame is rolled over when it does not fit: of segments in a row each is at least half used, so half is what one counts for.
        Memory has a bound as well: while the applier cannot write, deletes only add to it.
        """
        if self.unapplied_bytes >= self._relief_bytes_max:
            return False
        half = self._segment_bytes // 2
        need = self.commit.pending_bytes + half
        return need <= self._log.room_bytes or need <= half * (self._log.spares - RESTART_SEGMENTS)

    def status(self) -> dict[str, object]:
        """Figures for people and scripts."""
        refused = self.admission.read_only
        return {
            "actor": actor_text(self.actor),
            "next_lsn": self._log.next_lsn,
            "durable_lsn": self.commit.durable_lsn,
            "applied_lsn": self.checkpoints.applied_lsn,
            "unapplied_bytes": self.unapplied_bytes,
            "memtable_rows": self.memtable.rows,
            "write_blocked": self.admission.blocked,
            "disk_full": self.admission.disk_full,
            "read_only": None if refused is None else str(refused),
            "spare_segments": self._log.spares,
            "operation_sessions": len(self.commit.operation_ids),
            "operations_repeated": self.repeated_total,
            "conflicts": dict(sorted(self.conflicts.totals.items())),
            "misplaced": self.misplaced.figures(),
            "keyspaces": [
                {"name": k.name, "prefix": k.prefix.decode(errors="backslashreplace"), "seq": k.seq, "hlc": k.hlc}
                for k in self.keyspaces.all
            ],
        }
