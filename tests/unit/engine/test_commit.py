"""The commit pipeline, driven by hand: a list stands for the flusher, so each claim is about what is shown and acknowledged when."""

from dataclasses import dataclass, field

import pytest

from edgekv.checksum import chain_next
from edgekv.crdt.operation import DELETE, PUT
from edgekv.engine.commit import Commit
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Keyspace, KeyspacePolicy
from edgekv.errors import EdgeKVError, LogFailed
from edgekv.ids import Actor, KeyspaceId, Lsn, node_actor
from edgekv.limits import FRAME_CHANGES_MAX
from edgekv.store.memtable import Memtable
from edgekv.wal.record import Changes, Mark, unpack_records

ACTOR = node_actor(bytes(16), bytes(8))
NOW_MS = 1_700_000_000_000


@dataclass
class ListLog:
    """A log that is as long as it was told, with segments of a set size."""

    next_lsn: Lsn = field(default_factory=lambda: Lsn(0))
    at_segment_start: bool = True
    room_bytes: int = 1 << 20

    def room(self, payload_bytes: int) -> bool:
        return payload_bytes <= self.room_bytes


@dataclass
class Written:
    frame: Frame
    payload: bytes
    records: int
    sync: bool
    roll: bool


@dataclass
class Bench:
    """A pipeline and what came out of it."""

    now_ms: int = NOW_MS
    log: ListLog = field(default_factory=ListLog)
    memtable: Memtable = field(default_factory=Memtable)
    flushes: list[Written] = field(default_factory=list)
    replies: list[object] = field(default_factory=list)
    errors: list[EdgeKVError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit = Commit(
            actor=ACTOR,
            memtable=self.memtable,
            log=self.log,
            now_ms=lambda: self.now_ms,
            flush=self.flush,
            checkpoint=lambda: b"\x93\x05\x03\x01",  # any MARK will do: [5, 3, 1]
        )
        self.fsync = Keyspace(KeyspacePolicy(id=KeyspaceId(0), name="default", prefix=b""))
        self.buffered = Keyspace(KeyspacePolicy(id=KeyspaceId(2), name="fast", prefix=b"fast/", fsync=False))

    def flush(self, frame: Frame, payload: bytes, records: int, *, sync: bool, roll: bool) -> None:
        self.flushes.append(Written(frame, payload, records, sync, roll))
        if roll:
            self.log.at_segment_start = True

    def finish(self) -> None:
        """The flusher finished the oldest frame that is out."""
        written = self.flushes[-1]
        self.log.next_lsn = Lsn(self.log.next_lsn + written.records)
        self.log.at_segment_start = False
        self.commit.written(written.frame)

    def put(self, keyspace: Keyspace, *pairs: tuple[bytes, bytes]) -> None:
        self.commit.put_plain(keyspace, [key for key, _ in pairs], [value for _, value in pairs])

    def wait(self, reply: object) -> Frame:
        frame = self.commit.barrier
        assert frame is not None
        frame.waiters.append((self, reply))
        self.commit.barrier = None
        return frame

    def release(self, payload: object) -> None:
        self.replies.append(payload)

    def fail(self, error: EdgeKVError) -> None:
        self.errors.append(error)


def changes_of(payload: bytes) -> list[Changes]:
    return [record for record in unpack_records(payload) if isinstance(record, Changes)]


def test_a_reply_leaves_only_after_its_frame_came_back_from_the_flusher() -> None:
    bench = Bench()
    bench.put(bench.fsync, (b"k", b"v"))
    bench.wait("OK")
    bench.commit.kick()
    assert bench.replies == [] and bench.memtable.active.registers == {}
    bench.finish()
    assert bench.replies == ["OK"]
    assert bench.memtable.active.registers[b"k"][0] == b"v"
    assert bench.fsync.vector[ACTOR].seq == 1


def test_what_arrives_during_a_flush_becomes_one_next_frame() -> None:
    bench = Bench()
    bench.put(bench.fsync, (b"a", b"1"))
    bench.commit.kick()
    for i in range(10):
        bench.put(bench.fsync, (b"b%d" % i, b"2"))
        bench.commit.kick()
    assert len(bench.flushes) == 1
    bench.finish()
    assert len(bench.flushes) == 2
    (run,) = changes_of(bench.flushes[1].payload)
    assert run.first_seq == 2 and len(bench.flushes[1].frame.layer.registers) == 10


def test_dots_are_dense_and_runs_continue_the_chain() -> None:
    bench = Bench()
    for i in range(3):
        bench.put(bench.fsync, (b"a%d" % i, b"1"), (b"b", b"2"))
        bench.commit.change(bench.fsync, [(DELETE, b"b"), (PUT, b"c", b"3", 0)])
        bench.commit.kick()
        bench.finish()
    runs = [run for written in bench.flushes for run in changes_of(written.payload)]
    seq, chain, hlc = 0, 0, 0
    for run in runs:
        assert run.first_seq == seq + 1 and run.chain == chain and run.base_hlc > hlc
        count = run[5]
        seq, chain, hlc = seq + count, chain_next(chain, run.base_hlc, run.body), run.base_hlc + count - 1
    assert seq == 9 and bench.fsync.vector[ACTOR] == (9, chain) and bench.fsync.hlc == hlc


def test_stamps_grow_even_when_the_wall_clock_goes_back() -> None:
    bench = Bench()
    bench.put(bench.fsync, (b"k", b"1"))
    before = bench.fsync.hlc
    bench.now_ms -= 3_600_000
    bench.commit.kick()
    bench.finish()
    bench.put(bench.fsync, (b"k", b"2"))
    assert bench.fsync.hlc > before
    bench.commit.kick()
    bench.finish()
    assert bench.memtable.active.registers[b"k"][0] == b"2"


def test_a_frame_closes_at_its_limit_and_a_waiter_of_the_full_frame_is_not_lost() -> None:
    bench = Bench()
    keys = [b"%d" % i for i in range(FRAME_CHANGES_MAX)]
    bench.commit.put_plain(bench.fsync, keys, keys)
    full = bench.wait("first")
    bench.put(bench.fsync, (b"k", b"v"))
    later = bench.wait("second")
    assert later.number == full.number + 1
    bench.commit.kick()
    assert bench.flushes[0].frame is full
    bench.finish()
    assert bench.replies == ["first"] and bench.flushes[1].frame is later
    bench.finish()
    assert bench.replies == ["first", "second"]


def test_a_new_segment_begins_with_the_checkpoint() -> None:
    bench = Bench()
    bench.put(bench.fsync, (b"k", b"v"))
    bench.commit.kick()
    first = unpack_records(bench.flushes[0].payload)
    assert isinstance(first[0], Mark) and bench.flushes[0].records == 2 and not bench.flushes[0].roll
    bench.finish()
    bench.log.room_bytes = 10
    bench.put(bench.fsync, (b"k", b"v" * 100))
    bench.commit.kick()
    assert bench.flushes[1].roll and isinstance(unpack_records(bench.flushes[1].payload)[0], Mark)
    assert bench.flushes[1].frame.end_lsn == bench.log.next_lsn + 2


def test_a_buffered_write_is_acknowledged_when_written_and_enters_the_memtable_when_synced() -> None:
    bench = Bench()
    bench.put(bench.buffered, (b"fast/k", b"v"))
    frame = bench.wait("OK")
    bench.commit.kick()
    assert not bench.flushes[0].sync
    bench.finish()
    assert bench.replies == ["OK"] and frame.shown and frame in bench.commit.overlays
    assert bench.memtable.active.registers == {} and ACTOR not in bench.buffered.vector
    assert bench.commit.heads_written(bench.buffered)[ACTOR].seq == 1
    bench.commit.synced()
    assert bench.memtable.active.registers[b"fast/k"][0] == b"v" and bench.buffered.vector[ACTOR].seq == 1
    assert frame not in bench.commit.overlays


def test_a_synced_frame_makes_the_buffered_ones_before_it_durable_in_their_order() -> None:
    bench = Bench()
    bench.put(bench.buffered, (b"fast/k", b"1"))
    bench.commit.kick()
    bench.finish()
    bench.put(bench.buffered, (b"fast/k", b"2"))
    bench.put(bench.fsync, (b"k", b"v"))
    bench.commit.kick()
    assert bench.flushes[1].sync
    bench.finish()
    assert bench.memtable.active.registers[b"fast/k"][0] == b"2" and not bench.commit.needs_sync


def test_after_a_failure_every_waiter_hears_unknown_and_nothing_is_acknowledged() -> None:
    bench = Bench()
    bench.put(bench.fsync, (b"a", b"1"))
    bench.wait("in flight")
    bench.commit.kick()
    bench.put(bench.fsync, (b"b", b"2"))
    bench.wait("filling")
    error = LogFailed("fdatasync failed")
    bench.commit.failed(error)
    assert bench.errors == [error, error] and bench.replies == []
    with pytest.raises(LogFailed):
        bench.put(bench.fsync, (b"c", b"3"))
    bench.commit.kick()
    assert len(bench.flushes) == 1 and error.outcome == "unknown"


def test_the_last_operation_on_a_row_is_the_one_that_is_shown() -> None:
    bench = Bench()
    bench.put(bench.fsync, (b"k", b"1"), (b"k", b"2"))
    bench.commit.change(bench.fsync, [(DELETE, b"k")])
    row = bench.commit.filling.layer.registers[b"k"]
    assert row[0] is None and row[1] == bench.fsync.hlc
    assert Actor(ACTOR) == ACTOR
