"""One node, one listener, one client."""

import pytest

from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def listener(node: FakeNode) -> FakeListener:
    return FakeListener(node)


@pytest.fixture
def client(listener: FakeListener) -> Client:
    return Client(listener)
