"""``edgekv dev`` as tests start it: a program, its orders, and what its nodes say."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

from edgekv.cli.resp_client import Reply, RespConnection
from edgekv.config import Address

TIMEOUT_S = 60.0
PAUSE_S = 0.02
EDGEKV = (sys.executable, "-m", "edgekv", "dev")


class DevProgram:
    """``edgekv dev`` as a user starts it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        command = [*EDGEKV, "--dir", str(directory), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = []
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if self.said[-1] == "ready":
                break
        assert self.said[-1:] == ["ready"], f"edgekv dev ended: {self.said}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Where a test has not ended it, its nodes end with it."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(TIMEOUT_S)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*EDGEKV, *arguments, "--dir", str(self.directory)]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    def order(self, *arguments: str) -> str:
        ended = self.call(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in json.loads(self.order("nodes", "-o", "json"))}

    def links(self) -> dict[str, dict[str, Any]]:
        return {link["site"]: link for link in json.loads(self.order("links", "-o", "json"))}

    def ask(self, node: str, *arguments: bytes) -> Reply:
        with RespConnection(Address.parse(self.nodes()[node]["resp"]), TIMEOUT_S) as connection:
            return connection.call(*arguments)

    def wait_value(self, node: str, key: bytes, value: bytes) -> None:
        with RespConnection(Address.parse(self.nodes()[node]["resp"]), TIMEOUT_S) as connection:
            until(lambda: connection.call(b"GET", key) == value)

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Have all nodes compared, when they have the same."""
        nodes = [argument for node in self.nodes().values() for argument in ("--http", node["http"])]
        command = [sys.executable, "-m", "edgekv", "cluster", "verify", "--timeout-s", str(TIMEOUT_S), *nodes]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False)

    def processes(self) -> list[psutil.Process]:
        """All below it: nodes and their appliers."""
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return children


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(PAUSE_S)
