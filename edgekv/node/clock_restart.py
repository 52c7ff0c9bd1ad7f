"""The restart of a node's hybrid logical clock, after its wall clock had been days ahead.

A hub refuses changes that are stamped more than a day ahead. When the clock is right again, the stamps still are not, and neither is
the HLC, which never goes back. So the node ends (replication/wrong_clock.py has decided it, server/shell.py), and its next start

1. carries all of the log into LMDB;
2. lowers the stamps there (store/restamp.py), in one transaction;
3. takes a new incarnation: dots of the last one are known to be stamped as the log has it;
4. begins the log anew where LMDB stands. Whoever lacks what it held gets rows instead, and rows are joined by dots.

As the new incarnation it is admitted like one that was restored, and brings what the hub did not take. `identity.json` says how far it
has come, and LMDB whether 2 was done, so a crash at any place is gone on from. After 2 the log is not read any more, whatever has
become of it, and 4 ends with LMDB's LSN.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekv.errors import Corruption, EdgeKVError, Unavailable
from edgekv.ids import actor_text
from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.node import identity
from edgekv.node.identity import Identity, WrongClock
from edgekv.store.applied import store_path, sync_path, wal_path
from edgekv.store.applier import Applier
from edgekv.store.lmdb_store import LmdbStore, StoreError
from edgekv.store.restamp import Restamped, is_restamped, note_again, restamp
from edgekv.wal.disk import Disk, RealDisk
from edgekv.wal.frame import SegmentHeader
from edgekv.wal.recovery import recover
from edgekv.wal.segment import SPARE_PREFIX, Segment, segment_number

_log: Final = logging.getLogger("edgekv.node")
_HOUR_MS: Final = 3_600_000

ASKED: Final = (
    "this node's clock had been more than a day ahead while it wrote, and hubs do not take that. The clock is right again. "
    "Start it again: it puts the stamps right, and comes back as another incarnation with all that it wrote."
)
NOT_DONE: Final = (
    "hubs take no changes of this node, whose clock had been more than a day ahead, and its last start could not put the stamps "
    "right: it has logged why. Mend that, then start the node again. Nothing is lost meanwhile."
)

Entropy = Callable[[int], bytes]


def finish(directory: Path, who: Identity, *, segment_bytes: int, entropy: Entropy, now_ms: int) -> Identity:
    """Do what `identity.json` asks for; who the node is then. Before its log and store are opened, with the directory's lock held.

    Whatever stops it before a stamp is lowered, damage or a full disk, leaves all as it is: the node starts as ever, and says what to
    do about that first. Raises Unavailable when the disk stops it later: dots have other stamps then than the log says, and nothing
    may be served as what the node was.
    """
    if who.clock is None:
        return who
    disk, store = RealDisk(wal_path(directory)), LmdbStore.open(store_path(directory), readonly=False)
    try:
        if not who.clock.lowered:
            done: list[Restamped] | None = []
            if is_restamped(store, who.incarnation):
                note_again(store, who.incarnation)
            else:
                done = _lowered(directory, who, who.clock, disk, store, segment_bytes, entropy)
            if done is None:
                return who
            who = _renewed(directory, who, done, entropy, now_ms)
        _begin_log(disk, who, store.applied().lsn, entropy)
        return identity.clock_is_right(directory, who)
    except (StoreError, OSError) as error:
        raise Unavailable(
            f"the stamps of a clock that had been wrong are being put right, and the disk fails: {error}. See that it has room and "
            "works, then start the node again: it goes on from there."
        ) from error
    finally:
        store.close()
        disk.close()


def _lowered(
    directory: Path,
    who: Identity,
    clock: WrongClock,
    disk: Disk,
    store: LmdbStore,
    segment_bytes: int,
    entropy: Entropy,
) -> list[Restamped] | None:
    """What was lowered; None: nothing, and nothing was changed."""
    try:
        _carry_log(directory, who, disk, store, segment_bytes, entropy)
        return restamp(store, clock.stamps_max, who.incarnation)
    except Exception as error:  # whatever it is, as no start would get past it
        store.reopen()
        if is_restamped(store, who.incarnation):
            raise
        _log.warning(
            "the stamps of %s stay too far ahead, and hubs do not take them, until the node is mended and started again: %s: %s",
            *(who.name, type(error).__name__, error),
            exc_info=not isinstance(error, EdgeKVError | StoreError | OSError),
        )
        return None


def _carry_log(
    directory: Path, who: Identity, disk: Disk, store: LmdbStore, segment_bytes: int, entropy: Entropy
) -> None:
    """All that the log holds into LMDB."""
    log = recover(
        disk,
        node_id=who.node,
        incarnation=who.incarnation,
        applied_lsn=store.applied().lsn,
        segment_bytes=segment_bytes,
        entropy=entropy,
        data_dir=str(directory),
    )
    log.close()
    applier = Applier(store, disk, sync_path(directory))
    while store.applied().lsn < log.next_lsn and applier.apply(log.next_lsn, None) is not None:
        pass
    store.renew()
    if store.applied().lsn < log.next_lsn:  # the log goes next: what it holds must be there
        raise Corruption("not all of the log can be carried into LMDB.", path=str(wal_path(directory)))


def _renewed(directory: Path, who: Identity, done: list[Restamped], entropy: Entropy, now_ms: int) -> Identity:
    renewed = identity.stamps_are_lowered(directory, who, entropy, now_ms)
    for each in done:
        _log.warning(
            "the clock had been wrong: in keyspace %d the stamps of %d rows that no hub has taken are lowered by %d h. The node goes "
            "on as %s and brings them to the cluster",
            each.keyspace,
            each.rows,
            each.by_ms // _HOUR_MS,
            actor_text(renewed.actor),
        )
    return renewed


def _begin_log(disk: Disk, who: Identity, applied_lsn: int, entropy: Entropy) -> None:
    """An empty log that begins where LMDB stands: a header, which the start gives a successor (wal/recovery.py).

    The old segments go first: beside the new one they would look like a log with a hole.
    """
    numbers = sorted(number for name in disk.names() if (number := segment_number(name)) is not None)
    for name in sorted((name for name in disk.names() if segment_number(name) is not None), reverse=True):
        disk.unlink(name)
    spare = SPARE_PREFIX + entropy(8).hex()
    disk.create(spare, SEGMENT_HEADER_BYTES).close()
    disk.sync_directory()
    number, salt = max(numbers, default=0) + 1, int.from_bytes(entropy(4), "little") or 1
    Segment.publish(disk, spare, SegmentHeader(who.node, who.incarnation, number, applied_lsn, salt, 0)).close()
