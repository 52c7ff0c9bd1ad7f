"""Two copies of a directory: the cluster follows the one whose changes it keeps, and no other."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from edgekv.ids import Actor, KeyspaceId
from edgekv.replication.log_source import LogSource
from edgekv.replication.messages import SyncOffer
from edgekv.replication.replication import Replication
from edgekv.replication.sender import Sender
from edgekv.store.applied import sync_path
from edgekv.store.spool import SpoolWriter
from edgekv.store.spool_transfer import SpoolFolder
from tests.sim.branches import ForkWitness
from tests.sim.sim_node import Image, SimNode, fast_directory
from tests.sim.unproved import Joined
from tests.sim.witness import Violation

DEFAULT = KeyspaceId(0)
SPOOL = b"rows" * 2


class Trio:
    """An edge that has a copy, and a node that both tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.witness = ForkWitness([DEFAULT])
        self.nodes: list[SimNode] = []
        self.hub, self.one = self.node("hub"), self.node("one")
        self.write(self.one, b"before")
        self.tell(self.one)
        self.flush(self.hub)
        self.two = self.node("two", self.one.image())
        self.witness.forked(self.one, [self.one, self.two], self.nodes)

    def node(self, name: str, image: Image | None = None) -> SimNode:
        """``image``: of which it is a copy, unnoticed."""
        (self.folder / name).mkdir()
        now_ms, rng = (lambda: 1_700_000_000_000), Random(name)
        node = SimNode(
            self.folder / name, rng, now_ms, name=name, called="one" if image else "", image=image, unnoticed=True
        )
        self.nodes.append(node)
        self.witness.watch_intake(node)
        return node

    def write(self, node: SimNode, value: bytes) -> None:
        """A change, durable."""
        node.operations.set(b"key", value)
        self.witness.made(node)
        self.flush(node)

    def flush(self, node: SimNode) -> None:
        node.settle()
        self.witness.check_durable(node)

    def tell(self, node: SimNode) -> None:
        """The hub takes in what its log lacks."""
        has: dict[int, dict[Actor, int]] = {DEFAULT: self.hub.durable()}
        sender = Sender(node.engine, LogSource(node.engine.tail, node.disk), has, dict)
        sender.begin({DEFAULT})
        for run in sender.take(1 << 20):
            self.hub.engine.receive(run)
        sender.close()

    def carry(self, node: SimNode) -> None:
        """LMDB has all, and the log what is kept of it."""
        node.request(node.engine.commit.durable_lsn, None)
        while node.apply():
            node.settle()

    def give_rows(self, node: SimNode) -> None:
        """The hub joins its rows, which are offered to it as on a link."""
        self.carry(node)
        writer = SpoolWriter(node.store, DEFAULT, SpoolFolder(sync_path(self.hub.config.data_dir)).path_of(SPOOL))
        with closing(writer):
            while writer.step(1_000):
                pass
            head = writer.head
        intake = SimpleNamespace(offered=lambda link, offer: None)
        greeting, seen = SimpleNamespace(accepts=None), SimpleNamespace(hear=None)
        links = SimpleNamespace(row_sync=SimpleNamespace(intake=intake), seen=seen, _greeting=greeting)
        self.witness.watch_links(self.hub, cast(Replication, links))
        vectors = {DEFAULT: head.vector}
        link = SimpleNamespace(peer=SimpleNamespace(actor=node.actor, vectors=vectors))
        intake.offered(link, SyncOffer(DEFAULT, SPOOL, 0, 0, head.vector, head.hlc))
        self.hub.engine.flip(DEFAULT, SPOOL, head.vector, head.hlc, lambda: None)
        for _ in range(20):
            self.flush(self.hub)
            self.carry(self.hub)
            self.hub.tick()

    def lose_power(self) -> None:
        """The hub: what is not durable there is gone."""
        self.hub.jobs.clear()
        self.hub.crash(power=True)
        self.hub.open()
        self.witness.restarted(self.hub)
        self.witness.watch_intake(self.hub)


@pytest.fixture
def trio() -> Iterator[Trio]:
    folder = fast_directory("edgekv-branches-")
    trio = Trio(folder)
    yield trio
    for node in trio.nodes:
        node.stop()
    shutil.rmtree(folder)


def test_what_a_crash_took_of_one_copy_the_cluster_may_have_of_the_other(trio: Trio) -> None:
    trio.write(trio.one, b"one")
    trio.tell(trio.one)
    trio.lose_power()
    trio.write(trio.two, b"two")
    trio.tell(trio.two)
    trio.flush(trio.hub)
    trio.witness.check(trio.hub, [b"key"], anew=True)
    assert trio.hub.operations.get(b"key") == b"two"


def test_what_is_durable_of_one_copy_the_cluster_has_not_of_the_other(trio: Trio) -> None:
    trio.write(trio.one, b"one")
    trio.tell(trio.one)
    trio.flush(trio.hub)
    trio.lose_power()
    trio.write(trio.two, b"two")
    with pytest.raises(Violation, match="another history"):
        trio.witness.agree(trio.nodes, [b"key"], everything_expired=True)


@pytest.mark.parametrize("changes", [1, 30])
def test_rows_of_one_copy_may_join_what_is_there_of_the_other_only_when_its_log_is_gone(
    trio: Trio, changes: int
) -> None:
    trio.write(trio.one, b"one")
    trio.tell(trio.one)
    trio.flush(trio.hub)
    for i in range(changes + 1):
        trio.write(trio.two, b"%d" % i + bytes(4000))
        trio.carry(trio.two)
    with pytest.raises(Joined if changes > 1 else Violation):
        trio.give_rows(trio.two)
