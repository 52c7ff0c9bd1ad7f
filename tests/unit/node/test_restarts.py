"""Starts on a directory that lost something, whose log has a hole that the store is beyond, or on a disk without room."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.errors import Corruption, DiskFull, LogFailed
from edgekv.node import keyspace_file
from edgekv.store.applied import sync_path
from edgekv.store.spool import spool_file
from edgekv.wal.recovery import recover
from tests.unit.node.inline_node import InlineNode

DEFAULT = KeyspaceConfig(prefix=b"", name="default", durability="fsync")
A, B = (KeyspaceConfig(prefix=prefix + b"/", name=prefix.decode(), durability="fsync") for prefix in (b"a", b"b"))


def test_a_node_that_lost_its_log_and_store_does_not_issue_a_dot_again(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    node.operations.set(b"k", b"1")
    node.settle()
    first = (node.engine.actor, node.engine.keyspaces.of(b"k").seq)
    node.stop()
    shutil.rmtree(tmp_path / "wal")
    shutil.rmtree(tmp_path / "store")
    node.open()
    node.operations.set(b"k", b"2")
    node.settle()
    assert (node.engine.actor, node.engine.keyspaces.of(b"k").seq) != first
    assert node.node.identity.past == (first[0][-8:],)
    assert node.engine.admission.read_only is None


def test_a_node_that_was_killed_before_its_first_write_keeps_its_incarnation(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    actor = node.engine.actor
    for _ in range(3):
        node.kill()
        node.open()
    assert node.engine.actor == actor


def test_a_lost_keyspace_file_stops_the_start_before_a_key_changes_its_keyspace(tmp_path: Path) -> None:
    node = InlineNode(tmp_path, keyspaces=(DEFAULT, A, B))
    node.operations.set(b"a/k", b"1")
    node.settle()
    node.stop()
    kept = (tmp_path / keyspace_file.FILE).read_bytes()
    (tmp_path / keyspace_file.FILE).unlink()
    with pytest.raises(Corruption, match=keyspace_file.FILE):
        InlineNode(tmp_path, keyspaces=(DEFAULT, B, A))
    (tmp_path / keyspace_file.FILE).write_bytes(kept)
    assert InlineNode(tmp_path, keyspaces=(DEFAULT, B, A)).operations.get(b"a/k") == b"1"


def segments(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "wal").glob("seg-*"))


def test_segments_before_a_damaged_header_are_reported_and_go_when_the_store_is_surely_beyond_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = InlineNode(tmp_path)
    while len(segments(tmp_path)) < 4:
        node.operations.set(b"k", b"x" * 60_000)
        node.settle()
    node.kill()  # nothing is recycled yet
    node.open()
    node.checkpoint_at(node.now_ms + 60_000)
    node.kill()
    old = segments(tmp_path)[:-2]
    with open(old[-1], "r+b") as file:
        file.write(b"x")
    node.open()
    assert node.engine.admission.read_only is None
    assert f"a header in {', '.join(file.name for file in old)} is damaged" in caplog.text
    assert set(old) <= set(segments(tmp_path))
    node.operations.set(b"k", b"1")
    for _ in range(3):
        node.operations.set(b"k", b"1")
        node.checkpoint()
    assert not set(old) & set(segments(tmp_path))
    node.stop()
    caplog.clear()
    node.open()
    assert "damaged" not in caplog.text and node.operations.get(b"k") == b"1"


def test_a_start_without_room_for_the_log_shows_all_that_was_acknowledged_for_as_long_as_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB does not get what only the log has, so it stays in memory, also where that is more than the bound."""
    node = InlineNode(tmp_path, memory_bytes=8 << 20)
    for i in range(300):
        node.operations.set(b"%d" % i, b"v" * 10_000)
        node.settle()
    node.kill()

    def recover_without_room(*arguments: Any, **options: Any) -> None:
        recover(*arguments, **options).close()
        raise LogFailed("opening a log segment failed") from OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("edgekv.node.node.recover", recover_without_room)
    node = InlineNode(tmp_path, memory_bytes=1 << 20)
    assert isinstance(node.engine.admission.read_only, DiskFull)
    for _ in range(5):
        node.now_ms += 60_000
        node.tick()
        while node.apply():
            pass
        assert all(node.operations.get(b"%d" % i) for i in range(300))
    node.kill()


def test_a_start_that_fails_amid_rows_that_it_has_to_join_does_not_show_those_it_has_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.store.fold.SPOOL_SLICE_ROWS", 5)
    monkeypatch.setattr("edgekv.store.spool.SPOOL_BLOCK_BYTES", 100)
    monkeypatch.setattr("edgekv.store.applier_process.APPLIER_INLINE_ROWS", 20)
    source, target = (InlineNode(tmp_path / name, seed=i, lone=False) for i, name in enumerate(("source", "target")))
    keys = [b"k%03d" % i for i in range(200)]
    source.operations.set_run(keys, [b"theirs"] * 200)
    target.operations.set(b"k000/mine", b"mine")
    source.checkpoint()
    file = spool_file(sync_path(target.config.data_dir), b"spool id")
    head = source.spool(DEFAULT_ID, file).head
    source.kill()
    target.engine.flip(DEFAULT_ID, b"spool id", head.vector, head.hlc, lambda: None)
    while not target.logged_barrier():
        if not target.flush() and not target.apply():
            target.tick()
    target.kill()
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + b"?" + whole[-8:])
    target.open()
    assert isinstance(target.engine.admission.read_only, Corruption)
    for _ in range(3):
        target.now_ms += 60_000
        target.tick()
        assert [target.operations.get(key) for key in keys] == [None] * 200
        assert target.operations.get(b"k000/mine") == b"mine"
    target.kill()
    file.write_bytes(whole)
    target.open()
    assert [target.operations.get(key) for key in keys] == [b"theirs"] * 200
    target.operations.set(b"k000/mine", b"goes on")
    target.kill()
