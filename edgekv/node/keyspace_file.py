"""``keyspaces.json``: which keyspaces this directory holds, under which ids.

Records of the log and rows of the store name keyspaces by id, so ids outlive any configuration file. ``[[keyspace]]`` entries of a
configuration seed this file at the first start; later they may only repeat it (consistency and conflict rule are fixed at creation,
and a prefix that changed its owner would hide the keys below it).

Format 1: ``{"format": 1, "keyspaces": [{"id", "name", "prefix" (hex), "durability", "consistency", "conflict", "ttl_s"}]}``. Id 0 is
the default keyspace, id 1 is ``_meta/``, where EdgeKV keeps what belongs to itself.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from edgekv.config import Conflict, Consistency, Durability, KeyspaceConfig
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID, META_NAME, META_PREFIX, KeyspacePolicy
from edgekv.errors import ConfigError, Corruption, FormatUnknown
from edgekv.ids import KeyspaceId
from edgekv.node.directory import has_log, has_store
from edgekv.node.json_file import replace_file

FORMAT: Final = 1
FILE: Final = "keyspaces.json"

Entry = dict[str, object]

_FIELDS: Final = {
    "id": int,
    "name": str,
    "prefix": str,
    "durability": str,
    "consistency": str,
    "conflict": str,
    "ttl_s": int,
}

_CHOICES: Final = {
    "durability": get_args(Durability),
    "consistency": get_args(Consistency),
    "conflict": get_args(Conflict),
}


def load_or_seed(directory: Path, configured: Sequence[KeyspaceConfig]) -> list[KeyspacePolicy]:
    """The keyspaces of the directory; on its first start those of the configuration, written down and fsynced.

    Call it before a log or a store is made: beside one, a missing file was lost, and what a configuration says today may give its ids
    to other prefixes. Raises Corruption then, and when the file cannot be read; ConfigError when the configuration names a keyspace
    that differs from the one held.
    """
    path = directory / FILE
    if path.exists():
        entries, policies = _read(path)
        _compare(path, entries, configured)
        return policies
    if has_log(directory) or has_store(directory):
        raise Corruption(
            f"{path} is missing, and the log and the store beside it name keyspaces by the ids it gave them. Restore it from a "
            "backup of this directory, or move the directory away and start with an empty one.",
            path=str(path),
        )
    entries = _seed(configured)
    replace_file(path, lambda _: {"format": FORMAT, "keyspaces": entries})
    return [_policy(entry) for entry in entries]


def _seed(configured: Sequence[KeyspaceConfig]) -> list[Entry]:
    meta = _entry(META_ID, KeyspaceConfig(prefix=META_PREFIX, name=META_NAME, durability="fsync"))
    default, *others = configured
    numbered = [_entry(KeyspaceId(META_ID + 1 + i), keyspace) for i, keyspace in enumerate(others)]
    return [_entry(DEFAULT_ID, default), meta, *numbered]


def _entry(number: KeyspaceId, keyspace: KeyspaceConfig) -> Entry:
    return {
        "id": number,
        "name": keyspace.name,
        "prefix": keyspace.prefix.hex(),
        "durability": keyspace.durability,
        "consistency": keyspace.consistency,
        "conflict": keyspace.conflict,
        "ttl_s": keyspace.ttl_s,
    }


def _compare(path: Path, entries: list[Entry], configured: Sequence[KeyspaceConfig]) -> None:
    held = {entry["name"]: entry for entry in entries}
    for keyspace in configured:
        mine = held.get(keyspace.name)
        if mine is None:
            raise ConfigError(
                f"the configuration names the keyspace {keyspace.name!r}, which {path} does not have: "
                "[[keyspace]] entries only seed a new data directory. Take the entry out, or start with an empty --data-dir."
            )
        wanted = _entry(KeyspaceId(0), keyspace)
        for field in ("prefix", "consistency", "conflict", "durability", "ttl_s"):
            if wanted[field] != mine[field]:
                raise ConfigError(
                    f"keyspace {keyspace.name!r}: the configuration says {field} = {_shown(field, wanted)}, this directory was "
                    f"created with {_shown(field, mine)}. Set it back, or start with an empty --data-dir."
                )


def _shown(field: str, entry: Entry) -> str:
    """A field as a configuration would have it."""
    value = entry[field]
    if field == "prefix" and isinstance(value, str):
        value = bytes.fromhex(value).decode("utf-8", "backslashreplace")
    return json.dumps(value)


def _policy(entry: Entry) -> KeyspacePolicy:
    """KeyError, TypeError or ValueError when a field is missing or is none that `_entry` makes."""
    for field, kind in _FIELDS.items():
        if not isinstance(entry[field], kind):
            raise TypeError(f"{field} = {entry[field]!r}")
    for field, known in _CHOICES.items():
        if entry[field] not in known:
            raise ValueError(f"{field} = {entry[field]!r}")
    number, name, prefix, ttl_s = entry["id"], entry["name"], entry["prefix"], entry["ttl_s"]
    assert isinstance(number, int) and isinstance(name, str) and isinstance(prefix, str) and isinstance(ttl_s, int)
    return KeyspacePolicy(
        id=KeyspaceId(number),
        name=name,
        prefix=bytes.fromhex(prefix),
        fsync=entry["durability"] != "buffered",
        system=number == META_ID,
        ttl_ms=ttl_s * 1000,
        siblings=entry["conflict"] == "siblings",
        consistency=str(entry["consistency"]),
    )


def _read(path: Path) -> tuple[list[Entry], list[KeyspacePolicy]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise FormatUnknown(f"{path} has format {record['format']!r}; this release reads format {FORMAT}.")
        entries: list[Entry] = record["keyspaces"]
        policies = [_policy(entry) for entry in entries]
        if not {DEFAULT_ID, META_ID} <= {policy.id for policy in policies}:
            raise ValueError(f"ids {DEFAULT_ID} and {META_ID} are not both there")
        return entries, policies
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corruption(
            f"{path} cannot be read ({type(error).__name__}: {error}). Restore it from a backup of this directory.",
            path=str(path),
        ) from error
