"""The ``edgekv`` program: finds the command, runs it, and turns what goes wrong into one line and an exit code.

A command's module is imported only when it is called, so ``edgekv --help`` costs click alone (no aiohttp, no rich, no LMDB).
Exit codes (docs/CLI.md): 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 unavailable, 6 denied, 7 outcome unknown; an
EdgeKVError carries its own. ``--debug`` adds a traceback and changes nothing else.
"""

import difflib
import importlib
import os
import sys
from typing import Final, NamedTuple, NoReturn

import click

from edgekv import __version__
from edgekv.errors import EdgeKVError, InvalidRequest

INTERRUPTED: Final = 130  # 128 + SIGINT, what a shell shows for it


class Entry(NamedTuple):
    """Where a command lives, and its line in ``edgekv --help``."""

    module: str
    name: str
    summary: str


COMMANDS: Final = {
    "serve": Entry("edgekv.cli.serve", "serve", "Run one node."),
    "get": Entry("edgekv.cli.kv", "get", "Print the value of a key."),
    "put": Entry("edgekv.cli.kv", "put", "Store a value; returns when it is durable."),
    "del": Entry("edgekv.cli.kv", "delete", "Delete keys."),
    "incr": Entry("edgekv.cli.kv", "incr", "Add to a counter and print it."),
    "scan": Entry("edgekv.cli.kv", "scan", "List keys and values in order."),
    "watch": Entry("edgekv.cli.watch", "watch", "Print what is written, as it becomes durable."),
    "import": Entry("edgekv.cli.transfer", "import_file", "Load a CSV or JSON Lines file; resumes where it stopped."),
    "export": Entry("edgekv.cli.transfer", "export_file", "Write keys and values as JSON Lines."),
    "dev": Entry("edgekv.cli.dev", "dev", "A whole cluster on this machine, with links that can be cut."),
    "demo": Entry("edgekv.cli.demo", "demo", "Real data at three sites, a cut link, a kill -9, and a proof."),
    "bench": Entry("edgekv.cli.bench", "bench", "Load a running node and print rates and latencies."),
    "cluster": Entry("edgekv.cli.cluster", "cluster", "Members, links and lags; whether nodes hold the same."),
    "keyspace": Entry("edgekv.cli.keyspace", "keyspace", "List the keyspaces of a node."),
    "wal": Entry("edgekv.cli.wal", "wal", "Look into a log, or salvage a damaged one (node stopped)."),
}


class LazyGroup(click.Group):
    """A group whose commands are looked up in COMMANDS and imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import the command; None when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a mistyped name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else "See edgekv --help."
            raise click.UsageError(f'there is no command "{args[0]}". {hint}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The list of commands from the table: asking each command itself would import them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EDGEKV"})
@click.version_option(__version__, message="edgekv %(version)s", allow_from_autoenv=False)
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,  # `run` needs it when parsing has failed, and looks for itself.
    envvar="EDGEKV_DEBUG",
    show_envvar=True,
    help="Show a traceback with an error.",
)
def edgekv() -> None:
    """EdgeKV, a durable key-value store for the edge.

    \b
    edgekv serve --data-dir ./data          run a node
    edgekv put room/7/temp 21.5             store a value
    edgekv scan room/                       list what is there
    edgekv COMMAND --help                   examples of each command
    """


def main() -> NoReturn:
    """Run the program with the process' arguments, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Errors are one line on stderr."""
    debug = "--debug" in arguments or os.environ.get("EDGEKV_DEBUG", "0").lower() not in {"", "0", "false", "no"}
    try:
        result = edgekv.main(arguments, prog_name="edgekv", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)  # ``edgekv`` or ``edgekv wal`` alone: the help is the answer
        return InvalidRequest.exit_status
    except click.UsageError as error:
        return _fail(_usage(error), InvalidRequest.exit_status)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left (``edgekv scan | head``): nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EdgeKVError as error:
        return _fail(str(error), error.exit_status, error if debug else None)
    except OSError as error:
        return _fail(_system(error), 1, error if debug else None)
    except Exception as error:  # noqa: BLE001 - A fault of ours is one line too: a traceback tells a user nothing to do.
        message = f"internal error ({type(error).__name__}: {error}); run with edgekv --debug for the traceback"
        return _fail(message, EdgeKVError.exit_status, error if debug else None)
    return result if isinstance(result, int) else 0


def _usage(error: click.UsageError) -> str:
    """What is wrong with the command line, and where to read how it is right."""
    message = error.format_message().rstrip(".").replace("\n", " ")
    command = error.ctx.command_path if error.ctx else "edgekv"
    return message if "See edgekv" in message or "Did you mean" in message else f"{message}. See {command} --help."


def _system(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _fail(message: str, exit_code: int, traced: Exception | None = None) -> int:
    """One line on stderr, below the traceback of ``traced``."""
    if traced is not None:
        sys.excepthook(type(traced), traced, traced.__traceback__)  # as Python would, without importing traceback
    print(f"edgekv: {' '.join(message.splitlines())}", file=sys.stderr)  # another program's words may have line ends
    return exit_code
