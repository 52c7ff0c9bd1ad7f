"""What a node says about itself: INFO, CONFIG GET, TIME. (DBSIZE and FLUSHDB walk the keys: keys.py.)

A field that this node cannot know is left out; none is made up to please a dashboard. CONFIG GET knows the few settings that tools ask
for; CONFIG SET and its like do not exist, because they are what a stranger's script abuses first.
"""

# ruff: noqa: ARG001 - every command takes the same parameters

import os
import platform
import time
from collections.abc import Callable
from typing import Final

from edgekv.api.resp.globs import compiled
from edgekv.api.resp.replies import bulk, bulks
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command, container
from edgekv.errors import TooLarge
from edgekv.limits import KEY_BYTES_MAX

REDIS_VERSION: Final = "7.0.15"
"""Whose commands and error texts are followed. Clients read it to decide what they may send."""

_MICROSECONDS: Final = 1_000_000

Fields = dict[str, object]


@command("time", arity=1, flags="fast", group="server", since="2.6.0", summary="The server's time")
def time_(session: Session, arguments: Arguments) -> Reply:
    """TIME: seconds and microseconds of this node's wall clock."""
    seconds, microseconds = divmod(time.time_ns() // 1000, _MICROSECONDS)
    return bulks([b"%d" % seconds, b"%d" % microseconds])


@command("info", arity=-1, group="server", since="1.0.0", summary="Information and statistics about the server")
def info(session: Session, arguments: Arguments) -> Reply:
    """INFO [section ...]; default, all and everything name every section."""
    wanted = {word.lower() for word in arguments[1:]} or {b"default"}
    everything = not wanted.isdisjoint({b"default", b"all", b"everything"})
    return session.dialect.text(
        "\r\n".join(
            _section(name, fields(session))
            for name, fields in _SECTIONS.items()
            if everything or name.lower().encode() in wanted
        )
    )


def _section(name: str, fields: Fields) -> str:
    return f"# {name}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in fields.items())


def _server(session: Session) -> Fields:
    host = session.shared.host
    uptime_s = max(0, session.operations.now_ms() - host.started_ms) // 1000
    return {
        "redis_version": REDIS_VERSION,
        "edgekv_version": host.version,
        "redis_mode": "standalone",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "process_id": os.getpid(),
        "tcp_port": session.shared.port,
        "server_time_usec": time.time_ns() // 1000,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // 86_400,
    }


def _clients(session: Session) -> Fields:
    shared = session.shared
    return {
        "connected_clients": len(shared.sessions),
        "maxclients": shared.connections_max,
        "clients_input_bytes": shared.input_bytes,
    }


def _stats(session: Session) -> Fields:
    shared = session.shared
    return {
        "total_connections_received": shared.connections_total,
        "rejected_connections": shared.connections_refused,
        "total_commands_processed": shared.commands_total,
        "protocol_errors": shared.protocol_errors,
        "scan_cursors": len(shared.cursors),
    }


def _replication(session: Session) -> Fields:
    return {"role": "master", "connected_slaves": 0}


def _edgekv(session: Session) -> Fields:
    host = session.shared.host
    fields: Fields = {"node": host.node_name, "site": host.site_name}
    for key, value in session.operations.status().items():
        if isinstance(value, int | str):
            fields[key] = int(value) if isinstance(value, bool) else value
    return fields


_SECTIONS: Final[dict[str, Callable[[Session], Fields]]] = {
    "Server": _server,
    "Clients": _clients,
    "Stats": _stats,
    "Replication": _replication,
    "EdgeKV": _edgekv,
}

container("config", group="server", since="2.0.0", summary="A container for server configuration commands")


@command(
    "config|get", arity=-3, group="server", since="2.0.0", summary="Get the values of the settings that tools ask for"
)
def config_get(session: Session, arguments: Arguments) -> Reply:
    """CONFIG GET pattern [pattern ...]."""
    patterns = arguments[2:]
    if max(map(len, patterns)) > KEY_BYTES_MAX:
        raise TooLarge(f"a pattern has more than {KEY_BYTES_MAX} bytes.")
    fits = [compiled(pattern.lower()).fullmatch for pattern in patterns]
    settings = _settings(session)
    shown = [(name, value) for name, value in settings.items() if any(fit(name) for fit in fits)]
    return session.dialect.map([(bulk(name), bulk(value)) for name, value in shown])


def _settings(session: Session) -> dict[bytes, bytes]:
    shared = session.shared
    synced = shared.host.config.durability == "fsync"
    return {
        b"save": b"",
        b"appendonly": b"yes",
        b"appendfsync": b"always" if synced else b"everysec",
        b"databases": b"1",
        b"dir": bytes(shared.host.config.data_dir),
        b"maxclients": b"%d" % shared.connections_max,
        b"maxmemory": b"0",
        b"maxmemory-policy": b"noeviction",
        b"port": b"%d" % shared.port,
        b"proto-max-bulk-len": b"%d" % session.operations.value_bytes_max,
        b"timeout": b"0",
    }
