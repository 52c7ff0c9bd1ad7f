"""A node and a redis-server 7 get the same random commands and must give the same bytes.

    python -m tests.integration.resp_differential --commands 1000000 --seed 7

runs all data commands and types against both and prints each difference that `Judge` does not explain; --fake tests the protocol layer
alone, on the node made of dicts. Explained are: elements in an order that Redis does not promise (compared as multisets), times that
moved on between the two servers, random draws (of the right number, from what is there), and sums of fractions that Redis rounds.
What docs/RESP.md says is different is not asked at all: SETNX, SET NX, MSETNX, WATCH, cursors in the middle of a scan, empty keys.
"""

import argparse
import asyncio
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgekv.cli.node_process import NodeProcess
from tests.unit.api.resp.fake_node import encode

PIPELINE_MAX = 12
DIFFERENCES_MAX = 20
KEYS = [b"a", b"b", b"c", b"n", b"room/1", b"long" * 200, b"\x00\xff"]
LARGE_KEYS = [b"large/1", b"large/2"]
VALUES = [b"", b"0", b"10", b"-7", b"1.5", b"hello", b"\r\n$5\r\n", b"\xff\x00", b"9223372036854775807", b"x" * 3000]
MEMBERS = [b"", b"0", b"1", b"2", b"3", b"-7", b"01", b"1.5", b"m", b"member", b"\r\n", b"\xff\x00", b"y" * 300]
NUMBERS = [
    *(b"0", b"1", b"-1", b"3", b"-4", b"100", b"01", b"+1", b"", b"x"),
    *(b"9223372036854775807", b"-9223372036854775808"),
]
FRACTIONS = [b"0.5", b"-0.25", b"3", b"1e2", b"-7.75", b"10", b"x", b"", b"1 ", b"nan", b"inf"]
COUNTS = [b"0", b"1", b"2", b"-3", b"5", b"1000", b"x", b"-9223372036854775808", b"01"]
SECONDS = [b"0", b"-5", b"900000", b"x", b"9223372036854775807", b"9223372036854775"]
MILLISECONDS = [b"0", b"-5", b"900000000", b"x", b"9223372036854775807"]
FAR = [b"9000000000", b"0", b"-1", b"x"]
OPTIONS = [b"XX", b"GET", b"KEEPTTL", b"EX", b"900000", b"px", b"900000000", b"PXAT", b"9000000000000", b"FOO"]
CONDITIONS = [b"NX", b"xx", b"GT", b"LT", b"FOO"]
PATTERNS = [b"*", b"m*", b"?", b"[0-3]", b"[^0]*", b"a", b"*\xff*", b"\\*", b"nothing"]
TYPES = [b"string", b"set", b"hash", b"SET", b"list", b"foo"]
_FLOATS = frozenset([b"INCRBYFLOAT", b"HINCRBYFLOAT"])
Command = list[bytes]


# -- what is asked


def _some(dice: random.Random, values: list[bytes], least: int = 1, most: int = 4) -> list[bytes]:
    return dice.choices(values, k=dice.randint(least, most))


def _pairs(dice: random.Random, names: list[bytes], least: int = 1, most: int = 4) -> list[bytes]:
    return [part for name in _some(dice, names, least, most) for part in (name, dice.choice(VALUES))]


def _scan_words(dice: random.Random) -> Command:
    shapes: list[Command] = [
        [b"COUNT", b"1000"],
        [b"count", b"5000", b"MATCH", dice.choice(PATTERNS)],
        [b"MATCH", dice.choice(PATTERNS), b"COUNT", b"1000"],
        [b"COUNT", dice.choice([b"0", b"-1", b"x"])],
        [b"COUNT", b"1000", b"FOO"],
        [b"MATCH"],
    ]
    return dice.choice(shapes)


def _strings(dice: random.Random) -> Command:
    key, value, number = dice.choice(KEYS), dice.choice(VALUES), dice.choice(NUMBERS)
    shapes: list[Command] = [
        [b"GET", key],
        [b"SET", key, value],
        [b"SET", key, value, *_some(dice, OPTIONS, 0, 3)],
        [b"SETEX", key, dice.choice(SECONDS), value],
        [b"PSETEX", key, dice.choice(MILLISECONDS), value],
        [b"GETSET", key, value],
        [b"GETDEL", key],
        [b"GETEX", key, *_some(dice, [b"PERSIST", b"EX", b"900000", b"PX", b"0", b"FOO"], 0, 2)],
        [b"MGET", *_some(dice, KEYS)],
        [b"MSET", *_pairs(dice, KEYS)],
        [b"APPEND", key, value],
        [b"STRLEN", key],
        [b"GETRANGE", key, number, dice.choice(NUMBERS)],
        [b"SETRANGE", key, dice.choice([b"0", b"3", b"70", b"-1", b"x", b"536870912"]), value],
        [b"INCR", key],
        [b"DECR", key],
        [b"INCRBY", key, number],
        [b"DECRBY", key, number],
        [b"INCRBYFLOAT", key, dice.choice(FRACTIONS)],
    ]
    return dice.choice(shapes)


def _keys(dice: random.Random) -> Command:
    key = dice.choice(KEYS)
    some_time = b"%d" % dice.randrange(1_000_000, 3_000_000)  # never twice: GT and LT would be a matter of milliseconds
    shapes: list[Command] = [
        [b"DEL", *_some(dice, KEYS)],
        [b"UNLINK", key],
        [b"EXISTS", *_some(dice, KEYS)],
        [b"TOUCH", *_some(dice, KEYS)],
        [b"TYPE", key],
        [b"RENAME", key, dice.choice(KEYS)],
        [b"EXPIRE", key, dice.choice(SECONDS)],
        [b"EXPIRE", key, dice.choice([*SECONDS[3:], some_time]), *_some(dice, CONDITIONS, 1, 2)],
        [b"PEXPIRE", key, dice.choice(MILLISECONDS)],
        [b"PEXPIRE", key, dice.choice([*MILLISECONDS[3:], some_time + b"000"]), *_some(dice, CONDITIONS, 1, 1)],
        [b"EXPIREAT", key, dice.choice(FAR), *_some(dice, CONDITIONS, 0, 1)],
        [b"PEXPIREAT", key, dice.choice(FAR) + b"000"],
        [b"PERSIST", key],
        [dice.choice([b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"]), key],
        [b"KEYS", dice.choice(PATTERNS)],
        [b"SCAN", b"0", *_scan_words(dice)],
        [b"SCAN", b"0", b"COUNT", b"1000", b"TYPE", dice.choice(TYPES)],
        [b"SCAN", dice.choice([b"x", b"18446744073709551616"])],
        [b"RANDOMKEY"],
    ]
    return dice.choice(shapes)


def _sets(dice: random.Random) -> Command:
    key, member = dice.choice(KEYS), dice.choice(MEMBERS)
    shapes: list[Command] = [
        [b"SADD", key, *_some(dice, MEMBERS)],
        [b"SADD", key, *_some(dice, MEMBERS)],
        [b"SADD", key, member],
        [b"SREM", key, *_some(dice, MEMBERS)],
        [b"SISMEMBER", key, member],
        [b"SMISMEMBER", key, *_some(dice, MEMBERS)],
        [b"SMEMBERS", key],
        [b"SCARD", key],
        [b"SSCAN", key, dice.choice([b"0", b"0", b"0", b"x"]), *_scan_words(dice)],
        [b"SMOVE", key, dice.choice(KEYS), member],
        [dice.choice([b"SINTER", b"SUNION", b"SDIFF"]), *_some(dice, KEYS)],
        [dice.choice([b"SINTERSTORE", b"SUNIONSTORE", b"SDIFFSTORE"]), *_some(dice, KEYS, 2)],
        [b"SINTERCARD", b"2", *_some(dice, KEYS, 2, 2), *dice.choice([[], [b"LIMIT", dice.choice(COUNTS)]])],
        [b"SINTERCARD", dice.choice(COUNTS), *_some(dice, KEYS)],
        [b"SPOP", key, dice.choice([b"1000", b"0", b"x", b"-1"])],
        [b"SRANDMEMBER", key, dice.choice([b"1000", b"0", b"x", b"-9223372036854775808"])],
    ]
    return dice.choice(shapes)


def _hashes(dice: random.Random) -> Command:
    key, name, value = dice.choice(KEYS), dice.choice(MEMBERS), dice.choice(VALUES)
    shapes: list[Command] = [
        [b"HSET", key, *_pairs(dice, MEMBERS)],
        [b"HSET", key, name, value],
        [b"HSET", key, name, value, *_some(dice, MEMBERS, 1, 1)],
        [b"HMSET", key, *_pairs(dice, MEMBERS)],
        [b"HSETNX", key, name, value],
        [b"HGET", key, name],
        [b"HMGET", key, *_some(dice, MEMBERS)],
        [b"HDEL", key, *_some(dice, MEMBERS)],
        [b"HEXISTS", key, name],
        [b"HLEN", key],
        [b"HSTRLEN", key, name],
        [b"HGETALL", key],
        [dice.choice([b"HKEYS", b"HVALS"]), key],
        [b"HINCRBY", key, name, dice.choice(NUMBERS)],
        [b"HINCRBYFLOAT", key, name, dice.choice(FRACTIONS)],
        [b"HSCAN", key, dice.choice([b"0", b"0", b"0", b"x"]), *_scan_words(dice)],
        [b"HRANDFIELD", key, dice.choice([b"1000", b"0", b"x"]), *dice.choice([[], [b"WITHVALUES"], [b"foo"]])],
        [
            *(b"HRANDFIELD", key),
            *(dice.choice([b"4611686018427387904", b"-4611686018427387904", b"-9223372036854775808"]), b"withvalues"),
        ],
    ]
    return dice.choice(shapes)


def _others(dice: random.Random) -> Command:
    shapes: list[Command] = [
        [b"PING", *_some(dice, KEYS, 0, 2)],
        [b"ECHO", dice.choice(VALUES)],
        [b"NONESUCH", *_some(dice, KEYS, 0, 3)],
        [b"CLIENT", dice.choice(VALUES)],
        [b"SELECT", dice.choice([b"0", b"-1", b"x", b"2147483648"])],
        [dice.choice([b"EXEC", b"DISCARD", b"UNWATCH"])],
    ]
    return dice.choice(shapes)


_KINDS = [_strings] * 6 + [_keys] * 5 + [_sets] * 7 + [_hashes] * 7 + [_others]


def single(dice: random.Random) -> Command:
    """One command of any kind, at times with an argument too few or too many."""
    command = dice.choice(_KINDS)(dice)
    chance = dice.random()
    if chance < 0.02:
        command = command[: dice.randint(1, len(command))]
    elif chance < 0.03:
        command = [*command, dice.choice(KEYS)]
    if _is_draw(command) or (command[0] == b"HRANDFIELD" and command[2:] in _ENDLESS):
        command = [b"TYPE", *command[1:2]]
    return [command[0].lower() if dice.random() < 0.3 else command[0], *command[1:]]


_ENDLESS = [[b"4611686018427387904"], [b"-4611686018427387904"]]
"""Cut short, this would have Redis write a reply until memory ends."""


def _is_draw(command: Command) -> bool:
    """Cut short, a command may have become a draw, which needs company."""
    return len(command) == 2 and command[0] in (b"SPOP", b"SRANDMEMBER", b"HRANDFIELD")


def story(dice: random.Random) -> list[Command]:
    """Commands that belong together; most often one."""
    chance, key = dice.random(), dice.choice(KEYS)
    if chance < 0.02:
        inside = [single(dice) for _ in range(dice.randint(0, 6))]
        inside = [command for command in inside if command[0].upper() not in _FLOATS]
        if dice.random() < 0.1:
            inside.append(dice.choice([[b"multi"], [b"NONESUCH"], [b"GET"]]))
        return [[b"MULTI"], *inside, [dice.choice([b"EXEC", b"exec", b"EXEC", b"DISCARD"])]]
    if chance < 0.04:
        drawn = dice.choice([[b"SRANDMEMBER", key], [b"SRANDMEMBER", key, dice.choice(COUNTS[:5])]])
        return [[b"SMEMBERS", key], drawn]
    if chance < 0.05:
        drawn = dice.choice([[b"SPOP", key], [b"SPOP", key, dice.choice([b"1", b"2", b"3"])]])
        return [[b"SMEMBERS", key], drawn, [b"SCARD", key], [b"DEL", key]]
    if chance < 0.07:
        words = dice.choice([[], [dice.choice(COUNTS[:5])], [dice.choice(COUNTS[:5]), b"WITHVALUES"]])
        return [[b"HGETALL", key], [b"HRANDFIELD", key, *words]]
    if chance < 0.0705:
        return _large(dice)
    if chance < 0.071:
        return [[dice.choice([b"FLUSHDB", b"FLUSHALL"]), *dice.choice([[], [b"ASYNC"], [b"FOO"]])]]
    if chance < 0.073:
        return [[b"EXISTS", *KEYS, *LARGE_KEYS], [b"DBSIZE"]]  # Redis counts expired keys until it meets them
    return [single(dice)]


def _pipeline(dice: random.Random) -> list[Command]:
    """What is sent at once. A sum of fractions ends it: if Redis rounds it, both sides must be made equal before more is asked."""
    pipeline: list[Command] = []
    for _ in range(dice.randint(1, PIPELINE_MAX)):
        pipeline += story(dice)
        if pipeline[-1][0].upper() in _FLOATS:
            break
    return pipeline


def _large(dice: random.Random) -> list[Command]:
    """More than a page: what becomes a slow command here."""
    first, second = dice.sample(LARGE_KEYS, 2)
    numbers = dice.sample(range(20_000), dice.choice([900, 2500, 4000]))
    members = [b"%d" % number for number in numbers]
    if dice.random() < 0.4:
        pairs = [part for member in members[:1500] for part in (member, member * 2)]
        return [[b"DEL", first], [b"HSET", first, *pairs], [b"HGETALL", first], [b"HKEYS", first], [b"HLEN", first]]
    return [
        [b"DEL", first],
        *([b"SADD", first, *members[i : i + 1000]] for i in range(0, len(members), 1000)),
        [b"SMEMBERS", first],
        *([verb, first, second, b"a"] for verb in (b"SUNION", b"SDIFF")),
        [b"SINTER", first, second],
        [b"SINTERCARD", b"2", first, second],
        [b"SUNIONSTORE", second, first, b"b"],
        [b"SCARD", second],
        [b"SRANDMEMBER", second, b"100000"],
    ]


# -- what is answered


class Reply(NamedTuple):
    """One reply: the bytes of its first line, and its parts if it has some."""

    raw: bytes
    head: bytes
    parts: "list[Reply] | None"


def parse(data: bytes, position: int) -> tuple[Reply, int]:
    end = data.index(b"\r\n", position) + 2
    head = data[position:end]
    kind = head[:1]
    if kind in b"$=" and head[1:2] != b"-":
        end += int(head[1:]) + 2
        return Reply(data[position:end], head, None), end
    if kind in b"*~%" and head[1:2] != b"-":
        parts: list[Reply] = []
        for _ in range(int(head[1:]) * (2 if kind == b"%" else 1)):
            part, end = parse(data, end)
            parts.append(part)
        return Reply(data[position:end], head, parts), end
    return Reply(head, head, None), end


class Peer:
    """One end under test."""

    def __init__(self, port: int, protocol: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        if protocol == 3:
            self._socket.sendall(encode("HELLO", "3"))
            answer = self._socket.recv(1 << 16)
            while b"modules" not in answer:
                answer += self._socket.recv(1 << 16)

    def send(self, commands: bytes) -> None:
        self._socket.sendall(commands)

    def receive(self, mark: bytes) -> bytes:
        """All replies before the one that is ``mark``, which nothing else contains."""
        received = bytearray()
        while not received.endswith(mark):
            more = self._socket.recv(1 << 20)
            assert more, f"the connection ended after {bytes(received[-300:])!r}"
            received += more
        return bytes(received[: -len(mark)])

    def close(self) -> None:
        self._socket.close()


class Difference(NamedTuple):
    """What no rule explains."""

    command: Command
    expected: bytes
    given: bytes


_UNORDERED = frozenset(b"SMEMBERS SINTER SUNION SDIFF KEYS HKEYS HVALS SPOP SRANDMEMBER HRANDFIELD".split())
_TIMES = {b"TTL": 2, b"PTTL": 2000, b"EXPIRETIME": 2, b"PEXPIRETIME": 2000}


@dataclass
class Judge:
    """Compares the replies to one pipeline. ``explained`` counts what differed and may."""

    explained: Counter[str] = field(default_factory=Counter)
    resync: list[Command] = field(default_factory=list)
    """What makes both sides equal again after an explained difference."""

    def pipeline(self, commands: list[Command], expected: bytes, given: bytes) -> list[Difference]:
        found: list[Difference] = []
        queued: list[Command] | None = None
        there: list[Reply] = []
        left = right = 0
        for command in commands:
            if left >= len(given):
                found.append(Difference(command, expected[right:], b"(nothing)"))
                break
            wanted, right = parse(expected, right)
            ours, left = parse(given, left)
            verb = command[0].upper()
            if (
                verb == b"EXEC"
                and queued is not None
                and wanted.parts
                and ours.head == wanted.head == b"*%d\r\n" % len(queued)
            ):
                inner = zip(queued, wanted.parts, ours.parts or [], strict=True)
                alike = not [one for one, a, b in inner if not self._alike(one, a, b, [])]
            else:
                alike = self._alike(command, wanted, ours, there)
            if not alike:
                found.append(Difference(command, wanted.raw, ours.raw))
            if verb == b"MULTI" and wanted.raw == b"+OK\r\n":
                queued = []
            elif verb == b"EXEC" or (verb == b"DISCARD" and wanted.raw == b"+OK\r\n"):
                queued = None
            elif queued is not None and wanted.raw == b"+QUEUED\r\n":
                queued.append(command)
            there = ours.parts or []
        return found

    def _alike(self, command: Command, wanted: Reply, ours: Reply, there: list[Reply]) -> bool:
        if wanted.raw == ours.raw:
            return True
        verb = command[0].upper()
        if wanted.raw[:1] == b"-" or ours.raw[:1] == b"-":
            return False
        if verb in _TIMES:
            a, b = int(wanted.raw[1:]), int(ours.raw[1:])
            return min(a, b) >= 0 and abs(a - b) <= _TIMES[verb] and self._explain("times")
        if verb in _FLOATS and _nearly(wanted, ours):
            self.resync.append([b"DEL", command[1]])
            return self._explain("fractions")
        if verb == b"RANDOMKEY" and wanted.raw[:1] == ours.raw[:1] == b"$":
            return self._explain("draws")
        if verb in (b"SPOP", b"SRANDMEMBER", b"HRANDFIELD") and self._is_draw(command, wanted, ours, there):
            return self._explain("draws")
        if _unordered(command, wanted) == _unordered(command, ours):
            return self._explain("order")
        return False

    def _explain(self, why: str) -> bool:
        self.explained[why] += 1
        return True

    @staticmethod
    def _is_draw(command: Command, wanted: Reply, ours: Reply, there: list[Reply]) -> bool:
        """As many as Redis gave, all of what is there, and different ones unless repetition was asked for."""
        if ours.parts is None:
            return wanted.raw[:1] == ours.raw[:1] == b"$" and ours.raw in [part.raw for part in there]
        if ours.head != wanted.head:
            return False
        pairs = len(command) == 4
        chosen, known = (
            (_in_pairs(ours), _in_pairs(Reply(b"", b"", there))) if pairs else (_raw(ours.parts), _raw(there))
        )
        return set(chosen) <= set(known) and (command[2][:1] == b"-" or len(set(chosen)) == len(chosen))


def _raw(parts: list[Reply]) -> list[bytes]:
    return [part.raw for part in parts]


def _in_pairs(reply: Reply) -> list[bytes]:
    """Fields with values, however they are nested."""
    parts = reply.parts or []
    if parts and parts[0].parts is not None:
        return [b"".join(_raw(part.parts or [])) for part in parts]
    raw = _raw(parts)
    return [a + b for a, b in zip(raw[::2], raw[1::2], strict=False)]


def _unordered(command: Command, reply: Reply) -> object:
    """What stays of a reply without the order."""
    verb = command[0].upper()
    if reply.parts is None:
        return reply.raw
    if verb == b"HGETALL" or (verb == b"HRANDFIELD" and len(command) == 4):
        return reply.head, sorted(_in_pairs(reply))
    if verb in _UNORDERED:
        return reply.head, sorted(_raw(reply.parts))
    if verb in (b"SCAN", b"SSCAN", b"HSCAN"):
        cursor, found = reply.parts
        return cursor.raw, found.head, sorted(_in_pairs(found) if verb == b"HSCAN" else _raw(found.parts or []))
    return reply.raw


def _nearly(wanted: Reply, ours: Reply) -> bool:
    """Whether two sums differ as an 80-bit float differs from the exact sum."""
    try:
        a, b = (float(reply.raw.split(b"\r\n")[1]) for reply in (wanted, ours))
    except (IndexError, ValueError):
        return False
    return abs(a - b) <= 1e-15 * max(abs(a), 1.0)


# -- the run


@dataclass
class Comparison:
    """One run. The same seed asks the same commands."""

    seed: int
    redis: Peer
    node: Peer
    judge: Judge = field(default_factory=Judge)
    done: int = 0
    recent: list[Command] = field(default_factory=list)

    def run(self, commands: int) -> Iterator[str]:
        """Ask so many; a text for each unexplained difference."""
        dice = random.Random(self.seed)
        while self.done < commands:
            pipeline = _pipeline(dice)
            differences = self.ask(pipeline)
            self.recent = (self.recent + pipeline)[-60:]
            for difference in differences:
                yield self._told(difference)
            if differences or self.judge.resync:
                clean = [[b"DISCARD"], [b"FLUSHALL"]] if differences else self.judge.resync[:]
                self.judge.resync.clear()
                self.ask(clean)
                self.recent += clean

    def ask(self, pipeline: list[Command]) -> list[Difference]:
        self.done += len(pipeline)
        mark = b"mark %d %d" % (self.seed, self.done)
        data = b"".join([encode(*command) for command in [*pipeline, [b"ECHO", mark]]])
        self.redis.send(data)
        self.node.send(data)
        end = b"$%d\r\n%b\r\n" % (len(mark), mark)
        expected, given = self.redis.receive(end), self.node.receive(end)
        return [] if expected == given else self.judge.pipeline(pipeline, expected, given)

    def _told(self, difference: Difference) -> str:
        about = [one for one in self.recent if set(one[1:3]) & set(difference.command[1:])][-25:]
        history = "\n    ".join(f"{one!r:.200}" for one in about)
        return (
            f"seed {self.seed}, near command {self.done}: {difference.command!r:.300}\n"
            f"  redis  {difference.expected!r:.500}\n  edgekv {difference.given!r:.500}\n  after\n    {history}"
        )


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    arguments += ["--client-output-buffer-limit", "normal 256mb 0 0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"Ready to accept connections" not in (line := process.stdout.readline()):
            assert line, "redis-server ended at its start"
        try:
            yield port
        finally:
            process.kill()


@contextmanager
def edgekv_node(folder: Path) -> Iterator[int]:
    with NodeProcess(folder / "data") as node:
        yield node.resp.port


@contextmanager
def fake_node() -> Iterator[int]:
    """The protocol layer on the node made of dicts, in a process of its own."""
    arguments = [sys.executable, "-m", "tests.integration.resp_differential", "--serve-fake"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def serve_fake() -> None:
    from edgekv.api.resp.server import RespServer
    from edgekv.engine.keyspaces import KeyspacePolicy, Keyspaces
    from edgekv.ids import KeyspaceId
    from tests.unit.api.resp.fake_node import FakeNode

    async def main() -> None:
        node = FakeNode()
        node.flush_when_kicked = True
        node.operations.clock = lambda: time.time_ns() // 1_000_000
        node.operations.value_bytes_max = 16 << 20
        policy = KeyspacePolicy(id=KeyspaceId(0), name="default", prefix=b"")
        node.operations.engine.keyspaces = Keyspaces([policy])
        server = RespServer(node)
        print((await server.listen("127.0.0.1", 0))[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def comparison(seed: int, protocol: int, *, fake: bool = False) -> Iterator[Comparison]:
    """Both servers, empty."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [
            stack.enter_context(redis_server(folder)),
            stack.enter_context(fake_node() if fake else edgekv_node(folder)),
        ]
        redis, node = (Peer(port, protocol) for port in ports)
        stack.callback(redis.close)
        stack.callback(node.close)
        yield Comparison(seed, redis, node)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--protocol", type=int, choices=[2, 3], default=3)
    parser.add_argument("--fake", action="store_true", help="test the protocol layer on a node made of dicts")
    parser.add_argument("--serve-fake", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_fake:
        serve_fake()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end as well
    if shutil.which("redis-server") is None:
        print("redis-server is not installed. On Debian: apt-get install redis-server.", file=sys.stderr)
        return 1
    with comparison(options.seed, options.protocol, fake=options.fake) as run:
        print(f"seed {options.seed}, RESP{options.protocol}", flush=True)
        began = time.monotonic()
        unexplained = 0
        for text in run.run(options.commands):
            unexplained += 1
            print(text, flush=True)
            if unexplained == DIFFERENCES_MAX:
                print("That is enough.")
                break
        seconds = time.monotonic() - began
        explained = ", ".join(f"{count} {why}" for why, count in run.judge.explained.most_common()) or "none"
        print(
            f"{run.done} commands, {run.done / seconds:.0f}/s; explained differences: {explained}; unexplained: {unexplained}"
        )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
