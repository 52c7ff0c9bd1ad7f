"""Which address is next."""

from hypothesis import given
from hypothesis import strategies as st

from edgekv.client.route import PAUSE_S, PAUSE_S_MAX, Route


def test_a_connection_that_broke_is_tried_at_the_same_address_and_one_that_failed_at_the_next() -> None:
    route = Route(["a", "b"], lambda: 1.0)
    route.broke("reset")
    assert route.address == "a" and route.pause_s() == 0.0
    route.failed("refused")
    assert route.address == "b" and route.pause_s() == 0.0, "the next address is tried at once"
    assert route.reason == "a: refused"


@given(st.integers(1, 4), st.integers(0, 100), st.floats(0.01, 1))
def test_after_each_round_of_failures_the_pause_grows_up_to_its_bound(size: int, failures: int, die: float) -> None:
    route = Route([str(place) for place in range(size)], lambda: die)
    for _ in range(failures):
        route.failed("refused")
    rounds = failures // size
    assert route.pause_s() <= min(PAUSE_S * 2**rounds, PAUSE_S_MAX)
    assert (route.pause_s() == 0.0) == (rounds == 0)
    assert route.place == failures % size
