"""The directory of a development cluster: ``cluster.json`` says which nodes there are and on which ports.

cluster.json    format 1: nodes (name, site, role, http, resp, peer) and links (from a site to a hub, by a port)
control.sock    where a running cluster takes orders
lock            held by the process that runs it
NAME/           the node's data directory
NAME.toml       its configuration, written anew at each start
NAME.log        what it wrote to stderr
"""

import json
import os
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from edgekv.config import NAME, Address
from edgekv.errors import ConfigError, Corruption, Unavailable

FORMAT: Final = 1
FILE: Final = "cluster.json"
CLOUD: Final = "cloud"
HOST: Final = "127.0.0.1"
SOCKET: Final = "control.sock"
PORTS: Final = range(20_000, 32_000)
"""Linux takes outgoing connections' from 32768 on (net.ipv4.ip_local_port_range)."""
SITE_CHARACTERS_MAX: Final = 48
"""A node is called by its site and a number, and what else is below the directory by the node."""
PORTS_FREE_S: Final = 5.0
"""How long the nodes of a cluster that was killed may take to end, and give up their ports."""
PORT_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class DevNode:
    """One node, and its ports on loopback."""

    name: str
    site: str
    role: str
    http: int
    resp: int
    peer: int


@dataclass(frozen=True, slots=True)
class DevLink:
    """The way from an edge site to a hub: the port at which its proxy listens."""

    site: str
    hub: str
    port: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A cluster."""

    nodes: tuple[DevNode, ...]
    links: tuple[DevLink, ...]

    @property
    def hubs(self) -> list[DevNode]:
        return [node for node in self.nodes if node.role == "hub"]

    @property
    def edges(self) -> list[DevNode]:
        return [node for node in self.nodes if node.role == "edge"]

    def node(self, name: str) -> DevNode:
        """ConfigError when there is none of this name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise ConfigError(f'there is no node "{name}"; there are {", ".join(n.name for n in self.nodes)}')

    def links_between(self, one: str, other: str) -> list[DevLink]:
        """The links that two sites have. ConfigError when there are none."""
        sites = {node.name: node.site for node in self.nodes}
        found = [link for link in self.links if {link.site, sites[link.hub]} == {one, other}]
        if not found:
            known = ", ".join(sorted(set(sites.values())))
            raise ConfigError(
                f'no link goes from "{one}" to "{other}"; the sites are {known}, and each edge is linked with {CLOUD}'
            )
        return found

    def upstreams(self, node: DevNode) -> list[Address]:
        """Whom a node dials: an edge its proxies, a hub all that are before it, so that any two hubs have a link."""
        if node.role == "edge":
            return [Address(HOST, link.port) for link in self.links if link.site == node.site]
        return [Address(HOST, hub.peer) for hub in self.hubs[: self.hubs.index(node)]]


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """The control socket by a path that is short: the kernel takes 107 bytes, and a directory may be deep. Raises OSError."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{SOCKET}"
    finally:
        os.close(opened)


def create(sites: Sequence[str], hubs: int) -> Layout:
    """A new cluster: hubs in the cloud, one node at each site, on ports that are free now. ConfigError for bad site names."""
    for site in sites:
        if not NAME.fullmatch(site) or len(site) > SITE_CHARACTERS_MAX:
            raise ConfigError(
                f'"{site}" does not name a site: use 1 to {SITE_CHARACTERS_MAX} letters, digits, dots, dashes or underscores'
            )
    if len(set(sites)) < len(sites) or CLOUD in sites:
        raise ConfigError(f'the edge sites are {", ".join(sites)}: each needs a name of its own, other than "{CLOUD}"')
    ports = iter(free_ports(3 * (hubs + len(sites)) + hubs * len(sites)))
    nodes = [DevNode(f"{CLOUD}-{i + 1}", CLOUD, "hub", *(next(ports) for _ in range(3))) for i in range(hubs)]
    links = tuple(DevLink(site, hub.name, next(ports)) for site in sites for hub in nodes)
    nodes += [DevNode(f"{site}-1", site, "edge", *(next(ports) for _ in range(3))) for site in sites]
    return Layout(tuple(nodes), links)


def load(directory: Path) -> Layout | None:
    """The cluster of a directory; None: there is none yet. Raises Corruption."""
    path = directory / FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}")
        return Layout(
            tuple(DevNode(**node) for node in record["nodes"]), tuple(DevLink(**link) for link in record["links"])
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corruption(
            f"{path} cannot be read ({error}). Use another --dir, or remove it.", path=str(path)
        ) from error


def save(directory: Path, layout: Layout) -> None:
    """Write it down."""
    record = {"format": FORMAT, **asdict(layout)}
    (directory / FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def with_free_ports(layout: Layout) -> Layout:
    """The same on other ports where somebody else keeps one for more than PORTS_FREE_S."""
    deadline = time.monotonic() + PORTS_FREE_S
    while (taken := {port for port in _ports(layout) if not _is_free(port)}) and time.monotonic() < deadline:
        time.sleep(PORT_PAUSE_S)
    if not taken:
        return layout
    other = dict(zip(sorted(taken), free_ports(len(taken)), strict=True))

    def moved(port: int) -> int:
        return other.get(port, port)

    return Layout(
        tuple(replace(n, http=moved(n.http), resp=moved(n.resp), peer=moved(n.peer)) for n in layout.nodes),
        tuple(replace(link, port=moved(link.port)) for link in layout.links),
    )


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now, none of which the kernel gives to outgoing connections: while a node is down, one of those
    would take the port that it has to come back to. Unavailable when there are not so many.
    """
    found = list(islice(filter(_is_free, random.sample(PORTS, len(PORTS))), count))
    if len(found) < count:
        raise Unavailable(
            f"fewer than {count} ports from {PORTS.start} to {PORTS.stop - 1} are free. Stop what uses them."
        )
    return found


def _ports(layout: Layout) -> list[int]:
    return [port for n in layout.nodes for port in (n.http, n.resp, n.peer)] + [link.port for link in layout.links]


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True
