"""What an operator has mended: rows that differ although both nodes have the same changes."""

from collections.abc import Callable
from typing import Any

import pytest

from edgekv.crdt.operation import SUFFIX_REGISTER, element_suffix
from edgekv.errors import Denied, InvalidRequest
from edgekv.replication.row_source import RowSource
from edgekv.store import layout
from edgekv.store.applied import sync_path
from edgekv.wal.record import pack_ttl
from tests.unit.replication.test_links import vectors
from tests.unit.replication.wires import Make, Net, Peer, run

DEFAULT = "default"


def rot(
    peer: Peer, key: bytes, suffix: bytes = SUFFIX_REGISTER, *, change: Callable[[bytes], bytes] | None = None
) -> None:
    """A row of LMDB is not what was written: gone, or changed."""
    while peer.apply():
        pass
    lmdb_key = layout.lmdb_key(peer.engine.keyspaces.of(key).id, key, suffix)
    with peer._store.write() as transaction:
        row = transaction.get(lmdb_key)
        assert row is not None
        transaction.delete(lmdb_key)
        if change is not None:
            transaction.put_rows([(lmdb_key, change(row))])
    peer._store.renew()
    peer.engine.memtable.drop_cache()


def flipped(row: bytes) -> bytes:
    """One bit of the value."""
    return row[:-1] + bytes([row[-1] ^ 1])


def pair(net: Net, make: Make) -> tuple[Peer, Peer]:
    hub, edge = make("hub", founder=True), make("edge", site="s", role="edge")
    net.connect(edge, hub)
    run(net, [hub, edge])
    for i in range(50):
        hub.operations.set(b"key/%02d" % i, b"value %d" % i)
    hub.operations.sets.add(b"s", [b"%d" % i for i in range(9)])
    hub.operations.increment(b"n", 41)
    run(net, [hub, edge])
    for peer in (hub, edge):
        peer.settle()
        run(net, [hub, edge], rounds=3)
    assert vectors(hub) == vectors(edge)
    return hub, edge


def repair(
    net: Net, peers: list[Peer], peer: Peer, source: str, *prefixes: bytes, union: bool = False
) -> dict[str, object]:
    """Have it done; what `status` says of it."""
    named = peer.replication.repairs.begin(DEFAULT, list(prefixes or (b"",)), source, union=union)
    run(net, peers, rounds=60)
    status = peer.replication.status()["repairs"]
    assert isinstance(status, dict) and status["under_way"] is None
    done: dict[str, object] = next(each for each in reversed(status["done"]) if each["wall_ms"] == named)
    return done


def counts(done: dict[str, object]) -> tuple[object, ...]:
    return done["replaced"], done["added"], done["dropped"], done["damaged"]


def test_a_damaged_range_is_replaced_by_that_of_a_named_node(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    rot(edge, b"key/07")
    rot(edge, b"key/08", change=flipped)
    rot(edge, b"s", element_suffix(b"3"))
    assert edge.operations.get(b"key/07") is None
    assert edge.operations.get(b"key/08") != b"value 8"
    done = repair(net, [hub, edge], edge, "hub")
    assert counts(done) == (1, 2, 0, 1)
    assert edge.operations.get(b"key/07") == b"value 7"
    assert edge.operations.get(b"key/08") == b"value 8"
    assert edge.operations.sets.page(b"s", b"", 99) == hub.operations.sets.page(b"s", b"", 99)
    assert edge.operations.sets.count(b"s") == 9
    assert vectors(hub) == vectors(edge)
    hub.operations.set(b"after", b"1")
    edge.operations.increment(b"n", 1)
    run(net, [hub, edge], rounds=5)
    assert edge.operations.get(b"after") == b"1"
    assert hub.operations.get(b"n") == b"42"


def test_a_repair_leaves_rows_outside_its_range_alone(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    rot(edge, b"key/07")
    rot(edge, b"key/18")
    assert counts(repair(net, [hub, edge], edge, "hub", b"key/1", b"key/2")) == (0, 1, 0, 0)
    assert edge.operations.get(b"key/07") is None
    assert edge.operations.get(b"key/18") == b"value 18"


def test_a_row_that_the_named_node_lacks_goes_but_stays_in_a_union(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    rot(hub, b"key/07")
    rot(edge, b"key/08")
    assert counts(repair(net, [hub, edge], edge, "hub", union=True)) == (0, 1, 0, 0)
    assert edge.operations.get(b"key/07") == b"value 7"
    assert edge.operations.get(b"key/08") == b"value 8"
    assert counts(repair(net, [hub, edge], edge, "hub")) == (0, 0, 1, 0)
    assert edge.operations.get(b"key/07") is None


def test_a_union_of_both_sides_makes_both_alike(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    rot(hub, b"key/07")
    rot(edge, b"key/08")
    rot(edge, b"s", element_suffix(b"3"))
    repair(net, [hub, edge], hub, "edge", union=True)
    repair(net, [hub, edge], edge, "hub", union=True)
    for i in range(50):
        assert hub.operations.get(b"key/%02d" % i) == edge.operations.get(b"key/%02d" % i) == b"value %d" % i
    assert edge.operations.sets.count(b"s") == 9


def test_rows_are_not_exchanged_when_a_change_came_between(net: Net, make: Make) -> None:
    """The spool lacks what this node has: in its place a write that was acknowledged would be gone."""
    hub, edge = pair(net, make)
    flip = edge.engine.flip

    def late(*arguments: object, **options: object) -> None:
        edge.operations.set(b"key/07", b"mine")
        flip(*arguments, **options)  # type: ignore[arg-type] # what it was called with

    edge.engine.flip = late  # type: ignore[method-assign] # a write comes just before
    edge.replication.repairs.begin(DEFAULT, [b""], "hub", union=False)
    run(net, [hub, edge], rounds=60)
    status = edge.replication.status()["repairs"]
    assert isinstance(status, dict) and status["under_way"] is None
    assert "same changes" in status["failure"]["sentence"] and not status["done"]
    run(net, [hub, edge], rounds=5)
    assert hub.operations.get(b"key/07") == edge.operations.get(b"key/07") == b"mine"


def test_a_repair_that_a_crash_met_is_carried_out_at_the_next_start(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    rot(edge, b"key/07")
    edge.replication.repairs.begin(DEFAULT, [b""], "hub", union=False)
    step = edge._applier.step

    def logged() -> bool:
        flip = edge.engine.flips._flip
        return flip is not None and flip.frame is not None

    edge._applier.step = lambda: None if logged() else step()  # type: ignore[method-assign] # it does not come to it
    run(net, [hub, edge], rounds=60)
    assert logged() and edge.operations.get(b"key/07") is None
    edge.operations.set(b"behind", b"1")
    run(net, [hub, edge], rounds=2)
    edge.kill()
    edge.cut_off()
    edge.open()
    assert edge.operations.get(b"key/07") == b"value 7"
    assert edge.operations.get(b"behind") == b"1"
    status = edge.replication.status()["repairs"]
    assert isinstance(status, dict) and len(status["done"]) == 1


def test_what_the_operator_was_told_was_not_done_is_not_done_later(net: Net, make: Make) -> None:
    """The link ends when all rows have come, while they are checked. The next repair hears nothing of it."""
    hub, edge = pair(net, make)
    rot(edge, b"key/07")
    edge.replication.repairs.begin(DEFAULT, [b""], "hub", union=False)
    while (incoming := edge.replication.row_sync.intake._incoming) is None or incoming.check is None:
        run(net, [hub, edge], rounds=1)
    edge.cut_off()
    edge.replication.repairs.look()
    net.connect(edge, hub)
    run(net, [hub, edge], rounds=60)
    status = edge.replication.status()["repairs"]
    assert isinstance(status, dict)
    assert "link with it ended" in status["failure"]["sentence"] and not status["done"]
    assert edge.operations.get(b"key/07") is None
    assert list(sync_path(edge.config.data_dir).glob("*.spool")) == []
    assert counts(repair(net, [hub, edge], edge, "hub")) == (0, 1, 0, 0)


def test_a_write_that_comes_while_the_repair_waits_for_the_log_lies_behind_it(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it, the rows would be of another moment than the log's, which no start gets over."""
    hub, edge = pair(net, make)
    rot(edge, b"key/07")
    log = edge.engine.flips._log

    def behind_another_frame(flip: Any) -> None:
        edge.engine.commit.mark(pack_ttl(1))
        edge.engine.commit.kick()
        log(flip)
        edge.operations.set(b"key/09", b"meanwhile")

    monkeypatch.setattr(edge.engine.flips, "_log", behind_another_frame)
    assert counts(repair(net, [hub, edge], edge, "hub")) == (0, 1, 0, 0)
    assert hub.operations.get(b"key/09") == edge.operations.get(b"key/09") == b"meanwhile"
    assert edge.operations.get(b"key/07") == b"value 7" and vectors(hub) == vectors(edge)


def test_a_repair_that_is_tried_again_is_no_sign_of_a_log_that_is_too_short(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    for _ in range(2):
        rot(edge, b"key/07")
        assert counts(repair(net, [hub, edge], edge, "hub")) == (0, 1, 0, 0)
    assert hub.replication.row_sync.again_total == 0
    events = hub.replication.status()["events"]
    assert isinstance(events, list) and not any("retain_bytes" in event["sentence"] for event in events)


def test_a_node_that_is_written_to_does_not_look_for_ever_for_a_moment_to_offer_its_rows(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look carries what is durable into LMDB, a few rows at a time."""
    hub, edge = pair(net, make)
    monkeypatch.setattr("edgekv.replication.repairs.REPAIR_MS_MAX", 2_000)
    monkeypatch.setattr(RowSource, "_is_fresh", lambda sync, keyspace: False)  # a write came between, each time
    edge.replication.repairs.begin(DEFAULT, [b""], "hub", union=False)
    run(net, [hub, edge], rounds=5)
    assert [link.asked for link in hub.replication.links.values()] == [{0}]
    run(net, [hub, edge], rounds=30)
    status = edge.replication.status()["repairs"]
    assert isinstance(status, dict) and "in time" in status["failure"]["sentence"]
    assert [link.asked for link in hub.replication.links.values()] == [set()]


def test_a_node_without_a_link_to_the_named_one_says_so(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    with pytest.raises(Denied, match="no link with 'nobody'"):
        edge.replication.repairs.begin(DEFAULT, [b""], "nobody", union=False)
    with pytest.raises(InvalidRequest, match="no keyspace"):
        edge.replication.repairs.begin("other", [b""], "hub", union=False)
    del hub


def test_rows_that_the_named_node_cannot_read_itself_are_not_taken(net: Net, make: Make) -> None:
    hub, edge = pair(net, make)
    rot(hub, b"key/07", change=flipped)
    edge.replication.repairs.begin(DEFAULT, [b""], "hub", union=False)
    run(net, [hub, edge], rounds=20)
    status = edge.replication.status()["repairs"]
    assert isinstance(status, dict)
    assert status["under_way"] is None and "cannot be read" in status["failure"]["sentence"]
    assert counts(repair(net, [hub, edge], hub, "edge")) == (1, 0, 0, 1)
    assert counts(repair(net, [hub, edge], edge, "hub")) == (0, 0, 0, 0)
