"""The configuration of one node: what may be set, its bounds, and how its three sources are joined.

``edgekv serve`` (cli/serve.py) calls ``load``: a flag beats an ``EDGEKV_*`` variable, which beats the TOML file, which beats
the default written here. Nothing else in EdgeKV reads a configuration file or its environment, and a default stands nowhere else.
Sizes are integers with their unit in the name.

Every mistake is a ConfigError of one line that names the key, where it was set, and what to write instead. An unknown key in
the file is a mistake too: a typo that is ignored is a setting that is silently not in force. (An unknown ``EDGEKV_*`` variable
is not: Kubernetes sets ``EDGEKV_PORT`` and the like for any service of that name.)

What this release cannot do yet (``_not_yet``) is refused, never accepted and left without effect.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

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
MEMORY_BYTES_SMALL_MIN: Final = 1 * limits.MIB
OFFLINE_DAYS_MAX: Final = 3650
OFFLINE_DAYS_DEFAULT: Final = 30
TTL_S_MAX: Final = 100 * 365 * 86_400  # A century: beyond it lies a unit mistaken for seconds.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WalConfig:
    """The files of the log (``[wal]``)."""

    segment_bytes: int = limits.SEGMENT_BYTES
    """Size of one segment file in bytes. A multiple of 4096, at least 2 * (limits.value_bytes_max + 64 KiB), at most 1 GiB.
    Too low: the log rolls often, and each roll costs a header and two extra syncs. Too high: log space comes back in big steps
    and a restart may have to read a whole segment again."""

    retain_bytes: int = RETAIN_BYTES_DEFAULT
    """Log kept for readers that lag (replication, watchers), in bytes; two segments always stay. A node without such readers keeps
    nothing for them, so this release takes no other value.
    Too low: a peer that was away a short while must copy rows instead of reading the log. Too high: disk space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What one client may ask for (``[limits]``)."""

    value_bytes_max: int = limits.VALUE_BYTES_MAX
    """Largest value in bytes, 1 to 16 MiB. Too low: legitimate values are refused with ``too-large``. Too high: one value
    delays every other client's sync by the time the disk takes to write it, and segments must be larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """A node to replicate with (``[[upstream]]``)."""

    address: Address
    """Its peer listener, ``hub-1.example:7482``."""


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
    """Values that arrive from a node which was away longer than max_offline_days: written again as new, or listed and dropped.
    This release takes ``keep`` only."""

    sites: tuple[str, ...] = ()
    """The sites that hold it; empty: every site. Listing fewer keeps data where it must stay. This release takes no list."""

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
    """``hub``: holds every keyspace, may vote. ``edge``: holds its site's keyspaces and never votes. One node alone is a hub, and this
    release knows no other."""

    http: Address = Address("127.0.0.1", 7480)
    """The HTTP listener. Loopback only, as long as there is no authentication."""

    resp: Address = Address("127.0.0.1", 7481)
    """The listener of the Redis protocol. Loopback only."""

    peer: Address = Address("127.0.0.1", 7482)
    """The listener for other nodes. Loopback only. Reserved: checked, and not opened before there is replication."""

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
    """How long a member may be silent before it must be admitted anew, 1 to 3650 days. Too low: nodes with long outages pay a
    full comparison. Too high: tombstones of deleted keys are kept that long while a member is away. A single node has no members:
    this release takes no other value."""

    wal: WalConfig = WalConfig()
    limits: LimitsConfig = LimitsConfig()
    upstreams: tuple[UpstreamConfig, ...] = ()
    keyspaces: tuple[KeyspaceConfig, ...] = ()
    """As declared; ``all_keyspaces`` adds the default one and fills in what they inherit."""

    def all_keyspaces(self) -> tuple[KeyspaceConfig, ...]:
        """The default keyspace first, then the others as declared; each with its durability filled in."""
        declared = self.keyspaces
        if not any(keyspace.prefix == b"" for keyspace in declared):
            declared = (KeyspaceConfig(prefix=b"", name=DEFAULT_KEYSPACE), *declared)
        ordered = sorted(declared, key=lambda keyspace: keyspace.prefix != b"")
        return tuple(_inherit(keyspace, self.durability) for keyspace in ordered)

    def validate(self, sources: Mapping[str, str] | None = None) -> None:
        """ConfigError for the first bound that is not kept; ``sources`` (dotted key -> where it was set) makes it findable."""
        for key, sentence in (*_problems(self), *_not_yet(self)):
            source = (sources or {}).get(key)
            raise ConfigError(f"{key}{f' (from {source})' if source else ''}: {sentence}")


class Loaded(NamedTuple):
    """A validated configuration, and where each key that was set came from (``file``, a variable, a flag)."""

    config: Config
    sources: dict[str, str]


def load(*, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Join file, environment and flags (dotted key -> value; None: not given) into a validated Config, or raise ConfigError."""
    tables = _read(file) if file is not None else {}
    settings = {key: _Setting(value, str(file)) for key, value in _flatten(tables, str(file)).items()}
    for key in KEYS:
        name = environment_name(key)
        if environ.get(name):
            settings[key] = _Setting(environ[name], name, is_text=True)
    for key, value in flags.items():
        assert key in KEYS, key
        if value is not None:
            settings[key] = _Setting(value, flag_name(key), is_text=isinstance(value, str))
    if "data_dir" not in settings:
        raise ConfigError(
            "no data directory: give --data-dir DIR, EDGEKV_DATA_DIR or data_dir in the configuration file"
        )
    sources = {key: setting.source for key, setting in settings.items()}
    config = Config(
        **{key: _convert(KEYS[key], key, setting) for key, setting in settings.items() if "." not in key},
        wal=WalConfig(**_section(settings, "wal")),
        limits=LimitsConfig(**_section(settings, "limits")),
        upstreams=tuple(UpstreamConfig(**row) for row in _rows(tables, UpstreamConfig, "upstream", str(file))),
        keyspaces=tuple(KeyspaceConfig(**row) for row in _rows(tables, KeyspaceConfig, "keyspace", str(file))),
    )
    config.validate(sources)
    return Loaded(config, sources)


def environment_name(key: str) -> str:
    """``wal.segment_bytes`` -> ``EDGEKV_WAL_SEGMENT_BYTES``."""
    return "EDGEKV_" + key.replace(".", "_").upper()


def flag_name(key: str) -> str:
    """``wal.segment_bytes`` -> ``--wal-segment-bytes``."""
    return "--" + key.replace(".", "-").replace("_", "-")


def default_memory_bytes(ram_bytes: int) -> int:
    """A quarter of the memory, 64 MiB to 1 GiB."""
    return min(max(ram_bytes // 4, limits.MEMORY_BYTES_MIN), limits.MEMORY_BYTES_DEFAULT_MAX)


_SECTIONS: Final[dict[str, type]] = {"wal": WalConfig, "limits": LimitsConfig}
_LISTS: Final[dict[str, type]] = {"upstream": UpstreamConfig, "keyspace": KeyspaceConfig}
_NOT_SCALAR: Final = {"wal", "limits", "upstreams", "keyspaces"}
KEYS: Final[dict[str, Field[Any]]] = {
    **{known.name: known for known in fields(Config) if known.name not in _NOT_SCALAR},
    **{f"{name}.{known.name}": known for name, section in _SECTIONS.items() for known in fields(section)},
}
"""Every setting that is one value, by its dotted key."""


class _Setting(NamedTuple):
    value: object
    source: str
    is_text: bool = False  # From the environment or a flag, where a number arrives as its digits.


def _problems(config: Config) -> Iterator[tuple[str, str]]:
    """Each bound that is not kept, as (key, sentence)."""
    yield from _identity_problems(config)
    yield from _listener_problems(config)
    yield from _size_problems(config)
    yield from _keyspace_problems(config)


def _identity_problems(config: Config) -> Iterator[tuple[str, str]]:
    if "\0" in str(config.data_dir):
        yield "data_dir", "it holds a zero byte, which no path can have: write another one"
    for key, name in (("node", config.node), ("site", config.site)):
        if not NAME.fullmatch(name):
            yield key, f'"{name}" is not a name: use 1 to 63 letters, digits, dots, dashes or underscores'
    if not 1 <= config.max_offline_days <= OFFLINE_DAYS_MAX:
        yield "max_offline_days", f"{config.max_offline_days} is out of range: write 1 to {OFFLINE_DAYS_MAX} days"


def _listener_problems(config: Config) -> Iterator[tuple[str, str]]:
    taken: dict[Address, str] = {}
    for key, address in (("http", config.http), ("resp", config.resp), ("peer", config.peer)):
        if not address.is_loopback:
            yield (
                key,
                (
                    f"{address} can be reached from other machines and this release has no authentication: "
                    f"listen on 127.0.0.1:{address.port} and put a tunnel or an authenticating proxy before it"
                ),
            )
        if address.port and address in taken:
            yield key, f"{address} is already taken by {taken[address]}: give each listener its own port"
        taken[address] = key


def _size_problems(config: Config) -> Iterator[tuple[str, str]]:
    value_max, segment = config.limits.value_bytes_max, config.wal.segment_bytes
    if not 1 <= value_max <= limits.VALUE_BYTES_MAX:
        yield "limits.value_bytes_max", f"{value_max} is out of range: write 1 to {limits.VALUE_BYTES_MAX} bytes"
    segment_min = 2 * (value_max + limits.CHANGE_OVERHEAD_BYTES)
    if not segment_min <= segment <= SEGMENT_BYTES_MAX:
        yield (
            "wal.segment_bytes",
            (
                f"{segment} is out of range: with limits.value_bytes_max = {value_max} write {segment_min} to {SEGMENT_BYTES_MAX} "
                "bytes, or lower limits.value_bytes_max"
            ),
        )
    if segment % limits.SEGMENT_HEADER_BYTES:
        yield "wal.segment_bytes", f"{segment} is not a multiple of {limits.SEGMENT_HEADER_BYTES}: write one that is"
    memory_min = MEMORY_BYTES_SMALL_MIN if config.small_memory else limits.MEMORY_BYTES_MIN
    if config.memory_bytes < memory_min:
        hint = "" if config.small_memory else f", or set small_memory = true to go down to {MEMORY_BYTES_SMALL_MIN}"
        yield "memory_bytes", f"{config.memory_bytes} is too small: write at least {memory_min} bytes{hint}"


def _keyspace_problems(config: Config) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for number, keyspace in enumerate(config.keyspaces):
        key = f"keyspace[{number}]"
        if not NAME.fullmatch(keyspace.name):
            yield f"{key}.name", f'"{keyspace.name}" is not a name: use letters, digits, dots, dashes or underscores'
        if keyspace.name in names:
            yield f"{key}.name", f'"{keyspace.name}" is used twice: give each keyspace its own name'
        names.add(keyspace.name)
        if (keyspace.prefix == b"") != (keyspace.name == DEFAULT_KEYSPACE):
            yield f"{key}.name", f'"{DEFAULT_KEYSPACE}" is the keyspace with the empty prefix, and only that one'
        if len(keyspace.prefix) > limits.KEY_BYTES_MAX:
            yield f"{key}.prefix", f"it has {len(keyspace.prefix)} bytes: shorten it to {limits.KEY_BYTES_MAX}"
        if keyspace.prefix and _nest(keyspace.prefix, RESERVED_PREFIX):
            yield (
                f"{key}.prefix",
                f'it nests with "{RESERVED_PREFIX.decode()}", which EdgeKV keeps for itself: choose another',
            )
        if not 0 <= keyspace.ttl_s <= TTL_S_MAX:
            yield f"{key}.ttl_s", f"{keyspace.ttl_s} is out of range: write 0 to {TTL_S_MAX} seconds"
        for site in keyspace.sites:
            if not NAME.fullmatch(site):
                yield f"{key}.sites", f'"{site}" is not a site name: use letters, digits, dots, dashes or underscores'
        yield from _mode_problems(key, keyspace)
        for other in config.keyspaces[:number]:
            if other.prefix and keyspace.prefix and _nest(other.prefix, keyspace.prefix):
                yield (
                    f"{key}.prefix",
                    f'it nests with that of "{other.name}": choose prefixes none of which begins another',
                )


def _mode_problems(key: str, keyspace: KeyspaceConfig) -> Iterator[tuple[str, str]]:
    if keyspace.conflict == "siblings" and keyspace.consistency == "strong":
        yield f"{key}.conflict", 'a strong keyspace has no concurrent values to keep: write "lww" or remove it'
    if keyspace.group and keyspace.consistency != "strong":
        yield f"{key}.group", 'only a keyspace with consistency = "strong" has a group: remove it'


def _not_yet(config: Config) -> Iterator[tuple[str, str]]:
    """What a configuration may say and this release cannot do. Accepting it would promise what is not kept."""
    if config.upstreams:
        yield "upstream", "this release runs single nodes and cannot replicate yet: remove [[upstream]]"
    if config.role != "hub":
        yield "role", 'this release runs single nodes, and one node alone is a hub: write "hub" or remove it'
    if config.max_offline_days != OFFLINE_DAYS_DEFAULT:
        yield "max_offline_days", "this release runs single nodes, which have no members to wait for: remove it"
    if config.wal.retain_bytes != RETAIN_BYTES_DEFAULT:
        yield (
            "wal.retain_bytes",
            "this release has no readers of the log that could lag, and keeps none for them: remove it",
        )
    for number, keyspace in enumerate(config.keyspaces):
        if keyspace.sites:
            yield f"keyspace[{number}].sites", "this release runs single nodes, which hold every keyspace: remove it"
        if keyspace.late_write != "keep":
            yield f"keyspace[{number}].late_write", "no writes come late to a single node: remove it"
        if keyspace.consistency == "strong":
            yield (
                f"keyspace[{number}].consistency",
                '"strong" is not in this release yet: write "crdt" or remove the keyspace',
            )


def _nest(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def _inherit(keyspace: KeyspaceConfig, durability: Durability) -> KeyspaceConfig:
    if keyspace.durability is not None:
        return keyspace
    values = {known.name: getattr(keyspace, known.name) for known in fields(keyspace)}
    return KeyspaceConfig(**{**values, "durability": durability})


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}; check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error


def _flatten(tables: Mapping[str, object], source: str) -> dict[str, object]:
    """The single values of a parsed file by dotted key; every key is checked to exist."""
    flat: dict[str, object] = {}
    top = [key for key in KEYS if "." not in key] + [*_SECTIONS, *_LISTS]
    for key, value in tables.items():
        _known(key, top, source)
        if key in _SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(f"{key} (from {source}): it is a table: write [{key}] on a line of its own")
            for name, inner in value.items():
                _known(name, [known.name for known in fields(_SECTIONS[key])], f"[{key}] of {source}")
                flat[f"{key}.{name}"] = inner
        elif key not in _LISTS:
            flat[key] = value
    return flat


def _rows(tables: Mapping[str, object], row_type: type, name: str, source: str) -> Iterator[dict[str, Any]]:
    """The rows of ``[[name]]``, converted to the fields of their dataclass."""
    rows = tables.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{name} (from {source}): it is a list of tables: write [[{name}]]")
    known = {field_.name: field_ for field_ in fields(row_type)}
    required = {"keyspace": ("prefix", "name"), "upstream": ("address",)}[name]
    for number, row in enumerate(rows):
        for key in row:
            _known(key, list(known), f"[[{name}]] of {source}")
        for key in required:
            if key not in row:
                raise ConfigError(f"{name}[{number}] (from {source}): it has no {key}: add one")
        yield {key: _convert(known[key], f"{name}[{number}].{key}", _Setting(row[key], source)) for key in row}


def _known(key: str, known: list[str], place: str) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"
        raise ConfigError(f'unknown key "{key}" in {place}: {hint}')


def _section(settings: Mapping[str, _Setting], name: str) -> dict[str, Any]:
    inside = {key: setting for key, setting in settings.items() if key.startswith(f"{name}.")}
    return {key.partition(".")[2]: _convert(KEYS[key], key, setting) for key, setting in inside.items()}


def _convert(known: Field[Any], key: str, setting: _Setting) -> Any:
    """One raw value as the type of its field; ConfigError naming key and source otherwise."""
    value, kind = setting.value, known.type
    place = f"{key} (from {setting.source})"
    if kind in (int, bool) and setting.is_text:
        value = _from_text(str(value), kind)
    if choices := _choices(kind):
        if value not in choices:
            raise ConfigError(f"{place}: it is one of {', '.join(choices)}; not {value!r}")
        return value
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{place}: it is a whole number; not {setting.value!r}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{place}: it is true or false; not {setting.value!r}")
        return value
    if kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f'{place}: it is a list of names, such as ["clinic-2", "cloud"]')
        return tuple(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ConfigError(f"{place}: it is text in quotes; not {value!r}")
    return _from_string(value, kind, place)


def _from_text(text: str, kind: object) -> object:
    """A number or switch that came as text; what cannot be read stays text and is refused by the caller."""
    if kind is bool:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower(), text)
    return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else text


def _from_string(text: str, kind: object, place: str) -> object:
    if kind is Address:
        try:
            return Address.parse(text)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
    if kind is bytes:
        return text.encode()
    if kind is Path:
        return Path(text)
    assert kind is str, kind
    return text


def _choices(kind: object) -> tuple[str, ...]:
    """The words of a Literal, also of ``Literal | None``; empty for any other type."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((get_args(part) for part in get_args(kind) if get_origin(part) is Literal), ())


def _ram_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's when that is less (containers)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        bound = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(bound)) if bound.isdigit() else machine
