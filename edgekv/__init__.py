"""EdgeKV: the replicated key-value store for the edge.

What users import is here, and loaded when it is first used: ``edgekv.connect`` (docs/CLIENT.md), ``edgekv.open`` (the node inside the
process), ``edgekv.sync``, ``edgekv.Codec``, ``edgekv.Values``, ``edgekv.WatchEvent``, and the errors. The parts of EdgeKV import
nothing from here but the version.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgekv import sync
    from edgekv.client.answers import Values
    from edgekv.client.asynchronous import Client, Session, connect
    from edgekv.client.commands import Codec
    from edgekv.client.watch import WatchEvent
    from edgekv.embedded import open  # noqa: A004 - as gzip.open
    from edgekv.errors import (
        Denied,
        DiskFull,
        EdgeKVError,
        InvalidRequest,
        NotANumber,
        OutcomeUnknown,
        Overloaded,
        ReadOnly,
        SessionBehind,
        TooLarge,
        Unavailable,
        WrongType,
    )

__version__: Final = "0.1.0"

_ERRORS: Final = (
    "Denied",
    "DiskFull",
    "EdgeKVError",
    "InvalidRequest",
    "NotANumber",
    "OutcomeUnknown",
    "Overloaded",
    "ReadOnly",
    "SessionBehind",
    "TooLarge",
    "Unavailable",
    "WrongType",
)
_HOMES: Final = {
    "Client": "edgekv.client.asynchronous",
    "Session": "edgekv.client.asynchronous",
    "connect": "edgekv.client.asynchronous",
    "Codec": "edgekv.client.commands",
    "Values": "edgekv.client.answers",
    "WatchEvent": "edgekv.client.watch",
    "open": "edgekv.embedded",
    **dict.fromkeys(_ERRORS, "edgekv.errors"),
}
__all__ = [
    "Client",
    "Codec",
    "Denied",
    "DiskFull",
    "EdgeKVError",
    "InvalidRequest",
    "NotANumber",
    "OutcomeUnknown",
    "Overloaded",
    "ReadOnly",
    "Session",
    "SessionBehind",
    "TooLarge",
    "Unavailable",
    "Values",
    "WatchEvent",
    "WrongType",
    "connect",
    "open",
    "sync",
]


def __getattr__(name: str) -> object:
    """Load on first use: ``import edgekv`` costs nothing."""
    if name == "sync":
        return import_module("edgekv.sync")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgekv' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
