"""A process that sends one command at fixed times and notes how late each answer was: what a stall costs is not hidden by it.

`python -m bench.open_loop --resp HOST:PORT --command get` prints {"times_s": [...], "refused": n} when its input ends. A time counts
from when the command was due, so every command that was due during a stall has its share of it. Refusals before the first answer (a
node that is no member yet) do not count; those after it do, as `refused`.
"""

import argparse
import json
import random
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any, Final

from bench import machine
from bench.resp_client import key_of
from bench.servers import ServerError
from edgekv.cli.resp_client import RespConnection
from edgekv.config import Address
from edgekv.errors import EdgeKVError, OutcomeUnknown

INTERVAL_S: Final = 0.005
TIMEOUT_S: Final = 60.0


@contextmanager
def probing(address: Address, command: str, keys: int) -> Iterator[dict[str, Any]]:
    """The probe while the block runs; the dictionary is filled at the end."""
    command_line = [sys.executable, "-m", "bench.open_loop", "--resp", str(address), "--command", command]
    command_line += ["--keys", str(keys)]
    found: dict[str, Any] = {}
    with Popen(command_line, cwd=machine.REPOSITORY, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            yield found
            output, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    if process.returncode:
        raise ServerError("the process that probes failed")
    found.update(json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--resp", type=Address.parse, required=True)
    parser.add_argument("--command", choices=("get", "set"), required=True)
    parser.add_argument("--keys", type=int, required=True)
    arguments = parser.parse_args()
    dice, times_s, refused = random.Random(1), list[float](), 0
    with RespConnection(arguments.resp, TIMEOUT_S) as connection:
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            due += INTERVAL_S
            time.sleep(max(0.0, due - time.monotonic()))
            number = dice.randrange(arguments.keys)
            words = (b"GET", key_of(number)) if arguments.command == "get" else (b"SET", b"own:%d" % number, b"x" * 100)
            try:
                connection.call(*words)
            except OutcomeUnknown:
                raise
            except EdgeKVError:
                refused += bool(times_s)
                continue
            times_s.append(time.monotonic() - due)
    print(json.dumps({"times_s": times_s, "refused": refused}))


if __name__ == "__main__":
    main()
