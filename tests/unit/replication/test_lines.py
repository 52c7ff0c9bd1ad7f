"""A leader that was restored has forgotten who came after its backup: what those wrote comes to all, and no deleted key comes back."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.errors import SessionBehind, Unavailable
from edgekv.limits import RESTORED_WAIT_MS
from edgekv.node import identity
from edgekv.node.token import token_of
from edgekv.replication import keyspace_orders, returning
from edgekv.replication.acks import Want
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.test_parking import members, pass_s
from tests.unit.replication.wires import Make, Net, Peer, run

WAIT_S = RESTORED_WAIT_MS // 1000
Restore = Callable[[], None]


def back_up(peer: Peer, to: Path) -> Restore:
    """Of a node that is stopped for that; what sets it back to this moment."""
    peer.cut_off()
    peer.kill()
    shutil.copytree(peer.config.data_dir, to)
    peer.open()

    def restore() -> None:
        peer.cut_off()
        peer.kill()
        shutil.rmtree(peer.config.data_dir)
        shutil.copytree(to, peer.config.data_dir)
        peer.open()

    return restore


def forgetful(net: Net, make: Make, tmp_path: Path) -> tuple[Peer, Peer, Restore]:
    """A hub whose backup knows no open member, and an edge that came after it."""
    hub, (gone,), _ = cluster(net, make, edges=1)
    hub.replication.membership.remove(gone.name)
    gone.cut_off()
    pass_s(net, 10, hub)
    restore = back_up(hub, tmp_path / "backup")
    late = make("late", site="late", role="edge")
    net.connect(late, hub)
    pass_s(net, 20, hub, late)
    return hub, late, restore


def has_list(peer: Peer) -> bool:
    return peer.replication.members.founded


def with_rooms(net: Net, make: Make, tmp_path: Path) -> tuple[Peer, Peer, Restore]:
    """A hub whose backup knows an edge, and not the keyspace that was created since."""
    hub, (edge,), _ = cluster(net, make, edges=1)
    restore = back_up(hub, tmp_path / "backup")
    net.connect(edge, hub)
    hub.replication.keyspaces.create("rooms", b"rooms/", (), siblings=False)
    pass_s(net, 10, hub, edge)
    return hub, edge, restore


def come_back(net: Net, member: Peer, hub: Peer, *others: Peer) -> None:
    """It sees that its meta is astray, and comes again when it has deleted that."""
    net.connect(member, hub)
    pass_s(net, 10, hub, member, *others)
    assert member.replication.links == {}
    net.connect(member, hub)
    pass_s(net, 60, hub, member, *others)


def test_what_a_member_wrote_of_which_a_restored_leader_does_not_know_is_everywhere(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, late, restore = forgetful(net, make, tmp_path)
    late.operations.set(b"sent", b"1")
    late.operations.increment(b"count", 3)
    pass_s(net, 20, hub, late)
    restore()
    pass_s(net, WAIT_S + 6, hub)
    assert hub.replication.leader.leads
    late.operations.set(b"kept", b"2")
    late.operations.increment(b"count", 4)
    newcomer = make("new", site="new", role="edge")
    net.connect(newcomer, hub)
    pass_s(net, 20, hub, newcomer)
    hub.operations.increment(b"count", 10)
    come_back(net, late, hub, newcomer)
    for peer in (hub, late, newcomer):
        assert peer.operations.get(b"sent") == b"1"
        assert peer.operations.get(b"kept") == b"2"
        assert peer.operations.get(b"count") == b"17"
    assert vectors(hub) == vectors(late) == vectors(newcomer)
    assert members(hub)["late"] == "open"
    late.operations.set(b"after", b"3")
    pass_s(net, 10, hub, late, newcomer)
    assert newcomer.operations.get(b"after") == b"3"


def test_who_comes_in_time_gives_back_what_the_leader_has_forgotten(net: Net, make: Make, tmp_path: Path) -> None:
    hub, late, restore = forgetful(net, make, tmp_path)
    late.operations.set(b"k", b"v")
    pass_s(net, 10, hub, late)
    restore()
    pass_s(net, WAIT_S - 4, hub)
    net.connect(late, hub)
    pass_s(net, 20, hub, late)
    assert hub.replication.leader.leads and members(hub)["late"] == "open"
    assert hub.operations.get(b"k") == b"v"
    assert late.replication.row_sync.syncs_total == hub.replication.row_sync.syncs_total == 0, "it never was away"


def test_a_deleted_key_does_not_come_back_with_one_whom_the_leader_has_forgotten(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, late, restore = forgetful(net, make, tmp_path)
    hub.operations.set(b"doomed", b"v")
    late.operations.sets.add(b"set", [b"a", b"b"])
    pass_s(net, 20, hub, late)
    restore()
    net.connect(late, hub)
    pass_s(net, WAIT_S + 10, hub, late)
    assert hub.operations.get(b"doomed") == b"v", "it is given back"
    hub.operations.delete([b"doomed"])
    late.operations.sets.remove(b"set", [b"a"])
    pass_s(net, 120, hub, late)
    assert hub.stored_row(b"doomed", b"\x01") is None
    assert hub.operations.sets.count(b"set") == late.operations.sets.count(b"set") == 1


def test_it_writes_on_while_it_takes_meta_anew_and_a_crash_in_the_middle_loses_nothing(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, late, restore = forgetful(net, make, tmp_path)
    late.operations.set(b"before", b"1")
    pass_s(net, 4, hub, late)
    restore()
    pass_s(net, WAIT_S + 6, hub)
    net.connect(late, hub)
    while not late.replication._lines.is_going:
        run(net, [hub, late], rounds=1)
    late.operations.set(b"between", b"2")
    late.settle()
    late.kill()
    late.open()
    run(net, [late], rounds=20)
    late.operations.set(b"after", b"3")
    net.connect(late, hub)
    pass_s(net, 10, hub, late)
    net.connect(late, hub)
    pass_s(net, 60, hub, late)
    assert [hub.operations.get(key) for key in (b"before", b"between", b"after")] == [b"1", b"2", b"3"]
    assert vectors(hub) == vectors(late)


def test_a_leader_that_is_restored_again_does_not_wait_for_entries_of_a_line_that_was_given_up(
    net: Net, make: Make, tmp_path: Path
) -> None:
    """Who has them greets, and goes away before it has seen that they are astray: nobody will ever bring them."""
    hub, late, restore = forgetful(net, make, tmp_path)
    restore()
    pass_s(net, WAIT_S + 6, hub)
    assert hub.replication.leader.leads
    restore_again = back_up(hub, tmp_path / "backup of its line")
    restore_again()
    late.now_ms = hub.now_ms
    net.connect(late, hub)
    while not hub.replication.leader._heard:
        assert net.deliver()
    (link,) = hub.replication.links.values()
    assert link.astray
    late.cut_off()
    pass_s(net, WAIT_S + 6, hub)
    assert hub.replication.leader.leads


def test_who_is_no_member_in_the_list_that_a_node_took_anew_counts_no_more(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, late, restore = forgetful(net, make, tmp_path)
    writer = make("writer", site="far", role="edge")
    writer.now_ms = hub.now_ms
    net.connect(writer, hub)
    pass_s(net, 10, hub, late, writer)
    writer.operations.set(b"k", b"v")
    positions = {DEFAULT_ID: 1}
    writer.node.acks.wait(positions, Want(2), None, lambda _: None)
    pass_s(net, 10, hub, late, writer)
    assert sorted(peer.name for peer in writer.node.acks.covered_by(positions)) == ["hub", "late"]
    restore()
    hub.now_ms = writer.now_ms
    pass_s(net, WAIT_S + 6, hub)
    come_back(net, writer, hub)
    assert "late" not in members(writer)
    assert [peer.name for peer in writer.node.acks.covered_by(positions)] == ["hub"]


def test_what_a_third_one_had_made_comes_with_whoever_holds_it_and_its_maker_goes_on(
    net: Net, make: Make, tmp_path: Path
) -> None:
    """A relay and its edge, both unknown to the leader."""
    hub, relay, restore = forgetful(net, make, tmp_path)
    edge = make("edge", site="far", role="edge")
    net.connect(edge, hub)
    pass_s(net, 20, hub, relay, edge)
    edge.operations.increment(b"count", 2)
    pass_s(net, 10, hub, relay, edge)
    restore()
    pass_s(net, WAIT_S + 6, hub)
    edge.operations.increment(b"count", 3)
    come_back(net, relay, hub)
    assert hub.operations.get(b"count") == b"2"
    assert [m.state for m in hub.replication.members.of_node(edge.node.identity.node)] == ["settled"]
    come_back(net, edge, hub, relay)
    assert [peer.operations.get(b"count") for peer in (hub, relay, edge)] == [b"5"] * 3
    assert members(hub)["edge"] == "open"
    assert vectors(hub) == vectors(relay) == vectors(edge)


def test_a_member_that_the_leader_knows_goes_on_when_it_was_not_waited_for(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, edge, restore = with_rooms(net, make, tmp_path)
    edge.operations.set(b"rooms/1", b"late")
    restore()
    hub.replication.membership.lead()
    pass_s(net, 10, hub)
    come_back(net, edge, hub)
    assert [m.name for m in hub.replication.members.open_members()] == ["edge-0", "hub"]
    edge.operations.set(b"k", b"v")
    pass_s(net, 20, hub, edge)
    assert hub.operations.get(b"k") == b"v"
    assert hub.operations.get(b"rooms/1") == b"late", "the keyspace is back as well"


def test_a_restored_leader_does_not_wait_for_the_incarnation_of_a_member_that_was_restored_behind_another_hub(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, relay = make("hub", founder=True), make("relay")
    edge = make("edge", site="far", role="edge")
    net.connect(relay, hub)
    net.connect(edge, relay)
    pass_s(net, 20, hub, relay, edge)
    relay.kill()
    relay.open()  # and has forgotten what it was told
    for restore in [back_up(peer, tmp_path / f"backup of {peer.name}") for peer in (hub, edge)]:
        restore()
    net.connect(relay, hub)
    net.connect(edge, relay)
    hub.now_ms = edge.now_ms = relay.now_ms
    pass_s(net, WAIT_S + 10, hub, relay, edge)
    assert hub.replication.leader.leads and hub.replication.members.is_open(edge.engine.actor)
    edge.operations.set(b"k", b"v")
    pass_s(net, 10, hub, relay, edge)
    assert hub.operations.get(b"k") == b"v"


def test_a_leader_that_is_restored_again_does_not_wait_for_what_is_in_a_keyspace_that_it_has_forgotten(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, edge, restore = with_rooms(net, make, tmp_path)
    edge.operations.set(b"rooms/1", b"v")
    restore()
    hub.replication.membership.lead()
    pass_s(net, 10, hub)
    net.connect(edge, hub)
    pass_s(net, 10, hub, edge)
    assert not has_list(edge) and not edge.replication.links, "it takes the list anew"
    restore()
    hub.now_ms = edge.now_ms
    net.connect(edge, hub)
    pass_s(net, WAIT_S + 20, hub, edge)
    assert hub.replication.leader.leads
    assert hub.operations.get(b"rooms/1") == b"v"
    assert vectors(hub) == vectors(edge)


def test_a_keyspace_that_the_leader_has_forgotten_is_back_though_nothing_is_in_it(
    net: Net, make: Make, tmp_path: Path
) -> None:
    """Else the members would hide what others write below its prefix, and the leader show it."""
    hub, edge, restore = with_rooms(net, make, tmp_path)
    restore()
    hub.replication.membership.lead()
    pass_s(net, 10, hub)
    hub.operations.set(b"rooms/1", b"before it is back")
    come_back(net, edge, hub)
    hub.operations.set(b"rooms/2", b"v")
    edge.operations.set(b"rooms/3", b"v")
    pass_s(net, 10, hub, edge)
    for peer in (hub, edge):
        assert [peer.operations.get(b"rooms/%d" % i) for i in (1, 2, 3)] == [None, b"v", b"v"]
        assert "rooms/1" in str(peer.engine.status()["misplaced"])
    assert vectors(hub) == vectors(edge)


@pytest.mark.parametrize("again", [False, True])
def test_what_is_in_a_keyspace_survives_when_the_backup_that_does_not_know_it_is_restored_twice(
    net: Net, make: Make, tmp_path: Path, again: bool
) -> None:
    """What the leader creates in its second life is not what it created in the first."""
    hub, late, restore = forgetful(net, make, tmp_path)
    late.cut_off()
    restore()
    pass_s(net, WAIT_S + 6, hub)
    come_back(net, late, hub)
    hub.replication.keyspaces.create("rooms", b"rooms/", (), siblings=False)
    pass_s(net, 10, hub, late)
    late.operations.set(b"rooms/1", b"v")
    pass_s(net, 10, hub, late)
    restore()
    pass_s(net, WAIT_S + 6, hub)
    if again:
        hub.replication.keyspaces.create("other", b"other/", (), siblings=False)
    come_back(net, late, hub)
    pass_s(net, 10, hub, late)
    for peer in (hub, late):
        assert peer.operations.get(b"rooms/1") == b"v"
    if again:
        late.operations.set(b"other/1", b"w")
        pass_s(net, 10, hub, late)
        assert hub.operations.get(b"other/1") == b"w"
    assert vectors(hub) == vectors(late)


@pytest.mark.parametrize("comes", ["amid the wait", "later"])
def test_of_two_lives_that_a_leader_has_from_one_backup_the_later_one_counts(
    net: Net, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    """By its number: the bits behind that are chance, and here those of the earlier one are higher."""
    hub, late, restore = forgetful(net, make, tmp_path)
    real, bits = identity._incarnation, iter((0xFF, 0))
    monkeypatch.setattr(
        identity, "_incarnation", lambda number, _: real(number, lambda size: bytes([next(bits)] * size))
    )
    late.cut_off()
    restore()
    pass_s(net, WAIT_S + 6, hub)
    come_back(net, late, hub)
    late.operations.set(b"k", b"between")
    pass_s(net, 10, hub, late)
    restore()
    late.operations.set(b"l", b"v")
    hub.now_ms = late.now_ms
    if comes == "later":
        pass_s(net, WAIT_S + 6, hub)
    for _ in range(8):
        if not late.replication.links:
            net.connect(late, hub)
        pass_s(net, 10, hub, late)
    assert hub.replication.leader.leads
    assert [hub.operations.get(key) for key in (b"k", b"l")] == [b"between", b"v"]
    assert vectors(hub) == vectors(late)


def test_a_keyspace_that_cannot_be_taken_in_keeps_no_other_from_it_and_is_said(
    net: Net, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (keyspace_orders, returning):
        monkeypatch.setattr(module, "UNLISTED_AT_ONCE", 1)
    hub, edge, restore = with_rooms(net, make, tmp_path)
    hub.replication.keyspaces.create("yards", b"yards/", (), siblings=False)
    pass_s(net, 10, hub, edge)
    restore()
    hub.replication.membership.lead()
    pass_s(net, 10, hub)
    hub.replication.keyspaces.create("halls", b"rooms/1/", (), siblings=False)
    come_back(net, edge, hub)
    edge.operations.set(b"yards/1", b"v")
    pass_s(net, 10, hub, edge)
    assert hub.operations.get(b"yards/1") == b"v"
    assert "does not know keyspace 'rooms'" in str(edge.replication.status()["events"])


def test_a_keyspace_that_the_leader_has_forgotten_comes_back_with_what_is_in_it(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, late, restore = forgetful(net, make, tmp_path)
    hub.replication.keyspaces.create("rooms", b"rooms/", (), siblings=False)
    pass_s(net, 10, hub, late)
    late.operations.set(b"rooms/1", b"v")
    restore()
    pass_s(net, WAIT_S + 6, hub)
    hub.replication.keyspaces.create("other", b"other/", (), siblings=False)
    come_back(net, late, hub)
    assert hub.operations.get(b"rooms/1") == b"v"
    names = {keyspace.id: keyspace.name for keyspace in hub.engine.keyspaces.all}
    assert names == {keyspace.id: keyspace.name for keyspace in late.engine.keyspaces.all}
    late.operations.set(b"other/1", b"w")
    pass_s(net, 10, hub, late)
    assert hub.operations.get(b"other/1") == b"w"


def test_a_hub_that_was_restored_to_before_its_cluster_takes_the_list_of_those_who_come(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub = make("hub", founder=True)
    pass_s(net, 4, hub)
    restore = back_up(hub, tmp_path / "backup")
    edge = make("edge", site="far", role="edge")
    net.connect(edge, hub)
    pass_s(net, 10, hub, edge)
    edge.operations.set(b"k", b"v")
    restore()
    net.connect(edge, hub)
    pass_s(net, WAIT_S + 20, hub, edge)
    assert hub.replication.leader.leads
    assert hub.operations.get(b"k") == b"v"
    hub.operations.set(b"k", b"w")
    pass_s(net, 10, hub, edge)
    assert edge.operations.get(b"k") == b"w"


def token(peer: Peer) -> str:
    """Of a session that has looked at everything there."""
    peer.node.sessions.announced = lambda: peer.replication.members.announced
    return peer.node.sessions.token(peer.node.sessions.all_keyspaces)


def test_a_session_that_rests_on_what_the_leader_forgot_is_let_in_nowhere(net: Net, make: Make, tmp_path: Path) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    pass_s(net, 20, hub, edge)
    restore = back_up(hub, tmp_path / "backup")
    net.connect(edge, hub)
    before = hub.replication.members.announced
    hub.operations.set(b"k", b"v")
    pass_s(net, 20, hub, edge)
    lost = hub.replication.members.announced
    assert before is not None and lost is not None and lost.number > before.number
    tokens = [token(hub)]
    restore()
    hub.replication.membership.lead()
    pass_s(net, 30, hub)
    come_back(net, edge, hub)
    first = hub.replication.members.announced
    assert first is not None and first.by == hub.engine.actor
    assert first.gaps == ((before.number, first.gaps[0][1]),) and first.gaps[0][1] > lost.number << 20
    tokens.append(token(hub))
    edge.node.sessions.announced = lambda: edge.replication.members.announced
    for peer in (hub, edge):
        with pytest.raises(SessionBehind, match="Begin a new session"):
            peer.node.sessions.lacks(token_of(tokens[0]))
        assert peer.node.sessions.lacks(token_of(tokens[1])) is None
    pass_s(net, 20, hub, edge)
    again = hub.replication.members.announced
    assert again is not None and again.gaps == first.gaps, "the same incarnation counts on by one"


def is_going(peer: Peer) -> bool:
    return peer.replication._lines.is_going


def astray_hub(net: Net, make: Make, tmp_path: Path) -> tuple[Peer, Peer]:
    """A restored leader, and a hub without upstream that came after the backup and has to give its copy of meta up."""
    hub, _, restore = forgetful(net, make, tmp_path)
    relay = make("relay", founder=True)
    hub.now_ms = relay.now_ms = hub.now_ms + 60_000
    net.connect(hub, relay)
    pass_s(net, 20, hub, relay)
    assert relay.replication.members.is_open(relay.engine.actor)
    hub.operations.set(b"k", b"v")
    pass_s(net, 20, hub, relay)
    restore()
    hub.now_ms = relay.now_ms
    pass_s(net, WAIT_S + 6, hub)
    assert hub.replication.leader.leads
    return hub, relay


def test_a_hub_that_starts_before_it_has_the_list_anew_founds_no_cluster_and_is_not_alone(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, relay = astray_hub(net, make, tmp_path)
    net.connect(hub, relay)
    pass_s(net, 10, hub, relay)
    assert not has_list(relay) and not is_going(relay), "its copy is gone"
    relay.kill()
    relay.open()
    newcomer = make("new", site="new", role="edge")
    newcomer.now_ms = relay.now_ms
    net.connect(newcomer, relay)
    pass_s(net, 20, relay, newcomer)
    assert not has_list(relay) and not relay.engine.checkpoints.lone
    with pytest.raises(Unavailable, match="not a member"):
        relay.operations.set(b"k", b"w")
    hub.now_ms = relay.now_ms
    net.connect(hub, relay)
    pass_s(net, 60, hub, relay, newcomer)
    assert members(hub)["relay"] == members(hub)["new"] == "open"
    newcomer.operations.set(b"after", b"1")
    pass_s(net, 10, hub, relay, newcomer)
    assert hub.operations.get(b"after") == b"1" and vectors(hub) == vectors(relay) == vectors(newcomer)


def test_of_a_copy_of_the_list_that_is_being_deleted_nothing_is_read_also_after_a_crash(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, relay = astray_hub(net, make, tmp_path)
    net.connect(hub, relay)
    while not is_going(relay):
        run(net, [hub, relay], rounds=1)
    seen: list[int] = []
    while is_going(relay):
        run(net, [relay], rounds=1)
        seen.append(len(relay.replication.members.members))
        if relay.engine.keyspaces.by_id[META_ID].absent and not relay.engine.keyspaces.by_id[META_ID].vector:
            relay.kill()
            relay.open()
            seen.append(len(relay.replication.members.members))
    assert len(seen) > 1 and not any(seen)
    hub.now_ms = relay.now_ms
    net.connect(hub, relay)
    pass_s(net, 60, hub, relay)
    assert members(hub)["relay"] == "open" and vectors(hub) == vectors(relay)


def test_a_session_ends_that_rests_on_what_all_had_and_nobody_has_any_more(net: Net, make: Make) -> None:
    """A member and the leader were restored, and the entries of meta came back from one who had them: the cut falls."""
    hub, (edge,), _ = cluster(net, make, edges=1)
    pass_s(net, 20, hub, edge)
    members = hub.replication.members
    last = members.announced
    assert last is not None and last.stable.cuts is not None
    cut = last.stable.cuts[DEFAULT_ID]
    had = last.stable._replace(cuts={DEFAULT_ID: cut._replace(cut={**cut.cut, edge.engine.actor: 2})})
    members.announced = replace(last, stable=had)
    announced = hub.replication.leader._numbered(last.stable, 0)
    assert announced.number == last.number + 1 and announced.gaps == ((0, announced.number),)
    members.announced = last
    assert hub.replication.leader._numbered(had, 0).gaps == ()
