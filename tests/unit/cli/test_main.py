"""The program itself: quick start, one-line errors, exit codes."""

import subprocess
import sys

import pytest

from edgekv import __version__
from edgekv.cli.main import COMMANDS
from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode


def test_help_imports_nothing_that_is_slow_to_import() -> None:
    slow = ["aiohttp", "lmdb", "rich", "uvloop", "asyncio", "hiredis", "msgpack"]
    script = (
        "import sys; from edgekv.cli.main import run; code = run(['--help']);"
        f"print([name for name in {slow} if name in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[] 0\n"
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(edgekv: Program, command: str) -> None:
    ended = edgekv(command, "--help")
    assert ended.exit_code == 0
    assert f"edgekv {command}" in ended.text.split("Options:")[0].split("\n", 1)[1]


def test_the_version_is_printed(edgekv: Program) -> None:
    assert edgekv("--version").text == f"edgekv {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gte", "a"], 'there is no command "gte". Did you mean "get"?'),
        (["get"], "Missing argument 'KEY'. See edgekv get --help."),
        (["get", ""], "Invalid value for 'KEY': a key has at least one byte. See edgekv get --help."),
        (["get", "a", "--htp", "x"], "No such option '--htp'"),
        (
            ["get", "a", "--http", "x"],
            "Invalid value for '--http' (env var: 'EDGEKV_HTTP'): \"x\" is not an address: write HOST:PORT",
        ),
        (["put", "a"], "give either VALUE or --file. See edgekv put --help."),
        (["serve"], "no data directory: give --data-dir DIR"),
        (["serve", "--data-dir", "d", "--http", "0.0.0.0:1"], "http (from --http): 0.0.0.0:1 can be reached from"),
        (["import", "nowhere.csv"], "Invalid value for 'FILE': File 'nowhere.csv' does not exist"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr_and_exit_code_2(
    edgekv: Program, arguments: list[str], message: str
) -> None:
    ended = edgekv(*arguments)
    assert (ended.exit_code, ended.out) == (2, b"")
    assert ended.err.startswith(f"edgekv: {message}")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid-request", 2),
        (413, "too-large", 2),
        (404, "not-found", 3),
        (409, "wrong-type", 4),
        (503, "overloaded", 5),
        (507, "disk-full", 5),
        (403, "denied", 6),
        (504, "outcome-unknown", 7),
        (500, "", 5),
        (409, "", 4),
        (418, "teapot", 2),
    ],
)
def test_the_exit_code_tells_what_kind_of_error_the_node_reported(
    node: FakeNode, edgekv: Program, status: int, code: str, exit_code: int
) -> None:
    node.problem = (status, {"code": code, "detail": "a sentence."})
    ended = edgekv("put", "a", "b")
    assert (ended.exit_code, ended.err) == (exit_code, "edgekv: a sentence.\n")


def test_no_node_is_unavailable_and_says_how_to_start_one(edgekv: Program) -> None:
    ended = edgekv("get", "a", "--http", "127.0.0.1:1")
    assert ended.exit_code == 5
    assert "no node answers at 127.0.0.1:1 (connection refused): start one with edgekv serve" in ended.err


def test_a_connection_that_ends_after_a_write_was_sent_leaves_the_outcome_unknown(
    node: FakeNode, edgekv: Program
) -> None:
    node.hang_up_after_request = True
    ended = edgekv("put", "a", "b")
    assert ended.exit_code == 7
    assert "may or may not have happened" in ended.err
    assert edgekv("get", "a").exit_code == 5  # A read that was lost changed nothing.


def test_a_traceback_is_shown_with_debug_only() -> None:
    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", "edgekv", *arguments, "get", "a", "--http", "127.0.0.1:1"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert "Traceback" not in call()
    assert "Traceback" in call("--debug")


def test_a_reader_that_leaves_early_is_no_error_worth_a_message(node: FakeNode) -> None:
    node.rows = {b"k%06d" % number: b"x" * 1000 for number in range(2000)}
    command = f"{sys.executable} -m edgekv scan --keys-only --limit 5000 --http {node.http} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("k000000\n", "")
