"""The messages of the applier's pipes survive the crossing, in whatever pieces they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.errors import FormatUnknown
from edgekv.ids import Actor
from edgekv.store.applied import Cut, Failed, Opened, Progress, Stable
from edgekv.store.applier_messages import (
    frame_message,
    pack_request,
    pack_response,
    parse_request,
    parse_response,
    take_messages,
)
from edgekv.store.lost_values import Lost, LostValue, Version

U63 = st.integers(0, 2**63 - 1)
ACTORS = st.binary(min_size=25, max_size=25).map(Actor)
VECTORS = st.dictionaries(ACTORS, U63, max_size=3)
CUTS = st.dictionaries(
    st.integers(0, 2**32 - 1), st.builds(Cut, VECTORS, VECTORS, st.frozensets(ACTORS, max_size=2)), max_size=2
)
DROPPED = st.frozensets(st.integers(0, 2**32 - 1), max_size=2)
REQUESTS = st.tuples(U63, st.none() | st.builds(Stable, U63, st.none() | CUTS, DROPPED))
VERSIONS = st.builds(Version, st.none() | st.binary(max_size=3), U63, ACTORS, U63, U63)
LOST_VALUES = st.builds(
    LostValue, st.binary(max_size=3), st.none() | st.binary(max_size=3), st.none() | VERSIONS, VERSIONS
)
LOST = st.builds(Lost, U63, U63, st.lists(LOST_VALUES, max_size=2).map(tuple))
RESPONSES = st.one_of(
    st.just(Opened()),
    st.builds(Progress, U63, U63, U63, st.booleans(), st.booleans(), st.none() | LOST),
    st.builds(Failed, st.text(max_size=20), st.booleans()),
)


@given(requests=st.lists(REQUESTS, max_size=4), piece=st.integers(1, 9))
def test_requests_come_out_as_they_went_in_however_the_pipe_cuts_them(
    requests: list[tuple[int, Stable | None]], piece: int
) -> None:
    stream = b"".join(frame_message(pack_request(lsn, stable)) for lsn, stable in requests)
    received = bytearray()
    parsed = []
    for start in range(0, len(stream), piece):
        received += stream[start : start + piece]
        parsed += [parse_request(message) for message in take_messages(received)]
    assert parsed == requests
    assert not received


@given(response=RESPONSES)
def test_responses_come_out_as_they_went_in(response: Opened | Progress | Failed) -> None:
    received = bytearray(frame_message(pack_response(response)))
    assert [parse_response(message) for message in take_messages(received)] == [response]


def test_an_unknown_message_is_refused_with_a_sentence() -> None:
    with pytest.raises(FormatUnknown, match="does not know"):
        parse_request(["what"])
    with pytest.raises(FormatUnknown, match="does not know"):
        parse_response(["applied", 1])
