"""``edgekv cluster``: who is a member, how its links are, which values were lost, and whether nodes hold the same.

Each command asks one node for its own view: of a cluster that is cut in two, both halves can say theirs. `verify` (cli/verify.py) asks
several.
"""

import time
from typing import Any, Final
from urllib.parse import quote

import click

from edgekv.cli.node_http import NodeHttp
from edgekv.cli.options import Output, as_cell, http_option, output_option, print_json, print_table, timeout_option
from edgekv.cli.repair import repair
from edgekv.cli.unite import unite
from edgekv.cli.verify import verify
from edgekv.codec import from_json
from edgekv.config import Address
from edgekv.errors import Unavailable
from edgekv.limits import CLOCK_AHEAD_MS_MAX

Document = dict[str, Any]

SKEW_MS_MAX: Final = 1_000
"""A clock that is further off is worth a word: last writer wins by clocks."""
SILENT_S_SHOWN: Final = 60
"""So long a member may be between two links."""
LAG_S_MAX: Final = 10.0
"""So is a linked member that has been behind for so long."""
_MEMBERS: Final = ("NAME", "SITE", "ROLE", "STATE", "ACTOR")
_LINKS: Final = ("PEER", "SITE", "PHASE", "BEHIND", "FOR", "SENT", "RECEIVED", "CLOCK", "SILENT")
_CONFLICTS: Final = ("KEYSPACE", "KEY", "FIELD", "KEPT", "WRITTEN BY", "LOST", "WRITTEN BY")
_CONFLICTS_ARE: Final = (
    "Of two values that were written to one key without sight of each other, the one with the later stamp is kept, at every node. "
    "LOST is the other one, which no reader is shown: where it is the right one, write it again. `late`: its writer was parked "
    "then, and brought it when it came back. This node lists what it is certain of; others list others."
)
_EVENTS_SHOWN: Final = 5
_NO_MEMBERS: Final = (
    "There is no other node yet: a hub founds its cluster when the first one reaches it. "
    "Start one with edgekv serve --upstream and the address of this node's peer listener."
)


@click.group()
def cluster() -> None:
    """Look at a cluster, as one node sees it.

    \b
    edgekv cluster status                        members, links, what is wrong
    edgekv cluster verify --http A --http B      whether nodes hold the same
    edgekv cluster repair --http A --http B      mend where they do not
    """


cluster.add_command(verify)
cluster.add_command(repair)
cluster.add_command(unite)


@cluster.command()
@output_option
@http_option
@timeout_option
def status(output: Output, http: Address, timeout_s: float) -> None:
    """Show members and links, how far each is behind this node, and what to do about what is wrong.

    \b
    edgekv cluster status
    edgekv cluster status --http 127.0.0.1:7580 -o json
    """
    found, replication = _ask(http, timeout_s)
    if output == "json":
        print_json({"node": found.get("node"), "site": found.get("site"), **replication})
        return
    leads = ", which leads" if replication["leads"] else ""
    click.echo(
        f"{found['node']} ({replication['role']} at {found['site']}{leads}), meta revision {replication['meta_revision']}, "
        f"stable {replication['stable'] or 'none yet'}\n"
    )
    if replication["members"]:
        print_table(_MEMBERS, map(_member, replication["members"]))
        click.echo()
    if replication["links"]:
        print_table(_LINKS, map(_link, replication["links"]))
        click.echo()
    for sentence in advice(found) or ["All is well."]:
        click.echo(sentence)
    for each in replication["late_writes"]:
        click.echo(
            f"{each['name']} brought {each['changes']} changes of {each['keyspace']} when it came back from being parked. "
            f"What it lost by that: edgekv cluster conflicts, with --http of {each['name']}."
        )
    for each in replication["repairs"]["done"][-_EVENTS_SHOWN:]:
        click.echo(
            f"Repaired {_time(each['wall_ms'])}: {each['keyspace']} from {each['source']}{' (union)' if each['union'] else ''}, "
            f"{each['replaced']} rows replaced, {each['added']} added, {each['dropped']} dropped."
        )
    events = replication["events"][-_EVENTS_SHOWN:]
    if events:
        click.echo("\nWhat went wrong, the newest last:")
        for event in events:
            click.echo(f"  {_time(event['wall_ms'])}  {event['sentence']}")


@cluster.command()
@output_option
@http_option
@timeout_option
def members(output: Output, http: Address, timeout_s: float) -> None:
    """List the members of the cluster. A node that was restored has several actors, of which one is open.

    \b
    edgekv cluster members
    edgekv cluster members -o json
    """
    _, replication = _ask(http, timeout_s)
    if output == "json":
        print_json(replication["members"])
    elif replication["members"]:
        print_table(_MEMBERS, map(_member, replication["members"]))
    else:
        click.echo(_NO_MEMBERS)


@cluster.command()
@click.argument("member")
@http_option
@timeout_option
def remove(member: str, http: Address, timeout_s: float) -> None:
    """Take a member out that will not come back: until then nobody forgets what it may not have seen deleted.

    Ask the hub that leads. Should the node turn up again it is refused, until `edgekv cluster readmit` lets it come back with what it
    wrote; or it joins anew with an empty directory.

    \b
    edgekv cluster remove clinic-2-a
    """
    with NodeHttp(http, timeout_s) as node:
        node.change("DELETE", f"/v1/admin/members?member={quote(member, safe='')}")
    click.echo(f"removed: {member}")


@cluster.command()
@click.argument("member")
@http_option
@timeout_option
def readmit(member: str, http: Address, timeout_s: float) -> None:
    """Let a member come back that was removed, with what it wrote meanwhile. Nothing is lost, and nothing is counted twice.

    Ask the hub that leads. It comes when it next reaches a hub; a member that was parked needs no word for that.

    \b
    edgekv cluster readmit clinic-2-a
    """
    with NodeHttp(http, timeout_s) as node:
        node.change("PUT", f"/v1/admin/members?member={quote(member, safe='')}")
    click.echo(f"may come back: {member}")


@cluster.command()
@click.option(
    "--force", is_flag=True, required=True, help="Say that those who have not come back are not to be waited for."
)
@http_option
@timeout_option
def lead(force: bool, http: Address, timeout_s: float) -> None:  # noqa: ARG001 - the flag is the operator's word
    """Have a hub that was restored lead again, although not all members have come back to it.

    It waits for them because they may know what it has forgotten: members that came after the backup, and what they have. Remove those
    that are gone for good instead, if it leads; ask this of the hub that founded the cluster, and only when waiting is worse.

    \b
    edgekv cluster lead --force
    """
    with NodeHttp(http, timeout_s) as node:
        node.change("PUT", "/v1/admin/leader")
    click.echo("this node leads")


@cluster.command()
@output_option
@http_option
@timeout_option
def conflicts(output: Output, http: Address, timeout_s: float) -> None:
    """Show values that were lost to concurrent writes, since the node started: how many, and the newest with what was kept.

    Each is counted at the nodes to which the winner came first, and what was lost to rows, or brought late, at the node that took or
    brought it. To keep both values, use a keyspace with conflict = "siblings".

    \b
    edgekv cluster conflicts
    edgekv cluster conflicts -o json
    """
    with NodeHttp(http, timeout_s) as node:
        found = node.read("/v1/admin/conflicts").json()
        members = node.read("/v1/status").json().get("replication", {}).get("members", []) if output == "table" else []
    if not isinstance(found.get("conflicts"), list):
        raise Unavailable("the answer has no conflicts: is this the HTTP listener of an EdgeKV node?")
    if output == "json":
        print_json(found)
        return
    if not found["totals"]:
        click.echo("No value was lost to a concurrent write, as far as this node is certain of it.")
        return
    for name, total in found["totals"].items():
        click.echo(f"{name}: {total} lost")
    click.echo()
    names = {member["actor"]: member["name"] for member in members}
    print_table(_CONFLICTS, [_conflict(each, names) for each in found["conflicts"]])
    click.echo(f"\n{_CONFLICTS_ARE}")


def advice(status: Document) -> list[str]:
    """What is wrong by a node's /v1/status, and what to do about it, a sentence each; nothing when all is well."""
    replication: Document = status["replication"]
    found: list[str] = []
    if status.get("read_only"):
        found.append(f"This node is read-only, and takes nothing in: {status['read_only']}")
    elif status.get("disk_full"):
        found.append(
            "The disk of this node is full: it takes no writes of clients, and nothing of other nodes. Make room, and it goes on "
            "by itself."
        )
    elif not replication["member"] and replication["links"]:
        found.append(
            "This node is not a member of its cluster yet, and takes no writes: it is linked, and waits to be admitted. If that "
            "lasts, see what the hub that leads the cluster says: edgekv cluster status with its --http."
        )
    elif not replication["member"]:
        found.append(
            "This node is not a member of its cluster yet, and takes no writes: it has to reach a hub once. "
            "Check its [[upstream]], and that the hub's peer listener can be reached from here."
        )
    if replication["member"] and not replication["members"]:
        found.append(_NO_MEMBERS)
    if replication["member"] and replication["role"] == "edge" and not replication["links"]:
        found.append(
            "This node has no link: it goes on alone, and what is written here stays here until a hub can be reached. "
            "Check its [[upstream]] and the network."
        )
    if replication["refused_stamps"] is not None:
        found.append(_refused_stamps(replication["refused_stamps"]))
    found += [
        f"{each['name']} ({each['site']}) is parked: it was silent for too long, and holds nothing back any more. It goes on serving "
        "its users; when it reaches a hub it is admitted again."
        for each in replication["members"]
        if each["state"] == "parked"
    ]
    found += [
        "This node had another history than the cluster's, and has set it aside. See what the cluster lacks of it with "
        f"`edgekv cluster unite {folder}`, and remove that folder when you have what you need."
        for folder in replication["aside"]
    ]
    for each in replication["unlinked"]:
        if not each["lag_changes"]:
            found.append(
                f"{each['name']} ({each['site']}) is not linked to this node; as far as is known it lacks nothing."
            )
        else:
            found.append(
                f"{each['name']} ({each['site']}) is not linked to this node, and has lacked {_changes(each)} for "
                f"{_duration(each['lag_seconds'])}. If it runs, check the network between the two: it catches up by itself."
            )
    for link in replication["links"]:
        if link["peer"] is not None:
            found += _advice_for(link)
    return found


def _refused_stamps(refusal: Document) -> str:
    stamps_s, clock_s = refusal["stamps_ahead_ms"] / 1000, refusal["clock_ahead_ms"] / 1000
    what = (
        f"{refusal['by']} takes no changes of this node: what was written here is stamped {_duration(stamps_s)} ahead of its clock. "
        "Nothing is lost, and this node goes on serving its users. "
    )
    if abs(clock_s) <= CLOCK_AHEAD_MS_MAX / 1000:
        return what + "Its clock is right again: it is about to put the stamps right, for which it is started anew."
    way = "ahead" if clock_s > 0 else "behind"
    return (
        f"{what}Its clock is {_duration(abs(clock_s))} {way}. Set it (or that hub's, if that is the wrong one): then this node puts "
        "the stamps right, for which it is started anew."
    )


def _advice_for(link: Document) -> list[str]:
    found: list[str] = []
    if link["lag_seconds"] >= LAG_S_MAX:
        found.append(
            f"{link['peer']} has been behind by {_changes(link)} for {_duration(link['lag_seconds'])}, though it is linked: "
            "the line or its disk is slow. See its own status."
        )
    if abs(link["skew_ms"]) >= SKEW_MS_MAX:
        way = "ahead of" if link["skew_ms"] > 0 else "behind"
        found.append(
            f"The clock of {link['peer']} is {_duration(abs(link['skew_ms']) / 1000)} {way} this node's. Of concurrent writes the "
            "later one stays, by these clocks: synchronise them."
        )
    return found


def _ask(http: Address, timeout_s: float) -> tuple[Document, Document]:
    """A node's status, and what of it is about other nodes."""
    with NodeHttp(http, timeout_s) as node:
        found = node.read("/v1/status").json()
    replication = found.get("replication")
    if not isinstance(replication, dict):
        raise Unavailable(f"what listens at {http} says nothing of a cluster: is it a node of this release?")
    return found, replication


def _member(each: Document) -> tuple[str, ...]:
    silent = f", silent for {_duration(each['silent_s'])}" if each["silent_s"] >= SILENT_S_SHOWN else ""
    return each["name"], each["site"], each["role"], each["state"] + silent, each["actor"]


def _link(each: Document) -> tuple[str, ...]:
    return (
        each["peer"] or "(not greeted)",
        each["site"] or "",
        each["phase"],
        _changes(each) if each["lag_changes"] else "nothing",
        _duration(each["lag_seconds"]) if each["lag_seconds"] else "",
        _size(each["sent_bytes"]),
        _size(each["received_bytes"]),
        f"{round(each['skew_ms'] / 1000, 1) + 0.0:+.1f} s",  # no -0.0
        f"{max(0, each['silent_ms']) / 1000:.1f} s",
    )


def _conflict(each: Document, names: dict[str, str]) -> tuple[str, ...]:
    field = from_json(each["field"])
    return (
        each["keyspace"],
        as_cell(from_json(each["key"]) or b""),
        "" if field is None else as_cell(field),
        *(("(nothing)", "") if each["kept"] is None else (_version(each["kept"]), _writer(each["kept"], names))),
        _version(each["discarded"]),
        _writer(each["discarded"], names),
    )


def _writer(version: Document, names: dict[str, str]) -> str:
    late = ", late" if version["late"] else ""
    return f"{names.get(version['actor'], version['actor'])}, {_time(version['wall_ms'])}{late}"


def _version(version: Document) -> str:
    value = from_json(version["value"])
    if value is None:
        return "(deleted)"
    size = version["value_bytes"]
    return as_cell(value) if size == len(value) else f"{as_cell(value)}... ({size} bytes)"


def _changes(each: Document) -> str:
    count = each["lag_changes"]
    return f"{count} change{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return (
        f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.0f} h"
        if minutes < 2880
        else f"{minutes / 1440:.0f} days"
    )


def _size(count: int) -> str:
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / (1 << 10):.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def _time(wall_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_ms / 1000))
