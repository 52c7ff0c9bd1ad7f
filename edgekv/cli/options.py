"""Options and output that several commands share, so that they are spelled and behave alike.

``-o table`` is for people: aligned columns, keys as text. ``-o json`` is for programs: one JSON document, in which bytes that are
not UTF-8 appear as ``{"base64": "..."}`` as in the HTTP API.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import click

from edgekv.config import Address
from edgekv.errors import ConfigError

Output = Literal["table", "json"]

CELL_CHARACTERS_MAX: Final = 500  # A row of JSON is shown whole; a photo would fill the terminal for minutes.
OTHER_THAN_ASCII: Final = re.compile(r"[^ -~]")
NEGATIVE_NUMBER: Final = re.compile(r"-\.?[0-9][0-9.eE+-]*")


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


class PathType(click.Path):
    """A path on the command line. An empty one is refused: Path("") is the working directory, which nobody meant."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """As click does; a usage error for an empty one."""
        if value == "":
            self.fail("it is empty: give a path", param, ctx)
        return super().convert(value, param, ctx)


class NumbersCommand(click.Command):
    """A command of which an argument may be a negative number: ``-5`` would be an unknown option to click."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does. Unknown options pass only beside a negative number: a mistyped option must not become a value."""
        ctx.ignore_unknown_options = any(NEGATIVE_NUMBER.fullmatch(argument) for argument in args)
        return super().parse_args(ctx, args)


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
nodes_option = click.option(
    "--http",
    type=ADDRESS,
    multiple=True,
    required=True,
    envvar="EDGEKV_HTTP",
    show_envvar=True,
    help="A node's HTTP listener; give it for each node that is compared.",
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


def as_text(value: bytes) -> str:
    """Bytes for a person: UTF-8, anything else and control characters as ``\\x..`` escapes."""
    return _printable(value.decode("utf-8", "surrogateescape"))


def as_cell(value: bytes) -> str:
    """``as_text`` for a table: a long value is cut, and its size is told."""
    head = value[: 4 * CELL_CHARACTERS_MAX]  # A character has at most four bytes.
    text = head.decode("utf-8", "surrogateescape")
    if len(head) == len(value) and len(text) <= CELL_CHARACTERS_MAX:
        return _printable(text)
    return f"{_printable(text[:CELL_CHARACTERS_MAX])}... ({len(value)} bytes)"


def print_json(value: object) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns; the last one is not padded, so that one long cell does not make every line long."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings) - 1)]
    for *cells, last in lines:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last]).rstrip())


def _printable(text: str) -> str:
    return text if text.isprintable() else OTHER_THAN_ASCII.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match[0].isprintable():
        return match[0]
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogateescape"))
