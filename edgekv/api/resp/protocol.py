"""One client connection: from a read to replies that leave when they may. The hot path of the node begins here.

Per read: the door makes commands of the bytes; runs of one verb become ONE call of node.operations, with columns of keys and values;
the replies of the whole read are one payload. No coroutine, task or future exists per command (a task and its wake-up cost more than
everything else together); a read with a single GET or SET, the unpipelined case, has a path of its own.

Invariants
----------
- *Order.* Replies leave in the order of the commands. `_last` is the newest frame that a reply of this connection waits for; a later
  reply waits for it too, even if it needs no frame itself.
- *Durability.* A payload is written only when the newest frame that its commands wrote to or looked at is done (`Engine.barrier`).
- *Holding.* A connection holds, for one or more reasons (`_holds`), when a write finds no room, when its client does not take replies,
  when too many replies wait for a sync, while a slow command runs, or when its turn is over. Then reading is paused and the commands
  already parsed stay in `_commands`; nothing is processed until no reason is left. Other connections go on. `_hold` and
  `_free` are the only mutators.
- *Bounds.* Input: door.py, and a bound over all connections. Output: commands are processed only while little output is pending, so
  what a connection has in memory is the high-water mark and the replies of one read call (READ_RUN_BYTES_MAX and one value), and
  there is a bound over all connections. Above one of these two, a connection that has more than its share is closed.
- *Turns.* Thousands of commands fit into one read, and some take a while (numbers of thousands of digits): after
  RESP_TURN_MS a connection gives the loop back and holds until its next turn. Looked at between parts of runs.
- *Time* is taken twice per payload, from the read that completed its commands to the write of their replies, never per command: each
  command that succeeded counts as one observation of what its payload took.
- *Continuing* is always scheduled, never done inside `release` or a room callback: the engine is in the middle of its own step there,
  and further payloads of this connection may be about to be released.
"""

import asyncio
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from time import perf_counter_ns
from typing import Final, Protocol, cast

from edgekv.api.resp import (
    batch,
    connection,
    expiry,
    hashes,
    introspection,
    keys,
    once,
    refused,
    replication,
    server_info,
    sets,
    siblings,
    strings,
    transactions,
    watch,
)
from edgekv.api.resp.door import Door, bad_argument
from edgekv.api.resp.replies import OK, error, fault, optional_bulks
from edgekv.api.resp.runs import WRITE_RUNS, replies
from edgekv.api.resp.session import Arguments, Later, Promised, Reply, Session, Shared, Slices, Stream
from edgekv.api.resp.table import Command, find, key_indexes
from edgekv.api.resp.watch import Pushes
from edgekv.engine.frame import Frame, newer
from edgekv.errors import EdgeKVError
from edgekv.limits import (
    KEY_BYTES_MAX,
    RESP_HELD_BYTES_MAX,
    RESP_INPUT_BYTES_TOTAL_MAX,
    RESP_INPUT_SHARE_BYTES,
    RESP_OUTPUT_BYTES_TOTAL_MAX,
    RESP_OUTPUT_HIGH_BYTES,
    RESP_OUTPUT_SHARE_BYTES,
    RESP_READ_RUN_KEYS,
    RESP_TURN_MS,
    RESP_WRITE_RUN_COMMANDS,
)
from edgekv.metrics import NO_KEYSPACE

COMMAND_MODULES: Final = (
    batch,
    connection,
    expiry,
    hashes,
    introspection,
    keys,
    once,
    refused,
    replication,
    server_info,
    sets,
    siblings,
    strings,
    transactions,
    watch,
)
"""Imported for what they enter into the table."""

_TOO_MANY: Final = error("ERR max number of clients reached")
_MIXED: Final = "mixed"
"""What the time of a payload is filed under when it answers several verbs."""
_SECURITY: Final = frozenset([b"post", b"host:"])
"""A browser was made to send HTTP here (cross-protocol scripting). As Redis does, hang up before its body is read as commands."""

_BYTES: Final = {bytes}
_INTEGERS: Final = {int}
_TWO: Final = {2}
_THREE: Final = {3}

Held = tuple[bytes, str, int, int]
"""A payload that waits for its frame: the bytes, and for its time the verb, how many of them, and when they came."""

_verb: Final = itemgetter(0)
_key: Final = itemgetter(1)


class Listener(Protocol):
    """What a connection asks of its listener."""

    @property
    def shared(self) -> Shared: ...

    def joined(self, connection: "Connection") -> None: ...
    def left(self, connection: "Connection") -> None: ...
    def wait_for_room(self, connection: "Connection") -> None:
        """Call `Connection.room` when writes find room again."""

    def run_slow(self, connection: "Connection", slices: Slices) -> None:
        """Run it, then call `Connection.slow_reply`."""

    def run_stream(self, connection: "Connection", pushes: Pushes) -> None:
        """Hand what a watch shows to `Connection.push`, until the client is gone or there is no more."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in the next turn of the loop."""


# Why a connection does not process commands: bits of `Connection._holds`. Plain integers, because an IntFlag costs a microsecond
# per test, and each reply tests.
_ROOM: Final = 1
"""A write waits for memory or log space."""
_SOCKET: Final = 2
"""The client does not take its replies."""
_REPLIES: Final = 4
"""Too many replies wait for a sync."""
_SLOW: Final = 8
"""A slow command runs."""
_TURN: Final = 16
"""What it has sent at once takes long: others have their turn of the loop."""
_TURN_NS: Final = RESP_TURN_MS * 1_000_000
_CLOCK_MASK: Final = 15
"""Of commands that are processed one by one, every sixteenth looks at the clock."""


class Connection(asyncio.Protocol):
    """See the module docstring."""

    __slots__ = (
        "_at_end",
        "_commands",
        "_counted_input",
        "_counted_output",
        "_door",
        "_ended",
        "_engine",
        "_holds",
        "_host",
        "_its_turn",
        "_keyspaces",
        "_last",
        "_listener",
        "_metrics",
        "_operations",
        "_out",
        "_out_bytes",
        "_paused",
        "_promises",
        "_received_ns",
        "_scheduled",
        "_session",
        "_shared",
        "_stream",
        "_timed",
        "_timed_op",
        "_transport",
        "_turn_ends_ns",
        "_value_bytes_max",
        "_waiting_bytes",
    )

    def __init__(self, listener: Listener) -> None:
        shared, host = listener.shared, listener.shared.host
        self._listener: Final = listener
        self._shared: Final = shared
        self._host: Final = host
        self._metrics: Final = host.metrics
        self._operations: Final = host.operations
        self._engine: Final = host.operations.engine
        self._keyspaces: Final = host.operations.engine.keyspaces
        self._value_bytes_max: Final = host.operations.value_bytes_max
        self._door: Final = Door()
        self._session: Session
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        """Replies of the batch being processed."""
        self._out_bytes = 0
        self._received_ns = 0
        """When the last read came."""
        self._timed = 0
        """How many commands succeeded of those that the next payload answers, and their verb."""
        self._timed_op = ""
        self._promises: Promised | None = None
        """The session's, once it has some."""
        self._last: Frame | None = None
        self._waiting_bytes = 0
        """Of payloads that wait for frames; 0: none waits."""
        self._holds = 0
        self._turn_ends_ns = 0
        """When it has to give the loop back."""
        self._its_turn = False
        """It was woken, and what it has parsed goes before those who still wait for room."""
        self._commands: list[Arguments] = []
        """Parsed and not processed yet."""
        self._scheduled = False
        """`_continue` will be called."""
        self._paused = False
        self._stream: Pushes | None = None
        """The watch that the connection belongs to; it takes no commands any more."""
        self._counted_input = 0
        """What this connection contributes to `Shared.input_bytes`."""
        self._counted_output = 0
        """And to `Shared.output_bytes`."""
        self._at_end = False
        """The client will send no more; it may still read."""
        self._ended = True
        """Not connected (any more): nothing is written."""

    # -- the life of a connection

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        """Admit the client, or say that there are too many."""
        self._transport = transport = cast("asyncio.Transport", made)  # uvloop's is one by shape only
        session = self._shared.admit()
        if session is None:
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._session, self._ended = session, False
        session.address = _address(transport.get_extra_info("peername"))
        session.local_address = _address(transport.get_extra_info("sockname"))
        transport.set_write_buffer_limits(high=RESP_OUTPUT_HIGH_BYTES)
        self._listener.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the client. Its unanswered writes may still become durable."""
        if not self._ended:
            self._ended = True
            self._commands = []
            self._count_input(0)
            self._count_output(0)
            self._shared.leave(self._session)
            self._listener.left(self)
            if self._stream is not None:
                self._stream.follower.end()

    def eof_received(self) -> bool:
        """The client has sent its last command (``printf ... | nc``); what it asked for is still answered."""
        self._at_end = True
        if not self._ended:
            self._hurry()
        return not (self._ended or self._idle or self._stream is not None)

    def _hurry(self) -> None:
        """Answer what would wait without end: a client that is gone looks like one that sends no more."""
        session = self._session
        if session.endless is not None:
            at_once = session.endless
            session.give_up()
            self._later_reply(at_once())
        if self._promises is not None:
            self._promises.hurry()

    @property
    def ended(self) -> bool:
        """Whether the client is gone."""
        return self._ended

    @property
    def _idle(self) -> bool:
        return not self._commands and self._waiting_bytes == 0 and not self._holds & _SLOW

    def finish(self) -> None:
        """Close once what was asked for is answered; take no further command."""
        if not self._ended:
            self._session.closing = True
            self._commands = []
            self._close_if_done()

    def abort(self) -> None:
        """Close at once."""
        if not self._ended:
            self._transport.abort()

    def _close_if_done(self) -> None:
        if (self._at_end or self._session.closing) and self._idle and not self._ended:
            self._transport.close()

    # -- commands come in

    def data_received(self, data: bytes) -> None:
        """One read."""
        if self._ended or self._session.closing:
            return
        self._received_ns = perf_counter_ns()
        door = self._door
        commands = door.take(data)
        if commands:
            self._commands += commands  # type: ignore[arg-type] # of any type inside until they are checked, run by run
            if not self._holds and not self._scheduled:
                self._process()
        pending = self._counted_input + len(data) if self._commands else door.pending
        if pending or self._counted_input:
            self._count_input(pending)
        if door.fault is not None and not self._commands and not self._holds:
            self._break(door.fault)

    def _count_input(self, pending: int) -> None:
        """Commands of all connections that are incomplete or wait share one bound; above it each keeps a small one."""
        self._shared.input_bytes += pending - self._counted_input
        self._counted_input = pending
        if pending > RESP_INPUT_SHARE_BYTES and self._shared.input_bytes > RESP_INPUT_BYTES_TOTAL_MAX:
            self._break("too many bytes of unprocessed commands on this node")
        elif pending > RESP_INPUT_SHARE_BYTES and self._holds and not (self._paused or self._ended):
            self._paused = True
            self._transport.pause_reading()

    def _count_output(self, pending: int) -> None:
        """Likewise for replies. The client does not read, so it cannot be told why it is cut off."""
        self._shared.output_bytes += pending - self._counted_output
        self._counted_output = pending
        if pending > RESP_OUTPUT_SHARE_BYTES and self._shared.output_bytes > RESP_OUTPUT_BYTES_TOTAL_MAX:
            self.abort()

    def _break(self, sentence: str) -> None:
        """A protocol error: say so and hang up, because what follows cannot be understood."""
        if not (self._ended or self._session.closing):
            self._shared.protocol_errors += 1
            self._session.closing = True
            self._commands = []
            self._answer(error(f"ERR Protocol error: {sentence}"), None)
            self._close_if_done()

    def _process(self) -> None:
        """Process what is parsed, until it is done or the connection holds."""
        commands = self._commands
        self._shared.commands_total += len(commands)
        self._engine.barrier = None
        promises = self._promises
        if promises is not None:
            promises.begin(commands)
        elif len(commands) == 1:
            command = commands[0]
            plain = _PLAIN.get(command[0]) if type(command[0]) is bytes and self._session.transaction is None else None
            reply = None if plain is None else plain(self, command)
            if reply is not None:
                self._commands = []
                self._answer(reply, self._engine.barrier)
                return
        self._turn_ends_ns = perf_counter_ns() + _TURN_NS
        one_by_one = len(commands) == 1 or (promises is not None and promises.behind)
        done = self._each(commands) if one_by_one else self._runs(commands)
        self._commands = [] if self._session.closing else commands[done:]
        if promises is not None:
            promises.unprocessed = len(self._commands)
        self._shared.commands_total -= len(self._commands)
        self._flush()
        if self._at_end or self._session.closing:
            self._close_if_done()

    def _runs(self, commands: list[Arguments]) -> int:
        """Process runs of one verb; how many commands were processed."""
        done = 0
        for verb, group in groupby(commands, _verb):
            run = list(group)
            in_run = _IN_RUNS.get(verb) if type(verb) is bytes and self._session.transaction is None else None
            processed = self._each(run) if in_run is None else in_run(self, run)
            done += processed
            if processed < len(run) or self._holds or self._session.closing:
                break
        return done

    # -- the unpipelined path: the reply, or None when it is not as plain as it looks

    def _plain_get(self, command: Arguments) -> bytes | None:
        if len(command) != 2:
            return None
        key = command[1]
        if type(key) is not bytes or not 0 < len(key) <= KEY_BYTES_MAX:
            return None
        try:
            value = self._operations.get(key)
        except EdgeKVError:
            return None  # `_each` asks again and words the error.
        self._metrics.ops("get", self._keyspaces.of(key).name)
        self._timed_op, self._timed = "get", 1
        return self._session.dialect.null if value is None else b"$%d\r\n%b\r\n" % (len(value), value)

    def _plain_set(self, command: Arguments) -> bytes | None:
        if len(command) != 3 or self._lacks_room():
            return None
        _, key, value = command
        if (
            type(key) is not bytes
            or type(value) is not bytes
            or not 0 < len(key) <= KEY_BYTES_MAX
            or len(value) > self._value_bytes_max
        ):
            return None
        try:
            self._operations.set_run((key,), (value,))
        except EdgeKVError:
            return None
        self._metrics.ops("set", self._keyspaces.of(key).name)
        self._timed_op, self._timed = "set", 1
        return OK

    # -- runs of one verb: how many of the run were processed

    def _get_run(self, run: list[Arguments]) -> int:
        if set(map(len, run)) != _TWO:
            return self._each(run)
        names = list(map(_key, run))
        if set(map(type, names)) != _BYTES or b"" in names or max(map(len, names)) > KEY_BYTES_MAX:
            return self._each(run)
        done = 0
        while done < len(names):
            part = names[done : done + RESP_READ_RUN_KEYS]
            try:
                values = self._operations.get_run(part)
            except EdgeKVError:
                return done + self._each(run[done:])
            part = part[: len(values)]  # fewer, if they are large
            self._count("get", part)
            done += len(part)
            self._put(optional_bulks(values, self._session.dialect.null))
            if self._out_bytes > RESP_OUTPUT_HIGH_BYTES:
                self._flush()
            self._end_turn()
            if self._holds:
                break
        return done

    def _set_run(self, run: list[Arguments]) -> int:
        if set(map(len, run)) != _THREE:
            return self._each(run)
        _, names, values = zip(*run, strict=True)
        if set(map(type, names)) != _BYTES or set(map(type, values)) != _BYTES:
            return self._each(run)
        if b"" in names or max(map(len, names)) > KEY_BYTES_MAX or max(map(len, values)) > self._value_bytes_max:
            return self._each(run)
        if self._lacks_room():
            self._hold(_ROOM)
            return 0
        try:
            self._operations.set_run(names, values)
        except EdgeKVError:
            # Each gets its own answer. A SET that was already made is made again, which changes nothing.
            return self._each(run)
        self._count("set", names)
        self._put(OK * len(run))
        return len(run)

    def _write_run(self, run: list[Arguments]) -> int:
        done = 0
        while done < len(run):
            part = run[done : done + RESP_WRITE_RUN_COMMANDS]
            processed = self._write_part(part)
            done += processed
            if processed < len(part):
                break
            self._end_turn()
            if self._holds:
                break
        return done

    def _write_part(self, run: list[Arguments]) -> int:
        if self._lacks_room():
            self._hold(_ROOM)
            return 0
        op, call = WRITE_RUNS[run[0][0]]
        try:
            results = call(self._operations, run)
        except EdgeKVError:
            results = None  # Nothing happened; each gets its own answer.
        if results is None:
            return self._each(run)
        if set(map(type, results)) == _INTEGERS:
            self._count(op, list(map(_key, run)))
        else:
            for command, result in zip(run, results, strict=True):
                code = result.code if isinstance(result, EdgeKVError) else "ok"
                self._metrics.ops(op, self._keyspaces.of(command[1]).name, 1, code)
            self._time(op, sum(type(result) is int for result in results))
        self._put(replies(results))
        return len(run)

    def _count(self, op: str, names: list[bytes] | tuple[bytes, ...]) -> None:
        self._time(op, len(names))
        keyspace = self._keyspaces.of_run(names)
        if keyspace is not None:
            self._metrics.ops(op, keyspace.name, len(names))
            return
        for name in names:
            self._metrics.ops(op, self._keyspaces.of(name).name)

    def _time(self, op: str, n: int) -> None:
        """Have the next payload's time recorded for these as well."""
        if op != self._timed_op:
            self._timed_op = _MIXED if self._timed else op
        self._timed += n

    # -- any command, one at a time

    def _each(self, run: list[Arguments]) -> int:
        """Process commands one by one, until the connection holds or closes; how many were processed."""
        for i, command in enumerate(run):
            if set(map(type, command)) != _BYTES:
                self._flush()
                self._break(bad_argument(command))
                return i
            entry = find(command)
            transaction = self._session.transaction
            reply: Reply | None
            if isinstance(entry, Command):
                reply = None if transaction is None else transaction.take(entry.name, entry.flags, command)
                if reply is None:
                    if entry.writes and self._lacks_room():
                        self._hold(_ROOM)
                        return i
                    reply = self._call(entry, command)
                if not isinstance(reply, bytes):
                    self._answer_later(entry.name, reply)
                    return i + 1
            elif command[0].lower() in _SECURITY:
                self._session.closing = True
                return i
            else:
                reply = entry
                if transaction is not None:
                    transaction.spoil()
            assert type(reply) is bytes
            self._put(reply)
            if self._out_bytes > RESP_OUTPUT_HIGH_BYTES:
                self._flush()
            if not i & _CLOCK_MASK:
                self._end_turn()
            if self._holds or self._session.closing:
                return i + 1
        return len(run)

    def _answer_later(self, name: str, reply: Slices | Later | Stream) -> None:
        """Hold until a reply that takes long is there: then `slow_reply` is called."""
        if isinstance(reply, Stream):
            self._begin_stream(reply)
            return
        self._flush()
        self._time(name, 1)
        if isinstance(reply, Slices):
            self._hold(_SLOW)
            if self._promises is not None:
                self._promises.reads = not reply.writes
            self._listener.run_slow(self, reply)
        elif reply.endless is not None and self._at_end:
            self._put(reply.endless())
            self._flush()
        else:
            self._holds |= _SLOW  # It reads on, or a client that leaves while it waits would not be noticed.
            self._session.endless = reply.endless
            self._session.awaited = reply.begin(self._last, self._later_reply)

    def _begin_stream(self, stream: Stream) -> None:
        """From here on the connection is a watch's. What its client sends is read and dropped, so that its leaving is noticed."""
        self._put(OK)
        self._flush()
        self._stream = Pushes(stream.follower, self._session.dialect)
        self._session.closing = True
        self._holds |= _SLOW
        self._listener.run_stream(self, self._stream)

    def _call(self, entry: Command, command: Arguments) -> Reply:
        indexes = key_indexes(entry, len(command))
        keyspace = self._keyspaces.of(command[indexes[0]]).name if indexes else NO_KEYSPACE
        assert entry.run is not None
        promises = self._promises
        try:
            if promises is not None and promises.behind and entry.uses_keys:
                promises.check(entry.name)
            for i in indexes:
                self._operations.check_key(command[i])
            reply = entry.run(self._session, command)
            self._promises = self._session.promises
        except EdgeKVError as problem:
            self._metrics.ops(entry.name, keyspace, 1, problem.code)
            return fault(problem)
        self._metrics.ops(entry.name, keyspace)
        if type(reply) is bytes:
            self._time(entry.name, 1)
        return reply

    # -- replies go out

    def _put(self, reply: bytes) -> None:
        self._out.append(reply)
        self._out_bytes += len(reply)

    def _flush(self) -> None:
        """Answer what was put so far, behind the barrier of the calls so far."""
        if self._out:
            payload = b"".join(self._out)
            self._out = []
            self._out_bytes = 0
            self._answer(payload, self._engine.barrier)
            self._engine.barrier = None

    def _answer(self, payload: bytes, barrier: Frame | None) -> None:
        """Write ``payload`` when ``barrier``, and everything that earlier replies wait for, is done."""
        if self._ended:
            return
        last = self._last
        if last is not None and last.done:  # Then it has released everything: `release` never leads here.
            last = self._last = None
        frame = barrier if last is None else newer(last, barrier)
        op, n, received_ns, self._timed = self._timed_op, self._timed, self._received_ns, 0
        promises = self._promises
        if promises is not None:
            self._last = frame
            self._keep(promises, (payload, op, n, received_ns), frame)
            return
        if frame is None or frame.done:
            self._transport.write(payload)
            if n:
                self._metrics.op_seconds[op].observe(perf_counter_ns() - received_ns, n)
            return
        self._last = frame
        held: Held = (payload, op, n, received_ns)
        frame.waiters.append((self, held))
        self._waiting_bytes += len(payload)
        self._host.kick_soon()
        if self._waiting_bytes > RESP_HELD_BYTES_MAX:
            self._hold(_REPLIES)

    def _keep(self, promises: Promised, held: Held, frame: Frame | None) -> None:
        """Have a payload wait for its frame, and for other nodes."""
        self._waiting_bytes += len(held[0])
        promises.take(self, held, frame)
        if frame is not None and not frame.done:
            self._host.kick_soon()
        if self._waiting_bytes > RESP_HELD_BYTES_MAX:
            self._hold(_REPLIES)

    def release_with(self, prefix: bytes, held: object) -> None:
        """The replies leave, with something before them. Called by promises.py."""
        payload, op, n, received_ns = cast("Held", held)
        self._waiting_bytes += len(prefix)
        self.release((prefix + payload, op, n, received_ns))

    def release(self, held: object) -> None:
        """The frame is done: the replies leave. Called by the engine."""
        payload, op, n, received_ns = cast("Held", held)
        self._waiting_bytes -= len(payload)
        if self._ended:
            return
        self._transport.write(payload)
        if n:
            self._metrics.op_seconds[op].observe(perf_counter_ns() - received_ns, n)
        if self._holds & _REPLIES and self._waiting_bytes <= RESP_HELD_BYTES_MAX // 2:
            self._free(_REPLIES)
        if self._at_end or self._session.closing:
            self._close_if_done()

    def fail(self, problem: EdgeKVError) -> None:
        """Whether the writes happened is unknown. The client hears it once, as the answer to the first; then the connection ends."""
        self._waiting_bytes = 0
        if not self._ended:
            self._commands = []
            self._transport.write(fault(problem))
            self._transport.close()
            self.connection_lost(None)

    def slow_reply(self, payload: bytes, barrier: Frame | None) -> None:
        """A slow command has finished."""
        self._answer(payload, barrier)
        self._free(_SLOW)

    def push(self, payload: bytes) -> None:
        """Messages of the connection's watch."""
        self._answer(payload, None)

    def stream_ended(self, problem: EdgeKVError | None) -> None:
        """There is no more to push: say why, and hang up."""
        if problem is not None:
            self._answer(fault(problem), None)
        self._free(_SLOW)
        self._close_if_done()

    def _later_reply(self, payload: bytes) -> None:
        """What other nodes had to decide about is decided."""
        self._session.awaited = self._session.endless = None
        self.slow_reply(payload, None)

    # -- holding

    def _lacks_room(self) -> bool:
        """Whether a write has to wait: there is no room, or others wait for it and it is not this one's turn."""
        return self._engine.write_blocked or (not self._its_turn and bool(self._shared.without_room))

    def _hold(self, reason: int) -> None:
        if reason & self._holds:
            return
        self._holds |= reason
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if reason == _ROOM:
            self._listener.wait_for_room(self)

    def _end_turn(self) -> None:
        """Hold until the next turn of the loop, if this one took long."""
        if perf_counter_ns() > self._turn_ends_ns and not self._ended:
            self._hold(_TURN)
            self._listener.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._free(_TURN)

    def _free(self, reason: int) -> None:
        """A reason is gone; with the last one the connection goes on, soon."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds and not self._scheduled:
            self._scheduled = True
            self._listener.call_soon(self._continue)

    def _continue(self) -> None:
        self._scheduled = False
        if self._commands and not (self._holds or self._ended):
            self._process()
            self._its_turn = False
        if not self._commands and self._counted_input:
            self._count_input(self._door.pending)
        if self._holds or self._ended:
            return
        if self._door.fault is not None:
            self._break(self._door.fault)
        self._close_if_done()
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def room(self) -> None:
        """There is room for the writes that wait here. Called by the server."""
        self._its_turn = True
        self._free(_ROOM)

    def pause_writing(self) -> None:
        """The client does not take its replies."""
        if self._stream is None:
            self._hold(_SOCKET)
        else:
            self._stream.follower.pause()
        if not self._ended:
            self._count_output(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It does again."""
        if not self._ended:
            self._count_output(0)
        if self._stream is not None:
            self._stream.follower.resume()
        self._free(_SOCKET)


_PLAIN: Final[dict[bytes, Callable[[Connection, Arguments], bytes | None]]] = {
    b"GET": Connection._plain_get,
    b"get": Connection._plain_get,
    b"SET": Connection._plain_set,
    b"set": Connection._plain_set,
}
_IN_RUNS: Final[dict[bytes, Callable[[Connection, list[Arguments]], int]]] = {
    b"GET": Connection._get_run,
    b"get": Connection._get_run,
    b"SET": Connection._set_run,
    b"set": Connection._set_run,
    **dict.fromkeys(WRITE_RUNS, Connection._write_run),
}


def _address(name: object) -> str:
    """``host:port`` of a socket name."""
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
