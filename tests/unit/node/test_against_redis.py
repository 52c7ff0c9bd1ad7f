"""Clients' calls of all types, transactions, flushes, freezes, the applier, time, kills and restarts in any order, against a dict.

What is answered is what Redis would answer, no answer leaves before what it rests on is durable, what was acknowledged survives a
kill, and the counts that are kept are those of a recount, at every step.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgekv.config import KeyspaceConfig
from edgekv.engine.frame import Frame
from edgekv.errors import Denied, EdgeKVError, NotANumber, NotFound, WrongType
from edgekv.node.operations import INTEGER_MAX, INTEGER_MIN, Operations
from tests.unit.node.inline_node import InlineNode
from tests.unit.node.redis_model import FOREVER, Held, RedisModel, Value

TTL_S: Final = 100
KEYSPACES: Final = (
    KeyspaceConfig(prefix=b"", name="default", durability="fsync"),
    KeyspaceConfig(prefix=b"fast/", name="fast", durability="buffered"),
    KeyspaceConfig(prefix=b"ttl/", name="short", durability="fsync", ttl_s=TTL_S),
)
LONG: Final = b"long" * 130  # beyond LMDB's 511 bytes, like its neighbour in all but the last byte
KEYS: Final = (b"a", b"b", b"c\x00d", b"c", LONG + b"1", LONG + b"2", b"fast/a", b"fast/b", b"ttl/a", b"ttl/b")
NAMES: Final = (b"", b"m", b"m\x00", b"n", LONG)
"""Of elements and fields."""

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
_TTLS: Final = st.sampled_from((-1, 0, 1, 3000, 80_000))
_DELTAS: Final = st.sampled_from((1, 1, -5, 1 << 40, INTEGER_MAX, INTEGER_MIN))
_VALUES: Final = st.sampled_from((b"", b"v", b"7", b"-3", b"x" * 700))
_NAMES: Final = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)


def _call(verb: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(verb), st.tuples(*arguments), st.just({}))


def calls_of(keys: Sequence[bytes]) -> st.SearchStrategy[Call]:
    """One call of any verb on these keys. Times are ms from now on."""
    key, some = st.sampled_from(keys), st.lists(st.sampled_from(keys), min_size=1, max_size=5)
    options = st.fixed_dictionaries(
        {
            "expiry_ms": st.sampled_from((None, None, 1, 4000, 90_000)),
            "keep_expiry": st.booleans(),
            "only_if": st.sampled_from(("", "", "exists")),
        }
    )
    strings = [
        st.tuples(st.just("set"), st.tuples(key, _VALUES), options),
        _call("set_run", some, _VALUES),
        _call("increment", key, _DELTAS),
        _call("increment_float", key, st.sampled_from((b"0.5", b"-2", b"1e3"))),
        _call("increment_run", some, _DELTAS),
        _call("append", key, st.sampled_from((b"0", b"tail"))),
        _call("set_range", key, st.integers(0, 12), st.just(b"42")),
        _call("get", key),
        _call("get_run", some),
    ]
    whole = [
        _call("delete", some),
        _call("exists", some),
        _call("expiry_of", key),
        _call("set_expiry", key, _TTLS),
        _call("set_expiry", key, _TTLS),
        _call("persist", key),
        _call("rename", key, key),
    ]
    sets = [
        _call("s_add", key, _NAMES),
        _call("s_add", key, _NAMES),
        _call("s_add_run", some, _NAMES),
        _call("s_add_run", st.lists(key, min_size=1, max_size=1), _NAMES),
        _call("s_remove", key, _NAMES),
        _call("s_contains", key, _NAMES),
        _call("s_pop", key, st.integers(0, 3), st.integers(0, 99)),
        _call("s_random", key, st.integers(0, 6), st.integers(0, 99), st.booleans()),
        _call("s_move", key, key, st.sampled_from(NAMES)),
        _call("s_store", key, st.lists(st.sampled_from(NAMES), max_size=4)),
    ]
    maps = [
        _call("h_put", key, st.lists(st.tuples(st.sampled_from(NAMES), _VALUES), min_size=1, max_size=4)),
        _call("h_put_run", some, _NAMES, _VALUES),
        _call("h_put_run", st.lists(key, min_size=1, max_size=1), _NAMES, _VALUES),
        _call("h_put_if_absent", key, st.sampled_from(NAMES), _VALUES),
        _call("h_get", key, _NAMES),
        _call("h_remove", key, _NAMES),
        _call("h_increment", key, st.sampled_from(NAMES), _DELTAS),
        _call("h_increment", key, st.sampled_from(NAMES), _DELTAS),
        _call("h_increment_float", key, st.sampled_from(NAMES), st.sampled_from((b"0.5", b"-2"))),
        _call("h_random", key, st.integers(0, 6), st.integers(0, 99), st.booleans()),
    ]
    return st.one_of(*strings, *whole, *sets, *maps)


LETTERS: Final = (b"a", b"b")


def shown(value: Value) -> int | bytes:
    """A value as a page of keys shows it here: a string, how many elements, or minus how many fields."""
    if isinstance(value, bytes):
        return value
    return -len(value) if isinstance(value, tuple) else len(value)


class NodeAgainstRedis(RuleBasedStateMachine):
    """One node and one dict."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.node = InlineNode(Path(self._directory.name) / "node", keyspaces=KEYSPACES)
        self.model = RedisModel(lambda: self.now, self.default_expiry)
        self.traces: dict[bytes, Frame] = {}
        """The frame of the last change of a key, also of one that is gone."""
        self.base: dict[bytes, Held] = {}
        """The model at the last start."""
        self.history: list[tuple[int, dict[bytes, Held]]] = []
        """The model after each call that changed it, by the number of the frame."""

    def teardown(self) -> None:
        self.node.kill()
        self._directory.cleanup()

    @property
    def now(self) -> int:
        """TTL time: never below what the log has learned, whatever becomes of the clock."""
        return self.node.operations.now_ms()

    @property
    def operations(self) -> Operations:
        return self.node.operations

    def default_expiry(self, key: bytes) -> int:
        return self.now + TTL_S * 1000 if key.startswith(b"ttl/") else FOREVER

    # What a reply waits for.

    def begin(self) -> dict[bytes, Held]:
        if self.node.engine.commit.filling.changes > 50:
            self.node.settle()  # the model knows one frame per call
        self.node.engine.barrier = None
        return dict(self.model.keys)

    def answered(self, before: dict[bytes, Held], keys: Sequence[bytes]) -> None:
        """Invariant B: the reply waits for each frame that the keys' rows come from, as far as it is not done."""
        barrier = self.node.engine.barrier
        after = self.model.all_live()
        before = {key: held for key, held in before.items() if not 0 < held.expiry_ms <= self.now}
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        if changed:
            assert barrier is not None and not barrier.done
        for key in keys:
            frame = self.traces.get(key)
            if frame is not None and not frame.done:
                assert barrier is not None and barrier.number >= frame.number, key
        if changed:
            assert barrier is not None
            self.traces.update(dict.fromkeys(changed, barrier))
            self.history.append((barrier.number, dict(self.model.keys)))

    # Calls.

    @rule(call=calls_of(KEYS))
    def call(self, call: Call) -> None:
        before = self.begin()
        self.make(call)
        # A missing source decides alone.
        verb, arguments, _ = call
        decided = verb == "get_run" or (verb in ("s_move", "rename") and self.spans(arguments))
        looked = arguments[:1] if verb in ("s_move", "rename") else _keys_of(call)
        self.answered(before, [] if decided else list(looked))

    def make(self, call: Call) -> None:
        """Node and model do the same, and answer the same."""
        verb, arguments, options = self.prepared(call)
        if verb in ("s_move", "rename") and self.spans(arguments):
            with pytest.raises(Denied):
                self.node_verb(verb)(*arguments)
            return
        if verb in ("s_pop", "s_random", "h_random"):
            self.draw(verb, *arguments)
            return
        expected = _outcome(getattr(self.model, verb), arguments, options)
        assert _outcome(self.node_verb(verb), arguments, options) == expected, call

    def prepared(self, call: Call) -> Call:
        verb, arguments, options = call
        if verb == "set":
            ttl_ms = options["expiry_ms"]
            keep = options["keep_expiry"] and ttl_ms is None
            expiry_ms = 0 if ttl_ms is None else self.now + ttl_ms
            options = {**options, "expiry_ms": expiry_ms, "keep_expiry": keep}
        elif verb == "set_run":
            keys, value = arguments
            arguments = (keys, [value + b"%d" % i for i in range(len(keys))])
        elif verb == "increment_run":
            arguments = (arguments[0], [arguments[1]] * len(arguments[0]))
        elif verb in ("s_add_run", "h_put_run"):
            keys, names, *value = arguments
            keys = [key for key in keys for _ in names]
            names = names * len(arguments[0])
            arguments = (keys, names, *([v + b"%d" % i for i in range(len(keys))] for v in value))
        elif verb == "set_expiry":
            arguments = (arguments[0], self.now + arguments[1])
        return verb, arguments, options

    def node_verb(self, verb: str) -> Any:
        if verb[:2] == "s_":
            return getattr(self.operations.sets, verb[2:])
        return getattr(self.operations.maps, verb[2:]) if verb[:2] == "h_" else getattr(self.operations, verb)

    def spans(self, keys: Sequence[Any]) -> bool:
        of = self.node.engine.keyspaces.of
        return of(keys[0]) is not of(keys[1])

    def draw(self, verb: str, key: bytes, count: int, dice: int, repeat: bool = False) -> None:
        options = {} if verb == "s_pop" else {"repeat": repeat}
        kind = _outcome(self.model.fields if verb == "h_random" else self.model.members, (key,), {})
        if kind is WrongType:
            assert _outcome(self.node_verb(verb), (key, count, dice), options) is WrongType
            return
        there = set(self.model.fields(key).items()) if verb == "h_random" else self.model.members(key)
        found = self.node_verb(verb)(key, count, dice, **options)
        assert set(found) <= set(there)
        if repeat:
            assert len(found) == (count if there else 0)
        else:
            assert len(found) == len(set(found)) == min(count, len(there))
        if verb == "s_pop":
            self.model.s_remove(key, found)

    @rule(data=st.data(), prefix=st.sampled_from((b"", b"fast/", b"ttl/")), fails=st.sampled_from((False, False, True)))
    def transaction(self, data: st.DataObject, prefix: bytes, fails: bool) -> None:
        """All or nothing; and inside, each call sees what those before it did."""
        keys = [prefix + letter for letter in LETTERS]
        calls = data.draw(st.lists(calls_of(keys), min_size=1, max_size=8))
        before = self.begin()
        try:
            with self.operations.transaction():
                for call in calls:
                    self.make(call)
                    self.counts_are_those_of_a_recount()
                assert self.contents() == self.model.all_live()
                if fails:
                    raise NotFound("never mind")
        except NotFound:
            self.model.keys = before
        runs = self.node.engine.commit.filling.changes
        self.answered(before, [])
        assert runs == self.node.engine.commit.filling.changes

    @rule(
        prefix=st.sampled_from((b"", b"fast/", b"ttl/")),
        steps=st.lists(
            st.tuples(
                st.sampled_from(LETTERS),
                st.sampled_from(("put", "put px", "delete", "add", "sadd", "srem", "hset", "hdel", "hadd")),
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def batch(self, prefix: bytes, steps: list[tuple[bytes, str]]) -> None:
        before = self.begin()
        calls: list[tuple[object, ...]] = []
        expected: list[object] = []
        wrong: type[EdgeKVError] | None = None
        for letter, verb in steps:
            key = prefix + letter
            calls.append(_item(verb, key, self.now + 5000))
            try:
                if wrong is None:
                    expected.append(self.modelled(verb, key))
            except EdgeKVError as error:
                wrong = type(error)
        if wrong is None:
            assert self.operations.batch(calls) == expected
        else:
            self.model.keys = before
            with pytest.raises(wrong, match=f"^operation {len(expected)}: "):
                self.operations.batch(calls)
        self.answered(before, [prefix + letter for letter, _ in steps] if wrong is None else [])

    def modelled(self, verb: str, key: bytes) -> object:
        model = self.model
        match verb:
            case "put" | "put px":
                model.put(key, b"5", self.now + 5000 if verb == "put px" else self.default_expiry(key))
                return None
            case "delete":
                return model.delete([key]) == 1
            case "add":
                return model.increment(key, 9)
            case "sadd":
                return model.s_add(key, [b"m", b"n"])
            case "srem":
                return model.s_remove(key, [b"m", b"x"])
            case "hset":
                return model.h_put(key, [(b"f", b"3")])
            case "hdel":
                return model.h_remove(key, [b"f"])
        return model.h_increment(key, b"f", 4)

    @rule(pairs=st.lists(st.tuples(st.sampled_from(KEYS[:6]), _VALUES), min_size=1, max_size=4))
    def set_many(self, pairs: list[tuple[bytes, bytes]]) -> None:
        before = self.begin()
        self.make(("set_many", (pairs,), {}))
        self.answered(before, [key for key, _ in pairs])

    # Walks.

    @rule(prefix=st.sampled_from((b"", b"a", b"c", b"f", b"fast/", LONG, b"ttl/a")), limit=st.integers(1, 4))
    def scan(self, prefix: bytes, limit: int) -> None:
        before = self.begin()
        entries, keys = list[tuple[bytes, int | bytes, int]](), list[bytes]()
        next_key: bytes | None = b""
        while next_key is not None:
            start = next_key
            page = self.operations.page(start, prefix, limit)
            assert len(page.listed) <= limit
            for listed in page.listed:
                if listed.string is not None:
                    assert (listed.string.key, listed.elements, listed.fields) == (listed.key, 0, 0)
                    entries.append((listed.key, listed.string.value, listed.string.expiry_ms))
                else:
                    assert not (listed.elements and listed.fields)
                    entries.append((listed.key, listed.elements or -listed.fields, listed.expiry_ms))
            found, following = self.operations.keys_page(start, prefix, limit)
            assert following == page.next_key
            keys += found
            next_key = page.next_key
            assert next_key is None or next_key > start
        mine = {key: held for key, held in self.model.all_live().items() if key.startswith(prefix)}
        assert keys == list(mine)
        assert entries == [(key, shown(held.value), held.expiry_ms) for key, held in mine.items()]
        self.answered(before, [key for key in KEYS if key.startswith(prefix)])

    @rule(key=st.sampled_from(KEYS), limit=st.integers(1, 3))
    def walk(self, key: bytes, limit: int) -> None:
        before = self.begin()
        held = self.model.live(key)
        if held is not None and not isinstance(held.value, bytes):
            assert self.content(key, limit) == held.value
            self.answered(before, [key])

    def content(self, key: bytes, limit: int) -> Value | None:
        """A key as a client sees it."""
        match self.operations.type_of(key):
            case "string":
                return self.operations.get(key)
            case "set":
                members = list[bytes]()
                start: bytes | None = b""
                while start is not None:
                    page, start = self.operations.sets.page(key, start, limit)
                    assert len(page) <= limit
                    members += page
                assert members == sorted(set(members))
                return frozenset(members)
            case "hash":
                fields = list[tuple[bytes, bytes]]()
                start = b""
                while start is not None:
                    pairs, start = self.operations.maps.page(key, start, limit)
                    assert len(pairs) <= limit
                    fields += pairs
                return tuple(fields)
        return None

    def contents(self) -> dict[bytes, Held]:
        keys, following = self.operations.keys_page(b"", b"", 100)
        assert following is None
        found = dict[bytes, Held]()
        for key in keys:
            value, end = self.content(key, 100), self.operations.expiry_of(key)
            assert value is not None and end != -2
            found[key] = Held(value, max(end, 0))
        return found

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
            self.model.keys = dict(kept[-1] if kept else self.base)
        self.start()

    def start(self) -> None:
        self.node.open()
        self.base = dict(self.model.keys)
        self.traces.clear()
        self.history.clear()

    @invariant()
    def the_cap_holds_nobody_for_ever(self) -> None:
        if self.node.engine.write_blocked:
            self.node.checkpoint()
            assert not self.node.engine.write_blocked

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        assert self.contents() == self.model.all_live()

    @invariant()
    def counts_are_those_of_a_recount(self) -> None:
        engine = self.node.engine
        for key in KEYS:
            keyspace = engine.keyspaces.of(key)
            counts = engine.collections.counts(keyspace, key)
            assert counts == (
                engine.collections.set_count(keyspace, key),
                engine.collections.map_count(keyspace, key),
            )
            if keyspace.mixed:
                assert counts == engine.collections.recount(keyspace, key), key


NodeAgainstRedis.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
)
TestNodeAgainstRedis = NodeAgainstRedis.TestCase


def _outcome(verb: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> object:
    """What it returns, or the class of what it raises."""
    try:
        found = verb(*arguments, **options)
        return [type(one) if isinstance(one, EdgeKVError) else one for one in found] if type(found) is list else found
    except (NotANumber, NotFound, WrongType) as error:
        return type(error)


def _keys_of(call: Call) -> Sequence[bytes]:
    first = call[1][0]
    return [first] if isinstance(first, bytes) else first


def _item(verb: str, key: bytes, expiry_ms: int) -> tuple[object, ...]:
    match verb:
        case "put":
            return ("put", key, b"5", 0)
        case "put px":
            return ("put", key, b"5", expiry_ms)
        case "delete":
            return ("delete", key)
        case "add":
            return ("add", key, 9)
        case "sadd":
            return ("sadd", key, [b"m", b"n"])
        case "srem":
            return ("srem", key, [b"m", b"x"])
        case "hset":
            return ("hset", key, [(b"f", b"3")])
        case "hdel":
            return ("hdel", key, [b"f"])
    return ("hadd", key, b"f", 4)
