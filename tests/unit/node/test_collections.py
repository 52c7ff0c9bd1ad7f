"""Verbs on sets and maps, transactions and runs, bound by bound. (What they answer: test_against_redis.py.)"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.draft import Draft
from edgekv.errors import Denied, NotANumber, TooLarge, WrongType
from edgekv.limits import BATCH_OPERATIONS_MAX, KEY_BYTES_MAX
from edgekv.node import keys as keys_module
from edgekv.node.verbs import attempt
from tests.unit.node.inline_node import START_MS, VALUE_BYTES_MAX, InlineNode

KEYSPACES: Final = (
    KeyspaceConfig(prefix=b"", name="default", durability="fsync"),
    KeyspaceConfig(prefix=b"fast/", name="fast", durability="buffered"),
    KeyspaceConfig(prefix=b"ttl/", name="short", durability="fsync", ttl_s=100),
)
MANY: Final = [b"element:%06d" % i for i in range(3000)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path / "node", keyspaces=KEYSPACES, memory_bytes=64 << 20)
    yield node
    node.kill()


def changes(node: InlineNode) -> int:
    return sum(keyspace.seq for keyspace in node.engine.keyspaces.all)


# -- transactions


def test_a_transaction_is_one_change(node: InlineNode) -> None:
    operations = node.operations
    operations.sets.add(b"s", [b"a"])
    before = changes(node)
    with operations.transaction():
        operations.set(b"k", b"5")
        assert operations.increment(b"k", 2) == 7
        operations.sets.add(b"s", [b"b"])
        operations.sets.remove(b"s", [b"a"])
        operations.maps.increment(b"h", b"f", 3)
        operations.rename(b"h", b"i")
        assert changes(node) > before + 1  # while it is drafted
    assert changes(node) == before + 1
    node.settle()
    node.kill()
    node.open()
    operations = node.operations
    assert operations.get(b"k") == b"7"
    assert operations.sets.page(b"s", b"", 10) == ([b"b"], None)
    assert operations.maps.get(b"i", [b"f"]) == [b"3"]
    assert operations.type_of(b"h") == "none"


def test_a_transaction_that_leaves_everything_as_it_was_is_no_change(node: InlineNode) -> None:
    with node.operations.transaction():
        node.operations.sets.add(b"s", [b"a"])
        node.operations.increment(b"n", 1)
        node.operations.maps.put(b"h", [(b"f", b"v")])
        node.operations.set(b"k", b"v")
        node.operations.delete([b"s", b"n", b"h", b"k"])
    assert changes(node) == 0
    assert not node.engine.keyspaces.of(b"s").mixed


def test_an_exception_undoes_a_transaction_to_the_last_dot(node: InlineNode) -> None:
    def fail() -> None:
        with node.operations.transaction():
            node.operations.sets.add(b"s", [b"a"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert changes(node) == 0 and node.operations.exists([b"s"]) == 0
    assert not node.engine.keyspaces.of(b"s").mixed
    assert len(node.engine.commit.overlays) == 1


def test_a_verb_of_a_transaction_that_is_refused_adds_nothing(node: InlineNode) -> None:
    operations = node.operations
    operations.set_many([(b"fast/x", b"1")])
    with operations.transaction():
        operations.set(b"k", b"v")
        with pytest.raises(WrongType):
            operations.sets.add(b"k", [b"a"])
        with pytest.raises(Denied):
            operations.set(b"fast/x", b"2")
        with pytest.raises(Denied):
            operations.delete([b"k", b"fast/x"])
    assert operations.get_run([b"k", b"fast/x"]) == [b"v", b"1"]


def test_a_transaction_larger_than_a_change_is_refused_as_a_whole(node: InlineNode) -> None:
    half = b"x" * (VALUE_BYTES_MAX // 2)

    def put_all() -> None:
        with node.operations.transaction():
            for i in range(4):
                node.operations.set(b"%d" % i, half)

    with pytest.raises(TooLarge, match="Split it"):
        put_all()
    assert node.operations.keys_page(b"", b"", 10) == ([], None)


def test_what_a_transaction_may_touch_is_bounded_and_more_discards_it(tmp_path: Path) -> None:
    node = InlineNode(tmp_path / "node", value_bytes_max=1 << 20, segment_bytes=4 << 20, memory_bytes=64 << 20)
    members = [b"%d" % i for i in range(BATCH_OPERATIONS_MAX)]

    def add_all() -> None:
        with node.operations.transaction():
            for i in range(3):
                node.operations.sets.add(b"s%d" % i, members)
            with pytest.raises(TooLarge):
                node.operations.set(b"k", b"v")

    with pytest.raises(TooLarge, match="rows"):
        add_all()
    assert changes(node) == 0
    node.kill()


def test_a_batch_inside_a_transaction_is_part_of_it(node: InlineNode) -> None:
    with node.operations.transaction():
        node.operations.sets.add(b"s", [b"a"])
        assert node.operations.batch([("sadd", b"s", [b"a", b"b"]), ("delete", b"s"), ("add", b"s", 2)]) == [1, True, 2]
        with pytest.raises(NotANumber):
            node.operations.batch([("put", b"s", b"x", 0), ("add", b"s", 1)])
        assert node.operations.get(b"s") == b"2"
        assert isinstance(node.operations.commit, Draft)
    assert changes(node) == 1 and node.operations.get(b"s") == b"2"


# -- bounds


def test_names_and_counts_have_bounds(node: InlineNode) -> None:
    long, many = b"x" * (KEY_BYTES_MAX + 1), [b"%d" % i for i in range(BATCH_OPERATIONS_MAX + 1)]
    operations = node.operations
    operations.sets.add(b"s", [b""])
    for verb in (
        lambda: operations.sets.add(b"s", [long]),
        lambda: operations.sets.store(b"s", [long]),
        lambda: operations.sets.move(b"s", b"t", long),
        lambda: operations.maps.put(b"h", [(long, b"")]),
        lambda: operations.maps.increment(b"h", long, 1),
        lambda: operations.maps.put(b"h", [(b"f", b"v" * (VALUE_BYTES_MAX + 1))]),
        lambda: operations.sets.add(b"s", many),
        lambda: operations.sets.remove(b"s", many),
        lambda: operations.maps.put(b"h", [(field, b"") for field in many]),
    ):
        with pytest.raises(TooLarge):
            verb()
    assert operations.sets.add_run([b"s", b"s"], [b"a", long])[0] == 1
    assert isinstance(operations.sets.add_run([b"s", b"s"], [b"a", long])[1], TooLarge)
    assert operations.sets.count(b"s") == 2 and operations.type_of(b"h") == "none"


def test_a_key_of_too_many_rows_is_not_renamed(node: InlineNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "RENAME_ROWS_MAX", 3)
    node.operations.sets.add(b"s", [b"1", b"2", b"3"])
    node.operations.rename(b"s", b"t")
    node.operations.sets.add(b"t", [b"4"])
    with pytest.raises(TooLarge):
        node.operations.rename(b"t", b"s")
    assert node.operations.sets.count(b"t") == 4


def test_large_values_of_a_map_are_answered_in_part(node: InlineNode) -> None:
    value = b"v" * VALUE_BYTES_MAX
    fields = [b"%02d" % i for i in range(40)]
    for field in fields:
        node.operations.maps.put(b"h", [(field, value)])
        node.settle()
    found = node.operations.maps.get(b"h", fields)
    assert 0 < len(found) < len(fields) and set(found) == {value}


# -- chance


def test_a_large_set_is_popped_empty_each_element_once(node: InlineNode) -> None:
    node.operations.sets.add(b"s", MANY)
    popped = list[bytes]()
    for dice in range(400):
        some = node.operations.sets.pop(b"s", 10, dice)
        assert len(some) <= 10
        popped += some
    assert sorted(popped) == MANY and node.operations.type_of(b"s") == "none"


@pytest.mark.parametrize("counters", [False, True])
def test_random_fields_of_a_large_map_come_from_all_over_it(node: InlineNode, counters: bool) -> None:
    if counters:
        for field in MANY:
            node.operations.maps.increment(b"h", field, 1)
    else:
        node.operations.maps.put(b"h", [(field, b"1") for field in MANY])
    if counters:
        node.checkpoint()
        node.engine.memtable.drop_cache()
    drawn = Counter(node.operations.maps.random(b"h", 1, dice, repeat=False)[0] for dice in range(300))
    assert set(drawn) <= {(field, b"1") for field in MANY}
    thirds = Counter(int(field[8:]) // 1000 for field, _ in drawn)
    assert set(thirds) == {0, 1, 2}


def test_draws_with_repetition_repeat_as_often_as_chance_has_it(node: InlineNode) -> None:
    node.operations.sets.add(b"s", [b"%d" % i for i in range(10)])
    drawn = Counter(
        member for dice in range(100) for member in node.operations.sets.random(b"s", 10, dice, repeat=True)
    )
    assert len(drawn) == 10 and all(60 < count < 150 for count in drawn.values())
    distinct = [len(set(node.operations.sets.random(b"s", 10, dice, repeat=True))) for dice in range(100)]
    assert 6 < sum(distinct) / 100 < 7  # 10 (1 - 0.9^10) = 6.5


# -- expiry


def test_a_set_or_map_made_in_a_keyspace_with_a_ttl_expires(node: InlineNode) -> None:
    operations = node.operations
    operations.sets.add(b"ttl/s", [b"a"])
    operations.maps.put(b"ttl/h", [(b"f", b"v")])
    operations.maps.increment(b"ttl/n", b"f", 1)
    operations.sets.store(b"ttl/t", [b"a"])
    node.now_ms += 1000
    operations.sets.add(b"ttl/s", [b"b"])
    assert [operations.expiry_of(b"ttl/" + name) for name in (b"s", b"h", b"n", b"t")] == [START_MS + 100_000] * 4
    node.now_ms += 100_000
    assert operations.exists([b"ttl/s", b"ttl/h", b"ttl/n", b"ttl/t"]) == 0
    assert operations.sets.add(b"ttl/s", [b"c"]) == 1 and operations.sets.count(b"ttl/s") == 1


def test_a_fraction_is_added_to_a_field_and_refused_with_redis_words(node: InlineNode) -> None:
    maps = node.operations.maps
    assert maps.increment_float(b"h", b"f", b"1.5") == b"1.5"
    maps.put(b"h", [(b"t", b"text"), (b"e", b"")])
    for field, delta, words in (
        (b"t", b"1", "hash value is not a float"),
        (b"e", b"1", "hash value is not a float"),
        (b"f", b"x", "value is not a valid float"),
        (b"f", b"inf", "value is NaN or Infinity"),
    ):
        with pytest.raises(NotANumber, match=f"^{words}$"):
            maps.increment_float(b"h", field, delta)
    with pytest.raises(NotANumber, match=r"^hash value is not an integer$"):
        maps.increment(b"h", b"f", 1)


# -- runs


def test_runs_make_the_rows_that_single_calls_make(tmp_path: Path) -> None:
    single, runs = (InlineNode(tmp_path / name, segment_bytes=8 << 20, spares=2) for name in ("single", "runs"))
    members, values = [b"%d" % (i * 7 % 40) for i in range(100)], [b"v%d" % i for i in range(100)]
    for step in range(3):
        for member, value in zip(members, values, strict=True):
            single.operations.increment(b"n" + member, step + 1)
            single.operations.sets.add(b"s", [member])
            single.operations.maps.put(b"h", [(member, value)])
        runs.operations.increment_run([b"n" + member for member in members], [step + 1] * 100)
        runs.operations.sets.add_run([b"s"] * 100, members)
        runs.operations.maps.put_run([b"h"] * 100, members, values)
        assert changes(runs) == changes(single)
        layers = [node.engine.commit.filling.layer for node in (single, runs)]
        assert layers[0].size_bytes == layers[1].size_bytes and layers[0].rows == layers[1].rows
        for node in (single, runs):
            node.checkpoint()
            if step == 1:
                node.engine.memtable.drop_cache()
            node.kill()
            node.open()
            operations = node.operations
            assert operations.sets.page(b"s", b"", 100)[0] == sorted(set(members))
            assert dict(operations.maps.page(b"h", b"", 100)[0]) == dict(zip(members, values, strict=True))
            keyspace = node.engine.keyspaces.of(b"s")
            for key in (b"s", b"h"):
                assert node.engine.collections.counts(keyspace, key) == node.engine.collections.recount(keyspace, key)
        keys = [b"n" + member for member in members]
        assert single.operations.get_run(keys) == runs.operations.get_run(keys)
    single.kill()
    runs.kill()


@pytest.mark.parametrize("seed", range(12))
def test_runs_over_keys_in_any_state_answer_and_leave_what_single_calls_do(tmp_path: Path, seed: int) -> None:
    single, runs = (InlineNode(tmp_path / name, keyspaces=KEYSPACES, spares=2) for name in ("single", "runs"))
    dice = Random(seed)
    keys = [prefix + b"%d" % i for prefix in (b"", b"ttl/", b"x" * 475) for i in range(3)]
    for _ in range(60):
        key, count = dice.choice(keys), dice.choice((1, 2, 5))
        run = [dice.choice(keys) if dice.random() < 0.2 else key for _ in range(count)]
        names = [b"%d" % dice.randrange(6) for _ in range(count)]
        step = dice.randrange(9)
        for node in (single, runs):
            if step == 3:
                node.operations.delete(run)
            elif step == 4:
                node.operations.set(key, names[0])
            elif step == 5:
                node.operations.set_expiry(key, node.now_ms + 50_000)
            elif step == 6:
                node.now_ms += 60_000
            elif step == 7:
                node.checkpoint()
                node.engine.memtable.drop_cache()
        if step in (0, 8):
            expected = [
                attempt(partial(single.operations.sets.add, k, [name])) for k, name in zip(run, names, strict=True)
            ]
            answers = runs.operations.sets.add_run(run, names)
        elif step in (1, 2):
            expected = [
                attempt(partial(single.operations.maps.put, k, [(name, b"v")]))
                for k, name in zip(run, names, strict=True)
            ]
            answers = runs.operations.maps.put_run(run, names, [b"v"] * count)
        else:
            continue
        assert list(map(str, answers)) == list(map(str, expected))
    for key in keys:
        states = []
        for node in (single, runs):
            keyspace = node.engine.keyspaces.of(key)
            sets, maps = node.engine.collections.counts(keyspace, key), node.engine.collections.recount(keyspace, key)
            assert sets == maps
            kind = node.operations.type_of(key)
            members = node.operations.sets.page(key, b"", 10)[0] if kind == "set" else []
            fields = node.operations.maps.page(key, b"", 10)[0] if kind == "hash" else []
            states.append((kind, members, fields, node.operations.expiry_of(key), sets))
        assert states[0] == states[1]
    assert changes(runs) == changes(single)
    single.kill()
    runs.kill()


def test_an_increment_of_what_is_no_number_ends_no_run(node: InlineNode) -> None:
    node.operations.set(b"text", b"abc")
    node.operations.sets.add(b"set", [b"a"])
    node.operations.increment(b"n", 5)
    results = node.operations.increment_run([b"n", b"text", b"n", b"set", b"n"], [1] * 5)
    assert [r if isinstance(r, int) else type(r) for r in results] == [6, NotANumber, 7, WrongType, 8]


def test_a_run_that_changes_nothing_writes_nothing(node: InlineNode) -> None:
    node.operations.set(b"text", b"abc")
    node.settle()
    node.operations.increment_run([b"text", b"text"], [1, 1])
    assert not node.engine.commit.filling.runs and not node.engine.keyspaces.of(b"text").mixed
