"""Counting calls: by verb, keyspace and result."""

from typing import Final

from edgekv.api.http.host import Host
from edgekv.metrics import NO_KEYSPACE


class Tally:
    """What one server adds to the node's metrics."""

    def __init__(self, host: Host) -> None:
        self._metrics: Final = host.metrics
        self._keyspaces: Final = host.operations.engine.keyspaces

    def count(self, op: str, key: bytes, result: str, nanoseconds: int | None) -> None:
        """One call. Without a key (scan, batch) it has no one keyspace. ``nanoseconds`` None: it failed."""
        if op:
            keyspace = self._keyspaces.of(key).name if key else NO_KEYSPACE
            self._metrics.ops(op, keyspace, 1, result)
            if nanoseconds is not None:
                self._metrics.op_seconds[op].observe(nanoseconds)
