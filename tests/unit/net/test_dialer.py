"""Upstreams: one for an edge, in order; each for a hub; and patience in between."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.config import Address
from edgekv.limits import PEER_BACK_OFF_S_MAX, PEER_BACK_OFF_S_MIN
from edgekv.net import dialer
from edgekv.net.dialer import back_off_s, lines
from tests.unit.net.sites import LOOPBACK, Site, run, until

pytestmark = pytest.mark.usefixtures("each_loop")

A, B = Address("127.0.0.1", 1), Address("127.0.0.1", 2)
NOBODY = Address(LOOPBACK, 1)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialer, "PEER_BACK_OFF_S_MIN", 0.001)


def test_a_hub_has_a_link_to_each_and_an_edge_to_one() -> None:
    assert lines([A, B], "hub") == [[A], [B]]
    assert lines([A, B], "edge") == [[A, B]]
    assert lines([], "hub") == lines([], "edge") == []


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_stay_within_their_bounds(failures: int, chance: float) -> None:
    assert back_off_s(failures, 0) <= back_off_s(failures, chance) <= PEER_BACK_OFF_S_MAX


def test_pauses_grow_to_the_greatest_and_are_spread_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialer, "PEER_BACK_OFF_S_MIN", PEER_BACK_OFF_S_MIN)
    longest = [back_off_s(failures, 0.999999) for failures in range(1, 8)]
    assert longest == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0], abs=0.001)
    assert back_off_s(7, 0) == 0.1 and back_off_s(7, 0.5) == pytest.approx(0.55)


def test_an_edge_takes_the_first_upstream_that_answers() -> None:
    async def scenario(edge: Site, first: Site, second: Site) -> None:
        line = edge.dial([NOBODY, first.address, second.address]).lines[0]
        await until(lambda: first.host.open)
        assert second.host.events == [] and line.connected == first.address
        assert "cannot connect to 127.0.0.1:1: " in line.trouble

    run(scenario, 3)


def test_an_edge_goes_to_the_next_upstream_when_one_ends_soon_and_to_the_first_after_one_that_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(edge: Site, first: Site, second: Site) -> None:
        line = edge.dial([first.address, second.address]).lines[0]
        await until(lambda: first.host.open)
        first.links.close(1, "refused")
        await until(lambda: second.host.open)
        assert line.connected == second.address and line.trouble.startswith(f"the link to {first.address} ended")
        monkeypatch.setattr(dialer, "PEER_LASTING_S", 0.0)
        second.links.close(1, "after a long time")
        await until(lambda: first.host.open == [2])
        assert second.host.open == []

    run(scenario, 3)


def test_an_edge_does_not_stay_with_a_hub_that_is_no_member_while_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialer, "PEER_IDLE_S", 0.01)

    async def scenario(edge: Site, first: Site, second: Site) -> None:
        edge.host.idle.add(1)
        line = edge.dial([first.address, second.address]).lines[0]
        await until(lambda: second.host.open)
        assert line.connected == second.address and "no member of the cluster now" in line.trouble
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert second.host.open == [1], "and stays with one that is"

    run(scenario, 3)


def test_an_edge_goes_on_to_the_next_hub_when_it_turns_out_late_that_one_is_no_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when meta comes over a slow line, or the edge itself became a member a moment ago."""
    monkeypatch.setattr(dialer, "PEER_IDLE_S", 0.01)
    monkeypatch.setattr(dialer, "PEER_LASTING_S", 0.0)

    async def scenario(edge: Site, first: Site, second: Site) -> None:
        line = edge.dial([first.address, second.address]).lines[0]
        await until(lambda: edge.host.looks >= 2)
        assert first.host.open and not second.host.open
        edge.host.idle.add(1)
        await until(lambda: second.host.open)
        assert line.connected == second.address and "no member of the cluster now" in line.trouble
        assert first.host.open == [], "although the link to it has lasted"

    run(scenario, 3)


def test_an_edge_with_one_upstream_stays_with_it_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialer, "PEER_IDLE_S", 0.01)

    async def scenario(edge: Site, hub: Site) -> None:
        edge.host.idle.add(1)
        edge.dial([hub.address])
        await until(lambda: hub.host.open)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert hub.host.open == [1]

    run(scenario)


def test_a_hub_dials_each_upstream_for_itself() -> None:
    async def scenario(hub: Site, first: Site, second: Site) -> None:
        hub.dial([first.address], [NOBODY], [second.address])
        await until(lambda: first.host.open and second.host.open)
        first.links.close(1, "over")
        await until(lambda: first.host.open == [2])
        assert second.host.open == [1]

    run(scenario, 3)


def test_an_upstream_that_comes_back_is_found_and_its_absence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(edge: Site, hub: Site) -> None:
        edge.dial([hub.address])
        await until(lambda: hub.host.open)
        await hub.listener.close()
        await hub.links.stop()
        await until(lambda: "cannot connect" in caplog.text)
        tried = sum("cannot connect" in line for line in caplog.messages)
        await hub.listen()
        await until(lambda: hub.host.open)
        assert tried == 1

    run(scenario)


def test_of_several_upstreams_that_are_away_each_is_said_once_in_the_log_and_shown_in_the_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(edge: Site, hub: Site) -> None:
        edge.dial([NOBODY, Address(LOOPBACK, 2)])
        await until(lambda: len(edge.host.troubles) >= 8)
        assert sum("cannot connect" in line for line in caplog.messages) == 2
        assert len(set(edge.host.troubles)) == 2

    run(scenario)


def test_an_upstream_that_is_no_node_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(edge: Site) -> None:
        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        edge.dial([Address(LOOPBACK, port)])
        await until(lambda: len(edge.host.troubles) >= 3)
        server.close()
        (line,) = caplog.messages
        assert line.startswith(f"the link to {LOOPBACK}:{port} ended: what is connected does not speak as a node")
        assert line.endswith("another address; it is tried again")

    run(scenario, 1)


def test_two_hubs_that_dial_each_other_keep_one_link_and_dial_again_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(one: Site, two: Site) -> None:
        await one.links.dial(two.address)
        await until(lambda: one.host.open and two.host.open)
        dialed: list[int] = []

        def is_there_already(number: int) -> None:
            dialed.append(number)
            if number == 2:
                two.links.close(number, "there is another link with the same node", instead=1)

        two.host.on_connected = is_there_already
        line = two.dial([one.address]).lines[0]
        await until(lambda: one.host.events[-1:] == [("disconnected", 2)] and two.host.open == [1])
        for _ in range(20):
            await asyncio.sleep(0.005)  # the pause before another attempt is 1 ms here
        assert dialed == [2] and line.connected == one.address
        assert caplog.messages == [], "nothing is wrong"
        one.links.close(1, "over")
        await until(lambda: two.host.open == [3])
        assert dialed == [2, 3]

    run(scenario)


def test_closing_the_dialer_ends_no_link_and_dials_no_more() -> None:
    async def scenario(edge: Site, hub: Site) -> None:
        dialer = edge.dial([hub.address])
        await until(lambda: hub.host.open and edge.host.open)
        await dialer.close()
        edge.links.send(1, b"still")
        await until(lambda: hub.host.messages[1] == [b"still"])
        hub.links.close(1, "over")
        await until(lambda: not edge.host.open and not hub.host.open)
        assert hub.host.events == [("connected", 1, False), ("disconnected", 1)]

    run(scenario)
