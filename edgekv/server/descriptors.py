"""How many connections the listeners may have: as many as the process may open files for."""

import logging
import resource
from typing import Final, NamedTuple

from edgekv.limits import CONNECTIONS_MAX, DESCRIPTORS_OWN, PEER_CONNECTIONS_MAX

_log: Final = logging.getLogger("edgekv.server")

FEW_CONNECTIONS: Final = 1_000
"""A limit of open files that leaves fewer per listener is worth a warning."""


class Allowed(NamedTuple):
    """How many connections there may be."""

    clients: int  # at each of the two listeners for clients
    peers: int  # at the listener for other nodes


def allowed_connections() -> Allowed:
    """CONNECTIONS_MAX and PEER_CONNECTIONS_MAX, if the process may open so many files.

    The soft limit is raised as far as the hard one lets it.
    """
    wanted = 2 * CONNECTIONS_MAX + PEER_CONNECTIONS_MAX + DESCRIPTORS_OWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Allowed(CONNECTIONS_MAX, PEER_CONNECTIONS_MAX)
    peers = min(PEER_CONNECTIONS_MAX, max((soft - DESCRIPTORS_OWN) // 8, 1))
    clients = max((soft - DESCRIPTORS_OWN - peers) // 2, 1)
    if clients < FEW_CONNECTIONS:
        _log.warning(
            "the limit of open files, %d, leaves %d connections per listener: raise it (ulimit -n)", soft, clients
        )
    return Allowed(clients, peers)
