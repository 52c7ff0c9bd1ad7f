"""``edgekv keyspace``: which keyspaces a node has and how each is set; creating one, and moving it among sites, at the leading hub."""

import os
from typing import Any, Final
from urllib.parse import quote

import click

from edgekv.cli.node_http import NodeHttp, Reply
from edgekv.cli.options import Output, as_text, http_option, output_option, print_json, print_table, timeout_option
from edgekv.codec import from_json
from edgekv.config import Address
from edgekv.errors import Unavailable

_COLUMNS: Final = ("NAME", "PREFIX", "CONSISTENCY", "CONFLICT", "DURABILITY", "TTL", "SITES", "HERE")
_HERE: Final = {"held": "yes", "draining": "draining", "elsewhere": "no"}


@click.group()
def keyspace() -> None:
    """Look at the keyspaces of a node, create one, and say which sites hold it.

    \b
    edgekv keyspace list
    edgekv keyspace create rooms --prefix rooms/ --sites shop-1,shop-2
    """


@keyspace.command("list")
@output_option
@http_option
@timeout_option
def list_keyspaces(output: Output, http: Address, timeout_s: float) -> None:
    """List the keyspaces in the order of their prefixes. A key belongs to the one whose prefix it begins with, else to the default.

    \b
    edgekv keyspace list
    edgekv keyspace list -o json
    """
    with NodeHttp(http, timeout_s) as node:
        found = node.read("/v1/admin/keyspaces").json().get("keyspaces")
    if not isinstance(found, list):
        raise Unavailable("the answer has no keyspaces: is this the HTTP listener of an EdgeKV node?")
    if output == "json":
        print_json(found)
    else:
        print_table(_COLUMNS, [_row(each) for each in found])


@keyspace.command()
@click.argument("name")
@click.option("--prefix", required=True, help="Keys that begin with it belong to the keyspace. Prefixes do not nest.")
@click.option("--sites", default="", metavar="A,B", help="Whose edges hold it; hubs hold all.  [default: every site]")
@click.option(
    "--conflict",
    type=click.Choice(["lww", "siblings"]),
    default="lww",
    help="Of concurrent values the later one stays, or all. Fixed for ever.",
    show_default=True,
)
@http_option
@timeout_option
def create(name: str, prefix: str, sites: str, conflict: str, http: Address, timeout_s: float) -> None:
    """Create a keyspace. Ask the hub that leads; it must not have keys below the prefix.

    What a node writes there before it has heard of the keyspace stays in the default one, and its status counts it as misplaced.

    \b
    edgekv keyspace create rooms --prefix rooms/
    edgekv keyspace create ward --prefix ward/ --sites clinic-1,clinic-2 --conflict siblings
    """
    given = {"keyspace": name, "prefix": prefix, "sites": sites, "conflict": conflict}
    with NodeHttp(http, timeout_s) as node:
        reply = node.change("PUT", f"/v1/admin/keyspaces?{_query(given)}")
    click.echo(f"created: {name}")
    _note(reply)


@keyspace.command("add-site")
@click.argument("name")
@click.argument("site")
@http_option
@timeout_option
def add_site(name: str, site: str, http: Address, timeout_s: float) -> None:
    """Have the edges of a site hold a keyspace, from now on. Ask the hub that leads.

    They fetch it by the links that they have, and nothing else again.

    \b
    edgekv keyspace add-site ward clinic-3
    """
    with NodeHttp(http, timeout_s) as node:
        reply = node.change("PUT", f"/v1/admin/sites?{_query({'keyspace': name, 'site': site})}")
    click.echo(f"added: {name} is at {site}")
    _note(reply)


@keyspace.command("remove-site")
@click.argument("name")
@click.argument("site")
@http_option
@timeout_option
def remove_site(name: str, site: str, http: Address, timeout_s: float) -> None:
    """Take a site off a keyspace. Ask the hub that leads.

    Each edge of the site refuses calls on it as soon as it knows, sends what it had written before, and then deletes its copy. One
    that is cut off does so when it is back; `edgekv keyspace list` says as long as the site drains.

    \b
    edgekv keyspace remove-site ward clinic-1
    """
    with NodeHttp(http, timeout_s) as node:
        node.change("DELETE", f"/v1/admin/sites?{_query({'keyspace': name, 'site': site})}")
    click.echo(f"removed: {name} drains at {site}")


def _note(reply: Reply) -> None:
    """What the node says beside that it is done."""
    if note := reply.headers.get("edgekv-note"):
        click.echo(f"note: {note}", err=True)


def _query(given: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(os.fsencode(text), safe='')}" for name, text in given.items() if text)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    ttl_s = found["ttl_s"]
    return (
        found["name"],
        as_text(from_json(found["prefix"]) or b"") or "(empty)",
        found["consistency"],
        found["conflict"],
        found["durability"],
        f"{ttl_s} s" if ttl_s else "none",
        ", ".join([*found["sites"], *(f"{site} (draining)" for site in found["draining"])]) or "all",
        _HERE[found["state"]],
    )
