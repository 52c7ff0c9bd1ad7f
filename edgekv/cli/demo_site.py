"""A site of the demo: what is written at its node, and what its node holds.

Each change carries an operation id: what was on its way when the node was killed is sent again, and done once.
"""

import secrets
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edgekv.cli.demo_weather import Holdings
from edgekv.cli.listing import scan_pages
from edgekv.cli.node_http import NodeHttp
from edgekv.cli.resp_client import Reply, RespConnection, command
from edgekv.config import Address
from edgekv.errors import OutcomeUnknown, Unavailable
from edgekv.limits import OPERATION_WINDOW

TIMEOUT_S: Final = 30.0
CHUNK_CHANGES: Final = OPERATION_WINDOW // 2
"""Sent again at most: a node remembers so many ids of a session, and twice as many."""
POLL_S: Final = 0.002
META_PREFIX: Final = b"_meta/"
"""What the cluster knows about itself."""

Operations = tuple[bytes, ...]
"""The arguments of one EDGEKV.BATCH."""


class Site:
    """One node, by its two listeners."""

    def __init__(self, name: str, node: str, http: Address, resp: Address) -> None:
        self.name = name
        self.node = node
        self.http = http
        self.resp = resp

    def ask(self, *arguments: bytes) -> Reply:
        """One command on a connection of its own."""
        with RespConnection(self.resp, TIMEOUT_S) as connection:
            return connection.call(*arguments)

    def write(
        self, changes: Sequence[Operations], acknowledged: Callable[[int], None], revive: Callable[[], None]
    ) -> None:
        """Write all, each once; ``acknowledged`` is told how many are durable. When the node is gone, ``revive`` brings it back."""
        session = self._session()
        done = 0
        while done < len(changes):
            chunk = [
                command(b"EDGEKV.OP", session, b"%d" % number, b"EDGEKV.BATCH", *changes[number - 1])
                for number in range(done + 1, min(done + CHUNK_CHANGES, len(changes)) + 1)
            ]
            before = done

            def count(replies: int, before: int = before) -> None:
                nonlocal done
                done = before + replies
                acknowledged(done)

            try:
                with RespConnection(self.resp, TIMEOUT_S) as connection:
                    connection.send_all(chunk, count)
            except (OutcomeUnknown, Unavailable):
                revive()

    def wait_value(self, key: bytes, value: bytes, deadline: float) -> None:
        """Until the node shows it; Unavailable when it does not by then, in seconds of `time.monotonic`."""
        with RespConnection(self.resp, TIMEOUT_S) as connection:
            while connection.call(b"GET", key) != value:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{self.name} has not got {key.decode()} in time; look at the log of {self.node}")
                time.sleep(POLL_S)

    def holdings(self) -> Holdings:
        """Everything that the node holds, meta aside."""
        found = Holdings()
        with NodeHttp(self.http, TIMEOUT_S) as client, RespConnection(self.resp, TIMEOUT_S) as connection:
            for entry in scan_pages(client, b""):
                if entry.key.startswith(META_PREFIX):
                    continue
                if entry.kind == "string":
                    found.strings[entry.key] = entry.value
                elif entry.kind == "set":
                    found.sets[entry.key] = set(_flat(connection.call(b"SMEMBERS", entry.key)))
                else:
                    flat = _flat(connection.call(b"HGETALL", entry.key))
                    found.maps[entry.key] = dict(zip(*[flat] * 2, strict=True))
        return found

    def _session(self) -> bytes:
        """A new session of operation ids: the stamp that tells the node how old it is, and chance."""
        information = self.ask(b"INFO", b"edgekv")
        assert isinstance(information, bytes)
        stamp = next(line for line in information.split(b"\r\n") if line.startswith(b"durable_lsn:"))
        return struct.pack(">Q", int(stamp.partition(b":")[2])) + secrets.token_bytes(8)


def _flat(reply: Reply) -> Iterator[bytes]:
    assert isinstance(reply, list)
    for each in reply:
        assert isinstance(each, bytes)
        yield each
