"""Commands on several keys, when these lie in one keyspace and when they lie in two: a change touches one."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
import redis

from edgekv.api.resp import protocol, table
from edgekv.cli.node_process import NodeProcess

CONFIG = """
[[keyspace]]
prefix = "one/"
name = "one"
[[keyspace]]
prefix = "two/"
name = "two"
conflict = "siblings"
"""
SETUP: Final = {b"%b/s" % name: b"value" for name in (b"one", b"two")}
MEMBERS: Final = {b"%b/set" % name: {b"m", name} for name in (b"one", b"two")}


SESSION: Final = "\0" * 16  # of operation ids, with the stamp of an empty node


class Case(NamedTuple):
    """A command on the keys of two keyspaces. ``answer`` None: it is refused with DENIED, and nothing happens."""

    words: str
    answer: object = None


CASES: Final = [
    Case("MSET one/a 1 two/b 2"),
    Case("RENAME one/s two/new"),
    Case("SMOVE one/set two/set m"),
    Case("SINTERSTORE one/to one/set two/set"),
    Case("SUNIONSTORE two/to one/set two/set"),
    Case("SUNIONSTORE to one/set"),
    Case("SDIFFSTORE one/to two/set"),
    Case("EDGEKV.BATCH PUT one/a 1 0 PUT two/b 2 0"),
    Case("EDGEKV.BATCH PUT one/a 1 0 SADD two/set x"),
    Case(f"EDGEKV.OP {SESSION} 1 MSET one/a 1 two/b 2"),
    Case("MGET one/s two/s none", [b"value", b"value", None]),
    Case("EXISTS one/s two/s one/none", 2),
    Case("TOUCH one/s two/s", 2),
    Case("DEL one/s two/s two/none", 2),
    Case("UNLINK one/s two/s", 2),
    Case("SINTER one/set two/set", {b"m"}),
    Case("SUNION one/set two/set", {b"m", b"one", b"two"}),
    Case("SDIFF one/set two/set", {b"one"}),
    Case("SINTERCARD 2 one/set two/set", 1),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    place = tmp_path_factory.mktemp("keyspaces")
    (place / "edgekv.toml").write_text(CONFIG)
    small = ("--memory-bytes", str(64 << 20))
    with NodeProcess(place / "data", "--config", str(place / "edgekv.toml"), *small) as running:
        yield running


@pytest.fixture
def client(node: NodeProcess) -> redis.Redis:
    client = redis.Redis(port=node.resp.port)
    client.flushall()
    for key, value in SETUP.items():
        client.set(key, value)
    for key, members in MEMBERS.items():
        client.sadd(key, *members)
    return client


def ask(client: redis.Redis, words: str) -> object:
    answer: object = client.execute_command(*words.split())  # type: ignore[no-untyped-call]
    return answer


def contents(client: redis.Redis) -> dict[bytes, object]:
    return {key: client.get(key) if key[-2:] == b"/s" else client.smembers(key) for key in client.scan_iter()}


@pytest.mark.parametrize("case", CASES, ids=[case.words for case in CASES])
def test_a_command_on_keys_of_two_keyspaces_does_what_the_table_says(client: redis.Redis, case: Case) -> None:
    before = contents(client)
    if case.answer is None:
        with pytest.raises(redis.ResponseError, match=r"^DENIED .*different keyspaces"):
            ask(client, case.words)
        assert contents(client) == before == {**SETUP, **MEMBERS}
        return
    found = ask(client, case.words)
    assert (set(found) if isinstance(case.answer, set) and isinstance(found, list) else found) == case.answer
    gone = case.words.split()[1:] if case.words.startswith(("DEL", "UNLINK")) else []
    assert contents(client) == {key: held for key, held in before.items() if key.decode() not in gone}


def test_the_table_has_every_command_that_takes_several_keys() -> None:
    assert protocol.COMMAND_MODULES
    several = {
        name.decode().upper()
        for name, entry in table.COMMANDS.items()
        if "refused" not in entry.flags and (entry.keys[1] not in {0, entry.keys[0]} or "movablekeys" in entry.flags)
    }
    assert several == {case.words.split()[0] for case in CASES}


def test_a_transaction_that_writes_to_two_keyspaces_leaves_nothing(client: redis.Redis) -> None:
    before = contents(client)
    for second in (["SET", "two/s", "2"], ["SADD", "two/set", "x"], ["DEL", "two/s"], ["DEL", "one/set", "two/set"]):
        with client.pipeline() as transaction:
            transaction.set("one/s", "1")
            transaction.execute_command(*second)  # type: ignore[no-untyped-call]
            with pytest.raises(redis.exceptions.ExecAbortError, match="different keyspaces"):
                transaction.execute()
        assert contents(client) == before


def test_a_transaction_may_read_from_a_keyspace_that_it_does_not_write_to(client: redis.Redis) -> None:
    with client.pipeline() as transaction:
        transaction.get("two/s")
        transaction.set("one/s", "1")
        transaction.scard("two/set")
        assert transaction.execute() == [b"value", True, 2]


def test_keys_of_the_default_keyspace_are_in_one_on_both_sides_of_a_prefix(client: redis.Redis) -> None:
    client.sadd("a/set", "m")
    assert ask(client, "SUNIONSTORE zebra a/set none") == 1
    assert ask(client, "SMOVE zebra a/other m")
    assert ask(client, "MSET a/a 1 zebra 2") in {True, b"OK"}
    assert ask(client, "RENAME zebra a/b") in {True, b"OK"}


def test_each_is_carried_out_within_one_keyspace(client: redis.Redis) -> None:
    for name in ("one", "two"):
        assert ask(client, f"MSET {name}/a 1 {name}/b 2") in {True, b"OK"}
        assert ask(client, f"SUNIONSTORE {name}/to {name}/set {name}/none") == 2
        assert ask(client, f"SMOVE {name}/set {name}/other m")
        assert ask(client, f"RENAME {name}/a {name}/c") in {True, b"OK"}
        assert ask(client, f"MGET {name}/c {name}/b") == [b"1", b"2"]
