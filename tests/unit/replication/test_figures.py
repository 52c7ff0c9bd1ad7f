"""What replication tells of links, members and lags."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.ids import Actor, Vector
from edgekv.metrics import Metrics
from edgekv.replication.figures import Lag
from edgekv.replication.lag import EvenSince, OwnMoves, behind
from edgekv.server.gauges import register_replication
from tests.unit.replication.wires import Net, Peer, run

A, B, C = (Actor(bytes([i]) * 25) for i in range(3))
Cluster = tuple[Net, Peer, Peer]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A hub and an edge that are linked."""
    net = Net()
    hub = Peer(net, tmp_path / "hub", "hub", founder=True, seed=1)
    edge = Peer(net, tmp_path / "edge", "edge", site="shop", role="edge", seed=2)
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=15)
    yield net, hub, edge
    for peer in (hub, edge):
        peer.kill()


def lag_of(peer: Peer) -> Lag:
    (lag,) = peer.replication.figures.lags(peer.now_ms)
    return lag


def samples(peer: Peer) -> list[str]:
    metrics = Metrics()
    register_replication(metrics, peer.replication.figures, lambda: peer.now_ms)
    return metrics.exposition().splitlines()


def test_a_linked_member_that_has_everything_is_not_behind(cluster: Cluster) -> None:
    net, hub, edge = cluster
    hub.operations.set(b"k", b"v")
    edge.operations.set(b"l", b"v")
    run(net, [hub, edge], rounds=3)
    for peer in (hub, edge):
        assert (lag_of(peer).linked, lag_of(peer).changes, lag_of(peer).seconds) == (True, 0, 0)


def test_a_member_that_is_cut_off_falls_behind_and_comes_back(cluster: Cluster) -> None:
    net, hub, edge = cluster
    edge.cut_off()
    hub.operations.set(b"k", b"v")
    hub.operations.set(b"l", b"v")
    edge.operations.set(b"m", b"v")
    run(net, [hub, edge], rounds=50)
    lacking = lag_of(hub).changes
    assert not lag_of(hub).linked and lacking >= 2  # what the leader writes into meta counts as well
    assert 4.9 <= lag_of(hub).seconds <= 6.4
    assert (lag_of(edge).changes, lag_of(edge).linked) == (1, False)
    assert f'edgekv_replication_lag_changes{{site="shop"}} {lacking}' in samples(hub)
    unlinked = hub.replication.status()["unlinked"]
    assert unlinked == [{"name": "edge", "site": "shop", "lag_changes": lacking, "lag_seconds": lag_of(hub).seconds}]
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=3)
    assert (lag_of(hub).changes, lag_of(hub).seconds, lag_of(edge).changes) == (0, 0, 0)


def test_a_hub_that_starts_again_misses_whom_it_has_not_seen_since(cluster: Cluster) -> None:
    net, hub, _ = cluster
    hub.cut_off()
    hub.kill()
    hub.open()
    run(net, [hub], rounds=20)
    assert not lag_of(hub).linked and lag_of(hub).seconds >= 1.9


def test_who_got_rows_instead_of_changes_is_not_behind_and_shows_the_same(tmp_path: Path) -> None:
    net = Net()
    hub = Peer(net, tmp_path / "hub", "hub", founder=True, seed=1)
    for i in range(100):
        hub.operations.set(b"key/%d" % i, b"v")
    hub.settle()
    edge = Peer(net, tmp_path / "edge", "edge", site="shop", role="edge", seed=2)
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=30)
    assert edge.replication.row_sync.syncs_total == 1
    assert (lag_of(hub).changes, lag_of(edge).changes) == (0, 0)
    digests = []
    for peer in (hub, edge):
        digest = peer.operations.digest("default", hub.now_ms)
        while digest.step():
            pass
        digests.append((digest.vector, digest.figures()["digest"], digest.figures()["keys"]))
        peer.kill()
    assert digests[0] == digests[1] and digests[0][2] == 100


def test_bytes_are_counted_by_site_and_stay_when_a_link_ends(cluster: Cluster) -> None:
    net, hub, edge = cluster
    before = hub.replication.figures.traffic()
    assert before["received", "shop"] > 0 and before["sent", "shop"] > 0
    edge.cut_off()
    assert hub.replication.figures.traffic() == before
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=3)
    assert hub.replication.figures.traffic()["sent", "shop"] > before["sent", "shop"]
    assert any(line.startswith('edgekv_replication_bytes_total{direction="sent",site="shop"}') for line in samples(hub))


def test_skew_and_members_are_shown(cluster: Cluster) -> None:
    net, hub, edge = cluster
    edge.now_ms += 3000
    run(net, [hub, edge], rounds=12)
    shown = samples(hub)
    assert 'edgekv_clock_skew_seconds{peer="edge"} 3.0' in shown
    assert 'edgekv_members{state="open"} 2' in shown and 'edgekv_members{state="closed"} 0' in shown


def test_who_follows_a_busy_node_at_a_distance_is_not_behind_for_as_long_as_that_writes() -> None:
    even, moves, known = EvenSince(0), OwnMoves(), {0: {A: 0}}
    for second in range(100):
        own, known[0][A] = {0: {A: 10 * second + 10}}, 10 * second + 5
        moves.look(own)
        even.look(second * 1000, moves, known, [0], B)
        assert even.lag_s(second * 1000 + 500, behind(own, known, [0], B)) <= 2


def test_changes_are_counted_where_both_hold_the_keyspace_and_not_the_peers_own() -> None:
    own = {0: {A: 5, B: 7, C: 1}, 1: {A: 9}}
    assert behind(own, {0: {A: 3, C: 4}}, [0], B) == 2
    assert behind(own, {}, [0, 1], B) == 15
    assert behind({}, own, [0, 1], B) == 0


class Reference:
    """`EvenSince` without a memory of what may be lacking: each look compares everything."""

    def __init__(self) -> None:
        self.even_ms = self.mark_ms = 0
        self.mark: dict[int, Vector] = {}

    def look(self, now_ms: int, own: dict[int, Vector], known: dict[int, Vector], keyspaces: list[int]) -> None:
        if not behind(self.mark, known, keyspaces, B):
            self.even_ms = max(self.even_ms, self.mark_ms)
            self.mark_ms, self.mark = now_ms, own


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("own", "known", "known", "look", "look", "elsewhere", "keyspaces", "dropped")),
        st.integers(0, 1),
        st.integers(0, 2),
        st.integers(1, 3),
    ),
    max_size=60,
)


@given(STEPS)
def test_what_is_told_of_a_lag_is_what_comparing_everything_says(steps: list[tuple[str, int, int, int]]) -> None:
    own: dict[int, Vector] = {0: {}, 1: {}}
    known: dict[int, Vector] = {0: {}, 1: {}}
    keyspaces, even, moves, reference = [0, 1], EvenSince(0), OwnMoves(), Reference()
    for now_ms, (what, keyspace, who, by) in enumerate(steps):
        actor = (A, B, C)[who]
        if what == "own":
            own[keyspace][actor] = own[keyspace].get(actor, 0) + by
        elif what == "known":
            known[keyspace][actor] = known[keyspace].get(actor, 0) + by
        elif what == "elsewhere":  # it is known by its SEEN now, which is older
            known = {number: {a: max(0, seq - by) for a, seq in vector.items()} for number, vector in known.items()}
        elif what == "keyspaces":
            keyspaces = [0, 1] if keyspaces == [0] else [0]
        elif what == "dropped":  # the copy of a keyspace was deleted here
            own[keyspace].clear()
        else:
            copied = {number: dict(vector) for number, vector in own.items()}
            moves.look(copied)
            even.look(now_ms, moves, known, keyspaces, B)
            reference.look(now_ms, copied, known, keyspaces)
        assert even.even_ms == reference.even_ms
        now = even.changes(own, moves.until(own), known, keyspaces, B)
        assert now == behind(own, known, keyspaces, B)


def test_of_many_members_of_whom_one_writes_only_what_it_wrote_is_compared() -> None:
    """All that others have is 500 times 4 times 500 numbers."""
    dice = Random(7)
    actors = [Actor(dice.randbytes(25)) for _ in range(500)]
    keyspaces = [0, 1, 2, 3]
    own = {number: dict.fromkeys(actors, 1) for number in keyspaces}
    others = [(EvenSince(0), {number: dict(vector) for number, vector in own.items()}) for _ in actors]
    moves = OwnMoves()

    def look(second: int) -> int:
        moves.look({number: dict(vector) for number, vector in own.items()})
        return sum(even.look(second * 1000, moves, known, keyspaces, actors[0]) for even, known in others)

    for second in range(3):
        look(second)
    assert look(3) == 0
    for second in range(4, 14):
        own[2][actors[7]] = second
        for _, known in others:
            known[2][actors[7]] = second
        assert look(second) <= len(others)
    assert all(even.even_ms == 12_000 for even, _ in others)


def test_a_look_that_has_much_to_compare_ends_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekv.replication.figures.COMPARED_AT_ONCE", 1)
    net = Net()
    hub = Peer(net, tmp_path / "hub", "hub", founder=True, seed=1)
    edges = [Peer(net, tmp_path / f"edge-{i}", f"edge-{i}", site="shop", role="edge", seed=2 + i) for i in range(3)]
    for edge in edges:
        net.connect(edge, hub)
    run(net, [hub, *edges], rounds=20)
    for edge in edges:
        edge.cut_off()
    hub.operations.set(b"k", b"v")
    hub.settle()
    figures, compared = hub.replication.figures, [0]
    for look in range(9):
        compared.append(figures.look(hub.now_ms + look * 1000))
    assert max(compared) < 30, "no more than what one of them lacks"
    for edge in edges:
        net.connect(edge, hub)
    run(net, [hub, *edges], rounds=120)
    assert all(lag.changes == lag.seconds == 0 for lag in figures.lags(hub.now_ms))
    for peer in (hub, *edges):
        peer.kill()


def test_a_lag_over_a_thousand_actors_is_cheap() -> None:
    dice = Random(7)
    actors = [Actor(dice.randbytes(25)) for _ in range(1000)]
    own, known = {0: dict.fromkeys(actors, 9)}, {0: dict.fromkeys(actors, 8)}
    count: Callable[[], int] = lambda: behind(own, known, [0], actors[0])  # noqa: E731 - one line
    assert count() == 999
    begun = process_time()
    for _ in range(100):
        count()
    assert process_time() - begun < 0.5
