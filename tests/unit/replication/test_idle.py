"""An edge does not stay with a hub over whose link no data can go, whatever the edge itself is by then (net/dialer.py)."""

from pathlib import Path

from edgekv.errors import ReadOnly
from tests.unit.replication.test_lines import WAIT_S, forgetful
from tests.unit.replication.test_links import cluster
from tests.unit.replication.test_parking import members, pass_s
from tests.unit.replication.test_returning import state
from tests.unit.replication.wires import Make, Net, Peer, Wire, run


def is_idle(peer: Peer, wire: Wire) -> bool:
    """For the dialer of a node."""
    return peer.replication.is_idle(wire.number)


def waiting_relay(net: Net, make: Make) -> tuple[Peer, Peer, Peer]:
    """A hub, another one that is parked and has to wait, as an edge returns just now, and that edge, linked to neither."""
    hub, (edge,), _ = cluster(net, make, edges=1)
    relay = make("relay")
    relay.now_ms = hub.now_ms
    net.connect(relay, hub)
    pass_s(net, 20, hub, edge, relay)
    edge.cut_off()
    relay.cut_off()
    for peer in (edge, relay):
        hub.replication.membership.remove(peer.name)
        hub.replication.membership.readmit(peer.name)
    pass_s(net, 60, hub)
    assert state(hub, edge) == state(hub, relay) == "settled"
    edge.now_ms = relay.now_ms = hub.now_ms
    edge.operations.set(b"k", b"late")
    edge.settle()
    net.connect(edge, hub)
    tell, edge.replication._returning.tell = edge.replication._returning.tell, lambda: None  # type: ignore[method-assign]
    pass_s(net, 10, hub, edge)
    edge.replication._returning.tell = tell  # type: ignore[method-assign]
    edge.cut_off()
    relay.now_ms = hub.now_ms
    net.connect(relay, hub)
    pass_s(net, 10, hub, relay)
    assert members(relay) == {"hub": "open", "edge-0": "returning", "relay": "parked"}
    return hub, relay, edge


def test_an_edge_that_returns_does_not_stay_with_a_hub_that_has_to_wait_until_it_has(net: Net, make: Make) -> None:
    """Neither would get on, and nothing would be forgotten meanwhile."""
    hub, relay, edge = waiting_relay(net, make)
    edge.now_ms = relay.now_ms
    to_relay = net.connect(edge, relay)
    pass_s(net, 4, edge, relay)
    assert state(edge, edge) == "returning" and is_idle(edge, to_relay)
    net.cut(to_relay)
    to_hub = net.connect(edge, hub)
    pass_s(net, 4, hub, edge)
    assert not is_idle(edge, to_hub)


def test_an_edge_that_is_new_does_not_stay_with_a_hub_that_is_no_member(net: Net, make: Make) -> None:
    _, relay, _ = waiting_relay(net, make)
    new = make("new", site="new", role="edge")
    new.now_ms = relay.now_ms
    to_relay = net.connect(new, relay)
    assert not is_idle(new, to_relay)
    for _ in range(200):
        if new.replication.members.founded:
            break
        assert not is_idle(new, to_relay), "it knows of no cluster yet, and may be taken in here"
        run(net, [new, relay], rounds=1)
    pass_s(net, 4, new, relay)
    assert is_idle(new, to_relay)


def test_an_edge_that_is_new_stays_with_a_hub_that_has_it_made_a_member(net: Net, make: Make) -> None:
    hub, relay = make("hub", founder=True), make("relay")
    wire = net.connect(relay, hub)
    pass_s(net, 10, hub, relay)
    net.cut(wire)
    new = make("new", site="new", role="edge")
    to_relay = net.connect(new, relay)
    pass_s(net, 10, new, relay)
    assert new.replication.members.founded and not new.replication.members.is_open(new.engine.actor)
    assert not is_idle(new, to_relay), "the leader is away"
    net.connect(relay, hub)
    pass_s(net, 10, hub, relay, new)
    assert new.replication.members.is_open(new.engine.actor) and not is_idle(new, to_relay)


def test_an_edge_does_not_stay_with_a_hub_that_has_more_of_a_list_that_was_given_up(
    net: Net, make: Make, tmp_path: Path
) -> None:
    hub, _, restore = forgetful(net, make, tmp_path)
    relay = make("relay")
    relay.now_ms = hub.now_ms
    net.connect(relay, hub)
    for i in range(8):
        hub.replication.keyspaces.create(f"rooms-{i}", b"rooms-%d/" % i, (), siblings=False)
    pass_s(net, 20, hub, relay)
    restore()
    hub.now_ms = relay.now_ms
    pass_s(net, WAIT_S + 6, hub)
    edge = make("edge", site="far", role="edge")
    edge.now_ms = hub.now_ms
    net.connect(edge, hub)
    pass_s(net, 10, hub, edge)
    edge.cut_off()
    relay.engine.admission.read_only = ReadOnly("its log is damaged")
    relay.now_ms = edge.now_ms
    to_relay = net.connect(edge, relay)
    pass_s(net, 4, edge, relay)
    assert edge.replication.members.revision < relay.replication.members.revision
    assert is_idle(edge, to_relay)
