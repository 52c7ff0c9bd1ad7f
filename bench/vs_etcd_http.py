"""A node's HTTP interface against etcd's JSON gateway, by wrk: durable PUT and GET of one key per request.

One etcd member, 50 connections without pipelining, 100-byte values; both acknowledge a PUT after an fsync. The
servers run one at a time, alternately, on fresh data. etcd's gateway parses JSON and base64 and makes a gRPC call
to itself per request, in Go and on both cores; the node parses one HTTP request on one CPython event loop. etcd's GET
is its default, linearizable; the node's is local, which is what either has to offer to somebody who asks for nothing.
"""

import argparse
import base64
import http.client
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import servers
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import Ratio, Spread
from bench.servers import Server, ServerError
from edgekv.config import Address

CONNECTIONS: Final = 50
VALUE_BYTES: Final = 100
BARS: Final = {"put": 2.0, "get": 1.5}
STARTS: Final[dict[str, Callable[[Path], AbstractContextManager[Server]]]] = {
    "etcd": servers.etcd,
    "edgekv": servers.node,
}

_SCRIPT: Final = Path(__file__).with_name("http_load.lua")
_LOADERS: Final = 16


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk measured; all answers were good ones."""

    per_s: float
    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    seconds = arguments.seconds or (3 if arguments.quick else 15)
    with measured_run(arguments) as run:
        loads = _measure(run, rounds, seconds, arguments.keys)
        save(
            "vs_etcd_http",
            quick=run.quick,
            machine_description=run.machine,
            settings={
                "connections": CONNECTIONS,
                "value_bytes": VALUE_BYTES,
                "keys": arguments.keys,
                "rounds": rounds,
                "seconds": seconds,
            },
            measurements={f"{name}/{action}": list(map(asdict, loads[name, action])) for name, action in loads},
            tables=[_table(loads, rounds, seconds, arguments.keys)],
        )


def _measure(run: Run, rounds: int, seconds: int, keys: int) -> dict[tuple[str, str], list[Load]]:
    loads: dict[tuple[str, str], list[Load]] = {(name, action): [] for name in STARTS for action in BARS}
    for index in range(rounds):
        for name in list(STARTS) if index % 2 == 0 else list(STARTS)[::-1]:
            with run.data_directory(name) as directory, STARTS[name](directory) as server:
                _load_keys(server, keys)
                for action in BARS:
                    load = _wrk(server, action, keys, seconds)
                    loads[name, action].append(load)
                    step(f"round {index + 1} {action} {name}: {load.per_s:,.0f}/s, p99 {load.p99_ms} ms")
                server.check_alive()
    return loads


def _wrk(server: Server, action: str, keys: int, seconds: int) -> Load:
    address = server.http_address()
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    command += [f"http://{address.host}:{address.port}", "--", server.name, action, str(keys), str(VALUE_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise ServerError(f"wrk failed: {done.stdout[-300:]}{done.stderr[-300:]}")
    found = json.loads(lines[-1])
    # A refusal is cheaper than an answer: a rate that counts refusals would flatter the server.
    if found["bad_statuses"] or found["broken"]:
        raise ServerError(f"{server.name}: {found['bad_statuses']} bad statuses, {found['broken']} broken requests")
    per_s = found["requests"] / found["duration_s"]
    return Load(per_s, found["requests"], found["p50_ms"], found["p99_ms"], found["max_ms"])


def _load_keys(server: Server, keys: int) -> None:
    """PUT every key once, so that each GET finds a value and each measured PUT is an overwrite; check one of them."""
    address = server.http_address()
    put = _put_etcd if server.name == "etcd" else _put_edgekv

    def load_share(first: int) -> None:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
        for number in range(first, keys, _LOADERS):
            put(connection, b"key-%012d" % number)
        connection.close()

    with ThreadPoolExecutor(_LOADERS) as pool:
        list(pool.map(load_share, range(_LOADERS)))
    _check_value(server.name, address, b"key-%012d" % (keys - 1))


def _put_edgekv(connection: http.client.HTTPConnection, key: bytes) -> None:
    _exchange(connection, "PUT", f"/v1/kv/{key.decode()}", b"x" * VALUE_BYTES)


def _put_etcd(connection: http.client.HTTPConnection, key: bytes) -> None:
    _exchange(connection, "POST", "/v3/kv/put", _json({"key": key, "value": b"x" * VALUE_BYTES}))


def _check_value(name: str, address: Address, key: bytes) -> None:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    if name == "edgekv":
        value = _exchange(connection, "GET", f"/v1/kv/{key.decode()}", None)
    else:
        answer = json.loads(_exchange(connection, "POST", "/v3/kv/range", _json({"key": key})))
        value = base64.b64decode(answer["kvs"][0]["value"])
    connection.close()
    if value != b"x" * VALUE_BYTES:
        raise ServerError(f"{name} answered {value[:50]!r} instead of what was loaded")


def _exchange(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> bytes:
    connection.request(method, path, body)
    response = connection.getresponse()
    answer = response.read()
    if response.status not in (200, 204):
        raise ServerError(f"{method} {path} answered {response.status}: {answer[:200]!r}")
    return answer


def _json(fields: Mapping[str, bytes]) -> bytes:
    return json.dumps({name: base64.b64encode(value).decode() for name, value in fields.items()}).encode()


def _table(loads: Mapping[tuple[str, str], Sequence[Load]], rounds: int, seconds: int, keys: int) -> Table:
    rows = []
    for action, bar in BARS.items():
        ours, theirs = loads["edgekv", action], loads["etcd", action]
        ratio = Ratio(Spread(tuple(one.per_s for one in ours)), Spread(tuple(one.per_s for one in theirs)), bar)
        p99 = [Spread(tuple(one.p99_ms for one in side)).text(1) for side in (theirs, ours)]
        cells = (ratio.theirs.text(), ratio.ours.text(), ratio.text(), f"{bar} {ratio.verdict()}", *p99)
        rows.append((f"durable {action.upper()}" if action == "put" else action.upper(), *cells))
    note = (
        f"Medians (lowest-highest) of {rounds} alternating rounds of {seconds} s; {CONNECTIONS} connections, "
        f"{VALUE_BYTES}-byte values, {keys:,} keys."
    )
    columns = ("", "etcd gateway", "EdgeKV", "ratio", "bar", "p99 etcd, ms", "p99 EdgeKV, ms")
    return Table("HTTP against etcd's JSON gateway (requests/s)", columns, tuple(rows), (note,))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1800)
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 with --quick")
    parser.add_argument("--seconds", type=int, default=0, help="of each measurement; 0: 15, or 3 with --quick")
    parser.add_argument("--keys", type=int, default=20_000)
    return parser


if __name__ == "__main__":
    main()
