"""Acknowledgements and sessions between nodes that replicate: what hubs say ends waits, and tokens are good where the changes are."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.frame import Frame
from edgekv.errors import SessionBehind
from edgekv.ids import KeyspaceId
from edgekv.node.token import token_of
from edgekv.replication.acks import Want
from tests.unit.replication.wires import Net, Peer, Wire, run

DEFAULT = KeyspaceId(0)
KEYSPACES = (KeyspaceConfig(name="b", prefix=b"b/", durability="buffered"),)
Make = Callable[..., Peer]


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def make(net: Net, tmp_path: Path) -> Iterator[Make]:
    made: list[Peer] = []

    def make(name: str, **options: object) -> Peer:
        peer = Peer(net, tmp_path / name, name, seed=len(made), keyspaces=KEYSPACES, **options)  # type: ignore[arg-type] # of Peer
        made.append(peer)
        peer.node.sessions.announced = lambda: peer.replication.members.announced
        return peer

    yield make
    for peer in made:
        peer.kill()


class Cluster:
    """A hub and two edges of one site."""

    def __init__(self, net: Net, make: Make) -> None:
        self.net = net
        self.hub = make("hub", founder=True)
        self.edges = [make(f"edge-{i}", site="site-1", role="edge") for i in range(2)]
        self.wires: list[Wire] = [net.connect(edge, self.hub) for edge in self.edges]
        self.run(15)

    def run(self, rounds: int = 5) -> None:
        run(self.net, [self.hub, *self.edges], rounds=rounds)


@pytest.fixture
def cluster(net: Net, make: Make) -> Cluster:
    return Cluster(net, make)


def ask(peer: Peer, want: Want, keyspace: KeyspaceId = DEFAULT) -> list[bool]:
    """Wait for what this node's clients have written so far."""
    answers: list[bool] = []
    peer.node.acks.wait(peer.node.sessions.positions([keyspace]), want, None, answers.append)
    return answers


def put(peer: Peer, key: bytes, value: bytes = b"v") -> None:
    peer.operations.set(key, value)
    peer.settle()


def token(peer: Peer, key: bytes = b"k") -> str:
    return peer.node.sessions.token([peer.engine.keyspaces.of(key).id])


def test_a_hub_acknowledges_what_it_has_durably_once_it_is_reached(cluster: Cluster) -> None:
    edge = cluster.edges[0]
    cluster.net.cut(cluster.wires[0])
    put(edge, b"k")
    answers = ask(edge, edge.node.acks.want("hub"))
    cluster.run()
    assert answers == []
    cluster.net.connect(edge, cluster.hub)
    cluster.run()
    assert answers == [True]
    assert cluster.hub.operations.get(b"k") == b"v"


def test_a_hub_acknowledges_nothing_before_its_sync(cluster: Cluster) -> None:
    edge, net = cluster.edges[0], cluster.net
    put(edge, b"k")
    answers = ask(edge, edge.node.acks.want("hub"))
    edge.replication.durable()
    while net.deliver():
        pass
    assert cluster.hub.operations.get(b"k") == b"v", "it is there"
    assert answers == [], "and not durable"
    cluster.run()
    assert answers == [True]


def test_a_hub_counts_other_nodes_only(cluster: Cluster) -> None:
    put(cluster.hub, b"k")
    hubs, nodes = ask(cluster.hub, cluster.hub.node.acks.want("hub")), ask(cluster.hub, Want(2))
    cluster.run()
    assert (hubs, nodes) == ([], [True]), "it is the only hub"


def test_a_neighbour_of_the_site_acknowledges_over_a_link_of_their_own(cluster: Cluster) -> None:
    first, second = cluster.edges
    put(first, b"k")
    answers = ask(first, first.node.acks.want("site"))
    cluster.run()
    assert answers == []
    cluster.net.connect(first, second)
    cluster.run()
    assert answers == [True]


def test_a_session_goes_on_at_another_edge_once_its_writes_are_there(cluster: Cluster) -> None:
    first, second = cluster.edges
    put(first, b"k", b"1")
    text, answers = token(first), list[SessionBehind | None]()
    second.node.sessions.wait(text, 1 << 62, answers.append)
    assert answers == []
    cluster.run()
    assert answers == [None]
    assert second.operations.get(b"k") == b"1"


def test_a_session_never_sees_again_what_it_has_seen_deleted(cluster: Cluster) -> None:
    first, second = cluster.edges
    put(first, b"k")
    cluster.run()
    cluster.net.cut(cluster.wires[1])
    first.operations.delete([b"k"])
    cluster.run()
    assert cluster.hub.operations.get(b"k") is None
    with pytest.raises(SessionBehind):
        second.node.sessions.check(token(cluster.hub))
    assert second.operations.get(b"k") == b"v"
    cluster.net.connect(second, cluster.hub)
    cluster.run()
    second.node.sessions.check(token(cluster.hub))
    assert second.operations.get(b"k") is None


def looked_at(peer: Peer) -> Frame | None:
    return peer.engine.barrier


def test_what_a_relay_shows_is_in_its_token_as_soon_as_it_shows_it(cluster: Cluster) -> None:
    """A received change of a buffered keyspace is shown when it is written; its sync comes later."""
    first, hub, net = cluster.edges[0], cluster.hub, cluster.net
    first.operations.set(b"b/k", b"v")
    first.settle()
    first.replication.durable()
    while net.deliver():
        pass
    hub.engine.kick()
    hub.flush()
    hub.engine.barrier = None
    assert hub.operations.get(b"b/k") == b"v"
    assert looked_at(hub) is None, "the reply need not wait"
    with pytest.raises(SessionBehind):
        cluster.edges[1].node.sessions.check(token(hub, b"b/k"))
    hub.node.sessions.check(token(hub, b"b/k"))


def test_what_every_member_has_is_left_out_of_tokens(cluster: Cluster) -> None:
    put(cluster.edges[0], b"k")
    cluster.run(60)
    text = token(cluster.hub)
    known = token_of(text)
    assert known.stable > 0 and known.entries == {DEFAULT: {}}
    for peer in (cluster.hub, *cluster.edges):
        peer.node.sessions.check(text)
    put(cluster.edges[0], b"k", b"2")
    newer = token(cluster.edges[0])
    with pytest.raises(SessionBehind):
        cluster.edges[1].node.sessions.check(newer)
    cluster.run()
    cluster.edges[1].node.sessions.check(newer)


def test_a_member_that_was_removed_while_it_was_away_acknowledges_nothing_any_more(cluster: Cluster) -> None:
    hub, (gone, stays) = cluster.hub, cluster.edges
    hub.operations.set(b"k", b"v")
    cluster.run()
    positions = hub.node.sessions.positions([DEFAULT])
    assert len(hub.node.acks.covered_by(positions)) == 2
    cluster.net.cut(cluster.wires[0])
    cluster.run()
    assert len(hub.node.acks.covered_by(positions)) == 2, "being away takes nothing back"
    hub.replication.membership.remove(gone.name)
    cluster.run()
    assert [peer.name for peer in hub.node.acks.covered_by(positions)] == [stays.name]


def test_a_token_is_not_covered_by_a_new_member_that_knows_of_a_later_stable_cut_and_has_no_rows_yet(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has seen holds the cut down; what tokens leave out by an earlier one is still to be covered."""
    hub, edge, newcomer = make("hub", founder=True), make("edge", role="edge"), make("newcomer", role="edge")
    put(hub, b"k")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=70, step_ms=1_000)
    session = token(hub)
    assert token_of(session).entries == {DEFAULT: {}}, "all have seen it"
    with monkeypatch.context() as patch:
        patch.setattr(hub.replication.row_sync.source, "pump", lambda link: None)  # its rows are long under way
        net.connect(newcomer, hub)
        run(net, [hub, edge, newcomer], rounds=150, step_ms=1_000)
        announced = newcomer.replication.members.announced
        assert announced is not None and announced.number > token_of(session).stable
        assert newcomer.operations.get(b"k") is None
        with pytest.raises(SessionBehind):
            newcomer.node.sessions.check(session)
    run(net, [hub, edge, newcomer], rounds=10)
    newcomer.node.sessions.check(session)
    assert newcomer.operations.get(b"k") == b"v"
