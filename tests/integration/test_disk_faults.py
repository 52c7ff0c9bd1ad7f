"""A disk that fails and a disk that is full, under real processes: strace makes fdatasync fail, a small tmpfs runs out of space."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekv.cli.node_http import NodeHttp
from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection, command
from edgekv.errors import DiskFull, OutcomeUnknown, ReadOnly
from edgekv.limits import KIB, MIB
from edgekv.wal.disk import RealDisk
from edgekv.wal.frame import FrameHeader
from edgekv.wal.segment import Segment, SegmentWalk
from tests.integration.kill_rounds import applied_lsn, appliers_of, wait_for_applier, wait_for_no_applier
from tests.integration.ledger import LANES, PATIENCE_S, Load, read_back

LOG_FAILED = 7  # exit status of LogFailed, docs/CLI.md
SMALL = ("--small-memory", "true", "--memory-bytes", str(4 * MIB))
SEGMENTS = ("--wal-segment-bytes", str(256 * KIB), "--limits-value-bytes-max", str(64 * KIB))
VALUE = b"v" * 8_000
RESUME_S = 15.0  # the applier's longest back-off is 5 s

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


# -- fdatasync fails


class FailingSync:
    """strace on a process: from the Nth fdatasync on, or for some of them, EIO."""

    def __init__(self, pid: int, when: str, *, only: Path | None = None) -> None:
        arguments = ["strace", "-f", "-p", str(pid), "-e", "trace=fdatasync", "-o", "/dev/null"]
        arguments += ["-e", f"inject=fdatasync:error=EIO:when={when}", *(["-P", str(only)] if only else [])]
        self._process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if b"attached" not in said:
            self.close()
            pytest.skip(f"cannot trace: {said.decode().strip()}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        assert self._process.stderr is not None
        self._process.stderr.close()


@pytest.fixture
def failing_sync() -> Iterator[Callable[..., FailingSync]]:
    tracers: list[FailingSync] = []

    def attach(pid: int, when: str, *, only: Path | None = None) -> FailingSync:
        tracers.append(FailingSync(pid, when, only=only))
        return tracers[-1]

    yield attach
    for tracer in tracers:
        tracer.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(
        tmp_path / "node", "--wal-segment-bytes", str(8 * MIB), "--limits-value-bytes-max", str(64 * KIB)
    )
    yield node
    node.kill()
    wait_for_no_applier(node.data_dir)


def last_segment(data_dir: Path) -> Path:
    return max((data_dir / "wal").glob("seg-*"))


def last_frame(segment: Path) -> FrameHeader:
    disk = RealDisk(segment.parent, read_only=True)
    opened = Segment.open(disk, segment.name)
    assert opened is not None
    walk, last = SegmentWalk(opened), None
    while (step := walk.step()) is not None:
        last = step[0]
    opened.close()
    disk.close()
    assert last is not None
    return last


def last_words(node: NodeProcess) -> list[str]:
    """What it said when it ended; warnings while it ran carry no name."""
    return [line for line in node.log.read_text().splitlines() if line.startswith("edgekv: ")]


@needs_strace
def test_after_a_failed_fdatasync_nothing_is_acknowledged_and_the_node_ends_with_a_sentence(
    node: NodeProcess, failing_sync: Callable[..., FailingSync]
) -> None:
    """One SET at a time is one fdatasync each, so with the tenth failing there are nine acknowledgements at most."""
    node.start()
    failing_sync(node.pid, "10+", only=last_segment(node.data_dir))
    acknowledged = 0
    with RespConnection(node.resp, PATIENCE_S) as connection, contextlib.suppress(OutcomeUnknown):
        while acknowledged < 100:
            assert connection.call(b"SET", b"key:%d" % acknowledged, b"value") == b"OK"
            acknowledged += 1
    assert 5 <= acknowledged <= 9
    assert node._gone() == LOG_FAILED
    assert len(last_words(node)) == 1
    assert "fdatasync of the log failed: Input/output error" in last_words(node)[0]
    assert "Traceback" not in node.log.read_text()
    node.start()
    with RespConnection(node.resp, PATIENCE_S) as connection:
        for number in range(acknowledged):
            assert connection.call(b"GET", b"key:%d" % number) == b"value"


@needs_strace
def test_what_a_failed_fdatasync_did_not_write_was_never_acknowledged(
    node: NodeProcess, tmp_path: Path, failing_sync: Callable[..., FailingSync]
) -> None:
    """Linux drops the pages that it could not write: the frame of the failed sync is wiped before the node starts again."""
    node.start()
    with Load(tmp_path, "eio", [{} for _ in range(LANES)]) as load:
        load.start(node.resp)
        segment = last_segment(node.data_dir)
        failing_sync(node.pid, "100+", only=segment)
        progress = load.join()
    assert node._gone() == LOG_FAILED
    lost = last_frame(segment)
    with segment.open("r+b") as file:
        file.seek(lost.offset)
        file.write(bytes(lost.end - lost.offset))
    node.start()
    verdicts = load.judge(progress, read_back(node.resp))
    assert all(verdict == ([], [], [], True) for verdict in verdicts), verdicts


@needs_strace
@pytest.mark.parametrize("mode", ["process", "inline"])
def test_a_failed_fdatasync_of_the_store_costs_an_applier_and_no_data(
    tmp_path: Path, failing_sync: Callable[..., FailingSync], mode: str
) -> None:
    """The commits of the first generations fail; the next applier carries the same log into LMDB."""
    with NodeProcess(tmp_path / "node", *SMALL, *SEGMENTS, "--applier", mode) as node:
        writer = node.pid if mode == "inline" else wait_for_applier(node.data_dir, other_than=0)
        failing_sync(writer, "1..2", only=node.data_dir / "store" / "data.mdb")
        with Load(tmp_path, "store", [{} for _ in range(LANES)]) as load:
            load.start(node.resp)
            wait_until(lambda: "the applier failed" in node.log.read_text(), "no commit failed")
            before = applied_lsn(node.http)
            wait_until(lambda: applied_lsn(node.http) > before, "the next applier applies nothing")
            load.stop()
            progress = load.join()
        assert not any(lane.refused for lane in progress)
        assert all(verdict == ([], [], [], True) for verdict in load.judge(progress, read_back(node.resp)))
    wait_for_no_applier(node.data_dir)


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)


# -- the disk is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB. The node's data directory is its root, so that what the node says to stderr lies elsewhere."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", mount], check=False).returncode
    ):
        pytest.skip("needs root, to mount a small file system")
    try:
        yield mount
    finally:
        for pid in appliers_of(mount):
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.fixture
def full_node(small_disk: Path, request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    node = NodeProcess(small_disk, *SMALL, *SEGMENTS, "--applier", getattr(request, "param", "process"))
    node.start()
    yield node
    node.kill()
    wait_for_no_applier(node.data_dir)


def fill(disk: Path) -> Path:
    """Take what is left."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * KIB))
        except OSError:
            return filler


def write_until_refused(connection: RespConnection) -> list[bytes]:
    """SET new keys until the disk is full; what was acknowledged."""
    acknowledged: list[bytes] = []
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        key = b"key:%d" % len(acknowledged)
        try:
            assert connection.call(b"SET", key, VALUE) == b"OK"
        except DiskFull:
            return acknowledged
        acknowledged.append(key)
    raise AssertionError("the disk never became full")


class StillFull(Exception):
    """Writes did not resume in time."""


def write_when_there_is_room(
    connection: RespConnection, key: bytes, value: bytes, *options: bytes, within_s: float = RESUME_S
) -> None:
    """Try again until a SET is accepted."""
    until = time.monotonic() + within_s
    while True:
        try:
            assert connection.call(b"SET", key, value, *options) == b"OK"
        except DiskFull as refusal:
            if time.monotonic() >= until:
                raise StillFull from refusal
            time.sleep(0.05)
        else:
            return


def test_a_full_disk_refuses_writes_only_and_takes_them_again_when_there_is_room(full_node: NodeProcess) -> None:
    node = full_node
    with RespConnection(node.resp, PATIENCE_S) as connection:
        for number in range(100):
            connection.call(b"SET", b"before:%d" % number, VALUE)
        connection.call(b"SET", b"short-lived", b"value", b"PX", b"1500")
        connection.call(b"SET", b"counter", b"1")
        filler = fill(node.data_dir)
        acknowledged = write_until_refused(connection)
        with pytest.raises(DiskFull, match="Free space or delete keys"):
            connection.call(b"INCR", b"counter")
        check_http_refusal(node)
        assert connection.call(b"GET", b"before:0") == VALUE
        assert connection.call(b"DEL", b"before:0", b"before:1") == 2
        assert connection.call(b"PEXPIRE", b"before:2", b"1") == 1
        wait_until(
            lambda: connection.call(b"EXISTS", b"before:2", b"short-lived") == 0, "an expired key is still shown"
        )

    node.kill()
    assert node.start() < PATIENCE_S
    with RespConnection(node.resp, PATIENCE_S) as connection:
        keys = [b"before:%d" % number for number in range(3, 100)] + acknowledged
        assert connection.call(b"MGET", *keys) == [VALUE] * len(keys)
        gone = (b"before:0", b"before:1", b"before:2", b"short-lived")
        assert connection.call(b"EXISTS", *gone) == 0
        assert connection.call(b"DEL", b"before:3") == 1
        acknowledged += write_until_refused(connection)
        filler.unlink()
        write_when_there_is_room(connection, b"after", b"value")
        assert connection.call(b"EXISTS", *gone, b"before:3") == 0
        assert connection.call(b"GET", b"counter") == b"1"


def check_http_refusal(node: NodeProcess) -> None:
    connection = http.client.HTTPConnection(*node.http, timeout=PATIENCE_S)
    connection.request("PUT", "/v1/kv/one-more", body=VALUE)
    response = connection.getresponse()
    problem = json.loads(response.read())
    connection.close()
    assert response.status == http.client.INSUFFICIENT_STORAGE
    assert response.getheader("Content-Type", "").startswith("application/problem+json")
    assert problem["code"] == "disk-full"
    with NodeHttp(node.http, PATIENCE_S) as client:
        assert client.read("/livez").status == http.client.OK
        assert client.read("/v1/kv/before%3A0").body == VALUE


@pytest.mark.parametrize("full_node", ["process", "inline"], indirect=True)
def test_deletes_alone_make_room_on_a_full_disk(full_node: NodeProcess) -> None:
    with RespConnection(full_node.resp, PATIENCE_S) as connection:
        acknowledged = write_until_refused(connection)
        assert len(acknowledged) > 500
        deleted = acknowledged[: len(acknowledged) * 3 // 4]
        for key in deleted:
            assert connection.call(b"DEL", key) == 1
        again = deleted[: len(deleted) // 2]
        for key in again:
            write_when_there_is_room(connection, key, VALUE)
        kept = acknowledged[len(deleted) :] + again
        assert connection.call(b"DBSIZE") == len(kept)
        assert connection.call(b"EXISTS", *kept) == len(kept)


def test_deletes_beyond_the_reserve_are_refused_and_a_start_without_a_spare_segment_is_read_only(
    small_disk: Path,
) -> None:
    """The applier stands still, so that nothing is recycled: deletes use the log's spares up, and leave the one that a start needs."""
    keys = [b"key:%d:" % number + b"k" * 400 for number in range(8_000)]
    deleted = 0

    def count(done: int) -> None:
        nonlocal deleted
        deleted = done

    with NodeProcess(small_disk, "--small-memory", "true", "--memory-bytes", str(16 * MIB), *SEGMENTS) as node:
        with RespConnection(node.resp, PATIENCE_S) as connection:
            connection.send_all((command(b"SET", key, b"value") for key in keys), lambda _: None)
            applier = wait_for_applier(small_disk, other_than=0)
            os.kill(applier, signal.SIGSTOP)
            filler = fill(small_disk)
            write_until_refused(connection)
            with pytest.raises(DiskFull, match="reserve"):
                connection.send_all((command(b"DEL", key) for key in keys[:-2]), count)
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"MGET", keys[-1], keys[0]) == [b"value", None]
        node.kill()
        os.kill(applier, signal.SIGKILL)

        node.start()  # takes the spare that was left to it
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"DEL", keys[-2]) == 1
        node.kill()
        wait_for_no_applier(small_disk)
        for spare in (small_disk / "wal").glob("spare-*"):
            spare.unlink()
        fill(small_disk)

        node.start()
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"EXISTS", *keys[:deleted], keys[-2]) == 0
            assert connection.call(b"GET", keys[-1]) == b"value"
            with pytest.raises(ReadOnly, match="Free space"):
                connection.call(b"DEL", keys[-1])
        node.kill()
        filler.unlink()

        node.start()
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"DEL", keys[-1]) == 1
    wait_for_no_applier(small_disk)


@pytest.mark.slow  # about 40 s: the keys live for 20 s
def test_expiry_alone_makes_room_on_a_full_disk(full_node: NodeProcess) -> None:
    """Full is what stays so: while the applier is behind, writes are refused for a moment."""
    expire = b"PXAT", b"%d" % ((time.time_ns() // 1_000_000) + 20_000)
    keys: list[bytes] = []
    with RespConnection(full_node.resp, PATIENCE_S) as connection:
        with contextlib.suppress(StillFull):
            while True:
                key = b"key:%d" % len(keys)
                write_when_there_is_room(connection, key, VALUE, *expire, within_s=2.0)
                keys.append(key)
        assert connection.call(b"EXISTS", *keys) == len(keys)
        for key in keys[: len(keys) // 2]:
            write_when_there_is_room(connection, key, VALUE, within_s=60.0)
        assert connection.call(b"DBSIZE") == len(keys) // 2
