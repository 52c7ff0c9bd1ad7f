"""What a running node says of itself, as the benchmarks need it: /v1/status, /metrics, its applier process."""

import time
from typing import Final

from bench import processes, servers
from bench.servers import Server, ServerError
from edgekv.limits import SPARE_SEGMENTS

APPLIED_TIMEOUT_S: Final = 180.0
SETTLED_TIMEOUT_S: Final = 60.0

_APPLIER: Final = "edgekv.store.applier"


def figure(node: Server, name: str) -> int:
    """An integer of /v1/status."""
    value = servers.get_json(node.http_address(), "/v1/status")[name]
    assert isinstance(value, int)
    return value


def unapplied_bytes(node: Server) -> int:
    """Bytes of durable log rows that are not in LMDB yet."""
    return figure(node, "unapplied_bytes")


def metric(node: Server, name: str) -> float:
    """The value of a metric without labels."""
    for line in servers.get_text(node.http_address(), "/metrics").splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise ServerError(f"the node has no metric {name}")


def wait_settled(node: Server) -> None:
    """Until a node on a new directory has zeroed its spare log segments, which it does in the background at first."""
    deadline = time.monotonic() + SETTLED_TIMEOUT_S
    while (spares := figure(node, "spare_segments")) < SPARE_SEGMENTS:
        if time.monotonic() > deadline:
            raise ServerError(f"the node had {spares} spare segments after {SETTLED_TIMEOUT_S} s")
        time.sleep(0.1)


def wait_applied(node: Server) -> None:
    """Until the applier has nothing left to do."""
    deadline = time.monotonic() + APPLIED_TIMEOUT_S
    while unapplied_bytes(node):
        if time.monotonic() > deadline:
            raise ServerError(f"{unapplied_bytes(node):,} bytes were still unapplied after {APPLIED_TIMEOUT_S} s")
        time.sleep(0.2)


def applier_pid(node: Server) -> int:
    """The node's applier process."""
    for pid in processes.family(node.pid)[1:]:
        if _APPLIER in processes.command_of(pid):
            return pid
    raise ServerError("the node has no applier process")
