"""Starts on a directory that lost something, or whose log has a hole that the store is beyond."""

import shutil
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.errors import Corruption
from edgekv.node import keyspace_file
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
