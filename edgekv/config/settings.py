"""What may be set: each setting with its meaning, unit, bound, default, and what a wrong value costs.

A default stands nowhere else. Sizes are integers with their unit in the name. bounds.py checks them, sources.py reads them.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from edgekv import limits
from edgekv.errors import ConfigError

Role = Literal["hub", "edge"]
ApplierMode = Literal["process", "inline"]
Durability = Literal["fsync", "buffered"]
Consistency = Literal["crdt", "strong"]
Conflict = Literal["lww", "siblings"]
LateWrite = Literal["keep", "drop"]

DEFAULT_KEYSPACE: Final = "default"
RESERVED_PREFIX: Final = b"_meta/"  # What belongs to EdgeKV itself.
SEGMENT_BYTES_MAX: Final = 1 * limits.GIB  # A frame's offset fits far more; recovery reads one whole segment at least.
RETAIN_BYTES_DEFAULT: Final = 1 * limits.GIB
RETAIN_BYTES_MAX: Final = 1 << 50  # Beyond any disk: a unit mistaken for bytes.
MEMORY_BYTES_SMALL_MIN: Final = 1 * limits.MIB
OFFLINE_DAYS_MAX: Final = 3650
OFFLINE_DAYS_DEFAULT: Final = 30
TTL_S_MAX: Final = 100 * 365 * 86_400  # A century: beyond it lies a unit mistaken for seconds.
_LABEL_CHARACTERS_MAX: Final = 63  # DNS's, and that of Python's codec for it.
NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")  # Part of labels, and later of URIs.


class Address(NamedTuple):
    """Where to listen or connect: ``127.0.0.1:7480``, ``[::1]:7480``, ``localhost:0``. Port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``HOST:PORT``; ConfigError when it is not one."""
        host, _, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        bracketed = host == f"[{bare}]"
        if not bare or not port.isascii() or not port.isdigit() or int(port) > 65_535 or (":" in bare) != bracketed:
            raise ConfigError(f'"{text}" is not an address: write HOST:PORT, such as 127.0.0.1:7480 or [::1]:7480')
        if not _is_host(bare):
            raise ConfigError(
                f'"{text}" is not an address: between dots the name of a machine has 1 to 63 characters, and no spaces'
            )
        return cls(bare, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A host name other than ``localhost`` could resolve to anything."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _is_host(name: str) -> bool:
    """Whether a name can be looked up at all: Python raises UnicodeError for others, far from where they were given."""
    if any(character.isspace() for character in name):
        return False
    try:
        labels = [label if label.isascii() else label.encode("idna") for label in name.removesuffix(".").split(".")]
    except UnicodeError:
        return False
    return all(0 < len(label) <= _LABEL_CHARACTERS_MAX for label in labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalConfig:
    """The files of the log (``[wal]``)."""

    segment_bytes: int = limits.SEGMENT_BYTES
    """Size of one segment file in bytes. A multiple of 4096, at least 2 * (limits.value_bytes_max + 64 KiB), at most 1 GiB.
    Too low: the log rolls often, and each roll costs a header and two extra syncs. Too high: log space comes back in big steps
    and a restart may have to read a whole segment again."""

    retain_bytes: int = RETAIN_BYTES_DEFAULT
    """Log kept for other nodes that lag, in bytes, 0 to 1 PiB; two segments always stay.
    Too low: a peer that was away a short while must copy rows instead of reading the log. Too high: disk space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What one client may ask for (``[limits]``)."""

    value_bytes_max: int = limits.VALUE_BYTES_MAX
    """Largest value in bytes, 1 to 16 MiB. Too low: legitimate values are refused with ``too-large``. Too high: one value
    delays every other client's sync by the time the disk takes to write it, and segments must be larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """A node to replicate with (``[[upstream]]``, or ``--upstream`` for each)."""

    address: Address
    """Its peer listener, ``127.0.0.1:7482``. Loopback only, as long as links are not encrypted: the near end of a tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyspaceConfig:
    """One keyspace (``[[keyspace]]``): the policy of all keys below a prefix. Seeds the node's meta at its first start."""

    prefix: bytes
    """Keys that start with it belong here. Prefixes do not nest; the empty one is the default keyspace, which always exists."""

    name: str
    """Its name in metrics, messages and commands; unique. The default keyspace is called ``default``."""

    consistency: Consistency = "crdt"
    """``crdt``: every site writes by itself and copies merge. ``strong``: linearizable through Raft. Fixed at creation."""

    conflict: Conflict = "lww"
    """``lww``: the later of two concurrent values stays. ``siblings``: both stay until a writer joins them. Fixed at creation."""

    durability: Durability | None = None
    """``fsync`` or ``buffered`` (see Config.durability). Absent: the node's."""

    late_write: LateWrite = "keep"
    """Values (of keys, of a map's fields) that a node wrote while it was away longer than max_offline_days. ``keep``: they compare
    with others by the time at which they were written. ``drop``: what others have stays, and they are listed (`cluster conflicts`).
    Additions, increments and removals are kept in any case. Not for siblings, which are all kept. Fixed at creation."""

    sites: tuple[str, ...] = ()
    """The sites that hold it; empty: every site. Hubs hold every keyspace, wherever they stand; listing fewer sites keeps data from
    the edges of the others."""

    ttl_s: int = 0
    """Expiry of keys written without one, in seconds; 0: none. Too low: data is gone before it was read. Too high: disk space."""

    group: str = ""
    """The Raft group of a strong keyspace; empty otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that one node is told. Per node: what a whole cluster must agree on (keyspaces) only seeds its meta."""

    data_dir: Path
    """The node's directory; created when absent. Only local file systems: the log relies on fdatasync and rename."""

    node: str = "node-1"
    """This node's name, unique in the cluster: 1 to 63 letters, digits, dots, dashes or underscores."""

    site: str = "site-1"
    """The place that this node stands in; nodes of one site share a name. Same letters as a node name."""

    role: Role = "hub"
    """``hub``: holds every keyspace. ``edge``: holds its site's keyspaces, and has an upstream. One node alone is a hub."""

    http: Address = Address("127.0.0.1", 7480)
    """The HTTP listener. Loopback only, as long as there is no authentication."""

    resp: Address = Address("127.0.0.1", 7481)
    """The listener of the Redis protocol. Loopback only."""

    peer: Address = Address("127.0.0.1", 7482)
    """The listener for other nodes. Loopback only, as long as they are not authenticated."""

    applier: ApplierMode = "process"
    """``process``: LMDB is written by a child process. ``inline``: by the node itself, 1,000 rows at a time: saves one
    interpreter (about 15 MB) on tiny devices and costs most of the sustained write rate."""

    durability: Durability = "fsync"
    """``fsync``: a write is acknowledged when it would survive a power cut. ``buffered``: when it would survive a kill of the
    process; it is synced within 100 ms, and a power cut may take what those held."""

    memory_bytes: int = field(default_factory=lambda: default_memory_bytes(_ram_bytes()))
    """Bound on rows that are in the log and not yet in LMDB (their bytes and about 300 per row). At least 64 MiB; absent: a
    quarter of RAM, 64 MiB to 1 GiB. Too low: LMDB is fed in small transactions, and the sustained write rate falls to a third.
    Too high: the node takes the machine's memory, and a restart has more log to replay."""

    small_memory: bool = False
    """Accept memory_bytes down to 1 MiB, for tests and the tiniest devices."""

    max_offline_days: int = OFFLINE_DAYS_DEFAULT
    """How long a member may be silent before it is parked, 1 to 3650 days, or 0: for ever. The hub that leads counts. Who was
    parked goes on serving its users, and is admitted again when it comes back. Too low: nodes with long outages, and all that hold
    the same keyspaces, take rows anew when they come back. Too high: tombstones of deleted keys are kept that long while a member
    is away."""

    wal: WalConfig = WalConfig()
    limits: LimitsConfig = LimitsConfig()
    upstreams: tuple[UpstreamConfig, ...] = ()
    """None: this node founds a cluster at its first start. Else it joins theirs; a hub keeps a link to each, an edge to the first that
    answers."""

    keyspaces: tuple[KeyspaceConfig, ...] = ()
    """As declared; ``all_keyspaces`` adds the default one and fills in what they inherit."""

    def all_keyspaces(self) -> tuple[KeyspaceConfig, ...]:
        """The default keyspace first, then the others as declared; each with its durability filled in."""
        declared = self.keyspaces
        if not any(keyspace.prefix == b"" for keyspace in declared):
            declared = (KeyspaceConfig(prefix=b"", name=DEFAULT_KEYSPACE), *declared)
        ordered = sorted(declared, key=lambda keyspace: keyspace.prefix != b"")
        return tuple(_inherit(keyspace, self.durability) for keyspace in ordered)


def default_memory_bytes(ram_bytes: int) -> int:
    """A quarter of the memory, 64 MiB to 1 GiB."""
    return min(max(ram_bytes // 4, limits.MEMORY_BYTES_MIN), limits.MEMORY_BYTES_DEFAULT_MAX)


def _inherit(keyspace: KeyspaceConfig, durability: Durability) -> KeyspaceConfig:
    return keyspace if keyspace.durability is not None else replace(keyspace, durability=durability)


def _ram_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's when that is less (containers)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        bound = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(bound)) if bound.isdigit() else machine
