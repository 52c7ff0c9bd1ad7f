"""One node as a synchronous whole: recovered log, store, engine and operations. What the server wraps and the simulator runs.

`Node.recover` is the start-up in its order: LMDB's state, then the log from there (wal/recovery.py judges it, engine/recovery.py
replays it), then the engine goes on where the log ends. A row sync that LMDB has not joined yet is finished first: the applier carries
all of the log into LMDB, and nothing is left to replay. Damage in the log does not keep a node from answering: it starts read-only,
serves what it has, and says which LSNs are gone and what to do. So does one whose disk has no room for the segment that a start opens:
all that was acknowledged can be read.
"""

import errno
import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekv.config import Config
from edgekv.engine.engine import Effects, Engine
from edgekv.engine.keyspaces import KeyspacePolicy, Keyspaces
from edgekv.engine.recovery import Replay
from edgekv.errors import Corruption, DiskFull, EdgeKVError, LogFailed
from edgekv.ids import Lsn
from edgekv.node.identity import Identity
from edgekv.node.operations import Operations
from edgekv.node.session import Sessions
from edgekv.node.watch import Watches
from edgekv.replication.acks import Acks
from edgekv.store.applied import sync_path
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Memtable
from edgekv.store.spool import spool_file, spool_ids
from edgekv.wal.disk import Disk
from edgekv.wal.log import Log
from edgekv.wal.record import pack_incarnation
from edgekv.wal.recovery import recover

_log: Final = logging.getLogger("edgekv.node")

_NEVER: Final = 1 << 64
"""No commit reaches this LSN."""


class NoLog:
    """Stands where the log would: a read-only node has an end of what it could read, and no room to write."""

    at_segment_start = False
    spares = 0
    room_bytes = 0

    def __init__(self, next_lsn: int) -> None:
        self.next_lsn: Final = Lsn(next_lsn)

    def room(self, _payload_bytes: int) -> bool:
        """There is none."""
        return False

    def bytes_from(self, _lsn: int) -> int:
        """Nothing of it is used up."""
        return 0


class Node:
    """A recovered node."""

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        operations: Operations,
        watches: Watches,
        log: Log | None,
        replayed: int,
    ) -> None:
        self.identity: Final = identity
        self.engine: Final = engine
        self.operations: Final = operations
        self.watches: Final = watches
        self.log: Final = log
        """None: the log is damaged, or cannot be opened on a full disk, and the node is read-only."""
        self.replayed_changes: Final = replayed
        self.acks: Final = Acks(actor=identity.actor, site=identity.site)
        self.sessions: Final = Sessions(actor=identity.actor, keyspaces=engine.keyspaces, commit=engine.commit)
        engine.flips.finished = self.durable

    def durable(self) -> None:
        """What is durable has moved: after `Engine.written` and `Engine.synced`, and when rows were taken over as a whole."""
        self.sessions.durable()
        self.watches.durable()

    def tick(self, now_ms: int) -> None:
        """About ten times a second, with ms of a clock that never goes back: who has waited long enough for other nodes hears so."""
        self.acks.tick(now_ms)
        self.sessions.tick(now_ms)

    def expire_all(self) -> None:
        """The node stops: nobody waits for other nodes any longer."""
        self.acks.expire_all()
        self.sessions.expire_all()

    @classmethod
    def recover(
        cls,
        config: Config,
        *,
        identity: Identity,
        policies: list[KeyspacePolicy],
        disk: Disk,
        store: LmdbStore,
        effects: Effects,
        apply_now: Callable[[int], None],
        now_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> "Node":
        """Bring the node to the state that its log and store hold. On return all of that state is durable.

        ``apply_now``: have the applier carry the durable log below this LSN into the store, and wait for it; an EdgeKVError when it
        cannot. Called only when the node ended between the BARRIER of a row sync and its commit.
        """
        applied = store.applied()
        keyspaces, memtable = Keyspaces(policies), Memtable(config.memory_bytes)
        replay = Replay(actor=identity.actor, keyspaces=keyspaces, layer=memtable.active, applied=applied, store=store)
        log: Log | None = None
        refused: EdgeKVError | None = None
        try:
            log = recover(
                disk,
                node_id=identity.node,
                incarnation=identity.incarnation,
                applied_lsn=applied.lsn,
                segment_bytes=config.wal.segment_bytes,
                entropy=entropy,
                on_frame=replay.frame,
                data_dir=shlex.quote(str(config.data_dir)),
            )
            if log.stale:
                _log.warning(
                    "a header in %s is damaged, or a segment between them and %s is gone. The store has applied all that they held: "
                    "they are removed when its commits after this start make that sure. Look after the disk.",
                    ", ".join(log.stale),
                    log.segments[0].name,
                )
        except Corruption as error:
            refused = error
        except LogFailed as error:
            if not _is_full(error):
                raise
            refused = DiskFull("the disk has no room for a segment of the log. Free space, then start the node again.")
        if replay.barrier_lsn is not None and log is not None:
            store.pin()
            try:
                apply_now(log.next_lsn)
            except EdgeKVError as error:  # what is joined so far is not shown
                log.close()
                log, refused = None, error
            else:
                store.unpin()
                applied = store.applied()
                keyspaces, memtable = Keyspaces(policies), Memtable(config.memory_bytes)
                replay = Replay(
                    actor=identity.actor, keyspaces=keyspaces, layer=memtable.active, applied=applied, store=store
                )
        replay.finish()
        for keyspace in keyspaces.all:
            keyspace.absent = not keyspace.policy.held_at(identity.site, config.role)
        engine = Engine(
            actor=identity.actor,
            keyspaces=keyspaces,
            memtable=memtable,
            store=store,
            replay=replay,
            log=log or NoLog(applied.lsn),
            memory_bytes=config.memory_bytes,
            segment_bytes=config.wal.segment_bytes,
            now_ms=now_ms,
            effects=effects,
        )
        folder = sync_path(Path(config.data_dir))
        engine.flips.found(spool_ids(folder), log.next_lsn if log else _NEVER)
        engine.flips.forget = lambda spool_id: spool_file(folder, spool_id).unlink(missing_ok=True)
        if refused is not None:
            engine.admission.read_only = refused
            # LMDB gets nothing of what was replayed, so that may not leave the read path.
            engine.checkpoints.paused = True
        elif not any(identity.actor in keyspace.vector for keyspace in keyspaces.all):
            engine.commit.mark(pack_incarnation(identity.actor))
        operations = Operations(engine, value_bytes_max=config.limits.value_bytes_max)
        return cls(identity, engine, operations, Watches(operations, disk), log, replay.changes)


def _is_full(error: LogFailed) -> bool:
    """Whether the log failed for want of space. All that was read is durable then: a segment is opened last in a recovery."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
