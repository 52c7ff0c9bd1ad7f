"""Intervals of the production code, shortened: what takes seconds to minutes there happens many times in one simulated life."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from edgekv.engine import checkpoint
from edgekv.replication import leader, replication, silence
from edgekv.store import lmdb_store

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


@contextmanager
def hurried(wanted: bool) -> Iterator[None]:
    """Within it, if that is wanted."""
    before = [(module, name, getattr(module, name)) for module, name, _ in _SHORT_MS]
    try:
        for module, name, short_ms in _SHORT_MS:
            if wanted:
                setattr(module, name, short_ms)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def unburdened() -> Iterator[None]:
    """Within it nothing is done that costs time and shows nothing: the store's reserve on the disk, and looking for garbage."""
    before = lmdb_store._fallocate
    lmdb_store._fallocate = lambda *_: True
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        lmdb_store._fallocate = before
        gc.collect()
        gc.unfreeze()
        if collecting:
            gc.enable()
