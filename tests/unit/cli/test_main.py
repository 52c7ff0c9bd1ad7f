"""The program itself: quick start, one-line errors, exit codes."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgekv import __version__
from edgekv.cli.main import COMMANDS
from edgekv.cli.main import edgekv as edgekv_program
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
        (
            ["get", "a", "--http", "a..b:80"],
            "Invalid value for '--http' (env var: 'EDGEKV_HTTP'): \"a..b:80\" is not an address: between dots",
        ),
        (
            ["bench", "--resp", "a..b:80"],
            "Invalid value for '--resp' (env var: 'EDGEKV_RESP'): \"a..b:80\" is not an address: between dots",
        ),
        (
            ["serve", "--data-dir", ""],
            "Invalid value for '--data-dir': it is empty: give a path. See edgekv serve --help.",
        ),
        (
            ["wal", "inspect", "--data-dir", ""],
            "Invalid value for '--data-dir' (env var: 'EDGEKV_DATA_DIR'): it is empty",
        ),
        (["export", "--file", ""], "Invalid value for '--file': it is empty"),
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


def test_an_error_of_unknown_outcome_is_that_also_when_its_code_is_new(node: FakeNode, edgekv: Program) -> None:
    node.problem = (500, {"code": "internal", "outcome": "unknown", "detail": "a sentence."})
    assert edgekv("put", "a", "b").exit_code == 7


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


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(["get", "nokey"], 3), (["get", "a", "--http", "127.0.0.1:1"], 5), (["scan"], 0)]
)
def test_debug_adds_a_traceback_and_changes_nothing_else(
    node: FakeNode, edgekv: Program, arguments: list[str], exit_code: int
) -> None:
    plain, debug = edgekv(*arguments), edgekv("--debug", *arguments)
    assert plain.exit_code == debug.exit_code == exit_code
    assert "Traceback" not in plain.err
    assert ("Traceback" in debug.err) == (exit_code != 0)
    assert debug.err.endswith(plain.err)


def test_a_fault_of_ours_is_one_line_and_a_traceback_with_debug(
    node: FakeNode, edgekv: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("two\nlines")

    monkeypatch.setattr("edgekv.cli.kv.key_path", broken)
    line = "edgekv: internal error (LookupError: two lines); run with edgekv --debug for the traceback\n"
    assert edgekv("get", "a") == (1, b"", line)
    debug = edgekv("--debug", "get", "a")
    assert debug.exit_code == 1 and "Traceback" in debug.err and debug.err.endswith(line)


def test_each_flag_has_a_variable(
    node: FakeNode, edgekv: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKV_PUT_TTL_S", "60")
    edgekv("put", "a", "1")
    assert node.requests == ["PUT /v1/kv/a?ttl_s=60 HTTP/1.1"]
    monkeypatch.setenv("EDGEKV_SCAN_KEYS_ONLY", "1")
    assert edgekv("scan").text == "a\n"
    monkeypatch.setenv("EDGEKV_IMPORT_FORMAT", "csv")
    monkeypatch.setenv("EDGEKV_IMPORT_KEY", "{n}")
    assert edgekv("import", "-", stdin=b"n\n7\n").exit_code == 0
    assert node.rows[b"7"] == b'{"n":"7"}'
    monkeypatch.setenv("EDGEKV_VERSION", "1")
    monkeypatch.setenv("EDGEKV_SERVE_DATA_DIR", str(tmp_path))
    assert "no data directory" in edgekv("serve").err, "a setting has one variable, EDGEKV_DATA_DIR"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_s_variable_is_named_as_the_flag(command: str) -> None:
    """click makes it of the parameter's name: where that is another, the variable is given."""
    context = click.Context(edgekv_program)
    found = edgekv_program.get_command(context, command)
    assert found is not None
    known = [*found.params, *(option for sub in getattr(found, "commands", {}).values() for option in sub.params)]
    for option in known:
        if isinstance(option, click.Option) and option.allow_from_autoenv and option.envvar is None:
            assert f"--{option.name}".replace("_", "-") in option.opts


def test_a_reader_that_leaves_early_is_no_error_worth_a_message(node: FakeNode) -> None:
    node.rows = {b"k%06d" % number: b"x" * 1000 for number in range(2000)}
    command = f"{sys.executable} -m edgekv scan --keys-only --limit 5000 --http {node.http} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("k000000\n", "")
