"""How a node comes into a cluster: whoever answers first, with patience for those who refuse, are silent, or are not there."""

import asyncio
from collections.abc import Callable

import pytest

from edgekv.config import Address
from edgekv.ids import Actor
from edgekv.net import dialer, join
from edgekv.replication.messages import Hello, Join, Message, Refused, Welcome, pack_message, parse
from tests.unit.net.sites import LOOPBACK, Site, run, until

pytestmark = pytest.mark.usefixtures("each_loop")

REQUEST = Join("till-1", "shop-7", "edge")
WELCOME = Welcome(b"c" * 16, [{"id": 0, "name": "default"}])
HELLO = Hello(b"c" * 16, b"n" * 16, Actor(b"a" * 25), "hub-1", "cloud", "hub", 1, 0, {})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialer, "PEER_BACK_OFF_S_MIN", 0.001)


def answering(site: Site, answer: Callable[[], Message | bytes | None]) -> None:
    """Let the node there speak as a member does: HELLO at once, and what ``answer`` says to JOIN."""

    def reply(link: int, message: bytes) -> None:
        assert parse(message) == REQUEST
        said = answer()
        if said is not None:
            site.links.send(link, said if isinstance(said, bytes) else pack_message(said))
            site.links.close(link, "answered")

    site.host.on_connected = lambda link: site.links.send(link, pack_message(HELLO))
    site.host.on_message = reply


async def asked(
    *upstreams: Address, stopping: asyncio.Event | None = None, say: Callable[[str], None] = lambda line: None
) -> Welcome | None:
    return await join.join(upstreams, REQUEST, stopping=stopping or asyncio.Event(), say=say, chance=lambda: 0.0)


def test_the_first_upstream_that_answers_tells_which_cluster_it_is() -> None:
    async def scenario(first: Site, second: Site) -> None:
        answering(first, lambda: WELCOME)
        answering(second, lambda: WELCOME)
        assert await asked(Address(LOOPBACK, 1), first.address, second.address) == WELCOME
        assert second.host.events == []

    run(scenario)


def test_a_refusal_is_said_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    refused = Refused("denied", "come tomorrow")
    answers: list[Message] = [refused, refused, refused, WELCOME]

    async def scenario(hub: Site) -> None:
        answering(hub, lambda: answers.pop(0))
        assert await asked(hub.address) == WELCOME
        assert [line for line in caplog.messages if "may not join" in line] == ["this node may not join: come tomorrow"]

    run(scenario, 1)


@pytest.mark.parametrize("answer", [None, b"\xc1", b"", Refused("denied", "not here")])
def test_who_is_silent_broken_or_unwilling_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch, answer: Message | bytes | None
) -> None:
    monkeypatch.setattr(join, "ANSWER_S", 0.05)

    async def scenario(first: Site, second: Site) -> None:
        answering(first, lambda: answer or None)
        answering(second, lambda: WELCOME)
        assert await asked(first.address, second.address) == WELCOME
        assert len(first.host.messages) == 1

    run(scenario)


def test_who_waits_says_for_whom_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "PATIENCE_S", 0.0)
    said: list[str] = []

    async def scenario(hub: Site) -> None:
        await hub.listener.close()
        stopping = asyncio.Event()
        joining = asyncio.ensure_future(asked(hub.address, Address(LOOPBACK, 1), stopping=stopping, say=said.append))
        await until(lambda: said)
        stopping.set()
        assert await joining is None
        assert said == [f"waiting for {hub.address} or 127.0.0.1:1 to join its cluster"]

    run(scenario, 1)


def test_nothing_is_said_when_it_takes_no_longer_than_a_moment() -> None:
    said: list[str] = []

    async def scenario(hub: Site) -> None:
        answering(hub, lambda: WELCOME)
        await asked(hub.address, say=said.append)
        assert said == []

    run(scenario, 1)
