"""Export, import and scan against real nodes: whatever a node holds is what another one holds afterwards."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.cli.main import edgekv as edgekv_program
from edgekv.cli.node_process import NodeProcess

LARGE: Final = 100_000
LARGEST: Final = 1_000_000
MIB: Final = 1 << 20
MEASURED: Final = """
import sys
from edgekv.cli.main import run
code = run(sys.argv[1:])
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""
FAR_MS: Final = 4_000_000_000_000

Content = bytes | set[bytes] | dict[bytes, bytes]
Held = dict[bytes, tuple[Content, int]]
"""By key: what it holds and when it ends, -1: never."""

cells = st.binary(max_size=8) | st.sampled_from([b"", b"\xff", b"1", b"-7", b"\x00", b"\xc3\xa4", b'{"a":1}', b"\n"])
contents: st.SearchStrategy[Content] = (
    cells
    | st.sets(cells, min_size=1, max_size=5)
    | st.dictionaries(cells, cells | st.integers(-99, 99).map(lambda n: b"%d" % n), min_size=1, max_size=5)
)
holdings = st.dictionaries(
    st.binary(min_size=1, max_size=6).filter(lambda key: not key.startswith(b"_")),
    st.tuples(contents, st.just(-1) | st.integers(FAR_MS, FAR_MS + 9)),
    max_size=8,
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("transfer") / "data", "--memory-bytes", str(64 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def client(node: NodeProcess) -> Iterator[redis.Redis]:
    with redis.Redis(port=node.resp.port) as connected:
        yield connected


def edgekv(node: NodeProcess, *arguments: str, stdin: bytes = b"") -> bytes:
    listeners = {"EDGEKV_HTTP": str(node.http), "EDGEKV_RESP": str(node.resp)}
    ended = CliRunner().invoke(edgekv_program, arguments, input=stdin, env=listeners, catch_exceptions=False)
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout_bytes


def write(client: redis.Redis, held: Held) -> None:
    client.flushall()
    for key, (content, end) in held.items():
        if isinstance(content, bytes):
            client.set(key, content)
        elif isinstance(content, set):
            client.sadd(key, *content)
        else:
            client.hset(key, items=[cell for pair in content.items() for cell in pair])
        if end > 0:
            client.pexpireat(key, end)


def read(client: redis.Redis) -> Held:
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"set": client.smembers,
        b"hash": client.hgetall,
    }
    keys: Any = client.keys("*")
    kind_of: Callable[[bytes], Any] = client.type
    ends: Callable[[bytes], Any] = client.pexpiretime  # type: ignore[assignment] # typed for keys of text only
    return {key: (readers[kind_of(key)](key), ends(key)) for key in keys}


@settings(max_examples=40, deadline=None)
@given(holdings, holdings)
def test_what_is_exported_is_imported_as_it_was_and_importing_twice_changes_nothing(
    node: NodeProcess, client: redis.Redis, held: Held, older: Held
) -> None:
    write(client, held)
    exported = edgekv(node, "export")
    write(client, {key: old for key, old in older.items() if key not in held})
    edgekv(node, "import", "-", "--format", "jsonl", stdin=exported)
    expected = {**older, **held}
    assert read(client) == expected
    edgekv(node, "import", "-", "--format", "jsonl", stdin=exported)
    assert read(client) == expected


def test_counters_are_restored_as_what_they_were_and_count_on(node: NodeProcess, client: redis.Redis) -> None:
    client.flushall()
    for _ in range(3):
        client.incrby("visits", 7)
        client.hincrby("press", "starts", -2)
    exported = edgekv(node, "export")
    client.flushall()
    edgekv(node, "import", "-", "--format", "jsonl", stdin=exported)
    assert (client.incrby("visits", 1), client.hincrby("press", "starts", 1)) == (22, -5)


def test_a_prefix_exports_its_own_keys_of_every_type(node: NodeProcess, client: redis.Redis) -> None:
    write(client, {b"a/1": (b"x", -1), b"a/2": ({b"x"}, -1), b"b": (b"x", -1), b"b/2": ({b"f": b"v"}, FAR_MS)})
    lines = [json.loads(line) for line in edgekv(node, "export", "a/").splitlines()]
    assert lines == [{"key": "a/1", "value": "x"}, {"key": "a/2", "type": "set", "members": ["x"]}]


def test_a_scan_shows_the_type_and_size_of_every_key(node: NodeProcess, client: redis.Redis) -> None:
    write(client, {b"s": (b"x", -1), b"t": ({b"x", b"y"}, -1), b"u": ({b"f": b"v"}, FAR_MS), b"n": (b"5", -1)})
    assert json.loads(edgekv(node, "scan", "-o", "json")) == [
        {"key": "n", "type": "string", "value": "5"},
        {"key": "s", "type": "string", "value": "x"},
        {"key": "t", "type": "set", "count": 2},
        {"key": "u", "type": "hash", "count": 1},
    ]
    assert edgekv(node, "scan", "--type", "hash", "--keys-only") == b"u\n"


def fill(client: redis.Redis, count: int) -> None:
    client.flushall()
    for first in range(0, count, 10_000):
        client.sadd("large", *(b"member-%08d" % i for i in range(first, first + 10_000)))


@pytest.mark.parametrize("count", [LARGE, pytest.param(LARGEST, marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_a_large_set_is_exported_and_imported_in_parts_within_bounded_memory(
    node: NodeProcess, client: redis.Redis, tmp_path: Path, count: int
) -> None:
    fill(client, count)
    client.pexpireat("large", FAR_MS)
    file = tmp_path / "all.jsonl"
    small, _ = peak_bytes(node, "export", "nothing/", "--file", str(tmp_path / "none.jsonl"))
    exporting, said = peak_bytes(node, "export", "--file", str(file))
    assert said == f"exported 1 keys to {file}\n"
    client.flushall()
    importing, said = peak_bytes(node, "import", str(file))
    assert said.startswith(f"imported {count // 1000} rows in ")
    assert (client.scard("large"), client.pexpiretime("large")) == (count, FAR_MS)
    assert max(exporting, importing) < small + 16 * MIB


def peak_bytes(node: NodeProcess, *arguments: str) -> tuple[int, str]:
    """The most memory that a command of its own process took, and what it printed."""
    command = [sys.executable, "-c", MEASURED, *arguments]
    listeners = {"EDGEKV_HTTP": str(node.http), "EDGEKV_RESP": str(node.resp)}
    ended = subprocess.run(command, env=listeners, capture_output=True, text=True, check=True)
    return int(ended.stderr.split()[-2]) * 1024, ended.stdout
