"""What a member has said to have, and comes without: when that proves that it was set back, and when a copy is just gone."""

from pathlib import Path

from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.ids import Actor, node_actor
from edgekv.limits import HEARSAY_ENTRIES_MAX
from edgekv.replication.messages import ChainedVector, OthersHave, Seen, WhoHas, pack_message, parse
from edgekv.replication.seen import SeenTable
from edgekv.wal.record import Changes
from tests.unit.replication.test_keyspaces import create, held
from tests.unit.replication.test_lies import MORE, greet, hello_of
from tests.unit.replication.test_lines import back_up, come_back
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.test_parking import pass_s
from tests.unit.replication.test_seen import say
from tests.unit.replication.wires import Make, Net, Peer, run


def given_up(net: Net, make: Make, tmp_path: Path) -> tuple[Peer, Peer, Peer, Actor]:
    """A restored leader, beside a hub that it knows, and an edge which alone has the last entries; the incarnation that made them."""
    hub, (edge,), _ = cluster(net, make, edges=1)
    other = make("other", site="cloud")
    net.connect(other, hub)
    pass_s(net, 10, hub, edge, other)
    restore = back_up(hub, tmp_path / "backup")
    earlier = hub.engine.actor
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=5)
    create(hub, "lost")
    pass_s(net, 10, hub, edge)
    restore()
    hub.now_ms = other.now_ms = edge.now_ms
    net.connect(other, hub)
    hub.replication.membership.lead()
    pass_s(net, 20, hub, other)
    assert hub.engine.actor != earlier and held(hub, "lost") is None
    return hub, other, edge, earlier


def test_who_takes_meta_anew_is_not_taken_for_one_that_was_set_back(net: Net, make: Make, tmp_path: Path) -> None:
    hub, other, edge, earlier = given_up(net, make, tmp_path)
    lost = edge.engine.keyspaces.by_id[META_ID].vector[earlier].seq
    for peer in (hub, other):  # as one said it to the other before it knew that the entries are given up
        peer.replication.seen.hear(Seen(edge.engine.actor, MORE, 0, lost, {META_ID: {earlier: lost}}))
    come_back(net, edge, hub, other)
    assert not edge.rolled_back
    edge.operations.set(b"k", b"v")
    pass_s(net, 20, hub, other, edge)
    assert other.operations.get(b"k") == b"v"


def test_a_link_that_owes_a_word_ends_though_its_meta_comes_as_rows(net: Net, make: Make) -> None:
    hub = make("hub", founder=True, retain_bytes=0)
    edge, other = make("edge", site="far", role="edge", retain_bytes=0), make("other", site="cloud", retain_bytes=0)
    for peer in (edge, other):
        net.connect(peer, hub)
    pass_s(net, 20, hub, edge, other)
    other.cut_off()
    create(hub, "new")
    for i in range(40):
        for peer in (hub, edge):
            peer.operations.set(b"%d" % i, bytes(30_000))
        run(net, [hub, edge], rounds=3)
    for peer in (hub, edge, hub, edge):
        peer.checkpoint()
    edge.cut_off()
    other.replication.seen.hear(Seen(edge.engine.actor, MORE, 0, 0, {DEFAULT_ID: {edge.engine.actor: 500}}))
    other.now_ms = edge.now_ms
    number = net.connect(edge, other).number
    run(net, [other, edge], rounds=5)
    assert other.replication.links[number].owes_word
    run(net, [other, edge], rounds=100)
    assert other.replication.members.revision == edge.replication.members.revision
    assert number not in other.replication.links and other.replication.row_sync.syncs_total == 1


def test_what_is_said_of_entries_that_are_given_up_does_not_count_and_holds_nothing_up(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, other, edge, earlier = given_up(net, make, tmp_path)
    lost = edge.engine.keyspaces.by_id[META_ID].vector[earlier].seq
    said = Seen(edge.engine.actor, MORE, 0, MORE, {META_ID: {earlier: lost}})
    wire = next(wire for wire in net.wires.values() if wire.up and set(wire.ends) == {hub, other})
    say(net, wire, other, said)
    spoken = hub.replication.seen.spoken[edge.engine.actor]
    line = hub.replication.members.line[earlier]
    assert line < lost and spoken.whole().vectors[META_ID][earlier] == line
    hub.replication.seen.prove({META_ID: {earlier: line}})
    assert spoken.number == MORE and spoken.revision == line, "the numbers of revisions are used a second time"


def test_words_of_meta_end_when_another_incarnation_leads(net: Net, make: Make, tmp_path: Path) -> None:
    _, other, edge, earlier = given_up(net, make, tmp_path)
    lost = edge.engine.keyspaces.by_id[META_ID].vector[earlier].seq
    other.replication.seen.hear(Seen(edge.engine.actor, MORE, 0, lost, {META_ID: {earlier: lost}}))
    other.replication._hearing._writer = earlier  # it was told of that before it knew
    other.replication._hearing.begin_again()
    spoken = other.replication.seen.spoken[edge.engine.actor]
    assert spoken.whole().vectors[META_ID] == {earlier: other.replication.members.line[earlier]}


def test_a_site_that_left_a_keyspace_and_holds_it_anew_was_not_set_back_whatever_its_hub_knows(
    net: Net, make: Make
) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    other = make("other", site="cloud")
    create(hub, "eu", "site-0", "site-1")
    third = net.connect(other, hub)
    run(net, [hub, edge, other], rounds=30)
    net.connect(edge, other)
    hub.operations.set(b"eu/k", b"v")
    pass_s(net, 20, hub, edge, other)
    edge.cut_off()
    net.cut(third)
    orders = hub.replication.leader.keyspaces
    orders.remove_site("eu", "site-0")
    net.connect(edge, hub)
    hub.replication.membership.remove("other")  # else it would be waited for
    pass_s(net, 60, hub, edge)
    hub.replication.membership.readmit("other")
    hub.replication.membership.remove("edge-0")
    hub.replication.membership.readmit("edge-0")
    edge.cut_off()
    wire = net.connect(edge, hub)
    pass_s(net, 10, hub, edge)
    eu = held(edge, "eu")
    assert eu is not None and not eu.vector
    orders.add_site("eu", "site-0")
    while eu.absent:
        net.deliver()
        for peer in (hub, edge):
            peer.engine.kick()
            peer.flush()
            peer.replication.durable()
    net.cut(wire)
    other.now_ms = edge.now_ms
    net.connect(edge, other)
    run(net, [other, edge], rounds=20)
    assert other.replication.members.revision == edge.replication.members.revision
    assert not edge.rolled_back and not edge.replication.links, "now its hub knows why, and it comes again"
    net.connect(edge, other)
    net.connect(other, hub)
    pass_s(net, 60, hub, edge, other)
    assert edge.replication.links and not edge.rolled_back
    assert edge.operations.get(b"eu/k") == b"v"
    assert vectors(hub) == vectors(edge) == vectors(other)


def test_nothing_goes_either_way_before_one_has_explained_itself_that_came_with_less(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    other = make("other", site="cloud")
    net.connect(other, hub)
    pass_s(net, 20, hub, edge, other)
    other.cut_off()
    create(hub, "new")
    run(net, [hub, edge], rounds=5)
    edge.cut_off()
    other.operations.set(b"there", b"v")
    edge.operations.set(b"here", b"v")
    other.replication.seen.hear(Seen(edge.engine.actor, MORE, 0, 0, {DEFAULT_ID: {edge.engine.actor: 5}}))
    other.now_ms = edge.now_ms
    number = net.connect(edge, other).number
    for _ in range(30):
        run(net, [other, edge], rounds=1, step_ms=20)
        assert other.operations.get(b"here") is None and edge.operations.get(b"there") is None
    assert number not in other.replication.links
    assert "a newer meta, which is here now" in str(other.replication.status()["events"])


def test_a_revision_that_rests_on_given_up_entries_alone_counts_for_nothing() -> None:
    actor, lost = (node_actor(bytes([i]) * 16, bytes(8)) for i in (1, 2))
    table = SeenTable()
    table.hear(Seen(actor, 7, 0, 100, {META_ID: {lost: 100}, DEFAULT_ID: {actor: 1}}))
    table.keep_meta(lambda astray, seq: astray == lost and seq > 80)
    heard = SeenTable()
    heard.hear(table.spoken[actor].whole())
    heard.prove({DEFAULT_ID: {actor: 1}})
    counted = heard.counted(actor)
    assert counted is not None and counted.revision == 0


def test_an_edge_that_speaks_for_another_node_makes_it_take_no_other_incarnation(net: Net, make: Make) -> None:
    hub, (liar,), (wire,) = cluster(net, make, edges=1)
    say(net, wire, liar, Seen(hub.engine.actor, MORE, 0, 1 << 20, {DEFAULT_ID: {hub.engine.actor: MORE}}))
    assert not hub.rolled_back and wire.number not in hub.replication.links


# -- whose word counts for those who wait


def test_what_a_stranger_has_counts_for_nobody_who_waits(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    edge.operations.set(b"k", b"v")
    run(net, [edge], rounds=3)
    seq, chain = edge.engine.keyspaces.by_id[DEFAULT_ID].vector[edge.engine.actor]
    stranger = make("stranger", site="cloud")
    before = edge.node.acks.status()["peers"]
    greet(net, stranger, edge, hello_of(stranger, vectors={DEFAULT_ID: {edge.engine.actor: (seq, chain)}}))
    assert edge.node.acks.status()["peers"] == before
    assert edge.node.acks.covered_by({DEFAULT_ID: seq}) == []
    run(net, [hub, edge], rounds=5)
    assert [peer.name for peer in edge.node.acks.covered_by({DEFAULT_ID: seq})] == ["hub"]


def test_a_newcomer_counts_from_the_moment_on_that_it_is_a_member(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    hub.operations.set(b"k", b"v")
    newcomer = make("new", site="far", role="edge")
    net.connect(newcomer, hub)
    run(net, [hub, edge, newcomer], rounds=20)
    names = {peer.name for peer in hub.node.acks.covered_by({DEFAULT_ID: hub.engine.keyspaces.by_id[DEFAULT_ID].seq})}
    assert names == {"edge-0", "new"}


def test_a_copy_that_was_deleted_counts_for_nobody_who_waits(net: Net, make: Make) -> None:
    hub, (edge, neighbour), _ = cluster(net, make)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, edge, neighbour], rounds=10)
    edge.operations.set(b"eu/k", b"v")
    edge.node.acks.wait(
        {DEFAULT_ID: MORE}, edge.node.acks.want("site")._replace(site=None, nodes=5), None, lambda _: None
    )
    pass_s(net, 20, hub, edge, neighbour)
    eu = held(edge, "eu")
    assert eu is not None
    for node, names in ((edge, {"hub", "edge-1"}), (hub, set())):
        assert {peer.name for peer in node.node.acks.covered_by({eu.id: eu.seq})} >= names
    hub.replication.leader.keyspaces.remove_site("eu", "site-1")
    pass_s(net, 30, hub, edge, neighbour)
    assert {peer.name for peer in edge.node.acks.covered_by({eu.id: eu.seq})} == {"hub"}
    hub.operations.set(b"eu/j", b"w")
    pass_s(net, 10, hub, edge, neighbour)
    own = hub.engine.keyspaces.by_id[eu.id].seq
    assert {peer.name for peer in hub.node.acks.covered_by({eu.id: own})} == {"edge-0"}


def test_who_waits_is_not_told_of_keyspaces_that_nobody_has_nor_more_at_once_than_fits(net: Net, make: Make) -> None:
    hub, (edge, liar), (wire, _) = cluster(net, make)
    net.send(edge, wire.number, pack_message(WhoHas()))
    net.deliver()
    for keyspace in range(100, 100 + 4 * HEARSAY_ENTRIES_MAX):
        hub.replication._hearsay.has(liar.engine.actor, keyspace, {edge.engine.actor: 1})
    hub.now_ms += 1_000
    wire.queues[edge].clear()
    hub.replication._hearsay.tick()
    told = [message for message in map(parse, wire.queues[edge]) if isinstance(message, OthersHave)]
    assert sum(len(seqs) for message in told for seqs in message.members.values()) <= len(hub.engine.keyspaces.all)


# -- what is queued on a link whose peer turns out to follow entries that are given up


def test_nothing_more_is_taken_of_a_link_on_which_an_entry_came_that_is_given_up(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, other, _, earlier = given_up(net, make, tmp_path)
    link = next(link for link in hub.replication.links.values() if link.peer and link.peer.name == "other")
    astray = Changes(META_ID, earlier, MORE, 0, 0, 1, b"x")
    unknown = Changes(77, other.engine.actor, 1, 0, 0, 1, b"x")
    hub.replication._streams.came(link, [astray, unknown])
    assert link.astray and not link.inbox
    assert link.number in hub.replication.links, "it is sent meta, by which it sees what it has to give up"


# -- what members came with


def test_of_what_a_member_came_with_nothing_is_remembered_that_is_of_a_copy_that_is_gone(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    create(hub, "eu", "site-0", "site-1")
    run(net, [hub, edge], rounds=10)
    eu = held(edge, "eu")
    assert eu is not None
    there: dict[int, ChainedVector] = {number: {edge.engine.actor: (MORE, 0)} for number in (eu.id, DEFAULT_ID)}
    under_way = hello_of(edge, vectors=there)
    hub.replication.leader.keyspaces.remove_site("eu", "site-0")
    pass_s(net, 30, hub, edge)
    net.cut(wire)
    greet(net, edge, hub, under_way)
    said = hub.replication.seen.arrivals.word_beyond(edge.engine.actor, {eu.id: {}, DEFAULT_ID: {}})
    assert said is not None and said.vectors.keys() == {DEFAULT_ID}


def test_a_member_that_comes_with_what_there_is_not_has_nobody_remember_it(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    net.cut(wire)
    nobody = node_actor(b"n" * 16, b"12345678")
    greet(net, edge, hub, hello_of(edge, vectors={DEFAULT_ID: {nobody: (MORE, 0)}, 77: {edge.engine.actor: (MORE, 0)}}))
    assert hub.replication.seen.arrivals.word_beyond(edge.engine.actor, {DEFAULT_ID: {}, 77: {}}) is None
