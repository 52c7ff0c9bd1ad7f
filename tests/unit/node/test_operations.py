"""What a client can do with keys, on a whole node: against a dict with Redis' semantics, and bound by bound."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgekv.config import KeyspaceConfig
from edgekv.engine.frame import Frame
from edgekv.errors import Denied, InvalidRequest, NotANumber, NotFound, TooLarge
from edgekv.limits import (
    BATCH_OPERATIONS_MAX,
    CHANGE_OVERHEAD_BYTES,
    KEY_BYTES_MAX,
    READ_RUN_BYTES_MAX,
    SCAN_EXAMINED_KEYS_MAX,
)
from edgekv.node.operations import INTEGER_MAX, INTEGER_MIN, value_advice
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


# -- against a dict


class Held(NamedTuple):
    """A key of the model. ``frame`` is that of its last change."""

    value: bytes
    expiry_ms: int
    frame: Frame | None


class NodeAgainstDict(RuleBasedStateMachine):
    """Clients' calls, flushes, freezes, the applier, time, kills and restarts in any order. What is answered is what Redis
    would answer, no answer leaves before what it rests on is durable, and what was acknowledged survives a kill."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.node = InlineNode(Path(self._directory.name) / "node", keyspaces=KEYSPACES)
        self.model: dict[bytes, Held] = {}
        self.traces: dict[bytes, Frame] = {}
        """The frame of the last change of a key, also of one that is gone."""
        self.base: dict[bytes, Held] = {}
        """The model at the last start."""
        self.history: list[tuple[int, dict[bytes, Held]]] = []
        """The model after each call that changed it, by the number of the frame."""

    def teardown(self) -> None:
        self.node.kill()
        self._directory.cleanup()

    # The model.

    @property
    def now(self) -> int:
        """TTL time: never below what the log has learned, whatever becomes of the clock."""
        return self.node.operations.now_ms()

    def live(self, key: bytes) -> Held | None:
        held = self.model.get(key)
        return None if held is None or 0 < held.expiry_ms <= self.now else held

    def fresh_expiry(self, key: bytes) -> int:
        return self.now + TTL_S * 1000 if key.startswith(b"ttl/") else FOREVER

    def put(self, key: bytes, value: bytes, expiry_ms: int) -> None:
        self.model[key] = Held(value, expiry_ms, None)

    def begin(self) -> None:
        self.node.engine.barrier = None

    def looked(self, *keys: bytes) -> None:
        """Invariant B: the reply waits for each frame that the keys' rows come from, as far as it is not done."""
        barrier = self.node.engine.barrier
        for key in keys:
            frame = self.traces.get(key)
            if frame is not None and not frame.done:
                assert barrier is not None and barrier.number >= frame.number, key

    def changed(self, *keys: bytes) -> None:
        barrier = self.node.engine.barrier
        assert barrier is not None and not barrier.done
        self.looked(*keys)
        self.traces.update(dict.fromkeys(keys, barrier))
        self.history.append((barrier.number, dict(self.model)))

    # Calls that change something.

    @rule(
        key=st.sampled_from(KEYS),
        value=st.sampled_from((b"", b"v", b"7", b"-3", b"x" * 700)),
        ttl_ms=st.sampled_from((None, None, 1, 4000, 90_000)),
        keep=st.booleans(),
        only_if=st.sampled_from(("", "", "exists")),
    )
    def set(self, key: bytes, value: bytes, ttl_ms: int | None, keep: bool, only_if: Literal["", "exists"]) -> None:
        self.begin()
        keep = keep and ttl_ms is None
        expiry_ms = 0 if ttl_ms is None else self.now + ttl_ms
        held = self.live(key)
        done = self.node.operations.set(key, value, expiry_ms=expiry_ms, keep_expiry=keep, only_if=only_if)
        assert done == (held is not None or not only_if)
        if not done:
            self.looked(key)
            return
        self.put(key, value, held.expiry_ms if keep and held else expiry_ms or self.fresh_expiry(key))
        self.changed(key)

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=20), value=st.sampled_from((b"1", b"run")))
    def set_run(self, keys: list[bytes], value: bytes) -> None:
        if self.node.engine.commit.filling.changes > 50:
            self.node.settle()  # the model knows one frame per call
        self.begin()
        values = [value + b"%d" % i for i in range(len(keys))]
        self.node.operations.set_run(keys, values)
        for key, own in zip(keys, values, strict=True):
            self.put(key, own, self.fresh_expiry(key))
        self.changed(*keys)

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=5))
    def delete(self, keys: list[bytes]) -> None:
        self.begin()
        existing = {key for key in keys if self.live(key)}
        assert self.node.operations.delete(keys) == len(existing)
        self.looked(*keys)
        for key in existing:
            del self.model[key]
        if existing:
            self.changed(*existing)

    @rule(key=st.sampled_from(KEYS), delta=st.sampled_from((1, -5, 1 << 40, INTEGER_MAX, INTEGER_MIN)))
    def increment(self, key: bytes, delta: int) -> None:
        self.begin()
        held = self.live(key)
        number = _number(held.value) if held else 0
        if number is None or not INTEGER_MIN <= number + delta <= INTEGER_MAX:
            with pytest.raises(NotANumber):
                self.node.operations.increment(key, delta)
            self.looked(key)
            return
        assert self.node.operations.increment(key, delta) == number + delta
        self.put(key, b"%d" % (number + delta), held.expiry_ms if held else self.fresh_expiry(key))
        self.changed(key)

    @rule(key=st.sampled_from(KEYS), value=st.sampled_from((b"0", b"tail")))
    def append(self, key: bytes, value: bytes) -> None:
        self.begin()
        held = self.live(key)
        whole = (held.value if held else b"") + value
        assert self.node.operations.append(key, value) == len(whole)
        self.put(key, whole, held.expiry_ms if held else self.fresh_expiry(key))
        self.changed(key)

    @rule(key=st.sampled_from(KEYS), offset=st.integers(0, 12))
    def set_range(self, key: bytes, offset: int) -> None:
        self.begin()
        held = self.live(key)
        old = held.value if held else b""
        whole = old[:offset].ljust(offset, b"\x00") + b"42" + old[offset + 2 :]
        assert self.node.operations.set_range(key, offset, b"42") == len(whole)
        self.put(key, whole, held.expiry_ms if held else self.fresh_expiry(key))
        self.changed(key)

    @rule(key=st.sampled_from(KEYS), ttl_ms=st.sampled_from((-1, 0, 1, 3000, 80_000)))
    def set_expiry(self, key: bytes, ttl_ms: int) -> None:
        self.begin()
        held = self.live(key)
        assert self.node.operations.set_expiry(key, self.now + ttl_ms) == (held is not None)
        if held is None:
            self.looked(key)
            return
        if ttl_ms <= 0:
            del self.model[key]
        else:
            self.put(key, held.value, self.now + ttl_ms)
        self.changed(key)

    @rule(key=st.sampled_from(KEYS))
    def persist(self, key: bytes) -> None:
        self.begin()
        held = self.live(key)
        done = self.node.operations.persist(key)
        assert done == (held is not None and held.expiry_ms != FOREVER)
        if held is None or not done:
            self.looked(key)
            return
        self.put(key, held.value, FOREVER)
        self.changed(key)

    @rule(old=st.sampled_from(KEYS), new=st.sampled_from(KEYS))
    def rename(self, old: bytes, new: bytes) -> None:
        self.begin()
        held = self.live(old)
        of = self.node.engine.keyspaces.of
        if of(old) is not of(new):
            with pytest.raises(Denied):
                self.node.operations.rename(old, new)
        elif held is None:
            with pytest.raises(NotFound):
                self.node.operations.rename(old, new)
            self.looked(old)
        else:
            self.node.operations.rename(old, new)
            self.looked(old, new)
            if old != new:
                del self.model[old]
                self.put(new, held.value, held.expiry_ms)
                self.changed(old, new)

    @rule(
        prefix=st.sampled_from((b"", b"fast/", b"ttl/")),
        steps=st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from(("put", "put px", "delete", "add"))),
            min_size=1,
            max_size=6,
        ),
    )
    def batch(self, prefix: bytes, steps: list[tuple[str, str]]) -> None:
        self.begin()
        before = dict(self.model)
        keys = {prefix + letter.encode() for letter, _ in steps}
        lived = {key for key in keys if self.live(key)}
        calls: list[tuple[object, ...]] = []
        expected: list[object] = []
        legal = True
        for letter, verb in steps:
            key = prefix + letter.encode()
            held = self.live(key)
            if verb == "delete":
                calls.append(("delete", key))
                expected.append(held is not None)
                self.model.pop(key, None)
            elif verb == "add":
                calls.append(("add", key, 9))
                number = _number(held.value) if held else 0
                if number is None or number + 9 > INTEGER_MAX:
                    legal = False
                    break
                expected.append(number + 9)
                self.put(key, b"%d" % (number + 9), held.expiry_ms if held else self.fresh_expiry(key))
            else:
                expiry_ms = self.now + 5000 if verb == "put px" else 0
                calls.append(("put", key, b"5", expiry_ms))
                expected.append(None)
                self.put(key, b"5", expiry_ms or self.fresh_expiry(key))
        if not legal:
            self.model = before
            with pytest.raises(NotANumber):
                self.node.operations.batch(calls)
            return
        assert self.node.operations.batch(calls) == expected
        self.looked(*keys)
        changed = lived | {key for key in keys if self.live(key)}
        if changed:
            self.changed(*changed)

    # Calls that look.

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: bytes) -> None:
        self.begin()
        held = self.live(key)
        assert self.node.operations.get(key) == (held.value if held else None)
        self.looked(key)
        self.begin()
        entry = self.node.operations.get_entry(key)
        assert (entry and (entry.value, entry.expiry_ms)) == (held and (held.value, held.expiry_ms))
        self.looked(key)
        expected = -2 if held is None else held.expiry_ms or -1
        assert self.node.operations.expiry_of(key) == expected

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8))
    def get_run(self, keys: list[bytes]) -> None:
        self.begin()
        expected = [held.value if (held := self.live(key)) else None for key in keys]
        assert self.node.operations.get_run(keys) == expected
        self.looked(*keys)
        self.begin()
        assert self.node.operations.exists(keys) == sum(value is not None for value in expected)
        self.looked(*keys)

    @rule(prefix=st.sampled_from((b"", b"a", b"c", b"f", b"fast/", LONG, b"ttl/a")), limit=st.integers(1, 4))
    def scan(self, prefix: bytes, limit: int) -> None:
        self.begin()
        entries, start = [], b""
        next_key: bytes | None = b""
        while next_key is not None:
            start = next_key
            page = self.node.operations.page(start, prefix, limit)
            assert len(page.entries) <= limit
            entries += page.entries
            next_key = page.next_key
            assert next_key is None or next_key > start
        found = [(entry.key, entry.value, entry.expiry_ms) for entry in entries]
        mine = [
            (k, held.value, held.expiry_ms)
            for k in sorted(self.model)
            if k.startswith(prefix) and (held := self.live(k))
        ]
        assert found == mine
        self.looked(*(key for key in KEYS if key.startswith(prefix)))

    # What happens beside clients.

    @rule()
    def kick(self) -> None:
        self.node.engine.kick()

    @rule()
    def flush(self) -> None:
        self.node.engine.kick()
        self.node.flush()

    @rule()
    def tick(self) -> None:
        self.node.tick()

    @rule(milliseconds=st.sampled_from((1, 1000, 6000, 61_000)))
    def time_passes(self, milliseconds: int) -> None:
        self.node.now_ms += milliseconds

    @rule(milliseconds=st.sampled_from((1, 2000, 30_000)))
    def the_clock_is_set_back(self, milliseconds: int) -> None:
        self.node.now_ms -= milliseconds

    @rule()
    def apply(self) -> None:
        self.node.apply()

    @rule()
    def checkpoint(self) -> None:
        self.node.checkpoint()

    @rule(restored=st.booleans())
    def stop_and_start(self, restored: bool) -> None:
        """A restored directory goes on as another actor: what it holds was written by somebody else now."""
        self.node.stop()
        if restored:
            self.node.look_restored()
        self.start()

    @rule()
    def kill_and_start(self) -> None:
        """Frames that were written survive, and no others: those of the history decide."""
        written = self.node.frames_written
        self.node.kill()
        kept = [model for number, model in self.history if number <= written]
        lost = [number for number, _ in self.history if number > written]
        if lost:
            self.model = kept[-1] if kept else self.base
        self.start()

    def start(self) -> None:
        self.node.open()
        self.base = dict(self.model)
        self.traces.clear()
        self.history.clear()

    @invariant()
    def the_cap_holds_nobody_for_ever(self) -> None:
        if self.node.engine.write_blocked:
            self.node.checkpoint()
            assert not self.node.engine.write_blocked


NodeAgainstDict.TestCase.settings = settings(max_examples=60, stateful_step_count=50)
TestNodeAgainstDict = NodeAgainstDict.TestCase


def _number(text: bytes) -> int | None:
    """A 64-bit integer in its one spelling."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if text == b"%d" % number and INTEGER_MIN <= number <= INTEGER_MAX else None


# -- bounds of one call


def test_a_change_larger_than_the_limit_is_refused_and_nothing_happens(node: InlineNode) -> None:
    half = b"x" * (VALUE_BYTES_MAX // 2)
    with pytest.raises(TooLarge, match="Split it"):
        node.operations.set_many([(b"%d" % i, half) for i in range(4)])
    assert node.operations.page(b"", b"", 10).entries == []
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
    assert page.entries == [] and page.next_key is not None
    pages = 1
    while not page.entries:
        assert page.next_key is not None
        page = node.operations.page(page.next_key, b"", 10)
        pages += 1
    assert [entry.key for entry in page.entries] == [b"z"] and pages <= 4


def test_a_page_gives_up_among_expired_keys_too(node: InlineNode) -> None:
    keys = [b"%06d" % i for i in range(2 * SCAN_EXAMINED_KEYS_MAX + 500)]
    for key in keys:
        node.operations.set(key, b"v", expiry_ms=START_MS + 1)
    node.operations.set(b"z", b"v")
    node.now_ms += 1
    page = node.operations.page(b"", b"", 100)
    assert page.entries == [] and page.next_key is not None
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
