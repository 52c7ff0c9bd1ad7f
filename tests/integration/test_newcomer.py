"""What somebody does in the first hour, with the program and a real node: what the README shows, and what goes wrong at first.

Each command is a process of its own, as a shell would start it. An error is one line that says what happened and what to do next, and
the exit code is the one that docs/CLI.md promises.
"""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

import pytest

import edgekv
from edgekv.cli.node_process import LISTENERS, NodeProcess
from edgekv.cli.resp_client import RespConnection

ERROR, USAGE, NOT_FOUND, CONFLICT, UNAVAILABLE, DENIED, UNKNOWN, INTERRUPTED = 1, 2, 3, 4, 5, 6, 7, 130  # docs/CLI.md
PATIENCE_S: Final = 30.0
WEATHER: Final = Path(edgekv.__file__).parent / "data" / "weather.csv.gz"
WEATHER_ROWS: Final = 26_115
TEMPLATE: Final = "weather/{origin}/{time_hour}"
NOBODY: Final = "127.0.0.1:1"
KEYS, DAMAGED = 20, 10


class Ended(NamedTuple):
    """How a command ended."""

    exit_code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Shell:
    """A directory to work in, and the variables that point to a node."""

    def __init__(self, directory: Path, node: NodeProcess | None = None) -> None:
        self.directory = directory
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("EDGEKV_")}
        self._environment = {**inherited, "PYTHONPATH": str(Path(edgekv.__file__).parent.parent)}
        if node is not None:
            self._environment |= {"EDGEKV_HTTP": str(node.http), "EDGEKV_RESP": str(node.resp)}

    def start(self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "edgekv", *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def edgekv(self, *arguments: str, stdin: bytes = b"") -> Ended:
        return wait_for_end(self.start(*arguments, stdin=subprocess.PIPE), stdin)

    def write(self, name: str, content: str | bytes) -> str:
        (self.directory / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name


def wait_for_end(process: "subprocess.Popen[bytes]", stdin: bytes | None = None) -> Ended:
    out, err = process.communicate(stdin, PATIENCE_S)
    return Ended(process.returncode, out, err.decode())


def is_told(ended: Ended, exit_code: int, *said: str) -> None:
    """One line on stderr, of which each part of `said` is one, and nothing else."""
    assert ended.exit_code == exit_code, ended
    assert ended.err.startswith("edgekv: ") and ended.err.count("\n") == 1, ended.err
    for part in said:
        assert part in ended.err, ended.err


ANY_PORTS: Final = [part for name in LISTENERS for part in (f"--{name}", "127.0.0.1:0")]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("newcomer") / "edgekv-data") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def shell(node: NodeProcess, tmp_path: Path) -> Shell:
    return Shell(tmp_path, node)


@contextlib.contextmanager
def served(shell: Shell, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`edgekv serve` in a terminal; it is stopped with Ctrl-C, which is no error."""
    process = shell.start("serve", *arguments)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert wait_for_end(process).exit_code == 0
    finally:
        process.kill()
        process.communicate()


def lines_until_ready(process: "subprocess.Popen[bytes]") -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while "ready" not in lines:
        line = process.stdout.readline()
        assert line, f"it ended after {lines}"
        lines.append(line.decode().rstrip("\n"))
    return lines


# -- what the README shows


def test_the_first_minute_of_the_readme_goes_as_it_is_written(shell: Shell) -> None:
    assert shell.edgekv("put", "room/7/temp", "21.5") == Ended(0, b"", "")
    assert shell.edgekv("put", "room/7/humidity", "40") == Ended(0, b"", "")
    assert shell.edgekv("get", "room/7/temp") == Ended(0, b"21.5", "")
    assert (
        shell.edgekv("scan", "room/").text
        == "KEY              TYPE    VALUE\nroom/7/humidity  string  40\nroom/7/temp      string  21.5\n"
    )
    assert shell.edgekv("incr", "door/visits").text == "1\n"
    assert shell.edgekv("incr", "door/visits", "-20").text == "-19\n"
    assert json.loads(shell.edgekv("scan", "door/", "-o", "json").out) == [
        {"key": "door/visits", "type": "string", "value": "-19"}
    ]
    assert shell.edgekv("del", "room/7/temp", "door/visits") == Ended(0, b"", "")
    is_told(shell.edgekv("get", "room/7/temp"), NOT_FOUND, "there is no key room/7/temp")
    is_told(shell.edgekv("del", "room/7/temp"), NOT_FOUND, "no such key: room/7/temp")


def test_serve_says_where_it_listens_then_ready_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with served(Shell(tmp_path), "--data-dir", "./edgekv-data", *ANY_PORTS) as process:
        *listeners, ready = lines_until_ready(process)
        assert [line.rpartition(":")[0] for line in listeners] == [f"{name} 127.0.0.1" for name in LISTENERS]
        assert ready == "ready"
        http = listeners[0]
        assert Shell(tmp_path).edgekv("put", "k", "v", "--http", http.split()[1]).exit_code == 0
    assert (tmp_path / "edgekv-data" / "identity.json").exists()


def test_the_weather_is_imported_exported_and_imported_into_another_node_unchanged(
    shell: Shell, tmp_path: Path
) -> None:
    source = shell.write("weather.csv.gz", WEATHER.read_bytes())
    imported = shell.edgekv("import", source, "--key", TEMPLATE)
    assert imported.exit_code == 0, imported.err
    assert imported.text.startswith(f"imported {WEATHER_ROWS} rows in "), imported.text
    assert not (tmp_path / f"{source}.import-state").exists()
    exported = shell.edgekv("export", "weather/", "--file", "weather.jsonl")
    assert exported.text == f"exported {WEATHER_ROWS} keys to weather.jsonl\n"
    with NodeProcess(tmp_path / "other") as other:
        there = Shell(tmp_path, other)
        assert there.edgekv("import", "weather.jsonl").exit_code == 0
        assert there.edgekv("export").out == (tmp_path / "weather.jsonl").read_bytes()
        assert other.stop() == 0


def test_the_program_alone_answers_with_its_help_which_is_readable(shell: Shell) -> None:
    for arguments, commands in ((), ("serve", "put", "import")), (("wal",), ("inspect", "salvage")):
        ended = shell.edgekv(*arguments)
        assert ended.exit_code == USAGE and ended.out == b""
        assert ended.err.startswith("Usage: edgekv "), ended.err
        shown = [line.split()[0] for line in ended.err.splitlines() if line.startswith("  ")]
        assert set(commands) <= set(shown), ended.err


# -- wrong at first


MISTAKES: Final[list[tuple[list[str], int, list[str]]]] = [
    (["get", "a", "--htp", NOBODY], USAGE, ["No such option '--htp'", "'--http'"]),
    (["serve", "--dat-dir", "d"], USAGE, ["No such option '--dat-dir'", "Did you mean '--data-dir'?"]),
    (["srve"], USAGE, ['there is no command "srve"', 'Did you mean "serve"?']),
    (["put", "a", "b", "c"], USAGE, ["unexpected extra argument (c)", "See edgekv put --help"]),
    (["put", "k" * 5000, "v"], USAGE, ["has 5000 bytes; the limit is 4096", "Use a shorter key"]),
    (["put", "_meta/x", "v"], DENIED, ["belong to EdgeKV itself", "Choose another key"]),
    (["incr", "a", "much"], USAGE, ["'much' is not a valid integer", "See edgekv incr --help"]),
    (
        ["get", "a", "--http", NOBODY],
        UNAVAILABLE,
        ["no node answers at 127.0.0.1:1", "start one with edgekv serve"],
    ),
    (["put", "a", "b", "--http", NOBODY], UNAVAILABLE, ["no node answers", "or name another with --http"]),
    (["export", "--http", NOBODY], UNAVAILABLE, ["no node answers", "start one with edgekv serve"]),
    (["export", "--file", "no/such/place"], USAGE, ["cannot write no/such/place", "choose another --file"]),
    (["put", "a", "--file", "photo.jpg"], USAGE, ["'photo.jpg': No such file", "See edgekv put --help"]),
    (["serve"], USAGE, ["no data directory", "give --data-dir DIR"]),
    (
        ["serve", "--data-dir", "d", "--http", "0.0.0.0:80"],
        USAGE,
        ["from other machines", "listen on 127.0.0.1:80"],
    ),
    (
        ["serve", "--config", "edgekv.toml"],
        USAGE,
        ["configuration file edgekv.toml: No such file", "check --config"],
    ),
    (["wal", "inspect"], USAGE, ["Missing option '--data-dir'", "See edgekv wal inspect --help"]),
    (["wal", "inspect", "--data-dir", "d"], USAGE, ["d is not the directory of a node", "check --data-dir"]),
]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"), MISTAKES, ids=[" ".join(mistake[0])[:40] for mistake in MISTAKES]
)
def test_a_mistake_in_the_command_is_said_with_what_to_do_instead(
    shell: Shell, arguments: list[str], exit_code: int, said: list[str]
) -> None:
    is_told(shell.edgekv(*arguments), exit_code, *said)
    assert not (shell.directory / "d").exists(), "nothing is made by a command that is refused"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("data_dir = d", ["bad.toml is not valid TOML", "line 1"]),
        ('data_dir = "d"\nmemory_byte = 1', ['unknown key "memory_byte" in bad.toml', 'did you mean "memory_bytes"?']),
        ('data_dir = "d"\nmemory_bytes = "lots"', ["memory_bytes (from bad.toml)", "whole number", "'lots'"]),
        ('data_dir = "d"\nmemory_bytes = 5', ["memory_bytes (from bad.toml): 5 is too small", "at least 67108864"]),
        ('data_dir = "d"\ndurability = "none"', ["durability (from bad.toml)", "fsync, buffered"]),
        ('data_dir = "d"\n[[upstream]]\naddress = "hub:7482"', ["hub:7482 is on another machine", "put a tunnel"]),
        ('data_dir = "d"\nrole = "edge"', ["an edge replicates with a hub", "--upstream HOST:PORT"]),
        ('data_dir = "d"\nwal = 5', ["wal (from bad.toml)", "write [wal]"]),
    ],
)
def test_a_bad_configuration_file_is_said_with_its_name_the_key_and_what_to_write(
    tmp_path: Path, content: str, said: list[str]
) -> None:
    shell = Shell(tmp_path)
    for more in ([], ["--check-config"]):
        is_told(shell.edgekv("serve", "--config", shell.write("bad.toml", content), *more), USAGE, *said)
    assert not (tmp_path / "d").exists()


def test_incr_on_a_word_names_the_key_and_shows_where_to_look(shell: Shell) -> None:
    shell.edgekv("put", "name", "Ada")
    is_told(shell.edgekv("incr", "name"), CONFLICT, "name is not a whole number", "edgekv get name")


def test_the_two_ports_mixed_up_is_said_as_that(shell: Shell, node: NodeProcess) -> None:
    source = shell.write("w.csv", "a,b\n1,2\n")
    redis, web = str(node.resp), str(node.http)
    for command in (["get", "a"], ["put", "a", "b"], ["scan"]):
        ended = shell.edgekv(*command, "--http", redis)
        is_told(ended, UNAVAILABLE, f"{redis} speaks the Redis protocol", "HTTP listener with --http")
    ended = shell.edgekv("import", source, "--key", "{a}", "--resp", web)
    is_told(ended, UNAVAILABLE, f"{web} does not speak the Redis protocol", "RESP listener with --resp")


# -- files to import


@pytest.mark.parametrize(
    ("name", "content", "arguments", "said"),
    [
        ("w.csv", b"a,b\n1,2\n", [], ['row 1 has no column "key"', "--key 'row/{a}'"]),
        ("w.csv", b"origin,b\n1,2\n", ["--key", "{orign}"], ['no column "orign"', 'did you mean "origin"?']),
        ("w.csv", b"a,b\n1\n", ["--key", "{a}"], ["row 1 (line 2)", "as many columns as the header"]),
        ("w.txt", b"a,b\n1,2\n", ["--key", "{a}"], ['format of "w.txt"', "say --format csv or"]),
        ("w.jsonl", b'{"a": 1}\nwords\n', ["--key", "{a}"], ["row 2 is not JSON"]),
        ("w.csv.gz", b"a,b\n1,2\n", ["--key", "{a}"], ["cannot be decompressed", "Not a gzipped file"]),
        (
            "w.csv.gz",
            WEATHER.read_bytes()[:50_000],
            ["--key", TEMPLATE],
            ["cannot be decompressed", "a whole .gz file?"],
        ),
        ("w.csv.gz", gzip.compress(b"a,b\n1,2\n")[:-8] + bytes(8), ["--key", "{a}"], ["cannot be decompressed", "CRC"]),
    ],
    ids=["no template", "mistyped column", "ragged", "no format", "no JSON", "no gzip", "cut gzip", "bad gzip"],
)
def test_a_file_that_cannot_be_imported_is_said_with_the_row_or_the_way_out(
    shell: Shell, name: str, content: bytes, arguments: list[str], said: list[str]
) -> None:
    is_told(shell.edgekv("import", shell.write(name, content), *arguments), USAGE, *said)


def test_after_a_mistake_in_the_template_the_right_command_just_works(shell: Shell) -> None:
    source = shell.write("w.csv", "origin,temp\nA,1\n")
    assert shell.edgekv("import", source).exit_code == USAGE
    assert shell.edgekv("import", source, "--key", "typo/{orign}").exit_code == USAGE
    assert shell.edgekv("import", source, "--key", "typo/{origin}", "--value", "temp").text.startswith(
        "imported 1 rows"
    )
    assert shell.edgekv("get", "typo/A").out == b"1"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Who starts the tests in the background of a shell has SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_an_import_is_130_and_keeps_what_was_acknowledged(shell: Shell) -> None:
    process = shell.start("import", "-", "--format", "jsonl", "--key", "sigint/{n}", stdin=subprocess.PIPE)
    assert process.stdin is not None
    # Two batches are in flight before the first reply is waited for; the text layer reads 8 KiB ahead.
    process.stdin.write(b"".join(b'{"n": %d}\n' % number for number in range(5000)))
    process.stdin.flush()
    until = time.monotonic() + PATIENCE_S
    while shell.edgekv("get", "sigint/1999").exit_code == NOT_FOUND:
        assert time.monotonic() < until and process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = wait_for_end(process)
    assert (ended.exit_code, ended.err.strip()) == (INTERRUPTED, "edgekv: interrupted")
    assert shell.edgekv("get", "sigint/0").exit_code == 0


# -- two nodes, one directory or port


def test_a_directory_in_use_is_said_to_a_second_serve_and_to_wal_commands(shell: Shell, node: NodeProcess) -> None:
    data_dir = str(node.data_dir)
    commands = (
        ["serve", "--data-dir", data_dir, *ANY_PORTS],
        ["wal", "inspect", "--data-dir", data_dir],
        ["wal", "salvage", "--data-dir", data_dir, "--accept-data-loss"],
    )
    # At the same time: each waits five seconds for an orphaned applier to go.
    for process in [shell.start(*command) for command in commands]:
        ended = wait_for_end(process)
        is_told(ended, UNAVAILABLE, f"{data_dir} is in use by another edgekv process", "Stop that one first")
        assert ended.out == b""
    assert shell.edgekv("put", "still", "served").exit_code == 0


@pytest.mark.parametrize("name", LISTENERS)
def test_a_port_that_is_taken_is_said_with_the_flag_that_chooses_another(
    tmp_path: Path, node: NodeProcess, name: str
) -> None:
    taken = str(node.listeners[name])
    ports = {**dict.fromkeys(LISTENERS, "127.0.0.1:0"), name: taken}
    arguments = [part for listener, address in ports.items() for part in (f"--{listener}", address)]
    ended = Shell(tmp_path).edgekv("serve", "--data-dir", "mine", *arguments)
    is_told(
        ended, UNAVAILABLE, f"cannot listen on {taken} for {name}: Address already in use.", f"another with --{name}"
    )
    assert b"ready" not in ended.out
    with NodeProcess(tmp_path / "mine") as mine:  # its directory is none the worse for it
        assert mine.stop() == 0


# -- a damaged log


def test_a_damaged_log_is_said_where_a_newcomer_looks_and_salvage_makes_the_node_start_again(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with NodeProcess(data_dir) as node:
        with RespConnection(node.resp, PATIENCE_S) as connection:
            for number in range(KEYS):  # one frame each
                assert connection.call(b"SET", b"k%02d" % number, b"value-%02d" % number) == b"OK"
        assert node.stop() == 0
    shell = Shell(tmp_path)
    sound = shell.edgekv("wal", "inspect", "--data-dir", "data")
    assert sound.exit_code == 0 and "ok, clean stop" in sound.text and sound.err == ""
    assert "nothing was changed" in shell.edgekv("wal", "salvage", "--data-dir", "data").text

    flip_a_byte(data_dir)
    with served(shell, "--data-dir", "data", *ANY_PORTS) as process:
        lines = lines_until_ready(process)
        said = next(line for line in lines if line.startswith("read-only: "))
        assert "seg-00000001.wal at offset" in said and "edgekv wal salvage" in said
        http = lines[0].split()[1]
        assert shell.edgekv("get", "k01", "--http", http).out == b"value-01"
        for change in (["put", "a", "b"], ["incr", "a"], ["del", "k01"]):
            ended = shell.edgekv(*change, "--http", http)
            is_told(ended, UNAVAILABLE, "this node is read-only", "the frame there is damaged", "edgekv wal salvage")
    inspected = shell.edgekv("wal", "inspect", "--data-dir", "data")
    assert "damaged" in inspected.text
    is_told(inspected, ERROR, "seg-00000001.wal at offset", "edgekv wal salvage --help")
    is_told(
        shell.edgekv("wal", "salvage", "--data-dir", "data"), USAGE, "gives up all records", "Add --accept-data-loss"
    )
    done = shell.edgekv("wal", "salvage", "--data-dir", "data", "--accept-data-loss")
    assert done.exit_code == 0 and "are lost" in done.text and "kept aside in data/wal: lost-" in done.text

    with NodeProcess(data_dir) as node:
        mine = Shell(tmp_path, node)
        assert mine.edgekv("get", "k01").out == b"value-01"
        assert mine.edgekv("put", "a", "b").exit_code == 0
        assert node.stop() == 0
    assert shell.edgekv("wal", "inspect", "--data-dir", "data").exit_code == 0


def flip_a_byte(data_dir: Path) -> None:
    wanted = b"value-%02d" % DAMAGED
    segment = next(file for file in sorted((data_dir / "wal").glob("seg-*")) if wanted in file.read_bytes())
    content = bytearray(segment.read_bytes())
    content[content.index(wanted)] ^= 1
    segment.write_bytes(content)
