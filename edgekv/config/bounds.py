"""The bounds of every setting, and what goes with what.

A mistake is a ConfigError of one line that names the key, where it was set, and what to write instead. What this release cannot do
yet (``_not_yet``) is refused, never accepted and left without effect.
"""

from collections.abc import Iterator, Mapping

from edgekv import limits
from edgekv.config.settings import (
    DEFAULT_KEYSPACE,
    MEMORY_BYTES_SMALL_MIN,
    NAME,
    OFFLINE_DAYS_MAX,
    RESERVED_PREFIX,
    RETAIN_BYTES_MAX,
    SEGMENT_BYTES_MAX,
    TTL_S_MAX,
    Address,
    Config,
    KeyspaceConfig,
)
from edgekv.errors import ConfigError


def validate(config: Config, sources: Mapping[str, str] | None = None) -> None:
    """ConfigError for the first bound that is not kept; ``sources`` (dotted key -> where it was set) makes it findable."""
    for key, sentence in (*_problems(config), *_not_yet(config)):
        source = (sources or {}).get(key)
        raise ConfigError(f"{key}{f' (from {source})' if source else ''}: {sentence}")


def _problems(config: Config) -> Iterator[tuple[str, str]]:
    """Each bound that is not kept, as (key, sentence)."""
    yield from _identity_problems(config)
    yield from _listener_problems(config)
    yield from _upstream_problems(config)
    yield from _size_problems(config)
    yield from _keyspace_problems(config)


def _identity_problems(config: Config) -> Iterator[tuple[str, str]]:
    if "\0" in str(config.data_dir):
        yield "data_dir", "it holds a zero byte, which no path can have: write another one"
    for key, name in (("node", config.node), ("site", config.site)):
        if not NAME.fullmatch(name):
            yield key, f'"{name}" is not a name: use 1 to 63 letters, digits, dots, dashes or underscores'
    if not 0 <= config.max_offline_days <= OFFLINE_DAYS_MAX:
        yield (
            "max_offline_days",
            f"{config.max_offline_days} is out of range: write 1 to {OFFLINE_DAYS_MAX} days, or 0 for ever",
        )


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


def _upstream_problems(config: Config) -> Iterator[tuple[str, str]]:
    if config.role == "edge" and not config.upstreams:
        yield (
            "role",
            'an edge replicates with a hub: name one with --upstream HOST:PORT or [[upstream]], or write "hub"',
        )
    seen: set[Address] = set()
    for address in (upstream.address for upstream in config.upstreams):
        if not address.is_loopback:
            yield (
                "upstream",
                (
                    f"{address} is on another machine and this release does not encrypt links: put a tunnel to it on this one, "
                    "and name the tunnel's end here"
                ),
            )
        if not address.port:
            yield "upstream", f"{address} has no port to connect to: write the one that its peer listener has"
        if address == config.peer:
            yield "upstream", f"{address} is this node's own peer listener: name that of another node"
        if address in seen:
            yield "upstream", f"{address} is named twice: remove one"
        seen.add(address)


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
    if not 0 <= config.wal.retain_bytes <= RETAIN_BYTES_MAX:
        yield "wal.retain_bytes", f"{config.wal.retain_bytes} is out of range: write 0 to {RETAIN_BYTES_MAX} bytes"
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
    if keyspace.conflict == "siblings" and keyspace.late_write == "drop":
        yield f"{key}.late_write", "a keyspace with siblings keeps what comes late beside the rest: remove it"
    if keyspace.group and keyspace.consistency != "strong":
        yield f"{key}.group", 'only a keyspace with consistency = "strong" has a group: remove it'


def _not_yet(config: Config) -> Iterator[tuple[str, str]]:
    """What a configuration may say and this release cannot do. Accepting it would promise what is not kept."""
    for number, keyspace in enumerate(config.keyspaces):
        if keyspace.consistency == "strong":
            yield (
                f"keyspace[{number}].consistency",
                '"strong" is not in this release yet: write "crdt" or remove the keyspace',
            )


def _nest(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)
