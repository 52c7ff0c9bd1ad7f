"""A finished run as JSON (bench/results/<name>.json) and as the tables people read.

The file holds what is needed to judge or repeat the figures: machine, versions, commit, command line, settings,
every raw sample, and the rendered tables, which `bench.report` copies word for word into docs/BENCHMARKS.md. A
quick run is written to <name>.quick.json, which the report ignores, so a trial never replaces a measurement.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import machine

RESULTS: Final = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column names what was measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _row(self.columns), _row(["---"] * len(self.columns))]
        lines += [_row(row) for row in self.rows]
        return "\n".join(lines + [f"\n{note}" for note in self.notes])

    def text(self) -> str:
        """The table in aligned columns, for a terminal."""
        widths = [max(len(row[index]) for row in (self.columns, *self.rows)) for index in range(len(self.columns))]
        lines = [self.title]
        for row in (self.columns, *self.rows):
            lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def save(
    name: str,
    *,
    quick: bool,
    machine_description: Mapping[str, object],
    settings: Mapping[str, object],
    measurements: Mapping[str, object],
    tables: Sequence[Table],
) -> Path:
    """Print the tables and write the result file; returns its path."""
    for table in tables:
        print(f"\n{table.text()}")
    document = {
        "name": name,
        "quick": quick,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "command": f"python -m bench.{name} {shlex.join(map(_placeless, sys.argv[1:]))}".strip(),
        "machine": machine_description,
        "versions": machine.versions(),
        "settings": settings,
        "measurements": measurements,
        "tables": [asdict(table) for table in tables],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (f"{name}.quick.json" if quick else f"{name}.json")
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten to {path}")
    return path


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _placeless(argument: str) -> str:
    """A path elsewhere by its last name: where a machine has things says nothing to others."""
    return Path(argument).name if argument.startswith(("/", "..", "~")) else argument
