"""A node made of dicts, whose frames the test completes by hand, and a client made of lists."""

import asyncio
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar, cast

import hiredis

from edgekv.api.resp.protocol import Connection
from edgekv.api.resp.session import Shared, Slices
from edgekv.api.resp.watch import Pushes
from edgekv.config import Config
from edgekv.crdt.decimals import text_of
from edgekv.engine.frame import Frame, newer
from edgekv.engine.keyspaces import Head, Keyspace, KeyspacePolicy, Keyspaces
from edgekv.errors import Denied, EdgeKVError, InvalidRequest, NotANumber, NotFound, TooLarge, WrongType
from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.metrics import Metrics
from edgekv.node import batch, decimals
from edgekv.node.operations import Operations, Values
from edgekv.node.session import Sessions
from edgekv.replication.acks import Acks
from tests.unit.api.fake_watches import FakeWatches

START_MS = 1_700_000_000_000
ACTOR = node_actor(bytes(16), bytes(8))


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

        self.operation_reply_bytes_max = 1 << 10
        self.repeated_total = 0
        self.writes = 0
        self.replies: dict[tuple[bytes, int], tuple[bytes, Frame]] = {}

    def once(self, session: bytes, number: int, call: Callable[[], bytes]) -> bytes:
        if (session, number) not in self.replies:
            frame, writes = self.filling, self.writes
            reply = call()
            if self.writes == writes:
                return reply
            self.replies[session, number] = reply, frame
        reply, frame = self.replies[session, number]
        if not frame.done:
            self.barrier = newer(self.barrier, frame)
        return reply

    def wrote(self, key: bytes) -> None:
        self.writes += 1
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


Collection = set[bytes] | dict[bytes, bytes]


class FakeOperations:
    """The verbs on dicts. A key has one type, as in Redis."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.value_bytes_max = 1 << 20
        self.values: dict[bytes, bytes] = {}
        self.collections: dict[bytes, Collection] = {}
        self.expiries: dict[bytes, int] = {}
        self.sets, self.maps, self.siblings = FakeSets(self), FakeMaps(self), FakeSiblings(self)
        self.now = START_MS
        self.clock: Callable[[], int] | None = None
        self.refusal: EdgeKVError | None = None
        self.calls: list[tuple[str, int]] = []
        self.rows_read = 0
        self.values_per_call_max = 1000
        """Of `get_run`: it may answer for the first keys only, when values are large."""
        self.changes = 0
        """How many there were; a transaction is one."""
        self._in_transaction: set[int] | None = None
        """The keyspaces that it wrote to."""

    def now_ms(self) -> int:
        return self.now if self.clock is None else self.clock()

    def check_key(self, key: bytes) -> None:
        if not key:
            raise InvalidRequest("the key is empty. A key has 1 to 4096 bytes.")
        if len(key) > 4096:
            raise TooLarge(f"the key has {len(key)} bytes; the limit is 4096. Use a shorter key.")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        collections = {key: value.copy() for key, value in self.collections.items()}
        before = (self.values.copy(), collections, self.expiries.copy(), self.changes)
        outer, self._in_transaction = self._in_transaction, set()
        try:
            yield
        except BaseException:
            self.values, self.collections, self.expiries, self.changes = before
            raise
        finally:
            written, self._in_transaction = self._in_transaction, outer
        self.changes = before[-1] + bool(written)
        if outer is not None:
            outer |= written

    def get_run(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.calls.append(("get_run", len(keys)))
        return [self.look(key) for key in keys[: self.values_per_call_max]]

    def set_run(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self.calls.append(("set_run", len(keys)))
        for key, value in zip(keys, values, strict=True):
            self.write(key, value, 0)

    def get(self, key: bytes) -> bytes | None:
        self.calls.append(("get", 1))
        return self.look(key)

    def exists(self, keys: Sequence[bytes]) -> int:
        return sum(self.type_of(key) != "none" for key in keys)

    def type_of(self, key: bytes) -> str:
        self.engine.looked(key)
        if self._expired(key):
            return "none"
        if key in self.values:
            return "string"
        collection = self.collections.get(key)
        return "none" if collection is None else "set" if isinstance(collection, set) else "hash"

    def expiry_of(self, key: bytes) -> int:
        return -2 if self.type_of(key) == "none" else self.expiries.get(key) or -1

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
        if only_if and self.type_of(key) == "none":
            return False
        self.write(key, value, self.live_expiry(key) if keep_expiry else expiry_ms)
        return True

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self.write(key, value, 0)

    def check_count(self, count: int) -> None: ...

    def batch(self, operations: Sequence[tuple[object, ...]]) -> list[object]:
        return batch.run(cast("Operations", self), operations)

    def delete(self, keys: Sequence[bytes]) -> int:
        self.calls.append(("delete", len(keys)))
        found = [key for key in dict.fromkeys(keys) if self.type_of(key) != "none"]
        for key in found:
            self.write(key, None, 0)
        return len(found)

    def increment(self, key: bytes, delta: int) -> int:
        total = _sum(self.look(key), delta, "value is not an integer or out of range")
        self.write(key, b"%d" % total, self.live_expiry(key))
        return total

    def increment_run(self, keys: Sequence[bytes], deltas: Sequence[int]) -> list[int | EdgeKVError]:
        self.calls.append(("increment_run", len(keys)))
        return [_attempt(self.increment, key, delta) for key, delta in zip(keys, deltas, strict=True)]

    def increment_float(self, key: bytes, delta: bytes) -> bytes:
        before = self.look(key)
        text = text_of(decimals.sum_of(before, delta)[1])
        self.write(key, text, self.live_expiry(key))
        return text

    def append(self, key: bytes, value: bytes) -> int:
        whole = (self.look(key) or b"") + value
        self.write(key, whole, self.live_expiry(key))
        return len(whole)

    def set_range(self, key: bytes, offset: int, value: bytes) -> int:
        old = self.look(key) or b""
        whole = old[:offset].ljust(offset, b"\x00") + value + old[offset + len(value) :]
        self.write(key, whole, self.live_expiry(key))
        return len(whole)

    def set_expiry(self, key: bytes, expiry_ms: int) -> bool:
        if self.type_of(key) == "none":
            return False
        if expiry_ms > self.now_ms():
            self.write(key, self._content(key), expiry_ms)
        else:
            self.write(key, None, 0)
        return True

    def persist(self, key: bytes) -> bool:
        if self.type_of(key) == "none" or not self.expiries.get(key):
            return False
        self.write(key, self._content(key), 0)
        return True

    def rename(self, old: bytes, new: bytes) -> None:
        if self.type_of(old) == "none":
            raise NotFound("no such key")
        content, expiry = self._content(old), self.expiries.get(old, 0)
        self.write(old, None, 0)
        self.write(new, content, expiry)

    def keys_page(self, start: bytes, prefix: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        everything = sorted([*self.values, *self.collections])
        live = [key for key in everything if key.startswith(prefix) and key >= start and self.type_of(key) != "none"]
        self.rows_read += min(limit, len(live))
        return live[:limit], live[limit] if len(live) > limit else None

    def random_key(self, dice: int) -> bytes | None:
        live, _ = self.keys_page(b"", b"", len(self.values) + len(self.collections))
        return live[dice % len(live)] if live else None

    def status(self) -> dict[str, object]:
        return {"durable_lsn": 7, "write_blocked": self.engine.write_blocked, "keyspaces": []}

    # -- what the verbs on sets and maps stand on

    def look(self, key: bytes) -> bytes | None:
        """The string."""
        kind = self.type_of(key)
        if kind in ("set", "hash"):
            raise WrongType("the key holds another type.")
        return None if kind == "none" else self.values[key]

    def collection(self, key: bytes, kind: str) -> Collection | None:
        found = self.type_of(key)
        if found not in (kind, "none"):
            raise WrongType("the key holds another type.")
        return None if found == "none" else self.collections[key]

    def live_expiry(self, key: bytes) -> int:
        return 0 if self._expired(key) else self.expiries.get(key, 0)

    def write(self, key: bytes, content: bytes | Collection | None, expiry_ms: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self._in_transaction is not None:
            self._in_transaction.add(self.engine.keyspaces.of(key).policy.id)
            if len(self._in_transaction) > 1:
                raise Denied("the keys are in different keyspaces, and a change touches one.")
        self.changes += 1
        self.engine.wrote(key)
        self.expiries[key] = expiry_ms if content or isinstance(content, bytes) else 0
        self.values.pop(key, None)
        self.collections.pop(key, None)
        if isinstance(content, bytes):
            self.values[key] = content
        elif content:
            self.collections[key] = content

    def _content(self, key: bytes) -> bytes | Collection:
        return self.values[key] if key in self.values else self.collections[key]

    def _expired(self, key: bytes) -> bool:
        expiry = self.expiries.get(key, 0)
        return bool(expiry) and expiry <= self.now_ms()


class FakeSiblings:
    """Concurrent values of a key by the number of their put; a context is the numbers that were read."""

    def __init__(self, operations: FakeOperations) -> None:
        self._operations = operations
        self.values: dict[bytes, dict[int, bytes]] = {}
        self.expiries: list[int] = []

    def get(self, key: bytes) -> Values:
        found = self.values.get(key, {})
        return Values(",".join(["c", *map(str, found)]), list(reversed(found.values())))

    def put(self, key: bytes, value: bytes, context: str, *, expiry_ms: int = 0) -> None:
        self._operations.engine.wrote(key)
        self.expiries.append(expiry_ms)
        self.values[key] = {**self._unread(key, context), len(self.expiries): value}

    def delete(self, key: bytes, context: str) -> int:
        before = len(self.values.get(key, {}))
        self.values[key] = self._unread(key, context)
        return before - len(self.values[key])

    def _unread(self, key: bytes, context: str) -> dict[int, bytes]:
        word, *read = context.split(",")
        if word != "c":
            raise InvalidRequest("the context is not one that a read returned.")
        return {number: value for number, value in self.values.get(key, {}).items() if str(number) not in read}


class FakeSets:
    """The verbs on sets."""

    def __init__(self, operations: FakeOperations) -> None:
        self._operations = operations
        self.page_max = 1 << 30
        """A page may end early."""

    def add(self, key: bytes, members: Sequence[bytes]) -> int:
        new = set(members) - self._set(key)
        if new:
            self._write(key, self._set(key) | new)
        return len(new)

    def add_run(self, keys: Sequence[bytes], members: Sequence[bytes]) -> list[int | EdgeKVError]:
        self._operations.calls.append(("add_run", len(keys)))
        return [_attempt(self.add, key, [member]) for key, member in zip(keys, members, strict=True)]

    def remove(self, key: bytes, members: Sequence[bytes]) -> int:
        found = self._set(key) & set(members)
        if found:
            self._write(key, self._set(key) - found)
        return len(found)

    def contains(self, key: bytes, members: Sequence[bytes]) -> list[bool]:
        there = self._set(key)
        return [member in there for member in members]

    def count(self, key: bytes) -> int:
        return len(self._set(key))

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        ordered = sorted(self._set(key))
        first = bisect_left(ordered, start)
        last = first + min(limit, self.page_max)
        self._operations.rows_read += len(ordered[first:last])
        return ordered[first:last], ordered[last] if last < len(ordered) else None

    def pop(self, key: bytes, count: int, dice: int) -> list[bytes]:
        self._operations.calls.append(("pop", count))
        chosen = self.random(key, count, dice, repeat=False)
        self.remove(key, chosen)
        return chosen

    def random(self, key: bytes, count: int, dice: int, *, repeat: bool) -> list[bytes]:
        self._operations.rows_read += len(self._set(key))
        return _drawn(sorted(self._set(key)), count, dice, repeat=repeat)

    def move(self, source: bytes, target: bytes, member: bytes) -> bool:
        if self._operations.type_of(source) == "none":
            return False
        there, other = self._set(source), self._set(target)
        if member not in there:
            return False
        if source != target:
            self._write(source, there - {member})
            self._write(target, other | {member})
        return True

    def store(self, key: bytes, members: Sequence[bytes]) -> None:
        if members or self._operations.type_of(key) != "none":
            self._operations.write(key, set(members), 0)

    def _set(self, key: bytes) -> set[bytes]:
        return cast("set[bytes] | None", self._operations.collection(key, "set")) or set()

    def _write(self, key: bytes, content: set[bytes]) -> None:
        self._operations.write(key, content, self._operations.live_expiry(key))


class FakeMaps:
    """The verbs on maps."""

    def __init__(self, operations: FakeOperations) -> None:
        self._operations = operations
        self.values_per_call_max = 1000

    def put(self, key: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        before = self._map(key)
        self._write(key, {**before, **dict(pairs)})
        return len(dict(pairs).keys() - before.keys())

    def put_run(
        self, keys: Sequence[bytes], fields: Sequence[bytes], values: Sequence[bytes]
    ) -> list[int | EdgeKVError]:
        self._operations.calls.append(("put_run", len(keys)))
        return [_attempt(self.put, key, [(f, v)]) for key, f, v in zip(keys, fields, values, strict=True)]

    def put_if_absent(self, key: bytes, field: bytes, value: bytes) -> bool:
        absent = field not in self._map(key)
        if absent:
            self.put(key, [(field, value)])
        return absent

    def get(self, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]:
        there = self._map(key)
        return [there.get(field) for field in fields[: self.values_per_call_max]]

    def remove(self, key: bytes, fields: Sequence[bytes]) -> int:
        there = self._map(key)
        found = there.keys() & set(fields)
        if found:
            self._write(key, {field: value for field, value in there.items() if field not in found})
        return len(found)

    def count(self, key: bytes) -> int:
        return len(self._map(key))

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        ordered = sorted(self._map(key).items())
        first = bisect_left(ordered, (start, b""))
        self._operations.rows_read += len(ordered[first : first + limit])
        return ordered[first : first + limit], ordered[first + limit][0] if first + limit < len(ordered) else None

    def increment(self, key: bytes, field: bytes, delta: int) -> int:
        total = _sum(self._map(key).get(field), delta, "hash value is not an integer")
        self.put(key, [(field, b"%d" % total)])
        return total

    def increment_float(self, key: bytes, field: bytes, delta: bytes) -> bytes:
        if _decimal(delta, "value is not a valid float").is_infinite():
            raise NotANumber("value is NaN or Infinity")
        text = _float_sum(self._map(key).get(field), delta, "hash value is not a float")
        self.put(key, [(field, text)])
        return text

    def random(self, key: bytes, count: int, dice: int, *, repeat: bool) -> list[tuple[bytes, bytes]]:
        self._operations.rows_read += len(self._map(key))
        return _drawn(sorted(self._map(key).items()), count, dice, repeat=repeat)

    def _map(self, key: bytes) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes] | None", self._operations.collection(key, "hash")) or {}

    def _write(self, key: bytes, content: dict[bytes, bytes]) -> None:
        self._operations.write(key, content, self._operations.live_expiry(key))


_Element = TypeVar("_Element")


def _attempt(verb: Callable[..., int], *arguments: object) -> int | EdgeKVError:
    try:
        return verb(*arguments)
    except EdgeKVError as problem:
        return problem


def _drawn(there: list[_Element], count: int, dice: int, *, repeat: bool) -> list[_Element]:
    chance = random.Random(dice)
    if repeat:
        return chance.choices(there, k=count) if there else []
    return chance.sample(there, min(count, len(there)))


def _sum(old: bytes | None, delta: int, sentence: str) -> int:
    if old is not None and re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", old) is None:
        raise NotANumber(sentence)
    before = int(old or b"0")
    if not _fits(before):
        raise NotANumber(sentence)
    if not _fits(before + delta):
        raise NotANumber("increment or decrement would overflow")
    return before + delta


def _fits(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 63


_FLOAT = re.compile(rb"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,5}))?|inf)")


def _float_sum(old: bytes | None, delta: bytes, sentence: str) -> bytes:
    total = _decimal(b"0" if old is None else old, sentence) + _decimal(delta, "value is not a valid float")
    if total.is_infinite():
        raise NotANumber("increment would produce NaN or Infinity")
    text = f"{total:.17f}".rstrip("0").rstrip(".").encode()
    return b"0" if text == b"-0" else text


def _decimal(text: bytes, sentence: str) -> Decimal:
    match = _FLOAT.fullmatch(text)
    if match is None or abs(int(match[1] or 0)) > 4932:
        raise NotANumber(sentence)
    return Decimal(text.decode())


class FakeCommit:
    """Of a node that has no log."""

    durable_lsn = written_lsn = 0

    def heads_written(self, keyspace: Keyspace, /) -> dict[Actor, Head]:
        own = {ACTOR: Head(keyspace.seq, 0)} if keyspace.seq else {}
        return {**keyspace.vector, **own}


class FakeNode:
    """The `Host`."""

    def __init__(self) -> None:
        self.operations = FakeOperations()
        self.watches = FakeWatches()
        self.acks = Acks(actor=ACTOR, site="site-1")
        self.sessions = Sessions(actor=ACTOR, keyspaces=self.operations.engine.keyspaces, commit=FakeCommit())
        self.metrics = Metrics()
        self.config = Config(data_dir=Path("data"))
        self.node_name, self.site_name, self.version = "node-1", "site-1", "0.0.1"
        self.started_ms = START_MS - 90_000
        self.kicks = 0
        self.flush_when_kicked = False
        self.slices = 0

    def monotonic_ms(self) -> int:
        return 0

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

    def run_stream(self, connection: Connection, pushes: Pushes) -> None:
        raise AssertionError("watches are tested with a real listener")

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
        while self.listener.due:  # On a slow machine an earlier command took more than its turn.
            self.listener.turn()
            node.flush()
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
