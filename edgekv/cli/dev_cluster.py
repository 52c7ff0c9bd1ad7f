"""A development cluster while it runs: every node its own process, every link between sites through a proxy that can be cut.

Orders come over a unix socket below the directory, one per connection: a line of JSON, ``["cut", "edge-1", "cloud"]``, answered by a
line with ``ok`` (what the order gives) or with ``code`` and ``error``. They are taken from the beginning, so that a cluster that does
not become ready can be looked at. Only who may write to the directory can connect.
"""

import asyncio
import fcntl
import json
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, Any, Final

from edgekv.cli import dev_layout
from edgekv.cli.dev_layout import HOST, SOCKET, Layout, short_path
from edgekv.cli.dev_process import DevProcess
from edgekv.cli.dev_proxy import Proxy
from edgekv.config import Address
from edgekv.errors import DirectoryInUse, EdgeKVError, InvalidRequest, Unavailable

STARTS_AT_ONCE: Final = 4
"""A start costs a second of processor time: fifty at once would each be late."""


class DevCluster:
    """All of it, from `run` until SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, directory: Path, layout: Layout, announce: Callable[[str], None]) -> None:
        """``announce`` gets a line per node, then ``ready``, later what ends unasked. DirectoryInUse: it runs already."""
        self._directory: Final = directory
        self._lock: Final = _lock(directory)
        self._announce: Final = announce
        self._layout: Final = dev_layout.with_free_ports(layout)
        dev_layout.save(directory, self._layout)
        self._nodes: Final = {
            node.name: DevProcess(directory, node, self._layout.upstreams(node), announce)
            for node in self._layout.nodes
        }
        self._proxies: Final = {
            link: Proxy(Address(HOST, self._layout.node(link.hub).peer)) for link in self._layout.links
        }

    async def run(self) -> None:
        """Start everything, take orders, and end everything. Unavailable when a node does not become ready."""
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        orders = None
        try:
            for link, proxy in self._proxies.items():
                await proxy.listen(link.port)
            orders = await self._take_orders()
            await _until(stopping, self._start_all())
            if not stopping.is_set():
                self._announce("ready")
            await stopping.wait()
        finally:
            if orders is not None:
                orders.close()
            await asyncio.gather(*(process.stop() for process in self._nodes.values()))
            for proxy in self._proxies.values():
                proxy.close()
            (self._directory / SOCKET).unlink(missing_ok=True)
            self._lock.close()

    async def _start_all(self) -> None:
        """Hubs first, one after the other: a node that joins waits for one."""
        for hub in self._layout.hubs:
            await self._start(hub.name)
        turns = asyncio.Semaphore(STARTS_AT_ONCE)

        async def start(name: str) -> None:
            async with turns:
                await self._start(name)

        try:
            async with asyncio.TaskGroup() as group:
                for edge in self._layout.edges:
                    group.create_task(start(edge.name))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _start(self, name: str) -> None:
        await self._nodes[name].start()
        node = self._nodes[name].node
        if self._layout.upstreams(node):
            await self._nodes[name].admitted()
        listeners = f"http {HOST}:{node.http}, resp {HOST}:{node.resp}, peer {HOST}:{node.peer}"
        self._announce(f"{name} (site {node.site}, {node.role}): {listeners}")

    # -- orders

    async def _take_orders(self) -> asyncio.Server:
        (self._directory / SOCKET).unlink(missing_ok=True)  # of a cluster that was killed; this one has the lock
        with short_path(self._directory) as path:
            server = await asyncio.start_unix_server(self._order, path)
        (self._directory / SOCKET).chmod(0o600)
        return server

    async def _order(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            order = json.loads(await reader.readline())
            answer: dict[str, Any] = {"ok": await self._carry_out(*order)}
        except EdgeKVError as error:
            answer = {"code": error.code, "error": str(error)}
        except (ValueError, TypeError) as error:
            answer = {"code": InvalidRequest.code, "error": f"this is no order ({error}); see edgekv dev --help"}
        except OSError as error:
            answer = {"code": Unavailable.code, "error": f"that could not be done: {error}. Is there room on the disk?"}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _carry_out(self, verb: str, *names: str) -> object:
        """What the order gives. ValueError or TypeError when it is none."""
        match verb, names:
            case "nodes", ():
                return [self._figures(process) for process in self._nodes.values()]
            case "links", ():
                return [
                    {"site": link.site, "hub": link.hub, "cut": proxy.is_cut, "bytes": proxy.bytes}
                    for link, proxy in self._proxies.items()
                ]
            case "cut", (one, other):
                for link in self._layout.links_between(one, other):
                    self._proxies[link].cut()
                return None
            case "heal", (one, other):
                for link in self._layout.links_between(one, other):
                    self._proxies[link].heal()
                return None
            case "kill", (name,):
                process = self._nodes[self._layout.node(name).name]
                await process.kill()
                return self._figures(process)
            case "start", (name,):
                process = self._nodes[self._layout.node(name).name]
                await process.start()
                return self._figures(process)
        raise ValueError(f"{verb} with {len(names)} names")

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


async def _until(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Wait for the work, and give it up when it is time to stop."""
    working = asyncio.get_running_loop().create_task(work)
    stopped = asyncio.get_running_loop().create_task(stopping.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if working.done():
            working.result()
        else:
            working.cancel()
            await asyncio.wait({working})


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
