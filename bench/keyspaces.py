"""Partial replication: the link of an edge whose site holds 1 % of the data, against that of an edge whose site holds all of it.

Both edges are connected with one hub, where the data is written. Expected: what an edge does not hold is not sent, so its link carries
1 % and the heartbeats; and nothing of it is in its directory.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import pairs, resp_client, servers, status
from bench.link import link_to
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import verdict
from bench.servers import ServerError
from bench.workload import Workload

VALUE_BYTES: Final = 800
KEYS: Final = 128_000
"""A little more than 100 MB."""
QUICK_KEYS: Final = 5_000
SHARE: Final = 100
BAR: Final = 0.012
TIMEOUT_S: Final = 120.0
HUB_SETTINGS: Final = """
[[keyspace]]
prefix = ""
name = "default"
sites = ["full"]
[[keyspace]]
prefix = "part/"
name = "part"
sites = ["full", "part"]
"""
SITES: Final = ("full", "part")

_SETTLE_S: Final = 3.0
_MARK: Final = b"value of another keyspace"
_CHUNK: Final = 1 << 20


def main(argv: Sequence[str] | None = None) -> None:
    arguments = argument_parser(__doc__ or "", timeout_s=600).parse_args(argv)
    with measured_run(arguments) as run:
        keys = QUICK_KEYS if run.quick else KEYS
        passed = _passed(run, keys)
        save(
            "keyspaces",
            quick=run.quick,
            machine_description=run.machine,
            settings={"keys": keys, "value_bytes": VALUE_BYTES, "one_in": SHARE},
            measurements={"link_bytes": passed},
            tables=[_table(passed, keys)],
        )


def _passed(run: Run, keys: int) -> dict[str, int]:
    """The bytes of each link, from before the data is written until it is there and acknowledged."""
    with ExitStack() as stack:
        directory = stack.enter_context(run.data_directory("hub"))
        settings = pairs.node_settings("cloud", "cloud", HUB_SETTINGS)
        hub = stack.enter_context(servers.node(directory, settings=settings))
        links, edges, directories = {}, {}, {}
        for site in SITES:
            links[site] = stack.enter_context(link_to(hub.peer_address()))
            directories[site] = stack.enter_context(run.data_directory(site))
            settings = pairs.node_settings(f"edge-{site}", site, upstream=links[site].address)
            edges[site] = stack.enter_context(servers.node(directories[site], settings=settings))
            pairs.wait_admitted(edges[site])
        time.sleep(_SETTLE_S)
        before = {site: link.bytes for site, link in links.items()}
        resp_client.load_pairs(hub.resp_address(), _pairs(keys))
        for site, edge in edges.items():
            resp_client.wait_value(edge.resp_address(), b"part/last", b"last", TIMEOUT_S)
            step(f"{site} has everything")
        for edge in edges.values():
            status.wait_applied(edge)
        time.sleep(_SETTLE_S)
        passed = {site: link.bytes - before[site] for site, link in links.items()}
        pairs.verify([hub, *edges.values()])
        held = {site: _holds_mark(path) for site, path in directories.items()}
        if held != {"full": True, "part": False}:
            raise ServerError(f"values of a keyspace that is not at site part are in the directories {held}")
        return passed


def _pairs(keys: int) -> Iterator[tuple[bytes, bytes]]:
    values = Workload(5).columns(VALUE_BYTES // 100)
    for number in range(keys):
        _, column = next(values)
        value = b"".join(column)
        if number % SHARE:
            yield b"all/%012d" % number, _MARK + value[len(_MARK) :]
        else:
            yield b"part/%012d" % number, value
    yield b"part/last", b"last"


def _holds_mark(directory: Path) -> bool:
    """Whether any file of a node has a value of the other keyspace."""
    for path in directory.rglob("*"):
        if path.is_file():
            end = b""
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    if _MARK in end + chunk:
                        return True
                    end = chunk[-len(_MARK) :]
    return False


def _table(passed: dict[str, int], keys: int) -> Table:
    share = passed["part"] / passed["full"]
    megabytes = keys * VALUE_BYTES / 1e6
    rows = (
        ("holds all", f"{megabytes:.1f}", f"{passed['full']:,}", "", ""),
        (
            "holds 1 %",
            f"{megabytes / SHARE:.2f}",
            f"{passed['part']:,}",
            f"{share:.2%}",
            f"<= {BAR:.1%} {verdict(share, below=BAR)}",
        ),
    )
    note = (
        "Values that do not compress. Both directions at the socket, HELLO and the first meta aside; heartbeats and acknowledgements "
        "are included. The files of the edge that holds 1 % were searched for values of the rest: none."
    )
    columns = ("edge", "its data, MB", "bytes on its link", "share", "bar")
    return Table(f"A keyspace of 1 % of {megabytes:.0f} MB", columns, rows, (note,))


if __name__ == "__main__":
    main()
