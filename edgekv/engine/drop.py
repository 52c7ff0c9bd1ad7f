"""The drop: a keyspace that this node does not hold any more goes, from memory and from LMDB.

Replication calls `begin` when the cluster does not count on this node's copy any longer. Nobody changes the keyspace from then on.

1. *draining*: what was made before becomes durable and goes into LMDB, so that the log has no run of it that a restart would replay,
   and LMDB's last commit but one has not either;
2. *dropping*: the applier deletes its vector and then its rows, some in each transaction, and is asked again until nothing is left;
3. *gone*: LMDB commits once more. A power cut may take back the last commit, and it may not bring the keyspace back below runs that
   the log has of its next copy.

A crash at any point leaves less of it, and the next start begins anew: meta still says that it is not held.
"""

from typing import Final

from edgekv.engine.checkpoint import Checkpoints
from edgekv.engine.commit import Commit
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Keyspace
from edgekv.ids import Lsn
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Memtable
from edgekv.wal.record import pack_hlcs


class _Draining:
    """A keyspace of which LMDB does not have everything yet."""

    __slots__ = ("keyspace", "lsn", "through")

    def __init__(self, keyspace: Keyspace, through: Frame) -> None:
        self.keyspace: Final = keyspace
        self.through: Final = through
        """The last frame that may hold a change of it."""
        self.lsn: Lsn | None = None
        """All of those are durable below it."""


class Drops:
    """Of one node. Driven by `begin`, and by the engine when the applier committed and when time passes."""

    def __init__(self, *, commit: Commit, checkpoints: Checkpoints, memtable: Memtable, store: LmdbStore) -> None:
        self._commit: Final = commit
        self._checkpoints: Final = checkpoints
        self._memtable: Final = memtable
        self._store: Final = store
        self._draining: Final[dict[int, _Draining]] = {}
        self._dropping: Final[dict[int, Keyspace]] = {}
        self._gone: Final[dict[int, Lsn]] = {}
        """Keyspaces of which LMDB has nothing, and where it was when that was seen."""
        self._finished: Final[set[int]] = set()
        """Keyspaces of which nothing is left here."""

    def begin(self, keyspace: Keyspace) -> None:
        """Drop a keyspace that is absent: no client and no peer changes it any more. Idempotent."""
        assert keyspace.absent
        number = keyspace.id
        if self.is_busy(number) or number in self._finished:
            return
        self._draining[number] = _Draining(keyspace, self._commit.filling)
        self._commit.filling.run = None
        self.advance()

    def is_busy(self, number: int) -> bool:
        """Whether a keyspace is about to go: it can be held again when it is gone."""
        return number in self._draining or number in self._dropping or number in self._gone

    def is_torn(self, number: int) -> bool:
        """Whether LMDB has rows of a keyspace and no vector: a drop that did not come to its end."""
        return number not in self._store.applied().vectors and self._has_rows(number)

    def held_again(self, number: int) -> None:
        """A keyspace that was dropped is begun anew: it may have to go another time."""
        self._finished.discard(number)

    def advance(self) -> None:
        """Something happened: go on as far as that allows. Rows of another node that come in go first: they wait for the applier."""
        if self._checkpoints.paused:
            return
        for number, draining in list(self._draining.items()):
            if self._is_drained(draining):
                del self._draining[number]
                self._dropping[number] = draining.keyspace
                draining.keyspace.vector = {}
                self._memtable.drop_cache()
        if not self._dropping and not self._gone:
            return
        for number in [number for number in self._dropping if self._is_gone(number)]:
            keyspace = self._dropping.pop(number)
            self._gone[number] = Lsn(self._store.applied().lsn)  # the reader may show a commit that is not told yet
            self._commit.mark(pack_hlcs([(keyspace.id, keyspace.hlc)]))  # so that there is something to commit
        for number in [number for number, lsn in self._gone.items() if self._checkpoints.applied_lsn > lsn]:
            del self._gone[number]
            self._finished.add(number)
        self._checkpoints.dropped = frozenset(self._dropping)
        if self._dropping:
            self._checkpoints.ask_again()
        elif self._gone and self._commit.durable_lsn > self._checkpoints.applied_lsn:
            self._checkpoints.carry()

    def _is_drained(self, draining: "_Draining") -> bool:
        """Whether LMDB has all of it; what is missing for that is asked for."""
        commit, checkpoints = self._commit, self._checkpoints
        if any(frame.number <= draining.through.number and not frame.empty for frame in commit.overlays):
            commit.kick()
            return False
        if draining.lsn is None:
            draining.lsn = commit.durable_lsn
        if checkpoints.applied_lsn >= draining.lsn:
            return True
        checkpoints.carry()
        return False

    def _is_gone(self, number: int) -> bool:
        return number not in self._store.applied().vectors and not self._has_rows(number)

    def _has_rows(self, number: int) -> bool:
        low, high = number.to_bytes(4, "big"), (number + 1).to_bytes(4, "big")
        return any(True for _ in self._store.range(low, high))
