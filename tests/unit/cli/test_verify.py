"""cluster verify against two fake nodes."""

import json
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace

import pytest

from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode

VECTOR = {"node-aa.1-bb": 7}
OLDER = {"node-aa.1-bb": 6}


def digest(value: str, *, vector: dict[str, int] = VECTOR, moved: bool = False) -> dict[str, object]:
    ranges = [
        {"prefix": "a", "digest": "same", "keys": 1, "first": "a", "last": "a"},
        {"prefix": {"base64": "/w=="}, "digest": value, "keys": 1, "first": "b", "last": "b"},
    ]
    return {
        "keyspace": "default",
        "ttl_ms": 9,
        "moved": moved,
        "vector": vector,
        "vector_after": vector,
        "keys": 2,
        "digest": value,
        "ranges": ranges,
    }


def vectors(vector: dict[str, int], ttl_ms: int = 5) -> dict[str, object]:
    return {"ttl_ms": ttl_ms, "vectors": {"default": vector}}


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeNode, FakeNode]]:
    monkeypatch.setattr("edgekv.cli.verify._PAUSE_S", 0)
    with FakeNode() as one, FakeNode() as two:
        for name, node in (("hub", one), ("edge", two)):
            node.keyspaces = [{"name": "default", "system": False, "sites": []}]
            node.documents = {
                "/v1/status": {"node": name, "site": name, "replication": {"role": name, "links": []}},
                "/v1/admin/vectors": vectors(VECTOR),
                "/v1/admin/digest": digest("d1"),
            }
        yield one, two


def arguments(pair: tuple[FakeNode, FakeNode], *more: str) -> list[str]:
    return ["cluster", "verify", "--http", str(pair[0].http), "--http", str(pair[1].http), *more]


def test_equal_nodes_are_said_to_be_equal(pair: tuple[FakeNode, FakeNode], edgekv: Program) -> None:
    ended = edgekv(*arguments(pair))
    assert ended.exit_code == 0
    lines = ended.text.splitlines()
    assert lines[0].split() == ["KEYSPACE", "NODE", "KEYS", "DIGEST", "VECTOR"]
    assert [line.split()[-3:] for line in lines[1:3]] == [["2", "d1", "node-aa.1-bb:7"]] * 2
    assert lines[-1] == "default: equal."


def test_different_digests_at_equal_vectors_are_an_alarm_that_names_the_ranges(
    pair: tuple[FakeNode, FakeNode], edgekv: Program
) -> None:
    pair[1].documents["/v1/admin/digest"] = digest("d2")
    ended = edgekv(*arguments(pair))
    assert ended.exit_code == 4
    assert "DIFFERENT" in ended.text and 'begin with "\\xff"' in ended.text
    (found,) = json.loads(edgekv(*arguments(pair, "-o", "json")).out)
    assert (found["result"], found["differing"]) == ("different", [{"base64": "/w=="}])


def test_nodes_that_lack_changes_are_waited_for(pair: tuple[FakeNode, FakeNode], edgekv: Program) -> None:
    pair[1].documents["/v1/admin/vectors"] = [vectors(OLDER), vectors(OLDER), vectors(VECTOR, ttl_ms=8)]
    assert edgekv(*arguments(pair)).exit_code == 0
    asked = [request for request in pair[0].requests if "digest" in request]
    assert asked == ["GET /v1/admin/digest?keyspace=default&ttl_ms=8 HTTP/1.1"], "at the time of the furthest"


def test_a_digest_that_was_overtaken_by_a_write_is_asked_for_again(
    pair: tuple[FakeNode, FakeNode], edgekv: Program
) -> None:
    pair[1].documents["/v1/admin/digest"] = [digest("d2", moved=True), digest("d3", vector=OLDER), digest("d1")]
    assert edgekv(*arguments(pair)).exit_code == 0


def test_after_digests_that_took_long_a_time_is_asked_for_that_no_node_purges_beyond_meanwhile(
    pair: tuple[FakeNode, FakeNode], edgekv: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = count()
    monkeypatch.setattr("edgekv.cli.verify.time", SimpleNamespace(monotonic=lambda: next(now_s), sleep=lambda _: None))
    pair[1].documents["/v1/admin/digest"] = [digest("d2", moved=True), digest("d1")]
    assert edgekv(*arguments(pair)).exit_code == 0
    asked = [request for request in pair[0].requests if "digest" in request]
    first, second = (int(request.split("ttl_ms=")[1].split()[0]) for request in asked)
    assert first == 5 and second >= 5 + 2 * 1_000


def test_nodes_that_never_have_the_same_changes_are_not_compared(
    pair: tuple[FakeNode, FakeNode], edgekv: Program
) -> None:
    pair[1].documents["/v1/admin/vectors"] = vectors(OLDER)
    ended = edgekv(*arguments(pair, "--timeout-s", "0.1"))
    assert ended.exit_code == 5
    assert "Pause the writers" in ended.text and "node-aa.1-bb:6" in ended.text
    assert not [request for request in pair[0].requests if "digest" in request]


def test_a_keyspace_is_compared_among_the_nodes_that_hold_it(pair: tuple[FakeNode, FakeNode], edgekv: Program) -> None:
    for node in pair:
        node.keyspaces = [{"name": "default", "system": False, "sites": ["elsewhere"]}]
    ended = edgekv(*arguments(pair))
    assert ended.exit_code == 2 and "no keyspace is held by two" in ended.err


def test_one_node_is_nothing_to_compare(pair: tuple[FakeNode, FakeNode], edgekv: Program) -> None:
    ended = edgekv("cluster", "verify", "--http", str(pair[0].http))
    assert ended.exit_code == 2 and "two nodes" in ended.err
