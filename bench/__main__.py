"""`python -m bench`: every benchmark, one after the other, then the report. Flags are passed on (`--quick`, `--dir`).

Each is a process of its own, so that the memory and threads of one do not weigh on the next; one that fails does
not keep the others from running.
"""

import subprocess
import sys

from bench import report
from bench.run import step


def main() -> None:
    failed = []
    for name in report.ORDER:
        step(f"bench.{name}")
        # Its own time limit ends it; Ctrl-C reaches it as well as us, and it then stops its servers.
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]], check=False)
        if done.returncode:
            failed.append(name)
    if not failed:
        report.main([])
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
