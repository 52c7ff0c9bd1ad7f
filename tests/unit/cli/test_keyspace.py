"""keyspace, and get of a key with several values, against a fake node."""

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
    {"name": "default", "prefix": "", "ttl_s": 0, **FIGURES, "draining": [], "state": "held"},
    {"name": "odd", "prefix": {"base64": "/wo="}, "ttl_s": 60, **FIGURES, "draining": ["old"], "state": "draining"},
]


@pytest.fixture
def listed(node: FakeNode) -> FakeNode:
    node.keyspaces = KEYSPACES
    return node


def test_a_table_shows_prefixes_as_keys_are_shown(listed: FakeNode, edgekv: Program) -> None:
    ended = edgekv("keyspace", "list")
    assert ended.exit_code == 0
    assert [line.split() for line in ended.text.splitlines()] == [
        ["NAME", "PREFIX", "CONSISTENCY", "CONFLICT", "DURABILITY", "TTL", "SITES", "HERE"],
        ["default", "(empty)", "crdt", "siblings", "fsync", "none", "shop-7,", "cloud", "yes"],
        [
            "odd",
            "\\xff\\x0a",
            "crdt",
            "siblings",
            "fsync",
            "60",
            "s",
            "shop-7,",
            "cloud,",
            "old",
            "(draining)",
            "draining",
        ],
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


@pytest.mark.parametrize(
    ("arguments", "request_line", "said"),
    [
        (
            ("create", "rooms", "--prefix", "r m/", "--sites", "a,b", "--conflict", "siblings"),
            "PUT /v1/admin/keyspaces?keyspace=rooms&prefix=r%20m%2F&sites=a%2Cb&conflict=siblings HTTP/1.1",
            "created: rooms",
        ),
        (("add-site", "rooms", "c"), "PUT /v1/admin/sites?keyspace=rooms&site=c HTTP/1.1", "added: rooms is at c"),
        (
            ("remove-site", "rooms", "a"),
            "DELETE /v1/admin/sites?keyspace=rooms&site=a HTTP/1.1",
            "removed: rooms drains at a",
        ),
    ],
)
def test_an_order_is_one_request_and_one_line(
    node: FakeNode, edgekv: Program, arguments: tuple[str, ...], request_line: str, said: str
) -> None:
    node.foreign = (204, b"")
    ended = edgekv("keyspace", *arguments)
    assert (ended.exit_code, ended.text.strip()) == (0, said)
    assert node.requests == [request_line]


@pytest.mark.parametrize("order", [("add-site", "rooms", "c"), ("create", "rooms", "--prefix", "r/", "--sites", "c")])
def test_what_a_node_notes_is_said_beside_that_it_is_done(
    node: FakeNode, edgekv: Program, order: tuple[str, ...]
) -> None:
    node.foreign, node.foreign_headers = (204, b""), {"Edgekv_Note": "no member stands at c yet"}
    ended = edgekv("keyspace", *order)
    assert ended.exit_code == 0 and "no member stands at c yet" in ended.err
    assert "note" not in ended.text


def test_what_the_node_refuses_is_said(node: FakeNode, edgekv: Program) -> None:
    node.problem = (403, {"code": "denied", "detail": "this node does not lead the cluster. Ask 'hub-1'."})
    ended = edgekv("keyspace", "create", "rooms", "--prefix", "rooms/")
    assert ended.exit_code and "Ask 'hub-1'" in ended.err


def test_a_page_of_a_server_that_offers_choices_is_no_value(listed: FakeNode, edgekv: Program) -> None:
    listed.foreign = (300, b"choose")
    assert edgekv("get", "k").exit_code == 5
