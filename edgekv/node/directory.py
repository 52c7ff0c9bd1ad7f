"""The data directory: its lock, and the paths in it.

Two processes on one directory would issue the same dots. The lock is a flock(2) on ``lock``; the applier inherits its descriptor,
so a node restarted after a kill gets it only when an orphaned applier is gone as well (else two appliers would run and the applied
LSN would move backwards).
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekv.errors import ConfigError, DirectoryInUse
from edgekv.store.applied import store_path, sync_path, wal_path
from edgekv.wal.segment import segment_number

LOCK_ATTEMPTS: Final = 100
LOCK_PAUSE_S: Final = 0.05  # 5 s in all: an orphaned applier gives up its transaction within a few thousand rows


def has_log(path: Path) -> bool:
    """Whether the data directory holds a segment of a log."""
    return any(segment_number(name) is not None for name in _names(wal_path(path)))


def has_store(path: Path) -> bool:
    """Whether the data directory holds anything of LMDB."""
    return bool(_names(store_path(path)))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


class DataDirectory:
    """An existing, locked data directory."""

    def __init__(self, path: Path, lock_descriptor: int) -> None:
        self.path: Final = path
        self.wal: Final = wal_path(path)
        self.store: Final = store_path(path)
        self.sync: Final = sync_path(path)
        self.lock_descriptor: Final = lock_descriptor

    @classmethod
    def acquire(cls, path: Path, sleep: Callable[[float], None]) -> "DataDirectory":
        """Create what is missing and take the lock, waiting up to 5 s for an orphaned applier to end.

        Raises DirectoryInUse when another process keeps it, ConfigError when the path cannot be used.
        """
        try:
            for folder in (path, wal_path(path), store_path(path), sync_path(path)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                f"the data directory {path} cannot be used: {error.filename} is a file, or below one. Choose another with --data-dir."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"the data directory {path} cannot be used: {error.strerror}. Choose another with --data-dir, or mend its permissions."
            ) from error
        for _ in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(path, descriptor)
            except BlockingIOError:
                sleep(LOCK_PAUSE_S)
        os.close(descriptor)
        raise DirectoryInUse(
            f"{path} is in use by another edgekv process. Stop that one first (pgrep -af edgekv), or choose another --data-dir."
        )

    def release(self) -> None:
        """Give the lock up (the applier's copy of it ends with the applier)."""
        os.close(self.lock_descriptor)
