"""What members say they have seen: who may say it, when it counts, and what it costs."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.ids import Actor, Vector, node_actor
from edgekv.limits import SEEN_WAITING_ENTRIES_MAX
from edgekv.replication.lowest import Lowest
from edgekv.replication.members import Member
from edgekv.replication.messages import Seen, SeenList, pack_message
from edgekv.replication.seen import SeenTable
from edgekv.replication.stability import compute_stable, raised, settled_heads
from edgekv.store.applied import Cut, Stable
from tests.unit.replication.test_links import cluster
from tests.unit.replication.wires import Make, Net, Peer, Wire, run

ACTORS = [node_actor(i.to_bytes(16, "big"), b"12345678") for i in range(1_000)]
A, B, C = ACTORS[:3]
KS = 2


def say(net: Net, wire: Wire, liar: Peer, *said: Seen) -> None:
    """It sends these SEENs beside what it would send."""
    net.send(liar, wire.number, pack_message(SeenList(list(said))))
    while net.deliver():
        pass


def seen(actor: Actor, number: int, vector: Vector, keyspace: int = KS) -> Seen:
    return Seen(actor, number, number, number, {keyspace: vector})


# -- what a liar can do


def test_who_says_that_it_has_what_nobody_made_takes_nothing_back_that_it_said_before(net: Net, make: Make) -> None:
    hub, (liar, other), wires = cluster(net, make)
    run(net, [hub, liar, other], rounds=80)
    net.cut(wires[1])
    hub.operations.set(b"k", b"v")
    run(net, [hub, liar], rounds=80)
    say(net, wires[0], liar, seen(liar.engine.actor, 1 << 40, {other.engine.actor: 1 << 50}, DEFAULT_ID))
    other.now_ms = hub.now_ms
    net.connect(other, hub)
    run(net, [hub, liar, other], rounds=130)
    announced = hub.replication.members.announced
    assert announced is not None and announced.stable.cuts is not None
    assert announced.stable.cuts[DEFAULT_ID].cut[hub.engine.actor] == hub.engine.keyspaces.by_id[DEFAULT_ID].seq
    assert not announced.stable.cuts[DEFAULT_ID].cut.get(other.engine.actor), "and what it makes up counts for nothing"


def test_an_edge_speaks_for_nobody_else(net: Net, make: Make) -> None:
    hub, (liar, other), wires = cluster(net, make)
    say(net, wires[0], liar, seen(other.engine.actor, 1 << 40, {}, DEFAULT_ID))
    assert wires[0].number not in hub.replication.links
    assert wires[1].number in hub.replication.links
    spoken = hub.replication.seen.spoken.get(other.engine.actor)
    assert spoken is None or spoken.newest().number < 1 << 40


def test_what_is_said_of_strangers_never_counts_and_ends_when_it_is_too_much(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    other = make("other")
    wire = net.connect(other, hub)
    run(net, [hub, other], rounds=15)
    say(net, wire, other, seen(A, 1, {}), seen(other.engine.actor, 1 << 40, {A: 1}, DEFAULT_ID))
    run(net, [hub, other], rounds=10)
    assert {A, other.engine.actor}.isdisjoint(hub.replication.seen.spoken)
    assert wire.number in hub.replication.links
    many = {node_actor(i.to_bytes(16, "big"), b"87654321"): 1 for i in range(SEEN_WAITING_ENTRIES_MAX)}
    say(net, wire, other, seen(other.engine.actor, 1 << 41, many))
    assert wire.number not in hub.replication.links
    assert "knows nothing of" in str(hub.replication.status()["events"])


def test_what_is_said_before_its_meta_is_here_counts_when_that_came(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    late = make("late")
    wire = net.connect(late, hub)
    run(net, [hub, edge, late], rounds=15)
    del late.replication.members.members[edge.engine.actor]
    say(net, wire, hub, seen(edge.engine.actor, 1 << 40, {}, DEFAULT_ID))
    assert late.replication.links[wire.number].seens.waiting
    late.replication.members._read()
    run(net, [hub, edge, late], rounds=15)
    assert late.replication.seen.spoken[edge.engine.actor].newest().number == 1 << 40


def test_what_settled_actors_had_seen_is_forgotten(net: Net, make: Make) -> None:
    hub, (first, second), _ = cluster(net, make)
    run(net, [hub, first, second], rounds=80)
    actor = second.engine.actor
    assert actor in hub.replication.seen.spoken
    second.cut_off()
    hub.replication.membership.remove("edge-1")
    run(net, [hub, first], rounds=150)
    assert hub.replication.members.members[actor].state == "settled"
    assert actor not in hub.replication.seen.spoken


# -- the table


def test_a_seen_counts_when_all_that_it_names_is_here_and_those_after_it_later() -> None:
    table = SeenTable()
    table.hear(seen(A, 1, {A: 1}))
    table.hear(seen(A, 2, {A: 2, B: 7}))
    table.hear(seen(A, 3, {A: 3}))
    assert table.counted(A) is None
    table.prove({KS: {A: 1}})
    spoken = table.counted(A)
    assert spoken is not None and (spoken.number, spoken.vectors) == (1, {KS: {A: 1}})
    table.prove({KS: {A: 9, B: 6}})
    assert spoken.number == 1
    table.prove({KS: {A: 9, B: 7}})
    assert (spoken.number, spoken.ttl_ms, spoken.vectors) == (3, 3, {KS: {A: 3, B: 7}})


def test_a_member_that_is_always_a_little_ahead_counts_all_the_same() -> None:
    table = SeenTable()
    for number in range(1, 100):
        table.hear(seen(A, number, {A: number}))
        table.prove({KS: {A: number - 1}})
    spoken = table.counted(A)
    assert spoken is not None and spoken.number >= 97


def test_news_are_told_once_and_are_all_that_was_heard() -> None:
    table = SeenTable()
    table.hear(seen(A, 1, {A: 1, B: 1}))
    assert [said.vectors for said in table.take_news()] == [{KS: {A: 1, B: 1}}]
    table.hear(seen(A, 2, {A: 1, B: 2}))
    table.hear(seen(A, 3, {A: 1, C: 1}))
    assert list(table.take_news()) == [Seen(A, 3, 3, 3, {KS: {B: 2, C: 1}})]
    assert not list(table.take_news())
    assert table.spoken[A].whole() == Seen(A, 3, 3, 3, {KS: {A: 1, B: 2, C: 1}})


SAID = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5), st.booleans()), max_size=40)


@given(SAID, st.integers(1, 3))
def test_the_lowest_is_never_above_the_minimum_and_reaches_it(
    said: list[tuple[int, int, int, bool]], limit: int
) -> None:
    lowest, vectors = Lowest(), {actor: Vector() for actor in ACTORS[:4]}
    members = dict(vectors)
    for owner, actor, seq, in_or_out in said:
        who, what = ACTORS[owner], ACTORS[actor]
        if seq > vectors[who].get(what, 0):
            vectors[who][what] = seq
            lowest.rose(KS, who, [what])
        if in_or_out and members.pop(who, None) is None:
            members[who] = vectors[who]
        exact = minimum(list(members.values()))
        found = lowest.of(KS, members, limit)
        assert all(seq <= exact.get(actor, 0) for actor, seq in found.items())
    assert lowest.of(KS, members, 1 << 30) == minimum(list(members.values()))


def minimum(vectors: list[Vector]) -> Vector:
    actors = {actor for vector in vectors for actor in vector}
    found = {actor: min(vector.get(actor, 0) for vector in vectors) for actor in actors}
    return {actor: seq for actor, seq in found.items() if seq}


# -- what it costs


def member(actor: Actor) -> Member:
    return Member(
        actor=actor,
        node=actor[1:17],
        name="n",
        site="s",
        role="edge",
        state="open",
        revision=1,
        heads={},
        hlcs={},
        ttl_ms=0,
        parked=False,
    )


def test_a_cut_never_falls_but_where_its_leader_was_set_back() -> None:
    def stable(cut: Vector, need: Vector) -> Stable:
        return Stable(1, {KS: Cut(cut, need, frozenset())})

    last = stable({A: 5, B: 3, C: 2}, {A: 5, B: 5, C: 2})
    assert raised(stable({B: 4}, {A: 6, B: 6, C: 1}), last) == stable({A: 5, B: 4}, {A: 6, B: 6, C: 1})
    assert raised(stable({}, {A: 9}), Stable(1, {})) == stable({}, {A: 9})


@pytest.mark.parametrize("movers", [0, 20, 1_000])
def test_what_is_stable_costs_as_much_as_moves(movers: int) -> None:
    count, keyspaces = 300, (META_ID, DEFAULT_ID, KS + 1)
    members, table = [member(actor) for actor in ACTORS[:count]], SeenTable()
    own = {keyspace: dict.fromkeys(ACTORS[:count], 1) for keyspace in keyspaces}

    def look() -> float:
        began = process_time()
        table.prove(own)
        settled_heads(members, table, own)
        assert compute_stable(members, table, own, lambda member, keyspace: True) is not None
        return process_time() - began

    for actor in ACTORS[:count]:
        table.hear(Seen(actor, 1, 1, 1, own))
    for _ in range(20):
        table.prove(own)
    for _ in range(20):
        compute_stable(members, table, own, lambda member, keyspace: True)
    for keyspace in keyspaces:
        own[keyspace] |= dict.fromkeys(ACTORS[: min(movers, count)], 2)
    moved = {keyspace: dict.fromkeys(ACTORS[: min(movers, count)], 2) for keyspace in keyspaces}
    for actor in ACTORS[:count]:
        table.hear(Seen(actor, 2, 2, 2, moved))
    assert min(look() for _ in range(3)) < 0.05
