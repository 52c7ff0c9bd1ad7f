"""What may be sent again, and what an error says about a write."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.client import commands
from edgekv.client.calls import CALLS_PER_RETRY, RETRIES_MAX, RETRY_RESERVE, SESSION_WINDOW, Budget, Call, OperationIds
from edgekv.client.wire import Peer
from edgekv.errors import (
    Denied,
    DiskFull,
    EdgeKVError,
    IdForgotten,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WrongType,
)
from edgekv.ids import SESSION_BYTES, stamp_of

RESET = ConnectionError("reset")
HERE, THERE = Peer("node-1", 7), Peer("node-2", 9)
WITHOUT = Peer("node-1", None)


def ids(peer: Peer) -> OperationIds:
    sessions = itertools.count()
    return OperationIds(peer, lambda size: b"%0*d" % (size, next(sessions)))


def call(command: commands.Command[object]) -> Call[None]:
    return Call(command, 0.0, None)


def get() -> Call[None]:
    return call(commands.get("k"))


def put() -> Call[None]:
    return call(commands.put("k", b"v"))


def add() -> Call[None]:
    return call(commands.counter_add(b"k"))


@given(st.lists(st.one_of(st.integers(1, 50), st.none())))
def test_retries_are_at_most_a_tenth_of_the_calls_beyond_a_reserve(events: list[int | None]) -> None:
    budget, calls, retries = Budget(), 0, 0
    for made in events:
        if made is None:
            retries += budget.take()
        else:
            budget.earn(made)
            calls += made
    assert retries <= calls / CALLS_PER_RETRY + RETRY_RESERVE


def exhausted() -> Budget:
    budget = Budget()
    while budget.take():
        pass
    return budget


def test_what_is_done_twice_as_well_as_once_is_sent_again_to_any_node() -> None:
    for one in (get(), put()):
        first = one.bytes_for(ids(HERE))
        assert one.lost(RESET, Budget()) is None
        assert one.bytes_for(ids(THERE)) == first


def test_without_retries_left_a_read_did_not_happen_and_a_write_is_unknown() -> None:
    assert type(get().lost(RESET, exhausted())) is Unavailable
    assert type(put().lost(RESET, exhausted())) is OutcomeUnknown


def test_an_addition_without_an_id_is_never_sent_again() -> None:
    one = add()
    assert one.bytes_for(ids(WITHOUT)).startswith(b"*3\r\n$6\r\nINCRBY")
    assert type(one.lost(RESET, Budget())) is OutcomeUnknown


def test_an_addition_is_sent_again_with_the_same_id_to_the_same_node_only() -> None:
    one = add()
    first = one.bytes_for(ids(HERE))
    assert b"EDGEKV.OP" in first
    assert one.lost(RESET, Budget()) is None
    assert one.bytes_for(ids(HERE)) == first
    with pytest.raises(OutcomeUnknown, match="no other knows"):
        one.bytes_for(ids(THERE))


def test_an_addition_that_its_node_refused_may_go_to_another_one_with_a_new_id() -> None:
    one = add()
    first = one.bytes_for(ids(HERE))
    assert one.refused(DiskFull("full"), Budget(), addresses=2) is None
    second = one.bytes_for(ids(THERE))
    assert second != first or one.operation is not None
    assert one.operation is not None and one.operation.node == "node-2"


def test_an_addition_whose_session_was_forgotten_before_it_came_is_made_again_there_in_a_new_session() -> None:
    one = add()
    one.bytes_for(ids(HERE))
    first = one.operation
    assert one.refused(IdForgotten("forgotten"), Budget(), addresses=1) is None
    one.bytes_for(ids(Peer("node-1", 8)))
    assert first is not None and one.operation is not None and one.operation.session != first.session


def test_a_session_begins_with_the_stamp_of_its_node() -> None:
    issued = ids(HERE).issue()
    assert issued is not None and stamp_of(issued.session) == HERE.stamp and len(issued.session) == SESSION_BYTES


def test_a_node_that_forgets_every_session_is_not_asked_for_ever() -> None:
    one = add()
    answers = [one.refused(IdForgotten("forgotten"), Budget(), addresses=1) for _ in range(RETRIES_MAX + 1)]
    assert answers[:-1] == [None] * RETRIES_MAX and type(answers[-1]) is IdForgotten


@pytest.mark.parametrize("refusal", [Denied("no"), DiskFull("full"), IdForgotten("the id is below the window")])
def test_a_refusal_says_nothing_about_a_first_attempt_that_was_lost(refusal: EdgeKVError) -> None:
    """With an id as well: whether a node asks its policy before or after its memory of ids is not ours to know."""
    for one in (put(), add()):
        one.bytes_for(ids(HERE))
        assert one.lost(RESET, Budget()) is None
        failure = one.refused(refusal, Budget(), addresses=3)
        assert type(failure) is OutcomeUnknown and failure.__cause__ is refusal


@pytest.mark.parametrize("error", [Denied("no"), WrongType("set"), InvalidRequest("syntax")])
def test_a_refusal_of_the_only_attempt_is_passed_on(error: EdgeKVError) -> None:
    for one in (get(), put(), add()):
        one.bytes_for(ids(HERE))
        assert one.refused(error, Budget(), addresses=3) is error


def test_each_address_refuses_a_call_once() -> None:
    one = put()
    assert [one.refused(DiskFull("full"), Budget(), addresses=3) for _ in range(2)] == [None, None]
    assert type(one.refused(DiskFull("full"), Budget(), addresses=3)) is DiskFull


def test_a_node_whose_log_failed_is_a_lost_answer() -> None:
    assert put().refused(OutcomeUnknown("log"), Budget(), addresses=1) is None
    one = add()
    one.bytes_for(ids(WITHOUT))
    assert type(one.refused(OutcomeUnknown("log"), Budget(), addresses=1)) is OutcomeUnknown


def test_a_deadline_leaves_only_writes_that_were_sent_in_doubt() -> None:
    assert type(put().expired(sent=False, why="")) is Unavailable
    assert type(put().expired(sent=True, why="")) is OutcomeUnknown
    assert type(get().expired(sent=True, why="")) is Unavailable
    again = put()
    again.lost(RESET, Budget())
    assert type(again.expired(sent=False, why="")) is OutcomeUnknown, "its first attempt was sent"


@given(st.lists(st.integers(0, 3), max_size=200))
def test_an_id_that_waits_is_never_pushed_out_of_its_sessions_window(settle: list[int]) -> None:
    """The oldest id of each session may wait for ever; the others are settled in any order."""
    issuer, waiting, newest = ids(HERE), [], dict[bytes, int]()
    for choice in settle * 40:
        operation = issuer.issue()
        assert operation is not None
        newest[operation.session] = operation.number
        waiting.append(operation)
        if choice and len(waiting) > 1:
            issuer.settled(waiting.pop(choice % len(waiting) or 1))
        assert all(newest[one.session] - one.number <= SESSION_WINDOW for one in waiting)


def test_ids_are_never_used_twice() -> None:
    issuer = ids(HERE)
    issued = [issuer.issue() for _ in range(3 * SESSION_WINDOW)]
    assert len(set(issued)) == len(issued)
