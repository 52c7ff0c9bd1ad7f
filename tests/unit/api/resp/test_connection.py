"""HELLO, CLIENT, INFO, COMMAND and their like."""

from pathlib import Path

import pytest

from edgekv.api.resp.table import COMMANDS
from tests.unit.api.resp.fake_node import Client, FakeListener

NAMES = "-ERR Client names cannot contain spaces, newlines or special characters."
NO_PASSWORD = (
    "-ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
WRONG = "-WRONGPASS invalid username-password pair or user is disabled."


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (["AUTH", "x"], NO_PASSWORD),
        (["AUTH", "default", "x"], b"OK"),
        (["AUTH", "other", "x"], WRONG),
        (["AUTH", "a", "b", "c"], "-ERR syntax error"),
        (["SELECT", "0"], b"OK"),
        (["SELECT", "16"], "-ERR DB index is out of range"),
        (["SELECT", "2147483648"], "-ERR value is out of range, value must between -2147483648 and 2147483647"),
        (["SELECT", "x"], "-ERR value is not an integer or out of range"),
        (["HELLO", "4"], "-NOPROTO unsupported protocol version"),
        (["HELLO", "x"], "-ERR Protocol version is not an integer or out of range"),
        (["HELLO", "3", "FOO"], "-ERR Syntax error in HELLO option 'FOO'"),
        (["HELLO", "3", "AUTH", "a"], "-ERR Syntax error in HELLO option 'AUTH'"),
        (["HELLO", "3", "AUTH", "o", "x"], WRONG),
        (["HELLO", "2", "SETNAME", "a b"], NAMES),
        (["PING"], b"PONG"),
        (["PING", "a"], b"a"),
        (["PING", "a", "b"], "-ERR wrong number of arguments for 'ping' command"),
        (["ECHO", "a"], b"a"),
        (["RESET"], b"RESET"),
        (["CLIENT"], "-ERR wrong number of arguments for 'client' command"),
        (["CLIENT", "FOO"], "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        (["CLIENT", "a\r\nb"], "-ERR unknown subcommand 'a  b'. Try CLIENT HELP."),
        (["CLIENT", "SETNAME"], "-ERR wrong number of arguments for 'client|setname' command"),
        (["CLIENT", "SETNAME", "a b"], NAMES),
        (["CLIENT", "GETNAME"], None),
        (["CLIENT", "LIST", "TYPE", "foo"], "-ERR Unknown client type 'foo'"),
        (["CLIENT", "LIST", "TYPE", "pubsub"], b""),
        (["CLIENT", "LIST", "ID"], "-ERR syntax error"),
        (["CLIENT", "LIST", "ID", "a"], "-ERR Invalid client ID"),
        (["CLIENT", "LIST", "ID", "999"], b""),
        (["CLIENT", "NO-EVICT", "x"], "-ERR syntax error"),
        (["CLIENT", "NO-EVICT", "ON"], b"OK"),
        (["CLIENT", "NO-TOUCH", "off"], b"OK"),
        (["CLIENT", "SETINFO", "LIB-NAME", "redis-py"], b"OK"),
        (["CLIENT", "SETINFO", "LIB-NAME", "redis py"], "-ERR lib-name cannot contain spaces, newlines or special characters."),
        (["CLIENT", "SETINFO", "FOO", "x"], "-ERR Unrecognized option 'FOO'"),
        (["CONFIG", "GET", "foo"], []),
        (["CONFIG", "GET", "SAVE", "appendf*"], [b"save", b"", b"appendfsync", b"always"]),
        (["CONFIG", "GET"], "-ERR wrong number of arguments for 'config|get' command"),
        (["CONFIG", "SET", "dir", "/"], "-ERR unknown subcommand 'SET'. Try CONFIG HELP."),
        (["INFO", "foo"], b""),
        (["TIME", "a"], "-ERR wrong number of arguments for 'time' command"),
        (["COMMAND", "DOCS", "foo"], []),
        (["COMMAND", "INFO", "foo", "setnx"], [None, None]),
        (["FOO"], "-ERR unknown command 'FOO', with args beginning with: "),
        (["FOO", "a", "\r\nx"], "-ERR unknown command 'FOO', with args beginning with: 'a' '  x' "),
        (["FOO", "a" * 100, "b" * 100, "c"], f"-ERR unknown command 'FOO', with args beginning with: '{'a' * 100}' '{'b' * 25}' "),
        (["f" * 200], f"-ERR unknown command '{'f' * 128}', with args beginning with: "),
        (["ZADD"], "-ERR unknown command 'ZADD', with args beginning with: "),
    ],
)  # fmt: skip
def test_a_command_is_answered_as_by_redis(command: list[str], reply: object, client: Client) -> None:
    assert client.ask(*command) == reply


def test_bytes_that_are_no_text_are_quoted_as_they_are(client: Client) -> None:
    assert client.send((b"\xff\xfe",)) == b"-ERR unknown command '\xff\xfe', with args beginning with: \r\n"


def test_hello_3_changes_the_dialect_and_reset_changes_it_back(client: Client) -> None:
    reply = client.send(("HELLO", "3", "SETNAME", "me"))
    assert reply.startswith(b"%7\r\n$6\r\nserver\r\n$6\r\nedgekv\r\n")
    assert client.send(("GET", "none")) == b"_\r\n"
    assert client.send(("GET", "none"), ("GET", "none")) == b"_\r\n_\r\n"
    assert client.send(("CONFIG", "GET", "save")) == b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n"
    assert client.send(("INFO", "foo")) == b"=4\r\ntxt:\r\n"
    assert client.send(("CLIENT", "GETNAME")) == b"$2\r\nme\r\n"
    client.send(("RESET",))
    assert client.send(("GET", "none"), ("CLIENT", "GETNAME")) == b"$-1\r\n$-1\r\n"


def test_a_refused_hello_changes_nothing(client: Client) -> None:
    client.send(("HELLO", "3", "SETNAME", "me", "FOO"))
    assert client.send(("GET", "none"), ("CLIENT", "GETNAME")) == b"$-1\r\n$-1\r\n"


def test_client_list_shows_every_connection(listener: FakeListener, client: Client) -> None:
    other = Client(listener)
    other.send(("CLIENT", "SETNAME", "other"), ("CLIENT", "SETINFO", "LIB-VER", "1.2"))
    reply = client.ask("CLIENT", "LIST")
    assert isinstance(reply, bytes)
    first, second = reply.decode().splitlines()
    assert first.startswith("id=1 addr=127.0.0.1:50000 laddr=127.0.0.1:7481 name= ")
    assert second.startswith("id=2 ") and " name=other " in second and second.endswith("lib-name= lib-ver=1.2")
    assert client.ask("CLIENT", "LIST", "ID", 2, 2, 7) == (second + "\n").encode()
    assert client.ask("CLIENT", "INFO") == (first + "\n").encode()
    assert client.ask("CLIENT", "ID") == 1


def test_info_names_the_node_and_what_it_knows(client: Client) -> None:
    reply = client.ask("INFO")
    assert isinstance(reply, bytes)
    lines = reply.decode().split("\r\n")
    known = {"# Server", "redis_version:7.0.15", "uptime_in_seconds:90", "connected_clients:1", "role:master"}
    assert known | {"node:node-1", "durable_lsn:7", "write_blocked:0"} <= set(lines)
    assert client.ask("INFO", "replication", "nothing") == b"# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"


def test_time_is_seconds_and_microseconds(client: Client) -> None:
    reply = client.ask("TIME")
    assert isinstance(reply, list) and int(reply[0]) > 1_600_000_000 and 0 <= int(reply[1]) < 1_000_000


def test_command_info_tells_arity_flags_and_keys(client: Client) -> None:
    assert client.ask("COMMAND", "INFO", "MSET", "client|id") == [
        [b"mset", -3, [b"write", b"denyoom"], 1, -1, 2, [b"@write", b"@string", b"@slow"], [], [], []],
        [b"client|id", 2, [], 0, 0, 0, [b"@connection", b"@slow"], [], [], []],
    ]


def test_command_lists_what_it_counts(client: Client) -> None:
    everything, docs = client.ask("COMMAND"), client.ask("COMMAND", "DOCS")
    assert isinstance(everything, list) and isinstance(docs, list)
    assert client.ask("COMMAND", "COUNT") == len(everything) == len(docs) // 2
    assert b"watch" not in [entry[0] for entry in everything]


def test_command_docs_describe_a_command(client: Client) -> None:
    assert client.ask("COMMAND", "DOCS", "get") == [
        b"get",
        [b"summary", b"Get the value of a key", b"since", b"1.0.0", b"group", b"string", b"complexity", b"O(1)"],
    ]


def test_help_lists_the_subcommands(client: Client) -> None:
    reply = client.ask("CONFIG", "HELP")
    assert isinstance(reply, list) and reply[1] == b"GET"


def test_the_documentation_names_every_command() -> None:
    text = (Path(__file__).parents[4] / "docs" / "RESP.md").read_text()
    for entry in COMMANDS.values():
        for name in [entry.name, *(sub.name for sub in entry.subcommands.values())]:
            assert f"`{name.replace('|', ' ').upper()}`" in text, f"docs/RESP.md does not mention {name}"
