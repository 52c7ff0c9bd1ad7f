"""When a node of a development cluster is one: as soon as it takes writes."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgekv.cli import dev_process
from edgekv.cli.dev_layout import HOST, DevNode, free_ports
from edgekv.cli.dev_process import DevProcess
from edgekv.errors import InvalidRequest, Unavailable

HUB = {"name": "cloud-1", "state": "open"}
VIEWS = [
    [],
    [HUB],
    [HUB, {"name": "EWR-1", "state": "closed"}],
    [HUB, {"name": "EWR-1", "state": "closed"}, {"name": "EWR-1", "state": "open"}],
]
"""Of the members, as a node comes to see them."""


class Status(ThreadingHTTPServer):
    """A node of which only the status can be asked. Each answer is the next view; the last one stays."""

    def __init__(self, views: list[list[dict[str, str]]]) -> None:
        self.asked = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                view = views[min(server.asked, len(views) - 1)]
                server.asked += 1
                replication = {
                    "members": view,
                    "member": False,
                    "role": "edge",
                    "links": [],
                    "unlinked": [],
                    "aside": [],
                    "refused_stamps": None,
                }
                body = json.dumps({"replication": replication, "disk_full": True}).encode()
                self.send_response(200 if self.path == "/v1/status" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        super().__init__((HOST, 0), Handler)


@pytest.fixture
def status(request: pytest.FixtureRequest) -> Iterator[Status]:
    with Status(request.param) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def process(tmp_path: Path, server: Status) -> DevProcess:
    return DevProcess(tmp_path, DevNode("EWR-1", "EWR", "edge", server.server_address[1], 0, 0), [], print)


@pytest.mark.parametrize("status", [VIEWS], indirect=True)
def test_a_node_is_waited_for_until_it_sees_itself_as_an_open_member(tmp_path: Path, status: Status) -> None:
    asyncio.run(process(tmp_path, status).admitted())
    assert status.asked == len(VIEWS)


@pytest.mark.parametrize("status", [VIEWS[:3]], indirect=True)
def test_a_node_that_is_not_admitted_is_said_with_what_keeps_it_and_its_log(
    tmp_path: Path, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_process, "ADMITTED_S", 0.3)
    with pytest.raises(Unavailable, match=r'"EWR-1" was not admitted .*The disk .* is full.* See .*EWR-1\.log'):
        asyncio.run(process(tmp_path, status).admitted())


def test_a_node_that_ends_before_it_is_admitted_is_said_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "EWR-1.log").write_text("edgekv: the disk is full\n")
    node = DevProcess(tmp_path, DevNode("EWR-1", "EWR", "edge", free_ports(1)[0], 0, 0), [], print)
    with pytest.raises(Unavailable, match='node "EWR-1" ended before it was admitted: edgekv: the disk is full'):
        asyncio.run(node.admitted())


def test_of_two_starts_at_once_one_is_refused_and_one_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\necho $$ >> {started}\necho ready\nexec sleep 60\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))

    async def twice() -> list[BaseException | None]:
        node = DevProcess(tmp_path, DevNode("EWR-1", "EWR", "edge", 0, 0, 0), [], print)
        answers = await asyncio.gather(node.start(), node.start(), return_exceptions=True)
        assert node.state == "ready"
        await node.stop()
        return list(answers)

    first, second = asyncio.run(twice())
    assert first is None and isinstance(second, InvalidRequest)
    assert len(started.read_text().split()) == 1
