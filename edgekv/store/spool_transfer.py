"""Spools on their way between nodes: read in pieces where they were written, put together where they go.

A folder holds ``<id>.spool``, finished ones, and ``<id>.part``, what has come of one so far. The size of a part is where to go on; it
is not synced, and after a power cut may have a hole: what was received is checked as a whole before it is used (spool_check.py).
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edgekv.limits import PART_WRITE_BACK_BYTES
from edgekv.store.spool import keep, spool_file

PART_SUFFIX: Final = ".part"


Aside = Callable[[Callable[[], None], Callable[[OSError | None], None]], None]
"""Carries out work that waits for the disk, then calls back with what went wrong."""


def at_once(work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
    """An Aside that waits."""
    try:
        work()
    except OSError as error:
        failure: OSError | None = error
    else:
        failure = None
    done(failure)


class SpoolFolder:
    """The ``sync`` folder of a data directory."""

    def __init__(self, path: Path, aside: Aside = at_once) -> None:
        self.path: Final = path
        self._aside: Final = aside

    def path_of(self, spool_id: bytes) -> Path:
        """Of a finished spool."""
        found: Path = spool_file(self.path, spool_id)
        return found

    def read(self, spool_id: bytes, offset: int, length: int) -> bytes:
        """A piece of a finished spool; empty at its end. Raises OSError."""
        with self.path_of(spool_id).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)

    def part(self, spool_id: bytes) -> "Part":
        """What has come of a spool, perhaps nothing yet. Raises OSError."""
        return Part(self.path / f"{spool_id.hex()}{PART_SUFFIX}")

    def keep(self, part: Path, spool_id: bytes, done: Callable[[OSError | None], None]) -> None:
        """Give a spool that was received whole and checked its name; durable when ``done`` is called without an error."""
        self._aside(partial(keep, part, self.path, spool_id), done)

    def remove(self, spool_id: bytes) -> None:
        """A finished spool is not needed any more."""
        self.path_of(spool_id).unlink(missing_ok=True)

    def remove_parts(self, *, but: bytes) -> None:
        """Another spool is taken in: what had come of others is of no use."""
        for path in self.path.glob(f"*{PART_SUFFIX}"):
            if path.stem != but.hex():
                path.unlink(missing_ok=True)


class Part:
    """A spool that is being received."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._fd).st_size
        self._written_back = 0

    def append(self, data: bytes) -> None:
        """The next piece. Raises OSError; what is there then is cut back at the next `cut`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(data)

    def write_back(self) -> None:
        """Have the next PART_WRITE_BACK_BYTES written out; waits for nothing.

        Else the one sync at the end has all of it to write, and the log's syncs stand in line behind it.
        """
        size = min(PART_WRITE_BACK_BYTES, self.size - self._written_back)
        if size > 0:
            # Linux begins to write a dirty range out when it hears this.
            os.posix_fadvise(self._fd, self._written_back, size, os.POSIX_FADV_DONTNEED)
            self._written_back += size

    def cut(self) -> None:
        """Begin again."""
        os.ftruncate(self._fd, 0)
        self.size = self._written_back = 0

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
