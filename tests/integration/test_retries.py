"""Additions over connections that are reset, and to a node that is killed: each counts once, and knows its own sum."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import edgekv
import edgekv.sync
from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection
from edgekv.config import Address
from tests.integration.cutting_proxy import CuttingProxy
from tests.integration.ledger import PATIENCE_S

CALLS = 10_000
CALLS_KILLED = 1_500
CALLS_PER_KILL = 300
CALLERS = 8
LATE_S = 120.0
SMALL = ("--memory-bytes", str(64 << 20))


async def add_async(address: Address, calls: int, done: threading.Semaphore) -> list[int]:
    """What each of so many additions returned."""

    async def caller(db: edgekv.Client) -> list[int]:
        sums = []
        for _ in range(calls // CALLERS):
            sums.append(await db.counter("n").add())
            done.release()
        return sums

    async with edgekv.connect(f"edgekv://{address}", deadline_s=LATE_S) as db:
        return [total for sums in await asyncio.gather(*(caller(db) for _ in range(CALLERS))) for total in sums]


def add_sync(address: Address, calls: int, done: threading.Semaphore) -> list[int]:
    """The same by threads."""

    def caller(db: edgekv.sync.Client) -> list[int]:
        sums = []
        for _ in range(calls // CALLERS):
            sums.append(db.counter("n").add())
            done.release()
        return sums

    with (
        edgekv.sync.connect(f"edgekv://{address}", deadline_s=LATE_S) as db,
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        return [total for sums in threads.map(caller, [db] * CALLERS) for total in sums]


def add(client: str, address: Address, calls: int, done: threading.Semaphore) -> list[int]:
    return add_sync(address, calls, done) if client == "sync" else asyncio.run(add_async(address, calls, done))


def total(node: NodeProcess) -> object:
    with RespConnection(node.resp, PATIENCE_S) as connection:
        return connection.call(b"GET", b"n")


@pytest.mark.parametrize("client", ["async", "sync"])
def test_ten_thousand_additions_over_connections_that_are_cut_at_any_point_count_once_each(
    tmp_path: Path, client: str
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with NodeProcess(tmp_path / "data", *SMALL) as node, CuttingProxy(node.resp, seed) as proxy:
        sums = add(client, proxy.address, CALLS, threading.Semaphore(0))
        print(proxy.cuts)
        assert min(proxy.cuts.values()) > 10
        assert sorted(sums) == list(range(1, CALLS + 1)) and total(node) == b"%d" % CALLS
        repeated = info(node)["operations_repeated"]
        assert repeated > 0, "some were carried out, and their replies were lost"


@pytest.mark.parametrize("applier", ["process", "inline"])
@pytest.mark.parametrize("client", ["async", "sync"])
def test_additions_to_a_node_that_is_killed_again_and_again_count_once_each(
    tmp_path: Path, client: str, applier: str
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    done = threading.Semaphore(0)
    with (
        NodeProcess(tmp_path / "data", *SMALL, "--applier", applier) as node,
        CuttingProxy(node.resp, seed) as proxy,
        ThreadPoolExecutor(1) as threads,
    ):
        adding = threads.submit(add, client, proxy.address, CALLS_KILLED, done)
        for _ in range(CALLS_KILLED // CALLS_PER_KILL - 1):
            for _ in range(CALLS_PER_KILL):
                assert done.acquire(timeout=LATE_S)
            node.kill()
            node.start()
            proxy.target = node.resp
        sums = adding.result(LATE_S)
        assert sorted(sums) == list(range(1, len(sums) + 1)) and total(node) == b"%d" % len(sums)


def info(node: NodeProcess) -> dict[str, int]:
    with RespConnection(node.resp, PATIENCE_S) as connection:
        text = connection.call(b"INFO", b"edgekv")
    assert isinstance(text, bytes)
    fields = (line.partition(":") for line in text.decode().splitlines())
    return {name: int(value) for name, _, value in fields if value.isdecimal()}
