"""``/v1/admin/...``: what the command line asks of a node about itself. Only a digest takes its time."""

from collections.abc import Callable, Iterable
from typing import Final, get_args

from aiohttp import web

from edgekv.api.http.content import encoded, wanted_type
from edgekv.api.http.door import Door
from edgekv.api.http.host import Replication
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import bytes_parameter, integer_parameter, parameters
from edgekv.config import Conflict
from edgekv.engine.keyspaces import DEFAULT_NAME
from edgekv.errors import Denied, InvalidRequest
from edgekv.node.operations import EXPIRY_MS_MAX

NOTE: Final = "Edgekv-Note"
"""A header with a sentence for whoever asked."""


class AdminCalls:
    """How the node is set up."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door
        self._operations: Final = door.operations

    async def keyspaces(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """The keyspaces as JSON or msgpack."""
        assert not key
        return _shown(request, query, lambda: {"keyspaces": self._operations.keyspaces()})

    async def create_keyspace(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a call like the others
        """A new keyspace of the cluster."""
        assert not key
        given = parameters(query, ("keyspace", "prefix", "sites", "conflict"))
        conflict = _text(given, "conflict") or "lww"
        if conflict not in get_args(Conflict):
            raise InvalidRequest(f"conflict={conflict!r:.40} is not usable. Write lww or siblings.")
        sites = tuple(filter(None, _text(given, "sites").split(",")))
        prefix = bytes_parameter(given, "prefix")
        self._replication().keyspaces.create(_text(given, "keyspace"), prefix, sites, siblings=conflict == "siblings")
        return self._noted(sites)

    async def add_site(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a call like the others
        """Have a site hold a keyspace; 204 also when it does."""
        assert not key
        given = parameters(query, ("keyspace", "site"))
        site = _text(given, "site")
        self._replication().keyspaces.add_site(_text(given, "keyspace"), site)
        return self._noted((site,))

    def _noted(self, sites: Iterable[str]) -> Reply:
        """That it was done; with a note if a site may be misspelled, or is one whose first node is still to come."""
        unknown = self._replication().keyspaces.unknown(sites)
        if not unknown:
            return Reply(204, b"", b"")
        note = f"no member stands at {', '.join(unknown)} yet: nodes that join from there will hold it. If misspelled, take it off"
        return Reply(204, b"%b: %b\r\n" % (NOTE.encode(), note.encode()), b"")

    async def remove_site(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a call like the others
        """Take a site off a keyspace; 204 also when it was."""
        assert not key
        given = parameters(query, ("keyspace", "site"))
        self._replication().keyspaces.remove_site(_text(given, "keyspace"), _text(given, "site"))
        return Reply(204, b"", b"")

    async def conflicts(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Values that were lost to concurrent writes: how many, and the newest of them."""
        assert not key
        ledger = self._operations.engine.conflicts
        return _shown(request, query, lambda: {"totals": ledger.totals, "conflicts": ledger.newest()})

    async def vectors(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """What readers here see of each keyspace: the last change of each actor. And the TTL time."""
        assert not key
        operations = self._operations
        return _shown(request, query, lambda: {"ttl_ms": operations.now_ms(), "vectors": operations.vectors()})

    async def remove_member(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a call like the others
        """Take a member out of the cluster; 204 also when it was out."""
        assert not key
        name = _text(parameters(query, ("member",)), "member")
        self._replication().membership.remove(name)
        return Reply(204, b"", b"")

    async def readmit_member(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a call like the others
        """Let a member come back that was removed; 204 also when it may already."""
        assert not key
        name = bytes_parameter(parameters(query, ("member",)), "member").decode(errors="backslashreplace")
        self._replication().membership.readmit(name)
        return Reply(204, b"", b"")

    async def lead(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:  # noqa: ARG002 - a call like the others
        """Have a hub that was restored lead again, whoever has not come back; 204 also when it leads."""
        assert not key
        if query:
            parameters(query, ())
        self._replication().membership.lead()
        return Reply(204, b"", b"")

    async def repair(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Have rows mended by those of another node; the answer names the repair in `replication.repairs` of the status."""
        assert not key
        given = parameters(query, ("keyspace", "from", "prefixes", "union"))
        name = bytes_parameter(given, "keyspace").decode(errors="backslashreplace") or DEFAULT_NAME
        source = bytes_parameter(given, "from").decode(errors="backslashreplace")
        try:
            prefixes = [bytes.fromhex(each) for each in bytes_parameter(given, "prefixes").decode().split(",")]
        except ValueError:
            raise InvalidRequest("`prefixes` are beginnings of keys in hexadecimal, separated by commas.") from None
        union = bool(integer_parameter(given, "union", low=0, high=1))
        media_type = wanted_type(request)
        wall_ms = self._replication().repairs.begin(name, prefixes, source, union=union)
        return _reply({"wall_ms": wall_ms}, media_type)

    def _replication(self) -> Replication:
        replication = self._door.host.replication
        if replication is None:
            raise Denied("this node does not replicate, so it has no members.")
        return replication

    async def digest(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """Of what readers are shown of one keyspace; the loop is given back meanwhile."""
        assert not key
        given = parameters(query, ("keyspace", "ttl_ms", "prefix"))
        name = _text(given, "keyspace") or DEFAULT_NAME
        ttl_ms = integer_parameter(given, "ttl_ms", low=0, high=EXPIRY_MS_MAX)
        media_type = wanted_type(request)
        digest = self._operations.digest(name, ttl_ms, bytes_parameter(given, "prefix"))
        await self._door.read_in_slices(lambda _: digest.step())
        return _reply(digest.figures(), media_type)


def _text(given: dict[str, str], name: str) -> str:
    return bytes_parameter(given, name).decode(errors="backslashreplace")


def _shown(request: web.BaseRequest, query: str, figures: Callable[[], dict[str, object]]) -> Reply:
    if query:
        parameters(query, ())
    media_type = wanted_type(request)
    return _reply(figures(), media_type)


def _reply(figures: dict[str, object], media_type: str) -> Reply:
    body = encoded(figures, media_type)
    return Reply(200, b"Content-Type: %s\r\nCache-Control: no-store\r\n" % media_type.encode(), body)
