"""bench against a fake node: what it counts, and how it ends when the node does not play along."""

import json

import pytest

from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode

LOAD = ("--requests", "100", "--pipeline", "7", "--connections")


def test_every_request_is_sent_and_counted(node: FakeNode, edgekv: Program) -> None:
    ended = edgekv("bench", *LOAD, "1", "--test", "set", "--test", "incr", "-o", "json")
    assert ended.exit_code == 0, ended.err
    assert [(found["test"], found["requests"]) for found in json.loads(ended.out)] == [("set", 100), ("incr", 100)]
    assert node.commands == 200


def test_the_http_port_is_said_to_be_the_wrong_one(node: FakeNode, edgekv: Program) -> None:
    ended = edgekv("bench", *LOAD, "3", "--resp", str(node.http))
    assert (ended.exit_code, ended.err.count("\n")) == (5, 1)
    assert "does not speak the Redis protocol: give the node's RESP listener with --resp" in ended.err


@pytest.mark.parametrize(
    ("answer", "exit_code", "said"),
    [(b"-DISKFULL the disk is full\r\n", 5, "the disk is full"), (b"", 7, "the connection to")],
)
def test_a_node_that_stops_answering_ends_it_with_one_line(
    node: FakeNode, edgekv: Program, answer: bytes, exit_code: int, said: str
) -> None:
    node.answer = lambda number, arguments: answer if number > 50 else None
    ended = edgekv("bench", *LOAD, "3")
    assert (ended.exit_code, ended.err.count("\n")) == (exit_code, 1)
    assert said in ended.err and "the test is not complete" in ended.err
