"""A simulated disk: `edgekv.wal.disk.Disk` with everything a real one may do to a log, from one seeded source of randomness.

A file is what a process reads (the page cache), what a power cut leaves (`durable`), and the writes between the two. The unit that is
written whole is a sector; 32 bytes here, so that even a frame header tears. Directory operations are durable after `sync_directory`.

- `crash_at`: the process dies in its n-th operation, which may be done, half done or not done.
- `power`: the machine dies. Each unsynced sector stays old or becomes one of its written versions, independently; so does each
  directory entry. Without it a dead process leaves the cache as it is.
- `arm`: the next operation of a kind fails. ``eio``: fdatasync fails as on Linux, the pages are marked clean, the cache keeps the
  data, the disk does not. ``eio-directory``: fsync of the directory. ``enospc``: a write stores a part and fails.
- after a failed fdatasync clean pages may be evicted at any read: the data reads differently the second time.
"""

import errno
import os
from collections.abc import Callable
from random import Random
from typing import Final

from edgekv.wal.disk import no_pause

SECTOR_BYTES: Final = 32


class Crash(BaseException):
    """The simulated process is dead. Not an Exception: nothing in the process catches it."""


class Inode:
    """The bytes of one file, whatever its name."""

    def __init__(self, size: int) -> None:
        self.cache = bytearray(size)
        self.durable = bytearray(size)
        self.before = b""  # the cache before the first of `writes`
        self.writes: list[tuple[int, bytes]] = []  # since the last fdatasync
        self.lost: set[int] = set()  # clean sectors in which the cache holds what the disk does not

    def evicted(self) -> bytes:
        """What a process reads when all clean pages are gone from the cache."""
        image = bytearray(self.cache)
        for sector in self.lost:
            start, end = sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES
            image[start:end] = self.durable[start:end]
        return bytes(image)


class SimFile:
    """An open file; keeps its inode over a rename."""

    def __init__(self, disk: "SimDisk", inode: Inode, name: str) -> None:
        self._disk, self._inode, self._name = disk, inode, name

    def pread(self, offset: int, length: int) -> bytes:
        if self._inode.lost:
            self._disk.evict(self._inode)
        return bytes(self._inode.cache[offset : offset + length])

    def pwrite(self, offset: int, *parts: bytes) -> None:
        self._disk.write(self._inode, offset, b"".join(parts), self._name)

    def fdatasync(self) -> None:
        self._disk.sync(self._inode, self._name)

    def size(self) -> int:
        return len(self._inode.cache)

    def close(self) -> None:
        pass


class SimDisk:
    """A directory on the simulated disk."""

    def __init__(self, rng: Random, *, evicting: bool = True) -> None:
        self.rng = rng
        self.evicting = evicting
        self.entries: dict[str, Inode] = {}
        self.operations = 0
        self.crash_at: int | None = None
        self.arm = ""
        self.trace: list[str] | None = None
        self._durable_entries: dict[str, Inode] = {}
        self._unsynced: list[tuple[str, Inode]] = []  # (name, inode); no name: unlinked

    # The Disk protocol.

    def names(self) -> list[str]:
        return list(self.entries)

    def open(self, name: str) -> SimFile:
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return SimFile(self, self.entries[name], name)

    def create(self, name: str, size: int, pause: Callable[[], None] = no_pause) -> SimFile:
        dying = self._step("create", name)
        if self._armed("enospc", dying):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        pause()
        inode = Inode(size)
        self._change_entry(name, "", inode, dying)
        return SimFile(self, inode, name)

    def rename(self, old: str, new: str) -> None:
        if old not in self.entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        dying = self._step("rename", old, new)
        self._change_entry(new, old, self.entries[old], dying)

    def unlink(self, name: str) -> None:
        dying = self._step("unlink", name)
        self._change_entry("", name, self.entries[name], dying)

    def sync_directory(self) -> None:
        dying = self._step("sync directory")
        if dying:
            raise Crash
        if self._armed("eio-directory", dying):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._durable_entries, self._unsynced = dict(self.entries), []

    def free_bytes(self) -> int:
        return 1 << 40

    # What files do.

    def write(self, inode: Inode, offset: int, data: bytes, name: str) -> None:
        """A write of a file's bytes; only a part of it when the process dies in it or the disk is full."""
        dying = self._step("write", name, offset, len(data))
        full = self._armed("enospc", dying)
        if data and (dying or full):
            data = data[: self.rng.randrange(len(data) + 1 - full)]
        if data:
            if not inode.writes:
                inode.before = bytes(inode.cache)
            inode.writes.append((offset, data))
            inode.cache[offset : offset + len(data)] = data
            if inode.lost:
                inode.lost.difference_update(
                    range(offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES + 1)
                )
        if dying:
            raise Crash
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, inode: Inode, name: str) -> None:
        """fdatasync of a file."""
        dying = self._step("fdatasync", name)
        if dying:
            self._settle(inode, self._some)
            raise Crash
        if self._armed("eio", dying):
            inode.lost.update(self._settle(inode, lambda _: None))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        for offset, data in inode.writes:
            end = offset + len(data)
            inode.durable[offset:end] = inode.cache[offset:end]
        inode.writes.clear()

    def evict(self, inode: Inode) -> None:
        """Memory pressure: some clean pages go, and read from the disk again they show what it holds."""
        if not self.evicting or self.rng.random() < 0.5:
            return
        for sector in sorted(inode.lost):
            if self.rng.random() < 0.3:
                start, end = sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES
                inode.cache[start:end] = inode.durable[start:end]
                inode.lost.discard(sector)

    def power(self) -> None:
        """The machine loses power and comes back."""
        entries = dict(self._durable_entries)
        for new, inode in self._unsynced:
            if self.rng.random() < 0.5:
                for name in [name for name, held in entries.items() if held is inode]:
                    del entries[name]
                if new:
                    entries[new] = inode
        for inode in dict.fromkeys(entries.values()):
            self._settle(inode, self._some)
            inode.lost.clear()
            inode.cache = bytearray(inode.durable)
        self.entries, self._durable_entries, self._unsynced = entries, dict(entries), []

    def replace(self, files: dict[str, bytes]) -> None:
        """Other files, by their names, all durable: a backup that was restored."""
        self.entries = {}
        for name, content in files.items():
            inode = self.entries[name] = Inode(0)
            inode.cache, inode.durable = bytearray(content), bytearray(content)
        self._durable_entries, self._unsynced = dict(self.entries), []

    # Inside.

    def _step(self, *what: object) -> bool:
        self.operations += 1
        if self.trace is not None:
            self.trace.append(" ".join(map(str, what)))
        return self.operations == self.crash_at

    def _armed(self, arm: str, dying: bool) -> bool:
        if self.arm != arm or dying:
            return False
        self.arm = ""
        return True

    def _change_entry(self, new: str, old: str, inode: Inode, dying: bool) -> None:
        if not dying or self.rng.random() < 0.5:
            self.entries.pop(old, None)
            if new:
                self.entries[new] = inode
            self._unsynced.append((new, inode))
        if dying:
            raise Crash

    def _some(self, versions: list[bytes]) -> bytes | None:
        return self.rng.choice(versions) if self.rng.random() < 0.5 else None

    def _settle(self, inode: Inode, choose: Callable[[list[bytes]], bytes | None]) -> dict[int, list[bytes]]:
        """Decide for each unsynced sector which of its versions the disk has (None: the old one). Returns the versions."""
        versions: dict[int, list[bytes]] = {}
        image = bytearray(inode.before)
        for offset, data in inode.writes:
            image[offset : offset + len(data)] = data
            for sector in range(offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES + 1):
                start = sector * SECTOR_BYTES
                versions.setdefault(sector, []).append(bytes(image[start : start + SECTOR_BYTES]))
        for sector, written in versions.items():
            chosen = choose(written)
            if chosen is not None:
                inode.durable[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = chosen
        inode.writes.clear()
        return versions
