"""A node of a development cluster as a process: ``edgekv serve`` with a configuration file, started, killed and started again.

It runs in a session of its own, so Ctrl-C in the terminal reaches the cluster alone, which stops it; and it does not outlive the
cluster (dev_child.py).
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgekv import limits
from edgekv.cli.cluster import advice
from edgekv.cli.dev_layout import HOST, DevNode
from edgekv.cli.node_http import NodeHttp
from edgekv.config import Address
from edgekv.errors import InvalidRequest, Unavailable

READY_S: Final = 60.0
ADMITTED_S: Final = 60.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05
LAST_WORDS_BYTES: Final = 4096
# The smallest that takes values of the default limit: many nodes share a disk, and each zeroes several segments ahead.
SEGMENT_BYTES: Final = 2 * (limits.VALUE_BYTES_MAX + limits.CHANGE_OVERHEAD_BYTES)
assert SEGMENT_BYTES % limits.SEGMENT_HEADER_BYTES == 0


class DevProcess:
    """One node. ``ended`` is told when it ends without having been asked to, with a sentence."""

    def __init__(
        self, directory: Path, node: DevNode, upstreams: Sequence[Address], ended: Callable[[str], None]
    ) -> None:
        self.node: Final = node
        self._directory: Final = directory
        self._upstreams: Final = upstreams
        self._ended: Final = ended
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False
        self._spawning = False
        self._asked_to_end = False

    @property
    def log(self) -> Path:
        """What it wrote to stderr, of all its lives."""
        return self._directory / f"{self.node.name}.log"

    @property
    def state(self) -> str:
        """``ready``, ``starting`` or ``stopped``."""
        if self._spawning:
            return "starting"
        if self._process is None or self._process.returncode is not None:
            return "stopped"
        return "ready" if self._ready else "starting"

    @property
    def pid(self) -> int | None:
        """None when it is stopped."""
        return self._process.pid if self._process is not None and self.state != "stopped" else None

    async def start(self) -> None:
        """Start it, and wait until it says ``ready``. Unavailable, with its last words, when it does not."""
        if self.state != "stopped":
            which = "is being started" if self.pid is None else f"runs already (pid {self.pid}); kill it first"
            raise InvalidRequest(f'node "{self.node.name}" {which}')
        self._process, self._ready, self._spawning, self._asked_to_end = None, False, True, False
        try:
            self._process = process = await self._spawn()
        finally:
            self._spawning = False
        try:
            async with asyncio.timeout(READY_S):
                self._ready = await _says_ready(process)
        except TimeoutError:
            await self.stop()
            raise Unavailable(
                f'node "{self.node.name}" was not ready after {READY_S:.0f} s and is stopped: {self._last_words()}'
            ) from None
        if not self._ready:
            status = await process.wait()
            raise Unavailable(f'node "{self.node.name}" ended with exit code {status}: {self._last_words()}')
        self._watching = asyncio.get_running_loop().create_task(self._watch(process))

    async def _spawn(self) -> asyncio.subprocess.Process:
        config = self._write_config()
        # EDGEKV_* of the caller are for its own commands: a node must not take up a listener or limit from there.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGEKV_")}
        command = [sys.executable, "-m", "edgekv.cli.dev_child", str(os.getpid()), "serve", "--config", str(config)]
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def admitted(self) -> None:
        """Wait until it is a member of its cluster, before which it takes no writes. Unavailable when that takes too long."""
        try:
            async with asyncio.timeout(ADMITTED_S):
                while not await asyncio.to_thread(_is_member, self.node):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            why = await asyncio.to_thread(_what_is_wrong, self.node)
            raise Unavailable(
                f'node "{self.node.name}" was not admitted to the cluster after {ADMITTED_S:.0f} s: {why} See {self.log}'
            ) from None
        except Unavailable:
            if self.state != "stopped":
                raise
            raise Unavailable(f'node "{self.node.name}" ended before it was admitted: {self._last_words()}') from None

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. InvalidRequest when it does not run."""
        if self.state == "stopped" or self._process is None:
            raise InvalidRequest(f'node "{self.node.name}" does not run; start it first')
        self._asked_to_end = True
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough. Idempotent."""
        if self._process is None or self.state == "stopped":
            return
        self._asked_to_end = True
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        if not self._asked_to_end:
            self._ended(f'node "{self.node.name}" ended with exit code {status}: {self._last_words()}')

    def _write_config(self) -> Path:
        node, path = self.node, self._directory / f"{self.node.name}.toml"
        lines = [
            f'node = "{node.name}"',
            f'site = "{node.site}"',
            f'role = "{node.role}"',
            f"data_dir = {json.dumps(str(self._directory / node.name))}",  # a JSON string is one of TOML as well
            f'http = "{HOST}:{node.http}"',
            f'resp = "{HOST}:{node.resp}"',
            f'peer = "{HOST}:{node.peer}"',
            *(f'[[upstream]]\naddress = "{address}"' for address in self._upstreams),
            "[wal]",
            f"segment_bytes = {SEGMENT_BYTES}",
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it wrote nothing to {self.log}"


def _is_member(node: DevNode) -> bool:
    """By its own view."""
    with NodeHttp(Address(HOST, node.http), READY_S) as http:
        members = http.read("/v1/status").json()["replication"]["members"]
    return any(member["name"] == node.name and member["state"] == "open" for member in members)


def _what_is_wrong(node: DevNode) -> str:
    """As far as it knows."""
    with NodeHttp(Address(HOST, node.http), READY_S) as http:
        return " ".join(advice(http.read("/v1/status").json()))


async def _says_ready(process: asyncio.subprocess.Process) -> bool:
    """Its lines are one per listener, then ``ready``; False: it has ended before that."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if line == b"ready\n":
            return True
    return False
