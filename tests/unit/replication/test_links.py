"""Nodes that are linked converge; what is cut off goes on alone and reconciles."""

from random import Random

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.errors import Denied, NotFound, Unavailable
from edgekv.replication import messages
from edgekv.wal.record import Changes, pack_columns
from tests.unit.replication.wires import Make, Net, Peer, Wire, run


def cluster(
    net: Net, make: Make, edges: int = 2, *, max_offline_ms: int = 0, keyspaces: tuple[KeyspaceConfig, ...] = ()
) -> tuple[Peer, list[Peer], list[Wire]]:
    hub = make("hub", founder=True, max_offline_ms=max_offline_ms, keyspaces=keyspaces)
    nodes = [make(f"edge-{i}", site=f"site-{i}", role="edge", keyspaces=keyspaces) for i in range(edges)]
    wires = [net.connect(edge, hub) for edge in nodes]
    run(net, [hub, *nodes], rounds=15)
    return hub, nodes, wires


def vectors(peer: Peer) -> dict[int, object]:
    return {k.id: {a: h.seq for a, h in k.vector.items()} for k in peer.engine.keyspaces.all}


def test_what_is_written_at_one_node_is_at_all_others(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    first.operations.set(b"k", b"from the edge")
    hub.operations.sets.add(b"s", [b"x"])
    run(net, [hub, first, second], rounds=5)
    for peer in (hub, first, second):
        assert peer.operations.get(b"k") == b"from the edge"
        assert peer.operations.sets.count(b"s") == 1
    assert vectors(hub) == vectors(first) == vectors(second)


@pytest.mark.parametrize("parts_come", [True, False])
def test_a_link_is_given_up_when_its_peer_is_silent_and_not_when_its_line_is_slow(
    net: Net, make: Make, parts_come: bool
) -> None:
    hub, _, (wire,) = cluster(net, make, edges=1)
    assert hub.replication.links
    for _ in range(10):
        hub.now_ms += 1_000
        if parts_come:
            hub.replication.heard(wire.number)
        hub.replication.tick()
    assert bool(hub.replication.links) == parts_come


def test_a_node_takes_no_writes_before_it_is_a_member(net: Net, make: Make) -> None:
    edge = make("edge", role="edge")
    with pytest.raises(Unavailable, match="not a member"):
        edge.operations.set(b"k", b"v")
    hub = make("hub", founder=True)
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=3)
    edge.operations.set(b"k", b"v")


def test_what_was_written_while_the_link_was_cut_comes_when_it_is_back(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    net.cut(wires[0])
    first.operations.set(b"a", b"1")
    hub.operations.set(b"b", b"2")
    second.operations.increment(b"n", 5)
    first.operations.increment(b"n", 2)
    run(net, [hub, first, second], rounds=5)
    assert hub.operations.get(b"a") is None
    assert first.operations.get(b"b") is None
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=5)
    for peer in (hub, first, second):
        assert [peer.operations.get(key) for key in (b"a", b"b", b"n")] == [b"1", b"2", b"7"]


def test_a_hub_that_was_killed_gets_and_gives_what_is_missing(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    first.operations.set(b"a", b"1")
    run(net, [hub, first, second], rounds=3)
    hub.cut_off()
    hub.kill()
    first.operations.set(b"a", b"2")
    second.operations.set(b"b", b"3")
    run(net, [first, second], rounds=3)
    hub.open()
    for edge in (first, second):
        net.connect(edge, hub)
    run(net, [hub, first, second], rounds=5)
    for peer in (hub, first, second):
        assert [peer.operations.get(key) for key in (b"a", b"b")] == [b"2", b"3"]


def test_a_keyspace_goes_to_its_sites_only(net: Net, make: Make) -> None:
    keyspaces = (
        KeyspaceConfig(prefix=b"", name="default"),
        KeyspaceConfig(prefix=b"eu/", name="eu", sites=("site-0",)),
    )
    hub = make("hub", founder=True, keyspaces=keyspaces)
    first, second = (make(f"e{i}", site=f"site-{i}", role="edge", keyspaces=keyspaces) for i in range(2))
    for edge in (first, second):
        net.connect(edge, hub)
    run(net, [hub, first, second], rounds=10)
    first.operations.set(b"eu/k", b"secret")
    hub.operations.set(b"k", b"open")
    run(net, [hub, first, second], rounds=5)
    assert hub.operations.get(b"eu/k") == b"secret"
    assert second.operations.get(b"k") == b"open"
    for refused in (lambda: second.operations.get(b"eu/k"), lambda: second.operations.set(b"eu/k", b"v")):
        with pytest.raises(Denied, match="not at this site"):
            refused()
    eu = next(k for k in second.engine.keyspaces.all if k.name == "eu")
    assert not eu.vector and not eu.hlc
    assert [found.key for found in second.operations.page(b"", b"", 10).listed] == [b"k"]


def test_a_member_that_was_removed_holds_nothing_up_and_is_refused(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    first.operations.set(b"k", b"v")
    run(net, [hub, first, second], rounds=5)
    net.cut(wires[1])
    first.operations.delete([b"k"])
    second.operations.set(b"unsent", b"v")
    run(net, [hub, first], rounds=120, step_ms=1_000)
    assert hub.stored_row(b"k", b"\x01") is not None, "a member that may not have seen it holds the tombstone"
    hub.replication.membership.remove("edge-1")
    run(net, [hub, first], rounds=150, step_ms=1_000)
    for peer in (hub, first):
        assert peer.stored_row(b"k", b"\x01") is None
    net.connect(second, hub)
    run(net, [hub, first, second], rounds=5)
    assert not hub.replication.links.keys() - {wires[0].number}
    assert "was removed" in second.replication.figures.events[-1].sentence
    assert hub.operations.get(b"unsent") is None
    with pytest.raises(NotFound):
        hub.replication.membership.remove("nobody")
    with pytest.raises(Denied, match="leads"):
        hub.replication.membership.remove("hub")
    with pytest.raises(Denied, match="does not lead"):
        first.replication.membership.remove("edge-1")


def test_what_was_settled_cannot_come_later(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    actor = second.engine.actor
    hub.replication.membership.remove("edge-1")
    run(net, [hub, first], rounds=60, step_ms=1_000)
    member = hub.replication.members.members[actor]
    assert member.state == "settled"
    late = Changes(0, actor, 1, hub.now_ms << 16, 0, 1, pack_columns([b"late"], [b"v"]))
    link = next(link for link in hub.replication.links.values() if link.peer and link.peer.name == "edge-0")
    hub.replication.received(link.number, messages.pack_message(messages.Runs([late])))
    assert "too late" in hub.replication.figures.events[-1].sentence
    assert hub.operations.get(b"late") is None


def test_silence_ends_a_link(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    for _ in range(60):
        hub.now_ms += 100
        hub.replication.tick()
    assert not hub.replication.links
    assert "said nothing" in hub.replication.figures.events[-1].sentence
    assert edge is not None


def test_garbage_ends_its_link_only(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    hub.replication.received(wires[0].number, b"\xc1garbage")
    assert wires[0].number not in hub.replication.links
    assert wires[1].number in hub.replication.links
    assert "cannot be read" in first.replication.figures.events[-1].sentence, "the peer is told why"
    second.operations.set(b"k", b"v")
    run(net, [hub, first, second], rounds=2)
    assert hub.operations.get(b"k") == b"v"


def test_a_deletion_is_forgotten_when_everybody_has_seen_it(net: Net, make: Make) -> None:
    hub, edges, _ = cluster(net, make)
    peers = [hub, *edges]
    edges[0].operations.set(b"k", b"v")
    run(net, peers, rounds=3)
    edges[1].operations.delete([b"k"])
    run(net, peers, rounds=200, step_ms=1_000)
    for peer in peers:
        assert peer.stored_row(b"k", b"\x01") is None, "no tombstone is left"
        assert peer.operations.get(b"k") is None


def test_a_key_that_expired_with_company_is_cleared_by_the_leader(net: Net, make: Make) -> None:
    hub, edges, _ = cluster(net, make)
    peers = [hub, *edges]
    edge = edges[0]
    edge.operations.sets.add(b"s", [b"x", b"y"])
    edge.operations.maps.put(b"m", [(b"f", b"v")])
    edge.operations.maps.increment(b"m", b"n", 3)
    edge.operations.increment(b"c", 4)
    for key in (b"s", b"m", b"c"):
        edge.operations.set_expiry(key, edge.now_ms + 10_000)
    run(net, peers, rounds=5)
    run(net, peers, rounds=300, step_ms=1_000)
    for peer in peers:
        for key in (b"s", b"m", b"c"):
            keyspace = peer.engine.keyspaces.of(key)
            assert peer.operations.type_of(key) == "none"
            assert peer.engine.reads.recount(keyspace, key) == (0, 0)
            assert peer.stored_row(key, b"\x02") is None
        peer.engine.memtable.drop_cache()
        assert peer.stored_row(b"m", b"\x08") is None, "the clear itself is forgotten"
    edge.operations.sets.add(b"s", [b"z"])
    run(net, peers, rounds=5)
    assert [peer.operations.sets.page(b"s", b"", 9)[0] for peer in peers] == [[b"z"]] * 3


@pytest.mark.parametrize("seed", range(10))
def test_random_lives_converge(net: Net, make: Make, seed: int) -> None:
    from tests.unit.engine.test_intake import KEYS, shown, step

    dice = Random(seed)
    hub, edges, wires = cluster(net, make, edges=3)
    peers = [hub, *edges]
    for _ in range(60):
        choice = dice.randrange(10)
        peer = dice.choice(peers)
        if choice < 6:
            for _ in range(5):
                other = dice.choice([p for p in peers if p is not peer])
                step(peer, other, dice, pulls=False)
        elif choice == 6:
            net.cut(dice.choice(wires))
        elif choice == 7:
            i = dice.randrange(3)
            if not wires[i].up or wires[i].number not in hub.replication.links:
                net.cut(wires[i])
                wires[i] = net.connect(edges[i], hub)
        else:
            run(net, dice.sample(peers, dice.randrange(1, 5)), rounds=dice.randrange(1, 4))
    for i, edge in enumerate(edges):
        net.cut(wires[i])
        wires[i] = net.connect(edge, hub)
    for peer in peers:
        peer.now_ms = max(p.now_ms for p in peers)
    run(net, peers, rounds=20)
    assert all(vectors(peer) == vectors(hub) for peer in peers)
    for key in [*KEYS[:3], b"n", b"m"]:
        assert [shown(peer, key) for peer in peers] == [shown(hub, key)] * 4


def test_what_goes_wrong_again_and_again_is_one_event(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    hub.replication.membership.remove("edge-0")
    for _ in range(5):
        net.connect(edge, hub)
        run(net, [hub, edge], rounds=2)
    sentences = [event.sentence for event in hub.replication.figures.events]
    assert sum("was removed from the cluster" in sentence for sentence in sentences) == 1
