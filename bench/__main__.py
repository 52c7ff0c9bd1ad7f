"""`python -m bench`: every benchmark, one after the other, then the report. Flags are passed on (`--quick`, `--dir`).

`--flights` and `--pouchdb` go to those that know them.

Each is a process of its own, so that the memory and threads of one do not weigh on the next; one that fails does
not keep the others from running.
"""

import argparse
import subprocess
import sys
from typing import Final

from bench import report
from bench.run import step

TAKERS: Final = {"flights": ("replication", "couch", "departures"), "pouchdb": ("couch",)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", allow_abbrev=False)
    for flag in TAKERS:
        parser.add_argument(f"--{flag}")
    own, shared = parser.parse_known_args()
    failed = []
    for name in report.ORDER:
        step(f"bench.{name}")
        flags = [f"--{flag}={value}" for flag, value in vars(own).items() if value and name in TAKERS[flag]]
        # Its own time limit ends it; Ctrl-C reaches it as well as us, and it then stops its servers.
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *shared, *flags], check=False)
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
