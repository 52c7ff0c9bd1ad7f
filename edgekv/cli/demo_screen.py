"""How the demo is told: rules, colours and a table on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from edgekv.cli.options import print_table

if TYPE_CHECKING:
    from rich.console import Console

WHAT_CHARACTERS: Final = 16
"""Of the first column: details begin below each other."""


class Screen:
    """Where the story goes, on stdout."""

    def __init__(self) -> None:
        self._console: Console | None = _console() if sys.stdout.isatty() else None

    def act(self, title: str) -> None:
        """A new part begins."""
        if self._console is None:
            click.echo(f"\n{title}")
        else:
            self._console.print()
            self._console.rule(f"[bold]{title}", align="left")

    def tell(self, what: str, detail: str) -> None:
        """Something was done and is as it should be."""
        if self._console is None:
            click.echo(f"ok  {what}: {detail}")
            return
        from rich.table import Table  # noqa: PLC0415 - as for the console

        line = Table.grid(padding=(0, 1))
        line.add_column(width=1, style="green")
        line.add_column(width=WHAT_CHARACTERS, style="bold")
        line.add_column()
        line.add_row("✓", what, detail)
        self._console.print(line)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Figures, the first column names them."""
        if self._console is None:
            print_table([heading.upper() for heading in headings], rows)
            return
        from rich.table import Table  # noqa: PLC0415 - as for the console

        table = Table(header_style="bold")
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def end(self, sentence: str) -> None:
        """The last word."""
        click.echo(f"\n{click.style(sentence, bold=True)}")


def _console() -> "Console":
    # rich takes a tenth of a second to import: only who sees it pays for it.
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False)
