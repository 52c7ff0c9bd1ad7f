"""The rows against the project's executable model of replication, where that is at hand.

The model is ``replication.py`` in the folder that EDGEKV_MODEL names; it is not part of this repository. Unset: skipped. Its rows
hold one key; each map field's counter stands in a row of its own there.
"""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.crdt import operation as codes
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.joins import Rows, Vector, join_rows
from edgekv.crdt.operation import (
    SUFFIX_EXPIRY,
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SET_CLEAR,
    Operation,
    Row,
    actor_of_suffix,
    counter_suffix,
    decode_number,
    element_suffix,
    field_suffix,
)
from edgekv.crdt.register import RANK_CLIENT, RANK_SYSTEM, Cell
from edgekv.crdt.siblings import Siblings
from edgekv.ids import Actor
from tests.unit.crdt.histories import Change, Replica, actor
from tests.unit.crdt.test_specification import History, Run, steps

FOLDER = os.environ.get("EDGEKV_MODEL", "")
FIELD = "m"  # The model tells map fields by the first character of their names.

pytestmark = pytest.mark.skipif(not FOLDER, reason="EDGEKV_MODEL is not set")


@pytest.fixture(scope="module")
def model() -> ModuleType:
    spec = spec_from_file_location("replication_model", Path(FOLDER) / "replication.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.FRESH = (b"\xff" * 26, 0)  # type: ignore[attr-defined]  # above every dot, as there; our actors are bytes
    return module


class ModelKey:
    """A replica of one key as the model has it."""

    def __init__(self, model: ModuleType) -> None:
        self.model = model
        self.row = model.Row()
        self.counters: dict[bytes, Any] = {}  # by field

    def merge(self, change: Change) -> None:
        for operation in change.operations:
            for row, op in self.translated(operation):
                self.model.apply_op(row, change.actor, change.seq, change.hlc, op, ())

    def translated(self, operation: Operation) -> list[tuple[Any, tuple[Any, ...]]]:
        """(row, operation) of the model. A system clear's rank is half a step of the HLC there."""
        code, _, *rest = operation
        row, system = self.row, [rest[-1] + 0.5] if code in {codes.DELETE, codes.CLEAR_MAP} and rest else []
        match code, rest:
            case codes.PUT, [value, expiry_ms]:
                return [(row, ("lww", "r", value, expiry_ms or None))]
            case codes.DELETE, _:
                return [(row, ("lww", "r", None, None, None, *system))]
            case codes.EXPIRE, [expiry_ms, *stamp]:
                return [(row, ("lww", "x", expiry_ms or None, None, None, *[hlc + 0.5 for hlc in stamp]))]
            case codes.ADD, number:
                return [(row, increment(number))]
            case codes.RESET, [observed]:
                return [(row, reset(observed))]
            case codes.ADD_ELEMENTS, [members]:
                return [(row, ("add", member)) for member in members]
            case codes.REMOVE_ELEMENTS, [removed]:
                return [(row, ("rem", member, dict(dots))) for member, dots in removed]
            case codes.CLEAR_SET, [vector]:
                return [(row, ("sclr", dict(vector)))]
            case codes.PUT_FIELDS, [pairs]:
                return [(row, ("lww", FIELD + field.hex(), value, None)) for field, value in pairs]
            case codes.DELETE_FIELDS, [fields]:
                return [(row, ("lww", FIELD + field.hex(), None, None)) for field in fields]
            case codes.ADD_FIELD, [field, *number]:
                return [(self.counter(field), increment(number))]
            case codes.RESET_FIELDS, [fields]:
                return [(self.counter(field), reset(observed)) for field, observed in fields]
        assert code == codes.CLEAR_MAP
        return [(row, ("mclr", {}, *system))]

    def counter(self, field: bytes) -> Any:
        return self.counters.setdefault(field, self.model.Row())

    def summary(self) -> dict[str, Any]:
        cells = {name: (cell[0], cell[1], cell[3], cell[4] or 0) for name, cell in self.row.lww.items()}
        counters = {field: live_parts(row) for field, row in self.counters.items()}
        return {
            "cells": cells,
            "elements": self.row.elems(),
            "parts": live_parts(self.row),
            "counters": {field: parts for field, parts in counters.items() if parts},
            "map clear": self.row.mclr[:2] if self.row.mclr else None,
        }


def increment(number: list[Any]) -> tuple[Any, ...]:
    total, base_seq, base_total, fresh = number
    return "inc", decode_number(total), base_seq, decode_number(base_total), 0, fresh == 1


def reset(observed: list[Any]) -> tuple[Any, ...]:
    return "rst", {owner: (seq, decode_number(total)) for owner, seq, total in observed}


def live_parts(row: Any) -> dict[Actor, tuple[int, int, int, int]]:
    return {owner: part[:4] for owner, part in row.cnt.items() if part[0] > part[2]}


def summary(replica: Replica) -> dict[str, Any]:
    """The same of our rows."""
    replica.sweep()
    names = {SUFFIX_REGISTER: "r", SUFFIX_EXPIRY: "x"}
    cells = {
        names.get(suffix) or FIELD + suffix[1:].hex(): row
        for suffix, row in replica.rows.items()
        if isinstance(row, Cell) and suffix != SUFFIX_MAP_CLEAR
    }
    map_clear = replica.rows.get(SUFFIX_MAP_CLEAR)
    assert map_clear is None or isinstance(map_clear, Cell)
    counters = {
        field: {owner: (p.seq, p.total, p.base_seq, p.base_total) for owner, p in found.live_parts().items()}
        for field, found in replica.fields().items()
    }
    return {
        "cells": {
            name: (hlc_of(cell), cell.actor, value_of(name, cell), expiry_of(name, cell))
            for name, cell in cells.items()
        },
        "elements": {element: dict(dots) for element, dots in replica.elements().items()},
        "parts": {
            owner: (p.seq, p.total, p.base_seq, p.base_total) for owner, p in replica.parts().items() if not is_inert(p)
        },
        "counters": {field: parts for field, parts in counters.items() if parts},
        "map clear": None if map_clear is None else (hlc_of(map_clear), map_clear.actor),
    }


def hlc_of(cell: Cell) -> float:
    return cell.hlc + (0.5 if cell.rank == RANK_SYSTEM else 0)


def value_of(name: str, cell: Cell) -> bytes | int | None:
    return (cell.expiry_ms or None) if name == "x" else cell.value


def expiry_of(name: str, cell: Cell) -> int:
    return 0 if name == "x" else cell.expiry_ms


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(2, 4), st.randoms(use_true_random=False))
def test_rows_are_those_of_the_model(model: ModuleType, history: History, replicas: int, dice: Any) -> None:
    run = Run(replicas, tidy=False)
    for step in history:
        run.step(*step)
    reader, expected = Replica(run.world.replicas[0].actor), ModelKey(model)
    while ready := run.world.deliverable(reader):
        change = dice.choice(ready)
        run.world.deliver(reader, change)
        expected.merge(change)
        assert summary(reader) == expected.summary()


def test_system_clears_are_those_of_the_model(model: ModuleType) -> None:
    """Stamped just above what they remove, below everything later."""
    run = Run(2)
    a, b = run.world.replicas
    run.world.make(a, [(codes.PUT, b"k", b"v", 0), (codes.PUT_FIELDS, b"k", [(b"f", b"v")]), (codes.EXPIRE, b"k", 5)])
    run.world.deliver_all()
    run.world.make(b, [(codes.PUT_FIELDS, b"k", [(b"g", b"v")])])
    clear = [(codes.CLEAR_MAP, b"k", 1), (codes.DELETE, b"k", 1), (codes.EXPIRE, b"k", 0, 1)]
    run.world.make(a, clear, hlc_step=50)
    reader, expected = Replica(a.actor), ModelKey(model)
    for change in run.world.changes:
        run.world.deliver(reader, change)
        expected.merge(change)
        assert summary(reader) == expected.summary()
    assert list(reader.fields()) == [b"g"]
    assert reader.state().value(0) is None


# Joins, of any rows that can stand at their vectors, whether or not a history leads there.

ACTORS = [actor(number) for number in (1, 2, 3)]
SUFFIXES: dict[bytes, str] = {
    SUFFIX_REGISTER: "r",
    SUFFIX_EXPIRY: "x",
    field_suffix(b"f"): FIELD + "f",
    field_suffix(b"g"): FIELD + "g",
}


@st.composite
def cells(draw: st.DrawFn, suffix: bytes) -> Cell:
    """A stamp or a dot is that of one cell only: what is in it follows from them."""
    hlc, number, rank = draw(st.integers(1, 5)), draw(st.integers(0, 2)), draw(st.sampled_from([0, 0, RANK_SYSTEM]))
    seq = 2 * hlc + rank
    if suffix == SUFFIX_MAP_CLEAR or rank != RANK_CLIENT or not draw(st.integers(0, 3)):
        return Cell(None, hlc, ACTORS[number], seq, rank=rank)
    of = draw(st.none() | st.just((ACTORS[0], 1)))
    return Cell(b"" if suffix == SUFFIX_EXPIRY else b"%d" % hlc, hlc, ACTORS[number], seq, 7, of=of)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    seq, base_seq, fresh = draw(st.integers(1, 4)), draw(st.integers(0, 4)), draw(st.booleans())
    dot = None if fresh else draw(st.tuples(st.sampled_from(ACTORS), st.integers(1, 3)))
    return Part(10 * seq, seq, 0 if fresh else 10 * base_seq, base_seq, dot, fresh)


@st.composite
def copies(draw: st.DrawFn) -> tuple[Rows, Vector]:
    """Complete rows, and a vector that covers what they show."""
    rows: dict[bytes, Row] = {}
    for suffix in [*SUFFIXES, SUFFIX_MAP_CLEAR]:
        if draw(st.booleans()):
            rows[suffix] = draw(cells(suffix))
    for owner in ACTORS:
        if draw(st.booleans()):
            rows[counter_suffix(owner)] = draw(parts())
    dots = st.dictionaries(st.sampled_from(ACTORS), st.integers(1, 4), min_size=1).map(
        lambda d: tuple(sorted(d.items()))
    )
    for element in (b"", b"e"):
        if draw(st.booleans()):
            rows[element_suffix(element)] = Element(draw(dots))
    if draw(st.booleans()):
        rows[SUFFIX_SET_CLEAR] = Clear(draw(dots))
    least = {owner: draw(st.integers(0, 4)) for owner in ACTORS}
    for suffix, row in rows.items():
        for owner, seq in dots_of(suffix, row):
            least[owner] = max(least[owner], seq)
    return rows, least


def dots_of(suffix: bytes, row: Row) -> list[tuple[Actor, int]]:
    match row:
        case Cell():
            return [(row.actor, row.seq)]
        case Part():
            return [(actor_of_suffix(suffix), row.seq)]
        case Element(dots):
            return list(dots)
        case Clear(vector):
            return list(vector)
        case Siblings():
            return list(row.dots)


def model_row(model: ModuleType, rows: Rows) -> Any:
    """Our rows as the model has them."""
    row = model.Row()
    for suffix, ours in rows.items():
        match ours:
            case Cell() if suffix == SUFFIX_MAP_CLEAR:
                row.mclr = (hlc_of(ours), ours.actor, ours.seq)
            case Cell():
                stamp = hlc_of(ours), ours.actor, ours.seq
                row.lww[SUFFIXES[suffix]] = (*stamp, ours.value, ours.expiry_ms or None, ours.of)
            case Part():
                dot = model.FRESH if ours.fresh else ours.base_dot
                row.cnt[actor_of_suffix(suffix)] = (ours.seq, ours.total, ours.base_seq, ours.base_total, dot)
            case Element(dots):
                row.set[suffix[1:]] = dict(dots)
            case Clear(vector):
                row.sclr = dict(vector)
    row.hide_fields()
    return row


@settings(max_examples=1000, deadline=None)
@given(copies(), copies())
def test_joins_are_those_of_the_model(model: ModuleType, a: tuple[Rows, Vector], b: tuple[Rows, Vector]) -> None:
    expected = model.join_row(model_row(model, a[0]), a[1], model_row(model, b[0]), b[1])
    found = model_row(model, join_rows(*a, *b))
    assert vars(found) == vars(expected)
