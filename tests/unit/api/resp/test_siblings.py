"""EDGEKV.SIBLINGS: what is asked, what is answered, and what waits."""

import pytest

from tests.unit.api.resp.fake_node import START_MS, Client, FakeNode


def test_all_values_come_with_the_context_to_write_with(node: FakeNode, client: Client) -> None:
    assert client.ask("EDGEKV.SIBLINGS", "GET", "k") == [b"c", []]
    for value in (b"a", b"\xff\r\n"):
        assert client.ask("EDGEKV.SIBLINGS", "PUT", "k", "c", value) == b"OK"
    assert client.ask("edgekv.siblings", "get", "k") == [b"c,1,2", [b"\xff\r\n", b"a"]]
    assert client.ask("EDGEKV.SIBLINGS", "PUT", "k", "c,1,2", "joined") == b"OK"
    assert client.ask("EDGEKV.SIBLINGS", "GET", "k") == [b"c,3", [b"joined"]]
    assert client.ask("EDGEKV.SIBLINGS", "DEL", "k", "c,3") == 1
    assert client.ask("EDGEKV.SIBLINGS", "DEL", "k", "c,3") == 0
    assert node.metrics.operations["edgekv.siblings|put", "default", "ok"] == 3


@pytest.mark.parametrize(
    ("words", "expiry_ms"),
    [("", 0), ("PX 1500", START_MS + 1500), ("ex 2", START_MS + 2000), ("PXAT 99", 99), ("EXAT 9", 9000)],
)
def test_a_value_may_expire(node: FakeNode, client: Client, words: str, expiry_ms: int) -> None:
    assert client.ask("EDGEKV.SIBLINGS", "PUT", "k", "c", "v", *words.split()) == b"OK"
    assert node.operations.siblings.expiries == [expiry_ms]


@pytest.mark.parametrize("words", ["PX", "PX 1 EX 1", "NX", "KEEPTTL", "PX 0", "PX x", "FOO 1"])
def test_an_option_that_makes_no_sense_is_refused(node: FakeNode, client: Client, words: str) -> None:
    answer = client.ask("EDGEKV.SIBLINGS", "PUT", "k", "c", "v", *words.split())
    assert str(answer).startswith("-ERR") and not node.operations.siblings.values


def test_what_is_no_context_is_an_error_that_says_what_to_do(client: Client) -> None:
    answer = client.ask("EDGEKV.SIBLINGS", "PUT", "k", b"\xff", "v")
    assert str(answer).startswith("-ERR the context is not one that a read returned")


def test_the_reply_to_a_put_waits_until_it_is_durable(node: FakeNode, client: Client) -> None:
    assert client.send(["EDGEKV.SIBLINGS", "PUT", "k", "c", "v"]) == b""
    node.flush()
    assert client.replies() == b"+OK\r\n"


def test_help_names_the_subcommands(client: Client) -> None:
    lines = client.ask("EDGEKV.SIBLINGS", "HELP")
    assert isinstance(lines, list) and all(word in lines for word in (b"GET", b"PUT", b"DEL"))
