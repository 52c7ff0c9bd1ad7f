"""``edgekv bench``: load a running node over RESP and print rates and latencies.

One process, non-blocking sockets, one batch of ``--pipeline`` commands in flight per connection; a latency is the time from
sending a batch to its last reply. It measures a node as a client sees it, and itself: above some 200,000 commands a second this
program is the limit, and redis-benchmark (docs/BENCHMARKS.md) the better judge.
"""

import random
import selectors
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

import click

from edgekv.cli.options import Output, output_option, print_json, print_table, resp_option
from edgekv.cli.resp_client import PENDING, RespConnection, command
from edgekv.config import Address
from edgekv.errors import EdgeKVError, Unavailable

SILENCE_MAX_S: Final = 30.0
TESTS: Final = ("set", "get", "incr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send."""

    address: Address
    requests: int
    connections: int
    pipeline: int
    value_bytes: int
    keys: int


class Outcome(NamedTuple):
    """What came back of one test."""

    test: str
    requests: int
    seconds: float
    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Client:
    """One connection with at most one batch in flight."""

    __slots__ = ("connection", "latencies", "sent_at", "waiting")

    def __init__(self, connection: RespConnection, latencies: list[float]) -> None:
        self.connection = connection
        self.latencies = latencies
        self.waiting = 0
        self.sent_at = 0.0

    def send(self, batch: list[bytes]) -> None:
        """Send a batch. It may block for a moment: the node reads while its replies wait."""
        self.waiting = len(batch)
        self.sent_at = time.perf_counter()
        self.connection.send(b"".join(batch))

    def receive(self) -> bool:
        """Take what has arrived; True when the batch is complete."""
        self.connection.receive()
        while self.waiting and self.connection.reply_nowait() is not PENDING:
            self.waiting -= 1
        if self.waiting:
            return False
        self.latencies.append(time.perf_counter() - self.sent_at)
        return True


@click.command()
@click.option(
    "--test",
    "tests",
    type=click.Choice(TESTS),
    multiple=True,
    envvar="EDGEKV_BENCH_TEST",
    help="Default: set, then get. Repeatable.",
)
@click.option("--requests", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--connections", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option(
    "--pipeline", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Commands in flight each."
)
@click.option("--value-bytes", type=click.IntRange(1, 1 << 20), default=100, show_default=True)
@click.option(
    "--keys", type=click.IntRange(min=1), default=100_000, show_default=True, help="Random keys below bench/."
)
@output_option
@resp_option
def bench(
    tests: tuple[str, ...],
    requests: int,
    connections: int,
    pipeline: int,
    value_bytes: int,
    keys: int,
    output: Output,
    resp: Address,
) -> None:
    """Load a running node. It writes keys that begin with bench/ and leaves them there.

    \b
    edgekv bench
    edgekv bench --pipeline 16 --requests 1000000 --keys 1000000
    edgekv bench --test get -o json
    """
    load = Load(
        address=resp,
        requests=requests,
        connections=connections,
        pipeline=pipeline,
        value_bytes=value_bytes,
        keys=keys,
    )
    try:
        outcomes = [measure(load, test) for test in tests or ("set", "get")]
    except EdgeKVError as error:
        raise type(error)(f"{error} (the test is not complete)") from error
    if output == "json":
        print_json([outcome._asdict() for outcome in outcomes])
        return
    rows = [
        (
            outcome.test,
            outcome.requests,
            f"{outcome.seconds:.2f}",
            f"{outcome.per_s:,.0f}",
            *(f"{latency:.2f}" for latency in (outcome.p50_ms, outcome.p99_ms, outcome.max_ms)),
        )
        for outcome in outcomes
    ]
    print_table(("TEST", "REQUESTS", "SECONDS", "PER SECOND", "P50 MS", "P99 MS", "MAX MS"), rows)


def measure(load: Load, test: str) -> Outcome:
    """Run one test to its end."""
    latencies: list[float] = []
    dice = random.Random(load.requests)
    value = bytes(dice.randrange(33, 127) for _ in range(load.value_bytes))
    with ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())
        clients = [
            Client(opened.enter_context(RespConnection(load.address, SILENCE_MAX_S)), latencies)
            for _ in range(load.connections)
        ]
        left = load.requests
        busy = 0
        started = time.perf_counter()
        for client in clients:
            selector.register(client.connection, selectors.EVENT_READ, client)
            if left:
                size = min(load.pipeline, left)
                client.send(_batch(test, size, value, load.keys, dice))
                left, busy = left - size, busy + 1
        while busy:
            ready = selector.select(SILENCE_MAX_S)
            if not ready:
                raise Unavailable(f"no reply for {SILENCE_MAX_S:.0f} s")
            for key, _ in ready:
                client = key.data
                if not client.receive():
                    continue
                size = min(load.pipeline, left)
                if size:
                    client.send(_batch(test, size, value, load.keys, dice))
                    left -= size
                else:
                    busy -= 1
        seconds = time.perf_counter() - started
    return _outcome(test, load.requests, seconds, latencies)


def _batch(test: str, size: int, value: bytes, keys: int, dice: random.Random) -> list[bytes]:
    names = [b"bench/%012d" % dice.randrange(keys) for _ in range(size)]
    if test == "set":
        return [command(b"SET", name, value) for name in names]
    if test == "incr":
        return [command(b"INCR", b"bench/counter/" + name) for name in names]
    return [command(b"GET", name) for name in names]


def _outcome(test: str, requests: int, seconds: float, latencies: list[float]) -> Outcome:
    latencies.sort()

    def at(fraction: float) -> float:
        return latencies[min(len(latencies) - 1, int(fraction * len(latencies)))] * 1e3

    return Outcome(test, requests, seconds, requests / seconds, at(0.5), at(0.99), latencies[-1] * 1e3)
