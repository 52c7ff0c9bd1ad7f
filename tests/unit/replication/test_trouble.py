"""What a node bears: peers that are wrong, disks that are full or damaged, clocks that are set, and all of it beside others' links."""

import errno
from dataclasses import replace
from random import Random

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.crdt.operation import PUT
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.engine.tail import LogCursor
from edgekv.errors import ReadOnly
from edgekv.ids import Actor, node_actor
from edgekv.replication import messages
from edgekv.replication.leader import Leader
from edgekv.replication.members import MEMBER_PREFIX
from edgekv.replication.membership import EDGES_ADMIT_NOBODY
from edgekv.replication.sender import READS_AT_ONCE
from edgekv.store.applied import sync_path
from edgekv.wal.record import Changes, pack_columns
from tests.unit.replication.test_links import cluster, vectors
from tests.unit.replication.wires import Make, Net, Peer, run


def recycle_log(*peers: Peer) -> None:
    """Several segments more, of which LMDB's last but one commit has all."""
    for peer in peers:
        for _ in range(5):
            for _ in range(4):
                peer.operations.set(b"filler", b"x" * 60_000)
                peer.settle()
            peer.checkpoint_at(peer.now_ms + 6_000)


def carry(peer: Peer) -> None:
    """What was written goes into LMDB."""
    peer.settle()
    peer.engine.checkpoints.carry()
    while peer.apply():
        pass


def sent_by(peer: Peer) -> list[messages.Message]:
    """What it sends from now on."""
    sent: list[messages.Message] = []

    def send(link: int, message: bytes) -> None:
        sent.append(messages.parse(message))
        peer.net.send(peer, link, message)

    peer.send = send  # type: ignore[method-assign] # it listens
    return sent


def test_a_member_whose_clock_was_days_ahead_is_taken_when_its_stamps_have_come_within_a_day(
    net: Net, make: Make
) -> None:
    """What its refusal says: that its clock has to be set, and how long it takes."""
    hub, (edge, other), _ = cluster(net, make)
    ahead_ms = 26 * 3_600_000
    edge.cut_off()  # while it is linked it stamps by the hub's time
    edge.now_ms += ahead_ms
    edge.clock_set_ms += ahead_ms
    edge.operations.set(b"k", b"from the future")
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=10)
    sentence = next(e.sentence for e in edge.replication.figures.events if "refused this node" in e.sentence)
    assert "Set the clock" in sentence and "in 2 h" in sentence, sentence
    assert hub.operations.get(b"k") is None
    edge.now_ms -= ahead_ms
    edge.clock_set_ms -= ahead_ms
    for peer in (hub, edge, other):
        peer.now_ms += 2 * 3_600_000
    net.connect(edge, hub)
    net.connect(other, hub)
    run(net, [hub, edge, other], rounds=20)
    assert hub.operations.get(b"k") == other.operations.get(b"k") == b"from the future"
    other.operations.set(b"k", b"later")
    run(net, [hub, edge, other], rounds=10)
    assert edge.operations.get(b"k") == b"later"


def test_rows_that_a_peer_gave_are_not_offered_back_to_it(net: Net, make: Make) -> None:
    hub = make("hub", founder=True, retain_bytes=0)
    edge = make("edge", site="s", role="edge", retain_bytes=0)
    wire = net.connect(edge, hub)
    run(net, [hub, edge], rounds=15)
    net.cut(wire)
    recycle_log(hub)
    edge.now_ms = hub.now_ms
    sent = sent_by(edge)
    net.connect(edge, hub)
    net.deliver()
    hub.operations.set(b"k", b"in the rows, and not in the vectors of its HELLO")
    carry(hub)
    run(net, [hub, edge], rounds=30)
    assert edge.replication.row_sync.syncs_total == 1
    assert vectors(edge) == vectors(hub)
    assert not [message for message in sent if isinstance(message, messages.SyncOffer)]


def damage_log(peer: Peer) -> None:
    """Bytes of its oldest segment turn, those of its first frame apart."""
    path = min((peer.config.data_dir / "wal").glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[100_000:100_100] = bytes(100)
    path.write_bytes(data)


def test_a_log_that_is_damaged_under_one_sender_ends_its_link_and_no_other(net: Net, make: Make) -> None:
    hub, (late, first), wires = cluster(net, make)
    net.cut(wires[0])
    for i in range(40):
        hub.operations.set(b"k/%d" % i, b"x" * 60_000)
        run(net, [hub, first], rounds=1, step_ms=10)
    hub.engine.tail.bytes_max = 0  # what is late comes from the files
    hub.operations.set(b"last", b"v")
    run(net, [hub, first], rounds=1)
    carry(hub)
    damage_log(hub)
    late.now_ms = hub.now_ms
    net.connect(late, hub)
    wire = net.connect(first, hub)
    run(net, [hub, late, first], rounds=5)
    hub.operations.set(b"after", b"v")
    run(net, [hub, late, first], rounds=30)
    assert "damaged" in str(hub.replication.status()["events"])
    assert wire.number in hub.replication.links
    assert first.operations.get(b"after") == b"v"


def test_a_folder_that_cannot_be_written_ends_the_link_that_brings_rows_and_no_other(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    hub.operations.set(b"k", b"v")
    carry(hub)
    edge = make("edge", site="s", role="edge")
    folder = sync_path(edge.config.data_dir)
    folder.rmdir()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=20)
    assert "cannot be kept" in str(edge.replication.status()["events"])
    assert not edge.replication.links
    folder.mkdir()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=20)
    assert edge.operations.get(b"k") == b"v"


def test_rows_that_cannot_be_synced_are_asked_for_again(net: Net, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make("hub", founder=True)
    hub.operations.set(b"k", b"v")
    carry(hub)
    edge = make("edge", site="s", role="edge")
    wire = net.connect(edge, hub)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edgekv.store.spool_transfer.keep", full)
        run(net, [hub, edge], rounds=20)
    assert edge.operations.get(b"k") is None
    if wire.number not in edge.replication.links:
        net.connect(edge, hub)
    run(net, [hub, edge], rounds=20)
    assert edge.operations.get(b"k") == b"v"


def test_a_spool_that_cannot_be_begun_leaves_no_file(net: Net, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make("hub", founder=True)
    hub.operations.set(b"k", b"v")
    carry(hub)
    edge = make("edge", site="s", role="edge")
    net.connect(edge, hub)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edgekv.store.spool._write", full)
        run(net, [hub, edge], rounds=20)
    assert not list(sync_path(hub.config.data_dir).iterdir())
    run(net, [hub, edge], rounds=20)
    assert edge.operations.get(b"k") == b"v"


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_is_set_neither_ends_a_link_nor_keeps_a_dead_one(net: Net, make: Make, step_ms: int) -> None:
    hub, _, (wire,) = cluster(net, make, edges=1)
    hub.now_ms += step_ms
    hub.clock_set_ms += step_ms
    hub.replication.tick()
    assert wire.number in hub.replication.links
    for _ in range(60):
        hub.now_ms += 100
        hub.replication.tick()
    assert wire.number not in hub.replication.links


def test_a_peer_that_sends_beyond_its_credit_is_refused(net: Net, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    monkeypatch.setattr(hub.engine.flips, "holds", lambda runs: True)
    changes = Changes(DEFAULT_ID, edge.engine.actor, 1, hub.now_ms << 16, 0, 1, bytes((1 << 20) - 64))
    message = messages.pack_message(messages.Runs([changes]))
    for _ in range(8):
        hub.replication.received(wire.number, message)
        assert wire.number in hub.replication.links
    hub.replication.received(wire.number, message)
    assert wire.number not in hub.replication.links


def test_an_acknowledgement_of_what_was_never_made_covers_nothing(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    ack = messages.Ack(0, {DEFAULT_ID: {hub.engine.actor: 1_000}})
    hub.replication.received(wire.number, messages.pack_message(ack))
    hub.operations.set(b"k", b"v")
    hub.settle()
    assert not hub.node.acks.covered_by({DEFAULT_ID: 1})
    assert wire.number not in hub.replication.links
    assert "never made" in edge.replication.figures.events[-1].sentence


def test_a_copy_of_the_leaders_directory_does_not_take_its_place(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    other = make("other")
    wire = net.connect(other, hub)
    run(net, [hub, other], rounds=10)
    actor = node_actor(hub.node.identity.node, b"anotherx")
    copy = messages.Applicant(hub.node.identity.node, actor, "hub", "cloud", "hub")
    hub.replication.received(wire.number, messages.pack_message(messages.Admit([copy])))
    run(net, [hub, other], rounds=10)
    assert hub.replication.leader.leads
    hub.operations.set(b"k", b"v")
    run(net, [hub, other], rounds=3)
    assert other.operations.get(b"k") == b"v"


def test_a_peer_that_lacks_little_far_back_does_not_make_the_node_read_all_of_its_log_at_once(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyspaces = (
        KeyspaceConfig(prefix=b"", name="default", sites=("elsewhere",)),
        KeyspaceConfig(prefix=b"eu/", name="eu"),
    )
    hub = make("hub", founder=True, keyspaces=keyspaces)
    edge = make("edge", site="s", role="edge", keyspaces=keyspaces)
    wire = net.connect(edge, hub)
    run(net, [hub, edge], rounds=15)
    net.cut(wire)
    hub.operations.set(b"eu/k", b"v")
    hub.settle()
    for i in range(200):
        hub.operations.set(b"k/%d" % i, b"x" * 60_000)
        hub.settle()
        carry(hub)
    hub.engine.tail.bytes_max = 0
    hub.operations.set(b"eu/last", b"v")
    hub.settle()
    reads = 0
    read = LogCursor.read

    def counted(cursor: LogCursor, durable_lsn: int, bytes_max: int) -> object:
        nonlocal reads
        reads += 1
        return read(cursor, durable_lsn, bytes_max)

    monkeypatch.setattr(LogCursor, "read", counted)
    net.connect(edge, hub)
    most = 0
    for _ in range(200):
        reads = 0
        moved = net.deliver()
        most = max(most, reads)
        edge.settle()
        edge.replication.durable()
        if not moved:
            reads = 0
            hub.replication.work()
            most = max(most, reads)
    assert edge.operations.get(b"eu/last") == b"v"
    assert most <= 2 * READS_AT_ONCE


def test_many_entries_of_meta_that_come_together_are_read_once(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    net.cut(wire)
    for i in range(50):
        node = i.to_bytes(16, "big")
        applicant = messages.Applicant(node, node_actor(node, b"12345678"), f"n{i}", "s", "edge")
        assert hub.replication.leader.admit(applicant)
        hub.settle()
    reads = 0
    read = edge.replication.members._read

    def counted() -> None:
        nonlocal reads
        reads += 1
        read()

    edge.replication.members._read = counted  # type: ignore[method-assign] # it counts
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=3)
    assert len(edge.replication.members.open_members()) == 52
    assert reads < 10


def test_entries_of_meta_by_a_node_that_does_not_lead_are_refused(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    body = pack_columns([b"_meta/stable"], [b"nonsense"])
    entry = Changes(META_ID, edge.engine.actor, 1, hub.now_ms << 16, 0, 1, body)
    hub.replication.received(wire.number, messages.pack_message(messages.Runs([entry])))
    assert wire.number not in hub.replication.links
    assert "does not lead" in edge.replication.figures.events[-1].sentence
    run(net, [hub, edge], rounds=15)
    assert hub.replication.leader.leads


def files_bytes(peer: Peer) -> int:
    """Of its row syncs."""
    return sum(file.stat().st_size for file in sync_path(peer.config.data_dir).iterdir())


def test_rows_that_come_to_a_full_disk_wait_and_take_no_room(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    for i in range(50):
        hub.operations.set(b"k/%d" % i, Random(i).randbytes(60_000))
    carry(hub)
    edge = make("edge", site="s", role="edge")
    wire = net.connect(edge, hub)
    while not any(isinstance(messages.parse(m), messages.SyncPiece) for m in wire.queues[edge]):
        run_one(net, hub, edge)
    edge.engine.admission.disk_full = True
    before = files_bytes(edge)
    run(net, [hub, edge], rounds=100)
    assert files_bytes(edge) == before
    assert not edge.replication.row_sync.syncs_total
    assert wire.number in edge.replication.links
    edge.engine.admission.disk_full = False
    run(net, [hub, edge], rounds=100)
    assert edge.operations.get(b"k/49") == Random(49).randbytes(60_000)
    assert wire.number in edge.replication.links


def test_a_full_disk_writes_no_rows_for_others(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    hub.operations.set(b"k", b"v")
    carry(hub)
    edge = make("edge", site="s", role="edge")
    hub.engine.admission.disk_full = True
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=20)
    assert not files_bytes(hub)
    hub.engine.admission.disk_full = False
    run(net, [hub, edge], rounds=20)
    assert edge.operations.get(b"k") == b"v"


def run_one(net: Net, *peers: Peer) -> None:
    """Time passes, and one message comes on each way."""
    for peer in peers:
        peer.now_ms += 10
        peer.tick()
        peer.replication.tick()
        peer.settle()
        peer.replication.durable()
    net.deliver()


@pytest.mark.parametrize("owed", [None, {}], ids=["to a new peer", "as news"])
def test_what_all_members_have_seen_goes_out_in_messages_that_fit(
    net: Net, make: Make, owed: dict[Actor, None] | None
) -> None:
    hub = make("hub", founder=True)
    other = make("other")
    wire = net.connect(other, hub)
    run(net, [hub, other], rounds=10)
    actors = [node_actor(i.to_bytes(16, "big"), b"12345678") for i in range(100)]
    me = hub.replication.members.members[hub.engine.actor]
    for actor in actors:
        for peer in (hub, other):
            peer.replication.members.members[actor] = replace(me, actor=actor)
        vector = dict.fromkeys(actors, 1)
        hub.replication.seen.hear(messages.Seen(actor, 1, 1, 1, {DEFAULT_ID: vector, META_ID: vector}))
    hub.replication._seen_at_ms = 0
    hub.replication.links[wire.number].seens.owed = owed
    hub.replication.tick()
    assert max(map(len, wire.queues[other])) < 512 << 10
    run(net, [hub, other], rounds=4)
    spoken = [[peer.replication.seen.spoken[actor].whole() for actor in actors] for peer in (hub, other)]
    assert spoken[0] == spoken[1]


def test_a_leader_whose_log_is_damaged_writes_no_meta(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    hub.engine.admission.read_only = ReadOnly("its log is damaged")
    revision = hub.replication.members.revision
    late = make("late", site="s", role="edge")
    net.connect(late, hub)
    for _ in range(30):
        hub.now_ms += 1_000
        net.deliver()
        hub.replication.tick()
    assert hub.engine.commit.filling.empty
    assert not hub.flush()
    assert hub.replication.members.revision == revision
    assert edge is not late


def test_an_edge_that_comes_back_as_a_hub_is_refused(net: Net, make: Make) -> None:
    """It would hold keyspaces of which what is stable is computed without it."""
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    net.cut(wire)
    edge.kill()
    edge.role = "hub"  # type: ignore[misc] # as its operator
    edge.open()
    wire = net.connect(edge, hub)
    run(net, [hub, edge], rounds=3)
    assert wire.number not in hub.replication.links
    assert "was admitted as edge" in edge.replication.figures.events[-1].sentence
    edge.kill()
    edge.role = "edge"  # type: ignore[misc] # as its operator
    edge.open()
    net.connect(edge, hub)
    edge.operations.set(b"k", b"v")
    run(net, [hub, edge], rounds=3)
    assert hub.operations.get(b"k") == b"v"


def test_an_edge_admits_nobody(net: Net, make: Make) -> None:
    hub, _, (wire,) = cluster(net, make, edges=1)
    stranger = messages.Applicant(b"n" * 16, node_actor(b"n" * 16, b"12345678"), "stranger", "s", "hub")
    hub.replication.received(wire.number, messages.pack_message(messages.Admit([stranger])))
    assert not hub.replication.members.is_open(stranger.actor)


def test_a_row_of_meta_that_cannot_be_read_leaves_the_last_whole_view(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    before, revision = dict(hub.replication.members.members), hub.replication.members.revision
    meta = hub.engine.keyspaces.by_id[META_ID]
    hub.engine.commit.change(meta, [(PUT, MEMBER_PREFIX + edge.engine.actor.hex().encode(), b"\xc1", 0)])
    hub.engine.barrier = None
    run(net, [hub, edge], rounds=30)
    for peer in (hub, edge):
        assert peer.replication.members.members == before
        assert peer.replication.members.revision == revision, "what cannot be read is not known"
        assert "cannot be read" in str(peer.replication.status()["events"])
    edge.operations.set(b"k", b"data goes on")
    run(net, [hub, edge], rounds=5)
    assert hub.operations.get(b"k") == b"data goes on"
    hub.engine.commit.change(meta, [(PUT, *Leader._entry(before[edge.engine.actor]), 0)])
    hub.engine.barrier = None
    run(net, [hub, edge], rounds=30)
    assert hub.replication.members.unreadable is None and hub.replication.members.revision >= revision + 2


def test_of_members_only_those_that_moved_are_read_anew(net: Net, make: Make) -> None:
    hub, (edge,), _ = cluster(net, make, edges=1)
    members = hub.replication.members
    before = dict(members.members)
    hub.replication.membership.remove("edge-0")
    assert members.members[edge.engine.actor].state == "closed"
    assert members.members[hub.engine.actor] is before[hub.engine.actor]


@pytest.mark.parametrize("first_dials", [True, False])
def test_of_two_links_between_two_hubs_one_goes_and_who_dials_it_again_hears_which_one_stays(
    net: Net, make: Make, first_dials: bool
) -> None:
    hubs = [make("first", founder=True), make("second")]
    ends = hubs if first_dials else hubs[::-1]
    wires = [net.connect(*ends), net.connect(*ends[::-1])]
    run(net, hubs, rounds=5)
    (kept,) = (wire for wire in wires if wire.up)
    dialer, listener = kept.ends[::-1]
    again = net.connect(dialer, listener)
    run(net, hubs, rounds=5)
    assert kept.up and dialer.replaced[again.number] == kept.number
    for hub in hubs:
        assert list(hub.replication.links) == [kept.number]
        assert hub.replication.figures.events == [], "nothing is wrong"


def test_a_node_that_is_refused_again_and_again_is_one_event_with_its_name(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make("hub", founder=True)
    monkeypatch.setattr("tests.unit.replication.wires.CLUSTER", b"d" * 16)
    strangers = [make("one", role="edge"), make("two", role="edge")]
    for stranger in strangers * 3:
        net.connect(stranger, hub)
        run(net, [hub, stranger], rounds=1)
    assert [event.sentence.split(",")[0] for event in hub.replication.figures.events] == [
        "one: it belongs to cluster 64646464",
        "two: it belongs to cluster 64646464",
    ]


def test_an_edge_takes_nobody_into_the_cluster_and_says_who_does(net: Net, make: Make) -> None:
    hub, edge, other = make("hub", founder=True), make("edge", role="edge"), make("other", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=15)
    wire = net.connect(other, edge)
    run(net, [hub, edge, other], rounds=5)
    assert not wire.up
    (event,) = other.replication.figures.events
    assert event.sentence == f"edge: refused this node: {EDGES_ADMIT_NOBODY}"

    asked = net.connect(other, edge)
    replies = sent_by(edge)
    edge.replication.received(asked.number, messages.pack_message(messages.Join("late", "s", "edge")))
    assert [type(reply) for reply in replies] == [messages.Refused]

    net.connect(other, hub)
    run(net, [hub, edge, other], rounds=15)
    again = net.connect(other, edge)
    run(net, [hub, edge, other], rounds=15)
    assert again.up, "members may be linked in any way"
