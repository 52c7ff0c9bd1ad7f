"""The least replication there can be, to try the simulated cluster with: who is connected is sent what it has not got, from the log.

It has the interface of the production core (`connected`, `received`, `disconnected`, `durable`, `tick`), and none of its cares: no
windows, no heartbeats, no row sync, no purging. It tells which finding is the engine's.
"""

from collections.abc import Callable
from typing import Final, Protocol

from edgekv.codec import pack, unpack
from edgekv.engine.engine import Engine
from edgekv.engine.tail import LogCursor
from edgekv.errors import PeerFault
from edgekv.ids import Actor
from edgekv.wal.disk import Disk
from edgekv.wal.reader import LogReader
from edgekv.wal.record import Changes

_HELLO: Final = 0
_CHANGES: Final = 1
_BATCH_BYTES: Final = 16 << 10


class Transport(Protocol):
    def send(self, link: int, message: bytes) -> None: ...

    def close(self, link: int, reason: str) -> None: ...


class _Peer:
    def __init__(self, vector: dict[tuple[int, Actor], int], cursor: LogCursor) -> None:
        self.vector: Final = vector
        self.cursor: Final = cursor


class StandIn:
    """Of one node, in one life."""

    def __init__(self, engine: Engine, transport: Transport, disk: Disk, first_lsn: Callable[[], int]) -> None:
        self._engine: Final = engine
        self._transport: Final = transport
        self._disk: Final = disk
        self._first_lsn: Final = first_lsn
        self._peers: Final[dict[int, _Peer]] = {}
        self._links: Final[set[int]] = set()

    def connected(self, link: int, *, outgoing: bool) -> None:
        self._links.add(link)
        vectors = [[k.id, actor, head.seq] for k in self._engine.keyspaces.all for actor, head in k.vector.items()]
        self._transport.send(link, pack([_HELLO, vectors]))

    def received(self, link: int, message: bytes) -> None:
        if link not in self._links:
            return
        code, items = unpack(message)
        if code == _HELLO:
            vector = {(keyspace, Actor(actor)): seq for keyspace, actor, seq in items}
            cursor = LogCursor(self._engine.tail, LogReader(self._disk), self._first_lsn())
            self._peers[link] = _Peer(vector, cursor)
            self._pump(link)
            return
        try:
            for item in items:
                run = Changes(item[0], Actor(item[1]), *item[2:])
                if run.actor != self._engine.actor:
                    self._engine.receive(run)
        except PeerFault as fault:
            self.disconnected(link)
            self._transport.close(link, str(fault))

    def disconnected(self, link: int) -> None:
        self._links.discard(link)
        peer = self._peers.pop(link, None)
        if peer is not None:
            peer.cursor.close()

    def durable(self) -> None:
        for link in list(self._peers):
            self._pump(link)

    def tick(self) -> None:
        self.durable()

    def _pump(self, link: int) -> None:
        peer = self._peers[link]
        while found := peer.cursor.read(self._engine.commit.durable_lsn, _BATCH_BYTES):
            runs = []
            for _, record in found:
                if isinstance(record, Changes):
                    last = record.first_seq + record.changes - 1
                    if last > peer.vector.get((record.keyspace, record.actor), 0):
                        peer.vector[record.keyspace, record.actor] = last
                        runs.append(list(record[:7]))
            if runs:
                self._transport.send(link, pack([_CHANGES, runs]))
