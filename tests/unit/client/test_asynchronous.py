"""The asynchronous client against a node that misbehaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekv
from edgekv.client.asynchronous import Client
from edgekv.client.calls import RETRIES_MAX
from edgekv.config import Address
from edgekv.errors import EdgeKVError, InvalidRequest, OutcomeUnknown, Unavailable, WrongType
from tests.unit.client.fake_node import FakeNode, Fault

SOON_S = 0.3
LATE_S = 60.0
Use = Callable[[Client], Awaitable[None]]


@asynccontextmanager
async def client(*nodes: FakeNode, deadline_s: float = LATE_S) -> AsyncIterator[Client]:
    addresses = ",".join(str(node.address) for node in nodes)
    async with edgekv.connect(f"edgekv://{addresses}", deadline_s=deadline_s) as db:
        yield db


def nobody() -> Address:
    """An address at which nobody listens."""
    with FakeNode() as gone:
        return gone.address


def once(verb: bytes, fault: Fault | bytes | float) -> Callable[[int, list[bytes]], Fault | bytes | float | None]:
    """The first command of a verb goes wrong, its second attempt does not."""
    waiting = [fault]
    return lambda number, words: waiting.pop() if words[0] == verb and waiting else None


async def outcome(call: Awaitable[object]) -> object:
    """What a call gave, or the error that it ended with."""
    try:
        return await call
    except EdgeKVError as error:
        return error


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_calls_made_together_are_answered_each_with_its_own(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def use() -> None:
        async with client(node) as db:
            await asyncio.gather(*(db.put(f"k{i}", b"%d" % i) for i in range(500)))
            values: list[bytes | None] = list(await asyncio.gather(*(db.get(f"k{i}") for i in range(501))))
            assert values == [*[b"%d" % i for i in range(500)], None]
            assert await db.get_many([f"k{i}" for i in range(3)]) == [b"0", b"1", b"2"]

    with FakeNode() as node, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(use())
    assert node.connections == 1


def test_a_large_value_crosses_many_reads_in_both_directions() -> None:
    async def use() -> None:
        async with client(node) as db:
            await asyncio.gather(*(db.put(f"k{i}", bytes([i]) * 3_000_000) for i in range(5)))
            assert await db.get("k4") == b"\x04" * 3_000_000

    with FakeNode() as node:
        asyncio.run(use())


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.GARBAGE])
@pytest.mark.parametrize("takes_ids", [False, True])
def test_what_may_be_repeated_is_repeated_and_nobody_notices(fault: Fault, takes_ids: bool) -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = once(b"SET", fault)
            await db.put("k", b"v")
            node.script = once(b"GET", fault)
            assert await db.get("k") == b"v"
            node.script = once(b"DEL", fault)
            await db.delete("k")
            assert await db.get("k") is None

    with FakeNode(takes_ids=takes_ids) as node:
        asyncio.run(use())


@pytest.mark.parametrize(("fault", "total"), [(Fault.RESET_BEFORE, 0), (Fault.RESET_AFTER, 1), (Fault.GARBAGE, 1)])
def test_without_ids_the_outcome_of_a_lost_addition_is_unknown_and_it_is_not_repeated(fault: Fault, total: int) -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = once(b"INCRBY", fault)
            with pytest.raises(OutcomeUnknown, match="must not be done twice") as caught:
                await db.counter("n").add()
            assert caught.value.outcome == "unknown"
            assert await db.counter("n").get() == total

    with FakeNode() as node:
        asyncio.run(use())


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.GARBAGE])
def test_with_ids_a_lost_addition_is_repeated_and_counts_once(fault: Fault) -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = once(b"INCRBY", fault)
            assert await db.counter("n").add(5) == 5
            assert await db.counter("n").add(2) == 7

    with FakeNode(takes_ids=True) as node:
        asyncio.run(use())
    assert node.done[b"INCRBY"] == 2


def test_ten_thousand_additions_with_forced_resets_count_exactly() -> None:
    """Every 997th command, retries included, meets a reset, before or after it was done in turn; 64 callers are in flight."""

    def script(number: int, words: list[bytes]) -> Fault | None:
        return (Fault.RESET_BEFORE, Fault.RESET_AFTER)[number // 997 % 2] if number % 997 == 0 else None

    async def use() -> None:
        async def caller() -> None:
            for _ in range(10_000 // 64):
                await db.counter("n").add()

        async with client(node) as db:
            await asyncio.gather(*(caller() for _ in range(64)))
            for _ in range(10_000 % 64):
                await db.counter("n").add()
            assert await db.counter("n").get() == 10_000

    with FakeNode(takes_ids=True) as node:
        node.script = script
        asyncio.run(use())
        assert node.done[b"INCRBY"] == 10_000
        assert node.connections > 10, "the resets happened"


FAULTS = st.sampled_from([None, None, Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.GARBAGE, b"-DENIED no\r\n"])


@settings(max_examples=30)
@given(st.lists(FAULTS, max_size=40), st.booleans(), st.integers(1, 8))
def test_a_sum_lies_between_what_was_acknowledged_and_that_with_what_is_unknown(
    faults: list[Fault | bytes | None], takes_ids: bool, callers: int
) -> None:
    async def use() -> tuple[list[object], int]:
        async with client(node) as db:
            results = await asyncio.gather(*(outcome(db.counter("n").add()) for _ in range(callers)))
            results += [await outcome(db.counter("n").add()) for _ in range(5)]
            waiting.clear()
            return results, await db.counter("n").get()

    waiting = list(faults)
    with FakeNode(takes_ids=takes_ids) as node:
        node.script = lambda number, words: waiting.pop(0) if waiting and words[0] == b"INCRBY" else None
        results, total = asyncio.run(use())
    acknowledged = sum(isinstance(result, int) for result in results)
    unknown = sum(isinstance(result, OutcomeUnknown) for result in results)
    assert acknowledged <= total <= acknowledged + unknown
    denied = any(isinstance(fault, bytes) for fault in faults)
    often = sum(isinstance(fault, Fault) for fault in faults) > RETRIES_MAX
    assert denied or often or not (takes_ids and unknown), "the node that got it first is there, and knows"


def test_when_the_node_is_gone_the_next_address_answers() -> None:
    async def use() -> None:
        async with client(first, second) as db:
            await db.put("k", b"1")
            first.stop()
            await db.put("k", b"2")
            assert await db.get("k") == b"2"

    with FakeNode("a") as first, FakeNode("b") as second:
        asyncio.run(use())
    assert (first.rows, second.rows) == ({b"k": b"1"}, {b"k": b"2"})


def test_an_address_at_which_nobody_listens_is_passed_over() -> None:
    async def use() -> None:
        async with edgekv.connect(f"edgekv://{nobody()},{node.address}", deadline_s=LATE_S) as db:
            await db.put("k", b"1")

    with FakeNode() as node:
        asyncio.run(use())


def test_at_another_node_a_lost_addition_is_unknown_and_never_counted_twice() -> None:
    def reset_and_die(number: int, words: list[bytes]) -> Fault | None:
        if words[0] != b"INCRBY":
            return None
        first.listening_ends()
        return Fault.RESET_AFTER

    async def use() -> None:
        async with client(first, second) as db:
            first.script = reset_and_die
            with pytest.raises(OutcomeUnknown, match="no other knows"):
                await db.counter("n").add()
            assert await db.counter("n").add() == 1

    with FakeNode("a", takes_ids=True) as first, FakeNode("b", takes_ids=True) as second:
        asyncio.run(use())
    assert first.done[b"INCRBY"] == second.done[b"INCRBY"] == 1


def test_additions_of_a_session_that_the_node_forgot_go_on_in_a_new_one() -> None:
    async def use() -> None:
        async with client(node) as db:
            assert await db.counter("n").add() == 1
            node.durable_lsn, node.oldest_stamp = 20, 10
            assert sorted(await asyncio.gather(*(db.counter("n").add() for _ in range(20)))) == list(range(2, 22))
            assert await db.counter("n").add() == 22

    with FakeNode(takes_ids=True) as node:
        asyncio.run(use())
    assert node.connections == 2 and node.done[b"INCRBY"] == 22


def test_an_addition_in_doubt_whose_session_is_forgotten_is_unknown() -> None:
    def forget(number: int, words: list[bytes]) -> Fault | None:
        if words[0] != b"INCRBY" or node.oldest_stamp:
            return None
        node.durable_lsn, node.oldest_stamp = 20, 10
        return Fault.RESET_AFTER

    async def use() -> None:
        async with client(node) as db:
            node.script = forget
            with pytest.raises(OutcomeUnknown, match="forgotten"):
                await db.counter("n").add()
            assert await db.counter("n").add() == 1, "the first one was not done, but nobody knew"

    with FakeNode(takes_ids=True) as node:
        asyncio.run(use())


def test_the_same_address_with_another_node_behind_it_is_another_node() -> None:
    def replace(number: int, words: list[bytes]) -> Fault | None:
        if words[0] != b"INCRBY" or node.name == "new":
            return None
        node.name = "new"
        return Fault.RESET_AFTER

    async def use() -> None:
        async with client(node) as db:
            node.script = replace
            with pytest.raises(OutcomeUnknown):
                await db.counter("n").add()

    with FakeNode("old", takes_ids=True) as node:
        asyncio.run(use())
    assert node.done[b"INCRBY"] == 1


def test_a_node_that_refuses_for_now_sends_the_call_to_the_next_address() -> None:
    async def use() -> None:
        async with client(first, second) as db:
            first.script = lambda number, words: b"-READONLY damaged\r\n" if words[0] in (b"SET", b"INCRBY") else None
            await db.put("k", b"1")
            assert await db.counter("n").add() == 1

    with FakeNode("a", takes_ids=True) as first, FakeNode("b", takes_ids=True) as second:
        asyncio.run(use())
    assert second.rows == {b"k": b"1", b"n": b"1"}


def test_the_calls_that_a_node_still_holds_are_answered_when_others_leave_for_the_next_address() -> None:
    async def use() -> None:
        async with client(first, second) as db:
            await db.put("k", b"here")
            first.script = lambda number, words: b"-UNAVAILABLE closing\r\n" if words[0] == b"SET" else None
            put, get = db.put("k", b"there"), db.get("k")
            assert await get == b"here"
            await put
            while db._exchange._leaving:  # noqa: ASYNC110 - bounded by the test's timeout
                await asyncio.sleep(0)

    with FakeNode("a") as first, FakeNode("b") as second:
        asyncio.run(use())
    assert second.rows == {b"k": b"there"}


def test_a_deadline_ends_a_call_and_says_whether_it_may_have_happened() -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = lambda number, words: Fault.SILENCE if words[0] in (b"SET", b"GET") else None
            hasty = db.within(SOON_S)
            results = await asyncio.gather(outcome(hasty.put("k", b"v")), outcome(hasty.get("k")))
            assert [type(result) for result in results] == [OutcomeUnknown, Unavailable]

    with FakeNode() as node:
        asyncio.run(use())


def test_a_slow_answer_to_a_call_that_has_ended_disturbs_nobody() -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = once(b"GET", SOON_S)
            assert type(await outcome(db.within(SOON_S / 10).get("k"))) is Unavailable
            await db.put("k", b"v")
            assert await db.get("k") == b"v"

    with FakeNode() as node:
        asyncio.run(use())
    assert node.connections == 1, "a short deadline says nothing about the connection"


def test_a_node_that_hangs_for_the_clients_deadline_is_left_for_the_next_address() -> None:
    async def use() -> None:
        async with client(first, second, deadline_s=SOON_S) as db:
            first.script = lambda number, words: Fault.SILENCE
            assert type(await outcome(db.get("k"))) is Unavailable
            await db.put("k", b"v")

    with FakeNode("a") as first, FakeNode("b") as second:
        asyncio.run(use())
    assert second.rows == {b"k": b"v"}


def test_a_node_that_comes_back_within_the_deadline_is_waited_for() -> None:
    async def use() -> None:
        async with client(node) as db:
            await db.put("k", b"1")
            node.stop()
            puts = [db.put(f"k{i}", b"2") for i in range(10)]
            await asyncio.sleep(0)
            node.start()
            await asyncio.gather(*puts)

    with FakeNode() as node:
        asyncio.run(use())
    assert len(node.rows) == 11


def test_when_no_node_answers_nothing_happened_and_the_reason_is_told() -> None:
    async def use() -> None:
        with pytest.raises(Unavailable, match=r"ping did not happen.*refused"):
            await edgekv.connect(f"edgekv://{nobody()}", deadline_s=SOON_S)

    asyncio.run(use())


def test_a_client_that_is_closed_while_it_connects_leaves_nothing_behind() -> None:
    async def use() -> None:
        opening = asyncio.ensure_future(outcome(edgekv.connect(node.url, deadline_s=SOON_S)))
        assert type(await opening) is Unavailable
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with FakeNode() as node:
        node.greeting_answer = b"%1\r\n"  # and nothing follows
        asyncio.run(use())


def test_a_server_that_refuses_the_greeting_is_no_node() -> None:
    async def use() -> None:
        with pytest.raises(Unavailable, match="max number of clients"):
            await edgekv.connect(node.url, deadline_s=SOON_S)

    with FakeNode() as node:
        node.greeting_answer = b"-ERR max number of clients reached\r\n"
        asyncio.run(use())


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.RESET_BEFORE])
def test_a_call_that_ends_every_connection_is_sent_a_bounded_number_of_times(fault: Fault) -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = lambda number, words: fault if words[0] == b"GET" else None
            with pytest.raises(Unavailable, match="connections ended"):
                await db.get("k")

    with FakeNode() as node:
        asyncio.run(use())
    assert node.commands == 1 + 1 + RETRIES_MAX, "a ping, the call, and its retries"


def test_an_error_ends_only_the_call_that_it_answers() -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = once(b"SET", b"-WRONGTYPE no\r\n")
            calls: list[Awaitable[object]] = [db.put("k", b"1"), db.put("k", b"2"), db.get("k")]
            first, *others = await asyncio.gather(*map(outcome, calls))
            assert type(first) is WrongType and others == [None, b"2"]

    with FakeNode() as node:
        asyncio.run(use())
    assert node.connections == 1


def test_what_a_codec_raises_ends_only_its_call() -> None:
    async def use() -> None:
        async with client(node) as db:
            number = db.register("k", edgekv.Codec(lambda value: b"%d" % value, int))
            await number.put(7)
            assert await number.get() == 7
            await db.put("k", b"seven")
            with pytest.raises(ValueError, match="seven"):
                await number.get()
            assert await db.get("k") == b"seven"

    with FakeNode() as node:
        asyncio.run(use())
    assert node.connections == 1


def test_a_caller_that_leaves_takes_its_unsent_call_along_and_no_answer_of_others() -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = once(b"GET", SOON_S)
            sent = db.get("a")
            await asyncio.sleep(0)
            unsent = db.put("never", b"v")
            sent.cancel()
            unsent.cancel()
            await db.put("k", b"v")
            assert await db.get("k") == b"v"

    with FakeNode() as node:
        asyncio.run(use())
    assert node.rows == {b"k": b"v"}


def test_closing_ends_what_waits_and_says_what_is_unknown() -> None:
    async def use() -> None:
        async with client(node) as db:
            node.script = lambda number, words: Fault.SILENCE
            waiting = [asyncio.ensure_future(outcome(call)) for call in (db.put("k", b"v"), db.get("k"))]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            unsent = asyncio.ensure_future(outcome(db.put("k", b"w")))
            await db.close()
            assert [type(await one) for one in waiting] == [OutcomeUnknown, Unavailable]
            assert type(await unsent) is Unavailable
            with pytest.raises(Unavailable, match="closed"):
                await db.get("k")
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert not tasks

    with FakeNode() as node:
        asyncio.run(use())


def test_a_scan_goes_on_at_another_node_where_it_was() -> None:
    """The second node knows no cursor of the first, and has the same keys."""

    def scan(node: FakeNode, cursor: int) -> Callable[[int, list[bytes]], Fault | bytes | None]:
        def script(number: int, words: list[bytes]) -> Fault | bytes | None:
            match words:
                case [b"SCAN", b"0", *_]:
                    return b"*2\r\n$2\r\n%d\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n" % cursor
                case [b"SCAN", at, *_] if int(at) != cursor:
                    return b"-ERR invalid cursor: forgotten\r\n"
                case [b"SCAN", *_]:
                    if node is first:
                        node.listening_ends()
                        return Fault.RESET_BEFORE
                    return b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nc\r\n"
            return None

        return script

    async def use() -> None:
        async with client(first, second) as db:
            assert [key async for key in db.keys("")] == [b"a", b"b", b"c"]

    with FakeNode("a") as first, FakeNode("b") as second:
        first.script, second.script = scan(first, 11), scan(second, 22)
        asyncio.run(use())


def test_a_mistake_in_an_argument_is_told_at_the_call() -> None:
    async def use() -> None:
        async with client(node) as db:
            with pytest.raises(InvalidRequest):
                db.put("k", "text")  # type: ignore[arg-type]

    with FakeNode() as node:
        asyncio.run(use())
