"""Runs `redis-benchmark` and reads its report, and its progress line while it runs.

The progress line appears every 250 ms with the mean rate so far; its first one is printed when the clock starts.
Rate so far times time so far is the number of finished requests, which gives the rate of each tenth of one
uninterrupted run, measured by the client.
"""

import itertools
import os
import re
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgekv.config import Address

CONNECTIONS: Final = 50
VALUE_BYTES: Final = 100
KEYS: Final = 1_000_000

_THROUGHPUT: Final = re.compile(rb"throughput summary: ([\d.]+) requests per second")
_LATENCY: Final = re.compile(rb"latency summary \(msec\):\s+avg +min +p50 +p95 +p99 +max\s+([\d. ]+)")
_OVERALL: Final = re.compile(rb"rps=[\d.]+ \(overall: ([\d.]+|-?nan)\)")


class BenchmarkError(Exception):
    """redis-benchmark ended badly, saw an error reply, or took too long."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of one command measured."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    progress: tuple[tuple[float, float], ...]  # (seconds since the start, requests finished), growing

    def tenths_per_s(self) -> tuple[float, ...]:
        """The rate of each tenth of the requests, interpolated between the progress lines."""
        marks = [self._time_at(self.requests * index / 10) for index in range(11)]
        return tuple(self.requests / 10 / (end - start) for start, end in itertools.pairwise(marks))

    def _time_at(self, count: float) -> float:
        before_s, before = 0.0, 0.0
        for at_s, finished in self.progress:
            if finished >= count:
                return before_s + (at_s - before_s) * (count - before) / max(finished - before, 1.0)
            before_s, before = at_s, finished
        return before_s


def run(
    address: Address, command: str, *, pipeline: int, requests: int, keys: int = KEYS, timeout_s: float = 600.0
) -> Report:
    """`command` ("set" or "get") at random keys over 50 connections. Raises BenchmarkError."""
    arguments = command_line(address, command, pipeline=pipeline, requests=requests, keys=keys)
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, progress = _follow(process, timeout_s)
    finally:
        process.kill()
        process.wait()
    return _parsed(output, requests, progress)


def command_line(address: Address, command: str, *, pipeline: int, requests: int, keys: int = KEYS) -> Sequence[str]:
    return (
        *("redis-benchmark", "-h", address.host, "-p", str(address.port), "-t", command, "-n", str(requests)),
        *("-r", str(keys), "-d", str(VALUE_BYTES), "-P", str(pipeline), "-c", str(CONNECTIONS)),
    )


def _follow(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, list[tuple[float, float]]]:
    assert process.stdout is not None
    output, progress = bytearray(), list[tuple[float, float]]()
    deadline, seen = time.monotonic() + timeout_s, 0
    started: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise BenchmarkError(f"redis-benchmark was not finished after {timeout_s} s")
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return bytes(output), progress
            now = time.monotonic()
            output += chunk
            for match in _OVERALL.finditer(output, seen):
                seen = match.end()
                started = now if started is None else started
                if b"nan" not in match[1]:
                    progress.append((now - started, float(match[1]) * (now - started)))


def _parsed(output: bytes, requests: int, progress: list[tuple[float, float]]) -> Report:
    throughput, latency = _THROUGHPUT.search(output), _LATENCY.search(output)
    if throughput is None or latency is None or b"rror from server" in output:
        raise BenchmarkError(f"redis-benchmark said: {output.decode(errors='replace')[-500:]}")
    _avg, _min, p50, _p95, p99, worst = map(float, latency[1].split()[:6])
    per_s = float(throughput[1])
    growing = [(0.0, 0.0)]
    for at_s, finished in progress:
        if growing[-1][1] < finished < requests and at_s > growing[-1][0]:
            growing.append((at_s, finished))
    # The end is known exactly; a progress line later than it would make the last tenth negative.
    end = (requests / per_s, float(requests))
    growing = [point for point in growing if point[0] < end[0]] + [end]
    return Report(requests, per_s, p50, p99, worst, tuple(growing))
