import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.codec import pack
from edgekv.errors import FormatUnknown
from edgekv.ids import Actor, node_actor
from edgekv.wal.record import (
    CHECKPOINT,
    CLEAN,
    CLEAN_RECORD,
    INCARNATION,
    TTL,
    Changes,
    Checkpoint,
    Columns,
    KeyspaceState,
    Mark,
    Operations,
    ends_clean,
    pack_changes,
    pack_checkpoint,
    pack_columns,
    pack_incarnation,
    pack_operations,
    pack_ttl,
    unpack_body,
    unpack_records,
)

ACTOR = node_actor(b"n" * 16, b"i" * 8)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
actors = st.binary(min_size=25, max_size=25).map(Actor)


def test_a_run_of_puts_has_the_bytes_of_the_format() -> None:
    body = pack_columns([b"k"], [b"v"])
    assert body == b"\x93\x00\x91\xc4\x01k\x91\xc4\x01v"
    assert pack_changes(1, ACTOR, 2, 3, 4, 1, body) == (
        b"\x99\x01\x01\xc4\x19" + ACTOR + b"\x02\x03\x04\x01\xc4\x0a" + body + b"\xc0"
    )
    assert CLEAN_RECORD == b"\x92\x05\x02"


@given(u32, actors, u64, u64, u32, st.integers(1, 2**32), st.binary(max_size=50))
def test_changes_come_back_as_they_were_packed(
    keyspace: int, actor: Actor, seq: int, hlc: int, chain: int, changes: int, body: bytes
) -> None:
    packed = pack_changes(keyspace, actor, seq, hlc, chain, changes, body)
    assert unpack_records(packed) == [Changes(keyspace, actor, seq, hlc, chain, changes, body)]


def test_operation_ids_are_kept_beside_the_body() -> None:
    ids = [(0, b"s" * 16, 5, b"OK")]
    [record] = unpack_records(pack_changes(1, ACTOR, 1, 1, 0, 1, b"\x90", ids))
    assert isinstance(record, Changes) and record.operation_ids == [[0, b"s" * 16, 5, b"OK"]]


states = st.builds(
    KeyspaceState,
    u32,
    st.lists(st.tuples(actors, u64, u32), max_size=3),
    u64,
    u64,
    st.lists(st.tuples(actors, u64), max_size=2),
)


@given(st.lists(states, max_size=3), u64)
def test_a_checkpoint_comes_back_as_it_was_packed(keyspaces: list[KeyspaceState], ttl_ms: int) -> None:
    checkpoint = Checkpoint(keyspaces, ttl_ms)
    assert unpack_records(pack_checkpoint(checkpoint)) == [Mark(CHECKPOINT, checkpoint)]


def test_the_records_of_a_payload_keep_their_order() -> None:
    payload = pack_incarnation(ACTOR) + pack_ttl(5) + CLEAN_RECORD
    assert unpack_records(payload) == [Mark(INCARNATION, ACTOR), Mark(TTL, 5), Mark(CLEAN, None)]


@pytest.mark.parametrize("record", [[2, 1], [3, 1], [4, 1], [5, 9], [6], [5, 3, b"x"], [1, 2, 3], 7])
def test_a_record_of_another_kind_or_shape_is_refused_with_a_sentence(record: object) -> None:
    with pytest.raises(FormatUnknown, match="does not know"):
        unpack_records(pack(record))


def test_both_forms_of_a_body_come_back() -> None:
    assert unpack_body(pack_columns([b"a", b"b"], [b"1", b"2"])) == Columns([b"a", b"b"], [b"1", b"2"])
    assert unpack_body(pack_operations([[[1, b"k", b"v", 0]], []])) == Operations([[[1, b"k", b"v", 0]], []])
    with pytest.raises(FormatUnknown):
        unpack_body(pack([2, []]))


def test_only_the_record_itself_is_a_clean_mark_and_not_a_value_with_its_bytes() -> None:
    assert ends_clean(pack_ttl(1) + CLEAN_RECORD)
    assert not ends_clean(CLEAN_RECORD + pack_ttl(1))
    assert not ends_clean(b"")
    value_last = pack_changes(1, ACTOR, 1, 1, 0, 1, b"\x90", [(0, b"s" * 16, 1, CLEAN_RECORD)])
    assert value_last.endswith(CLEAN_RECORD)
    assert not ends_clean(value_last)
