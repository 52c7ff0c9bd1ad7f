"""What /proc says of a server's processes: descendants, anonymous memory, CPU time.

RssAnon is the figure to watch: it counts what a process holds for itself. RssFile counts pages of LMDB's map,
which the kernel takes back when it needs them.
"""

import os
import threading
from pathlib import Path
from typing import Final, Self

SAMPLE_INTERVAL_S: Final = 0.05

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    found, at = [pid], 0
    while at < len(found):
        found += _children(found[at])
        at += 1
    return found


def command_of(pid: int) -> str:
    """The command line of a process, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def anonymous_bytes(pids: list[int]) -> int:
    """Σ RssAnon; a process that has just ended counts 0."""
    return sum(_anonymous_bytes(pid) for pid in pids)


def cpu_s(pids: list[int]) -> float:
    """Σ user and system time since the processes began."""
    return sum(_cpu_s(pid) for pid in pids)


def is_running(pid: int) -> bool:
    """Whether the process lives; one that has ended and was not waited for does not."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


class MemoryWatch:
    """Samples Σ RssAnon of a server and its children in a thread, 20 times a second, while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)
        self.samples_bytes: list[int] = []

    @property
    def peak_bytes(self) -> int:
        return max(self.samples_bytes, default=0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            self.samples_bytes.append(anonymous_bytes(family(self._pid)))


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        # Each thread lists the children it has spawned itself.
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    except OSError:  # It ended while we looked.
        pass
    return children


def _anonymous_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # A zombie has no memory lines.


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, [] when there is no such process."""
    try:
        # The command, the second field, may contain spaces and parentheses: count from its last parenthesis.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
