"""The hybrid logical clock's arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from edgekv.clock import hlc_from_ms, hlc_ms, next_hlc

wall_times = st.integers(0, (1 << 47) - 1)


@given(wall_times, st.integers(0, 0xFFFF))
def test_a_stamp_carries_its_millisecond(ms: int, counter: int) -> None:
    assert hlc_ms(hlc_from_ms(ms) + counter) == ms
    assert hlc_from_ms(ms) + counter < hlc_from_ms(ms + 1)


@given(st.integers(0, (1 << 63) - 1), wall_times)
def test_the_next_stamp_is_above_the_last_and_not_below_the_wall_clock(last: int, now_ms: int) -> None:
    stamp = next_hlc(last, now_ms)
    assert stamp > last
    assert hlc_ms(stamp) >= now_ms


def test_stamps_go_on_when_the_wall_clock_goes_back() -> None:
    last = next_hlc(0, 1_000)
    assert [next_hlc(last, 10), next_hlc(last + 1, 10)] == [last + 1, last + 2]


def test_a_full_counter_runs_into_the_milliseconds() -> None:
    assert next_hlc(hlc_from_ms(5) + 0xFFFF, 5) == hlc_from_ms(6)
