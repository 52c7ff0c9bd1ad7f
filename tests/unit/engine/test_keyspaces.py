"""The keyspace of a key is the one with the longest prefix, found by bisection."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.engine.keyspaces import DEFAULT_ID, KeyspacePolicy, Keyspaces, successor
from edgekv.errors import ConfigError
from edgekv.ids import KeyspaceId

POLICIES = [
    KeyspacePolicy(id=KeyspaceId(i), name=f"k{i}", prefix=p)
    for i, p in enumerate([b"", b"patient/", b"lock/", b"a\xff", b"\xff\xff", b"zz"])
]
KEYS = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.sampled_from([b"patient/", b"lock/", b"a\xff", b"\xff\xff", b"zz"]).flatmap(
        lambda prefix: st.binary(max_size=3).map(lambda rest: prefix + rest)
    ),
)


def owner_by_prefix(keyspaces: Keyspaces, key: bytes) -> str:
    return max((k for k in keyspaces.all if key.startswith(k.prefix)), key=lambda k: len(k.prefix)).name


@given(KEYS)
def test_the_keyspace_of_a_key_is_the_one_with_the_longest_matching_prefix(key: bytes) -> None:
    keyspaces = Keyspaces(POLICIES)
    assert keyspaces.of(key).name == owner_by_prefix(keyspaces, key)


@given(st.lists(KEYS, min_size=1, max_size=5))
def test_a_run_has_one_keyspace_exactly_when_all_its_keys_have_it(keys: list[bytes]) -> None:
    keyspaces = Keyspaces(POLICIES)
    owners = {keyspaces.of(key) for key in keys}
    found = keyspaces.of_run(keys)
    if found is not None:
        assert owners == {found}


@given(KEYS, st.one_of(st.none(), KEYS))
def test_intervals_cover_a_range_once_and_each_lies_in_its_keyspace(low: bytes, high: bytes | None) -> None:
    keyspaces = Keyspaces(POLICIES)
    pieces = keyspaces.intervals(low, high)
    if high is not None and low >= high:
        assert pieces == []
        return
    assert pieces[0].low == low and pieces[-1].high == high
    for left, right in itertools.pairwise(pieces):
        assert left.high == right.low
    for piece in pieces:
        assert keyspaces.of(piece.low) is piece.keyspace


@pytest.mark.parametrize("prefixes", [[b"", b"a/", b"a/b/"], [b"", b"a/", b"a/"], [b"a/"]])
def test_prefixes_that_nest_or_repeat_or_leave_keys_without_a_keyspace_are_refused(prefixes: list[bytes]) -> None:
    policies = [KeyspacePolicy(id=KeyspaceId(i), name=f"k{i}", prefix=p) for i, p in enumerate(prefixes)]
    with pytest.raises(ConfigError):
        Keyspaces(policies)


@given(st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=5))
def test_the_successor_bounds_exactly_the_keys_with_the_prefix(prefix: bytes, key: bytes) -> None:
    end = successor(prefix)
    assert key.startswith(prefix) == (prefix <= key and (end is None or key < end))


def test_the_default_keyspace_alone_owns_everything() -> None:
    keyspaces = Keyspaces([KeyspacePolicy(id=DEFAULT_ID, name="default", prefix=b"")])
    assert keyspaces.of_run([b"\x00", b"\xff"]) is keyspaces.all[0]
