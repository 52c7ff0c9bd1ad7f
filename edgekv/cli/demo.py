"""``edgekv demo``: real data into one node, kill -9 in the middle of it, and a proof that nothing acknowledged is lost.

The 26,115 bundled weather readings are imported and compared, through RESP and through HTTP. Then every reading is written a
second time, marked ``"pass":2``, and the node is killed when a random part of that is acknowledged. After the restart each reading
must be its second version where that was acknowledged, its first one where the second was never sent, and may be either only
where it was on its way at the kill. Exit code 1 on any difference.
"""

import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Final

import click

from edgekv.cli.listing import scan_pages
from edgekv.cli.node_http import NodeHttp, key_path
from edgekv.cli.node_process import NodeProcess
from edgekv.cli.options import PathType
from edgekv.cli.progress import progress
from edgekv.cli.resp_client import BATCH_COMMANDS, BATCHES_IN_FLIGHT, RespConnection, command
from edgekv.cli.rows import Row, Shape, open_rows
from edgekv.errors import EdgeKVError, OutcomeUnknown

SHAPE: Final = Shape(key="weather/{origin}/{time_hour}")
MGET_KEYS: Final = 500
SINGLE_GETS: Final = 100
TIMEOUT_S: Final = 30.0


class DemoFailed(EdgeKVError):
    """The node does not hold what it acknowledged."""

    code = "demo-failed"


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading: its key, its value in the first and in the second import."""

    key: bytes
    first: bytes
    second: bytes


@click.command()
@click.option("--seed", type=int, default=None, help="Chooses the moment of the kill. Default: by chance.")
@click.option(
    "--dir",
    "directory",
    type=PathType(path_type=Path, file_okay=False),
    envvar="EDGEKV_DEMO_DIR",
    help="Keep the node's files here. Default: nowhere.",
)
def demo(seed: int | None, directory: Path | None) -> None:
    """Import a year of weather, kill the node while it writes, and check every acknowledged reading.

    \b
    edgekv demo
    edgekv demo --dir ./demo    and then: edgekv serve --data-dir ./demo/node
    """
    seed = random.randrange(1 << 32) if seed is None else seed
    readings = _readings()
    with tempfile.TemporaryDirectory(prefix="edgekv-demo-") as temporary:
        home = directory or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        with NodeProcess(home / "node") as node:
            _tell(f"a node on {node.data_dir}", f"http {node.http}, resp {node.resp}")
            _first_import(node, readings)
            _compare_all(node, readings)
            acknowledged, sent = _second_import_and_kill(node, readings, seed)
            seconds = node.start()
            _tell("started again", f"ready after {seconds:.2f} s")
            _check(node, readings, acknowledged, sent)
            status = node.stop()
            if status != 0:
                raise DemoFailed(f"the node stopped with exit code {status}; see {node.log}")
            _tell("stopped by SIGTERM", "exit code 0")
    click.echo(click.style(f"Nothing that was acknowledged is lost (--seed {seed} repeats this kill).", bold=True))


def _readings() -> list[Reading]:
    with as_file(files("edgekv") / "data" / "weather.csv.gz") as path, open_rows(path, "csv") as source:
        return [_reading(row, number) for number, row in enumerate(source.rows, start=1)]


def _reading(row: Row, number: int) -> Reading:
    second = {**row, "pass": 2}
    return Reading(SHAPE.row_key(row, number), SHAPE.row_value(row, number), SHAPE.row_value(second, number))


def _first_import(node: NodeProcess, readings: list[Reading]) -> None:
    started = time.monotonic()
    with RespConnection(node.resp, TIMEOUT_S) as connection, progress("first import", len(readings)) as advance:
        count = connection.send_all(
            (command(b"SET", reading.key, reading.first) for reading in readings),
            lambda done: advance(done, f"{done} readings durable"),
        )
    seconds = time.monotonic() - started
    _tell("imported", f"{count} readings, each durable when acknowledged, {count / seconds:.0f} a second")


def _compare_all(node: NodeProcess, readings: list[Reading]) -> None:
    """Both interfaces must give back exactly what the file says: every key, every value, and nothing else."""
    expected = {reading.key: reading.first for reading in readings}
    found = _read_by_resp(node, readings)
    _same("RESP", expected, found)
    _tell("read back through RESP", f"{len(found)} readings, all equal to the file")
    with NodeHttp(node.http, TIMEOUT_S) as client:
        listed = {entry.key: entry.value for entry in scan_pages(client, b"weather/")}
        _same("HTTP scan", expected, listed)
        for reading in readings[:: max(1, len(readings) // SINGLE_GETS)]:
            _same(
                "HTTP GET", {reading.key: reading.first}, {reading.key: client.read(key_path("kv", reading.key)).body}
            )
    _tell("read back through HTTP", f"{len(listed)} readings, all equal to the file")


def _second_import_and_kill(node: NodeProcess, readings: list[Reading], seed: int) -> tuple[int, int]:
    """Write everything again and SIGKILL the node on the way; return how many were acknowledged, and how many may be sent."""
    kill_at = int(len(readings) * random.Random(seed).uniform(0.2, 0.8))
    acknowledged = 0

    def count(done: int) -> None:
        nonlocal acknowledged
        acknowledged = done
        advance(done, f"{done} readings durable")
        if done >= kill_at:
            node.kill()

    with RespConnection(node.resp, TIMEOUT_S) as connection, progress("second import", len(readings)) as advance:
        try:
            connection.send_all((command(b"SET", reading.key, reading.second) for reading in readings), count)
        except OutcomeUnknown:
            _tell("killed by SIGKILL", f"in the second import, with {acknowledged} of {len(readings)} acknowledged")
            return acknowledged, min(len(readings), acknowledged + (BATCHES_IN_FLIGHT + 1) * BATCH_COMMANDS)
    raise DemoFailed("the import went on after the node was killed: something else answers on its port")


def _check(node: NodeProcess, readings: list[Reading], acknowledged: int, sent: int) -> None:
    found = _read_by_resp(node, readings)
    beyond = 0
    for position, reading in enumerate(readings):
        value = found.get(reading.key)
        if position < acknowledged:
            allowed = {reading.second}
        elif position < sent:
            allowed = {reading.first, reading.second}
            beyond += value == reading.second
        else:
            allowed = {reading.first}
        if value not in allowed:
            raise DemoFailed(f"{reading.key.decode()} should be {min(allowed)!r} and is {value!r}")
    _tell("checked", f"all {acknowledged} acknowledged readings are there, none of the older ones is damaged")
    _tell("on their way", f"{beyond} more had become durable before the kill, without their acknowledgement arriving")


def _read_by_resp(node: NodeProcess, readings: list[Reading]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    with RespConnection(node.resp, TIMEOUT_S) as connection:
        for keys in _slices([reading.key for reading in readings], MGET_KEYS):
            values = connection.call(b"MGET", *keys)
            assert isinstance(values, list)
            pairs = zip(keys, values, strict=True)
            found.update({key: value for key, value in pairs if isinstance(value, bytes)})
    return found


def _slices(keys: list[bytes], size: int) -> Iterator[list[bytes]]:
    source = iter(keys)
    while part := list(islice(source, size)):
        yield part


def _same(interface: str, expected: dict[bytes, bytes], found: dict[bytes, bytes]) -> None:
    if expected == found:
        return
    different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    key = different[0]
    raise DemoFailed(
        f"{interface}: {len(different)} readings differ; {key.decode()} should be {expected.get(key)!r} and is {found.get(key)!r}"
    )


def _tell(what: str, detail: str) -> None:
    click.echo(f"{click.style('ok', fg='green')}  {what}: {detail}")
