"""Concurrent values and keyspaces of a real node, through every interface: RESP, HTTP, the clients, the command line."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import redis

import edgekv
import edgekv.sync
from edgekv.cli.node_process import NodeProcess
from edgekv.client.asynchronous import Verbs
from edgekv.errors import Denied, InvalidRequest, WrongType

CONFIG = """
[[keyspace]]
prefix = "doc/"
name = "documents"
conflict = "siblings"
[[keyspace]]
prefix = "session/"
name = "sessions"
durability = "buffered"
ttl_s = 60
"""
SMALL = ("--memory-bytes", str(64 << 20))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "edgekv.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def node(config: Path) -> Iterator[NodeProcess]:
    with NodeProcess(config.parent / "data", "--config", str(config), *SMALL) as running:
        yield running


def siblings(client: redis.Redis, *words: str | bytes) -> Any:
    return client.execute_command("EDGEKV.SIBLINGS", *words)  # type: ignore[no-untyped-call]


def ask(node: NodeProcess, method: str, key: str, body: bytes = b"", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(node.http.host, node.http.port, timeout=20)
    try:
        connection.request(method, f"/v1/kv/{key}", body, {name.replace("_", "-"): v for name, v in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_what_redis_clients_put_at_once_stays_and_http_joins_it(node: NodeProcess) -> None:
    client = redis.Redis(port=node.resp.port)
    context, values = siblings(client, "GET", "doc/a")
    assert values == []
    for value in ("x", "y"):
        assert siblings(client, "PUT", "doc/a", context, value)
    assert (client.get("doc/a"), siblings(client, "GET", "doc/a")[1]) == (b"y", [b"y", b"x"])
    with pytest.raises(redis.ResponseError, match="WRONGTYPE the key holds 2 concurrent values"):
        client.append("doc/a", "z")
    answer, body = ask(node, "GET", "doc/a")
    document = json.loads(body)
    assert (answer.status, document["values"]) == (300, ["y", "x"])
    assert answer.headers["Edgekv-Context"] == document["context"]
    assert ask(node, "PUT", "doc/a", b"xy", Edgekv_Context=document["context"])[0].status == 204
    answer, body = ask(node, "GET", "doc/a")
    assert (answer.status, body) == (200, b"xy")
    assert ask(node, "DELETE", "doc/a", Edgekv_Context=answer.headers["Edgekv-Context"])[0].status == 204
    absent = ask(node, "GET", "doc/a")[0]
    assert (absent.status, bool(absent.headers["Edgekv-Context"])) == (404, True)


def test_values_survive_kill_9(config: Path, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", "--config", str(config), *SMALL) as node:
        context = siblings(redis.Redis(port=node.resp.port), "GET", "doc/k")[0]
        for value in ("x", "y"):
            siblings(redis.Redis(port=node.resp.port), "PUT", "doc/k", context, value)
        node.kill()
        node.start()
        client = redis.Redis(port=node.resp.port)
        assert siblings(client, "GET", "doc/k")[1] == [b"y", b"x"]


Use = Callable[[Verbs], Coroutine[Any, Any, None]]


@pytest.fixture(params=["socket", "inside"])
def on(request: pytest.FixtureRequest, node: NodeProcess, config: Path, tmp_path: Path) -> Callable[[Use], None]:
    async def on_store(use: Use) -> None:
        if request.param == "socket":
            async with edgekv.connect(f"edgekv://{node.resp}") as db:
                await use(db)
        else:
            async with edgekv.open(tmp_path / "own", config_file=config, memory_bytes=64 << 20) as db:
                await use(db)

    return lambda use: asyncio.run(on_store(use))


def test_a_client_sees_all_values_and_joins_them(on: Callable[[Use], None]) -> None:
    async def use(db: Verbs) -> None:
        document = db.siblings("doc/b")
        read = await document.get()
        assert read.values == []
        await document.put(b"x", context=read.context)
        await document.put(b"y", context=read.context, ttl_s=60)
        both = await document.get()
        assert both.values == [b"y", b"x"]
        await document.put(b"xy", context=both.context)
        assert (await document.get()).values == [b"xy"]
        assert await document.delete(context=both.context) == 0
        await document.put(b"all")
        assert (await document.get()).values == [b"all"]
        assert await document.delete() == 1
        assert (await document.get()).values == []
        with pytest.raises(InvalidRequest):
            await document.put(b"x", context="")
        with pytest.raises(InvalidRequest, match="context"):
            await document.put(b"x", context="rubbish!")
        with pytest.raises(Denied):
            await db.siblings("plain").get()

    on(use)


def test_the_client_without_await_has_the_same_verbs(node: NodeProcess) -> None:
    with edgekv.sync.connect(f"edgekv://{node.resp}") as db:
        document = db.siblings("doc/c")
        read = document.get()
        document.put(b"x", context=read.context)
        document.put(b"y", context=read.context)
        both = document.get()
        assert both == edgekv.Values([b"y", b"x"], both.context)
        assert document.delete(context=both.context) == 2
        db.counter("doc/n").add(2)
        document.put(b"1")
        with pytest.raises(WrongType, match="counting works on keys"):
            db.counter("doc/c").add()


def edgekv_program(node: NodeProcess, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "edgekv", *arguments, "--http", str(node.http)]
    ended = run(command, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_line_lists_keyspaces_and_shows_all_values(node: NodeProcess) -> None:
    code, out, _ = edgekv_program(node, "keyspace", "list")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "PREFIX", "CONSISTENCY", "CONFLICT", "DURABILITY", "TTL", "SITES", "HERE"],
        ["default", "(empty)", "crdt", "lww", "fsync", "none", "all", "yes"],
        ["_meta", "_meta/", "crdt", "lww", "fsync", "none", "all", "yes"],
        ["documents", "doc/", "crdt", "siblings", "fsync", "none", "all", "yes"],
        ["sessions", "session/", "crdt", "lww", "buffered", "60", "s", "all", "yes"],
    ]
    listed = json.loads(edgekv_program(node, "keyspace", "list", "-o", "json")[1])
    assert [each["name"] for each in listed] == ["default", "_meta", "documents", "sessions"]
    client = redis.Redis(port=node.resp.port)
    context = siblings(client, "GET", "doc/d")[0]
    for value in ("x", "y"):
        siblings(client, "PUT", "doc/d", context, value)
    code, out, err = edgekv_program(node, "get", "doc/d")
    assert (code, out) == (4, "") and "doc/d has 2 concurrent values" in err
    code, out, _ = edgekv_program(node, "get", "doc/d", "-o", "json")
    assert (code, json.loads(out)["values"]) == (0, ["y", "x"])


def test_a_put_that_is_sent_again_with_its_operation_id_makes_no_second_value(node: NodeProcess) -> None:
    client = redis.Redis(port=node.resp.port, decode_responses=False)
    session = bytes(8) + b"putagain"
    context, _ = siblings(client, "GET", "doc/again")
    for value in (b"first", b"first"):
        words = ("EDGEKV.OP", session, 1, "EDGEKV.SIBLINGS", "PUT", "doc/again", context, value)
        assert client.execute_command(*words) == b"OK"  # type: ignore[no-untyped-call]
    assert siblings(client, "GET", "doc/again")[1] == [b"first"]
    removal = ("EDGEKV.OP", session, 2, "EDGEKV.SIBLINGS", "DEL", "doc/again", siblings(client, "GET", "doc/again")[0])
    assert [client.execute_command(*removal) for _ in range(2)] == [1, 1]  # type: ignore[no-untyped-call]
    client.close()
