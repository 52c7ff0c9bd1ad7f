"""EDGEKV.BATCH: one change, one result each, and a refusal that says which operation it is about."""

import pytest

from edgekv.errors import DiskFull
from edgekv.limits import BATCH_OPERATIONS_MAX
from edgekv.metrics import NO_KEYSPACE
from tests.unit.api.resp.fake_node import START_MS, Client, FakeListener, FakeNode

NOT_AN_INTEGER = "value is not an integer or out of range"


def batch(*words: str | bytes | int) -> list[str | bytes | int]:
    return ["EDGEKV.BATCH", *" ".join(map(str, words)).split()]


def test_each_operation_has_its_result_and_all_are_one_change(node: FakeNode, client: Client) -> None:
    node.operations.values[b"old"] = b"v"
    words = batch("PUT a 1 0 DELETE old DELETE none ADD n 5 ADD n -7 SADD s x SADD s x SREM s y SREM s x")
    words += batch("HSET h f v HSET h f w HADD h n 3 HDEL h f HDEL h none")[1:]
    assert client.ask(*words) == [None, 1, 0, 5, -2, 1, 0, 0, 1, 1, 0, 3, 1, 0]
    assert node.operations.changes == 1
    assert node.operations.values == {b"a": b"1", b"n": b"-2"}
    assert node.operations.collections == {b"h": {b"n": b"3"}}
    assert node.metrics.operations["edgekv.batch", NO_KEYSPACE, "ok"] == 1


def test_arguments_are_any_bytes_and_words_have_any_case(node: FakeNode, client: Client) -> None:
    assert client.ask("edgekv.batch", "put", b"\xff\r\n", b"\x00 PUT", 0, "Delete", "PUT", "add", "0", 1) == [
        None,
        0,
        1,
    ]
    assert node.operations.values == {b"\xff\r\n": b"\x00 PUT", b"0": b"1"}


def test_a_time_to_live_is_in_milliseconds_and_zero_is_none(node: FakeNode, client: Client) -> None:
    assert client.ask(*batch("PUT a 1 1500 PUT b 2 0")) == [None, None]
    assert node.operations.expiries == {b"a": START_MS + 1500, b"b": 0}


def test_null_is_that_of_the_protocol(node: FakeNode, client: Client) -> None:
    client.ask("HELLO", 3)
    client.send(batch("PUT a 1 0 ADD n 1"))
    node.flush()
    assert client.replies() == b"*2\r\n_\r\n:1\r\n"


def test_the_reply_waits_until_the_change_is_durable_and_the_change_for_room(
    node: FakeNode, listener: FakeListener, client: Client
) -> None:
    node.operations.engine.write_blocked = True
    assert client.send(batch("ADD n 1")) == b"" and not node.operations.values
    node.operations.engine.write_blocked = False
    listener.make_room()
    assert client.replies() == b"" and node.operations.values
    node.flush()
    assert client.replies() == b"*1\r\n:1\r\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("ADD n 1 PUT a 1", "operation 1: wrong number of arguments for PUT"),
        ("ADD n 1 delete", "operation 1: wrong number of arguments for DELETE"),
        ("ADD n 1 GET n", "operation 1: a batch has no operation 'GET'. Use one of PUT, DELETE, ADD, SADD, SREM, HSET"),
        ("ADD n 1 ADD n x", f"operation 1: {NOT_AN_INTEGER}"),
        ("ADD n 1 HADD h f 9223372036854775808", f"operation 1: {NOT_AN_INTEGER}"),
        ("ADD n 1 PUT a 1 -1", "operation 1: invalid expire time in 'edgekv.batch' command"),
        ("ADD n 1 PUT a 1 9223372036854775807", "operation 1: invalid expire time in 'edgekv.batch' command"),
        ("ADD n 1 PUT a 1 1s", f"operation 1: {NOT_AN_INTEGER}"),
        ("ADD n 1 ADD text 1", f"operation 1: {NOT_AN_INTEGER}"),
        ("PUT", "wrong number of arguments for 'edgekv.batch' command"),
        ("", "wrong number of arguments for 'edgekv.batch' command"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_happens(words: str, problem: str, node: FakeNode, client: Client) -> None:
    node.operations.values[b"text"] = b"abc"
    assert str(client.ask(*batch(words))).startswith(f"-ERR {problem}")
    assert node.operations.values == {b"text": b"abc"} and not node.operations.changes
    assert client.ask("PING") == b"PONG"


def test_refusals_have_the_words_of_other_commands(node: FakeNode, client: Client) -> None:
    client.ask("SADD", "s", "m")
    changes = node.operations.changes
    wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value"
    assert client.ask(*batch("ADD n 1 ADD s 1")) == wrong_type
    assert str(client.ask(*batch("ADD n 1 ADD room/n 1"))).startswith("-DENIED the keys are in different keyspaces")
    assert client.ask("EDGEKV.BATCH", "ADD", "n", "1", "DELETE", "") == (
        "-ERR operation 1: the key is empty. A key has 1 to 4096 bytes."
    )
    node.operations.refusal = DiskFull("the disk is full.")
    assert client.ask(*batch("ADD n 1")) == "-DISKFULL the disk is full."
    assert node.operations.changes == changes and b"n" not in node.operations.values
    assert node.metrics.operations["edgekv.batch", NO_KEYSPACE, "wrong-type"] == 1


def test_its_length_is_bounded_before_all_of_it_is_read(client: Client) -> None:
    assert client.ask("EDGEKV.BATCH", *["DELETE", "k"] * BATCH_OPERATIONS_MAX) == [0] * BATCH_OPERATIONS_MAX
    reply = client.ask("EDGEKV.BATCH", *["DELETE", "k"] * BATCH_OPERATIONS_MAX, "NONESUCH", "k")
    assert reply == f"-ERR the call has too many operations; the limit is {BATCH_OPERATIONS_MAX}. Split it."


def test_inside_multi_it_is_part_of_the_transaction(node: FakeNode, client: Client) -> None:
    client.ask("SADD", "s", "m")
    changes = node.operations.changes
    for command in (["MULTI"], ["INCR", "n"], batch("ADD n 1 PUT a 1 0"), batch("ADD n 1 ADD s 1"), ["INCR", "n"]):
        client.ask(*command)
    reply = client.ask("EXEC")
    assert isinstance(reply, list) and reply[:2] == [1, [2, None]] and reply[3] == 3
    assert str(reply[2]).startswith("WRONGTYPE")
    assert node.operations.changes == changes + 1


def test_command_tells_of_it(client: Client) -> None:
    flags, categories = [b"write", b"denyoom", b"movablekeys"], [b"@write", b"@transaction", b"@slow"]
    information = [b"edgekv.batch", -3, flags, 0, 0, 0, categories, [], [], []]
    assert client.ask("COMMAND", "INFO", "edgekv.batch") == [information]
    docs = client.ask("COMMAND", "DOCS", "EDGEKV.BATCH")
    assert isinstance(docs, list) and docs[0] == b"edgekv.batch" and b"transactions" in docs[1]
