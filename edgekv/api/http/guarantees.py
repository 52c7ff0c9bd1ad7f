"""What a request is given beyond this node: it waits until the node covers its session, and its reply for other nodes.

    Edgekv-Session in ─▶ `covered` ─▶ the call, its reply durable ─▶ `acknowledged` ─▶ `token` ─▶ Edgekv-Acked, Edgekv-Session out

server.py asks for it around the call, so no call knows of it. Requests that ask for nothing do not come here.
"""

import asyncio
from typing import Final

from edgekv.api.http.host import Host
from edgekv.api.http.promises import SESSION, Asked
from edgekv.errors import SessionBehind
from edgekv.ids import KeyspaceId
from edgekv.node.token import token_of

_ACKED: Final = "Edgekv-Acked"


class Guarantees:
    """Of one server."""

    def __init__(self, host: Host) -> None:
        self._host: Final = host

    async def covered(self, asked: Asked) -> None:
        """Return when the node covers the token; SessionBehind when it does not in time."""
        if not asked.session:
            return
        host, future = self._host, asyncio.get_running_loop().create_future()

        def settle(error: SessionBehind | None) -> None:
            if not future.done():
                future.set_result(error)

        forget = host.sessions.wait(asked.session, host.monotonic_ms() + asked.session_timeout_ms, settle)
        try:
            error = await future
        finally:
            forget()
        if error is not None:
            raise error

    async def acknowledged(self, asked: Asked, key: bytes) -> bytes:
        """The header that says how far the write at a key (empty: at any) has got; at the level that was asked for, or in time.

        At its timeout the write is durable here and on its way: neither an error nor a loss.
        """
        if asked.level == "local":
            return _header(_ACKED, "local")
        host, future = self._host, asyncio.get_running_loop().create_future()

        def settle(met: bool) -> None:
            if not future.done():
                future.set_result(met)

        positions = host.sessions.positions(self._keyspaces(key))
        if positions:
            deadline_ms = host.monotonic_ms() + asked.ack_timeout_ms
            wait = host.acks.wait(positions, host.acks.want(asked.level), deadline_ms, settle)
            try:
                met = await future
            finally:
                host.acks.cancel(wait)
        else:
            met = True
        return _header(_ACKED, asked.level if met else "local")

    def token(self, asked: Asked, key: bytes) -> bytes:
        """The header with what the session has seen with this reply; nothing without a session."""
        if asked.session is None:
            return b""
        keyspaces = set(self._keyspaces(key))
        if asked.session:
            entries = token_of(asked.session).entries
            keyspaces.update(self._host.sessions.all_keyspaces if entries is None else entries)
        return _header(SESSION, self._host.sessions.token(keyspaces))

    def _keyspaces(self, key: bytes) -> frozenset[KeyspaceId]:
        if not key:
            return self._host.sessions.all_keyspaces
        return frozenset([self._host.operations.engine.keyspaces.of(key).id])


def _header(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode()
