"""MULTI and EXEC: one change, nothing half done, nothing kept without bound."""

import pytest

from edgekv.errors import DiskFull
from edgekv.limits import RESP_INPUT_BYTES_TOTAL_MAX, RESP_PAGE_KEYS, RESP_TRANSACTION_ROWS_MAX
from edgekv.metrics import NO_KEYSPACE
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode, encode

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
DISCARDED = "-EXECABORT Transaction discarded because of previous errors."


def test_commands_are_kept_and_carried_out_as_one_change(node: FakeNode, client: Client) -> None:
    reply = client.send(("MULTI",), ("SET", "a", "1"), ("INCR", "a"), ("SADD", "s", "x"), ("GET", "a"))
    assert reply == OK + QUEUED * 4
    assert not node.operations.values
    client.send(("EXEC",))
    node.flush()
    assert client.replies() == b"*4\r\n+OK\r\n:2\r\n:1\r\n$1\r\n2\r\n"
    assert node.operations.changes == 1
    assert node.metrics.operations["set", "default", "ok"] == 1
    assert node.metrics.operations["exec", NO_KEYSPACE, "ok"] == 1


def test_all_of_it_may_come_in_one_read_and_runs_are_kept_too(node: FakeNode, client: Client) -> None:
    client.send(
        *[("SET", "a", "0"), ("MULTI",), ("SET", "a", "1"), ("SET", "b", "2"), ("GET", "a"), ("GET", "b")],
        *[("INCR", "a"), ("INCR", "a"), ("EXEC",), ("GET", "a")],
    )
    node.flush()
    assert client.replies() == (
        OK + OK + QUEUED * 6 + b"*6\r\n+OK\r\n+OK\r\n$1\r\n1\r\n$1\r\n2\r\n:2\r\n:3\r\n" + b"$1\r\n3\r\n"
    )
    assert node.operations.changes == 2


def test_nobody_sees_half_of_it(listener: FakeListener, client: Client) -> None:
    client.send(("MULTI",), ("SET", "a", "1"))
    assert Client(listener).send(("GET", "a")) == b"$-1\r\n"


def test_the_replies_wait_until_the_change_is_durable(node: FakeNode, client: Client) -> None:
    assert client.send(("MULTI",), ("SET", "a", "1"), ("EXEC",)) == b""
    node.flush()
    assert client.replies() == OK + QUEUED + b"*1\r\n+OK\r\n"


def test_discard_forgets(client: Client, node: FakeNode) -> None:
    client.ask("MULTI")
    client.ask("SET", "a", "1")
    assert client.ask("DISCARD") == b"OK"
    assert client.ask("EXEC") == "-ERR EXEC without MULTI"
    assert client.ask("DISCARD") == "-ERR DISCARD without MULTI"
    assert not node.operations.values


def test_exec_with_an_argument_discards(client: Client) -> None:
    client.ask("MULTI")
    assert str(client.ask("EXEC", "x")).startswith("-EXECABORT Transaction discarded because of: wrong number of arg")
    assert client.ask("PING") == b"PONG"


def test_an_empty_transaction_is_an_empty_array_and_no_change(client: Client, node: FakeNode) -> None:
    client.ask("MULTI")
    assert client.ask("EXEC") == []
    assert node.operations.changes == 0


@pytest.mark.parametrize(
    "wrong", [("NONESUCH",), ("GET",), ("SETNX", "a", "1"), ("WATCH", "a"), ("CLIENT", "nonesuch")]
)
def test_a_command_that_is_wrong_when_it_comes_discards_everything(
    wrong: tuple[str, ...], client: Client, node: FakeNode
) -> None:
    client.ask("MULTI")
    client.ask("SET", "a", "1")
    assert str(client.ask(*wrong)).startswith("-ERR ")
    assert client.ask("SET", "b", "1") == b"QUEUED"
    assert client.ask("EXEC") == DISCARDED
    assert not node.operations.values
    assert client.ask("SET", "b", "1") == b"OK"


def test_a_command_that_fails_while_it_runs_leaves_the_others_alone(client: Client, node: FakeNode) -> None:
    for command in (
        ("MULTI",),
        ("SADD", "s", "x"),
        ("INCR", "s"),
        ("INCRBY", "n", "x"),
        ("GET", ""),
        ("SET", "a", "1"),
    ):
        client.ask(*command)
    client.send(("EXEC",))
    node.flush()
    replies = client.replies().split(b"\r\n")[:-1]
    assert [reply[:4] for reply in replies] == [b"*5", b":1", b"-WRO", b"-ERR", b"-ERR", b"+OK"]
    assert node.operations.changes == 1


def test_multi_does_not_nest_and_that_discards_nothing(client: Client) -> None:
    client.ask("MULTI")
    assert client.ask("MULTI") == "-ERR MULTI calls can not be nested"
    client.ask("PING")
    assert client.ask("EXEC") == [b"PONG"]


def test_a_refusal_of_the_node_leaves_nothing_half_done(client: Client, node: FakeNode) -> None:
    client.ask("SET", "a", "0")
    client.send(("MULTI",), ("SET", "a", "1"), ("SADD", "s", "x"))
    node.operations.refusal = DiskFull("the disk is full.")
    assert client.ask("EXEC") == "-EXECABORT Transaction discarded because of: DISKFULL the disk is full."
    node.operations.refusal = None
    assert client.ask("GET", "a") == b"0" and client.ask("EXISTS", "s") == 0


def test_writes_to_two_keyspaces_are_refused_and_nothing_is_done(client: Client, node: FakeNode) -> None:
    client.send(("MULTI",), ("SET", "a", "1"), ("GET", "room/1"), ("SET", "room/1", "1"))
    assert str(client.ask("EXEC")).startswith("-EXECABORT Transaction discarded because of: DENIED ")
    assert not node.operations.values


def test_commands_are_kept_while_there_is_no_room_and_exec_waits(
    client: Client, listener: FakeListener, node: FakeNode
) -> None:
    node.operations.engine.write_blocked = True
    assert client.send(("MULTI",), ("SET", "a", "1")) == OK + QUEUED
    assert client.send(("EXEC",)) == b""
    assert not client.is_reading()
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == b"*1\r\n+OK\r\n"


def test_quit_reset_and_a_lost_connection_end_it(client: Client, listener: FakeListener, node: FakeNode) -> None:
    for end in ("QUIT", "RESET"):
        one = Client(listener)
        assert one.send(("MULTI",), ("SET", "a", "1"), (end,), ("EXEC",)).startswith(OK + QUEUED + b"+")
    client.send(("MULTI",), ("SET", "a", "1"))
    client.connection.connection_lost(None)
    assert not node.operations.values
    assert listener.shared.input_bytes > 0, "the one that sent QUIT is still connected"


def test_what_is_kept_counts_until_it_is_carried_out(client: Client, listener: FakeListener) -> None:
    client.ask("MULTI")
    client.send(("SET", "a", b"v" * 100_000))
    assert listener.shared.input_bytes > 100_000
    client.ask("EXEC")
    assert listener.shared.input_bytes == 0
    client.send(("MULTI",), ("SET", "a", b"v" * 100_000))
    client.connection.connection_lost(None)
    assert listener.shared.input_bytes == 0


def test_above_the_bound_of_all_connections_a_large_transaction_is_refused(
    client: Client, listener: FakeListener
) -> None:
    client.ask("MULTI")
    listener.shared.input_bytes = RESP_INPUT_BYTES_TOTAL_MAX
    for _ in range(10):
        assert client.ask("SET", "a", b"v" * 100_000) == b"QUEUED"
    assert str(client.ask("SET", "a", b"v" * 100_000)).startswith("-OVERLOADED ")
    assert listener.shared.input_bytes == RESP_INPUT_BYTES_TOTAL_MAX
    assert client.ask("EXEC") == DISCARDED


def test_too_many_commands_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekv.api.resp.transactions.RESP_TRANSACTION_COMMANDS_MAX", 3)
    assert client.send(("MULTI",), *[("PING",)] * 3) == OK + QUEUED * 3
    assert str(client.ask("PING")).startswith("-ERR the transaction has more than")
    assert client.ask("EXEC") == DISCARDED


def test_a_large_set_is_read_at_once_and_a_huge_one_is_not(
    client: Client, listener: FakeListener, node: FakeNode
) -> None:
    node.operations.collections[b"large"] = {b"%d" % i for i in range(5 * RESP_PAGE_KEYS)}
    client.send(("MULTI",), ("SMEMBERS", "large"), ("FLUSHDB",))
    reply = client.send(("EXEC",))
    node.flush()
    assert (reply + client.replies()).startswith(b"*2\r\n*5000\r\n")
    assert not node.operations.collections and not listener.slow
    monkeyed = {b"%06d" % i for i in range(RESP_TRANSACTION_ROWS_MAX + RESP_PAGE_KEYS)}
    node.operations.collections[b"huge"] = monkeyed
    client.send(("MULTI",), ("SET", "a", "1"), ("SMEMBERS", "huge"))
    assert str(client.ask("EXEC")).startswith("-EXECABORT Transaction discarded because of: ERR its commands read")
    assert client.ask("EXISTS", "a") == 0


@pytest.mark.parametrize(
    "command",
    [
        ("SRANDMEMBER", "s"),
        ("SPOP", "s"),
        ("SINTERCARD", "2", "s", "s"),
        ("SSCAN", "s", "0", "COUNT", "1000"),
        ("SCAN", "0", "COUNT", "1000"),
        ("HRANDFIELD", "h"),
        ("HVALS", "h"),
        ("KEYS", "*"),
    ],
)
def test_what_the_commands_of_one_exec_look_at_is_bounded_in_all(
    command: tuple[str, ...], client: Client, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.api.resp.transactions.RESP_TRANSACTION_ROWS_MAX", 20 * RESP_PAGE_KEYS)
    members = [b"%d" % i for i in range(RESP_PAGE_KEYS)]
    node.operations.collections |= {b"s": set(members), b"h": dict.fromkeys(members, b"v")}
    node.operations.values |= dict.fromkeys(members, b"v")
    for times, fits in ((6, True), (40, False)):
        client.send(("MULTI",), *[command] * times)
        reply = client.ask("EXEC")
        assert str(reply).startswith("-EXECABORT Transaction discarded because of: ERR its commands read") is not fits


def test_small_reads_are_as_many_as_an_exec_can_have(
    client: Client, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.api.resp.transactions.RESP_TRANSACTION_ROWS_MAX", 100)
    node.operations.collections[b"s"] = {b"%d" % i for i in range(10)}
    client.send(("MULTI",), *[("SMEMBERS", "s"), ("SRANDMEMBER", "s"), ("GET", "s")] * 100)
    assert client.send(("EXEC",)).startswith(b"*300\r\n")


def test_replies_that_memory_cannot_hold_discard_everything(
    client: Client, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.api.resp.transactions.CONNECTION_OUTPUT_BYTES_MAX", 1000)
    client.send(("MULTI",), ("SET", "a", "v" * 600), ("GET", "a"), ("GET", "a"))
    assert str(client.ask("EXEC")).startswith(
        "-EXECABORT Transaction discarded because of: ERR the replies would exceed"
    )
    assert not node.operations.values


def test_an_argument_that_is_no_string_ends_the_connection_and_the_transaction(client: Client, node: FakeNode) -> None:
    client.feed(encode("MULTI") + encode("SET", "a", "1") + b"*2\r\n$3\r\nGET\r\n:1\r\n" + encode("EXEC"))
    assert client.is_closed()
    assert not node.operations.values
