"""Runs, order, durability and flow control of one connection."""

import pytest

from edgekv.errors import DiskFull, LogFailed, Overloaded, ReadOnly
from edgekv.limits import CONNECTION_INPUT_BYTES_MAX, RESP_HELD_BYTES_MAX, RESP_OUTPUT_HIGH_BYTES, RESP_READ_RUN_KEYS
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode, encode

OK = b"+OK\r\n"


# -- durability and order


def test_a_write_is_not_acknowledged_before_it_is_durable(node: FakeNode, client: Client) -> None:
    assert client.send(("SET", "k", "v")) == b""
    assert node.kicks == 1
    node.flush()
    assert client.replies() == OK


def test_a_read_of_what_is_not_durable_waits_for_it(node: FakeNode, listener: FakeListener, client: Client) -> None:
    client.send(("SET", "k", "v"))
    reader = Client(listener)
    assert reader.send(("GET", "k")) == b""
    assert reader.send(("EXISTS", "k")) == b""
    node.flush()
    assert reader.replies() == b"$1\r\nv\r\n:1\r\n"


def test_a_read_of_durable_data_is_answered_at_once(node: FakeNode, client: Client) -> None:
    client.ask("SET", "k", "v")
    assert client.send(("GET", "k")) == b"$1\r\nv\r\n"


def test_replies_leave_in_order_even_if_a_later_one_could_leave_now(node: FakeNode, client: Client) -> None:
    client.send(("SET", "k", "v"))
    assert client.send(("PING",)) == b""
    assert client.send(("GET", "other")) == b""
    node.flush()
    assert client.replies() == OK + b"+PONG\r\n$-1\r\n"


def test_a_reply_waits_for_the_newest_of_the_frames_before_it(node: FakeNode, client: Client) -> None:
    client.send(("SET", "a", "1"))
    first = node.operations.engine.filling
    node._close_frame()  # it is being written
    client.send(("SET", "b", "2"))
    client.send(("GET", "a"))
    first.done = True
    for waiter, payload in first.waiters:
        waiter.release(payload)
    assert client.replies() == OK
    node.flush()
    assert client.replies() == OK + b"$1\r\n1\r\n"


def test_the_replies_of_a_read_leave_in_one_write(node: FakeNode, client: Client) -> None:
    client.send(("SET", "a", "1"), ("PING",), ("GET", "a"))
    node.flush()
    assert client.transport.written == [OK + b"+PONG\r\n$1\r\n1\r\n"]


def test_after_a_failed_log_the_outcome_is_unknown_and_the_connection_ends(node: FakeNode, client: Client) -> None:
    client.send(("SET", "a", "1"))
    client.send(("SET", "b", "1"))
    node.fail(LogFailed("the log cannot be synced."))
    assert client.replies() == b"-UNKNOWN the log cannot be synced.\r\n"
    assert client.is_closed()
    assert not client.listener.shared.sessions


def test_a_client_that_left_disturbs_nobody(node: FakeNode, listener: FakeListener, client: Client) -> None:
    client.send(("SET", "k", "v"))
    client.connection.connection_lost(None)
    other = Client(listener)
    other.send(("GET", "k"))
    node.flush()
    assert other.replies() == b"$1\r\nv\r\n"
    assert client.replies() == b""


# -- runs


def test_a_run_of_one_verb_is_one_call(node: FakeNode, client: Client) -> None:
    sets = [("SET", f"k{i}", "v") for i in range(20)]
    gets = [("GET", f"k{i}") for i in range(20)]
    client.send(*sets, *gets)
    assert node.operations.calls == [("set_run", 20), ("get_run", 20)]
    node.flush()
    assert client.replies() == OK * 20 + b"$1\r\nv\r\n" * 20


def test_a_run_is_counted_by_one_call_per_keyspace(node: FakeNode, client: Client) -> None:
    client.send(*[("SET", f"k{i}", "v") for i in range(3)])
    client.send(("GET", "k"), ("GET", "room/1"))
    client.send(("get", "k"))
    client.send(("INCR", "k0"))
    assert node.metrics.operations == {
        ("set", "default", "ok"): 3,
        ("get", "default", "ok"): 2,
        ("get", "rooms", "ok"): 1,
        ("incr", "default", "not-a-number"): 1,
    }


def test_a_long_run_of_reads_is_read_in_bounded_parts(node: FakeNode, client: Client) -> None:
    client.send(*[("GET", "k")] * (2 * RESP_READ_RUN_KEYS + 1))
    assert [count for _, count in node.operations.calls] == [RESP_READ_RUN_KEYS, RESP_READ_RUN_KEYS, 1]


def times(node: FakeNode) -> dict[str, int]:
    return {op: histogram.count for op, histogram in node.metrics.op_seconds.items()}


def test_the_time_of_a_payload_is_recorded_for_each_of_its_commands_when_it_leaves(
    node: FakeNode, client: Client
) -> None:
    client.send(*[("SET", f"k{i}", "v") for i in range(16)])
    assert times(node) == {}
    node.flush()
    assert times(node) == {"set": 16}
    client.send(*[("GET", f"k{i}") for i in range(5)])
    assert times(node) == {"set": 16, "get": 5}
    assert node.metrics.op_seconds["set"].total > 0


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([("GET", "k")], {"get": 1}),
        ([("SET", "k", "1")], {"set": 1}),
        ([("INCR", "k")], {"incr": 1}),
        ([("INCR", "k"), ("INCR", "k")], {"incr": 2}),
        ([("PING",), ("GET", "k"), ("GET", "j"), ("SET", "k", "1")], {"mixed": 4}),
        ([("INCR", ""), ("NONE",), ("GET", "k")], {"get": 1}),
        ([("GET",)], {}),
    ],
)
def test_commands_that_succeed_are_timed_by_their_verb_and_mixtures_as_such(
    node: FakeNode, client: Client, commands: list[tuple[str, ...]], expected: dict[str, int]
) -> None:
    client.send(*commands)
    node.flush()
    assert times(node) == expected


def test_a_slow_command_is_timed_to_its_own_reply(node: FakeNode, listener: FakeListener, client: Client) -> None:
    client.send(("PING",), ("DBSIZE",))
    assert times(node) == {"ping": 1}
    client.connection.slow_reply(b":0\r\n", None)
    assert times(node) == {"ping": 1, "dbsize": 1}


def test_commands_without_a_key_have_no_one_keyspace(node: FakeNode, client: Client) -> None:
    client.send(("PING",))
    assert dict(node.metrics.operations) == {("ping", "*", "ok"): 1}


def test_a_read_call_that_answers_for_the_first_keys_only_is_made_again_for_the_others(
    node: FakeNode, client: Client
) -> None:
    node.operations.values = {b"k%d" % i: b"%d" % i for i in range(5)}
    node.operations.values_per_call_max = 2
    keys = [f"k{i}" for i in range(5)]
    assert client.send(*[("GET", key) for key in keys]) == b"".join(b"$1\r\n%d\r\n" % i for i in range(5))
    assert client.ask("MGET", *keys) == [b"%d" % i for i in range(5)]
    assert node.metrics.operations["get", "default", "ok"] == 5


@pytest.mark.parametrize("values", [["a", "b", "c"], ["a", "bb", ""], ["x" * 5000, "y"], ["x" * 5000] * 3])
def test_a_run_of_reads_answers_as_single_reads_do(values: list[str], client: Client) -> None:
    for i, value in enumerate(values):
        client.ask("SET", f"k{i}", value)
    keys = [f"k{i}" for i in range(len(values))]
    single = b"".join(client.send(("GET", key)) for key in keys)
    assert client.send(*[("GET", key) for key in keys]) == single
    assert client.send(*[("GET", key) for key in [*keys, "none"]]) == single + b"$-1\r\n"


def test_a_bad_command_in_a_run_fails_alone(node: FakeNode, client: Client) -> None:
    long_key, large = "k" * 4097, "v" * (node.operations.value_bytes_max + 1)
    client.send(("SET", "a", "1"), ("SET", "b"), ("SET", "c", "1"), ("SET", "", "1"), ("SET", "e", "1"))
    client.send(("SET", "f", "1"), ("SET", long_key, "1"), ("SET", "g", "1"), ("SET", "h", large), ("SET", "i", "1"))
    node.flush()
    replies = client.replies().split(b"\r\n")[:-1]
    assert [reply[:1] for reply in replies] == [b"+", b"-", b"+", b"-", b"+", b"+", b"-", b"+", b"-", b"+"]
    assert replies[1] == b"-ERR wrong number of arguments for 'set' command"
    assert sorted(node.operations.values) == [b"a", b"c", b"e", b"f", b"g", b"i"]


def test_a_refused_run_answers_each_command(node: FakeNode, client: Client) -> None:
    node.operations.refusal = DiskFull("the disk is full.")
    assert client.send(("SET", "a", "1"), ("SET", "b", "1")) == b"-DISKFULL the disk is full.\r\n" * 2
    assert client.send(("SET", "a", "1")) == b"-DISKFULL the disk is full.\r\n"


@pytest.mark.parametrize(
    ("problem", "word"), [(ReadOnly("x"), b"READONLY"), (Overloaded("x"), b"OVERLOADED"), (DiskFull("x"), b"DISKFULL")]
)
def test_a_refusal_begins_with_a_word_of_its_own(
    problem: DiskFull, word: bytes, node: FakeNode, client: Client
) -> None:
    node.operations.refusal = problem
    assert client.send(("INCR", "a")) == b"-%b x\r\n" % word


def test_lower_and_mixed_case_verbs_work(client: Client) -> None:
    assert client.ask("set", "k", "v") == b"OK"
    assert client.ask("Get", "k") == b"v"
    assert client.ask("gEt", "k") == b"v"


# -- protocol errors


def test_commands_before_a_protocol_error_are_carried_out_and_answered_first(node: FakeNode, client: Client) -> None:
    client.feed(encode("SET", "k", "v") + b"*2\r\n$3\r\nGET\r\n:1\r\n" + encode("SET", "k", "w"))
    assert not client.is_closed()
    node.flush()
    assert client.replies() == OK + b"-ERR Protocol error: expected '$', got ':'\r\n"
    assert client.is_closed()
    assert node.operations.values == {b"k": b"v"}


@pytest.mark.parametrize(
    "argument", [b":5\r\n", b",1.5\r\n", b"_\r\n", b"#t\r\n", b"%1\r\n+a\r\n+b\r\n", b"*1\r\n+a\r\n", b"$-1\r\n"]
)
@pytest.mark.parametrize(
    "command", [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n", b"*2\r\n$3\r\nGET\r\n", b"*2\r\n$3\r\nDEL\r\n", b"*1\r\n"]
)
def test_an_argument_that_is_no_string_ends_the_connection_and_stores_nothing(
    command: bytes, argument: bytes, node: FakeNode, client: Client
) -> None:
    reply = client.feed(command + argument)
    assert reply.startswith(b"-ERR Protocol error: ")
    assert client.is_closed()
    assert not node.operations.values
    assert client.listener.shared.protocol_errors == 1


def test_the_same_in_a_run(node: FakeNode, client: Client) -> None:
    bad = b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n:5\r\n"
    client.feed(encode("SET", "a", "1") + bad + encode("SET", "c", "1"))
    node.flush()
    assert client.replies().startswith(OK + b"-ERR Protocol error")
    assert list(node.operations.values) == [b"a"]


def test_nothing_is_processed_after_a_protocol_error(node: FakeNode, client: Client) -> None:
    client.feed(b"*a\r\n")
    assert client.feed(encode("SET", "k", "v")) == b""
    assert not node.operations.values


def test_a_browser_is_hung_up_on(client: Client) -> None:
    assert client.feed(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n") == b""
    assert client.is_closed()


def test_incomplete_commands_of_all_connections_share_a_bound(listener: FakeListener) -> None:
    clients = [Client(listener) for _ in range(6)]
    header = b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % (CONNECTION_INPUT_BYTES_MAX - 100)
    part = b"x" * (CONNECTION_INPUT_BYTES_MAX - 200)
    replies = [client.feed(header, part) for client in clients]
    assert replies[:4] == [b""] * 4
    assert replies[4].startswith(b"-ERR Protocol error: too many bytes")
    small = Client(listener)
    assert small.feed(encode("ECHO", "hello")[:10], encode("ECHO", "hello")[10:]) == b"$5\r\nhello\r\n"
    for client in clients:
        client.connection.connection_lost(None)
    assert listener.shared.input_bytes == 0


# -- back-pressure


def test_a_write_without_room_waits_and_everything_after_it(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    node.operations.engine.write_blocked = True
    other = Client(listener)
    assert client.send(("PING",), ("SET", "k", "v"), ("PING",)) == b"+PONG\r\n"
    assert not client.is_reading()
    assert other.send(("GET", "k"), ("PING",)) == b"$-1\r\n+PONG\r\n"
    assert not node.operations.values
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == OK + b"+PONG\r\n"
    assert client.is_reading()


@pytest.mark.parametrize(
    "command", [("SET", "k", "v"), ("SET", "k", "v", "EX", "5"), ("INCR", "k"), ("DEL", "k"), ("EXPIRE", "k", "1")]
)
def test_every_kind_of_write_waits_for_room(command: list[str], node: FakeNode, client: Client) -> None:
    node.operations.engine.write_blocked = True
    assert client.send(command) == b""
    assert not client.is_reading()
    assert not node.operations.calls


def test_a_connection_that_wakes_without_room_waits_again(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    node.operations.engine.write_blocked = True
    client.send(("SET", "k", "v"))
    listener.make_room()
    assert not client.is_reading()
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == OK


def test_a_waiting_client_that_leaves_is_forgotten(node: FakeNode, listener: FakeListener, client: Client) -> None:
    node.operations.engine.write_blocked = True
    client.send(("SET", "k", "v"))
    client.connection.connection_lost(None)
    node.operations.engine.write_blocked = False
    listener.make_room()
    assert not node.operations.values


def test_a_client_that_takes_nothing_stops_being_served(node: FakeNode, listener: FakeListener, client: Client) -> None:
    client.ask("SET", "k", "v" * 100_000)
    client.transport.stuck = True
    client.send(*[("GET", "k")] * 1000)
    produced = client.transport.untaken
    assert produced < RESP_OUTPUT_HIGH_BYTES + (RESP_READ_RUN_KEYS + 1) * 100_100
    assert not client.is_reading()
    assert Client(listener).send(("PING",)) == b"+PONG\r\n"
    while not client.is_reading():
        client.transport.take_all()
        listener.turn()
    assert len(node.operations.calls) * RESP_READ_RUN_KEYS >= 1000


def test_replies_that_wait_for_a_sync_are_bounded(node: FakeNode, listener: FakeListener, client: Client) -> None:
    client.ask("SET", "k", "v" * 100_000)
    client.send(("SET", "other", "x"))
    for _ in range(100):
        if client.is_reading():
            client.send(*[("GET", "k")] * 5)
    assert not client.is_reading()
    assert client.connection._waiting_bytes < RESP_HELD_BYTES_MAX + 700_000
    node.flush()
    listener.turn()
    assert client.is_reading()


def test_commands_held_back_keep_their_order(node: FakeNode, listener: FakeListener, client: Client) -> None:
    node.operations.engine.write_blocked = True
    client.send(("SET", "k", "1"), ("GET", "k"), ("SET", "k", "2"), ("GET", "k"))
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == OK + b"$1\r\n1\r\n" + OK + b"$1\r\n2\r\n"


def test_a_protocol_error_behind_held_commands_is_told_after_them(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    node.operations.engine.write_blocked = True
    assert client.feed(encode("SET", "k", "v") + b"*a\r\n") == b""
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == OK + b"-ERR Protocol error: invalid multibulk length\r\n"
    assert client.is_closed()


# -- slow commands


def test_a_slow_command_holds_its_connection_only(node: FakeNode, listener: FakeListener, client: Client) -> None:
    client.ask("SET", "k", "v")
    assert client.send(("PING",), ("DBSIZE",), ("PING",)) == b"+PONG\r\n"
    assert not client.is_reading()
    assert Client(listener).send(("PING",)) == b"+PONG\r\n"
    ((connection, slices),) = listener.slow
    while slices.step():
        pass
    connection.slow_reply(slices.reply(), None)
    listener.turn()
    assert client.replies() == b":1\r\n+PONG\r\n"
    assert client.is_reading()


# -- the end of a connection


def test_too_many_connections_are_refused_with_a_sentence(node: FakeNode) -> None:
    listener = FakeListener(node, connections_max=2)
    clients = [Client(listener) for _ in range(3)]
    assert clients[2].replies() == b"-ERR max number of clients reached\r\n"
    assert clients[2].is_closed()
    clients[2].connection.connection_lost(None)
    clients[0].connection.connection_lost(None)
    assert Client(listener).send(("PING",)) == b"+PONG\r\n"
    assert listener.shared.connections_refused == 1


def test_quit_answers_what_came_before_and_drops_what_came_after(node: FakeNode, client: Client) -> None:
    client.send(("SET", "k", "v"), ("QUIT",), ("SET", "k", "w"))
    assert not client.is_closed()
    node.flush()
    assert client.replies() == OK + OK
    assert client.is_closed()
    assert node.operations.values == {b"k": b"v"}


def test_a_client_that_sent_its_last_command_still_gets_the_answers(node: FakeNode, client: Client) -> None:
    client.send(("SET", "k", "v"))
    assert client.connection.eof_received()
    node.flush()
    assert client.replies() == OK
    assert client.is_closed()


def test_a_client_that_ends_with_nothing_to_wait_for_is_closed(client: Client) -> None:
    client.send(("PING",))
    assert not client.connection.eof_received()


def test_finish_answers_what_was_asked_and_closes(node: FakeNode, listener: FakeListener, client: Client) -> None:
    idle = Client(listener)
    client.send(("SET", "k", "v"))
    client.connection.finish()
    idle.connection.finish()
    assert idle.is_closed() and not client.is_closed()
    node.flush()
    assert client.replies() == OK
    assert client.is_closed()


def test_commands_are_counted_once(listener: FakeListener, node: FakeNode, client: Client) -> None:
    client.send(("PING",), ("GET", "k"), ("GET", "k"))
    node.operations.engine.write_blocked = True
    client.send(("PING",), ("SET", "k", "v"), ("PING",))
    assert listener.shared.commands_total == 4
    node.operations.engine.write_blocked = False
    listener.make_room()
    assert listener.shared.commands_total == 6
