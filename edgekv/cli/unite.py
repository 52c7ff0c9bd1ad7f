"""``edgekv cluster unite``: bring back what a copy of a node had and the cluster lacks.

A node that comes with another history of itself than the cluster's sets what it has aside (node/identity.py), a whole data
directory. This command has a node serve it, linked to nobody, and goes through all its keys beside those of a node of the cluster.
What the cluster lacks is written there as an ordinary change: keys, elements, fields. Where both have something and it differs, the
cluster's stays, and both are said: of two values, or of a counter on which both copies have counted, nobody but its owner can tell
which is meant.

What the cluster has deleted since comes back: a union drops nothing. Nothing is written without ``--yes``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from edgekv.cli.node_process import NodeProcess
from edgekv.cli.options import Output, as_cell, as_text, output_option, print_json, resp_option, timeout_option
from edgekv.cli.resp_client import Reply, RespConnection
from edgekv.cli.verify import DIFFERENT
from edgekv.config import Address
from edgekv.engine.keyspaces import META_PREFIX
from edgekv.errors import WrongType
from edgekv.node import identity

_PAGE: Final = b"512"
_SHOWN: Final = 20

Command = tuple[bytes, ...]


class Difference(NamedTuple):
    """Both have something under a name, and it is not the same. ``field`` None: the key's own value."""

    key: bytes
    field: bytes | None
    here: bytes
    """In the cluster, where it stays."""
    aside: bytes


class Union(NamedTuple):
    """What is found key by key: commands that bring back what the cluster lacks, and what stays different."""

    commands: list[Command]
    different: list[Difference]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Do it. Without this it is only said what would be done.")
@output_option
@resp_option
@timeout_option
def unite(directory: Path, yes: bool, output: Output, resp: Address, timeout_s: float) -> int:
    """Bring what a node set aside in DIRECTORY back into the cluster, by a node of it (--resp).

    A directory was copied and both copies ran, or it was set back: the copy that the cluster did not follow has set its data aside
    under forked/, and may hold writes that nobody else has. What both have and differs is listed, and stays as the cluster has it; the
    exit code is 4 then.

    \b
    edgekv cluster unite /var/lib/edgekv/forked/0000000178cbb3a2
    edgekv cluster unite /var/lib/edgekv/forked/0000000178cbb3a2 --resp 10.0.0.1:6380 --yes
    """
    who = identity.read(directory)
    keys = written = 0
    different: list[Difference] = []
    with (
        NodeProcess(directory, "--node", who.name or "aside", "--site", who.site) as copy,
        RespConnection(copy.resp, timeout_s) as aside,
        RespConnection(resp, timeout_s) as here,
    ):
        for key in _keys(aside):
            keys += 1
            found = _union(aside, here, key)
            different += found.different
            written += len(found.commands)
            if yes:
                for command in found.commands:
                    here.call(*command)
    if output == "json":
        print_json(
            {"keys": keys, "changes": written, "done": yes, "different": [_document(each) for each in different]}
        )
    else:
        _print(keys, written, different, yes=yes)
    return DIFFERENT if different else 0


def _keys(aside: RespConnection) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        cursor, page = _page(aside.call(b"SCAN", cursor, b"COUNT", _PAGE))
        yield from (key for key in page if not key.startswith(META_PREFIX))
        if cursor == b"0":
            return


def _union(aside: RespConnection, here: RespConnection, key: bytes) -> Union:
    """Of one key, which may hold a value, a set and a map."""
    found = Union([], [])
    theirs = _value(aside, key)
    if theirs is not None:
        mine = _value(here, key)
        if mine is None:
            expiry = _expiry(aside, key)
            found.commands.append((b"SET", key, theirs, *((b"PXAT", b"%d" % expiry) if expiry > 0 else ())))
        elif mine != theirs:
            found.different.append(Difference(key, None, mine, theirs))
    for page in _pages(aside, b"SSCAN", key):
        known = _column(here, b"SMISMEMBER", key, page)
        missing = [member for member, is_known in zip(page, known, strict=True) if not is_known]
        if missing:
            found.commands.append((b"SADD", key, *missing))
    for page in _pages(aside, b"HSCAN", key):
        fields, values = page[::2], page[1::2]
        for field, value, held in zip(fields, values, _column(here, b"HMGET", key, fields), strict=True):
            if held is None:
                found.commands.append((b"HSET", key, field, value))
            elif held != value:
                assert isinstance(held, bytes)
                found.different.append(Difference(key, field, held, value))
    if any(command[0] != b"SET" for command in found.commands) and here.call(b"EXISTS", key) == 0:
        expiry = _expiry(aside, key)  # what the cluster has of a key has an expiry of its own, or none
        if expiry > 0:
            found.commands.append((b"PEXPIREAT", key, b"%d" % expiry))
    return found


def _expiry(node: RespConnection, key: bytes) -> int:
    """In ms; negative: there is none."""
    found = node.call(b"PEXPIRETIME", key)
    assert isinstance(found, int)
    return found


def _value(node: RespConnection, key: bytes) -> bytes | None:
    """The register or counter; None: there is none."""
    try:
        found = node.call(b"GET", key)
    except WrongType:
        return None
    assert found is None or isinstance(found, bytes)
    return found


def _column(node: RespConnection, verb: bytes, key: bytes, names: list[bytes]) -> list[Reply]:
    """What a node says of each name; a key that is something else there has none of them."""
    try:
        found = node.call(verb, key, *names)
    except WrongType:
        return [None] * len(names)
    assert isinstance(found, list)
    return found


def _pages(node: RespConnection, verb: bytes, key: bytes) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        try:
            cursor, page = _page(node.call(verb, key, cursor, b"COUNT", _PAGE))
        except WrongType:
            return
        if page:
            yield page
        if cursor == b"0":
            return


def _page(reply: Reply) -> tuple[bytes, list[bytes]]:
    assert isinstance(reply, list)
    cursor, page = reply
    assert isinstance(cursor, bytes) and isinstance(page, list)
    return cursor, [name for name in page if isinstance(name, bytes)]


def _document(each: Difference) -> dict[str, object]:
    field = None if each.field is None else as_text(each.field)
    return {"key": as_text(each.key), "field": field, "here": as_text(each.here), "aside": as_text(each.aside)}


def _print(keys: int, written: int, different: list[Difference], *, yes: bool) -> None:
    click.echo(f"{keys} keys were looked at: the cluster lacked what {written} changes bring back.")
    if not yes and written:
        click.echo("Nothing was done. Add --yes to do it.")
    for each in different[:_SHOWN]:
        name = as_cell(each.key) if each.field is None else f"{as_cell(each.key)} {as_cell(each.field)}"
        click.echo(f"differs: {name}: {as_cell(each.here)} stays, set aside is {as_cell(each.aside)}")
    if len(different) > _SHOWN:
        click.echo(f"and {len(different) - _SHOWN} more: all of them with -o json")
