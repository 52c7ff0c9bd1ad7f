"""The client library against real nodes, and the node inside the process."""

import asyncio
import gc
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

import edgekv
import edgekv.sync
from edgekv.cli.node_process import NodeProcess
from edgekv.client.asynchronous import Verbs
from edgekv.errors import (
    ConfigError,
    Denied,
    DirectoryInUse,
    InvalidRequest,
    NotANumber,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
    WrongType,
)

LATE_S = 60.0
SMALL = ("--memory-bytes", str(64 << 20))
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "CLIENT.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    place = tmp_path_factory.mktemp("client")
    config = place / "edgekv.toml"
    config.write_text('[[keyspace]]\nprefix = "doc/"\nname = "documents"\nconflict = "siblings"\n')
    with NodeProcess(place / "data", "--config", str(config), *SMALL) as running:
        yield running


def url(*nodes: NodeProcess) -> str:
    return "edgekv://" + ",".join(str(node.resp) for node in nodes)


Use = Callable[[Verbs], Coroutine[Any, Any, None]]
On = Callable[[Use], None]


@pytest.fixture(params=["socket", "inside"])
def on(request: pytest.FixtureRequest, node: NodeProcess, tmp_path: Path) -> On:
    """Runs a test on an empty store: of a node behind a socket, and of one inside the process."""

    async def run(use: Use) -> None:
        if request.param == "socket":
            async with edgekv.connect(url(node), deadline_s=LATE_S) as db:
                keys = [key async for key in db.keys()]  # noqa: SIM118 - no dict
                if keys:
                    await db.delete(*keys)
                await use(db)
        else:
            async with edgekv.open(tmp_path / "data", deadline_s=LATE_S, memory_bytes=64 << 20) as inside:
                await use(inside)

    return lambda use: asyncio.run(run(use))


# -- what works whatever the keys hold


def test_values_keys_and_their_expiry(on: On) -> None:
    async def use(db: Verbs) -> None:
        assert await db.get("k") is None
        await db.put("k", b"v")
        assert await db.get("k") == await db.get(b"k") == b"v"
        await db.put_many({"a": b"1", b"\xff\x00": b"2"})
        assert await db.get_many([b"\xff\x00", "none", "a"]) == [b"2", None, b"1"]
        assert await db.exists("a", "none", "k") == 2
        assert await db.ttl("k") is None
        assert await db.expire("k", 100) and 99 < (await db.ttl("k") or 0) <= 100
        assert await db.persist("k") and await db.ttl("k") is None
        await db.put("brief", b"v", ttl_s=500)
        assert 499 < (await db.ttl("brief") or 0) <= 500
        assert not await db.expire("none", 1)
        assert await db.append("log", b"ab") == 2 and await db.append("log", b"cd") == 4
        assert await db.delete("k", "none", "a") == 2
        assert await db.get("k") is None

    on(use)


def test_counters(on: On) -> None:
    async def use(db: Verbs) -> None:
        visits = db.counter("door/visits")
        assert await visits.get() == 0
        assert sorted(await asyncio.gather(*(visits.add() for _ in range(100)))) == list(range(1, 101))
        assert await visits.add(-40) == 60 and await visits.get() == 60
        await visits.reset()
        assert await visits.get() == 0 and await visits.add(2) == 2
        await db.put("text", b"abc")
        with pytest.raises(NotANumber):
            await db.counter("text").add()
        with pytest.raises(WrongType):
            await db.counter("text").get()

    on(use)


def test_walks_are_in_order_and_a_prefix_is_taken_as_it_is(on: On) -> None:
    async def use(db: Verbs) -> None:
        await asyncio.gather(*(db.put(f"room/{i:04d}", b"%d" % i) for i in range(1234)))
        await db.put("room*", b"star")
        await db.put("root", b"other")
        assert [entry async for entry in db.scan("room/")] == [(b"room/%04d" % i, b"%d" % i) for i in range(1234)]
        assert [key async for key in db.keys("room*")] == [b"room*"]
        assert len([key async for key in db.keys()]) == 1236  # noqa: SIM118 - no dict

    on(use)


def test_a_batch_of_puts_is_one_change(on: On) -> None:
    async def use(db: Verbs) -> None:
        assert await db.batch().put("a", b"1").put("b", b"2").put("a", b"3").commit() == [None, None, None]
        assert await db.get_many(["a", "b"]) == [b"3", b"2"]

    on(use)


def test_registers_have_values_of_their_codec(on: On) -> None:
    async def use(db: Verbs) -> None:
        settings = db.register("cfg", edgekv.Codec(lambda value: json.dumps(value).encode(), json.loads))
        assert await settings.get() is None
        await settings.put({"volume": 7})
        assert await settings.get() == {"volume": 7}
        assert await db.register("cfg").get() == b'{"volume": 7}'
        assert await settings.delete() == 1

    on(use)


def test_refusals_are_the_errors_of_the_taxonomy(on: On) -> None:
    async def use(db: Verbs) -> None:
        with pytest.raises(InvalidRequest, match="empty"):
            await db.put("", b"v")
        with pytest.raises(TooLarge):
            await db.get("k" * 5000)
        with pytest.raises(TooLarge):
            await db.put("k", bytes(20 << 20))
        with pytest.raises(Denied):
            await db.put(b"_meta/x", b"v")
        assert await db.get("k") is None, "and the connection goes on"

    on(use)


def test_a_write_is_durable_when_its_await_returns(tmp_path: Path) -> None:
    async def use(own: NodeProcess) -> None:
        async with edgekv.connect(url(own), deadline_s=LATE_S) as db:
            await asyncio.gather(*(db.put(f"k{i}", b"v") for i in range(1000)))
            own.kill()

    with NodeProcess(tmp_path / "data", *SMALL) as own:
        asyncio.run(use(own))
        own.start()
        with edgekv.sync.connect(url(own)) as db:
            assert len(list(db.keys())) == 1000


def test_writers_go_on_at_the_second_node_when_the_first_is_killed(tmp_path: Path) -> None:
    async def use() -> None:
        async with edgekv.connect(url(first, second), deadline_s=LATE_S) as db:
            await db.put("before", b"1")
            async with asyncio.TaskGroup() as group:
                for caller in range(16):
                    group.create_task(write(db, caller))
                first.kill()

    async def write(db: Verbs, caller: int) -> None:
        for number in range(50):
            await db.put(f"{caller}/{number}", b"v")

    with NodeProcess(tmp_path / "a", *SMALL) as first, NodeProcess(tmp_path / "b", *SMALL) as second:
        asyncio.run(use())
        with edgekv.sync.connect(url(second)) as db:
            assert db.exists(*(f"{caller}/49" for caller in range(16))) == 16


def test_the_synchronous_client_says_the_same(node: NodeProcess) -> None:
    with edgekv.sync.connect(url(node), deadline_s=LATE_S) as db:
        db.put("sync/k", b"v")
        assert db.get("sync/k") == b"v" and db.within(5).get_many(["sync/k"]) == [b"v"]
        assert db.counter("sync/n").add(3) == 3
        db.put_many({f"sync/page/{i:03d}": b"v" for i in range(250)})
        assert len(list(db.scan("sync/page/"))) == 250
        assert db.batch().put("sync/a", b"1").commit() == [None]
        with pytest.raises(InvalidRequest):
            db.put("", b"v")


# -- sets, maps, batches


def test_sets(on: On) -> None:
    async def use(db: Verbs) -> None:
        alarms = db.set("alarms")
        assert await alarms.add("door", b"\xff", "door") == 2
        assert await alarms.add("door") == 0
        assert await alarms.contains("door") and not await alarms.contains("window")
        assert await alarms.contains_each(["window", "door"]) == [False, True]
        assert await alarms.members() == {b"door", b"\xff"} and await alarms.len() == 2
        assert await alarms.remove("door", "window") == 1
        assert await alarms.members() == {b"\xff"}
        assert await db.delete("alarms") == 1 and await alarms.members() == set()

    on(use)


def test_maps(on: On) -> None:
    async def use(db: Verbs) -> None:
        line = db.map("line/7")
        await line.put("state", b"running")
        await line.update({"operator": b"eva", b"\xff": b""})
        assert await line.get("state") == b"running" and await line.get("none") is None
        assert sorted(await asyncio.gather(*(line.add("parts") for _ in range(50)))) == list(range(1, 51))
        assert await line.add("parts", -8) == 42
        assert await line.items() == {b"state": b"running", b"operator": b"eva", b"\xff": b"", b"parts": b"42"}
        assert await line.len() == 4 and await line.contains("state")
        assert await line.remove("state", "none") == 1 and not await line.contains("state")

    on(use)


def test_a_type_is_not_taken_for_another(on: On) -> None:
    async def use(db: Verbs) -> None:
        await db.set("s").add("m")
        with pytest.raises(WrongType):
            await db.get("s")
        with pytest.raises(WrongType):
            await db.map("s").get("f")
        assert [key async for key in db.keys()] == [b"s"]  # noqa: SIM118 - no dict
        assert [entry async for entry in db.scan()] == []

    on(use)


def test_a_batch_of_anything_is_one_change(on: On) -> None:
    async def use(db: Verbs) -> None:
        await db.put("old", b"v")
        results = await db.batch().put("a", b"1", ttl_s=100).delete("old").delete("none").add("n", 5).add("n").commit()
        assert results == [None, 1, 0, 5, 6]
        assert await db.get_many(["a", "old", "n"]) == [b"1", None, b"6"] and await db.ttl("a") is not None

    on(use)


def test_a_batch_that_is_refused_says_why_and_does_nothing(on: On) -> None:
    async def use(db: Verbs) -> None:
        await db.put("text", b"abc")
        with pytest.raises(NotANumber, match="operation 1"):
            await db.batch().delete("none").add("text").commit()
        await db.put("full", b"%d" % ((1 << 63) - 1))
        with pytest.raises(NotANumber, match="operation 1"):
            await db.batch().add("n").add("full").commit()
        await db.set("s").add("m")
        with pytest.raises(WrongType):
            await db.batch().add("n").add("s").commit()
        assert await db.get_many(["text", "n"]) == [b"abc", None]

    on(use)


def test_additions_through_kills_of_the_node_count_once(tmp_path: Path) -> None:
    """The node is killed and started again, on the same address, three times during 3,000 additions of 30 callers."""
    sums: list[int] = []

    async def use(node: NodeProcess) -> int:
        async with edgekv.connect(url(node), deadline_s=LATE_S) as db:
            async with asyncio.TaskGroup() as group:
                for _ in range(30):
                    group.create_task(add(db))
                for done in (500, 1200, 2100):
                    while await db.counter("n").get() < done:
                        pass
                    await asyncio.to_thread(restart, node)
            return await db.counter("n").get()

    async def add(db: Verbs) -> None:
        for _ in range(100):
            sums.append(await db.counter("n").add())

    def restart(node: NodeProcess) -> None:
        port = node.resp.port
        node.kill()
        node._arguments = (*SMALL, "--resp", f"127.0.0.1:{port}")  # the last one given is in force
        node.start()

    with NodeProcess(tmp_path / "data", *SMALL) as node:
        total = asyncio.run(use(node))
    assert total == 3000 and sorted(sums) == list(range(1, 3001)), "each has a sum of its own"


def test_an_addition_is_not_tried_at_another_node(tmp_path: Path) -> None:
    """Its node dies with the answer on the way; the next address has a node, which cannot know. One that was not sent goes there."""

    async def use(first: NodeProcess, second: NodeProcess) -> None:
        async with edgekv.connect(url(first, second), deadline_s=LATE_S) as db:
            assert await db.counter("n").add() == 1
            os.kill(first.pid, signal.SIGSTOP)
            adding = asyncio.ensure_future(db.counter("n").add())
            await asyncio.sleep(0)  # it is written in the next turn
            await asyncio.sleep(0)
            first.kill()
            with pytest.raises(OutcomeUnknown, match="no other knows"):
                await adding
            assert await db.counter("n").add() == 1

    with NodeProcess(tmp_path / "a", *SMALL) as first, NodeProcess(tmp_path / "b", *SMALL) as second:
        asyncio.run(use(first, second))


# -- the node inside the process


def test_an_embedded_store_needs_no_operation_ids(tmp_path: Path) -> None:
    async def use() -> None:
        async with edgekv.open(tmp_path / "data") as db:
            assert [await db.counter("n").add() for _ in range(3)] == [1, 2, 3]
            assert db.status()["operation_sessions"] == 0

    asyncio.run(use())


@pytest.mark.parametrize("applier", ["process", "inline"])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_embedded_store_is_there_again_when_it_is_opened_again(
    tmp_path: Path, applier: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def write() -> None:
        db = await edgekv.open(tmp_path / "data", applier=applier)
        await asyncio.gather(*(db.put(f"k{i}", b"%d" % i) for i in range(1000)))
        await db.close()
        with pytest.raises(Unavailable, match="closed"):
            await db.put("k", b"v")

    async def read() -> None:
        async with edgekv.open(tmp_path / "data", applier=applier) as db:
            assert await db.get("k999") == b"999"
            assert await db.counter("k999").add() == 1000

    for use in (write, read):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(use())


def test_an_embedded_store_leaves_the_application_its_signals_collector_and_tasks(tmp_path: Path) -> None:
    async def use() -> None:
        before = gc.get_threshold(), signal.getsignal(signal.SIGTERM), sys.getswitchinterval(), asyncio.all_tasks()
        async with edgekv.open(tmp_path / "data") as db:
            await db.put("k", b"v")
            assert (gc.get_threshold(), signal.getsignal(signal.SIGTERM)) == before[:2]
        after = gc.get_threshold(), signal.getsignal(signal.SIGTERM), sys.getswitchinterval(), asyncio.all_tasks()
        assert after == before

    asyncio.run(use())


def test_a_directory_that_is_open_is_refused_and_a_wrong_setting_is_told(tmp_path: Path) -> None:
    async def use() -> None:
        async with edgekv.open(tmp_path / "data"):
            with pytest.raises(DirectoryInUse):
                await edgekv.open(tmp_path / "data")
        with pytest.raises(ConfigError, match="colour"):
            edgekv.open(tmp_path / "data", colour="red")

    asyncio.run(use())


def test_a_read_waits_for_the_write_that_it_sees(tmp_path: Path) -> None:
    """What is not durable is not shown: with the write still on its way, the read's future is not done at once."""

    async def use() -> None:
        async with edgekv.open(tmp_path / "data") as db:
            put, get = db.put("k", b"v"), db.get("k")
            assert not get.done()
            assert await get == b"v" and put.done()
            assert db.get("k").done(), "now it is durable"

    asyncio.run(use())


def test_a_caller_that_only_reads_lets_others_run(tmp_path: Path) -> None:
    async def use() -> None:
        async with edgekv.open(tmp_path / "data") as db:
            await db.put("k", b"v")
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(other())
            for _ in range(10_000):
                await db.get("k")
            task.cancel()
            assert turns >= 100

    asyncio.run(use())


def test_closing_ends_writes_with_an_answer(tmp_path: Path) -> None:
    async def use() -> None:
        db = await edgekv.open(tmp_path / "data")
        puts = [asyncio.ensure_future(db.put(f"k{i}", b"v")) for i in range(100)]
        await asyncio.sleep(0)
        await db.close()
        ended = await asyncio.gather(*puts, return_exceptions=True)
        assert all(one is None or isinstance(one, OutcomeUnknown | Unavailable) for one in ended)
        async with edgekv.open(tmp_path / "data") as again:
            values = await again.get_many([f"k{i}" for i in range(100)])
        assert all(value == b"v" for value, one in zip(values, ended, strict=True) if one is None)

    asyncio.run(use())


# -- the guide


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example {number}" for number in range(1, len(EXAMPLES) + 1)])
def test_the_examples_of_the_guide_run(
    example: str, node: NodeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for the address: they are whole programs, and assert what they show."""
    monkeypatch.chdir(tmp_path)
    program = example.replace("127.0.0.1:7481", str(node.resp))
    exec(compile(program, str(GUIDE), "exec"), {"__name__": "__main__"})


def test_the_guide_has_examples() -> None:
    assert len(EXAMPLES) >= 5
