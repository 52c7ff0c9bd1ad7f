"""A node made of a dict behind a real HTTP server on a loopback port, and a client that sends exactly the bytes it is given.

The dict node keeps the engine's contract (barrier, frames, waiters, back-pressure), so that what HTTP owes to it can be tested
without a disk: `FakeNode.log_stuck` keeps frames from becoming durable, `FakeNode.block` holds writes back.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgekv.api.http.body import Bound
from edgekv.api.http.server import HttpServer
from edgekv.config import Config
from edgekv.crdt.decimals import text_of
from edgekv.engine.conflicts import Conflicts
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Head, Keyspace, KeyspacePolicy, Keyspaces
from edgekv.errors import Denied, EdgeKVError, InvalidRequest, NotANumber, NotFound, ReadOnly, TooLarge, WrongType
from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.limits import KEY_BYTES_MAX
from edgekv.metrics import Metrics
from edgekv.node import decimals
from edgekv.node.operations import Entry, Listed, Page, Version, value_advice
from edgekv.node.session import Sessions
from edgekv.replication.acks import Acks
from tests.unit.api.fake_watches import FakeWatches
from tests.unit.api.http.fake_collections import FakeMaps, FakeSets, FakeSiblings

ACTOR: Final[Actor] = node_actor(bytes(16), b"\x00\x00\x00\x01abcd")
NOW_MS: Final = 1_700_000_000_000


@dataclass
class Stored:
    """A row of the dict, and the frame that wrote it."""

    value: bytes | None
    hlc: int
    expiry_ms: int
    frame: Frame


class FakeKeyspace:
    id = KeyspaceId(0)
    name = "default"
    hlc = NOW_MS << 16


class FakeKeyspaces:
    def __init__(self) -> None:
        self.default = FakeKeyspace()

    def of(self, key: bytes, /) -> FakeKeyspace:
        return self.default


class FakeAdmission:
    read_only: EdgeKVError | None = None
    outsider: EdgeKVError | None = None


class FakeEngine:
    def __init__(self) -> None:
        self.actor = ACTOR
        self.barrier: Frame | None = None
        self.write_blocked = False
        self.on_room: list[Callable[[], None]] = []
        self.keyspaces = FakeKeyspaces()
        self.admission = FakeAdmission()
        self.conflicts = Conflicts()


class FakeDigest:
    """Of all rows; read in two steps."""

    def __init__(self, operations: "FakeOperations", keyspace: str, ttl_ms: int | None, prefix: bytes) -> None:
        if keyspace != "default":
            raise InvalidRequest("there is no keyspace of that name here.")
        self.operations = operations
        self.asked = ttl_ms, prefix
        self.steps = 0

    def step(self) -> bool:
        self.operations.page(b"", b"", 100)
        self.steps += 1
        return self.steps < 2

    def figures(self) -> dict[str, object]:
        ttl_ms, prefix = self.asked
        vector, digest = {"node-1": 7}, "0" * 32
        ranges = [{"prefix": prefix, "digest": digest, "keys": 1, "first": b"k", "last": b"k"}]
        return {
            "keyspace": "default",
            "ttl_ms": NOW_MS if ttl_ms is None else ttl_ms,
            "moved": False,
            "vector": vector,
            "vector_after": vector,
            "keys": self.steps,
            "digest": digest,
            "ranges": ranges,
        }


class FakeOperations:
    """node.operations over a dict."""

    def __init__(self, value_bytes_max: int) -> None:
        self.engine = FakeEngine()
        self.value_bytes_max = value_bytes_max
        self.rows: dict[bytes, Stored] = {}
        self.filling = Frame(1)
        self.fault: Exception | None = None
        """Raised by the next write, before anything happens."""
        self.read_fault: Exception | None = None
        """Raised by the next look at a key."""
        self.ends: dict[bytes, int] = {}
        """When sets and maps expire."""
        self.pages = 0
        self.batches: list[list[tuple[object, ...]]] = []
        self.sets = FakeSets(self)
        self.maps = FakeMaps(self)
        self.siblings = FakeSiblings(self)

    def now_ms(self) -> int:
        return NOW_MS

    def check_key(self, key: bytes) -> None:
        if not key:
            raise InvalidRequest("the key is empty.")
        if len(key) > KEY_BYTES_MAX:
            raise TooLarge("the key is too long.")

    def get(self, key: bytes) -> bytes | None:
        entry = self.get_entry(key)
        return None if entry is None else entry.value

    def get_entry(self, key: bytes) -> Entry | None:
        row = self.rows.get(key)
        self.look(key, None if row is None else row.frame)
        if row is None or row.value is None:
            if self.holds(key):
                raise WrongType("the key holds another type.")
            return None
        return Entry(key, row.value, Version(row.hlc, ACTOR), row.expiry_ms)

    def look(self, key: bytes, frame: Frame | None) -> None:
        """What every read owes to its caller."""
        self.check_key(key)
        if self.read_fault is not None:
            raise self.read_fault
        if frame is not None and not frame.done:
            self.engine.barrier = frame

    def holds(self, key: bytes) -> bool:
        row = self.rows.get(key)
        return bool((row and row.value is not None) or self.sets.rows.get(key) or self.maps.rows.get(key))

    def set(self, key: bytes, value: bytes, *, expiry_ms: int = 0) -> bool:
        self._write(key, value, expiry_ms)
        return True

    def delete(self, keys: Sequence[bytes]) -> int:
        for key in keys:
            self.look(key, self.rows[key].frame if key in self.rows else None)
        existing = [key for key in dict.fromkeys(keys) if self.holds(key)]
        for key in existing:
            self._write(key, None)
        return len(existing)

    def increment(self, key: bytes, delta: int) -> int:
        value = self.get(key) or b"0"
        total = int(value) + delta if len(value) < 40 and value.removeprefix(b"-").isdigit() else 1 << 64
        if not -(1 << 63) <= total < 1 << 63:
            raise NotANumber("value is not an integer or out of range")
        self._write(key, b"%d" % total)
        return total

    def increment_float(self, key: bytes, delta: bytes) -> bytes:
        _, total = decimals.sum_of(self.get(key), delta)
        self._write(key, text_of(total))
        return text_of(total)

    def page(self, start: bytes, prefix: bytes, limit: int) -> Page:
        self.pages += 1
        if self.read_fault is not None:
            raise self.read_fault
        named = {*self.rows, *self.sets.rows, *self.maps.rows}
        keys = sorted(key for key in named if key.startswith(prefix) and key >= start and self.holds(key))
        return Page(list(map(self._listed, keys[:limit])), keys[limit] if len(keys) > limit else None)

    def _listed(self, key: bytes) -> Listed:
        row, elements, fields = self.rows.get(key), self.sets.rows.get(key, {}), self.maps.rows.get(key, {})
        for frame in (None if row is None else row.frame, self.sets.frames.get(key), self.maps.frames.get(key)):
            self.look(key, frame)
        string = None
        if row is not None and row.value is not None:
            string = Entry(key, row.value, Version(row.hlc, ACTOR), row.expiry_ms)
        return Listed(key, string, len(elements), len(fields), self.ends.get(key, 0))

    def batch(self, operations: Sequence[tuple[object, ...]]) -> list[object]:
        self.batches.append(list(operations))
        for _, key, *_ in operations:
            assert isinstance(key, bytes)
            self.check_key(key)
        return [self._step(operation) for operation in operations]

    def _step(self, operation: tuple[object, ...]) -> object:
        match operation:
            case ("put", bytes(key), bytes(value), int(expiry_ms)):
                self.set(key, value, expiry_ms=expiry_ms)
                return None
            case ("delete", bytes(key)):
                return self.delete([key]) == 1
            case ("add", bytes(key), int(delta)):
                return self.increment(key, delta)
            case ("sadd", bytes(key), list(members)):
                return self.sets.add(key, members)
            case ("srem", bytes(key), list(members)):
                return self.sets.remove(key, members)
            case ("hset", bytes(key), list(pairs)):
                return self.maps.put(key, pairs)
            case ("hdel", bytes(key), list(fields)):
                return self.maps.remove(key, fields)
            case ("hadd", bytes(key), bytes(field), int(delta)):
                return self.maps.increment(key, field, delta)
        raise AssertionError(operation)

    def keyspaces(self) -> list[dict[str, object]]:
        figures = {
            "consistency": "crdt",
            "conflict": "lww",
            "late_write": "keep",
            "durability": "fsync",
            "ttl_s": 0,
            "system": False,
            "sites": [],
            "draining": [],
            "state": "held",
        }
        return [{"name": "default", "prefix": b"", **figures}, {"name": "odd", "prefix": b"\xff", **figures}]

    def vectors(self) -> dict[str, dict[str, int]]:
        return {"default": {"node-1": 7}}

    def digest(self, keyspace: str, ttl_ms: int | None = None, prefix: bytes = b"") -> FakeDigest:
        return FakeDigest(self, keyspace, ttl_ms, prefix)

    def status(self) -> dict[str, object]:
        return {"durable_lsn": 7, "actor": "node-1"}

    def _write(self, key: bytes, value: bytes | None, expiry_ms: int = 0) -> None:
        self.check_key(key)
        if value is not None and len(value) > self.value_bytes_max:
            raise Bound(self.value_bytes_max, value_advice(self.value_bytes_max)).error()
        hlc = self.begin_write(key)
        self.sets.clear(key)
        self.maps.clear(key)
        self.rows[key] = Stored(value, hlc, expiry_ms, self.filling)

    def begin_write(self, key: bytes) -> int:
        """What every write owes; its stamp."""
        self.check_key(key)
        if self.fault is not None:
            raise self.fault
        assert not self.engine.write_blocked, "a write passed the back-pressure"
        keyspace = self.engine.keyspaces.of(key)
        keyspace.hlc += 1
        self.engine.barrier = self.filling
        return keyspace.hlc


class FakeCommit:
    """Of a node that has no log."""

    durable_lsn = written_lsn = 0

    def heads_written(self, keyspace: Keyspace, /) -> dict[Actor, Head]:
        own = {ACTOR: Head(keyspace.seq, 0)} if keyspace.seq else {}
        return {**keyspace.vector, **own}


class FakeReplication:
    def __init__(self) -> None:
        self.orders: list[object] = []
        """What an operator asked about keyspaces."""

    def remove(self, name: str, /) -> bool:
        if name != "edge":
            raise NotFound(f"there is no member {name!r}.")
        return True

    def readmit(self, name: str, /) -> bool:
        return self.remove(name)

    def lead(self) -> bool:
        return True

    def create(self, name: str, prefix: bytes, sites: tuple[str, ...], /, *, siblings: bool) -> None:
        if name == "default":
            raise Denied(f"there is a keyspace {name!r} already.")
        self.orders.append((name, prefix, sites, siblings))

    def add_site(self, name: str, site: str, /) -> bool:
        if name == "none":
            raise NotFound(f"there is no keyspace {name!r}.")
        self.orders.append((name, "+", site))
        return True

    def unknown(self, sites: Iterable[str], /) -> list[str]:
        return [site for site in sites if site == "shop-3"]

    def remove_site(self, name: str, site: str, /) -> bool:
        if name == "none":
            raise NotFound(f"there is no keyspace {name!r}.")
        self.orders.append((name, "-", site))
        return True

    @property
    def membership(self) -> "FakeReplication":
        return self

    def begin(self, keyspace_name: str, prefixes: list[bytes], source: str, *, union: bool) -> int:
        if keyspace_name != "default" or not prefixes:
            raise InvalidRequest(f"there is no keyspace {keyspace_name!r}.")
        return NOW_MS

    @property
    def repairs(self) -> "FakeReplication":
        return self

    @property
    def keyspaces(self) -> "FakeReplication":
        return self

    def status(self) -> dict[str, object]:
        return {"members": [{"name": "hub"}]}


class FakeNode:
    """The Host."""

    def __init__(self, *, value_bytes_max: int = 1 << 20, memory_bytes: int = 64 << 20) -> None:
        self.operations = FakeOperations(value_bytes_max)
        self.watches = FakeWatches()
        self.acks = Acks(actor=ACTOR, site="s")
        self.keyspaces = Keyspaces([KeyspacePolicy(id=KeyspaceId(0), name="default", prefix=b"")])
        self.sessions = Sessions(actor=ACTOR, keyspaces=self.keyspaces, commit=FakeCommit())
        self.metrics = Metrics()
        self.config = Config(data_dir=Path("unused"), memory_bytes=memory_bytes)
        self.node_name, self.site_name, self.version, self.started_ms = "n", "s", "0", NOW_MS
        self.is_ready = True
        self.replication: FakeReplication | None = None
        self.log_stuck = False
        self.frames_flushed = 0

    def monotonic_ms(self) -> int:
        return 0

    def kick_soon(self) -> None:
        if not self.log_stuck:
            asyncio.get_running_loop().call_soon(self.make_durable)

    def make_durable(self) -> None:
        """The frame reached the disk: release what waits for it."""
        frame, self.operations.filling = self.operations.filling, Frame(self.operations.filling.number + 1)
        frame.done = True
        self.frames_flushed += 1
        for waiter, payload in frame.waiters:
            waiter.release(payload)

    def fail_log(self, error: EdgeKVError) -> None:
        for waiter, _ in self.operations.filling.waiters:
            waiter.fail(error)

    def block(self) -> None:
        self.operations.engine.write_blocked = True

    def open(self) -> None:
        engine = self.operations.engine
        engine.write_blocked = False
        callbacks, engine.on_room = engine.on_room, []
        for callback in callbacks:
            callback()

    def refuse_writes(self, reason: str) -> None:
        self.is_ready = False
        self.operations.engine.admission.read_only = ReadOnly(reason)

    def ready(self) -> bool:
        return self.is_ready

    async def run_slices(self, step: Callable[[], bool], /) -> None:
        while step():  # noqa: ASYNC110 - giving the loop back is the point
            await asyncio.sleep(0)


@dataclass(frozen=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection. `send` and `receive` apart allow pipelining and unfinished requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader: Final = reader
        self.writer: Final = writer

    async def send(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        given = headers or {}
        length = {"Content-Length": str(len(body))} if body and "Transfer-Encoding" not in given else {}
        lines = {"Host": "x", **length, **given}
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in lines.items())
        await self.send_raw(head.encode("utf-8", "surrogateescape") + b"\r\n" + body)

    async def send_raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, *, to_head: bool = False) -> Response:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in head[1:] if line)}
            body = b"" if to_head else await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Response(int(head[0].split()[1]), headers, body)

    async def call(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        await self.send(method, target, headers, body)
        return await self.receive(to_head=method == "HEAD")

    async def post(self, target: str, value: object, **headers: str) -> Response:
        lines = {"Content-Type": "application/json", **headers}
        return await self.call("POST", target, lines, json.dumps(value).encode())

    async def ended(self) -> bool:
        """Whether the server closed the connection; waits for it."""
        async with asyncio.timeout(10):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


class Site:
    """A served fake node, a first client, and more on demand."""

    def __init__(self, node: FakeNode, server: HttpServer, port: int, client: Client) -> None:
        self.node: Final = node
        self.server: Final = server
        self.port: Final = port
        self.client: Final = client
        self.call: Final = client.call
        self.post: Final = client.post
        self.clients: Final = [client]

    async def connect(self) -> Client:
        client = await connect(self.port)
        self.clients.append(client)
        return client


async def connect(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop back until something holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the code under test
            await asyncio.sleep(0)


async def run_site(test: Callable[[Site], Awaitable[None]], node: FakeNode, connections_max: int) -> None:
    server = HttpServer(node, connections_max=connections_max, linger_s=0.05)
    bound = await server.listen("127.0.0.1", 0)
    site = Site(node, server, bound.port, await connect(bound.port))
    try:
        await test(site)
    finally:
        for client in site.clients:
            await client.close()
        await server.close()


def served(
    *, value_bytes_max: int = 1 << 20, memory_bytes: int = 64 << 20, connections_max: int = 100
) -> Callable[[Callable[[Site], Awaitable[None]]], Callable[[], None]]:
    """Make a test of a coroutine that takes a `Site`."""

    def decorate(test: Callable[[Site], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            node = FakeNode(value_bytes_max=value_bytes_max, memory_bytes=memory_bytes)
            asyncio.run(run_site(test, node, connections_max))

        run.__name__ = getattr(test, "__name__", "run")
        return run

    return decorate
