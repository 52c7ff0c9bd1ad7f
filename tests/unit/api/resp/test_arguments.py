"""Numbers are read as strictly as Redis reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.api.resp.arguments import (
    INTEGER_MAX,
    INTEGER_MIN,
    at_most,
    deadline_ms,
    expiry_ms,
    integer,
    integer_from,
    pairs,
)
from edgekv.errors import InvalidRequest

NOW = 1_700_000_000_000


@given(st.integers(INTEGER_MIN, INTEGER_MAX))
def test_every_64_bit_integer_is_read(number: int) -> None:
    assert integer(b"%d" % number) == number


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"-",
        b"+1",
        b"01",
        b"-0",
        b" 1",
        b"1 ",
        b"1.0",
        b"0x1",
        b"9223372036854775808",
        b"-9223372036854775809",
        b"1\n",
    ],
)
def test_no_other_spelling_is_an_integer(argument: bytes) -> None:
    with pytest.raises(InvalidRequest, match="value is not an integer or out of range"):
        integer(argument)


def test_expiries_are_absolute_milliseconds() -> None:
    assert expiry_ms("EX", b"2", now_ms=NOW, command="set") == NOW + 2000
    assert expiry_ms("PX", b"2", now_ms=NOW, command="set") == NOW + 2
    assert expiry_ms("EXAT", b"2", now_ms=NOW, command="set") == 2000
    assert expiry_ms("PXAT", b"2", now_ms=NOW, command="set") == 2
    assert deadline_ms("EX", b"-5", now_ms=NOW, command="expire") == NOW - 5000


@pytest.mark.parametrize("argument", [b"0", b"-1", b"9223372036854775", b"9223372036854775807"])
def test_an_expiry_out_of_range_names_the_command(argument: bytes) -> None:
    with pytest.raises(InvalidRequest, match="invalid expire time in 'setex' command"):
        expiry_ms("EX", argument, now_ms=NOW, command="setex")


@pytest.mark.parametrize("argument", [b"9223372036854775807", b"-9223372036854775808"])
def test_a_deadline_that_overflows_is_refused(argument: bytes) -> None:
    with pytest.raises(InvalidRequest, match="invalid expire time in 'expireat' command"):
        deadline_ms("EXAT", argument, now_ms=NOW, command="expireat")


@pytest.mark.parametrize("argument", [b"", b"x", b"1.0", b"-1", b"0", b"9223372036854775808"])
def test_a_number_below_its_least_and_what_is_none_are_refused_with_the_same_sentence(argument: bytes) -> None:
    with pytest.raises(InvalidRequest, match="numkeys should be greater than 0"):
        integer_from(argument, 1, "numkeys should be greater than 0")


@given(st.integers(INTEGER_MIN, INTEGER_MAX))
def test_a_number_from_its_least_on_is_read(least: int) -> None:
    assert integer_from(b"%d" % least, least, "") == least


def test_what_comes_in_twos_is_paired_from_its_place_on_and_a_lone_one_names_the_command() -> None:
    assert pairs([b"HSET", b"k", b"a", b"1", b"b", b"2"], 2, "hset") == [(b"a", b"1"), (b"b", b"2")]
    assert pairs([b"MSET", b"a", b"1"], 1, "mset") == [(b"a", b"1")]
    with pytest.raises(InvalidRequest, match="wrong number of arguments for 'hset' command"):
        pairs([b"HSET", b"k", b"a", b"1", b"b"], 2, "hset")


def test_more_arguments_than_a_command_takes_are_a_syntax_error() -> None:
    at_most([b"SPOP", b"k", b"1"], 3)
    with pytest.raises(InvalidRequest, match="syntax error"):
        at_most([b"SPOP", b"k", b"1", b"2"], 3)
