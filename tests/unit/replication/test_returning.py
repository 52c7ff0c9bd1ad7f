"""A member that was parked comes back with all that it wrote meanwhile, and nothing comes back that was deleted meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.errors import Denied, Unavailable
from edgekv.ids import INCARNATION_BYTES, Vector, node_actor
from edgekv.limits import RETURN_LEASE_MS
from edgekv.replication import leader
from edgekv.replication.messages import Applicant, Return
from edgekv.store.spool_transfer import SpoolFolder
from tests.unit.replication.test_lines import back_up
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.test_parking import OFFLINE_MS, members, pass_s
from tests.unit.replication.wires import Make, Net, Peer, run

DROPS = (KeyspaceConfig(name="default", prefix=b"", late_write="drop"),)


def parked(net: Net, make: Make, keyspaces: tuple[KeyspaceConfig, ...] = ()) -> tuple[Peer, Peer, Peer]:
    """A hub, an edge that is away, settled, and does not know it, and an edge that is linked."""
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS, keyspaces=keyspaces)
    away.operations.set(b"old", b"from before")
    away.operations.set(b"doomed", b"from before")
    away.operations.sets.add(b"set", [b"a", b"b"])
    away.operations.increment(b"count", 5)
    pass_s(net, 30, hub, away, here)
    away.cut_off()
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, here)
    assert members(hub)[away.name] == "parked"
    assert state(hub, away) == "settled"
    return hub, away, here


def state(of: Peer, member: Peer) -> str:
    return of.replication.members.members[member.engine.actor].state


def forget(net: Net, *peers: Peer) -> None:
    """Deletions are seen by all, announced and purged."""
    pass_s(net, 120, *peers)


def come_back(net: Net, away: Peer, hub: Peer, *others: Peer, seconds: int = 40) -> None:
    net.connect(away, hub)
    pass_s(net, seconds, hub, away, *others)


def same(*peers: Peer) -> None:
    assert all(vectors(peer) == vectors(peers[0]) for peer in peers)


def test_what_a_parked_member_wrote_is_everywhere_after_its_return(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    away.operations.set(b"new", b"late")
    away.operations.set(b"old", b"written again")
    away.operations.sets.add(b"set", [b"c"])
    away.operations.sets.remove(b"set", [b"a"])
    away.operations.increment(b"count", 7)
    away.operations.delete([b"doomed"])
    away.operations.maps.put(b"map", [(b"f", b"v")])
    here.operations.increment(b"count", 1)
    come_back(net, away, hub, here)
    for peer in (hub, away, here):
        assert state(peer, away) == "open"
        assert peer.operations.get(b"new") == b"late"
        assert peer.operations.get(b"old") == b"written again"
        assert peer.operations.get(b"doomed") is None
        assert sorted(peer.operations.sets.page(b"set", b"", 9)[0]) == [b"b", b"c"]
        assert peer.operations.get(b"count") == b"13", "each increment counts once"
        assert peer.operations.maps.get(b"map", [b"f"]) == [b"v"]
    same(hub, away, here)


def test_it_serves_its_users_before_and_while_it_returns(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    away.operations.set(b"late", b"1")
    net.connect(away, hub)
    states = set()
    for i in range(200):
        away.operations.set(b"n", b"%d" % i)
        run(net, [hub, away, here], rounds=1)
        states.add(state(away, away))
    assert {"returning", "open"} <= states
    pass_s(net, 20, hub, away, here)
    assert [peer.operations.get(b"n") for peer in (hub, away, here)] == [b"199"] * 3
    same(hub, away, here)


@pytest.mark.parametrize("writes", [False, True])
def test_a_key_that_was_deleted_and_forgotten_meanwhile_does_not_come_back(net: Net, make: Make, writes: bool) -> None:
    hub, away, here = parked(net, make)
    here.operations.delete([b"old", b"set", b"count"])
    forget(net, hub, here)
    if writes:
        away.operations.set(b"else", b"late")
    come_back(net, away, hub, here)
    for peer in (hub, away, here):
        assert peer.operations.get(b"old") is None
        assert peer.operations.sets.count(b"set") == 0
        assert peer.operations.get(b"count") is None
    same(hub, away, here)


def test_a_late_value_is_shown_by_all_or_by_none_though_some_have_forgotten_its_deletion(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    other = make("other", role="edge")
    net.connect(other, hub)
    pass_s(net, 20, hub, here, other)
    away.operations.set(b"old", b"late")  # at the same time, and before it by the clock
    run(net, [hub, here, other], rounds=5)
    here.operations.delete([b"old"])
    pass_s(net, 12, hub, here, other)
    other.cut_off()  # it has the deletion, and does not hear that it may be forgotten
    forget(net, hub, here)
    other.cut_off()
    come_back(net, away, hub, here)
    net.connect(other, hub)
    pass_s(net, 30, hub, away, here, other)
    shown = {peer.operations.get(b"old") for peer in (hub, away, here, other)}
    assert len(shown) == 1
    same(hub, away, here, other)


def test_one_who_was_away_and_wrote_nothing_brings_no_rows_with_it(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    here.operations.set(b"meanwhile", b"v")
    come_back(net, away, hub, here)
    assert state(hub, away) == "open"
    assert [peer.replication.row_sync.syncs_total for peer in (hub, away, here)] == [0, 0, 0]
    away.operations.set(b"k", b"v")
    pass_s(net, 6, hub, away, here)
    assert here.operations.get(b"k") == away.operations.get(b"meanwhile") == b"v"


def test_a_member_that_was_closed_and_not_settled_is_simply_open_again(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS)
    pass_s(net, 20, hub, away, here)
    here.cut_off()
    away.cut_off()  # and here says no SEEN that knows of the closing
    pass_s(net, OFFLINE_MS // 1000 + 20, hub)
    assert sorted(members(hub).values()) == ["open", "open", "parked"]
    closed = away if state(hub, away) == "closed" else here
    closed.operations.set(b"k", b"late")
    come_back(net, closed, hub)
    assert state(hub, closed) == "open"
    assert hub.operations.get(b"k") == b"late"
    assert closed.replication.row_sync.syncs_total == 0


@pytest.mark.parametrize("when", range(0, 60, 3))
def test_a_crash_of_the_member_or_of_the_hub_in_the_middle_loses_and_doubles_nothing(
    net: Net, make: Make, when: int
) -> None:
    hub, away, here = parked(net, make)
    away.operations.increment(b"count", 7)
    away.operations.set(b"new", b"late")
    here.operations.delete([b"doomed"])
    forget(net, hub, here)
    net.connect(away, hub)
    for _ in range(when):
        for peer in (hub, away, here):
            peer.now_ms += 100
            peer.tick()
            peer.replication.tick()
        net.deliver()
        for peer in (hub, away, here):
            peer.engine.kick()
            if peer.flush():
                peer.replication.durable()
            peer.apply()
    victim = away if when % 2 else hub
    victim.cut_off()
    victim.kill()
    victim.open()
    net.connect(here, hub) if victim is hub else None
    come_back(net, away, hub, here, seconds=60)
    for peer in (hub, away, here):
        assert state(peer, away) == "open"
        assert peer.operations.get(b"count") == b"12"
        assert peer.operations.get(b"new") == b"late"
        assert peer.operations.get(b"doomed") is None
    same(hub, away, here)


def test_one_that_is_restored_amid_its_return_brings_what_it_wrote_as_late_changes_all_the_same(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, away, here = parked(net, make)
    away.operations.increment(b"count", 7)
    away.operations.set(b"new", b"late")
    away.settle()
    restore = back_up(away, tmp_path / "backup")
    here.operations.delete([b"doomed"])
    forget(net, hub, here)
    away.now_ms = hub.now_ms
    net.connect(away, hub)
    while state(hub, away) != "returning":
        run(net, [hub, away, here], rounds=1)
    first = away.engine.actor
    restore()
    away.now_ms = hub.now_ms
    come_back(net, away, hub, here, seconds=60)
    for peer in (hub, away, here):
        assert state(peer, away) == "open"
        assert peer.replication.members.members[first].late[DEFAULT_ID][2] == 2
        assert peer.operations.get(b"count") == b"12" and peer.operations.get(b"new") == b"late"
        assert peer.operations.get(b"doomed") is None
    newcomer = make("new", site="new", role="edge")
    newcomer.now_ms = hub.now_ms
    net.connect(newcomer, hub)
    pass_s(net, 60, hub, away, here, newcomer)
    same(hub, away, here, newcomer)


def test_the_end_of_an_earlier_return_is_written_though_the_next_one_has_to_wait(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the leader follows what it wrote at once."""
    hub, away, here = parked(net, make)
    away.operations.set(b"new", b"late")
    net.connect(away, hub)
    while state(hub, away) != "returning":
        run(net, [hub, away, here], rounds=1)
    away.cut_off()
    monkeypatch.setattr(leader, "brought", lambda *_: False)
    node = away.node.identity.node
    restored = Applicant(node, node_actor(node, b"\xff" * INCARNATION_BYTES), away.name, away.site, away.role)
    assert hub.replication.leader.admit(restored)
    assert state(hub, away) == "settled" and restored.actor not in hub.replication.members.members
    assert not hub.replication.leader.admit(restored), "nothing is left to write"


def test_one_that_was_removed_by_an_operator_comes_back_when_it_is_readmitted(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make)
    pass_s(net, 20, hub, away, here)
    away.cut_off()
    away.operations.increment(b"count", 2)
    hub.replication.membership.remove(away.name)
    pass_s(net, 20, hub, here)
    come_back(net, away, hub, here)
    assert members(hub)[away.name] == "settled"
    assert "cluster readmit edge-0" in away.replication.figures.events[-1].sentence
    assert hub.replication.membership.readmit(away.name)
    assert not hub.replication.membership.readmit(away.name)
    come_back(net, away, hub, here)
    assert state(here, away) == "open"
    assert here.operations.get(b"count") == b"2"
    same(hub, away, here)


def test_only_one_member_returns_at_a_time_and_both_come_back(net: Net, make: Make) -> None:
    hub, edges, _ = cluster(net, make, edges=5, max_offline_ms=OFFLINE_MS)
    first, second, *others = edges
    first.cut_off()
    second.cut_off()
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, *others)
    assert sorted(members(hub).values()) == ["open"] * 4 + ["parked"] * 2
    for peer in (first, second):
        peer.operations.increment(b"count", 3)
    net.connect(first, hub)
    net.connect(second, hub)
    for _ in range(300):
        run(net, [hub, *edges], rounds=1)
        assert sum(m.state == "returning" for m in hub.replication.members.members.values()) <= 1
    pass_s(net, 60, hub, *edges)
    assert {peer.operations.get(b"count") for peer in (hub, *edges)} == {b"6"}
    same(hub, *edges)


def test_two_that_were_away_together_and_hold_the_same_late_changes_count_them_once(net: Net, make: Make) -> None:
    """An edge and its hub: each saw what the other wrote, and what one replaced does not come back by the other."""
    hub = make("hub", founder=True, max_offline_ms=OFFLINE_MS)
    relay = make("relay")
    edge = make("edge", role="edge", site="far")
    others = [make(f"other-{i}", role="edge", site=f"s{i}") for i in range(3)]
    net.connect(relay, hub)
    for other in others:
        net.connect(other, hub)
    run(net, [hub, relay, *others], rounds=10)
    net.connect(edge, relay)
    everybody = [hub, relay, edge, *others]
    pass_s(net, 30, *everybody)
    relay.cut_off()
    net.connect(edge, relay)
    pass_s(net, OFFLINE_MS // 1000 + 60, *everybody)
    assert members(hub)["relay"] == members(hub)["edge"] == "parked"
    edge.operations.increment(b"count", 2)
    edge.operations.set(b"k", b"of the edge")
    edge.operations.sets.add(b"set", [b"e"])
    run(net, [relay, edge], rounds=10)
    relay.operations.increment(b"count", 3)
    relay.operations.set(b"k", b"of the relay, which had seen that")
    relay.operations.sets.remove(b"set", [b"e"])
    others[0].operations.set(b"x", b"y")
    edge.cut_off()
    come_back(net, edge, hub, *others)
    assert hub.operations.get(b"k") == b"of the edge"
    pass_s(net, 60, hub, edge, *others)
    come_back(net, relay, hub, edge, *others, seconds=80)
    for peer in everybody:
        assert peer.operations.get(b"count") == b"5"
        assert peer.operations.get(b"k") == b"of the relay, which had seen that"
        assert peer.operations.sets.count(b"set") == 0
    same(*everybody)


def test_one_that_breaks_off_its_return_is_parked_again_and_holds_nothing_up(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    away.operations.set(b"new", b"late")
    wire = net.connect(away, hub)
    while state(hub, away) != "returning":
        run(net, [hub, away, here], rounds=1)
    net.cut(wire)
    pass_s(net, 700, hub, here)
    assert members(hub)[away.name] == "parked"
    come_back(net, away, hub, here)
    assert here.operations.get(b"new") == b"late"
    same(hub, away, here)


def test_one_whose_return_ran_out_has_the_whole_time_again(net: Net, make: Make) -> None:
    """Behind another hub, so that the leader hears of it only by what it says."""
    hub, away, here = parked(net, make)
    relay = make("relay")
    relay.now_ms = away.now_ms = hub.now_ms
    net.connect(relay, hub)
    pass_s(net, 10, hub, here, relay)
    wire = net.connect(away, relay)
    while state(hub, away) != "returning":
        run(net, [hub, here, relay, away], rounds=1)
    net.cut(wire)
    while state(hub, away) == "returning":
        run(net, [hub, here, relay], rounds=1, step_ms=1_000)
    away.now_ms = hub.now_ms
    net.connect(away, relay)
    while state(hub, away) != "returning":
        run(net, [hub, here, relay, away], rounds=1)
    assert hub.replication.silence.silent_ms(away.engine.actor) < RETURN_LEASE_MS
    pass_s(net, 20, hub, here, relay, away)
    assert state(hub, away) == "open"


def test_who_returns_again_and_again_takes_no_more_room_in_meta_each_time(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    sizes = []
    for value in (b"1", b"2", b"3"):
        away.operations.set(b"new", value)
        come_back(net, away, hub, here)
        assert state(hub, away) == "open"
        away.operations.set(b"in time", value)
        pass_s(net, 20, hub, away, here)
        away.cut_off()
        hub.replication.membership.remove(away.name)
        pass_s(net, 20, hub, here)
        hub.replication.membership.readmit(away.name)
        sizes.append(len(hub.replication.members.members[away.engine.actor].pack()))
    assert sizes[0] == sizes[-1]
    [written] = hub.replication.figures._late_writes()
    assert written["changes"] == 3
    assert here.operations.get(b"new") == b"3"


def test_a_newcomer_and_one_that_was_linked_all_the_time_get_what_is_late_as_rows(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    away.operations.set(b"new", b"late")
    come_back(net, away, hub, here)
    assert [peer.replication.row_sync.syncs_total for peer in (hub, away, here)] == [1, 0, 1], (
        "one that lacks nothing needs no rows"
    )
    late = hub.replication.members.members[away.engine.actor].late
    assert [last for _, last, _ in late.values()] == [away.engine.keyspaces.by_id[DEFAULT_ID].seq]
    newcomer = make("newcomer", role="edge")
    net.connect(newcomer, here)
    with pytest.raises(Unavailable):
        newcomer.operations.set(b"k", b"v")
    net.connect(newcomer, hub)
    pass_s(net, 30, hub, away, here, newcomer)
    assert newcomer.operations.get(b"new") == b"late"
    assert newcomer.replication.row_sync.syncs_total == 1


def test_what_was_reset_and_forgotten_meanwhile_is_not_counted_again(net: Net, make: Make) -> None:
    """Spent parts of those who may come back stay: a late one is a total, of which the reset took a part."""
    hub, away, here = parked(net, make)
    away.operations.increment(b"count", 7)
    here.operations.delete([b"count"])
    forget(net, hub, here)
    come_back(net, away, hub, here)
    assert [peer.operations.get(b"count") for peer in (hub, away, here)] == [b"7"] * 3
    same(hub, away, here)


def test_a_late_value_is_decided_once_by_whoever_brings_it_first(net: Net, make: Make) -> None:
    """One of two that were away together had seen a deletion that the other had not, and that all others have forgotten."""
    hub = make("hub", founder=True, max_offline_ms=OFFLINE_MS)
    relay, edge = make("relay"), make("edge", role="edge", site="far")
    others = [make(f"other-{i}", role="edge", site=f"s{i}") for i in range(3)]
    everybody = [hub, relay, edge, *others]
    for peer in (relay, *others):
        net.connect(peer, hub)
    run(net, everybody, rounds=10)
    net.connect(edge, relay)
    pass_s(net, 30, *everybody)
    edge.cut_off()
    edge.operations.set(b"k", b"late")  # before the deletion, by the clocks
    run(net, everybody, rounds=5)
    others[0].operations.set(b"k", b"v")
    others[0].operations.delete([b"k"])
    pass_s(net, 20, hub, relay, *others)
    relay.cut_off()
    pass_s(net, OFFLINE_MS // 1000 + 60, *everybody)
    pass_s(net, 60, *everybody)
    assert members(hub)["relay"] == members(hub)["edge"] == "parked"
    wire = net.connect(edge, relay)  # neither knows that it is parked
    edge.replication.received(wire.number, wire.queues[edge].popleft())
    for _ in range(20):  # what the edge sends arrives, and nothing of what it is sent
        edge.replication.tick()
        while wire.queues[relay]:
            relay.replication.received(wire.number, wire.queues[relay].popleft())
        wire.queues[edge].clear()
        relay.engine.kick()
        while relay.flush():
            relay.replication.durable()
    assert vectors(relay)[DEFAULT_ID][edge.engine.actor] == 1  # type: ignore[index] # a vector
    assert relay.operations.get(b"k") is None
    edge.cut_off()
    come_back(net, edge, hub, *others)
    assert hub.operations.get(b"k") == b"late", "it outlived a deletion that is forgotten"
    come_back(net, relay, hub, edge, *others, seconds=80)
    assert len({peer.operations.get(b"k") for peer in everybody}) == 1
    same(*everybody)


@pytest.mark.parametrize("is_back", [True, False])
def test_a_site_is_not_added_again_while_a_member_may_return_that_forgot_what_it_had_made(
    net: Net, make: Make, is_back: bool
) -> None:
    """Under its old actor it would count from one again, and what it wrote would be taken for what all have."""
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS)
    orders = hub.replication.keyspaces
    orders.create("eu", b"eu/", (away.site, here.site), siblings=False)
    pass_s(net, 10, hub, away, here)
    away.operations.set(b"eu/k", b"v")
    if is_back:
        pass_s(net, 10, hub, away, here)
        away.cut_off()
    orders.remove_site("eu", away.site)
    pass_s(net, 30, hub, away, here)
    away.cut_off()
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, here)
    assert state(hub, away) == "settled"
    if is_back:
        come_back(net, away, hub, here)
        assert state(hub, away) == "open"
        pass_s(net, 30, hub, away, here)
    entry = next(e for e in hub.replication.members.keyspaces.values() if e.policy.name == "eu")
    assert entry.left == {away.engine.actor}
    with pytest.raises(Denied, match=f"{away.name} forgot what they had made"):
        orders.add_site("eu", away.site)


def test_what_a_returned_member_has_seen_is_told_whole_to_a_leader_that_had_forgotten_it(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub between them may have learned at once that it was settled and is back, and remembers what it had told."""
    hub, relay = make("hub", founder=True, max_offline_ms=OFFLINE_MS), make("relay")
    net.connect(relay, hub)
    run(net, [hub, relay], rounds=10)
    away = make("edge", role="edge")
    net.connect(away, relay)
    pass_s(net, 30, hub, relay, away)
    away.operations.set(b"k", b"v")
    hub.operations.set(b"k", b"w")
    pass_s(net, 30, hub, relay, away)
    monkeypatch.setattr(relay.replication._hearing, "forget_settled", lambda: None)
    away.cut_off()
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, relay)
    assert state(hub, away) == "settled" and away.engine.actor not in hub.replication.seen.spoken
    come_back(net, away, relay, hub)
    assert state(hub, away) == "open"
    spoken = hub.replication.seen.counted(away.engine.actor)
    assert spoken is not None and spoken.vectors[DEFAULT_ID] == vectors(away)[DEFAULT_ID]


@pytest.mark.parametrize("is_logged", [False, True])
def test_what_is_settled_has_all_of_the_rows_that_were_taken_in_when_their_bringer_was_closed_or_none(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch, is_logged: bool
) -> None:
    hub, away, here = parked(net, make)
    away.operations.set(b"new", b"late")
    waiting: list[Callable[[], None]] = []
    keep, advance = SpoolFolder.keep, hub.engine.flips.advance

    def later(folder: SpoolFolder, part: Path, spool_id: bytes, done: Callable[[OSError | None], None]) -> None:
        if folder is not hub.replication.row_sync.source._folder:
            keep(folder, part, spool_id, done)
        else:
            waiting.append(lambda: keep(folder, part, spool_id, done))

    monkeypatch.setattr(SpoolFolder, "keep", later)
    come_back(net, away, hub, here)
    [kept] = waiting
    if is_logged:
        monkeypatch.setattr(hub.engine.flips, "advance", lambda: None)
        kept()
    away.cut_off()
    hub.replication.membership.remove(away.name)
    pass_s(net, 60, hub, here)
    assert state(hub, away) == ("closed" if is_logged else "settled")
    monkeypatch.setattr(hub.engine.flips, "advance", advance)
    if not is_logged:
        kept()
    pass_s(net, 60, hub, here)
    assert state(hub, away) == "settled"
    heads, actor = hub.replication.members.members[away.engine.actor].heads, away.engine.actor
    assert heads[DEFAULT_ID] == hub.engine.keyspaces.by_id[DEFAULT_ID].vector[actor].seq
    assert hub.operations.get(b"new") == (b"late" if is_logged else None)


def relayed(net: Net, make: Make) -> tuple[Peer, Peer, Peer, Peer]:
    """A hub; another one and its edge, which the first one does not reach any more; and an edge of the first one."""
    hub, relay = make("hub", founder=True), make("relay")
    edge, here = make("edge", role="edge", site="far"), make("here", role="edge", site="near")
    net.connect(relay, hub)
    net.connect(here, hub)
    everybody = hub, relay, edge, here
    run(net, list(everybody), rounds=10)
    net.connect(edge, relay)
    pass_s(net, 30, *everybody)
    relay.cut_off()
    net.connect(edge, relay)
    return everybody


def test_one_that_was_not_settled_holds_late_changes_of_nobody_else_when_it_is_simply_open_again(
    net: Net, make: Make
) -> None:
    """A relay, which is closed after its edge was, and while a third member knows of the one closing and not of the other."""
    everybody = hub, relay, edge, here = relayed(net, make)
    edge.operations.increment(b"count", 2)
    pass_s(net, 10, *everybody)
    hub.replication.membership.remove("edge")
    pass_s(net, 10, *everybody)
    here.cut_off()
    hub.replication.membership.remove("relay")
    pass_s(net, 20, *everybody)
    assert hub.replication.membership.readmit("relay")
    come_back(net, relay, hub)
    net.connect(here, hub)
    pass_s(net, 60, *everybody)
    assert state(hub, relay) == "open"
    assert hub.operations.get(b"count") == relay.operations.get(b"count") == here.operations.get(b"count") == b"2"
    same(hub, relay, here)


def test_one_that_returns_with_late_changes_of_another_only_and_breaks_off_keeps_nobody_from_returning(
    net: Net, make: Make
) -> None:
    everybody = hub, relay, edge, here = relayed(net, make)
    for name in ("relay", "edge"):
        hub.replication.membership.remove(name)
    pass_s(net, 20, *everybody)
    edge.operations.increment(b"count", 2)
    pass_s(net, 4, *everybody)
    assert hub.replication.membership.readmit("relay")
    break_off(net, hub, relay, here, {edge.engine.actor: 1})
    pass_s(net, RETURN_LEASE_MS // 1000 + 60, hub, here)
    assert state(hub, relay) == state(hub, edge) == "settled"
    assert hub.replication.membership.readmit("edge")
    come_back(net, edge, hub, here, seconds=60)
    assert state(hub, edge) == "open"
    come_back(net, relay, hub, here, edge, seconds=60)
    assert state(hub, relay) == "open"
    assert [peer.operations.get(b"count") for peer in (hub, relay, edge, here)] == [b"2"] * 4


def break_off(net: Net, hub: Peer, member: Peer, here: Peer, late: Vector) -> None:
    """A member is cut off when it has just become one again, and before it gave what it brings."""
    wire = net.connect(member, hub)
    while hub.replication.members.returning is None:
        run(net, [hub, member, here], rounds=1)
    net.cut(wire)
    revision = hub.replication.members.members[member.engine.actor].revision
    hub.replication.membership.returned(Return(member.engine.actor, revision, True, {DEFAULT_ID: late}, []))
    assert state(hub, member) == "open"


@pytest.mark.parametrize("own", [True, False])
def test_one_that_breaks_off_with_late_changes_of_another_that_is_away_can_return_later(
    net: Net, make: Make, own: bool
) -> None:
    """``own``: it has some that it made itself, too."""
    everybody = hub, relay, edge, here = relayed(net, make)
    for name in ("relay", "edge"):
        hub.replication.membership.remove(name)
    pass_s(net, 20, *everybody)
    edge.operations.increment(b"count", 2)
    if own:
        relay.operations.increment(b"count", 3)
    pass_s(net, 4, *everybody)
    assert hub.replication.membership.readmit("relay")
    break_off(net, hub, relay, here, {edge.engine.actor: 1, **({relay.engine.actor: 1} if own else {})})
    pass_s(net, RETURN_LEASE_MS // 1000 + 60, hub, here)
    assert state(hub, relay) == state(hub, edge) == "settled"
    come_back(net, relay, hub, here, seconds=60)
    assert state(hub, relay) == "open"
    assert hub.operations.get(b"count") == here.operations.get(b"count") == (b"5" if own else b"2")


def test_a_word_of_an_earlier_return_that_comes_late_opens_nobody(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By way of another hub it may be long under way; meanwhile more was forgotten, which the member has not been told of."""
    hub, away, here = parked(net, make)
    away.operations.set(b"old", b"late")
    said: list[Return] = []
    monkeypatch.setattr(hub.replication.membership, "returned", said.append)
    wire = net.connect(away, hub)
    while not any(message.whole for message in said):
        run(net, [hub, away, here], rounds=1)
    net.cut(wire)
    hub.replication.membership.remove(away.name)
    hub.replication.membership.readmit(away.name)
    pass_s(net, 4, hub, here)
    here.operations.delete([b"old"])
    forget(net, hub, here)
    net.connect(away, hub)
    while state(hub, away) != "returning":
        run(net, [hub, away, here], rounds=1)
    monkeypatch.undo()
    hub.replication.membership.returned(said[-1])
    assert state(hub, away) == "returning"
    pass_s(net, 60, hub, away, here)
    assert state(hub, away) == "open"
    assert len({peer.operations.get(b"old") for peer in (hub, away, here)}) == 1
    same(hub, away, here)


def test_a_return_that_begins_anew_gets_rows_anew_though_its_hub_saw_no_end_of_the_last_one(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, away, here = parked(net, make)
    relay = make("relay")
    net.connect(relay, hub)
    pass_s(net, 20, hub, here, relay)
    away.operations.set(b"new", b"late")
    membership, said = hub.replication.membership, list[Return]()
    with monkeypatch.context() as patch:
        patch.setattr(membership, "returned", said.append)
        net.connect(away, relay)
        run(net, [hub, relay, away, here], rounds=60)
    assert any(message.whole for message in said)
    membership.remove(away.name)
    membership.readmit(away.name)
    hub.settle()
    who = away.node.identity
    membership.admit(Applicant(who.node, who.actor, away.name, away.site, away.role), late=False)
    assert state(hub, away) == "returning"
    pass_s(net, 10, hub, relay, away, here)
    if not away.replication.links:
        net.connect(away, relay)  # as its dialer does
    pass_s(net, 60, hub, relay, away, here)
    assert state(hub, away) == "open"
    same(hub, relay, away, here)


def shown(peer: Peer) -> list[tuple[object, ...]]:
    """What the ledger says: key, what was kept, whether that came late, and the same of what was lost."""
    found = []
    for each in peer.engine.conflicts.newest():
        kept, discarded = each["kept"] or {"value": b"(nothing)", "late": False}, each["discarded"]
        assert isinstance(kept, dict) and isinstance(discarded, dict)
        found.append((each["key"], kept["value"], kept["late"], discarded["value"], discarded["late"]))
    return sorted(found, key=str)


def test_what_became_of_late_values_is_listed_where_they_were_brought(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make)
    away.now_ms = hub.now_ms
    away.operations.set(b"loses", b"late")
    here.operations.set(b"won", b"earlier")
    away.operations.delete([b"old"])
    away.settle()
    for peer in (hub, away, here):
        peer.now_ms += 1_000
    here.operations.set(b"loses", b"later")
    here.operations.set(b"old", b"written again")
    away.operations.set(b"won", b"late")
    away.operations.set(b"alone", b"late")
    come_back(net, away, hub, here)
    same(hub, away, here)
    assert shown(away) == [(b"loses", b"later", False, b"late", True), (b"won", b"late", True, b"earlier", False)]
    assert away.engine.conflicts.totals == {"default": 2}
    assert not hub.engine.conflicts.totals and not here.engine.conflicts.totals, "there it is decided already"
    status = hub.replication.status()["late_writes"]
    assert isinstance(status, list) and [each["changes"] for each in status] == [4]
    assert hub.replication.figures.late_changes() == {"default": 4}


def test_where_late_values_are_dropped_what_the_others_have_stays_and_they_are_listed(net: Net, make: Make) -> None:
    hub, away, here = parked(net, make, DROPS)
    away.now_ms = hub.now_ms + 1_000  # what it writes has the higher stamps
    for key in (b"old", b"new", b"changed", b"deleted"):
        away.operations.set(key, b"late")
    away.operations.delete([b"doomed"])
    away.operations.sets.add(b"set", [b"c"])
    away.operations.sets.remove(b"set", [b"a"])
    away.operations.increment(b"count", 7)
    away.operations.maps.put(b"map", [(b"f", b"late")])
    here.operations.set(b"changed", b"meanwhile")
    here.operations.set(b"deleted", b"meanwhile")
    here.operations.delete([b"deleted"])
    come_back(net, away, hub, here)
    for peer in (hub, away, here):
        assert state(peer, away) == "open"
        assert peer.operations.get(b"old") == b"from before", "it had seen that, and does not take it along"
        assert peer.operations.get(b"new") is None and peer.operations.get(b"deleted") is None
        assert peer.operations.get(b"changed") == b"meanwhile"
        assert peer.operations.get(b"doomed") is None, "what it deleted stays deleted"
        assert sorted(peer.operations.sets.page(b"set", b"", 9)[0]) == [b"b", b"c"]
        assert peer.operations.get(b"count") == b"12"
        assert peer.operations.maps.get(b"map", [b"f"]) == [None]
    same(hub, away, here)
    assert shown(away) == [
        (b"changed", b"meanwhile", False, b"late", True),
        (b"deleted", None, False, b"late", True),
        (b"map", b"(nothing)", False, b"late", True),
        (b"new", b"(nothing)", False, b"late", True),
        (b"old", b"from before", False, b"late", True),
    ]
    away.operations.set(b"new", b"as a member")
    run(net, [hub, away, here], rounds=5)
    assert [peer.operations.get(b"new") for peer in (hub, away, here)] == [b"as a member"] * 3


@pytest.mark.parametrize("edge_first", [True, False])
def test_a_late_value_that_was_dropped_does_not_come_with_another_who_holds_it(
    net: Net, make: Make, edge_first: bool
) -> None:
    """An edge and its hub were away together. The first to return drops what both hold, and so does the other."""
    hub = make("hub", founder=True, max_offline_ms=OFFLINE_MS, keyspaces=DROPS)
    relay, edge = make("relay", keyspaces=DROPS), make("edge", role="edge", site="far", keyspaces=DROPS)
    others = [make(f"other-{i}", role="edge", site=f"s{i}", keyspaces=DROPS) for i in range(3)]
    everybody = [hub, relay, edge, *others]
    for peer in (relay, *others):
        net.connect(peer, hub)
    run(net, everybody, rounds=10)
    net.connect(edge, relay)
    pass_s(net, 30, *everybody)
    hub.operations.set(b"k", b"from before")
    pass_s(net, 30, *everybody)
    relay.cut_off()
    net.connect(edge, relay)
    pass_s(net, OFFLINE_MS // 1000 + 60, *everybody)
    pass_s(net, 60, *everybody)
    assert state(hub, relay) == state(hub, edge) == "settled"
    edge.operations.set(b"k", b"late")
    edge.operations.increment(b"count", 2)
    run(net, [relay, edge], rounds=10)
    assert relay.operations.get(b"k") == b"late"
    edge.cut_off()
    first, second = (edge, relay) if edge_first else (relay, edge)
    come_back(net, first, hub, *others)
    pass_s(net, 60, hub, first, *others)
    assert hub.operations.get(b"k") == b"from before"
    come_back(net, second, hub, first, *others, seconds=80)
    for peer in everybody:
        assert peer.operations.get(b"k") == b"from before"
        assert peer.operations.get(b"count") == b"2"
    same(*everybody)
