"""``edgekv cluster verify``: whether nodes that have the same changes show the same.

Nodes are compared at equal vectors only, since a node that lacks changes shows something else by right. So the command waits until the
vectors of a keyspace are equal at all nodes that hold it, has each make its digest, and asks again when a write or a purge came in.
Equal vectors and different digests are never right: a fault of a disk, or of EdgeKV.
"""

import time
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import click

from edgekv.cli.node_http import NodeHttp
from edgekv.cli.options import Output, as_text, nodes_option, output_option, print_json, print_table
from edgekv.codec import as_json, from_json
from edgekv.config import Address
from edgekv.errors import InvalidRequest, Unavailable

EQUAL: Final = 0
DIFFERENT: Final = 4
UNSETTLED: Final = 5
ANSWER_S_MAX: Final = 60.0
"""A digest of a large keyspace takes a second for some hundred thousand keys."""
_PAUSE_S: Final = 0.2
_COLUMNS: Final = ("KEYSPACE", "NODE", "KEYS", "DIGEST", "VECTOR")
_RANGES_SHOWN: Final = 10

Vector = dict[str, int]


class Holder(NamedTuple):
    """A node, and the names of the keyspaces that it holds."""

    name: str
    node: NodeHttp
    keyspaces: frozenset[str]
    node_name: str
    linked: frozenset[str]
    """The names of the nodes at the other ends of its links."""


class Verdict(NamedTuple):
    """Of one keyspace. ``digests``: as each node made it; of an unsettled keyspace the last vectors only."""

    keyspace: str
    code: int
    digests: dict[str, dict[str, Any]]

    @property
    def word(self) -> str:
        """For scripts."""
        return {EQUAL: "equal", DIFFERENT: "different", UNSETTLED: "unsettled"}[self.code]

    def differing(self) -> list[bytes]:
        """Common beginnings of the keys among which nodes differ."""
        ranges = [
            {from_json(each["prefix"]) or b"": each["digest"] for each in digest["ranges"]}
            for digest in self.digests.values()
        ]
        names = {name for found in ranges for name in found}
        return sorted(name for name in names if len({found.get(name) for found in ranges}) > 1)


@click.command()
@output_option
@nodes_option
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.1, max=3600),
    default=30.0,
    show_default=True,
    envvar="EDGEKV_TIMEOUT_S",
    show_envvar=True,
    help="Wait so long for all nodes to have the same changes.",
)
def verify(output: Output, http: tuple[Address, ...], timeout_s: float) -> int:
    """Compare what nodes show, once they have the same changes. Writers should pause: a keyspace that always moves is never settled.

    Exits with 0 when all is equal, 4 when nodes with the same changes show different things (an alarm), 5 when they did not come to
    have the same changes in time.

    \b
    edgekv cluster verify --http 10.0.0.1:7480 --http 10.0.0.2:7480
    """
    if len(set(http)) < 2:
        raise InvalidRequest("there is nothing to compare: give --http for two nodes or more.")
    deadline = time.monotonic() + timeout_s
    holders = [holder_of(NodeHttp(address, ANSWER_S_MAX)) for address in dict.fromkeys(http)]
    try:
        verdicts = compare(holders, deadline)
    finally:
        for holder in holders:
            holder.node.close()
    if output == "json":
        print_json([_document(verdict) for verdict in verdicts])
    else:
        _print(verdicts)
    codes = {verdict.code for verdict in verdicts}
    return DIFFERENT if DIFFERENT in codes else max(codes)


def holder_of(node: NodeHttp) -> Holder:
    """A node's own word of what it holds. Unavailable: it is none."""
    status = node.read("/v1/status").json()
    replication, keyspaces = status.get("replication"), node.read("/v1/admin/keyspaces").json().get("keyspaces")
    if not isinstance(replication, dict) or not isinstance(keyspaces, list):
        raise Unavailable(f"what listens at {node.address} says nothing of a cluster: is it a node of this release?")
    everything = replication["role"] == "hub"
    held = {
        each["name"]
        for each in keyspaces
        if everything or each["system"] or not each["sites"] or status["site"] in each["sites"]
    }
    linked = frozenset(link["peer"] for link in replication["links"] if link["peer"] is not None)
    return Holder(f"{status['node']} ({node.address})", node, frozenset(held), status["node"], linked)


def compare(holders: list[Holder], deadline: float) -> list[Verdict]:
    """Each keyspace that two of these nodes hold. InvalidRequest: there is none."""
    names = sorted(frozenset[str]().union(*(holder.keyspaces for holder in holders)))
    held = {name: [holder for holder in holders if name in holder.keyspaces] for name in names}
    compared = {name: found for name, found in held.items() if len(found) > 1}
    if not compared:
        raise InvalidRequest("no keyspace is held by two of these nodes.")
    return [_verify_keyspace(name, found, deadline) for name, found in compared.items()]


def _verify_keyspace(keyspace: str, holders: list[Holder], deadline: float) -> Verdict:
    """Try until the nodes stand at one vector, at least once."""
    ahead_ms = 0
    while True:
        began_s = time.monotonic()
        states = {holder.name: holder.node.read("/v1/admin/vectors").json() for holder in holders}
        vectors = {name: state["vectors"][keyspace] for name, state in states.items()}
        if _all_equal(vectors):
            # None of them has purged beyond the time of the one that is furthest; while digests are made that take long, they go on.
            ttl_ms = max(state["ttl_ms"] for state in states.values()) + ahead_ms
            path = f"/v1/admin/digest?keyspace={quote(keyspace, safe='')}&ttl_ms={ttl_ms}"
            digests = {holder.name: holder.node.read(path).json() for holder in holders}
            if _all_equal({name: [each["vector"], each["vector_after"]] for name, each in digests.items()}) and not any(
                each["moved"] for each in digests.values()
            ):
                equal = _all_equal({name: each["digest"] for name, each in digests.items()})
                return Verdict(keyspace, EQUAL if equal else DIFFERENT, digests)
            ahead_ms = int(2_000 * (time.monotonic() - began_s))
        if time.monotonic() >= deadline:
            return Verdict(keyspace, UNSETTLED, {name: {"vector": vector} for name, vector in vectors.items()})
        time.sleep(_PAUSE_S)


def _all_equal(found: dict[str, Any]) -> bool:
    first, *others = found.values()
    return all(other == first for other in others)


def _document(verdict: Verdict) -> dict[str, object]:
    ranges = [as_json(name) for name in verdict.differing()] if verdict.code == DIFFERENT else []
    nodes = [{"node": name, **digest} for name, digest in verdict.digests.items()]
    return {"keyspace": verdict.keyspace, "result": verdict.word, "differing": ranges, "nodes": nodes}


def _print(verdicts: list[Verdict]) -> None:
    rows = [
        (verdict.keyspace, name, digest.get("keys", ""), digest.get("digest", ""), _vector(digest["vector"]))
        for verdict in verdicts
        for name, digest in verdict.digests.items()
    ]
    print_table(_COLUMNS, rows)
    click.echo()
    for verdict in verdicts:
        click.echo(_sentence(verdict))


def _sentence(verdict: Verdict) -> str:
    if verdict.code == EQUAL:
        return f"{verdict.keyspace}: equal."
    if verdict.code == UNSETTLED:
        return (
            f"{verdict.keyspace}: the nodes did not come to have the same changes in time, so nothing can be said. Pause the writers, "
            "see edgekv cluster status for links that are down, or wait longer (--timeout-s)."
        )
    names = verdict.differing()
    shown = ", ".join(f'"{as_text(name)}"' for name in names[:_RANGES_SHOWN])
    more = f" and {len(names) - _RANGES_SHOWN} more beginnings" if len(names) > _RANGES_SHOWN else ""
    return (
        f"{verdict.keyspace}: DIFFERENT, with the same changes, among the keys that begin with {shown}{more}. This must not be: keep "
        "copies of the data directories, and compare with edgekv scan and edgekv wal inspect which node is wrong."
    )


def _vector(vector: Vector) -> str:
    return " ".join(f"{actor}:{seq}" for actor, seq in vector.items()) or "(empty)"
