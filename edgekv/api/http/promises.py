"""Headers by which a client asks for a guarantee. One that this release cannot give is refused, never ignored.

What can be given beyond this node, acknowledgements of other nodes and sessions, is read here (`asked_of`) and given in guarantees.py.
A conditional write on a keyspace that merges would be a check against this node alone; an ignored Idempotency-Key would count
an increment twice at the retry it was sent for.
"""

from typing import Final, NamedTuple

from aiohttp import web

from edgekv.errors import Denied, EdgeKVError, InvalidRequest
from edgekv.limits import ACK_TIMEOUT_MS, ACK_TIMEOUT_MS_MAX, SESSION_WAIT_MS
from edgekv.node.token import token_of
from edgekv.replication.acks import LEVELS, Level

ACK: Final = "Edgekv-Ack"
ACK_TIMEOUT: Final = "Edgekv-Ack-Timeout-Ms"
SESSION: Final = "Edgekv-Session"
SESSION_TIMEOUT: Final = "Edgekv-Session-Timeout-Ms"
CONSISTENCY: Final = "Edgekv-Consistency"
_ASKING: Final = (ACK, ACK_TIMEOUT, SESSION, SESSION_TIMEOUT, CONSISTENCY)
_CONDITIONS: Final = ("If-Match", "If-None-Match", "If-Unmodified-Since")
_DIGITS_MAX: Final = 9


class Asked(NamedTuple):
    """What a request asks for beyond this node."""

    level: Level
    ack_timeout_ms: int
    session: str | None
    """The token of a session to go on with; empty: a new one; None: no session."""
    session_timeout_ms: int


def asked_of(request: web.BaseRequest) -> Asked | None:
    """What a request asks for; None: nothing. InvalidRequest: what is no level, time, consistency or token."""
    headers = request.headers
    if not any(name in headers for name in _ASKING):
        return None
    level = _word(headers.get(ACK, "local"))
    if level not in LEVELS:
        raise InvalidRequest(f"{ACK}: {level[:40]} is no level of acknowledgement. Use local, site or hub.")
    consistency = _word(headers.get(CONSISTENCY, "local"))
    if consistency not in ("local", "session"):
        raise InvalidRequest(f"{CONSISTENCY}: {consistency[:40]} is not offered by this release. Use local or session.")
    token = headers.get(SESSION)
    if token is not None:
        token_of(token.strip())
    return Asked(
        level=next(known for known in LEVELS if known == level),
        ack_timeout_ms=_milliseconds(request, ACK_TIMEOUT, ACK_TIMEOUT_MS),
        session=token.strip() if token is not None else "" if consistency == "session" else None,
        session_timeout_ms=_milliseconds(request, SESSION_TIMEOUT, SESSION_WAIT_MS),
    )


def check_promises(request: web.BaseRequest, *, writes: bool) -> None:
    """Raise what refuses the request, if it asks for more than this node promises."""
    headers = request.headers
    if writes:
        for name in _CONDITIONS:
            if name in headers:
                raise _conditional(name)
        if "Idempotency-Key" in headers:
            raise InvalidRequest(
                "Idempotency-Key is not offered by this release, so a retry may apply twice. Leave it out."
            )


def _word(value: str) -> str:
    return value.strip().lower()


def _milliseconds(request: web.BaseRequest, name: str, default: int) -> int:
    value = request.headers.get(name)
    if value is None:
        return default
    digits = value.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX and int(digits) <= ACK_TIMEOUT_MS_MAX):
        raise InvalidRequest(f"{name} is not a whole number of milliseconds from 0 to {ACK_TIMEOUT_MS_MAX}.")
    return int(digits)


def _conditional(name: str) -> EdgeKVError:
    return Denied(
        f"{name} on a write would be judged by this node alone, while another one may write as well. "
        "Leave it out; keyspaces that can promise it come with a later release."
    )
