"""The oracle of the cluster simulation on one node: whatever its clients did, it shows what the list of its changes says."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.crdt import counter, elements
from edgekv.engine.frame import Run
from edgekv.ids import Actor, KeyspaceId, node_actor
from tests.sim.clients import Clients
from tests.sim.late import may_show
from tests.sim.oracle import NOTHING, Change, History, Shown, changes_of_run, shown
from tests.sim.sim_node import SimNode, fast_directory

KEYS: Final = [b"a", b"b", b"c"]
SIBLING_KEYS: Final = [b"many/a"]
KEYSPACES: Final = (
    KeyspaceConfig(prefix=b"", name="default"),
    KeyspaceConfig(prefix=b"many/", name="many", conflict="siblings"),
)
ONE, TWO, THREE = (node_actor(bytes([i]) * 16, bytes(8)) for i in (1, 2, 3))


@pytest.fixture
def directory() -> Iterator[Path]:
    path = fast_directory("edgekv-oracle-")
    yield path
    shutil.rmtree(path)


def first_difference(path: Path, seed: int, calls: int) -> str:
    """Random calls, flushes, applies and crashes; where the node first shows something else than the oracle says."""
    rng = Random(seed)
    now = [1_700_000_000_000]
    node = SimNode(path / f"node-{seed}", rng, lambda: now[0], keyspaces=KEYSPACES)
    histories = {keyspace.id: History() for keyspace in node.engine.keyspaces.all}
    clients, trace = Clients(rng), list[str]()
    try:
        for _ in range(calls):
            trace.append(step(node, clients, rng))
            remember(node, histories)
            now[0] += rng.choice((0, 1, 20, 400))
            for key in KEYS + SIBLING_KEYS:
                keyspace, ttl_ms = node.engine.keyspaces.of(key), node.engine.ttl_now_ms()
                true = histories[keyspace.id].truth(key, {node.actor: keyspace.seq}, ttl_ms)
                if (is_shown := shown(node.node, key)) != true:
                    return f"seed {seed}, {trace[-6:]}: {key!r} is {is_shown}, by the changes {true}"
    except AssertionError as contradiction:
        return f"seed {seed}, {trace[-6:]}: {contradiction}"
    finally:
        node.stop()
    return ""


def step(node: SimNode, clients: Clients, rng: Random) -> str:
    choice = rng.random()
    if choice < 0.75:
        return clients.call(node.operations, KEYS, SIBLING_KEYS)
    if choice < 0.98:
        node.tick()
        return f"apply {node.apply()}" if choice > 0.9 else f"flush {node.flush()}"
    node.crash(power=rng.random() < 0.5)
    node.open()
    return "crash"


def remember(node: SimNode, histories: dict[KeyspaceId, History]) -> None:
    """What it has made, and without what it has forgotten in a crash."""
    for keyspace in node.engine.keyspaces.all:
        histories[keyspace.id].forget_above(node.actor, keyspace.seq)
    for frame in reversed(node.engine.commit.overlays):
        for run in frame.runs:
            assert isinstance(run, Run)
            history = histories[run.keyspace.id]
            for change in changes_of_run(run, node.actor):
                if change.seq > len(history.made.get(node.actor, ())):
                    history.add(change)


def test_one_node_shows_what_the_list_of_its_changes_says(directory: Path) -> None:
    assert [difference for seed in range(8) if (difference := first_difference(directory, seed, 300))] == []


def test_the_oracle_tells_a_counter_that_forgets_what_was_reset(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "is_inert", lambda part: False)
    assert any(first_difference(directory, seed, 300) for seed in range(20))


def test_the_oracle_tells_a_clear_that_takes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "_uncovered", lambda dots, vector: tuple(dots))
    assert any(first_difference(directory, seed, 300) for seed in range(20))


# What it says of concurrent changes, which one node never makes.


def truth(*changes: Change, now_ms: int = 0) -> Shown:
    history = History()
    for change in changes:
        history.add(change)
    return history.truth(b"k", history.heads(), now_ms)


def test_of_two_concurrent_values_the_higher_stamp_is_shown() -> None:
    low, high = Change(ONE, 1, 5, [[1, b"k", b"low", 0]]), Change(TWO, 1, 6, [[1, b"k", b"high", 0]])
    assert truth(low, high).values == truth(high, low).values == (b"high",)


def test_an_add_that_a_remove_has_not_seen_stays() -> None:
    added, again = Change(ONE, 1, 5, [[6, b"k", [b"e"]]]), Change(ONE, 2, 7, [[6, b"k", [b"e"]]])
    removed = Change(TWO, 1, 9, [[7, b"k", [[b"e", [[ONE, 1]]]]]])
    assert truth(added, removed) == NOTHING
    assert truth(added, again, removed).members == (b"e",)


def test_an_increment_that_a_reset_has_not_seen_counts() -> None:
    first, second = Change(ONE, 1, 5, [[3, b"k", 5, 0, 0, 1]]), Change(ONE, 2, 7, [[3, b"k", 7, 0, 0, 0]])
    reset = Change(TWO, 1, 9, [[4, b"k", [[ONE, 1, 5]]]])
    assert truth(first, second, reset).values == (b"2",)


def test_a_part_made_anew_forgets_what_its_actor_had_counted() -> None:
    first, second = Change(ONE, 1, 5, [[3, b"k", 5, 0, 0, 1]]), Change(ONE, 2, 7, [[3, b"k", 3, 1, 0, 1]])
    assert truth(first, second).values == (b"3",)


def test_a_clear_of_a_map_hides_lower_stamps_and_leaves_what_its_own_change_puts() -> None:
    low = Change(ONE, 1, 5, [[9, b"k", [[b"f", b"1"]]]])
    clear = Change(TWO, 1, 6, [[13, b"k"], [9, b"k", [[b"g", b"2"]]]])
    high = Change(ONE, 2, 7, [[9, b"k", [[b"h", b"3"]]]])
    assert truth(low, clear, high).fields == ((b"g", b"2"), (b"h", b"3"))


def test_a_system_clear_hides_what_is_below_its_own_stamp_only() -> None:
    expiry, late = Change(ONE, 1, 5, [[5, b"k", 100]]), Change(ONE, 2, 7, [[6, b"k", [b"e"]]])
    clear = Change(TWO, 1, 90, [[5, b"k", 0, 5]])
    renewed = Change(ONE, 3, 8, [[5, b"k", 200]])
    assert truth(expiry, late, now_ms=100) == NOTHING
    assert truth(expiry, late, clear, now_ms=100).members == (b"e",)
    assert truth(expiry, late, renewed, clear, now_ms=200) == NOTHING


@pytest.mark.parametrize(("forgotten", "outlives"), [(TWO, False), (THREE, True)])
def test_a_late_field_may_outlive_the_clears_of_its_map_if_the_newest_was_forgotten(
    forgotten: Actor, outlives: bool
) -> None:
    """A node remembers the newest clear only."""
    late = Change(ONE, 1, 5, [[9, b"k", [[b"f", b"1"]]]])
    clears = [Change(actor, 1, hlc, [[13, b"k"]]) for actor, hlc in ((TWO, 6), (THREE, 7))]
    found = may_show(
        b"k",
        [late, *clears],
        0,
        is_late=lambda actor, _: actor == ONE,
        is_forgotten=lambda actor, _: actor == forgotten,
    )
    assert any(each.fields for each in found) == outlives
