"""The configuration of one node: settings.py says what may be set, bounds.py what is refused, sources.py where it comes from."""

from edgekv.config.bounds import validate
from edgekv.config.settings import (
    NAME,
    TTL_S_MAX,
    Address,
    Config,
    Conflict,
    Consistency,
    Durability,
    KeyspaceConfig,
    LateWrite,
    LimitsConfig,
    UpstreamConfig,
    WalConfig,
    default_memory_bytes,
)
from edgekv.config.sources import KEYS, UPSTREAM, Loaded, environment_name, flag_name, load

__all__ = [
    "KEYS",
    "NAME",
    "TTL_S_MAX",
    "UPSTREAM",
    "Address",
    "Config",
    "Conflict",
    "Consistency",
    "Durability",
    "LateWrite",
    "KeyspaceConfig",
    "LimitsConfig",
    "Loaded",
    "UpstreamConfig",
    "WalConfig",
    "default_memory_bytes",
    "environment_name",
    "flag_name",
    "load",
    "validate",
]
