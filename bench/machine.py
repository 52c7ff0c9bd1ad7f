"""What the numbers were measured on: CPU, memory, kernel, file system, disk, commit and versions.

Every result file carries this description, because a ratio without its disk says nothing: the cost of one
fdatasync decides most of what is measured here, so it is measured at the start of each program.
"""

import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})

_FDATASYNC_SAMPLES: Final = 200
_FDATASYNC_BLOCK_BYTES: Final = 8192
_PROGRAMS: Final = {
    "redis": ("redis-server", "--version"),
    "etcd": ("etcd", "--version"),
    "wrk": ("wrk", "-v"),
    "node": ("node", "--version"),
}
_VERSION: Final = re.compile(r"\d+\.\d+[\w.+-]*")
_PACKAGES: Final = (
    "edgekv",
    "lmdb",
    "msgpack",
    "google-crc32c",
    "hiredis",
    "uvloop",
    "aiohttp",
    "zstandard",
    "rocksdict",
    "plyvel",
)


def describe(directory: Path) -> dict[str, object]:
    """The machine, as far as it can change a figure; `directory` is where the data files of the run will lie."""
    kind, device, options = mount_of(directory)
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file_system": kind,
        "device": device,
        "mount_options": options,
        "fdatasync_p50_ms": round(fdatasync_p50_ms(directory), 4),
        "load_1m_at_start": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """Versions of every program and package a benchmark may have used; absent ones are left out."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name, command in _PROGRAMS.items():
        if shutil.which(command[0]):
            found[name] = _version_of(command)
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this tree, with "+changes" when the working tree differs from it."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head + ("+changes" if _git("status", "--porcelain", "--", "edgekv", "bench/*.py") else "")


def sentence(machine: Mapping[str, object]) -> str:
    """The description of `describe` as one line for a table's caption."""
    memory = machine["memory_bytes"]
    assert isinstance(memory, int)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory / 2**30:.0f} GiB, Linux {machine['kernel']}, "
        f"{machine['file_system']} on {machine['device']}, fdatasync p50 {machine['fdatasync_p50_ms']} ms"
    )


def mount_of(directory: Path) -> tuple[str, str, str]:
    """(file system, device, options) of the mount that holds `directory`."""
    best = ("", "unknown", "unknown", "")
    resolved = directory.resolve()
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind, options = line.split(" ")[:4]
        point = point.replace("\\040", " ")
        # Later mounts hide earlier ones on the same point, hence >=.
        if resolved.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind, device, options)
    return best[1], best[2], best[3]


def fdatasync_p50_ms(directory: Path) -> float:
    """Median time of an 8 KiB overwrite with fdatasync in a file that was written with zeros: a log's steady state."""
    path = directory / "fdatasync.probe"
    block = os.urandom(_FDATASYNC_BLOCK_BYTES)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.pwrite(fd, bytes(_FDATASYNC_BLOCK_BYTES * _FDATASYNC_SAMPLES), 0)
        os.fsync(fd)
        times = []
        for index in range(_FDATASYNC_SAMPLES):
            started = time.perf_counter()
            os.pwrite(fd, block, index * _FDATASYNC_BLOCK_BYTES)
            os.fdatasync(fd)
            times.append(time.perf_counter() - started)
    finally:
        os.close(fd)
        path.unlink()
    return statistics.median(times) * 1e3


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version_of(command: tuple[str, ...]) -> str:
    # `wrk -v` prints its version and exits 1, so the exit code says nothing here.
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    found = _VERSION.search(done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ("git", "-C", str(REPOSITORY), *arguments), capture_output=True, text=True, timeout=10, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
