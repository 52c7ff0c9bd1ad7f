"""kill -9 of the nodes of a replicated cluster, and cuts of its links, at random moments under load; then everybody has everything.

    python -m tests.integration.cluster_kills --rounds 100

A cloud hub and two edges run under ``edgekv dev``. A writer for each node, in a thread, writes on keys of its own and on keys that all
share, one transaction a turn, and remembers what was acknowledged. A round kills a node, its applier, two nodes at once, or a node as
it starts, or cuts a link, or both, and later mends it. In the end all links are healed and all nodes run: each must hold every
acknowledged write of every writer, no key that was deleted, counters between what was acknowledged and what was sent, the same
digests. Everything random comes from the seed, but for the scheduler.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from edgekv.cli.resp_client import RespConnection, command
from edgekv.config import Address
from edgekv.errors import EdgeKVError
from tests.integration.dev_program import TIMEOUT_S, DevProgram, until
from tests.integration.kill_rounds import appliers_of

SITES: Final = ("EWR", "JFK")
NODES: Final = ("cloud-1", "EWR-1", "JFK-1")
KEPT: Final = 50
"""Own keys of a writer that are not deleted yet: each turn deletes the one so many turns before."""
SHARED_ELEMENTS: Final = 20
"""A writer adds its turns to a shared set, and takes all but the last few out again."""
BUSY_S_MAX: Final = 1.0
DOWN_S_MAX: Final = 1.0
RETRY_S: Final = 0.02
EVENTS: Final = ("node", "applier", "two nodes", "starting", "cut", "cut and node")


class Writer:
    """Turns at one node, from 1 on, each a transaction; in a thread, until `finish`."""

    def __init__(self, name: str, resp: Address) -> None:
        self.name: Final = name.encode()
        self.acknowledged = 0
        self.sent = 0
        self.unknown: Final[set[int]] = set()
        """Turns that were never answered."""
        self._resp: Final = resp
        self._stopping: Final = threading.Event()
        self._failure: BaseException | None = None
        self._thread: Final = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Wait for its end; raises what went wrong."""
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with suppress(EdgeKVError, ConnectionError):
                    self._write()
                time.sleep(RETRY_S)  # its node was killed, or does not run yet
        except BaseException as error:  # noqa: BLE001 - it is raised where the writer is waited for
            self._failure = error

    def _write(self) -> None:
        with RespConnection(self._resp, TIMEOUT_S) as connection:
            while not self._stopping.is_set():
                self._turn(connection)

    def _turn(self, connection: RespConnection) -> None:
        self.sent += 1
        turn, name = self.sent, self.name
        self.unknown.add(turn)
        commands = [
            (b"SET", own_key(name, turn), b"%d" % turn),
            (b"SET", b"last/shared", name + b"/%d" % turn),
            (b"INCR", b"count/" + name),
            (b"INCR", b"count/shared"),
            (b"SADD", b"shared", element(name, turn)),
            (b"HSET", b"turns", name, b"%d" % turn),
            (b"DEL", own_key(name, turn - KEPT)),
            (b"SREM", b"shared", element(name, turn - SHARED_ELEMENTS)),
        ]
        script = b"".join((command(b"MULTI"), *(command(*each) for each in commands), command(b"EXEC")))
        connection.send(script)
        replies = [connection.reply() for _ in range(len(commands) + 2)]
        assert isinstance(replies[-1], list), replies
        self.acknowledged = turn
        self.unknown.discard(turn)


def own_key(name: bytes, turn: int) -> bytes:
    return b"own/%s/%d" % (name, turn)


def element(name: bytes, turn: int) -> bytes:
    return b"%s/%d" % (name, turn)


class ClusterKills:
    """One cluster. Use it as a context manager: it leaves no process behind."""

    def __init__(self, directory: Path, seed: str) -> None:
        self._directory: Final = directory
        self._dice: Final = random.Random(seed)
        self.events: Final[Counter[str]] = Counter()

    def __enter__(self) -> Self:
        sites = [argument for site in SITES for argument in ("--site", site)]
        self._program = DevProgram(self._directory, *sites)
        self._resp = {name: Address.parse(node["resp"]) for name, node in self._program.nodes().items()}
        self.writers = [Writer(name, self._resp[name]) for name in NODES]
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.end(signal.SIGTERM)

    def round(self, event: str) -> None:
        """One disaster, and what it broke is mended."""
        self.events[event] += 1
        time.sleep(self._dice.uniform(0, BUSY_S_MAX))
        site = self._dice.choice(SITES)
        if "cut" in event:
            self._program.order("cut", site, "cloud")
        victims = self._dice.sample(NODES, 2 if event == "two nodes" else 1)
        if event == "applier":
            for pid in appliers_of(self._directory / victims[0]):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif event != "cut":
            for victim in victims:
                self._program.order("kill", victim)
        time.sleep(self._dice.uniform(0, DOWN_S_MAX))
        if event == "starting":
            self._kill_while_starting(victims[0])
        if event not in ("applier", "cut"):
            for victim in victims:
                self._program.order("start", victim)
        if "cut" in event:
            self._program.order("heal", site, "cloud")

    def _kill_while_starting(self, victim: str) -> None:
        starting = threading.Thread(target=self._program.call, args=("start", victim))
        starting.start()
        pid = 0
        while not pid:
            pid = self._program.nodes()[victim]["pid"] or 0
        time.sleep(self._dice.uniform(0, BUSY_S_MAX))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        starting.join()
        until(lambda: self._program.nodes()[victim]["state"] == "stopped")

    def end(self) -> None:
        """Everybody has everything, or AssertionError."""
        for writer in self.writers:
            writer.finish()
        verified = self._program.verify()
        assert verified.returncode == 0, verified.stdout + verified.stderr
        for name in NODES:
            with RespConnection(self._resp[name], TIMEOUT_S) as connection:
                self._check(name, connection)

    def _check(self, node: str, connection: RespConnection) -> None:
        for writer in self.writers:
            where = f"{node}, of {writer.name.decode()} ({writer.acknowledged} acknowledged, {len(writer.unknown)} not known)"
            self._check_own(where, connection, writer)
            count = connection.call(b"GET", b"count/" + writer.name)
            assert isinstance(count, bytes)
            happened = int(count)
            assert writer.sent - len(writer.unknown) <= happened <= writer.sent, f"{where}: counted {happened}"
        sums = [int(connection.call(b"GET", b"count/" + writer.name)) for writer in self.writers]  # type: ignore[arg-type] # bytes, see above
        assert connection.call(b"GET", b"count/shared") == b"%d" % sum(sums), f"{node}: {sums}"

    def _check_own(self, where: str, connection: RespConnection, writer: Writer) -> None:
        name, sent = writer.name, writer.sent
        for turn in range(1, sent + 1):
            remover = turn + KEPT
            deleted = remover <= sent and remover not in writer.unknown
            perhaps = turn in writer.unknown or (remover <= sent and remover in writer.unknown)
            if deleted or turn > sent - 2 * KEPT:
                there = connection.call(b"GET", own_key(name, turn))
                assert not deleted or there is None or turn in writer.unknown, (
                    f"{where}: turn {turn} was deleted, and is back"
                )
                assert there == b"%d" % turn or deleted or perhaps, f"{where}: turn {turn} is lost"
        members = connection.call(b"SMEMBERS", b"shared")
        assert isinstance(members, list)
        mine = {
            int(member.split(b"/")[1])
            for member in members
            if isinstance(member, bytes) and member.startswith(name + b"/")
        }
        newest = set(range(max(1, sent - SHARED_ELEMENTS + 1), sent + 1)) - writer.unknown
        assert newest <= mine, f"{where}: elements {sorted(newest - mine)} are lost"


def main() -> int:
    """Run rounds; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.cluster_kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgekv-kills-") as directory:
        print(run(Path(directory), options.rounds, options.seed))
    return 0


def run(directory: Path, rounds: int, seed: str) -> str:
    """What happened, as a sentence. AssertionError: something was lost."""
    with ClusterKills(directory, seed) as cluster:
        for number in range(rounds):
            cluster.round(EVENTS[number % len(EVENTS)])
        cluster.end()
        acknowledged = sum(writer.sent - len(writer.unknown) for writer in cluster.writers)
        unknown = sum(len(writer.unknown) for writer in cluster.writers)
    events = ", ".join(f"{times} {event}" for event, times in cluster.events.items())
    told = f"{acknowledged} transactions of 8 commands acknowledged, {unknown} unanswered"
    return f"{rounds} rounds ({events}): {told}; all nodes hold all of them"


if __name__ == "__main__":
    sys.exit(main())
