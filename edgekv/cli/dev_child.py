"""``python -m edgekv.cli.dev_child PARENT ARGUMENT ...``: run edgekv, and end when the parent does, however that ends.

The kernel sends SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG, kept over exec), so a development cluster that was
killed itself leaves no node behind, not even one that hangs. The cluster starts nodes from its main thread, which ends with the
process. Where it is ended by SIGTERM or SIGINT, it lets the nodes stop in their own time.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Become ``edgekv ARGUMENT ...``."""
    parent, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # it died before the kernel was told
    os.execv(sys.executable, [sys.executable, "-m", "edgekv", *arguments])  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
