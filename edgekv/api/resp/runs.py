"""Runs of small writes: INCR, SADD of one member and HSET of one field, as pipelines and busy clients send them.

A run is taken apart into columns and becomes one call of a verb; each command of it is a change of its own and has its own answer. A
run that is not that plain is None here, and protocol.py carries it out command by command.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Final

from edgekv.api.resp.host import Operations
from edgekv.api.resp.replies import fault
from edgekv.api.resp.session import Arguments
from edgekv.errors import EdgeKVError
from edgekv.limits import KEY_BYTES_MAX

Results = list[int | EdgeKVError]
WriteRun = Callable[[Operations, list[Arguments]], Results | None]

_BYTES: Final = {bytes}


def _columns(run: list[Arguments], width: int) -> list[tuple[bytes, ...]] | None:
    """The arguments after the name, if all commands have so many, all are strings, and the keys are good."""
    if set(map(len, run)) != {width}:
        return None
    _, *columns = zip(*run, strict=True)
    keys = columns[0]
    if (
        any(set(map(type, column)) != _BYTES for column in columns)
        or b"" in keys
        or max(map(len, keys)) > KEY_BYTES_MAX
    ):
        return None
    return columns


def _incr(operations: Operations, run: list[Arguments]) -> Results | None:
    columns = _columns(run, 2)
    return None if columns is None else operations.increment_run(columns[0], list(repeat(1, len(run))))


def _sadd(operations: Operations, run: list[Arguments]) -> Results | None:
    columns = _columns(run, 3)
    return None if columns is None else operations.sets.add_run(*columns)


def _hset(operations: Operations, run: list[Arguments]) -> Results | None:
    columns = _columns(run, 4)
    return None if columns is None else operations.maps.put_run(*columns)


_WRITES: Final[dict[str, WriteRun]] = {"incr": _incr, "sadd": _sadd, "hset": _hset}
WRITE_RUNS: Final = {spelled.encode(): (name, run) for name, run in _WRITES.items() for spelled in (name, name.upper())}
"""By name, in the two spellings that clients use."""


def replies(results: Sequence[int | EdgeKVError]) -> bytes:
    """The replies to a run, one after the other."""
    return b"".join([b":%d\r\n" % result if isinstance(result, int) else fault(result) for result in results])
