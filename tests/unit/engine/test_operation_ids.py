"""The table of operation ids: whatever it forgets, nothing is carried out twice, and whoever asks for a fresh stamp can go on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.engine.operation_ids import OperationIds
from edgekv.errors import IdForgotten, InvalidRequest
from edgekv.ids import new_session, stamp_of
from edgekv.limits import OPERATION_ID_BYTES, OPERATION_SESSION_BYTES, OPERATION_WINDOW

SESSIONS_MAX = 3
BYTES_MAX = 3 * OPERATION_SESSION_BYTES + 8 * (OPERATION_ID_BYTES + 2)


def session(stamp: int, name: int = 0) -> bytes:
    return new_session(stamp, name.to_bytes(8, "big"))


def is_forgotten(ids: OperationIds, of: bytes, number: int, lsn: int = 1000) -> bool:
    try:
        ids.find(of, number, newest_stamp=lsn)
    except IdForgotten:
        return True
    return False


attempts = st.lists(  # None: what is on its way becomes durable
    st.one_of(
        st.tuples(st.integers(0, 20), st.integers(0, 3), st.sampled_from([1, 2, 3, 1024, 1025, 1500])),
        st.none(),
    ),
    max_size=80,
)


@given(attempts)
def test_no_operation_is_carried_out_twice_whatever_is_forgotten_and_whenever_it_becomes_durable(
    steps: list[tuple[int, int, int] | None],
) -> None:
    """As the commit pipeline does: changes that are not durable are found in their frames, and enter the table in order."""
    ids, pending, done, lsn = (
        OperationIds(sessions_max=SESSIONS_MAX, bytes_max=BYTES_MAX),
        list[tuple[bytes, int]](),
        set(),
        0,
    )
    for step in steps:
        if step is None:
            for of, number in pending:
                ids.add(of, number, b"%d" % number)
            lsn, pending = lsn + len(pending), []
            continue
        of, number = session(step[0], step[1]), step[2]
        if (of, number) in pending:
            continue
        try:
            reply = ids.find(of, number, newest_stamp=lsn)
        except (IdForgotten, InvalidRequest):
            continue
        if reply is None:
            assert (of, number) not in done
            done.add((of, number))
            pending.append((of, number))
        else:
            assert reply == b"%d" % number


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.integers(0, 60)), max_size=60))
def test_the_bounds_hold_and_a_fresh_stamp_is_always_good(uses: list[tuple[int, int, int]]) -> None:
    ids = OperationIds(sessions_max=SESSIONS_MAX, bytes_max=BYTES_MAX)
    for lsn, (stamp, number, size) in enumerate(uses, 21):  # each is a record at this LSN, whose session is older
        ids.add(session(stamp), number, b"x" * size)
        assert len(ids) <= SESSIONS_MAX and ids.bytes <= BYTES_MAX
        assert ids.find(session(lsn + 1), 1, newest_stamp=lsn + 1) is None


def test_the_session_that_was_used_longest_ago_is_forgotten_first() -> None:
    ids = OperationIds(sessions_max=2)
    for stamp, number in ((5, 1), (6, 1), (5, 2), (7, 1)):
        ids.add(session(stamp), number, b"r")
    assert is_forgotten(ids, session(6), 1) and is_forgotten(ids, session(6), 2)
    assert ids.find(session(5), 2, newest_stamp=9) == ids.find(session(7), 1, newest_stamp=9) == b"r"
    assert ids.find(session(5), 3, newest_stamp=9) is None, "it goes on, though a younger one was forgotten"


def test_a_forgotten_session_is_told_from_a_new_one_by_its_stamp_alone() -> None:
    ids = OperationIds(sessions_max=1)
    ids.add(session(5), 1, b"r")
    ids.add(session(3), 1, b"r")
    assert is_forgotten(ids, session(5), 1) and is_forgotten(ids, session(5, 77), 1), "nobody knows that it never came"
    assert ids.find(session(6), 1, newest_stamp=6) is None


def test_what_a_forgotten_session_had_on_its_way_stays_forgotten() -> None:
    ids = OperationIds(sessions_max=1)
    ids.add(session(5), 1, b"r")
    ids.add(session(6), 1, b"r")
    ids.add(session(5), 2, b"r")
    assert is_forgotten(ids, session(5), 1) and is_forgotten(ids, session(5), 2) and len(ids) == 1


def test_a_number_below_the_window_is_refused_whether_it_was_carried_out_or_not() -> None:
    ids = OperationIds()
    ids.add(session(1), 1, b"one")
    ids.add(session(1), OPERATION_WINDOW, b"r")
    assert ids.find(session(1), 1, newest_stamp=1) == b"one"
    ids.add(session(1), OPERATION_WINDOW + 2, b"r")
    assert is_forgotten(ids, session(1), 1) and is_forgotten(ids, session(1), 2)
    assert ids.find(session(1), 3, newest_stamp=1) is None


def test_a_great_leap_of_the_numbers_costs_no_more_than_the_window() -> None:
    ids = OperationIds()
    for number in (1, 2, 1 << 62):
        ids.add(session(1), number, b"r")
    assert is_forgotten(ids, session(1), 2) and ids.bytes == OPERATION_SESSION_BYTES + OPERATION_ID_BYTES + 1


def test_a_session_of_random_bytes_is_refused_and_locks_nobody_out() -> None:
    ids = OperationIds()
    with pytest.raises(InvalidRequest, match="durable_lsn of INFO edgekv"):
        ids.find(b"\xff" * 16, 1, newest_stamp=1 << 40)
    assert stamp_of(b"\xff" * 16) > 1 << 40 and ids.oldest_stamp == 0
