"""Commands that an edge cannot honestly offer: each answers with the reason instead of a promise that it would break.

"Only if absent" and "only if unchanged" need one order of all writes to a key. On a CRDT keyspace every site writes by itself, so two
sites would both be told that they were first.
"""

# ruff: noqa: ARG001 - every command takes the same parameters

from typing import Final

from edgekv.api.resp.session import Arguments, Reply, Run, Session
from edgekv.api.resp.table import command
from edgekv.errors import InvalidRequest

_ABSENT: Final = (
    "another site may create the key at the same moment, so its promise cannot be kept. "
    "Use SET; keyspaces that can promise it come with a later release"
)
_UNCHANGED: Final = (
    "another site may change the key unseen, so its promise cannot be kept. "
    "Use INCR where it fits, or let one client write the key; keyspaces that can promise it come with a later release"
)


def _refusal(name: str, reason: str) -> Run:
    def refuse(session: Session, arguments: Arguments) -> Reply:
        raise InvalidRequest(f"{name.upper()} is refused on a CRDT keyspace: {reason}")

    return refuse


for _name, _arity, _reason in (("setnx", 3, _ABSENT), ("msetnx", -3, _ABSENT), ("watch", -2, _UNCHANGED)):
    _group = "transactions" if _name == "watch" else "string"
    command(_name, arity=_arity, flags="refused", group=_group, since="1.0.0", summary=f"Refused: {_reason}")(
        _refusal(_name, _reason)
    )
