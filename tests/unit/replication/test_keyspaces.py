"""Keyspaces that are created, come to a site and leave one while the cluster runs."""

from dataclasses import replace

import pytest

from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Denied, InvalidRequest, NotFound
from edgekv.replication.holdings import Holdings
from edgekv.replication.messages import Applicant, Holds, parse
from edgekv.replication.stability import compute_stable
from edgekv.store import layout
from edgekv.wal.record import Changes
from tests.unit.replication.wires import Make, Net, Peer, Wire, run


def cluster(net: Net, make: Make, edges: int = 2) -> tuple[Peer, list[Peer], list[Wire]]:
    hub = make("hub", founder=True)
    nodes = [make(f"edge-{i}", site=f"site-{i}", role="edge") for i in range(edges)]
    wires = [net.connect(edge, hub) for edge in nodes]
    run(net, [hub, *nodes], rounds=15)
    return hub, nodes, wires


def create(peer: Peer, name: str, *sites: str, siblings: bool = False) -> None:
    peer.replication.leader.keyspaces.create(name, name.encode() + b"/", sites, siblings=siblings)


def held(peer: Peer, name: str) -> Keyspace | None:
    return next((k for k in peer.engine.keyspaces.all if k.name == name), None)


def rows(peer: Peer, number: int) -> int:
    """Of a keyspace, in LMDB."""
    peer._store.renew()
    low, high = number.to_bytes(4, "big"), (number + 1).to_bytes(4, "big")
    return sum(1 for _ in peer._store.range(low, high))


def test_a_keyspace_that_is_created_is_known_everywhere_and_lies_at_its_sites(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    create(hub, "eu", "site-0")
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/k", b"secret")
    run(net, [hub, first, second], rounds=5)
    assert hub.operations.get(b"eu/k") == first.operations.get(b"eu/k") == b"secret"
    with pytest.raises(Denied, match="not at this site"):
        second.operations.get(b"eu/k")
    keyspace = held(second, "eu")
    assert keyspace is not None and not keyspace.vector and keyspace.state == "elsewhere"


def test_how_values_conflict_is_fixed_when_it_is_created(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    create(hub, "many", siblings=True)
    run(net, [hub, first, second], rounds=5)
    for peer in (first, second):
        peer.operations.set(b"many/k", peer.name.encode())
    run(net, [hub, first, second], rounds=5)
    assert sorted(hub.operations.siblings.get(b"many/k").values) == [b"edge-0", b"edge-1"]


def test_a_created_keyspace_is_there_after_a_restart_of_every_node(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0")
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/k", b"v")
    run(net, [hub, first, second], rounds=5)
    for wire in wires:
        net.cut(wire)
    for peer in (hub, first, second):
        peer.kill()
        peer.open()
    assert first.operations.get(b"eu/k") == hub.operations.get(b"eu/k") == b"v"
    for edge in (first, second):
        net.connect(edge, hub)
    run(net, [hub, first, second], rounds=5)
    hub.operations.set(b"eu/k", b"w")
    run(net, [hub, first, second], rounds=5)
    assert first.operations.get(b"eu/k") == b"w"


def test_a_lone_hub_creates_keyspaces_and_its_founding_tells_others(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    create(hub, "eu", "site-0")
    hub.operations.set(b"eu/k", b"v")
    hub.settle()
    hub.kill()
    hub.open()
    edge = make("edge", site="site-0", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=10)
    assert edge.operations.get(b"eu/k") == b"v"


def test_what_cannot_be_created_is_refused_and_leaves_nothing(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    orders = hub.replication.leader.keyspaces
    hub.operations.set(b"taken/k", b"v")
    create(hub, "eu")
    refused = [
        (Denied, "already", ("eu", b"other/")),
        (Denied, "overlap", ("nested", b"eu/deep/")),
        (Denied, "overlap", ("meta", b"_meta/x/")),
        (Denied, r"keys below 'taken/', 'taken/k' is the first", ("new", b"taken/")),
        (InvalidRequest, "not a name", ("a b", b"ab/")),
        (InvalidRequest, "prefix has 0 bytes", ("none", b"")),
    ]
    for kind, said, (name, prefix) in refused:
        with pytest.raises(kind, match=said):
            orders.create(name, prefix, (), siblings=False)
    with pytest.raises(Denied, match="Ask 'hub'"):
        create(first, "other")
    hub.operations.delete([b"taken/k"])
    orders.create("new", b"taken/", (), siblings=False)
    run(net, [hub, first, second], rounds=5)
    assert [k.name for k in second.engine.keyspaces.all] == ["default", "_meta", "eu", "new"]


def test_a_change_that_was_made_before_its_node_knew_stays_in_the_default_keyspace_and_is_counted(
    net: Net, make: Make
) -> None:
    hub, (first, second), wires = cluster(net, make)
    net.cut(wires[0])
    create(hub, "eu")
    hub.operations.set(b"eu/k", b"new")
    first.operations.set(b"eu/k", b"old")
    first.operations.set_run([b"eu/j", b"free"], [b"old", b"v"])
    first.operations.increment(b"eu/n", 1)
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=10)
    for peer in (hub, first, second):
        assert peer.operations.get(b"eu/k") == b"new" and peer.operations.get(b"eu/j") is None
        assert peer.operations.get(b"free") == b"v", "what is in one run with it is not lost"
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    for peer in (hub, first, second):
        assert peer.engine.status()["misplaced"] == {"keys": 3, "first": ["eu/j", "eu/k", "eu/n"]}
        assert peer.replication.links
    first.operations.increment(b"eu/n", 5)
    run(net, [hub, first, second], rounds=5)
    assert hub.operations.get(b"eu/n") == b"5"
    for wire in net.wires.values():
        net.cut(wire)
    for peer in (hub, first):
        peer.kill()
        peer.open()
        assert peer.operations.get(b"eu/n") == b"5" and peer.operations.get(b"eu/k") == b"new"


def test_misplaced_rows_go_with_a_row_sync_and_are_shown_to_nobody(net: Net, make: Make) -> None:
    hub, (first, _), wires = cluster(net, make)
    net.cut(wires[0])
    create(hub, "eu")
    first.operations.set(b"eu/k", b"old")
    net.connect(first, hub)
    run(net, [hub, first], rounds=10)
    run(net, [hub, first], rounds=30, step_ms=1_000)
    newcomer = make("edge-9", site="site-9", role="edge")
    hub._retain_bytes = 0  # type: ignore[misc] # its log ends here: who comes needs rows
    net.connect(newcomer, hub)
    run(net, [hub, first, newcomer], rounds=30)
    assert newcomer.operations.get(b"eu/k") is None
    assert held(newcomer, "default") is not None and vector(newcomer, "default") == vector(hub, "default")


def vector(peer: Peer, name: str) -> dict[bytes, int]:
    keyspace = held(peer, name)
    assert keyspace is not None
    return {bytes(actor): head.seq for actor, head in keyspace.vector.items()}


@pytest.mark.parametrize("retain_bytes", [0, 1 << 30])
def test_a_site_that_is_added_fetches_that_keyspace_and_nothing_else(net: Net, make: Make, retain_bytes: int) -> None:
    hub = make("hub", founder=True, retain_bytes=retain_bytes)
    edges = [make(f"edge-{i}", site=f"site-{i}", role="edge") for i in range(2)]
    for edge in edges:
        net.connect(edge, hub)
    everybody = [hub, *edges]
    run(net, everybody, rounds=15)
    create(hub, "eu", "site-0")
    run(net, everybody, rounds=5)
    hub.operations.set(b"big", b"x" * 60_000)
    for i in range(20):
        edges[0].operations.set(b"eu/%d" % i, b"v" * 100)
        run(net, everybody, rounds=2, step_ms=2_000)
    before = net.bytes
    assert hub.replication.leader.keyspaces.add_site("eu", "site-1")
    run(net, everybody, rounds=30)
    assert edges[1].operations.get(b"eu/7") == b"v" * 100
    assert vector(edges[1], "eu") == vector(hub, "eu")
    assert net.bytes - before < 50_000, "nothing of other keyspaces is fetched again"
    edges[1].operations.set(b"eu/new", b"w")
    run(net, everybody, rounds=5)
    assert edges[0].operations.get(b"eu/new") == b"w"
    assert not hub.replication.leader.keyspaces.add_site("eu", "site-1")


def test_rows_that_were_offered_before_a_node_knew_that_its_site_was_added_are_offered_again(
    net: Net, make: Make
) -> None:
    leader, other = make("hub", founder=True, retain_bytes=0), make("edge-1", site="site-1", role="edge")
    hub = make("hub-2", retain_bytes=0)
    for peer in (hub, other):
        net.connect(peer, leader)
    run(net, [leader, hub, other], rounds=15)
    create(leader, "eu", "site-0", "site-1")
    leader.replication.leader.keyspaces.remove_site("eu", "site-0")
    edge = make("edge-0", site="site-0", role="edge")
    everybody = [leader, hub, other, edge]
    net.connect(edge, hub)
    run(net, everybody, rounds=30)
    for i in range(20):
        other.operations.set(b"eu/%d" % i, b"v" * 30_000)
        run(net, everybody, rounds=2, step_ms=2_000)
    received, number = hub.replication.received, hub.engine.keyspaces.owner(b"eu/k").id

    def after_an_offer(link: int, message: bytes) -> None:
        if isinstance(parse(message), Holds):
            hub.replication.links[link].offered[number] = b"as soon as the hub knew, a moment ahead of the entry"
        received(link, message)

    hub.replication.received = after_an_offer  # type: ignore[method-assign] # a spy
    leader.replication.leader.keyspaces.add_site("eu", "site-0")
    run(net, everybody, rounds=30)
    assert edge.operations.get(b"eu/7") == b"v" * 30_000


def test_a_site_that_is_added_stamps_above_what_was_deleted_before(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    create(hub, "eu", "site-0")
    second.now_ms -= 3_600_000
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/k", b"v")
    first.operations.delete([b"eu/k"])
    run(net, [hub, first, second], rounds=5)
    deleted = held(hub, "eu")
    assert deleted is not None
    hub.replication.leader.keyspaces.add_site("eu", "site-1")
    while (keyspace := held(second, "eu")) is None or keyspace.absent:
        run(net, [hub, second], rounds=1)
    assert keyspace.hlc >= deleted.hlc


def test_a_site_that_is_added_holds_the_cut_from_that_revision_on(net: Net, make: Make) -> None:
    """Before it has said anything: it may not have seen what is deleted after."""
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0")
    run(net, [hub, first, second], rounds=5)
    net.cut(wires[1])
    hub.replication.leader.keyspaces.add_site("eu", "site-1")
    first.operations.set(b"eu/k", b"v")
    run(net, [hub, first], rounds=5)
    first.operations.delete([b"eu/k"])
    run(net, [hub, first], rounds=120, step_ms=1_000)
    assert hub.stored_row(b"eu/k", b"\x01") is not None
    net.connect(second, hub)
    run(net, [hub, first, second], rounds=200, step_ms=1_000)
    assert hub.stored_row(b"eu/k", b"\x01") is None


def test_a_site_that_is_taken_off_drains_and_then_deletes_its_copy(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/k", b"v")
    first.operations.sets.add(b"eu/s", [b"%d" % i for i in range(50)])
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    net.cut(wires[0])
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, second], rounds=20, step_ms=1_000)
    first.operations.set(b"eu/late", b"made before it knew")
    second.operations.set(b"eu/residency", b"must not come to site-0")
    (shown,) = [each for each in hub.operations.keyspaces() if each["name"] == "eu"]
    assert shown["sites"] == ["site-1"] and shown["draining"] == ["site-0"]
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=2)
    with pytest.raises(Denied, match="not at this site"):
        first.operations.set(b"eu/k", b"w")
    run(net, [hub, first, second], rounds=40, step_ms=1_000)
    assert hub.operations.get(b"eu/late") == second.operations.get(b"eu/late") == b"made before it knew"
    keyspace = held(first, "eu")
    assert keyspace is not None and not keyspace.vector and keyspace.state == "elsewhere"
    assert rows(first, keyspace.id) == 0 and rows(hub, keyspace.id)
    assert not first._store.applied().vectors.get(keyspace.id)
    (shown,) = [each for each in hub.operations.keyspaces() if each["name"] == "eu"]
    assert shown["draining"] == []
    first.kill()
    first.open()
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=5)
    assert not first.rolled_back and first.replication.links


def test_what_a_member_had_seen_before_it_left_does_not_count_when_its_site_is_added_again(
    net: Net, make: Make
) -> None:
    """It wrote nothing there, so it may hold the keyspace again, of which it has nothing then."""
    hub, (away, here), _ = cluster(net, make)
    everybody = [hub, away, here]
    create(hub, "eu", "site-0", "site-1")
    number = hub.engine.keyspaces.of(b"eu/").id
    hub.operations.set(b"eu/k", b"v")
    run(net, everybody, rounds=60, step_ms=1_000)
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, everybody, rounds=60, step_ms=1_000)
    assert not rows(away, number)
    away.cut_off()
    hub.replication.membership.remove("edge-0")
    hub.replication.membership.readmit("edge-0")
    net.connect(away, hub)
    run(net, everybody, rounds=10)
    away.cut_off()
    hub.replication.leader.keyspaces.add_site("eu", "site-0")
    hub.operations.delete([b"eu/k"])
    run(net, [hub, here], rounds=200, step_ms=1_000)
    members, own = hub.replication.members, hub.replication._holdings.vectors()
    stable = compute_stable(members.members.values(), hub.replication.seen, own, members.counts)
    assert stable is not None and stable.cuts is not None
    assert stable.cuts[number].cut == {}, "it holds the keyspace, and has seen nothing of it"
    net.connect(away, hub)
    run(net, everybody, rounds=200, step_ms=1_000)
    assert hub.stored_row(b"eu/k", b"\x01") is None
    spoken = hub.replication.seen.spoken[away.engine.actor]
    assert spoken.vectors[number] == {hub.engine.actor: 2}


def test_what_came_before_a_node_knew_that_its_site_was_added_comes_again_before_what_rests_on_it(
    net: Net, make: Make
) -> None:
    """A hub sends what its log has at once, and the entry behind it; what was passed by counts as had there."""
    leader, hub, other = make("hub", founder=True), make("hub-2"), make("edge-1", site="site-1", role="edge")
    for peer in (hub, other):
        net.connect(peer, leader)
    run(net, [leader, hub, other], rounds=15)
    create(leader, "eu", "site-0", "site-1")
    leader.replication.leader.keyspaces.remove_site("eu", "site-0")
    edge = make("edge-0", site="site-0", role="edge")
    net.connect(edge, hub)
    run(net, [leader, hub, other, edge], rounds=30)
    hub.operations.set(b"eu/first", b"v")
    run(net, [leader, hub, other, edge], rounds=5)
    receive, holes, number = edge.engine.intake.receive, list[Changes](), edge.engine.keyspaces.owner(b"eu/k").id

    def watched(run: Changes) -> bool:
        taken = receive(run)
        if run.keyspace == number and not edge.operations.get(b"eu/first"):
            holes.append(run)
        return taken

    edge.engine.intake.receive = watched  # type: ignore[method-assign] # a spy
    leader.replication.leader.keyspaces.add_site("eu", "site-0")
    leader.operations.set(b"eu/second", leader.operations.get(b"eu/first") or b"")
    run(net, [leader, hub, other, edge], rounds=5)
    assert not holes
    net.connect(edge, hub)
    run(net, [leader, hub, other, edge], rounds=5)
    assert edge.operations.get(b"eu/first") == edge.operations.get(b"eu/second") == b"v"


def test_what_a_member_said_of_a_copy_that_it_has_left_is_forgotten(net: Net, make: Make) -> None:
    """A leader that is set back afterwards lacks what was in it for ever: nothing that the member says could be proved again."""
    hub, (first, second), _ = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/k", b"v")
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    number, said = hub.engine.keyspaces.owner(b"eu/k").id, hub.replication.seen.spoken[first.engine.actor]
    assert said.said(number, first.engine.actor) == 1
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, first, second], rounds=40, step_ms=1_000)
    assert first.engine.actor in hub.replication.members.keyspaces[number].left
    assert said.said(number, first.engine.actor) == 0


def test_a_copy_that_its_member_may_delete_does_not_count_when_that_comes_again(net: Net, make: Make) -> None:
    """It has not heard yet that it may."""
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    hub.operations.set(b"eu/k", b"v")
    run(net, [hub, first, second], rounds=5)
    keyspace, has = hub.engine.keyspaces.owner(b"eu/k"), {hub.engine.keyspaces.owner(b"eu/k").id: 1}
    assert len(hub.node.acks.covered_by(has)) == 2
    net.cut(wires[0])
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, second], rounds=10, step_ms=1_000)
    said = second.replication.seen.spoken[second.engine.actor].whole()  # as the other one has it, so had it
    number = hub.replication.seen.spoken[first.engine.actor].whole().number + 1
    hub.replication.seen.hear(said._replace(actor=first.engine.actor, number=number))
    run(net, [hub, second], rounds=10, step_ms=1_000)
    assert hub.replication.members.keyspaces[keyspace.id].left == {first.engine.actor}
    number = net.connect(first, hub).number
    net.deliver()
    assert keyspace.id in hub.replication.links[number].acknowledged
    assert [peer.actor for peer in hub.node.acks.covered_by(has)] == [second.engine.actor]


def test_a_site_that_was_taken_off_does_not_hold_the_cut_any_longer(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    second.operations.set(b"eu/k", b"v")
    run(net, [hub, first, second], rounds=10, step_ms=1_000)
    net.cut(wires[0])
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    second.operations.delete([b"eu/k"])
    run(net, [hub, second], rounds=120, step_ms=1_000)
    assert hub.stored_row(b"eu/k", b"\x01") is not None, "it has not said yet what it had made before it knew"
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=200, step_ms=1_000)
    assert hub.stored_row(b"eu/k", b"\x01") is None


def test_what_may_be_held_again_is_not_counted_on_before_it_is_held(net: Net, make: Make) -> None:
    """The last of an earlier copy goes between two looks at meta: a HELLO that named it then had changes sent to no copy."""
    hub, (first, second), _ = cluster(net, make)
    create(hub, "eu", "site-1")
    run(net, [hub, first, second], rounds=5)
    keyspace, node = held(first, "eu"), first.node.identity
    assert keyspace is not None and keyspace.absent
    keyspace.policy = replace(keyspace.policy, sites=("site-0", "site-1"))
    myself = Applicant(node.node, node.actor, node.name, node.site, "edge")
    holdings = Holdings(first.engine, first.replication.members, myself)
    assert holdings.takes(keyspace) and not holdings.holds(keyspace)
    keyspace.absent = False
    assert holdings.holds(keyspace)


@pytest.mark.parametrize("rounds", range(1, 12))
def test_a_crash_while_a_copy_is_deleted_leaves_nothing_of_it(net: Net, make: Make, rounds: int) -> None:
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    first.operations.set_run([b"eu/%d" % i for i in range(300)], [b"v"] * 300)
    run(net, [hub, first, second], rounds=3)
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, first, second], rounds=rounds, step_ms=700)
    net.cut(wires[0])
    first.kill()
    first.open()
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=60, step_ms=1_000)
    keyspace = held(first, "eu")
    assert keyspace is not None and rows(first, keyspace.id) == 0 and not keyspace.vector
    assert second.operations.get(b"eu/299") == b"v"


def test_what_was_deleted_with_its_keyspace_leaves_no_entry_in_an_index(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/expires", b"v", expiry_ms=first.now_ms + 10_000_000)
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    assert list(first._store.index_range(layout.DB_EXPIRY, b"", None))
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    first._store.renew()
    assert not list(first._store.index_range(layout.DB_EXPIRY, b"", None))


def test_sites_that_cannot_be_added_or_taken_off_are_refused(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    orders = hub.replication.leader.keyspaces
    create(hub, "eu", "site-0", "cloud")
    create(hub, "all")
    run(net, [hub, first, second], rounds=5)
    refused = [
        (NotFound, "no keyspace 'us'", ("us", "site-0")),
        (NotFound, "is not at site 'site-1'", ("eu", "site-1")),
        (Denied, "every site holds", ("all", "site-0")),
        (Denied, "'hub' stands at site 'cloud'", ("eu", "cloud")),
    ]
    for kind, said, (name, site) in refused:
        with pytest.raises(kind, match=said):
            orders.remove_site(name, site)
    with pytest.raises(NotFound, match="no keyspace 'us'"):
        orders.add_site("us", "site-0")
    assert not orders.add_site("all", "site-0")
    orders.add_site("eu", "site-1")
    assert orders.remove_site("eu", "site-0") and not orders.remove_site("eu", "site-0")
    with pytest.raises(Denied, match="edge-0 forgot what they had made"):
        orders.add_site("eu", "site-0")


def test_sites_are_kept_once_and_those_that_nobody_knows_are_told(net: Net, make: Make) -> None:
    hub, _, _ = cluster(net, make, edges=1)
    create(hub, "eu", "site-0", "site-0", "new")
    assert hub.engine.keyspaces.of(b"eu/").policy.sites == ("site-0", "new")
    orders = hub.replication.keyspaces
    assert orders.unknown(("site-0", "new", "cloud", "new")) == ["new"]
    hub.replication.membership.remove("edge-0")
    assert orders.unknown(("site-0",)) == ["site-0"]
    hub.replication.membership.readmit("edge-0")
    assert orders.unknown(("site-0",)) == []


def test_the_last_site_stays(net: Net, make: Make) -> None:
    hub, _, _ = cluster(net, make)
    create(hub, "eu", "site-0")
    with pytest.raises(Denied, match="last site"):
        hub.replication.leader.keyspaces.remove_site("eu", "site-0")


def test_a_new_node_of_a_site_that_left_may_hold_the_keyspace_when_it_is_added_again(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    second.operations.set(b"eu/k", b"v")
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    net.cut(wires[0])
    hub.replication.membership.remove("edge-0")
    newcomer = make("edge-7", site="site-0", role="edge")
    net.connect(newcomer, hub)
    run(net, [hub, second, newcomer], rounds=30, step_ms=1_000)
    with pytest.raises(Denied, match="not at this site"):
        newcomer.operations.get(b"eu/k")
    hub.replication.leader.keyspaces.add_site("eu", "site-0")
    run(net, [hub, second, newcomer], rounds=30, step_ms=1_000)
    assert newcomer.operations.get(b"eu/k") == b"v"
    newcomer.operations.set(b"eu/k", b"w")
    run(net, [hub, second, newcomer], rounds=5)
    assert second.operations.get(b"eu/k") == b"w"


def test_a_member_has_left_when_the_leader_has_all_that_its_last_seen_names(net: Net, make: Make) -> None:
    """What is missing may be at another hub still, on its way."""
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    net.cut(wires[0])
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    actor, number = first.node.identity.actor, held(hub, "eu")
    assert number is not None
    before = hub.replication.seen.spoken[actor].whole()
    seen = before._replace(number=before.number + 1, revision=before.revision + 100, vectors={number.id: {actor: 1}})
    hub.replication.seen.hear(seen)
    run(net, [hub, second], rounds=10, step_ms=1_000)
    assert hub.replication.members.keyspaces[number.id].left == frozenset()


def left_and_removed(net: Net, make: Make) -> tuple[Peer, Peer, Peer]:
    """A hub, an edge that wrote to a keyspace which its site was then taken off, and was removed, and another edge."""
    hub, (first, second), wires = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=5)
    first.operations.set(b"eu/k", b"v")
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    net.cut(wires[0])
    hub.replication.membership.remove("edge-0")
    run(net, [hub, second], rounds=10, step_ms=1_000)
    return hub, first, second


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_member_that_was_readmitted_still_has_forgotten_what_it_made_in_a_keyspace_that_it_left(
    net: Net, make: Make, when: str
) -> None:
    hub, first, second = left_and_removed(net, make)
    orders, membership = hub.replication.leader.keyspaces, hub.replication.membership
    membership.readmit("edge-0")
    if when == "after":
        net.connect(first, hub)
        run(net, [hub, first, second], rounds=30, step_ms=1_000)
        assert hub.replication.members.is_open(first.engine.actor)
    with pytest.raises(Denied, match="edge-0 forgot what they had made"):
        orders.add_site("eu", "site-0")


def test_a_member_that_forgot_what_it_made_in_a_keyspace_is_not_readmitted_once_its_site_holds_that_again(
    net: Net, make: Make
) -> None:
    hub, _, _ = left_and_removed(net, make)
    orders, membership = hub.replication.leader.keyspaces, hub.replication.membership
    assert orders.add_site("eu", "site-0")
    with pytest.raises(Denied, match="'edge-0' forgot what it had made in keyspace 'eu'"):
        membership.readmit("edge-0")


def test_what_a_readmitted_member_writes_drains_when_its_site_is_taken_off_a_second_time(net: Net, make: Make) -> None:
    hub, (first, second), wires = cluster(net, make)
    orders, membership = hub.replication.leader.keyspaces, hub.replication.membership
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, first, second], rounds=20, step_ms=1_000)
    orders.remove_site("eu", "site-0")
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    net.cut(wires[0])
    membership.remove("edge-0")
    assert orders.add_site("eu", "site-0")
    assert membership.readmit("edge-0")
    wire = net.connect(first, hub)
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    net.cut(wire)
    first.operations.set(b"eu/k", b"v")
    run(net, [hub, first, second], rounds=2)
    orders.remove_site("eu", "site-0")
    number, known = held(hub, "eu"), hub.replication.members
    assert number is not None
    assert known.counts(known.members[first.engine.actor], number.id), "it left once, and has written since"
    net.connect(first, hub)
    run(net, [hub, first, second], rounds=30, step_ms=1_000)
    assert hub.operations.get(b"eu/k") == b"v"
