"""``edgekv import`` and ``edgekv export``: files into a node and out of it.

Import sends pipelined commands over RESP; a row counts as done when the node has acknowledged it, which is when it is durable. The
number of acknowledged rows is kept in a state file beside the source, so a run that ends early (Ctrl-C, a dead node, a full
disk) goes on where it stopped. Rows that were on their way are sent again: a SET, SADD or HSET twice is one.

Export follows the pages of a scan, and of each set and map; a page is in memory at a time. Each page is consistent; what is written
while the export runs may or may not be in it.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Final

import click

from edgekv.cli.cells import BadInput
from edgekv.cli.exported import hash_lines, set_lines, string_line
from edgekv.cli.listing import Listed, field_pages, member_pages, scan_pages
from edgekv.cli.node_http import NodeHttp
from edgekv.cli.options import PathType, http_option, resp_option, timeout_option
from edgekv.cli.progress import progress
from edgekv.cli.resp_client import RespConnection
from edgekv.cli.rows import Format, Shape, Source, open_rows
from edgekv.config import Address
from edgekv.errors import EdgeKVError, InvalidRequest, NotFound, OutcomeUnknown, WrongType

STATE_SAVE_INTERVAL_S: Final = 0.5


class State:
    """How many rows of one import are acknowledged, on disk. A lost state file costs time, never data."""

    def __init__(self, path: Path | None, job: dict[str, object]) -> None:
        self.path, self.job = path, job
        self.rows = 0
        self._saved_at = 0.0

    def load(self) -> None:
        """Take up what an earlier run of the same job left; refuse what another job left."""
        if self.path is None or not self.path.exists():
            return
        try:
            content = json.loads(self.path.read_text())
            job, rows = dict(content["job"]), int(content["rows"])
            if rows < 0:
                raise ValueError(rows)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"{self.path} is not the state of an import: remove it or use --restart") from error
        if job != self.job:
            different = sorted(key for key in self.job if job.get(key) != self.job[key])
            verb = "differs" if len(different) == 1 else "differ"
            raise InvalidRequest(
                f"{self.path} belongs to another import ({', '.join(different)} {verb}): finish that one, or use --restart"
            )
        self.rows = rows

    def acknowledged(self, rows: int) -> None:
        """Remember the number of acknowledged rows; written at most twice a second."""
        self.rows = rows
        if time.monotonic() - self._saved_at >= STATE_SAVE_INTERVAL_S:
            self.save()

    def save(self) -> None:
        """Write it now, as a whole or not at all. No row, no state: the right command after a mistake is another import."""
        if self.rows == 0:
            self.finish()
        elif self.path is not None:
            temporary = self.path.with_name(self.path.name + ".tmp")
            temporary.write_text(json.dumps({"job": self.job, "rows": self.rows}))
            temporary.replace(self.path)
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Remove it: the import is complete, or has not begun."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@click.option("--key", help="Template of the key, such as weather/{origin}/{time_hour}.")
@click.option("--value", help="The column that is the value. Default: the whole row as JSON.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl"]),
    envvar="EDGEKV_IMPORT_FORMAT",
    help="Default: by the name of the file.",
)
@click.option("--delimiter", default=",", show_default=True, help="Of CSV.")
@click.option("--ttl-s", type=click.IntRange(min=1), default=None, help="Expire what is written after so many seconds.")
@click.option("--state", type=PathType(path_type=Path, dir_okay=False), help="State file. Default: FILE.import-state.")
@click.option("--restart", is_flag=True, help="Begin at the first row, whatever an earlier run did.")
@resp_option
@timeout_option
def import_file(
    file: Path,
    key: str | None,
    value: str | None,
    kind: Format | None,
    delimiter: str,
    ttl_s: int | None,
    state: Path | None,
    restart: bool,
    resp: Address,
    timeout_s: float,
) -> None:
    """Load FILE (CSV with a header line, or JSON Lines; .gz too; "-" is stdin). Run it again to go on after a stop.

    Lines written by edgekv export need no --key.

    \b
    edgekv import weather.csv --key 'weather/{origin}/{time_hour}'
    edgekv import readings.jsonl.gz --key 'temp/{sensor}/{at}' --value celsius --ttl-s 86400
    edgekv export room/ | edgekv import - --format jsonl --resp 127.0.0.1:7581
    """
    if len(delimiter) != 1:
        raise click.UsageError("--delimiter is one character", click.get_current_context())
    shape = Shape(key=key, value=value, ttl_s=ttl_s or 0)
    job: dict[str, object] = {"file": _identity(file), "key": key, "value": value, "ttl_s": ttl_s, "node": str(resp)}
    if state is None and str(file) != "-":
        state = file.with_name(file.name + ".import-state")
    progress_file = State(state, job)
    if not restart:
        progress_file.load()
    started = time.monotonic()
    before = progress_file.rows
    with open_rows(file, kind, delimiter) as source, RespConnection(resp, timeout_s) as connection:
        _import(connection, source, shape, progress_file, file.name)
    seconds = time.monotonic() - started
    rows = progress_file.rows - before
    resumed = f" (resumed after {before})" if before else ""
    click.echo(f"imported {rows} rows in {seconds:.1f} s, {rows / max(seconds, 1e-9):.0f} rows/s{resumed}")


@click.command("export")
@click.argument("prefix", default="")
@click.option("--file", type=PathType(path_type=Path, dir_okay=False), help="Default: stdout.")
@http_option
@timeout_option
def export_file(prefix: str, file: Path | None, http: Address, timeout_s: float) -> None:
    """Write all that the keys that begin with PREFIX (default: all) hold as JSON Lines, for edgekv import.

    A large set or map becomes many lines. Counters are written as what they are now, expiries with their date.

    \b
    edgekv export > everything.jsonl
    edgekv export room/ --file rooms.jsonl
    """
    count = 0
    with NodeHttp(http, timeout_s) as node, _whole(file) as out:
        for _, entries in groupby(scan_pages(node, os.fsencode(prefix)), key=lambda entry: entry.key):
            for entry in entries:
                out.writelines(_lines(node, entry))
            count += 1
    if file is not None:
        click.echo(f"exported {count} keys to {file}")


def _import(connection: RespConnection, source: Source, shape: Shape, state: State, title: str) -> None:
    """Send the rows not yet acknowledged; whatever happens, the state on disk says how far it came."""
    skipped = state.rows
    rows = enumerate(islice(source.rows, skipped, None), start=skipped + 1)
    with progress(title, source.size_bytes) as advance:

        def acknowledged(done: int) -> None:
            state.acknowledged(skipped + done)
            advance(source.bytes_read(), f"{state.rows} rows acknowledged")

        try:
            connection.send_all((shape.commands(row, number) for number, row in rows), acknowledged)
        except InvalidRequest as error:
            state.save()
            if isinstance(error, BadInput):
                raise
            raise type(error)(f"row {state.rows + 1}: {error}") from error  # the node's words, which know no rows
        except WrongType as error:
            state.save()
            raise WrongType(
                f"row {state.rows + 1}: its key holds another type here. Delete that key, and run the same command again to go on"
            ) from error
        except OutcomeUnknown as error:
            state.save()
            raise OutcomeUnknown(
                f"{error}; {state.rows} rows are acknowledged, later ones may be stored: run the same command again to go on"
            ) from error
        except (EdgeKVError, KeyboardInterrupt):
            state.save()
            raise
    state.finish()


def _identity(file: Path) -> list[object]:
    """What tells that a file is still the one that an import began with."""
    if str(file) == "-":
        return ["-"]
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


@contextmanager
def _whole(file: Path | None) -> Iterator[IO[bytes]]:
    """Where an export goes. A file appears under its name when it is complete: half an export looks like a whole one."""
    if file is None:
        yield sys.stdout.buffer
        return
    partial = file.with_name(file.name + ".partial")
    try:
        out = partial.open("wb")
    except OSError as error:
        raise InvalidRequest(
            f"cannot write {file} ({(error.strerror or str(error)).lower()}): choose another --file"
        ) from error
    try:
        with out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _lines(node: NodeHttp, entry: Listed) -> Iterator[bytes]:
    """All lines of an entry. Of a set or map that ends meanwhile, those read before."""
    if entry.kind == "string":
        yield string_line(entry)
        return
    try:
        if entry.kind == "set":
            for members in member_pages(node, entry.key):
                yield from set_lines(entry, members)
        else:
            for fields in field_pages(node, entry.key):
                yield from hash_lines(entry, fields)
    except (NotFound, WrongType):
        return
