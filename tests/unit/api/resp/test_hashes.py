"""The hash commands answer as Redis 7 does. (tests/integration/test_resp_differential.py asks a real one.)"""

from typing import cast

import pytest

from edgekv.limits import RESP_PAGE_KEYS, RESP_PAGES_AT_ONCE
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode, decode

WRONG = "-WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "-ERR syntax error"
NOT_INTEGER = "-ERR value is not an integer or out of range"
LARGE = (RESP_PAGES_AT_ONCE + 1) * RESP_PAGE_KEYS + 7
FIELDS = {b"f%06d" % i: b"v%d" % i for i in range(LARGE)}


@pytest.fixture(autouse=True)
def filled(node: FakeNode) -> None:
    node.operations.values = {b"string": b"1"}
    node.operations.collections = {
        b"h": {b"a": b"1", b"b": b"hello", b"big": b"9223372036854775807"},
        b"one": {b"f": b"v"},
        b"set": {b"m"},
        b"large": dict(FIELDS),
    }


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("HSET h a 2 c 3 c 4", 1),
        ("HSET h a", "-ERR wrong number of arguments for 'hset' command"),
        ("HSET h a 1 b", "-ERR wrong number of arguments for 'hset' command"),
        ("HMSET h a 1 c 2", b"OK"),
        ("HMSET h a 1 b", "-ERR wrong number of arguments for 'hmset' command"),
        ("HSETNX h a 2", 0),
        ("HSETNX new a 2", 1),
        ("HGET h a", b"1"),
        ("HGET h z", None),
        ("HGET none z", None),
        ("HMGET h a z a", [b"1", None, b"1"]),
        ("HMGET none a", [None]),
        ("HDEL h a a z", 1),
        ("HEXISTS h a", 1),
        ("HEXISTS none a", 0),
        ("HLEN h", 3),
        ("HLEN none", 0),
        ("HSTRLEN h b", 5),
        ("HSTRLEN h z", 0),
        ("HGETALL one", [b"f", b"v"]),
        ("HGETALL none", []),
        ("HKEYS one", [b"f"]),
        ("HVALS one", [b"v"]),
        ("HKEYS none", []),
        ("HINCRBY h a 5", 6),
        ("HINCRBY h c -5", -5),
        ("HINCRBY h b 1", "-ERR hash value is not an integer"),
        ("HINCRBY h a x", NOT_INTEGER),
        ("HINCRBY h big 1", "-ERR increment or decrement would overflow"),
        ("HINCRBY string a x", NOT_INTEGER),
        ("HINCRBYFLOAT h a 0.5", b"1.5"),
        ("HINCRBYFLOAT h b 1", "-ERR hash value is not a float"),
        ("HINCRBYFLOAT h a x", "-ERR value is not a valid float"),
        ("HINCRBYFLOAT h a inf", "-ERR value is NaN or Infinity"),
        ("HSCAN h 0 MATCH b*", [b"0", [b"b", b"hello", b"big", b"9223372036854775807"]]),
        ("HSCAN h 0 COUNT x", NOT_INTEGER),
        ("HSCAN h 0 NOVALUES", SYNTAX),
        ("HSCAN none 0 COUNT x", [b"0", []]),
        ("HSCAN h x", "-ERR invalid cursor"),
        ("HRANDFIELD one", b"f"),
        ("HRANDFIELD none", None),
        ("HRANDFIELD one 5", [b"f"]),
        ("HRANDFIELD one -2 WITHVALUES", [b"f", b"v", b"f", b"v"]),
        ("HRANDFIELD one 0", []),
        ("HRANDFIELD none 2 WITHVALUES", []),
        ("HRANDFIELD one 1 FOO", SYNTAX),
        ("HRANDFIELD one 1 WITHVALUES x", SYNTAX),
        ("HRANDFIELD one x", NOT_INTEGER),
        ("HRANDFIELD one 4611686018427387904 WITHVALUES", "-ERR value is out of range"),
        ("TYPE h", b"hash"),
        ("SCAN 0 TYPE HASH MATCH [ho]*", [b"0", [b"h", b"one"]]),
    ],
)
def test_a_command_is_answered_as_by_redis(command: str, reply: object, client: Client) -> None:
    assert client.ask(*command.split()) == reply


@pytest.mark.parametrize("key", ["string", "set"])
@pytest.mark.parametrize(
    "command",
    [
        *("HSET {} a 1", "HMSET {} a 1", "HSETNX {} a 1", "HGET {} a", "HMGET {} a", "HDEL {} a", "HEXISTS {} a"),
        *("HLEN {}", "HSTRLEN {} a", "HGETALL {}", "HKEYS {}", "HVALS {}", "HINCRBY {} a 1", "HINCRBYFLOAT {} a 1"),
        *("HSCAN {} 0", "HRANDFIELD {}", "HRANDFIELD {} 0"),
    ],
)
def test_a_key_of_another_type_is_told_by_every_command(command: str, key: str, client: Client, node: FakeNode) -> None:
    assert client.ask(*command.format(key).split()) == WRONG
    assert node.operations.changes == 0


def test_in_protocol_3_maps_are_maps_and_fields_with_values_are_pairs(client: Client) -> None:
    client.send(("HELLO", "3"))
    assert client.send(("HGETALL", "one")) == b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n"
    assert client.send(("HKEYS", "one")) == b"*1\r\n$1\r\nf\r\n"
    assert client.send(("HRANDFIELD", "one", 2, "WITHVALUES")) == b"*1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    assert client.send(("HMGET", "one", "f", "z")) == b"*2\r\n$1\r\nv\r\n_\r\n"


@pytest.mark.parametrize("command", ["HGETALL", "HKEYS", "HVALS", "HRANDFIELD"])
def test_a_large_map_is_read_in_slices(command: str, client: Client, listener: FakeListener) -> None:
    client.send((command, "large", *([9999] if command == "HRANDFIELD" else [])))
    ((connection, slices),) = listener.slow
    while slices.step():
        pass
    connection.slow_reply(slices.reply(), None)
    listener.turn()
    reply = cast("list[bytes]", decode(client.replies()))
    if command == "HGETALL":
        assert dict(zip(reply[::2], reply[1::2], strict=True)) == FIELDS
    else:
        assert sorted(reply) == sorted(FIELDS.values() if command == "HVALS" else FIELDS)


def test_values_that_come_in_parts_are_asked_for_until_all_are_there(client: Client, node: FakeNode) -> None:
    node.operations.maps.values_per_call_max = 1
    assert client.ask("HMGET", "h", "a", "z") == [b"1", None]


def test_hscan_passes_each_field_once(client: Client) -> None:
    found: list[bytes] = []
    cursor = 0
    while True:
        following, some = cast("tuple[bytes, list[bytes]]", client.ask("HSCAN", "large", cursor, "COUNT", 900))
        found += some
        cursor = int(following)
        if not cursor:
            break
    assert dict(zip(found[::2], found[1::2], strict=True)) == FIELDS and len(found) == 2 * LARGE
