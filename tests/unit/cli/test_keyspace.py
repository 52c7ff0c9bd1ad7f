"""keyspace list, and get of a key with several values, against a fake node."""

import json

import pytest

from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode

FIGURES = {
    "consistency": "crdt",
    "conflict": "siblings",
    "durability": "fsync",
    "system": False,
    "sites": ["shop-7", "cloud"],
}
KEYSPACES = [
    {"name": "default", "prefix": "", "ttl_s": 0, **FIGURES},
    {"name": "odd", "prefix": {"base64": "/wo="}, "ttl_s": 60, **FIGURES},
]


@pytest.fixture
def listed(node: FakeNode) -> FakeNode:
    node.keyspaces = KEYSPACES
    return node


def test_a_table_shows_prefixes_as_keys_are_shown(listed: FakeNode, edgekv: Program) -> None:
    ended = edgekv("keyspace", "list")
    assert ended.exit_code == 0
    assert [line.split() for line in ended.text.splitlines()] == [
        ["NAME", "PREFIX", "CONSISTENCY", "CONFLICT", "DURABILITY", "TTL", "SITES"],
        ["default", "(empty)", "crdt", "siblings", "fsync", "none", "shop-7,", "cloud"],
        ["odd", "\\xff\\x0a", "crdt", "siblings", "fsync", "60", "s", "shop-7,", "cloud"],
    ]
    assert listed.requests == ["GET /v1/admin/keyspaces HTTP/1.1"]


def test_json_is_what_the_node_says(listed: FakeNode, edgekv: Program) -> None:
    assert json.loads(edgekv("keyspace", "list", "-o", "json").out) == KEYSPACES


def test_a_server_that_is_no_node_is_said(listed: FakeNode, edgekv: Program) -> None:
    listed.foreign = (200, b"<html>")
    ended = edgekv("keyspace", "list")
    assert (ended.exit_code, ended.out) == (5, b"")
    listed.foreign = (200, b"{}")
    ended = edgekv("keyspace", "list")
    assert (ended.exit_code, ended.out) == (5, b"") and "is this the HTTP listener" in ended.err


def test_a_page_of_a_server_that_offers_choices_is_no_value(listed: FakeNode, edgekv: Program) -> None:
    listed.foreign = (300, b"choose")
    assert edgekv("get", "k").exit_code == 5
