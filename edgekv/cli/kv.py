"""``edgekv get | put | del | incr | scan``: one key at a time, or a list of them, through a node's HTTP API.

Keys and values are bytes: an argument is taken as the bytes the shell passed, a value may come from a file or stdin, and ``get``
writes a value exactly as it is stored.
"""

import json
import os
import sys
from http.client import MULTIPLE_CHOICES
from itertools import groupby, islice
from typing import BinaryIO

import click

from edgekv.cli.listing import TYPES, Listed, scan_pages
from edgekv.cli.node_http import NodeHttp, key_path
from edgekv.cli.options import (
    NumbersCommand,
    Output,
    as_cell,
    as_text,
    http_option,
    output_option,
    print_json,
    print_table,
    timeout_option,
)
from edgekv.codec import as_json
from edgekv.config import Address
from edgekv.errors import ConcurrentValues, NotANumber, NotFound


class KeyArgument(click.ParamType[bytes]):
    """A key as the bytes that the shell passed."""

    name = "KEY"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """The argument's bytes; a usage error for an empty one."""
        if not value:
            self.fail("a key has at least one byte", param, ctx)
        return value if isinstance(value, bytes) else os.fsencode(str(value))


@click.command()
@click.argument("key", type=KeyArgument())
@output_option
@http_option
@timeout_option
def get(key: bytes, output: Output, http: Address, timeout_s: float) -> None:
    """Print the value of KEY, byte for byte (a line end is added on a terminal). Exit code 3 when there is none.

    A key that has several concurrent values (conflict = "siblings") is exit code 4; -o json prints them all.

    \b
    edgekv get room/7/temp
    edgekv get photo/1 > photo.jpg
    edgekv get room/7/temp -o json
    """
    with NodeHttp(http, timeout_s) as node:
        try:
            reply = node.read(key_path("kv", key))
        except NotFound as error:
            raise NotFound(f"there is no key {as_text(key)}") from error
    if reply.status == MULTIPLE_CHOICES:
        _print_values(key, reply.json(), output)
        return
    if output == "json":
        print_json({"key": as_json(key), "value": as_json(reply.body), "etag": reply.headers.get("etag", "")})
        return
    sys.stdout.buffer.write(reply.body)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")


def _print_values(key: bytes, found: dict[str, object], output: Output) -> None:
    """All values of a key as JSON; bytes as they are stored have no order to be printed in."""
    values = found.get("values")
    assert isinstance(values, list)
    if output != "json":
        name = as_text(key)
        raise ConcurrentValues(f"{name} has {len(values)} concurrent values: edgekv get {name} -o json prints them")
    print_json({"key": as_json(key), **found})


@click.command(cls=NumbersCommand)
@click.argument("key", type=KeyArgument())
@click.argument("value", required=False)
@click.option("--file", type=click.File("rb"), help='Take the value from a file; "-" is stdin.')
@click.option("--ttl-s", type=click.IntRange(min=1), help="Expire after so many seconds.")
@http_option
@timeout_option
def put(
    key: bytes, value: str | None, file: BinaryIO | None, ttl_s: int | None, http: Address, timeout_s: float
) -> None:
    """Store VALUE under KEY. Returns when it would survive a power cut.

    A VALUE that begins with a dash and is no number goes after "--".

    \b
    edgekv put room/7/temp -5
    edgekv put session/9 open --ttl-s 3600
    edgekv put photo/1 --file photo.jpg
    """
    if (value is None) == (file is None):
        raise click.UsageError("give either VALUE or --file", click.get_current_context())
    content = file.read() if file is not None else os.fsencode(value or "")
    query = f"?ttl_s={ttl_s}" if ttl_s else ""
    with NodeHttp(http, timeout_s) as node:
        node.change("PUT", key_path("kv", key) + query, content, {"Content-Type": "application/octet-stream"})


@click.command("del")
@click.argument("keys", type=KeyArgument(), nargs=-1, required=True)
@http_option
@timeout_option
def delete(keys: tuple[bytes, ...], http: Address, timeout_s: float) -> None:
    """Delete KEYS, one after the other. Exit code 3 when one of them did not exist (the others are deleted).

    \b
    edgekv del room/7/temp room/7/humidity
    """
    missing = []
    with NodeHttp(http, timeout_s) as node:
        for key in keys:
            try:
                node.change("DELETE", key_path("kv", key))
            except NotFound:
                missing.append(as_text(key))
    if missing:
        raise NotFound(f"no such key: {', '.join(missing)}")


@click.command(cls=NumbersCommand)
@click.argument("key", type=KeyArgument())
@click.argument("amount", type=int, default=1)
@output_option
@http_option
@timeout_option
def incr(key: bytes, amount: int, output: Output, http: Address, timeout_s: float) -> None:
    """Add AMOUNT (default 1, may be negative) to the counter KEY and print what it is now.

    \b
    edgekv incr door/visits
    edgekv incr stock/bolts -20
    """
    body = json.dumps({"add": amount}).encode()
    with NodeHttp(http, timeout_s) as node:
        try:
            reply = node.change(
                "POST", key_path("counter", key), body, {"Content-Type": "application/json"}, status=200
            )
        except NotANumber as error:
            name = as_text(key)
            raise NotANumber(
                f"{name} is not a whole number, or the sum would leave 64 bits: edgekv get {name} shows what it is"
            ) from error
    value = reply.json().get("value")
    if output == "json":
        print_json({"key": as_json(key), "value": value})
    else:
        click.echo(value)


@click.command()
@click.argument("prefix", default="")
@click.option("--start", default="", help="Begin at this key.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Stop after so many entries, and say so when there are more.",
)
@click.option("--type", "kind", type=click.Choice(TYPES), envvar="EDGEKV_SCAN_TYPE", help="List these only.")
@click.option("--keys-only", is_flag=True, help="Do not print values.")
@output_option
@http_option
@timeout_option
def scan(
    prefix: str,
    start: str,
    limit: int,
    kind: str | None,
    keys_only: bool,
    output: Output,
    http: Address,
    timeout_s: float,
) -> None:
    """List the keys that begin with PREFIX (default: all), in byte order.

    Of a set or a hash (a map) the table says how many members or fields it has. The list is read page by page; each page is
    consistent, the whole is not a snapshot. The table cuts long values and shows bytes that are no text as \\x..; -o json is exact.

    \b
    edgekv scan room/
    edgekv scan room/ --keys-only --limit 100000
    edgekv scan --type set -o json
    """
    with NodeHttp(http, timeout_s) as node:
        found = scan_pages(node, os.fsencode(prefix), os.fsencode(start), limit=limit + 1, kind=kind)
        shown = islice(found, limit)
        if output == "json":
            print_json([_document(entry) for entry in shown])
        elif keys_only:
            for key, _ in groupby(shown, key=lambda entry: entry.key):  # one of several types is listed once
                click.echo(as_text(key))
        else:
            print_table(("KEY", "TYPE", "VALUE"), [(as_text(entry.key), entry.kind, _cell(entry)) for entry in shown])
        if next(found, None) is not None:
            click.echo(f"edgekv: stopped at --limit {limit}; there are more", err=True)


def _document(entry: Listed) -> dict[str, object]:
    held = {"value": as_json(entry.value)} if entry.kind == "string" else {"count": entry.rows}
    return {"key": as_json(entry.key), "type": entry.kind, **held}


def _cell(entry: Listed) -> str:
    if entry.kind == "string":
        return as_cell(entry.value)
    noun = "member" if entry.kind == "set" else "field"
    return f"({entry.rows} {noun}{'' if entry.rows == 1 else 's'})"
