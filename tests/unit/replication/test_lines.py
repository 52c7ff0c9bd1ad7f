"""A leader that was restored has forgotten who came after its backup: what those wrote comes to all, and no deleted key comes back."""

import shutil
from collections.abc import Callable
from pathlib import Path

from edgekv.limits import RESTORED_WAIT_MS
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.test_parking import members, pass_s
from tests.unit.replication.wires import Make, Net, Peer

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


def forgetful(net: Net, make: Make, tmp_path: Path, *others: Peer) -> tuple[Peer, Peer, Restore]:
    """A hub whose backup knows no open member, and an edge that came after it."""
    hub, (gone,), _ = cluster(net, make, edges=1)
    hub.replication.membership.remove(gone.name)
    gone.cut_off()
    pass_s(net, 10, hub)
    restore = back_up(hub, tmp_path / "backup")
    late = make("late", site="late", role="edge")
    net.connect(late, hub)
    for other in others:
        net.connect(other, hub)
    pass_s(net, 20, hub, late, *others)
    return hub, late, restore


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
    net.connect(late, hub)
    pass_s(net, 10, hub, late, newcomer)
    late.cut_off()  # it takes meta anew: its links ended
    net.connect(late, hub)
    pass_s(net, 60, hub, late, newcomer)
    for peer in (hub, late, newcomer):
        assert peer.operations.get(b"sent") == b"1"
        assert peer.operations.get(b"kept") == b"2"
        assert peer.operations.get(b"count") == b"17"
    assert vectors(hub) == vectors(late) == vectors(newcomer)
    assert members(hub)["late"] == "open"
    late.operations.set(b"after", b"3")
    pass_s(net, 10, hub, late, newcomer)
    assert newcomer.operations.get(b"after") == b"3"
