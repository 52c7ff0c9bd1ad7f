"""Connections between nodes with real sockets on loopback: order, bounds, ends, and that one peer is none of another's business."""

import asyncio
import random
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from edgekv.limits import PEER_TURN_BYTES, PEER_TURN_MESSAGE_BYTES
from edgekv.net import link
from edgekv.net.complaints import LINES_MAX, Complaints
from edgekv.net.frame import FORMAT, MAGIC, PREFACE, Framing
from tests.unit.net.sites import LOOPBACK, Site, run, until

pytestmark = pytest.mark.usefixtures("each_loop")

LARGE = random.Random(1).randbytes(1 << 20)


async def stranger(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Something that connects and need not be a node."""
    return await asyncio.open_connection(LOOPBACK, site.address.port)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


def test_both_sides_hear_of_each_other_and_messages_arrive_in_order() -> None:
    async def scenario(one: Site, two: Site) -> None:
        await one.links.dial(two.address)
        await until(lambda: one.host.open and two.host.open)
        assert one.host.events == [("connected", 1, True)] and two.host.events == [("connected", 1, False)]
        sent = [b"%d" % i * (1 + 50 * i) for i in range(200)]
        for message in sent:
            one.links.send(1, message)
            two.links.send(1, message[::-1])
        await until(lambda: len(two.host.messages[1]) == len(one.host.messages[1]) == 200)
        assert two.host.messages[1] == sent
        assert one.host.messages[1] == [message[::-1] for message in sent]

    run(scenario)


def test_a_turn_of_the_loop_takes_so_much_and_no_more_of_one_peer() -> None:
    """Clients of the node have their turn in between, however much came at once."""

    async def scenario(one: Site) -> None:
        loop, turn, over = asyncio.get_running_loop(), 0, False

        def tick() -> None:
            nonlocal turn
            turn += 1
            if not over:
                loop.call_soon(tick)

        tick()
        taken: dict[int, list[int]] = {}
        one.host.on_message = lambda _, message: taken.setdefault(turn, []).append(len(message))
        _, writer = await stranger(one)
        framing = Framing()
        large, small = [bytes(1 << 18) + b"%d" % i for i in range(30)], [b"%d" % i for i in range(1_000)]
        writer.write(PREFACE + b"".join(map(framing.frame, large + small)))  # some KiB, on their way
        await until(lambda: len(one.host.messages.get(1, ())) == 1_030)
        assert one.host.messages[1] == large + small
        assert max(map(sum, taken.values())) <= PEER_TURN_BYTES + (1 << 18) + 2
        assert max(map(len, taken.values())) <= PEER_TURN_BYTES // PEER_TURN_MESSAGE_BYTES + 1
        writer.write(framing.frame(b"and on"))
        await until(lambda: one.host.messages[1][-1] == b"and on")
        over = True
        await hang_up(writer)

    run(scenario, 1)


def test_an_end_in_the_middle_of_what_came_at_once_is_the_end() -> None:
    """What waits for its turn is not handed over any more, and the other side's end is seen all the same."""

    async def scenario(one: Site) -> None:
        reader, writer = await stranger(one)
        framing, received = Framing(), one.host.received

        def first(link: int, message: bytes) -> None:
            received(link, message)
            one.links.close(link, "enough")

        one.host.received = first  # type: ignore[method-assign] # a spy
        writer.write(PREFACE + b"".join(framing.frame(bytes(1 << 20)) for _ in range(20)))
        assert (await reader.read()).startswith(PREFACE)
        writer.write_eof()
        await until(lambda: not one.host.open)
        assert len(one.host.messages[1]) == 1
        writer.close()

    run(scenario, 1)


def test_what_was_sent_before_a_close_arrives_and_both_sides_hear_of_the_end_once() -> None:
    async def scenario(one: Site, two: Site) -> None:
        connection = await one.links.dial(two.address)
        await until(lambda: one.host.open and two.host.open)
        two.links.send(1, LARGE)  # unread when the other side closes: a reset would overtake its last words
        for _ in range(10):
            one.links.send(1, LARGE)
        one.links.send(1, b"last words")
        one.links.close(1, "enough")
        one.links.close(1, "again")
        one.links.send(1, b"too late")
        assert one.host.events == [("connected", 1, True)], "nobody is called from inside of close"
        await until(lambda: not one.host.open and not two.host.open)
        assert two.host.messages[1] == [LARGE] * 10 + [b"last words"]
        assert connection.ended.result() == "enough"
        assert one.host.events[1:] == two.host.events[1:] == [("disconnected", 1)]

    run(scenario)


def test_a_host_may_close_and_answer_from_inside_of_what_it_is_told() -> None:
    async def scenario(one: Site, two: Site) -> None:
        def answer(number: int, message: bytes) -> None:
            two.links.send(number, b"no")
            two.links.close(number, "refused")

        two.host.on_message = answer

        def ask(number: int) -> None:
            for i in range(3):
                one.links.send(number, b"%d" % i)

        one.host.on_connected = ask
        await one.links.dial(two.address)
        await until(lambda: two.host.events[-1:] == [("disconnected", 1)] and not one.host.open)
        assert two.host.messages[1] == [b"0"], "what came after its end was not handed over"
        assert one.host.messages[1] == [b"no"]

    run(scenario)


def test_what_is_no_node_hears_the_preface_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(one: Site) -> None:
        reader, writer = await stranger(one)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == PREFACE
        writer.close()
        assert one.host.events == []
        assert "does not speak as a node" in caplog.text
        assert [f"the link with {LOOPBACK} ends: what" in sentence for sentence in one.host.troubles] == [True]

    run(scenario, 1)


def test_a_node_of_another_format_is_hung_up_on_with_both_versions_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(one: Site) -> None:
        reader, writer = await stranger(one)
        writer.write(MAGIC + b"\0\x09")
        assert await reader.read() == PREFACE
        writer.close()
        assert one.host.events == []
        assert f"speaks format 9 of the peer protocol, this one format {FORMAT}" in caplog.text

    run(scenario, 1)


def test_who_tries_a_port_again_and_again_fills_no_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("edgekv.net.links.time", SimpleNamespace(monotonic=lambda: now_s))

    async def scenario(one: Site) -> None:
        nonlocal now_s
        for minute in (1, 2):
            for _ in range(5):
                reader, writer = await stranger(one)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
                writer.close()
            assert len(caplog.messages) == minute
            now_s += 60
        assert len(one.host.troubles) == 10, "the status knows when it was last"

    run(scenario, 1)


def test_the_log_has_so_many_lines_about_connections_a_minute_and_the_number_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    complaints = Complaints(lambda: now_s)
    for i in range(LINES_MAX + 7):
        complaints.say(f"machine {i}")
    assert caplog.messages == [f"machine {i}" for i in range(LINES_MAX)]
    now_s = 60.0
    complaints.say("machine 0")
    assert caplog.messages[LINES_MAX:] == ["7 more lines about other connections were left out", "machine 0"]


def test_who_does_not_greet_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DEAD_S", 0.05)

    async def scenario(one: Site) -> None:
        reader, writer = await stranger(one)
        writer.write(PREFACE[:5])
        assert await reader.read() == PREFACE
        writer.close()
        assert one.host.events == []

    run(scenario, 1)


def test_a_damaged_frame_ends_its_link_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(one: Site, two: Site) -> None:
        await two.links.dial(one.address)
        await until(lambda: one.host.open)
        reader, writer = await stranger(one)
        writer.write(PREFACE + Framing().frame(b"good") + bytes(8))
        await until(lambda: one.host.messages.get(2) == [b"good"])
        assert await reader.read() == PREFACE
        writer.close()
        await until(lambda: one.host.open == [1])
        assert "a frame of 0 bytes was announced" in caplog.text
        one.links.send(1, b"still here")
        await until(lambda: two.host.messages[1] == [b"still here"])

    run(scenario)


def test_a_large_message_on_a_slow_line_is_a_sign_of_life() -> None:
    async def scenario(one: Site) -> None:
        _, writer = await stranger(one)
        frame = Framing().frame(LARGE)
        writer.write(PREFACE + frame[:1000])
        await until(lambda: one.host.parts)
        parts = one.host.parts
        writer.write(frame[1000:2000])
        await until(lambda: one.host.parts > parts)
        writer.write(frame[2000:])
        await until(lambda: one.host.messages[1] == [LARGE])
        await hang_up(writer)

    run(scenario, 1)


def test_a_peer_that_takes_nothing_is_nobody_elses_business() -> None:
    async def scenario(one: Site, two: Site) -> None:
        quiet = socket.create_connection((LOOPBACK, one.address.port))
        quiet.sendall(PREFACE)
        await until(lambda: one.host.open == [1])
        await two.links.dial(one.address)
        await until(lambda: one.host.open == [1, 2])
        for _ in range(20):
            one.links.send(1, LARGE)
            one.links.send(2, LARGE)
        await until(lambda: len(two.host.messages[1]) == 20)
        assert one.host.open == [1, 2]
        quiet.close()

    run(scenario)


def test_a_peer_that_takes_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "DEAD_S", 0.05)

    async def scenario(one: Site) -> None:
        quiet = socket.create_connection((LOOPBACK, one.address.port))
        quiet.sendall(PREFACE)
        await until(lambda: one.host.open == [1])
        for _ in range(20):
            one.links.send(1, LARGE)
        await until(lambda: one.host.open == [])
        assert "takes nothing" in caplog.text
        quiet.close()

    run(scenario, 1)


class Timers:
    """What a connection has of its loop, with a time that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, Callable[[], None], Timer]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, then: Callable[[], None]) -> "Timer":
        timer = Timer()
        self.due.append((self.now_s + seconds, then, timer))
        return timer

    def pass_to(self, until_s: float) -> None:
        while ready := [entry for entry in self.due if entry[0] <= until_s]:
            entry = min(ready, key=lambda entry: entry[0])
            self.due.remove(entry)
            self.now_s = entry[0]
            if not entry[2].cancelled:
                entry[1]()
        self.now_s = until_s


class Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Kernel(asyncio.Transport):
    """Takes as much as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.aborted = False

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


def test_slow_progress_is_enough_and_none_for_the_time_of_a_dead_peer_is_the_end() -> None:
    async def main() -> None:
        links, timers, kernel = Site().links, Timers(), Kernel()
        connection = links.incoming()
        connection._loop = timers  # type: ignore[assignment, misc] # for what it uses of one
        connection.connection_made(kernel)
        connection.data_received(PREFACE)
        connection.send(LARGE)
        connection.pause_writing()
        for second in range(1, 60):
            kernel.waiting -= 1000  # of 1 MiB: it would take a quarter of an hour
            timers.pass_to(second)
            connection.send(b"more")
        timers.pass_to(58 + link.DEAD_S)
        assert not connection.ended.done()
        timers.pass_to(60 + link.DEAD_S)
        assert "takes nothing" in connection.ended.result()
        assert kernel.aborted

    asyncio.run(main())


def test_a_peer_that_took_everything_may_be_sent_nothing_for_ever() -> None:
    async def main() -> None:
        links, timers, kernel = Site().links, Timers(), Kernel()
        connection = links.incoming()
        connection._loop = timers  # type: ignore[assignment, misc] # for what it uses of one
        connection.connection_made(kernel)
        connection.data_received(PREFACE)
        connection.send(LARGE)
        connection.pause_writing()
        kernel.waiting = 0
        connection.resume_writing()
        timers.pass_to(3600)
        assert not kernel.aborted and not connection.ended.done()

    asyncio.run(main())


def test_what_a_peer_may_have_waiting_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "PEER_OUTPUT_BYTES_MAX", 4 << 20)

    async def scenario(one: Site) -> None:
        quiet = socket.create_connection((LOOPBACK, one.address.port))
        quiet.sendall(PREFACE)
        await until(lambda: one.host.open == [1])
        for _ in range(40):
            one.links.send(1, LARGE)
        assert "has not taken 4194304 bytes" in caplog.text
        assert one.host.open == [1], "nobody is called from inside of send"
        await until(lambda: one.host.open == [])
        quiet.close()

    run(scenario, 1)


def test_connections_are_bounded_and_room_is_found_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(one: Site, two: Site) -> None:
        first, second = await two.links.dial(one.address), await two.links.dial(one.address)
        await until(lambda: len(one.host.open) == 2)
        third = await two.links.dial(one.address)
        await third.lost
        assert len(one.host.open) == 2 and "2 connections of other nodes are open; more are refused" in caplog.text
        first.close("to make room")
        await until(lambda: len(one.host.open) == 1)
        fourth = await two.links.dial(one.address)
        await until(lambda: len(one.host.open) == 2)
        assert not second.ended.done() and not fourth.ended.done()

    run(scenario, incoming_max=2)


def test_a_node_that_is_killed_is_a_link_that_breaks() -> None:
    async def scenario(one: Site) -> None:
        _, writer = await stranger(one)
        writer.write(PREFACE + Framing().frame(b"half")[:-1])
        await until(lambda: one.host.open)
        await hang_up(writer)
        await until(lambda: not one.host.open)
        assert one.host.messages[1] == []

    run(scenario, 1)


def test_stopping_does_not_wait_for_a_peer_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekv.net.links.PEER_CLOSE_WAIT_S", 0.05)

    async def scenario(one: Site) -> None:
        quiet = socket.create_connection((LOOPBACK, one.address.port))
        quiet.sendall(PREFACE)
        await until(lambda: one.host.open == [1])
        one.links.send(1, LARGE)
        await one.stop()
        assert one.host.events[-1] == ("disconnected", 1)
        quiet.close()

    run(scenario, 1)
