"""EDGEKV.OP on a real node: what it takes, that each command is at most one change, and its reply in both protocols."""

from pathlib import Path
from typing import cast

import pytest

from edgekv.api.resp.replies import downgraded
from edgekv.api.resp.table import COMMANDS
from edgekv.config import KeyspaceConfig
from edgekv.ids import new_session
from edgekv.metrics import NO_KEYSPACE
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode, FakeOperations
from tests.unit.node.inline_node import InlineNode

SESSION = new_session(0, b"session!")
KEYSPACES = (KeyspaceConfig(prefix=b"", name="default"), KeyspaceConfig(prefix=b"room/", name="rooms"))
Word = bytes | str | int

SAMPLES: dict[str, tuple[Word, ...]] = {
    "append": ("text", "more"),
    "decr": ("n",),
    "decrby": ("n", 3),
    "del": ("text", "n", "none"),
    "edgekv.batch": ("PUT", "p", "v", 0, "ADD", "n", 1, "DELETE", "text"),
    "expire": ("text", 100),
    "expireat": ("text", 4_000_000_000),
    "getdel": ("text",),
    "getex": ("text", "EX", 100),
    "getset": ("none", "v"),
    "hdel": ("map", "f", "none"),
    "hincrby": ("map", "count", 2),
    "hincrbyfloat": ("map", "f", "1.5"),
    "hmset": ("map", "a", 1, "b", 2),
    "hset": ("map", "a", 1, "b", 2),
    "hsetnx": ("map", "new", 1),
    "incr": ("n",),
    "incrby": ("n", 3),
    "incrbyfloat": ("n", "0.5"),
    "mset": ("a", 1, "b", 2),
    "persist": ("timed",),
    "pexpire": ("text", 100_000),
    "pexpireat": ("text", 4_000_000_000_000),
    "psetex": ("text", 100_000, "v"),
    "rename": ("text", "other"),
    "sadd": ("set", "x", "y"),
    "sdiffstore": ("target", "set", "none"),
    "set": ("none", "v", "GET"),
    "setex": ("text", 100, "v"),
    "setrange": ("text", 2, "xx"),
    "sinterstore": ("target", "set", "set"),
    "smove": ("set", "target", "m0"),
    "spop": ("set", 3),
    "srem": ("set", "m0", "m1", "none"),
    "sunionstore": ("target", "set"),
    "unlink": ("text", "n"),
}
REFUSED = {"edgekv.op", "exec", "flushall", "flushdb"}


class Site:
    """A node, and clients of it."""

    def __init__(self, path: Path) -> None:
        self.inline = InlineNode(path, keyspaces=KEYSPACES, memory_bytes=8 << 20)
        self.host = FakeNode()
        self.open()

    def open(self) -> None:
        self.host.operations = cast("FakeOperations", self.inline.operations)
        self.listener = FakeListener(self.host)
        self.clients = {2: Client(self.listener), 3: Client(self.listener)}
        self.ask("HELLO", 3, protocol=3)

    def ask(self, *words: Word, protocol: int = 2) -> bytes:
        """A command; its reply when everything is durable."""
        client = self.clients[protocol]
        at_once = client.send(words)
        self.inline.settle()
        self.listener.turn()
        return at_once + client.replies()

    def op(self, number: int, *words: Word, protocol: int = 2) -> bytes:
        return self.ask("EDGEKV.OP", SESSION, number, *words, protocol=protocol)

    @property
    def changes(self) -> int:
        return sum(keyspace.seq for keyspace in self.inline.engine.keyspaces.all)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "data")
    for words in (
        ("SET", "text", "abc"),
        ("INCRBY", "n", 7),
        ("SET", "timed", "v", "EX", 1000),
        ("HSET", "map", "f", 1),
        ("SADD", "set", *(f"m{i}" for i in range(8))),
    ):
        made.ask(*words)
    return made


def test_the_samples_are_all_that_writes() -> None:
    assert {*SAMPLES, *REFUSED} == {entry.name for entry in COMMANDS.values() if entry.writes}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_command_that_writes_is_one_change_and_the_same_reply_over_protocols_and_kills(
    name: str, site: Site
) -> None:
    before = site.changes
    first = site.op(1, name, *SAMPLES[name], protocol=3)
    assert first and not first.startswith(b"-"), first
    assert site.changes == before + 1, "or the sample is none"
    assert site.op(1, name, *SAMPLES[name], protocol=3) == first
    site.inline.kill()
    site.inline.open()
    site.open()
    assert site.op(1, name, *SAMPLES[name], protocol=3) == first
    assert site.op(1, name, *SAMPLES[name], protocol=2) == downgraded(first)
    assert site.changes == before + 1


def test_null_and_sets_look_as_the_protocol_of_whoever_asks_has_them(site: Site) -> None:
    assert site.op(1, "GETSET", "none", "v", protocol=2) == b"$-1\r\n"
    assert site.op(1, "GETSET", "none", "v", protocol=3) == b"_\r\n"
    assert site.op(2, "SPOP", "set", 1, protocol=2)[:4] == b"*1\r\n"
    assert site.op(2, "SPOP", "set", 1, protocol=3) == site.op(2, "SPOP", "set", 1, protocol=3)
    assert site.op(3, "EDGEKV.BATCH", "PUT", "a", 1, 0, "ADD", "n", 1, protocol=2) == b"*2\r\n$-1\r\n:8\r\n"
    assert site.op(3, "EDGEKV.BATCH", "PUT", "a", 1, 0, "ADD", "n", 1, protocol=3) == b"*2\r\n_\r\n:8\r\n"
    assert site.ask("GET", "absent") == b"$-1\r\n", "the connection's own protocol is as before"


@pytest.mark.parametrize(
    ("reply", "older"),
    [
        (b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n"),
        (b"*2\r\n$2\r\n_\r\r\n_\r\n", b"*2\r\n$2\r\n_\r\r\n$-1\r\n"),
        (b"%1\r\n+a\r\n~2\r\n:1\r\n:2\r\n", b"*2\r\n+a\r\n*2\r\n:1\r\n:2\r\n"),
    ],
)
def test_a_reply_of_protocol_3_is_told_in_protocol_2(reply: bytes, older: bytes) -> None:
    assert downgraded(reply) == older


def test_pipelined_operations_and_their_repetitions_are_answered_in_order(site: Site) -> None:
    client = site.clients[2]
    client.send(*[("EDGEKV.OP", SESSION, n, "INCR", "n") for n in (1, 2, 1, 3, 2)])
    assert client.replies() == b"", "nothing is durable yet"
    site.inline.settle()
    assert client.replies() == b":8\r\n:9\r\n:8\r\n:10\r\n:9\r\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("GET", "text"), "GET makes no change, so it needs no id"),
        (("PING",), "PING makes no change"),
        (("CLIENT", "ID"), "CLIENT|ID makes no change"),
        (("MULTI",), "MULTI makes no change"),
        (("FLUSHDB",), "FLUSHDB cannot have an id: it may be more than one change"),
        (("EXEC",), "EXEC cannot have an id"),
        (("EDGEKV.OP", SESSION, 2, "INCR", "n"), "EDGEKV.OP cannot have an id"),
        (("NONESUCH",), "unknown command 'NONESUCH'"),
        (("INCR",), "wrong number of arguments for 'incr' command"),
        (("SETNX", "a", "1"), "SETNX makes no change"),
        (("INCR", "text"), "value is not an integer or out of range"),
        (("INCR", ""), "the key is empty"),
        (("SPOP", "set", "x"), "value is out of range, must be positive"),
    ],
)
def test_what_it_does_not_take_is_said_and_uses_no_id(words: tuple[Word, ...], problem: str, site: Site) -> None:
    before = site.changes
    assert problem.encode() in site.op(1, *words)
    assert site.changes == before
    assert site.op(1, "INCR", "n") == b":8\r\n"


def test_keys_of_two_keyspaces_are_refused_and_nothing_is_done(site: Site) -> None:
    site.ask("SET", "room/1", "v")
    assert site.op(1, "DEL", "text", "room/1").startswith(b"-DENIED the keys are in different keyspaces")
    assert site.ask("EXISTS", "text", "room/1") == b":2\r\n"


def test_a_reply_that_is_too_large_to_keep_is_refused_before_anything_happens(site: Site) -> None:
    limit = site.inline.engine.operation_reply_bytes_max
    site.ask("SET", "large", b"x" * (limit + 1))
    assert b"is kept. Ask for less at once." in site.op(1, "GETDEL", "large")
    assert site.ask("STRLEN", "large") == b":%d\r\n" % (limit + 1)
    deletes = [word for _ in range(limit // 4) for word in ("DELETE", "none")]
    assert site.op(2, "EDGEKV.BATCH", "ADD", "n", 1, *deletes[: 2 * 9000])[:1] == b"-"
    assert site.ask("GET", "n") == b"$1\r\n7\r\n"


@pytest.mark.parametrize(
    ("session", "number", "problem"),
    [
        (b"short", 1, "-ERR a session has 16 bytes, not 5"),
        (SESSION, 0, "-ERR the number of an operation is counted from 1"),
        (SESSION, -1, "-ERR the number of an operation is counted from 1"),
        (SESSION, "one", "-ERR value is not an integer or out of range"),
        (SESSION, 1 << 63, "-ERR value is not an integer or out of range"),
        (b"\xff" * 16, 1, "-ERR the session does not begin with a stamp of this node"),
    ],
)
def test_a_malformed_id_is_refused(session: bytes, number: Word, problem: str, site: Site) -> None:
    assert site.ask("EDGEKV.OP", session, number, "INCR", "n").startswith(problem.encode())
    assert site.ask("GET", "n") == b"$1\r\n7\r\n"


def test_a_forgotten_id_has_a_word_of_its_own(site: Site) -> None:
    site.op(2000, "INCR", "n")
    assert site.op(5, "INCR", "n").startswith(b"-FORGOTTEN the id is below the window of its session")
    site.inline.engine.commit.operation_ids.oldest_stamp = 1
    other = new_session(0, b"another!")
    assert site.ask("EDGEKV.OP", other, 1, "INCR", "n").startswith(b"-FORGOTTEN this node no longer knows the session")
    assert site.ask("GET", "n") == b"$1\r\n8\r\n"


def test_inside_multi_it_is_refused_and_discards_the_transaction(site: Site) -> None:
    site.ask("MULTI")
    site.ask("SET", "text", "changed")
    assert b"cannot be part of a transaction" in site.op(1, "INCR", "n")
    assert site.ask("EXEC").startswith(b"-EXECABORT")
    assert site.ask("GET", "text") == b"$3\r\nabc\r\n" and site.ask("GET", "n") == b"$1\r\n7\r\n"


def test_a_repetition_needs_no_key_that_is_still_good_and_no_room_for_values(site: Site) -> None:
    site.op(1, "SET", "text", "v")
    site.inline.engine.admission.disk_full = True
    assert site.op(1, "SET", "text", "v") == b"+OK\r\n"
    assert site.op(2, "SET", "text", "v").startswith(b"-DISKFULL")


def test_both_the_command_and_what_it_carries_are_counted(site: Site) -> None:
    operations = site.host.metrics.operations
    for number in (1, 1):
        site.op(number, "INCRBY", "room/n", 1)
    assert operations["edgekv.op", NO_KEYSPACE, "ok"] == 2 and operations["incrby", "rooms", "ok"] == 1
    assert b"operation_sessions:1\r\noperations_repeated:1" in site.ask("INFO", "edgekv")


def test_a_write_waits_for_room_and_is_carried_out_then(node: FakeNode, listener: FakeListener, client: Client) -> None:
    node.operations.engine.write_blocked = True
    assert client.send(("EDGEKV.OP", SESSION, 1, "INCR", "n")) == b"" and not node.operations.values
    node.operations.engine.write_blocked = False
    listener.make_room()
    node.flush()
    assert client.replies() == b":1\r\n"
