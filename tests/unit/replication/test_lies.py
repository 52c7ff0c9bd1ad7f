"""What a peer says of this node and of others, when it lies."""

import pytest

from edgekv.engine.keyspace_entry import entry_of
from edgekv.engine.keyspaces import DEFAULT_ID, KeyspacePolicy
from edgekv.errors import PeerFault
from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.limits import LMDB_MAP_BYTES, STRANGERS_HEARD_MAX, VECTOR_ENTRIES_MAX, VECTOR_ENTRY_BYTES
from edgekv.replication import leader as leader_module
from edgekv.replication import streams
from edgekv.replication.figures import NO_SITE
from edgekv.replication.messages import Ack, ChainedVector, Hello, Return, SyncOffer, pack_message, parse
from tests.unit.replication.test_links import cluster
from tests.unit.replication.wires import Make, Net, Peer, run

MORE = 1 << 40


def greet(net: Net, liar: Peer, listener: Peer, hello: Hello) -> int:
    """A connection of the liar's, on which it says this instead of its own HELLO."""
    wire = net.connect(liar, listener)
    wire.queues[listener].clear()
    wire.queues[listener].append(pack_message(hello))
    net.deliver()
    return wire.number


def hello_of(peer: Peer, **changed: object) -> Hello:
    return peer.replication._greeting.hello()._replace(**changed)  # type: ignore[arg-type] # fields of a HELLO


def test_a_stranger_does_not_make_a_node_take_another_incarnation(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    stranger = make("stranger", site="x", role="edge")
    hello = hello_of(stranger, vectors={DEFAULT_ID: {hub.engine.actor: (MORE, 0)}})
    number = greet(net, stranger, hub, hello)
    assert not hub.rolled_back
    assert number not in hub.replication.links and len(hub.replication.links) == 1
    assert "is not believed" in str(hub.replication.status()["events"])
    run(net, [hub, edge], rounds=3)


@pytest.mark.parametrize("soon", [False, True])
def test_a_member_does_but_not_again_and_again(net: Net, make: Make, soon: bool) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    net.cut(wire)
    hub.reincarnates = not soon
    greet(net, edge, hub, hello_of(edge, vectors={DEFAULT_ID: {hub.engine.actor: (MORE, 0)}}))
    assert hub.rolled_back
    assert ("so soon" in str(hub.replication.status()["events"])) == soon


def test_a_message_names_no_more_than_there_can_be_and_ten_thousand_actors_go(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    other = make("other")
    actors = [node_actor(i.to_bytes(16, "big"), b"12345678") for i in range(10_000)]
    vector = dict.fromkeys(actors, (1 << 62, 1 << 31))
    hello = hello_of(other, vectors=dict.fromkeys(range(10, 30), vector))
    packed = pack_message(hello)
    assert len(packed) <= 20 * 10_000 * VECTOR_ENTRY_BYTES + 10_000
    assert parse(packed) == hello
    empty: dict[int, ChainedVector] = {i: {} for i in range(VECTOR_ENTRIES_MAX + 1)}
    for vectors in (dict.fromkeys(range(10, 40), vector), empty):
        with pytest.raises(PeerFault, match="more than"):
            parse(pack_message(hello._replace(vectors=vectors)))
    with pytest.raises(PeerFault, match="more than"):
        parse(pack_message(Ack(0, {i: {} for i in range(VECTOR_ENTRIES_MAX + 1)})))
    net.connect(other, hub)
    run(net, [hub, other], rounds=3)


def test_who_acknowledges_without_end_loses_its_link(net: Net, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    monkeypatch.setattr(streams, "VECTOR_ENTRIES_MAX", 100)
    for i in range(101):
        net.send(edge, wire.number, pack_message(Ack(0, {DEFAULT_ID: {node_actor(i.to_bytes(16), b"12345678"): 1}})))
    while net.deliver():
        pass
    assert wire.number not in hub.replication.links


def test_rows_of_more_than_a_store_holds_are_refused(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    offer = SyncOffer(DEFAULT_ID, b"12345678", LMDB_MAP_BYTES + 1, 0, {hub.engine.actor: (MORE, 0)}, 0)
    net.send(hub, wire.number, pack_message(offer))
    while net.deliver():
        pass
    assert wire.number not in edge.replication.links


def test_strangers_have_no_figures_of_their_own(net: Net, make: Make) -> None:
    hub, _, _ = cluster(net, make, edges=1)
    stranger = make("stranger", site="x", role="edge")
    for i in range(5):
        hello = hello_of(stranger, site=f"made-up-{i}", vectors={DEFAULT_ID: {hub.engine.actor: (MORE, 0)}})
        greet(net, stranger, hub, hello)
    assert {site for _, site in hub.replication.figures.traffic()} <= {"site-0", NO_SITE}


def test_a_leader_that_was_restored_remembers_no_end_of_strangers(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    leader = hub.replication.leader
    del hub.replication.members.members[hub.engine.actor]
    for i in range(2 * STRANGERS_HEARD_MAX):
        leader.heard_hello(hello_of(edge, node=i.to_bytes(16, "big")))
    leader.heard_hello(hello_of(edge))
    assert len(leader._heard) == STRANGERS_HEARD_MAX + 1
    assert edge.engine.actor[1:17] in leader._heard


def test_a_stable_that_is_no_entry_of_meta_is_said_to_be_too_large(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "VALUE_BYTES_MAX", 10)
    hub, (edge,), _ = cluster(net, make, edges=1)
    run(net, [hub, edge], rounds=120)
    assert "what is stable takes" in str(hub.replication.status()["events"])
    assert hub.replication.members.announced is None


@pytest.mark.parametrize("incarnation", [1, 2])
def test_a_member_does_not_make_keyspaces_up(net: Net, make: Make, incarnation: int) -> None:
    """It may tell of those that an earlier incarnation of the leader may have created."""
    hub, (liar,), _ = cluster(net, make, edges=1)
    hub.operations.set(b"user:1", b"v")
    orders = hub.replication.keyspaces
    myself = orders._self
    if incarnation == 2:
        later = hub.engine.actor[:17] + (2).to_bytes(4, "big") + hub.engine.actor[21:]
        orders._self = orders._self._replace(actor=Actor(later))  # type: ignore[misc] # of a leader that was restored
    me = liar.replication.members.members[liar.engine.actor]
    ids = [0, 1, 123, (1 << 31) + 1, (1 << 32) - 1, 1 << 40]
    prefixes = [b"d", b"e", b"f", b"u", b"v", b"w"]
    wire = next(iter(net.wires.values()))
    for number, prefix in zip(ids, prefixes, strict=True):
        entry = entry_of(KeyspacePolicy(id=KeyspaceId(number), name=f"k{number}", prefix=prefix))
        net.send(liar, wire.number, pack_message(Return(me.actor, me.revision, False, {}, [entry])))
    run(net, [hub, liar], rounds=5)
    assert hub.operations.get(b"user:1") == b"v" and wire.number in hub.replication.links
    known = {keyspace.name for keyspace in hub.engine.keyspaces.all} - {"default", "_meta"}
    assert known == ({"k123"} if incarnation == 2 else set())
    orders._self = myself  # type: ignore[misc]
    orders.create("new", b"new/", (), siblings=False)
