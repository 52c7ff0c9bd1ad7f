"""String commands answer as Redis 7 does. Lines are (command, reply) of a redis-server 7.0.15, unless a test says otherwise."""

import pytest

from tests.unit.api.resp.fake_node import START_MS, Client, FakeNode

SYNTAX = "-ERR syntax error"
NOT_INTEGER = "-ERR value is not an integer or out of range"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("GET a b", "-ERR wrong number of arguments for 'get' command"),
        ("SET a", "-ERR wrong number of arguments for 'set' command"),
        ("SET a b c", SYNTAX),
        ("SET a b EX", SYNTAX),
        ("SET a b EX x", NOT_INTEGER),
        ("SET a b EX 0", "-ERR invalid expire time in 'set' command"),
        ("SET a b EX -1", "-ERR invalid expire time in 'set' command"),
        ("SET a b EX 9223372036854775", "-ERR invalid expire time in 'set' command"),
        ("SET a b PX 9223372036854775807", "-ERR invalid expire time in 'set' command"),
        ("SET a b EX 1 PX 1", SYNTAX),
        ("SET a b KEEPTTL EX 1", SYNTAX),
        ("SET a b EX 1 KEEPTTL", SYNTAX),
        ("SET a b NX XX", SYNTAX),
        ("SET a b PERSIST", SYNTAX),
        ("SETEX a 0 b", "-ERR invalid expire time in 'setex' command"),
        ("SETEX a x b", NOT_INTEGER),
        ("PSETEX a -5 b", "-ERR invalid expire time in 'psetex' command"),
        ("GETEX none EX", SYNTAX),
        ("GETEX none PERSIST EX 1", SYNTAX),
        ("GETEX none KEEPTTL", SYNTAX),
        ("GETEX none NX", SYNTAX),
        ("GETEX none EX 0", None),
        ("GETEX two EX 0", "-ERR invalid expire time in 'getex' command"),
        ("MSET a", "-ERR wrong number of arguments for 'mset' command"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("MGET", "-ERR wrong number of arguments for 'mget' command"),
        ("MGET two none two", [b"2", None, b"2"]),
        ("SETRANGE two -1 b", "-ERR offset is out of range"),
        ("SETRANGE two x b", NOT_INTEGER),
        ("SETRANGE two 536870912 b", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        ("GETRANGE two x y", NOT_INTEGER),
        ("INCR word", NOT_INTEGER),
        ("INCRBY two x", NOT_INTEGER),
        ("INCRBY two 9223372036854775807", "-ERR increment or decrement would overflow"),
        ("DECRBY two -9223372036854775808", "-ERR decrement would overflow"),
        ("DECRBY two 9223372036854775808", NOT_INTEGER),
        ("INCRBYFLOAT two x", "-ERR value is not a valid float"),
        ("INCRBYFLOAT two inf", "-ERR increment would produce NaN or Infinity"),
        ("INCRBYFLOAT two nan", "-ERR value is not a valid float"),
        ("INCRBYFLOAT two 1e5000", "-ERR value is not a valid float"),
        ("SET none x XX", None),
        ("SET none x XX GET", None),
        ("STRLEN none", 0),
        ("STRLEN word", 5),
        ("GETSET none x", None),
        ("GETDEL none", None),
    ],
)
def test_a_command_is_answered_as_by_redis(command: str, reply: object, client: Client) -> None:
    client.ask("SET", "two", "2")
    client.ask("SET", "word", "hello")
    assert client.ask(*command.split()) == reply


def test_set_clears_the_expiry_unless_told_otherwise(client: Client) -> None:
    client.ask("SET", "k", "1", "EX", "100")
    client.ask("SET", "k", "2", "KEEPTTL")
    assert client.ask("TTL", "k") == 100
    client.ask("SET", "k", "3")
    assert client.ask("TTL", "k") == -1


@pytest.mark.parametrize(
    ("options", "expires"),
    [
        ("EX 5", START_MS + 5000),
        ("px 5", START_MS + 5),
        ("EXAT 9999999999", 9_999_999_999_000),
        ("PXAT 9999999999999", 9_999_999_999_999),
        ("EX 1 EX 5", START_MS + 5000),
    ],
)
def test_set_takes_an_expiry_in_four_ways(options: str, expires: int, client: Client) -> None:
    client.ask("SET", "k", "v", *options.split())
    assert client.ask("PEXPIRETIME", "k") == expires


def test_set_get_returns_the_value_before(client: Client) -> None:
    assert client.ask("SET", "k", "1", "GET") is None
    assert client.ask("SET", "k", "2", "GET", "XX") == b"1"
    assert client.ask("GET", "k") == b"2"


@pytest.mark.parametrize("command", ["SET k v NX", "SET k v GET NX", "SETNX k v", "MSETNX k v", "WATCH k"])
def test_what_a_crdt_keyspace_cannot_promise_is_refused_with_the_reason(
    command: str, client: Client, node: FakeNode
) -> None:
    reply = str(client.ask(*command.split()))
    assert reply.startswith("-ERR ") and "refused" in reply and "later release" in reply
    assert not node.operations.values


def test_mset_is_one_call(client: Client, node: FakeNode) -> None:
    assert client.ask("MSET", "a", "1", "b", "2") == b"OK"
    assert node.operations.values == {b"a": b"1", b"b": b"2"}


def test_mget_refuses_a_reply_that_is_too_large(client: Client, node: FakeNode) -> None:
    node.operations.values[b"k"] = b"v" * (1 << 20)
    assert "the reply would exceed" in str(client.ask("MGET", *["k"] * 100))


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        (0, -1, b"hello"),
        (1, 3, b"ell"),
        (-3, -2, b"ll"),
        (-100, 1, b"he"),
        (3, 100, b"lo"),
        (3, 1, b""),
        (-1, -3, b""),
        (100, 200, b""),
        (0, -100, b"h"),
        (-100, -100, b"h"),
    ],
)
def test_getrange_counts_from_either_end(start: int, end: int, part: bytes, client: Client) -> None:
    client.ask("SET", "k", "hello")
    assert client.ask("GETRANGE", "k", start, end) == part
    assert client.ask("GETRANGE", "none", start, end) == b""


def test_setrange_pads_and_an_empty_value_changes_nothing(client: Client, node: FakeNode) -> None:
    assert client.ask("SETRANGE", "k", 5, "") == 0
    assert b"k" not in node.operations.values
    assert client.ask("SETRANGE", "k", 3, "x") == 4
    assert client.ask("GET", "k") == b"\0\0\0x"
    assert client.ask("SETRANGE", "k", 9, "") == 4


def test_getex_changes_the_expiry(client: Client) -> None:
    client.ask("SET", "k", "v")
    assert client.ask("GETEX", "k", "EX", 50) == b"v"
    assert client.ask("TTL", "k") == 50
    assert client.ask("GETEX", "k", "PERSIST") == b"v"
    assert client.ask("TTL", "k") == -1
    assert client.ask("GETEX", "k") == b"v"
    assert client.ask("GETEX", "k", "PXAT", 1) == b"v"
    assert client.ask("EXISTS", "k") == 0


def test_getdel_deletes(client: Client) -> None:
    client.ask("SET", "k", "v")
    assert client.ask("GETDEL", "k") == b"v"
    assert client.ask("GET", "k") is None


def test_counting(client: Client) -> None:
    assert [client.ask("INCR", "n"), client.ask("INCRBY", "n", 10), client.ask("DECR", "n")] == [1, 11, 10]
    assert client.ask("DECRBY", "n", 20) == -10
    assert client.ask("INCRBYFLOAT", "n", "0.5") == b"-9.5"
    assert client.ask("APPEND", "n", "x") == 5
