"""Bounds of the production code, made small, so that a small simulated cluster meets them.

Intervals: what takes seconds to minutes there happens many times in one simulated life. Sizes: what is done in parts there when there
is much of it, a fold in several transactions, a spool in pieces, what members have seen in several messages, is done in parts here.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from edgekv.engine import checkpoint, expired_keys, flip, rebase
from edgekv.replication import leader, replication, row_source, seen, seen_telling, sender, silence, streams
from edgekv.replication.lowest import Lowest
from edgekv.store import applier, applier_process, fold, lmdb_store, spool, sweep

_SHORT_MS: Final[list[tuple[Any, str, int]]] = [
    (checkpoint, "GENERATION_AGE_MS", 300),
    (checkpoint, "_PURGE_INTERVAL_MS", 400),
    (replication, "SEEN_INTERVAL_MS", 200),
    (replication, "LINKS_LOOK_MS", 200),
    (leader, "STABLE_INTERVAL_MS", 300),
    (leader, "WALL_STEP_MS", 500),
    (leader, "RETURN_LEASE_MS", 4_000),
    (leader, "RESTORED_WAIT_MS", 200),
    (silence, "STEP_MS", 500),
    (silence, "DAY_MS", 4_000),
]
_SMALL: Final[list[tuple[Any, str, Any]]] = [
    (applier, "FOLD_TRANSACTION_ROWS_MAX", 3),
    (applier, "PURGE_ROWS_MAX", 3),
    (applier_process, "APPLIER_INLINE_ROWS", 10),
    (fold, "SPOOL_SLICE_ROWS", 2),
    (spool, "SPOOL_BLOCK_BYTES", 3_000),
    (sweep, "PURGE_ROWS_MAX", 2),
    (expired_keys, "_ELEMENTS_MAX", 2),
    (expired_keys, "_ROWS_AT_ONCE", 3),
    (flip, "REBASE_AT_ONCE_MAX", 1),
    (rebase, "REBASE_STEP_OPERATIONS", 1),
    (row_source, "PEER_MESSAGE_BYTES", 300),
    (row_source, "_WRITE_ROWS", 60),
    (row_source, "SYNC_LOG_BYTES_MAX", 40_000),
    (streams, "PEER_MESSAGE_BYTES", 400),
    (sender, "READ_BYTES", 8_000),
    (seen, "PROVED_AT_ONCE", 3),
    (seen_telling, "ENTRIES_MAX", 3),
    (leader, "EXPIRED_AT_ONCE", 2),
    (Lowest.of, "__defaults__", (2,)),
]


@contextmanager
def hurried(wanted: bool) -> Iterator[None]:
    """Within it intervals are short, if that is wanted."""
    with _replaced(_SHORT_MS if wanted else []):
        yield


@contextmanager
def tight(wanted: bool) -> Iterator[None]:
    """Within it sizes are small, if that is wanted."""
    with _replaced(_SMALL if wanted else []):
        yield


@contextmanager
def _replaced(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(place, name, getattr(place, name)) for place, name, _ in values]
    try:
        for place, name, value in values:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


@contextmanager
def unburdened() -> Iterator[None]:
    """Within it nothing is done that costs time and shows nothing: the store's reserve on the disk, and looking for garbage."""
    before = lmdb_store._fallocate
    lmdb_store._fallocate = lambda *_: True
    collecting = gc.isenabled()
    gc.disable()
    gc.collect()  # the cluster before this one: whoever ran it held it until now
    if not gc.get_freeze_count():
        gc.freeze()
    try:
        yield
    finally:
        lmdb_store._fallocate = before
        if collecting:
            gc.enable()
