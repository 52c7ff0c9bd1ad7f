"""``keyspaces.json``: which keyspaces this directory holds, under which ids.

Records of the log and rows of the store name keyspaces by id, so ids outlive any configuration file. ``[[keyspace]]`` entries of a
configuration seed this file at the first start; later they may only repeat it (consistency and conflict rule are fixed at creation,
and a prefix that changed its owner would hide the keys below it).

Format 1: ``{"format": 1, "keyspaces": [{"id", "name", "prefix" (hex), "durability", "consistency", "conflict", "ttl_s"}]}``. Id 0 is
the default keyspace, id 1 is ``_meta/``, where EdgeKV keeps what belongs to itself.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID, META_NAME, META_PREFIX, KeyspacePolicy
from edgekv.errors import ConfigError, Corruption, FormatUnknown
from edgekv.ids import KeyspaceId

FORMAT: Final = 1
FILE: Final = "keyspaces.json"

Entry = dict[str, object]


def load_or_seed(directory: Path, configured: Sequence[KeyspaceConfig]) -> list[KeyspacePolicy]:
    """The keyspaces of the directory; on its first start those of the configuration, written down and fsynced.

    Raises ConfigError when the configuration names a keyspace that differs from the one held.
    """
    path = directory / FILE
    if path.exists():
        entries = _read(path)
        _compare(path, entries, configured)
    else:
        entries = _seed(configured)
        _write(path, entries)
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
                    f"keyspace {keyspace.name!r}: the configuration says {field} = {wanted[field]!r}, this directory was created "
                    f"with {mine[field]!r}. Set it back, or start with an empty --data-dir."
                )


def _policy(entry: Entry) -> KeyspacePolicy:
    number, name, prefix, ttl_s = entry["id"], entry["name"], entry["prefix"], entry["ttl_s"]
    assert isinstance(number, int) and isinstance(name, str) and isinstance(prefix, str) and isinstance(ttl_s, int)
    return KeyspacePolicy(
        id=KeyspaceId(number),
        name=name,
        prefix=bytes.fromhex(prefix),
        fsync=entry["durability"] != "buffered",
        system=number == META_ID,
        ttl_ms=ttl_s * 1000,
    )


def _read(path: Path) -> list[Entry]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise FormatUnknown(f"{path} has format {record['format']!r}; this release reads format {FORMAT}.")
        entries: list[Entry] = record["keyspaces"]
        return entries
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corruption(f"{path} cannot be read ({error}). Restore it from a backup.", path=str(path)) from error


def _write(path: Path, entries: list[Entry]) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "keyspaces": entries}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
