"""A node as a child process: ``edgekv serve`` on free loopback ports, started, killed and started again.

The ready protocol of ``edgekv serve`` is one line per listener (``http 127.0.0.1:7480``), the last line ``ready``.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edgekv.config import Address
from edgekv.errors import Unavailable

READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
READ_BYTES: Final = 4096
LISTENERS: Final = ("http", "resp", "peer")


class NodeProcess:
    """One node on one data directory. ``start`` may be called again after ``kill`` or ``stop``; the ports are then new ones."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        """``arguments`` are further flags of ``edgekv serve``. What the node writes to stderr is kept in ``DIR.log``."""
        self.data_dir = data_dir
        self.log = data_dir.with_name(data_dir.name + ".log")
        self.listeners: dict[str, Address] = {}
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the running node."""
        assert self._process is not None
        return self._process.pid

    @property
    def http(self) -> Address:
        """Where the running node answers HTTP."""
        return self.listeners["http"]

    @property
    def resp(self) -> Address:
        """Where the running node answers RESP."""
        return self.listeners["resp"]

    def command(self) -> list[str]:
        """What starts it, as a shell would."""
        ports = [argument for name in LISTENERS for argument in (f"--{name}", "127.0.0.1:0")]
        return [sys.executable, "-m", "edgekv", "serve", "--data-dir", str(self.data_dir), *ports, *self._arguments]

    def start(self) -> float:
        """Start the node; return the seconds until it said ``ready``. Unavailable, with its last words, when it does not."""
        assert self._process is None
        started = time.monotonic()
        # EDGEKV_* of the caller are for its own commands: a node on a directory of its own must not take up a listener or limit.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGEKV_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            self.listeners = self._wait_ready(started + READY_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - started

    def kill(self) -> None:
        """End it by SIGKILL, if it runs; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._gone()

    def stop(self) -> int:
        """End it by SIGTERM; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._gone()
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise Unavailable(f"the node did not stop within {STOP_TIMEOUT_S:.0f} s; see {self.log}") from error

    def _gone(self) -> int:
        assert self._process is not None
        status = self._process.wait(STOP_TIMEOUT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return status

    def _wait_ready(self, deadline: float) -> dict[str, Address]:
        assert self._process is not None and self._process.stdout is not None
        output = self._process.stdout.fileno()
        said = b""
        with selectors.DefaultSelector() as selector:  # select() knows no descriptor above 1,023
            selector.register(output, selectors.EVENT_READ)
            while b"ready\n" not in said:
                readable = selector.select(max(0.0, deadline - time.monotonic()))
                data = os.read(output, READ_BYTES) if readable else b""
                if not data:
                    state = "ended" if readable else f"was not ready after {READY_TIMEOUT_S:.0f} s"
                    raise Unavailable(f"the node {state}: {self._last_words()}")
                said += data
        lines = (line.partition(" ") for line in said.decode().splitlines())
        return {name: Address.parse(place) for name, _, place in lines if name in LISTENERS}

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it wrote nothing to {self.log}"
