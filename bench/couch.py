"""Catch-up of 20,000 JSON documents: EdgeKV's edge and hub against CouchDB's replication, as pouchdb-server speaks it.

Two pouchdb-servers (LevelDB below), the documents in one of them, then `POST /_replicate` at the other, which pulls: CouchDB's
protocol compares revisions and fetches documents in batches of 100, over HTTP. For EdgeKV the link is cut, the documents are written
at the edge, and the link is healed. Expected: a document costs pouchdb some 100 µs of JavaScript on each side and a few writes to
LevelDB, and EdgeKV some 5 µs.

pouchdb-server comes from npm: from the directory that --pouchdb names (one with node_modules), else it is installed for the run, which
takes two minutes and the network.
"""

import argparse
import http.client
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench import flights, pairs, resp_client, servers
from bench.results import Table, save
from bench.run import Run, argument_parser, measured_run, step
from bench.samples import Ratio, Spread
from bench.servers import Server, ServerError
from edgekv.config import Address

DOCUMENTS: Final = 20_000
QUICK_DOCUMENTS: Final = 500
BAR: Final = 20.0
PACKAGE: Final = "pouchdb-server@4.2.0"
INSTALL_TIMEOUT_S: Final = 400.0
TIMEOUT_S: Final = 600.0

_BULK: Final = 1_000
_SENTINEL: Final = b"sentinel"

Documents = list[tuple[bytes, bytes]]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    count = QUICK_DOCUMENTS if arguments.quick else DOCUMENTS
    with measured_run(arguments) as run:
        documents = list(itertools.islice(flights.pairs(arguments.flights), count))
        program, reason = _program(run, arguments.pouchdb, install=not arguments.quick)
        rates: dict[str, list[float]] = {}
        for index in range(rounds):
            legs = {"edgekv": _edgekv(run, documents)}
            if program is not None:
                legs["couch"] = _couch(run, program, documents)
            for name, seconds in legs.items():
                rates.setdefault(name, []).append(count / seconds)
                step(f"round {index + 1} {name}: {count / seconds:,.0f} documents/s")
        save(
            "couch",
            quick=run.quick,
            machine_description=run.machine,
            settings={"documents": count, "rounds": rounds, "peer": PACKAGE, "peer_missing": reason},
            measurements={"documents_per_s": rates},
            tables=[_table(rates, documents, reason)],
        )


def _program(run: Run, directory: Path | None, *, install: bool) -> tuple[list[str] | None, str]:
    """The command of pouchdb-server; None, and why there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or (directory is None and npm is None):
        return None, "node or npm is not installed"
    if directory is None:
        if not install:
            return None, "a quick run installs nothing; give --pouchdb"
        directory = run.directory / "pouchdb"
        directory.mkdir()
        step(f"npm install {PACKAGE}")
        command = ["npm", "install", "--no-audit", "--no-fund", PACKAGE]
        try:
            done = subprocess.run(
                command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"npm install did not end within {INSTALL_TIMEOUT_S:g} s"
        if done.returncode:
            return None, f"npm install failed: {done.stderr.strip()[-200:]}"
    script = directory.absolute() / "node_modules" / ".bin" / "pouchdb-server"
    if not script.exists():
        return None, f"{script} does not exist"
    return [node, str(script)], ""


def _edgekv(run: Run, documents: Documents) -> float:
    """From the first new connection until the hub has the last one."""
    with pairs.edgekv(run, through_link=True) as pair:
        link = pair.the_link()
        link.cut()
        resp_client.load_pairs(pair.writer.resp_address(), [*documents, (_SENTINEL, b"last")])
        pair.wait_idle()
        healed = link.heal()
        connected = link.wait_connected(healed)
        seen = resp_client.wait_value(pair.reader.resp_address(), _SENTINEL, b"last", TIMEOUT_S)
        pair.check()
        return seen - connected


def _couch(run: Run, program: list[str], documents: Documents) -> float:
    """From the request to replicate until it is answered."""
    with _pouchdb(run, program) as source, _pouchdb(run, program) as target:
        for server in (source, target):
            _ask(server, "PUT", "/documents", None)
        for at in range(0, len(documents), _BULK):
            docs = [json.loads(value) | {"_id": key.decode()} for key, value in documents[at : at + _BULK]]
            _ask(source, "POST", "/documents/_bulk_docs", {"docs": docs})
        order = {
            "source": f"http://{source.http_address()}/documents",
            "target": f"http://{target.http_address()}/documents",
        }
        started = time.monotonic()
        answer = _ask(target, "POST", "/_replicate", order)
        seconds = time.monotonic() - started
        if not answer["ok"] or answer["docs_written"] != len(documents):
            raise ServerError(f"pouchdb-server replicated not all: {str(answer)[:300]}")
        return seconds


@contextmanager
def _pouchdb(run: Run, program: list[str]) -> Iterator[Server]:
    with run.data_directory("pouchdb") as directory:
        (directory / "config.json").write_text('{"log": {"level": "error"}}')
        options = [
            "--dir",
            str(directory),
            "--config",
            str(directory / "config.json"),
            "--no-color",
            "--level",
            "error",
        ]
        with servers.http_program("pouchdb-server", [*program, *options], directory, "/") as server:
            yield server


def _ask(server: Server, method: str, path: str, body: object) -> Any:
    address: Address = server.http_address()
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise ServerError(f"{method} {path} answered {response.status}: {answer[:200]!r}")
    return json.loads(answer)


def _table(rates: dict[str, list[float]], documents: Documents, reason: str) -> Table:
    ours = Spread(tuple(rates["edgekv"]))
    rows = [("EdgeKV, an edge that was cut off", ours.text(), "", "")]
    if "couch" in rates:
        ratio = Ratio(ours, Spread(tuple(rates["couch"])), BAR)
        rows.append((PACKAGE, ratio.theirs.text(), ratio.text(), f">= {BAR:g} times {ratio.verdict()}"))
    else:
        rows.append((PACKAGE, f"not measured: {reason}", "", f">= {BAR:g} times"))
    size = sum(len(value) for _, value in documents) / len(documents)
    note = (
        f"{len(documents):,} documents of {size:.0f} bytes. Medians (lowest-highest) of {len(ours.samples)} rounds. EdgeKV is durable "
        "on both sides; it is timed from the first new connection until the hub shows the last one."
    )
    return Table("Catch-up of documents (documents/s)", ("", "documents/s", "EdgeKV / it", "bar"), tuple(rows), (note,))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__ or "", timeout_s=1800)
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 with --quick")
    parser.add_argument("--flights", type=Path, default=None, help="flights.csv.zip; absent: the bundled weather")
    parser.add_argument("--pouchdb", type=Path, default=None, help="a directory in which pouchdb-server is installed")
    return parser


if __name__ == "__main__":
    main()
