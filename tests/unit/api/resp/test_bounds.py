"""What all connections of a listener may keep in memory together: commands that wait, and replies that nobody takes."""

from itertools import count

import hiredis
import pytest

from edgekv.api.resp import protocol
from edgekv.limits import (
    MIB,
    RESP_INPUT_BYTES_TOTAL_MAX,
    RESP_OUTPUT_BYTES_TOTAL_MAX,
    RESP_TURN_MS,
    RESP_WRITE_RUN_COMMANDS,
)
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode, encode

_VALUE = b"v" * (3 * MIB)


@pytest.fixture
def node() -> FakeNode:
    node = FakeNode()
    node.operations.value_bytes_max = len(_VALUE)
    return node


def test_commands_that_wait_for_room_count_until_they_are_processed(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    node.operations.engine.write_blocked = True
    client.feed(encode("SET", "k", _VALUE))
    assert listener.shared.input_bytes >= len(_VALUE)
    node.operations.engine.write_blocked = False
    listener.make_room()
    assert listener.shared.input_bytes == 0
    node.flush()
    assert client.replies() == b"+OK\r\n"


def test_above_the_bound_a_large_command_that_would_wait_ends_its_connection_only(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    node.operations.engine.write_blocked = True
    listener.shared.input_bytes = RESP_INPUT_BYTES_TOTAL_MAX
    small = Client(listener)
    small.feed(encode("SET", "small", "v"))
    assert client.feed(encode("SET", "k", _VALUE)).startswith(b"-ERR Protocol error: too many bytes")
    assert client.is_closed() and not small.is_closed()
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert small.replies() == b"+OK\r\n" and b"k" not in node.operations.values
    client.connection.connection_lost(None)
    assert listener.shared.input_bytes == RESP_INPUT_BYTES_TOTAL_MAX


def test_bytes_sent_one_by_one_count_once(listener: FakeListener, client: Client) -> None:
    client.feed(*([b"x"] * 3000))  # a line without its end
    assert listener.shared.input_bytes == 3000


def test_replies_that_a_client_does_not_take_count_until_it_does(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    client.ask("SET", "k", _VALUE)
    client.transport.stuck = True
    client.send(("GET", "k"))
    assert listener.shared.output_bytes >= len(_VALUE)
    client.transport.take_all()
    assert listener.shared.output_bytes == 0


def test_above_the_bound_a_client_that_takes_nothing_is_cut_off_and_its_share_is_given_back(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    client.ask("SET", "k", _VALUE)
    client.ask("SET", "small", b"v" * (MIB // 2))
    listener.shared.output_bytes = RESP_OUTPUT_BYTES_TOTAL_MAX
    small = Client(listener)
    for one, key in ((client, "k"), (small, "small")):
        one.transport.stuck = True
        one.send(("GET", key))
    assert client.is_closed() and not small.is_closed()
    small.connection.connection_lost(None)
    assert listener.shared.output_bytes == RESP_OUTPUT_BYTES_TOTAL_MAX


def test_a_writer_that_comes_while_others_wait_for_room_waits_behind_them(
    node: FakeNode, listener: FakeListener
) -> None:
    node.operations.engine.write_blocked = True
    first, second, third = Client(listener), Client(listener), Client(listener)
    first.feed(encode("SET", "first", "v"))
    second.feed(encode("SET", "second", "v"))
    node.operations.engine.write_blocked = False
    third.feed(encode("SET", "third", "v"))
    assert list(node.operations.values) == []
    listener.make_room()
    assert list(node.operations.values) == [b"first", b"second", b"third"]
    third.feed(encode("SET", "third", "w"))
    node.flush()
    assert third.replies() == b"+OK\r\n+OK\r\n"


@pytest.mark.parametrize("command", [("GET", "k"), ("STRLEN", "k"), ("INCR", "n"), ("SADD", "s", "m")])
def test_a_pipeline_of_dear_commands_gives_the_loop_back_and_goes_on_in_its_next_turn(
    command: tuple[str, ...], node: FakeNode, listener: FakeListener, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes each, half a millisecond each: a number of thousands of digits, many such in one read."""
    clock = count(0, 2 * RESP_TURN_MS * 1_000_000)
    monkeypatch.setattr(protocol, "perf_counter_ns", lambda: next(clock))
    sent = 3 * RESP_WRITE_RUN_COMMANDS
    answered = client.send(*[command] * sent)
    assert not client.is_reading()
    turns = 0
    while not client.is_reading():
        node.flush()
        listener.turn()
        turns += 1
    node.flush()
    assert turns > 2 and client.is_reading()
    reader = hiredis.Reader()
    reader.feed(answered + client.replies())
    replies = [reader.gets() for _ in range(sent)]
    assert all(reply is not False for reply in replies) and reader.gets() is False, "each is answered once"
    assert command[0] != "INCR" or replies == list(range(1, sent + 1)), "in the order of the commands"
