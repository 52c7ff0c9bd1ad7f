"""Runs of any actor merged into a layer: what peers sent (engine/intake.py), and the log when it is replayed (engine/recovery.py).

A client's own change dominates what it finds, by its stamp. Another actor's may be older than what is here: then each register is
compared with its newest version, LMDB's included, so that in every layer the newest row decides (store/memtable.py). Where a run's
stamps exceed all that the keyspace has seen, nothing is looked up.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count, repeat
from typing import Any, Final

from edgekv.crdt.operation import (
    SUFFIX_REGISTER,
    SUFFIX_SIBLINGS,
    TAG_ELEMENT,
    TAG_FIELD,
    RowDelta,
    field_of_suffix,
    merge_row,
    rows_of,
)
from edgekv.crdt.register import RANK_CLIENT, Cell, Register, as_cell, newest
from edgekv.engine.conflicts import Conflict, discards
from edgekv.engine.frame import CollectionReader, CollectionWriter, RowReader, put_row
from edgekv.engine.keyspaces import Head, Keyspace
from edgekv.ids import Actor
from edgekv.store.collection_rows import Before, clears_first
from edgekv.store.memtable import Layer
from edgekv.wal.record import Changes, Columns, Operations

RegisterReader = Callable[[Keyspace, bytes], Register | None]
"""The newest version of a key's register, in the layer that is being filled and anywhere below it."""

_CELL_TAIL: Final = repeat(0), repeat(RANK_CLIENT), repeat(None)
_make: Final = tuple.__new__


class RunMerger:
    """Merges runs into one layer, the newest one there is."""

    def __init__(
        self,
        layer: Layer,
        own_actor: Actor,
        read_register: RegisterReader,
        read_row: RowReader,
        read_collection: CollectionReader,
        lost: list[Conflict] | None = None,
    ) -> None:
        """``lost``: gets the values that lose to what was here; None: nobody asks (a replay)."""
        self._layer: Final = layer
        self._own_actor: Final = own_actor
        self._read_register: Final = read_register
        self._read_row: Final = read_row
        self._read_collection: Final = read_collection
        self._lost_values: Final = lost

    def merge(self, keyspace: Keyspace, run: Changes, body: Columns | Operations, seen: Mapping[Actor, Head]) -> None:
        """The rows of a run that is its actor's next. ``seen``: all that was applied in this keyspace before it.

        Moves the keyspace's ``mixed``, nothing else of it.
        """
        dominates = run.base_hlc > keyspace.hlc
        if isinstance(body, Columns):
            self._columns(keyspace, run, body, dominates=dominates)
            return
        hlc_before = keyspace.hlc
        for i, operations in enumerate(body.changes):
            seq, hlc = run.first_seq + i, run.base_hlc + i
            before = Before(seen, run.actor, seq - 1, max(hlc_before, hlc - 1) if i else hlc_before)
            self._change(keyspace, before, hlc, operations, dominates=dominates)

    def _columns(self, keyspace: Keyspace, run: Changes, body: Columns, *, dominates: bool) -> None:
        keys, values = body
        if not dominates:
            for i, (key, value) in enumerate(zip(keys, values, strict=True)):
                self._register(keyspace, key, Cell(value, run.base_hlc + i, run.actor, run.first_seq + i))
            return
        size = sum(map(len, keys)) + sum(map(len, values))
        if run.actor == self._own_actor:
            self._layer.put_plain_run(keys, values, run.base_hlc, size)
            return
        fields = values, count(run.base_hlc), repeat(run.actor), count(run.first_seq), *_CELL_TAIL
        self._layer.put_cells(keys, map(_make, repeat(Cell), zip(*fields, strict=False)), size)

    def _register(self, keyspace: Keyspace, key: bytes, cell: Cell) -> None:
        old = self._read_register(keyspace, key)
        if newest(old, cell, self._own_actor) is cell:
            self._layer.put_register(key, cell)
        elif old is not None:
            self._lost(keyspace, key, None, as_cell(old, self._own_actor), cell)

    def _lost(self, keyspace: Keyspace, key: bytes, field: bytes | None, kept: Cell, came: Cell) -> None:
        if self._lost_values is not None and discards(kept, came):
            self._lost_values.append(Conflict(keyspace.name, key, field, kept, came))

    def _change(
        self, keyspace: Keyspace, before: Before, hlc: int, operations: Sequence[list[Any]], *, dominates: bool
    ) -> None:
        writer = CollectionWriter(self._layer, keyspace, before, self._read_row, self._read_collection)
        for operation in clears_first(operations):
            for key, suffix, delta in rows_of(operation, before.actor, before.seq + 1, hlc):
                if suffix == SUFFIX_REGISTER:
                    assert isinstance(delta, Cell)
                    if dominates and delta.rank == RANK_CLIENT:
                        self._layer.put_register(key, delta)
                    else:
                        self._register(keyspace, key, delta)
                    continue
                keyspace.mixed = True
                if suffix[0] == TAG_FIELD and not dominates and self._lost_values is not None:
                    assert isinstance(delta, Cell)
                    old = writer.row(key, suffix)
                    if isinstance(old, Cell):
                        self._lost(keyspace, key, field_of_suffix(suffix), old, delta)
                if suffix[0] >= TAG_ELEMENT and suffix != SUFFIX_SIBLINGS:
                    writer.merge(key, suffix, delta)
                else:
                    self._row(keyspace, key, suffix, delta)

    def _row(self, keyspace: Keyspace, key: bytes, suffix: bytes, delta: RowDelta) -> None:
        row = merge_row(self._read_row(keyspace, key, suffix), delta)
        if row is not None:
            put_row(self._layer, keyspace, key, suffix, row, self._read_row)
