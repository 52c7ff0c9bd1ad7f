"""The frame of every benchmark program: common flags, the directory for data, the time limit, the end.

A program runs inside `measured_run`: it gets a fresh directory on a real disk, is stopped by SIGALRM when its
time is up, and treats SIGTERM like Ctrl-C, so that the `finally` blocks which kill servers always run.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench.machine import MEMORY_FILE_SYSTEMS, REPOSITORY, mount_of, sentence
from bench.machine import describe as describe_machine
from bench.servers import ServerError


class RunTimeoutError(Exception):
    """The program met its own time limit."""


class Run:
    """A running benchmark: where its data goes and what it runs on."""

    def __init__(self, directory: Path, quick: bool) -> None:
        self.directory = directory
        self.quick = quick
        self.machine = describe_machine(directory)
        self._made = 0

    @contextmanager
    def data_directory(self, name: str) -> Iterator[Path]:
        """A new empty directory, removed on leaving: no measurement sees files of the one before."""
        self._made += 1
        path = self.directory / f"{self._made:03d}-{name}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            # Else the next measurement pays for writing back, and discarding, what this one left.
            os.sync()


def argument_parser(description: str, *, timeout_s: int) -> argparse.ArgumentParser:
    """A parser with the flags all programs share; `timeout_s` is the default bound of the whole run."""
    parser = argparse.ArgumentParser(
        description=description.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--dir", type=Path, default=None, help="where data files go; absent: a temporary directory on a real disk"
    )
    parser.add_argument("--quick", action="store_true", help="a short trial, written to <name>.quick.json")
    parser.add_argument("--timeout-s", type=int, default=timeout_s, help="give up after this many seconds")
    return parser


@contextmanager
def measured_run(arguments: argparse.Namespace) -> Iterator[Run]:
    """The run described by the common flags. Its directory is removed at the end, whatever the end is."""
    parent: Path = arguments.dir or _disk_directory()
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="edgekv-bench-", dir=parent))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(arguments.timeout_s)
    try:
        run = Run(directory, arguments.quick)
        kind = run.machine["file_system"]
        if kind in MEMORY_FILE_SYSTEMS:
            print(f"warning: {directory} is on {kind}: fdatasync costs nothing there", file=sys.stderr)
        print(sentence(run.machine))
        yield run
    except RunTimeoutError:
        sys.exit(f"gave up after {arguments.timeout_s} s; raise --timeout-s or use --quick")
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written")
    finally:
        signal.alarm(0)
        shutil.rmtree(directory, ignore_errors=True)


def step(text: str) -> None:
    """One line of progress on stderr, so that stdout holds the tables only."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _disk_directory() -> Path:
    for path in (Path(tempfile.gettempdir()), Path("/var/tmp"), REPOSITORY):
        if path.is_dir() and mount_of(path)[0] not in MEMORY_FILE_SYSTEMS:
            return path
    sys.exit("no directory on a real disk found; give one with --dir")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise RunTimeoutError
