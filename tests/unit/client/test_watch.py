"""Watches of both clients: what they make of pushes, and how they go on when a connection ends, hangs, or is refused."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest

import edgekv
import edgekv.sync
from edgekv.client import watch_line, watch_link
from edgekv.client.watch import Subscription, WatchEvent
from edgekv.client.wire import BrokenConversation, reader
from edgekv.errors import Denied, EdgeKVError, Unavailable
from tests.unit.client.fake_node import FakeNode, Fault

LATE_S = 20.0
SOON_S = 0.3

Follow = Callable[..., list[WatchEvent]]
"""(url, number of events, deadline_s, then what `watch` takes): so many events."""


def message(kind: str, cursor: str, *data: object) -> bytes:
    """One push, as a node sends it."""

    def packed(value: object) -> bytes:
        match value:
            case None:
                return b"_\r\n"
            case int():
                return b":%d\r\n" % value
            case list():
                return b"*%d\r\n" % len(value) + b"".join(map(packed, value))
        text = value if isinstance(value, bytes) else str(value).encode()
        return b"$%d\r\n%b\r\n" % (len(text), text)

    head = b">4\r\n" + b"".join(map(packed, ("edgekv.watch", kind, cursor)))
    return head + b"%%%d\r\n" % (len(data) // 2) + b"".join(map(packed, data))


def put(cursor: str, key: str = "k") -> bytes:
    return message("put", cursor, "key", key, "type", "register", "value", "v")


def follow_async(url: str, count: int, deadline_s: float, *args: Any, **options: Any) -> list[WatchEvent]:
    async def main() -> list[WatchEvent]:
        events: list[WatchEvent] = []
        async with edgekv.connect(url, deadline_s=LATE_S) as db:
            async for event in db.within(deadline_s).watch(*args, **options):
                events.append(event)
                if len(events) == count:
                    break
        return events

    return asyncio.run(main())


def follow_sync(url: str, count: int, deadline_s: float, *args: Any, **options: Any) -> list[WatchEvent]:
    with edgekv.sync.connect(url, deadline_s=LATE_S) as db:
        events = db.within(deadline_s).watch(*args, **options)
        return [next(events) for _ in range(count)]


@pytest.fixture(params=[follow_async, follow_sync], ids=["asynchronous", "synchronous"])
def follow(request: pytest.FixtureRequest) -> Follow:
    found: Follow = request.param
    return found


class Script:
    """What a node does with EDGEKV.WATCH, the first time, the second time..."""

    def __init__(self, *turns: "bytes | Fault") -> None:
        self.turns: Iterator[bytes | Fault] = iter(turns)
        self.asked: list[list[bytes]] = []

    def __call__(self, _number: int, words: list[bytes]) -> "bytes | Fault | None":
        if words[0] != b"EDGEKV.WATCH":
            return None
        self.asked.append(words[1:])
        return next(self.turns)


def test_events_are_what_the_node_pushes(follow: Follow) -> None:
    script = Script(
        b"+OK\r\n"
        + message("cursor", "c0")
        + message("put", "c1", "key", b"\xff", "type", "register", "version", "1-a", "value", b"v", "expiry_ms", 7)
        + message("put", "c2", "key", "m", "type", "map", "fields", ["f", "1", "n", None], "later", "unknown")
        + message("delete", "c3", "key", "s", "type", "set", "elements", ["x"])
        + b">2\r\n$5\r\nother\r\n$1\r\nx\r\n"
        + message("resync", "c4", "phase", "end")
    )
    with FakeNode() as node:
        node.script = script
        assert follow(node.url, 4, LATE_S, "a/", cursor="c") == [
            WatchEvent("put", "c1", b"\xff", "register", "1-a", b"v", 7),
            WatchEvent("put", "c2", b"m", "map", fields={b"f": b"1", b"n": None}),
            WatchEvent("delete", "c3", b"s", "set", elements=[b"x"]),
            WatchEvent("resync", "c4", phase="end"),
        ]
    assert script.asked == [[b"a/", b"CURSOR", b"c"]]


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.GARBAGE])
def test_a_connection_that_ends_is_replaced_and_the_watch_goes_on_behind_what_it_was_sent(
    follow: Follow, fault: Fault
) -> None:
    script = Script(
        fault,
        b"+OK\r\n" + message("cursor", "c0") + b"?what\r\n",
        b"+OK\r\n" + put("c1") + b"?what\r\n",
        fault,
        b"+OK\r\n" + put("c2"),
    )
    with FakeNode() as node:
        node.script = script
        assert [event.cursor for event in follow(node.url, 2, LATE_S)] == ["c1", "c2"]
    assert script.asked == [[b""], [b""], [b"", b"CURSOR", b"c0"], [b"", b"CURSOR", b"c1"], [b"", b"CURSOR", b"c1"]]


def test_another_node_goes_on_where_one_is_gone(follow: Follow) -> None:
    first, second = Script(b"+OK\r\n" + put("c1") + b"?what\r\n"), Script(b"+OK\r\n" + put("c2"))
    with FakeNode("a") as one, FakeNode("b") as other:
        other.script = second

        def once(number: int, words: list[bytes]) -> "bytes | Fault | None":
            answer = first(number, words)
            if answer is not None:
                one.listening_ends()
            return answer

        one.script = once
        assert [event.cursor for event in follow(f"{one.url},{other.address}", 2, LATE_S)] == ["c1", "c2"]
    assert second.asked == [[b"", b"CURSOR", b"c1"]]


def test_a_node_that_has_no_room_for_it_is_left_for_another(follow: Follow) -> None:
    with FakeNode("a") as full, FakeNode("b") as other:
        full.script = Script(*[b"-OVERLOADED 512 watches are open\r\n"] * 100)
        other.script = Script(b"+OK\r\n" + put("c1"))
        assert follow(f"{full.url},{other.address}", 1, LATE_S)[0].cursor == "c1"


def test_a_node_that_falls_silent_is_left(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (watch_link, watch_line):
        monkeypatch.setattr(module, "SILENCE_S", 0.05)
    with FakeNode("a") as hung, FakeNode("b") as other:
        hung.script = Script(*[b"+OK\r\n" + message("cursor", "c0")] * 100)
        other.script = Script(b"+OK\r\n" + put("c1"))
        assert follow(f"{hung.url},{other.address}", 1, LATE_S)[0].cursor == "c1"


def test_a_watch_that_was_quiet_for_longer_than_the_deadline_goes_on_elsewhere(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node pushes its place every 15 s when nothing is written, and deadlines are shorter."""
    for module in (watch_link, watch_line):
        monkeypatch.setattr(module, "SILENCE_S", 2 * SOON_S)
    with FakeNode("a") as hung, FakeNode("b") as other:
        hung.script = Script(b"+OK\r\n" + message("cursor", "c0"))
        other.script = Script(b"+OK\r\n" + put("c1"))
        assert follow(f"{hung.url},{other.address}", 1, SOON_S)[0].cursor == "c1"


def test_what_a_node_refuses_it_with_is_raised(follow: Follow) -> None:
    with FakeNode() as node:
        node.script = Script(b"-DENIED keys below '_meta/' belong to EdgeKV itself\r\n")
        with pytest.raises(Denied, match="belong to EdgeKV"):
            follow(node.url, 1, LATE_S, "_meta/")


def test_without_any_node_the_deadline_ends_it(follow: Follow) -> None:
    with FakeNode() as node:
        node.script = Script(*[Fault.RESET_BEFORE] * 10_000)
        with pytest.raises(Unavailable, match="no node could be watched within"):
            follow(node.url, 1, SOON_S)


def test_closing_the_client_ends_its_watches() -> None:
    async def main() -> None:
        db = await edgekv.connect(node.url, deadline_s=LATE_S)
        events = db.watch()
        assert (await anext(events)).cursor == "c1"
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await db.close()
        with pytest.raises(EdgeKVError, match="closed"):
            await waiting

    with FakeNode() as node:
        node.script = Script(b"+OK\r\n" + put("c1"))
        asyncio.run(main())


def test_a_consumer_that_is_slow_is_not_sent_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_link, "EVENTS_WAITING_MAX", 4)

    async def main() -> list[str]:
        async with edgekv.connect(node.url, deadline_s=LATE_S) as db:
            cursors: list[str] = []
            async for event in db.watch():
                cursors.append(event.cursor)
                await asyncio.sleep(0)
                if len(cursors) == 1000:
                    break
            return cursors

    with FakeNode() as node:
        node.script = Script(b"+OK\r\n" + b"".join(put(f"c{i}") for i in range(1000)))
        assert asyncio.run(main()) == [f"c{i}" for i in range(1000)]


class Socket(asyncio.Transport):
    """Only remembers whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def test_a_link_is_not_read_from_while_more_waits_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_link, "EVENTS_WAITING_MAX", 4)

    async def main() -> None:
        link, transport = watch_link.WatchLink(Subscription("", "")), Socket()
        link.connection_made(transport)
        link.data_received(b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n*1\r\n_\r\n$0\r\n\r\n+OK\r\n")
        link.data_received(b"".join(put(f"c{i}") for i in range(6)))
        reading = [transport.reading]
        taken = [await link.next() for _ in range(7)]
        assert [*reading, transport.reading] == [False, True]
        assert [event.cursor for event in taken if event] == [f"c{i}" for i in range(6)]

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        ("key", 5),
        ("key", "k", "type", "set", "elements", "x"),
        ("key", "k", "type", "map", "fields", ["f"]),
        ("key", "k", "expiry_ms", "soon"),
    ],
)
def test_an_event_that_cannot_be_read_breaks_the_conversation(data: tuple[object, ...]) -> None:
    parser = reader()
    parser.feed(message("put", "c1", *data))
    with pytest.raises(BrokenConversation):
        Subscription("", "").take(parser.gets())


def test_what_nobody_asked_for_breaks_the_conversation() -> None:
    subscription = Subscription("", "")
    assert subscription.take(b"OK") is None and subscription.begun
    for reply in (b"OK", hiredis.PushNotification([b"edgekv.watch", b"put", b"c1"])):
        with pytest.raises(BrokenConversation):
            subscription.take(reply)
