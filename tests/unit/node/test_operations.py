"""What a client can do with keys, on a whole node, bound by bound. (Against Redis' semantics: test_against_redis.py.)"""

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.errors import Denied, InvalidRequest, NotANumber, TooLarge
from edgekv.limits import (
    BATCH_OPERATIONS_MAX,
    CHANGE_OVERHEAD_BYTES,
    KEY_BYTES_MAX,
    READ_RUN_BYTES_MAX,
    SCAN_EXAMINED_KEYS_MAX,
)
from edgekv.node.operations import value_advice
from tests.unit.node.inline_node import START_MS, VALUE_BYTES_MAX, InlineNode

TTL_S: Final = 100
KEYSPACES: Final = (
    KeyspaceConfig(prefix=b"", name="default", durability="fsync"),
    KeyspaceConfig(prefix=b"fast/", name="fast", durability="buffered"),
    KeyspaceConfig(prefix=b"ttl/", name="short", durability="fsync", ttl_s=TTL_S),
)
LONG: Final = b"long" * 130  # beyond LMDB's 511 bytes, like its neighbour in all but the last byte
KEYS: Final = (b"a", b"b", b"c\x00d", b"c", LONG + b"1", LONG + b"2", b"fast/a", b"fast/b", b"ttl/a", b"ttl/b")
FOREVER: Final = 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path / "node", keyspaces=KEYSPACES)
    yield node
    node.kill()


# -- bounds of one call


def test_a_change_larger_than_the_limit_is_refused_and_nothing_happens(node: InlineNode) -> None:
    half = b"x" * (VALUE_BYTES_MAX // 2)
    with pytest.raises(TooLarge, match="Split it"):
        node.operations.set_many([(b"%d" % i, half) for i in range(4)])
    assert node.operations.page(b"", b"", 10).listed == []
    node.operations.set_many([(b"%d" % i, half) for i in range(2)])


def test_a_call_of_too_many_keys_is_refused(node: InlineNode) -> None:
    keys = [b"%d" % i for i in range(BATCH_OPERATIONS_MAX + 1)]
    with pytest.raises(TooLarge):
        node.operations.delete(keys)
    with pytest.raises(TooLarge):
        node.operations.batch([("delete", key) for key in keys])


def test_deleting_many_long_keys_at_once_is_refused_before_any_is_deleted(node: InlineNode) -> None:
    keys = [b"%04d" % i + b"k" * (KEY_BYTES_MAX - 4) for i in range(40)]
    for key in keys:
        node.operations.set(key, b"v")
    with pytest.raises(TooLarge):
        node.operations.delete([*keys, *(b"fast/" + key[:-5] for key in keys)])
    assert node.operations.exists(keys) == len(keys)
    assert sum(node.operations.delete(keys[i : i + 10]) for i in range(0, 40, 10)) == len(keys)


@pytest.mark.parametrize(("count", "value_bytes"), [(60, 2000), (3000, 1), (9, VALUE_BYTES_MAX - 1000)])
def test_whatever_one_read_brings_fits_into_the_smallest_segments(tmp_path: Path, count: int, value_bytes: int) -> None:
    segment_bytes = 2 * (VALUE_BYTES_MAX + CHANGE_OVERHEAD_BYTES)
    node = InlineNode(tmp_path / "node", segment_bytes=segment_bytes, memory_bytes=64 << 20)
    keys = [b"%d" % i for i in range(count)]
    node.operations.set_run(keys, [b"v" * value_bytes] * count)
    for key in keys[:200]:
        node.operations.append(key, b"tail")
    node.operations.set_many([(b"many%d" % i, b"") for i in range(900)])
    node.settle()
    node.kill()
    node.open()
    assert node.operations.get(keys[-1]) is not None
    assert node.operations.exists(keys) == count
    node.kill()


def test_framing_counts_where_changes_are_small(tmp_path: Path) -> None:
    segment_bytes = 2 * (VALUE_BYTES_MAX + CHANGE_OVERHEAD_BYTES)
    node = InlineNode(tmp_path / "node", segment_bytes=segment_bytes, keyspaces=KEYSPACES)
    for _ in range(3000):  # each a record by itself, as the keyspaces alternate
        node.operations.set(b"a", b"")
        node.operations.set(b"fast/", b"")
    node.settle()
    keys = [bytes([1 + i // 250, i % 250]) for i in range(900)]
    for _ in range(30):  # operations that are nearly all framing
        node.operations.batch([("put", key, b"", START_MS + 1000) for key in keys])
    node.settle()
    node.kill()
    node.open()
    assert node.operations.exists([b"a", b"fast/", *keys]) == 2 + len(keys)
    node.kill()


def test_a_run_of_large_values_is_answered_in_part(node: InlineNode) -> None:
    keys = [b"%02d" % i for i in range(64)]
    for key in keys:
        node.operations.set(key, key * (VALUE_BYTES_MAX // 2))

    def read_all() -> None:
        values: list[bytes | None] = []
        while len(values) < len(keys):
            part = node.operations.get_run(keys[len(values) :])
            assert 0 < sum(len(value or b"") for value in part) <= READ_RUN_BYTES_MAX
            values += part
        assert values == [key * (VALUE_BYTES_MAX // 2) for key in keys]
        assert node.operations.exists(keys) == len(keys)

    read_all()
    node.checkpoint()
    node.stop()
    node.open()
    read_all()  # from LMDB
    node.operations.increment(b"n", 1)
    read_all()  # in a keyspace that holds other rows too


def test_one_value_above_the_bound_of_a_run_is_still_answered(tmp_path: Path) -> None:
    node = InlineNode(tmp_path / "node", value_bytes_max=3 << 20, segment_bytes=8 << 20, memory_bytes=64 << 20)
    node.operations.set(b"k", b"v" * (3 << 20))
    assert node.operations.get_run([b"k", b"k"]) == [b"v" * (3 << 20)]
    node.kill()


@pytest.mark.parametrize("stored", [b"1_000", b" 1", b"nan", b"inf", b"1e9999999", b"0x10", b"1" * 5001, b"\xd9\xa1"])
def test_what_redis_does_not_read_as_a_fraction_is_refused(node: InlineNode, stored: bytes) -> None:
    node.operations.set(b"k", stored)
    with pytest.raises(NotANumber):
        node.operations.increment_float(b"k", b"1")
    assert node.operations.get(b"k") == stored


@pytest.mark.parametrize(
    ("stored", "delta", "total"),
    [(b"10.50", b"0.1", b"10.6"), (b"5.0e3", b"2.0e2", b"5200"), (b"-1", b"1", b"0"), (b".5", b"-1.", b"-0.5")],
)
def test_fractions_are_added_as_redis_prints_them(node: InlineNode, stored: bytes, delta: bytes, total: bytes) -> None:
    node.operations.set(b"k", stored)
    assert node.operations.increment_float(b"k", delta) == total
    assert node.operations.get(b"k") == total


def test_an_increment_by_a_fraction_keeps_the_expiry(node: InlineNode) -> None:
    node.operations.set(b"k", b"1", expiry_ms=START_MS + 5000)
    assert node.operations.increment_float(b"k", b"0.5") == b"1.5"
    assert node.operations.expiry_of(b"k") == START_MS + 5000


def test_a_fraction_is_added_to_the_own_part_and_leaves_the_register_to_its_last_writer(node: InlineNode) -> None:
    """A register written anew would discard what another node adds at the same moment."""
    node.operations.set(b"k", b"1.5")
    node.operations.maps.put(b"h", [(b"f", b"1.5")])
    assert node.operations.increment_float(b"k", b"0.25") == b"1.75"
    assert node.operations.maps.increment_float(b"h", b"f", b"0.25") == b"1.75"
    keyspace = node.engine.keyspaces.of(b"k")
    states = node.engine.reads.state(keyspace, b"k"), node.engine.collections.field(keyspace, b"h", b"f")
    for state in states:
        assert state.register is not None and state.register.value == b"1.5"
        assert [part.total for part in state.parts.values()] == [Fraction(1, 4)]


def test_a_fraction_is_no_integer_until_another_completes_it(node: InlineNode) -> None:
    node.operations.increment_float(b"k", b"1.5")
    node.operations.maps.increment_float(b"h", b"f", b"1.5")
    with pytest.raises(NotANumber, match=r"^value is not an integer or out of range$"):
        node.operations.increment(b"k", 1)
    with pytest.raises(NotANumber, match=r"^hash value is not an integer$"):
        node.operations.maps.increment(b"h", b"f", 1)
    assert node.operations.increment_float(b"k", b"5e-1") == b"2"
    assert node.operations.maps.increment_float(b"h", b"f", b"5e-1") == b"2"
    assert node.operations.increment(b"k", 1) == 3
    assert node.operations.maps.increment(b"h", b"f", 1) == 3


def test_a_run_of_increments_stops_at_a_fraction_and_goes_on_behind_it(node: InlineNode) -> None:
    node.operations.increment(b"a", 1)
    node.operations.increment_float(b"f", b"0.5")
    results = node.operations.increment_run([b"a", b"f", b"a", b"a"], [1] * 4)
    assert isinstance(results[1], NotANumber)
    assert [results[0], *results[2:]] == [2, 3, 4]
    node.operations.set(b"f", b"0.5")
    node.operations.increment_float(b"f", b"0.5")
    assert node.operations.increment_run([b"f", b"f"], [1, 1]) == [2, 3], "its own part is a fraction, the sum is not"


@pytest.mark.parametrize("stop", [InlineNode.stop, InlineNode.kill])
def test_fractions_outlive_a_restart_in_the_log_and_in_the_store(
    node: InlineNode, stop: Callable[[InlineNode], None]
) -> None:
    node.operations.increment_float(b"k", b"-0.1")
    node.operations.increment_float(b"large", b"1e4932")
    node.operations.maps.increment_float(b"h", b"f", b"0.1")
    node.settle()
    node.checkpoint()
    node.operations.increment_float(b"k", b"-0.2")
    node.settle()
    stop(node)
    node.open()
    assert node.operations.get(b"k") == b"-0.3"
    assert node.operations.get(b"large") == b"1" + b"0" * 4932
    assert node.operations.maps.page(b"h", b"", 9)[0] == [(b"f", b"0.1")]
    node.operations.delete([b"k", b"large"])
    assert node.operations.get_run([b"k", b"large"]) == [None, None]
    assert node.operations.increment_float(b"k", b"0.2") == b"0.2"


def test_fractions_added_in_one_transaction_are_one_addition(node: InlineNode) -> None:
    node.operations.increment_float(b"k", b"0.1")
    before = node.engine.keyspaces.of(b"k").seq
    with node.operations.transaction():
        assert node.operations.increment_float(b"k", b"0.1") == b"0.2"
        assert node.operations.increment_float(b"k", b"0.1") == b"0.3"
        node.operations.maps.increment_float(b"h", b"f", b"0.1")
        assert node.operations.maps.increment_float(b"h", b"f", b"0.2") == b"0.3"
    assert node.engine.keyspaces.of(b"k").seq == before + 1
    assert node.operations.get(b"k") == b"0.3"
    assert node.operations.maps.get(b"h", [b"f"]) == [b"0.3"]


def test_a_fraction_too_small_to_be_shown_adds_nothing(node: InlineNode) -> None:
    for _ in range(3):
        assert node.operations.increment_float(b"k", b"4e-18") == b"0"
    assert node.operations.increment_float(b"k", b"1e-17") == b"0.00000000000000001"


def test_a_renamed_fraction_is_the_same_number(node: InlineNode) -> None:
    node.operations.increment_float(b"k", b"0.1")
    node.operations.maps.increment_float(b"h", b"f", b"0.1")
    node.operations.rename(b"k", b"l")
    node.operations.rename(b"h", b"i")
    assert node.operations.increment_float(b"l", b"0.2") == b"0.3"
    assert node.operations.maps.increment_float(b"i", b"f", b"0.2") == b"0.3"


@pytest.mark.parametrize("key", [b"", b"k" * (KEY_BYTES_MAX + 1)])
def test_a_key_of_no_or_too_many_bytes_is_refused_by_every_verb(node: InlineNode, key: bytes) -> None:
    verbs: list[Callable[[], object]] = [
        lambda: node.operations.set(key, b"v"),
        lambda: node.operations.get_entry(key),
        lambda: node.operations.delete([key]),
        lambda: node.operations.increment(key, 1),
        lambda: node.operations.append(key, b"v"),
        lambda: node.operations.set_expiry(key, 1),
        lambda: node.operations.persist(key),
        lambda: node.operations.rename(b"a", key),
        lambda: node.operations.rename(key, b"a"),
        lambda: node.operations.batch([("put", key, b"v", 0)]),
    ]
    for verb in verbs:
        with pytest.raises(InvalidRequest):
            verb()
    assert not node.engine.commit.filling.runs


def test_keys_of_the_node_itself_are_denied(node: InlineNode) -> None:
    with pytest.raises(Denied):
        node.operations.set(b"_meta/x", b"v")
    with pytest.raises(Denied):
        node.operations.delete([b"_meta/x"])


# -- expiry


def test_a_batch_that_deletes_a_key_forgets_the_expiry_that_it_gave_it(node: InlineNode) -> None:
    node.operations.batch([("put", b"k", b"1", START_MS + 1000), ("delete", b"k"), ("add", b"k", 1)])
    assert node.operations.expiry_of(b"k") == -1


def test_a_number_made_in_a_keyspace_with_a_ttl_expires_and_an_increment_does_not_prolong_it(node: InlineNode) -> None:
    node.operations.increment(b"ttl/n", 1)
    node.now_ms += 1000
    node.operations.increment(b"ttl/n", 1)
    assert node.operations.expiry_of(b"ttl/n") == START_MS + TTL_S * 1000
    node.now_ms += TTL_S * 1000
    assert node.operations.get(b"ttl/n") is None
    assert node.operations.increment(b"ttl/n", 1) == 1


def test_a_clock_that_is_set_back_after_a_purge_was_agreed_does_not_revive_what_it_purges(node: InlineNode) -> None:
    node.operations.increment(b"n", 5)
    node.operations.set_expiry(b"n", START_MS + 10_000)
    for now_ms in (
        START_MS,
        START_MS + 6000,
        START_MS + 20_000,
    ):  # the last freeze logs the TTL time that the next one purges by
        node.operations.set(b"other", b"v")
        node.checkpoint_at(now_ms)
    assert node.operations.now_ms() == START_MS + 20_000
    node.operations.set(b"other", b"v")
    node.settle()
    node.now_ms = START_MS + 8000
    node.operations.increment(b"n", 1)  # by the clock it would add to 5; it comes after the LSN of the purge
    node.engine.checkpoints.tick(START_MS + 26_000, blocked=True)
    while node.apply():
        node.flush()
    assert node.operations.get(b"n") == b"1"


# -- ranges


def test_a_page_gives_up_among_deleted_keys_and_says_where_to_go_on(node: InlineNode) -> None:
    keys = [b"%06d" % i for i in range(2 * SCAN_EXAMINED_KEYS_MAX + 500)]
    node.operations.set_run([*keys, b"z"], [b"v"] * (len(keys) + 1))
    node.settle()
    for i in range(0, len(keys), 500):
        node.operations.delete(keys[i : i + 500])
    node.settle()
    page = node.operations.page(b"", b"", 10)
    assert page.listed == [] and page.next_key is not None
    pages = 1
    while not page.listed:
        assert page.next_key is not None
        page = node.operations.page(page.next_key, b"", 10)
        pages += 1
    assert [entry.key for entry in page.listed] == [b"z"] and pages <= 4


def test_a_page_gives_up_among_expired_keys_too(node: InlineNode) -> None:
    keys = [b"%06d" % i for i in range(2 * SCAN_EXAMINED_KEYS_MAX + 500)]
    for key in keys:
        node.operations.set(key, b"v", expiry_ms=START_MS + 1)
    node.operations.set(b"z", b"v")
    node.now_ms += 1
    page = node.operations.page(b"", b"", 100)
    assert page.listed == [] and page.next_key is not None
    assert SCAN_EXAMINED_KEYS_MAX <= int(page.next_key) <= SCAN_EXAMINED_KEYS_MAX + 300


def test_a_random_key_is_found_whatever_the_dice(node: InlineNode) -> None:
    assert node.operations.random_key(3) is None
    node.operations.set(b"m", b"v")
    assert {node.operations.random_key(dice) for dice in (0, 7, 1 << 63, (1 << 64) - 1)} == {b"m"}


# -- back-pressure


def test_a_burst_within_one_turn_of_the_loop_meets_the_cap(node: InlineNode) -> None:
    """No flush comes back and no timer ticks meanwhile: growth itself is judged."""
    value = b"x" * 10_000
    calls = 0
    while not node.engine.write_blocked:
        node.operations.set_run([b"%d" % calls], [value])
        calls += 1
        assert calls * len(value) < 2 * node.config.memory_bytes
    node.checkpoint()
    assert not node.engine.write_blocked


def test_whoever_waits_for_room_is_called_once_when_the_applier_made_some(node: InlineNode) -> None:
    calls: list[str] = []
    for i in itertools.count():
        if node.engine.write_blocked:
            break
        node.operations.set(b"%d" % i, b"x" * 10_000)
    node.engine.on_room.append(lambda: calls.append("room"))
    node.settle()
    assert calls == []
    node.checkpoint()
    assert calls == ["room"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (("put", b"", b"1", 0), InvalidRequest),
        (("put", b"k" * (KEY_BYTES_MAX + 1), b"1", 0), TooLarge),
        (("put", b"k", b"v" * (VALUE_BYTES_MAX + 1), 0), TooLarge),
        (("put", b"_meta/x", b"1", 0), Denied),
        (("add", b"text", 1), NotANumber),
    ],
)
def test_the_refusal_of_a_batch_names_the_operation(
    node: InlineNode, wrong: tuple[object, ...], error: type[Exception]
) -> None:
    node.operations.set(b"text", b"abc")
    with pytest.raises(error, match=r"^operation 1: "):
        node.operations.batch([("put", b"a", b"1", 0), wrong])
    assert node.operations.get(b"a") is None


def test_the_advice_for_a_large_value_is_one_that_helps() -> None:
    assert value_advice(1 << 20) == "Split it, or raise limits.value_bytes_max, to 16777216 at most."
    assert value_advice(16 << 20) == "Split it."


def test_a_fraction_that_was_written_can_be_added_to(node: InlineNode) -> None:
    written = node.operations.increment_float(b"k", b"1e300")
    assert node.operations.increment_float(b"k", b"1") == written[:-1] + b"1"


def test_a_counted_value_has_a_version_of_its_own_and_a_set_one_has_none_of_its_parts(node: InlineNode) -> None:
    versions = []
    for _ in range(3):
        node.operations.increment(b"k", 1)
        entry = node.operations.get_entry(b"k")
        assert entry is not None
        versions.append(entry.version)
    assert len(set(versions)) == 3 and all(version.hlc == 0 and version.parts for version in versions)
    node.operations.set(b"k", b"4")
    entry = node.operations.get_entry(b"k")
    assert entry is not None and entry.version.hlc and not entry.version.parts


def test_an_empty_string_is_no_fraction_to_add_to(node: InlineNode) -> None:
    node.operations.set(b"k", b"")
    node.operations.maps.put(b"h", [(b"f", b"")])
    with pytest.raises(NotANumber, match=r"^value is not a valid float$"):
        node.operations.increment_float(b"k", b"1")
    with pytest.raises(NotANumber, match=r"^hash value is not a float$"):
        node.operations.maps.increment_float(b"h", b"f", b"1")


# -- what a change clears counts in its size


@pytest.fixture
def large(node: InlineNode) -> InlineNode:
    """h is a hash of counters that no change can reset at once; s is a set."""
    for i in range(40):
        node.operations.maps.increment(b"h", b"%04d" % i + b"f" * 4_000, 1)
    node.operations.sets.add(b"s", [b"a", b"b"])
    node.settle()
    return node


@pytest.mark.parametrize(
    "verb",
    [
        lambda node: node.operations.delete([b"h"]),
        lambda node: node.operations.set(b"h", b"v"),
        lambda node: node.operations.set_expiry(b"h", 1),
        lambda node: node.operations.rename(b"s", b"h"),
        lambda node: node.operations.sets.store(b"h", [b"a"]),
    ],
)
def test_a_verb_that_would_clear_more_counters_than_a_change_holds_says_what_to_do(
    verb: Callable[[InlineNode], object], large: InlineNode
) -> None:
    with pytest.raises(TooLarge, match=r"resets 40 counters of the hash 'h'\. Delete its fields in parts first\."):
        verb(large)
    large.settle()
    fields = [field for field, _ in large.operations.maps.page(b"h", b"", 100)[0]]
    for i in range(0, len(fields), 10):
        assert large.operations.maps.remove(b"h", fields[i : i + 10]) == 10
    assert large.operations.type_of(b"h") == "none"


@pytest.mark.parametrize(
    "verb",
    [
        lambda node: node.operations.sets.add(b"h", [b"a"]),
        lambda node: node.operations.sets.move(b"s", b"h", b"a"),
        lambda node: node.operations.maps.increment(b"h", b"x", 1),
        lambda node: node.operations.maps.put(b"h", [(b"x", b"1")]),
        lambda node: node.operations.increment(b"h", 1),
        lambda node: node.operations.increment_float(b"h", b"1.5"),
        lambda node: node.operations.append(b"h", b"x"),
        lambda node: node.operations.set_range(b"h", 1, b"x"),
    ],
)
def test_a_first_write_that_would_clear_too_much_is_refused_until_the_key_is_purged(
    verb: Callable[[InlineNode], object], large: InlineNode
) -> None:
    large.operations.set_expiry(b"h", large.now_ms + 1_000)
    large.settle()
    large.now_ms += 2_000
    with pytest.raises(TooLarge):
        verb(large)
    large.settle()
    large.checkpoint()
    large.checkpoint()
    verb(large)
    large.settle()


def test_an_expiry_is_set_and_removed_without_a_look_at_the_counters(
    large: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("walks all counters")

    monkeypatch.setattr(large.engine.collections, "counter_fields", refuse)
    assert large.operations.set_expiry(b"h", large.now_ms + 1_000)
    assert large.operations.persist(b"h")
    assert large.operations.expiry_of(b"h") == -1


def test_walks_and_draws_count_what_they_look_at(node: InlineNode) -> None:
    operations = node.operations
    operations.sets.add(b"s", [b"%04d" % i for i in range(500)])
    operations.maps.put(b"h", [(b"%04d" % i, b"v") for i in range(500)])
    walks: list[Callable[[], object]] = [
        lambda: operations.sets.page(b"s", b"", 500),
        lambda: operations.maps.page(b"h", b"", 500),
        lambda: operations.sets.random(b"s", 1, 7, repeat=True),
        lambda: operations.maps.random(b"h", 1, 7, repeat=True),
        lambda: operations.sets.contains(b"s", [b"x"] * 500),
        lambda: operations.maps.get(b"h", [b"x"] * 500),
        lambda: operations.rename(b"s", b"t"),
    ]
    for walk in walks:
        before = operations.rows_read
        walk()
        assert 500 <= operations.rows_read - before <= 1_000
    operations.sets.remove(b"t", [b"%04d" % i for i in range(499)])
    before = operations.rows_read
    assert len(operations.sets.page(b"t", b"", 10)[0]) == 1
    assert operations.rows_read - before >= 499, "it passes by the deleted ones"
