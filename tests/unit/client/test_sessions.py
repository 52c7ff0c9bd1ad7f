"""Sessions and acknowledgements in both clients: what they ask for, what they carry along, and what they tell their callers.

One set of claims for both: `Awaited` runs the asynchronous client's loop while it is asked, so that it looks like the other one.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import pytest

import edgekv
import edgekv.sync
from edgekv.client.terms import Ack
from edgekv.errors import InvalidRequest, OutcomeUnknown, SessionBehind, Unavailable
from tests.unit.client.fake_node import OK, FakeNode, Fault, push
from tests.unit.client.test_asynchronous import once

T = TypeVar("T")
LATE_S = 60.0
SOON_S = 0.3


class Store(Protocol):
    """What these tests do with a client, or a session of one."""

    def put(self, key: str, value: bytes) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def add(self, key: str) -> int: ...
    def session(self, token: str | None = None) -> "Store": ...

    @property
    def token(self) -> str: ...

    def close(self) -> None: ...


class Blocking:
    """The synchronous client."""

    def __init__(self, db: edgekv.sync.Client) -> None:
        self.db = db

    def put(self, key: str, value: bytes) -> None:
        self.db.put(key, value)

    def get(self, key: str) -> bytes | None:
        return self.db.get(key)

    def add(self, key: str) -> int:
        return self.db.counter(key).add()

    def session(self, token: str | None = None) -> "Blocking":
        return Blocking(self.db.session(token))

    @property
    def token(self) -> str:
        assert isinstance(self.db, edgekv.sync.Session)
        return self.db.token

    def close(self) -> None:
        self.db.close()


class Awaited:
    """The asynchronous client, on a loop that runs while it is asked."""

    def __init__(self, db: edgekv.Client, loop: asyncio.AbstractEventLoop) -> None:
        self.db, self.loop = db, loop
        loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.db._exchange.start()

    def put(self, key: str, value: bytes) -> None:
        self.loop.run_until_complete(self._call(lambda: self.db.put(key, value)))

    def get(self, key: str) -> bytes | None:
        return self.loop.run_until_complete(self._call(lambda: self.db.get(key)))

    def add(self, key: str) -> int:
        return self.loop.run_until_complete(self._call(lambda: self.db.counter(key).add()))

    async def _call(self, make: Callable[[], "asyncio.Future[T]"]) -> T:
        return await make()

    def session(self, token: str | None = None) -> "Awaited":
        return Awaited(self.db.session(token), self.loop)

    @property
    def token(self) -> str:
        assert isinstance(self.db, edgekv.Session)
        return self.db.token

    def close(self) -> None:
        self.loop.run_until_complete(self.db.close())


Connect = Callable[..., Store]
"""Connects to these nodes, with the arguments of `edgekv.connect`."""


@pytest.fixture(params=["asynchronous", "synchronous"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    stores: list[Store] = []
    loop = asyncio.new_event_loop()

    def connected(
        *nodes: FakeNode,
        deadline_s: float = LATE_S,
        ack: Ack = "local",
        ack_timeout_s: float = 1.0,
        on_pending: Callable[[str], None] | None = None,
    ) -> Store:
        url = "edgekv://" + ",".join(str(node.address) for node in nodes)
        asked = {"deadline_s": deadline_s, "ack_timeout_s": ack_timeout_s}
        store: Store
        if request.param == "synchronous":
            store = Blocking(edgekv.sync.connect(url, ack=ack, on_pending=on_pending, **asked))
        else:
            store = Awaited(edgekv.connect(url, ack=ack, on_pending=on_pending, **asked), loop)
        stores.append(store)
        return store

    yield connected
    for store in stores:
        store.close()
    loop.close()


def tokens(name: bytes) -> Callable[[list[bytes]], bytes]:
    """A node whose every reply comes behind a token of its own, ``name`` and a number."""
    numbers = itertools.count(1)
    return lambda words: push(b"edgekv.session", b"%b-%d" % (name, next(numbers)))


def levels(*said: bytes | None) -> Callable[[list[bytes]], bytes]:
    """A node that says before its replies how far writes have got; None: nothing."""
    saying = list(said)

    def pushed(words: list[bytes]) -> bytes:
        level = saying.pop(0)
        return b"" if level is None else push(b"edgekv.ack", level)

    return pushed


# -- sessions


def test_a_client_without_terms_asks_for_none(connect: Connect) -> None:
    with FakeNode() as node:
        connect(node).put("k", b"v")
        assert node.openings == []


def test_a_session_begins_on_a_connection_of_its_own(connect: Connect) -> None:
    with FakeNode() as node:
        db = connect(node)
        db.put("k", b"v")
        session = db.session()
        assert session.token == ""
        assert session.get("k") == b"v"
        session.close()
        assert node.openings == [[b"EDGEKV.SESSION", b"NEW"]]
        assert db.get("k") == b"v"


def test_a_session_has_the_token_of_its_last_answer(connect: Connect) -> None:
    with FakeNode() as node:
        node.push = tokens(b"a")
        session = connect(node).session()
        session.put("k", b"v")
        assert session.token == "a-1"
        session.get("k")
        assert session.token == "a-2"
        session.close()


def test_a_session_goes_on_at_the_next_address_with_its_token_when_its_node_is_gone(connect: Connect) -> None:
    with FakeNode("a") as first, FakeNode("b") as second:
        first.push, second.push = tokens(b"a"), tokens(b"b")
        session = connect(first, second).session()
        session.put("k", b"v")
        first.stop()
        session.get("k")
        assert [words[:2] for words in second.openings] == [[b"EDGEKV.SESSION", b"a-1"]]
        assert session.token == "b-1"
        session.close()


def test_a_connection_that_breaks_after_an_answer_loses_no_token(connect: Connect) -> None:
    """The token comes before the reply, so whatever was answered is in it."""
    with FakeNode() as node:
        node.push = tokens(b"a")
        session = connect(node).session()
        session.put("k", b"v")
        node.script = once(b"GET", Fault.RESET_BEFORE)
        session.get("k")
        assert node.openings[-1][1] == b"a-1"
        session.close()


def test_a_node_that_is_behind_is_left_for_the_next_address(connect: Connect) -> None:
    with FakeNode("a") as first, FakeNode("b") as second:
        first.opening_answer = lambda words: b"-BEHIND this node is behind\r\n"
        second.rows[b"k"] = b"v"
        session = connect(first, second).session("saved")
        assert session.get("k") == b"v"
        assert first.commands == 0, "nothing is asked of a node that is behind"
        session.close()


def test_when_every_node_is_behind_the_call_says_so_at_its_deadline_and_did_not_happen(connect: Connect) -> None:
    with FakeNode() as node:
        node.opening_answer = lambda words: b"-BEHIND this node is behind\r\n"
        session = connect(node, deadline_s=SOON_S).session("saved")
        with pytest.raises(SessionBehind, match="this node is behind") as raised:
            session.put("k", b"v")
        assert (raised.value.outcome, raised.value.retryable, node.commands) == ("not-applied", True, 0)
        session.close()


def test_a_session_goes_on_when_the_node_has_caught_up(connect: Connect) -> None:
    with FakeNode() as node:
        node.opening_answer = lambda words: OK if len(node.openings) > 2 else b"-BEHIND this node is behind\r\n"
        session = connect(node).session("saved")
        session.put("k", b"v")
        assert node.rows == {b"k": b"v"}
        session.close()


def test_a_write_in_doubt_stays_in_doubt_when_the_other_nodes_are_behind(connect: Connect) -> None:
    with FakeNode("a") as first, FakeNode("b") as second:
        second.opening_answer = lambda words: b"-BEHIND this node is behind\r\n"
        session = connect(first, second, deadline_s=SOON_S).session()
        session.get("k")
        first.push = tokens(b"a")

        def gone(number: int, words: list[bytes]) -> Fault:
            first.listening_ends()
            return Fault.RESET_AFTER

        first.script = gone
        with pytest.raises(OutcomeUnknown):
            session.put("k", b"v")
        session.close()


def test_a_node_that_knows_no_sessions_is_not_used_for_one(connect: Connect) -> None:
    with FakeNode() as node:
        node.opening_answer = lambda words: b"-ERR unknown command 'EDGEKV.SESSION'\r\n"
        session = connect(node, deadline_s=SOON_S).session()
        with pytest.raises(Unavailable, match=r"(?i)refused edgekv\.session"):
            session.get("k")
        assert node.commands == 0
        session.close()


def test_a_client_that_is_not_in_a_session_keeps_no_token(connect: Connect) -> None:
    with FakeNode() as node:
        node.push = tokens(b"a")
        db = connect(node, ack="hub")
        db.put("k", b"v")
        assert db.session().token == ""


# -- acknowledgements


def test_writes_ask_for_the_acknowledgement_and_a_session_inherits_it(connect: Connect) -> None:
    with FakeNode() as node:
        db = connect(node, ack="hub", ack_timeout_s=0.5)
        db.put("k", b"v")
        session = db.session()
        session.put("k", b"v")
        session.close()
        assert node.openings == [
            [b"EDGEKV.ACK", b"hub", b"500"],
            [b"EDGEKV.ACK", b"hub", b"500"],
            [b"EDGEKV.SESSION", b"NEW"],
        ]


def test_each_write_whose_acknowledgement_is_pending_is_reported_and_no_other(connect: Connect) -> None:
    with FakeNode(takes_ids=True) as node:
        node.push = levels(b"hub", b"local", None, b"hub", None)
        pending: list[str] = []
        db = connect(node, ack="hub", on_pending=pending.append)
        db.put("k", b"v")
        assert db.add("n") == 1
        assert db.get("k") == b"v"
        db.put("k", b"v")
        db.put("k", b"v")
        assert pending == ["counter.add"]


def test_a_pending_acknowledgement_is_no_error_unless_the_caller_makes_it_one(connect: Connect) -> None:
    class Pending(Exception):
        pass

    def refuse(verb: str) -> None:
        raise Pending(verb)

    with FakeNode() as node:
        node.push = levels(b"local", None)
        db = connect(node, ack="hub", on_pending=refuse)
        with pytest.raises(Pending):
            db.put("k", b"v")
        assert db.get("k") == b"v", "the connection goes on"


def test_without_a_callback_a_pending_acknowledgement_is_as_good_as_any(connect: Connect) -> None:
    with FakeNode() as node:
        node.push = levels(b"local")
        connect(node, ack="site").put("k", b"v")


def test_what_is_pending_is_forgotten_with_the_connection(connect: Connect) -> None:
    with FakeNode() as node:
        node.push = levels(b"local", None)
        pending: list[str] = []
        db = connect(node, ack="hub", on_pending=pending.append)
        db.put("k", b"v")
        node.stop()
        node.start()
        db.put("k", b"v")
        assert pending == ["put"]


@pytest.mark.parametrize(
    "asked",
    [{"ack": "everywhere"}, {"ack": "hub", "ack_timeout_s": LATE_S}, {"ack": "hub", "ack_timeout_s": 0}],
)
def test_terms_that_make_no_sense_are_refused_at_once(connect: Connect, asked: dict[str, object]) -> None:
    with FakeNode() as node, pytest.raises(InvalidRequest):
        connect(node, **asked)


def test_answers_of_a_node_that_is_left_come_before_the_session_goes_on_elsewhere() -> None:
    """Else two connections would each have a token that does not cover what the other one has shown."""

    async def use(first: FakeNode, second: FakeNode) -> None:
        url = f"edgekv://{first.address},{second.address}"
        async with edgekv.connect(url, deadline_s=LATE_S) as db, db.session() as session:
            first.push = tokens(b"a")
            answers: dict[bytes, bytes | float] = {b"SET": b"-OVERLOADED not now\r\n", b"GET": 0.1}
            first.script = lambda number, words: answers.get(words[0])
            refused, shown = session.put("k", b"v"), session.get("k")
            assert await shown is None
            await refused
        assert second.openings == [[b"EDGEKV.SESSION", b"a-1", b"1000"]]

    with FakeNode("a") as first, FakeNode("b") as second:
        asyncio.run(use(first, second))
