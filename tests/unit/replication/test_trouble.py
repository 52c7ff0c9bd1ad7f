"""What a node bears: peers that are wrong, disks that are full or damaged, clocks that are set, and all of it beside others' links."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekv.replication import messages
from tests.unit.replication.test_links import vectors
from tests.unit.replication.wires import Net, Peer, run

Make = Callable[..., Peer]


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def make(net: Net, tmp_path: Path) -> Iterator[Make]:
    made: list[Peer] = []

    def make(name: str, **options: object) -> Peer:
        peer = Peer(net, tmp_path / name, name, seed=len(made), **options)  # type: ignore[arg-type] # of Peer
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.kill()


def recycle_log(*peers: Peer) -> None:
    """Several segments more, of which LMDB's last but one commit has all."""
    for peer in peers:
        for _ in range(5):
            for _ in range(4):
                peer.operations.set(b"filler", b"x" * 60_000)
                peer.settle()
            peer.checkpoint_at(peer.now_ms + 6_000)


def carry(peer: Peer) -> None:
    """What was written goes into LMDB."""
    peer.settle()
    peer.engine.checkpoints.carry()
    while peer.apply():
        pass


def sent_by(peer: Peer) -> list[messages.Message]:
    """What it sends from now on."""
    sent: list[messages.Message] = []

    def send(link: int, message: bytes) -> None:
        sent.append(messages.parse(message))
        peer.net.send(peer, link, message)

    peer.send = send  # type: ignore[method-assign] # it listens
    return sent


def test_rows_that_a_peer_gave_are_not_offered_back_to_it(net: Net, make: Make) -> None:
    hub = make("hub", founder=True, retain_bytes=0)
    edge = make("edge", site="s", role="edge", retain_bytes=0)
    wire = net.connect(edge, hub)
    run(net, [hub, edge], rounds=15)
    net.cut(wire)
    recycle_log(hub)
    edge.now_ms = hub.now_ms
    sent = sent_by(edge)
    net.connect(edge, hub)
    net.deliver()
    hub.operations.set(b"k", b"in the rows, and not in the vectors of its HELLO")
    carry(hub)
    run(net, [hub, edge], rounds=30)
    assert edge.replication.row_sync.syncs_total == 1
    assert vectors(edge) == vectors(hub)
    assert not [message for message in sent if isinstance(message, messages.SyncOffer)]
