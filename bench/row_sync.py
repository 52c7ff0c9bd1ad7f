"""Row sync: how fast a keyspace becomes a spool and a spool joins another store, and what an edge with an empty directory sees of it.

Storage: plain rows, 100-byte values, all in the page cache. Each fold is a process of its own, with its own store, and one LMDB
transaction with its fdatasync (a node commits every 50,000 rows). *take over*: the keyspace is empty, actors have the same numbers or
others. *join*: the store has as many rows of another actor, half of the keys the same. *equal*: both sides have the same rows.

Expected: writing is a copy and a CRC per row, so several hundred thousand rows a second; a join walks two rows for each
of the spool's. A transaction of a million rows holds its dirty pages in memory: the table says how much that was.

Between processes (`bench.row_sync_links`): an empty edge gets the rows of a hub over a link that is cut at 10, 50 and 90 % and healed,
and its own clients read and write meanwhile: the flip is a turn of the loop, and the syncs of the log share the disk with the
fold's commits.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import row_sync_links
from bench.results import Table, save
from bench.run import argument_parser, measured_run, step
from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.store import layout
from edgekv.store.applied import Applied, ChainedVector
from edgekv.store.fold import fold
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool import SpoolReader, SpoolWriter
from edgekv.store.spool_check import SpoolCheck
from edgekv.wal.record import Barrier

ROWS: Final = 1_000_000
QUICK_ROWS: Final = 50_000
VALUE: Final = b"v" * 100
CHUNK_ROWS: Final = 10_000
KEYSPACE: Final = KeyspaceId(0)
A, B = node_actor(b"a" * 16, b"1" * 8), node_actor(b"b" * 16, b"1" * 8)
FOLDS: Final = ("take over, same numbers", "take over, other numbers", "join, half of the keys the same", "equal rows")


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``slice_s_max``: how long it kept the event loop at most; 0 for what the applier does in a process of its own."""

    name: str
    seconds: float
    rows_per_s: float
    slice_s_max: float
    memory_bytes: int


def main(argv: Sequence[str] | None = None) -> None:
    arguments = argument_parser(__doc__ or "", timeout_s=1200).parse_args(argv)
    with measured_run(arguments) as run:
        rows = QUICK_ROWS if run.quick else ROWS
        steps = list(_in_own_process(_spooled, run.directory, rows))
        for name in FOLDS:
            steps += _in_own_process(_folded, run.directory, rows, name)
            step(f"{name}: {steps[-1].rows_per_s:,.0f} rows/s")
        synced = row_sync_links.measure(run, rows, 0.3 if run.quick else row_sync_links.CUT_S)
        save(
            "row_sync",
            quick=run.quick,
            machine_description=run.machine,
            settings={"rows": rows, "value_bytes": len(VALUE)},
            measurements={"steps": [asdict(each) for each in steps], "links": row_sync_links.measurements(synced)},
            tables=[_table(steps, rows), *row_sync_links.tables(synced)],
        )


def _spooled(directory: Path, rows: int) -> list[Step]:
    store = _filled(directory / "source", A, 0, rows)
    writer = SpoolWriter(store, KEYSPACE, directory / "spool")
    written = _sliced("write the spool", rows, writer.step)
    check = SpoolCheck(directory / "spool", lambda _: True)
    return [written, _sliced("check it", rows, check.step)]


def _folded(directory: Path, rows: int, name: str) -> list[Step]:
    folder = directory / name.replace(" ", "-")
    if name == FOLDS[2]:
        store = _filled(folder, B, rows // 2, rows)
    else:
        store = _filled(folder, A, 0, rows if name == FOLDS[3] else 0, strangers=[B] if name == FOLDS[1] else [])
    spool = SpoolReader(directory / "spool")
    vector = [(actor, seq, chain) for actor, (seq, chain) in spool.head.vector.items()]
    began = time.perf_counter()
    with store.write() as transaction:
        before = transaction.applied()
        barrier = Barrier(KEYSPACE, bytes(8), vector, spool.head.hlc)
        transaction.put_applied(fold(transaction, before, barrier, spool, lambda: None))
    seconds = time.perf_counter() - began
    return [Step(name, seconds, rows / seconds, 0.0, _memory_bytes())]


def _sliced(name: str, rows: int, step_once: Callable[[], bool]) -> Step:
    began = last = time.perf_counter()
    longest, more = 0.0, True
    while more:
        more = step_once()
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return Step(name, last - began, rows / (last - began), longest, _memory_bytes())


def _filled(folder: Path, actor: Actor, first: int, rows: int, strangers: Sequence[Actor] = ()) -> LmdbStore:
    """A store whose rows are plain ones of one actor, from key number ``first`` on."""
    store = LmdbStore.open(folder, readonly=False)
    with store.write() as transaction:
        for stranger in strangers:
            transaction.intern(stranger)
        for low in range(0, rows, CHUNK_ROWS):
            keys = [b"key:%012d" % (first + number) for number in range(low, min(low + CHUNK_ROWS, rows))]
            contents = layout.plain_contents([VALUE] * len(keys), low + 1, low + 1, transaction.intern(actor))
            transaction.put_rows(layout.plain_rows(KEYSPACE, keys, contents))
        vectors: dict[int, ChainedVector] = {KEYSPACE: {actor: (rows, 1)}} if rows else {}
        transaction.put_applied(Applied(1, vectors, {KEYSPACE: rows}, frozenset(), 0))
    store.renew()
    return store


def _memory_bytes() -> int:
    """The most that this process has had in memory, LMDB's mapped pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _in_own_process(work: Callable[..., list[Step]], *arguments: object) -> list[Step]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _table(steps: Sequence[Step], rows: int) -> Table:
    return Table(
        f"Row sync of {rows:,} plain rows with {len(VALUE)}-byte values",
        ("step", "rows/s", "seconds", "longest slice", "memory"),
        tuple(
            (
                each.name,
                f"{each.rows_per_s:,.0f}",
                f"{each.seconds:.2f}",
                f"{each.slice_s_max * 1000:.0f} ms" if each.slice_s_max else "",
                f"{each.memory_bytes >> 20} MiB",
            )
            for each in steps
        ),
        ("Memory is what the process had at most, LMDB's mapped pages included.",),
    )


if __name__ == "__main__":
    main()
