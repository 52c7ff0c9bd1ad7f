"""The Python clients: edgekv on a node against redis-py on Redis, both durable, and the embedded store against an empty loop.

Expected: an awaited call of `edgekv` is a future and a place in a deque (2 to 3 µs), of redis-py's asyncio client a connection from
a pool, a coroutine per layer and a read of its own (about 100 µs). So with 64 callers edgekv's process waits for the node, and
redis-py's is busy. For one synchronous caller the disk decides, and GET shows what the clients themselves cost. Embedded, 64 callers
share each fdatasync; an empty loop, in which a callback resolves the futures of 64 callers, is what asyncio allows at best.

Redis runs with `appendfsync always`. Both servers are up during the whole run on directories of their own, and what is compared
alternates.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis
import redis.asyncio
import uvloop

import edgekv
import edgekv.sync
from bench import servers, status
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import Ratio, Spread
from bench.servers import Server
from edgekv.config import Address
from edgekv.limits import SPARE_SEGMENTS

CALLERS: Final = 64
KEYS: Final = 10_000
VALUE: Final = b"x" * 100
ASYNC_BAR: Final = 1.5
SYNC_BAR: Final = 1.1
EMBEDDED_BAR: Final = 0.4
EMBEDDED_GET_BAR: Final = 300_000
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

Call = Callable[[str], Awaitable[object]]
Samples = dict[str, list[float]]

_KEYS: Final = [f"key:{number:06d}" for number in range(KEYS)]
_SETTLE_POLL_S: Final = 0.05


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    seconds = 1.0 if arguments.quick else 5.0
    calls = 500 if arguments.quick else 3_000
    with measured_run(arguments) as run:
        with _servers(run) as (node, other):
            concurrent = _concurrent(node.resp_address(), other.resp_address(), rounds, seconds)
            single = _single(node.resp_address(), other.resp_address(), rounds, calls)
        embedded = _embedded(run, rounds, seconds)
        save(
            "clients",
            quick=run.quick,
            machine_description=run.machine,
            settings={
                "callers": CALLERS,
                "keys": KEYS,
                "value_bytes": len(VALUE),
                "rounds": rounds,
                "seconds": seconds,
                "single_calls": calls,
                "redis_py": redis.__version__,
            },
            measurements={"concurrent_per_s": concurrent, "single_p50_us": single, "embedded_per_s": embedded},
            tables=[
                _concurrent_table(concurrent),
                _single_table(single),
                _embedded_table(embedded, run.machine["fdatasync_p50_ms"]),
            ],
        )


@contextmanager
def _servers(run: Run) -> Iterator[tuple[Server, Server]]:
    with (
        run.data_directory("edgekv") as ours,
        run.data_directory("redis") as theirs,
        servers.node(ours) as node,
        servers.redis(theirs) as other,
    ):
        status.wait_settled(node)
        yield node, other
        node.check_alive()
        other.check_alive()


# -- many callers on one loop


def _concurrent(node: Address, other: Address, rounds: int, seconds: float) -> Samples:
    found: Samples = {}
    for index in range(rounds):
        for loop, factory in LOOPS.items():
            legs: dict[str, Callable[[], Coroutine[Any, Any, float]]] = {
                f"edgekv put, {loop}": lambda: _edgekv_leg(node, seconds, "put"),
                f"redis-py put, {loop}": lambda: _redis_leg(other, seconds, "put"),
                f"edgekv get, {loop}": lambda: _edgekv_leg(node, seconds, "get"),
                f"redis-py get, {loop}": lambda: _redis_leg(other, seconds, "get"),
            }
            for name, leg in legs.items():
                _note(found, index, name, _on(factory, leg))
    return found


async def _edgekv_leg(address: Address, seconds: float, verb: str) -> float:
    async with edgekv.connect(_url(address)) as db:
        return await _drive((lambda key: db.put(key, VALUE)) if verb == "put" else db.get, seconds)


async def _redis_leg(address: Address, seconds: float, verb: str) -> float:
    async with redis.asyncio.Redis(host=address.host, port=address.port) as db:
        return await _drive((lambda key: db.set(key, VALUE)) if verb == "put" else db.get, seconds)


async def _drive(call: Call, seconds: float) -> float:
    """Calls per second of callers that each have one in flight."""
    done = 0
    started = time.perf_counter()
    end = started + seconds

    async def caller(first: int) -> None:
        nonlocal done
        at = first * (KEYS // CALLERS)
        while time.perf_counter() < end:
            await call(_KEYS[at % KEYS])
            at += 1
            done += 1

    async with asyncio.TaskGroup() as group:
        for first in range(CALLERS):
            group.create_task(caller(first))
    return done / (time.perf_counter() - started)


# -- one caller that waits


def _single(node: Address, other: Address, rounds: int, calls: int) -> Samples:
    found: Samples = {}
    with edgekv.sync.connect(_url(node)) as ours, redis.Redis(host=other.host, port=other.port) as theirs:
        for index in range(rounds):
            _note(found, index, "edgekv put", _p50_us(lambda key: ours.put(key, VALUE), calls))
            _note(found, index, "redis-py put", _p50_us(lambda key: theirs.set(key, VALUE), calls))
            _note(found, index, "edgekv get", _p50_us(ours.get, calls))
            _note(found, index, "redis-py get", _p50_us(theirs.get, calls))
    return found


def _p50_us(call: Callable[[str], object], calls: int) -> float:
    times = []
    for number in range(calls):
        started = time.perf_counter()
        call(_KEYS[number % KEYS])
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


# -- the node inside the process


def _embedded(run: Run, rounds: int, seconds: float) -> Samples:
    found: Samples = {}
    for loop, factory in LOOPS.items():
        with run.data_directory("embedded") as directory:
            _on(factory, lambda: _embedded_legs(str(directory / "data"), loop, rounds, seconds, found))  # noqa: B023
    return found


async def _embedded_legs(directory: str, loop: str, rounds: int, seconds: float, found: Samples) -> float:
    async with edgekv.open(directory) as db:
        while not _settled(db.status()):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(_SETTLE_POLL_S)
        for index in range(rounds):
            _note(found, index, f"empty loop, {loop}", await _drive(EmptyLoop().call, seconds))
            _note(found, index, f"embedded put, {loop}", await _drive(lambda key: db.put(key, VALUE), seconds))
            _note(found, index, f"embedded get, {loop}", await _drive(db.get, seconds))
    return 0.0


def _settled(figures: dict[str, object]) -> bool:
    """A node on a new directory zeroes its spare log segments at first."""
    spares = figures["spare_segments"]
    return isinstance(spares, int) and spares >= SPARE_SEGMENTS


class EmptyLoop:
    """Futures that one callback per turn of the loop resolves: what any client on asyncio costs its callers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []

    def call(self, _key: str) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._resolve)
        self._waiting.append(future)
        return future

    def _resolve(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)


# -- reporting


def _on(factory: Callable[[], asyncio.AbstractEventLoop], leg: Callable[[], Coroutine[Any, Any, float]]) -> float:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(leg())


def _note(found: Samples, index: int, name: str, value: float) -> None:
    found.setdefault(name, []).append(value)
    step(f"round {index + 1} {name}: {value:,.0f}")


def _url(address: Address) -> str:
    return f"edgekv://{address.host}:{address.port}"


def _concurrent_table(found: Samples) -> Table:
    rows = []
    for verb in ("put", "get"):
        for loop in LOOPS:
            ours, theirs = (
                Spread(tuple(found[f"edgekv {verb}, {loop}"])),
                Spread(tuple(found[f"redis-py {verb}, {loop}"])),
            )
            ratio = Ratio(ours, theirs, ASYNC_BAR if verb == "put" else None)
            rows.append((f"{verb}, {loop}", ours.text(), theirs.text(), ratio.text(), ratio.verdict()))
    note = f"{CALLERS} callers on one loop, one call each in flight; puts are durable. Bar: {ASYNC_BAR} for puts."
    columns = ("call", "edgekv", "redis-py asyncio", "ratio", "bar")
    return Table("Asynchronous client, calls/s", columns, tuple(rows), (note,))


def _single_table(found: Samples) -> Table:
    rows = []
    for verb in ("put", "get"):
        ours, theirs = Spread(tuple(found[f"edgekv {verb}"])), Spread(tuple(found[f"redis-py {verb}"]))
        ratio = ours.median / theirs.median
        verdict = ("met" if ratio <= SYNC_BAR else "missed") if verb == "put" else ""
        rows.append((verb, ours.text(), theirs.text(), f"{ratio:.2f}", verdict))
    note = f"One caller; puts are durable. Bar: at most {SYNC_BAR} times redis-py's latency for puts."
    return Table("Synchronous client, p50 in µs", ("call", "edgekv", "redis-py", "ratio", "bar"), tuple(rows), (note,))


def _embedded_table(found: Samples, fdatasync_p50_ms: object) -> Table:
    rows = []
    for loop in LOOPS:
        empty = Spread(tuple(found[f"empty loop, {loop}"]))
        puts, gets = Spread(tuple(found[f"embedded put, {loop}"])), Spread(tuple(found[f"embedded get, {loop}"]))
        ratio = Ratio(puts, empty, EMBEDDED_BAR)
        reads = "met" if gets.median >= EMBEDDED_GET_BAR else "missed"
        rows.append((loop, empty.text(), puts.text(), ratio.text(), ratio.verdict(), gets.text(), reads))
    assert isinstance(fdatasync_p50_ms, float)
    notes = (
        f"{CALLERS} callers. Bars: puts {EMBEDDED_BAR} of the empty loop, {EMBEDDED_GET_BAR:,} gets/s.",
        f"Callers that all wait for one fdatasync after the other make {CALLERS / fdatasync_p50_ms * 1e3:,.0f} puts/s on this disk.",
    )
    columns = ("loop", "empty", "durable puts", "of empty", "bar", "gets", "bar")
    return Table("Embedded, calls/s", columns, tuple(rows), notes)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1800)
    parser.add_argument("--rounds", type=int, default=0, help="0: 5, or 1 with --quick")
    return parser


if __name__ == "__main__":
    main()
