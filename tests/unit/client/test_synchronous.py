"""The synchronous client: that it waits differently and does the same."""

import inspect
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

import edgekv.sync
from edgekv.client import asynchronous, blocking, synchronous
from edgekv.errors import EdgeKVError, OutcomeUnknown, Unavailable
from tests.unit.client.fake_node import FakeNode, Fault
from tests.unit.client.test_asynchronous import LATE_S, SOON_S, nobody, once


def ended(call: Callable[[], object]) -> object:
    """What a call gave, or the error that it ended with."""
    try:
        return call()
    except EdgeKVError as error:
        return error


@pytest.mark.parametrize("name", ["Verbs", "Counter", "Set", "Map", "Register", "Batch"])
def test_both_clients_have_the_same_verbs_with_the_same_parameters(name: str) -> None:
    def verbs(module: object) -> dict[str, list[str]]:
        members = inspect.getmembers(getattr(module, name), inspect.isfunction)
        public = [(verb, member) for verb, member in members if not verb.startswith("_")]
        return {verb: list(inspect.signature(member).parameters) for verb, member in public}

    assert verbs(asynchronous) == verbs(synchronous)


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.GARBAGE])
def test_what_may_be_repeated_is_repeated_and_an_addition_counts_once(fault: Fault) -> None:
    with FakeNode(takes_ids=True) as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        node.script = once(b"SET", fault)
        db.put("k", b"v")
        node.script = once(b"GET", fault)
        assert db.get("k") == b"v"
        node.script = once(b"INCRBY", fault)
        assert db.counter("n").add(5) == 5
        assert node.done[b"INCRBY"] == 1


def test_without_ids_the_outcome_of_a_lost_addition_is_unknown() -> None:
    with FakeNode() as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        node.script = once(b"INCRBY", Fault.RESET_AFTER)
        with pytest.raises(OutcomeUnknown, match="must not be done twice"):
            db.counter("n").add()
        assert db.counter("n").get() == 1


def test_a_node_that_closed_an_idle_connection_costs_no_addition() -> None:
    with FakeNode() as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        node.stop()
        node.start()
        assert db.counter("n").add() == 1


def test_when_the_node_is_gone_the_next_address_answers_and_a_lost_addition_is_unknown() -> None:
    def reset_and_die(number: int, words: list[bytes]) -> Fault | None:
        if words[0] != b"INCRBY":
            return None
        first.listening_ends()
        return Fault.RESET_AFTER

    with FakeNode("a", takes_ids=True) as first, FakeNode("b", takes_ids=True) as second:
        url = f"edgekv://{nobody()},{first.address},{second.address}"
        with edgekv.sync.connect(url, deadline_s=LATE_S) as db:
            first.script = reset_and_die
            with pytest.raises(OutcomeUnknown, match="no other knows"):
                db.counter("n").add()
            assert db.counter("n").add() == 1
    assert first.done[b"INCRBY"] == second.done[b"INCRBY"] == 1


def test_additions_of_a_session_that_the_node_forgot_go_on_in_a_new_one() -> None:
    with FakeNode(takes_ids=True) as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        assert db.counter("n").add() == 1
        node.durable_lsn, node.oldest_stamp = 20, 10
        assert [db.counter("n").add() for _ in range(3)] == [2, 3, 4]
    assert node.connections == 2 and node.done[b"INCRBY"] == 4


def test_a_node_that_refuses_for_now_sends_the_call_to_the_next_address() -> None:
    with FakeNode("a") as first, FakeNode("b") as second:
        with edgekv.sync.connect(f"edgekv://{first.address},{second.address}", deadline_s=LATE_S) as db:
            first.script = lambda number, words: b"-DISKFULL full\r\n"
            db.put("k", b"v")
        assert second.rows == {b"k": b"v"}


def test_a_deadline_ends_a_call_and_a_hanging_node_is_left() -> None:
    with FakeNode("a") as first, FakeNode("b") as second:
        with edgekv.sync.connect(f"edgekv://{first.address},{second.address}", deadline_s=SOON_S) as db:
            first.script = lambda number, words: Fault.SILENCE
            assert type(ended(lambda: db.put("k", b"v"))) is OutcomeUnknown
            assert db.get("k") is None
        assert second.done[b"GET"] == 1


def test_an_answer_that_comes_in_pieces_is_read_whole() -> None:
    with FakeNode() as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        db.put("k", b"v" * 5_000_000)
        assert db.get("k") == b"v" * 5_000_000


def test_when_no_node_answers_nothing_happened() -> None:
    with (
        pytest.raises(Unavailable, match="did not happen"),
        edgekv.sync.connect(f"edgekv://{nobody()}", deadline_s=SOON_S),
    ):
        pass


def test_an_attempt_that_the_deadline_cuts_short_does_not_hide_what_was_wrong_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = count()

    def line(_place: int, _address: object, deadline_s: float, _terms: object = None) -> None:
        if next(attempts) == 0:
            raise Unavailable("it is no node")
        time.sleep(max(deadline_s - time.monotonic(), 0))
        raise TimeoutError("timed out")

    monkeypatch.setattr(blocking, "Line", line)
    with (
        pytest.raises(Unavailable, match="it is no node"),
        edgekv.sync.connect("edgekv://127.0.0.1:1", deadline_s=SOON_S),
    ):
        pass
    assert next(attempts) == 2


def test_threads_share_a_client_and_each_gets_its_own_answers() -> None:
    with FakeNode(takes_ids=True) as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:

        def work(thread: int) -> None:
            for number in range(100):
                db.put(f"{thread}/{number}", b"%d" % number)
                assert db.get(f"{thread}/{number}") == b"%d" % number
                db.counter("n").add()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert db.counter("n").get() == 800
        assert node.connections <= 9


def test_a_codecs_error_ends_its_call_only() -> None:
    with FakeNode() as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        db.put("k", b"seven")
        with pytest.raises(ValueError, match="seven"):
            db.register("k", edgekv.Codec(lambda value: b"%d" % value, int)).get()
        assert db.get("k") == b"seven"


def test_after_a_fork_the_child_uses_connections_and_ids_of_its_own() -> None:
    with FakeNode(takes_ids=True) as node, edgekv.sync.connect(node.url, deadline_s=LATE_S) as db:
        db.counter("n").add()
        if (child := os.fork()) == 0:
            db.counter("n").add()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert db.counter("n").add() == 3
        assert len(node.operations) == 2, "one session each"


def test_a_closed_client_takes_no_calls() -> None:
    with FakeNode() as node:
        with edgekv.sync.connect(node.url) as db:
            pass
        with pytest.raises(Unavailable, match="closed"):
            db.get("k")
