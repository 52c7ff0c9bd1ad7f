"""The applier: what one transaction stores, that it equals merging change by change, and what ends it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.checksum import chain_next
from edgekv.crdt import counter
from edgekv.crdt.operation import Row, counter_suffix, merge_row, rows_of
from edgekv.crdt.register import Cell
from edgekv.errors import Corruption
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import LMDB_RESERVE_BYTES
from edgekv.store import applier as applier_module
from edgekv.store import layout
from edgekv.store.applied import Cut, Progress, Stable, store_path
from edgekv.store.applier import AbortedError
from edgekv.store.generation import plain_contents, plain_rows
from edgekv.wal.record import pack_columns
from tests.unit.store.node_log import OTHER, OWN, NodeLog, applier_of, contents, open_store, register_row

ALONE = Stable(wall_ms=0, cuts=None)


class Node:
    """A log, its store and its applier in one directory."""

    def __init__(self, data_dir: Path, *, map_bytes: int = 1 << 30) -> None:
        self.data_dir = data_dir
        self.log = NodeLog(data_dir)
        self.store = open_store(data_dir, map_bytes=map_bytes)
        self.applier = applier_of(self.store, data_dir)

    def apply(self, stable: Stable | None = None) -> Progress:
        """Until the whole log is applied and purging has come to its end."""
        last = self.applier.progress()
        while (progress := self.applier.apply(self.log.lsn, stable)) is not None:
            last = progress
        assert last.lsn == self.log.lsn
        return last

    def rows(self) -> dict[tuple[int, bytes, bytes], Row]:
        return contents(self.store)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.store.close()


# What a transaction stores.


def test_the_last_of_several_sets_is_stored_with_its_dot_and_stamp(node: Node) -> None:
    node.log.put([b"a", b"b", b"a"], [b"1", b"2", b"3"])
    first = node.log.hlc - 2
    node.apply()
    assert register_row(node.store, b"a") == Cell(b"3", first + 2, OWN, 3)
    assert register_row(node.store, b"b") == Cell(b"2", first + 1, OWN, 2)


def test_lsn_vector_chain_hlc_ttl_and_mixed_flag_are_stored_with_the_rows(node: Node) -> None:
    node.log.put([b"a", b"b"], [b"1", b"2"], keyspace=7)
    node.log.change([3, b"n", 5, 0, 0, 1], keyspace=9)
    node.log.ttl(123_456)
    node.apply()
    applied = node.store.applied()
    body = pack_columns([b"a", b"b"], [b"1", b"2"])
    assert applied.lsn == node.log.lsn == 4  # with the checkpoint at the start of the segment
    assert applied.vectors[7] == {OWN: (2, chain_next(0, node.log.hlc - 2, body))}
    assert applied.vectors[9][OWN][0] == 1
    assert applied.hlcs[9] == node.log.hlc
    assert applied.hlcs[7] == node.log.hlc - 1
    assert applied.mixed == {9}
    assert applied.ttl_ms == 123_456


def test_plain_rows_are_the_bytes_that_the_layout_gives_a_cell() -> None:
    keys = [b"k", b"\x00", b"a\x00b", b"x" * 504, b"x" * 505, b"\x00" * 400, b"y" * 4096]
    for chosen in (keys[:1], keys[:4], keys):
        values = [b"v%d" % n for n in range(len(chosen))]
        for n, (lmdb_key, row) in enumerate(plain_rows(KeyspaceId(3), chosen, plain_contents(values, 100, 7, 2))):
            row_key = layout.row_key(KeyspaceId(3), chosen[n], b"\x01")
            assert lmdb_key == layout.lmdb_key_of(row_key)
            assert row == layout.encode_row(row_key, Cell(values[n], 100 + n, OWN, 7 + n), lambda _: 2)


def test_a_received_change_with_a_lower_stamp_loses_against_what_is_stored(node: Node) -> None:
    node.log.put([b"k"], [b"mine"])
    node.apply()
    node.log.change([1, b"k", b"older", 0], actor=OTHER, base_hlc=node.log.hlc - 1)
    node.log.change([1, b"new", b"theirs", 0], actor=OTHER, base_hlc=node.log.hlc - 1)
    node.apply()
    assert register_row(node.store, b"k") == Cell(b"mine", node.log.hlc, OWN, 1)
    assert isinstance(row := register_row(node.store, b"new"), Cell)
    assert row.value == b"theirs"


def test_a_received_change_with_a_lower_stamp_loses_against_the_same_generation(node: Node) -> None:
    node.log.put([b"k"], [b"mine"])
    node.log.run(pack_columns([b"k"], [b"older"]), 1, actor=OTHER, base_hlc=node.log.hlc - 1)
    node.apply()
    assert isinstance(row := register_row(node.store, b"k"), Cell)
    assert row.value == b"mine"


def test_a_system_clear_of_the_own_actor_is_compared_and_not_just_stored(node: Node) -> None:
    node.log.put([b"k"], [b"newer than the clear"])
    node.log.change([2, b"k", node.log.hlc - 1])
    node.apply()
    assert isinstance(row := register_row(node.store, b"k"), Cell)
    assert row.value == b"newer than the clear"


def test_a_counter_part_is_joined_with_the_stored_one_and_a_reset_of_an_absent_part_changes_nothing(node: Node) -> None:
    node.log.change([3, b"n", 5, 0, 0, 1])
    node.apply()
    node.log.change([4, b"n", [[OWN, 1, 5]]], [4, b"absent", [[OTHER, 1, 9]]])
    node.log.change([3, b"n", 2, 2, 0, 1])
    node.apply()
    row = node.rows()[0, b"n", counter_suffix(OWN)]
    assert isinstance(row, counter.Part)
    assert counter.value([row]) == 2
    assert [key for _, key, _ in node.rows()] == [b"n"]


def test_progress_names_this_commit_and_the_one_before_it(node: Node) -> None:
    assert node.apply().previous_lsn == 0
    first = node.log.put([b"a"], [b"1"])
    assert node.apply() == Progress(first, 0, node.store.reusable_bytes(), reserved=True, cleared=False)
    second = node.log.put([b"a"], [b"1"])
    progress = node.apply()
    assert (progress.lsn, progress.previous_lsn) == (second, first)


def test_nothing_to_apply_costs_no_commit(node: Node) -> None:
    node.log.put([b"a"], [b"1"])
    node.apply()
    assert node.applier.apply(node.log.lsn, Stable(10**15, None)) is None


def test_a_backlog_is_split_into_transactions_that_store_all_of_it(node: Node) -> None:
    for n in range(10):
        node.log.put([b"%d-%d" % (n, m) for m in range(10)], [b"v"] * 10)
    lsns = []
    while (progress := node.applier.apply(node.log.lsn, None, rows_max=25)) is not None:
        lsns.append(progress.lsn)
    assert lsns == [4, 7, 10, 11]
    assert len(node.rows()) == 100


def test_a_frame_may_be_applied_in_parts_each_record_once(node: Node) -> None:
    node.log.put([b"before"], [b"v"])
    node.log.frame([node.log.record([3, b"n", total, 0, 0, 1]) for total in (5, 6, 7)])
    first = node.log.lsn - 3
    for lsn in range(first + 1, first + 4):
        progress = node.applier.apply(lsn, None)
        assert progress is not None
        assert progress.lsn == lsn
        assert node.store.applied().vectors[0][OWN][0] == lsn - 1
    row = node.rows()[0, b"n", counter_suffix(OWN)]
    assert isinstance(row, counter.Part)
    assert row.total == 7


def test_applying_stops_at_the_requested_lsn(node: Node) -> None:
    first = node.log.put([b"a"], [b"1"])
    node.log.put([b"b"], [b"2"])
    assert node.applier.apply(first, None) is not None
    assert [key for _, key, _ in node.rows()] == [b"a"]


def test_the_applied_lsn_never_falls_even_if_an_older_one_is_asked_for(node: Node) -> None:
    first = node.log.put([b"a"], [b"1"])
    node.log.put([b"a"], [b"2"])
    node.apply()
    other = applier_of(node.store, node.data_dir)  # as a restarted child that is sent an older freeze
    assert other.apply(first, None) is None
    assert other.progress().lsn == node.log.lsn
    assert isinstance(row := register_row(node.store, b"a"), Cell)
    assert row.value == b"2"


def test_a_full_map_grows_and_nothing_is_lost(tmp_path: Path) -> None:
    node = Node(tmp_path, map_bytes=256 << 10)
    for n in range(40):
        node.log.put([b"%d-%d" % (n, m) for m in range(100)], [b"v" * 100] * 100)
    node.apply()
    assert len(node.rows()) == 4000
    node.store.close()


# What ends a transaction.


def test_the_end_of_the_pipe_aborts_and_the_next_applier_gives_the_same_contents(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "APPLIER_POLL_ROWS", 10)
    node.log.put([b"%d" % n for n in range(200)], [b"v"] * 200)
    answers = iter([False] * 8 + [True])
    with pytest.raises(AbortedError):
        node.applier.apply(node.log.lsn, None, poll=lambda: next(answers))
    assert node.rows() == {}
    assert node.store.applied().lsn == 0
    node.applier = applier_of(node.store, node.data_dir)
    node.apply()
    assert len(node.rows()) == 200


def test_a_damaged_frame_ends_the_applier_with_its_place_and_is_not_skipped(node: Node) -> None:
    node.log.put([b"a"], [b"1"])
    node.log.put([b"b"], [b"damaged here"])
    node.log.put([b"c"], [b"3"])
    segment = next((node.data_dir / "wal").glob("seg-*"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"damaged here")] ^= 1
    segment.write_bytes(data)
    with pytest.raises(Corruption, match="LSN 2: a durable frame is damaged"):
        node.applier.apply(node.log.lsn, None)
    assert node.rows() == {}


def test_a_run_that_does_not_continue_its_actor_is_corruption(node: Node) -> None:
    node.log.put([b"a"], [b"1"])
    node.log.heads[0, OWN] = (5, 0)
    node.log.put([b"a"], [b"2"])
    with pytest.raises(Corruption, match="a run of changes starts at 6"):
        node.applier.apply(node.log.lsn, None)


def test_a_run_of_another_history_is_corruption(node: Node) -> None:
    node.log.put([b"a"], [b"1"])
    node.log.heads[0, OWN] = (1, 12345)
    node.log.put([b"a"], [b"2"])
    with pytest.raises(Corruption, match="disagree"):
        node.applier.apply(node.log.lsn, None)


def test_a_rotten_row_is_reported_and_not_given_a_new_crc_by_a_merge(node: Node) -> None:
    node.log.change([3, b"n", 5, 0, 0, 1])
    node.apply()
    key = layout.lmdb_key(KeyspaceId(0), b"n", counter_suffix(OWN))
    with node.store.write() as transaction:
        rotten = bytearray(transaction.get(key) or b"")
        rotten[-1] ^= 1
        transaction.put_rows([(key, bytes(rotten))])
    node.log.change([3, b"n", 6, 0, 0, 1])
    with pytest.raises(Corruption, match="damaged"):
        node.applier.apply(node.log.lsn, None)


# Purging.


def cut_of(seq: int, *, need: int = 0, wall_ms: int = 0, parked: frozenset[Actor] = frozenset()) -> Stable:
    return Stable(wall_ms, {0: Cut({OWN: seq}, {OWN: need}, parked)})


def test_alone_a_delete_removes_the_row_and_leaves_no_tombstone(node: Node) -> None:
    node.log.put([b"a", b"b"], [b"1", b"2"])
    node.apply(ALONE)
    node.log.change([2, b"a"])
    node.apply(ALONE)
    assert [key for _, key, _ in node.rows()] == [b"b"]
    with node.store.write() as transaction:
        assert transaction.index_is_empty(layout.DB_TOMBSTONES)


def test_a_tombstone_stays_until_the_cut_covers_its_dot(node: Node) -> None:
    node.log.put([b"a", b"b"], [b"1", b"2"])
    node.log.change([2, b"a"])
    node.log.change([2, b"b"])
    node.apply(cut_of(0))
    assert len(node.rows()) == 2
    node.apply(cut_of(3))
    assert [key for _, key, _ in node.rows()] == [b"b"]
    node.apply(cut_of(4))
    assert node.rows() == {}


def test_a_cut_whose_need_the_stored_vector_does_not_cover_purges_nothing(node: Node) -> None:
    node.log.change([2, b"a"])
    node.apply(cut_of(1, need=2))
    assert len(node.rows()) == 1
    node.log.put([b"b"], [b"1"])
    node.apply(cut_of(1, need=2))
    assert [key for _, key, _ in node.rows()] == [b"b"]


def test_a_transaction_that_stops_short_of_the_requested_lsn_forgets_tombstones_but_nothing_expired(node: Node) -> None:
    node.log.put([b"a"], [b"1"])
    node.log.change([1, b"x", b"expires", 5000])
    node.log.change([2, b"a"])
    node.log.put([b"b"], [b"1"])
    stable = Stable(9000, None)
    assert node.applier.apply(node.log.lsn, stable, rows_max=2) is not None
    assert [key for _, key, _ in node.rows()] == [b"a", b"x"]
    assert node.applier.apply(node.log.lsn, stable, rows_max=1) is not None
    assert [key for _, key, _ in node.rows()] == [b"x"]
    node.apply(stable)
    assert [key for _, key, _ in node.rows()] == [b"b"]


def test_a_stale_tombstone_entry_does_not_remove_what_was_written_since(node: Node) -> None:
    node.log.change([2, b"a"])
    node.apply(None)
    node.log.put([b"a"], [b"again"])
    node.apply(ALONE)
    assert isinstance(row := register_row(node.store, b"a"), Cell)
    assert row.value == b"again"
    with node.store.write() as transaction:
        assert transaction.index_is_empty(layout.DB_TOMBSTONES)


def test_an_expired_register_is_removed_when_the_wall_reached_it_and_not_before(node: Node) -> None:
    node.log.change([1, b"a", b"1", 5000])
    node.apply(Stable(4999, None))
    assert len(node.rows()) == 1
    node.apply(Stable(5000, None))
    assert node.rows() == {}


def test_a_stale_expiry_entry_does_not_remove_what_was_written_since(node: Node) -> None:
    node.log.change([1, b"a", b"1", 5000])
    node.apply(ALONE)
    node.log.put([b"a"], [b"for ever"])
    node.apply(Stable(6000, None))
    assert len(node.rows()) == 1
    with node.store.write() as transaction:
        assert transaction.index_is_empty(layout.DB_EXPIRY)


def test_an_inert_counter_part_goes_when_part_and_reset_are_covered_and_its_actor_is_not_parked(node: Node) -> None:
    node.log.change([3, b"n", 5, 0, 0, 1])
    node.log.change([4, b"n", [[OWN, 1, 5]]])
    node.apply(cut_of(1))
    node.apply(cut_of(2, parked=frozenset([OWN])))
    assert len(node.rows()) == 1
    node.apply(cut_of(2))
    assert node.rows() == {}


def test_a_part_that_still_counts_is_never_purged(node: Node) -> None:
    node.log.change([3, b"n", 5, 0, 0, 1])
    node.log.change([4, b"n", [[OWN, 1, 3]]])
    node.log.change([3, b"n", 6, 0, 0, 1])
    node.apply(ALONE)
    assert len(node.rows()) == 1


def expiring_counter(node: Node) -> None:
    node.log.change([1, b"k", b"10", 0])
    node.log.change([5, b"k", 5000])
    node.log.change([3, b"k", 5, 2, 0, 1])


def test_alone_an_expired_key_goes_with_all_that_its_expiry_cell_hid(node: Node) -> None:
    expiring_counter(node)
    assert not node.apply(Stable(4999, None)).cleared
    assert len(node.rows()) == 3
    assert node.apply(Stable(5000, None)).cleared
    assert node.rows() == {}


def test_a_register_written_after_the_expiry_cell_survives_it(node: Node) -> None:
    expiring_counter(node)
    node.log.put([b"k"], [b"newer"])
    node.apply(Stable(5000, None))
    assert list(node.rows()) == [(0, b"k", b"\x01")]


def test_in_a_cluster_an_expired_key_is_left_to_the_leaders_change(node: Node) -> None:
    expiring_counter(node)
    node.apply(cut_of(3, wall_ms=9000))
    assert len(node.rows()) == 3


def test_a_purge_is_bounded_per_transaction_and_goes_on_in_the_next(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 10)
    for n in range(25):
        node.log.change([1, b"%d" % n, b"v", 5000])
    node.apply(None)
    assert node.applier.apply(node.log.lsn, Stable(9000, None)) is not None
    assert len(node.rows()) == 15
    assert node.applier.purge_more
    node.apply(Stable(9000, None))
    assert node.rows() == {}
    assert not node.applier.purge_more


def test_entries_that_have_to_stay_do_not_keep_the_walk_from_those_behind_them(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier_module, "PURGE_ROWS_MAX", 10)
    for n in range(15):
        node.log.change([5, b"x%d" % n, 1000 + n])  # cells of a cluster that only the leader's change removes
        node.log.change([2, b"y%d" % n], keyspace=1)  # tombstones of a keyspace without a cut
    node.log.change([1, b"expired", b"v", 5000])
    node.log.change([2, b"deleted"])
    node.apply(None)
    assert len(node.rows()) == 32
    for _ in range(3):
        node.applier.apply(node.log.lsn, cut_of(17, wall_ms=9000))
    assert len(node.rows()) == 30


# The reserve.


def test_pages_are_kept_behind_the_last_used_one(node: Node) -> None:
    node.log.put([b"a"], [b"1"])
    assert node.apply().reserved
    data_file = store_path(node.data_dir) / "data.mdb"
    assert data_file.stat().st_blocks * 512 >= LMDB_RESERVE_BYTES
    assert data_file.stat().st_size < LMDB_RESERVE_BYTES


def test_an_almost_full_disk_makes_transactions_small(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier_module, "free_bytes", lambda _: 0)
    for n in range(8):
        node.log.put([b"%d-%d" % (n, m) for m in range(100)], [b"v"] * 100)
    progress = node.applier.apply(node.log.lsn, None)
    assert progress is not None
    assert progress.lsn < node.log.lsn


# Any history: the store equals merging every operation where it arrives.

KEYS = st.sampled_from([b"a", b"b", b"c\x00", b"d" * 490, b"d" * 490 + b"e"])
PLAIN_RUN = st.tuples(st.just("run"), st.lists(KEYS, min_size=1, max_size=4), st.integers(-6, 3))
OPERATION = st.one_of(
    st.builds(lambda key, expiry: [1, key, b"v", expiry], KEYS, st.sampled_from([0, 50, 5000])),
    st.builds(lambda key: [2, key], KEYS),
    st.builds(lambda key, expiry: [5, key, expiry], KEYS, st.sampled_from([0, 50, 5000])),
    st.builds(lambda key, total, fresh: [3, key, total, 0, 0, fresh], KEYS, st.integers(-9, 9), st.integers(0, 1)),
    st.builds(lambda key, seq: [4, key, [[OWN, seq, 1]]], KEYS, st.integers(1, 9)),
)
CHANGE = st.tuples(st.just("change"), OPERATION, st.integers(-6, 3))
STEPS = st.lists(st.one_of(PLAIN_RUN, CHANGE, st.just(("apply",))), max_size=25)


@settings(max_examples=60)
@given(steps=STEPS)
def test_any_history_cut_into_any_generations_stores_what_merging_each_operation_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    data_dir = tmp_path_factory.mktemp("node")
    node = Node(data_dir)
    model: dict[tuple[int, bytes, bytes], Row] = {}
    for number, (kind, *rest) in enumerate(steps):
        if kind == "apply":
            node.apply()
            continue
        what, shift = rest
        actor = OWN if shift >= 0 else OTHER  # another node's stamps may lie anywhere, the own ones are above all seen
        base_hlc = node.log.hlc + 1 + shift
        seq = node.log.seq(actor=actor)
        if kind == "run":
            operations = [[1, key, b"%d" % number, 0] for key in what]
            node.log.run(pack_columns(what, [b"%d" % number] * len(what)), len(what), actor=actor, base_hlc=base_hlc)
        else:
            operations = [what]
            node.log.change(what, actor=actor, base_hlc=base_hlc)
        for index, operation in enumerate(operations):
            for key, suffix, delta in rows_of(operation, actor, seq + 1 + index, base_hlc + index):
                merged = merge_row(model.get((0, key, suffix)), delta)
                if merged is not None:
                    model[0, key, suffix] = merged
    node.apply()
    assert node.rows() == model
    node.store.close()
