"""``edgekv wal inspect | salvage``: look into the log of a stopped node, and make a damaged one start again.

Both hold the directory's lock, so the node cannot run meanwhile. Inspect changes nothing. Salvage gives up records that were
acknowledged and that damage has made unreadable, says which, and only with ``--accept-data-loss``; what it cuts off is kept
under another name. The node gets a new incarnation first: its sequence numbers go back, and a dot is never issued twice.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from edgekv.cli.options import Output, PathType, output_option, print_json, print_table
from edgekv.errors import ConfigError, Corruption, InvalidRequest
from edgekv.ids import actor_text
from edgekv.node import identity
from edgekv.node.directory import DataDirectory
from edgekv.store.lmdb_store import LmdbStore
from edgekv.wal.disk import RealDisk
from edgekv.wal.salvage import Inspection, Salvaged, SegmentReport, inspect, salvage

data_dir_option: Final = click.option(
    "--data-dir",
    type=PathType(path_type=Path, file_okay=False),
    required=True,
    envvar="EDGEKV_DATA_DIR",
    show_envvar=True,
    help="The stopped node's directory.",
)


@click.group()
def wal() -> None:
    """Look into the log of a stopped node, or salvage a damaged one.

    \b
    edgekv wal inspect --data-dir ./data
    edgekv wal salvage --data-dir ./data
    """


@wal.command("inspect")
@data_dir_option
@output_option
def inspect_log(data_dir: Path, output: Output) -> None:
    """Read all of the log and say what it holds. Changes nothing; exit code 1 when it is damaged.

    \b
    edgekv wal inspect --data-dir ./data
    edgekv wal inspect --data-dir ./data -o json
    """
    with _stopped(data_dir) as directory:
        disk = RealDisk(directory.wal, read_only=True)
        try:
            inspection = inspect(disk)
        finally:
            disk.close()
        applied_lsn = _applied_lsn(directory)
    if output == "json":
        print_json({"applied_lsn": applied_lsn, **_document(inspection)})
    else:
        _print(inspection, applied_lsn)
    if inspection.damage:
        first = inspection.damage[0]
        raise Corruption(
            f"{first.name} at offset {first.offset}: {first.what}; records from LSN {first.lsn} on may be gone. "
            "Restore a backup, or see edgekv wal salvage --help.",
            path=str(directory.wal / first.name),
            first_lsn=first.lsn,
        )


@wal.command("salvage")
@data_dir_option
@click.option(
    "--accept-data-loss",
    is_flag=True,
    allow_from_autoenv=False,  # A variable that is still set would give up the next log's records too.
    help="Give up what the damage made unreadable. Without it: only say what.",
)
@output_option
def salvage_log(data_dir: Path, accept_data_loss: bool, output: Output) -> None:
    """Make a damaged log one that a node starts with. What is cut off is kept as wal/lost-*.

    Acknowledged writes may be lost. If there is a recent backup, restore that instead.

    \b
    edgekv wal salvage --data-dir ./data                        say what would be lost
    edgekv wal salvage --data-dir ./data --accept-data-loss     do it
    """
    with _stopped(data_dir) as directory:
        disk = RealDisk(directory.wal)
        try:
            who = identity.read(directory.path)
            applied_lsn = _applied_lsn(directory)
            try:
                done = _salvage(disk, applied_lsn, who, accept_data_loss=False)
            except InvalidRequest:
                if not accept_data_loss:
                    raise
                who = identity.reincarnate(directory.path, who, os.urandom, time.time_ns() // 1_000_000)
                done = _salvage(disk, applied_lsn, who, accept_data_loss=True)
        finally:
            disk.close()
    if output == "json":
        print_json({**done._asdict(), "applied_lsn": applied_lsn, "actor": actor_text(who.actor)})
    elif done.first_lost_lsn is None:
        click.echo("nothing that the node needs is damaged; nothing was changed")
    else:
        click.echo(f"records {done.first_lost_lsn} to {done.last_lost_lsn} are lost")
        click.echo(f"the node goes on as {actor_text(who.actor)}")
        click.echo(f"kept aside in {directory.wal}: {', '.join(done.set_aside)}")


def _salvage(disk: RealDisk, applied_lsn: int, who: identity.Identity, *, accept_data_loss: bool) -> Salvaged:
    return salvage(
        disk,
        applied_lsn=applied_lsn,
        incarnation=who.incarnation,
        entropy=os.urandom,
        accept_data_loss=accept_data_loss,
    )


@contextmanager
def _stopped(data_dir: Path) -> Iterator[DataDirectory]:
    """The locked directory of a node that does not run."""
    if not (data_dir / identity.FILE).exists():
        raise ConfigError(f"{data_dir} is not the directory of a node (it has no {identity.FILE}): check --data-dir")
    directory = DataDirectory.acquire(data_dir, time.sleep)
    try:
        yield directory
    finally:
        directory.release()


def _applied_lsn(directory: DataDirectory) -> int:
    """How far LMDB has the log; 0 when the node was killed before it made its store."""
    if not any(directory.store.iterdir()):
        return 0
    store = LmdbStore.open(directory.store, readonly=True)
    try:
        return store.applied().lsn
    finally:
        store.close()


def _state(report: SegmentReport) -> str:
    if report.damage:
        return "damaged"
    return "ok, clean stop" if report.clean else "ok"


def _print(inspection: Inspection, applied_lsn: int) -> None:
    rows = [
        (
            report.name,
            report.header.base_lsn if report.header else "?",
            report.end_lsn,
            report.records,
            report.frames,
            report.payload_bytes,
            _state(report),
        )
        for report in inspection.segments
    ]
    print_table(("SEGMENT", "FIRST LSN", "END LSN", "RECORDS", "FRAMES", "BYTES", "STATE"), rows)
    for report in inspection.segments:
        for lsn, barrier in report.barriers:
            click.echo(
                f"LSN {lsn}: the rows of spool {barrier.spool_id.hex()} join keyspace {barrier.keyspace}, "
                f"{len(barrier.vector)} actors"
            )
    click.echo(f"LMDB has applied up to LSN {applied_lsn}; other files: {', '.join(inspection.others) or 'none'}")


def _document(inspection: Inspection) -> dict[str, object]:
    segments = [
        {
            "name": report.name,
            "first_lsn": report.header.base_lsn if report.header else None,
            "end_lsn": report.end_lsn,
            "records": report.records,
            "frames": report.frames,
            "payload_bytes": report.payload_bytes,
            "clean": report.clean,
            "barriers": [
                {"lsn": lsn, "keyspace": barrier.keyspace, "spool": barrier.spool_id.hex()}
                for lsn, barrier in report.barriers
            ],
        }
        for report in inspection.segments
    ]
    return {
        "segments": segments,
        "others": inspection.others,
        "damage": [damage._asdict() for damage in inspection.damage],
    }
