"""What a node counts, and its Prometheus text (exposition format 0.0.4).

The hot path calls ``Metrics.ops`` once per run of one verb, which is one dict update whatever the number of operations, and
observes ``Metrics.op_seconds`` once per reply of HTTP, once per payload of RESP (the replies that leave together). A
histogram is a list indexed by ``int.bit_length`` of the integer observed: no search for a bucket, bounds at the powers of two.

Each counter and histogram has ONE writing thread (the event loop; the flusher for the ``wal_`` ones); the exposition, made on
the event loop, may read a value one update old, never a torn one. Gauges are read when asked for: what a gauge shows is
kept by its owner, not here, and so are the counters that an owner keeps for itself. No key names in labels: their number is
unbounded.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BITS: Final = 64
FSYNC_BUCKETS: Final = range(14, 35)  # 2^14 ns = 16 us to 2^34 ns = 17 s
RECORD_BUCKETS: Final = range(1, 16)  # below 2 to below 32,768: a frame closes at 16,384 changes
NO_KEYSPACE: Final = "*"
"""The keyspace of operations without a key: PING, a scan, a batch."""

_OP_SECONDS_HELP: Final = (
    "Time from the arrival of a call that succeeded to its reply. RESP: that of all replies sent together, "
    "once for each command; mixed: of several verbs."
)

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


class Histogram:
    """Counts of non-negative integers by magnitude. ``counts[b]`` is how many had ``bit_length() == b``, so were below 2^b."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (BITS + 1)
        self.total = 0

    def observe(self, value: int, n: int = 1) -> None:
        """Add ``n`` observations of ``value`` (0 to 2^64 - 1, in the unit that the histogram was made for)."""
        self.counts[value.bit_length()] += n
        self.total += value * n

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)


class Figure(NamedTuple):
    """A value read when asked for. ``read`` returns a number, or labelled samples."""

    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[], float | Iterable[Sample]]


class Metrics:
    """The counters of one node. Attributes are written directly by their owners; see the module docstring for threads."""

    def __init__(self) -> None:
        self.operations: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.op_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        """In nanoseconds, by verb, from an operation's arrival to its answer."""
        self.wal_fsync_seconds = Histogram()
        self.wal_batch_records = Histogram()
        self.wal_bytes = 0
        self.figures: dict[str, Figure] = {}

    def ops(self, op: str, keyspace: str, n: int = 1, result: str = "ok") -> None:
        """Count ``n`` operations of one verb. ``result`` is ``ok`` or an error's ``code``."""
        self.operations[op, keyspace, result] += n

    def wal_frame(self, records: int, payload_bytes: int, fsync_nanoseconds: int | None) -> None:
        """Record one frame written by the flusher; ``fsync_nanoseconds`` None: it was written and not synced."""
        self.wal_batch_records.observe(records)
        self.wal_bytes += payload_bytes
        if fsync_nanoseconds is not None:
            self.wal_fsync_seconds.observe(fsync_nanoseconds)

    def gauge(self, name: str, help: str, read: Callable[[], float | Iterable[Sample]]) -> None:  # noqa: A002 - Prometheus' own word
        """Show ``read()`` under ``name`` (``edgekv_..._unit``) from now on."""
        self._show(name, Figure("gauge", help, read))

    def counter(self, name: str, help: str, read: Callable[[], float | Iterable[Sample]]) -> None:  # noqa: A002 - as above
        """Show ``read()``, which never falls while the process lives, under ``name`` (``edgekv_..._total``) from now on."""
        self._show(name, Figure("counter", help, read))

    def _show(self, name: str, figure: Figure) -> None:
        assert name not in self.figures, f"{name} is registered twice"
        self.figures[name] = figure

    def exposition(self) -> str:
        """All of it in Prometheus' text format. Touches no disk; takes well under a millisecond."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _heading("edgekv_ops_total", "Operations answered, by verb, keyspace and result.", "counter")
        for (op, keyspace, result), count in sorted(self.operations.items()):
            yield _sample("edgekv_ops_total", (("op", op), ("keyspace", keyspace), ("result", result)), count)
        yield from _heading("edgekv_op_seconds", _OP_SECONDS_HELP, "histogram")
        for op, histogram in sorted(self.op_seconds.items()):
            yield from _buckets("edgekv_op_seconds", (("op", op),), histogram, FSYNC_BUCKETS, 1e-9)
        yield from _heading("edgekv_wal_fsync_seconds", "Time of one fdatasync of the log.", "histogram")
        yield from _buckets("edgekv_wal_fsync_seconds", (), self.wal_fsync_seconds, FSYNC_BUCKETS, 1e-9)
        yield from _heading("edgekv_wal_batch_records", "Records in one frame (group commit).", "histogram")
        yield from _buckets("edgekv_wal_batch_records", (), self.wal_batch_records, RECORD_BUCKETS, 1)
        yield from _heading("edgekv_wal_bytes_total", "Bytes of records written to the log.", "counter")
        yield _sample("edgekv_wal_bytes_total", (), self.wal_bytes)
        for name, figure in sorted(self.figures.items()):
            yield from _heading(name, figure.help, figure.kind)
            value = figure.read()
            samples: Iterable[Sample] = [((), value)] if isinstance(value, int | float) else value
            yield from (_sample(name, labels, number) for labels, number in samples)


def _heading(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _buckets(name: str, labels: Labels, histogram: Histogram, bits: range, unit: float) -> Iterator[str]:
    """Cumulative buckets at 2^bits (times ``unit``), then sum and count. What lies below the first bound is counted in it."""
    counts = list(histogram.counts)
    for bit in bits:
        yield _sample(f"{name}_bucket", (*labels, ("le", _bound(bit, unit))), sum(counts[: bit + 1]))
    yield _sample(f"{name}_bucket", (*labels, ("le", "+Inf")), sum(counts))
    yield _sample(f"{name}_sum", labels, histogram.total * unit)
    yield _sample(f"{name}_count", labels, sum(counts))


def _bound(bit: int, unit: float) -> str:
    """The inclusive bound of a bucket. An integer below 2^b is at most 2^b - 1, which matters for counts and not for seconds."""
    return str((1 << bit) - 1) if unit == 1 else repr((1 << bit) * unit)
