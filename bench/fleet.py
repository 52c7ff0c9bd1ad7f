"""200 edges on one hub, in this process, on a memory file system, in virtual time: whether they converge, and what an idle one costs.

The production node (engine, store, log, replication) without its shell: no sockets, threads or event loop; small segments. A round is
100 ms: every node ticks, then messages are carried until there are none. Bytes are those of messages and frame headers, before
compression (single messages are mostly too small for it). CPU is that of edge and hub together, per edge. Memory is what the process
has per edge: what an edge has beside its interpreter and libraries.

Expected: a hub that tells each of 200 edges what 199 others wrote sends 200 times as much as it gets.
"""

import argparse
import gc
import os
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import processes
from bench.fleet_node import FleetNode
from bench.machine import MEMORY_FILE_SYSTEMS, mount_of
from bench.results import Table, save
from bench.run import argument_parser, measured_run, step

EDGES: Final = 200
QUICK_EDGES: Final = 8
KEYS: Final = 20
"""That each edge writes while it is cut off, one of them the same for all."""
IDLE_S: Final = 60
ROUND_MS: Final = 100
CONVERGE_ROUNDS_MAX: Final = 600
SETTLE_ROUNDS: Final = 150
"""Until what follows from the last changes (SEEN, STABLE) is said."""
FRAME_BYTES: Final = 9
"""Length, checksum and flag before each message."""
_MEMORY_DIRECTORY: Final = Path("/dev/shm")


class Fleet:
    """One hub and its edges, and the wires between them."""

    def __init__(self, directory: Path, edges: int) -> None:
        self.bytes = 0
        self.messages = 0
        self._wires: Final[dict[int, tuple[FleetNode, FleetNode]]] = {}
        self._queue: Final[deque[tuple[FleetNode, int, bytes]]] = deque()
        """(to whom, on which wire, what)."""
        self.hub: Final = FleetNode(directory / "hub", "hub", self, dice=random.Random(0))
        self.edges: Final = [
            FleetNode(
                directory / f"edge-{number}", f"edge-{number}", self, dice=random.Random(number + 1), is_edge=True
            )
            for number in range(edges)
        ]

    @property
    def nodes(self) -> list[FleetNode]:
        return [self.hub, *self.edges]

    def connect(self) -> None:
        """All edges, at once."""
        for number, edge in enumerate(self.edges):
            self._wires[number] = edge, self.hub
            edge.replication.connected(number, outgoing=True)
            self.hub.replication.connected(number, outgoing=False)

    def cut(self) -> None:
        """All edges, at once."""
        self._queue.clear()
        for number, ends in self._wires.items():
            for end in ends:
                end.replication.disconnected(number)
        self._wires.clear()

    def carry(self, sender: FleetNode, wire: int, message: bytes) -> None:
        if wire in self._wires:
            edge, hub = self._wires[wire]
            self.messages += 1
            self.bytes += len(message) + FRAME_BYTES
            self._queue.append((hub if sender is edge else edge, wire, message))

    def closed(self, sender: FleetNode, wire: int, reason: str) -> None:
        raise RuntimeError(f"{sender.name} closed wire {wire}: {reason}")

    def round(self) -> None:
        """100 ms pass."""
        for node in self.nodes:
            node.tick(ROUND_MS)
        moved = True
        while moved:
            while self._queue:
                node, wire, message = self._queue.popleft()
                node.replication.received(wire, message)
            moved = sum(node.flush() for node in self.nodes) > 0 or bool(self._queue)

    def is_even(self) -> bool:
        """Whether all have the same changes."""
        vectors = self.hub.vectors()
        return all(edge.vectors() == vectors for edge in self.edges)

    def close(self) -> None:
        for node in self.nodes:
            node.end()


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds are the process's own unless they say otherwise."""

    edges: int
    changes: int
    admitted_s: float
    converge_s: float
    converge_virtual_s: float
    converge_bytes: int
    idle_s: int
    idle_bytes_per_s: float
    idle_messages_per_s: float
    idle_cpu_percent: float
    memory_per_edge_bytes: int


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    edges = arguments.edges or (QUICK_EDGES if arguments.quick else EDGES)
    with measured_run(arguments) as run, TemporaryDirectory(dir=_memory_directory(run.directory)) as directory:
        found = _measure(Path(directory), edges, 5 if arguments.quick else IDLE_S)
        save(
            "fleet",
            quick=run.quick,
            machine_description=run.machine,
            settings={"edges": edges, "keys": KEYS, "file_system": mount_of(Path(directory))[0]},
            measurements=asdict(found),
            tables=[_table(found)],
        )


def _measure(directory: Path, edges: int, idle_s: int) -> Found:
    before = _memory_bytes()
    fleet = Fleet(directory, edges)
    started = time.perf_counter()
    fleet.connect()
    _until_even(fleet)
    admitted = time.perf_counter()
    step(f"{edges} edges are members after {admitted - started:.1f} s")
    fleet.cut()
    for edge in fleet.edges:
        for number in range(KEYS):
            key = b"shared" if number == 0 else f"{edge.name}/{number}".encode()
            edge.put(key, f"{edge.name} wrote this, its {number}th".encode())
    began, bytes_before = time.perf_counter(), fleet.bytes
    fleet.connect()
    rounds = _until_even(fleet)
    converged, converge_bytes = time.perf_counter(), fleet.bytes - bytes_before
    _check(fleet)
    step(f"{edges * KEYS:,} changes are everywhere after {converged - began:.1f} s")
    for _ in range(SETTLE_ROUNDS):
        fleet.round()
    bytes_before, messages_before = fleet.bytes, fleet.messages
    cpu_before = time.process_time()
    for _ in range(idle_s * 1000 // ROUND_MS):
        fleet.round()
    cpu = time.process_time() - cpu_before
    memory = _memory_bytes() - before
    found = Found(
        edges=edges,
        changes=edges * KEYS,
        admitted_s=admitted - started,
        converge_s=converged - began,
        converge_virtual_s=rounds * ROUND_MS / 1000,
        converge_bytes=converge_bytes,
        idle_s=idle_s,
        idle_bytes_per_s=(fleet.bytes - bytes_before) / idle_s / edges,
        idle_messages_per_s=(fleet.messages - messages_before) / idle_s / edges,
        idle_cpu_percent=cpu / idle_s / edges * 100,
        memory_per_edge_bytes=memory // (edges + 1),
    )
    fleet.close()
    return found


def _until_even(fleet: Fleet) -> int:
    """How many rounds it took."""
    for number in range(CONVERGE_ROUNDS_MAX):
        fleet.round()
        if fleet.is_even():
            return number + 1
    sys.exit(f"the fleet was not even after {CONVERGE_ROUNDS_MAX} rounds")


def _check(fleet: Fleet) -> None:
    """Every node shows every key."""
    keys = [f"{edge.name}/{number}".encode() for edge in fleet.edges for number in range(1, KEYS)]
    wanted = {key: fleet.hub.get(key) for key in [b"shared", *keys]}
    assert all(wanted.values())
    for edge in fleet.edges:
        if any(edge.get(key) != value for key, value in wanted.items()):
            sys.exit(f"{edge.name} has the hub's changes and shows something else")


def _memory_directory(otherwise: Path) -> Path:
    is_memory = _MEMORY_DIRECTORY.is_dir() and mount_of(_MEMORY_DIRECTORY)[0] in MEMORY_FILE_SYSTEMS
    return _MEMORY_DIRECTORY if is_memory else otherwise


def _memory_bytes() -> int:
    gc.collect()
    return processes.anonymous_bytes([os.getpid()])


def _table(found: Found) -> Table:
    rows = (
        ("all admitted, s", f"{found.admitted_s:.1f}"),
        (f"{found.changes:,} changes everywhere, s", f"{found.converge_s:.1f}"),
        ("the same in virtual time, s", f"{found.converge_virtual_s:.1f}"),
        ("bytes of that, per edge", f"{found.converge_bytes / found.edges:,.0f}"),
        ("an idle edge: bytes/s, both directions", f"{found.idle_bytes_per_s:.0f}"),
        ("an idle edge: messages/s, both directions", f"{found.idle_messages_per_s:.1f}"),
        ("an idle edge: CPU of edge and hub, % of a core", f"{found.idle_cpu_percent:.3f}"),
        ("an edge: anonymous memory beside interpreter and libraries, MB", f"{found.memory_per_edge_bytes / 1e6:.2f}"),
    )
    note = (
        f"Each edge writes {KEYS} keys while it is cut off, one of them the same for all; then every key is read at every node. Idle: "
        f"{found.idle_s} virtual seconds. Without shell, sockets and compression; on tmpfs."
    )
    return Table(f"{found.edges} edges on one hub in one process", ("", "measured"), rows, (note,))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=900)
    parser.add_argument("--edges", type=int, default=0, help=f"0: {EDGES}, or {QUICK_EDGES} with --quick")
    return parser


if __name__ == "__main__":
    main()
