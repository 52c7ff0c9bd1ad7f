"""``edgekv cluster repair``: mend what ``cluster verify`` found, or what an operator names.

Of nodes that have the same changes and show different things the operator says which is right (``--from``), or that both are
(``--union``). Each node that is mended takes the rows of one that it has a link with (replication/repairs.py), at a moment at which
the two have the same changes; where a write comes between, it is tried again. Nothing is done without ``--yes``.
"""

import time
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import click

from edgekv.cli.node_http import NodeHttp
from edgekv.cli.options import Output, as_cell, as_text, nodes_option, output_option, print_json, print_table
from edgekv.cli.verify import ANSWER_S_MAX, DIFFERENT, EQUAL, Holder, compare, holder_of
from edgekv.config import Address
from edgekv.errors import InvalidRequest, Unavailable

_PAUSE_S: Final = 0.1
_COLUMNS: Final = ("KEYSPACE", "NODE", "TAKES FROM", "HOW", "KEYS THAT BEGIN WITH")
_SHOWN: Final = 5

Ranges = dict[str, list[bytes]]
"""By keyspace the beginnings of keys."""


class Step(NamedTuple):
    """One node takes rows of another one."""

    node: Holder
    source: Holder
    keyspace: str
    prefixes: list[bytes]
    union: bool


@click.command()
@output_option
@nodes_option
@click.option(
    "--from",
    "source",
    metavar="NODE",
    envvar="EDGEKV_CLUSTER_REPAIR_FROM",
    help="The node that is right: the others take its rows.",
)
@click.option(
    "--union", is_flag=True, help="All are right: each gets what any other one has. Deleted rows may come back."
)
@click.option(
    "--keyspace", help="Mend this keyspace, whatever a comparison says: rows that cannot be read break it off."
)
@click.option("--prefix", multiple=True, help="With --keyspace: only keys that begin so. May be repeated.")
@click.option("--yes", is_flag=True, help="Do it. Without this it is only said what would be done.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.1, max=86_400),
    default=600.0,
    show_default=True,
    envvar="EDGEKV_TIMEOUT_S",
    show_envvar=True,
    help="Wait so long for all of it.",
)
def repair(
    output: Output,
    http: tuple[Address, ...],
    source: str | None,
    union: bool,
    keyspace: str | None,
    prefix: tuple[str, ...],
    yes: bool,
    timeout_s: float,
) -> int:
    """Mend rows that differ between nodes with the same changes: a disk has lost them, or two histories of one node have met.

    Say who is right with --from, or --union. Writers should pause: rows are exchanged only while both nodes have the same changes.
    Exits with 0 when nothing is to be done, or all is equal afterwards, and with 4 when not.

    \b
    edgekv cluster repair --http 10.0.0.1:7480 --http 10.0.0.2:7480 --from hub-1
    edgekv cluster repair --http 10.0.0.1:7480 --http 10.0.0.2:7480 --union --yes
    """
    if (source is None) == (not union):
        raise InvalidRequest("say which node is right with --from NODE, or that none is to lose anything with --union.")
    if prefix and keyspace is None:
        raise InvalidRequest("--prefix goes with --keyspace.")
    if len(set(http)) < 2:
        raise InvalidRequest("there is nothing to mend by: give --http for two nodes or more.")
    deadline = time.monotonic() + timeout_s
    holders = [holder_of(NodeHttp(address, ANSWER_S_MAX)) for address in dict.fromkeys(http)]
    try:
        if keyspace is None:
            ranges = {v.keyspace: v.differing() for v in compare(holders, deadline) if v.code == DIFFERENT}
        else:
            ranges = {keyspace: [each.encode() for each in prefix] or [b""]}
        steps = _steps(holders, source, ranges)
        done = [_carry_out(step, deadline) for step in steps] if yes else []
        left = [v for v in compare(holders, deadline) if v.code != EQUAL] if done else []
    finally:
        for holder in holders:
            holder.node.close()
    if output == "json":
        print_json(
            {"steps": [_document(step) for step in steps], "done": done, "different": [v.keyspace for v in left]}
        )
    else:
        _print(steps, done, [v.keyspace for v in left], yes=yes)
    return DIFFERENT if left else 0


def _steps(holders: list[Holder], source: str | None, ranges: Ranges) -> list[Step]:
    """Who takes what from whom, in this order."""
    steps: list[Step] = []
    for keyspace, prefixes in ranges.items():
        held = [holder for holder in holders if keyspace in holder.keyspaces]
        if source is None:
            middle = next((each for each in held if _is_linked(each, held)), held[0])
            others = [each for each in held if each is not middle]
            steps += [Step(middle, each, keyspace, prefixes, True) for each in others]
            steps += [Step(each, middle, keyspace, prefixes, True) for each in others]
        else:
            right = next((each for each in held if each.node_name == source), None)
            if right is None:
                raise InvalidRequest(
                    f"none of these nodes that hold {keyspace!r} is {source!r}. Give its --http as well."
                )
            steps += [Step(each, right, keyspace, prefixes, False) for each in held if each is not right]
    return steps


def _is_linked(holder: Holder, held: list[Holder]) -> bool:
    return {each.node_name for each in held} - {holder.node_name} <= holder.linked


def _carry_out(step: Step, deadline: float) -> dict[str, Any]:
    """What it did. Unavailable: it could not be done in time."""
    prefixes = ",".join(prefix.hex() for prefix in step.prefixes)
    path = (
        f"/v1/admin/repair?keyspace={quote(step.keyspace, safe='')}&from={quote(step.source.node_name, safe='')}"
        f"&prefixes={prefixes}&union={int(step.union)}"
    )
    while True:
        named = step.node.node.change("PUT", path, status=200).json()["wall_ms"]
        while (found := _outcome(step.node.node, named)) is None:
            if time.monotonic() >= deadline:
                raise Unavailable(f"{step.node.name} has not come to the end of it. See its `edgekv cluster status`.")
            time.sleep(_PAUSE_S)
        if not isinstance(found, str):
            return {"node": step.node.node_name, **found}
        if time.monotonic() >= deadline:
            raise Unavailable(f"{step.node.name} was not mended: {found}. Let writers pause, and try again.")
        time.sleep(_PAUSE_S)


def _outcome(node: NodeHttp, named: int) -> dict[str, Any] | str | None:
    """What was done, or why nothing was; None: it is under way."""
    repairs: dict[str, Any] = node.read("/v1/status").json()["replication"]["repairs"]
    for each in repairs["done"]:
        if each["wall_ms"] == named:
            found: dict[str, Any] = each
            return found
    failure = repairs["failure"]
    return str(failure["sentence"]) if failure is not None and failure["wall_ms"] == named else None


def _document(step: Step) -> dict[str, object]:
    return {
        "keyspace": step.keyspace,
        "node": step.node.node_name,
        "from": step.source.node_name,
        "union": step.union,
        "prefixes": [as_text(prefix) for prefix in step.prefixes],
    }


def _print(steps: list[Step], done: list[dict[str, Any]], left: list[str], *, yes: bool) -> None:
    if not steps:
        click.echo("Nothing differs among nodes that have the same changes.")
        return
    print_table(_COLUMNS, map(_row, steps))
    click.echo()
    if not yes:
        click.echo("Nothing was done. Add --yes to do it.")
    for each in done:
        damaged = f", {each['damaged']} of them unreadable" if each["damaged"] else ""
        click.echo(
            f"{each['node']}: {each['replaced']} rows replaced, {each['added']} added, {each['dropped']} dropped{damaged} "
            f"in {each['keyspace']}, from {each['source']}"
        )
    for keyspace in left:
        click.echo(f"{keyspace}: NOT EQUAL yet. See `edgekv cluster verify`.")


def _row(step: Step) -> tuple[str, ...]:
    shown = ", ".join(as_cell(prefix) if prefix else "(all)" for prefix in step.prefixes[:_SHOWN])
    more = f" and {len(step.prefixes) - _SHOWN} more" if len(step.prefixes) > _SHOWN else ""
    return step.keyspace, step.node.node_name, step.source.node_name, "union" if step.union else "replace", shown + more
