"""Two histories of one node: which of its copies is told what, and what becomes of what it had."""

import os
import shutil
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.errors import Diverged, Forked, TooLate
from edgekv.node import identity
from edgekv.replication.copies import Copies
from edgekv.replication.link import Link
from edgekv.replication.log_source import LogSource
from edgekv.replication.messages import pack_message
from edgekv.replication.sender import Sender
from edgekv.server.shell import Server
from edgekv.wal.segment import segment_name
from tests.unit.replication.test_links import vectors
from tests.unit.replication.wires import Make, Net, Peer, run


def cloned(make: Make, original: Peer, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """As a virtual machine is: the same inode and birth time, so the same incarnation; it runs under another name."""
    for peer in (original,):
        while peer.apply():
            pass
    monkeypatch.setattr(identity, "_birth", lambda descriptor: (1, 1))
    who = identity.read(original.config.data_dir)
    identity._write(original.config.data_dir / identity.FILE, who)
    twin_dir = original.config.data_dir.with_name("twin")
    shutil.copytree(original.config.data_dir, twin_dir)
    twin = make("twin", site="s", role="edge")
    assert twin.engine.actor == original.engine.actor
    return twin


def trio(net: Net, make: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[Peer, Peer, Peer]:
    """A hub, an edge that is linked to it, and a copy of that edge that is not."""
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    edge.operations.set(b"before", b"1")
    edge.operations.sets.add(b"s", [b"1"])
    run(net, [hub, edge], rounds=5)
    return hub, edge, cloned(make, edge, monkeypatch)


def told(peer: Peer) -> list[bool]:
    """What the shell of a node hears from now on."""
    heard: list[bool] = []
    peer.replication.copies.copied = heard.append
    return heard


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_copy_with_a_history_of_its_own_is_told_so_while_the_other_runs(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Equal numbers are seen at HELLO; what goes on from another history, when it comes."""
    hub, edge, twin = trio(net, make, monkeypatch)
    edge.operations.set(b"k", b"of the edge")
    for i in range(1 + ahead):
        twin.operations.set(b"twin/%d" % i, b"of the twin")
        twin.settle()
    run(net, [hub, edge, twin], rounds=5)
    edge_heard, twin_heard = told(edge), told(twin)
    net.connect(twin, hub)
    run(net, [hub, edge, twin], rounds=20)
    assert twin_heard and not edge_heard
    assert hub.operations.get(b"k") == b"of the edge" and hub.operations.get(b"twin/0") is None
    if not ahead:
        assert twin_heard[0], "it runs elsewhere, and has to be another node"
    events = hub.replication.status()["events"]
    assert isinstance(events, list) and any("another history" in event["sentence"] for event in events)


def test_a_copy_that_made_the_same_at_another_time_has_another_history(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamps differ, and by them some nodes would show the one and some the other, or what a third one wrote between."""
    hub, edge, twin = trio(net, make, monkeypatch)
    edge.operations.set(b"k", b"v")
    run(net, [hub, edge], rounds=5)
    twin.now_ms += 60_000
    twin.operations.set(b"k", b"v")
    twin.settle()
    twin_heard = told(twin)
    net.connect(twin, hub)
    run(net, [hub, edge, twin], rounds=20)
    assert twin_heard == [True]


def test_a_hub_that_has_moved_on_and_sees_no_fork_does_not_leave_its_link_hanging(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy compares with what the hub had when it greeted, and waits for its verdict; the hub compares with what it has then."""
    hub, edge, twin = trio(net, make, monkeypatch)
    edge.operations.set(b"k", b"of the edge")
    twin.operations.set(b"k", b"of the twin")
    twin.settle()
    run(net, [hub, edge], rounds=5)
    wire = net.connect(twin, hub)
    late = wire.queues[hub].copy()
    wire.queues[hub].clear()  # on a slow line
    twin.replication.received(wire.number, wire.queues[twin].popleft())
    edge.operations.set(b"l", b"of the edge")
    run(net, [hub, edge], rounds=3)
    wire.queues[hub].extend(late)
    edge.cut_off()
    run(net, [hub, twin], rounds=400)
    assert not wire.up
    net.connect(twin, hub)
    run(net, [hub, twin], rounds=5)
    assert twin.rolled_back


def test_a_node_that_was_set_back_and_went_on_stays_the_same_node(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, twin = trio(net, make, monkeypatch)
    edge.operations.set(b"k", b"of the edge")
    run(net, [hub, edge], rounds=5)
    edge.cut_off()
    run(net, [hub], rounds=5)
    twin.operations.set(b"k", b"of the twin")
    twin.settle()
    heard = told(twin)
    net.connect(twin, hub)
    run(net, [hub, twin], rounds=20)
    assert heard[:1] == [False]


def test_who_lacks_what_was_forgotten_by_the_word_of_its_copy_is_told_so_by_a_hub_that_started_since(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy saw a reset, and the counter was forgotten: what the other adds goes on from a total that is nowhere any more."""
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    edge.operations.increment(b"n", 1000)
    run(net, [hub, edge], rounds=5)
    twin = cloned(make, edge, monkeypatch)
    edge.cut_off()
    net.connect(twin, hub)
    hub.operations.delete([b"n"])
    run(net, [hub, twin], rounds=60, step_ms=4_000)
    edge.now_ms = hub.now_ms
    edge.operations.increment(b"n", 2)
    edge.settle()
    twin.cut_off()
    hub.cut_off()
    hub.kill()
    monkeypatch.undo()  # the hub was not copied
    hub.open()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=5)
    assert edge.rolled_back
    assert hub.operations.get(b"n") is None


def test_a_member_that_has_not_got_yet_what_was_forgotten_before_it_came_is_not_told_to_go(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, _ = trio(net, make, monkeypatch)
    run(net, [hub, edge], rounds=60)
    newcomer = make("newcomer", site="s", role="edge")
    wire = net.connect(newcomer, hub)
    while newcomer.engine.actor not in hub.replication.members.members:
        run(net, [hub, edge], rounds=1)
        newcomer.replication.tick()
    net.cut(wire)
    hub.operations.set(b"k", b"1")
    run(net, [hub, edge], rounds=60)
    net.connect(newcomer, hub)
    run(net, [hub, edge, newcomer], rounds=60)
    assert not newcomer.rolled_back
    assert newcomer.operations.get(b"k") == b"1"


def test_the_copy_whose_place_was_taken_is_told_so(net: Net, make: Make, tmp_path: Path) -> None:
    """A plain copy takes another incarnation at its start: the one that runs is not a member any more."""
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    edge.settle()
    shutil.copytree(edge.config.data_dir, tmp_path / "twin")
    twin = make("twin", site="s", role="edge")
    twin.replication._greeting._self = twin.replication._greeting._self._replace(name="edge")  # type: ignore[misc] # the same name
    heard = told(edge)
    edge.cut_off()
    net.connect(twin, hub)
    run(net, [hub, twin], rounds=20)
    net.connect(edge, hub)
    run(net, [hub, edge, twin], rounds=20)
    assert heard[:1] == [True]
    assert vectors(twin) == vectors(hub)


def test_what_is_set_aside_lies_whole_beside_an_empty_directory(tmp_path: Path) -> None:
    dice = Random(1)
    who = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    for folder in ("wal", "store", "sync"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(folder.encode())
    (tmp_path / "wal" / "00000000.wal").write_bytes(b"log")
    renewed = identity.set_aside(tmp_path, who, dice.randbytes, 0, as_another=True)
    assert (tmp_path / "wal" / "file").exists(), "only the next start moves anything"
    (tmp_path / "store").rename(tmp_path / identity.ASIDE / who.incarnation.hex() / "store")  # a crash came between
    started = identity.load_or_create(tmp_path, name="m", site="s", entropy=dice.randbytes, now_ms=0)
    assert started.node == renewed.node != who.node and started.name == "m"
    (tmp_path / "wal" / "00000000.wal").write_bytes(b"log")
    again = identity.load_or_create(tmp_path, name="o", site="s", entropy=dice.randbytes, now_ms=0)
    assert (again.node, again.name) == (renewed.node, "o"), "the name it was started with first was taken"
    (tmp_path / "wal" / "00000000.wal").unlink()
    assert started.cluster == who.cluster and started.incarnation == renewed.incarnation
    kept = tmp_path / identity.ASIDE / who.incarnation.hex()
    assert [(kept / folder / "file").read_bytes() for folder in ("wal", "store", "sync")] == [b"wal", b"store", b"sync"]
    assert not list((tmp_path / "wal").iterdir())
    assert identity.aside(tmp_path) == [str(kept)]


def test_a_directory_that_was_copied_before_it_begins_anew_does_not_give_two_nodes_one_incarnation(
    tmp_path: Path,
) -> None:
    dice = Random(1)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    who = identity.load_or_create(here, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    renewed = identity.set_aside(here, who, dice.randbytes, 0, as_another=True)
    shutil.copytree(here, there)
    original, copy = (
        identity.load_or_create(folder, name="n", site="s", entropy=dice.randbytes, now_ms=0)
        for folder in (here, there)
    )
    assert original.actor == renewed.actor
    assert copy.incarnation != original.incarnation and copy.past == (*original.past, original.incarnation)
    assert identity.aside(there) == [str(there / identity.ASIDE / who.incarnation.hex())]


def test_what_a_set_aside_directory_is_started_with_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice, synced, fsync = Random(1), set[int](), os.fsync

    def record(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    who = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    (tmp_path / "keyspaces.json").write_text("{}")
    monkeypatch.setattr(os, "fsync", record)
    identity.set_aside(tmp_path, who, dice.randbytes, 0, as_another=False)
    identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    kept = tmp_path / identity.ASIDE / who.incarnation.hex()
    assert {(kept / name).stat().st_ino for name in (identity.FILE, "keyspaces.json")} <= synced


def shell_of(directory: Path, who: identity.Identity, ended: list[Exception], *, made: int = 1) -> Server:
    """Of an edge that has made so many changes, as far as `Server` looks at it when a peer says who it is."""
    shell = SimpleNamespace(
        _failure=None,
        config=SimpleNamespace(upstreams=("a", "b")),
        _directory=SimpleNamespace(path=directory),
        node=SimpleNamespace(identity=who),
        engine=SimpleNamespace(
            admission=SimpleNamespace(read_only=None), keyspaces=SimpleNamespace(all=[SimpleNamespace(seq=made)])
        ),
        _end=ended.append,
    )
    shell._begin_anew = lambda runs_elsewhere: Server._begin_anew(cast(Server, shell), runs_elsewhere)
    return cast(Server, shell)


@pytest.mark.parametrize("made", [0, 7])
def test_a_node_that_was_set_back_and_has_written_sets_aside_what_it_has(tmp_path: Path, made: int) -> None:
    """What it wrote since has numbers that others have for something else, and it cannot tell which."""
    dice, ended = Random(1), list[Exception]()
    who = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    os.utime(tmp_path / identity.FILE, (0, 0))
    assert Server._rolled_back(shell_of(tmp_path, who, ended, made=made))
    assert len(ended) == 1
    now = identity.read(tmp_path)
    assert now.incarnation != who.incarnation and now.node == who.node
    assert now.aside == (who.incarnation if made else None)


def test_a_run_that_ends_where_the_own_history_does_is_of_the_same_one_or_a_fork(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is known here: that it says something else is told by the chain only."""
    hub, edge, twin = trio(net, make, monkeypatch)
    before = {actor: head.seq for actor, head in hub.engine.keyspaces.by_id[DEFAULT_ID].vector.items()}
    edge.operations.set(b"k", b"of the edge")
    twin.operations.set(b"k", b"of the twin")
    for peer in (edge, twin):
        peer.settle()
    run(net, [hub, edge], rounds=5)
    runs = {}
    for peer in (edge, twin):
        sender = Sender(peer.engine, LogSource(peer.engine.tail, peer._disk), {DEFAULT_ID: before}, dict)
        sender.begin({DEFAULT_ID})
        (runs[peer],) = [each for each in sender.take(1 << 20) if each.actor == edge.engine.actor]
        sender.close()
    assert not hub.engine.receive(runs[edge])
    for peer, other in ((hub, twin), (edge, twin), (twin, edge)):
        with pytest.raises(Forked, match="another history"):
            peer.engine.receive(runs[other])


def test_a_node_that_has_less_than_it_has_said_to_have_was_set_back(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own it lacks nothing. Deletions may have been forgotten by its word which it has not seen, and it writes below them."""
    hub, edge, twin = trio(net, make, monkeypatch)
    hub.operations.delete([b"before"])
    run(net, [hub, edge], rounds=80)
    edge.cut_off()
    run(net, [hub], rounds=3)
    net.connect(twin, hub)
    run(net, [hub, twin], rounds=5)
    assert twin.rolled_back and not edge.rolled_back


def test_a_word_that_was_said_after_a_hello_and_came_before_it_is_no_sign_of_that(net: Net, make: Make) -> None:
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    wire = net.connect(edge, hub)
    late = wire.queues[hub].copy()
    wire.queues[hub].clear()  # on a slow line
    hub.operations.set(b"k", b"v")
    run(net, [hub, edge], rounds=80)
    wire.queues[hub].extend(late)
    run(net, [hub, edge], rounds=5)
    assert not wire.up and not edge.rolled_back
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=5)
    edge.operations.set(b"l", b"v")
    run(net, [hub, edge], rounds=5)
    assert hub.operations.get(b"l") == b"v" and not edge.rolled_back


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_copy_with_more_than_was_settled_of_its_earlier_self_is_told_to_begin_anew(whose: str) -> None:
    """It is a member, so it does not return with it; without a word its links would be refused for ever."""
    link = Link(1, outgoing=False, wall_ms=0, now_ms=0)
    link.node = b"n" * 16
    error = TooLate("it has changes that come too late.")
    error.node = link.node if whose == "its own" else b"o" * 16
    judged = Copies({1: link}, b"h" * 16).judge(link, error)
    assert isinstance(judged, Diverged) == (whose == "its own")


def test_a_node_does_not_begin_anew_again_and_again(tmp_path: Path) -> None:
    """Its two upstreams have different histories of it, or one lies: each time all that it got would be set aside."""
    dice, ended = Random(1), list[Exception]()
    who = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)

    def told(who: identity.Identity) -> identity.Identity:
        Server._copied(shell_of(tmp_path, who, ended), False)
        return identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)

    anew = told(who)
    assert anew.incarnation != who.incarnation and len(ended) == 1
    (tmp_path / "wal" / segment_name(1)).touch()
    assert told(anew) == anew and len(ended) == 1
    os.utime(tmp_path / identity.FILE, (0, 0))
    assert told(anew) != anew and len(ended) == 2, "a day later it is believed again"


def test_a_node_that_keeps_its_place_keeps_its_name(tmp_path: Path) -> None:
    dice = Random(1)
    who = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    identity.set_aside(tmp_path, who, dice.randbytes, 0, as_another=False)
    started = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    assert (started.node, started.name) == (who.node, "n") and started.incarnation != who.incarnation


def test_a_leader_and_a_member_that_were_both_restored_do_not_wait_for_each_other(
    net: Net, make: Make, tmp_path: Path
) -> None:
    """The member has changes that the leader has not, and sends none before the leader admits it."""
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    edge.operations.set(b"before", b"1")
    run(net, [hub, edge], rounds=5)
    hub.settle()
    shutil.copytree(hub.config.data_dir, tmp_path / "hub-backup")
    edge.operations.set(b"after", b"2")
    run(net, [hub, edge], rounds=5)
    edge.settle()
    shutil.copytree(edge.config.data_dir, tmp_path / "edge-backup")
    for peer in (hub, edge):
        peer.cut_off()
        peer.kill()
        shutil.rmtree(peer.config.data_dir)
        shutil.copytree(tmp_path / f"{peer.name}-backup", peer.config.data_dir)
        peer.open()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=130)
    assert hub.replication.leader.leads
    assert hub.operations.get(b"after") == edge.operations.get(b"after") == b"2"
    edge.operations.set(b"again", b"3")
    run(net, [hub, edge], rounds=5)
    assert hub.operations.get(b"again") == b"3"


def started_again(net: Net, hub: Peer, *edges: Peer) -> None:
    """It has forgotten what members said."""
    for peer in (hub, *edges):
        peer.cut_off()
    hub.kill()
    hub.open()
    hub.now_ms = max(hub.now_ms, *(edge.now_ms for edge in edges))


def greet_only(net: Net, edge: Peer, hub: Peer) -> None:
    """The two say HELLO, and what comes of that at once."""
    net.connect(edge, hub)
    for _ in range(4):
        net.deliver()


def test_what_a_member_came_with_is_its_word_before_it_has_said_what_it_has_seen(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, twin = trio(net, make, monkeypatch)
    hub.operations.set(b"k", b"of the hub")
    run(net, [hub, edge, twin], rounds=5)
    started_again(net, hub, edge, twin)
    greet_only(net, edge, hub)
    edge.cut_off()
    greet_only(net, twin, hub)
    assert twin.rolled_back and not edge.rolled_back


def test_of_two_copies_that_have_each_what_the_other_has_not_both_are_told(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that was started since knows of neither history that it is the one which it took in before."""
    hub, edge, twin = trio(net, make, monkeypatch)
    hub.operations.set(b"k", b"of the hub")
    twin.operations.set(b"k", b"of the twin")
    run(net, [hub, edge, twin], rounds=5)
    started_again(net, hub, edge, twin)
    greet_only(net, twin, hub)
    assert not twin.rolled_back
    greet_only(net, edge, hub)
    assert edge.rolled_back and twin.rolled_back


def test_a_copy_that_made_more_and_has_seen_less_does_not_have_the_linked_one_sent_away(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, twin = trio(net, make, monkeypatch)
    hub.operations.set(b"k", b"of the hub")
    twin.operations.set(b"k", b"of the twin")
    run(net, [hub, edge, twin], rounds=5)
    started_again(net, hub, edge, twin)
    greet_only(net, edge, hub)
    greet_only(net, twin, hub)
    assert twin.rolled_back and not edge.rolled_back


def test_who_has_acknowledged_what_a_copy_came_with_keeps_its_link(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, twin = trio(net, make, monkeypatch)
    edge.operations.set(b"k", b"of the edge")
    run(net, [hub, edge], rounds=100)
    hub.operations.set(b"k", b"of the hub")
    for _ in range(10):  # no time passes: nobody says what has been seen
        for peer in (hub, edge):
            peer.engine.kick()
            while peer.flush():
                peer.replication.durable()
        net.deliver()
    own = hub.engine.keyspaces.by_id[DEFAULT_ID].vector[hub.engine.actor]
    wire = net.connect(twin, hub)
    wire.queues[hub].clear()
    hello = twin.replication._greeting.hello()
    vectors = {**hello.vectors, DEFAULT_ID: {**hello.vectors[DEFAULT_ID], hub.engine.actor: (own.seq, own.chain)}}
    wire.queues[hub].append(pack_message(hello._replace(vectors=vectors)))
    while net.deliver():
        pass
    assert twin.rolled_back and not edge.rolled_back
    assert [link.peer and link.peer.name for link in hub.replication.links.values()] == ["edge"]


def test_what_a_member_came_with_is_forgotten_when_it_has_said_it(net: Net, make: Make) -> None:
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    edge.operations.set(b"k", b"1")
    run(net, [hub, edge])
    started_again(net, hub, edge)
    greet_only(net, edge, hub)
    arrivals = hub.replication.seen.arrivals
    assert arrivals.word_beyond(edge.engine.actor, {DEFAULT_ID: {}}) is not None
    run(net, [hub, edge], rounds=100)
    assert arrivals.word_beyond(edge.engine.actor, {DEFAULT_ID: {}}) is None
