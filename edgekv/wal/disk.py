"""The one door to the disk for all of the log: two small protocols, and their real implementation.

Everything in `edgekv.wal` writes through `Disk` and `File`, so the same code runs on a simulated disk that loses what was not synced.
What the rules rely on, and what an implementation has to keep:

- `File.pwrite` writes everything or raises; a short write is continued, so an error is an errno and never a count.
- `File.fdatasync` failed means that nobody knows what is on the disk. It is never called again for the same bytes (Linux marks the
  pages clean, a retry that succeeds is a lie): the caller latches.
- `Disk.create` returns a file whose zeros are durable. It grows under another name, so a `spare-` is always whole.
- A rename or unlink is durable after `sync_directory` only.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from edgekv.limits import ZERO_CHUNK_BYTES

UNFINISHED_SUFFIX: Final = ".new"
"""Names of files that `Disk.create` had not finished when the process ended. Recovery unlinks them."""

_ZEROS: Final = bytes(ZERO_CHUNK_BYTES)
_OPEN_ATTEMPTS: Final = 500
_OPEN_PAUSE_S: Final = 0.01


def no_pause() -> None:
    """For a caller of `Disk.create` that wants the file now."""


class File(Protocol):
    """An open file of a fixed size, addressed by offset. Not affected by a rename."""

    def pread(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`, fewer at the end of the file."""

    def pwrite(self, offset: int, *parts: bytes) -> None:
        """Write the parts one after the other, in one system call when the kernel takes them all. OSError: some may be written."""

    def fdatasync(self) -> None:
        """All that was written is durable on return."""

    def size(self) -> int:
        """Bytes in the file."""

    def close(self) -> None:
        """Give the descriptor back; syncs nothing."""


class Disk(Protocol):
    """One flat directory of files."""

    def names(self) -> list[str]:
        """What is in the directory, in no order."""

    def create(self, name: str, size: int, pause: Callable[[], None] = no_pause) -> File:
        """A new file of `size` zero bytes, durable; `pause` runs between chunks and may raise to give up. OSError: nothing is left."""

    def open(self, name: str) -> File:
        """An existing file, for reading and writing."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of a file that has it."""

    def unlink(self, name: str) -> None:
        """Remove a name; open files stay readable."""

    def sync_directory(self) -> None:
        """All renames, creations and removals so far are durable on return."""

    def free_bytes(self) -> int:
        """What an unprivileged process may still write to this file system."""


class RealFile:
    """A file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def pwrite(self, offset: int, *parts: bytes) -> None:
        written = os.pwritev(self._fd, parts, offset)
        total = sum(map(len, parts))
        if written < total:
            self._write_rest(offset + written, b"".join(parts)[written:])

    def _write_rest(self, offset: int, data: bytes) -> None:
        while data:
            written = os.pwrite(self._fd, data, offset)
            offset, data = offset + written, data[written:]

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealDisk:
    """A directory of the operating system, created when it is not there."""

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
        if not read_only:
            self.path.mkdir(parents=True, exist_ok=True)
        self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def names(self) -> list[str]:
        return os.listdir(self._directory)

    def create(self, name: str, size: int, pause: Callable[[], None] = no_pause) -> RealFile:
        unfinished = name + UNFINISHED_SUFFIX
        file = self._open(unfinished, self._flags | os.O_CREAT | os.O_EXCL)
        try:
            for offset in range(0, size, ZERO_CHUNK_BYTES):
                if offset:
                    pause()
                file.pwrite(offset, _ZEROS[: size - offset])
                file.fdatasync()
            self.rename(unfinished, name)
        except BaseException:  # whatever ends it, SystemExit of a closing thread included: half a file is of no use
            file.close()
            with contextlib.suppress(OSError):
                self.unlink(unfinished)
            raise
        return file

    def open(self, name: str) -> RealFile:
        return self._open(name, self._flags)

    def _open(self, name: str, flags: int) -> RealFile:
        """Clients may use up the descriptors for a moment, until those beyond the limit are turned away. The disk is well then, and to
        end the process would be their doing: wait.
        """
        for _ in range(_OPEN_ATTEMPTS):
            try:
                return RealFile(os.open(name, flags, 0o600, dir_fd=self._directory))
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                time.sleep(_OPEN_PAUSE_S)
        return RealFile(os.open(name, flags, 0o600, dir_fd=self._directory))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._directory)

    def sync_directory(self) -> None:
        os.fsync(self._directory)

    def free_bytes(self) -> int:
        status = os.fstatvfs(self._directory)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Give the directory's descriptor back."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
