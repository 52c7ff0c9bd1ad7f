"""Starting and stopping the servers that are compared: Redis, etcd and a node.

Each runs in a session of its own below a directory of the run, so a Ctrl-C at the terminal reaches only the
benchmark, and leaving the `with` block ends the whole process group: first politely, then with SIGKILL.
All three acknowledge a write only after fdatasync.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekv.config import Address

READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 15.0

_POLL_S: Final = 0.002


class ServerError(Exception):
    """A server did not start, or ended by itself; the message carries the end of its output."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. `ready_s` is the time from exec to being ready."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    resp: Address | None
    http: Address | None
    ready_s: float
    peer: Address | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def resp_address(self) -> Address:
        assert self.resp is not None, f"{self.name} has no RESP listener"
        return self.resp

    def http_address(self) -> Address:
        assert self.http is not None, f"{self.name} has no HTTP listener"
        return self.http

    def peer_address(self) -> Address:
        assert self.peer is not None, f"{self.name} has no peer listener"
        return self.peer

    def kill(self) -> None:
        """SIGKILL to the server alone: its children, if any, become orphans."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            raise ServerError(f"{self.name} ended with {self.process.returncode}:\n{_tail(self.output)}")


@contextmanager
def redis(directory: Path, options: Sequence[str] = ()) -> Iterator[Server]:
    """Redis with `appendfsync always` and no snapshots; everything else as Redis ships it (AOF rewriting too)."""
    port = _free_port()
    address = Address("127.0.0.1", port)
    command = ["redis-server", "--port", str(port), "--bind", address.host, "--dir", str(directory), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", *options]
    with _started(command, directory) as (process, output, started):
        _wait_until(lambda: _answers_ping(address), "redis", process, output)
        yield Server("redis", process, output, address, None, time.monotonic() - started)


@contextmanager
def etcd(directory: Path) -> Iterator[Server]:
    """A one-member etcd with its defaults (every commit is fsynced)."""
    port, peer_port = _free_port(), _free_port()
    address = Address("127.0.0.1", port)
    client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command = ["etcd", "--name", "bench", "--data-dir", str(directory / "data"), "--log-level", "error"]
    command += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
    command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
    command += ["--initial-cluster", f"bench={peer_url}"]
    with _started(command, directory) as (process, output, started):
        _wait_until(lambda: _is_healthy(address), "etcd", process, output)
        yield Server("etcd", process, output, None, address, time.monotonic() - started)


@contextmanager
def node(directory: Path, *, memory_bytes: int | None = None, settings: str = "") -> Iterator[Server]:
    """A node on `directory`/data, which may hold the data of an earlier one; defaults except for `memory_bytes`.

    `settings`: more lines of its configuration, as in edgekv.toml.
    """
    command = [*_edgekv_command(), "serve", "--data-dir", str(directory / "data")]
    command += ["--http", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--peer", "127.0.0.1:0"]
    if memory_bytes is not None:
        settings = f"memory_bytes = {memory_bytes}\n{settings}"
    if settings:
        config = directory / "edgekv.toml"
        config.write_text(settings)
        command += ["--config", str(config)]
    with _started(command, directory) as (process, output, started):
        _wait_until(lambda: b"\nready\n" in b"\n" + output.read_bytes(), "edgekv", process, output)
        ready_s = time.monotonic() - started
        listeners = dict(line.split(" ", 1) for line in output.read_text().splitlines() if " " in line)
        http_address, resp, peer = (Address.parse(listeners[name]) for name in ("http", "resp", "peer"))
        yield Server("edgekv", process, output, resp, http_address, ready_s, peer)


@contextmanager
def http_program(name: str, command: Sequence[str], directory: Path, ready_path: str) -> Iterator[Server]:
    """A server that takes `--port` and `--host`, ready when a GET of `ready_path` is answered with 200."""
    address = Address("127.0.0.1", _free_port())
    command = [*command, "--host", address.host, "--port", str(address.port)]

    def answers() -> bool:
        try:
            return bool(get_text(address, ready_path))
        except (OSError, ServerError, http.client.HTTPException):
            return False

    with _started(command, directory) as (process, output, started):
        _wait_until(answers, name, process, output)
        yield Server(name, process, output, None, address, time.monotonic() - started)


def get_json(address: Address, path: str) -> dict[str, object]:
    """The JSON object at an HTTP path of a server."""
    document = json.loads(get_text(address, path))
    assert isinstance(document, dict)
    return document


def get_text(address: Address, path: str) -> str:
    """The body at an HTTP path; any status but 200 is an error."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise ServerError(f"GET {path} answered {response.status}: {body[:200]}")
        return body
    finally:
        connection.close()


@contextmanager
def _started(command: Sequence[str], directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, float]]:
    if shutil.which(command[0]) is None:
        raise ServerError(f"{command[0]} is not installed")
    # Output goes to a file: a pipe nobody reads would stop the server once it is full.
    output = directory / "output.txt"
    started = time.monotonic()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process, output, started
        if process.poll() not in (None, 0, -signal.SIGKILL):
            raise ServerError(f"{command[0]} ended with {process.returncode}:\n{_tail(output)}")
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"{command[0]} did not stop within {STOP_TIMEOUT_S} s of SIGTERM; killed", file=sys.stderr)
    finally:
        # The group outlives its leader while a child is alive, so this reaches orphans as well.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)


def _wait_until(ready: Callable[[], bool], name: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        if process.poll() is not None:
            raise ServerError(f"{name} ended with {process.returncode} at its start:\n{_tail(output)}")
        if time.monotonic() > deadline:
            raise ServerError(f"{name} was not ready after {READY_TIMEOUT_S} s:\n{_tail(output)}")
        time.sleep(_POLL_S)


def _edgekv_command() -> list[str]:
    # The script beside this interpreter first: another edgekv on PATH would be another version.
    beside = Path(sys.executable).parent / "edgekv"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "edgekv"]


def _answers_ping(address: Address) -> bool:
    try:
        with socket.create_connection((address.host, address.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _is_healthy(address: Address) -> bool:
    try:
        return get_json(address, "/health").get("health") == "true"
    except (OSError, ServerError, http.client.HTTPException):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(output: Path) -> str:
    return "\n".join(output.read_text(errors="replace").splitlines()[-15:])
