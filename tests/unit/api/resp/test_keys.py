"""Commands on keys and their expiry answer as Redis 7 does."""

from collections.abc import Callable, Sequence

import pytest

from edgekv.errors import TooLarge
from edgekv.limits import RESP_PAGE_KEYS
from tests.unit.api.resp.fake_node import START_MS, Client, FakeListener, FakeNode, decode

SYNTAX = "-ERR syntax error"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("EXPIRE k x", "-ERR value is not an integer or out of range"),
        ("EXPIRE k 1 FOO", "-ERR Unsupported option FOO"),
        ("EXPIRE k 1 NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 GT LT", "-ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k 9223372036854775", "-ERR invalid expire time in 'expire' command"),
        ("PEXPIRE k 9223372036854775807", "-ERR invalid expire time in 'pexpire' command"),
        ("EXPIREAT k -9223372036854775808", "-ERR invalid expire time in 'expireat' command"),
        ("PEXPIREAT k 9223372036854775807", 1),
        ("EXPIRE none 10", 0),
        ("PERSIST k", 0),
        ("PERSIST none", 0),
        ("TTL k", -1),
        ("TTL none", -2),
        ("PTTL none", -2),
        ("EXPIRETIME none", -2),
        ("PEXPIRETIME k", -1),
        ("TYPE k", b"string"),
        ("TYPE none", b"none"),
        ("EXISTS k k none", 2),
        ("TOUCH k k none", 2),
        ("DEL k k none", 1),
        ("UNLINK k none", 1),
        ("DEL", "-ERR wrong number of arguments for 'del' command"),
        ("RENAME none x", "-ERR no such key"),
        ("RENAME k x", b"OK"),
        ("SCAN x", "-ERR invalid cursor"),
        ("SCAN 0 COUNT", SYNTAX),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range"),
        ("SCAN 0 FOO x", SYNTAX),
        ("SCAN 0 TYPE list", [b"0", []]),
        ("SCAN 0 TYPE STRING", [b"0", [b"k"]]),
        ("SCAN 0 MATCH x*", [b"0", []]),
        ("FLUSHDB x", SYNTAX),
        ("FLUSHALL ASYNC x", SYNTAX),
        ("RANDOMKEY", b"k"),
    ],
)
def test_a_command_is_answered_as_by_redis(command: str, reply: object, client: Client) -> None:
    client.ask("SET", "k", "v")
    assert client.ask(*command.split()) == reply


@pytest.mark.parametrize("command", ["GET", "SET", "DEL", "EXISTS", "TTL", "TYPE", "MSET"])
@pytest.mark.parametrize(("key", "words"), [("", "the key is empty"), ("k" * 4097, "the limit is 4096")])
def test_a_key_out_of_bounds_is_refused_by_every_command(command: str, key: str, words: str, client: Client) -> None:
    value = ["v"] if command in ("SET", "MSET") else []
    assert words in str(client.ask(command, key, *value))


@pytest.mark.parametrize(
    ("before", "condition", "wanted", "changed"),
    [
        (0, "NX", 50, True),
        (100, "NX", 50, False),
        (0, "XX", 50, False),
        (100, "XX", 50, True),
        (0, "GT", 50, False),
        (100, "GT", 50, False),
        (100, "GT", 100, False),
        (100, "GT", 150, True),
        (0, "LT", 50, True),
        (100, "LT", 50, True),
        (100, "LT", 150, False),
        (0, "XX LT", 50, False),
        (100, "xx gt", 150, True),
    ],
)
def test_an_expiry_changes_only_under_its_condition(
    before: int, condition: str, wanted: int, changed: bool, client: Client
) -> None:
    client.ask("SET", "k", "v")
    if before:
        client.ask("EXPIRE", "k", before)
    assert client.ask("EXPIRE", "k", wanted, *condition.split()) == changed
    assert client.ask("TTL", "k") == (wanted if changed else before or -1)


@pytest.mark.parametrize(
    "command", [("EXPIRE", -1), ("PEXPIRE", 0), ("EXPIREAT", 1), ("EXPIREAT", 0), ("PEXPIREAT", -5)]
)
def test_an_expiry_in_the_past_deletes(command: tuple[str, int], client: Client) -> None:
    client.ask("SET", "k", "v")
    assert client.ask(command[0], "k", command[1]) == 1
    assert client.ask("GET", "k") is None


def test_times_are_rounded_as_redis_rounds_them(client: Client, node: FakeNode) -> None:
    client.ask("SET", "k", "v", "PX", 1499)
    assert client.ask("PTTL", "k") == 1499
    assert client.ask("TTL", "k") == 1
    assert client.ask("PEXPIRETIME", "k") == START_MS + 1499
    node.operations.now += 999
    assert client.ask("TTL", "k") == 1
    assert client.ask("PTTL", "k") == 500


def test_scan_visits_every_key_once(client: Client, node: FakeNode) -> None:
    node.operations.values = {b"k%d" % i: b"v" for i in range(57)}
    found: list[object] = []
    cursor: object = b"0"
    while True:
        assert isinstance(cursor, bytes)
        reply = client.ask("SCAN", cursor, "COUNT", 7)
        assert isinstance(reply, list)
        cursor, page = reply
        found += page
        if cursor == b"0":
            break
    assert sorted(map(str, found)) == sorted(map(str, node.operations.values))


def test_scan_with_a_pattern_reads_only_below_its_prefix(client: Client, node: FakeNode) -> None:
    node.operations.values = dict.fromkeys([b"a1", b"b1", b"b2", b"b3x", b"c1"], b"v")
    assert client.ask("SCAN", 0, "MATCH", "b?", "COUNT", 3) == [b"0", [b"b1", b"b2"]]


def test_a_forgotten_cursor_is_an_error(client: Client) -> None:
    assert "Start at 0 again" in str(client.ask("SCAN", 12345))


def test_a_page_of_scan_is_bounded_whatever_count_says(client: Client, node: FakeNode) -> None:
    node.operations.values = {b"k%05d" % i: b"v" for i in range(RESP_PAGE_KEYS + 5)}
    reply = client.ask("SCAN", 0, "COUNT", 1_000_000)
    assert isinstance(reply, list) and len(reply[1]) == RESP_PAGE_KEYS


def test_keys_refuses_a_reply_that_is_too_large(
    client: Client, listener: FakeListener, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.api.resp.keys.CONNECTION_OUTPUT_BYTES_MAX", 100)
    node.operations.values = {b"k%05d" % i: b"v" for i in range(20)}
    client.send(("KEYS", "*"))
    ((_, slices),) = listener.slow
    with pytest.raises(Exception, match="Use SCAN"):
        slices.step()


def test_a_pattern_is_bounded(client: Client) -> None:
    assert "the limit is 4096" in str(decode(client.send(("KEYS", "*" * 5000))))
    assert "4096" in str(decode(client.send(("CONFIG", "GET", "*" * 5000))))


def test_flushdb_halves_a_page_that_is_too_large_for_one_change(
    client: Client, listener: FakeListener, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, tried = node.operations.delete, list[int]()

    def up_to(limit: int) -> Callable[[Sequence[bytes]], int]:
        def bounded(keys: Sequence[bytes]) -> int:
            tried.append(len(keys))
            if len(keys) > limit:
                raise TooLarge("the call changes too many bytes")
            return delete(keys)

        return bounded

    node.operations.values |= {b"%04d" % i: b"v" for i in range(20)}
    monkeypatch.setattr(node.operations, "delete", up_to(6))
    client.send(("FLUSHDB",))
    ((_, slices),) = listener.slow
    while slices.step():
        pass
    assert slices.reply() == b"+OK\r\n"
    assert tried == [20, 10, 5, 5, 5, 5]
    assert not node.operations.values


def test_flushdb_says_why_one_key_cannot_be_deleted(
    client: Client, listener: FakeListener, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(keys: Sequence[bytes]) -> int:
        raise TooLarge(f"{len(keys)}")

    node.operations.values |= {b"a": b"v", b"b": b"v"}
    monkeypatch.setattr(node.operations, "delete", refuse)
    client.send(("FLUSHDB",))
    ((_, slices),) = listener.slow
    assert slices.step()
    with pytest.raises(TooLarge, match="1"):
        slices.step()
