"""A node made of dicts, whose frames the test completes by hand, and a client made of lists."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import hiredis

from edgekv.api.resp.protocol import Connection
from edgekv.api.resp.session import Shared, Slices
from edgekv.config import Config
from edgekv.engine.frame import Frame, newer
from edgekv.engine.keyspaces import KeyspacePolicy, Keyspaces
from edgekv.errors import EdgeKVError, InvalidRequest, NotANumber, NotFound, TooLarge
from edgekv.ids import KeyspaceId
from edgekv.metrics import Metrics
from edgekv.node import decimals

START_MS = 1_700_000_000_000


class FakeEngine:
    """One frame is being filled; `FakeNode.flush` completes it."""

    def __init__(self) -> None:
        self.barrier: Frame | None = None
        self.write_blocked = False
        self.on_room: list[Callable[[], None]] = []
        self.filling = Frame(1)
        self.undurable: dict[bytes, Frame] = {}
        self.keyspaces = Keyspaces(
            [
                KeyspacePolicy(id=KeyspaceId(0), name="default", prefix=b""),
                KeyspacePolicy(id=KeyspaceId(2), name="rooms", prefix=b"room/"),
            ]
        )

    def wrote(self, key: bytes) -> None:
        self.undurable[key] = self.filling
        self.barrier = self.filling

    def looked(self, key: bytes) -> None:
        frame = self.undurable.get(key)
        if frame is not None and not frame.done:
            self.barrier = newer(self.barrier, frame)

    def make_room(self) -> None:
        self.write_blocked = False
        callbacks, self.on_room = self.on_room, []
        for callback in callbacks:
            callback()


class FakeOperations:
    """The verbs on a dict."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.value_bytes_max = 1 << 20
        self.values: dict[bytes, bytes] = {}
        self.expiries: dict[bytes, int] = {}
        self.now = START_MS
        self.refusal: EdgeKVError | None = None
        self.calls: list[tuple[str, int]] = []
        self.values_per_call_max = 1000
        """Of `get_run`: it may answer for the first keys only, when values are large."""

    def now_ms(self) -> int:
        return self.now

    def check_key(self, key: bytes) -> None:
        if not key:
            raise InvalidRequest("the key is empty. A key has 1 to 4096 bytes.")
        if len(key) > 4096:
            raise TooLarge(f"the key has {len(key)} bytes; the limit is 4096. Use a shorter key.")

    def get_run(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.calls.append(("get_run", len(keys)))
        return [self._look(key) for key in keys[: self.values_per_call_max]]

    def set_run(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self.calls.append(("set_run", len(keys)))
        for key, value in zip(keys, values, strict=True):
            self._write(key, value, 0)

    def get(self, key: bytes) -> bytes | None:
        self.calls.append(("get", 1))
        return self._look(key)

    def exists(self, keys: Sequence[bytes]) -> int:
        return sum(self._look(key) is not None for key in keys)

    def type_of(self, key: bytes) -> str:
        return "none" if self._look(key) is None else "string"

    def expiry_of(self, key: bytes) -> int:
        return -2 if self._look(key) is None else self.expiries.get(key) or -1

    def set(
        self,
        key: bytes,
        value: bytes,
        *,
        expiry_ms: int = 0,
        keep_expiry: bool = False,
        only_if: Literal["", "exists"] = "",
    ) -> bool:
        self.calls.append(("set", 1))
        if len(value) > self.value_bytes_max:
            raise TooLarge(f"the value has {len(value)} bytes; the limit is {self.value_bytes_max}.")
        if only_if and self._look(key) is None:
            return False
        self._write(key, value, self.expiries.get(key, 0) if keep_expiry else expiry_ms)
        return True

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self._write(key, value, 0)

    def delete(self, keys: Sequence[bytes]) -> int:
        self.calls.append(("delete", len(keys)))
        found = [key for key in dict.fromkeys(keys) if self._look(key) is not None]
        for key in found:
            self._write(key, None, 0)
        return len(found)

    def increment(self, key: bytes, delta: int) -> int:
        old = self._look(key) or b"0"
        if not old.lstrip(b"-").isdigit():
            raise NotANumber("value is not an integer or out of range")
        total = int(old) + delta
        if not -(1 << 63) <= total < 1 << 63:
            raise NotANumber("increment or decrement would overflow")
        self._write(key, b"%d" % total, self.expiries.get(key, 0))
        return total

    def increment_float(self, key: bytes, delta: bytes) -> bytes:
        text = decimals.total(self._look(key) or b"0", delta)
        self._write(key, text, self.expiries.get(key, 0))
        return text

    def append(self, key: bytes, value: bytes) -> int:
        whole = (self._look(key) or b"") + value
        self._write(key, whole, self.expiries.get(key, 0))
        return len(whole)

    def set_range(self, key: bytes, offset: int, value: bytes) -> int:
        old = self._look(key) or b""
        whole = old[:offset].ljust(offset, b"\x00") + value + old[offset + len(value) :]
        self._write(key, whole, self.expiries.get(key, 0))
        return len(whole)

    def set_expiry(self, key: bytes, expiry_ms: int) -> bool:
        value = self._look(key)
        if value is not None:
            self._write(key, value if expiry_ms > self.now else None, expiry_ms)
        return value is not None

    def persist(self, key: bytes) -> bool:
        value = self._look(key)
        if value is None or not self.expiries.get(key):
            return False
        self._write(key, value, 0)
        return True

    def rename(self, old: bytes, new: bytes) -> None:
        value = self._look(old)
        if value is None:
            raise NotFound("no such key")
        expiry = self.expiries.get(old, 0)
        self._write(old, None, 0)
        self._write(new, value, expiry)

    def keys_page(self, start: bytes, prefix: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        live = [key for key in sorted(self.values) if key.startswith(prefix) and key >= start and self._look(key)]
        return live[:limit], live[limit] if len(live) > limit else None

    def random_key(self, dice: int) -> bytes | None:
        live, _ = self.keys_page(b"", b"", len(self.values))
        return live[dice % len(live)] if live else None

    def status(self) -> dict[str, object]:
        return {"durable_lsn": 7, "write_blocked": self.engine.write_blocked, "keyspaces": []}

    def _look(self, key: bytes) -> bytes | None:
        self.engine.looked(key)
        expiry = self.expiries.get(key, 0)
        return None if expiry and expiry <= self.now else self.values.get(key)

    def _write(self, key: bytes, value: bytes | None, expiry_ms: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.engine.wrote(key)
        self.expiries[key] = expiry_ms
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value


class FakeNode:
    """The `Host`."""

    def __init__(self) -> None:
        self.operations = FakeOperations()
        self.metrics = Metrics()
        self.config = Config(data_dir=Path("data"))
        self.node_name, self.site_name, self.version = "node-1", "site-1", "0.0.1"
        self.started_ms = START_MS - 90_000
        self.kicks = 0
        self.flush_when_kicked = False
        self.slices = 0

    def kick_soon(self) -> None:
        self.kicks += 1
        if self.flush_when_kicked:
            asyncio.get_running_loop().call_soon(self.flush)

    async def run_slices(self, step: Callable[[], bool]) -> None:
        self.slices += 1
        while step():  # noqa: ASYNC110 - as the real one does
            await asyncio.sleep(0)

    def flush(self) -> None:
        """Make the frame being filled durable, and begin the next."""
        frame = self._close_frame()
        frame.done = True
        waiters = frame.waiters[:]
        frame.waiters.clear()
        for waiter, payload in waiters:
            waiter.release(payload)

    def fail(self, problem: EdgeKVError) -> None:
        """The log failed."""
        for waiter, _ in self._close_frame().waiters[:]:
            waiter.fail(problem)

    def _close_frame(self) -> Frame:
        engine = self.operations.engine
        frame, engine.filling = engine.filling, Frame(engine.filling.number + 1)
        return frame


@dataclass
class FakeTransport:
    """What the connection does to its socket."""

    connection: Connection | None = None
    written: list[bytes] = field(default_factory=list)
    closed: bool = False
    reading: bool = True
    high: int = 0
    stuck: bool = False
    """The client takes nothing: what is written above the high-water mark pauses the connection."""
    untaken: int = 0

    def write(self, data: bytes) -> None:
        assert not self.closed, "nothing is written after the close"
        self.written.append(data)
        if self.stuck:
            before, self.untaken = self.untaken, self.untaken + len(data)
            if before <= self.high < self.untaken and self.connection is not None:
                self.connection.pause_writing()

    def take_all(self) -> None:
        """The client reads what there is."""
        self.stuck, self.untaken = False, 0
        assert self.connection is not None
        self.connection.resume_writing()

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("127.0.0.1", 50_000 if name == "peername" else 7481)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
        if self.connection is not None:
            self.connection.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True


class FakeListener:
    """The `Listener`: callbacks wait for `turn`, slow commands for the test."""

    def __init__(self, node: FakeNode, connections_max: int = 100) -> None:
        self.shared = Shared(node, connections_max)
        self.due: list[Callable[[], None]] = []
        self.slow: list[tuple[Connection, Slices]] = []

    def joined(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...

    def wait_for_room(self, connection: Connection) -> None:
        self.shared.without_room[connection] = None

    def run_slow(self, connection: Connection, slices: Slices) -> None:
        self.slow.append((connection, slices))

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def turn(self) -> None:
        """One turn of the loop."""
        due, self.due = self.due, []
        for callback in due:
            callback()

    def make_room(self) -> None:
        waiting = list(self.shared.without_room)
        self.shared.without_room.clear()
        for connection in waiting:
            connection.room()
        self.turn()


class Client:
    """One connection, seen from its other end."""

    def __init__(self, listener: FakeListener) -> None:
        self.listener = listener
        self.transport = FakeTransport()
        self.connection = Connection(listener)
        self.transport.connection = self.connection
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def send(self, *commands: Sequence[bytes | str | int]) -> bytes:
        """Send commands in one read; what is written in reply so far."""
        return self.feed(b"".join(encode(*command) for command in commands))

    def feed(self, *reads: bytes) -> bytes:
        """Send raw bytes, one read after the other; what is written in reply so far."""
        for read in reads:
            self.connection.data_received(read)
        return self.replies()

    def replies(self) -> bytes:
        """What was written since the last look."""
        written = b"".join(self.transport.written)
        self.transport.written.clear()
        return written

    def is_closed(self) -> bool:
        return self.transport.closed

    def is_reading(self) -> bool:
        return self.transport.reading

    def ask(self, *command: bytes | str | int) -> object:
        """Send one command, make everything durable, and read its one reply."""
        written = self.send(command)
        node = cast("FakeNode", self.listener.shared.host)
        node.flush()
        self.listener.turn()
        return decode(written + self.replies())


def encode(*command: bytes | str | int) -> bytes:
    """A command as an array of strings."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def decode(reply: bytes) -> object:
    """One reply; an error as its text."""
    reader = hiredis.Reader()
    reader.feed(reply)
    value = reader.gets()
    assert not reader.has_data(), f"more than one reply: {reply!r}"
    return f"-{value}" if isinstance(value, hiredis.ReplyError) else value
