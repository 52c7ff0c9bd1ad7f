"""Two servers of which one follows the other: an edge and its cloud hub, or a Redis master and its replica; both durable.

The *writer* takes the writes (edge, master), the *reader* gets them (hub, replica). Whoever connects, the edge to its hub or
the replica to its master, does so directly or through a link that can be cut and counts (`bench.link`).
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import machine, servers, status
from bench.link import Link, link_to
from bench.run import Run
from bench.servers import Server, ServerError
from edgekv.cli.resp_client import RespConnection
from edgekv.config import Address
from edgekv.errors import EdgeKVError

READY_TIMEOUT_S: Final = 120.0
VERIFY_TIMEOUT_S: Final = 120.0
BACKLOG: Final = ("--repl-backlog-size", "1gb")
"""So that a Redis replica that was cut off goes on where it was, however much it missed."""
REDIS_OPTIONS: Final = ("--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0")
"""Redis waits 5 s for further replicas before a full resync, and 10 s for a replica before it ends; here nobody comes."""

_POLL_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Pair:
    """Both are up and connected. `link` is None when they are connected directly."""

    name: str
    writer: Server
    reader: Server
    link: Link | None

    def the_link(self) -> Link:
        assert self.link is not None, "this pair is connected directly"
        return self.link

    def wait_idle(self) -> None:
        """Until what runs in the background after writes is done."""
        if self.name == "edgekv":
            for node in (self.writer, self.reader):
                if node.process.poll() is None:
                    status.wait_applied(node)

    def check(self) -> None:
        """Both live, and hold the same."""
        self.writer.check_alive()
        self.reader.check_alive()
        if self.name == "edgekv":
            verify([self.writer, self.reader])
            return
        sizes = [ask(server.resp_address(), b"DBSIZE") for server in (self.writer, self.reader)]
        if sizes[0] != sizes[1]:
            raise ServerError(f"the master has {sizes[0]} keys and the replica {sizes[1]}")


@contextmanager
def edgekv(run: Run, *, through_link: bool, hub_settings: str = "", edge_settings: str = "") -> Iterator[Pair]:
    """A hub and an edge on new directories, admitted and settled."""
    with (
        run.data_directory("hub") as hub_directory,
        servers.node(hub_directory, settings=node_settings("cloud", "cloud", hub_settings)) as hub,
        _way(hub.peer_address(), through_link) as (address, link),
        run.data_directory("edge") as edge_directory,
        servers.node(edge_directory, settings=node_settings("edge", "shop", edge_settings, upstream=address)) as edge,
    ):
        wait_admitted(edge)
        for node in (hub, edge):
            status.wait_settled(node)
        yield Pair("edgekv", edge, hub, link)


@contextmanager
def redis(run: Run, *, through_link: bool, options: Sequence[str] = REDIS_OPTIONS + BACKLOG) -> Iterator[Pair]:
    """A master and its replica, both with `appendfsync always`, on new directories and in step."""
    with (
        run.data_directory("redis") as directory,
        servers.redis(directory, options) as master,
        _way(master.resp_address(), through_link) as (address, link),
        run.data_directory("replica") as replica_directory,
        redis_replica(replica_directory, address, options) as replica,
    ):
        yield Pair("redis", master, replica, link)


Start = Callable[..., Any]
STARTS: Final[dict[str, Start]] = {"redis": redis, "edgekv": edgekv}


@contextmanager
def redis_replica(directory: Path, master: Address, options: Sequence[str] = REDIS_OPTIONS) -> Iterator[Server]:
    """A replica that has caught up with its master."""
    with servers.redis(directory, [*options, "--replicaof", f"{master.host} {master.port}"]) as replica:
        wait_replica_up(replica.resp_address())
        yield replica


def wait_replica_up(replica: Address) -> None:
    _wait(lambda: b"master_link_status:up" in _information(replica), "the replica did not connect to its master")


def node_settings(name: str, site: str, more: str = "", *, upstream: Address | None = None) -> str:
    """Lines of edgekv.toml: a hub, or with an upstream an edge. `more` may end with tables."""
    role = "hub" if upstream is None else "edge"
    lines = [f'node = "{name}"', f'site = "{site}"', f'role = "{role}"', more]
    if upstream is not None:
        lines.append(f'[[upstream]]\naddress = "{upstream}"')
    return "\n".join(lines) + "\n"


def wait_admitted(node: Server) -> None:
    """Until a node takes writes as a member of its cluster, and streams data with its upstream."""

    def is_member() -> bool:
        replication: Any = servers.get_json(node.http_address(), "/v1/status")["replication"]
        return replication["member"] and any(link["phase"] == "data" for link in replication["links"])

    _wait(is_member, "the edge was not admitted")


def verify(nodes: Sequence[Server]) -> None:
    """By `edgekv cluster verify`: the same vectors, the same digests."""
    command = [sys.executable, "-m", "edgekv", "cluster", "verify", "-o", "json", "--timeout-s", str(VERIFY_TIMEOUT_S)]
    for node in nodes:
        command += ["--http", str(node.http_address())]
    done = subprocess.run(command, cwd=machine.REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"the nodes do not hold the same: {done.stdout[-500:]}{done.stderr[-500:]}")
    json.loads(done.stdout)


def ask(address: Address, *arguments: bytes) -> Any:
    """One command on a connection of its own."""
    with RespConnection(address, READY_TIMEOUT_S) as connection:
        return connection.call(*arguments)


def _information(address: Address) -> bytes:
    try:
        found: bytes = ask(address, b"INFO", b"replication")
    except EdgeKVError:  # it is loading what its master sent
        return b""
    return found


@contextmanager
def _way(target: Address, through_link: bool) -> Iterator[tuple[Address, Link | None]]:
    if not through_link:
        yield target, None
        return
    with link_to(target) as link:
        yield link.address, link


def _wait(ready: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            raise ServerError(f"{complaint} within {READY_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
