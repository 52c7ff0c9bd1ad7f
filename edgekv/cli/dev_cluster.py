"""A development cluster while it runs: every node its own process, every link between sites through a proxy that can be cut."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

from edgekv.cli import dev_layout
from edgekv.cli.dev_layout import HOST, SOCKET, DevNode, Layout, short_path
from edgekv.cli.dev_proxy import Proxy
from edgekv.config import Address
from edgekv.errors import DirectoryInUse, EdgeKVError, InvalidRequest, Unavailable

READY_S: Final = 60.0
STOP_S: Final = 20.0
ORDER_BYTES_MAX: Final = 1 << 16
LAST_WORDS_BYTES: Final = 4096


class DevProcess:
    """One node's process."""

    def __init__(self, directory: Path, node: DevNode, upstreams: Sequence[Address]) -> None:
        self.node: Final = node
        self._directory: Final = directory
        self._upstreams: Final = upstreams
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def log(self) -> Path:
        """What it wrote to stderr, of all its lives."""
        return self._directory / f"{self.node.name}.log"

    @property
    def state(self) -> str:
        if self._process is None or self._process.returncode is not None:
            return "stopped"
        return "ready" if self._ready.is_set() else "starting"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.state != "stopped" else None

    async def start(self) -> None:
        """Start it, and wait until it says ``ready``. Unavailable when it does not."""
        if self.state != "stopped":
            raise InvalidRequest(f'node "{self.node.name}" runs already (pid {self.pid})')
        config = self._write_config()
        environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGEKV_")}
        command = [sys.executable, "-m", "edgekv.cli.dev_child", str(os.getpid()), "serve", "--config", str(config)]
        self._ready = asyncio.Event()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=log, stdin=asyncio.subprocess.DEVNULL, env=environment
            )
        self._output = asyncio.create_task(self._follow(self._process))
        ready = asyncio.create_task(self._ready.wait())
        done, _ = await asyncio.wait({ready, self._output}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            why = "ended" if done else f"was not ready after {READY_S:.0f} s"
            raise Unavailable(f'node "{self.node.name}" {why}: {self._last_words()}')

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.state == "stopped" or self._process is None:
            raise InvalidRequest(f'node "{self.node.name}" does not run')
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self._process is None or self.state == "stopped":
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Its lines: one per listener, then ``ready``."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line == b"ready\n":
                self._ready.set()

    def _write_config(self) -> Path:
        node, path = self.node, self._directory / f"{self.node.name}.toml"
        lines = [
            f'node = "{node.name}"',
            f'site = "{node.site}"',
            f'role = "{node.role}"',
            f"data_dir = {json.dumps(str(self._directory / node.name))}",
            *(
                f'{name} = "{HOST}:{port}"'
                for name, port in (("http", node.http), ("resp", node.resp), ("peer", node.peer))
            ),
            *(f'[[upstream]]\naddress = "{address}"' for address in self._upstreams),
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it wrote nothing to {self.log}"


class DevCluster:
    """All of it, from `run` until SIGINT or SIGTERM."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Raises DirectoryInUse when another process runs this cluster."""
        self._directory: Final = directory
        self._lock: Final = _lock(directory)
        self._layout: Final = dev_layout.with_free_ports(layout)
        dev_layout.save(directory, self._layout)
        self._nodes: Final = {
            node.name: DevProcess(directory, node, self._layout.upstreams(node)) for node in self._layout.nodes
        }
        self._proxies: Final = {
            link: Proxy(Address(HOST, self._layout.node(link.hub).peer)) for link in self._layout.links
        }

    async def run(self, announce: Callable[[str], None]) -> None:
        """Start everything, take orders, and end everything. ``announce`` gets a line per node, then ``ready``."""
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        server = None
        try:
            for link, proxy in self._proxies.items():
                await proxy.listen(link.port)
            starting = asyncio.create_task(self._start(announce))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
            else:
                starting.result()
                server = await self._take_orders()
                announce("ready")
                await stopped
        finally:
            if server is not None:
                server.close()
            await asyncio.gather(*(node.stop() for node in self._nodes.values()))
            for proxy in self._proxies.values():
                await proxy.close()
            (self._directory / SOCKET).unlink(missing_ok=True)
            self._lock.close()

    async def _start(self, announce: Callable[[str], None]) -> None:
        """Hubs first: a node that joins waits for one."""
        for tier in ([[hub] for hub in self._layout.hubs], [self._layout.edges]):
            for nodes in tier:
                await asyncio.gather(*(self._nodes[node.name].start() for node in nodes))
                for node in nodes:
                    announce(
                        f"{node.name} (site {node.site}, {node.role}): "
                        f"http {HOST}:{node.http}, resp {HOST}:{node.resp}, peer {HOST}:{node.peer}"
                    )

    # -- orders

    async def _take_orders(self) -> asyncio.Server:
        (self._directory / SOCKET).unlink(missing_ok=True)
        with short_path(self._directory) as path:
            return await asyncio.start_unix_server(self._order, path)

    async def _order(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One order, a line of JSON, and its answer."""
        try:
            order = json.loads(await reader.readline())
            answer: dict[str, Any] = {"ok": await self._carry_out(*order)}
        except EdgeKVError as error:
            answer = {"code": error.code, "error": str(error)}
        except (ValueError, TypeError) as error:
            answer = {"code": InvalidRequest.code, "error": f"this is no order: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _carry_out(self, verb: str, *names: str) -> object:
        if verb == "nodes":
            return [self._figures(process) for process in self._nodes.values()]
        if verb == "links":
            return [
                {"site": link.site, "hub": link.hub, "cut": proxy.is_cut, "bytes": proxy.bytes}
                for link, proxy in self._proxies.items()
            ]
        if verb in ("cut", "heal"):
            for link in self._layout.links_between(*names):
                proxy = self._proxies[link]
                proxy.cut() if verb == "cut" else proxy.heal()
            return None
        process = self._nodes[self._layout.node(*names).name]
        await (process.kill() if verb == "kill" else process.start())
        return self._figures(process)

    @staticmethod
    def _figures(process: DevProcess) -> dict[str, object]:
        node = process.node
        return {
            "name": node.name,
            "site": node.site,
            "role": node.role,
            "http": f"{HOST}:{node.http}",
            "resp": f"{HOST}:{node.resp}",
            "peer": f"{HOST}:{node.peer}",
            "pid": process.pid,
            "state": process.state,
        }


def _lock(directory: Path) -> IO[bytes]:
    file = (directory / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DirectoryInUse(
            f"a development cluster runs in {directory} already. Stop it, or choose another --dir."
        ) from error
    return file
