"""Who lacks what the log no longer has gets the rows: whole, joined by the dot rule, after any number of cuts."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.errors import ReadOnly
from edgekv.limits import SYNC_SILENCE_MS
from edgekv.replication import messages
from edgekv.replication.link import Link
from edgekv.replication.row_source import RowSource
from edgekv.store.spool_transfer import SpoolFolder
from tests.unit.engine.test_intake import KEYS, shown, step
from tests.unit.node.inline_node import SEGMENT_BYTES
from tests.unit.replication.test_links import vectors
from tests.unit.replication.test_trouble import recycle_log
from tests.unit.replication.wires import Make, Net, Peer, Wire, run


def fill(peer: Peer, count: int = 300) -> None:
    for i in range(count):
        peer.operations.set(b"key/%05d" % i, b"%d" % i * 20)
    peer.operations.sets.add(b"s", [b"%d" % i for i in range(50)])
    peer.operations.sets.remove(b"s", [b"7"])
    peer.operations.maps.put(b"m", [(b"%d" % i, b"v") for i in range(50)])
    peer.operations.increment(b"n", 41)
    peer.settle()


def test_a_node_that_joins_a_hub_with_data_gets_its_rows(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    fill(hub)
    edge = make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=100)
    assert edge.replication.row_sync.syncs_total == 1
    assert vectors(edge) == vectors(hub)
    assert edge.operations.get(b"key/00123") == b"123" * 20
    assert edge.operations.sets.count(b"s") == 49
    assert edge.operations.maps.count(b"m") == 50
    edge.operations.increment(b"n", 1)
    run(net, [hub, edge], rounds=5)
    assert hub.operations.get(b"n") == b"42"
    edge.kill()
    edge.cut_off()
    edge.open()
    assert edge.operations.get(b"key/00123") == b"123" * 20


def test_what_expired_before_there_was_anybody_does_not_come_to_life(net: Net, make: Make) -> None:
    """A lone node removes an expired set by itself, no change says so: its log must not be streamed to those who come later."""
    hub = make("hub", founder=True)
    hub.operations.sets.add(b"s", [b"old"])
    hub.operations.set_expiry(b"s", hub.now_ms + 1_000)
    run(net, [hub], rounds=300, step_ms=1_000)
    assert hub.stored_row(b"s", b"\x02") is None, "it is gone without a trace"
    edge = make("edge", site="s", role="edge")
    edge.now_ms = hub.now_ms
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=100)
    hub.operations.sets.add(b"s", [b"new"])
    run(net, [hub, edge], rounds=5)
    assert edge.operations.sets.page(b"s", b"", 9)[0] == hub.operations.sets.page(b"s", b"", 9)[0] == [b"new"]


def test_a_sync_goes_on_where_it_was_cut(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    for i in range(40):
        hub.operations.set(b"big/%d" % i, Random(i).randbytes(40_000))
    hub.settle()
    edge = make("edge", site="s", role="edge")
    pieces, cuts = 0, 0
    wire = net.connect(edge, hub)
    sent: list[int] = []
    original = Peer.send

    def send(peer: Peer, link: int, message: bytes) -> None:
        parsed = messages.parse(message)
        if isinstance(parsed, messages.SyncPiece):
            sent.append(len(parsed.data))
        original(peer, link, message)

    hub.send = send.__get__(hub)  # type: ignore[method-assign] # it counts
    hub.replication._table._transport = hub  # type: ignore[misc] # the same
    for _ in range(400):
        run(net, [hub, edge], rounds=1)
        if len(sent) > pieces + 1 and cuts < 3:
            pieces, cuts = len(sent), cuts + 1
            net.cut(wire)
            if cuts == 2:
                edge.kill()
                edge.open()
            wire = net.connect(edge, hub)
    assert vectors(edge) == vectors(hub)
    assert edge.operations.get(b"big/39") == hub.operations.get(b"big/39")
    assert sum(sent) < 1.3 * 40 * 40_000 + 3 * 8 * 256 * 1024


@pytest.mark.parametrize("seed", range(3))
def test_nodes_whose_logs_do_not_reach_back_converge_all_the_same(net: Net, make: Make, seed: int) -> None:
    """Logs keep nothing for others here: after each cut somebody is below the floor, with changes of its own."""
    dice = Random(seed)
    hub = make("hub", founder=True, retain_bytes=0)
    edges = [make(f"edge-{i}", site=f"s{i}", role="edge", retain_bytes=0) for i in range(2)]
    peers = [hub, *edges]
    wires = [net.connect(edge, hub) for edge in edges]
    run(net, peers, rounds=30)
    for _ in range(4):
        for wire in wires:
            net.cut(wire)
        for _ in range(40):
            peer = dice.choice(peers)
            step(peer, dice.choice(peers), dice, pulls=False)
        for peer in peers:
            if dice.random() < 0.3:
                peer.kill()
                peer.open()
            for _ in range(5):  # several segments, of which LMDB's last but one commit has all
                for _ in range(4):
                    peer.operations.set(b"filler", b"x" * 60_000)
                    peer.settle()
                peer.checkpoint_at(peer.now_ms + 6_000)
        wires = [net.connect(edge, hub) for edge in edges]
        for peer in peers:
            peer.now_ms = max(p.now_ms for p in peers)
        run(net, peers, rounds=100)
        assert all(vectors(peer) == vectors(hub) for peer in peers)
        for key in [*KEYS[:3], b"n", b"m", b"filler"]:
            assert [shown(peer, key) for peer in peers] == [shown(hub, key)] * 3
    assert sum(peer.replication.row_sync.syncs_total for peer in peers) > 0


def test_a_leader_that_was_set_back_gets_rows_from_a_member_whose_log_is_cut(
    net: Net, make: Make, tmp_path: Path
) -> None:
    """It is no member under its new actor before it has caught up, and may ask for rows all the same."""
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge", retain_bytes=0)
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=30)
    hub.cut_off()
    hub.kill()
    shutil.copytree(tmp_path / "hub", tmp_path / "backup")
    hub.open()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=30)
    for i in range(4):  # the log goes through several segments
        edge.operations.set_run([b"%d/%d" % (i, j) for j in range(300)], [b"v" * 2_000] * 300)
        run(net, [hub, edge], rounds=60)
        edge.checkpoint_at(edge.now_ms + 10_000)
        hub.now_ms = edge.now_ms
    hub.cut_off()
    hub.kill()
    shutil.rmtree(tmp_path / "hub")
    shutil.copytree(tmp_path / "backup", tmp_path / "hub")
    hub.open()
    assert hub.operations.get(b"3/299") is None
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=130)
    assert hub.replication.row_sync.syncs_total
    assert hub.operations.get(b"3/299") == b"v" * 2_000
    assert hub.replication.leader.leads


def test_a_sync_that_brings_nothing_any_more_ends_with_its_link_and_goes_on_where_it_was(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is alive, only the rows do not come."""
    hub = make("hub", founder=True)
    for i in range(40):
        hub.operations.set(b"big/%d" % i, Random(i).randbytes(40_000))
    hub.settle()
    edge = make("edge", site="s", role="edge")
    wire = net.connect(edge, hub)
    sent: list[int] = []
    send = RowSource._send_piece

    def send_two(sync: RowSource, link: Link, keyspace: int, spool: bytes, offset: int) -> None:
        sent.append(offset)
        if len(sent) <= 2:
            send(sync, link, keyspace, spool, offset)
        else:
            link.wanted.clear()

    monkeypatch.setattr(RowSource, "_send_piece", send_two)
    while len(sent) < 3:
        run(net, [hub, edge], rounds=1)
    have, size = edge.replication.row_sync.incoming_bytes
    assert 0 < have < size
    run(net, [hub, edge], rounds=SYNC_SILENCE_MS // 1_000 - 5, step_ms=1_000)
    assert wire.number in hub.replication.links, "a slow one is waited for"
    run(net, [hub, edge], rounds=10, step_ms=1_000)
    assert wire.number not in hub.replication.links
    assert edge.replication.row_sync.incoming_bytes == (0, 0)
    monkeypatch.undo()
    net.connect(edge, hub)
    seen: list[int] = []
    while edge.operations.get(b"big/39") is None:
        run(net, [hub, edge], rounds=1)
        seen.append(edge.replication.row_sync.incoming_bytes[0])
    assert min(filter(None, seen)) >= have
    assert vectors(edge) == vectors(hub)


def write_much(hub: Peer, segments: int) -> None:
    """All of it goes into LMDB, so that the log need not keep it."""
    for _ in range(segments):
        for _ in range(4):
            hub.operations.set(b"filler", b"x" * 60_000)
            hub.settle()
        hub.engine.checkpoints.carry()
        while hub.apply():
            hub.settle()


def sync_under_way(net: Net, make: Make) -> tuple[Peer, Peer, Wire]:
    """A hub whose log keeps nothing for others, an edge that takes its rows in, and their link."""
    hub = make("hub", founder=True, retain_bytes=0)
    for i in range(40):
        hub.operations.set(b"big/%d" % i, Random(i).randbytes(40_000))
    hub.settle()
    edge = make("edge", site="s", role="edge")
    wire = net.connect(edge, hub)
    while not edge.replication.row_sync.incoming_bytes[0]:
        run(net, [hub, edge], rounds=1)
    return hub, edge, wire


def sentences(peer: Peer) -> str:
    events = peer.replication.status()["events"]
    assert isinstance(events, list)
    return " ".join(event["sentence"] for event in events)


def test_what_is_written_while_rows_are_on_their_way_follows_them_from_the_log(net: Net, make: Make) -> None:
    """Else a slow link beside many writes brings the same rows again, perhaps for ever."""
    hub, edge, wire = sync_under_way(net, make)
    write_much(hub, 6)
    net.cut(wire)
    write_much(hub, 6)
    wire = net.connect(edge, hub)
    for _ in range(20):
        write_much(hub, 1)
        run(net, [hub, edge], rounds=1)
    run(net, [hub, edge], rounds=10)
    write_much(hub, 2)
    run(net, [hub, edge], rounds=1)
    assert vectors(edge) == vectors(hub)
    assert edge.replication.row_sync.syncs_total == 1
    assert hub.replication.row_sync.again_total == 0
    assert hub._log.segments[0].number > 30, "and when they are there the log is given back"


def test_the_log_stays_until_the_peer_has_caught_up_from_its_rows(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way from the rows to the end of the log takes its time as well, and what is written meanwhile is not less."""
    monkeypatch.setattr("edgekv.replication.streams.PEER_MESSAGES_AT_ONCE", 1)
    hub, edge, wire = sync_under_way(net, make)
    hub.engine.tail.bytes_max = 100_000  # who is behind reads files
    write_much(hub, 12)
    [link] = hub.replication.links.values()

    def sent() -> bool:
        return link.rows_sent

    for _ in range(100):
        if sent():
            break
        edge.now_ms += 100
        edge.tick()
        edge.replication.tick()
        hub.replication.work()
        while not sent() and (edge.apply() or edge.flush() or net.deliver()):
            pass
    sender = link.sender
    assert sender is not None
    assert sender.lags
    write_much(hub, 12)
    run(net, [hub, edge], rounds=60)
    assert wire.number in hub.replication.links and vectors(edge) == vectors(hub)
    assert hub.replication.row_sync.again_total == 0
    assert hub.replication.row_sync.source.held_lsn() > hub.engine.commit.durable_lsn


def test_a_sync_that_lasts_longer_than_the_log_stays_is_said(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody knows why the rows go over the link again and again."""
    monkeypatch.setattr("edgekv.replication.row_source.SYNC_LOG_BYTES_MAX", 4 * SEGMENT_BYTES)
    hub, edge, _ = sync_under_way(net, make)
    write_much(hub, 2)
    assert "sent again" not in sentences(hub)
    write_much(hub, 6)
    assert sentences(hub).count("sent again when they are there: more than 1 MiB were logged meanwhile") == 1
    assert hub._log.segments[0].number > 4
    run(net, [hub, edge], rounds=60)
    assert vectors(edge) == vectors(hub)
    assert edge.replication.row_sync.syncs_total == 2
    assert hub.replication.row_sync.again_total == 1
    assert "needs the rows of keyspace 0 again" in sentences(hub)


def test_on_a_full_disk_no_log_stays_for_anybody(net: Net, make: Make) -> None:
    hub, _, _ = sync_under_way(net, make)
    write_much(hub, 3)
    first = hub._log.segments[0].number
    write_much(hub, 3)
    assert hub._log.segments[0].number == first
    hub.engine.admission.disk_full = True
    assert hub.replication.row_sync.source.held_lsn() > hub.engine.commit.durable_lsn


def test_a_node_that_cannot_join_rows_goes_on_giving_what_it_wrote_to_others(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    fill(hub)
    edge = make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=2)
    while edge.engine.flips.joining is None:
        run(net, [hub], rounds=1)
        edge.tick()
        edge.replication.tick()
        if not edge.flush() and edge.engine.flips.joining is None:
            edge.apply()
    edge.operations.set(b"behind", b"1")
    edge.engine.cannot_join(8, "Corruption: it is damaged.")
    edge.apply = lambda: False  # type: ignore[method-assign] # it has given up
    run(net, [hub, edge], rounds=10)
    assert hub.operations.get(b"behind") == b"1"
    assert edge.operations.get(b"key/00123") is None
    hub.operations.set(b"later", b"2")
    run(net, [hub, edge], rounds=10)
    assert edge.operations.get(b"later") is None
    with pytest.raises(ReadOnly):
        edge.operations.set(b"k", b"v")


def test_a_node_that_could_not_join_rows_at_its_start_gives_no_rows(net: Net, make: Make) -> None:
    """What LMDB has is a part of them, under the vector of before; it is pinned, so that no reader sees it."""
    hub = make("hub", founder=True)
    hub.operations.set(b"k", b"v")
    hub.checkpoint()
    source = hub.replication.row_sync.source
    hub._store.pin()
    assert source._spooled(DEFAULT_ID, {}) is None
    hub._store.unpin()
    assert source._spooled(DEFAULT_ID, {}) is not None


@pytest.mark.parametrize("seed", range(3))
def test_clients_of_the_receiver_write_on_and_everybody_agrees_in_the_end(net: Net, make: Make, seed: int) -> None:
    dice = Random(seed)
    hub = make("hub", founder=True)
    edge = make("edge", site="s", role="edge")
    wire = net.connect(edge, hub)
    run(net, [hub, edge], rounds=30)
    net.cut(wire)
    for _ in range(40):
        step(hub, edge, dice, pulls=False)
        step(edge, hub, dice, pulls=False)
    fill(hub)
    for _ in range(5):
        for _ in range(4):
            hub.operations.set(b"filler", b"x" * 60_000)
            hub.settle()
        hub.engine.checkpoints.carry()
        while hub.apply():
            hub.settle()
    hub.now_ms = edge.now_ms = max(hub.now_ms, edge.now_ms)
    net.connect(edge, hub)
    for _ in range(60):
        step(edge, hub, dice, pulls=False)
        run(net, [hub, edge], rounds=1)
    run(net, [hub, edge], rounds=30)
    assert vectors(edge) == vectors(hub)
    for key in [*KEYS[:3], b"n", b"m", b"s", b"key/00123"]:
        assert shown(edge, key) == shown(hub, key)


def test_rows_are_joined_when_their_file_is_durable_and_the_node_goes_on_until_then(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync of a large file takes long: it is done beside the loop."""
    waiting: list[Callable[[], None]] = []
    keep = SpoolFolder.keep

    def later(folder: SpoolFolder, part: Path, spool_id: bytes, done: Callable[[OSError | None], None]) -> None:
        waiting.append(lambda: keep(folder, part, spool_id, done))

    monkeypatch.setattr(SpoolFolder, "keep", later)
    hub = make("hub", founder=True)
    fill(hub)
    edge = make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=60)
    [kept] = waiting
    edge.operations.set(b"meanwhile", b"1")
    run(net, [hub, edge], rounds=10)
    assert edge.operations.get(b"key/00123") is None
    assert edge.engine.flips.keyspace is None
    kept()
    run(net, [hub, edge], rounds=30)
    assert vectors(edge) == vectors(hub)
    assert hub.operations.get(b"meanwhile") == b"1"
    assert edge.operations.get(b"key/00123") is not None


def test_a_node_that_stops_before_the_rows_are_durable_gets_them_again(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[[OSError | None], None]] = []
    monkeypatch.setattr(SpoolFolder, "keep", lambda folder, part, spool_id, done: waiting.append(done))
    hub = make("hub", founder=True)
    fill(hub)
    edge = make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=60)
    [done] = waiting
    edge.cut_off()
    edge.kill()
    done(None)
    monkeypatch.undo()
    edge.open()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=60)
    assert vectors(edge) == vectors(hub)


def test_who_has_what_a_hub_took_as_rows_gets_changes_from_it(net: Net, make: Make) -> None:
    first = make("first", founder=True, retain_bytes=0)
    second = make("second", retain_bytes=0)
    edge = make("edge", site="s", role="edge")
    between = net.connect(second, first)
    wire = net.connect(edge, first)
    run(net, [first, second, edge], rounds=15)
    net.cut(between)
    net.cut(wire)
    recycle_log(first)
    edge.now_ms = second.now_ms = first.now_ms
    wire = net.connect(edge, first)
    run(net, [first, edge], rounds=30)
    assert vectors(edge) == vectors(first)
    rows_before = edge.replication.row_sync.syncs_total
    net.connect(second, first)
    run(net, [first, second, edge], rounds=30)
    assert second.replication.row_sync.syncs_total == 1
    net.cut(wire)
    net.connect(edge, second)
    second.operations.set(b"after", b"v")
    run(net, [first, second, edge], rounds=30)
    assert edge.operations.get(b"after") == b"v"
    assert edge.replication.row_sync.syncs_total == rows_before
