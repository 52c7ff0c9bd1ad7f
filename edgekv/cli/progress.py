"""How far a long command is, on stderr: a moving bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

PLAIN_LINE_INTERVAL_S: Final = 5.0

Advance = Callable[[int, str], None]


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Give ``advance(done, note)``, to be called as often as one likes. ``total`` 0: unknown, no fraction is shown."""
    if sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    # rich takes a tenth of a second to import: only who sees the bar pays for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total or None, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


def _lines(title: str, total: int) -> Advance:
    shown_at = time.monotonic()

    def advance(done: int, note: str) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= PLAIN_LINE_INTERVAL_S:
            shown_at = time.monotonic()
            fraction = f" {100 * done // total} %" if total else ""
            print(f"{title}{fraction}, {note}", file=sys.stderr, flush=True)

    return advance
