"""Operation ids on a whole node: each is carried out once, over any kill, through log and LMDB, and its reply waits for its change."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.config import KeyspaceConfig
from edgekv.engine.frame import Frame
from edgekv.errors import DiskFull, EdgeKVError, IdForgotten, NotANumber
from edgekv.ids import new_session
from edgekv.limits import OPERATION_SESSIONS_MAX, OPERATION_WINDOW
from edgekv.store import operation_rows
from edgekv.store.lmdb_store import LmdbStore
from tests.unit.node.inline_node import InlineNode

KEYSPACES = (
    KeyspaceConfig(prefix=b"", name="default", durability="fsync"),
    KeyspaceConfig(prefix=b"b/", name="buffered", durability="buffered"),
)
A, B = (new_session(0, name * 8) for name in (b"a", b"b"))
FULL = DiskFull("the disk is full. Free space.")


def add(node: InlineNode, session: bytes, number: int, key: bytes = b"n") -> bytes:
    return node.engine.once(session, number, lambda: b"%d" % node.operations.increment(key, 1))


def barrier_of(node: InlineNode, session: bytes, number: int) -> Frame | None:
    """What the reply to a repeated operation waits for."""
    node.engine.barrier = None
    node.engine.once(session, number, lambda: pytest.fail("it was carried out before"))
    return node.engine.barrier


def test_what_is_sent_again_gets_its_reply_and_is_not_done_again(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    assert [add(node, A, 1), add(node, A, 2), add(node, B, 1)] == [b"1", b"2", b"3"]
    assert [add(node, A, 2), add(node, B, 1), add(node, A, 1)] == [b"2", b"3", b"1"]
    node.settle()
    assert [add(node, A, 2), add(node, B, 1), add(node, A, 1)] == [b"2", b"3", b"1"]
    assert node.operations.get(b"n") == b"3" and node.engine.status()["operations_repeated"] == 6


def test_the_reply_given_again_waits_for_the_frame_of_its_change(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    add(node, A, 1)
    frame = node.engine.commit.filling
    assert barrier_of(node, A, 1) is frame
    node.engine.kick()
    add(node, A, 2)
    assert barrier_of(node, A, 1) is frame, "in flight"
    node.settle()
    assert frame.done and barrier_of(node, A, 1) is None


def test_a_buffered_one_waits_for_the_write_and_no_longer(tmp_path: Path) -> None:
    node = InlineNode(tmp_path, keyspaces=KEYSPACES)
    node.settle()
    add(node, A, 1, b"b/n")
    frame = node.engine.commit.filling
    assert barrier_of(node, A, 1) is frame
    node.engine.kick()
    node.flush()
    assert node.engine.commit.needs_sync and barrier_of(node, A, 1) is None


def test_a_full_disk_and_a_read_only_node_answer_what_was_done(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    add(node, A, 1)
    node.settle()
    node.engine.admission.disk_full = True
    assert add(node, A, 1) == b"1"
    with pytest.raises(DiskFull):
        add(node, A, 2)
    node.engine.admission.disk_full, node.engine.admission.read_only = False, FULL
    assert add(node, A, 1) == b"1"
    node.engine.admission.read_only = None
    assert add(node, A, 2) == b"2", "the one that was refused was not done"


def test_what_changes_nothing_leaves_no_record_and_is_carried_out_again(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    assert node.engine.once(A, 1, lambda: b"%d" % node.operations.delete([b"none"])) == b"0"
    node.operations.set(b"none", b"v")
    assert node.engine.once(A, 1, lambda: b"%d" % node.operations.delete([b"none"])) == b"1"
    node.operations.set(b"text", b"abc")
    with pytest.raises(NotANumber):
        add(node, A, 2, b"text")
    node.operations.set(b"text", b"1")
    assert add(node, A, 2, b"text") == b"2"


def test_ids_and_replies_of_any_size_never_make_a_frame_that_no_segment_takes(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)
    largest = b"r" * node.engine.operation_reply_bytes_max
    for number in range(1, 40):
        node.operations.set(b"v%d" % number, b"v" * node.operations.value_bytes_max)
        node.engine.once(A, number, lambda n=number: (node.operations.increment(b"n%d" % n, 1), largest)[1])  # type: ignore[misc]
    node.settle()
    node.kill()
    node.open()
    assert add(node, A, 39) == largest


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("applied", [False, True])
def test_ids_survive_a_restart_from_the_log_and_from_the_store(tmp_path: Path, how: str, *, applied: bool) -> None:
    node = InlineNode(tmp_path)
    for number in range(1, 4):
        add(node, A, number)
        add(node, B, number)
    node.settle()
    if applied:
        node.checkpoint()
        assert node.engine.memtable.rows == 0 or node.engine.checkpoints.applied_lsn > 6
    getattr(node, how)()
    node.open()
    assert [add(node, A, 3), add(node, B, 1), node.operations.get(b"n")] == [b"5", b"2", b"6"]
    assert node.engine.status()["operation_sessions"] == 2


def test_windows_and_forgotten_sessions_stay_what_they_are_over_a_restart(tmp_path: Path) -> None:
    node = InlineNode(tmp_path, memory_bytes=64 << 20, segment_bytes=1 << 20)
    add(node, A, 1)
    add(node, A, OPERATION_WINDOW + 1)
    add(node, B, 1)
    for number in range(OPERATION_SESSIONS_MAX):
        add(node, new_session(0, number.to_bytes(8, "little")), 1)
        if number == OPERATION_SESSIONS_MAX // 2:
            add(node, A, OPERATION_WINDOW + 2)
            node.checkpoint()
    node.settle()
    for _ in range(2):
        for session, number in ((A, 1), (B, 1), (B, 2)):
            with pytest.raises(IdForgotten):
                add(node, session, number)
        assert add(node, A, OPERATION_WINDOW + 1) == b"2"
        node.checkpoint()
        node.kill()
        node.open()
    fresh = new_session(node.engine.commit.durable_lsn, b"f" * 8)
    assert add(node, fresh, 1) == b"%d" % (OPERATION_SESSIONS_MAX + 5)


STEPS = ["add", "add", "again", "flush", "tick", "apply", "kill", "stop"]


@settings(max_examples=60)
@given(st.integers(0, 1 << 32), st.lists(st.sampled_from(STEPS), min_size=5, max_size=60))
def test_over_any_kill_each_id_counts_once_and_never_without_its_change(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: list[str]
) -> None:
    """A client that sends everything again until it is answered: the total is the number of its operations, in every life."""
    dice, node = Random(seed), InlineNode(tmp_path_factory.mktemp("node"), keyspaces=KEYSPACES)
    sent: dict[bytes, list[tuple[bytes, int]]] = {b"n": [], b"b/n": []}
    for step in steps:
        if step == "add":
            key, session = dice.choice([b"n", b"b/n"]), dice.choice([A, B])
            sent[key].append((session, 1 + sum(map(len, sent.values()))))
            add(node, *sent[key][-1], key)
        elif step == "again":
            for key, ids in sent.items():
                for one in dice.sample(ids, min(len(ids), 3)):
                    add(node, *one, key)
        elif step == "flush":
            node.engine.kick()
            node.flush()
        elif step == "tick":
            node.now_ms += 6_000
            node.tick()
        elif step == "apply":
            node.apply()
        else:
            getattr(node, step)()
            node.open()
    for key, ids in sent.items():
        replies = {add(node, *one, key) for one in ids}
        assert node.operations.get(key) == (b"%d" % len(ids) if ids else None)
        assert len(replies) == len(ids), "each operation has its own sum"
    node.kill()


def test_an_id_whose_call_raises_was_not_used(tmp_path: Path) -> None:
    node = InlineNode(tmp_path)

    def refused() -> bytes:
        raise FULL

    with pytest.raises(EdgeKVError):
        node.engine.once(A, 1, refused)
    assert add(node, A, 1) == b"1"


def test_a_node_that_has_forgotten_every_session_still_refuses_them_after_a_restart(tmp_path: Path) -> None:
    node = InlineNode(tmp_path, segment_bytes=8 << 20, memory_bytes=64 << 20)
    add(node, A, 1)
    node.checkpoint()
    node.kill()
    store = LmdbStore.open(tmp_path / "store", readonly=False)
    with store.write() as transaction:
        operation_rows.save(transaction, {A: {2: b"large"}}, bytes_max=1)
    store.close()
    node.open()
    assert len(node.engine.commit.operation_ids) == 0
    with pytest.raises(IdForgotten):
        add(node, A, 1)
    assert node.operations.get(b"n") == b"1"
    node.kill()
