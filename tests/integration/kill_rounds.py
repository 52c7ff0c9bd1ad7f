"""kill -9 of a node, of its applier, of both, and of a node that is starting, at random moments under load, again and again.

    python -m tests.integration.kill_rounds --rounds 100

A round: start the load (tests/integration/ledger.py), kill after a random time, start the node again, read everything back. Checked
after each: nothing acknowledged is lost, no delete undone, counters right, and the keys of each connection as after a prefix of what
it sent; the applied LSN never lower than once seen; the node ready within `READY_S`; exactly one applier, never that of a dead node;
and in the log, which `LogAudit` reads between two rounds, no dot given twice. Sizes of log and memory change from round to round, so
that small generations, rolls and recycling are hit as well. Everything random comes from the seed, but for the scheduler.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from edgekv.checksum import chain_next
from edgekv.cli.node_http import NodeHttp
from edgekv.cli.node_process import NodeProcess
from edgekv.config import Address
from edgekv.ids import Actor
from edgekv.limits import MIB
from edgekv.wal.disk import RealDisk
from edgekv.wal.record import Changes, unpack_records
from edgekv.wal.segment import Segment, SegmentWalk, segment_name, segment_number
from tests.integration.ledger import LANES, PATIENCE_S, Load, State, read_back

READY_S: Final = 3.0
LOAD_S_MAX: Final = 1.5
START_S_MAX: Final = 1.0
GAP_S_MAX: Final = 0.02

Victim = Literal["node", "applier", "both", "starting"]
VICTIMS: Final[tuple[Victim, ...]] = ("node", "applier", "both", "starting")

SMALL: Final = ("--small-memory", "true", "--memory-bytes", str(4 * MIB), "--wal-segment-bytes", str(1 * MIB))
MIDDLE: Final = ("--wal-segment-bytes", str(8 * MIB))
SIZES: Final = (SMALL, SMALL, MIDDLE)
VALUES: Final = ("--limits-value-bytes-max", "65536")


class Run(NamedTuple):
    """What the log holds of consecutive changes of one actor."""

    first_seq: int
    changes: int
    base_hlc: int
    chain: int
    body: int
    """A hash of the body."""


class LogAudit:
    """Every run of changes seen in a log so far. `look` compares what is there now with it."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, Actor], dict[int, Run]] = {}
        self.changes = 0

    def look(self, directory: Path) -> None:
        """Read the whole log; AssertionError when a dot has a second content, a sequence has a gap, or a segment lost its end."""
        expected: dict[tuple[int, Actor], tuple[int, int, int]] = {}
        for lsn, record in enumerate_records(directory):
            if not isinstance(record, Changes):
                continue
            actor = record.keyspace, record.actor
            run = Run(record.first_seq, record.changes, record.base_hlc, record.chain, hash(record.body))
            seq, hlc, chain = expected.get(actor, (run.first_seq, 0, run.chain))
            assert (run.first_seq, run.chain) == (seq, chain), (
                f"LSN {lsn}: {run} does not follow seq {seq - 1} of {actor}"
            )
            assert run.base_hlc > hlc, f"LSN {lsn}: the HLC of {run} is not above {hlc}"
            seq = run.first_seq + run.changes
            expected[actor] = seq, run.base_hlc + run.changes - 1, chain_next(run.chain, run.base_hlc, record.body)
            self._compare(lsn, actor, run)

    def _compare(self, lsn: int, actor: tuple[int, Actor], run: Run) -> None:
        known = self._runs.setdefault(actor, {})
        if run.first_seq in known:
            assert known[run.first_seq] == run, f"LSN {lsn}: {run} has the dots of {known[run.first_seq]}"
            return
        last = next(reversed(known.values()), None)
        assert last is None or run.first_seq >= last.first_seq + last.changes, f"LSN {lsn}: {run} overlaps {last}"
        known[run.first_seq] = run
        self.changes += run.changes


def enumerate_records(wal: Path) -> "list[tuple[int, object]]":
    """(LSN, record) of all frames of a log that is not being written to."""
    disk = RealDisk(wal, read_only=True)
    records: list[tuple[int, object]] = []
    try:
        numbers = sorted(number for name in disk.names() if (number := segment_number(name)) is not None)
        walk: SegmentWalk | None = None
        for number in numbers:
            segment = Segment.open(disk, segment_name(number))
            assert segment is not None, f"the header of {segment_name(number)} is damaged"
            assert walk is None or walk.sealed_by(segment.header), (
                f"{segment_name(number)} does not follow its predecessor"
            )
            walk = SegmentWalk(segment)
            while (step := walk.step()) is not None:
                header, payload = step
                records += enumerate(unpack_records(payload), header.first_lsn)
            segment.close()
    finally:
        disk.close()
    return records


def appliers_of(data_dir: Path) -> list[int]:
    """The applier processes that work on a data directory."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if b"edgekv.store.applier" in arguments and str(data_dir).encode() in arguments:
                    pids.append(int(entry.name))
    return pids


def wait_for_applier(data_dir: Path, other_than: int) -> int:
    """The applier of a running node, once it is not that one any more."""
    until = time.monotonic() + PATIENCE_S
    while True:
        found = appliers_of(data_dir)
        if len(found) == 1 and found[0] != other_than:
            return found[0]
        assert time.monotonic() < until, f"appliers of {data_dir}: {found}, was {other_than}"
        time.sleep(0.01)


def wait_for_no_applier(data_dir: Path) -> None:
    """An orphan sees the end of its pipe and goes."""
    until = time.monotonic() + PATIENCE_S
    while found := appliers_of(data_dir):
        assert time.monotonic() < until, f"{found} outlived the node of {data_dir}"
        time.sleep(0.01)


def start(node: NodeProcess) -> float:
    """Start a node; seconds until it was ready, without those in which it and its applier could run and had no CPU.

    The machine may have other work, whatever the node does; what it waits for by itself (locks, the disk, the applier) is in them.
    """
    ready_s = node.start()
    return ready_s - sum(map(_without_cpu_s, (node.pid, wait_for_applier(node.data_dir, other_than=0))))


def _without_cpu_s(pid: int) -> float:
    """From schedstat(5): the time that the main thread was on a run queue."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def applied_lsn(http: Address) -> int:
    """What the node says LMDB holds."""
    with NodeHttp(http, PATIENCE_S) as client:
        return int(client.read("/v1/status").json()["applied_lsn"])


@dataclass
class Summary:
    """What a series of rounds came to."""

    rounds: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    unanswered: int = 0
    lost: int = 0
    resurrected: int = 0
    miscounted: int = 0
    not_a_prefix: int = 0
    slow_starts: int = 0
    changes_in_log: int = 0
    ready_s: list[float] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """0 is the only good number."""
        return self.lost + self.resurrected + self.miscounted + self.not_a_prefix + self.slow_starts

    def __str__(self) -> str:
        victims = ", ".join(f"{number} {victim}" for victim, number in sorted(self.rounds.items()))
        starts = sorted(self.ready_s) or [0.0]
        return (
            f"{self.rounds.total()} rounds ({victims}): {self.acknowledged} operations acknowledged, {self.unanswered} unanswered; "
            f"{self.lost} lost, {self.resurrected} deletes undone, {self.miscounted} counters wrong, "
            f"{self.not_a_prefix} lanes not a prefix; {self.changes_in_log} dots in the log, none given twice; "
            f"{len(self.ready_s)} starts, ready after {starts[len(starts) // 2]:.2f} s (median), {starts[-1]:.2f} s (worst), "
            f"{self.slow_starts} slower than {READY_S:.0f} s"
        )


class KillRounds:
    """One data directory, killed and started again. Use it as a context manager: it leaves no process behind."""

    def __init__(self, directory: Path, seed: str) -> None:
        self._directory = directory
        self._data_dir = directory / "node"
        self._seed = seed
        self._dice = random.Random(seed)
        self._node: NodeProcess | None = None
        self._held: list[State] = [{} for _ in range(LANES)]
        self._audit = LogAudit()
        self._applied = 0
        self.summary = Summary()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._node is not None:
            self._node.kill()
        wait_for_no_applier(self._data_dir)

    def round(self, victim: Victim) -> None:
        """One round; what was found is added to the summary. AssertionError for what is never excusable."""
        number = self.summary.rounds.total()
        with Load(self._directory, f"{self._seed}-{number}", self._held) as load:
            load.start(self._running.resp)
            time.sleep(self._dice.uniform(0, LOAD_S_MAX))
            self._see_applied()
            if victim == "applier":
                self._kill_applier_only(load)
            else:
                self._kill_node(victim)
            progress = load.join()
        if victim != "applier":
            wait_for_no_applier(self._data_dir)
            self._audit.look(self._data_dir / "wal")
            if victim == "starting":
                self._kill_while_starting()
            self._start()
        found = read_back(self._running.resp)
        verdicts = load.judge(progress, found)
        self.summary.rounds[victim] += 1
        self.summary.acknowledged += sum(lane.acknowledged for lane in progress)
        self.summary.unanswered += sum(lane.sent - lane.acknowledged for lane in progress)
        self.summary.lost += sum(len(verdict.lost) for verdict in verdicts)
        self.summary.resurrected += sum(len(verdict.resurrected) for verdict in verdicts)
        self.summary.miscounted += sum(len(verdict.miscounted) for verdict in verdicts)
        self.summary.not_a_prefix += sum(not verdict.is_prefix for verdict in verdicts)
        self.summary.changes_in_log = self._audit.changes
        assert not any(lane.refused for lane in progress), f"the node refused: {progress}"
        self._held = found
        self._see_applied()

    @property
    def _running(self) -> NodeProcess:
        assert self._node is not None
        return self._node

    def _start(self) -> None:
        self._node = NodeProcess(self._data_dir, *VALUES, *self._dice.choice(SIZES))
        ready_s = start(self._node)
        self.summary.ready_s.append(ready_s)
        self.summary.slow_starts += ready_s >= READY_S
        self._see_applied()

    def _see_applied(self) -> None:
        lsn = applied_lsn(self._running.http)
        assert lsn >= self._applied, f"the applied LSN went from {self._applied} to {lsn}"
        self._applied = lsn

    def _kill_node(self, victim: Victim) -> None:
        applier = wait_for_applier(self._data_dir, other_than=0)
        first = self._dice.random() < 0.5
        if victim == "both" and first:
            os.kill(applier, signal.SIGKILL)
            time.sleep(self._dice.uniform(0, GAP_S_MAX))
        self._running.kill()
        if victim == "both" and not first:
            time.sleep(self._dice.uniform(0, GAP_S_MAX))
            with suppress(ProcessLookupError):  # it may have seen the end of its pipe already
                os.kill(applier, signal.SIGKILL)

    def _kill_applier_only(self, load: Load) -> None:
        applier = wait_for_applier(self._data_dir, other_than=0)
        os.kill(applier, signal.SIGKILL)
        wait_for_applier(self._data_dir, other_than=applier)
        time.sleep(self._dice.uniform(0, LOAD_S_MAX / 2))
        self._see_applied()
        load.stop()

    def _kill_while_starting(self) -> None:
        """A recovery that is itself killed, at any point between the first import and the first request."""
        command = [sys.executable, "-m", "edgekv", "serve", "--data-dir", str(self._data_dir), *VALUES, *MIDDLE]
        command += ["--http", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--peer", "127.0.0.1:0"]
        for _ in range(2):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(self._dice.uniform(0, START_S_MAX))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            else:
                raise AssertionError("the node ended by itself")
        wait_for_no_applier(self._data_dir)
        self._audit.look(self._data_dir / "wal")


def main() -> int:
    """Run rounds; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.kill_rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--dir", type=Path, help="keep the node's files here; it must be empty")
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgekv-kill-") as temporary:
        directory = options.dir or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with KillRounds(directory, options.seed) as rounds:
            for number in range(options.rounds):
                rounds.round(VICTIMS[number % len(VICTIMS)])
                if (number + 1) % 10 == 0:
                    print(rounds.summary, flush=True)
    print(rounds.summary)
    return 1 if rounds.summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
