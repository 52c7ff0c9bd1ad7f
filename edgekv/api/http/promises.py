"""Headers by which a client asks for a guarantee. One that this release cannot give is refused, never ignored.

A conditional write on a keyspace that merges would be a check against this node alone; an ignored Idempotency-Key would count
an increment twice at the retry it was sent for.
"""

from typing import Final

from aiohttp import web

from edgekv.errors import Denied, EdgeKVError, InvalidRequest

_CONDITIONS: Final = ("If-Match", "If-None-Match", "If-Unmodified-Since")
_LEVELS: Final = ("Edgekv-Ack", "Edgekv-Consistency")


def check_promises(request: web.BaseRequest, *, writes: bool) -> None:
    """Raise what refuses the request, if it asks for more than this node promises."""
    headers = request.headers
    for name in _LEVELS:
        if name in headers and headers[name].strip().lower() != "local":
            raise InvalidRequest(f"{name}: {headers[name][:40]} is not offered by this release. Use local.")
    if "Edgekv-Session" in headers:
        raise InvalidRequest("Edgekv-Session is not offered by this release: a session is one node. Leave it out.")
    if writes:
        for name in _CONDITIONS:
            if name in headers:
                raise _conditional(name)
        if "Idempotency-Key" in headers:
            raise InvalidRequest(
                "Idempotency-Key is not offered by this release, so a retry may apply twice. Leave it out."
            )


def _conditional(name: str) -> EdgeKVError:
    return Denied(
        f"{name} on a write would be judged by this node alone, while another one may write as well. "
        "Leave it out; keyspaces that can promise it come with a later release."
    )
