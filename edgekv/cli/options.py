"""Options and output that several commands share, so that they are spelled and behave alike.

``-o table`` is for people: aligned columns, keys as text. ``-o json`` is for programs: one JSON document, in which bytes that are
not UTF-8 appear as ``{"base64": "..."}`` as in the HTTP API.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import click

from edgekv.config import Address
from edgekv.errors import ConfigError

Output = Literal["table", "json"]


class AddressType(click.ParamType[Address]):
    """``HOST:PORT`` on the command line."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the text; a usage error when it is no address."""
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


ADDRESS: Final = AddressType()

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    envvar="EDGEKV_OUTPUT",
    show_envvar=True,
    help="How to print what is found.",
)
http_option = click.option(
    "--http",
    type=ADDRESS,
    default="127.0.0.1:7480",
    show_default=True,
    envvar="EDGEKV_HTTP",
    show_envvar=True,
    help="The node's HTTP listener.",
)
resp_option = click.option(
    "--resp",
    type=ADDRESS,
    default="127.0.0.1:7481",
    show_default=True,
    envvar="EDGEKV_RESP",
    show_envvar=True,
    help="The node's RESP listener.",
)
timeout_option = click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.1, max=3600),
    default=10.0,
    show_default=True,
    envvar="EDGEKV_TIMEOUT_S",
    show_envvar=True,
    help="Give up on a node that does not answer for so long.",
)


def as_json(value: bytes) -> str | dict[str, str]:
    """Bytes as the HTTP API writes them in JSON: text when they are UTF-8, else ``{"base64": ...}``."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def from_json(value: object) -> bytes | None:
    """The inverse of ``as_json``; None when it is neither form."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except ValueError:
            return None
    return None


def as_text(value: bytes) -> str:
    """Bytes for a person: UTF-8, anything else and control characters as ``\\x..`` escapes."""
    text = value.decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def print_json(value: object) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns, the last one as wide as it is."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
