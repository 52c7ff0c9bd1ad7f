"""Runs of other actors enter as clients' changes do: whole, durable, merged with what is there, refused when they cannot be right."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from edgekv.checksum import chain_next
from edgekv.config import KeyspaceConfig
from edgekv.errors import ClockTooFarAhead, EdgeKVError, Forked, PeerFault, WrongType
from edgekv.ids import Actor, KeyspaceId
from edgekv.limits import CLOCK_AHEAD_MS_MAX
from edgekv.store.applied import Stable
from edgekv.wal.record import Changes, pack_columns, pack_operations
from tests.unit.node.inline_node import START_MS, InlineNode

PEER = Actor(b"\x01" + b"p" * 24)
KEYSPACES = (
    KeyspaceConfig(prefix=b"", name="default"),
    KeyspaceConfig(prefix=b"s/", name="siblings", conflict="siblings"),
)
KEYS = [b"a", b"b", b"long" * 130, b"s/v"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path / "node", keyspaces=KEYSPACES)
    yield node
    node.kill()


def run_of(
    values: list[bytes],
    *,
    first_seq: int = 1,
    chain: int = 0,
    hlc: int = START_MS << 16,
    key: bytes = b"k",
    actor: Actor = PEER,
    keyspace: int = 0,
) -> Changes:
    body = pack_columns([key] * len(values), values)
    return Changes(keyspace, actor, first_seq, hlc, chain, len(values), body)


def shown(node: InlineNode, key: bytes) -> object:
    """All that a reader is shown at a key."""
    operations, reads = node.operations, node.engine.reads
    keyspace = node.engine.keyspaces.of(key)
    if keyspace.siblings:
        siblings = reads.state(keyspace, key).visible_siblings(1)
        string: object = sorted((s.value, s.expiry_ms) for s in siblings)
    else:
        string = attempt(lambda: operations.get(key))
    elements = attempt(lambda: operations.sets.page(key, b"", 1000)[0])
    fields = attempt(lambda: operations.maps.page(key, b"", 1000)[0])
    counts = node.engine.collections.set_count(keyspace, key), node.engine.collections.map_count(keyspace, key)
    assert reads.recount(keyspace, key) == counts
    return string, elements, fields, counts, operations.expiry_of(key)


def attempt(read: Callable[[], object]) -> object:
    try:
        return read()
    except WrongType:
        return WrongType


def test_a_run_is_shown_at_once_and_covered_when_it_is_durable(node: InlineNode) -> None:
    assert node.engine.receive(run_of([b"1", b"2"]))
    assert node.operations.get(b"k") == b"2"
    assert node.engine.barrier is not None, "whoever reads it waits"
    default = node.engine.keyspaces.of(b"k")
    assert PEER not in default.vector
    node.settle()
    assert default.vector[PEER].seq == 2
    assert not default.observed


def test_a_run_survives_a_kill_and_the_way_into_lmdb(node: InlineNode) -> None:
    node.engine.receive(run_of([b"1", b"2"]))
    node.settle()
    node.kill()
    node.open()
    assert node.operations.get(b"k") == b"2"
    assert node.engine.keyspaces.of(b"k").vector[PEER].seq == 2
    node.checkpoint()
    node.engine.memtable.drop_cache()
    assert node.operations.get(b"k") == b"2"


def test_a_run_may_have_keys_on_both_sides_of_another_keyspace(node: InlineNode) -> None:
    keys = [b"EWR", b"a", b"zebra"]  # _meta/ is between the first two, s/ between the last two
    run = run_of([b"1", b"2", b"3"])._replace(body=pack_columns(keys, [b"1", b"2", b"3"]))
    assert node.engine.receive(run)
    node.settle()
    assert [node.operations.get(key) for key in keys] == [b"1", b"2", b"3"]
    foreign = run_of([b"4", b"5"])._replace(body=pack_columns([b"EWR", b"_meta/x"], [b"4", b"5"]))
    with pytest.raises(PeerFault, match="does not lie in keyspace"):
        node.engine.receive(foreign._replace(first_seq=4, chain=chain_next(0, run.base_hlc, run.body)))


def test_a_key_that_another_keyspace_took_from_the_default_one_is_taken_in_and_shown_to_nobody(
    node: InlineNode,
) -> None:
    """Its maker had not heard of the other keyspace; refused it would be lost, and all that comes after it."""
    node.operations.set(b"s/j", b"of the other keyspace")
    bodies = pack_columns([b"a", b"s/x"], [b"1", b"2"]), pack_operations([[[6, b"s/j", [b"e"]], [1, b"b", b"3", 0]]])
    first = run_of([b"", b""])._replace(body=bodies[0])
    assert node.engine.receive(first)
    assert node.engine.receive(
        first._replace(first_seq=3, changes=1, chain=chain_next(0, first.base_hlc, bodies[0]), body=bodies[1])
    )
    for _ in range(2):
        assert [node.operations.get(key) for key in (b"a", b"b", b"s/x")] == [b"1", b"3", None]
        assert node.operations.siblings.get(b"s/j").values == [b"of the other keyspace"]
        node.settle()
        node.kill()
        node.open()
    node.checkpoint()
    assert node.engine.status()["misplaced"] == {"keys": 2, "first": ["s/j", "s/x"]}
    assert node.engine.keyspaces.of(b"k").vector[PEER].seq == 3


def test_a_run_that_was_taken_in_before_changes_nothing(node: InlineNode) -> None:
    assert node.engine.receive(run_of([b"1", b"2"]))
    assert not node.engine.receive(run_of([b"1", b"2"]))
    node.settle()
    assert not node.engine.receive(run_of([b"1", b"2"]))


@pytest.mark.parametrize("chain", [-1, 1 << 32])
def test_a_chain_that_is_none_is_refused_of_a_run_that_is_known_too(node: InlineNode, chain: int) -> None:
    assert node.engine.receive(run_of([b"1"]))
    with pytest.raises(PeerFault, match="impossible"):
        node.engine.receive(run_of([b"1"], chain=chain))


def test_the_later_stamp_wins_whichever_comes_first(node: InlineNode) -> None:
    node.operations.set(b"k", b"mine")
    node.engine.receive(run_of([b"older"], hlc=(START_MS - 1) << 16))
    assert node.operations.get(b"k") == b"mine"
    older = run_of([b"older"], hlc=(START_MS - 1) << 16)
    chain = chain_next(0, older.base_hlc, older.body)
    node.engine.receive(run_of([b"newer"], first_seq=2, chain=chain, hlc=(START_MS + 1) << 16))
    assert node.operations.get(b"k") == b"newer"
    node.operations.set(b"k", b"mine again")
    assert node.operations.get(b"k") == b"mine again", "a write beats what it saw whatever the clocks say"


def test_an_older_stamp_loses_to_what_lmdb_has(node: InlineNode) -> None:
    node.operations.set(b"k", b"mine")
    node.checkpoint()
    node.engine.memtable.drop_cache()
    node.engine.receive(run_of([b"older"], hlc=(START_MS - 1) << 16))
    assert node.operations.get(b"k") == b"mine"
    node.settle()
    node.kill()
    node.open()
    assert node.operations.get(b"k") == b"mine", "and when the log is replayed"


def test_a_clear_covers_what_was_received_and_is_not_durable(node: InlineNode) -> None:
    body = pack_operations([[[6, b"set", [b"theirs"]]]])
    node.engine.receive(Changes(0, PEER, 1, START_MS << 16, 0, 1, body))
    node.operations.delete([b"set"])
    node.settle()
    assert node.operations.sets.count(b"set") == 0
    assert node.engine.reads.recount(node.engine.keyspaces.of(b"set"), b"set") == (0, 0)


@pytest.mark.parametrize(
    ("why", "run", "error"),
    [
        ("a hole", run_of([b"v"], first_seq=2), PeerFault),
        ("another chain", run_of([b"v"], chain=7), Forked),
        ("an unknown keyspace", run_of([b"v"], keyspace=9), PeerFault),
        ("a key of another keyspace", run_of([b"v"], key=b"_meta/x"), PeerFault),
        ("a key of no keyspace in another", run_of([b"v"], keyspace=2), PeerFault),
        ("a plain value among siblings", run_of([b"v"], key=b"s/x", keyspace=2), PeerFault),
        ("an empty key", run_of([b"v"], key=b""), PeerFault),
        ("no changes", run_of([]), PeerFault),
        ("a wrong number of changes", run_of([b"v"])._replace(changes=2), PeerFault),
        ("a body that is none", run_of([b"v"])._replace(body=b"\xc1"), PeerFault),
        ("an operation that is none", run_of([b"v"])._replace(body=pack_operations([[[99, b"k"]]])), PeerFault),
        (
            "siblings in a keyspace of registers",
            run_of([b"v"])._replace(body=pack_operations([[[14, b"k", b"v", 0, []]]])),
            PeerFault,
        ),
        ("a stamp that is none", run_of([b"v"], hlc=(1 << 63) - 1), PeerFault),
    ],
)
def test_what_cannot_be_right_is_refused_and_leaves_nothing(
    node: InlineNode, why: str, run: Changes, error: type[PeerFault]
) -> None:
    node.engine.judges_clocks = False
    with pytest.raises(error):
        node.engine.receive(run._replace(base_hlc=1 << 63) if why == "a stamp that is none" else run)
    assert node.operations.get(b"k") is None
    assert not any(keyspace.observed for keyspace in node.engine.keyspaces.all)
    assert node.engine.receive(run_of([b"fine"])), "everybody else goes on"


def test_another_history_under_dots_that_are_here_is_a_fork(node: InlineNode) -> None:
    node.engine.receive(run_of([b"1", b"2"]))
    with pytest.raises(Forked):
        node.engine.receive(run_of([b"2", b"3"], first_seq=2))


def test_changes_of_this_node_that_it_does_not_know_are_a_fork(node: InlineNode) -> None:
    with pytest.raises(Forked):
        node.engine.receive(run_of([b"1"], actor=node.engine.actor))


def test_a_hub_refuses_stamps_more_than_a_day_ahead(node: InlineNode) -> None:
    node.engine.judges_clocks = True
    ahead = (START_MS + CLOCK_AHEAD_MS_MAX + 1) << 16
    with pytest.raises(ClockTooFarAhead):
        node.engine.receive(run_of([b"v"], hlc=ahead + 1))
    node.engine.receive(run_of([b"v"], hlc=ahead - (2 << 16)))


def test_what_was_folded_in_is_kept_over_a_restart(node: InlineNode) -> None:
    future = (START_MS + 3_600_000) << 16
    node.engine.fold({KeyspaceId(0): future}, START_MS + 7_000_000)
    node.settle()
    node.kill()
    node.open()
    assert node.engine.keyspaces.of(b"k").hlc >= future
    assert node.engine.ttl_now_ms() >= START_MS + 7_000_000
    assert node.engine.checkpoints.ttl_durable_ms >= START_MS + 7_000_000


def test_nothing_is_purged_by_a_stable_before_the_nodes_own_time_has_durably_come_to_its_wall(node: InlineNode) -> None:
    stable = Stable(START_MS + 9_000_000, {})
    checkpoints = node.engine.checkpoints
    checkpoints.follow(stable)
    assert node.engine.ttl_now_ms() >= stable.wall_ms, "readers are shown what has expired by then no more"
    assert checkpoints.stable is None
    node.settle()
    checkpoints.follow(stable)
    assert checkpoints.stable is stable


Verb = Callable[[InlineNode, Random], object]


def _value(dice: Random) -> bytes:
    return b"v%d" % dice.randrange(1000)


def _field(dice: Random) -> bytes:
    return b"%d" % dice.randrange(4)


VERBS: list[Verb] = [
    lambda n, d: n.operations.set(d.choice(KEYS), _value(d)),
    lambda n, d: n.operations.set_run([b"a", b"b", b"a"], [_value(d), _value(d), _value(d)]),
    lambda n, d: n.operations.set(d.choice(KEYS), _value(d), expiry_ms=START_MS + 10_000_000),
    lambda n, d: n.operations.delete([d.choice(KEYS)]),
    lambda n, d: n.operations.increment(b"n", d.randrange(-3, 9)),
    lambda n, d: n.operations.delete([b"n"]),
    lambda n, d: n.operations.sets.add(d.choice(KEYS), [_field(d), _field(d)]),
    lambda n, d: n.operations.sets.add_run([b"a", b"a"], [_field(d), _field(d)]),
    lambda n, d: n.operations.sets.remove(d.choice(KEYS), [_field(d)]),
    lambda n, d: n.operations.maps.put(d.choice(KEYS), [(_field(d), _value(d))]),
    lambda n, d: n.operations.maps.remove(d.choice(KEYS), [_field(d)]),
    lambda n, d: n.operations.maps.increment(b"m", _field(d), d.randrange(9)),
    lambda n, d: n.operations.delete([b"m"]),
    lambda n, d: n.operations.set_expiry(d.choice(KEYS), START_MS + 20_000_000),
    lambda n, d: n.operations.persist(d.choice(KEYS)),
    lambda n, d: n.operations.sets.store(b"b", [_field(d), _field(d)]),
]


def step(node: InlineNode, other: InlineNode, dice: Random, *, pulls: bool = True) -> None:
    node.now_ms += dice.choice((0, 0, 1, 30))
    number = dice.randrange(20)
    if number < 12:
        with suppress(EdgeKVError):  # a verb may refuse: INCR of what is no number
            dice.choice(VERBS)(node, dice)
    elif number < 16:
        if not pulls:
            return
        other.settle()
        node.pull(other, dice.choice((1, 3, 1000)))
    elif number == 16:
        node.settle()
    elif number == 17:
        node.checkpoint_at(node.now_ms)
    elif number == 18:
        node.engine.memtable.drop_cache()
    elif pulls:
        node.settle()
        node.kill()
        node.open()


@pytest.mark.parametrize("seed", range(30))
def test_nodes_that_have_exchanged_everything_show_the_same(tmp_path: Path, seed: int) -> None:
    dice = Random(seed)
    nodes = [
        InlineNode(
            tmp_path / f"{i}", keyspaces=KEYSPACES, memory_bytes=8 << 20, seed=i, retain_bytes=1 << 30, lone=False
        )
        for i in range(3)
    ]
    for i, skew in enumerate((0, 40, -40)):
        nodes[i].now_ms += skew
    for _ in range(250):
        node, other = dice.sample(nodes, 2)
        step(node, other, dice)
    for _ in range(2):
        for node in nodes:
            for other in nodes:
                if other is not node:
                    other.settle()
                    node.pull(other)
    for node in nodes:
        node.settle()
    keys = [*KEYS, b"n", b"m"]
    before = [shown(nodes[0], key) for key in keys]
    for node in nodes[1:]:
        assert [shown(node, key) for key in keys] == before
        assert [k.vector for k in node.engine.keyspaces.all] == [k.vector for k in nodes[0].engine.keyspaces.all]
    for node in nodes:
        node.kill()
        node.open()
        assert [shown(node, key) for key in keys] == before, "after a replay"
        node.checkpoint_at(node.now_ms + 5_000)
        node.engine.memtable.drop_cache()
        assert [shown(node, key) for key in keys] == before, "from LMDB"
        node.kill()
