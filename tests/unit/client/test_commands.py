"""What verbs send, and how answers are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.api.resp.globs import compiled
from edgekv.client import commands
from edgekv.client.commands import Operations, Repeat
from edgekv.client.wire import BrokenConversation
from edgekv.errors import InvalidRequest, WrongType


def test_text_names_keys_as_utf_8_and_values_are_bytes() -> None:
    assert commands.put("schlüssel", b"v").words == (b"SET", "schlüssel".encode(), b"v")
    assert commands.put(b"\xff", bytearray(b"v"), ttl_s=0.0001).words == (b"SET", b"\xff", b"v", b"PX", b"1")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="a value is bytes, not str"):
        commands.put("k", "v")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="int names no key"):
        commands.get(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
def test_a_time_to_live_that_has_passed_is_refused(ttl_s: float) -> None:
    with pytest.raises(InvalidRequest, match="time to live"):
        commands.put("k", b"v", ttl_s=ttl_s)


@given(st.binary(max_size=8), st.binary(max_size=12))
def test_the_pattern_of_a_scan_fits_exactly_the_keys_with_the_prefix(prefix: bytes, key: bytes) -> None:
    pattern = commands.scan_page(0, prefix, 10).words[3]
    for candidate in (key, prefix + key):
        assert (compiled(pattern).fullmatch(candidate) is not None) == candidate.startswith(prefix)


def test_what_leaves_another_thing_when_it_is_done_twice_needs_an_operation_id() -> None:
    by_id = {commands.COUNTER_ADD, commands.MAP_ADD, commands.APPEND, commands.BATCH, commands.SIBLINGS_PUT}
    kinds = {kind for kind in vars(commands).values() if isinstance(kind, commands.Kind)}
    assert {kind for kind in kinds if kind.repeat is Repeat.BY_ID} == by_id
    assert all(kind.writes for kind in by_id)


def test_a_batch_of_puts_is_one_mset_and_anything_else_is_one_edgekv_batch() -> None:
    puts = Operations().put("a", b"1").put("b", b"2").command()
    assert puts.words == (b"MSET", b"a", b"1", b"b", b"2") and puts.kind.repeat is Repeat.FREELY
    assert puts.kind.read(b"OK") == [None, None]
    mixed = Operations().put("a", b"1").put("b", b"2", ttl_s=1.5).delete("c").add("n", -3).command()
    words = b"EDGEKV.BATCH PUT a 1 0 PUT b 2 1500 DELETE c ADD n -3".split()
    assert mixed.words == tuple(words) and mixed.kind.repeat is Repeat.BY_ID
    with pytest.raises(InvalidRequest, match="empty"):
        Operations().command()


@pytest.mark.parametrize(
    ("command", "reply", "value"),
    [
        (commands.get("k"), None, None),
        (commands.counter_get(b"k"), None, 0),
        (commands.counter_get(b"k"), b"-12", -12),
        (commands.ttl("k"), -1, None),
        (commands.ttl("k"), 1500, 1.5),
        (commands.expire("k", 1), 0, False),
        (commands.set_members(b"k"), [b"a", b"b"], {b"a", b"b"}),
        (commands.map_items(b"k"), {b"f": b"v"}, {b"f": b"v"}),
        (commands.scan_page(0, b"", 10), [b"17", [b"a"]], (17, [b"a"])),
    ],
)
def test_an_answer_becomes_a_value(command: commands.Command[object], reply: object, value: object) -> None:
    assert command.kind.read(reply) == value


@pytest.mark.parametrize(
    "command",
    [
        commands.get("k"),
        commands.counter_add(b"k"),
        commands.set_members(b"k"),
        commands.map_items(b"k"),
        commands.get_many(["k"]),
        commands.scan_page(0, b"", 10),
    ],
)
@pytest.mark.parametrize("reply", [1.5, [b"x", 7], {b"a": 1}, [[b"?"]]])
def test_an_answer_of_another_shape_breaks_the_conversation(command: commands.Command[object], reply: object) -> None:
    with pytest.raises(BrokenConversation):
        command.kind.read(reply)


def test_a_counter_that_is_none_is_the_callers_mistake_and_not_the_connections() -> None:
    with pytest.raises(WrongType):
        commands.counter_get(b"k").kind.read(b"text")
