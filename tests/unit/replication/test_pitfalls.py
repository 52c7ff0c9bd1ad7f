"""Where replicated stores have failed before us: the histories that lost a write, brought one back, or counted one twice."""

import shutil
from pathlib import Path
from random import Random

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.errors import Denied, Unavailable
from edgekv.limits import RESTORED_WAIT_MS
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.wires import Make, Net, Peer, run

HOUR_MS = 3_600_000


def settle(net: Net, *peers: Peer) -> None:
    run(net, list(peers), rounds=10)
    assert all(vectors(peer) == vectors(peers[0]) for peer in peers)


def forget(net: Net, *peers: Peer) -> None:
    """Time for deletions to be seen by all, announced, and purged."""
    run(net, list(peers), rounds=200, step_ms=1_000)


def test_a_restored_node_gets_back_what_it_had_sent_and_uses_no_dot_twice(net: Net, make: Make, tmp_path: Path) -> None:
    hub, (edge, other), _ = cluster(net, make)
    for i in range(20):
        edge.operations.set(b"before/%d" % i, b"v")
    settle(net, hub, edge, other)
    edge.cut_off()
    edge.kill()
    backup = tmp_path / "backup"
    shutil.copytree(edge.config.data_dir, backup)
    edge.open()
    net.connect(edge, hub)
    for i in range(10):
        edge.operations.set(b"after/%d" % i, b"v")
    settle(net, hub, edge, other)
    first = edge.engine.actor
    edge.cut_off()
    edge.kill()
    shutil.rmtree(edge.config.data_dir)
    shutil.copytree(backup, edge.config.data_dir)
    edge.open()
    assert edge.engine.actor != first
    assert edge.operations.get(b"after/3") is None
    net.connect(edge, hub)
    settle(net, hub, edge, other)
    assert edge.operations.get(b"after/3") == b"v", "its own changes are not skipped"
    edge.operations.set(b"after/3", b"again")
    settle(net, hub, edge, other)
    assert [peer.operations.get(b"after/3") for peer in (hub, edge, other)] == [b"again"] * 3


def test_a_directory_that_was_set_back_is_noticed_by_its_peer(net: Net, make: Make, tmp_path: Path) -> None:
    """As a virtual machine's snapshot does: the same inode, the same incarnation, and less than it had issued."""
    hub, (edge, other), _ = cluster(net, make)
    edge.operations.set(b"k", b"1")
    settle(net, hub, edge, other)
    edge.cut_off()
    edge.kill()
    for folder in ("wal", "store"):
        shutil.copytree(edge.config.data_dir / folder, tmp_path / folder)
    edge.open()
    net.connect(edge, hub)
    edge.operations.set(b"k", b"2")
    settle(net, hub, edge, other)
    edge.cut_off()
    edge.kill()
    for folder in ("wal", "store"):
        shutil.rmtree(edge.config.data_dir / folder)
        shutil.copytree(tmp_path / folder, edge.config.data_dir / folder)
    edge.open()
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=3)
    assert edge.rolled_back


def test_a_deletion_that_one_member_has_not_seen_reaches_it_however_late(net: Net, make: Make) -> None:
    hub, (first, late), wires = cluster(net, make)
    for i in range(50):
        first.operations.set(b"k/%d" % i, b"v")
    first.operations.sets.add(b"s", [b"a", b"b"])
    settle(net, hub, first, late)
    net.cut(wires[1])
    for i in range(50):
        hub.operations.delete([b"k/%d" % i])
    hub.operations.delete([b"s"])
    run(net, [hub, first], rounds=400, step_ms=4_000)
    late.now_ms = hub.now_ms
    net.connect(late, hub)
    settle(net, hub, first, late)
    for peer in (hub, first, late):
        assert not any(peer.operations.get(b"k/%d" % i) for i in range(50))
        assert peer.operations.sets.count(b"s") == 0


def test_a_key_that_was_made_anew_survives_the_tombstone_of_its_first_life(net: Net, make: Make) -> None:
    hub, (first, late), wires = cluster(net, make)
    first.operations.set(b"k", b"old")
    settle(net, hub, first, late)
    net.cut(wires[1])
    late.operations.delete([b"k"])
    run(net, [hub, first], rounds=10)
    late.now_ms = first.now_ms = hub.now_ms
    late.cut_off()
    net.connect(late, hub)
    settle(net, hub, first, late)
    forget(net, hub, first, late)
    first.operations.set(b"k", b"new")
    settle(net, hub, first, late)
    assert [peer.operations.get(b"k") for peer in (hub, first, late)] == [b"new"] * 3


def test_a_remove_takes_only_the_adds_that_its_writer_had_seen(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    first.operations.sets.add(b"s", [b"x"])
    settle(net, hub, first, second)
    net.cut(wires[0])
    first.operations.sets.add(b"s", [b"x"])
    second.operations.sets.remove(b"s", [b"x"])
    run(net, [hub, second], rounds=5)
    net.connect(first, hub)
    settle(net, hub, first, second)
    assert [peer.operations.sets.page(b"s", b"", 9)[0] for peer in (hub, first, second)] == [[b"x"]] * 3


def test_a_remove_that_overtakes_its_add_on_another_path_leaves_nothing(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    third = make("hub-2")
    net.connect(third, hub)
    settle(net, hub, first, second, third)
    first.operations.sets.add(b"s", [b"x"])
    run(net, [hub, first], rounds=3)
    hub.operations.sets.remove(b"s", [b"x"])
    net.connect(first, third)
    settle(net, hub, first, second, third)
    assert all(peer.operations.sets.count(b"s") == 0 for peer in (hub, first, second, third))


def test_a_map_field_that_is_removed_takes_no_concurrent_field_with_it(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    first.operations.maps.put(b"m", [(b"x", b"1")])
    settle(net, hub, first, second)
    net.cut(wires[0])
    first.operations.maps.remove(b"m", [b"x"])
    first.operations.maps.put(b"m", [(b"z", b"1")])
    second.operations.maps.put(b"m", [(b"y", b"1")])
    run(net, [hub, second], rounds=5)
    net.connect(first, hub)
    settle(net, hub, first, second)
    assert all(dict(p.operations.maps.page(b"m", b"", 9)[0]).keys() == {b"y", b"z"} for p in (hub, first, second))


def test_an_increment_beside_the_removal_of_its_field_is_what_is_left(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    first.operations.maps.increment(b"m", b"n", 41)
    settle(net, hub, first, second)
    net.cut(wires[0])
    first.operations.maps.remove(b"m", [b"n"])
    second.operations.maps.increment(b"m", b"n", 1)
    run(net, [hub, second], rounds=5)
    net.connect(first, hub)
    settle(net, hub, first, second)
    assert all(dict(p.operations.maps.page(b"m", b"", 9)[0]) == {b"n": b"1"} for p in (hub, first, second))


def test_a_counter_that_is_deleted_and_made_anew_counts_from_nothing(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    first.operations.increment(b"n", 6)
    settle(net, hub, first, second)
    second.operations.delete([b"n"])
    settle(net, hub, first, second)
    forget(net, hub, first, second)
    first.operations.increment(b"n", 6)
    settle(net, hub, first, second)
    assert [peer.operations.get(b"n") for peer in (hub, first, second)] == [b"6"] * 3


def test_a_write_beats_what_its_writer_had_seen_though_that_clock_was_an_hour_ahead(net: Net, make: Make) -> None:
    hub, (ahead, right), _ = cluster(net, make)
    ahead.now_ms += HOUR_MS
    ahead.operations.set(b"k", b"ahead")
    settle(net, hub, right)
    run(net, [hub, ahead, right], rounds=5)
    assert right.operations.get(b"k") == b"ahead"
    right.operations.set(b"k", b"right")
    run(net, [hub, ahead, right], rounds=5)
    assert [peer.operations.get(b"k") for peer in (hub, ahead, right)] == [b"right"] * 3
    right.operations.delete([b"k"])
    run(net, [hub, ahead, right], rounds=5)
    assert [peer.operations.get(b"k") for peer in (hub, ahead, right)] == [None] * 3


def test_a_board_that_boots_in_1970_loses_no_overwrite_and_ends_no_key(net: Net, make: Make) -> None:
    hub, (board, other), _ = cluster(net, make)
    hub.operations.set(b"k", b"old")
    other.operations.set(b"ttl", b"v", expiry_ms=other.now_ms + HOUR_MS)
    settle(net, hub, board, other)
    board.cut_off()
    board.kill()
    right, board.now_ms = board.now_ms, 1_000
    board.open()
    board.operations.set(b"k", b"new")
    assert board.operations.get(b"ttl") == b"v"
    board.now_ms = right
    net.connect(board, hub)
    settle(net, hub, board, other)
    assert [peer.operations.get(b"k") for peer in (hub, board, other)] == [b"new"] * 3
    assert [peer.operations.get(b"ttl") for peer in (hub, board, other)] == [b"v"] * 3


def test_jittering_clocks_lose_no_addition(net: Net, make: Make) -> None:
    dice = Random(7)
    hub, (first, second), _ = cluster(net, make)
    for i in range(60):
        peer = dice.choice((first, second, hub))
        peer.now_ms += dice.choice((-1_000, 1_000, 0))
        peer.operations.sets.add(b"s", [b"%d" % i])
        run(net, [hub, first, second], rounds=1)
    settle(net, hub, first, second)
    assert all(peer.operations.sets.count(b"s") == 60 for peer in (hub, first, second))


def test_of_two_values_with_equal_clocks_all_keep_the_same_one(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    for wire in wires:
        net.cut(wire)
    second.now_ms = first.now_ms = max(first.now_ms, second.now_ms) + 1_000
    first.operations.set(b"k", b"1")
    second.operations.set(b"k", b"2")
    for edge in (first, second):
        net.connect(edge, hub)
    settle(net, hub, first, second)
    assert len({peer.operations.get(b"k") for peer in (hub, first, second)}) == 1


def test_an_expiry_that_was_moved_elsewhere_is_the_one_that_counts(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    first.operations.set(b"k", b"v", expiry_ms=first.now_ms + 5_000)
    settle(net, hub, first, second)
    net.cut(wires[1])
    second.operations.set_expiry(b"k", second.now_ms + HOUR_MS)
    run(net, [hub, first], rounds=10, step_ms=1_000)
    assert first.operations.get(b"k") is None, "for whom it has not been moved it has ended"
    second.now_ms = hub.now_ms
    net.connect(second, hub)
    run(net, [hub, first, second], rounds=10)
    assert [peer.operations.get(b"k") for peer in (hub, first, second)] == [b"v"] * 3


def test_a_node_that_holds_part_of_the_keyspaces_deletes_nothing_at_one_that_holds_all(net: Net, make: Make) -> None:
    keyspaces = (
        KeyspaceConfig(prefix=b"", name="default"),
        KeyspaceConfig(prefix=b"eu/", name="eu", sites=("nowhere",)),
    )
    hub = make("hub", founder=True, keyspaces=keyspaces)
    hub.operations.set(b"eu/k", b"v")
    edge = make("edge", site="s", role="edge", keyspaces=keyspaces)
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=40)
    edge.operations.set(b"k", b"v")
    run(net, [hub, edge], rounds=5)
    forget(net, hub, edge)
    assert hub.operations.get(b"eu/k") == b"v"
    assert hub.operations.get(b"k") == b"v"


def test_a_peer_that_takes_nothing_in_slows_nobody_else(net: Net, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, (stuck, quick), wires = cluster(net, make)
    monkeypatch.setattr(stuck.engine.flips, "holds", lambda runs: True)
    for i in range(200):
        hub.operations.set(b"k/%d" % i, b"x" * 60_000)
    run(net, [hub, stuck, quick], rounds=30)
    assert quick.operations.get(b"k/199") is not None
    assert stuck.operations.get(b"k/199") is None
    assert wires[0].number in hub.replication.links, "its heartbeats pass"
    assert hub.replication.links[wires[0].number].unacknowledged < 10 << 20
    monkeypatch.undo()
    run(net, [hub, stuck, quick], rounds=30)
    assert stuck.operations.get(b"k/199") is not None


def test_a_hub_that_was_restored_leads_again_when_it_has_caught_up(net: Net, make: Make, tmp_path: Path) -> None:
    hub, (first, second), _ = cluster(net, make)
    settle(net, hub, first, second)
    hub.cut_off()
    hub.kill()
    backup = tmp_path / "backup"
    shutil.copytree(hub.config.data_dir, backup)
    hub.open()
    for edge in (first, second):
        net.connect(edge, hub)
    first.operations.set(b"k", b"v")
    third = make("late", site="late", role="edge")
    net.connect(third, hub)
    settle(net, hub, first, second, third)
    hub.cut_off()
    hub.kill()
    shutil.rmtree(hub.config.data_dir)
    shutil.copytree(backup, hub.config.data_dir)
    hub.open()
    assert hub.operations.get(b"k") is None
    for edge in (first, second, third):
        net.connect(edge, hub)
    run(net, [hub, first, second, third], rounds=RESTORED_WAIT_MS // 100 - 5)
    early = hub.replication.leader.leads
    assert not early, "another one may come"
    run(net, [hub, first, second, third], rounds=30)
    assert hub.replication.leader.leads
    assert hub.operations.get(b"k") == b"v"
    hub.operations.set(b"k", b"w")
    settle(net, hub, first, second, third)
    assert [peer.operations.get(b"k") for peer in (first, second, third)] == [b"w"] * 3


def test_a_restored_leader_waits_for_all_or_for_an_operator(net: Net, make: Make, tmp_path: Path) -> None:
    hub, (first, gone), _ = cluster(net, make)
    settle(net, hub, first, gone)
    hub.cut_off()
    hub.kill()
    shutil.copytree(hub.config.data_dir, tmp_path / "backup")
    shutil.rmtree(hub.config.data_dir)
    shutil.copytree(tmp_path / "backup", hub.config.data_dir)
    hub.open()
    net.connect(first, hub)
    run(net, [hub, first], rounds=60)
    assert not hub.replication.leader.leads
    with pytest.raises(Unavailable, match="not a member"):
        hub.operations.set(b"k", b"v")
    with pytest.raises(Denied):
        first.replication.membership.lead()
    hub.replication.membership.lead()
    run(net, [hub, first], rounds=10)
    hub.operations.set(b"k", b"v")
    run(net, [hub, first], rounds=10)
    assert first.operations.get(b"k") == b"v"
    net.connect(gone, hub)
    settle(net, hub, first, gone)
