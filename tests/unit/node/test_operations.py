"""What a client can do with keys, on a whole node: against a dict with Redis' semantics, and bound by bound."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgekv.config import KeyspaceConfig
from edgekv.engine.frame import Frame
from edgekv.errors import Denied, InvalidRequest, NotANumber, NotFound, TooLarge
from edgekv.limits import BATCH_OPERATIONS_MAX, CHANGE_OVERHEAD_BYTES, KEY_BYTES_MAX, SCAN_EXAMINED_KEYS_MAX
from edgekv.node.operations import INTEGER_MAX, INTEGER_MIN
from tests.unit.node.inline_node import START_MS, VALUE_BYTES_MAX, InlineNode

TTL_S: Final = 100
KEYSPACES: Final = (
    KeyspaceConfig(prefix=b"", name="default", durability="fsync"),
    KeyspaceConfig(prefix=b"fast/", name="fast", durability="buffered"),
    KeyspaceConfig(prefix=b"ttl/", name="short", durability="fsync", ttl_s=TTL_S),
)
LONG: Final = b"long" * 200  # beyond LMDB's 511 bytes, like its neighbour in all of the first 800
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
    """Clients' calls, flushes, freezes, the applier, time, kills and restarts in any order: what is answered is what Redis would answer,
    no answer leaves before what it rests on is durable, and what was acknowledged survives a kill."""

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
            st.tuples(st.sampled_from("ab"), st.sampled_from(("put", "put px", "delete", "add"))), min_size=1, max_size=6
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
        mine = [(k, held.value, held.expiry_ms) for k in sorted(self.model) if k.startswith(prefix) and (held := self.live(k))]
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


NodeAgainstDict.TestCase.settings = settings(max_examples=400, stateful_step_count=60)
TestNodeAgainstDict = NodeAgainstDict.TestCase


def _number(text: bytes) -> int | None:
    """A 64-bit integer in its one spelling."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if text == b"%d" % number and INTEGER_MIN <= number <= INTEGER_MAX else None
