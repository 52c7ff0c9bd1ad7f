"""cluster status, members and conflicts against a fake node."""

import json
import re
from typing import Any

import pytest

from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode

MEMBERS = [
    {"name": "edge-7", "site": "shop-7", "role": "edge", "state": "open", "actor": "node-aa.1-bb", "silent_s": 3},
    {"name": "hub", "site": "cloud", "role": "hub", "state": "open", "actor": "node-cc.1-dd", "silent_s": 0},
]
LINK = {
    "peer": "edge-7",
    "site": "shop-7",
    "role": "edge",
    "phase": "data",
    "outgoing": False,
    "lag_changes": 0,
    "lag_seconds": 0.0,
    "skew_ms": 12,
    "silent_ms": 400,
    "since_ms": 0,
    "sent_bytes": 100,
    "received_bytes": 3 << 20,
    "sent_changes": 1,
    "received_changes": 1,
    "unacknowledged_bytes": 0,
}
REFUSAL = {"by": "hub", "stamps_ahead_ms": 259_200_000}
REPLICATION: dict[str, Any] = {
    "cluster": "00",
    "role": "hub",
    "member": True,
    "leads": True,
    "meta_revision": 9,
    "stable": 3,
    "members": MEMBERS,
    "links": [LINK],
    "unlinked": [],
    "late_writes": [],
    "events": [],
    "repairs": {"under_way": None, "failure": None, "done": []},
    "aside": [],
    "refused_stamps": None,
}


def show(node: FakeNode, **changed: object) -> None:
    """Figures of the node itself, too."""
    own = {name: changed.pop(name) for name in ("disk_full", "read_only") if name in changed}
    status: dict[str, Any] = {"node": "hub", "site": "cloud", "replication": {**REPLICATION, **changed}}
    node.documents["/v1/status"] = status | own


def test_a_healthy_cluster_is_said_to_be_well(node: FakeNode, edgekv: Program) -> None:
    show(node)
    ended = edgekv("cluster", "status")
    assert ended.exit_code == 0
    lines = ended.text.splitlines()
    assert lines[0] == "hub (hub at cloud, which leads), meta revision 9, stable 3"
    assert "edge-7  shop-7  data   nothing       100 B  3.0 MiB   +0.0 s  0.4 s" in lines
    assert lines[-1] == "All is well."


def test_who_is_silent_or_parked_is_said_to_be(node: FakeNode, edgekv: Program) -> None:
    away = {**MEMBERS[0], "silent_s": 3 * 86_400}
    show(node, members=[{**away, "name": "edge-8", "state": "parked", "silent_s": 0}, away, MEMBERS[1]])
    text = edgekv("cluster", "status").text
    assert "edge-7  shop-7  edge  open, silent for 3 days" in text
    assert "edge-8 (shop-7) is parked" in text


def test_what_came_late_is_said(node: FakeNode, edgekv: Program) -> None:
    late = {"name": "edge-7", "actor": "node-aa.1-bb", "keyspace": "rooms", "first": 3, "last": 13, "changes": 11}
    show(node, late_writes=[late])
    assert "edge-7 brought 11 changes of rooms when it came back" in edgekv("cluster", "status").text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"member": False, "links": []}, "has to reach a hub once"),
        ({"member": False}, "it is linked, and waits to be admitted"),
        ({"member": False, "disk_full": True}, "disk of this node is full"),
        ({"disk_full": True}, "disk of this node is full"),
        (
            {"read_only": "the log is damaged. Salvage it."},
            "is read-only, and takes nothing in: the log is damaged. Salvage it.",
        ),
        ({"members": [], "links": []}, "edgekv serve --upstream"),
        ({"role": "edge", "links": []}, "what is written here stays here"),
        (
            {"unlinked": [{"name": "e", "site": "s", "lag_changes": 1, "lag_seconds": 7200}]},
            "has lacked 1 change for 2 h",
        ),
        ({"unlinked": [{"name": "e", "site": "s", "lag_changes": 0, "lag_seconds": 0}]}, "it lacks nothing"),
        ({"links": [{**LINK, "lag_changes": 5, "lag_seconds": 31.0}]}, "behind by 5 changes for 31 s"),
        ({"links": [{**LINK, "skew_ms": -90_000}]}, "clock of edge-7 is 90 s behind"),
        ({"refused_stamps": {**REFUSAL, "clock_ahead_ms": 259_200_000}}, "Its clock is 3 days ahead. Set it"),
        ({"refused_stamps": {**REFUSAL, "clock_ahead_ms": 500}}, "Its clock is right again"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    node: FakeNode, edgekv: Program, changed: dict[str, object], said: str
) -> None:
    show(node, **changed)
    text = edgekv("cluster", "status").text
    assert said in text and "All is well" not in text
    assert "has to reach a hub" not in text or said == "has to reach a hub once", "no advice that leads astray"


def test_what_went_wrong_on_links_is_shown_with_its_time(node: FakeNode, edgekv: Program) -> None:
    show(node, events=[{"wall_ms": 1_700_000_000_000, "sentence": "edge-7: said nothing"}])
    last = edgekv("cluster", "status").text.splitlines()[-1]
    assert last.startswith("  2023-11-1") and last.endswith("edge-7: said nothing")


def test_json_is_what_the_node_says(node: FakeNode, edgekv: Program) -> None:
    show(node)
    found = json.loads(edgekv("cluster", "status", "-o", "json").out)
    assert found == {"node": "hub", "site": "cloud", **REPLICATION}
    assert json.loads(edgekv("cluster", "members", "-o", "json").out) == MEMBERS


def test_members_are_listed(node: FakeNode, edgekv: Program) -> None:
    show(node)
    assert [line.split() for line in edgekv("cluster", "members").text.splitlines()] == [
        ["NAME", "SITE", "ROLE", "STATE", "ACTOR"],
        ["edge-7", "shop-7", "edge", "open", "node-aa.1-bb"],
        ["hub", "cloud", "hub", "open", "node-cc.1-dd"],
    ]
    show(node, members=[])
    assert "no other node yet" in edgekv("cluster", "members").text


def test_a_node_that_knows_no_cluster_is_said(node: FakeNode, edgekv: Program) -> None:
    node.documents["/v1/status"] = {"node": "n"}
    ended = edgekv("cluster", "status")
    assert ended.exit_code == 5 and "says nothing of a cluster" in ended.err


def test_conflicts_are_shown_with_what_was_kept_and_lost(node: FakeNode, edgekv: Program) -> None:
    kept = {"value": None, "value_bytes": 0, "actor": "node-aa.1-bb", "wall_ms": 5_000, "late": False}
    lost = {"value": {"base64": "/w=="}, "value_bytes": 5000, "actor": "node-ee.1-ff", "wall_ms": 4_000, "late": True}
    conflict = {"keyspace": "default", "key": "room", "field": "f", "kept": kept, "discarded": lost}
    node.documents["/v1/admin/conflicts"] = {"totals": {"default": 7}, "conflicts": [conflict]}
    show(node)
    text = edgekv("cluster", "conflicts").text
    assert "default: 7 lost" in text
    assert re.search(
        r"default   room  f      \(deleted\)  edge-7, 1970-01-01 ..:..:05  \\xff... \(5000 bytes\)  "
        r"node-ee.1-ff, 1970-01-01 ..:..:04, late",
        text,
    ), "by the name of the member, where there is one"
    assert "where it is the right one, write it again" in text
    assert json.loads(edgekv("cluster", "conflicts", "-o", "json").out)["totals"] == {"default": 7}
    node.documents["/v1/admin/conflicts"] = {"totals": {}, "conflicts": []}
    assert "No value was lost" in edgekv("cluster", "conflicts").text
