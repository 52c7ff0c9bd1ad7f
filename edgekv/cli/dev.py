"""``edgekv dev``: a whole cluster on this machine, and the orders that it takes: what there is, cut, heal, kill, start."""

import json
import socket
from pathlib import Path
from typing import Any, Final

import click

from edgekv.cli import dev_layout
from edgekv.cli.dev_layout import Layout, short_path
from edgekv.cli.options import Output, PathType, output_option, print_json, print_table
from edgekv.errors import ConfigError, EdgeKVError, InvalidRequest, Unavailable

DIRECTORY: Final = Path("edgekv-dev")
ANSWER_S: Final = 90.0
_REFUSALS: Final = {kind.code: kind for kind in (InvalidRequest, ConfigError, Unavailable)}
_COLUMNS: Final = ("NAME", "SITE", "ROLE", "HTTP", "RESP", "PEER", "PID", "STATE")


def _cluster(context: click.Context, _: click.Parameter, value: Path | None) -> Path:
    """The directory of an order: its own --dir, else that of ``edgekv dev``."""
    return value or context.find_object(Path) or DIRECTORY


_dir = PathType(path_type=Path, file_okay=False)
cluster_option = click.option(
    "--dir",
    "directory",
    type=_dir,
    envvar="EDGEKV_DEV_DIR",
    show_envvar=True,
    callback=_cluster,
    help=f"Where the cluster lives.  [default: {DIRECTORY}]",
)


@click.group(invoke_without_command=True)
@click.option("--edges", type=click.IntRange(0, 50), default=None, help="How many edge sites.  [default: 2]")
@click.option("--hubs", type=click.IntRange(1, 5), default=None, help="How many hubs the cloud has.  [default: 1]")
@click.option("--site", multiple=True, help="Name an edge site; repeat for each, instead of --edges.")
@click.option(
    "--dir",
    "directory",
    type=_dir,
    default=DIRECTORY,
    show_default=True,
    envvar="EDGEKV_DEV_DIR",
    show_envvar=True,
    help="Where the cluster lives; created when absent.",
)
@click.pass_context
def dev(context: click.Context, edges: int | None, hubs: int | None, site: tuple[str, ...], directory: Path) -> None:
    """Run a cluster on this machine: a cloud and edge sites, with links between them that can be cut.

    Each node is a process of its own below --dir, and goes on where it was when the cluster is started again. Ctrl-C ends all of it.

    \b
    edgekv dev --edges 3                    and in another terminal:
    edgekv dev nodes
    edgekv dev cut edge-1 cloud             nothing passes between the two sites
    edgekv dev heal edge-1 cloud
    edgekv dev kill edge-2-1                kill -9
    edgekv dev start edge-2-1
    """
    if context.invoked_subcommand is not None:
        context.obj = directory
        return
    import asyncio  # noqa: PLC0415 - only a cluster needs it, and --help is to be fast

    from edgekv.cli.dev_cluster import DevCluster  # noqa: PLC0415 - the same

    if site and edges is not None:
        raise InvalidRequest("--site names the edge sites and --edges counts them: give one of the two")
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    layout = dev_layout.load(directory)
    if layout is None:
        names = site or tuple(f"edge-{i + 1}" for i in range(2 if edges is None else edges))
        layout = dev_layout.create(names, hubs or 1)
    elif site or edges is not None or hubs is not None:
        _check_same(directory, layout, site, edges, hubs)
    asyncio.run(DevCluster(directory, layout, click.echo).run())


@dev.command()
@output_option
@cluster_option
def nodes(output: Output, directory: Path) -> None:
    """List the nodes of a running cluster.

    \b
    edgekv dev nodes
    edgekv dev nodes -o json
    """
    found = order(directory, "nodes")
    if output == "json":
        print_json(found)
    else:
        print_table(_COLUMNS, [tuple(str(each[name.lower()] or "") for name in _COLUMNS) for each in found])


@dev.command()
@output_option
@cluster_option
def links(output: Output, directory: Path) -> None:
    """List the links between sites: whether they are cut, and how many bytes have passed.

    \b
    edgekv dev links
    """
    found = order(directory, "links")
    if output == "json":
        print_json(found)
    else:
        rows = [(each["site"], each["hub"], "cut" if each["cut"] else "up", str(each["bytes"])) for each in found]
        print_table(("SITE", "HUB", "STATE", "BYTES"), rows)


@dev.command()
@click.argument("site")
@click.argument("other_site")
@cluster_option
def cut(site: str, other_site: str, directory: Path) -> None:
    """Cut the link between two sites: nothing passes, and nobody is told.

    Connections stay open and silent, new ones too. Each node finds out by itself.

    \b
    edgekv dev cut edge-1 cloud
    """
    order(directory, "cut", site, other_site)
    click.echo(f"cut: {site} and {other_site}")


@dev.command()
@click.argument("site")
@click.argument("other_site")
@cluster_option
def heal(site: str, other_site: str, directory: Path) -> None:
    """Let the link between two sites pass again: what was silent is reset, and the nodes connect anew.

    \b
    edgekv dev heal edge-1 cloud
    """
    order(directory, "heal", site, other_site)
    click.echo(f"healed: {site} and {other_site}")


@dev.command()
@click.argument("node")
@cluster_option
def kill(node: str, directory: Path) -> None:
    """Kill a node by SIGKILL, as a power switch would its process.

    \b
    edgekv dev kill edge-1-1
    """
    order(directory, "kill", node)
    click.echo(f"killed: {node}")


@dev.command()
@click.argument("node")
@cluster_option
def start(node: str, directory: Path) -> None:
    """Start a node that was killed, and wait until it is ready.

    \b
    edgekv dev start edge-1-1
    """
    figures = order(directory, "start", node)
    click.echo(f"started: {node} (pid {figures['pid']})")


def order(directory: Path, *words: str) -> Any:
    """Have a running cluster do something; its answer. Unavailable when none runs there."""
    try:
        with short_path(directory) as path, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(path)
            connection.sendall(json.dumps(words).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline())
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise Unavailable(
            f"no development cluster runs in {directory}. Start one: edgekv dev --dir {directory}"
        ) from error
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"the development cluster in {directory} did not answer ({error}): it may be ending. See what it says, and try again."
        ) from error
    if "error" in answer:
        raise _REFUSALS.get(answer["code"], EdgeKVError)(answer["error"])
    return answer["ok"]


def _check_same(directory: Path, layout: Layout, sites: tuple[str, ...], edges: int | None, hubs: int | None) -> None:
    """A cluster that is there keeps its shape."""
    held = [node.site for node in layout.edges]
    if (sites and list(sites) != held) or edges not in (None, len(held)) or hubs not in (None, len(layout.hubs)):
        raise InvalidRequest(
            f"{directory} holds a cluster with --hubs {len(layout.hubs)} and the edge sites {', '.join(held) or '(none)'}. Start it "
            "without --edges, --hubs and --site, or choose another --dir."
        )
