"""The set commands answer as Redis 7 does. (tests/integration/test_resp_differential.py asks a real one.)"""

import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from edgekv.api.resp.host import Sets
from edgekv.api.resp.session import Slices
from edgekv.api.resp.set_algebra import combined
from edgekv.errors import DiskFull, TooLarge
from edgekv.limits import BATCH_OPERATIONS_MAX, RESP_PAGE_KEYS, RESP_PAGES_AT_ONCE, RESP_UNION_SETS_MAX
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode, decode

WRONG = "-WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "-ERR syntax error"
NOT_INTEGER = "-ERR value is not an integer or out of range"
POSITIVE = "-ERR value is out of range, must be positive"
RANGE = "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
NUMKEYS = "-ERR numkeys should be greater than 0"
LARGE = (RESP_PAGES_AT_ONCE + 1) * RESP_PAGE_KEYS + 7


@pytest.fixture(autouse=True)
def filled(node: FakeNode) -> None:
    node.operations.values = {b"string": b"1"}
    node.operations.collections = {
        b"abc": {b"a", b"b", b"c"},
        b"bcd": {b"b", b"c", b"d"},
        b"one": {b"x"},
        b"hash": {b"f": b"v"},
        b"large": numbers(LARGE),
    }


def numbers(count: int) -> set[bytes]:
    return {b"%06d" % i for i in range(count)}


def exhaust(slices: Slices) -> None:
    while slices.step():
        pass


def finish(client: Client, listener: FakeListener) -> bytes:
    """Carry the slow command out; everything is durable then."""
    ((connection, slices),) = listener.slow
    listener.slow.clear()
    exhaust(slices)
    connection.slow_reply(slices.reply(), None)
    cast("FakeNode", listener.shared.host).flush()
    listener.turn()
    return client.replies()


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("SADD abc a x x", 1),
        ("SADD abc", "-ERR wrong number of arguments for 'sadd' command"),
        ("SREM abc a a z", 1),
        ("SISMEMBER abc a", 1),
        ("SISMEMBER none a", 0),
        ("SMISMEMBER abc a z", [1, 0]),
        ("SMISMEMBER none a", [0]),
        ("SCARD abc", 3),
        ("SCARD none", 0),
        ("SMEMBERS none", []),
        ("SSCAN abc 0 COUNT 2", [b"1", [b"a", b"b"]]),
        ("SSCAN abc 0 MATCH [ab]", [b"0", [b"a", b"b"]]),
        ("SSCAN abc 0 MATCH a*", [b"0", [b"a"]]),
        ("SSCAN abc 0 COUNT 0", SYNTAX),
        ("SSCAN abc 0 TYPE set", SYNTAX),
        ("SSCAN none 0 COUNT 0", [b"0", []]),
        ("SSCAN none x", "-ERR invalid cursor"),
        ("SPOP one", b"x"),
        ("SPOP none", None),
        ("SPOP none 3", []),
        ("SPOP abc 0", []),
        ("SPOP abc x", POSITIVE),
        ("SPOP abc -1", POSITIVE),
        ("SPOP abc 1 2", SYNTAX),
        ("SRANDMEMBER one", b"x"),
        ("SRANDMEMBER none", None),
        ("SRANDMEMBER none 2", []),
        ("SRANDMEMBER one 2", [b"x"]),
        ("SRANDMEMBER one -3", [b"x", b"x", b"x"]),
        ("SRANDMEMBER abc 0", []),
        ("SRANDMEMBER abc 1 2", SYNTAX),
        ("SRANDMEMBER abc x", NOT_INTEGER),
        ("SRANDMEMBER abc -9223372036854775808", RANGE),
        ("SMOVE abc bcd a", 1),
        ("SMOVE abc bcd z", 0),
        ("SMOVE none string z", 0),
        ("SMOVE abc string a", WRONG),
        ("SINTER abc bcd", [b"b", b"c"]),
        ("SINTER abc none", []),
        ("SINTER none string", WRONG),
        ("SUNION abc bcd none abc", [b"a", b"b", b"c", b"d"]),
        ("SUNION none", []),
        ("SDIFF abc bcd", [b"a"]),
        ("SDIFF abc abc", []),
        ("SDIFF none abc", []),
        ("SDIFF abc hash", WRONG),
        ("SINTERSTORE new abc bcd", 2),
        ("SUNIONSTORE string abc bcd", 4),
        ("SDIFFSTORE abc abc bcd", 1),
        ("SINTERSTORE new abc string", WRONG),
        ("SINTERCARD 2 abc bcd", 2),
        ("SINTERCARD 2 abc bcd LIMIT 1", 1),
        ("SINTERCARD 2 abc bcd LIMIT 0", 2),
        ("SINTERCARD 2 abc bcd LIMIT -1", "-ERR LIMIT can't be negative"),
        ("SINTERCARD 2 abc bcd LIMIT", SYNTAX),
        ("SINTERCARD 1 abc bcd", SYNTAX),
        ("SINTERCARD 0 abc", NUMKEYS),
        ("SINTERCARD x abc", NUMKEYS),
        ("SINTERCARD 2 abc", "-ERR Number of keys can't be greater than number of args"),
        ("TYPE abc", b"set"),
        ("SCAN 0 TYPE set", [b"0", [b"abc", b"bcd", b"large", b"one"]]),
        ("SCAN 0 TYPE list", [b"0", []]),
    ],
)  # fmt: skip
def test_a_command_is_answered_as_by_redis(command: str, reply: object, client: Client) -> None:
    answer = client.ask(*command.split())
    if command.startswith("SSCAN abc 0 COUNT 2"):
        assert isinstance(answer, list) and isinstance(reply, list)
        assert int(answer[0]) > 0 and answer[1] == reply[1]
    else:
        assert answer == reply


@pytest.mark.parametrize("key", ["string", "hash"])
@pytest.mark.parametrize(
    "command",
    [
        *("SADD {} a", "SREM {} a", "SISMEMBER {} a", "SMISMEMBER {} a", "SCARD {}", "SMEMBERS {}", "SSCAN {} 0"),
        *("SPOP {}", "SPOP {} 0", "SRANDMEMBER {}", "SRANDMEMBER {} 0", "SMOVE {} abc a", "SMOVE abc {} a"),
        *("SINTER abc {}", "SUNION none {}", "SDIFF none {}", "SINTERSTORE new {}", "SINTERCARD 2 none {}"),
    ],
)
def test_a_key_of_another_type_is_told_by_every_command(command: str, key: str, client: Client, node: FakeNode) -> None:
    assert client.ask(*command.format(key).split()) == WRONG
    assert node.operations.changes == 0


@pytest.mark.parametrize(
    "command",
    [
        *("GET {}", "INCR {}", "INCRBY {} 2", "INCRBYFLOAT {} 1", "APPEND {} x", "STRLEN {}", "GETRANGE {} 0 1"),
        *("SETRANGE {} 0 x", "SETRANGE {} 536870912 x", "GETSET {} x", "GETDEL {}", "GETEX {}", "SET {} x GET"),
    ],
)
@pytest.mark.parametrize("key", ["abc", "hash"])
def test_strings_commands_tell_it_of_sets_and_hashes(command: str, key: str, client: Client, node: FakeNode) -> None:
    assert client.ask(*command.format(key).split()) == WRONG
    assert node.operations.changes == 0


def test_mget_shows_a_key_of_another_type_as_absent_and_a_run_of_gets_answers_each(client: Client) -> None:
    assert client.ask("MGET", "string", "abc", "none", "hash", "string") == [b"1", None, None, None, b"1"]
    replies = client.send(("GET", "string"), ("GET", "abc"), ("GET", "string"))
    assert replies == b"$1\r\n1\r\n%b\r\n$1\r\n1\r\n" % WRONG.encode()


def test_set_replaces_a_set(client: Client) -> None:
    assert client.ask("SET", "abc", "x") == b"OK"
    assert client.ask("TYPE", "abc") == b"string"


def test_in_protocol_3_sets_are_sets(client: Client, node: FakeNode) -> None:
    client.send(("HELLO", "3"))
    assert client.send(("SMEMBERS", "one")) == b"~1\r\n$1\r\nx\r\n"
    assert client.send(("SUNION", "one", "none")) == b"~1\r\n$1\r\nx\r\n"
    assert client.send(("SRANDMEMBER", "one", 5)) == b"*1\r\n$1\r\nx\r\n"
    client.send(("SPOP", "one", 5))
    node.flush()
    assert client.replies() == b"~1\r\n$1\r\nx\r\n"
    assert client.send(("SPOP", "one")) == b"_\r\n"


def test_a_set_without_members_is_gone(client: Client) -> None:
    client.ask("SREM", "one", "x")
    assert client.ask("EXISTS", "one") == 0
    assert client.ask("SDIFFSTORE", "abc", "abc", "abc") == 0
    assert client.ask("EXISTS", "abc") == 0


def test_sscan_passes_each_member_once(client: Client) -> None:
    found: list[bytes] = []
    cursor: object = 0
    while True:
        reply = client.ask("SSCAN", "large", str(cursor), "COUNT", 900)
        assert isinstance(reply, list)
        found += reply[1]
        cursor = int(reply[0])
        if not cursor:
            break
    assert found == sorted(numbers(LARGE))


# -- large sets


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("SMEMBERS large", numbers(LARGE)),
        ("SUNION large abc", numbers(LARGE) | {b"a", b"b", b"c"}),
        ("SDIFF large abc", numbers(LARGE)),
        ("SINTER large large", numbers(LARGE)),
        ("SRANDMEMBER large 9999", numbers(LARGE)),
        ("SPOP large 9999", numbers(LARGE)),
    ],
)
def test_a_large_set_is_read_in_slices(
    command: str, expected: set[bytes], client: Client, listener: FakeListener
) -> None:
    client.send(command.split())
    reply = decode(finish(client, listener))
    assert isinstance(reply, list)
    assert len(reply) == len(expected) and set(reply) == expected


def test_a_set_of_ordinary_size_is_answered_at_once(client: Client, listener: FakeListener, node: FakeNode) -> None:
    node.operations.collections[b"k"] = numbers(RESP_PAGES_AT_ONCE * RESP_PAGE_KEYS)
    assert client.send(("SMEMBERS", "k")).startswith(b"*2000\r\n")
    assert not listener.slow


@pytest.mark.parametrize(("command", "count"), [("SUNION", 4), ("SINTER", 2), ("SDIFF", 1)])
def test_pages_that_end_early_lose_nothing(
    command: str, count: int, client: Client, listener: FakeListener, node: FakeNode
) -> None:
    node.operations.sets.page_max = 1
    reply = client.send((command, "abc", "bcd"))
    found = decode(reply or finish(client, listener))
    assert isinstance(found, list) and len(found) == count


def test_a_slow_reply_waits_for_what_was_read_before_it_became_slow(
    client: Client, listener: FakeListener, node: FakeNode
) -> None:
    client.ask("SADD", "large", "000000")
    writer = Client(listener)
    writer.send(("SADD", "large", "new"))
    client.send(("SMEMBERS", "large"))
    ((_, slices),) = listener.slow
    assert slices.barrier is node.operations.engine.filling


def test_random_members_of_a_large_set_are_distinct_and_as_many_as_asked_for(
    client: Client, listener: FakeListener
) -> None:
    client.send(("SRANDMEMBER", "large", 2500))
    reply = decode(finish(client, listener))
    assert isinstance(reply, list)
    assert len(reply) == len(set(reply)) == 2500 and set(reply) <= numbers(LARGE)
    few = client.ask("SRANDMEMBER", "large", 5)
    assert isinstance(few, list) and len(set(few)) == 5


def test_spop_of_many_is_a_chain_of_bounded_changes(client: Client, listener: FakeListener, node: FakeNode) -> None:
    node.operations.calls.clear()
    client.send(("SPOP", "large", 2500))
    reply = decode(client.replies() or finish(client, listener))
    assert isinstance(reply, list)
    assert [call for call in node.operations.calls if call[0] == "pop"] == [("pop", 1000), ("pop", 1000), ("pop", 500)]
    assert node.operations.sets.count(b"large") == LARGE - 2500
    assert not set(reply) & set(node.operations.sets.page(b"large", b"", LARGE)[0])


def test_what_was_popped_is_told_even_if_the_rest_is_refused(
    client: Client, listener: FakeListener, node: FakeNode
) -> None:
    client.send(("SPOP", "large", 9999))
    node.operations.refusal = DiskFull("the disk is full.")
    reply = decode(finish(client, listener))
    assert isinstance(reply, list)
    assert len(reply) == LARGE - node.operations.sets.count(b"large") > 0
    assert client.ask("SPOP", "large", 5) == "-DISKFULL the disk is full."


def test_a_result_that_one_change_cannot_hold_is_not_stored(
    client: Client, listener: FakeListener, node: FakeNode
) -> None:
    node.operations.collections[b"huge"] = numbers(BATCH_OPERATIONS_MAX + 1)
    client.send(("SUNIONSTORE", "abc", "huge"))
    ((_, slices),) = listener.slow
    assert slices.writes
    with pytest.raises(TooLarge, match="16384 members"):
        exhaust(slices)
    assert node.operations.sets.count(b"abc") == 3


def test_a_union_of_too_many_sets_is_refused(client: Client, listener: FakeListener, node: FakeNode) -> None:
    keys = [b"s%d" % i for i in range(RESP_UNION_SETS_MAX + 1)]
    node.operations.collections |= {key: {key} for key in keys}
    client.send(("SUNION", *keys[:-1]))
    reply = decode(finish(client, listener))
    assert isinstance(reply, list) and set(reply) == set(keys[:-1])
    client.send(("SUNION", *keys))
    ((_, slices),) = listener.slow
    with pytest.raises(TooLarge, match="1025 sets"):
        exhaust(slices)


def test_a_reply_that_memory_cannot_hold_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekv.api.resp.pieces.CONNECTION_OUTPUT_BYTES_MAX", 20_000)
    monkeypatch.setattr("edgekv.api.resp.draws.CONNECTION_OUTPUT_BYTES_MAX", 20_000)
    assert client.ask("SMEMBERS", "large") == "-ERR the reply would exceed 20000 bytes. Use SSCAN."
    assert (
        client.ask("SRANDMEMBER", "large", -(1 << 62))
        == "-ERR the reply would exceed 20000 bytes. Ask for fewer members."
    )


# -- runs


def test_a_run_of_small_writes_is_one_call_and_each_has_its_answer(client: Client, node: FakeNode) -> None:
    node.operations.calls.clear()
    client.send(
        *[("SADD", "abc", member) for member in ("a", "x", "x")],
        *[("INCR", key) for key in ("n", "n", "abc")],
        *[("hset", "hash", field, "v") for field in ("f", "g")],
    )
    node.flush()
    assert node.operations.calls == [("add_run", 3), ("increment_run", 3), ("put_run", 2)]
    assert client.replies() == b":0\r\n:1\r\n:0\r\n:1\r\n:2\r\n%b\r\n:0\r\n:1\r\n" % WRONG.encode()
    counted = node.metrics.operations
    assert counted["sadd", "default", "ok"] == 3 and counted["hset", "default", "ok"] == 2
    assert counted["incr", "default", "ok"] == 2 and counted["incr", "default", "wrong-type"] == 1


@pytest.mark.parametrize(
    "odd", [("SADD", "abc"), ("SADD", "abc", "x", "y"), ("SADD", "", "x"), ("SADD", "k" * 4097, "x")]
)
def test_a_run_with_an_odd_command_is_carried_out_one_by_one(
    odd: tuple[str, ...], client: Client, node: FakeNode
) -> None:
    client.send(("SADD", "abc", "a"), odd, ("SADD", "abc", "new"))
    node.flush()
    first, *_, last = client.replies().split(b"\r\n")[:-1]
    assert (first, last) == (b":0", b":1")


def test_a_refused_run_answers_each_command(client: Client, node: FakeNode) -> None:
    node.operations.refusal = DiskFull("the disk is full.")
    assert client.send(("SADD", "abc", "x"), ("SADD", "abc", "y")) == b"-DISKFULL the disk is full.\r\n" * 2


def test_a_run_of_writes_waits_for_room(client: Client, listener: FakeListener, node: FakeNode) -> None:
    node.operations.engine.write_blocked = True
    assert client.send(("INCR", "n"), ("INCR", "n")) == b""
    assert not client.is_reading()
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == b":1\r\n:2\r\n"


# -- what takes long comes to an end


def test_a_draw_with_repetition_that_no_reply_can_hold_is_refused_at_once(
    client: Client, listener: FakeListener, node: FakeNode
) -> None:
    node.operations.collections |= {b"s": {b""}, b"h": {b"": b""}}
    for command in (("SRANDMEMBER", "s", "-100000000000000"), ("HRANDFIELD", "h", "-12000000")):
        assert str(client.ask(*command)).startswith("-ERR the reply would exceed")
    assert str(client.ask("HRANDFIELD", "h", "-6000000", "WITHVALUES")).startswith("-ERR the reply would exceed")
    assert client.ask("SRANDMEMBER", "none", "-100000000000000") == []
    assert not listener.slow


@pytest.mark.parametrize("command", [("SRANDMEMBER", "s"), ("HRANDFIELD", "h")])
def test_a_draw_ends_when_what_it_draws_from_is_gone(
    command: tuple[str, str], client: Client, listener: FakeListener, node: FakeNode
) -> None:
    node.operations.collections |= {b"s": {b"a"}, b"h": {b"a": b"v"}}
    client.send((*command, "-5000000"))
    ((_, slices),) = listener.slow
    assert slices.step()
    node.operations.collections.clear()
    assert sum(1 for _ in iter(slices.step, False)) <= 1


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (("SRANDMEMBER", "s"), b"m"),
        (("SRANDMEMBER", "s", 1), [b"m"]),
        (("SRANDMEMBER", "s", -3), [b"m"] * 3),
        (("SPOP", "s"), b"m"),
        (("SPOP", "s", 1), [b"m"]),
        (("SPOP", "s", 5), [b"m", b"n"]),
        (("HRANDFIELD", "h"), b"f"),
        (("HRANDFIELD", "h", 1), [b"f"]),
        (("HRANDFIELD", "h", -2, "WITHVALUES"), [b"f", b"v"] * 2),
    ],
)
def test_a_draw_that_finds_nothing_among_deleted_ones_ends_in_a_walk_and_is_never_empty(
    command: tuple[str | int, ...],
    reply: object,
    client: Client,
    listener: FakeListener,
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deserts = RESP_PAGES_AT_ONCE + 5

    def find_none(_key: bytes, _count: int, _dice: int, *, repeat: bool) -> list[Any]:
        assert repeat in (True, False)
        return []

    def behind_deserts(page: Callable[[bytes, bytes, int], tuple[list[Any], bytes | None]]) -> object:
        """Every page ends after one element, and the first ones have none."""

        def walk(key: bytes, start: bytes, limit: int) -> tuple[list[Any], bytes | None]:
            if len(start) < deserts:
                return [], start + b"\x00"
            return page(key, start, min(limit, 1))

        return walk

    node.operations.collections |= {b"s": {b"m", b"n"}, b"h": {b"f": b"v", b"g": b"w"}}
    for verbs in (node.operations.sets, node.operations.maps):
        monkeypatch.setattr(verbs, "random", find_none)
        monkeypatch.setattr(verbs, "page", behind_deserts(verbs.page))
    monkeypatch.setattr(random, "random", lambda: 0.0)
    client.send(command)
    found = decode(finish(client, listener))
    assert found == reply


class _Desert:
    """Sets of one member each, behind many pages in which nothing is left."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.read = 0

    def count(self, key: bytes) -> int:
        return 1

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        self.read += 1
        page = int(start or b"0")
        return ([key], None) if page == self.pages else ([], b"%d" % (page + 1))


@pytest.mark.parametrize("keys", [[b"a"], [b"a", b"b"]])
def test_a_union_gives_the_loop_back_in_a_desert(keys: list[bytes]) -> None:
    sets, found = _Desert(50), list[bytes]()
    pieces = combined(cast("Sets", sets), "union", keys)
    while True:
        before = sets.read
        piece = next(pieces, None)
        assert sets.read - before <= 2
        if piece is None:
            break
        found += piece
    assert found == keys


def test_a_union_is_in_order_and_has_each_member_once(client: Client, node: FakeNode) -> None:
    rolled = random.Random(5)
    keys = [b"%d" % i for i in range(40)]
    node.operations.collections |= {key: {b"%d" % rolled.randrange(9_000) for _ in range(300)} for key in keys}
    node.operations.sets.page_max = 7
    found = [member for piece in combined(node.operations.sets, "union", keys) for member in piece]
    assert found == sorted(set[bytes]().union(*(node.operations.collections[key] for key in keys)))
