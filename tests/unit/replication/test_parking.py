"""Who is silent for too long is parked, by time that passed at the leader while it looked, and never many at once."""

import pytest

from edgekv.engine.keyspaces import DEFAULT_ID
from edgekv.replication import silence
from tests.unit.replication.test_links import cluster
from tests.unit.replication.wires import Make, Net, Peer, run

OFFLINE_MS = 600_000


@pytest.fixture(autouse=True)
def often_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "STEP_MS", 10_000)


def members(peer: Peer) -> dict[str, str]:
    listed = peer.replication.status()["members"]
    assert isinstance(listed, list)
    return {member["name"]: member["state"] for member in listed}


def silent_s(peer: Peer, name: str) -> int:
    listed = peer.replication.status()["members"]
    assert isinstance(listed, list)
    return int(next(member["silent_s"] for member in listed if member["name"] == name))


def pass_s(net: Net, seconds: int, *peers: Peer) -> None:
    run(net, list(peers), rounds=seconds // 2, step_ms=2_000)


def test_a_member_that_is_silent_for_too_long_is_parked_and_one_that_is_linked_is_not(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS)
    away.cut_off()
    pass_s(net, OFFLINE_MS // 1000 - 20, hub, here)
    assert members(hub) == {"hub": "open", "edge-0": "open", "edge-1": "open"}
    pass_s(net, 30, hub, here)
    assert members(hub) == members(here) == {"hub": "open", "edge-0": "parked", "edge-1": "open"}
    assert hub.replication.figures.member_states()["parked"] == 1


def test_nobody_is_parked_where_members_stay_for_ever(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make, max_offline_ms=0)
    away.cut_off()
    pass_s(net, 2 * OFFLINE_MS // 1000, hub, here)
    assert members(hub)["edge-0"] == "open"
    assert silent_s(hub, "edge-0") > OFFLINE_MS // 1000


def test_a_member_that_was_parked_keeps_no_deletion_from_being_forgotten(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS)
    pass_s(net, 20, hub, here, away)
    away.cut_off()
    here.operations.set(b"k", b"v")
    here.operations.delete([b"k"])
    pass_s(net, OFFLINE_MS // 1000 - 20, hub, here)
    announced = hub.replication.members.announced
    assert announced is not None and announced.stable.cuts is not None
    assert here.engine.actor not in announced.stable.cuts[DEFAULT_ID].cut
    pass_s(net, 60, hub, here)
    announced = here.replication.members.announced
    assert announced is not None and announced.stable.cuts is not None
    assert announced.stable.cuts[DEFAULT_ID].cut[here.engine.actor] == 2


def test_a_member_that_is_heard_of_through_another_hub_is_not_silent(net: Net, make: Make) -> None:
    hub = make("hub", founder=True, max_offline_ms=OFFLINE_MS)
    relay = make("relay")
    edge = make("edge", role="edge")
    net.connect(relay, hub)
    run(net, [hub, relay, edge], rounds=10)
    net.connect(edge, relay)
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, relay, edge)
    assert members(hub)["edge"] == "open"
    edge.cut_off()
    pass_s(net, OFFLINE_MS // 1000 + 60, hub, relay)
    assert members(hub) == {"hub": "open", "relay": "open", "edge": "parked"}


def test_a_restart_of_the_leader_neither_resets_nor_adds_to_a_silence(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS)
    away.cut_off()
    for _ in range(3):
        pass_s(net, 100, hub, here)
        before_s = silent_s(hub, "edge-0")
        hub.cut_off()
        hub.kill()
        hub.now_ms += 20 * OFFLINE_MS  # its machine was off
        here.now_ms += 20 * OFFLINE_MS
        hub.open()
        net.connect(here, hub)
        pass_s(net, 4, hub, here)
        assert before_s - 12 <= silent_s(hub, "edge-0") <= before_s + 8
    net.connect(away, hub)
    pass_s(net, 20, hub, here, away)
    away.cut_off()
    hub.cut_off()
    hub.kill()
    hub.open()
    pass_s(net, 4, hub)
    assert silent_s(hub, "edge-0") <= 4, "the end of its silence was written down as well"


def test_what_another_hub_says_of_a_dead_member_again_is_no_sign_of_life(net: Net, make: Make) -> None:
    hub = make("hub", founder=True, max_offline_ms=OFFLINE_MS)
    relay = make("relay")
    edge = make("edge", role="edge")
    net.connect(relay, hub)
    run(net, [hub, relay, edge], rounds=10)
    net.connect(edge, relay)
    pass_s(net, 60, hub, relay, edge)
    edge.cut_off()
    pass_s(net, 200, hub, relay)
    before_s = silent_s(hub, "edge")
    hub.cut_off()
    hub.kill()
    hub.open()
    net.connect(relay, hub)
    pass_s(net, 10, hub, relay)
    assert before_s - 12 <= silent_s(hub, "edge")


def test_a_step_of_the_leaders_wall_clock_parks_nobody(net: Net, make: Make) -> None:
    hub, (away, here), _ = cluster(net, make, max_offline_ms=OFFLINE_MS)
    away.cut_off()
    pass_s(net, 20, hub, here)
    hub.now_ms += 10 * OFFLINE_MS
    hub.clock_set_ms += 10 * OFFLINE_MS
    pass_s(net, 20, hub, here)
    assert members(hub)["edge-0"] == "open"
    assert silent_s(hub, "edge-0") <= 44


def test_in_a_day_a_third_of_the_members_is_parked_at_most(net: Net, make: Make) -> None:
    hub, edges, _ = cluster(net, make, edges=5, max_offline_ms=OFFLINE_MS)
    for edge in edges:
        edge.cut_off()
    pass_s(net, 2 * OFFLINE_MS // 1000, hub)
    assert sorted(members(hub).values()) == ["open"] * 4 + ["parked"] * 2
    hub.kill()
    hub.open()
    pass_s(net, 120, hub)
    assert sorted(members(hub).values()) == ["open"] * 4 + ["parked"] * 2, "a restart begins no new day"
    run(net, [hub], rounds=24 * 60 + 20, step_ms=60_000)
    assert sorted(members(hub).values()) == ["open"] * 3 + ["parked"] * 3


def test_a_member_that_is_away_judges_ends_by_the_time_by_which_others_forget(
    net: Net, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is behind: it would forget a value that has not ended for it, and go on showing what was counted beside it."""
    hub, (away, here), _ = cluster(net, make)
    end_ms = hub.now_ms + 600_000
    hub.operations.set(b"k", b"40", expiry_ms=end_ms)
    hub.operations.increment(b"k", 2)
    pass_s(net, 30, hub, away, here)
    away.cut_off()
    hub.replication.membership.remove(away.name)
    hub.replication.membership.readmit(away.name)
    pass_s(net, 900, hub, here)
    assert hub.operations.get(b"k") is None
    monkeypatch.setattr(hub.replication.leader, "_take_back", lambda *_: False)  # another one returns first
    net.connect(away, hub)
    run(net, [hub, away, here], rounds=2, step_ms=10)
    announced = away.replication.members.announced
    assert announced is not None and announced.stable.wall_ms > end_ms
    for _ in range(40):
        away.now_ms += 2_000
        away.tick()
        while away.apply():
            assert away.operations.get(b"k") in (b"42", None)
        away.settle()
        away.replication.tick()
    assert away.operations.get(b"k") is None
