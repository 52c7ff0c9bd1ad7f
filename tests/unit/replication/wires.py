"""Nodes that are joined by wires of this process: what one sends waits here until the test delivers it, in order, or cuts the wire."""

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edgekv.config import KeyspaceConfig
from edgekv.config.settings import Role
from edgekv.ids import ID_BYTES
from edgekv.node import keyspace_file
from edgekv.replication.log_source import LogSource
from edgekv.replication.messages import Applicant
from edgekv.replication.replication import Replication
from edgekv.store.applied import sync_path
from edgekv.store.spool_transfer import SpoolFolder
from tests.unit.node.inline_node import InlineNode

CLUSTER: Final = b"c" * ID_BYTES
Make = Callable[..., "Peer"]
"""The fixture ``make``: a node by its name and the options of `Peer`; all are killed in the end."""


class Wire:
    """One connection: two directions, each in order."""

    def __init__(self, number: int, dialer: "Peer", listener: "Peer") -> None:
        self.number: Final = number
        self.ends: Final = dialer, listener
        self.up = True
        self.queues: Final[dict[Peer, deque[bytes]]] = {dialer: deque(), listener: deque()}
        """By the receiver, what is under way."""

    def other(self, end: "Peer") -> "Peer":
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class Net:
    """All wires."""

    def __init__(self) -> None:
        self.wires: Final[dict[int, Wire]] = {}
        self.bytes = 0

    def connect(self, dialer: "Peer", listener: "Peer") -> Wire:
        wire = Wire(len(self.wires) + 1, dialer, listener)
        self.wires[wire.number] = wire
        dialer.replication.connected(wire.number, outgoing=True)
        listener.replication.connected(wire.number, outgoing=False)
        return wire

    def cut(self, wire: Wire) -> None:
        if wire.up:
            wire.up = False
            for end in wire.ends:
                wire.queues[end].clear()
                end.replication.disconnected(wire.number)

    def send(self, sender: "Peer", number: int, message: bytes) -> None:
        wire = self.wires[number]
        if wire.up:
            self.bytes += len(message)
            wire.queues[wire.other(sender)].append(message)

    def close(self, sender: "Peer", number: int) -> None:
        """What was sent arrives, then the other end hears that it is over."""
        wire = self.wires[number]
        if wire.up:
            other = wire.other(sender)
            while wire.queues[other]:
                other.replication.received(number, wire.queues[other].popleft())
            self.cut(wire)

    def deliver(self) -> bool:
        """One message of each direction of each wire; whether there was any."""
        moved = False
        for wire in list(self.wires.values()):
            for end in wire.ends:
                if wire.up and wire.queues[end]:
                    end.replication.received(wire.number, wire.queues[end].popleft())
                    moved = True
        return moved


class Peer(InlineNode):
    """An inline node with replication."""

    def __init__(
        self,
        net: Net,
        path: Path,
        name: str,
        *,
        site: str = "cloud",
        role: Role = "hub",
        founder: bool = False,
        seed: int,
        keyspaces: tuple[KeyspaceConfig, ...] = (),
        retain_bytes: int = 1 << 30,
    ) -> None:
        self.net: Final = net
        self.name: Final = name
        self.site: Final = site
        self.role: Final = role
        self.founder: Final = founder
        self.rolled_back = False
        self.reincarnates = True
        """Whether it goes on as another one when it is told that it was set back."""
        self.replaced: Final[dict[int, int]] = {}
        """By link that was given up the one, with the same node, that took its place."""
        self.clock_set_ms = 0
        """How far the wall clock was set, in sum."""
        super().__init__(
            path, keyspaces=keyspaces, memory_bytes=8 << 20, seed=seed, retain_bytes=retain_bytes, site=site, role=role
        )

    def open(self) -> None:
        super().open()
        identity = self.node.identity
        self.replication = Replication(
            engine=self.engine,
            source=LogSource(self.engine.tail, self._disk),
            cluster=CLUSTER,
            myself=Applicant(identity.node, identity.actor, self.name, self.site, self.role),
            founder=self.founder,
            remember=partial(keyspace_file.write, self.config.data_dir),
            transport=self,
            now_ms=lambda: self.now_ms,
            monotonic_ms=lambda: self.now_ms - self.clock_set_ms,
            kick=lambda: None,
            rolled_back=self._roll_back,
            acks=self.node.acks,
            store=self._store,
            folder=SpoolFolder(sync_path(self.config.data_dir)),
            entropy=self._dice.randbytes,
        )

    def kill(self) -> None:
        self.replication.close()
        super().kill()

    def send(self, link: int, message: bytes) -> None:
        self.net.send(self, link, message)

    def close(self, link: int, _reason: str, *, instead: int = 0) -> None:
        if instead:
            self.replaced[link] = instead
        self.net.close(self, link)

    def _roll_back(self) -> bool:
        self.rolled_back = True
        return self.reincarnates

    def cut_off(self) -> None:
        for wire in self.net.wires.values():
            if self in wire.ends:
                self.net.cut(wire)


def run(net: Net, peers: list[Peer], *, rounds: int = 60, step_ms: int = 100) -> None:
    """Let time pass: everything is delivered, written and synced."""
    for _ in range(rounds):
        for peer in peers:
            peer.now_ms += step_ms
            peer.tick()
            while peer.apply():
                pass
            peer.replication.tick()
        while True:
            moved = net.deliver()
            for peer in peers:
                peer.engine.kick()
                flushed = False
                while peer.flush():
                    flushed = True
                if flushed:
                    peer.replication.durable()
                    moved = True
            if not moved:
                break
