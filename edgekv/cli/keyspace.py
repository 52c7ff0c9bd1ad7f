"""``edgekv keyspace list``: which keyspaces a node has, and how each is set."""

from typing import Any, Final

import click

from edgekv.cli.node_http import NodeHttp
from edgekv.cli.options import Output, as_text, http_option, output_option, print_json, print_table, timeout_option
from edgekv.codec import from_json
from edgekv.config import Address
from edgekv.errors import Unavailable

_COLUMNS: Final = ("NAME", "PREFIX", "CONSISTENCY", "CONFLICT", "DURABILITY", "TTL", "SITES")


@click.group()
def keyspace() -> None:
    """Look at the keyspaces of a node.

    \b
    edgekv keyspace list
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


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    ttl_s = found["ttl_s"]
    return (
        found["name"],
        as_text(from_json(found["prefix"]) or b"") or "(empty)",
        found["consistency"],
        found["conflict"],
        found["durability"],
        f"{ttl_s} s" if ttl_s else "none",
        ", ".join(found["sites"]) or "all",
    )
