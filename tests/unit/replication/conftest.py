"""Wires, and nodes to join by them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.replication.wires import Make, Net, Peer


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
