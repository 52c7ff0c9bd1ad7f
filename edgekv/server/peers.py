"""What a running node has to do with other nodes: replication, its connections, its listener, and the dialing of its upstreams."""

import asyncio
import logging
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edgekv.config import Config
from edgekv.limits import PEER_CONNECTIONS_MAX
from edgekv.net.dialer import Dialer, lines
from edgekv.net.links import Links, Transport
from edgekv.net.listener import PeerListener
from edgekv.node import keyspace_file
from edgekv.node.node import Node
from edgekv.replication.log_source import LogSource
from edgekv.replication.messages import Applicant
from edgekv.replication.replication import Replication
from edgekv.store.applied import sync_path
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.spool_transfer import SpoolFolder
from edgekv.wal.disk import Disk

_log: Final = logging.getLogger("edgekv.replication")


class Peers:
    """Of one node. A `Listener` of the shell; without `listen` other nodes cannot come, and this one still dials."""

    def __init__(
        self,
        config: Config,
        node: Node,
        disk: Disk,
        store: LmdbStore,
        *,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        kick: Callable[[], None],
        rolled_back: Callable[[], bool],
        connections_max: int = PEER_CONNECTIONS_MAX,
    ) -> None:
        """``kick`` and ``rolled_back``: see `Replication`."""

        def replication(transport: Transport) -> Replication:
            who = node.identity
            return Replication(
                engine=node.engine,
                source=LogSource(node.engine.tail, disk),
                cluster=who.cluster,
                myself=Applicant(who.node, who.actor, who.name, who.site, config.role),
                founder=not config.upstreams,
                remember=partial(keyspace_file.write, Path(config.data_dir)),
                transport=transport,
                now_ms=now_ms,
                monotonic_ms=monotonic_ms,
                kick=kick,
                rolled_back=rolled_back,
                acks=node.acks,
                store=store,
                folder=SpoolFolder(sync_path(Path(config.data_dir)), _in_thread),
                entropy=os.urandom,
            )

        self._links: Final = Links(replication, incoming_max=connections_max)
        self.replication: Final = self._links.host
        self.replication.repairs.told = _log.warning
        node.sessions.announced = lambda: self.replication.members.announced
        self._listener: Final = PeerListener(self._links)
        upstreams = [upstream.address for upstream in config.upstreams]
        self._dialer: Final = Dialer(self._links, lines(upstreams, config.role), chance=random.random)

    async def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept connections of other nodes; where. Raises OSError."""
        return await self._listener.listen(address, port)

    def dial(self) -> None:
        """Connect to the upstreams, and stay connected until `close`."""
        self._dialer.start()

    async def close(self) -> None:
        """No more links. Idempotent."""
        await self._dialer.close()
        await self._listener.close()
        await self._links.stop()
        self.replication.close()


def _in_thread(work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
    """Work that waits for the disk, beside the event loop."""

    def ended(future: asyncio.Future[None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None and not isinstance(error, OSError):
            raise error
        done(error)

    asyncio.get_running_loop().run_in_executor(None, work).add_done_callback(ended)
