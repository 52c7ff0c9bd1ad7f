"""Copies the tables of bench/results/*.json into the marked section of docs/BENCHMARKS.md.

Figures in the documentation come from result files and from nowhere else; quick runs are left out. Run after the
benchmarks: `python -m bench.report`; with `--check` it changes nothing and fails when the section is out of date.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.results import RESULTS, Table

DOCUMENT: Final = machine.REPOSITORY / "docs" / "BENCHMARKS.md"
BEGIN: Final = "<!-- results: written by python -m bench.report -->"
END: Final = "<!-- results end -->"
ORDER: Final = (
    "vs_redis",
    "vs_etcd_http",
    "write_path",
    "recovery",
    "idle",
    "loop_latency",
    "data_types",
    "clients",
    "replication",
    "row_sync",
    "keyspaces",
    "couch",
    "fleet",
    "departures",
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail when the section is out of date")
    arguments = parser.parse_args(argv)
    text = DOCUMENT.read_text()
    updated = _with_section(text, "\n\n".join(_sections(RESULTS)))
    if arguments.check and updated != text:
        sys.exit(f"{DOCUMENT} does not show bench/results; run python -m bench.report")
    DOCUMENT.write_text(updated)


def _sections(directory: Path) -> list[str]:
    documents = {}
    for path in directory.glob("*.json"):
        document = json.loads(path.read_text())
        if not document["quick"]:
            documents[document["name"]] = document
    names = [name for name in ORDER if name in documents] + sorted(documents.keys() - set(ORDER))
    return [_section(documents[name]) for name in names] or ["No results yet."]


def _section(document: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"### {document['name']}",
        f"`{document['command']}`, finished {document['finished']}, commit {document['commit']}.",
        f"{machine.sentence(document['machine'])}. {versions}.",
    ]
    tables = [_table(fields).markdown() for fields in document["tables"]]
    return "\n\n".join([lines[0], "  \n".join(lines[1:]), *tables])


def _table(fields: Mapping[str, Any]) -> Table:
    rows = tuple(tuple(row) for row in fields["rows"])
    return Table(fields["title"], tuple(fields["columns"]), rows, tuple(fields["notes"]))


def _with_section(text: str, section: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{DOCUMENT} has no section between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


if __name__ == "__main__":
    main()
