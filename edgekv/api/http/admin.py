"""``/v1/admin/...``: what the command line asks of a node about itself. None of it waits for anything."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from edgekv.api.http.content import encoded, wanted_type
from edgekv.api.http.host import Operations
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters


class AdminCalls:
    """How the node is set up."""

    def __init__(self, operations: Operations) -> None:
        self._operations: Final = operations

    async def keyspaces(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """The keyspaces as JSON or msgpack."""
        assert not key
        return _shown(request, query, lambda: {"keyspaces": self._operations.keyspaces()})

    async def conflicts(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Values that were lost to concurrent writes: how many, and the newest of them."""
        assert not key
        ledger = self._operations.engine.conflicts
        return _shown(request, query, lambda: {"totals": ledger.totals, "conflicts": ledger.newest()})


def _shown(request: web.BaseRequest, query: str, figures: Callable[[], dict[str, object]]) -> Reply:
    if query:
        parameters(query, ())
    media_type = wanted_type(request)
    body = encoded(figures(), media_type)
    return Reply(200, b"Content-Type: %s\r\nCache-Control: no-store\r\n" % media_type.encode(), body)
