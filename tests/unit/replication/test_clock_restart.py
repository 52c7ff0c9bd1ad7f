"""The start that puts the stamps of a wrong clock right, where a full disk or damage stops it, or a crash and damage behind that."""

import errno
import os
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.errors import LogFailed, Unavailable
from edgekv.node import clock_restart, identity
from edgekv.server.shell import Server
from edgekv.store.applier import Applier
from edgekv.store.lmdb_store import LmdbStore, StoreError
from edgekv.wal.segment import Segment
from tests.unit.replication.test_copies import shell_of
from tests.unit.replication.test_hub_time import set_clock
from tests.unit.replication.test_links import vectors
from tests.unit.replication.test_trouble import carry
from tests.unit.replication.test_wrong_clock import alone_in_the_future, asked
from tests.unit.replication.wires import Make, Net, Peer, run


def asked_for(net: Net, make: Make) -> tuple[Peer, Peer, Peer]:
    """The edge has stopped, and its next start is to put its stamps right: one is in LMDB, others in the log only."""
    hub, edge, other = alone_in_the_future(net, make)
    edge.operations.set(b"k", b"by the wrong clock")
    carry(edge)
    set_clock(edge, hub.now_ms - edge.now_ms)
    heard = asked(edge)
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=10)
    identity.clock_was_wrong(edge.config.data_dir, edge.node.identity, identity.WrongClock(stamps_max=heard[-1]))
    edge.cut_off()
    edge.operations.increment(b"count", 2)
    edge.settle()
    return hub, edge, other


def assert_all_is_everywhere(net: Net, hub: Peer, edge: Peer, other: Peer) -> None:
    assert identity.read(edge.config.data_dir).clock is None
    net.connect(edge, hub)
    run(net, [hub, edge, other], rounds=60)
    for peer in (hub, edge, other):
        assert peer.operations.get(b"k") == b"by the wrong clock"
        assert peer.operations.get(b"count") == b"7"
    assert vectors(edge) == vectors(hub) == vectors(other)


FULL = OSError(errno.ENOSPC, "no space left")


@pytest.mark.parametrize(
    ("module", "place", "error"),
    [
        (clock_restart, "recover", LogFailed("no room for a segment")),
        (Applier, "apply", FULL),
        (Applier, "apply", StoreError("no space left")),
        (Applier, "apply", KeyError("a row that was damaged")),
        (clock_restart, "restamp", StoreError("no space left")),
    ],
)
def test_a_start_that_can_lower_no_stamp_serves_all_there_is_and_a_later_one_does_it(
    net: Net,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: object,
    place: str,
    error: Exception,
) -> None:
    hub, edge, other = asked_for(net, make)
    edge.kill()
    before = edge.engine.actor

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, place, fail)
        edge.open()
    (said,) = [record for record in caplog.records if "stay too far ahead" in record.getMessage()]
    assert bool(said.exc_info) == isinstance(error, KeyError), "a mistake of the program is said with its place"
    assert edge.engine.actor == before and edge.node.identity.clock is not None
    assert edge.operations.get(b"k") == b"by the wrong clock" and edge.operations.get(b"count") == b"7"
    edge.kill()
    edge.open()
    assert_all_is_everywhere(net, hub, edge, other)


@pytest.mark.parametrize(
    ("module", "place", "error"),
    [
        (LmdbStore, "sync", StoreError("input/output error")),
        (identity, "stamps_are_lowered", FULL),
        (Segment, "publish", FULL),
        (identity, "clock_is_right", FULL),
    ],
)
def test_a_start_that_the_disk_stops_when_stamps_were_lowered_says_so_and_the_next_goes_on(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch, module: object, place: str, error: Exception
) -> None:
    """As the incarnation that it was it does not serve again: its dots have two stamps."""
    hub, edge, other = asked_for(net, make)
    edge.stop()

    def fail(*_: object, **__: object) -> None:
        if sys._getframe(1).f_code.co_name != "open":  # an LMDB that is opened is synced too
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, place, fail)
        for _ in range(2):
            with pytest.raises(Unavailable, match="start the node again"):
                edge.open()
    edge.open()
    assert_all_is_everywhere(net, hub, edge, other)


def _spy(patch: pytest.MonkeyPatch, module: type, name: str, done: list[str]) -> None:
    real = getattr(module, name)

    def spied(*arguments: Any, **options: Any) -> Any:
        done.append(name)
        return real(*arguments, **options)

    patch.setattr(module, name, spied)


def test_a_log_that_rots_after_a_crash_behind_the_lowering_is_not_asked_for_any_more(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, edge, other = asked_for(net, make)
    edge.kill()
    before = edge.engine.actor

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(identity, "stamps_are_lowered", crash)
        with pytest.raises(KeyboardInterrupt):
            edge.open()
    for path in (edge.config.data_dir / "wal").glob("*.wal"):
        path.write_bytes(bytes(path.stat().st_size))
    done: list[str] = []
    with monkeypatch.context() as patch:
        for module, name in ((LmdbStore, "write"), (LmdbStore, "sync"), (Segment, "publish")):
            _spy(patch, module, name, done)
        edge.open()
    assert done[:3] == ["sync", "write", "sync"], "the note is committed once more: the first sync may have failed"
    assert edge.engine.actor != before and edge.engine.admission.read_only is None
    assert_all_is_everywhere(net, hub, edge, other)


def test_a_value_that_is_damaged_keeps_the_stamps_until_it_is_written_anew(net: Net, make: Make) -> None:
    hub, edge, other = asked_for(net, make)
    carry(edge)
    edge.kill()
    store = LmdbStore.open(edge.config.data_dir / "store", readonly=False)
    found = next((key, row) for key, row in store.range(b"", None) if row.endswith(b"by the wrong clock"))
    with store.write() as transaction:
        transaction.put_rows([(found[0], found[1][:-1] + b"?")])
    store.close()
    edge.open()
    assert edge.node.identity.clock is not None
    edge.operations.set(b"k", b"by the wrong clock")
    edge.settle()
    edge.kill()
    edge.open()
    assert_all_is_everywhere(net, hub, edge, other)


def test_a_node_that_could_not_put_its_stamps_right_does_not_end_for_it_again(tmp_path: Path) -> None:
    """It would end at each HELLO, and nothing would be different at its next start."""
    dice, ended, said = Random(1), list[Exception](), list[str]()
    who = identity.load_or_create(tmp_path, name="n", site="s", entropy=dice.randbytes, now_ms=0)
    os.utime(tmp_path / identity.FILE, (0, 0))
    shell = shell_of(tmp_path, who, ended)
    shell._peers = cast(Any, SimpleNamespace(replication=SimpleNamespace(trouble=said.append)))
    Server._clock_was_wrong(shell, {DEFAULT_ID: 7})
    assert len(ended) == 1 and not said
    who = identity.read(tmp_path)
    assert who.clock is not None
    again = shell_of(tmp_path, who, ended)
    again._peers = shell._peers
    Server._clock_was_wrong(again, {DEFAULT_ID: 8})
    assert len(ended) == 1 and identity.read(tmp_path) == who
    assert "start" in said[0]
