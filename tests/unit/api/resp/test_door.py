"""What gets past the door, byte by byte."""

from itertools import pairwise

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.api.resp.door import Door, bad_argument
from edgekv.limits import COMMAND_ARGUMENTS_MAX, CONNECTION_INPUT_BYTES_MAX
from tests.unit.api.resp.fake_node import encode

# Values that look like headers, in every place and cut at every byte, are what the door must not fall for.
tricky = st.sampled_from(
    [b"*1000000000\r\n", b"$100000000\r\n", b">9999999", b"*", b"$", b"\r\n*3\r\n", b"PING\r\n", b"~1234567\r\n"]
)
argument = st.one_of(st.binary(max_size=20), tricky, st.lists(tricky, max_size=4).map(b"".join))
pipeline = st.lists(st.lists(argument, min_size=1, max_size=4), min_size=1, max_size=6)


def taken(door: Door, reads: list[bytes]) -> list[object]:
    return [command for read in reads if read for command in door.take(read)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(pipeline, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_any_commands_cut_anywhere_come_out_as_they_were_sent(commands: list[list[bytes]], places: list[int]) -> None:
    door = Door()
    data = b"".join(encode(*command) for command in commands)
    assert taken(door, cut(data, places)) == commands
    assert door.fault is None


@given(pipeline)
def test_bytes_that_arrive_one_by_one_come_out_as_they_were_sent(commands: list[list[bytes]]) -> None:
    door = Door()
    data = b"".join(encode(*command) for command in commands)
    assert taken(door, [data[i : i + 1] for i in range(len(data))]) == commands
    assert door.fault is None


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_garbage_raises_nothing(reads: list[bytes]) -> None:
    door = Door()
    for read in reads:
        if door.fault is None:
            door.take(read)


@given(pipeline, st.binary(min_size=1, max_size=30))
def test_commands_before_garbage_are_taken(commands: list[list[bytes]], garbage: bytes) -> None:
    door = Door()
    data = b"".join(encode(*command) for command in commands)
    assert door.take(data + garbage)[: len(commands)] == commands


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"*1000000000\r\n", "invalid multibulk length"),
        (b"*%d\r\n" % (COMMAND_ARGUMENTS_MAX + 1), "invalid multibulk length"),
        (b"*a\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*" + b"1" * 40, "invalid multibulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000000\r\n", "invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n" % (CONNECTION_INPUT_BYTES_MAX + 1), "invalid bulk length"),
        (b"*2\r\n$x\r\n", "invalid bulk length"),
        (b"*2\r\n$1\r\na\r\nfoo\r\n", "expected '$', got 'f'"),
        (b"*2\r\n$1\r\na\r\n>1000000000\r\n", "expected '$', got '>'"),
        (b"*2\r\n$1\r\na\r\n~1000000000\r\n", "expected '$', got '~'"),
        (b"*2\r\n$1\r\na\r\n|1000000000\r\n", "expected '$', got '|'"),
        (b"$5\r\nhello\r\n", "expected '*', got '$'"),
        (b"x" * 70_000, "too big inline request"),
        (b'SET a "abc\r\n', "unbalanced quotes in request"),
    ],
)
def test_a_protocol_error_is_told_in_redis_words(data: bytes, fault: str) -> None:
    door = Door()
    door.take(data)
    assert door.fault == fault


@pytest.mark.parametrize("header", [b"*1000000000\r\n", b"*1\r\n*1000000000\r\n", b"*1\r\n>100000000\r\n"])
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_a_huge_header_never_reaches_the_reader_however_it_is_cut(
    header: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[bytes] = []
    real = hiredis.Reader

    class Watched:
        def __init__(self, notEnoughData: object) -> None:  # noqa: N803 - hiredis' name
            reader = real(notEnoughData=notEnoughData)
            self.gets, self.has_data = reader.gets, reader.has_data
            self._feed = reader.feed

        def feed(self, data: bytes) -> None:
            fed.append(data)
            self._feed(data)

    monkeypatch.setattr("edgekv.api.resp.door.hiredis.Reader", Watched)
    door = Door()
    for i in range(0, len(header), size):
        door.take(header[i : i + size])
    assert door.fault is not None
    assert b"00000" not in b"".join(fed)


def test_a_command_below_the_bound_on_arguments_passes() -> None:
    door = Door()
    command = [b"DEL"] + [b"k"] * (COMMAND_ARGUMENTS_MAX - 1)
    assert door.take(encode(*command)) == [command]


def test_the_bytes_of_an_incomplete_command_are_counted_and_bounded() -> None:
    door = Door()
    door.take(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % CONNECTION_INPUT_BYTES_MAX)
    part = b"x" * (1 << 20)
    for i in range(63):
        door.take(part)
        assert door.pending > i << 20
        assert door.fault is None
    taken(door, [part, part])
    assert "bytes" in str(door.fault)


def test_a_complete_command_ends_the_count() -> None:
    door = Door()
    data = encode("SET", "k", "v" * 100)
    door.take(data[:50])
    assert door.pending == 50
    assert door.take(data[50:]) == [[b"SET", b"k", b"v" * 100]]
    assert door.pending == 0


def test_empty_arrays_are_ignored() -> None:
    assert Door().take(b"*0\r\n*-1\r\n" + encode("PING") + b"*0\r\n") == [[b"PING"]]
    assert Door().take(b"*0\r\n") == []


@pytest.mark.parametrize(
    "reads",
    [
        [b"*-1\r\nPING\r\n"],
        [b"*-1", b"\r\nPING\r\n"],
        [b"*-", b"1\r\n", encode("PING")],
        [b"*0\r\n*-1\r\nPING\r\n*-1\r\n"],
    ],
)
def test_null_arrays_are_ignored_before_any_command_and_in_any_pieces(reads: list[bytes]) -> None:
    door = Door()
    assert taken(door, reads) == [[b"PING"]]
    assert door.fault is None


def test_inline_commands_mix_with_arrays_in_one_read() -> None:
    door = Door()
    assert door.take(b"\r\nPING\r\n" + encode("ECHO", "a") + b"ECHO b\r\n" + encode("ECHO", "c")) == [
        [b"PING"],
        [b"ECHO", b"a"],
        [b"ECHO", b"b"],
        [b"ECHO", b"c"],
    ]
    assert door.fault is None


def test_an_inline_command_may_come_in_pieces() -> None:
    door = Door()
    assert taken(door, [b"EC", b"HO ", b"hi\r", b"\n"]) == [[b"ECHO", b"hi"]]


@pytest.mark.parametrize(
    ("argument", "fault"),
    [
        (b":1\r\n", "expected '$', got ':'"),
        (b",1.5\r\n", "expected '$', got ','"),
        (b"#t\r\n", "expected '$', got '#'"),
        (b"*0\r\n", "expected '$', got '*'"),
        (b"%1\r\n+a\r\n+b\r\n", "expected '$', got '%'"),
        (b"-ERR\r\n", "expected '$', got '-'"),
        (b"_\r\n", "invalid bulk length"),
        (b"$-1\r\n", "invalid bulk length"),
    ],
)
def test_an_argument_that_is_no_string_has_a_fault(argument: bytes, fault: str) -> None:
    (command,) = Door().take(b"*2\r\n$4\r\nECHO\r\n" + argument)
    assert isinstance(command, list)
    assert bad_argument(command) == fault
