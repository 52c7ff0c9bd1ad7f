"""Threads that watch a node while a test does something to it: another client, the health probes, and its memory."""

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis

from edgekv.cli.node_process import NodeProcess

PAUSE_S: Final = 0.003
MEMORY_PAUSE_S: Final = 0.05
PATIENCE_S: Final = 10.0


class Witness:
    """Does one thing again and again on a thread of its own, and keeps how long each took. What it raises, the test raises."""

    def __init__(
        self, act: Callable[[], object], *, close: Callable[[], object] = lambda: None, pause_s: float = PAUSE_S
    ) -> None:
        self.seconds: list[float] = []
        self._act, self._close, self._pause_s = act, close, pause_s
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(2 * PATIENCE_S)
        self._close()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                started = time.perf_counter()
                self._act()
                self.seconds.append(time.perf_counter() - started)
                self._over.wait(self._pause_s)
        except BaseException as error:  # noqa: BLE001 - raised again where the test leaves the block
            self._error = error

    @property
    def worst_s(self) -> float:
        return max(self.seconds)

    def percentile_s(self, percent: float) -> float:
        """That of all durations."""
        return sorted(self.seconds)[int(len(self.seconds) * percent / 100)]


def another_client(node: NodeProcess) -> Witness:
    """Writes a value and reads it back, all the time."""
    client = redis.Redis(node.resp.host, node.resp.port, socket_timeout=PATIENCE_S)
    count = 0

    def act() -> None:
        nonlocal count
        count += 1
        assert client.set("witness", count)
        assert client.get("witness") == b"%d" % count

    return Witness(act, close=client.close)


def pings(node: NodeProcess) -> Witness:
    """PING on a connection of its own."""
    client = redis.Redis(node.resp.host, node.resp.port, socket_timeout=PATIENCE_S)
    return Witness(client.ping, close=client.close)


def probes(node: NodeProcess) -> Witness:
    """``GET /readyz`` on a connection of its own."""
    connection = http.client.HTTPConnection(node.http.host, node.http.port, timeout=PATIENCE_S)

    def act() -> None:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"ok\n")

    return Witness(act, close=connection.close)


class MemoryWatch:
    """The peak of what the node and its applier hold in anonymous memory."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.peak_bytes = self.first_bytes = anonymous_bytes(node)
        self._witness = Witness(self._look, pause_s=MEMORY_PAUSE_S)

    def __enter__(self) -> Self:
        self._witness.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._witness.__exit__(kind, error, trace)

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, anonymous_bytes(self._node))

    @property
    def grown_bytes(self) -> int:
        return self.peak_bytes - self.first_bytes


def anonymous_bytes(node: NodeProcess) -> int:
    """RssAnon of the node and of its children now."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return sum(_anonymous_bytes(pid) for pid in (str(node.pid), *children))


def _anonymous_bytes(pid: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0  # an applier that has ended
    line = next((line for line in status.splitlines() if line.startswith("RssAnon:")), "RssAnon: 0 kB")
    return int(line.split()[1]) << 10


def metric(node: NodeProcess, name: str) -> float:
    """One number of ``/metrics``."""
    connection = http.client.HTTPConnection(node.http.host, node.http.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])
