"""The applier as a process: it serves, survives kills of itself, and never survives its node."""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from edgekv.ids import Actor
from edgekv.limits import APPLIER_IDLE_BYTES_MAX, APPLIER_INLINE_ROWS, APPLIER_LOG_BYTES_MAX
from edgekv.store.applied import Cut, Ended, Failed, Message, Opened, Progress, Stable, store_path
from edgekv.store.applier_process import ApplierProcess, InlineApplier
from edgekv.store.lmdb_store import LmdbStore
from tests.unit.store.node_log import NodeLog, applier_of, contents, fill_disk, open_store

DEADLINE_S = 60.0


class Node:
    """What an applier needs of its node."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = NodeLog(data_dir, segment_bytes=16 << 20)
        self.lock_fd = os.open(data_dir / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.appliers: list[ApplierProcess] = []

    def spawn(self, *, idle_ms: int = 60_000) -> ApplierProcess:
        applier = ApplierProcess.spawn(self.data_dir, self.lock_fd, idle_ms=idle_ms)
        self.appliers.append(applier)
        assert receive_until(applier, lambda message: message == Opened()) == [Opened()]
        return applier

    def close(self) -> None:
        for applier in self.appliers:
            applier.close()
            applier.wait(DEADLINE_S)
        os.close(self.lock_fd)

    def fill(self, rows: int) -> int:
        for start in range(0, rows, 4000):
            self.log.put([b"%08d" % n for n in range(start, start + 4000)], [b"v" * 100] * 4000)
        return self.log.lsn


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with contextlib.closing(Node(tmp_path)) as made:
        yield made


def readable(applier: ApplierProcess, timeout_ms: float) -> bool:
    """Whether it says something by then. Not select(), which takes no descriptor above 1,023."""
    poll = select.poll()
    poll.register(applier.fileno(), select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_ms)))


def receive_until(applier: ApplierProcess, last: Callable[[Message], bool]) -> list[Message]:
    """All messages up to the first of which ``last`` is true."""
    messages: list[Message] = []
    end = monotonic() + DEADLINE_S
    while not any(last(message) for message in messages):
        assert readable(applier, (end - monotonic()) * 1000), f"nothing more than {messages}"
        messages += applier.receive()
    return messages


def apply(applier: ApplierProcess, lsn: int, stable: Stable | None = None) -> list[Progress]:
    applier.request(lsn, stable)
    messages = receive_until(applier, lambda message: isinstance(message, Ended) or getattr(message, "lsn", -1) >= lsn)
    assert all(isinstance(message, Progress) for message in messages), messages
    return [message for message in messages if isinstance(message, Progress)]


def stored(data_dir: Path) -> int:
    store = LmdbStore.open(store_path(data_dir), readonly=True)
    rows = len(contents(store))
    store.close()
    return rows


def wait_for_end(pid: int) -> None:
    """Of a process that is not a child of this one."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(DEADLINE_S * 1000), f"process {pid} goes on"
    os.close(fd)


def test_it_applies_what_it_is_asked_for_and_says_so(node: Node) -> None:
    applier = node.spawn()
    lsn = node.fill(8000)
    assert apply(applier, lsn)[-1].lsn == lsn
    assert stored(node.data_dir) == 8000
    node.log.change([2, b"%08d" % 1])
    assert apply(applier, node.log.lsn, Stable(0, None))[-1].previous_lsn == lsn
    assert stored(node.data_dir) == 7999
    applier.close()
    assert applier.wait(DEADLINE_S) == 0


def test_a_request_with_nothing_to_do_is_answered_too(node: Node) -> None:
    applier = node.spawn()
    lsn = node.fill(4000)
    apply(applier, lsn)
    assert [progress.lsn for progress in apply(applier, lsn)] == [lsn]


def test_receiving_does_not_wait_for_a_message(node: Node) -> None:
    assert node.spawn().receive() == []


def test_an_applier_killed_at_any_moment_and_restarted_gives_the_same_contents_and_its_lsn_never_falls(
    node: Node,
) -> None:
    lsn = node.fill(60_000)
    highest = 0
    for pause_ms in (0, 30, 60, 120, 240):
        applier = node.spawn()
        store = LmdbStore.open(store_path(node.data_dir), readonly=True)
        assert store.applied().lsn >= highest
        highest = store.applied().lsn
        store.close()
        applier.request(lsn, None)
        readable(applier, pause_ms)
        os.kill(applier.pid, signal.SIGKILL)
        messages = receive_until(applier, lambda message: isinstance(message, Ended))
        highest = max([highest, *(message.lsn for message in messages if isinstance(message, Progress))])
        applier.close()
        assert applier.wait(DEADLINE_S) == -signal.SIGKILL
    assert apply(node.spawn(), lsn)[-1].lsn == lsn
    assert stored(node.data_dir) == 60_000


def test_the_end_of_the_pipe_ends_it_in_the_middle_of_a_transaction(node: Node) -> None:
    applier = node.spawn()
    applier.request(node.fill(60_000), None)
    applier.close()
    applier.close()
    assert applier.wait(DEADLINE_S) == 0
    assert stored(node.data_dir) == 0


NODE_PROGRAM = """
import os, select, sys
from pathlib import Path
from edgekv.store.applier_process import ApplierProcess
data_dir, lsn = Path(sys.argv[1]), int(sys.argv[2])
lock = os.open(data_dir / "lock", os.O_RDWR)
import fcntl
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
applier = ApplierProcess.spawn(data_dir, lock)
select.select([applier], [], [])
applier.request(lsn, None)
print(applier.pid, flush=True)
select.select([], [], [])
"""


def test_a_killed_node_leaves_no_applier_and_the_lock_is_free_when_it_is_gone(tmp_path: Path) -> None:
    log = NodeLog(tmp_path, segment_bytes=16 << 20)
    for start in range(0, 40_000, 4000):
        log.put([b"%08d" % n for n in range(start, start + 4000)], [b"v" * 100] * 4000)
    (tmp_path / "lock").touch()
    parent = subprocess.Popen(
        [sys.executable, "-c", NODE_PROGRAM, str(tmp_path), str(log.lsn)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_for_end(pid)
    lock_fd = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock_fd)


def test_the_directory_stays_locked_while_an_applier_lives(node: Node) -> None:
    applier = node.spawn()
    os.close(node.lock_fd)  # as the kernel does for a node that was killed
    node.lock_fd = os.open(node.data_dir / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(node.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    applier.close()
    applier.wait(DEADLINE_S)
    fcntl.flock(node.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_signals_that_reach_the_whole_group_do_not_end_it_and_it_is_nice(node: Node) -> None:
    applier = node.spawn()
    os.kill(applier.pid, signal.SIGINT)
    os.kill(applier.pid, signal.SIGTERM)
    assert apply(applier, node.fill(4000))
    assert os.getpriority(os.PRIO_PROCESS, applier.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


def test_a_damaged_log_ends_it_with_a_message_a_status_and_a_trace_in_its_log(node: Node) -> None:
    applier = node.spawn()
    lsn = node.fill(4000)
    segment = next((node.data_dir / "wal").glob("seg-*"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"00000007")] ^= 1
    segment.write_bytes(data)
    applier.request(lsn, None)
    *_, failed, ended = receive_until(applier, lambda message: isinstance(message, Ended))
    assert isinstance(failed, Failed)
    assert "a durable frame is damaged" in failed.text
    assert not failed.disk_full
    assert isinstance(ended, Ended)
    applier.close()
    assert applier.wait(DEADLINE_S) == 1
    assert "Traceback" in (node.data_dir / "applier.log").read_text()
    assert stored(node.data_dir) == 0


def test_on_a_full_disk_it_fails_saying_so_applies_deletes_and_goes_on_when_there_is_room(
    tiny_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "wal").mkdir()
    (tiny_disk / "wal").symlink_to(tmp_path / "wal")
    with contextlib.closing(Node(tiny_disk)) as node:
        applier = node.spawn()
        apply(applier, node.fill(40_000))
        fill_disk(tiny_disk)
        for start in range(0, 2000, 100):
            node.log.change(*([2, b"%08d" % n] for n in range(start, start + 100)))
        assert apply(applier, node.log.lsn, Stable(0, None))
        assert stored(tiny_disk) == 38_000
        for start in range(0, 100_000, 1000):
            node.log.put([b"new%08d" % n for n in range(start, start + 1000)], [b"v" * 100] * 1000)
        applier.request(node.log.lsn, Stable(0, None))
        *_, failed, _ = receive_until(applier, lambda message: isinstance(message, Ended))
        assert isinstance(failed, Failed)
        assert failed.disk_full
        assert applier.wait(DEADLINE_S) != 0
        (tiny_disk / "filler").unlink()
        apply(node.spawn(), node.log.lsn)
        assert stored(tiny_disk) == 138_000


def test_requests_to_an_applier_that_ended_are_no_error(node: Node) -> None:
    applier = node.spawn()
    os.kill(applier.pid, signal.SIGKILL)
    applier.wait(DEADLINE_S)
    applier.request(1, None)
    applier.request(2, None)
    assert applier.receive() == [Ended(-signal.SIGKILL)]


def test_more_requests_than_a_pipe_holds_are_kept_and_served(node: Node) -> None:
    applier = node.spawn()
    os.kill(applier.pid, signal.SIGSTOP)
    vector = {Actor(b"%025d" % n): n for n in range(1000)}
    for _ in range(10):
        applier.request(1, Stable(0, {0: Cut(vector, vector, frozenset())}))
    lsn = node.fill(4000)
    applier.request(lsn, None)
    os.kill(applier.pid, signal.SIGCONT)
    receive_until(applier, lambda message: isinstance(message, Progress) and message.lsn == lsn)
    assert stored(node.data_dir) == 4000


def anonymous_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def test_idle_it_gives_back_the_memory_of_a_large_generation_and_goes_on_as_before(node: Node) -> None:
    applier = node.spawn(idle_ms=1)
    apply(applier, node.fill(240_000))
    end = monotonic() + DEADLINE_S
    while b"--again" not in Path(f"/proc/{applier.pid}/cmdline").read_bytes():
        assert monotonic() < end
        assert not readable(applier, 10), "it says nothing"
    node.log.put([b"more"], [b"v"])
    assert apply(applier, node.log.lsn)[-1].lsn == node.log.lsn
    assert anonymous_bytes(applier.pid) < APPLIER_IDLE_BYTES_MAX
    assert os.getpriority(os.PRIO_PROCESS, applier.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert stored(node.data_dir) == 240_001
    applier.close()
    assert applier.wait(DEADLINE_S) == 0


def test_its_log_is_cut_at_a_start_when_it_grew_too_long(node: Node) -> None:
    log = node.data_dir / "applier.log"
    log.write_bytes(b"x" * APPLIER_LOG_BYTES_MAX)
    node.spawn()
    assert log.stat().st_size == APPLIER_LOG_BYTES_MAX
    log.write_bytes(b"x" * (APPLIER_LOG_BYTES_MAX + 1))
    node.spawn()
    assert log.stat().st_size == 0


def test_inline_it_works_in_bounded_steps_until_the_request_is_done(tmp_path: Path) -> None:
    log = NodeLog(tmp_path)
    for start in range(0, 3000, 300):
        log.put([b"%08d" % n for n in range(start, start + 300)], [b"v"] * 300)
    store = open_store(tmp_path)
    inline = InlineApplier(applier_of(store, tmp_path))
    assert inline.step() is None
    inline.request(log.lsn, None)
    seen = last = 0
    while (progress := inline.step()) is not None:
        rows = len(contents(store))
        assert rows - seen <= APPLIER_INLINE_ROWS + 300  # a record is not split
        seen = rows
        last = progress.lsn
    assert (seen, last) == (3000, log.lsn)
    assert inline.step() is None
    store.close()
