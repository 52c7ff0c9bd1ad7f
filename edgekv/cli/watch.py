"""``edgekv watch``: what is written below a prefix, line by line; through the client library, which reconnects when it must."""

import os
import sys
from typing import Final

import click

from edgekv.cli.options import Output, as_cell, as_text, output_option, print_json, resp_option, timeout_option
from edgekv.client.synchronous import connect
from edgekv.client.watch import WatchEvent
from edgekv.codec import as_json
from edgekv.config import Address

_KIND_WIDTH: Final = 6
_TYPE_WIDTH: Final = 8
_KEY_WIDTH: Final = 32


@click.command()
@click.argument("prefix", default="")
@click.option(
    "--cursor", default="", metavar="CURSOR", help='Go on behind this one of an earlier event; "0": current rows first.'
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many events.")
@output_option
@resp_option
@timeout_option
def watch(prefix: str, cursor: str, limit: int | None, output: Output, resp: Address, timeout_s: float) -> None:
    """Print what is written to keys that begin with PREFIX, as it becomes durable, until Ctrl-C. Without PREFIX: all keys.

    When the node is gone, wait for it for --timeout-s, and go on without a gap.

    \b
    edgekv watch room/
    edgekv watch room/ --cursor 0 -o json
    """
    printed = 0
    with connect(f"edgekv://{resp}", deadline_s=timeout_s) as db:
        try:
            for event in db.watch(os.fsencode(prefix), cursor=cursor):
                cursor = event.cursor
                print_json(_document(event)) if output == "json" else click.echo(_line(event))
                sys.stdout.flush()
                printed += 1
                if printed == limit:
                    return
        except KeyboardInterrupt:
            if output == "table" and cursor:
                click.echo(f"edgekv: to go on from here, add --cursor {cursor}", err=True)
            raise


def _document(event: WatchEvent) -> dict[str, object]:
    """The event as HTTP has it, with its name and cursor."""
    found: dict[str, object] = {"event": event.kind, "cursor": event.cursor}
    if event.phase:
        return {**found, "phase": event.phase}
    found |= {"key": as_json(event.key), "type": event.type}
    if event.version:
        found["version"] = event.version
    if event.value is not None:
        found["value"] = as_json(event.value)
    if event.expiry_ms or event.kind == "expire":
        found["expiry_ms"] = event.expiry_ms
    if event.elements is not None:
        found["elements"] = [as_json(element) for element in event.elements]
    if event.fields is not None:
        found["fields"] = [_field(field, value) for field, value in event.fields.items()]
    return found


def _field(field: bytes, value: bytes | None) -> dict[str, object]:
    shown: dict[str, object] = {"field": as_json(field)}
    return shown if value is None else {**shown, "value": as_json(value)}


def _line(event: WatchEvent) -> str:
    """For people: columns that are as wide as most of what stands in them."""
    what = event.phase or _what(event)
    cells = (event.kind.ljust(_KIND_WIDTH), event.type.ljust(_TYPE_WIDTH), as_text(event.key).ljust(_KEY_WIDTH), what)
    return "  ".join(cells).rstrip()


def _what(event: WatchEvent) -> str:
    if event.value is not None:
        return as_cell(event.value)
    if event.elements is not None:
        return " ".join(map(as_cell, event.elements))
    if event.fields is not None:
        return " ".join(as_text(f) if v is None else f"{as_text(f)}={as_cell(v)}" for f, v in event.fields.items())
    if event.kind == "expire":
        return f"at {event.expiry_ms} ms" if event.expiry_ms else "never"
    return ""
