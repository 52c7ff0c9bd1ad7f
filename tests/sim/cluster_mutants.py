"""Known mistakes in replication, planted in the running production code: each must be found by simulated clusters.

    python -m tests.sim.cluster_mutants [NAME ...] [--seeds 200]       what catches each, and with which seed
    python -m tests.sim.cluster_mutants [NAME ...] --write             the same, into the table in docs/TESTING.md

The code of a function is replaced in place, so whoever has imported it runs the edited one.
"""

import argparse
import inspect
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, Final, NamedTuple

from tests.sim.cluster import run
from tests.sim.cluster_mistakes import MUTANTS, SKIPPED, Function, Mutant
from tests.sim.traces import TRACES, broken_by

TABLE: Final = Path(__file__).parents[2] / "docs" / "TESTING.md"
BEGIN, END = "<!-- planted mistakes: begin -->", "<!-- planted mistakes: end -->"


class Caught(NamedTuple):
    """How a mistake was found."""

    how: str
    seed: str
    """Of the cluster; or ``trace``, tests/sim/traces.py."""


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The production code with the mutant's edits, while it lasts."""
    functions = {_function(function): None for function, _, _ in mutant.edits}
    before = [(function, function.__code__) for function in functions]
    try:
        for function in functions:
            edits = [(old, new) for edited, old, new in mutant.edits if edited is function]
            function.__code__ = _edited(function, edits).__code__
        yield
    finally:
        for function, code in before:
            function.__code__ = code


def _function(member: Function) -> FunctionType:
    assert isinstance(member, FunctionType), member
    return member


def _edited(function: FunctionType, edits: list[tuple[str, str]]) -> FunctionType:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {function.__qualname__}"
        source = source.replace(old, new)
    made: dict[str, Any] = {}
    text = re.sub(r"\A(@\w+\n)+", "", source)
    exec(compile(text, f"{function.__module__} (mutant)", "exec"), function.__globals__, made)
    edited: FunctionType = made[function.__name__]
    assert edited.__code__.co_freevars == function.__code__.co_freevars
    return edited


def caught(name: str, seeds_max: int | None = None) -> Caught | None:
    """What catches it: its trace, if it has one, else the first seed that does. A mutant may also simply fall over."""
    with planted(MUTANTS[name]):
        if name in TRACES:
            broken = broken_by(TRACES[name])
            return Caught(_words(broken), "trace") if broken else None
        mutant = MUTANTS[name]
        for seed in range(mutant.first, mutant.first + (seeds_max or mutant.seeds_max)):
            outcome = run(seed)
            assert not outcome.broken.startswith("NameError"), f"the mistake itself has one: {outcome.broken}"
            if outcome.broken:
                return Caught(_words(outcome.broken), str(seed))
    return None


def _row(name: str, seeds_max: int | None) -> tuple[str, Caught | None]:
    return name, caught(name, seeds_max)


def _words(broken: str) -> str:
    """The first line, without names and numbers."""
    line = broken.partition("\n")[0]
    line = re.sub(r"(hub|edge)-\d+", r"\1", line)
    line = re.sub(r"b'[^']*'|b\"[^\"]*\"", "a key", line)
    line = re.sub(r"[:;] (vectors|\{).*", "", line)
    return re.sub(r"\b\d+\b", "n", line)[:90].rstrip(" :")


def _write(rows: list[tuple[str, Caught | None]]) -> None:
    """The table: what was not looked for now stays as it was found last."""
    head, _, rest = TABLE.read_text().partition(BEGIN)
    table, _, rest = rest.partition(END)
    known = {row.split("`")[1]: row for row in table.splitlines() if row.startswith("| `")}
    for name, found in rows:
        how = f"{found.how if found else '**nothing**'} | {found.seed if found else ''}"
        known[name] = f"| `{name}` | {MUTANTS[name].why} | {how} |"
    lines = ["| planted mistake | what it is | what caught it | seed |", "|---|---|---|---|"]
    lines += [known[name] for name in MUTANTS if name in known]
    lines += ["", "Not planted:", ""]
    lines += [f"- {names.replace('_*', '…')}: {why}." for names, why in SKIPPED.items()]
    TABLE.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + rest)


def main() -> int:
    """Exit status 1 when one is not caught."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="some of them")
    parser.add_argument("--seeds", type=int, help="at most so many for each")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", action="store_true", help="what was found, into the table in docs/TESTING.md")
    arguments = parser.parse_args()
    rows: list[tuple[str, Caught | None]] = []
    began = time.monotonic()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name, found in pool.map(partial(_row, seeds_max=arguments.seeds), arguments.names or MUTANTS):
            rows.append((name, found))
            words = f"seed {found.seed}: {found.how}" if found else "NOT CAUGHT"
            print(f"{time.monotonic() - began:5.0f} s  {name:30s} {words}", flush=True)
    if arguments.write:
        _write(rows)
    return any(found is None for _, found in rows)


if __name__ == "__main__":
    sys.exit(main())
