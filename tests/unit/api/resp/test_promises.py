"""WAIT, EDGEKV.ACK and EDGEKV.SESSION over a whole node that is driven by hand: what a connection hears, and when.

``hub`` says what a hub would: how much of this node's own changes it has durably.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import hiredis
import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import Head
from edgekv.errors import LogFailed
from edgekv.ids import SESSION_BYTES, KeyspaceId
from edgekv.limits import ACK_TIMEOUT_MS, RESP_INPUT_SHARE_BYTES, SESSION_WAIT_MS
from edgekv.metrics import Metrics
from edgekv.node.operations import Operations
from edgekv.node.session import Sessions
from edgekv.node.token import name_of, token_of
from edgekv.replication.acks import Acks, Peer
from tests.unit.api.resp.fake_node import Client, FakeListener, FakeNode
from tests.unit.node.inline_node import START_MS, InlineNode

HUB = Peer(b"h" * 16, "hub-1", "cloud", "hub")
NEIGHBOUR = Peer(b"n" * 16, "b", "site-1", "edge")
LATER = 10**9


class Host:
    """The RESP listener's host over a node of this process."""

    node_name, site_name, version, started_ms = "node-1", "site-1", "0", START_MS

    def __init__(self, inline: InlineNode) -> None:
        self.inline = inline
        self.config = inline.config
        self.metrics = Metrics()

    @property
    def operations(self) -> Operations:
        return self.inline.operations

    @property
    def acks(self) -> Acks:
        return self.inline.node.acks

    @property
    def sessions(self) -> Sessions:
        return self.inline.node.sessions

    def monotonic_ms(self) -> int:
        """`Site.tick` says how much later than this it is."""
        return 0

    def kick_soon(self) -> None:
        """The test flushes."""

    async def run_slices(self, step: Callable[[], bool]) -> None:
        raise AssertionError("no slow command here")


class Site:
    """A node, and connections to it."""

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.inline = InlineNode(
            path,
            keyspaces=(
                KeyspaceConfig(name="rooms", prefix=b"room/"),
                KeyspaceConfig(name="b", prefix=b"b/", durability="buffered"),
            ),
            seed=seed,
        )
        self.inline.settle()
        self.listener = FakeListener(cast("FakeNode", Host(self.inline)))
        self.actor = self.inline.engine.actor

    def connect(self, version: int = 3) -> "Conversation":
        return Conversation(self, version)

    def settle(self) -> None:
        """Everything is durable, and every connection has gone on."""
        self.inline.settle()
        while self.listener.due:
            self.listener.turn()

    def hub(self, seq: int, peer: Peer = HUB, key: bytes = b"") -> None:
        """A node has so many of this one's changes."""
        keyspace = self.inline.engine.keyspaces.of(key)
        self.inline.node.acks.heard(peer, keyspace.id, {self.actor: seq})
        while self.listener.due:
            self.listener.turn()

    def receive(self, other: "Site", key: bytes = b"") -> None:
        """Replication: what the other has made is durable here."""
        theirs = other.inline.engine.keyspaces.of(key).vector[other.actor]
        self.inline.engine.keyspaces.of(key).vector[other.actor] = theirs
        self.inline.node.durable()
        while self.listener.due:
            self.listener.turn()

    def tick(self, after_ms: int) -> None:
        self.inline.node.tick(after_ms)
        while self.listener.due:
            self.listener.turn()


class Conversation:
    """One client; `told` are the pushes so far."""

    def __init__(self, site: Site, version: int) -> None:
        self.site = site
        self.client = Client(site.listener)
        self.reader = hiredis.Reader()
        self.told: list[list[bytes]] = []
        if version == 3:
            self.send(("HELLO", 3))
            self.hear()

    def send(self, *commands: tuple[bytes | str | int, ...]) -> None:
        """In one read."""
        self.reader.feed(self.client.send(*commands))

    def hear(self) -> list[object]:
        """The replies that have come since."""
        self.reader.feed(self.client.replies())
        replies: list[object] = []
        while (reply := self.reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                self.told.append(list(reply))
            else:
                replies.append(f"-{reply}" if isinstance(reply, hiredis.ReplyError) else reply)
        return replies

    def ask(self, *command: bytes | str | int) -> object:
        """One command and its reply, everything being durable."""
        self.send(command)
        self.site.settle()
        (reply,) = self.hear()
        return reply

    @property
    def token(self) -> bytes:
        """The last one that was pushed."""
        return [words[1] for words in self.told if words[0] == b"edgekv.session"][-1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "here")
    yield site
    site.inline.kill()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "there", seed=1)
    yield site
    site.inline.kill()


# -- WAIT


def test_wait_without_other_nodes_counts_none(site: Site) -> None:
    client = site.connect()
    client.ask("SET", "a", "1")
    assert client.ask("WAIT", 0, 0) == 0


def test_wait_counts_the_nodes_that_have_the_last_write(site: Site) -> None:
    client = site.connect()
    client.ask("SET", "a", "1")
    client.ask("SET", "a", "2")
    site.hub(2)
    site.hub(1, NEIGHBOUR)
    assert client.ask("WAIT", 1, 0) == 1


def test_wait_returns_when_enough_nodes_have_it_and_commands_after_it_wait(site: Site) -> None:
    client = site.connect()
    client.send(("SET", "a", "1"), ("WAIT", 2, 0), ("GET", "a"))
    site.settle()
    site.hub(1)
    assert client.hear() == [b"OK"]
    site.hub(1, NEIGHBOUR)
    assert client.hear() == [2, b"1"]


def test_wait_returns_at_its_timeout_with_the_number_so_far(site: Site) -> None:
    client = site.connect()
    client.ask("SET", "a", "1")
    site.hub(1)
    client.send(("WAIT", 2, 500))
    site.tick(400)
    assert client.hear() == []
    site.tick(501)
    assert client.hear() == [1]


def test_wait_without_a_timeout_ends_with_the_node_or_the_connection(site: Site) -> None:
    client, gone = site.connect(), site.connect()
    client.ask("SET", "a", "1")
    gone.ask("SET", "b", "1")
    client.send(("WAIT", 1, 0))
    gone.send(("WAIT", 1, 0))
    site.tick(LATER)
    assert client.hear() == []
    gone.client.transport.abort()
    assert site.inline.node.acks.status()["waiting"] == 1
    site.inline.node.expire_all()
    site.settle()
    assert client.hear() == [0]


def test_a_client_that_leaves_while_it_waits_without_end_is_noticed(site: Site) -> None:
    """Its connection is read on, so that its end is seen; one that only sends no more gets its answers."""
    client = site.connect()
    client.send(("SET", "a", "1"), ("WAIT", 1, 0), ("WAIT", 1, 0), ("GET", "a"))
    site.settle()
    assert client.client.is_reading()
    client.client.connection.eof_received()
    site.settle()
    assert client.hear() == [b"OK", 0, 0, b"1"]
    assert client.client.is_closed()
    assert site.inline.node.acks.status()["waiting"] == 0


def test_a_client_that_leaves_while_its_writes_wait_without_end_is_noticed(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub", 0)
    client.send(("SET", "a", "1"))
    site.settle()
    client.send(("SET", "a", "2"))
    client.client.connection.eof_received()
    site.settle()
    assert client.hear() == [b"OK", b"OK"]
    assert client.client.is_closed()
    assert site.inline.node.acks.status()["waiting"] == 0


def test_what_a_client_sends_while_it_waits_is_bounded(site: Site) -> None:
    client = site.connect()
    client.send(("SET", "a", "1"), ("WAIT", 1, 0))
    site.settle()
    for _ in range(20):
        client.send(("GET", "a"), ("ECHO", "x" * (RESP_INPUT_SHARE_BYTES // 19)))
    assert not client.client.is_reading()
    site.hub(1)
    site.settle()
    assert client.hear()[:3] == [b"OK", 1, b"1"]
    assert client.client.is_reading()


def test_a_connection_that_wrote_nothing_does_not_wait_for_what_others_wrote_before(site: Site) -> None:
    writer = site.connect()
    writer.ask("SET", "a", "1")
    site.hub(0)
    assert site.connect().ask("WAIT", 1, 0) == 1


def test_wait_needs_all_keyspaces_that_were_written_to(site: Site) -> None:
    client = site.connect()
    client.ask("SET", "a", "1")
    client.ask("SET", "room/1", "1")
    site.hub(1)
    client.send(("WAIT", 1, 0))
    assert client.hear() == []
    site.hub(1, key=b"room/1")
    assert client.hear() == [1]


def test_wait_in_a_transaction_waits_for_nobody(site: Site) -> None:
    client = site.connect()
    client.send(("MULTI",), ("SET", "a", "1"), ("WAIT", 1, 0), ("EXEC",))
    site.settle()
    assert client.hear()[-1] == [b"OK", 0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("x", 0), "-ERR value is out of range, must be positive"),
        ((-1, 0), "-ERR value is out of range, must be positive"),
        ((1, "x"), "-ERR value is not an integer or out of range"),
        ((1, -1), "-ERR timeout is negative"),
    ],
)
def test_wait_refuses_what_redis_refuses(site: Site, arguments: tuple[int | str, int | str], error: str) -> None:
    assert site.connect().ask("WAIT", *arguments) == error


# -- EDGEKV.ACK


def test_the_reply_of_a_write_waits_for_a_hub_and_for_nobody_else(site: Site) -> None:
    client = site.connect()
    assert client.ask("EDGEKV.ACK", "hub") == b"OK"
    client.send(("SET", "a", "1"))
    site.settle()
    site.hub(1, NEIGHBOUR)
    assert client.hear() == []
    site.hub(1)
    assert client.hear() == [b"OK"]
    assert client.told == [[b"edgekv.ack", b"hub"]]


def test_the_reply_of_a_write_waits_for_a_node_of_the_site(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "site")
    client.send(("INCR", "n"))
    site.settle()
    site.hub(1)
    assert client.hear() == []
    site.hub(1, NEIGHBOUR)
    assert client.hear() == [1]


def test_a_reply_never_leaves_before_the_write_is_durable_here(site: Site) -> None:
    """A hub cannot have what is not durable here; it must not be believed if it says so."""
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub")
    client.send(("SET", "a", "1"))
    site.hub(1)
    assert client.hear() == []
    site.settle()
    assert client.hear() == [b"OK"]


def test_at_the_timeout_the_reply_is_the_same_and_the_client_is_told_that_the_wider_ack_is_pending(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub", 500)
    client.send(("SET", "a", "1"))
    site.settle()
    site.hub(1)
    client.hear()
    client.send(("INCR", "n"))
    site.settle()
    site.tick(499)
    assert client.hear() == []
    site.tick(510)
    assert client.hear() == [1]
    client.send(("INCR", "n"))
    site.settle()
    site.hub(3)
    assert client.hear() == [2]
    assert client.told == [[b"edgekv.ack", level] for level in (b"hub", b"local", b"hub")]


def test_in_protocol_2_a_client_asks_what_was_reached(site: Site) -> None:
    client = site.connect(version=2)
    client.ask("EDGEKV.ACK", "hub", 500)
    client.send(("SET", "a", "1"), ("EDGEKV.ACK",))
    site.settle()
    assert client.hear() == []
    site.tick(501)
    assert client.hear() == [b"OK", [b"hub", 500, b"local"]]
    client.send(("SET", "a", "2"), ("EDGEKV.ACK",))
    site.settle()
    site.hub(2)
    assert client.hear() == [b"OK", [b"hub", 500, b"hub"]]
    assert client.told == []


def test_reads_do_not_wait_unless_they_come_behind_a_write(site: Site) -> None:
    client, writer = site.connect(), site.connect()
    client.ask("EDGEKV.ACK", "hub")
    writer.ask("SET", "a", "1")
    assert client.ask("GET", "a") == b"1"
    client.send(("SET", "b", "1"))
    client.send(("GET", "a"))
    site.settle()
    assert client.hear() == []
    site.hub(2)
    assert client.hear() == [b"OK", b"1"]


def run_slow(site: Site) -> None:
    """The slow command of one connection, up to its reply."""
    connection, slices = site.listener.slow.pop()
    while slices.step():
        site.settle()
    connection.slow_reply(slices.reply(), None)
    site.settle()


def test_a_slow_read_does_not_wait_for_what_others_write_meanwhile_and_a_slow_write_waits(site: Site) -> None:
    client, writer = site.connect(), site.connect()
    writer.ask("SET", "a", "1")
    client.ask("EDGEKV.ACK", "hub")
    client.send(("KEYS", "*"))
    writer.ask("SET", "b", "1")
    run_slow(site)
    assert client.hear() == [[b"a", b"b"]]
    client.send(("FLUSHDB",))
    run_slow(site)
    assert client.hear() == []
    site.hub(3)
    assert client.hear() == [b"OK"]


def test_writes_of_several_reads_wait_side_by_side(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub")
    for number in range(3):
        client.send(("SET", "a", number))
        site.settle()
    assert client.client.is_reading()
    site.hub(3)
    assert client.hear() == [b"OK"] * 3


def test_a_transaction_a_batch_and_a_delete_wait_too(site: Site) -> None:
    client = site.connect()
    client.ask("SADD", "s", "x")
    client.ask("EDGEKV.ACK", "hub")
    calls: list[list[tuple[str, ...]]] = [
        [("MULTI",), ("SET", "a", "1"), ("EXEC",)],
        [("EDGEKV.BATCH", "PUT", "b", "1", "0")],
        [("DEL", "s")],
    ]
    for seq, commands in enumerate(calls):
        client.send(*commands)
        site.settle()
        assert client.hear() == []
        site.hub(seq + 2)
        assert len(client.hear()) == len(commands)


def test_a_write_that_changes_nothing_waits_for_nobody(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub")
    assert client.ask("DEL", "nothing") == 0


def test_an_operation_that_comes_again_waits_again(site: Site) -> None:
    """Its answer was lost: what it had written is waited for once more, though nothing is written now."""
    client = site.connect()
    stamp = site.inline.engine.commit.durable_lsn.to_bytes(8, "big")
    operation = ("EDGEKV.OP", stamp + bytes(SESSION_BYTES - 8), 1, "INCR", "n")
    client.ask(*operation)
    again = site.connect()
    again.ask("EDGEKV.ACK", "hub")
    again.send(operation)
    site.settle()
    assert again.hear() == []
    site.hub(1)
    assert again.hear() == [1]


def test_local_waits_for_nobody_any_more(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub")
    client.ask("EDGEKV.ACK", "local")
    assert client.ask("SET", "a", "1") == b"OK"
    assert client.ask("EDGEKV.ACK") == [b"local", ACK_TIMEOUT_MS, b"local"]


def test_reset_ends_acks_and_session(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub")
    client.ask("RESET")
    assert client.ask("SET", "a", "1") == b"OK"


def test_other_connections_do_not_wait(site: Site) -> None:
    client, other = site.connect(), site.connect()
    client.ask("EDGEKV.ACK", "hub")
    client.send(("SET", "a", "1"))
    assert other.ask("SET", "b", "1") == b"OK"
    assert client.hear() == []


def test_a_connection_that_ends_leaves_no_wait_behind(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub", 0)
    client.send(("SET", "a", "1"))
    site.settle()
    client.client.transport.abort()
    assert site.inline.node.acks.status()["waiting"] == 0


def test_a_node_that_stops_answers_what_waits_as_pending(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub", 0)
    client.send(("SET", "a", "1"))
    site.settle()
    client.client.connection.finish()
    assert not client.client.is_closed()
    site.inline.node.expire_all()
    assert client.hear() == [b"OK"]
    assert client.client.is_closed()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (("EDGEKV.ACK", "everywhere"), "-ERR 'everywhere' is no level of acknowledgement. Use local, site or hub."),
        (("EDGEKV.ACK", "hub", "-1"), "-ERR value is out of range, must be positive"),
        (("EDGEKV.ACK", "hub", "1", "1"), "-ERR syntax error"),
    ],
)
def test_what_is_no_level_or_time_is_refused(site: Site, command: tuple[str, ...], error: str) -> None:
    assert site.connect().ask(*command) == error


@pytest.mark.parametrize("name", ["EDGEKV.ACK", "EDGEKV.SESSION"])
def test_promises_cannot_change_inside_a_transaction(site: Site, name: str) -> None:
    client = site.connect()
    client.ask("MULTI")
    assert client.ask(name) == f"-ERR {name} cannot be part of a transaction. Send it before MULTI."
    assert str(client.ask("EXEC")).startswith("-EXECABORT")


# -- EDGEKV.SESSION


def test_each_reply_comes_behind_a_token_that_covers_it(site: Site, other: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.send(("SET", "a", "1"))
    site.settle()
    written = client.client.replies()
    assert written.index(b"edgekv.session") < written.index(b"+OK")
    client.reader.feed(written)
    assert client.hear() == [b"OK"]
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token), ("GET", "a"))
    assert there.hear() == []
    other.receive(site)
    assert there.hear() == [b"OK", None]  # Rows do not travel in this test.


def test_a_read_is_covered_too_of_what_is_absent_as_well(site: Site, other: Site) -> None:
    """The session saw the deletion; the other node still has the key, and must not show it."""
    site.connect().ask("SET", "a", "1")
    other.receive(site)
    site.connect().ask("DEL", "a")
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    assert client.ask("GET", "a") is None
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token), ("GET", "a"))
    assert there.hear() == []
    other.receive(site)
    assert there.hear()[0] == b"OK"


def test_a_read_of_a_row_that_is_not_durable_is_covered_when_it_is_answered(site: Site) -> None:
    client, writer = site.connect(), site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("GET", "a")
    before = client.token
    writer.send(("SET", "a", "1"))
    client.send(("GET", "a"))
    assert client.hear() == []
    site.settle()
    assert client.hear() == [b"1"]
    assert client.token != before


def test_a_token_is_told_when_it_changes_and_not_with_every_reply(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    told = len(client.told)
    client.ask("GET", "a")
    assert len(client.told) == told


def test_a_token_names_only_keyspaces_that_the_session_used(site: Site, other: Site) -> None:
    site.connect().ask("SET", "a", "1")
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "room/1", "1")
    other.receive(site, b"room/1")
    assert other.connect().ask("EDGEKV.SESSION", client.token) == b"OK"


@pytest.mark.parametrize(
    "commands",
    [
        [("EDGEKV.BATCH", "PUT", "room/1", "1", "0")],
        [("MULTI",), ("SET", "room/1", "1"), ("EXEC",)],
        [("EDGEKV.OP", bytes(SESSION_BYTES), 1, "INCR", "room/1")],
        [("MGET", "a", "room/1")],
        [("DBSIZE",)],
        [("SET", "a", "1"), ("SET", "a", "1"), ("SET", "room/1", "1")],
    ],
    ids=lambda commands: str(commands[0][0]),
)
def test_every_way_to_use_a_keyspace_is_part_of_the_session(
    site: Site, other: Site, commands: list[tuple[bytes | str | int, ...]]
) -> None:
    site.connect().ask("SET", "room/2", "1")
    other.inline.engine.keyspaces.of(b"").vector[site.actor] = Head(
        1 << 60, 0
    )  # Lacking is the keyspace of rooms only.
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.send(*commands)
    site.settle()
    client.hear()
    if site.listener.slow:
        connection, slices = site.listener.slow.pop()
        while slices.step():
            pass
        connection.slow_reply(slices.reply(), None)
        client.hear()
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token))
    assert there.hear() == []


def test_a_session_goes_on_where_it_went_before(site: Site, other: Site) -> None:
    """The token of the second node names what the first one had shown, though the second was used for nothing else."""
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    other.receive(site)
    there = other.connect()
    there.ask("EDGEKV.SESSION", client.token)
    there.ask("PING")
    names = token_of(there.token.decode()).entries
    assert names == {KeyspaceId(0): {name_of(site.actor): 1}}


def test_commands_behind_a_token_fail_while_the_node_is_behind_and_nothing_is_done(site: Site, other: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token, 500), ("SET", "b", "1"), ("GET", "a"), ("PING",))
    other.tick(501)
    other.settle()
    first, second, third, pong = there.hear()
    assert all(str(reply).startswith("-BEHIND this node is behind") for reply in (first, second, third))
    assert pong == b"PONG"
    assert other.connect().ask("GET", "b") is None
    other.receive(site)
    assert there.ask("SET", "b", "1") == b"OK"


def test_a_node_that_is_behind_tells_no_token_of_its_own(site: Site, other: Site) -> None:
    """It would not cover what the session has seen, and the client would go on with it."""
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token, 0), ("PING",), ("EDGEKV.SESSION",))
    other.tick(1)
    other.settle()
    assert there.hear()[1:] == [b"PONG", client.token]
    assert there.told == []
    other.receive(site)
    there.ask("GET", "a")
    assert token_of(there.token.decode()).entries == token_of(client.token.decode()).entries


def test_the_first_write_tells_what_it_has_reached_whatever_that_is(site: Site) -> None:
    """A client that has heard nothing yet must not take the first reply for more than it is."""
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub", 500)
    client.send(("SET", "a", "1"))
    site.settle()
    site.tick(500)
    assert client.hear() == [b"OK"]
    assert client.told == [[b"edgekv.ack", b"local"]]


def test_a_transaction_behind_a_token_fails_as_a_whole(site: Site, other: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token, 0), ("MULTI",), ("SET", "b", "1"), ("EXEC",))
    other.tick(1)
    other.settle()
    assert str(there.hear()[-1]).startswith("-BEHIND")
    other.receive(site)
    assert there.ask("EXEC") == "-ERR EXEC without MULTI"


def test_on_the_same_node_a_token_is_good_at_once(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    again = site.connect()
    again.send(("EDGEKV.SESSION", client.token), ("GET", "a"))
    site.settle()
    assert again.hear() == [b"OK", b"1"]


@pytest.mark.parametrize("version", [2, 3])
def test_a_token_can_be_asked_for_and_covers_what_was_written_before(site: Site, other: Site, version: int) -> None:
    client = site.connect(version)
    client.send(("SET", "a", "1"), ("EDGEKV.SESSION",))
    assert client.hear() == []
    site.settle()
    ok, token = client.hear()
    assert ok == b"OK" and isinstance(token, bytes)
    there = other.connect()
    there.send(("EDGEKV.SESSION", token))
    assert there.hear() == []


def test_a_buffered_write_is_in_the_token_that_comes_with_its_reply(site: Site, other: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.send(("SET", "b/1", "1"))
    site.inline.engine.kick()
    site.inline.flush()
    assert site.inline.engine.commit.needs_sync
    assert client.hear() == [b"OK"]
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token))
    assert there.hear() == []


def test_garbage_is_refused_and_changes_nothing(site: Site) -> None:
    client = site.connect()
    assert str(client.ask("EDGEKV.SESSION", "garbage")).startswith("-ERR the session token is not one")
    assert client.ask("GET", "a") is None
    assert client.told == []


def test_a_session_that_ended_is_told_nothing_more(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("EDGEKV.SESSION", "END")
    told = len(client.told)
    client.ask("SET", "a", "1")
    assert len(client.told) == told


def test_acks_and_session_go_together_and_the_token_covers_what_waited(site: Site, other: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("EDGEKV.ACK", "hub")
    client.send(("SET", "a", "1"), ("EDGEKV.SESSION",))
    site.settle()
    assert client.hear() == []
    site.hub(1)
    ok, token = client.hear()
    assert (ok, token) == (b"OK", client.token)


def test_the_default_patience_is_bounded(site: Site, other: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.SESSION", "NEW")
    client.ask("SET", "a", "1")
    there = other.connect()
    there.send(("EDGEKV.SESSION", client.token))
    other.tick(SESSION_WAIT_MS - 500)
    assert there.hear() == []
    other.tick(SESSION_WAIT_MS + 10)
    assert str(there.hear()[0]).startswith("-BEHIND")


def test_a_log_that_fails_is_told_once_and_ends_the_connection(site: Site) -> None:
    client = site.connect()
    client.ask("EDGEKV.ACK", "hub")
    client.send(("SET", "a", "1"))
    client.send(("SET", "a", "2"))
    site.inline.engine.failed(LogFailed("the disk is gone."))
    assert client.hear() == ["-UNKNOWN the disk is gone."]
    assert client.client.is_closed()
    assert site.inline.node.acks.status()["waiting"] == 0
