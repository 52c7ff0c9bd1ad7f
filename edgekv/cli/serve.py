"""``edgekv serve``: builds the configuration, chooses the event loop, and hands over to ``edgekv.server``.

The only place where uvloop is installed and where the interpreter's switch interval is set.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from edgekv.cli.options import Output, PathType, output_option, print_table
from edgekv.config import KEYS, UPSTREAM, Config, Loaded, environment_name, flag_name, load

# After each fdatasync the flusher thread needs the GIL to say so. With Python's 5 ms it waits that long for a busy event loop:
# unpipelined SETs fell from 50,000 to 23,000 a second.
SWITCH_INTERVAL_S: Final = 5e-5

HELP: Final = {
    "data_dir": ("DIR", "The node's directory; created when absent."),
    "node": ("NAME", "This node's name."),
    "site": ("NAME", "The place that it stands in."),
    "role": ("ROLE", "hub or edge."),
    "http": ("HOST:PORT", "HTTP listener; port 0 picks a free one."),
    "resp": ("HOST:PORT", "Redis protocol listener."),
    "peer": ("HOST:PORT", "Listener for other nodes."),
    "applier": ("MODE", "process or inline: who writes LMDB."),
    "durability": ("LEVEL", "fsync or buffered: when a write is acknowledged."),
    "memory_bytes": ("BYTES", "Bound on rows not yet in LMDB."),
    "small_memory": ("BOOL", "true: accept memory-bytes down to 1 MiB."),
    "max_offline_days": ("DAYS", "How long a member may be silent."),
    "wal.segment_bytes": ("BYTES", "Size of a log segment."),
    "wal.retain_bytes": ("BYTES", "Log kept for readers that lag."),
    "limits.value_bytes_max": ("BYTES", "Largest value."),
}
assert HELP.keys() == KEYS.keys()
UPSTREAM_HELP: Final = "Peer listener of a node to replicate with; may be given several times."


def setting_options(command: click.Command) -> click.Command:
    """One flag for each key of the configuration, and one for upstreams.

    Their variables are read by ``config.load``, which knows the precedence.
    """
    for key, (metavar, text) in HELP.items():
        help_text = f"{text}  [env var: {environment_name(key)}]"
        command.params.append(
            click.Option(
                [flag_name(key), key.replace(".", "__")],
                type=PathType() if key == "data_dir" else None,
                metavar=metavar,
                help=help_text,
                allow_from_autoenv=False,
            )
        )
    command.params.append(
        click.Option(
            [flag_name(UPSTREAM)],
            multiple=True,
            metavar="HOST:PORT",
            help=f"{UPSTREAM_HELP}  [env var: {environment_name(UPSTREAM)}]",
            allow_from_autoenv=False,
        )
    )
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "file", type=PathType(path_type=Path), envvar="EDGEKV_CONFIG", show_envvar=True, help="TOML file."
)
@click.option("--check-config", is_flag=True, help="Say what would be in force, and where it was set; start nothing.")
@output_option
def serve(file: Path | None, check_config: bool, output: Output, **settings: str | tuple[str, ...] | None) -> None:
    """Run one node until SIGTERM or SIGINT.

    A flag beats its EDGEKV_* variable, which beats the file. When everything listens, one line per listener
    is printed, then "ready".

    \b
    edgekv serve --data-dir ./data
    edgekv serve --config /etc/edgekv.toml --http 127.0.0.1:0
    edgekv serve --data-dir ./edge --role edge --site shop-7 --node till-1 --upstream 127.0.0.1:7582
    edgekv serve --config /etc/edgekv.toml --check-config
    """
    flags = {key.replace("__", "."): value for key, value in settings.items()}
    loaded = load(file=file, environ=os.environ, flags=flags)
    if check_config:
        _show(loaded, output)
    else:
        _run(loaded.config)


setting_options(serve)


def _run(config: Config) -> None:
    # Imported here: --help and --check-config must not pay for aiohttp and LMDB.
    import uvloop  # noqa: PLC0415

    from edgekv import server  # noqa: PLC0415

    uvloop.install()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    server.run(config, click.echo)


def _show(loaded: Loaded, output: Output) -> None:
    values = asdict(loaded.config)
    if output == "json":
        click.echo(json.dumps({"settings": _plain(values), "sources": loaded.sources}, indent=2))
        return
    rows = [(key, _plain(_at(values, key)), loaded.sources.get(key, "default")) for key in KEYS]
    rows += [(UPSTREAM, str(known.address), loaded.sources[UPSTREAM]) for known in loaded.config.upstreams]
    rows += [(f"keyspace {known.name}", known.prefix.decode(), "file") for known in loaded.config.keyspaces]
    print_table(("KEY", "VALUE", "FROM"), rows)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _plain(value: object) -> object:
    """A value of the configuration as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, tuple) and not hasattr(value, "host"):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, int | str | None) else str(value)
