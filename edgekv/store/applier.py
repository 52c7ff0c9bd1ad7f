"""The applier: carries the durable log into LMDB, a generation at a time, in one transaction each.

It runs as a child process (``python -m edgekv.store.applier``): py-lmdb gives the GIL up and takes it back once per item of
``putmulti``, so beside a busy event loop a thread gets almost nothing or takes almost everything. The node asks through a
pipe (``store.applier_messages``); ``InlineApplier`` calls the same ``Applier`` within the node.

One transaction
1. begins, and reads what LMDB has: it may be another applier's commit, so a restarted one never goes back;
2. reads the log from there, frame by frame, into a ``Generation``: the merged rows are in memory, never the frames;
3. writes the rows sorted, blind where their stamps dominate; leaves out what the stable cut lets it forget at once; and the
   operation ids of the same changes;
4. if it reached the requested LSN: purges by the indexes, sweeps what cleared sets and maps left behind, and deletes some rows of
   keyspaces that are not held any more (``store.drop``);
   A BARRIER ends the stretch before it, and is some transactions of its own in which nothing is purged (``store.fold``). The LSN
   moves with the last of them;
5. stores LSN, vectors with chain values, HLCs and flags, and commits with one fdatasync.

What may go wrong: the process can be killed at any point; the transaction is gone and the log still has it. Every few thousand
rows the request pipe is looked at, and its end aborts the transaction: an orphan gives the directory lock back within
milliseconds or one commit. Any error of LMDB or of the log ends the process with a message: LMDB forgets that an fdatasync
failed, and a damaged frame must not be skipped. The node starts another one, with back-off.

Memory: neither LMDB (malloced dirty pages, kept for the next transaction) nor Python's allocator (arenas that one object
pins) gives a generation's 400 MB back. So after some idle seconds a large process replaces itself by exec, with the same
pid, pipes and lock.

On an almost full disk transactions are small: pages that one frees can be used by the next but one, so many small ones fit
into a reserve that one big one would not.
"""

import argparse
import contextlib
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekv.errors import Corruption
from edgekv.limits import (
    APPLIER_IDLE_BYTES_MAX,
    APPLIER_POLL_ROWS,
    APPLIER_TRANSACTION_BYTES_MAX,
    APPLIER_TRANSACTION_ROWS_MAX,
    APPLIER_TRANSACTION_ROWS_MIN,
    FOLD_TRANSACTION_ROWS_MAX,
    LMDB_RESERVE_BYTES,
    PURGE_ROWS_MAX,
)
from edgekv.store import layout, operation_rows
from edgekv.store.applied import Applied, Failed, Opened, Progress, Stable, store_path, sync_path, wal_path
from edgekv.store.applier_messages import frame_message, pack_response, parse_request, take_messages
from edgekv.store.collection_rows import StoredRows
from edgekv.store.drop import drop
from edgekv.store.fold import Folding
from edgekv.store.generation import Generation
from edgekv.store.lmdb_store import LmdbStore, MapFull, disk_is_full, free_bytes
from edgekv.store.lmdb_transactions import WriteTransaction
from edgekv.store.lost_values import Lost
from edgekv.store.purge import Cuts, Purge, Purged, index_entries
from edgekv.store.repair import fold_of
from edgekv.store.spool import SpoolReader, spool_file
from edgekv.store.sweep import Sweep
from edgekv.wal.disk import Disk, RealDisk
from edgekv.wal.reader import LogReader
from edgekv.wal.record import Barrier

NICENESS: Final = 5
WRITTEN_BYTES_PER_ROW: Final = 8192  # a leaf page and its share of branch pages; 4.9 to 6.7 KB measured at 1,000 rows
TRANSACTIONS_IN_FLIGHT: Final = 3  # LMDB uses the pages freed by transaction N from N + 2 on
NOT_PURGED: Final = Purged(more=False, cleared=False)
FOLDED: Final = Purged(more=True, cleared=True)  # other rows than the log's: no cache above LMDB is right any more


class AbortedError(Exception):
    """The node is gone, or wants the transaction to end; nothing of it was stored."""


class _NothingToStoreError(Exception):
    """Ends a transaction that changed nothing without a commit."""


class Applier:
    """Applies a log to a store. One at a time per store; blocks while it works."""

    def __init__(self, store: LmdbStore, disk: Disk, spools: Path) -> None:
        """``spools``: the directory of the spools that a BARRIER may name."""
        self._store = store
        self._spools = spools
        self._reader = LogReader(disk)
        self._purge = Purge()
        self._sweep = Sweep()
        self._own_lsn = 0  # of the last commit of this process
        self._previous_lsn = 0
        """Of its last commit but one: what a power cut leaves at least. 0 until there are two: if the process before this one ended
        because an fdatasync failed, the kernel may have dropped the meta page of its last commit, though reads still show that."""
        self._folding: Folding | None = None
        """The fold of which some transactions have been committed."""
        self._lost: Lost | None = None
        """By the fold that ended with this transaction."""
        self.purge_more = False
        """The last transaction left something to purge: apply once more, to the same LSN."""

    def apply(
        self,
        upto_lsn: int,
        stable: Stable | None,
        *,
        rows_max: int = APPLIER_TRANSACTION_ROWS_MAX,
        poll: Callable[[], bool] = lambda: False,
    ) -> Progress | None:
        """One transaction towards the durable ``upto_lsn``; None when there was nothing to store.

        ``poll`` is asked every APPLIER_POLL_ROWS rows; True raises AbortedError. Raises Corruption, CursorLost, FormatUnknown
        for the log, StoreError and OSError for the disk; nothing was stored then.
        """
        while True:
            try:
                return self._apply(upto_lsn, stable, rows_max, poll)
            except _NothingToStoreError:
                return None
            except MapFull:
                self._end_fold()
                self._store.grow()
            except BaseException:
                self._end_fold()
                raise

    def progress(self) -> Progress:
        """Where the store stands."""
        self._store.renew()
        reading = self._store.read()
        try:
            return self._report(reading.applied().lsn, cleared=False)
        finally:
            reading.close()

    def _apply(self, upto_lsn: int, stable: Stable | None, rows_max: int, poll: Callable[[], bool]) -> Progress:
        rows_max, bytes_max = self._bounds(rows_max)
        self._lost = None
        with self._store.write() as transaction:
            before = transaction.applied()
            generation = self._merge_log(transaction, before, upto_lsn, rows_max, bytes_max, poll)
            if generation.barrier is not None and generation.lsn == before.lsn:
                applied, purged = self._fold(transaction, before, generation.barrier, rows_max, poll)
            else:
                applied, purged = self._store_rows(transaction, generation, upto_lsn, stable, rows_max, poll)
            if applied == before and not transaction.changed and self._folding is None:
                raise _NothingToStoreError
            transaction.put_applied(applied)
        self._previous_lsn, self._own_lsn = self._own_lsn, applied.lsn
        self._store.renew()
        return self._report(applied.lsn, cleared=purged.cleared)._replace(lost=self._lost)

    def _store_rows(
        self,
        transaction: WriteTransaction,
        generation: Generation,
        upto_lsn: int,
        stable: Stable | None,
        rows_max: int,
        poll: Callable[[], bool],
    ) -> tuple[Applied, Purged]:
        applied = generation.applied
        reached = applied.lsn >= upto_lsn
        cuts = _cuts(stable, applied, reached=reached)
        _write_rows(transaction, generation, cuts, poll)
        operation_rows.save(transaction, generation.operation_ids)
        purged = NOT_PURGED
        if cuts is not None and reached:
            purged = self._purge.run(transaction, cuts, min(PURGE_ROWS_MAX, rows_max))
        self.purge_more = purged.more
        if reached:
            self.purge_more |= self._sweep.run(transaction, min(PURGE_ROWS_MAX, rows_max))
        if reached and stable is not None and stable.dropped:
            applied, more = drop(transaction, applied, stable.dropped, min(PURGE_ROWS_MAX, rows_max))
            self.purge_more |= more
        return applied, purged

    def _fold(
        self,
        transaction: WriteTransaction,
        before: Applied,
        barrier: Barrier,
        rows_max: int,
        poll: Callable[[], bool],
    ) -> tuple[Applied, Purged]:
        """The BARRIER at ``before.lsn``, or a part of it. Nothing is purged: the next transaction does that."""
        if self._folding is None or self._folding.lsn != before.lsn:
            self._folding = self._begin_fold(before, barrier)
        rows_max = min(rows_max, FOLD_TRANSACTION_ROWS_MAX)
        applied = self._folding.step(transaction, before, lambda: _poll(poll), rows_max=rows_max)
        if applied is None:
            return before, NOT_PURGED
        self._lost = self._folding.lost()
        self._end_fold()
        self.purge_more = True
        return applied, FOLDED

    def _begin_fold(self, before: Applied, barrier: Barrier) -> Folding:
        file = spool_file(self._spools, barrier.spool_id)
        try:
            return Folding(before.lsn, barrier, SpoolReader(file), fold_of(barrier))
        except FileNotFoundError:
            raise Corruption(
                f"the log joins the rows of {file}, which is gone. Restore a backup of the directory, or join the cluster again.",
                path=file.name,
                first_lsn=before.lsn,
            ) from None

    def _end_fold(self) -> None:
        if self._folding is not None:
            self._folding.close()
            self._folding = None

    def _merge_log(
        self,
        transaction: WriteTransaction,
        before: Applied,
        upto_lsn: int,
        rows_max: int,
        bytes_max: int,
        poll: Callable[[], bool],
    ) -> Generation:
        generation = Generation(
            before,
            stored=StoredRows(transaction, checked=True),
            intern=transaction.intern,
            actor_of=transaction.actor_of,
        )

        def enough() -> bool:
            return generation.rows >= rows_max or generation.payload_bytes >= bytes_max

        if before.lsn < upto_lsn:
            for first_lsn, _, payload in self._reader.read(before.lsn, upto_lsn):
                _poll(poll)
                if not generation.add(first_lsn, payload, upto_lsn, enough):
                    break
        return generation

    def _bounds(self, rows_max: int) -> tuple[int, int]:
        """Rows and bytes that a transaction may have, which is less when the disk is almost full."""
        room = free_bytes(self._store.path) + self._store.reusable_bytes() + LMDB_RESERVE_BYTES
        if (
            room >= self._store.live_bytes() + 2 * APPLIER_TRANSACTION_BYTES_MAX
        ):  # every page copied, and all that is new
            return rows_max, APPLIER_TRANSACTION_BYTES_MAX
        share = room // TRANSACTIONS_IN_FLIGHT
        rows = max(APPLIER_TRANSACTION_ROWS_MIN, share // WRITTEN_BYTES_PER_ROW)
        return min(rows_max, rows), min(APPLIER_TRANSACTION_BYTES_MAX, share)

    def _report(self, lsn: int, *, cleared: bool) -> Progress:
        reserved = self._store.reserve()
        return Progress(lsn, self._previous_lsn, self._store.reusable_bytes(), reserved, cleared)


def _cuts(stable: Stable | None, applied: Applied, *, reached: bool) -> Cuts | None:
    """What a transaction that stores ``applied`` may forget. A lone node's wall is good only where it was taken."""
    if stable is None:
        return None
    if stable.cuts is None and not reached:
        stable = Stable(0, None)  # Tombstones may go at any point of its own log, expired cells may not.
    return Cuts(stable, applied.vectors)


def _write_rows(
    transaction: WriteTransaction, generation: Generation, cuts: Cuts | None, poll: Callable[[], bool]
) -> None:
    indexed: dict[bytes, list[tuple[bytes, bytes]]] = {
        layout.DB_EXPIRY: [],
        layout.DB_TOMBSTONES: [],
        layout.DB_SWEEPS: [],
    }
    for batch in generation.take(APPLIER_POLL_ROWS):
        transaction.put_rows(batch.plain)
        kept: list[tuple[bytes, bytes]] = []
        for row_key in batch.gone:
            transaction.delete(layout.lmdb_key_of(row_key))
        for row_key, row in batch.rows:
            lmdb_key = layout.lmdb_key_of(row_key)
            if cuts is not None and cuts.allow_unwritten(row_key, row):
                transaction.delete(lmdb_key)
                continue
            kept.append((lmdb_key, layout.encode_row(row_key, row, transaction.intern)))
            for index, entry in index_entries(row_key, row, transaction.intern):
                indexed[index].append(entry)
        transaction.put_rows(kept)
        _poll(poll)
    for index, entries in indexed.items():
        transaction.index_put(index, sorted(entries))


def _poll(poll: Callable[[], bool]) -> None:
    if poll():
        raise AbortedError


class _Requests:
    """The read end of the request pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._received = bytearray()
        self._waiting: list[list[object]] = []

    def ended(self) -> bool:
        """Whether the node closed its end; requests that still wait do not matter then."""
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in self._poll.poll(0))

    def waiting(self) -> bool:
        """Whether a request, or the end, is there."""
        return bool(self._waiting or self._poll.poll(0))

    def next(self, idle_ms: int, on_idle: Callable[[], None]) -> tuple[int, Stable | None] | None:
        """The next request, blocking until there is one; None at the end. Calls ``on_idle`` when none came for a while."""
        while not self._waiting:
            if not self._received and not self._poll.poll(idle_ms):
                on_idle()
            received = os.read(self._fd, 1 << 16)
            if not received:
                return None
            self._received += received
            self._waiting = take_messages(self._received)
        return parse_request(self._waiting.pop(0))


def serve(
    applier: Applier, requests: _Requests, send: Callable[[Progress], None], idle_ms: int, on_idle: Callable[[], None]
) -> None:
    """Carry out requests until the pipe ends. Each is answered at least once, also when there was nothing to do."""
    while (request := requests.next(idle_ms, on_idle)) is not None:
        upto_lsn, stable = request
        progress = applier.apply(upto_lsn, stable, poll=requests.ended)
        if progress is None:
            send(applier.progress())
            continue
        while progress is not None:
            send(progress)
            done = progress.lsn >= upto_lsn and (requests.waiting() or not applier.purge_more)
            progress = None if done else applier.apply(upto_lsn, stable, poll=requests.ended)
        gc.collect()


def main(arguments: list[str] | None = None) -> int:
    """The child's whole life; returns the exit status."""
    options = _options(sys.argv[1:] if arguments is None else arguments)
    # Signals reach the whole group; the node decides when this process ends, by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.disable()  # Rows are bytes in dicts, no cycles; a collection per request is enough for what errors leave.

    def send(message: Opened | Progress | Failed) -> None:
        framed = frame_message(pack_response(message))
        while framed:
            framed = framed[os.write(options.response_fd, framed) :]

    try:
        store = LmdbStore.open(store_path(options.data_dir), readonly=False)
        if not options.again:
            os.nice(NICENESS)
            store.reserve()
            send(Opened())
        applier = Applier(store, RealDisk(wal_path(options.data_dir), read_only=True), sync_path(options.data_dir))
        serve(applier, _Requests(options.request_fd), send, options.idle_ms, lambda: _shrink(store))
    except (AbortedError, BrokenPipeError):  # The node is gone.
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it is, the node has to hear of it and this process has to end
        send(Failed(f"{type(error).__name__}: {error}", disk_is_full(options.data_dir)))
        with contextlib.suppress(OSError):  # stderr is a file on the disk that may be full
            traceback.print_exc()
        return 1
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgekv.store.applier", description="Started by the node.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--request-fd", type=int, required=True)
    parser.add_argument("--response-fd", type=int, required=True)
    parser.add_argument("--lock-fd", type=int, required=True, help="held until this process ends, not used")
    parser.add_argument("--idle-ms", type=int, required=True, help="how long to be idle before memory is given back")
    parser.add_argument("--again", action="store_true", help="this process replaced itself")
    return parser.parse_args(arguments)


def _shrink(store: LmdbStore) -> None:
    """Replace this process by a fresh one if it grew. No request is being read or carried out; one that comes waits in the pipe."""
    if _anonymous_bytes() <= APPLIER_IDLE_BYTES_MAX:
        return
    store.close()  # Its slot in the reader table has this pid and would never be found stale.
    arguments = [argument for argument in sys.argv[1:] if argument != "--again"]
    os.execv(sys.executable, [sys.executable, "-m", "edgekv.store.applier", *arguments, "--again"])  # noqa: S606 - itself


def _anonymous_bytes() -> int:
    """Memory that is this process's own, without the pages of files that it maps."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


if __name__ == "__main__":
    sys.exit(main())
