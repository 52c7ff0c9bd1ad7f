"""The production log and its recovery on a simulated disk, life after life, against an oracle that knows what was promised.

    python -m tests.sim.wal_lives --seeds 1000 [--start 0] [--jobs 2]
    python -m tests.sim.wal_lives --trace SEED            the disk operations of one seed

One seed is several lives of a node, on an empty directory or on a log that was salvaged: append (fsync or buffered), sync, idle
promise, roll, apply, recycle, disk full, failed fdatasync, clean stop. A life ends at a random disk operation, by a kill (the page
cache stays) or a power cut. Recovery itself is crashed, several times in a row, and meets I/O errors. In the end a bit of an
acknowledged frame may rot.

The oracle, after each recovery:
- everything acknowledged at `fsync`, shipped, applied or served by an earlier recovery is there; after a kill also everything written;
- what is delivered is, LSN by LSN, what was written there last; nothing that was answered "not applied" appears; there are no holes;
- damage that no rule excuses is never silent, and there is no alarm without damage.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from edgekv.errors import Corruption, LogFailed
from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal import group_commit, reader, recovery
from edgekv.wal.frame import ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, SegmentHeader, unpack_frame_header
from edgekv.wal.record import CLEAN_RECORD, Checkpoint, pack_checkpoint
from edgekv.wal.segment import Segment, SegmentWalk, segment_number
from tests.sim.disk import Crash, Inode, SimDisk

SEGMENT_BYTES: Final = SEGMENT_HEADER_BYTES + 1280
LIVES: Final = 7
SALVAGED_EVERY: Final = 8
"""Of so many seeds one begins with a salvaged log."""
NODE_ID: Final = b"simulated-node-0"
INCARNATION: Final = b"incarn-1"
RECORD_BYTES: Final = 8
CHECKPOINT_RECORD: Final = pack_checkpoint(Checkpoint([], 0))
CLEAN_ID: Final = 1
CHECKPOINT_ID: Final = 2


class Violation(Exception):
    """The log broke a promise."""


@dataclass(frozen=True)
class Code:
    """The production modules under test; a mutant brings its own. Any: modules have no type of their own."""

    group_commit: Any = group_commit
    reader: Any = reader
    recovery: Any = recovery


@dataclass
class Store:
    """LMDB's applied LSN under metasync=False: after a power cut the last commit or the one before it."""

    last: int = 0
    before: int = 0

    def commit(self, lsn: int) -> None:
        self.before, self.last = self.last, lsn

    def power(self, rng: Random) -> None:
        self.last = self.before = rng.choice((self.last, self.before))


def pack_ids(ids: list[int]) -> bytes:
    """A record is its id, 8 bytes little-endian, but for the two marks that the log or its readers look at."""
    head = CHECKPOINT_RECORD if ids[0] == CHECKPOINT_ID else b""
    tail = CLEAN_RECORD if ids[-1] == CLEAN_ID else b""
    return head + b"".join([i.to_bytes(RECORD_BYTES, "little") for i in ids if i > CHECKPOINT_ID]) + tail


def unpack_ids(payload: bytes) -> list[int]:
    """The inverse of `pack_ids`."""
    ids, start, end = [], 0, len(payload)
    if payload.startswith(CHECKPOINT_RECORD):
        ids, start = [CHECKPOINT_ID], len(CHECKPOINT_RECORD)
    clean = (end - start) % RECORD_BYTES == len(CLEAN_RECORD) and payload.endswith(CLEAN_RECORD)
    if clean:
        end -= len(CLEAN_RECORD)
    ids += [int.from_bytes(payload[at : at + RECORD_BYTES], "little") for at in range(start, end, RECORD_BYTES)]
    return [*ids, CLEAN_ID] if clean else ids


@dataclass
class World:
    """One seed: the disk, the store, and what the oracle knows."""

    seed: int
    code: Code = field(default_factory=Code)
    must: int = 0  # records below were acknowledged, shipped, applied or served
    written: int = 0  # records below survive a kill
    blind: int = 0  # runs that met the documented blind spot

    def __post_init__(self) -> None:
        self.rng = Random(f"wal-{self.seed}")
        self.disk = SimDisk(self.rng, evicting=self.rng.random() < 0.5)
        self.store = Store()
        self.history: dict[int, int] = {}  # LSN -> the id written there last
        self.void: set[int] = set()  # ids whose clients were told "not applied"
        self.last_id = 256
        if self.seed % SALVAGED_EVERY == 0:
            self.begin_salvaged()

    def run(self) -> None:
        """All lives. Violation when a promise is broken."""
        for _ in range(LIVES):
            try:
                how = self.life()
            except Corruption as error:
                raise Violation(f"FALSE ALARM: {error}") from None
            self.note(f"==== {how}")
            if how != "clean" and self.rng.random() < 0.5:
                self.disk.power()
                self.store.power(self.rng)
                self.written = 0
                self.note("==== power cut")
        if self.rng.random() < 0.5:
            self.rot()

    def begin_salvaged(self) -> None:
        """The first life finds what a salvage leaves when it begins again: one segment, empty, at the LSN that LMDB has applied."""
        lsn = self.store.last = self.store.before = self.must = 5
        self.disk.create("spare-0", SEGMENT_HEADER_BYTES)
        Segment.publish(self.disk, "spare-0", SegmentHeader(NODE_ID, b"incarn-0", 7, lsn, 1, 0))

    def note(self, line: str) -> None:
        """A line in the trace."""
        if self.disk.trace is not None:
            self.disk.trace.append(line)

    # A life.

    def life(self) -> str:
        """One process: recover, work, stop. Returns how it stopped."""
        rng, disk = self.rng, self.disk
        disk.crash_at = disk.operations + rng.randrange(1, 16) if rng.random() < 0.35 else None
        disk.arm = rng.choice(("eio", "eio", "eio-directory", "enospc")) if rng.random() < 0.05 else ""
        try:
            log = self.recover()
            disk.arm = ""
            disk.crash_at = disk.operations + rng.randrange(1, 40)
            for _ in range(rng.randrange(1, 60)):
                self.act(log)
            disk.crash_at = None
            self.append(log, [CLEAN_ID], clean=True)
            return "clean"
        except Crash:
            return "crash"
        except LogFailed:
            if disk.evicting:
                self.written = 0  # what no fdatasync took may be evicted now, and is lost without a power cut
            return "latched"
        finally:
            disk.arm = ""

    def act(self, log: Any) -> None:
        """One thing that a node does."""
        jobs = self.code.group_commit
        dice = self.rng.random()
        if dice < 0.68:
            self.append(log, [self.fresh() for _ in range(self.rng.randrange(1, 9))])
        elif dice < 0.78:
            self.do(log, jobs.SyncJob())
        elif dice < 0.81:
            self.do(log, jobs.PromiseJob())
        elif dice < 0.83:
            if log.room(0):
                log.write(b"", 0)  # a promise that not everything is durable
        elif dice < 0.93:
            self.apply(log)
        elif dice < 0.98:
            self.do(log, jobs.RecycleJob(self.store.before, 0))
        else:
            name = f"spare-{self.rng.getrandbits(40):010x}"
            self.disk.create(name, SEGMENT_BYTES)
            log.add_spare(name)

    def fresh(self) -> int:
        """A new id. Most end in zero bytes: a short write can look complete in a zeroed file."""
        self.last_id += 1
        return self.last_id << self.rng.choice((0, 8, 40))

    def append(self, log: Any, ids: list[int], *, clean: bool = False) -> None:
        """One frame, synced or not, in a new segment when it does not fit or by chance."""
        roll = not log.room(len(CHECKPOINT_RECORD) + RECORD_BYTES * len(ids)) or self.rng.random() < 0.02
        if roll or log.at_segment_start:
            ids = [CHECKPOINT_ID, *ids]
        sync = self.rng.random() < 0.7
        if not clean:
            dice = self.rng.random()
            self.disk.arm = (
                "enospc" if dice < 0.04 else "eio" if dice < 0.065 else "eio-directory" if dice < 0.07 else ""
            )
        at = log.next_lsn
        self.history.update(enumerate(ids, at))
        jobs = self.code.group_commit
        payload = pack_ids(ids)
        job = jobs.CloseJob(payload, len(ids), roll) if clean else jobs.FrameJob(payload, len(ids), sync, roll, None)
        try:
            self.do(log, job)
            self.written = log.next_lsn
        except OSError:  # only in a mutant: the clients are told "not applied" and the process goes on
            self.void.update(ids)
            for lsn in range(at, at + len(ids)):
                del self.history[lsn]
        finally:
            self.disk.arm = ""

    def do(self, log: Any, job: object) -> None:
        """Execute a job as the flusher does and believe its outcome. LogFailed: the process ends."""
        outcome = self.code.group_commit.execute(log, job)
        if isinstance(outcome, self.code.group_commit.Failed):
            raise outcome.error
        self.must = max(self.must, outcome.durable_lsn)

    def apply(self, log: Any) -> None:
        """The applier reads what is durable and commits it."""
        if self.must <= self.store.last:
            return
        to = self.rng.choice((self.rng.randint(self.store.last + 1, self.must), self.must))
        if self.rng.random() < 0.2:
            frames = list(self.code.reader.LogReader(self.disk).read(self.store.last, to))
            got = self.compare(frames)
            if not set(range(self.store.last, to)) <= got.keys():
                raise Violation(f"the reader found no records in part of [{self.store.last}, {to})")
        self.store.commit(to)

    # The oracle.

    def recover(self) -> Any:
        """Recover and compare with what was promised."""
        frames: list[tuple[int, int, bytes]] = []
        everything = self.rng.random() < 0.5
        log = self.code.recovery.recover(
            self.disk,
            node_id=NODE_ID,
            incarnation=INCARNATION,
            applied_lsn=self.store.last,
            segment_bytes=SEGMENT_BYTES,
            entropy=self.rng.randbytes,
            on_frame=lambda *frame: frames.append(frame),
        )
        end = log.next_lsn
        if end < self.must:
            raise Violation(
                f"LOST: the log ends at {end}, {self.must} records were acknowledged, shipped, applied or served"
            )
        if end < self.written:
            raise Violation(f"LOST after a kill: the log ends at {end}, {self.written} were written")
        start = self.store.last
        if everything:  # what recovery does not read is there for those that are behind
            start = log.segments[0].base_lsn
            frames = list(self.code.reader.LogReader(self.disk).read(start, end))
        got = self.compare(frames)
        if not got.keys() >= set(range(start, end)):
            raise Violation(f"HOLE in the recovered LSNs [{start}, {end})")
        self.history = {lsn: i for lsn, i in self.history.items() if lsn < end}
        self.must = self.written = end  # what recovery serves may be shipped at once
        return log

    def compare(self, frames: list[tuple[int, int, bytes]]) -> dict[int, int]:
        """LSN -> id of what was delivered, after a look at each."""
        got: dict[int, int] = {}
        for first_lsn, records, payload in frames:
            ids = unpack_ids(payload)
            if len(ids) != records or first_lsn in got:
                raise Violation(f"the frame at {first_lsn} is not as it was written")
            got.update(enumerate(ids, first_lsn))
        for lsn, i in got.items():
            if i in self.void:
                raise Violation(f"PHANTOM: record {lsn} was answered 'not applied'")
            if self.history.get(lsn) != i:
                raise Violation(f"STALE or DUPLICATE record at {lsn}")
        return got

    # Rot.

    def rot(self) -> None:
        """Flip a bit of an acknowledged frame: recovery must raise, or it does not read there, or it is the documented blind spot."""
        spots = [
            (name, segment, header)
            for name, segment, header in self.frames()
            if header.records and header.first_lsn + header.records <= self.must
        ]
        if not spots:
            return
        name, segment, header = self.rng.choice(
            (self.rng.choice(spots), spots[-1])
        )  # damage to the last one can look torn
        inode = self.disk.entries[name]
        at, bit = self.rng.randrange(header.offset, header.end), 1 << self.rng.randrange(8)
        inode.cache[at] ^= bit
        inode.durable[at] ^= bit
        newest = max(number for name in self.disk.names() if (number := segment_number(name)) is not None)
        excused = segment_number(name) == newest and not self.promised_later(inode, segment.info.salt, header.offset)
        must, applied = self.must, self.store.last
        self.disk.crash_at, self.must, self.written = None, 0, 0
        try:
            end = self.recover().next_lsn
        except Corruption:
            return
        if end < must and not (excused and end >= applied):
            raise Violation(f"SILENT LOSS: {must} acknowledged, the log was cut at {end}")
        self.blind += end < must

    def frames(self) -> Iterator[tuple[str, Segment, FrameHeader]]:
        """All good frames of all segments, each with the file's name."""
        for name in sorted(self.disk.names()):
            if segment_number(name) is not None and (segment := Segment.open(self.disk, name)):
                walk = SegmentWalk(segment)
                while frame := walk.step():
                    yield name, segment, frame[0]

    @staticmethod
    def promised_later(inode: Inode, salt: int, offset: int) -> bool:
        """Whether a header after `offset` promises more, and no eviction can take it. Looks everywhere, unlike the code under test."""
        data = inode.evicted()
        for at in range(offset + ALIGNMENT, len(data) - FRAME_HEADER_BYTES + 1, ALIGNMENT):
            header = unpack_frame_header(data, at, offset=at, salt=salt, file_bytes=len(data))
            if header and header.synced > offset:
                return True
        return False


def first_violation(code: Code, seeds: range) -> tuple[int, str] | None:
    """The first seed that breaks the code and what happened, None when all hold. A mutant may also simply fall over."""
    for seed in seeds:
        try:
            World(seed, code).run()
        except Exception as error:  # noqa: BLE001 - see above
            return seed, f"{type(error).__name__}: {error}"
    return None


# The command line.

_CHUNK: Final = 250


def _run_chunk(seeds: range) -> tuple[int, int, str]:
    blind = 0
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed is the finding
            return len(seeds), blind, f"seed {seed}: {type(error).__name__}: {error}"
        blind += world.blind
    return len(seeds), blind, ""


def _run_all(start: int, count: int, jobs: int) -> int:
    chunks = [range(at, min(at + _CHUNK, start + count)) for at in range(start, start + count, _CHUNK)]
    began = shown = time.monotonic()
    done = blind = 0
    failures: list[str] = []
    with ProcessPoolExecutor(jobs) as pool:
        for seeds, met, failure in pool.map(_run_chunk, chunks):
            done, blind = done + seeds, blind + met
            if failure:
                failures.append(failure)
                print(f"BROKEN {failure}", flush=True)
            now = time.monotonic()
            if now - shown >= 10 or done == count:
                shown = now
                print(
                    f"{done}/{count} seeds, {done / (now - began):.0f} seeds/s, {blind} met the blind spot", flush=True
                )
    verdict = f"{len(failures)} BROKEN" if failures else "ok"
    print(
        f"verdict: {verdict}: seeds {start}..{start + count - 1} in {time.monotonic() - began:.0f} s with {jobs} jobs"
    )
    return 1 if failures else 0


def _trace(seed: int) -> int:
    world = World(seed)
    world.disk.trace = []
    try:
        world.run()
        verdict = "ok"
    except Violation as violation:
        verdict = f"BROKEN: {violation}"
    print(*world.disk.trace, f"seed {seed}: {verdict}", sep="\n")
    return 0 if verdict == "ok" else 1


def main() -> int:
    """Run seeds or trace one; exit status 1 when one is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", type=int, metavar="SEED", help="print the disk operations of one seed")
    arguments = parser.parse_args()
    if arguments.trace is not None:
        return _trace(arguments.trace)
    return _run_all(arguments.start, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
