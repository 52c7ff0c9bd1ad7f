"""A node whose clock was days ahead while it wrote alone comes back when that is right, with all that it wrote and other stamps."""

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.crdt.register import Cell
from edgekv.crdt.rows import SUFFIX_REGISTER
from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.node import clock_restart, identity
from edgekv.store.applier import Applier
from edgekv.wal.segment import Segment
from tests.unit.replication.test_hub_time import DAY_MS, set_clock
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.test_parking import OFFLINE_MS, members, pass_s
from tests.unit.replication.test_trouble import carry
from tests.unit.replication.wires import Make, Net, Peer, run

AHEAD_MS = 400 * DAY_MS
HOUR_MS = 3_600_000


def asked(peer: Peer) -> list[dict[int, int]]:
    """What the shell of a node is asked to do from now on."""
    heard: list[dict[int, int]] = []
    peer.replication.wrong_clock.was_wrong = heard.append
    return heard


def alone_in_the_future(net: Net, make: Make, *, max_offline_ms: int = 0) -> tuple[Peer, Peer, Peer]:
    """A hub, an edge that is cut off with a clock that is more than a year ahead, and an edge that is linked."""
    hub, (edge, other), _ = cluster(net, make, max_offline_ms=max_offline_ms)
    for key in (b"old", b"doomed", b"both"):
        hub.operations.set(key, b"from before")
    edge.operations.sets.add(b"set", [b"a", b"b"])
    edge.operations.increment(b"count", 5)
    edge.operations.maps.put(b"map", [(b"f", b"before"), (b"g", b"before")])
    pass_s(net, 6, hub, edge, other)
    edge.cut_off()
    set_clock(edge, AHEAD_MS)
    edge.tick()
    return hub, edge, other


def start_anew(peer: Peer, stamps_max: dict[int, int]) -> None:
    """As the shell does it: the node is asked to, ends, and is started again."""
    who = peer.node.identity
    identity.clock_was_wrong(peer.config.data_dir, who, identity.WrongClock(stamps_max=stamps_max))
    peer.stop()
    peer.open()


def come_back(net: Net, edge: Peer, hub: Peer, *others: Peer, right: bool = True) -> None:
    """Its clock is set right, it is refused, it starts anew, and links again."""
    if right:
        set_clock(edge, hub.now_ms - edge.now_ms)
    heard = asked(edge)
    net.connect(edge, hub)
    for _ in range(60):
        run(net, [hub, edge, *others], rounds=5)
        if heard:
            break
    assert heard, "it has to be started again"
    start_anew(edge, heard[-1])
    net.connect(edge, hub)
    run(net, [hub, edge, *others], rounds=60)


def test_all_that_was_written_by_a_wrong_clock_is_everywhere_when_the_clock_is_right(net: Net, make: Make) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"new", b"by the wrong clock")
    edge.operations.set(b"old", b"by the wrong clock")
    edge.operations.delete([b"doomed"])
    edge.operations.sets.add(b"set", [b"c"])
    edge.operations.sets.remove(b"set", [b"a"])
    edge.operations.increment(b"count", 7)
    edge.operations.maps.put(b"map", [(b"f", b"by the wrong clock")])
    edge.operations.maps.remove(b"map", [b"g"])
    other.operations.increment(b"count", 1)
    before = edge.engine.actor
    come_back(net, edge, hub, other)
    assert edge.engine.actor != before
    for peer in (hub, edge, other):
        assert peer.operations.get(b"new") == b"by the wrong clock"
        assert peer.operations.get(b"old") == b"by the wrong clock"
        assert peer.operations.get(b"doomed") is None
        assert sorted(peer.operations.sets.page(b"set", b"", 9)[0]) == [b"b", b"c"]
        assert peer.operations.get(b"count") == b"13", "each increment counts once"
        assert peer.operations.maps.get(b"map", [b"f", b"g"]) == [b"by the wrong clock", None]
    assert vectors(edge) == vectors(hub) == vectors(other)


def test_its_stamps_are_of_the_time_by_then_and_so_is_what_it_writes_next(net: Net, make: Make) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"by the wrong clock")
    come_back(net, edge, hub, other)
    for peer in (hub, edge, other):
        assert max(keyspace.hlc >> 16 for keyspace in peer.engine.keyspaces.all) <= hub.now_ms
    edge.operations.set(b"k", b"next")
    run(net, [hub, edge, other], rounds=5)
    other.operations.set(b"k", b"and another")
    run(net, [hub, edge, other], rounds=5)
    assert [peer.operations.get(b"k") for peer in (hub, edge, other)] == [b"and another"] * 3


def test_of_concurrent_values_the_later_one_stays_as_if_its_clock_had_been_right(net: Net, make: Make) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"earlier", b"by the wrong clock")
    edge.settle()
    for peer in (hub, edge, other):
        peer.now_ms += HOUR_MS
    other.operations.set(b"earlier", b"an hour later")
    other.operations.set(b"later", b"before")
    for peer in (hub, edge, other):
        peer.now_ms += HOUR_MS
    edge.operations.set(b"later", b"by the wrong clock")
    net.connect(other, hub)
    come_back(net, edge, hub, other)
    for peer in (hub, edge, other):
        assert peer.operations.get(b"earlier") == b"an hour later"
        assert peer.operations.get(b"later") == b"by the wrong clock"


def test_what_was_to_live_a_minute_by_the_wrong_clock_does_not_live_for_years(net: Net, make: Make) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"lease", b"v", expiry_ms=edge.now_ms + 60_000)
    edge.operations.sets.add(b"leases", [b"a"])
    edge.operations.set_expiry(b"leases", edge.now_ms + 60_000)
    come_back(net, edge, hub, other)
    assert [peer.operations.get(b"lease") for peer in (hub, edge, other)] == [b"v"] * 3
    pass_s(net, 60, hub, edge, other)
    for peer in (hub, edge, other):
        assert peer.operations.get(b"lease") is None
        assert peer.operations.sets.count(b"leases") == 0


def test_a_key_that_its_wrong_clock_hid_as_expired_is_shown_again(net: Net, make: Make) -> None:
    hub, (edge, other), _ = cluster(net, make)
    hub.operations.set(b"k", b"v", expiry_ms=hub.now_ms + DAY_MS)
    run(net, [hub, edge, other], rounds=10)
    edge.cut_off()
    set_clock(edge, AHEAD_MS)
    assert edge.operations.get(b"k") is None
    edge.operations.set(b"else", b"v")
    come_back(net, edge, hub, other)
    assert edge.operations.get(b"k") == hub.operations.get(b"k") == b"v"


def test_while_its_clock_is_wrong_it_is_told_so_and_nothing_else_happens(net: Net, make: Make) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"by the wrong clock")
    heard = asked(edge)
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=10)
    assert not heard
    sentences = " ".join(event.sentence for event in edge.replication.figures.events)
    assert "9600 h ahead of that hub's" in sentences and "Nothing is lost" in sentences
    refusal = edge.replication.status()["refused_stamps"]
    assert isinstance(refusal, dict)
    assert refusal["by"] == hub.name and refusal["clock_ahead_ms"] // DAY_MS == 400
    assert edge.operations.get(b"k") == b"by the wrong clock", "it goes on serving its users"


def test_a_hub_that_lives_in_the_past_changes_nobodys_stamps(net: Net, make: Make) -> None:
    hub, (edge, other), _ = cluster(net, make)
    edge.cut_off()
    for peer in (edge, other):
        set_clock(peer, AHEAD_MS)
    heard = asked(edge)
    edge.operations.set(b"k", b"by a right clock")
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=10)
    assert not heard
    assert any("Set the one that is wrong" in event.sentence for event in edge.replication.figures.events)


def test_only_a_hub_that_it_dialed_is_believed(net: Net, make: Make) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"by the wrong clock")
    set_clock(edge, hub.now_ms - edge.now_ms)
    heard = asked(edge)
    net.connect(other, edge)
    net.connect(hub, edge)
    run(net, [hub, edge, other], rounds=3)
    assert not heard


@pytest.mark.parametrize("remove", [False, True])
def test_one_that_was_parked_or_removed_meanwhile_comes_back_all_the_same(net: Net, make: Make, remove: bool) -> None:
    hub, edge, other = alone_in_the_future(net, make, max_offline_ms=OFFLINE_MS)
    edge.operations.set(b"new", b"by the wrong clock")
    edge.operations.increment(b"count", 2)
    if remove:
        hub.replication.membership.remove(edge.name)
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, other)
    assert members(hub)[edge.name] == ("settled" if remove else "parked")
    if remove:
        hub.replication.membership.readmit(edge.name)
    come_back(net, edge, hub, other)
    pass_s(net, 30, hub, edge, other)
    for peer in (hub, edge, other):
        assert peer.operations.get(b"new") == b"by the wrong clock"
        assert peer.operations.get(b"count") == b"7"
    assert vectors(edge) == vectors(hub) == vectors(other)


@pytest.mark.parametrize(
    ("module", "place", "after"),
    [
        (clock_restart, "restamp", False),
        (clock_restart, "restamp", True),
        (identity, "stamps_are_lowered", True),
        (Segment, "publish", False),
        (Segment, "publish", True),
        (identity, "clock_is_right", False),
    ],
)
def test_a_crash_while_it_puts_its_stamps_right_loses_nothing(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch, module: object, place: str, after: bool
) -> None:
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"by the wrong clock")
    edge.operations.increment(b"count", 2)
    work = getattr(module, place)

    def crash(*arguments: object, **options: object) -> None:
        if after:
            work(*arguments, **options)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, place, crash)
    with pytest.raises(KeyboardInterrupt):
        come_back(net, edge, hub, other)
    edge.open()
    assert edge.operations.get(b"k") == b"by the wrong clock"
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=60)
    for peer in (hub, edge, other):
        assert peer.operations.get(b"k") == b"by the wrong clock"
        assert peer.operations.get(b"count") == b"7"
    assert identity.read(edge.config.data_dir).clock is None


def test_a_node_whose_log_is_damaged_is_mended_first_and_loses_nothing_by_its_clock(net: Net, make: Make) -> None:
    hub, edge, _ = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"by the wrong clock" * 1_000)
    edge.settle()
    wrong = identity.WrongClock(stamps_max={DEFAULT_ID: hub.now_ms << 16})
    identity.clock_was_wrong(edge.config.data_dir, edge.node.identity, wrong)
    edge.operations.set(b"l", b"behind it")
    edge.stop()
    path = max((edge.config.data_dir / "wal").glob("*.wal"))
    data = bytearray(path.read_bytes())
    at = data.index(b"by the wrong clock")
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    edge.open()
    assert edge.engine.admission.read_only is not None
    assert identity.read(edge.config.data_dir).clock == wrong


def test_the_log_stays_as_long_as_anything_in_it_is_not_in_lmdb(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, _ = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"acknowledged")
    edge.settle()
    wrong = identity.WrongClock(stamps_max={DEFAULT_ID: hub.now_ms << 16})
    identity.clock_was_wrong(edge.config.data_dir, edge.node.identity, wrong)
    edge.stop()
    with monkeypatch.context() as patch:
        patch.setattr(Applier, "apply", lambda *_: None)  # whatever keeps it from going on
        edge.open()
    assert edge.operations.get(b"k") == b"acknowledged"
    assert identity.read(edge.config.data_dir).clock == wrong


def test_what_the_hub_had_taken_keeps_its_stamp(net: Net, make: Make) -> None:
    """All others have it with that one."""
    hub, (edge, other), _ = cluster(net, make)
    edge.cut_off()
    set_clock(edge, 20 * HOUR_MS)
    edge.operations.set(b"taken", b"hours ahead")
    stamp = edge.engine.keyspaces.of(b"taken").hlc
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=10)
    assert hub.operations.get(b"taken") == b"hours ahead"
    edge.cut_off()
    set_clock(edge, AHEAD_MS)
    edge.operations.set(b"far", b"v")
    come_back(net, edge, hub, other)
    for peer in (hub, edge, other):
        peer.settle()
        while peer.apply():
            pass
        carry(peer)
        row = peer.stored_row(b"taken", SUFFIX_REGISTER)
        assert isinstance(row, Cell) and row.hlc == stamp
        assert peer.operations.get(b"far") == b"v"
    edge.operations.set(b"taken", b"next")
    run(net, [hub, edge, other], rounds=5)
    assert [peer.operations.get(b"taken") for peer in (hub, edge, other)] == [b"next"] * 3


def test_maps_that_it_cleared_and_concurrent_values_that_it_kept_are_as_they_were(net: Net, make: Make) -> None:
    words = KeyspaceConfig(name="words", prefix=b"w/", conflict="siblings")
    hub = make("hub", founder=True, keyspaces=(words,))
    edge, other = (make(name, site="s", role="edge", keyspaces=(words,)) for name in ("edge", "other"))
    for peer in (edge, other):
        net.connect(peer, hub)
    run(net, [hub, edge, other], rounds=15)
    hub.operations.maps.put(b"map", [(b"f", b"before"), (b"g", b"before")])
    run(net, [hub, edge, other], rounds=5)
    edge.cut_off()
    set_clock(edge, AHEAD_MS)
    edge.operations.delete([b"map"])
    edge.operations.maps.put(b"map", [(b"h", b"by the wrong clock")])
    edge.operations.set(b"w/k", b"one")
    other.operations.set(b"w/k", b"two")
    other.operations.maps.put(b"map", [(b"i", b"elsewhere")])
    run(net, [hub, other], rounds=5)
    carry(edge)
    come_back(net, edge, hub, other)
    for peer in (hub, edge, other):
        assert sorted(peer.operations.siblings.get(b"w/k").values) == [b"one", b"two"]
        assert dict(peer.operations.maps.page(b"map", b"", 9)[0]).get(b"h") == b"by the wrong clock"
        assert peer.operations.maps.get(b"map", [b"f", b"g"]) == [None, None]
        assert dict(peer.operations.maps.page(b"map", b"", 9)[0]) == dict(hub.operations.maps.page(b"map", b"", 9)[0])


@pytest.mark.parametrize("writes", [True, False])
def test_a_hub_whose_clock_was_wrong_and_the_edges_that_followed_it_come_back(
    net: Net, make: Make, writes: bool
) -> None:
    first = make("first", founder=True)
    second, edge = make("second"), make("edge", site="s", role="edge")
    net.connect(second, first)
    net.connect(edge, second)
    run(net, [first, second, edge], rounds=30)
    second.cut_off()
    set_clock(second, AHEAD_MS)
    net.connect(edge, second)
    run(net, [second, edge], rounds=5)
    edge.operations.set(b"edge", b"stamped by that hub's time")
    second.operations.set(b"hub", b"by the wrong clock")
    run(net, [second, edge], rounds=5)
    assert second.operations.get(b"edge") is not None
    second.cut_off()
    come_back(net, second, first)
    if writes:
        edge.operations.set(b"next", b"of a clock that has seen the future")
    come_back(net, edge, second, first)
    first.operations.set(b"hub", b"written when that was seen")
    run(net, [first, second, edge], rounds=60)
    for peer in (first, second, edge):
        assert peer.operations.get(b"edge") == b"stamped by that hub's time"
        assert peer.operations.get(b"hub") == b"written when that was seen"
        assert peer.operations.get(b"next") == (b"of a clock that has seen the future" if writes else None)
        assert max(keyspace.hlc >> 16 for keyspace in peer.engine.keyspaces.all) <= first.now_ms
    assert vectors(first) == vectors(second) == vectors(edge)


def test_a_cluster_whose_hub_lives_in_the_future_has_its_own_idea_of_far(net: Net, make: Make) -> None:
    """A hub that is alone to judge stamps as it likes. Its members, whose clocks are right, are not told to change that."""
    hub, (edge, other), _ = cluster(net, make)
    set_clock(hub, AHEAD_MS)
    hub.operations.set(b"k", b"by the wrong clock")
    run(net, [hub, edge, other], rounds=10)
    set_clock(hub, edge.now_ms - hub.now_ms)
    edge.operations.set(b"k", b"stamped above that")
    run(net, [hub, edge, other], rounds=10)
    edge.cut_off()
    heard = asked(edge)
    edge.operations.set(b"k", b"and above that")
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=10)
    assert not heard
    assert [peer.operations.get(b"k") for peer in (hub, edge, other)] == [b"and above that"] * 3
