"""A keyspace that goes: what a power cut leaves of it when it is held again."""

import shutil
from pathlib import Path

from edgekv.config import KeyspaceConfig
from edgekv.limits import APPLIER_INLINE_ROWS
from edgekv.store.applied import Progress
from tests.unit.node.inline_node import InlineNode

EU = KeyspaceConfig(name="eu", prefix=b"eu/")


def commit(node: InlineNode, before: Path) -> Progress:
    """A transaction of the applier that is not heard of yet; ``before``: what a power cut leaves if it takes that back."""
    shutil.copy(node.config.data_dir / "store" / "data.mdb", before)
    progress = node._applier.step()
    assert progress is not None
    return progress


def test_a_keyspace_is_not_held_again_while_a_power_cut_can_bring_back_what_was_dropped(tmp_path: Path) -> None:
    """Commits are heard of at once: the reader shows the last one, with the drop, when the first is told."""
    source, node = (
        InlineNode(tmp_path / name, keyspaces=(EU,), seed=i, lone=False, memory_bytes=64 << 20)
        for i, name in enumerate(("source", "node"))
    )
    before = tmp_path / "before"
    for i in range(10):
        source.operations.set(b"eu/%d" % i, b"v")
    source.settle()
    node.pull(source)
    node.settle()
    keyspace = node.engine.keyspaces.of(b"eu/")
    keyspace.absent = True
    node.engine.drops.begin(keyspace)
    for i in range(3):
        node.operations.set_run([b"%d/%d" % (i, j) for j in range(APPLIER_INLINE_ROWS)], [b"v"] * APPLIER_INLINE_ROWS)
        node.settle()
    node.engine.applied(commit(node, before))
    reports: list[Progress] = []
    while keyspace.id in node._store.applied().vectors:
        reports.append(commit(node, before))
        node._store.renew()
    assert reports[0].lsn < reports[-1].lsn
    for progress in reports:
        node.engine.applied(progress)
    while node.engine.drops.is_busy(keyspace.id):
        node.settle()
        node.engine.applied(commit(node, before))
    keyspace.absent = False
    node.engine.drops.held_again(keyspace.id)
    node.pull(source)
    node.settle()
    node.kill()
    shutil.copy(before, node.config.data_dir / "store" / "data.mdb")
    node.open()
    assert node.engine.admission.read_only is None
    assert node.operations.get(b"eu/7") == b"v"
    for each in (source, node):
        each.kill()
